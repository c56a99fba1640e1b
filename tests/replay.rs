//! Captures through the real programs by the capture's own clock.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use scheduler_common::{features::Feature, sample::Hook};
use serde_json::Value;
use treeline::dataset::{
    Row,
    store::{self, Dataset},
};

use crate::{
    messages::{self, End, Side},
    support::{
        agent::{Done, binary},
        captures,
        json::documented,
        packets::{ACK, Ends, Flags},
        privileged,
    },
};

fn call(arguments: &[&str]) -> Done {
    Done::of(Command::new(binary()).args(arguments))
}

/// Replays captures and reads the dataset.
fn replay(captures: &[&Path], more: &[&str]) -> (Value, Dataset) {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("out.parquet");
    let mut arguments = vec!["--format", "json", "replay", "--out", out.to_str().unwrap()];
    arguments.extend(captures.iter().map(|path| path.to_str().unwrap()));
    arguments.extend(more);
    let said = call(&arguments).expect(0).json();
    documented("replay", &said);
    (said, store::read(&out).unwrap())
}

/// A capture of Ethernet frames, with times in microseconds since some moment long ago.
pub(crate) fn pcap(frames: &[(u64, Vec<u8>)]) -> Vec<u8> {
    const BEGAN_US: u64 = 1_400_000_000_000_000;
    let mut file = Vec::new();
    for word in [0xa1b2_c3d4, 0x0004_0002, 0, 0, 262_144, 1] {
        file.extend(u32::to_le_bytes(word));
    }
    for (at_us, frame) in frames {
        let us = BEGAN_US + at_us;
        let length = frame.len() as u32;
        for word in [
            (us / 1_000_000) as u32,
            (us % 1_000_000) as u32,
            length,
            length,
        ] {
            file.extend(word.to_le_bytes());
        }
        file.extend(frame);
    }
    file
}

const REPLY_BYTES: u64 = 4200;
const SUPER_BYTES: usize = 40_000;

/// Two requests and replies on one connection, and a lone datagram.
fn conversation() -> Vec<(u64, Vec<u8>)> {
    let http = Ends::v4(40_000, 80);
    let dns = Ends::v4(50_000, 53);
    let syn = Flags {
        syn: true,
        ..Flags::default()
    };
    let syn_ack = Flags { ack: true, ..syn };
    let (there, back) = (Hook::Egress, Hook::Ingress);
    let mut frames = vec![
        (0, http.tcp(there, (100, 0), syn, 0)),
        (10_000, http.tcp(back, (500, 101), syn_ack, 0)),
        (20_000, http.tcp(there, (101, 501), ACK, 0)),
        (25_000, http.tcp(there, (101, 501), ACK, 300)),
        (75_000, http.tcp(back, (501, 401), ACK, 1400)),
        (80_000, http.tcp(back, (1901, 401), ACK, 1400)),
        (85_000, http.tcp(back, (3301, 401), ACK, 1400)),
        (90_000, http.tcp(there, (401, 4701), ACK, 0)),
        (500_000, dns.udp(there, 60)),
        (5_090_000, http.tcp(there, (401, 4701), ACK, 50)),
        (5_200_000, http.tcp(back, (4701, 451), ACK, SUPER_BYTES)),
    ];
    frames.sort_by_key(|(at_us, _)| *at_us);
    frames
}

fn write(frames: &[(u64, Vec<u8>)]) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("conversation.pcap");
    fs::write(&path, pcap(frames)).unwrap();
    (directory, path)
}

/// The rows of the messages that have `total` bytes, in order of time.
fn of_total(rows: &[Row], total: u64) -> Vec<Row> {
    let mut rows: Vec<Row> = rows
        .iter()
        .filter(|row| row.total_bytes == total)
        .copied()
        .collect();
    rows.sort_by_key(|row| row.time_ns);
    rows
}

/// Within the two ticks and two millionths that the programs' differences of times may be off.
#[track_caller]
fn about(row: &Row, feature: Feature, us: u32) {
    let found = row.feature(feature);
    assert!(
        found.abs_diff(us) <= 3 + us / 400_000,
        "{}: {found}, not {us}",
        feature.name()
    );
}

#[test]
fn a_capture_is_replayed_by_its_own_clock() {
    if !privileged() {
        return;
    }
    let (_directory, path) = write(&conversation());
    let (said, dataset) = replay(&[&path], &[]);
    let rows = &dataset.rows;
    assert_eq!(dataset.sessions, ["conversation.pcap"]);
    let capture = &said["captures"][0];
    assert_eq!(capture["packets"], 11, "{said}");
    assert_eq!(
        (&capture["flows"], &capture["skipped"]),
        (&2.into(), &0.into()),
        "{said}"
    );

    let request = of_total(rows, 300)[0];
    assert_eq!(
        (request.bytes_at, request.remaining_bytes, request.censored),
        (300, 0, false)
    );
    assert_eq!(request.feature(Feature::ServicePort), 80);
    assert_eq!(request.time_ns, 1_400_000_000_025_000_000);
    about(&request, Feature::FlowAgeUs, 25_000);

    let reply = of_total(rows, REPLY_BYTES);
    assert_eq!(
        reply
            .iter()
            .map(|row| (row.bytes_at, row.remaining_bytes))
            .collect::<Vec<_>>(),
        [(1400, 2800), (2800, 1400)]
    );
    about(&reply[0], Feature::TurnaroundUs, 50_000);
    about(&reply[0], Feature::FlowAgeUs, 75_000);
    about(&reply[1], Feature::GapUs, 5000);

    let later = of_total(rows, 50)[0];
    about(&later, Feature::FlowAgeUs, 5_090_000);
    assert_eq!(later.feature(Feature::PreviousBytes), 300);

    // Too large for the kernel's test run; and still under way when the capture ends.
    let large = of_total(rows, SUPER_BYTES as u64)[0];
    assert!(large.censored);
    assert_eq!(large.feature(Feature::PacketBytes), SUPER_BYTES as u32);
    assert_eq!(large.feature(Feature::Segments), 28);

    let datagram = of_total(rows, 60)[0];
    assert!(!datagram.censored, "silence has ended it");
    assert_eq!(capture["join"]["labelled_by_table"], 1, "{said}");
    assert_ne!(datagram.flow_hash, request.flow_hash);
    assert_eq!(datagram.network_hash, request.network_hash);
}

#[test]
fn packets_of_local_networks_leave_and_those_to_them_come_in() {
    if !privileged() {
        return;
    }
    let (_directory, path) = write(&conversation());
    let (_said, dataset) = replay(&[&path], &["--local", "10.1.0.1"]);
    let hook = |total| of_total(&dataset.rows, total)[0].hook;
    assert_eq!(
        (hook(300), hook(REPLY_BYTES)),
        (Hook::Egress, Hook::Ingress)
    );
    let (said, dataset) = replay(&[&path], &["--local", "192.168.0.0/16"]);
    assert_eq!(said["captures"][0]["foreign"], 11, "{said}");
    assert!(dataset.rows.is_empty());
}

#[test]
fn each_capture_is_a_host_of_its_own() {
    if !privileged() {
        return;
    }
    let (_directory, path) = write(&conversation());
    let (_said, dataset) = replay(&[&path, &path], &[]);
    let [first, second] = dataset.by_session().try_into().unwrap();
    let known = |rows: &[Row]| {
        rows.iter()
            .map(|row| {
                (
                    row.features,
                    row.bytes_at,
                    row.remaining_bytes,
                    row.censored,
                )
            })
            .collect::<Vec<_>>()
    };
    assert!(!first.is_empty());
    assert_eq!(known(&first), known(&second), "nothing is remembered");
    let flows = |rows: &[Row]| {
        rows.iter()
            .map(|row| row.flow_hash)
            .collect::<BTreeSet<_>>()
    };
    assert!(
        flows(&first).is_disjoint(&flows(&second)),
        "names are of one session"
    );
}

/// Message sizes of each flow and direction, in order.
fn sizes(rows: &[Row]) -> BTreeMap<u64, [Vec<u64>; 2]> {
    let mut messages: BTreeMap<(u64, u8, u32), u64> = BTreeMap::new();
    for row in rows {
        messages.insert((row.flow_hash, row.half, row.message), row.total_bytes);
    }
    let mut flows: BTreeMap<u64, [Vec<u64>; 2]> = BTreeMap::new();
    for ((flow, half, _), bytes) in messages {
        flows.entry(flow).or_default()[usize::from(half)].push(bytes);
    }
    flows
}

#[test]
fn replayed_messages_are_those_that_were_read_by_hand() {
    if !privileged() {
        return;
    }
    let mut found = 0;
    for flow in messages::flows() {
        let Some(path) = captures::path(flow.capture) else {
            continue;
        };
        let (_said, dataset) = replay(&[&path], &[]);
        let listed = Side::BOTH.map(|side| {
            let messages = flow.of_the_programs().into_iter();
            messages
                .filter(|message| message.side == side && message.end != End::Open)
                .map(|message| message.bytes)
                .collect::<Vec<u64>>()
        });
        // A last one that is still open may follow.
        let is = |found: &Vec<u64>, listed: &Vec<u64>| {
            found.starts_with(listed) && found.len() <= listed.len() + 1
        };
        let flows = sizes(&dataset.rows);
        let same = flows.values().any(|[a, b]| {
            let [first, second] = &listed;
            is(a, first) && is(b, second) || is(a, second) && is(b, first)
        });
        assert!(same, "{}: {listed:?} is none of {flows:?}", flow.name);
        found += 1;
    }
    eprintln!("{found} flows of real captures came out as listed");
}

#[test]
fn real_captures_of_every_format_and_link_type_are_replayed() {
    if !privileged() {
        return;
    }
    let paths = captures::full();
    let refs: Vec<&Path> = paths.iter().map(PathBuf::as_path).collect();
    if refs.is_empty() {
        return;
    }
    let (said, dataset) = replay(&refs, &[]);
    assert_eq!(dataset.sessions.len(), refs.len());
    let of = |capture: &Value, what: &str| capture[what].as_u64().unwrap();
    for capture in said["captures"].as_array().unwrap() {
        let (packets, accounted) = (of(capture, "packets"), of(capture, "accounted"));
        assert_eq!(
            packets,
            accounted + of(capture, "skipped") + of(capture, "refused")
        );
        assert!(packets > 0 && of(capture, "rows") > 0, "{capture}");
        assert!(accounted >= packets * 3 / 4, "{capture}");
        let join = &capture["join"];
        assert_eq!(
            (of(join, "refused_abi"), of(join, "censored_full")),
            (0, 0),
            "{capture}"
        );
    }
    assert_eq!(dataset.rows.len() as u64, said["rows"].as_u64().unwrap());
    for row in &dataset.rows {
        assert_eq!(row.bytes_at + row.remaining_bytes, row.total_bytes);
    }
}

#[test]
fn what_cannot_be_replayed_says_why() {
    if !privileged() {
        return;
    }
    let (directory, path) = write(&conversation());
    let out = directory.path().join("out.parquet");
    let (out, capture) = (out.to_str().unwrap(), path.to_str().unwrap());
    call(&["replay", "/no/such.pcap", "--out", out])
        .expect(1)
        .says("cannot open");
    fs::remove_file(out).unwrap();
    fs::write(&path, "no capture").unwrap();
    call(&["replay", capture, "--out", out])
        .expect(1)
        .says("neither pcap nor pcapng");
    // What came before is whole all the same.
    call(&["replay", capture, "--out", out])
        .expect(1)
        .says("name a new file");
    assert!(store::read(Path::new(out)).unwrap().rows.is_empty());
    call(&["replay", capture, "--out", out, "--local", "here"])
        .expect(2)
        .says("192.168.0.0/16");
    call(&["train", "--from", capture])
        .expect(1)
        .says("not a whole Parquet file");
    call(&["train", "--from", out])
        .expect(1)
        .says("no row to learn from");
    call(&["train", "--from", out, "--trainer", "guess"])
        .expect(1)
        .says("port");
}
