//! The delay of a band is what its packets wait.

use std::{
    net::UdpSocket,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use bed::{
    netns::{Bed, CLIENT_V4, UPLINK},
    wait,
};

use super::{AGENT_PORT, await_endpoint, get};
use crate::support::{agent::Site, privileged};

const LIMIT: Duration = Duration::from_secs(90);
const RATE_BYTES_PER_S: f64 = 2_500_000.0;

/// The value of a sample.
fn value(text: &str, name: &str, band: u8) -> Option<f64> {
    let start = format!("{name}{{interface=\"{UPLINK}\",band=\"{band}\"}} ");
    let line = text.lines().find_map(|line| line.strip_prefix(&start))?;
    line.parse().ok()
}

#[test]
fn a_queue_that_stands_is_measured_as_long_as_it_is() {
    if !privileged() {
        return;
    }
    let bed = Bed::host().unwrap();
    let site = Site::new(&bed.server);
    let endpoint = format!("127.0.0.1:{AGENT_PORT}");
    let agent = site.start(&[
        "run",
        UPLINK,
        "--rate",
        "20mbit",
        "--leaf",
        "pfifo",
        "--metrics",
        &endpoint,
    ]);
    await_endpoint(&agent);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // A blocking socket keeps as much in the queue as its buffer holds, and no more.
        let flood = scope.spawn(|| {
            bed.server.enter(|| {
                let socket = UdpSocket::bind(("0.0.0.0", 0))?;
                socket.connect((CLIENT_V4, 4000))?;
                while !stop.load(Ordering::Relaxed) {
                    // Nobody listens, and says so.
                    drop(socket.send(&[0; 1200]));
                }
                Ok(())
            })
        });
        let mut queues = Vec::new();
        let measured = wait::until("delays of a band with a queue", LIMIT, || {
            let text = get(&bed.server, AGENT_PORT, "/metrics")?;
            let backlog = |band| value(&text, "treeline_band_backlog_bytes", band).unwrap_or(0.0);
            let fullest = (0..8)
                .max_by(|a, b| backlog(*a).total_cmp(&backlog(*b)))
                .unwrap_or(0);
            queues.push(backlog(fullest));
            let name = "treeline_band_delay_seconds";
            let count = value(&text, &format!("{name}_count"), fullest).unwrap_or(0.0);
            let sum = value(&text, &format!("{name}_sum"), fullest).unwrap_or(0.0);
            Ok((count >= 5.0).then_some(sum / count))
        });
        stop.store(true, Ordering::Relaxed);
        flood.join().unwrap().unwrap();
        let measured =
            measured.unwrap_or_else(|error| panic!("{error}: {queues:?}\n{}", agent.log()));
        let queue = queues.iter().sum::<f64>() / queues.len() as f64;
        let expected = queue / RATE_BYTES_PER_S;
        eprintln!("measured {measured:.4} s, {queue:.0} bytes are {expected:.4} s");
        assert!(
            measured > expected / 2.0 && measured < expected * 2.0,
            "{measured} s, and {queue} bytes at this rate are {expected} s"
        );
    });
}
