//! Keyed hashes: of a flow for its place, of that for samples.

use scheduler_common::flow::{Hashing, MULTIPLIERS};

use crate::parse::Headers;

/// Which flow a packet belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Keyed hash of the flow, the same for both directions; never 0.
    pub tag: u64,
    /// Direction of the packet: index of the half.
    pub half: u32,
}

/// Who sends and who receives, on which interface.
///
/// Sums of products as in the multilinear hash of Lemire and Kaser ("Strongly universal string hashing is fast",
/// 2014) over 32-bit words, first of each end, then of the two ends with one pair of multipliers, so that
/// directions need not be put in order: for whoever does not know the multipliers, two flows share a set with the
/// probability of chance, and take each other's entry (64 bits) with one of at most 2^-30. The
/// multiplications do not wait for one another, so it costs a fraction of a cipher.
#[inline(always)]
pub fn identify(headers: &Headers, ifindex: u32, hashing: &Hashing) -> Identity {
    let k = &hashing.multipliers;
    let mut src = words(headers.src_addr[0], u32::from(headers.src_port), k[0], k[1]);
    let mut dst = words(headers.dst_addr[0], u32::from(headers.dst_port), k[0], k[1]);
    if headers.ip_version != 4 {
        src = src.wrapping_add(rest(&headers.src_addr, k));
        dst = dst.wrapping_add(rest(&headers.dst_addr, k));
    }
    // The sign of a difference of 32 bits each: an order without a branch, for directions come at random.
    let half = ((dst >> 32).wrapping_sub(src >> 32) >> 32) & 1;
    let place = u32::from(headers.protocol) << 8 | u32::from(headers.ip_version);
    let sum = pair(src, k[6], k[7])
        .wrapping_add(pair(dst, k[6], k[7]))
        .wrapping_add(words(ifindex, place, k[8], k[9]));
    // The upper bits are the universal ones; the lower get their share.
    Identity {
        tag: (sum ^ sum >> 32) | 1,
        half: half as u32,
    }
}

/// Index of the flow's set.
#[inline(always)]
pub const fn set_of(tag: u64, hashing: &Hashing) -> u32 {
    (tag >> 32) as u32 & hashing.set_mask
}

/// The entry of the set that is looked at first.
#[inline(always)]
pub const fn first_way(tag: u64) -> u32 {
    (tag >> 1) as u32
}

/// What of an address IPv4 has not.
#[inline(always)]
fn rest(addr: &[u32; 4], k: &[u64; MULTIPLIERS]) -> u64 {
    words(addr[1], addr[2], k[2], k[3]).wrapping_add(words(addr[3], 0, k[4], k[5]))
}

#[inline(always)]
fn pair(word: u64, k0: u64, k1: u64) -> u64 {
    words(word as u32, (word >> 32) as u32, k0, k1)
}

#[inline(always)]
fn words(a: u32, b: u32, k0: u64, k1: u64) -> u64 {
    (u64::from(a).wrapping_add(k0)).wrapping_mul(u64::from(b).wrapping_add(k1))
}

/// Keyed hash of what messages of one kind have in common.
#[inline(always)]
pub fn kind(kind: u64, network: u64, hashing: &Hashing) -> u64 {
    let k = &hashing.multipliers;
    let sum = pair(kind, k[0], k[1]).wrapping_add(pair(network, k[2], k[3]));
    sum ^ sum >> 32
}

/// The name of a flow in samples: SipHash-1-3 (Aumasson and Bernstein, 2012) of its tag.
///
/// Tags are no secret's keeper: who sees many and knows some of the flows could find the multipliers. What
/// leaves the kernel goes through this.
#[inline(always)]
pub fn sample_name(tag: u64, hashing: &Hashing) -> u64 {
    let [k0, k1] = hashing.sample_key;
    let mut v = [
        k0 ^ 0x736f_6d65_7073_6575,
        k1 ^ 0x646f_7261_6e64_6f6d,
        k0 ^ 0x6c79_6765_6e65_7261,
        k1 ^ 0x7465_6462_7974_6573,
    ];
    v[3] ^= tag;
    round(&mut v);
    v[0] ^= tag;
    let last = (size_of::<u64>() as u64) << 56;
    v[3] ^= last;
    round(&mut v);
    v[0] ^= last;
    v[2] ^= 0xff;
    round(&mut v);
    round(&mut v);
    round(&mut v);
    v[0] ^ v[1] ^ v[2] ^ v[3]
}

/// The name of a network in samples: half of the same cipher's answer for it.
#[inline(always)]
pub fn network_name(network: u64, hashing: &Hashing) -> u32 {
    sample_name(network, hashing) as u32
}

#[inline(always)]
fn round(v: &mut [u64; 4]) {
    v[0] = v[0].wrapping_add(v[1]);
    v[2] = v[2].wrapping_add(v[3]);
    v[1] = v[1].rotate_left(13) ^ v[0];
    v[3] = v[3].rotate_left(16) ^ v[2];
    v[0] = v[0].rotate_left(32);
    v[2] = v[2].wrapping_add(v[1]);
    v[0] = v[0].wrapping_add(v[3]);
    v[1] = v[1].rotate_left(17) ^ v[2];
    v[3] = v[3].rotate_left(21) ^ v[0];
    v[2] = v[2].rotate_left(32);
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, hash::Hasher as _};

    use proptest::prelude::*;
    use siphasher::sip::SipHasher13;

    use super::*;
    use crate::parse::{TCP, UDP};

    /// Multipliers of a generator that is none of those that userspace uses.
    fn hashing(seed: u64) -> Hashing {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed ^ mixed >> 31
        };
        Hashing {
            multipliers: std::array::from_fn(|_| next()),
            sample_key: [next(), next()],
            set_mask: (1 << 14) - 1,
            _pad: 0,
        }
    }

    fn headers(src: u32, dst: u32, ports: (u16, u16)) -> Headers {
        Headers {
            src_addr: [src, 0, 0, 0],
            dst_addr: [dst, 0, 0, 0],
            src_port: ports.0,
            dst_port: ports.1,
            protocol: TCP,
            ip_version: 4,
            ..Headers::default()
        }
    }

    proptest! {
        #[test]
        fn both_directions_have_one_tag_and_two_halves(
            src: [u32; 4], dst: [u32; 4], ports: (u16, u16), seed: u64,
        ) {
            prop_assume!((src, ports.0) != (dst, ports.1));
            let there = Headers {
                src_addr: src, dst_addr: dst, src_port: ports.0, dst_port: ports.1,
                protocol: UDP, ip_version: 6, ..Headers::default()
            };
            let back = Headers {
                src_addr: dst, dst_addr: src, src_port: ports.1, dst_port: ports.0, ..there
            };
            let k = hashing(seed);
            let (a, b) = (identify(&there, 3, &k), identify(&back, 3, &k));
            prop_assert_eq!(a.tag, b.tag);
            // But for one pair in 2^32, whose directions are then taken for one.
            prop_assert_eq!(a.half ^ b.half, 1);
            prop_assert_ne!(identify(&there, 4, &k).tag, a.tag);
            prop_assert_ne!(identify(&there, 3, &hashing(seed.wrapping_add(1))).tag, a.tag);
            let other = Headers { protocol: TCP, ..there };
            prop_assert_ne!(identify(&other, 3, &k).tag, a.tag);
        }

        #[test]
        fn sample_names_are_the_siphash_that_others_compute(tag: u64, seed: u64) {
            let k = hashing(seed);
            let mut reference = SipHasher13::new_with_keys(k.sample_key[0], k.sample_key[1]);
            reference.write(&tag.to_le_bytes());
            prop_assert_eq!(sample_name(tag, &k), reference.finish());
        }
    }

    #[test]
    fn flows_that_differ_in_little_spread_like_chance() {
        for seed in 0..20 {
            let k = hashing(seed);
            let mut tags = HashSet::new();
            let mut load = vec![0u32; 1 << 14];
            for flow in 0..65_536u32 {
                // Neighbouring ports and hosts, and swapped ports, which a sum would confuse.
                let (a, b) = ((flow & 0xff) as u16, (flow >> 8 & 0xff) as u16);
                let identity = identify(&headers(1, 2, (a, b)), 1, &k);
                tags.insert(identity.tag);
                load[set_of(identity.tag, &k) as usize] += 1;
            }
            // (1:a, 2:b) and (1:b, 2:a) are two flows.
            assert_eq!(tags.len(), 65_536, "seed {seed}");
            // Of 16 384 sets with 4 flows each on average, chance leaves 1.8 % empty and 0.1 % above 11.
            let empty = load.iter().filter(|n| **n == 0).count();
            let full = load.iter().filter(|n| **n > 11).count();
            assert!((100..600).contains(&empty), "seed {seed}: {empty} empty");
            assert!(full < 100, "seed {seed}: {full} crowded");
        }
    }
}
