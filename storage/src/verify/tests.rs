use super::*;
use crate::cold::{Cold, ColdTable};
use crate::epoch::{Chain, Change, ExitChange, Fingerprint, Mark, StateChange, TableChange};
use crate::mover::{Marked, Mover};
use crate::outbox::{ExitRows, write_exit};
use crate::state::{StateSave, StateStore};
use crate::testing::{readings, spec};
use crate::warm::write_segment;
use flow::StateWriter;
use std::collections::BTreeMap;
use std::path::PathBuf;
use tempfile::TempDir;
use world::LocalDisk;

const DAY: i64 = 86_400_000_000;

/// A pipeline `p` with one lane: a segment that moved to cold, one that is marked for the next move, one that is warm, state and an outbox.
pub(crate) struct Data {
    pub(crate) folder: TempDir,
    pub(crate) epochs: LocalEpochs,
    pub(crate) cold: Cold,
    chain: Chain,
}

impl Data {
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let epochs = LocalEpochs::new(folder.path(), "p");
        let cold = crate::testing::cold(&folder.path().join("cold"));
        let chain = Chain::from_claimed(epochs.claim("l", &Fingerprint::default(), 1, "here").unwrap());
        let mut data = Self { folder, epochs, cold, chain };
        for (n, stored) in [(0, 2), (1, 4), (2, 6)] {
            let added = data.segment(n);
            let table = TableChange { added: vec![added], ..TableChange::default() };
            let state = if n == 0 { data.state() } else { StateChange::default() };
            let outbox = if n == 0 { data.outbox() } else { BTreeMap::new() };
            data.seal(Change { state, outbox, ..data.change(stored, table) });
        }
        data.mark(1, 0);
        data.move_on().await;
        data.seal(data.change(6, TableChange { dropped: Some(1), ..TableChange::default() }));
        data.mark(2, 1);
        data
    }

    fn segment(&self, n: i64) -> crate::epoch::Segment {
        let folder = self.path("warm/t");
        std::fs::create_dir_all(&folder).unwrap();
        let rows = readings(&[("a", n * DAY + 1, 1.0), ("b", n * DAY + 2, 2.0)]);
        write_segment(&LocalDisk, &folder, &format!("l-1-{n}-0.parquet"), &spec(), self.chain.header().number + 1, &[rows])
            .unwrap()
            .unwrap()
    }

    fn state(&self) -> StateChange {
        let mut save = StateSave::default();
        save.operator("w").append("open", readings(&[("a", 1, 1.0)]));
        StateStore::open(disk(), &self.path("state")).unwrap().finish(&save, &[], &mut self.chain.names()).unwrap()
    }

    fn outbox(&self) -> BTreeMap<String, ExitChange> {
        std::fs::create_dir_all(self.path("outbox")).unwrap();
        let rows = ExitRows { exit: "x".into(), first: 0, rows: vec![readings(&[("a", 1, 1.0)])] };
        let added = write_exit(&LocalDisk, &self.path("outbox"), "l-1-1-9.outbox", &rows).unwrap();
        [("x".to_owned(), ExitChange { watermark: 0, added: Some(added), taken: None })].into()
    }

    pub(crate) fn change(&self, stored: u64, table: TableChange) -> Change {
        Change { counters: [("table.t.stored".to_owned(), stored)].into(), tables: [("t".to_owned(), table)].into(), ..Change::default() }
    }

    pub(crate) fn mark(&mut self, number: u64, segment: i64) {
        let files = vec![format!("l-1-{segment}-0.parquet")];
        self.seal(self.change(6, TableChange { marked: Some(Mark { number, files }), ..TableChange::default() }));
    }

    pub(crate) fn seal(&mut self, change: Change) {
        let record = self.chain.next(change).unwrap().clone();
        self.epochs.seal(&record).unwrap();
        self.chain.sealed();
    }

    /// Brings what is marked into the cold table; the lane does not hear of it.
    pub(crate) async fn move_on(&self) {
        let mover = Mover {
            pipeline: "p".into(),
            table: "t".into(),
            key: spec().key,
            cold: Arc::new(self.cold.clone()) as Arc<dyn ColdTable>,
            disk: disk(),
            warm: self.path("warm/t"),
            incarnation: 1,
            passes: 0.into(),
        };
        let newest = self.epochs.newest("l").unwrap().unwrap();
        let marks = Marked::of("l", &newest.header.chain, &newest.whole, "t").unwrap();
        mover.pass(&[marks], 0).await.unwrap();
    }

    /// Calls with what a pipeline's files are read by.
    pub(crate) async fn with<T>(&self, call: impl AsyncFnOnce(Subject<'_>) -> T) -> T {
        let specs = [spec()];
        let cold = ColdTables::new("p", [("t".to_owned(), self.cold.clone())].into());
        let [warm, state, outbox] = ["warm", "state", "outbox"].map(|name| self.path(name));
        let subject =
            Subject { pipeline: "p", epochs: &self.epochs, warm: &warm, state: &state, outbox: &outbox, specs: &specs, cold: &cold };
        call(subject).await
    }

    pub(crate) async fn verify(&self) -> Report {
        self.with(async |subject| verify(subject).await.unwrap()).await
    }

    /// The only file with this end below a folder.
    pub(crate) fn one(&self, folder: &str, end: &str) -> PathBuf {
        let pattern = format!("{}/**/*{end}", self.path(folder).display());
        let mut found: Vec<PathBuf> = glob::glob(&pattern).unwrap().map(Result::unwrap).collect();
        assert_eq!(found.len(), 1, "{pattern}: {found:?}");
        found.remove(0)
    }

    pub(crate) fn flip(&self, path: &Path, byte: usize) {
        let mut bytes = std::fs::read(path).unwrap();
        bytes[byte] ^= 0xff;
        std::fs::write(path, bytes).unwrap();
    }
}

/// The one damage of a report.
#[track_caller]
fn one(report: &Report) -> &Damage {
    assert_eq!(report.damage.len(), 1, "{report}");
    &report.damage[0]
}

#[tokio::test]
async fn a_directory_that_nobody_harmed_is_sound_at_every_step_of_a_move() {
    let data = Data::new().await;
    let report = data.verify().await;
    assert!(report.is_sound(), "{report}");
    let count = |stored, warm, cold| TableCount { table: "t".into(), stored, warm, cold, removed: 0 };
    assert_eq!(report.tables, [count(6, 4, 2)]);
    // The segment that moved is deleted by its lane, which is not at work here.
    assert_eq!(report.unnamed.iter().map(|u| u.file.rsplit('/').next().unwrap()).collect::<Vec<_>>(), ["l-1-0-0.parquet"]);
    let files: Vec<_> = report.read.iter().map(|(part, read)| (*part, read.files)).collect();
    assert_eq!(files, [(Part::State, 1), (Part::Outbox, 1), (Part::Warm, 2), (Part::Cold, 1)]);
    data.move_on().await;
    let report = data.verify().await;
    assert!(report.is_sound(), "{report}");
    assert_eq!(report.tables, [count(6, 2, 4)], "committed, and the lane has not let the segment go");
}

#[tokio::test]
async fn each_kind_of_file_is_told_when_a_byte_of_it_changes_and_when_it_is_gone() {
    for (folder, end, part, byte) in [
        ("state", ".state", Part::State, 40),
        ("outbox", ".outbox", Part::Outbox, 40),
        ("warm", "2-0.parquet", Part::Warm, 40),
        ("cold", "0.parquet", Part::Cold, 30),
        ("epochs", "6.record", Part::Record, 30),
    ] {
        let data = Data::new().await;
        let path = data.one(folder, end);
        let name = path.file_name().unwrap().to_str().unwrap();
        data.flip(&path, byte);
        let report = data.verify().await;
        let damage = one(&report);
        assert!(damage.part == part && damage.file.ends_with(name), "{damage:?}");
        std::fs::write(&path, &std::fs::read(&path).unwrap()[..20]).unwrap();
        assert_eq!(one(&data.verify().await).part, part);
        if part != Part::Record {
            std::fs::remove_file(&path).unwrap();
            let report = data.verify().await;
            assert!(one(&report).what.contains("missing"), "{report}");
        }
    }
}

#[tokio::test]
async fn damage_inside_a_segment_has_its_place_and_its_rows() {
    let data = Data::new().await;
    let path = data.one("warm", "2-0.parquet");
    data.flip(&path, 8);
    let report = data.verify().await;
    let damage = one(&report);
    assert_eq!((damage.byte, damage.table.as_deref(), damage.lane.as_deref()), (Some(4), Some("t"), Some("l")), "{damage:?}");
    assert!(damage.what.contains("column device") && damage.what.contains("2 rows from 1970-01-03T00:00:00"), "{damage:?}");
}

#[tokio::test]
async fn rows_that_are_twice_or_nowhere_are_counted() {
    let data = Data::new().await;
    // A move without its transaction: the rows stay warm too.
    let snapshot = data.cold.snapshot_or_create().await.unwrap();
    let files = ColdTable::write(&data.cold, &[data.one("warm", "2-0.parquet")], &spec().key, "other", 0).await.unwrap();
    data.cold.commit(&snapshot, &crate::cold::Edit { added: files.clone(), ..crate::cold::Edit::default() }).await.unwrap();
    let report = data.verify().await;
    assert!(one(&report).part == Part::Count && report.damage[0].what.contains("2 rows are there twice"), "{report}");
    // A lane that counts a row which it never wrote.
    let mut data = Data::new().await;
    data.seal(data.change(7, TableChange::default()));
    let report = data.verify().await;
    assert!(one(&report).what.contains("1 rows are in no tier"), "{report}");
}

#[tokio::test]
async fn a_cold_table_that_lost_commits_is_told() {
    let data = Data::new().await;
    std::fs::remove_file(data.one("cold", "1.json")).unwrap();
    let report = data.verify().await;
    assert!(report.damage.iter().any(|d| d.what.contains("commits were lost")), "{report}");
    assert!(report.damage.iter().any(|d| d.part == Part::Count && d.what.contains("2 rows are in no tier")), "{report}");
}

#[tokio::test]
async fn rows_that_a_person_gave_up_are_no_longer_missed() {
    let mut data = Data::new().await;
    let mut change = data.change(6, TableChange { removed: vec!["l-1-2-0.parquet".into()], ..TableChange::default() });
    change.counters.insert("table.t.quarantined".into(), 2);
    data.seal(change);
    let report = data.verify().await;
    assert!(report.is_sound() && report.tables[0].removed == 2, "{report}");
}

#[tokio::test]
async fn rows_that_went_with_their_day_are_no_longer_missed() {
    let mut data = Data::new().await;
    let snapshot = data.cold.snapshot_or_create().await.unwrap();
    let transactions = [(crate::cold::dropped("p", "t"), 3)].into();
    data.cold.commit(&snapshot, &crate::cold::Edit { transactions, ..crate::cold::Edit::default() }).await.unwrap();
    data.seal(data.change(9, TableChange::default()));
    let report = data.verify().await;
    assert!(report.is_sound() && report.tables[0].removed == 3, "{report}");
}
