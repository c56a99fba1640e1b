//! What a model has won over aging, in one figure.

use serde::Serialize;

use super::Model;

/// What a model won over aging in mean slowdown and completion time when it was judged.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Gain {
    /// Gain, per cent.
    pub percent: f64,
    /// Standard error of the same.
    pub error_percent: f64,
}

impl Model {
    /// Its gain; absent if it was never judged beside aging.
    pub fn gain(&self) -> Option<Gain> {
        let advantage = self.scores.as_ref()?.advantages.get("aging")?;
        let percent = |log_ratio: f64| log_ratio.exp_m1() * 100.0;
        Some(Gain {
            percent: percent(advantage.gain),
            error_percent: percent(advantage.standard_error),
        })
    }
}
