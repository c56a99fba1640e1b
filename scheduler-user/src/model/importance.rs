//! How much each feature does in a model, by its own leaves.

use scheduler_common::features::Feature;
use serde::Serialize;

use super::{Model, Tree};

/// What splits on one feature explain.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, utoipa::ToSchema)]
pub struct Importance {
    /// Name of the feature.
    pub feature: &'static str,
    /// Share of all that the splits explain; they sum up to 1.
    pub share: f64,
    /// Splits that ask for it.
    pub splits: usize,
}

impl Model {
    /// Features that the model asks for, the most important first.
    ///
    /// A split explains what the training rows' square distance from their mean falls by when they are divided
    /// (Breiman et al., "Classification and Regression Trees", 1984). It follows from the leaves' rows and
    /// outputs alone. Features that tell the same share what they are worth, as ever with this measure.
    pub fn importances(&self) -> Vec<Importance> {
        let mut gains = vec![0.0; Feature::ALL.len()];
        let mut splits = vec![0; Feature::ALL.len()];
        for tree in &self.trees {
            add(tree, &mut gains, &mut splits);
        }
        let total: f64 = gains.iter().sum();
        let all = Feature::ALL.iter().zip(gains).zip(splits);
        let mut importances: Vec<Importance> = all
            .filter(|(_, splits)| *splits > 0)
            .map(|((feature, gain), splits)| Importance {
                feature: feature.name(),
                share: if total > 0.0 { gain / total } else { 0.0 },
                splits,
            })
            .collect();
        importances.sort_by(|a, b| b.share.total_cmp(&a.share));
        importances
    }
}

/// Rows and their mean output below each node; children stand behind parents.
fn add(tree: &Tree, gains: &mut [f64], splits: &mut [usize]) {
    let mut below: Vec<(f64, f64)> = tree
        .nodes
        .iter()
        .map(|node| (node.rows as f64, node.output))
        .collect();
    for (index, node) in tree.nodes.iter().enumerate().rev() {
        let Some(split) = node.split else { continue };
        let Some(gain) = gains.get_mut(usize::from(split.feature)) else {
            continue;
        };
        splits[usize::from(split.feature)] += 1;
        let [left, right] = [split.at_most, split.above].map(|child| below[child as usize]);
        let rows = left.0 + right.0;
        if rows > 0.0 {
            let mean = (left.0 * left.1 + right.0 * right.1) / rows;
            *gain += left.0 * (left.1 - mean).powi(2) + right.0 * (right.1 - mean).powi(2);
            below[index] = (rows, mean);
        } else {
            below[index].0 = 0.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{DataWindow, Split, TreeNode},
        *,
    };

    fn node(output: f64, rows: u64, split: Option<(Feature, u32)>) -> TreeNode {
        let split = split.map(|(feature, child)| Split {
            feature: feature as u8,
            value: 1.5,
            at_most: child,
            above: child + 1,
        });
        TreeNode {
            output,
            sigma: 0.1,
            rows,
            split,
        }
    }

    #[test]
    fn what_divides_more_counts_for_more() {
        let nodes = vec![
            node(0.0, 0, Some((Feature::ServicePort, 1))),
            node(10.0, 100, None),
            node(0.0, 0, Some((Feature::RequestBytes, 3))),
            node(18.0, 50, None),
            node(22.0, 50, None),
        ];
        let model = Model::new("made up", DataWindow::default(), vec![Tree { nodes }]);
        let found = model.importances();
        // By hand: 100 rows at 10 and 100 at 20 around 15 are 5000, 50 at 18 and 50 at 22 around 20 are 400.
        let of = |feature, share, splits| Importance {
            feature,
            share,
            splits,
        };
        assert_eq!(
            found,
            [
                of("service_port", 5000.0 / 5400.0, 1),
                of("request_bytes", 400.0 / 5400.0, 1),
            ]
        );
    }

    #[test]
    fn a_model_without_rows_or_splits_says_nothing() {
        let split = vec![
            node(0.0, 0, Some((Feature::GapUs, 1))),
            node(1.0, 0, None),
            node(2.0, 0, None),
        ];
        let model = |nodes| Model::new("made up", DataWindow::default(), vec![Tree { nodes }]);
        assert_eq!(model(split).importances()[0].share, 0.0);
        assert!(model(vec![node(1.0, 5, None)]).importances().is_empty());
    }
}
