//! Tells systemd how the agent fares; silent where nobody waits for it.

use sd_notify::NotifyState;
use tracing::debug;

use crate::uplink::Wanted;

/// The interfaces are up: what was ordered after the agent may start.
pub(super) fn ready(interfaces: &[(String, Wanted)]) {
    tell(&[NotifyState::Ready, NotifyState::Status(&status(interfaces))]);
}

/// The interfaces have changed.
pub(super) fn serving(interfaces: &[(String, Wanted)]) {
    tell(&[NotifyState::Status(&status(interfaces))]);
}

/// It ends.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

fn status(interfaces: &[(String, Wanted)]) -> String {
    let names: Vec<&str> = interfaces.iter().map(|(name, _)| name.as_str()).collect();
    let watches = !interfaces.is_empty() && interfaces.iter().all(|(_, wanted)| wanted.observe);
    let does = if watches { "watches" } else { "schedules" };
    format!("{does} {}", names.join(", "))
}

/// A manager that can't be told is no reason to end.
fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        debug!(%error, "systemd could not be told");
    }
}
