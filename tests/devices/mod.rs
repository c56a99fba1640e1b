//! Interfaces other than veth: tun, wireguard, and network cards.

mod cards;
mod tun;
mod wireguard;

use bed::netns::Namespace;
use scheduler_common::ingress::interface_flags;

use crate::support::agent::Site;

/// A pair of devices without an Ethernet header, and the one of them under test.
struct Pair<'a> {
    namespace: &'a Namespace,
    device: &'a str,
    /// A request of 100 bytes and an answer of so many; the near end answers or asks.
    exchange: &'a dyn Fn(bool, usize),
}

/// Packets of each band on the way out.
fn bands(site: &Site<'_>, downlink: bool) -> Vec<u64> {
    let mut interface = site.status()["interfaces"][0].take();
    let mut shaped = interface["downlink"]["bands"].take();
    let mut out = interface["bands"].take();
    let bands = if downlink { &mut shaped } else { &mut out };
    let bands = bands.as_array().unwrap();
    bands
        .iter()
        .map(|band| band["packets"].as_u64().unwrap())
        .collect()
}

/// Traffic both ways over a device; what is neither a flow nor a message would show.
fn flows_are_seen(pair: &Pair<'_>, options: &[&str]) {
    let Pair {
        namespace,
        device,
        exchange,
    } = *pair;
    let site = Site::new(namespace);
    let index = namespace
        .enter(|| Ok(nix::net::if_::if_nametoindex(device)?))
        .unwrap();
    let up = ["up", device, "--rate", "500mbit"];
    site.call(&[&up, options].concat()).expect(0);
    let shaped = options.contains(&"--ingress-rate");
    let facts = site.datapath().interface(index).unwrap().unwrap();
    assert_eq!(facts.flags, interface_flags::NETWORK_FRAMES);
    let names = [
        "flows_created",
        "messages_ended_turn",
        "skip_not_ip",
        "skip_malformed",
    ];
    let counters = || {
        let status = site.status();
        names.map(|name| status["counters"][name].as_u64().expect("it is counted"))
    };
    let before = counters();
    for near_answers in [true, false, true, false] {
        exchange(near_answers, 400_000);
    }
    let now = counters();
    let [flows, turns, strange, damaged] = std::array::from_fn(|at| now[at] - before[at]);
    assert_eq!(flows, 4, "the two directions are flows of their own");
    assert!(turns >= 4, "{turns}: the two directions do not meet");
    assert_eq!([strange, damaged], [0, 0]);
    let out = bands(&site, false);
    assert!(out[0] > 0 && out[1] > 0 && out[2] > 0, "{out:?}");
    if shaped {
        let bands = bands(&site, true);
        assert!(bands[0] > 0 && bands[1] > 0 && bands[2] > 0, "{bands:?}");
        assert_eq!(site.counter("ingress_packets"), 0);
    } else {
        assert!(site.counter("ingress_packets") > 100);
    }
    site.call(&["down", device]).expect(0);
    site.assert_no_trace();
}
