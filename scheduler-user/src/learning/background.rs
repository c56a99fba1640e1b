//! Work that gives way to whatever else the host does.

use std::{panic, thread};

use tracing::debug;

/// Niceness of the work: a tenth of what a process of the usual one gets where both want a processor, so that a host which is
/// busy all day still learns.
const NICENESS: i32 = 10;

/// Works on a thread of its own with a low priority, which threads that it starts inherit, and waits for it: call it where one may block.
///
/// Training takes processors for as long as a second. Whoever sends a packet meanwhile, or takes one, shall not wait for it.
pub(super) fn in_background<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let working = scope.spawn(|| {
            // Of this thread alone, as Linux has it; and there is no way back, so no thread of a pool would do.
            if let Err(error) = rustix::process::nice(NICENESS) {
                debug!(%error, "learning keeps the priority of the agent");
            }
            work()
        });
        working
            .join()
            .unwrap_or_else(|cause| panic::resume_unwind(cause))
    })
}

#[cfg(test)]
mod tests {
    use rustix::process::getpriority_process;

    use super::*;

    #[test]
    fn the_work_and_what_it_starts_give_way_and_nobody_else() {
        let niceness = || getpriority_process(None).unwrap();
        let before = niceness();
        let (own, of_child) = in_background(|| (niceness(), thread::spawn(niceness).join()));
        let low = (before + NICENESS).min(19);
        assert_eq!((own, of_child.unwrap()), (low, low));
        assert_eq!(niceness(), before);
    }
}
