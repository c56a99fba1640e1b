//! Which model an interface begins with.

use std::path::PathBuf;

use tracing::{info, warn};

use super::UplinkError;
use crate::{
    datapath::Datapath,
    deploy::deploy,
    handover::Handover,
    instance::Instance,
    model::{Model, Registry},
};

/// Which model acts at first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ModelChoice {
    /// What already acts, else the newest of the registry, else none, with the bands cut where aging had them last.
    #[default]
    Latest,
    /// None: aging alone, by the cuts that everybody begins with unless others are in force.
    None,
    /// The model in this file.
    File(PathBuf),
}

/// Puts the chosen model to work and returns it, if there is one.
///
/// # Errors
/// If a model was named and can't be used. Damaged models of the registry are skipped with a warning.
pub fn choose_model(
    instance: &Instance,
    datapath: &Datapath,
    choice: &ModelChoice,
) -> Result<Option<Model>, UplinkError> {
    let registry = Registry::new(instance.models());
    match choice {
        ModelChoice::None => {
            if Handover::new(instance).take_out(datapath)?.is_some() {
                info!(
                    what = "aging rules",
                    why = "asked for no model",
                    "model taken out"
                );
            }
            Ok(None)
        }
        ModelChoice::File(path) => {
            let named = Registry::load_file(path)?;
            if let Some(active) = datapath.active()?
                && let Ok(acting) = registry.load(active.generation)
                && acting.unnumbered() == named.unnumbered()
            {
                info!(generation = active.generation, file = %path.display(), "model goes on");
                return Ok(Some(acting));
            }
            let (model, _) = Handover::new(instance).push(datapath, path)?;
            info!(generation = model.generation, file = %path.display(), "model deployed");
            Ok(Some(model))
        }
        ModelChoice::Latest => {
            if let Some(active) = datapath.active()? {
                info!(generation = active.generation, "model goes on");
                return Ok(registry.load(active.generation).ok());
            }
            let (model, skipped) = registry.latest_valid()?;
            for skip in skipped {
                warn!(file = %skip.path.display(), why = %skip.reason, "model skipped");
            }
            if let Some(model) = &model {
                deploy(datapath, model)?;
                info!(
                    generation = model.generation,
                    why = "newest of the registry",
                    "model deployed"
                );
            } else if let Some(thresholds) = registry.aging_cuts() {
                datapath.cut_at(&thresholds)?;
                info!(
                    cuts_bytes = ?thresholds.cuts_bytes,
                    why = "aging had them last",
                    undo = Handover::new(instance).undo_recut(),
                    "bands are cut"
                );
            }
            Ok(model)
        }
    }
}
