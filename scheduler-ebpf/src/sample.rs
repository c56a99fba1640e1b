//! Samples to the ring buffer, within each CPU's budget.

use aya_ebpf::{
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    helpers::generated::bpf_ringbuf_query,
};
use scheduler_common::{
    ABI_VERSION,
    counter::Counter,
    features::{Features, SLOTS},
    flow::FlowState,
    sample::{Hook, Sample, SampleKind},
    settings::{SAMPLE_WINDOW_NS, Settings},
};
use scheduler_ebpf::flow::{Cause, Ended};

use crate::{
    count,
    maps::{BUDGET, SAMPLE_RING_BYTES, SAMPLES},
};

/// Bytes waiting from which the agent is woken.
const WAKE_UP_BYTES: u64 = SAMPLE_RING_BYTES as u64 / 4;

const NO_FEATURES: Features = [0; SLOTS];

/// Reports a decision point of a sampled flow.
#[inline(always)]
pub(crate) fn decision(
    state: &FlowState,
    settings: &Settings,
    (hook, half): (Hook, usize),
    (features, predicted_log2_q8): (&Features, u32),
    now_ns: u64,
) {
    if !chosen(state, settings, now_ns) {
        return;
    }
    let own = &state.halves[half & 1];
    let record = Sample {
        flow_hash: state.hash,
        time_ns: now_ns,
        bytes: own.bytes,
        message: own.message,
        packets: own.packets,
        generation: own.generation,
        predicted_log2_q8,
        abi_version: ABI_VERSION as u16,
        kind: SampleKind::Decision as u16,
        hook: hook as u8,
        half: half as u8,
        band: own.band,
        _pad: 0,
        features: *features,
    };
    emit(record);
}

/// Reports the end of a message of a sampled flow.
#[inline(always)]
pub(crate) fn message_end(
    state: &FlowState,
    settings: &Settings,
    (hook, half): (Hook, usize),
    ended: &Ended,
    now_ns: u64,
) {
    match ended.cause {
        Cause::None => return,
        Cause::Turn => count::one(Counter::EndedByTurn),
        Cause::Gap => count::one(Counter::EndedByGap),
        Cause::Close => count::one(Counter::EndedByClose),
    }
    if !chosen(state, settings, now_ns) {
        return;
    }
    let record = Sample {
        flow_hash: state.hash,
        time_ns: now_ns,
        bytes: ended.bytes,
        message: ended.message,
        packets: ended.packets,
        generation: 0,
        predicted_log2_q8: 0,
        abi_version: ABI_VERSION as u16,
        kind: SampleKind::MessageEnd as u16,
        hook: hook as u8,
        half: half as u8,
        band: state.halves[half & 1].band,
        _pad: 0,
        features: NO_FEATURES,
    };
    emit(record);
}

/// Whether the flow is sampled and this CPU may still emit; takes one from the budget.
#[inline(always)]
fn chosen(state: &FlowState, settings: &Settings, now_ns: u64) -> bool {
    if settings.samples_per_window == 0 || state.hash as u32 & settings.sample_mask != 0 {
        return false;
    }
    let Some(budget) = BUDGET.get_ptr_mut(0) else {
        return false;
    };
    // SAFETY: the pointer is to this CPU's own value, and programs are not re-entered on a CPU.
    let budget = unsafe { &mut *budget };
    let window = now_ns / SAMPLE_WINDOW_NS;
    if budget.window != window {
        budget.window = window;
        budget.used = 0;
    }
    if budget.used >= settings.samples_per_window {
        count::one(Counter::SamplesLimited);
        return false;
    }
    budget.used += 1;
    true
}

#[inline(always)]
fn emit(record: Sample) {
    match SAMPLES.reserve(0) {
        Some(mut entry) => {
            entry.write(record);
            entry.submit(wake_up());
            count::one(Counter::SamplesSent);
        }
        None => count::one(Counter::SamplesLost),
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
