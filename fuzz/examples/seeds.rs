//! Writes `seeds/`: what the targets start from, generated and never captured.
//!
//! `cargo run --manifest-path fuzz/Cargo.toml --example seeds` after a change of the frames that
//! the tests know, or of the table's layout.
#![forbid(unsafe_code)]

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use scheduler_common::{
    features::{Features, SLOTS, ZERO_SLOT},
    tree::{Leaf, Node, Table},
};
use zerocopy::IntoBytes as _;

#[allow(dead_code, reason = "the tests use all of it")]
#[path = "../../tests/support/frames.rs"]
mod frames;
#[allow(dead_code, reason = "the tests use all of it")]
#[path = "../../tests/support/packets.rs"]
mod packets;

/// First byte of a packet's input: the interface has no Ethernet header.
const NETWORK: u8 = 1;
/// Likewise: tunnels are entered.
const INNER: u8 = 2;

fn inputs_of_parse() -> Vec<(String, Vec<u8>)> {
    let input = |choice: u8, frame: &[u8]| [&[choice], frame].concat();
    let mut seeds: Vec<(String, Vec<u8>)> = frames::table()
        .iter()
        .map(|(name, frame, _)| (name.replace(' ', "-"), input(0, frame)))
        .collect();
    for (name, frame) in [("tcp", frames::tcp4()), ("udp6", frames::udp6())] {
        let packet = &frame[packets::ETHERNET_BYTES..];
        seeds.push((format!("{name}-network"), input(NETWORK, packet)));
        for (number, frame) in packets::tunnelled(&frame).iter().enumerate() {
            seeds.push((format!("{name}-tunnel-{number}"), input(INNER, frame)));
        }
    }
    seeds
}

/// Full trees of a depth, splits in breadth-first order; all of a level ask the same if `oblivious`.
fn table(trees: u32, depth: u32, oblivious: bool) -> Box<Table> {
    let splits = (1u32 << depth) - 1;
    let node = |number: u32| {
        let question = if oblivious {
            (number + 1).ilog2()
        } else {
            number
        };
        if number < splits {
            Node::Split {
                feature: (question % u32::from(ZERO_SLOT)) as u8,
                threshold: 1000 >> question.min(9),
                at_most: 2 * number + 1,
                above: 2 * number + 2,
            }
        } else {
            Node::Leaf(Leaf {
                log2_q8: (number * 97 % 6000) as u16,
                sigma_q8: 9,
            })
        }
    };
    let tree: Vec<Node> = (0..2 * splits + 1).map(node).collect();
    Table::pack(1, &vec![tree; trees as usize]).expect("a small forest fits")
}

fn inputs_of_table() -> Vec<(String, Vec<u8>)> {
    let shapes = [(1, 1), (1, 3), (2, 2), (4, 1), (16, 2)];
    let seeds = shapes.into_iter().flat_map(|(trees, depth)| {
        [false, true].map(|oblivious| {
            let features: Features = [500; SLOTS];
            let table = table(trees, depth, oblivious);
            let bytes = table.as_bytes();
            let used = bytes
                .iter()
                .rposition(|byte| *byte != 0)
                .map_or(0, |last| last + 1);
            let form = if oblivious { "oblivious" } else { "ordinary" };
            let name = format!("{trees}-{form}-trees-of-depth-{depth}");
            (name, [features.as_bytes(), &bytes[..used]].concat())
        })
    });
    seeds.collect()
}

fn write(folder: &Path, seeds: &[(String, Vec<u8>)]) -> io::Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir_all(folder)?;
    for (name, bytes) in seeds {
        fs::write(folder.join(name), bytes)?;
    }
    Ok(())
}

fn main() -> io::Result<()> {
    let seeds: PathBuf = [env!("CARGO_MANIFEST_DIR"), "seeds"].iter().collect();
    write(&seeds.join("parse"), &inputs_of_parse())?;
    write(&seeds.join("table"), &inputs_of_table())
}
