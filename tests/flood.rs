//! Strangers with lies beside honest traffic, under a running agent.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::Result;
use bed::{
    mix::{Arrival, Service},
    netns::{ACCESS, Bed, CLIENT_V4, SERVER_V4, UPLINK},
    traffic::{self, Play, REQUEST_HEADER_BYTES, Request},
};
use nix::sys::signal::Signal;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpSocket,
    task::LocalSet,
    time,
};

use crate::support::{agent::Site, privileged};

const LIMIT: Duration = Duration::from_secs(120);
/// Networks of /24 that the flood comes from.
const STRANGERS: u8 = 64;
/// Lies a second: ten for each honest message.
const LIES_PER_S: u64 = 300;
/// For how long a newcomer remains one.
const NEWCOMER_S: u64 = 12;
/// How long the flood lasts: less.
const FLOOD: Duration = Duration::from_secs(8);
/// How long it is quiet before: honest clients are known by then, and it was seen that strangers bring nothing.
const QUIET: Duration = Duration::from_secs(NEWCOMER_S * 3 / 2);
/// What newcomers may have of what is learned from.
const SHARE: f64 = 0.1;

/// One second of honest requests at one port: a longer request asks for a longer reply.
fn honest(seed: u64) -> Vec<Arrival> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut at = Duration::ZERO;
    let mut arrivals = Vec::new();
    while at < Duration::from_secs(1) {
        let is_long = random.random_range(0..4) == 0;
        let (request_bytes, reply_bytes) = if is_long {
            (700, 600_000)
        } else {
            (120, 60_000)
        };
        arrivals.push(Arrival {
            at,
            service: Service::Media,
            request_bytes: request_bytes + random.random_range(0..50),
            reply_bytes: reply_bytes * random.random_range(80..120) / 100,
            kept: false,
        });
        at += Duration::from_micros(random.random_range(0..60_000));
    }
    arrivals
}

/// Plays a second of it; the answer is how long the short replies took that came.
fn play(bed: &Bed, seed: u64, deadline: Instant) -> Vec<Duration> {
    loop {
        let play = Play {
            server: SERVER_V4,
            drain: Duration::from_secs(5),
            band: None,
        };
        match traffic::run(bed, honest(seed), play, None, &mut || Ok(())) {
            Ok(run) => {
                let short = (run.outcomes.iter()).filter(|it| it.arrival.reply_bytes < 100_000);
                return short.filter_map(|it| it.completion).collect();
            }
            // The second before may not have let go of its ports yet.
            Err(error) => assert!(Instant::now() < deadline, "{error:#}"),
        }
    }
}

fn mean(times: &[Duration]) -> Duration {
    times.iter().sum::<Duration>() / u32::try_from(times.len().max(1)).unwrap()
}

/// A stranger's address; each is a network of its own.
const fn stranger(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, number, 2)
}

fn let_strangers_in(bed: &Bed) {
    for number in 0..STRANGERS {
        let address = stranger(number);
        bed.client
            .ip(&format!("addr add {address}/32 dev {ACCESS}"))
            .unwrap();
    }
    bed.server
        .ip(&format!(
            "route add 10.77.0.0/16 via {CLIENT_V4} dev {UPLINK} congctl cubic"
        ))
        .unwrap();
}

/// A flood under way, ended when dropped.
struct Flood {
    stop: Arc<AtomicBool>,
    /// Lies that were answered.
    told: Arc<AtomicU64>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Flood {
    fn begin(bed: &Bed) -> Self {
        let (stop, told) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&told));
        let thread = bed.client.thread("flood", move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(LocalSet::new().run_until(lie(stopped, count)));
            Ok(())
        });
        Self {
            stop,
            told,
            thread: Some(thread.unwrap()),
        }
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// Short replies to what looks like a request for a long one, and now and then the reverse.
async fn lie(stop: Arc<AtomicBool>, told: Arc<AtomicU64>) {
    let mut random = StdRng::seed_from_u64(1);
    let mut tick = time::interval(Duration::from_micros(1_000_000 / LIES_PER_S));
    tick.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    let began = Instant::now();
    // Of itself, too: a second of honest traffic can take longer than that.
    while !stop.load(Ordering::Relaxed) && began.elapsed() < FLOOD {
        tick.tick().await;
        let from = stranger(random.random_range(0..STRANGERS));
        let (request_bytes, reply_bytes) = if random.random_range(0..40) == 0 {
            (130, 300_000)
        } else {
            (720, 3_000)
        };
        let told = Arc::clone(&told);
        tokio::task::spawn_local(async move {
            let asked = ask(from, request_bytes, reply_bytes);
            // While no server listens, between two seconds of honest traffic, a lie is refused.
            if let Ok(Ok(())) = time::timeout(Duration::from_secs(3), asked).await {
                told.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
}

async fn ask(from: Ipv4Addr, request_bytes: u32, reply_bytes: u64) -> io::Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(IpAddr::V4(from), 0))?;
    let server = SocketAddr::new(SERVER_V4, Service::Media.port());
    let mut stream = socket.connect(server).await?;
    stream.set_nodelay(true)?;
    let request = Request {
        request_bytes,
        reply_bytes,
        band: None,
    };
    let mut message = vec![0; request_bytes as usize];
    message[..REQUEST_HEADER_BYTES].copy_from_slice(&request.encode());
    stream.write_all(&message).await?;
    let mut scratch = vec![0; 64 << 10];
    let mut left = reply_bytes;
    while left > 0 {
        match stream.read(&mut scratch).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => left = left.saturating_sub(count as u64),
        }
    }
    Ok(())
}

/// What each cycle told of its window, oldest first: rows held, heeded, and of newcomers among the latter.
fn windows(site: &Site<'_>) -> Vec<[u64; 3]> {
    let lines = site
        .call(&["logs", "-n", "10000", "--format", "json"])
        .expect(0)
        .stdout;
    let records = lines.lines().map(|line| {
        let record: Value = serde_json::from_str(line).unwrap();
        record
    });
    (records.filter(|record| record["message"] == "window"))
        .map(|record| record["fields"].clone())
        .map(|fields| ["held", "heeded", "of_newcomers"].map(|name| fields[name].as_u64().unwrap()))
        .collect()
}

fn decisions(site: &Site<'_>) -> Vec<Value> {
    let log = site.call(&["model", "log", "-n", "1000", "--format", "json"]);
    let log = log.expect(0).json();
    log["decisions"].as_array().unwrap().clone()
}

#[test]
fn strangers_that_lie_teach_no_more_than_their_share_and_slow_nobody_down() {
    if !privileged() {
        return;
    }
    let bed = Bed::host().unwrap();
    let_strangers_in(&bed);
    let site = Site::new(&bed.server);
    let agent = site.run(&[
        "--train-every",
        "1s",
        "--min-samples",
        "300",
        "--canary-rows",
        "300",
        "--newcomer-share",
        &SHARE.to_string(),
        // Honest clients have standing after so long; the flood never has.
        "--newcomer-for",
        &format!("{NEWCOMER_S}s"),
    ]);
    let began = Instant::now();
    let deadline = began + LIMIT;
    let mut seed = 0;
    let mut second = || {
        seed += 1;
        play(&bed, seed, deadline)
    };
    let mut before = Vec::new();
    while began.elapsed() < QUIET || site.status()["model"].is_null() {
        assert!(Instant::now() < deadline, "no model: {}", agent.log());
        before.extend(second());
    }
    let quiet = (windows(&site).len(), decisions(&site).len());

    let flood = Flood::begin(&bed);
    let flooded = Instant::now();
    let mut under = Vec::new();
    while flooded.elapsed() < FLOOD {
        under.extend(second());
    }
    let told = flood.told.load(Ordering::Relaxed);
    drop(flood);
    let seen = windows(&site).split_off(quiet.0);
    let decided = decisions(&site).split_off(quiet.1);
    let after: Vec<Duration> = (0..3).flat_map(|_| second()).collect();

    let context = format!(
        "{told} lies; windows (held, heeded, of newcomers) {seen:?}; short replies took {:?} before, {:?} under the \
         flood, {:?} after it; {decided:?}",
        mean(&before),
        mean(&under),
        mean(&after)
    );
    println!("{context}");
    assert!(told >= 200, "{context}");
    assert!(seen.len() >= 2, "{context}");
    let last = seen.last().unwrap();
    assert!(last[2] > 0, "strangers are heard: {context}");
    assert!(
        last[0] > last[1] + 50,
        "but most of what they say is not: {context}"
    );
    for [_, heeded, of_newcomers] in &seen {
        assert!(
            *of_newcomers as f64 <= SHARE * *heeded as f64 + 1.0,
            "{context}"
        );
    }
    assert!(
        decided.iter().all(|it| it["step"] != "drifted"),
        "a crowd of strangers is no change of what the others do: {context}"
    );
    // Twice the traffic is there, and a machine may be busy; a lie that was believed would make it many times as long.
    assert!(mean(&under) < mean(&before) * 4, "{context}");
    assert!(mean(&after) < mean(&before) * 4, "{context}");
    let (ended, log) = agent.end(Signal::SIGTERM);
    assert!(ended.success(), "{ended}\n{log}");
    site.down().expect(0);
    site.assert_no_trace();
}
