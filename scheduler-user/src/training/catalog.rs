//! Trainers by name.

use super::{
    Boosted, Constant, DecisionTree, Forest, Oblivious, PortOnly, Trainer, Variety,
    parameters::Parameters,
};

/// A trainer that can be asked for by name.
#[derive(Clone, Copy, Debug)]
pub struct Choice {
    /// Its name.
    pub name: &'static str,
    /// What it is, in one line.
    pub help: &'static str,
    /// What it is told if nobody says otherwise.
    pub defaults: Parameters,
    make: fn(Parameters) -> Box<dyn Trainer>,
}

impl Choice {
    /// The trainer with these parameters.
    pub fn with(&self, parameters: Parameters) -> Box<dyn Trainer> {
        (self.make)(parameters)
    }
}

/// All trainers, simplest first.
pub const TRAINERS: &[Choice] = &[
    Choice {
        name: "constant",
        help: "the mean of all messages, whatever they are",
        defaults: Parameters::TREE,
        make: |parameters| Box::new(Constant(parameters)),
    },
    Choice {
        name: "port",
        help: "a tree on the service's port and the sending side alone",
        defaults: Parameters {
            min_leaf_rows: 5,
            ..Parameters::TREE
        },
        make: |parameters| Box::new(PortOnly(parameters)),
    },
    Choice {
        name: "tree",
        help: "one regression tree",
        defaults: Parameters::TREE,
        make: |parameters| Box::new(DecisionTree(parameters)),
    },
    Choice {
        name: "oblivious",
        help: "one tree that asks the same question all over a level: the fastest to walk",
        defaults: Parameters::TREE,
        make: |parameters| {
            Box::new(Oblivious {
                splits: parameters.splits,
                min_leaf_rows: parameters.min_leaf_rows,
            })
        },
    },
    Choice {
        name: "forest",
        help: "the mean of trees on resampled rows",
        defaults: Parameters::FOREST,
        make: |parameters| {
            Box::new(Forest {
                variety: Variety::Bagged,
                parameters,
            })
        },
    },
    Choice {
        name: "extra",
        help: "the mean of trees whose thresholds are drawn at random",
        defaults: Parameters::EXTRA,
        make: |parameters| {
            Box::new(Forest {
                variety: Variety::Extra,
                parameters,
            })
        },
    },
    Choice {
        name: "boosted",
        help: "a sum of trees, each of which learns what those before it got wrong",
        defaults: Parameters::BOOSTED,
        make: |parameters| Box::new(Boosted(parameters)),
    },
];

/// The entry of a trainer.
pub fn choice(name: &str) -> Option<&'static Choice> {
    TRAINERS.iter().find(|choice| choice.name == name)
}

/// A trainer with its defaults.
pub fn trainer(name: &str) -> Option<Box<dyn Trainer>> {
    choice(name).map(|choice| choice.with(choice.defaults))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use scheduler_common::class::Cuts;

    use super::{super::made_up::random_rows, *};
    use crate::model::compile;

    #[test]
    fn every_trainer_answers_to_its_name() {
        for choice in TRAINERS {
            assert_eq!(trainer(choice.name).unwrap().name(), choice.name);
        }
        assert!(trainer("oracle").is_none());
    }

    #[test]
    fn the_same_rows_and_seed_give_the_same_model() {
        let rows = random_rows(600, 9, 4);
        for choice in TRAINERS {
            let train = |seed| {
                let parameters = Parameters {
                    seed,
                    ..choice.defaults
                };
                choice.with(parameters).train(&rows).unwrap().sha256()
            };
            assert_eq!(train(1), train(1), "{}", choice.name);
            let chance = ["forest", "extra", "boosted"].contains(&choice.name);
            assert!(!chance || train(1) != train(2), "{}", choice.name);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]
        #[test]
        fn the_kernel_s_band_is_the_model_s_on_every_row(
            seed in any::<u64>(),
            kinds in prop_oneof![2u32..30, Just(u32::MAX)],
            short_weight in prop_oneof![Just(1.0), 1.1..4.0],
            trees in 2usize..17,
        ) {
            let window = random_rows(500, kinds, seed);
            let unseen = random_rows(200, kinds, !seed);
            let cuts = Cuts::default();
            for choice in TRAINERS {
                let parameters = Parameters { seed, short_weight, trees, ..choice.defaults };
                let model = choice.with(parameters).train(&window).unwrap();
                let table = compile(&model).unwrap();
                for row in window.iter().chain(&unseen) {
                    let walked = table.walk(&row.features).unwrap();
                    let exact = model.predict(&row.features);
                    let walked_log2 = f64::from(walked.log2_q8) / 256.0;
                    prop_assert!((walked_log2 - exact).abs() < 1.0 / 256.0, "{}", choice.name);
                    let band = cuts.band_of(row.bytes_at + walked.bytes_to_come());
                    prop_assert_eq!(band, model.band(&row.features, row.bytes_at, &cuts));
                }
            }
        }
    }
}
