//! What the flow table says of messages that no packet has ended.

use std::collections::{HashMap, HashSet};

use scheduler_common::{
    flow::{Flow, FlowSet, Half, Hashing, Story, TICK_SHIFT, half_flags},
    settings::Settings,
};
use scheduler_ebpf::{
    flow::{idle_bound_us, to_us, unacknowledged},
    hash,
};

/// A difference of ticks above this is one below zero: the coarse clock is a little behind.
const BEFORE_ZERO_TICKS: u32 = u32::MAX - (1 << 20);

/// How far a message has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It may go on.
    Open {
        /// Payload bytes so far.
        bytes: u64,
    },
    /// It is over: closed, or silent for so long that the next packet begins another, or followed by one.
    Over {
        /// Payload bytes in all.
        bytes: u64,
    },
}

/// One direction of a live flow.
#[derive(Clone, Copy, Debug)]
struct Reading {
    message: u32,
    bytes: u32,
    previous_bytes: u32,
    over: bool,
}

/// A look at the flow table, by the names that flows have in samples.
#[derive(Clone, Debug, Default)]
pub struct Readings {
    wanted: HashSet<u64>,
    flows: HashMap<u64, [Reading; 2]>,
}

impl Readings {
    /// A look at the flows of these names.
    pub fn of(wanted: HashSet<u64>) -> Self {
        Self {
            wanted,
            flows: HashMap::new(),
        }
    }

    /// Takes in one set of the table as it is at `now_ns` by the programs' clock; `story` reads what belongs to an entry.
    ///
    /// The programs go on meanwhile. A message that begins between the two reads is one that nobody waits for yet.
    ///
    /// # Errors
    /// What `story` says.
    pub fn take<E>(
        &mut self,
        set: &FlowSet,
        mut story: impl FnMut(u32) -> Result<Story, E>,
        (hashing, settings): (&Hashing, &Settings),
        now_ns: u64,
    ) -> Result<(), E> {
        for (way, flow) in (0..).zip(&set.flows) {
            if flow.tag == 0 {
                continue;
            }
            let name = hash::sample_name(flow.tag, hashing);
            if self.wanted.contains(&name) {
                let story = story(way)?;
                let read = |half| reading((flow, &story), half, settings, now_ns);
                self.flows.insert(name, [read(0), read(1)]);
            }
        }
        Ok(())
    }

    /// Flows that were there.
    pub fn len(&self) -> usize {
        self.flows.len()
    }

    /// Whether there was none.
    pub fn is_empty(&self) -> bool {
        self.flows.is_empty()
    }

    /// What is known of one message; `None` if its flow has left the table or has gone on to another.
    pub fn state(&self, flow_hash: u64, half: u8, message: u32) -> Option<State> {
        let reading = self.flows.get(&flow_hash)?[usize::from(half & 1)];
        if reading.message == message {
            let bytes = u64::from(reading.bytes);
            return Some(if reading.over {
                State::Over { bytes }
            } else {
                State::Open { bytes }
            });
        }
        // Its end went unread; its successor remembers it.
        (reading.message == message.wrapping_add(1)).then_some(State::Over {
            bytes: u64::from(reading.previous_bytes),
        })
    }
}

fn reading(
    (flow, story): (&Flow, &Story),
    half: usize,
    settings: &Settings,
    now_ns: u64,
) -> Reading {
    let (own, other) = (&flow.halves[half], &flow.halves[half ^ 1]);
    let page = &story.halves[half];
    Reading {
        message: page.message,
        bytes: own.bytes,
        previous_bytes: page.previous_bytes,
        over: is_over(own, other, story, settings, now_ns),
    }
}

/// Whether the programs would begin another message with the next packet of this direction.
fn is_over(own: &Half, other: &Half, story: &Story, settings: &Settings, now_ns: u64) -> bool {
    if own.flags & half_flags::OPEN == 0 {
        return true;
    }
    let silent_ticks = ((now_ns >> TICK_SHIFT) as u32).wrapping_sub(own.last_ticks);
    silent_ticks < BEFORE_ZERO_TICKS
        && to_us(silent_ticks) > idle_bound_us(settings, story.rtt_us)
        && !unacknowledged(own, other)
}
