//! Predicted size and bytes sent → band.

use scheduler_common::{
    flow::{Half, StoryHalf, half_flags},
    settings::Settings,
};

/// Whether a prediction could change the band of a message that has sent so much.
#[inline(always)]
pub const fn asks(bytes: u32, settings: &Settings) -> bool {
    bytes > settings.first_bytes
}

/// Settles the band of the current message, and up to which size it stands.
///
/// The band is that of the larger of bytes sent and predicted size, so a wrong "short" is corrected
/// as the message grows. It never rises before the next message: later packets would overtake
/// earlier ones, and TCP takes that for loss. The first bytes stay on top, whatever the guess.
#[inline(always)]
pub fn settle(half: &mut Half, page: &StoryHalf, settings: &Settings) {
    let cuts = &settings.cuts;
    let mut band = cuts.band_of(u64::from(half.bytes));
    let mut until_bytes = cuts.end_of_band(half.bytes);
    if asks(half.bytes, settings) {
        if half.flags & half_flags::PREDICTED != 0 {
            band = band.max(cuts.band_of(u64::from(page.predicted_bytes)));
        }
    } else {
        until_bytes = until_bytes.min(settings.first_bytes);
    }
    half.until_bytes = until_bytes;
    half.band = band.max(half.band);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(half: &mut Half, predicted_bytes: u32) -> u8 {
        let page = StoryHalf {
            predicted_bytes,
            ..StoryHalf::default()
        };
        if predicted_bytes > 0 {
            half.flags = half_flags::PREDICTED;
        }
        settle(half, &page, &Settings::default());
        half.band
    }

    #[test]
    fn without_a_prediction_bytes_sent_decide() {
        let mut half = Half::default();
        let bands: Vec<u8> = [1_000, 15_000, 20_000, 160_000, 20_000_000]
            .into_iter()
            .map(|bytes| {
                half.bytes = bytes;
                settled(&mut half, 0)
            })
            .collect();
        assert_eq!(bands, [0, 0, 1, 3, 7]);
    }

    #[test]
    fn it_stands_until_the_next_cut_or_the_end_of_the_first_bytes() {
        let until = |bytes, first_bytes| {
            let settings = Settings {
                first_bytes,
                ..Settings::default()
            };
            let mut half = Half {
                bytes,
                ..Half::default()
            };
            settle(&mut half, &StoryHalf::default(), &settings);
            half.until_bytes
        };
        assert_eq!(until(1, 15_000), 15_000);
        assert_eq!(until(1, 5_000), 5_000);
        assert_eq!(until(15_001, 15_000), 40_000);
        assert_eq!(until(15_001, 20_000), 20_000);
        assert_eq!(until(6_000_001, 15_000), u32::MAX);
    }

    #[test]
    fn the_first_bytes_stay_on_top_whatever_the_guess() {
        let mut half = Half {
            bytes: 15_000,
            ..Half::default()
        };
        assert_eq!(settled(&mut half, 1 << 30), 0);
        half.bytes = 15_001;
        assert_eq!(settled(&mut half, 1 << 30), 7);
    }

    #[test]
    fn a_better_guess_does_not_lift_a_message() {
        let mut half = Half {
            bytes: 40_000,
            ..Half::default()
        };
        assert_eq!(settled(&mut half, 2_000_000), 5);
        assert_eq!(settled(&mut half, 60_000), 5);
    }

    #[test]
    fn a_wrong_short_guess_is_aged() {
        let mut half = Half {
            bytes: 2_000_000,
            ..Half::default()
        };
        assert_eq!(settled(&mut half, 100), 5);
    }
}
