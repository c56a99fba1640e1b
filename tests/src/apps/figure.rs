//! One figure that an application reports, and the figures of many times.

use serde::Serialize;

/// Which way a figure should go.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Better {
    /// Times, losses.
    Lower,
    /// Rates.
    Higher,
}

/// A figure with its unit in its name.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Figure {
    pub(crate) name: &'static str,
    pub(crate) value: f64,
    pub(crate) better: Better,
}

impl Figure {
    pub(crate) const fn low(name: &'static str, value: f64) -> Self {
        Self {
            name,
            value,
            better: Better::Lower,
        }
    }

    pub(crate) const fn high(name: &'static str, value: f64) -> Self {
        Self {
            name,
            value,
            better: Better::Higher,
        }
    }
}

/// Nearest-rank percentiles, the most, and the number of some times in milliseconds; nothing without times.
pub(crate) fn of_times(times_ms: &[f64]) -> Vec<Figure> {
    let mut sorted = times_ms.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let at = |percent: usize| {
        let rank = (sorted.len() * percent).div_ceil(100).max(1);
        sorted.get(rank - 1).copied()
    };
    let (Some(p50), Some(p99), Some(max)) = (at(50), at(99), at(100)) else {
        return Vec::new();
    };
    vec![
        Figure::low("p50_ms", p50),
        Figure::low("p99_ms", p99),
        Figure::low("max_ms", max),
        Figure::high("count", sorted.len() as f64),
    ]
}

/// Middle value; of an even number the upper one of the two.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_the_nearest_ranks_and_nothing_comes_of_nothing() {
        let times: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        let figures = of_times(&times);
        assert_eq!(figures[0], Figure::low("p50_ms", 100.0));
        assert_eq!(figures[1], Figure::low("p99_ms", 198.0));
        assert_eq!(figures[2], Figure::low("max_ms", 200.0));
        assert_eq!(figures[3], Figure::high("count", 200.0));
        assert!(of_times(&[]).is_empty());
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
    }
}
