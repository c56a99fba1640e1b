//! What finished messages of a service, or of a service and peer, were.

/// Entries of the table: one place for each hash, the newest stays.
pub const HISTORY_ENTRIES: usize = 1 << 14;

/// Running mean over messages of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "user",
    derive(
        zerocopy::FromBytes,
        zerocopy::IntoBytes,
        zerocopy::Immutable,
        zerocopy::KnownLayout
    )
)]
#[repr(C)]
pub struct HistoryEntry {
    /// Upper half of the keyed hash of what the messages have in common.
    pub tag: u32,
    /// Mean of log2(1 + bytes), in 1/256; each message moves it by an eighth of the way, the first few by more.
    pub log2_q8: u16,
    /// Messages so far, at most 8.
    pub messages: u16,
}

const _: () = assert!(size_of::<HistoryEntry>() == 8);

impl HistoryEntry {
    /// Messages from which each weighs an eighth.
    pub const WINDOW: u16 = 8;

    /// Adds a message of `bytes` bytes.
    #[inline(always)]
    pub fn add(&mut self, bytes: u32) {
        if self.messages < Self::WINDOW {
            self.messages += 1;
        }
        let step = i32::from(log2_q8(bytes)) - i32::from(self.log2_q8);
        // Eighths: 1/n for n = 1 to 8, rounded, without a division of signed numbers.
        const EIGHTHS: u64 = 0x01_01_01_02_02_03_04_08_u64;
        let shift = (u32::from(self.messages).wrapping_sub(1) & 7) * 8;
        let eighths = (EIGHTHS >> shift) as i32 & 0xff;
        self.log2_q8 = (i32::from(self.log2_q8) + ((step * eighths) >> 3)) as u16;
    }
}

/// log2(1 + bytes) in 1/256, at most 0.09 too low: the fraction is the mantissa's.
#[inline(always)]
pub const fn log2_q8(bytes: u32) -> u16 {
    let value = bytes as u64 + 1;
    let mut high = value;
    let mut exponent = 0;
    let mut step = 32;
    // Five halvings; the kernel's instruction set has no count of leading zeros.
    while step > 0 {
        // 1 where the upper part holds something.
        let above = ((high >> step) != 0) as u32;
        high >>= above * step;
        exponent += above * step;
        step >>= 1;
    }
    let fraction = ((value << 8) >> exponent) as u32 & 0xff;
    (exponent << 8 | fraction) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_logarithm_is_near_the_real_one() {
        for bytes in (0..1000).chain((10..32).map(|bit| (1 << bit) + 12_345 % (1 << bit))) {
            let real = (f64::from(bytes) + 1.0).log2() * 256.0;
            assert!((f64::from(log2_q8(bytes)) - real).abs() < 23.0, "{bytes}");
        }
        assert_eq!(log2_q8(u32::MAX), 32 << 8);
    }

    #[test]
    fn the_mean_follows_the_messages() {
        let mut entry = HistoryEntry::default();
        entry.add(1 << 20);
        assert_eq!(entry.log2_q8, log2_q8(1 << 20));
        entry.add(1 << 10);
        let between = i32::from(entry.log2_q8) - (15 << 8);
        assert!(between.abs() < 16, "{entry:?}");
        for _ in 0..100 {
            entry.add(1 << 10);
        }
        let apart = i32::from(entry.log2_q8) - i32::from(log2_q8(1 << 10));
        assert!(apart.abs() <= 8, "{entry:?}");
        assert_eq!(entry.messages, HistoryEntry::WINDOW);
    }
}
