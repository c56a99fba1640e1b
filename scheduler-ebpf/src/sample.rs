//! Samples to the ring buffer, within each CPU's budget.

use aya_ebpf::{
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    helpers::generated::bpf_ringbuf_query,
    maps::ring_buf::RingBufEntry,
};
use scheduler_common::{
    ABI_VERSION,
    counter::{Counter, Counts},
    features::{Features, SLOTS},
    flow::Half,
    sample::{Sample, SampleKind},
    settings::{SAMPLE_WINDOW_NS, SampleBudget},
};
use scheduler_ebpf::{flow::Ended, hash};

use crate::{
    count,
    maps::{SAMPLE_RING_BYTES, SAMPLES},
    page::{Known, Page},
};

/// Bytes waiting from which the agent is woken.
const WAKE_UP_BYTES: u64 = SAMPLE_RING_BYTES as u64 / 4;

const NO_FEATURES: Features = [0; SLOTS];

/// Which flow is sampled, and when.
#[derive(Clone, Copy)]
pub(crate) struct Sampler {
    tag: u64,
    known: Known,
    now_ns: u64,
    /// The far end's ([`scheduler_ebpf::history::network`]).
    network: u64,
}

/// Where a packet's outcome is written down.
pub(crate) struct Report<'a> {
    pub(crate) counts: &'a mut Counts,
    pub(crate) budget: &'a mut SampleBudget,
    pub(crate) sampler: Sampler,
}

impl Sampler {
    #[inline(always)]
    pub(crate) const fn new(tag: u64, known: Known, now_ns: u64, network: u64) -> Self {
        Self {
            tag,
            known,
            now_ns,
            network,
        }
    }

    /// Whether the flow is sampled: a flow is so as a whole or not at all.
    #[inline(always)]
    pub(crate) const fn is_chosen(self) -> bool {
        let settings = self.known.settings;
        // Not the bits that tell the set and the entry.
        settings.samples_per_window != 0 && (self.tag >> 3) as u32 & settings.sample_mask == 0
    }
}

impl Report<'_> {
    /// Reports a decision point of a sampled flow.
    #[inline(always)]
    pub(crate) fn decision(&mut self, page: &Page<'_>) {
        let half = page.step.half;
        let own = &page.flow.halves[half as usize & 1];
        let Some((entry, record)) = self.begin() else {
            return;
        };
        record.bytes = u64::from(own.bytes);
        record.message = page.story.halves[half as usize & 1].message;
        record.packets = own.packets;
        record.generation = page.answers.generation;
        record.predicted_log2_q8 = page.answers.log2_q8;
        record.shadow_generation = page.answers.beside_generation;
        record.shadow_log2_q8 = page.answers.beside_log2_q8;
        record.kind = SampleKind::Decision as u16;
        record.hook = self.sampler.known.hook as u8;
        record.half = half as u8;
        record.band = own.band;
        record.features = *page.features;
        entry.submit(wake_up());
    }

    /// Reports the end of a message of a sampled flow; `other` is 1 if the packet that told of it went the other way.
    #[inline(always)]
    pub(crate) fn message_end(&mut self, other: u32, own: &Half, (half, ended): (u32, Ended)) {
        if !self.sampler.is_chosen() {
            return;
        }
        let Some((entry, record)) = self.begin() else {
            return;
        };
        record.bytes = u64::from(ended.bytes);
        record.message = ended.message;
        record.packets = ended.packets;
        record.generation = 0;
        record.predicted_log2_q8 = 0;
        record.kind = SampleKind::MessageEnd as u16;
        record.hook = (self.sampler.known.hook as u32 ^ other) as u8 & 1;
        record.half = half as u8;
        record.band = own.band;
        record.features = NO_FEATURES;
        entry.submit(wake_up());
    }

    /// Takes one sample from this CPU's budget, if there is one left.
    #[inline(always)]
    fn may_emit(&mut self) -> bool {
        let window = self.sampler.now_ns / SAMPLE_WINDOW_NS;
        if self.budget.window != window {
            self.budget.window = window;
            self.budget.used = 0;
        }
        if self.budget.used >= self.sampler.known.settings.samples_per_window {
            count::one(self.counts, Counter::SamplesLimited);
            return false;
        }
        self.budget.used += 1;
        true
    }

    /// A record in the ring, with what all samples have.
    #[inline(always)]
    fn begin(&mut self) -> Option<(RingBufEntry<Sample>, &'static mut Sample)> {
        if !self.may_emit() {
            return None;
        }
        let Some(mut entry) = SAMPLES.reserve(0) else {
            count::one(self.counts, Counter::SamplesLost);
            return None;
        };
        // Here, so that the record never stands on the stack.
        count::one(self.counts, Counter::SamplesSent);
        // SAFETY: the ring's record is as large and as aligned as a sample, and every bit pattern is one; the callers
        // write all fields before they submit it.
        let record = unsafe { &mut *entry.as_mut_ptr() };
        let Sampler {
            tag,
            known,
            now_ns,
            network,
        } = self.sampler;
        record.flow_hash = hash::sample_name(tag, known.hashing);
        record.time_ns = now_ns;
        record.abi_version = ABI_VERSION as u16;
        record._pad = 0;
        record.network_hash = hash::network_name(network, known.hashing);
        record.shadow_generation = 0;
        record.shadow_log2_q8 = 0;
        record.flow_set = hash::set_of(tag, known.hashing);
        Some((entry, record))
    }
}

/// The agent comes by itself several times a second; it is woken only where the ring fills faster.
/// A wake-up for each sample would take more CPU time from the host than everything else here.
#[inline(always)]
fn wake_up() -> u64 {
    let ring = (&raw const SAMPLES).cast_mut().cast();
    // SAFETY: the pointer is that of a ring buffer map; the helper only reads its counters.
    let waiting = unsafe { bpf_ringbuf_query(ring, u64::from(BPF_RB_AVAIL_DATA)) };
    if waiting > WAKE_UP_BYTES {
        u64::from(BPF_RB_FORCE_WAKEUP)
    } else {
        u64::from(BPF_RB_NO_WAKEUP)
    }
}
