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
    ABI_VERSION,
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

/// Full trees of a depth, splits in breadth-first order.
fn table(trees: u32, depth: u32) -> Box<Table> {
    let nodes = (1u32 << (depth + 1)) - 1;
    let splits = nodes / 2;
    let mut table = Box::new(Table {
        abi_version: ABI_VERSION,
        generation: 1,
        trees,
        depth,
        node_count: trees * nodes,
        ..Table::EMPTY
    });
    for tree in 0..trees {
        let base = tree * nodes;
        table.roots[tree as usize] = base as u16;
        for number in 0..nodes {
            let at = (base + number) as u16;
            table.nodes[usize::from(at)] = if number < splits {
                Node {
                    threshold: 1000 >> number.min(9),
                    child: (base + 2 * number + 1) as u16,
                    feature: (number % u32::from(ZERO_SLOT)) as u8,
                    _pad: 0,
                }
            } else {
                let log2_q8 = (number * 97 % 6000) as u16;
                Node::leaf(
                    at,
                    Leaf {
                        log2_q8,
                        sigma_q8: 9,
                    },
                )
            };
        }
    }
    table
}

fn inputs_of_table() -> Vec<(String, Vec<u8>)> {
    let shapes = [(1, 1), (1, 3), (2, 2), (4, 1), (16, 2)];
    let seeds = shapes.map(|(trees, depth)| {
        let features: Features = [500; SLOTS];
        let table = table(trees, depth);
        let used = size_of::<Table>() - size_of_val(&table.nodes)
            + table.node_count as usize * size_of::<Node>();
        let bytes = [features.as_bytes(), &table.as_bytes()[..used]].concat();
        (format!("{trees}-trees-of-depth-{depth}"), bytes)
    });
    seeds.into()
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
