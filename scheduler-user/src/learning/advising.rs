//! What a model must show here, other options, and advice where nothing acts.

use std::{io, sync::Arc};

use scheduler_common::settings::SAMPLES_PER_WINDOW;
use tracing::{info, warn};

use super::{
    Learner, LearningError,
    background::in_background,
    cycle::{self, Work},
    mind::Needs,
};
use crate::{
    advice::Advice,
    agent::{Options, set_sampling},
    canary::Canary,
    datapath::Datapath,
    instance::Instance,
    model::{Model, Thresholds},
    simulate::Within,
    training::JudgeLimits,
};

impl Learner {
    /// Goes on by other options; what was learned stays.
    pub(super) fn take_over(
        &mut self,
        datapath: &Datapath,
        options: Options,
    ) -> Result<(), LearningError> {
        if options.sample_one_in != self.options.sample_one_in {
            set_sampling(datapath, options.sample_one_in, SAMPLES_PER_WINDOW)?;
        }
        self.mind.needs = Needs {
            min_samples: options.min_samples,
            canary_rows: options.canary_rows,
        };
        self.options = options;
        Ok(())
    }

    /// By the rate that was named where nothing is shaped yet, else by what stands on the interfaces; under the settings in
    /// force, and against aging with its own cuts.
    pub(super) fn limits(&self, datapath: &Datapath) -> Result<JudgeLimits, LearningError> {
        let named = self.options.observe.as_ref();
        let mut limits = match named.and_then(|observe| observe.rate_bps) {
            Some(rate_bps) => JudgeLimits::of_rate(rate_bps),
            None => limits(&self.instance),
        };
        limits.link.settings = datapath.settings()?;
        limits.aging = match &self.mind.running {
            Some(model) => model.aging_thresholds.unwrap_or_default(),
            None => Thresholds::from(&limits.link.settings),
        };
        Ok(limits)
    }

    /// The model that would act: the running one, or the candidate in the shadow.
    pub(super) fn observed_model(&self) -> Option<Arc<Model>> {
        let shadow = || {
            Some(Arc::new(Model::clone(
                self.mind.canary.as_ref().map(Canary::model)?,
            )))
        };
        self.mind.running.clone().or_else(shadow)
    }

    /// Writes advice down, and says what it comes to.
    pub(super) fn tell_advice(&self, advice: Option<&Advice>) {
        let Some(advice) = advice else {
            return;
        };
        let slowdown = advice
            .all
            .learned
            .unwrap_or(advice.all.aging)
            .all
            .mean_slowdown;
        // Where packets are scheduled it is for the report alone.
        if self.options.observe.is_some() {
            let read = |factor: f64| (factor * 100.0).round() / 100.0;
            info!(
                messages = advice.messages,
                fifo = read(advice.all.fifo.all.mean_slowdown),
                scheduled = read(slowdown),
                accepted = advice.accepted,
                why = advice.reason,
                "what scheduling would mean: mean slowdown"
            );
        }
        if let Err(error) = advice.save(&self.instance.advice()) {
            warn!(%error, "advice can't be written down");
        }
    }

    /// Advises by all that was seen, also where no cycle was due yet.
    pub(super) async fn advise_at_last(
        &mut self,
        datapath: &Datapath,
    ) -> Result<(), LearningError> {
        let heeded = self.mind.window.heeded();
        if heeded.rows().len() < self.options.min_samples {
            return Ok(());
        }
        let (running, acting) = (self.mind.running.clone(), self.observed_model());
        let limits = self.limits(datapath)?;
        let last = tokio::task::spawn_blocking(move || {
            in_background(|| {
                let mut cycle = cycle::work(Work::Train, &heeded, running.as_deref(), &limits);
                cycle.advise(heeded.rows(), acting.as_deref(), &limits);
                cycle
            })
        });
        let cycle = last
            .await
            .map_err(|error| LearningError::Broken(io::Error::other(error)))?;
        self.tell_advice(cycle.advice.as_ref());
        Ok(())
    }
}

/// What a model must show on this host: on its slowest link, with the leaves that stand there.
fn limits(instance: &Instance) -> JudgeLimits {
    let records = instance.records().unwrap_or_else(|error| {
        warn!(%error, what = "judged as on a link of the default rate", "cycle");
        Vec::new()
    });
    let shaped = records
        .iter()
        .filter_map(|record| Some((record.rate_bps?, record)));
    let Some((rate_bps, record)) = shaped.min_by_key(|(rate_bps, _)| *rate_bps) else {
        return JudgeLimits::default();
    };
    let mut limits = JudgeLimits::of_rate(rate_bps);
    if record.leaf == "fq_codel" {
        limits.link.within = Within::Fair;
    }
    limits
}
