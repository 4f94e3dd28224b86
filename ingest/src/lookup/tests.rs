//! Files as versions: what each form gives, what is wrong with its line, and when a change counts.

use super::*;
use arrow::array::{ArrayRef, AsArray, Float64Array, RecordBatch, StringArray};
use arrow::datatypes::{Float64Type, TimestampMicrosecondType};
use std::fs;
use std::sync::Arc;

const CSV: &str = "id,since,limit,note\na,2026-01-01T00:00:00Z,1.5,x\n\"b\",2026-01-02T00:00:00Z,,\"two\nlines\"\n";

fn options(path: &str, more: &str) -> LookupOptions {
    let columns = "columns = { id = { type = \"utf8\" }, since = { type = \"timestamp\" }, limit = { type = \"float64\" } }";
    toml::from_str(&format!("path = \"{path}\"\nkey = [\"id\"]\n{columns}\n{more}\n")).unwrap()
}

fn read(path: &str, more: &str, text: &str) -> Result<LookupVersion, String> {
    let options = options(path, more);
    parse(&options.shape("sites").unwrap(), &options, path, text.as_bytes().to_vec()).map_err(|e| e.to_string())
}

fn shown(version: &LookupVersion) -> Vec<(String, Option<i64>, Option<f64>)> {
    let (id, since) = (version.rows.column(0).as_string_view(), version.rows.column(1).as_primitive::<TimestampMicrosecondType>());
    let limit = version.rows.column(2).as_primitive::<Float64Type>();
    (0..version.rows.num_rows())
        .map(|row| (id.value(row).to_owned(), since.iter().nth(row).unwrap().map(|t| t / 1_000_000), limit.iter().nth(row).unwrap()))
        .collect()
}

#[test]
fn csv_and_json_of_the_same_rows_are_the_same_table() {
    let lines = "{\"id\":\"a\",\"since\":\"2026-01-01T00:00:00Z\",\"limit\":1.5}\n\n{\"id\":\"b\",\"since\":\"2026-01-02T00:00:00Z\",\"limit\":null}\n";
    let array = format!("[{}]", lines.trim().replace("\n\n", ",\n"));
    let expected = vec![("a".to_owned(), Some(1_767_225_600), Some(1.5)), ("b".to_owned(), Some(1_767_312_000), None)];
    for (path, text) in [("x.csv", CSV), ("x.ndjson", lines), ("x.json", array.as_str()), ("x.json", lines)] {
        assert_eq!(shown(&read(path, "valid_from = \"since\"", text).unwrap()), expected, "{path}");
    }
}

#[test]
fn parquet_is_cast_to_the_declared_types() {
    let id: ArrayRef = Arc::new(StringArray::from(vec!["a", "b"]));
    let limit: ArrayRef = Arc::new(arrow::array::Int32Array::from(vec![1, 2]));
    let more: ArrayRef = Arc::new(Float64Array::from(vec![0.0, 0.0]));
    let rows = RecordBatch::try_from_iter([("more", more), ("limit", limit), ("id", id)]).unwrap();
    let mut writer = parquet::arrow::ArrowWriter::try_new(vec![], rows.schema(), None).unwrap();
    writer.write(&rows).unwrap();
    let bytes = writer.into_inner().unwrap();
    let mut options = options("x.parquet", "");
    let wrong = parse(&options.shape("sites").unwrap(), &options, "x.parquet", bytes.clone()).unwrap_err();
    assert_eq!(wrong.to_string(), "x.parquet: it has no column `since`");
    options.columns.shift_remove("since");
    let version = parse(&options.shape("sites").unwrap(), &options, "x.parquet", bytes).unwrap();
    assert_eq!(version.rows.column(1).as_primitive::<Float64Type>().values(), &[1.0, 2.0]);
    assert_eq!(version.rows.column(0).as_string_view().value(1), "b");
}

#[test]
fn what_is_wrong_has_its_line() {
    let wrong = |path: &str, more: &str, text: &str| read(path, more, text).unwrap_err();
    let header = "id,since,limit\n";
    let says = |text: String, part: &str| assert!(text.contains(part), "{text}");
    says(wrong("x.csv", "", &format!("{header}a,,1\n\nb,,high\n")), "x.csv:4: column limit: `high`");
    says(wrong("x.csv", "", &format!("{header}a,,1\nb,,2,3\n")), "x.csv:3: at least 4 fields");
    says(wrong("x.csv", "", &format!("{header}a,,1\na,,2\n")), "x.csv:3: line 3 has the same `id` as line 2");
    says(wrong("x.csv", "valid_from = \"since\"", &format!("{header}a,,1\n")), "x.csv:2: `since` of line 2 is missing");
    says(wrong("x.csv", "", &format!("{header},,1\n")), "x.csv:2: key column id is missing");
    says(wrong("x.csv", "", "id,limit\na,1\n"), "x.csv:1: the header has no field `since`");
    says(wrong("x.csv", "", ""), "x.csv: it is empty");
    says(wrong("x.json", "", "[{\"id\":\"a\"},\n{\"id\":1}]"), "x.json:2: column id");
    says(wrong("x.json", "", "[{\"id\":\"a\"},\n{\"id\":"), "x.json:2: EOF");
    says(wrong("x.ndjson", "", "{\"id\":\"a\"}\n{\"id\":\n"), "x.ndjson:2: ");
    says(wrong("x.csv", "max_rows = 1", &format!("{header}a,,1\nb,,1\n")), "x.csv: it has 2 rows, max_rows is 1");
    says(wrong("x.csv", "max_bytes = \"1B\"", header), "x.csv: it is larger than max_bytes, 1 bytes");
    says(wrong("x.parquet", "", "no parquet"), "x.parquet: ");
}

#[test]
fn mistakes_in_the_options_name_their_key() {
    let key = |path: &str, more: &str| options(path, more).shape("sites").unwrap_err().path;
    assert_eq!(key("x.txt", ""), "path");
    assert_eq!(key("x.csv", "valid_from = \"limit\""), "valid_from");
    assert_eq!(key("x.csv", "valid_from = \"when\""), "valid_from");
    assert_eq!(key("x.csv", "max_bytes = \"1GiB\""), "max_bytes");
    let mut no_key = options("x.csv", "");
    no_key.key = vec!["limit".into()];
    assert_eq!(no_key.shape("sites").unwrap_err().path, "key", "a float makes no key");
    no_key.key.clear();
    assert_eq!(no_key.shape("sites").unwrap_err().path, "key");
}

#[test]
fn a_change_counts_when_it_has_stayed_and_a_broken_one_is_told_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.csv");
    let options = options(path.to_str().unwrap(), "");
    let mut lookup = FileLookup::new(options.shape("sites").unwrap(), options);
    assert!(lookup.look().is_err() && lookup.look().unwrap().is_none(), "a missing file is told once");
    fs::write(&path, CSV).unwrap();
    assert!(lookup.look().unwrap().is_none(), "seen once");
    let first = lookup.look().unwrap().unwrap();
    assert!(lookup.look().unwrap().is_none(), "nothing changed");
    fs::write(&path, "id,since,limit\na,,bad\n").unwrap();
    assert!(lookup.look().unwrap().is_none());
    assert!(lookup.look().is_err() && lookup.look().unwrap().is_none(), "a broken file is told once");
    fs::write(&path, CSV).unwrap();
    lookup.look().unwrap();
    assert_eq!(lookup.look().unwrap().unwrap().number, first.number, "what is back after a broken one is the version of before");
}
