//! What was seen of each service: how much, and how well it was foretold.

use std::collections::BTreeMap;

use scheduler_common::{features::Feature, tree::TARGET_FLOOR_BYTES};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Row;
use crate::model::bytes_to_come;

/// Version of the JSON.
pub const SCHEMA: u32 = 1;
/// From here up a port is most likely a client's own: such services are shown as one.
const FIRST_EPHEMERAL_PORT: u32 = 32_768;
/// Messages that must have been foretold before it is shown how well: a median of one is that one's luck.
const COMPARED: u64 = 5;
/// Services that are listed; a scan of ports would be thousands.
const LISTED: usize = 100;

/// Services of the learner's window, the largest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Services {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Labelled rows that the window holds.
    pub rows: u64,
    /// Labelled rows that it takes to train.
    pub needed_rows: u64,
    /// Time from its oldest row to its newest.
    pub window_ms: u64,
    /// One flow in so many is sampled.
    pub sample_one_in: u32,
    /// Generation that acts as the learner knows it; absent while aging rules.
    pub acting: Option<u32>,
    /// Generation of the candidate in the shadow, if there is one.
    pub shadow: Option<u32>,
    /// At most 100 of them.
    pub services: Vec<Service>,
}

/// One service by its sampled messages, both directions together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Service {
    /// Number of its IP protocol: 6 is TCP, 17 is UDP.
    pub protocol: u32,
    /// Its port; absent for all ports from 32768 on together, which are most likely clients' own.
    pub port: Option<u32>,
    /// Messages that went out.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Median of their sizes.
    pub median_bytes: u64,
    /// How well they were foretold; absent where no model was asked.
    pub foretold: Option<Foretold>,
}

/// Predicted and real sizes of the same messages, each by the first prediction that it got.
///
/// By the model that acted at that moment, or by the one in the shadow where none did. Messages whose end was not seen are
/// left out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Foretold {
    /// Messages.
    pub messages: u64,
    /// Median of the predicted sizes.
    pub predicted_median_bytes: u64,
    /// Median of the real sizes.
    pub real_median_bytes: u64,
    /// Half of the predictions are off by no more than this factor, up or down; 4096 bytes are added to both sides, as in what
    /// the model learns: below that nothing is told apart.
    pub median_factor: f64,
}

impl Service {
    /// How well its messages were foretold, if there are enough to tell.
    pub fn told(&self) -> Option<&Foretold> {
        self.foretold
            .as_ref()
            .filter(|foretold| foretold.messages >= COMPARED)
    }
}

/// What is known of one message.
#[derive(Clone, Copy, Debug)]
struct Message {
    service: (u32, Option<u32>),
    bytes: u64,
    censored: bool,
    /// The first prediction, and when.
    foretold: Option<(u64, u64)>,
}

#[derive(Debug, Default)]
struct Sums {
    sizes: Vec<u64>,
    foretold: Vec<(u64, u64)>,
}

/// The services behind `rows`, the largest first.
pub fn services<'a, I: Iterator<Item = &'a Row>>(rows: I) -> Vec<Service> {
    let mut messages: BTreeMap<(u64, u8, u32), Message> = BTreeMap::new();
    for row in rows {
        let key = (row.flow_hash, row.half, row.message);
        let message = messages.entry(key).or_insert_with(|| Message {
            service: service_of(row),
            bytes: 0,
            censored: false,
            foretold: None,
        });
        message.bytes = message.bytes.max(row.total_bytes);
        message.censored |= row.censored;
        let earlier = message.foretold;
        let is_first = earlier.is_none_or(|(time_ns, _)| row.time_ns < time_ns);
        if let Some(bytes) = foretold_bytes(row).filter(|_| is_first) {
            message.foretold = Some((row.time_ns, bytes));
        }
    }
    let mut by_service: BTreeMap<(u32, Option<u32>), Sums> = BTreeMap::new();
    for message in messages.into_values() {
        let sums = by_service.entry(message.service).or_default();
        sums.sizes.push(message.bytes);
        if let Some((_, bytes)) = message.foretold.filter(|_| !message.censored) {
            sums.foretold.push((bytes, message.bytes));
        }
    }
    let mut services: Vec<Service> = by_service
        .into_iter()
        .map(|((protocol, port), sums)| Service {
            protocol,
            port,
            messages: sums.sizes.len() as u64,
            bytes: sums.sizes.iter().sum(),
            foretold: Foretold::of(&sums.foretold),
            median_bytes: median(sums.sizes),
        })
        .collect();
    services.sort_by_key(|service| std::cmp::Reverse(service.bytes));
    services.truncate(LISTED);
    services
}

impl Foretold {
    fn of(pairs: &[(u64, u64)]) -> Option<Self> {
        if pairs.is_empty() {
            return None;
        }
        let (predicted, real): (Vec<u64>, Vec<u64>) = pairs.iter().copied().unzip();
        let mut factors: Vec<f64> = pairs
            .iter()
            .map(|(predicted, real)| {
                let [predicted, real] =
                    [predicted, real].map(|bytes| (bytes + u64::from(TARGET_FLOOR_BYTES)) as f64);
                let ratio = predicted / real;
                ratio.max(ratio.recip())
            })
            .collect();
        factors.sort_by(f64::total_cmp);
        Some(Self {
            messages: pairs.len() as u64,
            predicted_median_bytes: median(predicted),
            real_median_bytes: median(real),
            median_factor: factors[(factors.len() - 1) / 2],
        })
    }
}

/// Size of the whole message as it was foretold at this row.
fn foretold_bytes(row: &Row) -> Option<u64> {
    let log2_q8 = if row.generation != 0 {
        row.predicted_log2_q8
    } else if row.shadow_generation != 0 {
        row.shadow_log2_q8
    } else {
        return None;
    };
    let to_come = bytes_to_come(f64::from(log2_q8) / 256.0);
    Some(row.bytes_at + to_come as u64)
}

fn service_of(row: &Row) -> (u32, Option<u32>) {
    let port = row.feature(Feature::ServicePort);
    let port = (port < FIRST_EPHEMERAL_PORT).then_some(port);
    (row.feature(Feature::Protocol), port)
}

/// The lower of the two in the middle; 0 of nothing.
fn median(mut sizes: Vec<u64>) -> u64 {
    sizes.sort_unstable();
    let middle = sizes.len().saturating_sub(1) / 2;
    sizes.get(middle).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::samples;

    fn row(flow: u64, message: u32, port: u32, total_bytes: u64) -> Row {
        let mut row = samples::row(flow, 1000 + u64::from(message), port);
        row.features[Feature::Protocol as usize] = 6;
        row.message = message;
        row.total_bytes = total_bytes;
        row.remaining_bytes = total_bytes - row.bytes_at;
        row
    }

    fn foretold(row: Row, log2: u32, time_ns: u64) -> Row {
        Row {
            generation: 1,
            predicted_log2_q8: log2 * 256,
            time_ns,
            ..row
        }
    }

    #[test]
    fn a_message_counts_once_and_by_its_first_prediction() {
        let one = row(1, 1, 443, 61_440 + 1000);
        let rows = [
            foretold(one, 20, 5000),
            // 65536 less the floor of 4096 are to come: right by the byte.
            foretold(one, 16, 4000),
            one,
            row(1, 2, 443, 3000),
            row(2, 1, 22, 2000),
        ];
        let services = services(rows.iter());
        assert_eq!(services.len(), 2, "{services:?}");
        let https = &services[0];
        assert_eq!((https.protocol, https.port), (6, Some(443)));
        assert_eq!((https.messages, https.bytes), (2, 61_440 + 4000));
        assert_eq!(https.median_bytes, 3000);
        let told = https.foretold.as_ref().unwrap();
        assert_eq!(told.messages, 1);
        assert_eq!(told.predicted_median_bytes, told.real_median_bytes);
        assert!((told.median_factor - 1.0).abs() < 1e-9, "{told:?}");
        assert_eq!(services[1].foretold, None);
    }

    #[test]
    fn few_messages_tell_nothing_and_small_ones_are_not_told_apart() {
        // One router solicitation of 8 bytes, of a protocol that no model has learned of.
        let mut lone = foretold(row(1, 1, 0, 1008), 20, 4000);
        (lone.total_bytes, lone.bytes_at) = (8, 0);
        let service = &services([lone].iter())[0];
        assert!(service.foretold.is_some() && service.told().is_none());
        // 4096 to come and 1 kB: the same to who does not heed what is foretold of the first 15 kB.
        let small: Vec<Row> = (1..=5)
            .map(|message| {
                let mut small = foretold(row(1, message, 22, 1000), 13, 4000);
                small.bytes_at = 0;
                small
            })
            .collect();
        let service = &services(small.iter())[0];
        let told = service.told().unwrap();
        assert_eq!((told.messages, told.real_median_bytes), (5, 1000));
        assert!(
            (told.median_factor - 8192.0 / 5096.0).abs() < 1e-9,
            "{told:?}"
        );
    }

    #[test]
    fn what_is_censored_is_counted_and_not_compared() {
        let mut cut = foretold(row(1, 1, 443, 5000), 12, 4000);
        cut.censored = true;
        let services = services([cut].iter());
        assert_eq!((services[0].messages, services[0].bytes), (1, 5000));
        assert_eq!(services[0].foretold, None);
    }

    #[test]
    fn ports_of_clients_are_one_service_and_protocols_are_apart() {
        let mut udp = row(3, 1, 443, 2000);
        udp.features[Feature::Protocol as usize] = 17;
        let rows = [row(1, 1, 40_000, 2000), row(2, 1, 50_000, 2500), udp];
        let services = services(rows.iter());
        let named: Vec<_> = services.iter().map(|it| (it.protocol, it.port)).collect();
        assert_eq!(named, [(6, None), (17, Some(443))]);
        assert_eq!(services[0].messages, 2);
    }
}
