//! Which bytes of a message go in which band.

use scheduler_common::{class::Cuts, features::Feature, settings::Settings};

use super::walk::{Pace, Place, Walk};
use crate::dataset::Row;

/// Some bytes of a message, and the band they go in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Segment {
    /// How many.
    pub bytes: f64,
    /// Index of the band; 0 is served first.
    pub band: u8,
}

/// The paths of many messages through the bands.
#[derive(Clone, Debug, Default)]
pub struct Paths {
    segments: Vec<Segment>,
    /// Where each path begins, and the end of the last.
    starts: Vec<usize>,
}

impl Paths {
    /// Those of messages that stay in the band of their size from the first byte: the oracle, which never promotes.
    pub fn of_sizes(sizes: impl IntoIterator<Item = u64>, cuts: &Cuts) -> Self {
        Self::of_bands((sizes.into_iter()).map(|bytes| (bytes, cuts.band_of(bytes))))
    }

    /// Those of messages of so many bytes that stay in a band.
    pub(crate) fn of_bands(messages: impl Iterator<Item = (u64, u8)>) -> Self {
        let mut paths = Self::default();
        for (bytes, band) in messages {
            paths.starts.push(paths.segments.len());
            paths.push(bytes as f64, band);
        }
        paths.starts.push(paths.segments.len());
        paths
    }

    /// Those that the kernel program gives messages: by its own verdict, at the decision points that were seen, where
    /// `predict` tells the bytes to come (`None`: no model, aging), and where bytes pass a cut in between. Streams are
    /// what the kernel program holds for such.
    ///
    /// A message is its size and its rows in the order of their bytes. Where a decision point is missing (a full
    /// window keeps some rows of a message) the guess before it stands.
    pub fn of_verdicts(
        messages: &[(u64, &[Row])],
        settings: &Settings,
        predict: impl FnMut(&Row) -> Option<u64>,
    ) -> Self {
        Guessed::of(messages, predict).paths(settings)
    }

    /// The path of a message by its place in the list that these were made from.
    pub fn of(&self, message: usize) -> &[Segment] {
        &self.segments[self.starts[message]..self.starts[message + 1]]
    }

    /// Adds to the path that was begun last.
    pub(super) fn push(&mut self, bytes: f64, band: u8) {
        if bytes <= 0.0 {
            return;
        }
        let begun = self.starts.last().copied().unwrap_or(0);
        match self.segments[begun..].last_mut() {
            Some(last) if last.band == band => last.bytes += bytes,
            _ => self.segments.push(Segment { bytes, band }),
        }
    }
}

/// A decision point, and what was guessed there.
#[derive(Clone, Copy, Debug)]
struct Point {
    /// Bytes of the message before the packet.
    first_byte: u64,
    /// Where the message stands with it.
    place: Place,
    to_come: Option<u64>,
}

/// Messages with what was guessed of them, once: their paths under many settings follow without asking again.
#[derive(Clone, Debug, Default)]
pub struct Guessed {
    points: Vec<Point>,
    /// Size of each message, and where its points end.
    messages: Vec<(u64, usize)>,
}

impl Guessed {
    /// As [`Paths::of_verdicts`].
    pub fn of(messages: &[(u64, &[Row])], mut predict: impl FnMut(&Row) -> Option<u64>) -> Self {
        let mut guessed = Self::default();
        for &(bytes, rows) in messages {
            let seen = rows.iter().filter(|row| row.bytes_at <= bytes);
            guessed.points.extend(seen.map(|row| Point {
                first_byte: first_byte(row),
                place: place(row),
                to_come: predict(row),
            }));
            guessed.messages.push((bytes, guessed.points.len()));
        }
        guessed
    }

    /// The paths of the messages under these cuts and first bytes, by the kernel program's own verdict.
    pub fn paths(&self, settings: &Settings) -> Paths {
        let mut paths = Paths::default();
        let mut begin = 0;
        for &(bytes, end) in &self.messages {
            paths.starts.push(paths.segments.len());
            let points = &self.points[begin..end];
            let mean = Pace::mean(
                points
                    .first()
                    .zip(points.last())
                    .map(|(a, b)| [a.place, b.place]),
            );
            let mut walk = Walk::new(settings);
            let mut from = None;
            for point in points {
                let pace = from.map_or(mean, |from| Pace::between(from, point.place));
                walk.reach(&mut paths, point.first_byte, pace);
                walk.decide(point.place, point.to_come);
                from = Some(point.place);
            }
            walk.reach(&mut paths, bytes.max(1), mean);
            begin = end;
        }
        paths.starts.push(paths.segments.len());
        paths
    }
}

/// Bytes of the message before the packet: it is served by its own verdict as a whole.
fn first_byte(row: &Row) -> u64 {
    let packet_bytes = row.feature(Feature::PacketBytes);
    row.bytes_at.saturating_sub(u64::from(packet_bytes))
}

/// Where the message stands with the packet.
fn place(row: &Row) -> Place {
    Place {
        bytes: row.bytes_at,
        packets: f64::from(row.feature(Feature::MessagePackets)),
        time_us: row.time_ns as f64 / 1e3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::samples;

    fn row(bytes_at: u64, packet_bytes: u32) -> Row {
        let mut row = samples::row(1, bytes_at, 443);
        row.bytes_at = bytes_at;
        row.features[Feature::PacketBytes as usize] = packet_bytes;
        row
    }

    fn path(bytes: u64, rows: &[Row], to_come: Option<u64>) -> Vec<(u64, u8)> {
        let settings = Settings::default();
        let paths = Paths::of_verdicts(&[(bytes, rows)], &settings, |_| to_come);
        let segments = paths.of(0).iter();
        segments.map(|s| (s.bytes as u64, s.band)).collect()
    }

    #[test]
    fn aging_cuts_a_message_where_the_settings_do() {
        assert_eq!(path(15_000, &[], None), [(15_000, 0)]);
        assert_eq!(
            path(200_000, &[row(1448, 1448)], None),
            [(15_000, 0), (25_000, 1), (80_000, 2), (80_000, 3)]
        );
        let bands: Vec<u8> = path(1 << 33, &[], None).iter().map(|s| s.1).collect();
        assert_eq!(bands, [0, 1, 2, 3, 4, 5, 6, 7]);
    }

    #[test]
    fn the_first_bytes_stay_on_top_and_the_rest_goes_where_the_guess_says() {
        let rows = [row(1448, 1448)];
        assert_eq!(
            path(200_000, &rows, Some(2_000_000)),
            [(15_000, 0), (185_000, 5)]
        );
        assert_eq!(
            path(200_000, &rows, Some(10)),
            path(200_000, &rows, None),
            "a wrong short is aged"
        );
    }

    #[test]
    fn a_super_packet_is_served_by_its_own_verdict() {
        let rows = [row(60_000, 60_000)];
        assert_eq!(path(100_000, &rows, Some(1_000_000)), [(100_000, 4)]);
        assert_eq!(path(100_000, &rows, None), [(100_000, 2)]);
    }

    #[test]
    fn a_later_guess_lowers_a_message_and_never_lifts_it() {
        let rows = [row(1448, 1448), row(30_000, 1000), row(90_000, 1000)];
        let settings = Settings::default();
        let mut guesses = [Some(50_000), Some(2_000_000), Some(1)].into_iter();
        let paths = Paths::of_verdicts(&[(500_000, &rows[..])], &settings, |_| {
            guesses.next().flatten()
        });
        let segments: Vec<(u64, u8)> = (paths.of(0).iter())
            .map(|s| (s.bytes as u64, s.band))
            .collect();
        assert_eq!(segments, [(15_000, 0), (14_000, 2), (471_000, 5)]);
    }

    #[test]
    fn the_oracle_never_changes_its_mind() {
        let paths = Paths::of_sizes([100, 700_000], &Cuts::default());
        let segment = |bytes, band| Segment { bytes, band };
        assert_eq!(paths.of(0), [segment(100.0, 0)]);
        assert_eq!(paths.of(1), [segment(700_000.0, 4)]);
    }
}
