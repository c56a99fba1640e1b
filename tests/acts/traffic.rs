//! Marks, paces and queues on packets that cross a real link.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, TcpListener, TcpStream},
    time::{Duration, Instant},
};

use bed::netns::{ACCESS, Bed, CLIENT_V4, CLIENT_V6, Namespace, SERVER_V4, SERVER_V6, UPLINK};
use etherparse::{NetHeaders, PacketHeaders, TransportHeader};
use scheduler_common::{act::KEEP_DSCP, class::BANDS, settings::settings_flags};
use socket2::SockRef;

use super::wire::{FULL_BYTES, PORT, Tap, Wire, never_idle, receiver, send_message, sender};
use crate::support::{agent::Site, missing, privileged};

const AF21: u8 = 18;

/// DSCP and ECN of a frame, its checksum held to be right.
fn marks(frame: &[u8]) -> (u8, u8) {
    match PacketHeaders::from_ethernet_slice(frame)
        .unwrap()
        .net
        .unwrap()
    {
        NetHeaders::Ipv4(ip, _) => {
            assert_eq!(ip.calc_header_checksum(), ip.header_checksum);
            (ip.dscp.value(), ip.ecn.value())
        }
        NetHeaders::Ipv6(ip, _) => (ip.traffic_class >> 2, ip.traffic_class & 3),
        other => panic!("{other:?} is no IP"),
    }
}

fn is_udp_to_port(frame: &[u8]) -> bool {
    PacketHeaders::from_ethernet_slice(frame).is_ok_and(|headers| {
        matches!(headers.transport, Some(TransportHeader::Udp(udp)) if udp.destination_port == PORT)
    })
}

/// Sends a datagram with these ECN bits; the answer is how the frame came and that the receiver took it.
fn datagram(
    (near, from): (&Namespace, IpAddr),
    (far, to): (&Namespace, IpAddr),
    ecn: u8,
) -> Vec<u8> {
    let mut tap = Tap::on(far);
    let taken = receiver(far, to);
    let socket = sender(near, from);
    let options = SockRef::from(&socket);
    if from.is_ipv4() {
        options.set_tos_v4(ecn.into()).unwrap();
    } else {
        options.set_tclass_v6(ecn.into()).unwrap();
    }
    socket.send_to(b"a datagram", (to, PORT)).unwrap();
    let mut buffer = [0; 32];
    let (bytes, _) = taken.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..bytes], b"a datagram");
    tap.next(is_udp_to_port)
}

/// Addresses on a VLAN over the bed's link, where the kernel has VLANs.
fn tagged_pair(bed: &Bed) -> Option<(IpAddr, IpAddr)> {
    let ends = [
        (&bed.server, UPLINK, Ipv4Addr::new(10, 98, 0, 1)),
        (&bed.client, ACCESS, Ipv4Addr::new(10, 98, 0, 2)),
    ];
    for (namespace, device, address) in ends {
        if let Err(error) = namespace.ip(&format!(
            "link add link {device} name tagged type vlan id 5"
        )) {
            missing(
                "8021q",
                format!("with tags: this kernel has no VLANs: {error}"),
            );
            return None;
        }
        for command in [
            format!("addr add dev tagged {address}/24"),
            "link set tagged up".to_owned(),
        ] {
            namespace.ip(&command).unwrap();
        }
    }
    Some((ends[0].2.into(), ends[1].2.into()))
}

#[test]
fn marks_arrive_with_ecn_and_a_right_checksum() {
    if !privileged() {
        return;
    }
    let bed = Bed::host().unwrap();
    let mut pairs = vec![(SERVER_V4, CLIENT_V4), (SERVER_V6, CLIENT_V6)];
    pairs.extend(tagged_pair(&bed));
    let site = Site::new(&bed.server);
    let arrived = || -> Vec<[(u8, u8); 3]> {
        let to_pair = |(from, to): &(IpAddr, IpAddr)| {
            [0, 1, 2].map(|ecn| marks(&datagram((&bed.server, *from), (&bed.client, *to), ecn)))
        };
        pairs.iter().map(to_pair).collect()
    };
    site.up(&[]).expect(0);
    assert_eq!(
        arrived(),
        vec![[(0, 0), (0, 1), (0, 2)]; pairs.len()],
        "marks are off by default"
    );
    site.up(&["--dscp=0-7=af21"]).expect(0).says("is now");
    let marked = [(AF21, 0), (AF21, 1), (AF21, 2)];
    assert_eq!(arrived(), vec![marked; pairs.len()]);
    assert!(site.counter("dscp_rewritten") >= 3 * pairs.len() as u64);
    site.up(&[]).expect(0).says("is now");
    assert_eq!(
        arrived(),
        vec![[(0, 0), (0, 1), (0, 2)]; pairs.len()],
        "marks are off again"
    );
}

#[test]
fn a_marked_tcp_transfer_arrives_whole() {
    const BYTES: usize = 2_000_000;
    if !privileged() {
        return;
    }
    let bed = Bed::host().unwrap();
    let site = Site::new(&bed.server);
    site.up(&["--dscp=0=ef,1-7=le"]).expect(0);
    let listener = bed
        .server
        .enter(|| Ok(TcpListener::bind((SERVER_V4, PORT))?))
        .unwrap();
    let mut tap = Tap::on(&bed.client);
    let mut client = bed
        .client
        .enter(|| Ok(TcpStream::connect((SERVER_V4, PORT))?))
        .unwrap();
    client.set_read_timeout(Some(super::wire::LIMIT)).unwrap();
    let sent: Vec<u8> = (0..BYTES).map(|at| (at % 251) as u8).collect();
    let sending = std::thread::spawn({
        let sent = sent.clone();
        move || listener.accept().unwrap().0.write_all(&sent).unwrap()
    });
    let mut received = Vec::new();
    client.read_to_end(&mut received).unwrap();
    sending.join().unwrap();
    assert!(received == sent, "{} bytes arrived", received.len());
    let from_server = |frame: &[u8]| {
        PacketHeaders::from_ethernet_slice(frame).is_ok_and(
            |headers| matches!(headers.transport, Some(TransportHeader::Tcp(tcp)) if tcp.source_port == PORT),
        )
    };
    assert_eq!(
        marks(&tap.next(from_server)).0,
        46,
        "the handshake is in band 0"
    );
    let long = |frame: &[u8]| from_server(frame) && marks(frame).0 == 1;
    tap.next(long);
}

#[test]
fn a_short_message_overtakes_in_a_pfifo_fast_that_stood_there() {
    const BULK: usize = 150;
    if !privileged() {
        return;
    }
    let wire = Wire::with_queues(1);
    // The limiter makes a queue, pfifo_fast below it sorts: an administrator's tree.
    for tree in [
        "root handle 10: tbf rate 4mbit burst 3000 limit 400000",
        "parent 10:1 handle 20: pfifo_fast",
    ] {
        wire.near
            .tc(&format!("qdisc add dev {UPLINK} {tree}"))
            .unwrap();
    }
    let before = wire.near.tc(&format!("qdisc show dev {UPLINK}")).unwrap();
    let place_of_short = || {
        let taken = receiver(&wire.far, CLIENT_V4);
        // At once, so that no datagram overruns the receiver.
        let reading = std::thread::spawn(move || {
            let mut buffer = [0; FULL_BYTES];
            let sizes: Vec<usize> = (0..=BULK)
                .map(|_| taken.recv(&mut buffer).unwrap())
                .collect();
            sizes.iter().position(|bytes| *bytes == 5)
        });
        let [bulk, short] = [(); 2].map(|()| sender(&wire.near, SERVER_V4));
        send_message(&bulk, CLIENT_V4, BULK);
        short.send_to(b"short", (CLIENT_V4, PORT)).unwrap();
        reading.join().unwrap().expect("the short one arrives")
    };
    let site = Site::new(&wire.near);
    assert!(
        place_of_short() > BULK - 5,
        "without treeline it waits its turn"
    );
    let up = site.call(&["up", UPLINK, "--model", "none"]).expect(0);
    up.says("8 bands on 3");
    assert_eq!(
        site.datapath().settings().unwrap().priorities,
        [6, 6, 6, 0, 0, 0, 1, 1]
    );
    // 150 datagrams: the first 120 000 bytes are in bands that share a queue with the short message.
    let place = place_of_short();
    assert!(place < BULK - 30, "it came as number {place}");
    site.down().expect(0);
    let after = wire.near.tc(&format!("qdisc show dev {UPLINK}")).unwrap();
    assert_eq!(after, before);
}

#[test]
fn a_band_gets_the_queue_that_was_asked_for() {
    const DATAGRAMS: usize = 200;
    if !privileged() {
        return;
    }
    let wire = Wire::with_queues(4);
    if !wire.has_root("mq") {
        return;
    }
    for queue in 1..=4 {
        wire.near
            .tc(&format!(
                "qdisc replace dev {UPLINK} parent 10:{queue} pfifo_fast"
            ))
            .unwrap();
    }
    let site = Site::new(&wire.near);
    let taken = receiver(&wire.far, CLIENT_V4);
    site.call(&["up", UPLINK, "--queues", "0-2=1,3-7=3"])
        .expect(0)
        .says("pfifo_fast below mq");
    let settings = site.datapath().settings().unwrap();
    assert_eq!(settings.queues, [2, 2, 2, 4, 4, 4, 4, 4]);
    assert_eq!(
        settings.flags & settings_flags::RARE_ACTS,
        settings_flags::QUEUES
    );
    never_idle(&site);
    let before = wire.classes(4);
    send_message(&sender(&wire.near, SERVER_V4), CLIENT_V4, DATAGRAMS);
    let after = wire.classes(4);
    let sent: Vec<u64> = after.iter().zip(&before).map(|(b, a)| b.0 - a.0).collect();
    drop(taken);
    // Bands 0 to 2 end at 120 000 bytes, which are 85 datagrams and their headers.
    assert!((75..=90).contains(&sent[1]), "{sent:?}");
    assert!((110..=125).contains(&sent[3]), "{sent:?}");
    assert!(sent[0] + sent[2] < 5, "{sent:?}");
    site.call(&["up", UPLINK])
        .expect(0)
        .says("was up and is now");
    let settings = site.datapath().settings().unwrap();
    assert_eq!((settings.flags, settings.queues), (0, [0; BANDS]));
    assert_eq!(settings.dscp, [KEEP_DSCP; BANDS]);
}

#[test]
fn fq_keeps_the_pace_of_a_band() {
    const DATAGRAMS: usize = 80;
    if !privileged() {
        return;
    }
    let wire = Wire::with_queues(1);
    let site = Site::new(&wire.near);
    let paced = ["up", UPLINK, "--qdisc", "fq", "--pace", "2=2mbit"];
    if !wire.has_root("fq") {
        site.call(&paced).expect(1).says("sch_fq");
        site.assert_no_trace();
        return;
    }
    wire.near
        .tc(&format!("qdisc del dev {UPLINK} root"))
        .unwrap();
    let took = || {
        let taken = receiver(&wire.far, CLIENT_V4);
        let started = Instant::now();
        send_message(&sender(&wire.near, SERVER_V4), CLIENT_V4, DATAGRAMS);
        let mut buffer = [0; FULL_BYTES];
        for _ in 0..DATAGRAMS {
            taken.recv(&mut buffer).unwrap();
        }
        started.elapsed()
    };
    site.call(&["up", UPLINK, "--qdisc", "fq"]).expect(0);
    let free = took();
    site.call(&paced).expect(0);
    never_idle(&site);
    let held = took();
    // Band 2 begins at 40 000 bytes; 52 packets of 1442 bytes at 2 Mbit/s are 300 ms.
    assert!(
        held > Duration::from_millis(280),
        "{held:?}, {free:?} without a pace"
    );
    let paced = site.counter("paced_packets");
    assert!((20..=52).contains(&paced), "{paced}");
    assert_eq!(site.counter("paced_at_horizon"), 0);
    site.down().expect(0);
}
