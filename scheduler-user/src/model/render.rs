//! A model as text that a person can read.

use std::fmt::{self, Display, Write as _};

use scheduler_common::features::Feature;
use serde::Serialize;

use super::{Model, Split, Tree, rules::bytes_of};

/// A model in six numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Its number.
    pub generation: u32,
    /// Trees.
    pub trees: usize,
    /// Nodes of all trees.
    pub nodes: usize,
    /// Splits on the longest path.
    pub depth: u32,
    /// Rows it was trained on.
    pub trained_on_samples: u64,
    /// How long training took.
    pub train_ms: u64,
}

impl Model {
    /// The model in six numbers.
    pub fn summary(&self) -> Summary {
        Summary {
            generation: self.generation,
            trees: self.trees.len(),
            nodes: self.trees.iter().map(|tree| tree.nodes.len()).sum(),
            depth: self.trees.iter().map(Tree::depth).max().unwrap_or(0),
            trained_on_samples: self.trained_on_samples,
            train_ms: self.train_ms,
        }
    }
}

impl Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            generation,
            trees,
            nodes,
            depth,
            trained_on_samples,
            train_ms,
        } = self;
        let s = if *trees == 1 { "" } else { "s" };
        write!(
            f,
            "model {generation}: {trees} tree{s}, {nodes} nodes, {depth} splits deep, \
             trained on {trained_on_samples} samples in {train_ms} ms"
        )
    }
}

impl Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.summary())?;
        if let Some(scores) = &self.scores {
            writeln!(f, "{scores}")?;
        }
        for (index, tree) in self.trees.iter().enumerate() {
            if self.trees.len() > 1 {
                writeln!(f, "tree {}", index + 1)?;
            }
            f.write_str(&rules(tree))?;
        }
        Ok(())
    }
}

/// One line a branch, indented by depth; a leaf stands on the line of the branch that leads to it.
fn rules(tree: &Tree) -> String {
    let mut text = String::new();
    if let Some(root) = tree.nodes.first() {
        match root.split {
            Some(split) => branches(tree, split, "", &mut text),
            None => text.push_str(&format!("always{}\n", leaf(tree, 0))),
        }
    }
    text
}

fn branches(tree: &Tree, split: Split, indent: &str, text: &mut String) {
    let sides = [(split.at_most, "├─", "│  "), (split.above, "└─", "   ")];
    for (side, (child, mark, deeper)) in sides.into_iter().enumerate() {
        let Some(node) = tree.nodes.get(child as usize) else {
            continue;
        };
        text.push_str(&format!("{indent}{mark} {}", condition(split, side == 1)));
        match node.split {
            Some(next) => {
                text.push('\n');
                branches(tree, next, &format!("{indent}{deeper}"), text);
            }
            None => text.push_str(&format!("{}\n", leaf(tree, child as usize))),
        }
    }
}

fn condition(split: Split, above: bool) -> String {
    let feature = Feature::ALL.get(usize::from(split.feature));
    let (name, unit) = feature.map_or(("unknown", ""), |it| (it.name(), it.unit()));
    let value = split.value.floor();
    let relation = if above { ">" } else { "<=" };
    let mut text = format!("{name} {relation} {value}");
    if !unit.is_empty() {
        text.push(' ');
        text.push_str(unit);
    }
    text
}

fn leaf(tree: &Tree, index: usize) -> String {
    let node = tree.nodes[index];
    let mut text = format!(" → {} to come", human_bytes(bytes_of(node.output)));
    if node.rows > 0 {
        write!(
            text,
            " (within a factor {:.1}; {} rows)",
            node.sigma.exp2(),
            node.rows
        )
        .expect("a string takes any text");
    }
    text
}

/// Bytes with a decimal unit, two or three digits.
pub fn human_bytes(bytes: f64) -> String {
    let mut value = bytes;
    for unit in ["B", "kB", "MB", "GB"] {
        if value < 999.5 {
            let decimals = usize::from(value < 9.95 && unit != "B");
            return format!("{value:.decimals$} {unit}");
        }
        value /= 1000.0;
    }
    format!("{value:.1} TB")
}

#[cfg(test)]
mod tests {
    use super::{
        super::{DataWindow, TreeNode},
        *,
    };

    fn node(output: f64, split: Option<(Feature, f64, u32)>) -> TreeNode {
        let split = split.map(|(feature, value, child)| Split {
            feature: feature as u8,
            value,
            at_most: child,
            above: child + 1,
        });
        TreeNode {
            output,
            sigma: 1.0,
            rows: 40,
            split,
        }
    }

    #[test]
    fn a_tree_reads_as_rules() {
        let tree = Tree {
            nodes: vec![
                node(5.0, Some((Feature::ServicePort, 100.5, 1))),
                node(12.0, None),
                node(5.0, Some((Feature::RequestBytes, 300.5, 3))),
                node(14.0, None),
                node(20.0, None),
            ],
        };
        let model = Model::new(
            "made up",
            DataWindow {
                rows: 120,
                ..DataWindow::default()
            },
            vec![tree],
        );
        assert_eq!(
            model.to_string(),
            "model 0: 1 tree, 5 nodes, 2 splits deep, trained on 120 samples in 0 ms\n\
             ├─ service_port <= 100 → 0 B to come (within a factor 2.0; 40 rows)\n\
             └─ service_port > 100\n   \
             ├─ request_bytes <= 300 bytes → 12 kB to come (within a factor 2.0; 40 rows)\n   \
             └─ request_bytes > 300 bytes → 1.0 MB to come (within a factor 2.0; 40 rows)\n"
        );
    }

    #[test]
    fn a_single_leaf_is_a_rule_too() {
        let model = Model::new(
            "made up",
            DataWindow::default(),
            vec![Tree {
                nodes: vec![TreeNode {
                    rows: 0,
                    ..node(13.0, None)
                }],
            }],
        );
        assert!(model.to_string().ends_with("\nalways → 4.1 kB to come\n"));
    }

    #[test]
    fn sizes_are_short() {
        let shown = [0.0, 999.0, 999.9, 1400.0, 15_000.0, 999_499.0, 5e6, 2e12].map(human_bytes);
        assert_eq!(
            shown,
            [
                "0 B", "999 B", "1.0 kB", "1.4 kB", "15 kB", "999 kB", "5.0 MB", "2.0 TB"
            ]
        );
    }
}
