//! Packets: limited to the rate, counted by band, served by priority.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use nix::sys::socket::{setsockopt, sockopt};

use super::{
    super::*,
    support::{Link, RECEIVER, within},
};

const DEADLINE: Duration = Duration::from_secs(10);
const PAYLOAD_BYTES: usize = 1000;

fn receiver(link: &Link) -> UdpSocket {
    let socket = within(&link.far, || UdpSocket::bind((RECEIVER, 0)).unwrap());
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    // Every packet is to be counted, also those that arrive before the first is read.
    setsockopt(&socket, sockopt::RcvBufForce, &(1 << 22)).unwrap();
    socket
}

/// Sends packets whose first byte names the band, with the band's class as priority.
fn send(link: &Link, to: &UdpSocket, band: u8, count: usize) {
    let socket = within(&link.near, || UdpSocket::bind("0.0.0.0:0").unwrap());
    let priority = i32::try_from(class_handle(band)).unwrap();
    setsockopt(&socket, sockopt::Priority, &priority).unwrap();
    // Else the socket would wait for its packets to leave the queue.
    setsockopt(&socket, sockopt::SndBufForce, &(1 << 22)).unwrap();
    for _ in 0..count {
        socket
            .send_to(&[band; PAYLOAD_BYTES], to.local_addr().unwrap())
            .unwrap();
    }
}

/// The bands of the next packets.
fn received(from: &UdpSocket, count: usize) -> Vec<u8> {
    let mut packet = [0; PAYLOAD_BYTES];
    let mut bands = Vec::new();
    for _ in 0..count {
        from.recv(&mut packet).unwrap();
        bands.push(packet[0]);
    }
    bands
}

/// How long a TCP transfer of so many bytes takes at the receiver.
fn transfer(link: &Link, bytes: usize) -> Duration {
    let listener = within(&link.far, || TcpListener::bind((RECEIVER, 0)).unwrap());
    let address = listener.local_addr().unwrap();
    let reading = thread::spawn(move || {
        let (mut stream, _from) = listener.accept().unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let start = Instant::now();
        let mut sink = Vec::new();
        stream.read_to_end(&mut sink).unwrap();
        (sink.len(), start.elapsed())
    });
    let mut stream = within(&link.near, || TcpStream::connect(address).unwrap());
    stream.write_all(&vec![0; bytes]).unwrap();
    drop(stream);
    let (read, elapsed) = reading.join().unwrap();
    assert_eq!(read, bytes);
    elapsed
}

#[test]
fn tcp_is_held_to_the_rate_and_to_the_changed_rate() {
    let Some(link) = Link::new() else { return };
    link.install(&Plan::new(8_000_000)).unwrap();
    let slow = transfer(&link, 1_000_000);
    // One second at 8 Mbit/s, less the burst; the upper bound only has to catch a stall.
    assert!(slow > Duration::from_millis(950), "{slow:?}");
    assert!(slow < Duration::from_secs(4), "{slow:?}");
    link.install(&Plan::new(80_000_000)).unwrap();
    let fast = transfer(&link, 1_000_000);
    assert!(
        fast > Duration::from_millis(90) && fast < slow / 2,
        "{fast:?} {slow:?}"
    );
}

#[test]
fn a_priority_reaches_its_band_and_no_other() {
    let Some(link) = Link::new() else { return };
    link.install(&Plan::new(100_000_000)).unwrap();
    let to = receiver(&link);
    for band in 1..8 {
        send(&link, &to, band, usize::from(band) * 3);
    }
    // An unknown class of ours is unclassified and so belongs to band 0.
    send(&link, &to, 100, 5);
    received(&to, (1..8).sum::<usize>() * 3 + 5);
    let stats = link.near(stats(link.ifindex)).unwrap();
    assert_eq!(stats.len(), 8);
    for (band, stats) in (0..8).zip(&stats) {
        assert_eq!(
            (stats.band, stats.drops, stats.backlog_packets),
            (band, 0, 0)
        );
        let sent = u64::from(band) * 3;
        if band > 0 {
            assert_eq!(stats.packets, sent, "{stats:?}");
            assert_eq!(stats.bytes, sent * (PAYLOAD_BYTES as u64 + 42), "{stats:?}");
        } else {
            // Address resolution adds to it.
            assert!((5..20).contains(&stats.packets), "{stats:?}");
        }
    }
}

#[test]
fn waiting_packets_survive_a_change_of_rate() {
    let Some(link) = Link::new() else { return };
    let to = receiver(&link);
    link.install(&Plan {
        leaf: LeafChoice::Pfifo,
        ..Plan::new(100_000)
    })
    .unwrap();
    send(&link, &to, 3, 100);
    let waiting = link.near(stats(link.ifindex)).unwrap()[3];
    assert!(waiting.backlog_packets > 50, "{waiting:?}");
    assert_eq!(
        waiting.backlog_bytes,
        waiting.backlog_packets * (PAYLOAD_BYTES as u64 + 42)
    );
    link.install(&Plan::new(1_000_000_000)).unwrap();
    assert_eq!(received(&to, 100), [3; 100]);
    let after = link.near(stats(link.ifindex)).unwrap()[3];
    assert_eq!(
        (after.packets, after.drops, after.backlog_packets),
        (100, 0, 0)
    );
}

#[test]
fn a_higher_band_overtakes_and_a_full_one_counts_its_drops() {
    let Some(link) = Link::new() else { return };
    let to = receiver(&link);
    let plan = Plan {
        leaf: LeafChoice::Pfifo,
        ..Plan::new(2_000_000)
    };
    link.install(&plan).unwrap();
    send(&link, &to, 7, 200);
    send(&link, &to, 1, 10);
    let before = link.near(stats(link.ifindex)).unwrap()[7];
    assert!(before.drops > 0, "{before:?}");
    let passed = 200 - usize::try_from(before.drops).unwrap();
    let order = received(&to, passed + 10);
    let last_high = order.iter().rposition(|band| *band == 1).unwrap();
    let low_before = order[..last_high].iter().filter(|band| **band == 7).count();
    // Those already on the way and the guaranteed share, not the queue of 125.
    assert!(
        low_before < 60,
        "{low_before} of band 7 came before the last of band 1"
    );
    assert_eq!(order.iter().filter(|band| **band == 1).count(), 10);
}

#[test]
fn a_busy_higher_band_does_not_starve_the_lowest() {
    let Some(link) = Link::new() else { return };
    let to = receiver(&link);
    let plan = Plan {
        leaf: LeafChoice::Pfifo,
        limit_packets: 500,
        guaranteed_bps: Some(800_000),
        ..Plan::new(8_000_000)
    };
    link.install(&plan).unwrap();
    send(&link, &to, 1, 400);
    send(&link, &to, 7, 20);
    let order = received(&to, 420);
    // In strict priority alone band 7 would wait for all of band 1.
    let last = |of: u8| order.iter().rposition(|band| *band == of).unwrap();
    assert!(
        last(7) < last(1),
        "band 7 ends at {} and band 1 at {}",
        last(7),
        last(1)
    );
}
