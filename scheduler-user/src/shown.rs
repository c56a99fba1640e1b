//! What is shown of models and decisions: by the command line and over the control socket alike.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    datapath::Datapath,
    handover::Change,
    instance::Instance,
    journal::decisions::{Decision, Tail},
    model::{Entry, Importance, LoadError, Model, Registry, rules::Range},
};

/// Version of the JSON of models, and of what changes them.
pub const SCHEMA: u32 = 1;

/// The models of the registry, the newest last.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Listing {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Generation that acts; absent while aging rules.
    pub acting: Option<u32>,
    /// Models that can be used.
    pub models: Vec<Entry>,
    /// Files that can't.
    pub damaged: Vec<Damaged>,
}

/// A file of the registry that can't be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Damaged {
    /// The file.
    pub file: String,
    /// What is wrong with it.
    pub reason: String,
}

impl Listing {
    /// What the registry holds, as far as this user may know what acts.
    ///
    /// # Errors
    /// The directory can't be read.
    pub fn of(instance: &Instance) -> Result<Self, LoadError> {
        let (models, skipped) = Registry::new(instance.models()).list()?;
        Ok(Self {
            schema: SCHEMA,
            acting: acting(instance),
            models,
            damaged: skipped
                .iter()
                .map(|skip| Damaged {
                    file: skip.path.display().to_string(),
                    reason: skip.reason.to_string(),
                })
                .collect(),
        })
    }
}

/// A model's file with what follows from it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Described {
    /// What the file holds.
    #[serde(flatten)]
    pub model: Model,
    /// SHA-256 of that, in hexadecimal.
    pub sha256: String,
    /// What each feature does in it.
    pub importances: Vec<Importance>,
    /// A rule for each leaf, if asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rules: Option<Vec<DescribedRule>>,
    /// Pictures that were drawn.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub drawn: Vec<PathBuf>,
}

/// A leaf and what leads to it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct DescribedRule {
    /// Index of the tree.
    pub tree: usize,
    /// Index of the leaf.
    pub leaf: usize,
    /// Conditions, all of which hold.
    #[schema(value_type = Vec<Object>)]
    pub conditions: Vec<Range>,
    /// The same in words.
    pub text: String,
    /// Bytes to come that the leaf stands for on its own; absent where leaves correct one another.
    pub bytes_to_come: Option<f64>,
    /// Mean log2(floor + bytes to come) of its training rows.
    pub output: f64,
    /// Factor of one standard deviation of them.
    pub factor: f64,
    /// Training rows.
    pub rows: u64,
}

impl Described {
    /// What there is to say of `model`.
    pub fn of(model: &Model, with_rules: bool, drawn: Vec<PathBuf>) -> Self {
        let rules = || {
            let rules = model.rules().into_iter().map(|rule| DescribedRule {
                tree: rule.tree,
                leaf: rule.leaf,
                text: rule.to_string(),
                conditions: rule.ranges,
                bytes_to_come: model.leaf_bytes(&rule.node),
                output: rule.node.output,
                factor: rule.node.sigma.exp2(),
                rows: rule.node.rows,
            });
            rules.collect()
        };
        Self {
            model: model.clone(),
            sha256: model.sha256(),
            importances: model.importances(),
            rules: with_rules.then(rules),
            drawn,
        }
    }
}

/// The end of the journal of decisions.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Decided {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Records, the newest last.
    pub decisions: Vec<Decision>,
    /// Lines that are no records: damaged, or of a later version.
    pub unreadable: usize,
}

impl From<Tail> for Decided {
    fn from(tail: Tail) -> Self {
        Self {
            schema: SCHEMA,
            decisions: tail.decisions,
            unreadable: tail.unreadable,
        }
    }
}

/// What came of putting a model to work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Changed {
    /// [`SCHEMA`].
    pub schema: u32,
    /// `pushed` or `rolled-back`.
    pub step: String,
    /// Generation that acted before; absent if it was aging.
    pub before: Option<u32>,
    /// Generation that acts now; absent if it is aging.
    pub acting: Option<u32>,
    /// Time from model to acting: compiled, checked, written, flipped.
    pub flip_us: u64,
    /// The command that undoes it.
    pub undo: String,
    /// What to know about it.
    pub warning: Option<String>,
    /// Size and depth of the model that acts now, in words.
    pub summary: Option<String>,
}

impl Changed {
    /// A file was put to work.
    pub fn pushed(model: &Model, change: &Change) -> Self {
        Self {
            summary: Some(model.summary().to_string()),
            ..Self::of("pushed", change)
        }
    }

    /// An earlier model acts again, or none.
    pub fn rolled_back(instance: &Instance, change: &Change) -> Self {
        let warning = instance.agent_pid().map(|pid| {
            format!("the agent (pid {pid}) goes on learning and may put a better model to work")
        });
        Self {
            warning,
            ..Self::of("rolled-back", change)
        }
    }

    fn of(step: &str, change: &Change) -> Self {
        Self {
            schema: SCHEMA,
            step: step.to_owned(),
            before: change.before,
            acting: change.acting,
            flip_us: change.flip.as_micros() as u64,
            undo: change.undo.clone(),
            warning: None,
            summary: None,
        }
    }
}

/// The model of this name; without one the model that acts, as far as this user may know, else the newest.
///
/// # Errors
/// See [`LoadError`].
pub fn named(instance: &Instance, which: Option<&str>) -> Result<Option<Model>, LoadError> {
    let registry = Registry::new(instance.models());
    let Some(which) = which else {
        if let Some(generation) = acting(instance) {
            return Ok(Some(registry.load(generation)?));
        }
        return Ok(registry.latest_valid()?.0);
    };
    registry.load_named(which).map(Some)
}

/// Generation that acts, as far as this user may know.
pub fn acting(instance: &Instance) -> Option<u32> {
    let datapath = Datapath::open(instance).ok().flatten()?;
    Some(datapath.active().ok().flatten()?.generation)
}
