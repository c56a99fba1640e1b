//! Urgent flows that live for long: what they send, and when.

use std::time::Duration;

use bed::peers::{PortRule, Rank};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use serde::Serialize;

/// A kind of urgent flow.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// UDP, 160 to 200 bytes every 20 ms both ways, as a call.
    Voice,
    /// UDP, 60 to 120 bytes every 15 to 30 ms both ways, now and then several at once, as a game.
    Game,
    /// TCP, 40 to 100 bytes every 100 to 300 ms and their echo, as a terminal over ssh.
    Terminal,
}

/// A packet of an urgent flow.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Packet {
    /// When it leaves, from the start of the run.
    pub(crate) at: Duration,
    /// Number of its flow.
    pub(crate) flow: usize,
    /// Payload.
    pub(crate) bytes: usize,
}

impl Kind {
    /// In the order of tables.
    pub(crate) const ALL: [Self; 3] = [Self::Voice, Self::Game, Self::Terminal];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Voice => "voice",
            Self::Game => "game",
            Self::Terminal => "terminal",
        }
    }

    /// Flows of it in a run.
    pub(crate) const fn flows(self) -> usize {
        match self {
            Self::Voice | Self::Game => 8,
            Self::Terminal => 6,
        }
    }

    /// Port of the server's side of a flow.
    pub(crate) const fn port(self, flow: usize) -> u16 {
        match self {
            Self::Voice => 5004 + 2 * flow as u16,
            Self::Game => 27_015 + flow as u16,
            Self::Terminal => SSH,
        }
    }

    /// Type of service that a sender of it sets where marks are right (RFC 4594, RFC 8837; OpenSSH's own for a terminal).
    pub(crate) const fn tos(self) -> u32 {
        match self {
            Self::Voice => 0xb8,
            Self::Game => 0x80,
            Self::Terminal => 0x48,
        }
    }

    /// What one direction of all flows sends until `length`, in order of time.
    pub(crate) fn packets(self, length: Duration, seed: u64) -> Vec<Packet> {
        let mut rng = StdRng::seed_from_u64(seed ^ (self as u64) << 32);
        let mut packets = Vec::new();
        for flow in 0..self.flows() {
            self.one(flow, length, &mut rng, &mut packets);
        }
        packets.sort_by_key(|packet| packet.at);
        packets
    }

    fn one(self, flow: usize, length: Duration, rng: &mut StdRng, packets: &mut Vec<Packet>) {
        let call_bytes = rng.random_range(160..=200);
        let mut at = Duration::from_micros(rng.random_range(0..300_000));
        while at < length {
            let (bytes, gap_us, count) = match self {
                Self::Voice => (call_bytes, 20_000, 1),
                Self::Game => {
                    let several = rng.random_range(0..40) == 0;
                    let count = if several { rng.random_range(3..=6) } else { 1 };
                    (
                        rng.random_range(60..=120),
                        rng.random_range(15_000..=30_000),
                        count,
                    )
                }
                Self::Terminal => (
                    rng.random_range(40..=100),
                    rng.random_range(100_000..=300_000),
                    1,
                ),
            };
            packets.extend((0..count).map(|_| Packet { at, flow, bytes }));
            at += Duration::from_micros(gap_us);
        }
    }
}

/// Port of terminals, and of one of the downloads: a file copied over ssh.
pub(crate) const SSH: u16 = 22;
/// Port of downloads.
pub(crate) const DOWNLOADS: u16 = 8080;
/// Port of pages.
pub(crate) const WEB: u16 = 80;

/// What a careful administrator of this mix writes.
pub(crate) fn rules() -> Vec<PortRule> {
    let urgent = [Kind::Voice, Kind::Game].into_iter().flat_map(|kind| {
        (0..kind.flows()).map(move |flow| PortRule {
            port: kind.port(flow),
            rank: Rank::Urgent,
        })
    });
    urgent
        .chain([
            PortRule {
                port: SSH,
                rank: Rank::Interactive,
            },
            PortRule {
                port: WEB,
                rank: Rank::Normal,
            },
            PortRule {
                port: DOWNLOADS,
                rank: Rank::Bulk,
            },
        ])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_sends_as_it_says() {
        let length = Duration::from_secs(20);
        for (kind, sizes, a_second) in [
            (Kind::Voice, 160..=200, 49.0..51.0),
            (Kind::Game, 60..=120, 44.0..54.0),
            (Kind::Terminal, 40..=100, 4.5..5.5),
        ] {
            let packets = kind.packets(length, 7);
            assert_eq!(packets, kind.packets(length, 7));
            assert!(packets.iter().all(|packet| sizes.contains(&packet.bytes)));
            assert!(packets.is_sorted_by_key(|packet| packet.at));
            let rate = packets.len() as f64 / kind.flows() as f64 / length.as_secs_f64();
            assert!(a_second.contains(&rate), "{kind:?}: {rate}");
        }
    }
}
