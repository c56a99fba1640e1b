//! What a band does to a packet besides its priority: arithmetic and units.

/// [`Settings::dscp`](crate::settings::Settings::dscp) of a band whose packets keep their DSCP.
pub const KEEP_DSCP: u8 = 0xff;

/// Largest DSCP: six bits.
pub const MAX_DSCP: u8 = 63;

/// Farthest departure time that pacing gives, from now.
///
/// `fq` drops what departs beyond its own horizon, ten seconds by default (kernel 6.18
/// `net/sched/sch_fq.c`, `fq_packet_beyond_horizon`); a packet that would depart later than this leaves
/// at this time, and is counted.
pub const PACE_HORIZON_NS: u64 = 2_000_000_000;

/// Slowest pace: a full packet takes less than two seconds.
pub const MIN_PACE_BPS: u64 = 8_000;

/// The ECN bits of the IPv4 TOS and IPv6 traffic class byte.
const ECN_MASK: u8 = 3;

/// The two bytes at the head of an IPv4 or IPv6 header with another DSCP; `None` where nothing changes.
///
/// Both versions have the byte of DSCP and ECN within their first two: IPv4 as the second one, IPv6 four
/// bits off. The other bits stay, ECN among them.
#[inline(always)]
pub const fn marked(head: [u8; 2], dscp: u8) -> Option<[u8; 2]> {
    let [first, second] = head;
    let marked = match first >> 4 {
        4 => [first, dscp << 2 | second & ECN_MASK],
        6 => {
            let class = first << 4 | second >> 4;
            let class = dscp << 2 | class & ECN_MASK;
            [0x60 | class >> 4, class << 4 | second & 0x0f]
        }
        _ => return None,
    };
    if marked[0] == first && marked[1] == second {
        None
    } else {
        Some(marked)
    }
}

/// [`Settings::pace`](crate::settings::Settings::pace) of a rate: nanoseconds that 256 bytes take.
pub const fn pace_of(rate_bps: u64) -> u32 {
    const BITS: u64 = 256 * 8;
    let rate_bps = if rate_bps < MIN_PACE_BPS {
        MIN_PACE_BPS
    } else {
        rate_bps
    };
    // At the slowest pace 256 ms; never 0, which would be "not paced".
    let ns = BITS * 1_000_000_000 / rate_bps;
    if ns == 0 { 1 } else { ns as u32 }
}

/// Time that so many bytes take at a pace.
#[inline(always)]
pub const fn duration_ns(pace: u32, bytes: u32) -> u64 {
    (pace as u64).wrapping_mul(bytes as u64) >> 8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ecn_and_flow_label_stay() {
        assert_eq!(marked([0x45, 0b0000_0010], 46), Some([0x45, 0b1011_1010]));
        assert_eq!(marked([0x4f, 0b1011_1001], 0), Some([0x4f, 0b0000_0001]));
        assert_eq!(marked([0x60, 0x3a], 46), Some([0x6b, 0xba]));
        for head in 0..=u16::MAX {
            let [first, second] = head.to_be_bytes();
            let class = head >> 4;
            let (version, label) = (first >> 4, second & 0x0f);
            for dscp in [0, 1, 46, MAX_DSCP] {
                let Some(new) = marked([first, second], dscp) else {
                    continue;
                };
                assert_ne!(new, [first, second]);
                match version {
                    4 => assert_eq!(new, [first, dscp << 2 | second & 3]),
                    6 => {
                        let after = u16::from_be_bytes(new) >> 4;
                        assert_eq!(after & 0xff, u16::from(dscp) << 2 | class & 3);
                        assert_eq!((new[0] >> 4, new[1] & 0x0f), (6, label));
                    }
                    _ => panic!("version {version} was changed"),
                }
            }
        }
    }

    #[test]
    fn what_has_the_dscp_already_is_not_written() {
        assert_eq!(marked([0x45, 46 << 2 | 1], 46), None);
        assert_eq!(marked([0x60, 0x0f], 0), None);
        assert_eq!(marked([0x55, 0], 46), None);
    }

    #[test]
    fn paces_keep_their_rates() {
        // 1500 bytes at 12 Mbit/s take a millisecond.
        let ns = duration_ns(pace_of(12_000_000), 1500);
        assert!((999_000..=1_000_000).contains(&ns), "{ns}");
        assert_eq!(duration_ns(pace_of(MIN_PACE_BPS), 1000), 1_000_000_000);
        assert_eq!(pace_of(0), pace_of(MIN_PACE_BPS));
        assert_eq!(pace_of(u64::MAX), 1);
        assert_eq!(duration_ns(0, 1500), 0);
    }
}
