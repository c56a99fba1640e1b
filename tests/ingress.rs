//! Downloads shaped on a router's ingress, through an IFB device.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use bed::{
    netns::{Bed, UPLINK},
    wait,
};
use nix::sys::signal::Signal;

use crate::support::{
    agent::Site,
    branch::{Branch, WAN, ask},
    privileged,
};

const LIMIT: Duration = Duration::from_secs(60);
/// Payload of a full packet, and what HTB and TBF count for it.
const PAYLOAD_SHARE: f64 = 1448.0 / 1514.0;
const RATE_BPS: f64 = 50_000_000.0;
const SHORT_BYTES: u64 = 10_000;
const FETCHES: usize = 15;

/// What an administrator sees of the router.
fn look(branch: &Branch) -> [String; 4] {
    [
        links(branch),
        branch.router.tc("qdisc show").unwrap(),
        filters(branch, "ingress"),
        filters(branch, "egress"),
    ]
}

/// Names; a link's state may change by itself.
fn links(branch: &Branch) -> String {
    let listed = branch.router.ip("-o link").unwrap();
    let names = listed.lines().filter_map(|line| line.split(' ').nth(1));
    names.collect()
}

fn filters(branch: &Branch, side: &str) -> String {
    branch
        .router
        .tc(&format!("filter show dev {WAN} {side}"))
        .unwrap()
}

/// What a download and short answers beside it came to.
#[derive(Debug)]
struct Measured {
    bulk_bps: f64,
    short: Duration,
}

/// A bulk download, and beside it short answers over fresh connections.
fn measure(branch: &Branch, address: SocketAddr) -> Measured {
    let bulk = branch.bulk(address).unwrap();
    // The download has filled the queue and left the bands of the beginning.
    wait::until("the download", LIMIT, || {
        Ok((bulk.received() > 10_000_000).then_some(()))
    })
    .unwrap();
    let (before, started) = (bulk.received(), Instant::now());
    let mut times = Vec::new();
    while times.len() < FETCHES || started.elapsed() < Duration::from_secs(2) {
        times.push(branch.fetch(address, SHORT_BYTES).unwrap());
    }
    let short_bytes = times.len() as u64 * SHORT_BYTES;
    let bytes = bulk.received() - before + short_bytes;
    times.sort();
    Measured {
        bulk_bps: bytes as f64 * 8.0 / started.elapsed().as_secs_f64() / PAYLOAD_SHARE,
        short: times[times.len() / 2],
    }
}

fn keeps_the_rate(measured: &Measured) -> bool {
    (0.9..=1.1).contains(&(measured.bulk_bps / RATE_BPS))
}

/// As [`measure`], once or twice more where the machine did something else meanwhile.
fn measure_steadily(branch: &Branch, address: SocketAddr) -> Measured {
    for _ in 0..2 {
        let measured = measure(branch, address);
        if keeps_the_rate(&measured) {
            return measured;
        }
        eprintln!("measured again: {measured:?}");
    }
    measure(branch, address)
}

/// The same place, the same rate, one queue.
fn with_fifo(branch: &Branch, address: SocketAddr) -> Measured {
    let router = &branch.router;
    router.ip("link add fifo0 type ifb").unwrap();
    router.ip("link set fifo0 up").unwrap();
    router
        .tc("qdisc add dev fifo0 root tbf rate 50mbit burst 32kb limit 375kb")
        .unwrap();
    router.tc(&format!("qdisc add dev {WAN} clsact")).unwrap();
    router
        .tc(&format!(
            "filter add dev {WAN} ingress u32 match u32 0 0 action mirred egress redirect dev fifo0"
        ))
        .unwrap();
    let measured = measure_steadily(branch, address);
    router.tc(&format!("qdisc del dev {WAN} clsact")).unwrap();
    router.ip("link delete fifo0").unwrap();
    measured
}

#[test]
fn downloads_keep_the_rate_and_short_ones_do_not_wait_for_bulk() {
    if !privileged() {
        return;
    }
    let branch = Branch::new().unwrap();
    let address = branch.serve().unwrap();
    let before = look(&branch);
    let fifo = with_fifo(&branch, address);
    assert_eq!(look(&branch), before);

    let site = Site::new(&branch.router);
    let up = ["up", WAN, "--rate", "1gbit", "--ingress-rate", "50mbit"];
    site.call(&up).expect(0).says("50mbit in");
    let shaped = measure_steadily(&branch, address);
    let status = site.status();
    let ingress = &status["interfaces"][0]["downlink"];
    assert_eq!(ingress["rate_bps"], 50_000_000, "{status}");
    site.call(&["status"]).expect(0).says("shaped through");
    eprintln!("fifo {fifo:?}, shaped {shaped:?}");
    for measured in [&fifo, &shaped] {
        assert!(keeps_the_rate(measured), "{measured:?}");
    }
    assert!(
        shaped.short * 2 < fifo.short,
        "shaped {shaped:?}, fifo {fifo:?}"
    );
    site.call(&["down", WAN]).expect(0);
    assert_eq!(look(&branch), before);
    site.assert_no_trace();
}

#[test]
fn requests_and_answers_of_a_shaped_downlink_meet_in_one_flow() {
    const EXCHANGES: u64 = 12;
    if !privileged() {
        return;
    }
    let branch = Branch::new().unwrap();
    let address = branch.serve().unwrap();
    let site = Site::new(&branch.router);
    let up = ["up", WAN, "--rate", "1gbit", "--ingress-rate", "50mbit"];
    site.call(&up).expect(0);
    let mut stream = branch.connect(address).unwrap();
    let names = ["flows_created", "messages_started", "messages_ended_turn"];
    let counters = || names.map(|name| site.counter(name));
    ask(&mut stream, 100).unwrap();
    let before = counters();
    for _ in 0..EXCHANGES {
        ask(&mut stream, 20_000).unwrap();
    }
    let [flows, started, turned] = counters();
    assert_eq!(flows, before[0], "one side made a flow of its own");
    // Each request and each answer is a message; a late ACK may leave the last one open.
    assert_eq!(started - before[1], 2 * EXCHANGES);
    assert!(
        turned - before[2] >= 2 * EXCHANGES - 2,
        "{turned} {before:?}"
    );
    assert_eq!(site.counter("ingress_packets"), 0, "counted twice");
}

#[test]
fn a_shaped_downlink_outlives_the_agent_and_is_adopted() {
    if !privileged() {
        return;
    }
    let bed = Bed::host().unwrap();
    let site = Site::new(&bed.server);
    let links = || bed.server.ip("-br link").unwrap();
    let before = links();
    let shaped = ["--ingress-rate", "50mbit"];
    let agent = site.run(&shaped);
    let index = || {
        site.instance.records().unwrap()[0]
            .downlink
            .clone()
            .unwrap()
    };
    let first = index();
    agent.kill();
    assert!(links().contains(&first.device));
    site.up(&shaped).expect(0).says("already up");
    assert_eq!(index(), first);
    let (_status, log) = site.run(&shaped).end(Signal::SIGTERM);
    assert!(log.contains("adopted"), "{log}");
    assert_eq!(index(), first);

    // What others have removed is mended.
    let filter = |verb: &str| {
        bed.server
            .tc(&format!("filter {verb} dev {UPLINK} ingress"))
    };
    filter("del").unwrap();
    assert!(!filter("show").unwrap().contains("mirred"));
    site.up(&shaped).expect(0);
    assert!(filter("show").unwrap().contains("mirred"));
    bed.server
        .ip(&format!("link delete {}", first.device))
        .unwrap();
    site.up(&shaped).expect(0);
    assert!(filter("show").unwrap().contains(&index().device));

    // Another rate, then none: XDP observes again.
    site.up(&["--ingress-rate", "20mbit"]).expect(0);
    assert_eq!(index().rate_bps, 20_000_000);
    site.up(&[]).expect(0).says("is now at");
    assert!(!links().contains(&first.device), "{}", links());
    assert!(site.status()["interfaces"][0]["ingress_hook"].is_string());
    site.down().expect(0);
    assert_eq!(links(), before);
    site.assert_no_trace();
}

#[test]
fn a_shaped_downlink_goes_with_its_interface() {
    if !privileged() {
        return;
    }
    let bed = Bed::host().unwrap();
    bed.server
        .ip("link add spare type veth peer name spare-end")
        .unwrap();
    let site = Site::new(&bed.server);
    let up = [
        "up",
        "spare",
        "--rate",
        "10mbit",
        "--ingress-rate",
        "10mbit",
    ];
    let ifbs = || bed.server.ip("-br link show type ifb").unwrap();
    site.call(&up).expect(0);
    bed.server.ip("link delete spare").unwrap();
    assert!(ifbs().contains("tl"));
    site.call(&["down", "spare"]).expect(0);
    assert_eq!(ifbs(), "");
    site.assert_no_trace();
}

#[test]
fn a_device_of_somebody_else_is_not_taken() {
    if !privileged() {
        return;
    }
    let bed = Bed::host().unwrap();
    let site = Site::new(&bed.server);
    let index = bed
        .server
        .enter(|| Ok(nix::net::if_::if_nametoindex(UPLINK)?))
        .unwrap();
    bed.server
        .ip(&format!("link add tl{index} type veth peer name theirs"))
        .unwrap();
    let qdiscs = || bed.server.tc("qdisc show").unwrap();
    let before = qdiscs();
    site.up(&["--ingress-rate", "10mbit"])
        .expect(1)
        .says("rename");
    assert_eq!(qdiscs(), before);
    site.assert_no_trace();
}
