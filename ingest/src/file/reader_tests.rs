//! Small facts about `reader.rs`.

use super::*;
use crate::decode::{Columns, decoder_with};
use arrow::array::AsArray;
use arrow::datatypes::{Int64Type, UInt64Type};
use flate2::write::GzEncoder;
use flow::trail;
use std::fs;
use std::io::Write;
use std::path::Path;

fn reader(dir: &Path, pattern: &str, format: Format, known: &[Position]) -> Result<FileReader> {
    reader_with(&format!("path = '{}/{pattern}'", dir.display()), format, known)
}

fn reader_with(options: &str, format: Format, known: &[Position]) -> Result<FileReader> {
    let options: FileOptions = toml::from_str(options).unwrap();
    let columns: Columns =
        toml::from_str(if format == Format::Csv { "n = { type = 'int64' }" } else { "n = { type = 'int64', path = '$.n' }" }).unwrap();
    let (word, path) = if format == Format::Csv { ("csv", "ts") } else { ("json", "$.ts") };
    let decode = toml::from_str(&format!("format = '{word}'\nevent_time = {{ path = '{path}', format = 'unix_s' }}")).unwrap();
    let decoders = (0..3).map(|_| decoder_with(&decode, &columns, &[], &["n".into()], &options.csv).unwrap()).collect();
    FileReader::open(&"s".into(), options, format, decoders, known, WallTime(7))
}

fn line(n: u64) -> String {
    format!("{{\"ts\":1700000000,\"n\":{n}}}\n")
}

/// (file, row, value)
type Row = (usize, u64, i64);

/// Everything that follows, and (file, row) of the rejects.
fn drain(reader: &mut FileReader) -> (Vec<Row>, Vec<(usize, u64)>) {
    let (mut rows, mut rejects) = (vec![], vec![]);
    while let Some(batch) = reader.next().unwrap() {
        let values = batch.rows.rows().column(0).as_primitive::<Int64Type>().values();
        let numbers = batch.rows.trail_column(trail::OFFSET).unwrap().as_primitive::<UInt64Type>().values();
        rows.extend(numbers.iter().zip(values).map(|(row, value)| (batch.file, *row, *value)));
        rejects.extend(batch.rejects.iter().map(|(row, _)| (batch.file, *row)));
        assert!(numbers.iter().all(|row| *row < batch.next_row.0));
    }
    (rows, rejects)
}

#[test]
fn files_are_read_by_path_and_row_by_row() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("b.json"), format!("\u{feff}{}\n{}", line(3), line(4).trim_end())).unwrap();
    fs::write(dir.path().join("a.json"), format!("{}broken\n{}", line(1), line(2))).unwrap();
    fs::write(dir.path().join("c.txt"), "no match").unwrap();
    let mut reader = reader(dir.path(), "*.json", Format::Json, &[]).unwrap();
    assert_eq!(reader.files().len(), 2);
    assert_eq!(reader.files()[0].file.unwrap().found, WallTime(7));
    let (rows, rejects) = drain(&mut reader);
    assert_eq!(rows, [(0, 0, 1), (0, 2, 2), (1, 0, 3), (1, 2, 4)]);
    assert_eq!(rejects, [(0, 1)]);
}

#[test]
fn going_on_at_a_row_gives_what_reading_through_gives() {
    let dir = tempfile::tempdir().unwrap();
    for (file, rows) in [("a", 0..20_000), ("b", 20_000..50_000)] {
        let text: String = rows.map(line).collect();
        let mut gzip = GzEncoder::new(vec![], flate2::Compression::fast());
        gzip.write_all(text.as_bytes()).unwrap();
        let bytes = if file == "b" { gzip.finish().unwrap() } else { text.into_bytes() };
        fs::write(dir.path().join(file), bytes).unwrap();
    }
    let mut all = reader(dir.path(), "*", Format::Json, &[]).unwrap();
    let (rows, _) = drain(&mut all);
    assert_eq!(rows.len(), 50_000);
    assert!(rows.iter().enumerate().all(|(i, row)| row.2 == i as i64));
    for (file, row, from) in [(0, 0, 0), (0, 19_999, 19_999), (0, 20_000, 20_000), (1, 8_192, 28_192), (1, 30_000, 50_000)] {
        let mut part = reader(dir.path(), "*", Format::Json, &[]).unwrap();
        part.start_at(file, Offset(row));
        assert_eq!(drain(&mut part).0, rows[from..]);
        let mut known = all.files().to_vec();
        known[file].next = Offset(row);
        assert_eq!(drain(&mut reader(dir.path(), "*", Format::Json, &known).unwrap()).0, rows[from..]);
    }
}

#[test]
fn csv_has_a_header_in_every_file() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a"), "n,ts\r\n1,1700000000\r\n,1700000000\r\n").unwrap();
    fs::write(dir.path().join("b"), "ts,\"n\"\n1700000000,\"2\"").unwrap();
    fs::write(dir.path().join("c"), "").unwrap();
    let (rows, rejects) = drain(&mut reader(dir.path(), "*", Format::Csv, &[]).unwrap());
    assert_eq!(rows, [(0, 0, 1), (1, 0, 2)]);
    assert_eq!(rejects, [(0, 1)]);
}

#[test]
fn new_files_come_behind_known_ones() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("m"), line(1)).unwrap();
    let mut first = reader(dir.path(), "*", Format::Json, &[]).unwrap();
    drain(&mut first);
    assert!(!first.look(WallTime(8)).unwrap());
    fs::write(dir.path().join("a"), line(2)).unwrap();
    assert!(first.look(WallTime(9)).unwrap());
    assert_eq!(drain(&mut first).0, [(1, 0, 2)]);
    assert!(first.files()[1].log.ends_with("/a"));
}

#[test]
fn a_file_that_shrank_or_changed_its_head_stops_the_source() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a");
    fs::write(&path, line(1) + &line(2)).unwrap();
    let known = reader(dir.path(), "*", Format::Json, &[]).unwrap().files().to_vec();
    let again = || reader(dir.path(), "*", Format::Json, &known).map(|_| ());
    fs::write(&path, line(1) + &line(2) + &line(3)).unwrap();
    assert!(again().is_ok());
    fs::write(&path, line(1)).unwrap();
    assert!(again().unwrap_err().to_string().contains("bytes"));
    fs::write(&path, line(9) + &line(2)).unwrap();
    assert!(again().unwrap_err().to_string().contains("begin"));
}

#[test]
fn empty_fields_at_the_end_of_a_record_are_fields() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.tsv");
    fs::write(&path, "n\tts\tnote\tmore\n1\t1700000000\t\t\n\n2\t1700000000\t\t\r\n").unwrap();
    let options = format!("path = '{}'\ncsv = {{ delimiter = \"\\t\" }}", path.display());
    let (rows, rejects) = drain(&mut reader_with(&options, Format::Csv, &[]).unwrap());
    assert_eq!((rows, rejects), (vec![(0, 0, 1), (0, 2, 2)], vec![]));
}

#[test]
fn going_back_in_the_middle_leaves_nothing_of_what_was_read_ahead() {
    let dir = tempfile::tempdir().unwrap();
    let text: String = (0..100_000).map(line).collect();
    fs::write(dir.path().join("a"), text).unwrap();
    let mut reader = reader(dir.path(), "*", Format::Json, &[]).unwrap();
    reader.next().unwrap();
    reader.start_at(0, Offset(5));
    let (rows, _) = drain(&mut reader);
    assert_eq!(rows.len(), 99_995);
    assert!(rows.iter().enumerate().all(|(i, row)| *row == (0, i as u64 + 5, i as i64 + 5)));
}

#[test]
fn an_error_comes_behind_what_could_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let text: String = (0..100_000).map(line).collect();
    let mut gzip = GzEncoder::new(vec![], flate2::Compression::none());
    gzip.write_all(text.as_bytes()).unwrap();
    let bytes = gzip.finish().unwrap();
    fs::write(dir.path().join("a"), &bytes[..bytes.len() * 9 / 10]).unwrap();
    let mut reader = reader(dir.path(), "*", Format::Json, &[]).unwrap();
    let mut rows = 0;
    let error = loop {
        match reader.next() {
            Ok(batch) => rows += batch.expect("the file has no end").rows.len(),
            Err(error) => break error,
        }
    };
    assert!((50_000..90_000).contains(&rows), "{rows} rows");
    assert!(error.to_string().contains("reading"), "{error}");
}
