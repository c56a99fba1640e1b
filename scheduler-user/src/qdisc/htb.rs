//! HTB's netlink attributes, and the hierarchy in terms of them.

use netlink_packet_core::DefaultNla;

use super::{
    Plan, QDISC_MAJOR, class_handle,
    netlink::{ROOT, TCA_OPTIONS, TcObject, emit_attributes, find, parse_attributes},
};

/// Our root qdisc, `7e:`.
pub(super) const ROOT_HANDLE: u32 = (QDISC_MAJOR as u32) << 16;
/// The class that all bands borrow from, `7e:ff`.
pub(super) const LINK_CLASS: u32 = ROOT_HANDLE | 0xff;

pub(super) const TCA_HTB_PARMS: u16 = 1;
pub(super) const TCA_HTB_INIT: u16 = 2;
const TCA_HTB_RATE64: u16 = 6;
const TCA_HTB_CEIL64: u16 = 7;
pub(super) const TCA_HTB_OFFLOAD: u16 = 9;

/// The interface version that the kernel asks for when an htb qdisc is made.
pub(super) const HTB_VERSION: u32 = 3;
/// Divisor that gives a class's quantum where none is set; ours all set one.
pub(super) const RATE_TO_QUANTUM: u32 = 10;
const LINKLAYER_ETHERNET: u8 = 1;
/// `struct tc_ratespec`: the rate follows 8 bytes of table parameters.
const RATESPEC_BYTES: usize = 12;
const OPT_BYTES: usize = 2 * RATESPEC_BYTES + 5 * 4;

/// What a class may send at once when it has been idle, measured to cost no throughput.
const BURST_BYTES: u64 = 16_000;
/// Above 640 Mbit/s the burst must bridge the time until a timer fires.
const BURST_US: u64 = 200;
/// A band's burst at its guaranteed rate: one packet, so that it hardly delays higher bands.
const GUARANTEED_BURST_BYTES: u64 = 1600;
/// What a band may send in its turn among bands of equal priority, measured to work well.
pub(super) const QUANTUM_BYTES: u32 = 60_000;
/// The kernel counts buffers in ticks of this length.
pub(super) const TICK_NS: u64 = 64;

/// Parameters of a class as the kernel reads and writes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ClassOptions {
    pub(super) rate_bps: u64,
    pub(super) ceil_bps: u64,
    pub(super) burst_ticks: u32,
    pub(super) ceil_burst_ticks: u32,
    pub(super) quantum_bytes: u32,
    pub(super) priority: u32,
}

impl ClassOptions {
    /// The class that stands for the link.
    pub(super) fn link(plan: &Plan) -> Self {
        let burst_ticks = ticks(burst_bytes(plan.rate_bps), plan.rate_bps);
        Self {
            rate_bps: plan.rate_bps,
            ceil_bps: plan.rate_bps,
            burst_ticks,
            ceil_burst_ticks: burst_ticks,
            quantum_bytes: QUANTUM_BYTES,
            priority: 0,
        }
    }

    /// A band's class.
    pub(super) fn band(plan: &Plan, band: u8) -> Self {
        let rate_bps = plan.rate_of(band);
        Self {
            rate_bps,
            burst_ticks: ticks(guaranteed_burst_bytes(plan, band), rate_bps),
            priority: band.into(),
            ..Self::link(plan)
        }
    }

    pub(super) fn emit(&self) -> Vec<u8> {
        let (rate, ceil) = (self.rate_bps / 8, self.ceil_bps / 8);
        let mut opt = Vec::with_capacity(OPT_BYTES);
        opt.extend(ratespec(rate));
        opt.extend(ratespec(ceil));
        let level = 0_u32;
        for word in [
            self.burst_ticks,
            self.ceil_burst_ticks,
            self.quantum_bytes,
            level,
            self.priority,
        ] {
            opt.extend(word.to_ne_bytes());
        }
        let mut attributes = vec![DefaultNla::new(TCA_HTB_PARMS, opt)];
        for (kind, bytes_per_second) in [(TCA_HTB_RATE64, rate), (TCA_HTB_CEIL64, ceil)] {
            if u32::try_from(bytes_per_second).is_err() {
                attributes.push(DefaultNla::new(
                    kind,
                    bytes_per_second.to_ne_bytes().to_vec(),
                ));
            }
        }
        emit_attributes(&attributes)
    }

    pub(super) fn parse(class: &TcObject) -> Option<Self> {
        let nested = parse_attributes(&class.attribute(TCA_OPTIONS)?).ok()?;
        let opt = find(&nested, TCA_HTB_PARMS)?;
        let word = |at: usize| Some(u32::from_ne_bytes(opt.get(at..at + 4)?.try_into().ok()?));
        let wide = |kind| Some(u64::from_ne_bytes(find(&nested, kind)?.try_into().ok()?));
        let rate = wide(TCA_HTB_RATE64).or(Some(word(8)?.into()))?;
        let ceil = wide(TCA_HTB_CEIL64).or(Some(word(RATESPEC_BYTES + 8)?.into()))?;
        let words = 2 * RATESPEC_BYTES;
        Some(Self {
            rate_bps: rate * 8,
            ceil_bps: ceil * 8,
            burst_ticks: word(words)?,
            ceil_burst_ticks: word(words + 4)?,
            quantum_bytes: word(words + 8)?,
            priority: word(words + 16)?,
        })
    }
}

/// `struct tc_ratespec`. With the link layer given the kernel needs no rate table.
fn ratespec(bytes_per_second: u64) -> [u8; RATESPEC_BYTES] {
    let rate = u32::try_from(bytes_per_second)
        .unwrap_or(u32::MAX)
        .to_ne_bytes();
    [
        0,
        LINKLAYER_ETHERNET,
        0,
        0,
        0,
        0,
        0,
        0,
        rate[0],
        rate[1],
        rate[2],
        rate[3],
    ]
}

pub(super) fn burst_bytes(rate_bps: u64) -> u64 {
    BURST_BYTES.max(rate_bps / 8 * BURST_US / 1_000_000)
}

/// What a band may send at once within the rate that it is sure of.
///
/// That of the top band takes whole microseconds, in which `tc` counts: at its rate they are many bytes.
pub(super) fn guaranteed_burst_bytes(plan: &Plan, band: u8) -> u64 {
    const US_PER_S: u64 = 1_000_000;
    if band > 0 {
        return GUARANTEED_BURST_BYTES;
    }
    let bytes_per_s = (plan.rate_of(band) / 8).max(1);
    let burst_us = (GUARANTEED_BURST_BYTES * US_PER_S).div_ceil(bytes_per_s);
    (burst_us * bytes_per_s).div_ceil(US_PER_S)
}

/// The time that so many bytes take at this rate.
fn ticks(bytes: u64, rate_bps: u64) -> u32 {
    let ns = u128::from(bytes) * 8 * 1_000_000_000 / u128::from(rate_bps.max(1));
    u32::try_from(ns / u128::from(TICK_NS)).unwrap_or(u32::MAX)
}

/// Our root qdisc; what is not classified goes to band 0.
pub(super) fn root_qdisc() -> TcObject {
    let default_minor = class_handle(0) & 0xffff;
    let (debug, direct_packets) = (0, 0);
    let mut init = Vec::new();
    for word in [
        HTB_VERSION,
        RATE_TO_QUANTUM,
        default_minor,
        debug,
        direct_packets,
    ] {
        init.extend(word.to_ne_bytes());
    }
    let options = emit_attributes(&[DefaultNla::new(TCA_HTB_INIT, init)]);
    TcObject::new(ROOT_HANDLE, ROOT, "htb", Some(options))
}

/// The classes of the plan, the parent first.
pub(super) fn classes(plan: &Plan) -> Vec<TcObject> {
    let link = ClassOptions::link(plan).emit();
    let mut classes = vec![TcObject::new(LINK_CLASS, ROOT_HANDLE, "htb", Some(link))];
    classes.extend((0..plan.bands).map(|band| {
        let options = ClassOptions::band(plan, band).emit();
        TcObject::new(class_handle(band), LINK_CLASS, "htb", Some(options))
    }));
    classes
}

/// The band of one of our leaf classes.
pub(super) fn band_of(class: u32) -> Option<u8> {
    let minor = class.checked_sub(ROOT_HANDLE)?;
    let band = u8::try_from(minor).ok()?.checked_sub(1)?;
    (band < super::MAX_BANDS).then_some(band)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_qdisc_is_laid_out_as_the_kernel_reads_it() {
        let root = root_qdisc();
        assert_eq!((root.handle, root.parent), (0x007e_0000, 0xffff_ffff));
        assert_eq!(root.attribute(1).unwrap(), b"htb\0");
        let mut expected = vec![24, 0, 2, 0];
        for word in [3_u32, 10, 1, 0, 0] {
            expected.extend(word.to_ne_bytes());
        }
        assert_eq!(root.attribute(TCA_OPTIONS).unwrap(), expected);
    }

    #[test]
    fn a_class_is_laid_out_as_the_kernel_reads_it() {
        let plan = Plan {
            guaranteed_bps: Some(1_000_000),
            ..Plan::new(100_000_000)
        };
        let bytes = ClassOptions::band(&plan, 3).emit();
        assert_eq!(bytes.len(), 4 + 44);
        assert_eq!(bytes[..4], [48, 0, 1, 0]);
        let word = |at: usize| u32::from_ne_bytes(bytes[4 + at..8 + at].try_into().unwrap());
        assert_eq!(
            (bytes[5], bytes[17]),
            (LINKLAYER_ETHERNET, LINKLAYER_ETHERNET)
        );
        assert_eq!((word(8), word(20)), (125_000, 12_500_000));
        // 1600 bytes at 1 Mbit/s and 16000 bytes at 100 Mbit/s, in units of 64 ns.
        assert_eq!((word(24), word(28)), (200_000, 20_000));
        assert_eq!((word(32), word(36), word(40)), (60_000, 0, 3));
    }

    #[test]
    fn rates_beyond_32_bits_of_bytes_are_sent_wide_and_read_back() {
        let plan = Plan::new(400_000_000_000);
        let options = ClassOptions::link(&plan);
        let bytes = options.emit();
        assert_eq!(bytes[4 + 8..4 + 12], [0xff; 4]);
        assert_eq!(bytes.len(), 48 + 2 * 12);
        let class = TcObject::new(LINK_CLASS, ROOT_HANDLE, "htb", Some(bytes));
        assert_eq!(ClassOptions::parse(&class), Some(options));
    }

    #[test]
    fn bands_and_classes_map_both_ways() {
        assert_eq!(class_handle(0), 0x007e_0001);
        for band in 0..super::super::MAX_BANDS {
            assert_eq!(band_of(class_handle(band)), Some(band));
        }
        for other in [ROOT_HANDLE, LINK_CLASS, 0x0001_0001, class_handle(8)] {
            assert_eq!(band_of(other), None, "{other:x}");
        }
    }

    #[test]
    fn the_burst_grows_with_fast_links() {
        assert_eq!(burst_bytes(100_000_000), 16_000);
        assert_eq!(burst_bytes(10_000_000_000), 250_000);
    }
}
