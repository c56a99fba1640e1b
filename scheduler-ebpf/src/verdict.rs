//! Predicted size and bytes sent → band.

use scheduler_common::{
    flow::{Half, StoryHalf, half_flags},
    settings::Settings,
};

use crate::flow::saturate;

/// Whether a prediction could change the message's band.
#[inline(always)]
pub const fn asks(half: &Half, settings: &Settings) -> bool {
    half.bytes > settings.first_bytes && half.flags & half_flags::STREAM == 0
}

/// Notes what a model says the message has still to come.
///
/// Where another one, or none, has put it below the top, a message is *held* from here on: an exchange of models must
/// not lower at once all the open messages whose guess lies near a cut.
#[inline(always)]
pub fn take(half: &mut Half, page: &mut StoryHalf, bytes_to_come: u64, generation_slot: u8) {
    let sum = half.bytes as u64 + bytes_to_come;
    page.predicted_bytes = saturate(sum);
    let by_this =
        half.flags & half_flags::PREDICTED != 0 && half.generation_slot == generation_slot;
    if half.band > 0 && !by_this {
        half.flags |= half_flags::HELD;
    }
    half.generation_slot = generation_slot;
    half.flags |= half_flags::PREDICTED;
}

/// What the predicted size counts as: of a held message less by a quarter of a factor of two, 2^(-1/4) = 0.841.
#[inline(always)]
pub const fn counted_size(half: &Half, page: &StoryHalf) -> u32 {
    let guess = page.predicted_bytes;
    // 1 - 1/8 - 1/32 = 0.844; a product where a branch would be, for the verifier follows both ways of that.
    let held = (half.flags / half_flags::HELD) as u32 & 1;
    guess - ((guess >> 3) + (guess >> 5)) * held
}

/// The band that a guess alone would give a message that has sent so much.
#[inline(always)]
pub fn alone(bytes: u32, bytes_to_come: u64, settings: &Settings) -> u8 {
    settings.cuts.band_of(bytes as u64 + bytes_to_come)
}

/// Settles the band of the current message, and up to which size it stands.
///
/// The band is that of the larger of bytes sent and predicted size, so a wrong "short" is corrected
/// as the message grows. It never rises before the next message: later packets would overtake
/// earlier ones, and TCP takes that for loss. The first bytes stay on top, whatever the guess, and so does a
/// [stream](crate::stream), which has settled it already.
#[inline(always)]
pub fn settle(half: &mut Half, page: &StoryHalf, settings: &Settings) {
    if half.flags & half_flags::STREAM != 0 {
        return;
    }
    let cuts = &settings.cuts;
    let mut band = cuts.band_of(u64::from(half.bytes));
    let mut until_bytes = cuts.end_of(band);
    if asks(half, settings) {
        if half.flags & half_flags::PREDICTED != 0 {
            band = band.max(cuts.band_of(u64::from(counted_size(half, page))));
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

    /// A message of 700 kB whose model is exchanged: bytes to come by the one before, and by the one after.
    fn exchanged(before: Option<u64>, after: u64) -> [u8; 2] {
        let settings = Settings::default();
        let mut half = Half {
            bytes: 700_000,
            ..Half::default()
        };
        let mut page = StoryHalf::default();
        if let Some(to_come) = before {
            take(&mut half, &mut page, to_come, 3);
        }
        settle(&mut half, &page, &settings);
        let stood = half.band;
        // Later decision points of the same message are held to the same.
        for _ in 0..2 {
            take(&mut half, &mut page, after, 4);
            settle(&mut half, &page, &settings);
        }
        [stood, half.band]
    }

    #[test]
    fn an_exchange_of_models_lowers_only_what_is_clear_of_a_cut() {
        // The cut above band 4 is at 1.5 MB; 2^(1/4) times that is 1.78 MB.
        assert_eq!(exchanged(Some(600_000), 900_000), [4, 4]);
        assert_eq!(exchanged(Some(600_000), 1_000_000), [4, 4]);
        assert_eq!(exchanged(Some(600_000), 1_100_000), [4, 5]);
        assert_eq!(exchanged(Some(600_000), 9_000_000), [4, 7]);
        // Aging, too, has given its band.
        assert_eq!(exchanged(None, 1_000_000), [4, 4]);
        assert_eq!(exchanged(None, 1_100_000), [4, 5]);
    }

    #[test]
    fn one_model_and_a_message_that_was_on_top_are_not_held() {
        let settings = Settings::default();
        let mut half = Half {
            bytes: 16_000,
            ..Half::default()
        };
        let mut page = StoryHalf::default();
        for (to_come, band) in [(2_000, 1), (24_001, 2), (110_000, 3)] {
            take(&mut half, &mut page, to_come, 4);
            settle(&mut half, &page, &settings);
            assert_eq!((half.band, half.flags & half_flags::HELD), (band, 0));
        }
    }

    #[test]
    fn sizes_near_the_largest_stay_numbers() {
        let half = Half {
            flags: half_flags::HELD,
            ..Half::default()
        };
        for guess in [0, 1, 7, 8, u32::MAX] {
            let page = StoryHalf {
                predicted_bytes: guess,
                ..StoryHalf::default()
            };
            let counted = counted_size(&half, &page);
            let exact = f64::from(guess) * 2f64.powf(-0.25);
            assert!(
                (f64::from(counted) - exact).abs() <= 2.0 + 0.004 * exact,
                "{guess}: {counted}"
            );
            assert_eq!(counted_size(&Half::default(), &page), guess);
        }
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
