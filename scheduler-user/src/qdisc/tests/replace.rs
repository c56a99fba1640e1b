//! An administrator's root is respected, and comes back when put aside.

use std::{net::UdpSocket, time::Duration};

use super::{
    super::*,
    support::{Link, RECEIVER, within},
};

/// Roots that an administrator may have set, as `tc` arguments after `dev near`.
const SETUPS: [&[&str]; 9] = [
    &["qdisc add dev near root handle 5: pfifo limit 321"],
    &["qdisc add dev near root bfifo limit 40000"],
    &["qdisc add dev near root pfifo_fast"],
    &[
        "qdisc add dev near root handle 9: tbf rate 10mbit burst 15000 limit 30000 \
         peakrate 20mbit mtu 1600",
        "qdisc add dev near parent 9:1 handle 90: pfifo limit 55",
    ],
    &[
        "qdisc add dev near root handle 1: htb default 30 r2q 20 direct_qlen 500",
        "class add dev near parent 1: classid 1:1 htb rate 90mbit burst 15k",
        "class add dev near parent 1:1 classid 1:10 htb rate 50mbit ceil 90mbit prio 1",
        "class add dev near parent 1:10 classid 1:5 htb rate 5mbit ceil 90mbit quantum 3000",
        "class add dev near parent 1:1 classid 1:30 htb rate 7777kbit ceil 90mbit mpu 64",
        "class add dev near parent 1: classid 1:2 htb rate 40gbit",
        "qdisc add dev near parent 1:5 handle 50: tbf rate 937mbit burst 1600 limit 9000",
        "qdisc add dev near parent 50:1 handle 8000: bfifo limit 7000",
        "qdisc add dev near parent 1:30 handle 30: pfifo limit 11",
    ],
    &[
        "qdisc add dev near root handle 1: mq",
        "qdisc add dev near parent 1:2 handle 20: pfifo limit 99",
    ],
    &["qdisc add dev near root handle 3: fq_codel limit 2000 target 7ms interval 90ms noecn"],
    &[
        "qdisc add dev near root handle 1: prio bands 4 priomap 3 2 2 2 1 2 0 0 1 1 1 1 1 1 1 1",
        "qdisc add dev near parent 1:2 handle 20: pfifo limit 99",
    ],
    &["qdisc add dev near root handle 3: fq limit 2000 flow_limit 50 horizon 5s nopacing"],
];

/// Kinds that a kernel may lack.
const OPTIONAL: [&str; 3] = ["fq_codel", "prio", "fq"];

/// Makes a setup; `false` where the kernel lacks its kind.
fn set_up(link: &Link, commands: &[&str]) -> bool {
    let is_optional = commands[0].split(' ').any(|word| OPTIONAL.contains(&word));
    if is_optional && !link.tc_accepts(commands[0]) {
        eprintln!("skipped: this kernel does not take {}", commands[0]);
        return false;
    }
    let first = usize::from(is_optional);
    for command in &commands[first..] {
        link.tc(command);
    }
    true
}

#[test]
fn an_occupied_root_is_left_alone_unless_replacing() {
    let Some(link) = Link::new() else { return };
    set_up(&link, SETUPS[4]);
    let before = link.shown();
    let error = link.install(&Plan::new(10_000_000)).unwrap_err();
    assert!(
        matches!(&error, QdiscError::Occupied { kind, handle } if kind == "htb" && handle == "1:"),
        "{error}"
    );
    assert!(error.to_string().contains("--replace"), "{error}");
    assert_eq!(link.shown(), before);
    assert_eq!(link.near(stats(link.ifindex)).unwrap(), []);
}

#[test]
fn every_supported_root_is_restored_as_it_was() {
    for commands in SETUPS {
        let Some(link) = Link::new() else { return };
        if !set_up(&link, commands) {
            continue;
        }
        let before = link.shown();
        let plan = Plan {
            replace: true,
            ..Plan::new(10_000_000)
        };
        let saved = link.install(&plan).unwrap().saved.unwrap();
        assert!(!saved.is_kernel_default());
        assert_ne!(link.shown(), before);
        // What is saved must survive the agent: it goes through a file.
        let written = serde_json::to_string(&saved).unwrap();
        let read = serde_json::from_str(&written).unwrap();
        assert_eq!(link.restore(&read).unwrap(), Restored::Done);
        assert_eq!(link.shown(), before, "{commands:?}");
    }
}

#[test]
fn a_failed_replacement_puts_the_earlier_root_back() {
    for commands in SETUPS {
        let Some(link) = Link::new() else { return };
        if !set_up(&link, commands) {
            continue;
        }
        let before = link.shown();
        let plan = Plan {
            replace: true,
            ..Plan::new(10_000_000)
        };
        let error = link
            .near(install_with(link.ifindex, &plan, &["no_such_kind"]))
            .unwrap_err();
        assert!(
            matches!(
                error,
                QdiscError::NoLeaf {
                    kind: "no_such_kind"
                }
            ),
            "{error}"
        );
        assert_eq!(link.shown(), before, "{commands:?}");
    }
}

#[test]
fn a_restored_tbf_of_one_packet_still_passes_that_packet() {
    let Some(link) = Link::new() else { return };
    link.tc("qdisc add dev near root tbf rate 937mbit burst 1514 limit 30000");
    let plan = Plan {
        replace: true,
        ..Plan::new(10_000_000)
    };
    let saved = link.install(&plan).unwrap().saved.unwrap();
    link.restore(&saved).unwrap();

    let receiver = within(&link.far, || UdpSocket::bind((RECEIVER, 0)).unwrap());
    receiver
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    let to = receiver.local_addr().unwrap();
    let sender = within(&link.near, || UdpSocket::bind("0.0.0.0:0").unwrap());
    let full_packet = [0; 1514 - 14 - 20 - 8];
    sender.send_to(&full_packet, to).unwrap();
    assert_eq!(receiver.recv(&mut [0; 2000]).unwrap(), full_packet.len());
}

#[test]
fn what_cannot_be_restored_is_refused_untouched() {
    let htb = [
        "qdisc add dev near root handle 1: htb",
        "class add dev near parent 1: classid 1:1 htb rate 1mbit",
    ];
    let cases: [(&[&str], &str); 5] = [
        (
            &[
                htb[0],
                htb[1],
                "filter add dev near parent 1: u32 match u32 0 0 flowid 1:1",
            ],
            "filters",
        ),
        (
            &[
                htb[0],
                htb[1],
                "filter add dev near parent 1:1 u32 match u32 0 0 flowid 1:1",
            ],
            "filters",
        ),
        (
            &["qdisc add dev near root handle 1: stab overhead 24 linklayer atm pfifo"],
            "stab",
        ),
        (&["qdisc add dev near root noqueue"], "noqueue"),
        (
            &[
                htb[0],
                htb[1],
                "qdisc add dev near parent 1:1 handle 7e: pfifo limit 3",
            ],
            "7e:",
        ),
    ];
    for (commands, reason) in cases {
        let Some(link) = Link::new() else { return };
        for command in commands {
            link.tc(command);
        }
        let before = link.shown();
        let plan = Plan {
            replace: true,
            ..Plan::new(10_000_000)
        };
        let error = link.install(&plan).unwrap_err();
        assert!(matches!(error, QdiscError::NotRestorable { .. }), "{error}");
        assert!(error.to_string().contains(reason), "{error}");
        assert_eq!(link.shown(), before);
    }
}

#[test]
fn a_root_that_an_administrator_set_meanwhile_stays() {
    let Some(link) = Link::new() else { return };
    let saved = link.install(&Plan::new(10_000_000)).unwrap().saved.unwrap();
    link.tc("qdisc replace dev near root handle 4: pfifo limit 44");
    let before = link.shown();
    let left = Restored::LeftAlone {
        kind: "pfifo".into(),
        handle: "4:".into(),
    };
    assert_eq!(link.restore(&saved).unwrap(), left);
    assert_eq!(link.shown(), before);
}
