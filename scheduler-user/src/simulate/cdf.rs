//! Published distributions of sizes, where they are at hand.

use std::{fs, path::Path};

/// Points (bytes, cumulative probability), joined by straight lines.
#[derive(Clone, Debug)]
pub(crate) struct Cdf(Vec<(f64, f64)>);

impl Cdf {
    /// The table of that name beside the repository, if it is there; tests pass without.
    pub(crate) fn published(name: &str) -> Option<Self> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../shared/data/cdf/normalised")
            .join(name)
            .with_extension("txt");
        let Ok(text) = fs::read_to_string(&path) else {
            eprintln!("left out: {} is not there", path.display());
            return None;
        };
        let points = text.lines().filter(|line| !line.starts_with('#'));
        let point = |line: &str| {
            let mut words = line.split_whitespace().map(|word| word.parse().unwrap());
            (words.next().unwrap(), words.next().unwrap())
        };
        Some(Self(points.map(point).collect()))
    }

    /// A Pareto distribution between two bounds: heavy-tailed, and needs no data.
    pub(crate) fn pareto(shape: f64, (low, high): (f64, f64)) -> Self {
        let below = |bytes: f64| 1.0 - (low / bytes).powf(shape);
        let steps = 400;
        let point = |step| {
            let bytes = low * (high / low).powf(f64::from(step) / f64::from(steps));
            (bytes, below(bytes) / below(high))
        };
        Self((0..=steps).map(point).collect())
    }

    /// The size at quantile `q`, from 0 to 1.
    pub(crate) fn quantile(&self, q: f64) -> f64 {
        let Self(points) = self;
        let place = points.partition_point(|(_, share)| *share < q);
        let Some((to, above)) = points.get(place).copied() else {
            return points.last().map_or(0.0, |point| point.0);
        };
        // A table may begin above nought: its first size then stands for all below.
        let Some((from, below)) = place.checked_sub(1).map(|at| points[at]) else {
            return to;
        };
        from + (to - from) * (q - below) / (above - below)
    }
}

#[test]
fn quantiles_lie_on_the_lines_between_points() {
    let cdf = Cdf(vec![(0.0, 0.0), (10.0, 0.5), (30.0, 1.0)]);
    assert_eq!(
        [0.0, 0.25, 0.75, 1.0].map(|q| cdf.quantile(q)),
        [0.0, 5.0, 20.0, 30.0]
    );
    let pareto = Cdf::pareto(1.1, (1000.0, 1e8));
    assert!(pareto.quantile(0.5) < 2000.0 && pareto.quantile(0.999) > 300_000.0);
}
