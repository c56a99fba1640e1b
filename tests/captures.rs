//! Real captures through etherparse, the host's parser and the kernel's.

use std::{collections::BTreeMap, time::Instant};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use scheduler_common::{
    counter::Skip,
    sample::Hook,
    settings::{Settings, settings_flags},
};
use scheduler_ebpf::{
    flow,
    parse::{self, How, Parsed},
};

use crate::support::{
    captures::{self, Capture, Start},
    frames::table,
    host::{Fate, Twin},
    kernel::Kernel,
    packets::{Passing, tunnelled},
    peer::{self, Reading},
    privileged, unlimited,
};

/// How a frame of a capture is to be read.
fn how(start: Start) -> How {
    How {
        network_frames: start == Start::Network,
        ..How::default()
    }
}

fn read(start: Start, frame: &[u8]) -> Result<Parsed, Skip> {
    let mut parsed = Parsed::default();
    parse::read(frame, how(start), &mut parsed).map(|()| parsed)
}

#[test]
fn etherparse_reads_every_capture_alike() {
    let mut tally: BTreeMap<String, u32> = BTreeMap::new();
    for Capture { name, frames } in captures::all() {
        for (number, (start, frame)) in frames.iter().enumerate() {
            let ours = read(*start, frame);
            let theirs = peer::read(*start, frame);
            let verdict = match (&ours, &theirs) {
                (Ok(parsed), Reading::Headers(headers)) if parsed.headers == *headers => "same",
                (Err(skip), Reading::Nothing(_)) => match skip {
                    Skip::NotIp => "neither reads: not ip",
                    Skip::OtherProtocol => "neither reads: another protocol",
                    _ => "neither reads: broken",
                },
                _ => peer::explained(*start, frame, &ours, &theirs).unwrap_or_else(|| {
                    panic!(
                        "{name}, packet {}: {ours:?} here, {theirs:?} there",
                        number + 1
                    )
                }),
            };
            *tally.entry(verdict.to_owned()).or_default() += 1;
        }
    }
    for (verdict, count) in &tally {
        eprintln!("{count:8} {verdict}");
    }
    let all: u32 = tally.values().sum();
    let same = tally.get("same").copied().unwrap_or(0);
    assert!(same >= all / 10 * 9, "{same} of {all}");
}

#[test]
fn captures_are_judged_alike_in_the_kernel_and_on_the_host() {
    const PACKETS_PER_CAPTURE: usize = 40;
    if !privileged() {
        return;
    }
    let began = Instant::now();
    let mut kernel = Kernel::load(&unlimited());
    let mut twin = Twin::new(unlimited());
    let mut tally: BTreeMap<String, u32> = BTreeMap::new();
    for Capture { name, frames } in captures::all() {
        for (number, (start, frame)) in frames.iter().take(PACKETS_PER_CAPTURE).enumerate() {
            let flags = match start {
                Start::Ethernet => settings_flags::INNER,
                Start::Network => settings_flags::INNER | settings_flags::NETWORK_FRAMES,
            };
            if twin.settings.flags != flags {
                twin.settings = Settings {
                    flags,
                    ..unlimited()
                };
                kernel.datapath.set_settings(&twin.settings).unwrap();
            }
            // Both directions of a flow come by, each at its own hook.
            let half = read(*start, frame)
                .map_or(0, |parsed| kernel.identify(&parsed.headers).half as usize);
            let passing = Passing {
                hook: [Hook::Egress, Hook::Ingress][half],
                frame: frame.clone(),
                segments: 1,
            };
            let name = format!("{name}, packet {}", number + 1);
            let fate = match twin.compare(&mut kernel, &passing, &name) {
                Fate::Banded(_) => "banded".to_owned(),
                Fate::Skipped(skip) => format!("{skip:?}"),
                Fate::Refused => "refused by the test interface".to_owned(),
            };
            *tally.entry(fate).or_default() += 1;
        }
    }
    eprintln!("{tally:?} in {:?}", began.elapsed());
    let all: u32 = tally.values().sum();
    let banded = tally.get("banded").copied().unwrap_or(0);
    assert!(banded >= all / 10 * 8, "{tally:?}");
}

/// Breaks a frame in one of the ways in which packets break, and in some in which they do not.
fn mutate(frame: &mut Vec<u8>, rng: &mut StdRng) {
    const HEADERS_BYTES: usize = 110;
    for _ in 0..rng.random_range(1..5) {
        let within = frame.len().min(HEADERS_BYTES);
        if within == 0 {
            return;
        }
        let at = rng.random_range(0..within);
        match rng.random_range(0..8) {
            0 => frame.truncate(at),
            1 => frame[at] ^= 1 << rng.random_range(0..8),
            2 => frame[at] = [0, 0xff, 0x7f, 0x80][rng.random_range(0..4)],
            3 => drop(frame.drain(at..(at + rng.random_range(1..9)).min(frame.len()))),
            4 => {
                // A header twice.
                let part = frame[at..(at + 40).min(frame.len())].to_vec();
                frame.splice(at..at, part);
            }
            5 if at + 2 <= frame.len() => {
                let known: [u16; 8] = [0x0800, 0x86dd, 0x8100, 0x8864, 0x6558, 0x2f00, 4789, 6081];
                frame[at..at + 2].copy_from_slice(&known[rng.random_range(0..8)].to_be_bytes());
            }
            _ => frame[at] = rng.random(),
        }
    }
}

#[test]
fn a_million_broken_packets_break_nothing() {
    const PACKETS: u32 = 1_000_000;
    const POOL_PER_CAPTURE: usize = 40;
    let mut pool: Vec<Vec<u8>> = table().into_iter().map(|(_, frame, _)| frame).collect();
    for Capture { frames, .. } in captures::all() {
        let cut = frames.into_iter().take(POOL_PER_CAPTURE);
        pool.extend(cut.map(|(_, frame)| frame[..frame.len().min(300)].to_vec()));
    }
    let plain = pool.clone();
    pool.extend(plain.iter().flat_map(|frame| tunnelled(frame)));
    let mut rng = StdRng::seed_from_u64(0x5eed);
    let (mut read, mut inner) = (0, 0);
    for number in 0..PACKETS {
        let mut frame = pool[rng.random_range(0..pool.len())].clone();
        mutate(&mut frame, &mut rng);
        let how = How {
            ethertype: [0, 0x0800, 0x86dd][rng.random_range(0..3)],
            network_frames: rng.random_range(0..8) == 0,
            inner: rng.random_range(0..4) != 0,
        };
        let mut parsed = Parsed::default();
        if parse::read(frame.as_slice(), how, &mut parsed).is_ok() {
            read += 1;
            inner += parsed.inner;
            let payload = parsed.headers.payload_bytes as usize;
            assert!(
                payload <= frame.len(),
                "packet {number}: {payload} bytes of payload, {how:?}, {frame:02x?}"
            );
        }
    }
    eprintln!("{read} of {PACKETS} were read, {inner} of them in a tunnel");
    assert!(read > PACKETS / 10 && inner > 100, "{read}, {inner}");
}
