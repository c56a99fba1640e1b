//! Models change hands: deployed, pushed, rolled back, imported; numbered and written down.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use tracing::warn;

use crate::{
    datapath::{Datapath, DatapathError},
    deploy::{DeployError, deploy, rule_by_aging, watch},
    instance::Instance,
    journal::decisions::{Actor, Decision, Decisions, Step},
    metrics::Meters,
    model::{CompileError, LoadError, Model, Registry, SaveError, Thresholds, compile},
};

/// Why a model did not change hands; what acted before goes on.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    /// A file of the registry, or the one that was named, can't be used.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// It would not become a table.
    #[error("model {} does not fit the kernel's table", path.display())]
    Compile {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        source: CompileError,
    },
    /// The registry can't be written.
    #[error(transparent)]
    Save(#[from] SaveError),
    /// The kernel refused it.
    #[error(transparent)]
    Deploy(#[from] DeployError),
    /// The kernel programs can't be reached.
    #[error(transparent)]
    Datapath(#[from] DatapathError),
    /// Nothing to roll back from.
    #[error(
        "no model acts, aging rules already: name the generation that is to act (`treeline model list` shows them)"
    )]
    NothingActs,
    /// Nothing to roll back to.
    #[error(
        "model {generation} replaced no other: name the generation that is to act, or give --to-aging to schedule by \
         bytes sent alone"
    )]
    NoParent {
        /// The model that acts.
        generation: u32,
    },
    /// It is what acts already.
    #[error("model {generation} acts already")]
    ActsAlready {
        /// The model.
        generation: u32,
    },
}

/// What changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Generation that acted before; `None` is aging.
    pub before: Option<u32>,
    /// Generation that acts now; `None` is aging.
    pub acting: Option<u32>,
    /// Time from model to acting: compiled, checked, written, flipped.
    pub flip: Duration,
    /// The command that undoes it.
    pub undo: String,
}

/// Where a rollback goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Back {
    /// To the model that the acting one replaced.
    Parent,
    /// To this one.
    Generation(u32),
    /// To no model.
    Aging,
}

/// Registry and journal of an instance.
#[derive(Clone, Debug)]
pub struct Handover {
    registry: Registry,
    decisions: Decisions,
    instance: Instance,
    meters: Meters,
}

impl Handover {
    /// For the models of `instance`.
    pub fn new(instance: &Instance) -> Self {
        Self {
            registry: Registry::new(instance.models()),
            decisions: Decisions::new(instance.decisions()),
            instance: instance.clone(),
            meters: Meters::default(),
        }
    }

    /// The same, whose steps are counted there.
    #[must_use]
    pub(crate) fn counted_by(self, meters: Meters) -> Self {
        Self { meters, ..self }
    }

    /// The models.
    pub const fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Writes a decision down. That this fails hinders nothing, so it is only told.
    pub fn note(&self, decision: &Decision) {
        self.meters.decided(&decision.step);
        if let Err(error) = self.decisions.append(decision) {
            warn!(%error, step = decision.step.name(), "the decision could not be written to the journal");
        }
    }

    /// Numbers an accepted candidate, saves it and puts it in the shadow; the caller holds the registry's lock.
    ///
    /// # Errors
    /// See [`HandoverError`]; nothing is watched then that was not before.
    pub fn shadow(
        &self,
        datapath: &Datapath,
        candidate: Model,
        why: &str,
    ) -> Result<(Model, PathBuf), HandoverError> {
        let acting = datapath.active()?.map(|active| active.generation);
        // Else it would be the newest, and so what the next start begins with.
        if !self.registry.knows_what_acted() {
            self.registry.set_acting(acting)?;
        }
        let model = self.numbered(candidate, acting)?;
        let file = self.registry.save(&model)?;
        watch(datapath, &model)?;
        self.tidy(acting);
        let step = Step::Shadowed {
            generation: model.generation,
            file: file.clone(),
        };
        self.note(&Decision::now(Actor::Agent, step, acting, why));
        Ok((model, file))
    }

    /// Puts the model that was in the shadow to work; the caller holds the registry's lock.
    ///
    /// # Errors
    /// See [`HandoverError`]; what acted before goes on then.
    pub fn promote(
        &self,
        datapath: &Datapath,
        model: Model,
        why: &str,
    ) -> Result<(Model, PathBuf, Change), HandoverError> {
        // What acts may be another one than when it came into the shadow.
        let model = Model {
            parent_generation: datapath.active()?.map(|active| active.generation),
            ..model
        };
        let file = self.registry.save(&model)?;
        let change = self.set_acting(datapath, Some(&model))?;
        datapath.watch_none()?;
        self.tidy(Some(model.generation));
        let step = Step::Promoted {
            generation: model.generation,
            file: file.clone(),
            flip_us: change.flip.as_micros() as u64,
        };
        self.note(&noted(Actor::Agent, step, &change, why));
        Ok((model, file, change))
    }

    /// Takes the model out of the shadow, after it was watched on so many rows; it has never acted.
    ///
    /// # Errors
    /// If a map can't be written.
    pub fn drop_shadow(
        &self,
        datapath: &Datapath,
        (generation, rows): (u32, u64),
        why: &str,
    ) -> Result<(), HandoverError> {
        let acting = datapath.active()?.map(|active| active.generation);
        datapath.watch_none()?;
        let step = Step::Dropped { generation, rows };
        self.note(&Decision::now(Actor::Agent, step, acting, why));
        Ok(())
    }

    /// Takes the acting model out because it has lost its worth; the caller holds the registry's lock.
    ///
    /// # Errors
    /// If a map can't be written.
    pub fn fall_back(
        &self,
        datapath: &Datapath,
        generation: u32,
        why: &str,
    ) -> Result<Change, HandoverError> {
        let change = self.set_acting(datapath, None)?;
        self.note(&noted(
            Actor::Agent,
            Step::FellBack { generation },
            &change,
            why,
        ));
        Ok(change)
    }

    /// Numbers the model of a file, saves it and puts it to work.
    ///
    /// # Errors
    /// See [`HandoverError`]; what acted before goes on then, and a faulty file leaves no trace.
    pub fn push(&self, datapath: &Datapath, file: &Path) -> Result<(Model, Change), HandoverError> {
        self.push_model(datapath, checked(file)?, file)
    }

    /// The same with what somebody else has read of it; `file` says where it came from.
    ///
    /// # Errors
    /// See [`HandoverError`]; what acted before goes on then.
    pub fn push_text(
        &self,
        datapath: &Datapath,
        text: &[u8],
        file: &Path,
    ) -> Result<(Model, Change), HandoverError> {
        let model = compilable(Registry::decode(file, text)?, file)?;
        self.push_model(datapath, model, file)
    }

    fn push_model(
        &self,
        datapath: &Datapath,
        model: Model,
        file: &Path,
    ) -> Result<(Model, Change), HandoverError> {
        let sha256 = model.sha256();
        let _lock = self.registry.lock()?;
        let (model, _, change) = self.replace(datapath, model)?;
        let step = Step::Pushed {
            generation: model.generation,
            file: file.to_owned(),
            sha256,
            flip_us: change.flip.as_micros() as u64,
        };
        self.note(&noted(Actor::Command, step, &change, "asked for"));
        Ok((model, change))
    }

    /// Numbers the model of a file and saves it; what acts stays.
    ///
    /// # Errors
    /// See [`HandoverError`]; a faulty file leaves no trace.
    pub fn import(
        &self,
        file: &Path,
        acting: Option<u32>,
    ) -> Result<(Model, PathBuf), HandoverError> {
        let model = checked(file)?;
        let sha256 = model.sha256();
        let _lock = self.registry.lock()?;
        // Else it would be the newest, and so what the next start begins with.
        if !self.registry.knows_what_acted() {
            self.registry
                .set_acting(self.registry.latest_valid()?.0.map(|it| it.generation))?;
        }
        let model = Model {
            generation: self
                .registry
                .next_generation()?
                .max(acting.unwrap_or(0) + 1),
            parent_generation: None,
            ..model
        };
        let saved = self.registry.save(&model)?;
        let step = Step::Imported {
            generation: model.generation,
            file: file.to_owned(),
            sha256,
        };
        self.note(&Decision::now(Actor::Command, step, acting, "asked for"));
        Ok((model, saved))
    }

    /// Puts an earlier model to work again, or none.
    ///
    /// # Errors
    /// See [`HandoverError`]; what acted before goes on then.
    pub fn roll_back(&self, datapath: &Datapath, back: Back) -> Result<Change, HandoverError> {
        let _lock = self.registry.lock()?;
        let before = datapath.active()?.map(|active| active.generation);
        let target = match back {
            Back::Generation(generation) => Some(generation),
            Back::Aging => None,
            Back::Parent => {
                let generation = before.ok_or(HandoverError::NothingActs)?;
                let parent = self.registry.load(generation)?.parent_generation;
                Some(parent.ok_or(HandoverError::NoParent { generation })?)
            }
        };
        if target == before {
            return Err(match target {
                Some(generation) => HandoverError::ActsAlready { generation },
                None => HandoverError::NothingActs,
            });
        }
        let model = target
            .map(|generation| self.registry.load(generation))
            .transpose()?;
        let change = self.set_acting(datapath, model.as_ref())?;
        let step = Step::RolledBack { generation: target };
        self.note(&noted(Actor::Command, step, &change, "asked for"));
        Ok(change)
    }

    /// Takes out what acts, if anything does, because a start was asked for no model.
    ///
    /// # Errors
    /// See [`HandoverError`].
    pub fn take_out(&self, datapath: &Datapath) -> Result<Option<Change>, HandoverError> {
        let _lock = self.registry.lock()?;
        if datapath.active()?.is_none() {
            return Ok(None);
        }
        let change = self.set_acting(datapath, None)?;
        let why = "the start was asked for no model";
        self.note(&noted(Actor::Command, Step::TakenOut, &change, why));
        Ok(Some(change))
    }

    /// Cuts the bands of aging elsewhere.
    ///
    /// # Errors
    /// If a map can't be written.
    pub fn recut(
        &self,
        datapath: &Datapath,
        thresholds: &Thresholds,
        why: &str,
    ) -> Result<(), HandoverError> {
        datapath.cut_at(thresholds)?;
        self.keep_aging_cuts(thresholds);
        let step = Step::Recut {
            cuts_bytes: thresholds.cuts_bytes,
        };
        let decision = Decision::now(Actor::Agent, step, None, why);
        self.note(&decision.changed(None, self.undo_recut()));
        Ok(())
    }

    /// How to get the cuts back that everybody begins with: they come with the programs, and a start without a model keeps
    /// them.
    pub fn undo_recut(&self) -> String {
        let down = self.instance.command("down --all");
        format!("{down}, and up again with --model none")
    }

    fn keep_aging_cuts(&self, thresholds: &Thresholds) {
        if let Err(error) = self.registry.set_aging_cuts(thresholds) {
            warn!(%error, "the next start will cut the bands of aging elsewhere");
        }
    }

    /// The cuts that aging gets when `acting` goes: those that its file names, else the ones that everybody begins with.
    fn aging_cuts(&self, acting: Option<u32>) -> Thresholds {
        let model = acting.and_then(|generation| self.registry.load(generation).ok());
        model.and_then(|it| it.aging_thresholds).unwrap_or_default()
    }

    /// The command that makes `generation` act.
    pub fn command_for(&self, generation: Option<u32>) -> String {
        let which = generation.map_or_else(|| "--to-aging".to_owned(), |it| it.to_string());
        self.instance.command(&format!("model rollback {which}"))
    }

    fn replace(
        &self,
        datapath: &Datapath,
        model: Model,
    ) -> Result<(Model, PathBuf, Change), HandoverError> {
        let before = datapath.active()?.map(|active| active.generation);
        let model = self.numbered(model, before)?;
        let file = self.registry.save(&model)?;
        let change = self.set_acting(datapath, Some(&model))?;
        self.tidy(Some(model.generation));
        Ok((model, file, change))
    }

    fn numbered(&self, model: Model, before: Option<u32>) -> Result<Model, HandoverError> {
        Ok(Model {
            generation: self
                .registry
                .next_generation()?
                .max(before.unwrap_or(0) + 1),
            parent_generation: before,
            ..model
        })
    }

    fn tidy(&self, acting: Option<u32>) {
        if let Err(error) = self.registry.prune(acting) {
            warn!(%error, "old models could not be removed");
        }
    }

    fn set_acting(
        &self,
        datapath: &Datapath,
        model: Option<&Model>,
    ) -> Result<Change, HandoverError> {
        let before = datapath.active()?.map(|active| active.generation);
        let started = Instant::now();
        match model {
            Some(model) => deploy(datapath, model)?,
            None => {
                let thresholds = self.aging_cuts(before);
                rule_by_aging(datapath, &thresholds)?;
                self.keep_aging_cuts(&thresholds);
            }
        }
        let flip = started.elapsed();
        let acting = model.map(|model| model.generation);
        if let Err(error) = self.registry.set_acting(acting) {
            warn!(%error, "the next start will begin with another model");
        }
        Ok(Change {
            before,
            acting,
            flip,
            undo: self.command_for(before),
        })
    }
}

/// The model of a file, of which nothing hinders that it acts.
fn checked(file: &Path) -> Result<Model, HandoverError> {
    compilable(Registry::load_file(file)?, file)
}

fn compilable(model: Model, file: &Path) -> Result<Model, HandoverError> {
    compile(&model).map_err(|source| HandoverError::Compile {
        path: file.to_owned(),
        source,
    })?;
    Ok(model)
}

fn noted(by: Actor, step: Step, change: &Change, why: &str) -> Decision {
    Decision::now(by, step, change.acting, why).changed(change.before, change.undo.clone())
}
