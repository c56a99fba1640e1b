//! Why a message is in its band, and not in another.

use scheduler_common::{
    class::BANDS,
    flow::{Half, StoryHalf, half_flags},
};
use scheduler_ebpf::{stream::WINDOW_BYTES, verdict};
use serde::{Deserialize, Serialize};

use crate::model::{Thresholds, human_bytes, rules::human_time};

/// The band of a message and what made it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Verdict {
    /// The band; 0 is served first.
    pub band: u8,
    /// Band of the bytes sent so far.
    pub by_bytes: u8,
    /// Band of the predicted size; absent if no model has judged the message.
    pub by_prediction: Option<u8>,
    /// Whether it is among the first bytes, of which no guess is heeded.
    pub first_bytes: bool,
    /// Whether it is a stream, small packets at a low rate, which stay on top whatever they come to.
    pub stream: bool,
    /// What made the band.
    pub why: String,
    /// Why it is not served sooner.
    pub why_not_sooner: String,
    /// Why it is not served later.
    pub why_not_later: String,
}

impl Verdict {
    /// The verdict on the current message of a direction, under bands that are cut there; a stream takes at least
    /// `stream_window_us` for each window.
    pub fn of(
        half: &Half,
        page: &StoryHalf,
        (thresholds, stream_window_us): (&Thresholds, u32),
    ) -> Self {
        let predicted = half.flags & half_flags::PREDICTED != 0;
        let by_bytes = thresholds.band_of(f64::from(half.bytes));
        let by_prediction =
            predicted.then(|| thresholds.band_of(f64::from(verdict::counted_size(half, page))));
        let first_bytes = half.bytes <= thresholds.first_bytes;
        let told = Told {
            sent: human_bytes(f64::from(half.bytes)),
            predicted: human_bytes(f64::from(page.predicted_bytes)),
            first: human_bytes(f64::from(thresholds.first_bytes)),
            cuts: thresholds.cuts_bytes.map(|cut| human_bytes(f64::from(cut))),
            packet: human_bytes(f64::from(half.bytes) / f64::from(half.packets.max(1))),
            until: human_bytes(f64::from(half.until_bytes)),
            window: human_time(f64::from(stream_window_us)),
        };
        let held = half.flags & half_flags::HELD != 0;
        let mut verdict = Self {
            band: half.band,
            by_bytes,
            by_prediction,
            first_bytes,
            stream: half.flags & half_flags::STREAM != 0,
            why: String::new(),
            why_not_sooner: String::new(),
            why_not_later: String::new(),
        };
        verdict.why = verdict.why(&told);
        if held {
            verdict.why.push_str(
                " (what acts was exchanged meanwhile: the guess counts for 16 % less, so that only a clear one lowers the band)",
            );
        }
        verdict.why_not_sooner = verdict.why_not_sooner(&told);
        verdict.why_not_later = verdict.why_not_later(&told);
        verdict
    }

    fn why(&self, told: &Told) -> String {
        let Self { band, .. } = self;
        let Told {
            sent,
            predicted,
            first,
            packet,
            window,
            ..
        } = told;
        if self.stream {
            return format!(
                "a stream: {sent} in small packets ({packet} in the mean) stay in band 0, whatever they come to, as long as \
                 each {WINDOW_BYTES} bytes of them take at least {window}"
            );
        }
        let guess = match self.by_prediction {
            Some(band) => format!("predicted {predicted} (band {band})"),
            None => "no model has judged it".to_owned(),
        };
        if self.first_bytes {
            return format!(
                "the first {first} of a message go by bytes sent alone, {sent} so far, whatever the prediction; {guess}"
            );
        }
        let larger = self.by_bytes.max(self.by_prediction.unwrap_or(0));
        match larger.cmp(band) {
            std::cmp::Ordering::Equal => {
                format!(
                    "the larger of {sent} sent (band {}) and the guess: {guess}",
                    self.by_bytes
                )
            }
            std::cmp::Ordering::Less => format!(
                "an earlier guess put it in band {band}, and within a message a band only falls; now {sent} sent (band \
                 {}), {guess}",
                self.by_bytes
            ),
            std::cmp::Ordering::Greater => {
                format!(
                    "settled at its last decision point; the next one finds {sent} sent (band {}), {guess}",
                    self.by_bytes
                )
            }
        }
    }

    fn why_not_sooner(
        &self,
        Told {
            sent,
            predicted,
            cuts,
            ..
        }: &Told,
    ) -> String {
        let Some(cut) = usize::from(self.band)
            .checked_sub(1)
            .and_then(|below| cuts.get(below))
        else {
            return "it is in the top band".to_owned();
        };
        if self.by_bytes >= self.band {
            format!(
                "it has sent {sent}, more than the {cut} that band {} ends at",
                self.band - 1
            )
        } else if self.by_prediction >= Some(self.band) {
            format!(
                "it is predicted to have {predicted}, more than the {cut} that band {} ends at",
                self.band - 1
            )
        } else {
            "a band only falls before the next message: overtaking is loss to TCP".to_owned()
        }
    }

    fn why_not_later(
        &self,
        Told {
            sent,
            predicted,
            first,
            cuts,
            until,
            ..
        }: &Told,
    ) -> String {
        if usize::from(self.band) == BANDS - 1 {
            return "it is in the last band".to_owned();
        }
        if self.stream {
            return format!(
                "streams do not age: its {sent} alone would put it in band {}; it is looked at again beyond {until}",
                self.by_bytes
            );
        }
        if self.first_bytes {
            return match self.by_prediction {
                Some(band) if band > self.band => {
                    format!(
                        "only {sent} are sent: beyond {first} the prediction puts it in band {band}"
                    )
                }
                _ => format!("only {sent} are sent, and up to {first} no prediction puts it lower"),
            };
        }
        let cut = cuts.get(usize::from(self.band)).map_or("", String::as_str);
        match self.by_prediction {
            Some(_) => format!("neither {sent} sent nor {predicted} predicted exceed {cut}"),
            None => format!("{sent} sent do not exceed {cut}"),
        }
    }
}

/// Sizes in words.
struct Told {
    sent: String,
    predicted: String,
    first: String,
    /// The mean packet.
    packet: String,
    /// Where it is looked at again.
    until: String,
    /// Least time of a stream's window.
    window: String,
    cuts: [String; BANDS - 1],
}

#[cfg(test)]
mod tests {
    use scheduler_common::settings::Settings;

    use super::*;

    fn verdict(bytes: u32, predicted: Option<u32>, band: u8) -> Verdict {
        let flags = if predicted.is_some() {
            half_flags::PREDICTED
        } else {
            0
        };
        let half = Half {
            bytes,
            band,
            flags,
            ..Half::ZERO
        };
        let page = StoryHalf {
            predicted_bytes: predicted.unwrap_or(0),
            ..StoryHalf::default()
        };
        let thresholds = Thresholds {
            cuts_bytes: [
                15_000, 40_000, 120_000, 600_000, 1_500_000, 3_000_000, 6_000_000,
            ],
            first_bytes: 15_000,
        };
        Verdict::of(&half, &page, (&thresholds, 100_000))
    }

    #[test]
    fn a_stream_is_called_one() {
        let half = Half {
            bytes: 172_000,
            packets: 1000,
            until_bytes: 176_096,
            flags: half_flags::STREAM,
            ..Half::ZERO
        };
        let thresholds = Thresholds::from(&Settings::default());
        let call = Verdict::of(&half, &StoryHalf::default(), (&thresholds, 100_000));
        assert!(
            call.stream && (call.band, call.by_bytes) == (0, 3),
            "{call:?}"
        );
        assert!(
            call.why.starts_with("a stream") && call.why.contains("172 B in the mean"),
            "{call:?}"
        );
        assert!(call.why.contains("at least 100 ms"), "{call:?}");
        assert!(call.why_not_sooner.contains("top band"), "{call:?}");
        assert!(
            call.why_not_later.contains("band 3") && call.why_not_later.contains("176 kB"),
            "{call:?}"
        );
        assert!(!verdict(172_000, None, 3).stream);
    }

    #[test]
    fn each_rule_is_named_where_it_holds() {
        let early = verdict(9_000, Some(2_000_000), 0);
        assert!(
            early.first_bytes && early.why.contains("first 15 kB"),
            "{early:?}"
        );
        assert!(early.why_not_later.contains("band 5"), "{early:?}");
        assert!(early.why_not_sooner.contains("top band"), "{early:?}");

        // Cuts of the host's own may lie within the first bytes.
        let cut_within = Thresholds {
            cuts_bytes: [
                3_000, 40_000, 120_000, 600_000, 1_500_000, 3_000_000, 6_000_000,
            ],
            first_bytes: 15_000,
        };
        let within = Verdict::of(
            &Half {
                bytes: 9_000,
                band: 1,
                ..Half::ZERO
            },
            &StoryHalf::default(),
            (&cut_within, 100_000),
        );
        assert!(
            within.why.contains("by bytes sent alone, 9.0 kB"),
            "{within:?}"
        );
        assert!(
            within.why_not_sooner.contains("more than the 3.0 kB"),
            "{within:?}"
        );
        assert!(!format!("{within:?}").contains("band 0:"), "{within:?}");

        let guessed = verdict(20_000, Some(2_000_000), 5);
        assert_eq!((guessed.by_bytes, guessed.by_prediction), (1, Some(5)));
        assert!(
            guessed.why_not_sooner.contains("predicted to have 2.0 MB"),
            "{guessed:?}"
        );
        assert!(
            guessed.why_not_later.contains("exceed 3.0 MB"),
            "{guessed:?}"
        );

        let aged = verdict(700_000, None, 4);
        assert!(aged.why.contains("no model"), "{aged:?}");
        assert!(aged.why_not_sooner.contains("sent 700 kB"), "{aged:?}");
        assert!(
            aged.why_not_later.contains("do not exceed 1.5 MB"),
            "{aged:?}"
        );

        let stuck = verdict(20_000, Some(30_000), 5);
        assert!(
            stuck.why.contains("only falls") && stuck.why_not_sooner.contains("overtaking"),
            "{stuck:?}"
        );
        assert!(
            verdict(9_000_000, None, 7)
                .why_not_later
                .contains("last band")
        );
    }
}
