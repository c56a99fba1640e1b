//! `up` and `down`: what changes, and that nothing stays.

use aya::{
    programs::{SchedClassifier, TcAttachType, Xdp, xdp::XdpMode},
    util::KernelVersion,
};
use aya_obj::programs::XdpAttachType;
use bed::netns::{Bed, Namespace, UPLINK};
use nix::sys::signal::Signal;
use scheduler_common::{
    names,
    settings::{Settings, settings_flags},
};
use treeline::datapath::Datapath;

use crate::support::{
    OwnInstance,
    agent::{Loaded, Site},
    privileged,
};

/// What an administrator sees of the uplink.
#[derive(Debug, PartialEq)]
struct Seen {
    qdiscs: String,
    filters: [String; 2],
    tcx_programs: usize,
    link: String,
}

fn look(namespace: &Namespace) -> Seen {
    let filters = ["egress", "ingress"].map(|side| {
        namespace
            .tc(&format!("filter show dev {UPLINK} {side}"))
            .unwrap()
    });
    let tcx_programs = namespace
        .enter(|| {
            // A kernel before 6.6 knows no TCX, and so has no such program.
            Ok(SchedClassifier::query_tcx(UPLINK, TcAttachType::Egress)
                .map_or(0, |(_revision, programs)| programs.len()))
        })
        .unwrap();
    Seen {
        qdiscs: namespace.tc(&format!("qdisc show dev {UPLINK}")).unwrap(),
        filters,
        tcx_programs,
        link: namespace.ip(&format!("link show dev {UPLINK}")).unwrap(),
    }
}

fn has_fq_codel() -> bool {
    let namespace = Namespace::new("probe").unwrap();
    namespace.tc("qdisc add dev lo root fq_codel").is_ok()
}

/// `up`, a check of what is up, `down`; everything must be as before.
fn up_and_down(options: &[&str], check: impl FnOnce(&Site<'_>, &Seen, &Seen)) {
    let bed = Bed::host().unwrap();
    let before = look(&bed.server);
    let site = Site::new(&bed.server);
    site.up(options).expect(0);
    let during = look(&bed.server);
    let loaded = site.loaded();
    check(&site, &before, &during);
    site.down().expect(0);
    assert_eq!(look(&bed.server), before);
    site.assert_no_trace();
    loaded.assert_freed();
}

#[test]
fn down_leaves_nothing_behind() {
    if !privileged() {
        return;
    }
    // Without a word the hook is the best that the kernel has.
    let kernel = KernelVersion::current().unwrap();
    let (hook, tcx_programs) = if kernel >= KernelVersion::new(6, 6, 0) {
        ("tcx", 1)
    } else {
        ("clsact", 0)
    };
    up_and_down(&[], |site, before, during| {
        assert!(during.qdiscs.contains("qdisc htb 7e: root"), "{during:?}");
        assert_eq!(before.tcx_programs, 0);
        assert_eq!(during.tcx_programs, tcx_programs);
        assert!(during.link.contains("prog/xdp"), "{during:?}");
        let interface = site.status()["interfaces"][0].take();
        assert_eq!(interface["name"], UPLINK);
        assert_eq!(interface["rate_bps"], 100_000_000);
        assert_eq!(interface["egress_hook"], hook);
        assert_eq!(interface["present"], true);
        assert!(
            interface["ingress_hook"]
                .as_str()
                .unwrap()
                .starts_with("xdp")
        );
        assert_eq!(interface["bands"].as_array().unwrap().len(), 8);
    });
}

#[test]
fn down_leaves_nothing_behind_where_the_hook_was_clsact() {
    if !privileged() {
        return;
    }
    up_and_down(&["--egress-hook", "clsact"], |site, before, during| {
        assert!(!before.qdiscs.contains("clsact"));
        assert!(during.qdiscs.contains("clsact"), "{during:?}");
        assert!(during.filters[0].contains(names::EGRESS), "{during:?}");
        assert_eq!(during.tcx_programs, 0);
        assert_eq!(site.status()["interfaces"][0]["egress_hook"], "clsact");
    });
}

#[test]
fn an_administrators_clsact_and_filters_stay() {
    if !privileged() {
        return;
    }
    let bed = Bed::host().unwrap();
    bed.server
        .tc(&format!("qdisc add dev {UPLINK} clsact"))
        .unwrap();
    let before = look(&bed.server);
    let site = Site::new(&bed.server);
    site.up(&["--egress-hook", "clsact"]).expect(0);
    site.down().expect(0);
    assert_eq!(look(&bed.server), before);
}

#[test]
fn up_and_down_may_be_repeated() {
    if !privileged() {
        return;
    }
    let bed = Bed::host().unwrap();
    let site = Site::new(&bed.server);
    site.down().expect(0).says("not up");
    site.call(&["down", "--all"]).expect(0).says("no interface");
    site.up(&[]).expect(0);
    let loaded = site.loaded();
    let first = look(&bed.server);
    site.up(&[]).expect(0).says("already up");
    assert_eq!(look(&bed.server), first);
    let changed = site.call(&["up", UPLINK, "--rate", "50mbit"]).expect(0);
    changed.says("is now at 50mbit");
    assert_eq!(site.status()["interfaces"][0]["rate_bps"], 50_000_000);
    let flags = || site.datapath().settings().unwrap().flags;
    assert_eq!(flags(), 0);
    site.up(&["--inner"]).expect(0);
    assert_eq!(flags(), settings_flags::INNER);
    site.call(&["up", UPLINK, "--rate", "50mbit"]).expect(0);
    assert_eq!(flags(), 0);
    assert_eq!(site.loaded(), loaded, "the programs were loaded anew");
    let classes = bed.server.tc(&format!("class show dev {UPLINK}")).unwrap();
    assert!(classes.contains("rate 50Mbit"), "{classes}");
    site.down().expect(0).says("is down");
    site.down().expect(0).says("not up");
    loaded.assert_freed();
}

#[test]
fn programs_of_another_abi_version_are_replaced() {
    if !privileged() {
        return;
    }
    let bed = Bed::host().unwrap();
    let before = look(&bed.server);
    let site = Site::new(&bed.server);
    site.up(&[]).expect(0);
    let old = site.loaded();
    let attached = look(&bed.server).tcx_programs;
    let datapath = site.datapath();
    let settings = Settings {
        abi_version: 99,
        ..datapath.settings().unwrap()
    };
    datapath.set_settings(&settings).unwrap();
    site.call(&["status"]).expect(1).says("ABI version 99");
    site.up(&[]).expect(0);
    assert!(
        old.programs
            .iter()
            .all(|id| !site.loaded().programs.contains(id))
    );
    old.assert_freed();
    assert_eq!(look(&bed.server).tcx_programs, attached);
    assert_eq!(site.datapath().settings().unwrap(), Settings::default());
    site.down().expect(0);
    assert_eq!(look(&bed.server), before);
    site.assert_no_trace();
}

#[test]
fn an_instance_serves_several_interfaces_with_one_set_of_programs() {
    if !privileged() {
        return;
    }
    let bed = Bed::host().unwrap();
    bed.server
        .ip("link add spare type veth peer name spare-end")
        .unwrap();
    let site = Site::new(&bed.server);
    let before = look(&bed.server);
    site.up(&[]).expect(0);
    let loaded = site.loaded();
    site.call(&["up", "spare", "--rate", "1gbit"]).expect(0);
    assert_eq!(site.loaded(), loaded);
    site.down().expect(0);
    assert_eq!(look(&bed.server), before, "only this interface is left");
    assert_eq!(
        site.loaded(),
        loaded,
        "the other interface still needs them"
    );
    assert_eq!(site.status()["interfaces"].as_array().unwrap().len(), 1);
    site.call(&["down", "--all"]).expect(0).says("spare");
    site.assert_no_trace();
    loaded.assert_freed();
}

#[test]
fn the_leaf_is_what_the_kernel_has() {
    if !privileged() {
        return;
    }
    let bed = Bed::host().unwrap();
    let site = Site::new(&bed.server);
    let before = look(&bed.server);
    let (_, log) = site.run(&[]).end(Signal::SIGTERM);
    let leaf = site.status()["interfaces"][0]["leaf"].take();
    site.down().expect(0);
    let wished = site.up(&["--leaf", "fq-codel"]);
    if has_fq_codel() {
        assert_eq!(leaf, "fq_codel");
        wished.expect(0);
    } else {
        let line = log.lines().find(|line| line.contains("fq_codel"));
        assert!(line.is_some_and(|line| line.contains("pfifo")), "{log}");
        assert_eq!(leaf, "pfifo");
        wished.expect(1).says("no fq_codel qdisc");
        assert_eq!(look(&bed.server), before);
        site.assert_no_trace();
    }
}

#[test]
fn an_administrators_qdisc_is_replaced_only_when_told_and_comes_back() {
    if !privileged() {
        return;
    }
    let bed = Bed::host().unwrap();
    let site = Site::new(&bed.server);
    bed.server
        .tc(&format!(
            "qdisc add dev {UPLINK} root handle 5: tbf rate 80mbit burst 64kb latency 50ms"
        ))
        .unwrap();
    let before = look(&bed.server);
    assert!(before.qdiscs.contains("tbf 5:"), "{before:?}");
    site.up(&[]).expect(5).says("--replace");
    assert_eq!(look(&bed.server), before);
    site.assert_no_trace();
    site.call(&["run", UPLINK, "--rate", "100mbit"]).expect(5);
    assert_eq!(look(&bed.server), before);
    site.up(&["--replace"]).expect(0);
    assert!(look(&bed.server).qdiscs.contains("htb 7e:"));
    site.down().expect(0);
    assert_eq!(look(&bed.server), before);
}

#[test]
fn an_interface_that_is_deleted_while_up_is_cleaned_up_after() {
    if !privileged() {
        return;
    }
    let bed = Bed::host().unwrap();
    let site = Site::new(&bed.server);
    site.up(&[]).expect(0);
    let loaded: Loaded = site.loaded();
    bed.server.ip(&format!("link delete {UPLINK}")).unwrap();
    assert_eq!(site.status()["interfaces"][0]["present"], false);
    site.call(&["status"]).expect(0).says("gone");
    site.down().expect(0);
    site.assert_no_trace();
    loaded.assert_freed();
}

#[test]
fn an_interface_that_is_made_again_is_brought_up_afresh() {
    if !privileged() {
        return;
    }
    let bed = Bed::host().unwrap();
    let site = Site::new(&bed.server);
    bed.server
        .ip("link add spare type veth peer name spare-end")
        .unwrap();
    site.call(&["up", "spare", "--rate", "10mbit"]).expect(0);
    bed.server.ip("link delete spare").unwrap();
    bed.server
        .ip("link add spare type veth peer name spare-end")
        .unwrap();
    site.call(&["up", "spare", "--rate", "10mbit"]).expect(0);
    let interfaces = site.status()["interfaces"].take();
    assert_eq!(interfaces.as_array().unwrap().len(), 1, "{interfaces}");
    assert_eq!(interfaces[0]["present"], true);
    let loaded = site.loaded();
    site.call(&["down", "spare"]).expect(0);
    site.assert_no_trace();
    loaded.assert_freed();
}

#[test]
fn a_foreign_xdp_program_keeps_its_place() {
    if !privileged() {
        return;
    }
    let bed = Bed::host().unwrap();
    let other = OwnInstance::new();
    Datapath::open_or_load(&other, &Settings::default(), DEFAULT_ENTRIES).unwrap();
    let pin = other.pins().join("programs").join(names::INGRESS);
    let mut foreign = Xdp::from_pin(pin, XdpAttachType::Interface).unwrap();
    bed.server
        .enter(|| Ok(foreign.attach(UPLINK, XdpMode::Default).map(drop)?))
        .unwrap();
    let before = look(&bed.server);
    assert!(before.link.contains("prog/xdp"), "{before:?}");

    let site = Site::new(&bed.server);
    site.up(&[]).expect(0).says("ingress is not observed");
    let interface = site.status()["interfaces"][0].take();
    assert!(interface["ingress_hook"].is_null(), "{interface}");
    site.down().expect(0);
    assert_eq!(look(&bed.server), before);
    drop(foreign);
}

#[test]
fn a_start_that_fails_leaves_nothing_behind() {
    if !privileged() {
        return;
    }
    let bed = Bed::host().unwrap();
    let before = look(&bed.server);
    let site = Site::new(&bed.server);
    for verb in ["up", "run"] {
        let arguments = [
            verb,
            UPLINK,
            "--rate",
            "100mbit",
            "--model",
            "/nowhere/model.json",
        ];
        site.call(&arguments).expect(6).says("/nowhere/model.json");
        assert_eq!(look(&bed.server), before);
        site.assert_no_trace();
    }
    site.call(&["run", UPLINK, "absent", "--rate", "100mbit"])
        .expect(4)
        .says("absent");
    assert_eq!(look(&bed.server), before);
    site.assert_no_trace();
}
