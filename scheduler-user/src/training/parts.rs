//! A window cut in two: the earlier part trains, the later judges.

use std::collections::HashSet;

use super::JudgeLimits;
use crate::dataset::Row;

/// A window cut in two by time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// The earlier rows.
    pub train: Vec<Row>,
    /// The later rows, of messages that had no row before the cut.
    pub held_out: Vec<Row>,
}

/// Cuts the rows by time, never shuffled. A message that had a row before the cut has none after it:
/// its label would be known twice.
///
/// Later messages of a kept connection do judge. That is what a model meets when it acts; a host
/// with long-lived connections alone could otherwise never show that anything is learned.
pub fn split(rows: &[Row], limits: &JudgeLimits) -> Parts {
    let mut ordered = rows.to_vec();
    ordered.sort_by_key(|row| row.time_ns);
    let place = (ordered.len() as f64 * limits.train_share) as usize;
    let Some(cut_ns) = ordered.get(place).map(|row| row.time_ns) else {
        return Parts {
            train: ordered,
            held_out: Vec::new(),
        };
    };
    let (train, later): (Vec<Row>, Vec<Row>) =
        ordered.into_iter().partition(|row| row.time_ns < cut_ns);
    let message = |row: &Row| (row.flow_hash, row.half, row.message);
    let seen: HashSet<(u64, u8, u32)> = train.iter().map(message).collect();
    let held_out = later
        .into_iter()
        .filter(|row| !seen.contains(&message(row)))
        .collect();
    Parts { train, held_out }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::samples;

    #[test]
    fn no_message_stands_on_both_sides_of_the_cut() {
        // Three rows a message, ten messages a flow: the cut falls inside message 23.
        let rows: Vec<Row> = (0..100)
            .rev()
            .map(|t: u64| {
                let message = (t / 3) as u32;
                Row {
                    message,
                    ..samples::row(t / 30, t, 443)
                }
            })
            .collect();
        let Parts { train, held_out } = split(&rows, &JudgeLimits::default());
        assert_eq!(
            train.iter().map(|row| row.time_ns).collect::<Vec<_>>(),
            Vec::from_iter(0..70)
        );
        assert_eq!(
            held_out.iter().map(|row| row.time_ns).collect::<Vec<_>>(),
            Vec::from_iter(72..100)
        );
    }

    #[test]
    fn rows_of_one_moment_are_not_divided() {
        let rows: Vec<Row> = (0..100)
            .map(|flow| samples::row(flow, flow / 80, 443))
            .collect();
        assert_eq!(split(&rows, &JudgeLimits::default()).train.len(), 0);
        assert_eq!(split(&[], &JudgeLimits::default()), Parts::default());
    }
}
