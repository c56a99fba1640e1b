//! Programs of others on the interface: they are kept, and run.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
};

use aya::{
    programs::{SchedClassifier, TcAttachType},
    util::KernelVersion,
};
use bed::netns::{Bed, SERVER_V4, UPLINK};

use crate::support::{
    agent::Site,
    guests::{AT_TC, AT_XDP, Guests, WITH_CLASS},
    left_out, privileged,
};

/// A request of 200 bytes and an answer of so many, from the bed's client to its server.
fn exchange(bed: &Bed, bytes: usize) {
    let listener = bed
        .server
        .enter(|| Ok(TcpListener::bind((SERVER_V4, 0))?))
        .unwrap();
    let address = listener.local_addr().unwrap();
    let server = std::thread::spawn(move || {
        let (mut peer, _from) = listener.accept().unwrap();
        peer.read_exact(&mut [0; 200]).unwrap();
        peer.write_all(&vec![7; bytes]).unwrap();
    });
    let mut client = bed
        .client
        .enter(|| Ok(TcpStream::connect(address)?))
        .unwrap();
    client.write_all(&[1; 200]).unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).unwrap();
    assert_eq!(answer.len(), bytes);
    server.join().unwrap();
}

fn has_tcx() -> bool {
    KernelVersion::current().unwrap() >= KernelVersion::new(6, 6, 0)
}

/// Egress programs of the uplink, in the order in which they run.
fn programs(bed: &Bed) -> Vec<String> {
    bed.server
        .enter(|| {
            let (_revision, programs) = SchedClassifier::query_tcx(UPLINK, TcAttachType::Egress)?;
            Ok(programs
                .iter()
                .map(|program| program.name_as_str().unwrap_or_default().to_owned())
                .collect())
        })
        .unwrap()
}

/// A guest on egress sees all packets, with treeline's class if treeline is first; it stays when treeline goes.
fn a_guest_on_egress(priority: Option<u16>, hook: &str) {
    let bed = Bed::host().unwrap();
    let mut guests = Guests::load();
    guests.at_tc((&bed.server, UPLINK), TcAttachType::Egress, priority);
    let site = Site::new(&bed.server);
    for (order, with_class) in [("first", true), ("last", false), ("first", true)] {
        site.up(&["--order", order, "--egress-hook", hook])
            .expect(0);
        if priority.is_none() {
            let expected = if with_class {
                ["treeline_egress", "guest_tc"]
            } else {
                ["guest_tc", "treeline_egress"]
            };
            assert_eq!(programs(&bed), expected);
        }
        let (seen, classed, ours) = (
            guests.count(AT_TC),
            guests.count(WITH_CLASS),
            site.counter("egress_packets"),
        );
        exchange(&bed, 300_000);
        let seen = guests.count(AT_TC) - seen;
        let classed = guests.count(WITH_CLASS) - classed;
        assert!(seen >= 5, "{order}: {seen}");
        assert!(site.counter("egress_packets") - ours >= 5);
        assert_eq!(classed > 0, with_class, "{order}: {classed} of {seen}");
    }
    site.down().expect(0);
    let seen = guests.count(AT_TC);
    exchange(&bed, 1_000);
    assert!(guests.count(AT_TC) > seen, "the guest was detached");
}

#[test]
fn a_tcx_program_of_others_runs_before_or_behind_ours() {
    if !privileged() {
        return;
    }
    if !has_tcx() {
        left_out(format_args!("this kernel has no TCX"));
        return;
    }
    a_guest_on_egress(None, "tcx");
}

#[test]
fn a_filter_of_others_runs_before_or_behind_ours() {
    if !privileged() {
        return;
    }
    a_guest_on_egress(Some(10), "clsact");
}

#[test]
fn an_xdp_program_of_others_goes_on_and_egress_is_scheduled() {
    if !privileged() {
        return;
    }
    let bed = Bed::host().unwrap();
    let mut guests = Guests::load();
    guests.at_xdp(&bed.server, UPLINK);
    let site = Site::new(&bed.server);
    site.up(&["--metadata"])
        .expect(1)
        .says("xdp off")
        .says("--metadata");
    site.assert_no_trace();
    site.up(&[]).expect(0).says("another XDP program");
    let seen = guests.count(AT_XDP);
    exchange(&bed, 300_000);
    assert!(guests.count(AT_XDP) > seen + 5);
    assert!(site.counter("egress_packets") > 5);
    assert_eq!(site.counter("ingress_packets"), 0);
    site.down().expect(0);
    let seen = guests.count(AT_XDP);
    exchange(&bed, 1_000);
    assert!(guests.count(AT_XDP) > seen, "the guest was detached");
}

#[test]
fn a_guest_on_ingress_sees_what_is_led_to_the_ifb() {
    if !privileged() {
        return;
    }
    let bed = Bed::host().unwrap();
    let mut guests = Guests::load();
    guests.at_tc((&bed.server, UPLINK), TcAttachType::Ingress, Some(10));
    let site = Site::new(&bed.server);
    site.up(&["--ingress-rate", "50mbit"]).expect(0);
    let seen = guests.count(AT_TC);
    exchange(&bed, 300_000);
    assert!(guests.count(AT_TC) > seen + 5);
    let bands = site.status()["interfaces"][0]["downlink"]["bands"].take();
    assert!(bands[0]["packets"].as_u64().unwrap() > 5, "{bands}");
    site.down().expect(0);
    let seen = guests.count(AT_TC);
    exchange(&bed, 1_000);
    assert!(guests.count(AT_TC) > seen, "the guest was detached");
}
