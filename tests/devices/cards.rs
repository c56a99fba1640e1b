//! The driver's XDP and several queues, on network cards instead of veth.

use std::{
    net::UdpSocket,
    time::{Duration, Instant},
};

use aya::{programs::TcAttachType, util::KernelVersion};
use bed::wait;

use crate::support::{
    agent::Site,
    cards::{CARD, Cable},
    guests::{AT_TC, Guests},
    privileged,
};

const LIMIT: Duration = Duration::from_secs(60);
const PORT: u16 = 4321;

/// The instance on the near end, and the driver's own XDP in it.
#[track_caller]
fn up(site: &Site<'_>, options: &[&str]) {
    site.call(&[&["up", CARD, "--rate", "1gbit"], options].concat())
        .expect(0);
    let status = site.status();
    assert_eq!(status["interfaces"][0]["ingress_hook"], "xdp", "{status}");
}

/// Datagrams from far to near, each asked for: a lost one is missed. So many flows of `each`.
fn datagrams(cable: &Cable, flows: usize, each: usize) {
    let taken = cable
        .near
        .enter(|| Ok(UdpSocket::bind((Cable::NEAR, PORT))?))
        .unwrap();
    taken.set_read_timeout(Some(LIMIT)).unwrap();
    for _ in 0..flows {
        let sender = cable
            .far
            .enter(|| Ok(UdpSocket::bind((Cable::FAR, 0))?))
            .unwrap();
        for number in 0..each {
            let mut sent = [3; 1200];
            sent[..8].copy_from_slice(&number.to_ne_bytes());
            sender.send_to(&sent, (Cable::NEAR, PORT)).unwrap();
            let mut got = [0; 1300];
            let bytes = taken.recv(&mut got).expect("no datagram is lost");
            assert_eq!(got[..bytes], sent, "datagrams keep their order");
        }
    }
}

/// Whether this kernel may steer at this end of the cable; where it may not, `up` refuses.
fn may_steer(end: usize, site: &Site<'_>) -> bool {
    let merges_buffers = end == 0;
    if merges_buffers || KernelVersion::current().unwrap() < KernelVersion::new(7, 0, 0) {
        return true;
    }
    let up = ["up", CARD, "--rate", "1gbit", "--steer", "urgent=0,bulk=1"];
    site.call(&up).expect(1).says("mrg_rxbuf");
    false
}

/// Steers, and holds every frame that was sent to have been processed on the CPU of its group.
fn steered(end: usize, [urgent_cpu, bulk_cpu]: [usize; 2]) -> bool {
    let Some(cable) = Cable::plug(end) else {
        return false;
    };
    let site = Site::new(&cable.near);
    if !may_steer(end, &site) {
        site.assert_no_trace();
        return true;
    }
    let nowhere = [
        "up",
        CARD,
        "--rate",
        "1gbit",
        "--steer",
        "urgent=0,bulk=4095",
    ];
    site.call(&nowhere).expect(1).says("no CPU 4095");
    site.assert_no_trace();
    let mut guests = Guests::load();
    guests.at_tc((&cable.near, CARD), TcAttachType::Ingress, Some(10));
    up(
        &site,
        &["--steer", &format!("urgent={urgent_cpu},bulk={bulk_cpu}")],
    );
    let names = [
        "steered_urgent",
        "steered_bulk",
        "ingress_packets",
        "steer_failed",
        "skip_not_ip",
        "skip_malformed",
    ];
    // The program is asked once for all: under emulation its start is slow.
    let counters = || {
        let status = site.status();
        names.map(|name| status["counters"][name].as_u64().expect("it is counted"))
    };
    let started = Instant::now();
    let (frames, at_tc) = (cable.sent_frames(), guests.by_cpu(AT_TC));
    let before = counters();
    cable.download(4_000_000);
    for _ in 0..5 {
        cable.download(10_000);
    }
    datagrams(&cable, 50, 4);
    datagrams(&cable, 1, 800);
    let mut seen = Vec::new();
    let mut now = counters();
    let arrived = wait::until("every frame on its CPU", LIMIT, || {
        now = counters();
        let (urgent, bulk) = (now[0] - before[0], now[1] - before[1]);
        seen = guests
            .by_cpu(AT_TC)
            .iter()
            .zip(&at_tc)
            .map(|(now, before)| now - before)
            .collect();
        Ok((seen[urgent_cpu] == urgent && seen[bulk_cpu] == bulk).then_some(()))
    });
    let [urgent, bulk, all, failed, strange, damaged] =
        std::array::from_fn(|at| now[at] - before[at]);
    let sent = cable.sent_frames() - frames;
    let said = format!(
        "card {end}: {sent} frames sent, {all} seen by the driver's XDP, {urgent} steered to CPU {urgent_cpu} and \
         {bulk} to CPU {bulk_cpu}, {seen:?} processed there; sent again {}; {:?}",
        cable.far.retransmitted_segments().unwrap(),
        started.elapsed()
    );
    eprintln!("{said}");
    assert!(arrived.is_ok(), "{said}");
    assert_eq!([failed, strange, damaged], [0; 3], "{said}");
    assert_eq!([all, urgent + bulk], [sent; 2], "{said}");
    assert!(urgent > 1000 && bulk > 2000, "{said}");
    site.call(&["down", CARD]).expect(0);
    site.assert_no_trace();
    true
}

#[test]
fn every_frame_of_a_card_goes_to_the_cpu_of_its_band() {
    if privileged() {
        // Whichever CPU the card interrupts, one of the two arrangements moves each group.
        let _ran = Cable::ENDS
            .iter()
            .all(|end| steered(*end, [0, 1]) && steered(*end, [1, 0]));
    }
}

#[test]
fn a_card_hands_the_band_to_tc() {
    if !privileged() {
        return;
    }
    for end in Cable::ENDS {
        let Some(cable) = Cable::plug(end) else {
            return;
        };
        let mut guests = Guests::load();
        guests.at_tc((&cable.near, CARD), TcAttachType::Ingress, Some(10));
        let site = Site::new(&cable.near);
        let set = || site.counter("metadata_set");
        up(&site, &["--metadata"]);
        let before = (set(), guests.bands());
        cable.download(8_000_000);
        let (set_alone, bands) = (set() - before.0, guests.bands());
        let alone: [u64; 8] = std::array::from_fn(|band| bands[band] - before.1[band]);
        assert!(alone.iter().all(|packets| *packets > 0), "{alone:?}");
        assert_eq!(site.counter("metadata_failed"), 0);
        assert_eq!(alone.iter().sum::<u64>(), set_alone, "{alone:?}");

        if !may_steer(end, &site) {
            continue;
        }
        // Across CPUs it is for the kernel to keep.
        up(&site, &["--metadata", "--steer", "urgent=0,bulk=1"]);
        let before = (set(), guests.count(AT_TC), guests.bands());
        cable.download(1_000_000);
        let steered = set() - before.0;
        wait::until("the packets on their CPUs", LIMIT, || {
            Ok((guests.count(AT_TC) - before.1 >= steered).then_some(()))
        })
        .unwrap();
        assert!(site.counter("steered_urgent") > 0 && site.counter("steered_bulk") > 0);
        let kept = guests.bands().iter().sum::<u64>() - before.2.iter().sum::<u64>();
        let kernel = KernelVersion::current().unwrap();
        eprintln!("card {end}, {kernel:?}: {kept} of {steered} kept the band across CPUs");
        assert!(kept == 0 || kept == steered, "{kept} of {steered}");
    }
}
