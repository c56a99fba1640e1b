//! Distributions of reply sizes: published tables, and cut log-normals.

/// Points (bytes, share of messages up to that size), joined by straight lines.
pub type Table = &'static [(f64, f64)];

/// Web search: DCTCP (SIGCOMM 2010), figure 4, as simulators retell it.
pub static WEB_SEARCH: Table = &[
    (0.0, 0.0),
    (10_000.0, 0.15),
    (20_000.0, 0.2),
    (30_000.0, 0.3),
    (50_000.0, 0.4),
    (80_000.0, 0.53),
    (200_000.0, 0.6),
    (1_000_000.0, 0.7),
    (2_000_000.0, 0.8),
    (5_000_000.0, 0.9),
    (10_000_000.0, 0.97),
    (30_000_000.0, 1.0),
];

/// Data mining: VL2 (SIGCOMM 2009), figure 2, as simulators retell it.
pub static DATA_MINING: Table = &[
    (0.0, 0.0),
    (180.0, 0.1),
    (216.0, 0.2),
    (560.0, 0.3),
    (900.0, 0.4),
    (1_100.0, 0.5),
    (1_870.0, 0.6),
    (3_160.0, 0.7),
    (10_000.0, 0.8),
    (400_000.0, 0.9),
    (3_160_000.0, 0.95),
    (100_000_000.0, 0.98),
    (1_000_000_000.0, 1.0),
];

/// Facebook's Hadoop, as HPCC (SIGCOMM 2019) gives it.
pub static HADOOP: Table = &[
    (0.0, 0.0),
    (100.0, 0.01),
    (200.0, 0.02),
    (300.0, 0.05),
    (350.0, 0.15),
    (400.0, 0.2),
    (500.0, 0.3),
    (600.0, 0.4),
    (700.0, 0.5),
    (1_000.0, 0.6),
    (2_000.0, 0.67),
    (7_000.0, 0.7),
    (30_000.0, 0.72),
    (50_000.0, 0.82),
    (80_000.0, 0.87),
    (120_000.0, 0.9),
    (300_000.0, 0.95),
    (1_000_000.0, 0.975),
    (2_000_000.0, 0.99),
    (10_000_000.0, 1.0),
];

/// Facebook's cache followers within a cluster: Roy et al. (SIGCOMM 2015), thinned to 27 of 331 points.
pub static CACHE_FOLLOWER: Table = &[
    (50.0, 0.0),
    (68.0, 0.02),
    (222.0, 0.05),
    (291.0, 0.1),
    (321.0, 0.15),
    (367.0, 0.2),
    (442.0, 0.25),
    (561.0, 0.3),
    (701.0, 0.35),
    (1_123.0, 0.4),
    (2_727.0, 0.45),
    (28_270.0, 0.5),
    (132_695.0, 0.55),
    (209_671.0, 0.6),
    (303_985.0, 0.65),
    (545_885.0, 0.7),
    (1_635_067.0, 0.75),
    (1_858_680.0, 0.8),
    (2_198_313.0, 0.85),
    (2_440_257.0, 0.9),
    (2_542_379.0, 0.925),
    (2_682_023.0, 0.95),
    (2_802_432.0, 0.97),
    (2_898_344.0, 0.98),
    (3_058_995.0, 0.99),
    (3_318_310.0, 0.995),
    (3_837_698.0, 1.0),
];

/// Facebook's web servers within a cluster: Roy et al. (SIGCOMM 2015), thinned to 27 of 441 points.
pub static WEB_SERVER: Table = &[
    (50.0, 0.0),
    (59.0, 0.02),
    (77.0, 0.05),
    (120.0, 0.1),
    (183.0, 0.15),
    (269.0, 0.2),
    (751.0, 0.25),
    (1_030.0, 0.3),
    (1_534.0, 0.35),
    (1_887.0, 0.4),
    (2_530.0, 0.45),
    (3_406.0, 0.5),
    (4_624.0, 0.55),
    (6_481.0, 0.6),
    (9_823.0, 0.65),
    (16_817.0, 0.7),
    (31_480.0, 0.75),
    (70_000.0, 0.8),
    (186_026.0, 0.85),
    (268_075.0, 0.9),
    (304_177.0, 0.925),
    (344_103.0, 0.95),
    (389_254.0, 0.97),
    (426_830.0, 0.98),
    (552_298.0, 0.99),
    (722_463.0, 0.995),
    (1_000_000.0, 1.0),
];

/// Alibaba's storage of 2019, as HPCC's repository gives it.
pub static STORAGE: Table = &[
    (0.0, 0.0),
    (4_000.0, 0.2293),
    (8_000.0, 0.6921),
    (16_000.0, 0.8061),
    (32_000.0, 0.9047),
    (64_000.0, 0.9353),
    (128_000.0, 0.9677),
    (256_000.0, 0.9753),
    (2_000_000.0, 1.0),
];

/// Sizes of one kind of message, before they are scaled.
#[derive(Clone, Copy, Debug)]
pub enum Sizes {
    /// A published table between two of its quantiles.
    Published {
        /// The table.
        table: Table,
        /// First and last quantile that occur.
        quantiles: (f64, f64),
    },
    /// A log-normal distribution that is cut at both ends.
    LogNormal {
        /// Median before the cut.
        median_bytes: f64,
        /// Standard deviation of the natural logarithm.
        sigma: f64,
        /// Least and largest size.
        bounds: (f64, f64),
    },
}

impl Sizes {
    /// All of a table.
    #[must_use]
    pub const fn all_of(table: Table) -> Self {
        Self::part_of(table, 0.0, 1.0)
    }

    /// A table from one quantile to another.
    #[must_use]
    pub const fn part_of(table: Table, from: f64, to: f64) -> Self {
        Self::Published {
            table,
            quantiles: (from, to),
        }
    }

    /// The size at quantile `q`, from 0 to 1, in bytes.
    #[must_use]
    pub fn at(&self, q: f64) -> f64 {
        match self {
            Self::Published { table, quantiles } => {
                interpolated(table, (quantiles.1 - quantiles.0).mul_add(q, quantiles.0))
            }
            Self::LogNormal {
                median_bytes,
                sigma,
                bounds,
            } => {
                let at = |bytes: f64| normal_below((bytes / median_bytes).ln() / sigma);
                let (low, high) = (at(bounds.0), at(bounds.1));
                let normal = normal_quantile((high - low).mul_add(q, low));
                (median_bytes * (sigma * normal).exp()).clamp(bounds.0, bounds.1)
            }
        }
    }
}

fn interpolated(table: Table, q: f64) -> f64 {
    let place = table.partition_point(|(_, share)| *share < q);
    let Some((to, above)) = table.get(place).copied() else {
        return table.last().map_or(0.0, |point| point.0);
    };
    let Some((from, below)) = place.checked_sub(1).map(|at| table[at]) else {
        return to;
    };
    from + (to - from) * (q - below) / (above - below)
}

/// Distribution function of the standard normal (Abramowitz and Stegun 26.2.17).
fn normal_below(x: f64) -> f64 {
    const B: [f64; 5] = [
        0.319_381_530,
        -0.356_563_782,
        1.781_477_937,
        -1.821_255_978,
        1.330_274_429,
    ];
    let t = 1.0 / 0.231_641_9f64.mul_add(x.abs(), 1.0);
    let series = B.iter().rev().fold(0.0, |sum, b| (sum + b) * t);
    let upper = (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt() * series;
    if x < 0.0 { upper } else { 1.0 - upper }
}

/// Inverse of [`normal_below`] by bisection: exact enough and cheap enough for some thousands.
fn normal_quantile(q: f64) -> f64 {
    let (mut low, mut high) = (-8.0, 8.0);
    for _ in 0..50 {
        let middle = f64::midpoint(low, high);
        if normal_below(middle) < q {
            low = middle
        } else {
            high = middle
        }
    }
    f64::midpoint(low, high)
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    #[test]
    fn the_normal_quantile_inverts_the_distribution() {
        assert!((normal_quantile(0.975) - 1.96).abs() < 1e-3);
        assert!(normal_quantile(0.5).abs() < 1e-3);
    }

    #[test]
    fn a_part_of_a_table_stays_within_it() {
        let part = Sizes::part_of(WEB_SEARCH, 0.8, 0.9);
        assert!((part.at(0.0) - 2e6).abs() < 1.0 && (part.at(1.0) - 5e6).abs() < 1.0);
        assert!((part.at(0.5) - 3.5e6).abs() < 1.0);
    }

    #[test]
    fn tables_rise() {
        for table in [
            WEB_SEARCH,
            DATA_MINING,
            HADOOP,
            CACHE_FOLLOWER,
            WEB_SERVER,
            STORAGE,
        ] {
            assert!(
                table.is_sorted_by(|a, b| a.0 < b.0 && a.1 < b.1),
                "{table:?}"
            );
            assert!(table.last().is_some_and(|last| last.1 >= 1.0));
        }
    }

    #[test]
    fn tables_have_the_means_of_the_published_ones() {
        let directory =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/cdf/normalised");
        for (name, table) in [
            ("websearch_dctcp", WEB_SEARCH),
            ("datamining_vl2", DATA_MINING),
            ("fbhadoop_hpcc", HADOOP),
            ("facebook_cache_follower", CACHE_FOLLOWER),
            ("facebook_web_server", WEB_SERVER),
            ("alistorage2019", STORAGE),
        ] {
            let Ok(text) = fs::read_to_string(directory.join(name).with_extension("txt")) else {
                eprintln!("left out: the published table {name} is not there");
                continue;
            };
            let published: Vec<(f64, f64)> = text
                .lines()
                .filter(|line| !line.starts_with('#'))
                .map(|line| {
                    let mut words = line.split_whitespace().map(|word| word.parse().unwrap());
                    (words.next().unwrap(), words.next().unwrap())
                })
                .collect();
            let published: Table = Box::leak(published.into());
            let mean = |table| {
                let sizes = Sizes::all_of(table);
                (0..1000)
                    .map(|i| sizes.at((f64::from(i) + 0.5) / 1000.0))
                    .sum::<f64>()
            };
            let ratio = mean(table) / mean(published);
            assert!((ratio - 1.0).abs() < 0.02, "{name}: {ratio}");
        }
    }
}
