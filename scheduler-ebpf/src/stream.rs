//! Streams: small packets at a low rate stay in the top band.
//!
//! Voice, games and terminals send for hours without a pause that would end a message. Counted by bytes they would
//! sink beneath every download, though nobody waits for their end and each packet is urgent. So a message that
//! leaves its first bytes, or passes the first cut, in small packets is on probation: it stays on top as long as each [`WINDOW_BYTES`] of it
//! take at least [`Settings::stream_window_us`]. What fails soon ages like any other message, by all it has sent. What
//! fails after it was a stream for long is something else from there on: the message ends, and the next one begins.
//!
//! It gives nobody more than a pause does. A sender that falls silent for the idle bound after its first bytes and its
//! probation, of two windows at most (or three windows in all), is on top with as many again: with the bounds as they are 116 kB a second, a
//! stream with 41 kB.

use scheduler_common::{
    flow::{Half, half_flags},
    settings::Settings,
};

/// A stream is looked at anew after so many bytes.
pub const WINDOW_BYTES: u32 = 4096;

/// Packets of a stream have at most 2^9 = 512 bytes of payload in the mean: full segments are a transfer, whose rate may
/// be low because it waits.
pub const PACKET_SHIFT: u32 = 9;

/// What has sent no more does not end where it fails, even without first bytes: a small first packet before a
/// transfer is no stream that has turned into one.
const LONG_BYTES: u32 = 4 * WINDOW_BYTES;

/// What a decision point finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Found {
    /// A message to decide on as usual; it may have begun to be a stream, or not be one any more.
    Message,
    /// A stream that goes on: nothing to decide.
    Stream,
    /// A stream that has turned into something else: its message is over.
    Turned,
}

/// What any message may send in the top band: beyond it a guess or the first cut would lower it.
#[inline(always)]
fn top_bytes(settings: &Settings) -> u32 {
    settings.first_bytes.min(settings.cuts.end_of(0))
}

/// Looks at a message at a decision point, `since_us` after the one before.
#[inline(always)]
pub fn look(half: &mut Half, since_us: u32, settings: &Settings) -> Found {
    let top_bytes = top_bytes(settings);
    if half.band != 0 || half.bytes <= top_bytes || settings.stream_window_us == 0 {
        return Found::Message;
    }
    let small = half.bytes >> PACKET_SHIFT < half.packets;
    // Else the count of its packets has doubled: no window is full.
    let due = half.bytes > half.until_bytes;
    let was = half.flags & half_flags::STREAM != 0;
    let goes_on = small && (!due || (!was || since_us >= settings.stream_window_us));
    if goes_on {
        // Each look begins a window, so that the time since the last one is the window's.
        half.until_bytes = half.bytes.saturating_add(WINDOW_BYTES);
        half.flags |= half_flags::STREAM;
        return if was && due {
            Found::Stream
        } else {
            Found::Message
        };
    }
    if was && half.bytes > top_bytes.saturating_mul(2).max(LONG_BYTES) {
        return Found::Turned;
    }
    half.flags &= !half_flags::STREAM;
    Found::Message
}

#[cfg(test)]
mod tests {
    use scheduler_common::flow::StoryHalf;

    use super::*;
    use crate::verdict::settle;

    /// Sends packets, and looks at its message where the programs do.
    struct Sender {
        half: Half,
        since_us: u32,
        settings: Settings,
    }

    impl Sender {
        fn new() -> Self {
            Self {
                half: Half::default(),
                since_us: 0,
                settings: Settings::default(),
            }
        }

        fn send(&mut self, bytes: u32, every_us: u32) -> Found {
            let half = &mut self.half;
            self.since_us += every_us;
            let before = half.packets;
            half.packets += 1;
            half.bytes += bytes;
            if (half.packets ^ before) <= before && half.bytes <= half.until_bytes {
                return Found::Message;
            }
            let found = look(half, self.since_us, &self.settings);
            self.since_us = 0;
            if found == Found::Message {
                settle(half, &StoryHalf::default(), &self.settings);
            }
            found
        }

        /// Sends so many packets; the bands they got, without repetitions, and whether the message ended.
        fn sends(&mut self, packets: u32, bytes: u32, every_us: u32) -> (Vec<u8>, bool) {
            let mut bands = Vec::new();
            for _ in 0..packets {
                if self.send(bytes, every_us) == Found::Turned {
                    return (bands, true);
                }
                if bands.last() != Some(&self.half.band) {
                    bands.push(self.half.band);
                }
            }
            (bands, false)
        }
    }

    #[test]
    fn an_hour_of_voice_stays_on_top() {
        assert_eq!(Sender::new().sends(180_000, 172, 20_000), (vec![0], false));
    }

    #[test]
    fn it_does_so_wherever_the_first_cut_is() {
        for (first_bytes, first_cut) in [(15_000, 2_640), (0, 2_640), (0, 100), (15_000, 172)] {
            let mut sender = Sender::new();
            sender.settings.first_bytes = first_bytes;
            sender.settings.cuts.bytes[0] = first_cut;
            let sent = sender.sends(9_000, 172, 20_000);
            assert_eq!(sent, (vec![0], false), "{first_bytes} {first_cut}");
        }
    }

    #[test]
    fn a_game_with_bursts_stays_on_top() {
        let mut game = Sender::new();
        for _ in 0..2_000 {
            assert_eq!(game.sends(15, 90, 15_000), (vec![0], false));
            assert_eq!(game.sends(5, 120, 10), (vec![0], false));
        }
    }

    #[test]
    fn small_packets_at_speed_are_a_message_that_ages() {
        let (bands, ended) = Sender::new().sends(200_000, 200, 100);
        assert_eq!((bands, ended), ((0..8).collect(), false));
        // A window of probation, and the packet that fills it.
        let mut sender = Sender::new();
        while sender.half.band == 0 {
            sender.send(200, 100);
        }
        let bound = sender.settings.first_bytes + 2 * WINDOW_BYTES;
        assert!(sender.half.bytes <= bound, "{:?}", sender.half);
    }

    #[test]
    fn full_segments_are_no_stream_however_slow() {
        let (bands, _) = Sender::new().sends(2_000, 1448, 100_000);
        assert_eq!(bands, (0..6).collect::<Vec<u8>>());
    }

    #[test]
    fn a_stream_that_turns_into_a_transfer_ends() {
        let mut sender = Sender::new();
        sender.sends(1_000, 172, 20_000);
        let (bands, ended) = sender.sends(10_000, 500, 100);
        assert!(ended && bands == [0], "{bands:?}");
    }

    #[test]
    fn what_fails_before_it_was_long_a_stream_does_not_begin_anew() {
        let mut sender = Sender::new();
        // 25 kB slowly, then at speed.
        sender.sends(125, 200, 20_000);
        let (bands, ended) = sender.sends(1_000, 200, 100);
        assert_eq!((bands, ended), (vec![0, 1, 2, 3], false));
    }

    #[test]
    fn without_first_bytes_a_small_packet_before_a_transfer_is_part_of_it() {
        let mut sender = Sender::new();
        sender.settings.first_bytes = 0;
        sender.sends(1, 200, 100);
        let (bands, ended) = sender.sends(100, 1448, 100);
        assert_eq!((bands, ended), (vec![0, 1, 2, 3], false));
    }

    #[test]
    fn without_a_window_nothing_is_a_stream() {
        let mut sender = Sender::new();
        sender.settings.stream_window_us = 0;
        let (bands, _) = sender.sends(1_000, 172, 20_000);
        assert_eq!(bands, [0, 1, 2, 3]);
    }

    #[test]
    fn no_way_to_send_gives_more_than_pausing() {
        let mut narrow = Settings::default();
        narrow.cuts.bytes[0] = 2_640;
        for settings in [Settings::default(), narrow] {
            no_way_gives_more_than_pausing(settings);
        }
    }

    fn no_way_gives_more_than_pausing(settings: Settings) {
        let pause_us = u64::from(settings.idle_floor_us);
        let at_once = (top_bytes(&settings) + 2 * WINDOW_BYTES).max(3 * WINDOW_BYTES);
        let at_once = u64::from(at_once);
        let pausing = at_once * 1_000_000 / pause_us;
        // Bytes on top in a second by bursts of `burst` packets after `calm` slow ones, over and over.
        let most = |calm: u32, burst: u32, slow_us: u32| {
            let begin = || Sender {
                settings,
                ..Sender::new()
            };
            let mut sender = begin();
            let (mut on_top, mut time_us) = (0_u64, 0_u64);
            while time_us < 60_000_000 {
                for number in 0..calm + burst {
                    let every_us = if number < calm { slow_us } else { 10 };
                    time_us += u64::from(every_us);
                    let found = sender.send(500, every_us);
                    on_top += 500 * u64::from(sender.half.band == 0);
                    if found == Found::Turned || sender.half.band > 0 {
                        // A stream that has ended begins anew at once, what has sunk after a pause.
                        time_us += pause_us * u64::from(sender.half.band > 0);
                        sender = begin();
                    }
                }
            }
            on_top * 1_000_000 / time_us
        };
        for (calm, burst) in [
            (0, 40),
            (8, 8),
            (9, 7),
            (34, 40),
            (64, 16),
            (80, 40),
            (1, 0),
        ] {
            for slow_us in [2_000, 5_000, 11_000, 12_500, 14_000] {
                let rate = most(calm, burst, slow_us);
                assert!(rate <= pausing, "{calm} {burst} {slow_us}: {rate}");
            }
        }
    }
}
