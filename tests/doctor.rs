//! `doctor` finds what is there, and what was put in the way.

use std::process::Command;

use aya::programs::{Xdp, xdp::XdpMode};
use aya_obj::programs::XdpAttachType;
use bed::netns::{Bed, UPLINK};
use scheduler_common::{flow::DEFAULT_ENTRIES, names, settings::Settings};
use serde_json::Value;
use treeline::datapath::Datapath;

use crate::support::{
    OwnInstance,
    agent::{Done, Site, binary},
    json::documented,
    privileged,
};

/// One check of the report.
#[track_caller]
fn check<'a>(report: &'a Value, name: &str) -> &'a Value {
    let checks = report["checks"].as_array().unwrap();
    let found = checks.iter().find(|check| check["name"] == name);
    found.unwrap_or_else(|| panic!("no check {name} in {report}"))
}

fn examine(site: &Site<'_>, more: &[&str]) -> Value {
    let all = [&["doctor", "--format", "json", UPLINK], more].concat();
    let report = site.call(&all).expect(0).json();
    documented("doctor", &report);
    report
}

#[test]
fn a_sound_host_is_told_so_with_every_check_and_nothing_is_changed() {
    if !privileged() {
        return;
    }
    let bed = Bed::host().unwrap();
    let site = Site::new(&bed.server);
    let look = || {
        let qdiscs = bed.server.tc("qdisc show").unwrap();
        (qdiscs, bed.server.ip("link show").unwrap())
    };
    let before = look();
    let report = examine(&site, &[]);
    assert_eq!(look(), before);
    site.assert_no_trace();
    assert_eq!(report["schema"], 1);
    assert_ne!(report["verdict"], "fail");
    for name in [
        "kernel",
        "capabilities",
        "btf",
        "bpffs",
        "programs",
        "jit",
        "qdiscs",
        "clsact",
        "downlink",
        "clock",
        "root",
        "xdp",
        "gso",
        "gro",
        "queues",
        "others",
    ] {
        let check = check(&report, name);
        let verdict = check["verdict"].as_str().unwrap();
        assert_eq!(check["remedy"].is_null(), verdict == "ok", "{check}");
        assert_ne!(verdict, "fail", "{check}");
        assert!(!check["found"].as_str().unwrap().is_empty(), "{check}");
    }
    // veth has XDP in its driver, and the kernel's own types say so.
    assert_eq!(check(&report, "xdp")["interface"], UPLINK);
    assert!(
        check(&report, "programs")["found"]
            .as_str()
            .unwrap()
            .contains("instructions")
    );
    let text = site
        .call(&["doctor", UPLINK])
        .expect(0)
        .says("verdict: treeline runs here");
    assert!(
        !text.stdout.contains('\u{1b}'),
        "colours without a terminal: {text:?}"
    );
}

#[test]
fn what_stands_in_the_way_is_warned_of_with_its_remedy() {
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
    let other = OwnInstance::new();
    Datapath::open_or_load(&other, &Settings::default(), DEFAULT_ENTRIES).unwrap();
    let pin = other.pins().join("programs").join(names::INGRESS);
    let mut foreign = Xdp::from_pin(pin, XdpAttachType::Interface).unwrap();
    bed.server
        .enter(|| Ok(foreign.attach(UPLINK, XdpMode::Default).map(drop)?))
        .unwrap();
    let report = examine(&site, &["--rate", "10mbit"]);
    assert_eq!(report["verdict"], "warn");
    let root = check(&report, "root");
    assert!(root["found"].as_str().unwrap().contains("tbf 5:"), "{root}");
    assert!(
        root["remedy"].as_str().unwrap().contains("--replace"),
        "{root}"
    );
    let xdp = check(&report, "xdp");
    assert!(
        xdp["found"].as_str().unwrap().contains("treeline_ingre"),
        "{xdp}"
    );
    let gso = check(&report, "gso");
    assert_eq!(gso["verdict"], "warn", "{gso}");

    // Every remedy that is a command helps.
    for command in [&gso["remedy"], &"tc qdisc del dev uplink root".into()] {
        let words: Vec<&str> = command.as_str().unwrap().split(' ').collect();
        bed.server
            .output(Command::new(words[0]).args(&words[1..]))
            .unwrap();
    }
    drop(foreign);
    let report = examine(&site, &["--rate", "10mbit"]);
    for name in ["root", "gso", "xdp"] {
        assert_eq!(check(&report, name)["verdict"], "ok", "{report}");
    }
}

#[test]
fn an_interface_that_is_up_is_known_as_ours() {
    if !privileged() {
        return;
    }
    let bed = Bed::host().unwrap();
    let site = Site::new(&bed.server);
    site.up(&[]).expect(0);
    let report = examine(&site, &[]);
    assert!(
        check(&report, "root")["found"]
            .as_str()
            .unwrap()
            .contains("treeline's own htb")
    );
    assert!(
        check(&report, "others")["found"]
            .as_str()
            .unwrap()
            .starts_with("no programs")
    );
    assert!(
        check(&report, "gso")["found"]
            .as_str()
            .unwrap()
            .contains("at 100mbit")
    );
    site.call(&["doctor", "absent"]).expect(4).says(UPLINK);
}

#[test]
fn with_the_rights_of_the_unit_nothing_fails_and_what_they_leave_unknown_is_said() {
    if !privileged() {
        return;
    }
    let bed = Bed::host().unwrap();
    let site = Site::new(&bed.server);
    let as_service = |arguments: &[&str]| {
        let mut command = Command::new("setpriv");
        // A root of these rights alone, as the unit starts it.
        command
            .arg("--bounding-set=-all,+bpf,+net_admin,+perfmon")
            .arg(binary())
            .args(["--instance", site.instance.name()])
            .args(arguments);
        bed.server.enter(|| Ok(Done::of(&mut command))).unwrap()
    };
    let report = as_service(&["doctor", UPLINK, "--format", "json"])
        .expect(0)
        .json();
    documented("doctor", &report);
    assert_eq!(report["verdict"], "warn");
    for name in ["capabilities", "qdiscs"] {
        let check = check(&report, name);
        assert_eq!(check["verdict"], "warn", "{check}");
        let found = check["found"].as_str().unwrap();
        assert!(found.contains("CAP_SYS_ADMIN"), "{check}");
    }
    assert_eq!(check(&report, "programs")["verdict"], "ok");
    // And it can work.
    as_service(&["up", UPLINK, "--rate", "80mbit", "--model", "none"]).expect(0);
    let view = as_service(&["top", "--once", "--every", "100ms", "--format", "json"]);
    let view = view.expect(0).json();
    assert!(view["programs"].is_null(), "{view}");
    assert_eq!(view["links"][0]["shaped_bps"], 80_000_000);
    as_service(&["down", UPLINK]).expect(0);
    site.assert_no_trace();
}

#[test]
fn without_rights_the_verdict_is_a_failure_that_says_what_to_do() {
    let mut command = Command::new("setpriv");
    command.args([
        "--bounding-set=-all",
        "--inh-caps=-all",
        "--ambient-caps=-all",
    ]);
    if nix::unistd::geteuid().is_root() {
        command.args(["--reuid=65534", "--clear-groups"]);
    }
    let (_directory, copy) = crate::cli::for_everybody();
    let report = Done::of(command.arg(copy).args(["doctor", "lo", "--format", "json"])).expect(1);
    let json = report.json();
    assert_eq!(json["verdict"], "fail");
    let rights = check(&json, "capabilities");
    assert_eq!(rights["verdict"], "fail");
    assert!(rights["remedy"].as_str().unwrap().contains("sudo"));
    assert!(report.stderr.contains("can't work here"), "{report:?}");
    assert!(binary().exists());
}
