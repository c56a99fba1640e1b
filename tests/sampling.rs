//! Samples under load: read to the last one by the agent's reader, counted where nobody reads.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use bed::wait;
use scheduler_common::{
    counter::Counter,
    sample::Hook,
    settings::{SAMPLES_PER_WINDOW, Settings},
};
use tokio::{runtime::Builder, sync::mpsc};
use tokio_util::sync::CancellationToken;
use treeline::sampling;

use crate::support::{
    kernel::{Kernel, Programs},
    packets::{Ends, Passing},
    privileged, unlimited,
};

/// More than three times what the ring holds, so that the reader is needed.
const SAMPLES: u64 = 30_000;
const LIMIT: Duration = Duration::from_secs(60);

fn datagram(near_port: u16, far_port: u16) -> Passing {
    Passing {
        hook: Hook::Egress,
        frame: Ends::v4(near_port, far_port).udp(Hook::Egress, 100),
        segments: 1,
    }
}

/// Sends datagrams of which each opens a flow, and so is a decision, until told to stop.
fn load(programs: &Programs, near_ports: impl Iterator<Item = u16>, stop: &AtomicBool) {
    for near_port in near_ports {
        for far_port in 1024..=u16::MAX {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            programs.push(&datagram(near_port, far_port)).unwrap();
        }
    }
}

#[test]
fn no_sample_is_lost_under_load_while_the_agents_reader_runs() {
    if !privileged() {
        return;
    }
    // Every flow, not one in a hundred, within what the agent allows a CPU.
    let kernel = Kernel::load(&Settings {
        samples_per_window: SAMPLES_PER_WINDOW,
        ..Settings::default()
    });
    let ring = kernel.datapath.samples().unwrap();
    let runners = [kernel.programs(), kernel.programs()];
    let (stop, received) = (AtomicBool::new(false), AtomicU64::new(0));
    let token = CancellationToken::new();
    thread::scope(|scope| {
        scope.spawn(|| {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            let (sender, mut batches) = mpsc::channel::<Vec<_>>(64);
            runtime.block_on(async {
                let counting = async {
                    while let Some(batch) = batches.recv().await {
                        received.fetch_add(batch.len() as u64, Ordering::Relaxed);
                    }
                };
                let (read, ()) =
                    tokio::join!(sampling::read(ring, sender, token.clone()), counting);
                read.unwrap();
            });
        });
        let running: Vec<_> = runners
            .iter()
            .zip([100, 200])
            .map(|(runner, first)| {
                let stop = &stop;
                scope.spawn(move || load(runner, first..first + 100, stop))
            })
            .collect();
        let sent = || kernel.counter(Counter::SamplesSent);
        let made = wait::until("enough samples", LIMIT, || {
            Ok((sent() >= SAMPLES).then_some(()))
        });
        stop.store(true, Ordering::Relaxed);
        for runner in running {
            runner.join().unwrap();
        }
        let read = wait::until("the last sample", LIMIT, || {
            Ok((received.load(Ordering::Relaxed) >= sent()).then_some(()))
        });
        // Threads that go on would keep a failure from being told.
        token.cancel();
        made.and(read).unwrap();
    });
    let sent = kernel.counter(Counter::SamplesSent);
    assert_eq!(kernel.counter(Counter::SamplesLost), 0, "{sent} were sent");
    assert_eq!(received.into_inner(), sent, "read and sent");
}

#[test]
fn samples_that_nobody_reads_are_lost_and_counted() {
    const PACKETS: u64 = 12_000;
    if !privileged() {
        return;
    }
    let mut kernel = Kernel::load(&unlimited());
    for far_port in (1024..).take(PACKETS as usize) {
        kernel.push(&datagram(99, far_port)).unwrap();
    }
    let (sent, lost) = (
        kernel.counter(Counter::SamplesSent),
        kernel.counter(Counter::SamplesLost),
    );
    assert!(lost > 0 && sent > 0, "{sent} sent, {lost} lost");
    assert!(
        sent + lost >= PACKETS,
        "of {PACKETS} decisions {sent} were sent and {lost} lost"
    );
    assert_eq!(kernel.drain().len() as u64, sent);
    kernel.push(&datagram(98, 1024)).unwrap();
    assert_eq!(
        kernel.drain().len(),
        1,
        "an emptied ring takes samples again"
    );
    assert_eq!(kernel.counter(Counter::SamplesLost), lost);
}
