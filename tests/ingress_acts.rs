//! What the ingress program does on request: police, steer, hand the band on.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

use aya::programs::TcAttachType;
use bed::{
    netns::{Bed, CLIENT_V4, SERVER_V4, UPLINK},
    wait,
};
use scheduler_common::ingress::interface_flags;
use tun_tap::Mode;

use crate::support::{
    agent::Site,
    guests::Guests,
    privileged,
    tunnel::{DEVICE, Tunnel},
};

const LIMIT: Duration = Duration::from_secs(60);

/// Sends so many bytes from the bed's client to its server over one connection.
fn upload(bed: &Bed, bytes: usize) {
    let listener = bed
        .server
        .enter(|| Ok(TcpListener::bind((SERVER_V4, 0))?))
        .unwrap();
    let address = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || {
        let (mut peer, _from) = listener.accept().unwrap();
        let mut all = Vec::new();
        peer.read_to_end(&mut all).unwrap();
        all.len()
    });
    let mut client = bed
        .client
        .enter(|| Ok(TcpStream::connect(address)?))
        .unwrap();
    client.write_all(&vec![5; bytes]).unwrap();
    drop(client);
    assert_eq!(server.join().unwrap(), bytes);
}

/// A socket of the bed's client.
fn bed_socket(bed: &Bed, port: u16) -> UdpSocket {
    bed.client
        .enter(|| Ok(UdpSocket::bind((CLIENT_V4, port))?))
        .unwrap()
}

/// Index of the uplink in its namespace.
fn uplink(bed: &Bed) -> u32 {
    bed.server
        .enter(|| Ok(nix::net::if_::if_nametoindex(UPLINK)?))
        .unwrap()
}

#[test]
fn a_band_beyond_its_rate_is_dropped_and_no_other_packet() {
    /// Ethernet, IPv4 and UDP headers around the payload.
    const HEADERS: u64 = 14 + 20 + 8;
    const PAYLOAD: usize = 1000;
    const RATE_BPS: u64 = 8_000_000;
    const BURST_BYTES: u64 = 50_000;
    if !privileged() {
        return;
    }
    let bed = Bed::host().unwrap();
    let site = Site::new(&bed.server);
    site.up(&["--police", "0=8mbit:50000"]).expect(0);

    let receiver = bed
        .server
        .enter(|| Ok(UdpSocket::bind((SERVER_V4, 0))?))
        .unwrap();
    receiver.set_nonblocking(true).unwrap();
    let address = receiver.local_addr().unwrap();
    let (started, mut sent, mut received) = (Instant::now(), 0_u64, 0_u64);
    let mut buffer = [0; 2 * PAYLOAD];
    let mut take = |received: &mut u64| {
        while receiver.recv(&mut buffer).is_ok() {
            *received += 1;
        }
    };
    // Flows of four packets, so all of them are in the top band; a port that came again would age.
    for (number, port) in (10_000..20_000_u16).enumerate() {
        let sender = bed_socket(&bed, port);
        for _ in 0..4 {
            sent += u64::from(sender.send_to(&[9; PAYLOAD], address).is_ok());
        }
        let due = started + Duration::from_micros(100) * number as u32;
        take(&mut received);
        while Instant::now() < due {
            take(&mut received);
        }
    }
    let elapsed = started.elapsed().as_secs_f64();
    let policed = || site.counter("policed_band_0");
    wait::until("the last packet", LIMIT, || {
        take(&mut received);
        // The pair's ring may have lost some before the program saw them.
        Ok((received + policed() > sent / 10 * 9).then_some(()))
    })
    .unwrap_or_else(|error| panic!("{error}: {received} came, {sent} left, {}", policed()));

    let passed_bytes = received * (PAYLOAD as u64 + HEADERS);
    let allowed = RATE_BPS as f64 / 8.0 * elapsed + BURST_BYTES as f64;
    let share = passed_bytes as f64 / allowed;
    assert!(
        (0.7..=1.05).contains(&share),
        "{share}: {received} of {sent}"
    );
    assert!(policed() > 100, "{}", policed());

    // The bucket is empty, and a handshake passes all the same.
    let listener = bed
        .server
        .enter(|| Ok(TcpListener::bind((SERVER_V4, 0))?))
        .unwrap();
    let address = listener.local_addr().unwrap();
    bed.client
        .enter(|| Ok(TcpStream::connect_timeout(&address, LIMIT)?))
        .unwrap();

    // Without the option nothing is dropped.
    let before = policed();
    site.up(&[]).expect(0);
    assert_eq!(site.datapath().interface(uplink(&bed)).unwrap(), None);
    upload(&bed, 2_000_000);
    assert_eq!(policed(), before);
}

#[test]
fn steering_is_refused_where_it_would_lose_packets() {
    if !privileged() {
        return;
    }
    let bed = Bed::host().unwrap();
    let site = Site::new(&bed.server);
    site.up(&["--steer", "urgent=0,bulk=0"])
        .expect(1)
        .says("checksum");
    site.assert_no_trace();
}

#[test]
fn steering_is_refused_where_xdp_is_not_the_drivers() {
    if !privileged() {
        return;
    }
    let tunnel = Tunnel::new([10, 79, 0], Mode::Tun);
    let site = Site::new(&tunnel.near);
    let up = [
        "up",
        DEVICE,
        "--rate",
        "1gbit",
        "--steer",
        "urgent=0,bulk=0",
    ];
    site.call(&up).expect(1).says("driver has no XDP");
    site.assert_no_trace();
}

#[test]
fn the_band_is_handed_on_to_tc() {
    if !privileged() {
        return;
    }
    let bed = Bed::host().unwrap();
    let mut guests = Guests::load();
    guests.at_tc((&bed.server, UPLINK), TcAttachType::Ingress, Some(10));
    let site = Site::new(&bed.server);
    upload(&bed, 100_000);
    assert_eq!(guests.bands(), [0; 8]);
    site.up(&["--metadata"]).expect(0);
    let facts = site.datapath().interface(uplink(&bed)).unwrap().unwrap();
    assert_eq!(facts.flags, interface_flags::METADATA);
    upload(&bed, 10_000_000);
    let bands = guests.bands();
    assert!(bands.iter().all(|packets| *packets > 0), "{bands:?}");
    assert_eq!(site.counter("metadata_failed"), 0);
    // The kernel may have merged packets of one band before they reach TC.
    assert!(site.counter("metadata_set") >= bands.iter().sum());
}
