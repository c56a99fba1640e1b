//! Exit codes, and errors as people see them.

use std::process::ExitCode;

use super::run::OptionsWithoutInterface;
use crate::{
    config::ConfigError,
    control::{Kind, client::ClientError},
    datapath::DatapathError,
    explain::ExplainError,
    handover::HandoverError,
    instance::InstanceError,
    model::LoadError,
    qdisc::QdiscError,
    uplink::UplinkError,
};

/// How the command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// What was asked for is done or was so already.
    Done = 0,
    /// It failed for a reason that has no code of its own.
    Failed = 1,
    /// The command line or the configuration is wrong.
    Usage = 2,
    /// Root is needed.
    NeedsRoot = 3,
    /// The interface does not exist.
    NoSuchInterface = 4,
    /// An administrator's qdisc is in the way.
    Occupied = 5,
    /// A model can't be used.
    BadModel = 6,
    /// Another agent serves the instance.
    AgentRunning = 7,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Root is needed and absent.
#[derive(Debug, thiserror::Error)]
#[error(
    "root is needed to load programs and set qdiscs (CAP_BPF, CAP_NET_ADMIN); try `sudo treeline …`"
)]
struct NeedsRoot;

/// Fails unless the process is root.
pub(super) fn require_root() -> anyhow::Result<()> {
    if nix::unistd::geteuid().is_root() {
        Ok(())
    } else {
        Err(NeedsRoot.into())
    }
}

impl Exit {
    /// The code of an error.
    pub(super) fn of(error: &anyhow::Error) -> Self {
        error
            .chain()
            .find_map(Self::of_cause)
            .unwrap_or(Self::Failed)
    }

    fn of_cause(cause: &(dyn std::error::Error + 'static)) -> Option<Self> {
        if cause.is::<NeedsRoot>() {
            return Some(Self::NeedsRoot);
        }
        if cause.is::<ConfigError>() || cause.is::<OptionsWithoutInterface>() {
            return Some(Self::Usage);
        }
        if let Some(UplinkError::NoSuchInterface { .. }) = cause.downcast_ref() {
            return Some(Self::NoSuchInterface);
        }
        // An error that is passed through hides itself from the chain.
        match cause.downcast_ref() {
            Some(UplinkError::Qdisc { source, .. }) => return Self::of_cause(source),
            Some(UplinkError::Instance(source)) => return Self::of_cause(source),
            Some(UplinkError::RateAndRoot) => return Some(Self::Usage),
            Some(UplinkError::Model(_) | UplinkError::Deploy(_)) => return Some(Self::BadModel),
            Some(UplinkError::Handover(source)) => return Self::of_cause(source),
            Some(UplinkError::Datapath(source)) => return Self::of_cause(source),
            _ => {}
        }
        match cause.downcast_ref() {
            Some(
                HandoverError::Load(_) | HandoverError::Compile { .. } | HandoverError::Deploy(_),
            ) => {
                return Some(Self::BadModel);
            }
            Some(HandoverError::Datapath(source)) => return Self::of_cause(source),
            _ => {}
        }
        match cause.downcast_ref() {
            Some(ExplainError::NoFlow(_) | ExplainError::NoFeature { .. }) => {
                return Some(Self::Usage);
            }
            Some(ExplainError::NotUp { .. }) => return Some(Self::NoSuchInterface),
            Some(ExplainError::Datapath(source)) => return Self::of_cause(source),
            _ => {}
        }
        match cause.downcast_ref() {
            Some(QdiscError::Occupied { .. } | QdiscError::NotRestorable { .. }) => {
                return Some(Self::Occupied);
            }
            Some(QdiscError::NoPermission { .. }) => return Some(Self::NeedsRoot),
            Some(QdiscError::NoSuchInterface { .. }) => return Some(Self::NoSuchInterface),
            _ => {}
        }
        match cause.downcast_ref() {
            Some(InstanceError::BadName(_)) => return Some(Self::Usage),
            Some(InstanceError::AgentRunning { .. }) => return Some(Self::AgentRunning),
            _ => {}
        }
        if let Some(ClientError::Refused(problem)) = cause.downcast_ref() {
            return match problem.kind {
                // What is named over the socket and may be absent is a model.
                Kind::BadModel | Kind::NotFound => Some(Self::BadModel),
                Kind::BadConfiguration => Some(Self::Usage),
                _ => None,
            };
        }
        if let Some(DatapathError::UnsoundTable { .. }) = cause.downcast_ref() {
            return Some(Self::BadModel);
        }
        cause.is::<LoadError>().then_some(Self::BadModel)
    }
}

/// Prints an error and its causes to stderr.
#[expect(clippy::print_stderr, reason = "the last words of a failed command")]
pub(super) fn complain(error: &anyhow::Error) {
    eprintln!("treeline: {error}");
    let mut last = error.to_string();
    for cause in error.chain().skip(1) {
        let text = cause.to_string();
        if !last.ends_with(&text) {
            eprintln!("  because: {text}");
        }
        last = text;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_have_their_codes() {
        let of = |error: anyhow::Error| Exit::of(&error);
        assert_eq!(of(NeedsRoot.into()), Exit::NeedsRoot);
        let missing = UplinkError::NoSuchInterface {
            name: "x".to_owned(),
            present: Vec::new(),
        };
        assert_eq!(of(missing.into()), Exit::NoSuchInterface);
        let source = QdiscError::Occupied {
            kind: "tbf".to_owned(),
            handle: "1:".to_owned(),
        };
        let occupied = UplinkError::Qdisc {
            interface: "x".to_owned(),
            source,
        };
        assert_eq!(of(occupied.into()), Exit::Occupied);
        let running = InstanceError::AgentRunning {
            name: "x".to_owned(),
            pid: 1,
        };
        assert_eq!(of(UplinkError::from(running).into()), Exit::AgentRunning);
        assert_eq!(
            of(InstanceError::BadName("/".to_owned()).into()),
            Exit::Usage
        );
        assert_eq!(of(anyhow::anyhow!("else")), Exit::Failed);
    }
}
