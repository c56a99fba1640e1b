//! What a tick of the running kernel is, found by asking it twice.

use std::{
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use aya::{
    EbpfLoader,
    programs::{SchedClassifier, TestRun as _, TestRunOptions},
};
use scheduler_common::{
    flow::{Clock, NO_TICK_NS},
    names,
};
use tracing::debug;

use super::OBJECT;

/// Ticks a second that kernels are built with (`kernel/Kconfig.hz` and those of the architectures, 6.18).
const HERTZ: [u32; 9] = [100, 128, 200, 250, 256, 300, 500, 1000, 1024];
/// Between two looks at least: enough that a late interrupt does not matter.
const APART: Duration = Duration::from_millis(50);
/// A clock that goes on no sooner stands still.
const LONGEST_TICK: Duration = Duration::from_millis(100);
/// Farther from every known length than this share is no answer.
const TOLERANCE: f64 = 0.02;
const TRIES: u32 = 5;

/// Size of `struct __sk_buff`, and where `cb` is in it (kernel 6.18 `include/uapi/linux/bpf.h`).
const SKB_BYTES: usize = 192;
const CB: usize = 48;

/// The tick count at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Look {
    ticks: u64,
    now_ns: u64,
}

/// The clock of this boot, asked for once; without an answer the programs ask for the time packet by packet.
pub fn of_this_boot() -> Clock {
    static CLOCK: OnceLock<Clock> = OnceLock::new();
    *CLOCK.get_or_init(|| {
        let found = find();
        debug!(?found, "measured the kernel's tick");
        found.unwrap_or(Clock {
            offset_ns: 0,
            tick_ns: NO_TICK_NS,
            _pad: 0,
        })
    })
}

fn find() -> Option<Clock> {
    let mut ebpf = EbpfLoader::new()
        .map_max_entries(names::FLOWS, 1)
        .map_max_entries(names::STORIES, 1)
        .map_max_entries(names::CPUS, 1)
        .load(OBJECT)
        .ok()?;
    let program: &mut SchedClassifier = ebpf.program_mut(names::CLOCK)?.try_into().ok()?;
    program.load().ok()?;
    (0..TRIES).find_map(|_| {
        let first = behind_a_tick(program)?;
        thread::sleep(APART);
        between(first, behind_a_tick(program)?)
    })
}

/// The first look behind a tick: what has passed of a tick at some other moment would count for a whole one, or for none.
fn behind_a_tick(program: &SchedClassifier) -> Option<Look> {
    let before = look(program)?;
    let started = Instant::now();
    loop {
        let now = look(program)?;
        if now.ticks != before.ticks {
            return Some(now);
        }
        if started.elapsed() > LONGEST_TICK {
            return None;
        }
    }
}

/// Asks until no tick comes between the parts of the answer.
fn look(program: &SchedClassifier) -> Option<Look> {
    (0..1000).find_map(|_| {
        let mut after = [0; SKB_BYTES];
        let mut options = TestRunOptions::new();
        options.data_in = Some(&[0; 64]);
        options.ctx_out = Some(&mut after);
        program.test_run(options).ok()?;
        let word = |place: usize| {
            let at = CB + 4 * place;
            after[at..at + 4].try_into().map(u32::from_ne_bytes).ok()
        };
        let wide = |low: u32, high: u32| u64::from(high) << 32 | u64::from(low);
        let before = wide(word(0)?, word(1)?);
        (before as u32 == word(4)?).then_some(Look {
            ticks: before,
            now_ns: wide(word(2)?, word(3)?),
        })
    })
}

fn between(first: Look, second: Look) -> Option<Clock> {
    let measured_ns = (second.now_ns - first.now_ns) as f64 / (second.ticks - first.ticks) as f64;
    let tick_ns = HERTZ
        .into_iter()
        // Rounded as the kernel does it (`include/linux/jiffies.h`, `TICK_NSEC`).
        .map(|hertz| (1_000_000_000 + hertz / 2) / hertz)
        .min_by(|a, b| {
            let off = |tick_ns: &u32| (f64::from(*tick_ns) - measured_ns).abs();
            off(a).total_cmp(&off(b))
        })?;
    let off = (f64::from(tick_ns) - measured_ns).abs() / measured_ns;
    (off < TOLERANCE).then(|| Clock {
        offset_ns: second
            .now_ns
            .wrapping_sub(second.ticks.wrapping_mul(u64::from(tick_ns))),
        tick_ns,
        _pad: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looks(tick_ns: u64, late_ns: u64) -> Option<Clock> {
        let at = |ticks: u64| Look {
            ticks,
            now_ns: 7_000 + (ticks - 4_294_000_000) * tick_ns,
        };
        let (first, mut second) = (at(4_294_900_000), at(4_294_900_015));
        second.now_ns += late_ns;
        between(first, second)
    }

    #[test]
    fn every_usual_tick_is_recognised_although_an_interrupt_is_late() {
        for (hertz, tick_ns) in [
            (100, 10_000_000),
            (250, 4_000_000),
            (300, 3_333_333),
            (1000, 1_000_000),
        ] {
            let clock = looks(tick_ns, 100_000).unwrap();
            assert_eq!(u64::from(clock.tick_ns), tick_ns, "{hertz}");
            let ticks: u64 = 4_294_900_015;
            let now_ns = ticks.wrapping_mul(tick_ns).wrapping_add(clock.offset_ns);
            assert_eq!(now_ns, 7_000 + 900_015 * tick_ns + 100_000, "{hertz}");
        }
    }

    #[test]
    fn an_unknown_tick_is_no_answer() {
        assert_eq!(looks(2_700_000, 0), None);
    }
}
