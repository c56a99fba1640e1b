//! There and back, and files that are not what they should be.

use std::{fs, sync::Arc};

use parquet::{
    data_type::Int64Type,
    file::{metadata::KeyValue, properties::WriterProperties, writer::SerializedFileWriter},
    schema::parser::parse_message_type,
};
use proptest::prelude::*;
use scheduler_common::{features::Feature, sample::Hook};
use tempfile::TempDir;

use super::{super::samples, *};
use crate::dataset::Row;

fn place() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("rows.parquet");
    (directory, path)
}

/// A row in which no two columns are alike.
fn odd(seed: u64) -> Row {
    let mut row = Row {
        bytes_at: seed.wrapping_mul(3),
        remaining_bytes: u64::MAX - seed,
        total_bytes: seed << 40,
        message: seed as u32 + 1,
        half: (seed & 1) as u8,
        hook: if seed.is_multiple_of(3) {
            Hook::Ingress
        } else {
            Hook::Egress
        },
        generation: u32::MAX,
        predicted_log2_q8: 17,
        network_hash: 0xffff_0000 | seed as u32,
        censored: seed.is_multiple_of(5),
        shadow_generation: 4,
        shadow_log2_q8: 99,
        ..samples::row(!seed, seed, 443)
    };
    for feature in Feature::ALL {
        row.features[*feature as usize] = u32::MAX - *feature as u32 * (1 + seed as u32 % 7);
    }
    row
}

fn text(error: &StoreError) -> String {
    error.to_string()
}

#[test]
fn rows_come_back_as_they_were_by_session() {
    let (_directory, path) = place();
    let mut writer = Writer::create(&path, 1_000_000).unwrap();
    // More than a group, and not a whole number of groups.
    let rows: Vec<Row> = (0..40_000).map(odd).collect();
    writer.begin("eth0");
    for part in rows[..25_000].chunks(777) {
        writer.write(part).unwrap();
    }
    writer.begin("capture.pcap");
    writer.write(&rows[25_000..]).unwrap();
    assert_eq!(writer.close().unwrap(), 40_000);
    let dataset = read(&path).unwrap();
    assert_eq!(dataset.rows, rows);
    assert_eq!(dataset.sessions, ["eth0", "capture.pcap"]);
    let sizes: Vec<usize> = dataset.by_session().iter().map(Vec::len).collect();
    assert_eq!(sizes, [25_000, 15_000]);
}

#[test]
fn a_file_takes_no_more_rows_than_it_may() {
    let (_directory, path) = place();
    let mut writer = Writer::create(&path, 10).unwrap();
    writer.begin("eth0");
    writer.write(&[odd(1); 7]).unwrap();
    assert!(!writer.is_full());
    writer.write(&[odd(2); 7]).unwrap();
    assert!(writer.is_full());
    writer.close().unwrap();
    assert_eq!(read(&path).unwrap().rows.len(), 10);
}

#[test]
fn a_file_without_rows_is_a_dataset() {
    let (_directory, path) = place();
    Writer::create(&path, 10).unwrap().close().unwrap();
    assert!(read(&path).unwrap().rows.is_empty());
}

#[test]
fn a_file_that_is_there_is_not_overwritten() {
    let (_directory, path) = place();
    fs::write(&path, "mine").unwrap();
    let error = Writer::create(&path, 10).unwrap_err();
    assert!(matches!(error, StoreError::Create { .. }));
    assert_eq!(fs::read(&path).unwrap(), b"mine");
}

#[test]
fn a_file_that_was_cut_off_says_so() {
    let (_directory, path) = place();
    let mut writer = Writer::create(&path, 1000).unwrap();
    writer.begin("eth0");
    writer.write(&[odd(1); 100]).unwrap();
    writer.close().unwrap();
    let whole = fs::read(&path).unwrap();
    for length in [0, 3, 8, whole.len() / 2, whole.len() - 1] {
        fs::write(&path, &whole[..length]).unwrap();
        let error = read(&path).unwrap_err();
        assert!(text(&error).contains("cut off"), "{length}: {error}");
    }
}

/// Writes a file with one column and this metadata.
fn foreign(path: &PathBuf, metadata: Option<(&str, &str)>, schema: &str) {
    let metadata = metadata.map(|(key, value)| vec![KeyValue::new(key.into(), value.to_owned())]);
    let properties = WriterProperties::builder()
        .set_key_value_metadata(metadata)
        .build();
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let file = fs::File::create(path).unwrap();
    let mut writer = SerializedFileWriter::new(file, schema, Arc::new(properties)).unwrap();
    let mut group = writer.next_row_group().unwrap();
    while let Some(mut column) = group.next_column().unwrap() {
        let values = column.typed::<Int64Type>();
        values.write_batch(&[1, 2, 3], None, None).unwrap();
        column.close().unwrap();
    }
    group.close().unwrap();
    writer.close().unwrap();
}

#[test]
fn files_of_others_and_of_other_versions_are_refused_by_name() {
    let (_directory, path) = place();
    let schema = "message other { required int64 time_ns; }";
    foreign(&path, None, schema);
    assert!(text(&read(&path).unwrap_err()).contains("not written by treeline"));
    foreign(&path, Some((SCHEMA_KEY, "999")), schema);
    let error = text(&read(&path).unwrap_err());
    assert!(
        error.contains("999") && error.contains("record it anew"),
        "{error}"
    );
    foreign(&path, Some((SCHEMA_KEY, "1")), schema);
    assert!(text(&read(&path).unwrap_err()).contains("no column \"session\""));
}

#[test]
fn a_column_of_another_type_is_named() {
    let (_directory, path) = place();
    let all: Vec<String> = columns()
        .iter()
        .map(|column| format!("required int64 {};", column.name))
        .collect();
    let schema = format!("message other {{ {} }}", all.join(" "));
    foreign(&path, Some((SCHEMA_KEY, "1")), &schema);
    let error = text(&read(&path).unwrap_err());
    assert!(
        error.contains("\"session\"") && error.contains("UINT_32"),
        "{error}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_damaged_file_is_an_error_or_rows_and_never_a_panic(
        places in proptest::collection::vec((0usize..20_000, any::<u8>()), 1..8)
    ) {
        let (_directory, path) = place();
        let mut writer = Writer::create(&path, 1000).unwrap();
        writer.begin("eth0");
        writer.write(&Vec::from_iter((0..50).map(odd))).unwrap();
        writer.close().unwrap();
        let mut bytes = fs::read(&path).unwrap();
        for (place, byte) in places {
            let length = bytes.len();
            bytes[place % length] = byte;
        }
        fs::write(&path, bytes).unwrap();
        drop(read(&path));
    }
}

#[test]
fn the_documentation_lists_the_columns_as_they_are() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/dataset.md");
    let page = fs::read_to_string(path).unwrap();
    let table = documentation();
    assert!(
        page.contains(&table),
        "docs/dataset.md must hold this table:\n{table}"
    );
    assert!(page.contains(&format!("`treeline.schema` is `{SCHEMA}`")));
}
