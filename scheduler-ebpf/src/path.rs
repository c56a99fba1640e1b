//! A packet's way through flow, features, tree and verdict.

use aya_ebpf::{EbpfContext, helpers::bpf_ktime_get_ns};
use aya_log_ebpf::info;
use scheduler_common::{
    ABI_VERSION,
    counter::{Counter, Skip},
    features::Features,
    flow::{FlowKey, FlowState},
    sample::Hook,
    settings::Settings,
};
use scheduler_ebpf::{
    features,
    flow::{self, Step},
    fragment::{self, Kind},
    hash,
    parse::{Headers, Parsed},
    verdict,
};

use crate::{
    count,
    maps::{BUDGET, FLOWS, FRAGMENTS, SCRATCH, SETTINGS, Scratch},
    sample, tree,
};

/// Secret of this load, set by userspace before the programs are loaded.
#[unsafe(no_mangle)]
static SECRET_LOW: u64 = 0;
/// The other half of the secret.
#[unsafe(no_mangle)]
static SECRET_HIGH: u64 = 0;

static NEW_FLOW: FlowState = FlowState::ZERO;

/// The settings in force.
#[inline(always)]
pub(crate) fn settings() -> Result<&'static Settings, Skip> {
    match SETTINGS.get(0) {
        Some(settings) if settings.abi_version == ABI_VERSION => Ok(settings),
        _ => Err(Skip::NoSettings),
    }
}

/// This CPU's work space at `hook`.
#[inline(always)]
pub(crate) fn scratch(hook: Hook) -> Result<&'static mut Scratch, Skip> {
    let scratch = SCRATCH.get_ptr_mut(hook as u32).ok_or(Skip::NoSettings)?;
    // SAFETY: the pointer is to this CPU's own value for this hook, and a program is not
    // re-entered on a CPU; zeroes are a value of every field.
    Ok(unsafe { &mut *scratch })
}

/// The same work space, whose values must be read from it anew.
///
/// What the parser has just written would stay in registers otherwise, and the verifier would follow each
/// kind of packet through all that comes behind.
#[inline(always)]
pub(crate) fn joined(scratch: &mut Scratch) -> &mut Scratch {
    let mut pointer: *mut Scratch = scratch;
    let pointer = &raw mut pointer;
    // SAFETY: the pointer is to the local variable.
    let scratch = unsafe { pointer.read_volatile() };
    // SAFETY: it was made from a reference that is not used any more.
    unsafe { &mut *scratch }
}

/// Accounts the packet to its flow and returns its band.
#[inline(always)]
pub(crate) fn account<C: EbpfContext>(
    ctx: &C,
    settings: &Settings,
    scratch: &mut Scratch,
    (hook, ifindex): (Hook, u32),
) -> Result<u8, Skip> {
    // SAFETY: the helper takes no argument and reads a clock.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    let Scratch {
        parsed,
        step,
        features: described,
        ..
    } = scratch;
    find_fragment(parsed, ifindex)?;
    if parsed.inner != 0 {
        count::one(Counter::InnerPackets);
    }
    let headers = &parsed.headers;
    let (key, half) = flow::key(headers, ifindex);
    step.half = half;
    let state = touch(&key, headers, half, now_ns)?;
    flow::advance(state, headers, settings, now_ns, step);
    count_step(step);
    sample::message_end(
        state,
        settings,
        (opposite(hook), step.half ^ 1),
        &step.other_end,
        now_ns,
    );
    if step.decision {
        *described = features::extract(headers, state, step);
        decide(ctx, settings, (hook, described), (state, step.half), now_ns);
    }
    // After the decision: a FIN ends the message that it has just been part of.
    sample::message_end(state, settings, (hook, step.half), &step.own_end, now_ns);
    if step.control {
        return Ok(0);
    }
    let own = &mut state.halves[step.half & 1];
    let band = verdict::settle(own, settings);
    if matches!(hook, Hook::Egress) {
        if own.generation == 0 {
            count::one(Counter::AgingPackets);
        } else {
            count::one(Counter::ModelPackets);
            count::generation(own.generation);
        }
    }
    Ok(band)
}

/// Remembers a first fragment, and completes a later one by what its first one said.
#[inline(always)]
fn find_fragment(parsed: &mut Parsed, ifindex: u32) -> Result<(), Skip> {
    if matches!(parsed.fragment.kind, Kind::Whole) {
        return Ok(());
    }
    let key = fragment::key(parsed, ifindex);
    if matches!(parsed.fragment.kind, Kind::First) {
        // Without room the later ones are counted as such.
        let _full = FRAGMENTS.insert(key, fragment::first(parsed), 0);
        return Ok(());
    }
    let first = FRAGMENTS.get_ptr(key).ok_or(Skip::LaterFragment)?;
    // SAFETY: map values live as long as the program runs on this packet; an entry is written by
    // replacing it.
    fragment::join(parsed, unsafe { &*first });
    count::one(Counter::JoinedFragments);
    Ok(())
}

/// The hook that sees the other direction.
#[inline(always)]
const fn opposite(hook: Hook) -> Hook {
    match hook {
        Hook::Egress => Hook::Ingress,
        Hook::Ingress => Hook::Egress,
    }
}

/// The flow's entry, made if there is none.
#[inline(always)]
fn touch(
    key: &FlowKey,
    headers: &Headers,
    half: usize,
    now_ns: u64,
) -> Result<&'static mut FlowState, Skip> {
    if let Some(state) = FLOWS.get_ptr_mut(key) {
        // SAFETY: map values live as long as the program runs on this packet; other CPUs may
        // write the same plain integers (see `FlowState`).
        return Ok(unsafe { &mut *state });
    }
    // A flow that another CPU has entered meanwhile is overwritten: both start it with this packet.
    if FLOWS.insert(key, NEW_FLOW, 0).is_err() {
        return Err(Skip::NoFlowSlot);
    }
    let state = FLOWS.get_ptr_mut(key).ok_or(Skip::NoFlowSlot)?;
    // SAFETY: as above.
    let state = unsafe { &mut *state };
    flow::open(state, headers, half, hash::flow_hash(key, secret()), now_ns);
    count::one(Counter::FlowsCreated);
    Ok(state)
}

#[inline(always)]
fn secret() -> [u64; 2] {
    // SAFETY: both are initialised read-only data; volatile keeps the value that was set at load.
    let low = unsafe { core::ptr::read_volatile(&raw const SECRET_LOW) };
    // SAFETY: as above.
    let high = unsafe { core::ptr::read_volatile(&raw const SECRET_HIGH) };
    [low, high]
}

/// Asks the model on egress, and reports both.
#[inline(always)]
fn decide<C: EbpfContext>(
    ctx: &C,
    settings: &Settings,
    (hook, described): (Hook, &Features),
    (state, half): (&mut FlowState, usize),
    now_ns: u64,
) {
    count::one(Counter::DecisionPoints);
    let half = half & 1;
    let mut predicted_log2_q8 = 0;
    if matches!(hook, Hook::Egress) {
        let own = &mut state.halves[half];
        match tree::predict(described) {
            Some(prediction) => {
                own.predicted_bytes = own.bytes + prediction.leaf.bytes_to_come();
                own.generation = prediction.generation;
                predicted_log2_q8 = u32::from(prediction.leaf.log2_q8);
            }
            None => {
                own.predicted_bytes = 0;
                own.generation = 0;
            }
        }
        log_new_generation(ctx, own.generation);
        verdict::settle(own, settings);
    }
    sample::decision(
        state,
        settings,
        (hook, half),
        (described, predicted_log2_q8),
        now_ns,
    );
}

/// One line a CPU when a generation is first seen there.
#[inline(always)]
fn log_new_generation<C: EbpfContext>(ctx: &C, generation: u32) {
    let Some(budget) = BUDGET.get_ptr_mut(0) else {
        return;
    };
    // SAFETY: the pointer is to this CPU's own value, and programs are not re-entered on a CPU.
    let budget = unsafe { &mut *budget };
    if budget.logged_generation != generation {
        budget.logged_generation = generation;
        info!(ctx, "generation {} classifies on this CPU", generation);
    }
}

#[inline(always)]
fn count_step(step: &Step) {
    if step.control {
        count::one(Counter::ControlPackets);
    }
    if step.started {
        count::one(Counter::MessagesStarted);
    }
    if step.retransmitted {
        count::one(Counter::RetransmittedPackets);
    }
}
