//! A model as a report tells of it.

use serde::Serialize;

use crate::{
    instance::Instance,
    model::{Importance, Model, Registry, Summary, Thresholds},
    training::Scores,
};

/// A model and what follows from it.
#[derive(Clone, Debug, Serialize)]
pub struct Described {
    /// Number, trees, nodes, rows.
    #[serde(flatten)]
    pub summary: Summary,
    /// Whether it acts, or acted last; else it is only the newest.
    pub acts: bool,
    /// When it was made, seconds since 1970.
    pub created_unix_s: u64,
    /// Name of the trainer.
    pub trainer: String,
    /// Service ports among the rows that it learned from.
    pub services: u64,
    /// How it did on rows that it had not seen.
    pub scores: Option<Scores>,
    /// Where the bands are cut while it acts.
    pub thresholds: Thresholds,
    /// Features that it asks for, the most important first.
    pub importances: Vec<Importance>,
    /// Its leaves in words, those that most rows met first.
    pub rules: Vec<ToldRule>,
}

/// A leaf and what leads to it.
#[derive(Clone, Debug, Serialize)]
pub struct ToldRule {
    /// Conditions, all of which hold.
    pub text: String,
    /// Bytes to come; absent where trees correct one another.
    pub bytes_to_come: Option<f64>,
    /// The factor of one standard deviation.
    pub factor: f64,
    /// Training rows that met it.
    pub rows: u64,
    /// The band of a message that begins so.
    pub band: Option<u8>,
}

/// The model that acts, else the newest that can be read.
pub(super) fn of(instance: &Instance, acting: Option<u32>) -> Option<Described> {
    let registry = Registry::new(instance.models());
    let named = acting.and_then(|generation| registry.load(generation).ok());
    let model = named.or_else(|| registry.newest().ok().flatten())?;
    let mut rules: Vec<ToldRule> = (model.rules().iter())
        .map(|rule| {
            let bytes_to_come = model.leaf_bytes(&rule.node);
            ToldRule {
                text: rule.to_string(),
                bytes_to_come,
                factor: rule.node.sigma.exp2(),
                rows: rule.node.rows,
                band: bytes_to_come.map(|bytes| model.thresholds.band_of(bytes)),
            }
        })
        .collect();
    rules.sort_by_key(|rule| std::cmp::Reverse(rule.rows));
    let Model {
        created_unix_s,
        ref trainer,
        ref data,
        ref scores,
        thresholds,
        ..
    } = model;
    Some(Described {
        summary: model.summary(),
        acts: acting == Some(model.generation),
        created_unix_s,
        trainer: trainer.clone(),
        services: data.services,
        scores: scores.clone(),
        thresholds,
        importances: model.importances(),
        rules,
    })
}
