//! Bytes sent and predicted size → band.

use scheduler_common::{flow::Half, settings::Settings};

/// Settles the band of the current message and returns it.
///
/// The band is that of the larger of bytes sent and predicted size, so a wrong "short" is corrected
/// as the message grows. It never rises before the next message: later packets would overtake
/// earlier ones, and TCP takes that for loss. The first bytes stay on top, whatever the guess.
#[inline(always)]
pub fn settle(half: &mut Half, settings: &Settings) -> u8 {
    let mut band = settings.cuts.band_of(half.bytes);
    if half.bytes > u64::from(settings.first_bytes) {
        band = band.max(settings.cuts.band_of(half.predicted_bytes));
    }
    if band > half.band {
        half.band = band;
    }
    half.band
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_prediction_bytes_sent_decide() {
        let mut half = Half::default();
        let settings = Settings::default();
        let bands: Vec<u8> = [1_000, 15_000, 20_000, 160_000, 20_000_000]
            .into_iter()
            .map(|bytes| {
                half.bytes = bytes;
                settle(&mut half, &settings)
            })
            .collect();
        assert_eq!(bands, [0, 0, 1, 3, 7]);
    }

    #[test]
    fn the_first_bytes_stay_on_top_whatever_the_guess() {
        let mut half = Half {
            predicted_bytes: 1 << 30,
            bytes: 15_000,
            ..Half::default()
        };
        let settings = Settings::default();
        assert_eq!(settle(&mut half, &settings), 0);
        half.bytes = 15_001;
        assert_eq!(settle(&mut half, &settings), 7);
    }

    #[test]
    fn a_better_guess_does_not_lift_a_message() {
        let settings = Settings::default();
        let mut half = Half {
            predicted_bytes: 2_000_000,
            bytes: 40_000,
            ..Half::default()
        };
        assert_eq!(settle(&mut half, &settings), 5);
        half.predicted_bytes = 60_000;
        assert_eq!(settle(&mut half, &settings), 5);
    }

    #[test]
    fn a_wrong_short_guess_is_aged() {
        let settings = Settings::default();
        let mut half = Half {
            predicted_bytes: 100,
            bytes: 2_000_000,
            ..Half::default()
        };
        assert_eq!(settle(&mut half, &settings), 5);
    }
}
