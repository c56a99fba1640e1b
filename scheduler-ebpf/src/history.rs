//! Which earlier messages are like this one.

use scheduler_common::{
    flow::{Hashing, Story},
    history::HISTORY_ENTRIES,
    sample::Hook,
};

use crate::{hash, parse::Headers};

/// Where a mean stands: index and tag of its entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Index of the entry.
    pub index: u32,
    /// Its tag, never 0.
    pub tag: u32,
}

/// Places of messages like the one of direction `half`: by service, and by service and the far end's network.
///
/// The packet of `headers` travels in direction `packet_half` and was seen at `hook`; the far end is
/// who it goes to on egress, and who it comes from on ingress.
#[inline(always)]
pub fn places(
    headers: &Headers,
    story: &Story,
    (half, step_half): (u32, u32),
    (hook, ifindex): (Hook, u32),
    hashing: &Hashing,
) -> [Place; 2] {
    let from_service = u64::from(u32::from(story.service_half) == half);
    // The direction in which the message crosses the interface.
    let outward = u64::from(matches!(hook, Hook::Egress)) ^ u64::from(half ^ step_half);
    let kind = u64::from(story.service_port)
        | u64::from(headers.protocol) << 16
        | from_service << 24
        | outward << 25
        | u64::from(ifindex) << 32;
    let network = network(headers, hook);
    // A bit that no address has, for "all networks".
    let all = 1;
    [
        place(hash::kind(kind, all, hashing)),
        place(hash::kind(kind, network << 1, hashing)),
    ]
}

/// The far end's network: 24 bits of an IPv4 address, the upper 48 of an IPv6 address in the upper bits.
#[inline(always)]
pub const fn network(headers: &Headers, hook: Hook) -> u64 {
    let far = match hook {
        Hook::Egress => &headers.dst_addr,
        Hook::Ingress => &headers.src_addr,
    };
    if headers.ip_version == 4 {
        (far[0] >> 8) as u64
    } else {
        (far[0] as u64) << 32 | (far[1] & 0xffff_0000) as u64
    }
}

#[inline(always)]
fn place(hash: u64) -> Place {
    Place {
        index: hash as u32 & (HISTORY_ENTRIES as u32 - 1),
        tag: (hash >> 32) as u32 | 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::TCP;

    fn hashing() -> Hashing {
        Hashing {
            multipliers: std::array::from_fn(|i| {
                0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(i as u64 * 2 + 3)
            }),
            sample_key: [1, 2],
            set_mask: 0,
            _pad: 0,
        }
    }

    #[test]
    fn a_message_has_the_same_places_whichever_packet_tells_of_it() {
        let to_client = Headers {
            src_addr: [0x0a00_0001, 0, 0, 0],
            dst_addr: [0x0a09_0007, 0, 0, 0],
            src_port: 80,
            dst_port: 5000,
            protocol: TCP,
            ip_version: 4,
            ..Headers::default()
        };
        let to_service = Headers {
            src_addr: to_client.dst_addr,
            dst_addr: to_client.src_addr,
            src_port: 5000,
            dst_port: 80,
            ..to_client
        };
        let story = Story {
            service_port: 80,
            service_half: 1,
            ..Story::default()
        };
        let k = hashing();
        let reply = places(&to_client, &story, (1, 1), (Hook::Egress, 3), &k);
        let told_by_request = places(&to_service, &story, (1, 0), (Hook::Ingress, 3), &k);
        assert_eq!(reply, told_by_request);
        let request = places(&to_service, &story, (0, 0), (Hook::Ingress, 3), &k);
        assert_ne!(request[0], reply[0]);
        assert_ne!(reply[0], reply[1]);
        let neighbour = Headers {
            dst_addr: [0x0a09_00ff, 0, 0, 0],
            ..to_client
        };
        assert_eq!(
            places(&neighbour, &story, (1, 1), (Hook::Egress, 3), &k),
            reply
        );
        let stranger = Headers {
            dst_addr: [0x0a0a_0007, 0, 0, 0],
            ..to_client
        };
        let [service, network] = places(&stranger, &story, (1, 1), (Hook::Egress, 3), &k);
        assert_eq!(service, reply[0]);
        assert_ne!(network, reply[1]);
    }

    #[test]
    fn a_network_is_the_far_ends_24_or_48_bits() {
        let v4 = |src: u32, dst: u32| Headers {
            src_addr: [src, 0, 0, 0],
            dst_addr: [dst, 0, 0, 0],
            ip_version: 4,
            ..Headers::default()
        };
        let (near, far) = (0x0a00_0001, 0x0a09_0007);
        let egress = network(&v4(near, far), Hook::Egress);
        assert_eq!(network(&v4(far, near), Hook::Ingress), egress);
        assert_eq!(network(&v4(near, far ^ 0xff), Hook::Egress), egress);
        assert_ne!(network(&v4(near, far ^ 0x100), Hook::Egress), egress);
        let v6 = |dst: [u32; 4]| Headers {
            dst_addr: dst,
            ip_version: 6,
            ..Headers::default()
        };
        let far = [0xfd00_1234, 0x5678_9abc, 1, 2];
        let egress = network(&v6(far), Hook::Egress);
        let neighbour = [far[0], far[1] ^ 0xffff, 7, 8];
        assert_eq!(network(&v6(neighbour), Hook::Egress), egress);
        let stranger = [far[0], far[1] ^ 0x1_0000, 1, 2];
        assert_ne!(network(&v6(stranger), Hook::Egress), egress);
    }
}
