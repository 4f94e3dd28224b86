use super::*;
use crate::testing::{readings, spec};
use arrow::array::{ArrayRef, Int64Array, StringViewArray, TimestampMicrosecondArray};
use arrow::row::{RowConverter, SortField};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use policy::Due;
use proptest::prelude::*;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use world::LocalDisk;
use xxhash_rust::xxh3::xxh3_64;

/// The rows in the order of (key, event time), by comparing whole keys; rows equal in both keep their order.
fn sorted(rows: &RecordBatch, key: &[String]) -> Result<RecordBatch, arrow::error::ArrowError> {
    let columns: Vec<ArrayRef> =
        key.iter().map(String::as_str).chain([EVENT_TIME]).filter_map(|c| rows.column_by_name(c).cloned()).collect();
    let converter = RowConverter::new(columns.iter().map(|c| SortField::new(c.data_type().clone())).collect())?;
    let keys = converter.convert_columns(&columns)?;
    let mut order: Vec<u32> = (0..rows.num_rows() as u32).collect();
    order.sort_by(|&a, &b| keys.row(a as usize).cmp(&keys.row(b as usize)));
    take_record_batch(rows, &UInt32Array::from(order))
}

fn rows_of(path: &Path) -> RecordBatch {
    let file = std::fs::File::open(path).unwrap();
    let batches: Vec<_> = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap().collect::<Result<_, _>>().unwrap();
    concat_batches(&spec().schema, &batches).unwrap()
}

#[test]
fn a_segment_is_sorted_and_says_what_is_inside() {
    let dir = tempfile::tempdir().unwrap();
    let rows = readings(&[("b", 5, 1.0), ("a", 9, 2.0), ("b", 3, 3.0), ("a", 9, 4.0)]);
    let segment = write_segment(&LocalDisk, dir.path(), "s.parquet", &spec(), 7, &[rows.slice(0, 2), rows.slice(2, 2)]).unwrap().unwrap();
    assert_eq!((segment.rows, segment.epoch, segment.min_time, segment.max_time), (4, 7, 3, 9));
    assert_eq!((segment.min_key.as_str(), segment.max_key.as_str()), ("a", "b"));
    let bytes = std::fs::read(dir.path().join("s.parquet")).unwrap();
    assert_eq!((segment.bytes, segment.checksum), (bytes.len() as u64, xxh3_64(&bytes)));
    assert_eq!(rows_of(&dir.path().join("s.parquet")), readings(&[("a", 9, 2.0), ("a", 9, 4.0), ("b", 3, 3.0), ("b", 5, 1.0)]));
}

#[test]
fn nothing_is_written_without_rows() {
    let dir = tempfile::tempdir().unwrap();
    assert!(write_segment(&LocalDisk, dir.path(), "s.parquet", &spec(), 1, &[]).unwrap().is_none());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

/// The warm folder of a table with segments of epochs 1.., and a merge of all of them that parts rows before `start`.
struct Warm {
    dir: tempfile::TempDir,
    due: Due,
}

impl Warm {
    fn new(epochs: &[RecordBatch], start: i64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let table = dir.path().join("t");
        std::fs::create_dir(&table).unwrap();
        let write = |(i, rows): (usize, &RecordBatch)| {
            write_segment(&LocalDisk, &table, &format!("{i}.parquet"), &spec(), 1 + i as u64, std::slice::from_ref(rows)).unwrap()
        };
        // The order in which they are given says nothing.
        let segments = epochs.iter().enumerate().filter_map(write).rev().collect();
        Self { dir, due: Due { segments, start } }
    }

    fn table(&self) -> PathBuf {
        self.dir.path().join("t")
    }

    fn merge(&self, stop: bool) -> Result<Vec<Segment>> {
        let (stop, spec) = (AtomicBool::new(stop), spec());
        let names = ["run.parquet", "late.parquet"].map(str::to_owned);
        Merge { disk: &LocalDisk, warm: self.dir.path(), spec: &spec, due: &self.due, names, stop: &stop }.run()
    }
}

type Rows = Vec<(&'static str, i64, f64)>;

fn row() -> impl Strategy<Value = (&'static str, i64, f64)> {
    (prop::sample::select(vec!["a", "b", "c"]), 0i64..20, 0..9).prop_map(|(device, time, v)| (device, time, f64::from(v)))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// A merge gives the rows of its segments in their order, equal ones as the epochs have them, and parts those before the partition.
    #[test]
    fn a_merge_is_a_stable_sort(epochs in prop::collection::vec(prop::collection::vec(row(), 1..30), 1..6), start in 0i64..20) {
        let warm = Warm::new(&epochs.iter().map(|rows| readings(rows)).collect::<Vec<_>>(), start);
        let runs = warm.merge(false).unwrap();
        let all: Rows = epochs.concat();
        for (name, part) in [("run.parquet", true), ("late.parquet", false)] {
            let expected: Rows = all.iter().filter(|(_, time, _)| (*time >= start) == part).copied().collect();
            let run = runs.iter().find(|run| run.file == name);
            prop_assert_eq!(run.is_some(), !expected.is_empty());
            if let Some(run) = run {
                let expected = sorted(&readings(&expected), &spec().key).unwrap();
                let path = warm.table().join(name);
                prop_assert_eq!(&rows_of(&path), &expected);
                let bytes = std::fs::read(&path).unwrap();
                prop_assert_eq!((run.rows, run.bytes, run.checksum), (expected.num_rows() as u64, bytes.len() as u64, xxh3_64(&bytes)));
                prop_assert_eq!(Some((run.min_time, run.max_time)), time_range(&expected));
                let ends = key_ends(&expected, &spec()).unwrap().unwrap();
                prop_assert_eq!((&run.min_key, &run.max_key, run.epoch, run.mark), (&ends.0, &ends.1, epochs.len() as u64, None));
            }
        }
    }
}

#[test]
fn damage_is_told_and_nothing_is_made_of_it() {
    let warm = Warm::new(&[readings(&[("a", 1, 1.0)]), readings(&[("b", 2, 2.0)])], 0);
    let damaged = warm.table().join("1.parquet");
    let mut bytes = std::fs::read(&damaged).unwrap();
    bytes[20] ^= 1;
    std::fs::write(&damaged, bytes).unwrap();
    let error = warm.merge(false).unwrap_err().to_string();
    assert!(error.contains("1.parquet has checksum"), "{error}");
    assert_eq!(std::fs::read_dir(warm.table()).unwrap().count(), 2);
}

#[test]
fn a_merge_that_is_stopped_leaves_nothing() {
    let warm = Warm::new(&[readings(&[("a", 1, 1.0)]), readings(&[("b", 2, 2.0)])], 0);
    assert!(warm.merge(true).unwrap_err().to_string().contains("was stopped"));
    assert_eq!(std::fs::read_dir(warm.table()).unwrap().count(), 2);
}

proptest! {
    #[test]
    fn the_order_is_that_of_whole_keys(
        readings in prop::collection::vec((prop::option::of("[a-c]{0,14}"), prop::option::of(-2i64..3), 0i64..4), 0..60), keys in 0..3usize,
    ) {
        let name: ArrayRef = Arc::new(readings.iter().map(|r| r.0.clone()).collect::<StringViewArray>());
        let number: ArrayRef = Arc::new(readings.iter().map(|r| r.1).collect::<Int64Array>());
        let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from_iter_values(readings.iter().map(|r| r.2)).with_timezone("UTC"));
        let rows = RecordBatch::try_from_iter_with_nullable([("name", name, true), ("number", number, true), (EVENT_TIME, times, false)]).unwrap();
        let key = &["name".to_owned(), "number".to_owned()][..keys];
        prop_assert_eq!(take_record_batch(&rows, &order(&rows, key).unwrap()).unwrap(), sorted(&rows, key).unwrap());
    }
}
