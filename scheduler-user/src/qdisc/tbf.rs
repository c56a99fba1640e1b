//! TBF's options, completed so that a replay keeps the burst.

use netlink_packet_core::DefaultNla;

use super::{
    htb::TICK_NS,
    netlink::{emit_attributes, find, parse_attributes},
};

const TCA_TBF_PARMS: u16 = 1;
const TCA_TBF_RATE64: u16 = 4;
const TCA_TBF_PRATE64: u16 = 5;
const TCA_TBF_BURST: u16 = 6;
const TCA_TBF_PBURST: u16 = 7;
/// Offsets in `struct tc_tbf_qopt`.
const RATE: usize = 0;
const PEAK_RATE: usize = 12;
const BUFFER: usize = 28;
const PEAK_BUFFER: usize = 32;
const LINKLAYER_ETHERNET: u8 = 1;

/// Adds the burst sizes in bytes, which the kernel does not dump.
///
/// From the dumped ticks alone the kernel would round the largest accepted packet down, and a tbf
/// whose burst is one packet would then drop every full packet.
pub(super) fn with_burst(dumped: Vec<u8>) -> Vec<u8> {
    completed(&dumped).unwrap_or(dumped)
}

fn completed(dumped: &[u8]) -> Option<Vec<u8>> {
    let mut nested = parse_attributes(dumped).ok()?;
    let opt = find(&nested, TCA_TBF_PARMS)?;
    for (rate_at, wide, buffer_at, attribute) in [
        (RATE, TCA_TBF_RATE64, BUFFER, TCA_TBF_BURST),
        (PEAK_RATE, TCA_TBF_PRATE64, PEAK_BUFFER, TCA_TBF_PBURST),
    ] {
        let spec = opt.get(rate_at..rate_at + 12)?;
        let narrow = u32::from_ne_bytes(spec[8..12].try_into().ok()?);
        let rate = find(&nested, wide)
            .and_then(|raw| Some(u64::from_ne_bytes(raw.try_into().ok()?)))
            .unwrap_or_else(|| narrow.into());
        let overhead = u16::from_ne_bytes(spec[2..4].try_into().ok()?);
        if rate == 0 || overhead != 0 || spec[1] & 0xf != LINKLAYER_ETHERNET {
            continue;
        }
        let ticks = u32::from_ne_bytes(opt.get(buffer_at..buffer_at + 4)?.try_into().ok()?);
        let burst = burst_bytes(ticks, rate);
        nested.push(DefaultNla::new(attribute, burst.to_ne_bytes().to_vec()));
    }
    Some(emit_attributes(&nested))
}

/// The most bytes whose time at this rate is still dumped as so many ticks.
fn burst_bytes(ticks: u32, bytes_per_second: u64) -> u32 {
    let ns_after = (u128::from(ticks) + 1) * u128::from(TICK_NS);
    let bytes = (ns_after * u128::from(bytes_per_second)).saturating_sub(1) / 1_000_000_000;
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_burst_is_the_largest_that_dumps_alike() {
        for (rate, burst) in [
            (1_250_000_u64, 15_000_u64),
            (125_000_000, 1514),
            (7_777, 1600),
        ] {
            let ticks = |bytes: u64| bytes * 1_000_000_000 / rate / TICK_NS;
            let found = u64::from(burst_bytes(ticks(burst) as u32, rate));
            assert!(found >= burst, "{found} {burst}");
            assert_eq!(ticks(found), ticks(burst));
            assert_ne!(ticks(found + 1), ticks(burst));
        }
    }
}
