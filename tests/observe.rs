//! `run --observe` learns and advises, and no packet is another for it.

use std::{
    io::Read as _,
    num::NonZeroU16,
    process::Command,
    time::{Duration, Instant},
};

use bed::netns::{Bed, UPLINK};
use nix::sys::signal::Signal;
use portable_pty::{CommandBuilder, PtySize, native_pty_system};
use scheduler_common::settings::Act;
use treeline::{advice::Advice, model::Registry};

use crate::{
    learning::play,
    support::{
        agent::{Site, binary},
        json::documented,
        privileged,
    },
};

const LIMIT: Duration = Duration::from_secs(60);

/// Bytes that went through the band classes from the second on.
fn lower_bands_bytes(bed: &Bed) -> u64 {
    let text = bed
        .server
        .tc(&format!("-s class show dev {UPLINK}"))
        .unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let lower =
        |line: &&str| (2..=8).any(|band| line.starts_with(&format!("class htb 7e:{band} ")));
    lines
        .iter()
        .enumerate()
        .filter(|(_, line)| lower(line))
        .map(|(at, _)| {
            lines[at + 1]
                .trim()
                .split(' ')
                .nth(1)
                .unwrap()
                .parse::<u64>()
                .unwrap()
        })
        .sum()
}

#[test]
fn watching_learns_and_advises_and_touches_no_packet_and_no_qdisc() {
    if !privileged() {
        return;
    }
    let bed = Bed::host().unwrap();
    let site = Site::new(&bed.server);
    // A hierarchy that shows every priority, made by hand as the dry run says.
    let dry = site.up(&["--dry-run"]).expect(0).stdout;
    let of_tc: Vec<&str> = dry
        .lines()
        .filter(|line| line.starts_with("tc qdisc") || line.starts_with("tc class"))
        .collect();
    bed.server
        .output(Command::new("sh").args(["-e", "-c", &of_tc.join("\n")]))
        .unwrap();
    let look = || {
        let show = |what: &str| bed.server.tc(&format!("{what} show dev {UPLINK}")).unwrap();
        (show("qdisc"), show("class"))
    };
    let before = look();
    let agent = site.run(&["--observe", "--train-every", "2s", "--min-samples", "200"]);
    let deadline = Instant::now() + LIMIT;
    for seed in 0.. {
        play(&bed, seed);
        let advice = Advice::load(&site.instance.advice()).unwrap();
        if advice.is_some_and(|advice| advice.accepted) {
            break;
        }
        assert!(Instant::now() < deadline, "no advice: {}", agent.log());
    }
    assert_eq!(look(), before);
    assert_eq!(lower_bands_bytes(&bed), 0, "a packet has another priority");
    assert_eq!(site.datapath().settings().unwrap().act, Act::Observe as u32);
    assert!(site.counter("decision_points") > 100);
    site.call(&["status"]).expect(0).says("watches only");
    // What watches is not scheduled by the way.
    bed.server
        .ip("link add spare type veth peer name spare-end")
        .unwrap();
    site.call(&["up", "spare", "--rate", "1mbit"])
        .expect(1)
        .says("only watched");

    let (ended, log) = agent.end(Signal::SIGTERM);
    assert!(ended.success(), "{log}");
    for word in [
        "no packet and no qdisc was touched",
        "by service",
        "tcp ",
        "up to",
        "verdict: a model may act",
    ] {
        assert!(log.contains(word), "{word:?} is missing: {log}");
    }
    assert!(!log.contains("observing:"), "a bar without a terminal");
    assert_eq!(look(), before);
    site.assert_no_trace();
    let model = Registry::new(site.instance.models()).load(1).unwrap();
    assert!(
        model.scores.is_some(),
        "what was learned was not judged: {log}"
    );

    // The same traffic, scheduled: the check above can fail.
    site.call(&["up", UPLINK, "--qdisc", "keep"]).expect(0);
    play(&bed, 1);
    assert!(lower_bands_bytes(&bed) > 100_000);
    site.call(&["run", UPLINK, "--observe"])
        .expect(1)
        .says("watching would end that");
}

#[test]
fn watching_an_idle_link_ends_in_time_and_says_that_nothing_was_seen() {
    if !privileged() {
        return;
    }
    let bed = Bed::host().unwrap();
    let site = Site::new(&bed.server);
    let done = site
        .call(&[
            "run",
            UPLINK,
            "--observe",
            "--for",
            "1s",
            "--format",
            "json",
        ])
        .expect(0)
        .json();
    documented("run --observe", &done);
    assert!(done["advice"].is_null() && done["interfaces"][0] == UPLINK);
    site.assert_no_trace();
    site.call(&["run", UPLINK, "--observe", "--replace"])
        .expect(2);
}

#[test]
fn on_a_terminal_it_shows_how_far_it_is_and_leaves_nothing_of_that() {
    const COLUMNS: u16 = 120;
    const LINES: u16 = 40;
    if !privileged() {
        return;
    }
    let bed = Bed::host().unwrap();
    let site = Site::new(&bed.server);
    let mut command = CommandBuilder::new(binary());
    command.args(["--instance", site.instance.name(), "run", UPLINK]);
    command.args(["--observe", "--rate", "80mbit", "--for", "3s"]);
    command.env("TERM", "xterm-256color");
    let size = PtySize {
        rows: LINES,
        cols: COLUMNS,
        ..PtySize::default()
    };
    let (mut child, master) = bed
        .server
        .enter(|| {
            let pair = native_pty_system().openpty(size)?;
            Ok((pair.slave.spawn_command(command)?, pair.master))
        })
        .unwrap();
    let mut terminal = vt100::Parser::new(
        NonZeroU16::new(LINES).unwrap(),
        NonZeroU16::new(COLUMNS).unwrap(),
        0,
    );
    let (mut output, mut shown) = (master.try_clone_reader().unwrap(), String::new());
    let mut bytes = [0; 4096];
    // A terminal whose other end is gone gives an error.
    while let Ok(count @ 1..) = output.read(&mut bytes) {
        terminal.process(&bytes[..count]);
        shown.push_str(&terminal.screen().contents());
    }
    assert!(child.wait().unwrap().success(), "{shown}");
    for sign in [
        "observing: 0 of 500 labelled samples to learn from",
        " of 3s",
    ] {
        assert!(shown.contains(sign), "{sign:?} is missing: {shown}");
    }
    let left = terminal.screen().contents();
    assert!(!left.contains("observing:"), "{left}");
    // Lines of the log stay whole above it, and what it comes to is the end.
    assert!(left.contains("INFO attached"), "{left}");
    assert!(
        left.contains("observed uplink; too little traffic"),
        "{left}"
    );
    site.assert_no_trace();
}
