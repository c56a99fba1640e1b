//! Samples under full load: none is lost while the agent's reader runs, and losses are counted.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow, ensure};
use aya::maps::{MapData, RingBuf};
use bed::{netns::Namespace, wait};
use scheduler_common::{
    counter::Counter,
    sample::Sample,
    settings::{SAMPLES_PER_WINDOW, Settings},
};
use tokio::{runtime::Builder, sync::mpsc};
use tokio_util::sync::CancellationToken;
use treeline::sampling;

use crate::{
    kernel::{Kernel, Object},
    pin,
    section::TREE,
    throughput::SAMPLE_ONE_IN,
    variant::Family,
};

/// Packets of one run of the flood.
const BURST_PACKETS: u32 = 500_000;
/// More samples than the ring holds.
const FORCED_PACKETS: u32 = 50_000;
/// Batches between the reader and its receiver, as under the agent.
const WAITING_BATCHES: usize = 64;
/// For the reader to empty the ring; it looks ten times a second.
const SETTLE_LIMIT: Duration = Duration::from_secs(10);

/// The agent's reader on a thread of its own.
pub(crate) struct Reader {
    received: Arc<AtomicU64>,
    stop: CancellationToken,
    thread: JoinHandle<Result<()>>,
}

impl Reader {
    pub(crate) fn start(ring: RingBuf<MapData>) -> Result<Self> {
        let received = Arc::new(AtomicU64::new(0));
        let stop = CancellationToken::new();
        let (count, token) = (Arc::clone(&received), stop.clone());
        let thread = thread::Builder::new().name("samples".into()).spawn(|| {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async move {
                let (sender, mut batches) = mpsc::channel::<Vec<Sample>>(WAITING_BATCHES);
                let counting = async {
                    while let Some(batch) = batches.recv().await {
                        count.fetch_add(batch.len() as u64, Ordering::Relaxed);
                    }
                };
                let (read, ()) = tokio::join!(sampling::read(ring, sender, token), counting);
                Ok(read?)
            })
        })?;
        Ok(Self {
            received,
            stop,
            thread,
        })
    }

    /// Waits until all of `sent` have been read, and ends the reader.
    ///
    /// # Errors
    ///
    /// When they do not come, or the ring can't be read.
    pub(crate) fn finish(self, sent: u64) -> Result<()> {
        let all = wait::until("the last sample's arrival", SETTLE_LIMIT, || {
            Ok((self.received.load(Ordering::Relaxed) >= sent).then_some(()))
        });
        self.stop.cancel();
        let ended = self
            .thread
            .join()
            .map_err(|_panic| anyhow!("the reader of samples panicked"))?;
        ended.and(all)
    }
}

/// What became of the samples.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Samples {
    /// Packets of the flood, each of a new flow.
    pub(crate) packets: u64,
    pub(crate) packets_per_second: f64,
    /// All of them were read.
    pub(crate) sent: u64,
    /// Not made, for the CPU's budget was spent.
    pub(crate) limited: u64,
    pub(crate) lost: u64,
    /// The same with no reader, no budget and every flow sampled.
    pub(crate) forced_sent: u64,
    pub(crate) forced_lost: u64,
}

/// Floods with new flows for so long, a reader at work, and then without one.
///
/// # Errors
///
/// When the kernel refuses something, samples were lost, or a loss was not counted.
pub(crate) fn run(length: Duration, cpu: Option<usize>, namespace: &Namespace) -> Result<Samples> {
    let mut object = Object::load(1 << 16, true, &[], namespace)?;
    object.maps.activate(TREE)?;
    object.spread([rand::random::<u64>() >> 8, u64::MAX, 1, 0, 0])?;
    let ring = object.maps.take_samples()?;
    let reader = Reader::start(ring)?;
    // After the reader's start, which may run wherever there is room.
    pin(cpu)?;
    let mut kernel = Kernel::Object(Box::new(object));
    kernel.maps().set(&Settings {
        sample_mask: SAMPLE_ONE_IN - 1,
        samples_per_window: SAMPLES_PER_WINDOW,
        ..Settings::default()
    })?;
    let frame = Family::V4.frame();
    let began = Instant::now();
    let mut packets = 0;
    while began.elapsed() < length {
        kernel.run("treeline_tc", &frame, BURST_PACKETS)?;
        packets += u64::from(BURST_PACKETS);
    }
    let elapsed = began.elapsed();
    let [sent, lost, limited] = counts(&mut kernel)?;
    reader.finish(sent)?;
    ensure!(sent > 0, "no flow was sampled");
    kernel.maps().set(&Settings {
        samples_per_window: u32::MAX,
        ..Settings::default()
    })?;
    kernel.run("treeline_tc", &frame, FORCED_PACKETS)?;
    let [all_sent, all_lost, _] = counts(&mut kernel)?;
    let (forced_sent, forced_lost) = (all_sent - sent, all_lost - lost);
    ensure!(
        forced_lost > 0 && forced_sent + forced_lost >= u64::from(FORCED_PACKETS),
        "of {FORCED_PACKETS} samples without a reader {forced_sent} were sent and {forced_lost} lost"
    );
    Ok(Samples {
        packets,
        packets_per_second: packets as f64 / elapsed.as_secs_f64(),
        sent,
        limited,
        lost,
        forced_sent,
        forced_lost,
    })
}

fn counts(kernel: &mut Kernel) -> Result<[u64; 3]> {
    let maps = kernel.maps();
    Ok([
        maps.count(Counter::SamplesSent)?,
        maps.count(Counter::SamplesLost)?,
        maps.count(Counter::SamplesLimited)?,
    ])
}
