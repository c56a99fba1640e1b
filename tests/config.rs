//! The configuration at work: several interfaces, one agent, changed while traffic runs.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{TcpStream, UdpSocket},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use bed::{
    netns::{Bed, CLIENT_V4, SERVER_V4, UPLINK},
    wait,
};
use nix::sys::{
    signal::Signal,
    socket::{setsockopt, sockopt::RcvBufForce},
};
use serde_json::Value;

use crate::support::{
    OwnInstance,
    agent::{Agent, Done, Site, binary},
    privileged,
};

const LIMIT: Duration = Duration::from_secs(60);

struct File {
    _directory: tempfile::TempDir,
    path: String,
}

impl File {
    fn new(text: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.toml").display().to_string();
        fs::write(&path, text).unwrap();
        Self {
            _directory: directory,
            path,
        }
    }

    fn set(&self, text: &str) {
        fs::write(&self.path, text).unwrap();
    }
}

/// Waits until the agent's log holds `text` more than `before` times.
#[track_caller]
fn await_log(agent: &Agent, text: &str, before: usize) {
    wait::until(text, LIMIT, || {
        Ok((agent.log().matches(text).count() > before).then_some(()))
    })
    .unwrap_or_else(|error| panic!("{error}\n{}", agent.log()));
}

fn rates(status: &Value) -> Vec<(String, u64)> {
    let all = status["interfaces"].as_array().unwrap().iter();
    all.map(|it| {
        let name = it["name"].as_str().unwrap().to_owned();
        (name, it["rate_bps"].as_u64().unwrap())
    })
    .collect()
}

#[test]
fn a_reload_changes_interfaces_and_rates_and_loses_no_packet_and_no_flow() {
    if !privileged() {
        return;
    }
    let bed = Bed::host().unwrap();
    for pair in ["spare", "other"] {
        let add = format!("link add {pair} type veth peer name {pair}-end");
        bed.server.ip(&add).unwrap();
    }
    let site = Site::new(&bed.server);
    let of = |rates: &[(&str, &str)]| {
        let one = |(name, rate): &(&str, &str)| format!("[interface.{name}]\nrate = \"{rate}\"\n");
        rates.iter().map(one).collect::<String>()
    };
    let file = File::new(&of(&[(UPLINK, "100mbit"), ("spare", "20mbit")]));
    let agent = site.start(&["run", "--config", &file.path]);
    await_log(&agent, "attached", 1);
    let mut expected = vec![
        (UPLINK.to_owned(), 100_000_000),
        ("spare".to_owned(), 20_000_000),
    ];
    let mut seen = rates(&site.status());
    seen.sort();
    expected.sort();
    assert_eq!(seen, expected);
    let loaded = site.loaded();

    // One flow of numbered datagrams all the while, and no other: what IPv6 asks by itself, on any link and from either end,
    // would be one.
    for namespace in [&bed.server, &bed.client] {
        for which in ["all", "default"] {
            let key = format!("net/ipv6/conf/{which}/disable_ipv6");
            namespace.write_sysctl(&key, "1").unwrap();
        }
    }
    let receiver = bed
        .client
        .enter(|| Ok(UdpSocket::bind((CLIENT_V4, 7007))?))
        .unwrap();
    // Read all the while, and with room for the seconds in which a busy machine does not: a buffer of the usual size holds a few
    // hundred.
    setsockopt(&receiver, RcvBufForce, &(32 << 20)).unwrap();
    let (arrived, arrivals) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = [0; 4];
        while receiver.recv(&mut bytes).is_ok() && arrived.send(u32::from_be_bytes(bytes)).is_ok() {
        }
    });
    let sender = bed
        .server
        .enter(|| Ok(UdpSocket::bind((SERVER_V4, 7008))?))
        .unwrap();
    sender.connect((CLIENT_V4, 7007)).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let sending = std::thread::spawn(move || {
        let mut number = 0u32;
        let mut next = Instant::now();
        while !stopped.load(Ordering::Relaxed) {
            sender.send(&number.to_be_bytes()).unwrap();
            number += 1;
            // What is late is not caught up with: a burst would overflow the band.
            next = next.max(Instant::now()) + Duration::from_micros(500);
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
        }
        number
    });
    let mut numbers = Vec::new();
    let receive = |numbers: &mut Vec<u32>, count: usize| {
        for _ in 0..count {
            numbers.push(arrivals.recv_timeout(LIMIT).expect("a datagram"));
        }
    };
    receive(&mut numbers, 200);
    let flows = site.counter("flows_created");

    // Another rate, one interface more, one less; then an error; then back.
    file.set(&of(&[(UPLINK, "50mbit"), ("other", "10mbit")]));
    agent.signal(Signal::SIGHUP);
    await_log(&agent, "configuration taken over", 0);
    receive(&mut numbers, 200);
    let mut seen = rates(&site.status());
    seen.sort();
    assert_eq!(
        seen,
        [
            ("other".to_owned(), 10_000_000),
            (UPLINK.to_owned(), 50_000_000)
        ]
    );
    file.set("[interface.uplink]\nrate = \"fast\"\n");
    agent.signal(Signal::SIGHUP);
    await_log(&agent, "everything goes on as before", 0);
    assert!(agent.log().contains("config.toml:2:8"), "{}", agent.log());
    receive(&mut numbers, 200);
    file.set(&format!(
        "[agent]\ntrain-every = \"1s\"\nsample-one-in = 4\n{}",
        of(&[(UPLINK, "100mbit")])
    ));
    agent.signal(Signal::SIGHUP);
    await_log(&agent, "configuration taken over", 1);
    receive(&mut numbers, 200);
    assert_eq!(rates(&site.status()), [(UPLINK.to_owned(), 100_000_000)]);
    wait::until("the new sampling", LIMIT, || {
        Ok((site.datapath().settings()?.sample_mask == 3).then_some(()))
    })
    .unwrap();

    stop.store(true, Ordering::Relaxed);
    let sent = sending.join().unwrap() as usize;
    let received = numbers.len();
    receive(&mut numbers, sent - received);
    assert!(
        numbers.iter().copied().eq(0..sent as u32),
        "lost or reordered: {numbers:?}"
    );
    assert_eq!(site.loaded(), loaded, "programs were loaded anew");
    assert_eq!(
        site.counter("flows_created"),
        flows,
        "the flow was forgotten"
    );
    // Every second without enough samples says so: cycles come by the new period.
    await_log(&agent, "nothing trained", 1);

    let (ended, log) = agent.end(Signal::SIGTERM);
    assert!(ended.success(), "{log}");
    site.call(&["down", "--all"]).expect(0);
    site.assert_no_trace();
}

#[test]
fn an_error_in_the_file_ends_with_2_and_names_the_place() {
    let file = File::new("[interface.eth0]\nrate = \"95mb\"\n");
    let call = |arguments: &[&str]| Done::of(Command::new(binary()).args(arguments));
    call(&["config", "check", &file.path])
        .expect(2)
        .says("config.toml:2:8")
        .says("did you mean `95mbit`?");
    call(&["config", "check", "/nowhere/config.toml"])
        .expect(2)
        .says("/nowhere/config.toml");
    file.set("[interface.lo]\nrate = \"95mbit\"\n[interface.absent]\nqdisc = \"keep\"\n");
    call(&["config", "check", &file.path])
        .expect(0)
        .says("no interface absent now");
    let mut shown = Command::new(binary());
    shown
        .args(["config", "show", &file.path, "--format", "json"])
        .env("TREELINE_INTERFACE_LO_RATE", "7mbit");
    let shown = Done::of(&mut shown).expect(0).json();
    assert_eq!(shown["config"]["interface"]["lo"]["rate"], "7mbit");
    let again = File::new(&call(&["config", "show", &file.path]).expect(0).stdout);
    call(&["config", "check", &again.path]).expect(0);
    if nix::unistd::geteuid().is_root() {
        let instance = OwnInstance::new();
        let run = ["--instance", instance.name(), "run", "--config", &file.path];
        call(&[&run[..], &["--rate", "1mbit"]].concat())
            .expect(2)
            .says("stand in the configuration");
        call(&run).expect(4).says("absent");
    }
    call(&["run", "lo", "--config", &file.path]).expect(2);
}

#[test]
fn the_example_can_be_tried_without_effect() {
    if !privileged() {
        return;
    }
    let bed = Bed::host().unwrap();
    for name in ["eth0", "eth1"] {
        let add = format!("link add {name} type veth peer name {name}-end");
        bed.server.ip(&add).unwrap();
    }
    let site = Site::new(&bed.server);
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../contrib/config.toml");
    let plan = site
        .call(&["run", "--config", example, "--dry-run"])
        .expect(0);
    for rate in ["rate 95mbit", "rate 475mbit"] {
        assert!(plan.stdout.contains(rate), "{plan:?}");
    }
    site.assert_no_trace();
}

/// What an HTTP server answers.
fn get(bed: &Bed, path: &str, accept: &str) -> String {
    bed.server
        .enter(|| {
            let mut stream = TcpStream::connect(("127.0.0.1", 9464))?;
            write!(
                stream,
                "GET {path} HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\n\r\n"
            )?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        })
        .unwrap()
}

#[test]
fn a_scrape_tells_what_status_tells() {
    if !privileged() {
        return;
    }
    let bed = Bed::host().unwrap();
    let site = Site::new(&bed.server);
    let agent = site.run(&["--metrics", "127.0.0.1:9464"]);
    await_log(&agent, "metrics are served", 0);
    let open = get(
        &bed,
        "/metrics",
        "application/openmetrics-text;version=1.0.0",
    );
    assert!(
        open.starts_with("HTTP/1.1 200") && open.trim_end().ends_with("# EOF"),
        "{open}"
    );
    assert!(
        open.contains("content-type: application/openmetrics-text"),
        "{open}"
    );
    let plain = get(&bed, "/metrics", "*/*");
    for line in [
        "# TYPE treeline_band_sent_bytes_total counter",
        "treeline_interface_up{interface=\"uplink\"} 1",
        "treeline_interface_rate_bytes_per_second{interface=\"uplink\"} 12500000",
        "treeline_model_generation 0",
    ] {
        assert!(
            plain.lines().any(|it| it == line),
            "{line} is missing: {plain}"
        );
    }
    let bands = plain.matches("treeline_band_sent_packets_total{").count();
    assert_eq!(bands, 8);
    let series = plain
        .lines()
        .filter(|line| line.starts_with("treeline_"))
        .count();
    assert!(series < 300, "{series} series");
    assert!(get(&bed, "/", "*/*").starts_with("HTTP/1.1 404"));
    // Taken already.
    let site = Site::new(&bed.server);
    bed.server
        .ip("link add spare type veth peer name spare-end")
        .unwrap();
    site.call(&[
        "run",
        "spare",
        "--rate",
        "1mbit",
        "--metrics",
        "127.0.0.1:9464",
    ])
    .expect(1)
    .says("127.0.0.1:9464");
    site.assert_no_trace();
}
