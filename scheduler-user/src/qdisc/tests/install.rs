//! What is installed is what was planned, also the second time.

use super::{super::*, support::Link};

#[test]
fn the_hierarchy_is_what_tc_shows() {
    let Some(link) = Link::new() else { return };
    let plan = Plan {
        leaf: LeafChoice::Pfifo,
        limit_packets: 77,
        ..Plan::new(100_000_000)
    };
    let installed = link.install(&plan).unwrap();
    assert_eq!(installed.leaf, "pfifo");
    assert!(installed.saved.unwrap().is_kernel_default());

    let root = link.tc("-d qdisc show dev near root");
    assert!(root.starts_with("qdisc htb 7e: "), "{root}");
    assert!(root.contains("default 0x1"), "{root}");
    // Not as JSON: iproute2 6.1 writes htb's classes as text all the same.
    let classes = link.tc("class show dev near");
    assert_eq!(classes.lines().count(), 9);
    let class = |handle: &str| {
        let start = format!("class htb {handle} ");
        classes
            .lines()
            .find(|line| line.starts_with(&start))
            .unwrap()
    };
    assert!(
        class("7e:ff").contains("root rate 100Mbit ceil 100Mbit "),
        "{classes}"
    );
    for band in 0..8 {
        let line = class(&format!("7e:{}", band + 1));
        assert!(line.contains(" parent 7e:ff "), "{line}");
        let rate = match band {
            0 => "97875Kbit",
            1 | 7 => "1Mbit",
            _ => "25Kbit",
        };
        assert!(
            line.contains(&format!(" prio {band} rate {rate} ceil 100Mbit ")),
            "{line}"
        );
    }
    let qdiscs = link.tc("qdisc show dev near");
    assert_eq!(qdiscs.matches("limit 77p").count(), 8, "{qdiscs}");
    let state = link.near(is_installed(link.ifindex)).unwrap();
    let expected = InstalledState {
        rate_bps: 100_000_000,
        leaf: "pfifo".into(),
        bands: 8,
    };
    assert_eq!(state, Some(expected));
}

#[test]
fn our_classes_equal_those_that_tc_makes() {
    let Some(link) = Link::new() else { return };
    let plan = Plan {
        bands: 2,
        // Whole microseconds for a burst, to which tc rounds.
        guaranteed_bps: Some(20_000_000),
        ..Plan::new(100_000_000)
    };
    link.install(&plan).unwrap();
    let ours = link.tc("-d class show dev near");
    link.tc("qdisc del dev near root");
    link.tc("qdisc add dev near root handle 7e: htb default 1");
    link.tc(
        "class add dev near parent 7e: classid 7e:ff htb rate 100mbit ceil 100mbit \
         burst 16000 cburst 16000 quantum 60000",
    );
    for (class, rate, prio) in [(1, "80mbit", 0), (2, "20mbit", 1)] {
        link.tc(&format!(
            "class add dev near parent 7e:ff classid 7e:{class} htb rate {rate} ceil 100mbit \
             burst 1600 cburst 16000 quantum 60000 prio {prio}"
        ));
    }
    let without_leaf = |text: &str| {
        let mut lines: Vec<String> = text
            .lines()
            .map(|line| {
                let mut words: Vec<&str> = line.split_whitespace().collect();
                if let Some(at) = words.iter().position(|word| *word == "leaf") {
                    words.drain(at..at + 2);
                }
                words.join(" ")
            })
            .collect();
        lines.sort();
        lines
    };
    assert_eq!(
        without_leaf(&ours),
        without_leaf(&link.tc("-d class show dev near"))
    );
}

#[test]
fn rates_beyond_34_gbit_reach_the_kernel() {
    let Some(link) = Link::new() else { return };
    link.install(&Plan::new(400_000_000_000)).unwrap();
    let shown = link.tc("class show dev near classid 7e:ff");
    assert!(shown.contains("rate 400Gbit ceil 400Gbit"), "{shown}");
    let state = link.near(is_installed(link.ifindex)).unwrap().unwrap();
    assert_eq!(state.rate_bps, 400_000_000_000);
}

#[test]
fn the_best_leaf_that_the_kernel_has_is_chosen() {
    let Some(link) = Link::new() else { return };
    let has_fq_codel = link.tc_accepts("qdisc add dev near root fq_codel");
    if has_fq_codel {
        link.tc("qdisc del dev near root");
    }
    let installed = link.install(&Plan::new(10_000_000)).unwrap();
    assert_eq!(
        installed.leaf,
        if has_fq_codel { "fq_codel" } else { "pfifo" }
    );
    let qdiscs = link.tc("qdisc show dev near");
    assert_eq!(
        qdiscs
            .matches(&format!("qdisc {} ", installed.leaf))
            .count(),
        8,
        "{qdiscs}"
    );
}

#[test]
fn installing_twice_changes_nothing_and_saves_nothing() {
    let Some(link) = Link::new() else { return };
    let plan = Plan::new(50_000_000);
    let first = link.install(&plan).unwrap();
    let shown = link.shown();
    let second = link.install(&plan).unwrap();
    assert_eq!((second.leaf, second.saved), (first.leaf, None));
    assert_eq!(link.shown(), shown);
}

#[test]
fn rate_and_bands_change_in_place() {
    let Some(link) = Link::new() else { return };
    link.install(&Plan::new(50_000_000)).unwrap();
    for (rate_bps, bands) in [(20_000_000, 3), (80_000_000, 6)] {
        let installed = link
            .install(&Plan {
                bands,
                ..Plan::new(rate_bps)
            })
            .unwrap();
        assert_eq!(installed.saved, None);
        let state = link.near(is_installed(link.ifindex)).unwrap().unwrap();
        assert_eq!((state.rate_bps, state.bands), (rate_bps, bands));
        assert_eq!(
            link.near(stats(link.ifindex)).unwrap().len(),
            usize::from(bands)
        );
    }
}

#[test]
fn a_failure_half_way_leaves_the_default_or_our_earlier_hierarchy() {
    let Some(link) = Link::new() else { return };
    let broken = Plan {
        bands: 2,
        ..Plan::new(20_000_000)
    };
    let fail = || link.near(install_with(link.ifindex, &broken, &["no_such_kind"]));

    let untouched = link.shown();
    let error = fail().unwrap_err();
    assert!(
        matches!(
            error,
            QdiscError::NoLeaf {
                kind: "no_such_kind"
            }
        ),
        "{error}"
    );
    assert_eq!(link.shown(), untouched);

    for bands in [8, 1] {
        link.install(&Plan {
            bands,
            ..Plan::new(50_000_000)
        })
        .unwrap();
        let before = link.shown();
        let error = fail().unwrap_err();
        assert!(
            matches!(
                error,
                QdiscError::NoLeaf {
                    kind: "no_such_kind"
                }
            ),
            "{error}"
        );
        assert_eq!(link.shown(), before);
    }
}

#[test]
fn restoring_gives_the_kernels_default_back() {
    let Some(link) = Link::new() else { return };
    link.tc("qdisc add dev near clsact");
    let before = link.shown();
    let saved = link.install(&Plan::new(10_000_000)).unwrap().saved.unwrap();
    assert!(link.tc("qdisc show dev near").contains("clsact"));
    assert_eq!(link.restore(&saved).unwrap(), Restored::Done);
    assert_eq!(link.shown(), before);
    assert_eq!(link.restore(&saved).unwrap(), Restored::AlreadyGone);
    assert_eq!(link.near(is_installed(link.ifindex)).unwrap(), None);
    assert_eq!(link.near(stats(link.ifindex)).unwrap(), []);
}

#[test]
fn an_interface_that_is_down_can_be_prepared() {
    let Some(link) = Link::new() else { return };
    link.ip("link set near down");
    link.install(&Plan::new(10_000_000)).unwrap();
    link.ip("link set near up");
    assert!(link.near(is_installed(link.ifindex)).unwrap().is_some());
}

#[test]
fn an_interface_that_does_not_exist_is_named() {
    let Some(link) = Link::new() else { return };
    for ifindex in [0, 4_000_000, u32::MAX] {
        let plan = Plan::new(10_000_000);
        let errors = [
            link.near(install(ifindex, &plan)).unwrap_err(),
            link.near(restore(ifindex, &Saved::kernel_default()))
                .unwrap_err(),
            link.near(stats(ifindex)).unwrap_err(),
            link.near(is_installed(ifindex)).unwrap_err(),
        ];
        for error in errors {
            assert!(
                matches!(error, QdiscError::NoSuchInterface { .. }),
                "{error}"
            );
            assert!(error.to_string().contains(&ifindex.to_string()), "{error}");
        }
    }
}

#[test]
fn lacking_rights_are_told_apart() {
    let error = QdiscError::from_io("set", 1, std::io::Error::from_raw_os_error(libc::EPERM));
    assert!(error.to_string().contains("CAP_NET_ADMIN"), "{error}");
}
