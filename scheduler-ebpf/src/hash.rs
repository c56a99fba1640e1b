//! Keyed hash of a flow, so that nobody can aim at a bucket or undo a sample.

use scheduler_common::flow::FlowKey;

/// SipHash-1-3 of a flow key (Aumasson and Bernstein, 2012, with one and three rounds).
#[inline(always)]
pub fn flow_hash(key: &FlowKey, secret: [u64; 2]) -> u64 {
    let [k0, k1] = secret;
    let mut v = [
        k0 ^ 0x736f_6d65_7073_6575,
        k1 ^ 0x646f_7261_6e64_6f6d,
        k0 ^ 0x6c79_6765_6e65_7261,
        k1 ^ 0x7465_6462_7974_6573,
    ];
    for word in words(key) {
        v[3] ^= word;
        round(&mut v);
        v[0] ^= word;
    }
    let last = (size_of::<FlowKey>() as u64) << 56;
    v[3] ^= last;
    round(&mut v);
    v[0] ^= last;
    v[2] ^= 0xff;
    round(&mut v);
    round(&mut v);
    round(&mut v);
    v[0] ^ v[1] ^ v[2] ^ v[3]
}

#[inline(always)]
fn words(key: &FlowKey) -> [u64; 6] {
    let pair = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
    [
        pair(key.low_addr[0], key.low_addr[1]),
        pair(key.low_addr[2], key.low_addr[3]),
        pair(key.high_addr[0], key.high_addr[1]),
        pair(key.high_addr[2], key.high_addr[3]),
        pair(
            u32::from(key.low_port) | u32::from(key.high_port) << 16,
            key.ifindex,
        ),
        u64::from(key.protocol) | u64::from(key.ip_version) << 8,
    ]
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
    use std::hash::Hasher as _;

    use proptest::prelude::*;
    use siphasher::sip::SipHasher13;

    use super::*;

    proptest! {
        #[test]
        fn it_is_the_siphash_that_others_compute(
            low_addr: [u32; 4], high_addr: [u32; 4], low_port: u16, high_port: u16,
            ifindex: u32, protocol: u8, ip_version: u8, secret: [u64; 2],
        ) {
            let key = FlowKey {
                low_addr, high_addr, low_port, high_port, ifindex, protocol, ip_version,
                _pad: [0; 6],
            };
            let mut reference = SipHasher13::new_with_keys(secret[0], secret[1]);
            for word in words(&key) {
                reference.write(&word.to_le_bytes());
            }
            prop_assert_eq!(flow_hash(&key, secret), reference.finish());
        }
    }
}
