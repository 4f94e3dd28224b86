//! Whatever a table goes through, `t_last` and `DISTINCT ON` hold the newest row of each key, as the view of the moment has it.

use super::*;
use crate::catalog::register;
use crate::hot::HotLimits;
use crate::testing::{readings, spec};
use crate::view::{ColdView, LiveLane};
use crate::warm::write_segment;
use arrow::array::AsArray;
use arrow::datatypes::{Float64Type, TimestampMicrosecondType};
use datafusion::datasource::MemTable;
use datafusion::prelude::SessionContext;
use flow::{Span, WallTime};
use proptest::prelude::*;
use std::path::Path;

const DEVICES: [&str; 4] = ["a", "b", "c", "d"];

/// What happens to a lane.
#[derive(Clone, Debug)]
enum Step {
    /// Rows of the open epoch: device, time.
    Rows(Vec<(usize, i64)>),
    Seal,
    /// Sealed rows leave memory.
    Evict,
    /// All segments that are not hot go to cold.
    Move,
    /// The oldest segment that is not hot goes for good.
    Expire,
    Ask,
}

fn step() -> impl Strategy<Value = Step> {
    let rows = prop::collection::vec((0..4usize, 0i64..40), 1..8).prop_map(Step::Rows);
    prop_oneof![4 => rows, 3 => Just(Step::Seal), 2 => Just(Step::Evict), 1 => Just(Step::Move), 1 => Just(Step::Expire), 4 => Just(Step::Ask)]
}

/// A table of one lane.
struct Table<'a> {
    warm: &'a Path,
    lane: LiveLane,
    whole: Whole,
    record: u64,
    open: Vec<RecordBatch>,
    cold: Vec<RecordBatch>,
    next: f64,
    last: LastRows,
}

impl<'a> Table<'a> {
    fn new(warm: &'a Path, limit: usize) -> Self {
        std::fs::create_dir_all(warm.join("t")).unwrap();
        let whole = Whole { tables: [("t".to_owned(), TableState::default())].into(), ..Whole::default() };
        let lane = LiveLane::new(Lane("l".into()), 0, Arc::new(whole.clone()));
        Self { warm, lane, whole, record: 0, open: vec![], cold: vec![], next: 0.0, last: LastRows::new(&[spec()], limit) }
    }

    fn state(&mut self) -> &mut TableState {
        self.whole.tables.get_mut("t").unwrap()
    }

    fn seal(&mut self) {
        self.record += 1;
        let (folder, file) = (self.warm.join("t"), format!("{}.parquet", self.record));
        let segment = write_segment(&world::LocalDisk, &folder, &file, &spec(), self.record, &std::mem::take(&mut self.open)).unwrap();
        self.state().segments.extend(segment);
        self.lane.seal(self.record, Arc::new(self.whole.clone()), WallTime(0));
    }

    fn go(&mut self, step: &Step) {
        let floor = self.lane.floor("t");
        match step {
            Step::Rows(rows) => {
                let mut number = || {
                    self.next += 1.0;
                    self.next
                };
                let rows = readings(&rows.iter().map(|&(d, t)| (DEVICES[d], t, number())).collect::<Vec<_>>());
                self.lane.push("t", self.record + 1, rows.clone(), None).unwrap();
                self.open.push(rows);
            }
            Step::Seal => self.seal(),
            Step::Evict => {
                let limits = [("t".to_owned(), HotLimits { age: Span(0), bytes: 0 })].into();
                self.lane.evict(WallTime(1), &limits, 0);
            }
            Step::Move => {
                let gone: Vec<_> = self.state().segments.extract_if(.., |s| s.epoch < floor).collect();
                for segment in &gone {
                    let file = std::fs::File::open(self.warm.join("t").join(&segment.file)).unwrap();
                    let rows = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
                    self.cold.extend(rows.map(|batch| batch.unwrap()));
                }
                let moved = self.state().marked + u64::from(!gone.is_empty());
                (self.state().marked, self.state().dropped) = (moved, moved);
                self.seal();
            }
            Step::Expire => {
                let Some(at) = self.state().segments.iter().position(|s| s.epoch < floor) else { return };
                let rows = self.state().segments.remove(at).rows;
                *self.whole.counters.entry("table.t.expired".to_owned()).or_default() += rows;
                self.seal();
            }
            Step::Ask => {}
        }
    }

    fn session(&self) -> SessionContext {
        let mut view = View { warm: self.warm.to_owned(), lanes: vec![self.lane.view().unwrap()], ..View::default() };
        if !self.cold.is_empty() {
            let schema = self.cold[0].schema();
            let provider = Arc::new(MemTable::try_new(schema, vec![self.cold.clone()]).unwrap());
            let moved = [(Lane("l".into()), self.whole.tables["t"].marked)].into();
            view.cold.insert("t".to_owned(), ColdView { provider, moved, dropped: 0 });
        }
        let session = SessionContext::new();
        register(&session, &[spec()], &Arc::new(view), &self.last).unwrap();
        session
    }
}

/// Device, time and value of the rows of an answer.
async fn ask(session: &SessionContext, sql: &str) -> Vec<(String, i64, f64)> {
    let mut all = vec![];
    for batch in session.sql(sql).await.unwrap().collect().await.unwrap() {
        let device = arrow::compute::cast(batch.column_by_name("device").unwrap(), &arrow::datatypes::DataType::Utf8).unwrap();
        let (value, time) = (batch.column_by_name("v").unwrap(), batch.column_by_name("event_time").unwrap());
        let (value, time) = (value.as_primitive::<Float64Type>(), time.as_primitive::<TimestampMicrosecondType>());
        all.extend((0..batch.num_rows()).map(|i| (device.as_string::<i32>().value(i).to_owned(), time.value(i), value.value(i))));
    }
    all
}

/// Whether `last` has one row of each key, one of the newest. `all` are the rows of the table.
fn is_last(last: &[(String, i64, f64)], all: &[(String, i64, f64)], of: &[&str]) -> bool {
    let newest: BTreeMap<&str, i64> = of.iter().filter_map(|d| Some((*d, all.iter().filter(|r| r.0 == *d).map(|r| r.1).max()?))).collect();
    let found: BTreeMap<&str, i64> = last.iter().map(|r| (r.0.as_str(), r.1)).collect();
    found == newest && last.len() == newest.len() && last.iter().all(|row| all.contains(row))
}

async fn compare(table: &Table<'_>) -> Result<(), TestCaseError> {
    let session = table.session();
    let all = ask(&session, "SELECT * FROM t").await;
    let of_all = ["SELECT * FROM t_last", "SELECT DISTINCT ON (device) * FROM t ORDER BY device, event_time DESC"];
    let of_one = [
        "SELECT v, event_time, device FROM t_last WHERE device = 'b'",
        "SELECT DISTINCT ON (r.device) * FROM t r WHERE device = 'b' ORDER BY r.device, r.event_time DESC",
    ];
    for (sql, of) in of_all.map(|sql| (sql, &DEVICES[..])).into_iter().chain(of_one.map(|sql| (sql, &["b"][..]))) {
        let last = ask(&session, sql).await;
        prop_assert!(is_last(&last, &all, of), "{}: {:?} of {:?}", sql, last, all);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn the_newest_row_of_each_key_is_the_one_of_the_view(steps in prop::collection::vec(step(), 1..24), limit in prop_oneof![Just(usize::MAX), Just(0)]) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let mut table = Table::new(dir.path(), limit);
        for step in steps.iter().chain([&Step::Ask]) {
            table.go(step);
            if matches!(step, Step::Ask) {
                runtime.block_on(compare(&table))?;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_read_once_is_not_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut table = Table::new(dir.path(), usize::MAX);
    for step in [Step::Rows(vec![(0, 1), (1, 2)]), Step::Seal, Step::Evict] {
        table.go(&step);
    }
    assert_eq!(ask(&table.session(), "SELECT * FROM t_last").await.len(), 2);
    table.go(&Step::Rows(vec![(1, 3), (2, 3)]));
    table.go(&Step::Seal);
    std::fs::remove_dir_all(dir.path().join("t")).unwrap();
    let mut last = ask(&table.session(), "SELECT * FROM t_last").await;
    last.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(last, [("a".to_owned(), 1, 1.0), ("b".to_owned(), 3, 3.0), ("c".to_owned(), 3, 4.0)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_order_or_key_is_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let mut table = Table::new(dir.path(), usize::MAX);
    table.go(&Step::Rows(vec![(0, 1), (0, 2), (1, 2)]));
    let session = table.session();
    let first = ask(&session, "SELECT DISTINCT ON (device) * FROM t ORDER BY device, event_time").await;
    assert_eq!(first[0], ("a".to_owned(), 1, 1.0));
    let warm = ask(&session, "SELECT DISTINCT ON (device) * FROM t WHERE v < 2 ORDER BY device, event_time DESC").await;
    assert_eq!(warm, [("a".to_owned(), 1, 1.0)]);
    let by_time = ask(&session, "SELECT DISTINCT ON (event_time) * FROM t ORDER BY event_time, v DESC").await;
    assert_eq!(by_time.len(), 2);
}
