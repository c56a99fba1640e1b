//! What trainers foretell on the later part of real captures.

mod replay;

use std::{collections::BTreeMap, fmt::Write as _, fs};

use replay::{Host, Seen, Unit};

use crate::support::captures;

#[test]
#[ignore = "writes a file"]
fn dump() {
    let mut text = String::new();
    for (index, name) in captures::names()
        .iter()
        .filter(|name| name.starts_with("headers"))
        .enumerate()
    {
        let Some(packets) = captures::packets(name) else {
            return;
        };
        for seen in Host::new().replay(&packets) {
            let Seen {
                unit,
                k,
                decision,
                row,
            } = seen;
            write!(
                text,
                "{index},{name},{},{k},{},{},{},{},{},{},{}",
                if unit == Unit::Message { "m" } else { "f" },
                u8::from(decision),
                row.time_ns,
                row.flow_hash,
                row.half,
                row.message,
                row.bytes_at,
                row.remaining_bytes
            )
            .unwrap();
            for value in &row.features[..20] {
                write!(text, ",{value}").unwrap();
            }
            text.push('\n');
        }
    }
    fs::write("/tmp/t-trainers/rows.csv", text).unwrap();
    let _unused: BTreeMap<u8, u8> = BTreeMap::new();
}
