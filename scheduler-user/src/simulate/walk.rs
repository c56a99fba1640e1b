//! A message's way through the bands, by the kernel program's own verdict and its own rule for streams.

use scheduler_common::{
    flow::{Half, StoryHalf, half_flags},
    settings::Settings,
};
use scheduler_ebpf::{
    flow::saturate,
    stream::{self, Found, WINDOW_BYTES},
    verdict,
};

use super::Paths;

/// Bytes after which a stream is looked at anew, where packets are as small as can be.
const STRIDE_BYTES: u64 = WINDOW_BYTES as u64 + 1;

/// How far a message is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Place {
    pub(super) bytes: u64,
    pub(super) packets: f64,
    pub(super) time_us: f64,
}

/// How packets and time go with bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Pace {
    packets_per_byte: f64,
    us_per_byte: f64,
}

impl Pace {
    /// Evenly from one place to the other.
    pub(super) fn between(from: Place, to: Place) -> Self {
        let bytes = to.bytes.saturating_sub(from.bytes).max(1) as f64;
        Self {
            packets_per_byte: (to.packets - from.packets).max(0.0) / bytes,
            us_per_byte: (to.time_us - from.time_us).max(0.0) / bytes,
        }
    }

    /// That of a whole message of which these are the first and the last place that were seen. One alone tells no
    /// time: as fast as can be, so that it is no stream for long.
    pub(super) fn mean(seen: Option<[Place; 2]>) -> Self {
        let Some([first, last]) = seen else {
            return Self::default();
        };
        Self {
            packets_per_byte: last.packets / last.bytes.max(1) as f64,
            ..Self::between(first, last)
        }
    }

    fn go(self, from: Place, to_bytes: u64) -> Place {
        // Backwards as well: what comes before the first place that was seen.
        let bytes = to_bytes as f64 - from.bytes as f64;
        Place {
            bytes: to_bytes,
            packets: (from.packets + bytes * self.packets_per_byte).max(0.0),
            time_us: from.time_us + bytes * self.us_per_byte,
        }
    }
}

/// A message as the kernel program sees it.
pub(super) struct Walk<'a> {
    settings: &'a Settings,
    half: Half,
    page: StoryHalf,
    /// Where the message began that the program is at: a stream that turns into something else ends one.
    begun: Place,
    /// Where it was looked at last.
    looked: Place,
    /// Bytes whose band is settled.
    at: u64,
}

impl<'a> Walk<'a> {
    pub(super) fn new(settings: &'a Settings) -> Self {
        let mut walk = Self {
            settings,
            half: Half::default(),
            page: StoryHalf::default(),
            begun: Place::default(),
            looked: Place::default(),
            at: 0,
        };
        walk.begin(Place::default());
        walk
    }

    /// A message begins behind `place`.
    fn begin(&mut self, place: Place) {
        self.begun = place;
        self.page = StoryHalf::default();
        self.half = Half {
            bytes: 1,
            ..Half::default()
        };
        verdict::settle(&mut self.half, &self.page, self.settings);
    }

    /// A decision point.
    pub(super) fn decide(&mut self, place: Place, to_come: Option<u64>) -> Found {
        let bytes = place.bytes.saturating_sub(self.begun.bytes);
        if let Some(to_come) = to_come {
            self.page.predicted_bytes = saturate(bytes.saturating_add(to_come));
            self.half.flags |= half_flags::PREDICTED;
        }
        self.half.bytes = saturate(bytes);
        self.half.packets = (place.packets - self.begun.packets).round() as u32;
        let since_us = (place.time_us - self.looked.time_us) as u32;
        self.looked = place;
        let found = stream::look(&mut self.half, since_us, self.settings);
        match found {
            Found::Message => verdict::settle(&mut self.half, &self.page, self.settings),
            Found::Stream => {}
            Found::Turned => self.begin(place),
        }
        found
    }

    /// Settles the bands of all bytes up to `end`, to which packets and time go at `pace`.
    pub(super) fn reach(&mut self, paths: &mut Paths, end: u64, pace: Pace) {
        let from = self.looked;
        while self.until() < end && self.half.until_bytes != u32::MAX {
            let until = self.until();
            self.settle_to(paths, until);
            let found = self.decide(pace.go(from, until + 1), None);
            if found == Found::Stream {
                self.skip(end, pace);
            }
        }
        self.settle_to(paths, end);
    }

    /// Where the next decision point is.
    fn until(&self) -> u64 {
        self.begun.bytes + u64::from(self.half.until_bytes)
    }

    /// A stream that passes one look at this pace passes all of them up to `end`: only the last is left to be made.
    fn skip(&mut self, end: u64, pace: Pace) {
        let here = self.looked;
        let last = pace.go(here, end);
        let packets = (last.packets - self.begun.packets) as u64;
        let small = (end - self.begun.bytes) >> stream::PACKET_SHIFT < packets;
        let slow =
            pace.us_per_byte * STRIDE_BYTES as f64 >= f64::from(self.settings.stream_window_us);
        let strides = end.saturating_sub(here.bytes + 1) / STRIDE_BYTES;
        if small && slow && strides > 1 {
            self.looked = pace.go(here, here.bytes + (strides - 1) * STRIDE_BYTES);
            let until = self.looked.bytes + u64::from(WINDOW_BYTES) - self.begun.bytes;
            self.half.until_bytes = saturate(until);
        }
    }

    fn settle_to(&mut self, paths: &mut Paths, end: u64) {
        paths.push(end.saturating_sub(self.at) as f64, self.half.band);
        self.at = self.at.max(end);
    }
}

#[cfg(test)]
mod tests {
    use scheduler_common::features::Feature;

    use super::*;
    use crate::dataset::{Row, samples};

    const MIB: u64 = 1 << 20;

    /// A message that is sent packet by packet through the kernel program's functions: its rows, and its bytes by band.
    #[derive(Default)]
    struct Sent {
        rows: Vec<Row>,
        bands: [u64; 8],
        half: Half,
        time_us: u64,
        looked_us: u64,
        ended: bool,
    }

    impl Sent {
        /// So many packets more, unless it has ended.
        fn send(&mut self, packets: u32, (bytes, every_us): (u32, u64), settings: &Settings) {
            for _ in 0..packets {
                if self.ended {
                    return;
                }
                self.time_us += every_us;
                let before = self.half.packets;
                self.half.packets += 1;
                self.half.bytes += bytes;
                let doubled = (self.half.packets ^ before) > before;
                if doubled || self.half.bytes > self.half.until_bytes {
                    self.look(bytes, settings);
                }
                self.bands[usize::from(self.half.band)] += u64::from(bytes);
            }
        }

        fn look(&mut self, bytes: u32, settings: &Settings) {
            let since_us = (self.time_us - self.looked_us) as u32;
            self.looked_us = self.time_us;
            match stream::look(&mut self.half, since_us, settings) {
                Found::Message => verdict::settle(&mut self.half, &StoryHalf::default(), settings),
                Found::Stream => return,
                Found::Turned => {
                    self.ended = true;
                    return;
                }
            }
            let mut row = samples::row(1, self.time_us * 1000, 5060);
            row.bytes_at = u64::from(self.half.bytes);
            row.features[Feature::PacketBytes as usize] = bytes;
            row.features[Feature::MessagePackets as usize] = self.half.packets;
            self.rows.push(row);
        }

        fn bytes(&self) -> u64 {
            self.bands.iter().sum()
        }

        /// Bytes by band of the replay of these rows.
        fn replayed(&self, rows: &[Row], settings: &Settings) -> [u64; 8] {
            let paths = Paths::of_verdicts(&[(self.bytes(), rows)], settings, |_| None);
            let mut bands = [0; 8];
            for segment in paths.of(0) {
                bands[usize::from(segment.band)] += segment.bytes as u64;
            }
            bands
        }

        /// The largest difference between what the kernel did and the replay does, in bytes of a band.
        fn off(&self, settings: &Settings) -> u64 {
            let replayed = self.replayed(&self.rows, settings);
            let pairs = self.bands.iter().zip(replayed);
            pairs.map(|(a, b)| a.abs_diff(b)).max().unwrap_or(0)
        }
    }

    fn sent(parts: &[(u32, u32, u64)], settings: &Settings) -> Sent {
        let mut sent = Sent::default();
        for (packets, bytes, every_us) in parts {
            sent.send(*packets, (*bytes, *every_us), settings);
        }
        sent
    }

    #[test]
    fn an_hour_of_voice_is_on_top_in_the_replay_as_in_the_kernel() {
        let default = Settings::default();
        let mut narrow = default;
        narrow.cuts.bytes[0] = 2_640;
        let none = Settings {
            first_bytes: 0,
            ..default
        };
        for settings in [default, none, narrow] {
            let voice = sent(&[(180_000, 172, 20_000)], &settings);
            assert!(voice.bytes() > 29 * MIB && voice.rows.len() < 30);
            assert_eq!(voice.bands[0], voice.bytes());
            assert_eq!(voice.off(&settings), 0);
        }
    }

    #[test]
    fn what_is_no_stream_ages_in_the_replay_where_it_does_in_the_kernel() {
        let settings = Settings::default();
        let near = 2 * u64::from(WINDOW_BYTES);
        for parts in [
            // At speed, slowly in full segments, and what fails early.
            vec![(200_000, 200, 100)],
            vec![(2_000, 1448, 100_000)],
            vec![(125, 200, 20_000), (1_000, 200, 100)],
            vec![(64, 200, 20_000), (5_000, 500, 50)],
        ] {
            let message = sent(&parts, &settings);
            assert!(message.bands[3] > 0, "{parts:?}");
            assert!(
                message.off(&settings) <= near,
                "{parts:?}: {:?}",
                message.bands
            );
        }
    }

    #[test]
    fn a_stream_is_judged_by_its_own_pace_however_many_of_its_rows_are_left() {
        let settings = Settings::default();
        let voice = sent(&[(9_000, 172, 20_000)], &settings);
        let every_third: Vec<Row> = voice.rows.iter().step_by(3).copied().collect();
        assert_eq!(voice.replayed(&every_third, &settings), voice.bands);
        // One row alone tells no time.
        let one = voice.replayed(&voice.rows[..1], &settings);
        assert!(one[0] < 30_000 && one[3] > 0, "{one:?}");
    }

    #[test]
    fn without_a_window_the_replay_knows_no_stream() {
        let settings = Settings {
            stream_window_us: 0,
            ..Settings::default()
        };
        let voice = sent(&[(9_000, 172, 20_000)], &settings);
        assert_eq!(voice.bands[0], 15_000 - 15_000 % 172);
        assert!(voice.off(&settings) <= 172);
    }

    #[test]
    fn a_stream_that_turns_begins_anew_where_the_bound_is_another() {
        let narrow = Settings::default();
        let wide = Settings {
            stream_window_us: narrow.stream_window_us / 4,
            ..narrow
        };
        let slow = 500 * 500;
        let message = sent(&[(500, 500, 15_000), (2_000, 500, 6_000)], &wide);
        assert!(!message.ended && message.bands[0] == message.bytes());
        assert_eq!(message.off(&wide), 0);
        let bands = message.replayed(&message.rows, &narrow);
        // The slow part is a message of its own, and what comes behind it has first bytes again.
        assert!(
            bands[0].abs_diff(slow + 15_000) < 4 * u64::from(WINDOW_BYTES),
            "{bands:?}"
        );
        assert!(bands[2] == 80_000 && bands[4] > 0, "{bands:?}");
    }
}
