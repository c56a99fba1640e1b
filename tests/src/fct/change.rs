//! A service that changes its nature: harm meanwhile, and time to adapt.

use std::time::Duration;

use anyhow::Result;
use bed::{
    stats::{Figures, Observation, millis},
    workload::Workload,
};
use serde::Serialize;
use serde_json::Value;

use crate::{
    bench::Bench,
    cell::{Place, TRAIN_EVERY, demand, learn, tune},
    figures::is_disturbed,
    options::BedKind,
    scheme::{self, Scheme},
};

/// What runs; each plays the same messages once.
pub(crate) const SCHEMES: [Scheme; 3] = [Scheme::Aging, Scheme::Treeline, Scheme::Oracle];
/// Messages are judged by the window that they start in.
const WINDOW: Duration = Duration::from_secs(10);
/// The share of its earlier gain with which treeline counts as back.
const BACK: f64 = 0.5;
/// One message of so many is left out of a trimmed mean: two that wait a second for a lost packet nearly double the mean of a window.
const TRIMMED_OF: usize = 1000;

/// How the schemes fared through the change.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Change {
    pub(crate) workload: &'static str,
    pub(crate) about: &'static str,
    pub(crate) bed: BedKind,
    pub(crate) load: f64,
    /// When the service changes.
    pub(crate) changes_at_s: f64,
    pub(crate) window_s: f64,
    pub(crate) windows: Vec<Window>,
    /// Largest ratio of treeline's mean slowdown to aging's in any window.
    pub(crate) worst_to_aging: Option<f64>,
    /// Mean over the windows before the change of one less that ratio.
    pub(crate) gain_before: Option<f64>,
    /// From the change to the end of the first window with half that gain again; none if there was none.
    pub(crate) back_after_s: Option<f64>,
    /// Schemes whose run was disturbed; none is played again.
    pub(crate) disturbed: Vec<&'static str>,
    pub(crate) model_before: Option<Value>,
    pub(crate) model_after: Option<Value>,
}

/// Mean slowdowns of the messages that start in one window.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Window {
    pub(crate) start_s: f64,
    pub(crate) messages: usize,
    pub(crate) aging: f64,
    pub(crate) treeline: f64,
    pub(crate) oracle: f64,
    /// treeline over aging.
    pub(crate) to_aging: f64,
    /// The same, less the slowest thousandth of either's messages.
    pub(crate) trimmed_to_aging: f64,
}

/// Learns the first phase, then plays both under every scheme; the agent learns on.
///
/// # Errors
/// When a run can't be made.
pub(crate) fn measure(
    bench: &mut Bench<'_>,
    place: &Place<'_>,
    workload: &'static Workload,
) -> Result<Change> {
    const LOAD: f64 = 0.8;
    let before = Box::leak(Box::new(Workload {
        phases: &workload.phases[..1],
        ..*workload
    }));
    let model_before = learn(bench, place, before, LOAD)?;
    let demand = demand(bench, LOAD, bench.options.change);
    let items = workload.schedule(&demand, bench.options.seed);
    let tuned = tune(place, workload, &demand);
    let mut seen: [Vec<Observation>; 3] = Default::default();
    let mut model_after = None;
    let mut disturbed = Vec::new();
    for (scheme, seen) in SCHEMES.into_iter().zip(&mut seen) {
        bench.progress.say(&format!(
            "{} on the {} bed: {} s under {}",
            workload.name,
            place.kind.name(),
            demand.length.as_secs(),
            scheme.name()
        ));
        let played = if scheme == Scheme::Treeline {
            let mut agent = place.start_agent(bench, TRAIN_EVERY)?;
            let played = place.play(items.clone(), None, &mut || agent.check())?;
            model_after = place.treeline.model()?;
            agent.stop()?;
            place.treeline.down()?;
            played
        } else {
            let rate_bps = bench.options.rate;
            let standing = scheme::set_up(scheme, place.bed, rate_bps, &tuned, &place.aging)?;
            place.play(items.clone(), standing.marking(), &mut || Ok(()))?
        };
        let rate_bps = bench.options.rate;
        let outcomes = &played.run.outcomes;
        let lateness_ms = Figures::of(outcomes.iter().map(|outcome| millis(outcome.lateness)));
        if is_disturbed(&played.run.disturbance, &lateness_ms) {
            disturbed.push(scheme.name());
        }
        *seen = outcomes
            .iter()
            .filter_map(|outcome| Observation::of(outcome, &place.base, rate_bps))
            .collect();
        bench.progress.done(demand.length);
    }
    let windows = windows(&seen, demand.length);
    Ok(Change {
        workload: workload.name,
        about: workload.about,
        bed: place.kind,
        load: LOAD,
        disturbed,
        model_before,
        model_after,
        ..judge(windows, demand.length.as_secs_f64() / 2.0)
    })
}

fn windows(seen: &[Vec<Observation>; 3], length: Duration) -> Vec<Window> {
    let count = length.as_secs().div_ceil(WINDOW.as_secs()) as u32;
    let one = |number: u32| {
        let (start, end) = (WINDOW * number, WINDOW * (number + 1));
        let slowdowns = [0, 1, 2].map(|scheme: usize| {
            let within = seen[scheme]
                .iter()
                .filter(|one| (start..end).contains(&one.at));
            within.map(|one| one.slowdown).collect::<Vec<_>>()
        });
        let [aging, treeline, oracle] = slowdowns.clone().map(Figures::of);
        let [aging_trimmed, treeline_trimmed, _] = slowdowns.map(trimmed_mean);
        Window {
            start_s: start.as_secs_f64(),
            messages: aging.count,
            aging: aging.mean,
            treeline: treeline.mean,
            oracle: oracle.mean,
            to_aging: treeline.mean / aging.mean,
            trimmed_to_aging: treeline_trimmed / aging_trimmed,
        }
    };
    (0..count).map(one).collect()
}

/// Mean of all but the largest thousandth, of which there is at least one.
fn trimmed_mean(mut slowdowns: Vec<f64>) -> f64 {
    slowdowns.sort_by(f64::total_cmp);
    let kept = slowdowns.len() - slowdowns.len().div_ceil(TRIMMED_OF);
    Figures::of(slowdowns.into_iter().take(kept)).mean
}

fn judge(windows: Vec<Window>, changes_at_s: f64) -> Change {
    let window_s = WINDOW.as_secs_f64();
    let ends = |window: &Window| window.start_s + window_s;
    let gain = |window: &Window| 1.0 - window.to_aging;
    let before: Vec<f64> = windows
        .iter()
        .filter(|window| ends(window) <= changes_at_s)
        .map(gain)
        .collect();
    let gain_before = (!before.is_empty()).then(|| Figures::of(before).mean);
    let back_after_s = gain_before.filter(|gain| *gain > 0.0).and_then(|wanted| {
        let back = windows
            .iter()
            .filter(|window| window.start_s >= changes_at_s)
            .find(|window| gain(window) >= BACK * wanted)?;
        Some(ends(back) - changes_at_s)
    });
    Change {
        workload: "",
        about: "",
        bed: BedKind::Host,
        load: 0.0,
        changes_at_s,
        window_s,
        worst_to_aging: windows
            .iter()
            .map(|window| window.to_aging)
            .filter(|ratio| ratio.is_finite())
            .max_by(f64::total_cmp),
        gain_before,
        back_after_s,
        windows,
        disturbed: Vec::new(),
        model_before: None,
        model_after: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn through(ratios: &[f64]) -> Change {
        let windows = (0u32..)
            .zip(ratios)
            .map(|(number, ratio)| Window {
                start_s: f64::from(number) * 10.0,
                messages: 10,
                aging: 2.0,
                treeline: 2.0 * ratio,
                oracle: 1.0,
                to_aging: *ratio,
                trimmed_to_aging: *ratio,
            })
            .collect();
        judge(windows, 20.0)
    }

    #[test]
    fn it_is_back_when_half_of_its_gain_is() {
        let change = through(&[0.8, 0.6, 1.3, 0.9, 0.8, 0.7]);
        assert!((change.gain_before.unwrap() - 0.3).abs() < 1e-9);
        assert_eq!(change.worst_to_aging, Some(1.3));
        assert_eq!(change.back_after_s, Some(30.0));
    }

    #[test]
    fn what_had_no_gain_does_not_come_back_to_it() {
        assert_eq!(through(&[1.1, 1.0, 0.5]).back_after_s, None);
        assert_eq!(through(&[0.5, 0.5, 1.0, 1.0]).back_after_s, None);
    }

    #[test]
    fn a_trimmed_mean_forgets_what_waited_for_a_lost_packet() {
        let mut slowdowns = vec![2.0; 1998];
        slowdowns.extend([10_000.0, 5_000.0]);
        assert_eq!(trimmed_mean(slowdowns), 2.0);
        assert_eq!(trimmed_mean(vec![1.0, 3.0, 900.0]), 2.0);
    }

    #[test]
    fn windows_hold_the_messages_that_start_in_them() {
        let seen = crate::figures::tests::observations(2.0);
        let windows = windows(&[seen.clone(), seen.clone(), seen], Duration::from_secs(30));
        assert_eq!(windows.len(), 3);
        assert!(
            windows.iter().all(|window| window.messages == 100),
            "{windows:?}"
        );
        assert!(windows.iter().all(|window| window.to_aging == 1.0));
    }
}
