//! `--dry-run` says what `up` does: done by hand it comes to the same.

use std::process::Command;

use bed::netns::{Bed, Namespace, UPLINK};

use crate::support::{agent::Site, json::documented, privileged};

/// What stands on an interface, without the handles that the kernel counts up.
#[derive(Debug, PartialEq)]
struct Seen {
    qdiscs: String,
    classes: String,
    filters: Vec<String>,
    has_xdp: bool,
}

fn look(namespace: &Namespace, device: &str) -> Seen {
    let show = |what: &str| namespace.tc(&format!("{what} show dev {device}")).unwrap();
    let filters = ["egress", "ingress"].map(|side| {
        let text = namespace.tc(&format!("filter show dev {device} {side}"));
        text.unwrap_or_default()
    });
    // The name of a filter is whoever's who made it; its program is not.
    let told = |line: &str| {
        let from = ["direct-action", "mirred"]
            .iter()
            .find_map(|word| line.find(word));
        from.map(|at| line[at..].to_owned())
    };
    Seen {
        qdiscs: lasting(&show("qdisc")),
        classes: lasting(&show("class")),
        filters: filters
            .iter()
            .flat_map(|text| text.lines())
            .filter_map(told)
            .collect(),
        has_xdp: namespace
            .ip(&format!("link show dev {device}"))
            .unwrap()
            .contains("prog/xdp"),
    }
}

/// Without handles such as `8003:` and counts, in an order of its own.
fn lasting(text: &str) -> String {
    let word = |word: &str| {
        // Four digits are the kernel's own choice, but for clsact's.
        let counted = word.len() == 5 && word.ends_with(':') && word != "ffff:";
        let bytes = word
            .strip_suffix('b')
            .and_then(|digits| digits.parse::<f64>().ok());
        match bytes {
            _ if counted => "auto:".to_owned(),
            // tc counts bursts in whole microseconds, and rounds down once more where it shows them.
            Some(bytes) => format!("{:.0}*80b", bytes / 80.0),
            None => word.to_owned(),
        }
    };
    let mut lines: Vec<String> = text
        .lines()
        // What follows counts packets, such as those of a link that has just come up.
        .map(|line| {
            line.split(" direct_packets_stat ")
                .next()
                .unwrap_or_default()
        })
        .map(|line| {
            line.split_whitespace()
                .map(word)
                .collect::<Vec<_>>()
                .join(" ")
        })
        .collect();
    lines.sort();
    lines.join("\n")
}

fn by_hand(namespace: &Namespace, script: &str) {
    namespace
        .output(Command::new("sh").args(["-e", "-c", script]))
        .unwrap_or_else(|error| panic!("{error:#}\n{script}"));
}

/// Does by hand what the dry run says, undoes it, and does it by `up`.
fn compare(options: &[&str], before_it: &str) {
    let bed = Bed::host().unwrap();
    let site = Site::new(&bed.server);
    bed.server
        .ip("link add spare type veth peer name spare-end")
        .unwrap();
    // The commands name pinned programs.
    site.call(&["up", "spare", "--rate", "1mbit", "--egress-hook", "clsact"])
        .expect(0);
    by_hand(&bed.server, before_it);
    let names = || {
        let links = bed.server.ip("-br link").unwrap();
        let first = |line: &str| line.split(['@', ' ']).next().unwrap_or_default().to_owned();
        links.lines().map(first).collect::<Vec<String>>()
    };
    let (before, links) = (look(&bed.server, UPLINK), names());
    let all = [&["up", UPLINK, "--egress-hook", "clsact"], options].concat();
    let dry = site.call(&[&all[..], &["--dry-run"]].concat()).expect(0);
    assert_eq!(
        look(&bed.server, UPLINK),
        before,
        "a dry run has done something"
    );
    assert_eq!(site.status()["interfaces"].as_array().unwrap().len(), 1);
    assert_eq!(names(), links);

    by_hand(&bed.server, &dry.stdout);
    let new = |links: &[String]| {
        let added = names().into_iter().find(|name| !links.contains(name));
        added.map(|name| (look(&bed.server, &name), name))
    };
    let (hand, hand_device) = (look(&bed.server, UPLINK), new(&links));
    assert_ne!(hand, before);
    let xdp_off = format!("ip link set dev {UPLINK} xdp off; tc qdisc del dev {UPLINK} clsact");
    by_hand(&bed.server, &xdp_off);
    bed.server
        .tc(&format!("qdisc del dev {UPLINK} root"))
        .unwrap();
    if let Some((_, device)) = &hand_device {
        bed.server.ip(&format!("link del {device}")).unwrap();
    }
    by_hand(&bed.server, before_it);
    assert_eq!(look(&bed.server, UPLINK), before);

    site.call(&all).expect(0);
    assert_eq!(look(&bed.server, UPLINK), hand, "{}", dry.stdout);
    assert_eq!(new(&links), hand_device, "{}", dry.stdout);
}

#[test]
fn the_plan_of_a_rate_done_by_hand_is_what_up_does() {
    if !privileged() {
        return;
    }
    // A round rate, and one whose bursts are no whole number of ticks.
    compare(&["--rate", "100mbit", "--leaf", "pfifo"], "");
    compare(&["--rate", "37.123mbit", "--order", "last"], "");
}

#[test]
fn the_plan_of_a_downlink_done_by_hand_is_what_up_does() {
    if !privileged() {
        return;
    }
    compare(&["--rate", "20mbit", "--ingress-rate", "80mbit"], "");
}

#[test]
fn the_plan_puts_an_administrators_qdisc_aside_only_when_told() {
    if !privileged() {
        return;
    }
    let tbf =
        format!("tc qdisc add dev {UPLINK} root handle 5: tbf rate 80mbit burst 64kb latency 50ms");
    compare(&["--rate", "1.5gbit", "--replace"], &tbf);
    let bed = Bed::host().unwrap();
    let site = Site::new(&bed.server);
    by_hand(&bed.server, &tbf);
    site.up(&["--dry-run"]).expect(5).says("--replace");
    site.call(&["up", UPLINK, "--dry-run"])
        .expect(0)
        .says("stays as it is");
    site.assert_no_trace();
}

#[test]
fn a_plan_that_would_fail_fails_as_up_does() {
    if !privileged() {
        return;
    }
    let bed = Bed::host().unwrap();
    let site = Site::new(&bed.server);
    let same = |arguments: &[&str]| {
        let real = site.call(arguments);
        let dry = site.call(&[arguments, &["--dry-run"]].concat());
        assert_eq!(
            (dry.code, &dry.stderr),
            (real.code, &real.stderr),
            "{arguments:?}"
        );
        assert_ne!(real.code, Some(0));
    };
    same(&["up", "absent", "--rate", "1mbit"]);
    same(&["up", UPLINK, "--rate", "1kbit"]);
    same(&["up", UPLINK, "--ingress-rate", "1mbit"]);
    same(&["up", UPLINK, "--pace", "7=1mbit"]);
    site.assert_no_trace();
}

#[test]
fn the_plan_of_what_is_up_names_only_the_change_and_run_has_one_too() {
    if !privileged() {
        return;
    }
    let bed = Bed::host().unwrap();
    let site = Site::new(&bed.server);
    site.up(&[]).expect(0);
    let change = site
        .call(&["up", UPLINK, "--rate", "50mbit", "--dry-run"])
        .expect(0)
        .says("in place");
    assert!(!change.stdout.contains("tc qdisc"), "{change:?}");
    by_hand(&bed.server, &change.stdout);
    assert!(look(&bed.server, UPLINK).classes.contains("rate 50Mbit"));
    let plan = site
        .call(&[
            "run",
            UPLINK,
            "--rate",
            "50mbit",
            "--dry-run",
            "--format",
            "json",
        ])
        .expect(0)
        .json();
    documented("up --dry-run", &plan);
    assert_eq!(plan["interfaces"][0]["interface"], UPLINK);
    assert_eq!(plan["interfaces"][0]["is_up"], true);
    assert!(site.status()["agent"].is_null());
}
