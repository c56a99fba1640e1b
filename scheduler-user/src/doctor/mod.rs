//! What stands in the way of treeline here, found by real tries.
//!
//! Nothing is changed: programs are loaded and let go, qdiscs are tried in a network namespace of their own. What the kernel
//! can only answer to root is told as unknown, with the remedy.

mod host;
mod interface;

use serde::Serialize;

use crate::{instance::Instance, uplink::UplinkError};

/// Version of the JSON that `doctor` prints.
pub const SCHEMA: u32 = 1;

/// How a check came out; ordered by weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// It works, with less than there could be; the remedy says how to have more.
    Warn,
    /// treeline can't work so.
    Fail,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What it is, in a word; the same from release to release.
    pub name: &'static str,
    /// The interface; absent for the host as a whole.
    pub interface: Option<String>,
    /// How it came out.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to do; absent where there is nothing to do.
    pub remedy: Option<String>,
}

impl Check {
    fn new(name: &'static str, verdict: Verdict, found: impl Into<String>) -> Self {
        Self {
            name,
            interface: None,
            verdict,
            found: found.into(),
            remedy: None,
        }
    }

    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self::new(name, Verdict::Ok, found)
    }

    fn warn(name: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            remedy: Some(remedy.into()),
            ..Self::new(name, Verdict::Warn, found)
        }
    }

    fn fail(name: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            remedy: Some(remedy.into()),
            ..Self::new(name, Verdict::Fail, found)
        }
    }
}

/// Everything that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The worst of the checks.
    pub verdict: Verdict,
    /// In the order in which they matter.
    pub checks: Vec<Check>,
}

impl Report {
    fn of(checks: Vec<Check>) -> Self {
        let worst = checks.iter().map(|check| check.verdict).max();
        Self {
            schema: SCHEMA,
            verdict: worst.unwrap_or(Verdict::Ok),
            checks,
        }
    }

    /// Names of the checks that came out so, each once.
    pub fn named(&self, verdict: Verdict) -> Vec<&'static str> {
        let same = self.checks.iter().filter(|check| check.verdict == verdict);
        let mut names: Vec<&str> = same.map(|check| check.name).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

/// Looks at the host and at these interfaces, or at all that are on and no loopback.
///
/// # Errors
/// If an interface does not exist.
pub async fn examine(
    instance: &Instance,
    interfaces: &[String],
    rate_bps: Option<u64>,
) -> Result<Report, UplinkError> {
    let named = interface::choose(interfaces)?;
    let mut checks = host::checks(instance);
    for (name, ifindex) in named {
        let mut of = interface::checks(instance, (&name, ifindex), rate_bps).await;
        for check in &mut of {
            check.interface = Some(name.clone());
        }
        checks.append(&mut of);
    }
    Ok(Report::of(checks))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_check_is_the_verdict() {
        let ok = Check::ok("a", "fine");
        let warn = Check::warn("b", "slow", "do this");
        let fail = Check::fail("c", "absent", "do that");
        assert_eq!(Report::of(vec![]).verdict, Verdict::Ok);
        assert_eq!(Report::of(vec![ok.clone()]).verdict, Verdict::Ok);
        assert_eq!(
            Report::of(vec![ok.clone(), warn.clone()]).verdict,
            Verdict::Warn
        );
        let all = Report::of(vec![fail, warn, ok]);
        assert_eq!(all.verdict, Verdict::Fail);
        assert_eq!(all.named(Verdict::Warn), ["b"]);
    }
}
