//! What a query sees: for each lane its newest sealed record and its hot rows, and one snapshot of each cold table for all lanes.
//!
//! A view is made once a query. A row is in exactly one tier of it, without a key to hide duplicates:
//! ```text
//! epoch >= h of (lane, table)                          hot
//! epoch <  h, the segment's move number > t            warm
//! epoch <  h, the segment's move number <= t           cold       t: the lane's version in the cold snapshot
//! of a window that may still be revised                provisional, until its last row comes, which is hot
//! ```
//! `View::take` reads the lanes first and the cold tables after them, and holds `dropped <= t <= marked` for every lane.

use crate::cold::ColdTables;
use crate::epoch::{EpochStore, LocalEpochs, Segment, Whole};
use crate::hot::{Hot, HotLimits, HotTable, Recalled};
use crate::panes::{Identity, Panes};
use arrow::array::RecordBatch;
use async_trait::async_trait;
use datafusion::catalog::TableProvider;
use flow::{Error, EventTime, Lane, Remedy, Result, WallTime};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use world::{Bug, planted};

/// How often a view is tried again when lanes and cold tables do not fit together: a move commits in minutes, not in milliseconds.
const TRIES: usize = 5;

/// One lane at one instant.
#[derive(Clone, Debug)]
pub struct LaneView {
    /// Which lane.
    pub lane: Lane,
    /// The process that has it, where one is known.
    pub owner: Option<Arc<str>>,
    /// Number of the newest sealed record.
    pub record: u64,
    /// All that the record says.
    pub whole: Arc<Whole>,
    /// The running watermark.
    pub watermark: EventTime,
    /// The floor of tables that are not in `hot`.
    pub first: u64,
    /// Hot rows by table.
    pub hot: BTreeMap<String, HotTable>,
    /// Rows of windows that may still be revised, by table.
    pub provisional: BTreeMap<String, Vec<RecordBatch>>,
}

impl LaneView {
    /// The least epoch whose rows of the table are hot.
    #[must_use]
    pub fn floor(&self, table: &str) -> u64 {
        self.hot.get(table).map_or(self.first, |t| t.floor)
    }

    /// Hot rows of the table, oldest first.
    #[must_use]
    pub fn batches(&self, table: &str) -> &[RecordBatch] {
        self.hot.get(table).map_or(&[], |t| &t.batches)
    }

    /// Rows of the table's windows that may still be revised: the newest of each.
    #[must_use]
    pub fn provisional(&self, table: &str) -> &[RecordBatch] {
        self.provisional.get(table).map_or(&[], Vec::as_slice)
    }

    /// The segments of the table that are neither hot nor cold, given the lane's version `moved` in the cold table.
    pub fn segments<'a>(&'a self, table: &str, moved: u64) -> impl Iterator<Item = &'a Segment> + use<'a> {
        let floor = self.floor(table);
        let all = self.whole.tables.get(table).map_or(&[][..], |t| &t.segments);
        all.iter().filter(move |s| {
            s.epoch < floor + u64::from(planted(Bug::HotRowsAlsoWarm))
                && (planted(Bug::MovedRowsAlsoWarm) || s.mark.is_none_or(|mark| mark > moved))
        })
    }
}

/// Where lanes are read from.
#[async_trait]
pub trait Views: Send + Sync {
    /// Every lane, each at one instant of its own.
    async fn lanes(&self) -> Result<Vec<LaneView>>;

    /// Readings that are in a journal and in no lane of this view; 0 where the owner of the lanes answers.
    fn journaled(&self) -> u64 {
        0
    }
}

/// One snapshot of a cold table.
#[derive(Clone, Debug)]
pub struct ColdView {
    /// The rows. Columns are found by name; others than the table's are left out.
    pub provider: Arc<dyn TableProvider>,
    /// The lanes' transaction versions `t`, by name of the lane; a missing one is 0.
    pub moved: BTreeMap<Lane, u64>,
    /// Rows that were dropped with their days since the table's beginning.
    pub dropped: u64,
}

/// Where cold tables are read from.
#[async_trait]
pub trait ColdViews: Send + Sync {
    /// A snapshot of the table, none while it has no cold part. `refresh` asks for the newest instead of a recent one.
    async fn cold(&self, table: &str, refresh: bool) -> Result<Option<ColdView>>;
}

/// What a query sees.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Directory of the warm segments, `<warm>/<table>/<file>`.
    pub warm: PathBuf,
    /// The lanes.
    pub lanes: Vec<LaneView>,
    /// The cold tables by name.
    pub cold: BTreeMap<String, ColdView>,
}

impl View {
    /// A view in which every row of `tables` is in exactly one tier. An error to be tried again when a move never let it come about.
    pub async fn take(warm: PathBuf, views: &dyn Views, cold: Option<&dyn ColdViews>, tables: &[&str]) -> Result<Self> {
        let mut refresh = false;
        for _ in 0..TRIES {
            let mut view = Self { warm: warm.clone(), lanes: views.lanes().await?, cold: BTreeMap::new() };
            if let Some(cold) = cold {
                for table in tables {
                    if let Some(snapshot) = cold.cold(table, refresh).await? {
                        view.cold.insert((*table).to_owned(), snapshot);
                    }
                }
            }
            if view.fits(tables) || planted(Bug::OldSnapshotTaken) {
                return Ok(view);
            }
            refresh = true;
        }
        Err(Error::new(Remedy::Retry, format!("lanes and cold tables did not fit together in {TRIES} tries")))
    }

    /// The lane's transaction version in the cold table; 0 without one.
    #[must_use]
    pub fn moved(&self, table: &str, lane: &Lane) -> u64 {
        self.cold.get(table).and_then(|c| c.moved.get(lane)).copied().unwrap_or(0)
    }

    fn fits(&self, tables: &[&str]) -> bool {
        let fits = |table: &str, lane: &LaneView| {
            let (dropped, marked) = lane.whole.tables.get(table).map_or((0, 0), |t| (t.dropped, t.marked));
            (dropped..=marked).contains(&self.moved(table, &lane.lane))
        };
        tables.iter().all(|table| self.lanes.iter().all(|lane| fits(table, lane)))
    }
}

/// One lane of this process: its thread writes, queries read. Record and hot rows change in one swap.
#[derive(Debug)]
pub struct LiveLane {
    lane: Lane,
    owner: Option<Arc<str>>,
    state: Mutex<LiveState>,
}

#[derive(Debug)]
struct LiveState {
    record: u64,
    whole: Arc<Whole>,
    watermark: EventTime,
    hot: Hot,
    /// By table and operator.
    panes: BTreeMap<(String, usize), Panes>,
}

impl LiveLane {
    /// A lane whose newest sealed record is `record`; rows of later epochs will be hot.
    #[must_use]
    pub fn new(lane: Lane, record: u64, whole: Arc<Whole>) -> Self {
        Self { lane, owner: None, state: Mutex::new(LiveState::new(record, whole)) }
    }

    /// The same, of this process.
    #[must_use]
    pub fn owned_by(self, owner: &str) -> Self {
        Self { owner: Some(owner.into()), ..self }
    }

    /// Which lane.
    #[must_use]
    pub fn lane(&self) -> &Lane {
        &self.lane
    }

    /// Rows of the epoch that record `epoch` will seal; `of`: they are the last of their windows, and the operator that made them.
    pub fn push(&self, table: &str, epoch: u64, rows: RecordBatch, of: Option<usize>) -> Result<()> {
        let mut state = self.state();
        if let Some(panes) = of.and_then(|of| state.panes.get_mut(&(table.to_owned(), of))) {
            panes.settle(&rows)?;
        }
        state.hot.push(table, epoch, rows);
        Ok(())
    }

    /// Rows of windows of the operator `of` that may still be revised, in the place of earlier ones.
    pub fn put_panes(&self, table: &str, of: usize, rows: RecordBatch, identity: &Arc<Identity>) -> Result<()> {
        let mut state = self.state();
        let panes = match state.panes.entry((table.to_owned(), of)) {
            Entry::Occupied(panes) => panes.into_mut(),
            Entry::Vacant(place) => place.insert(Panes::new(identity.clone(), rows.schema_ref())?),
        };
        panes.put(rows)
    }

    /// The running watermark.
    pub fn watermark(&self, watermark: EventTime) {
        self.state().watermark = watermark;
    }

    /// The record is sealed, and its segments count.
    pub fn seal(&self, record: u64, whole: Arc<Whole>, now: WallTime) {
        let mut state = self.state();
        state.hot.seal(record, now);
        state.record = record;
        state.whole = whole;
    }

    /// Lets sealed rows go that are past the limits of their table, and the oldest ones above `all` bytes of all tables.
    pub fn evict(&self, now: WallTime, limits: &BTreeMap<String, HotLimits>, all: u64) {
        self.state().hot.evict(now, limits, all);
    }

    /// Bytes of hot rows of all tables.
    #[must_use]
    pub fn hot_bytes(&self) -> u64 {
        self.state().hot.all_bytes()
    }

    /// Begins anew from a sealed record, as after a restart.
    pub fn rewind(&self, record: u64, whole: Arc<Whole>) {
        let mut state = self.state();
        *state = LiveState::new(record, whole);
    }

    /// The least epoch whose rows of the table are hot or on their way back: moves and compaction take segments below it only.
    #[must_use]
    pub fn floor(&self, table: &str) -> u64 {
        self.state().hot.claimed(table)
    }

    /// The table's epochs from `floor` on are being read back from segments.
    pub fn expect(&self, table: &str, floor: u64) {
        self.state().hot.expect(table, floor);
    }

    /// No rows are being read back any more.
    pub fn expect_nothing(&self) {
        self.state().hot.expect_nothing();
    }

    /// From here on all rows of the table's epochs from `floor` on are hot.
    pub fn put_back(&self, table: &str, floor: u64, epochs: Vec<Recalled>) {
        self.state().hot.put_back(table, floor, epochs);
    }

    /// Bytes of hot rows of the table.
    #[must_use]
    pub fn bytes(&self, table: &str) -> u64 {
        self.state().hot.bytes(table)
    }

    /// The lane at this instant.
    pub fn view(&self) -> Result<LaneView> {
        let state = self.state();
        let mut provisional: BTreeMap<String, Vec<RecordBatch>> = BTreeMap::new();
        for ((table, _), panes) in &state.panes {
            provisional.entry(table.clone()).or_default().extend(panes.snapshot()?);
        }
        Ok(LaneView {
            lane: self.lane.clone(),
            owner: self.owner.clone(),
            record: state.record,
            whole: state.whole.clone(),
            watermark: state.watermark,
            first: state.hot.floor(""),
            hot: state.hot.snapshot(),
            provisional,
        })
    }

    fn state(&self) -> MutexGuard<'_, LiveState> {
        self.state.lock().expect("nothing panics while it holds a lane's view")
    }
}

impl LiveState {
    fn new(record: u64, whole: Arc<Whole>) -> Self {
        Self { record, whole, watermark: EventTime::MIN, hot: Hot::new(record + 1), panes: BTreeMap::new() }
    }
}

/// The lanes of this process.
#[derive(Clone, Debug, Default)]
pub struct Live {
    lanes: Arc<Mutex<BTreeMap<Lane, Arc<LiveLane>>>>,
}

impl Live {
    /// Adds a lane, or puts it in the place of an earlier one of that name.
    pub fn add(&self, lane: Arc<LiveLane>) {
        self.lanes.lock().expect("nothing panics while it holds the lanes").insert(lane.lane.clone(), lane);
    }

    /// Takes a lane out, which another process has from now on.
    pub fn remove(&self, lane: &Lane) {
        self.lanes.lock().expect("nothing panics while it holds the lanes").remove(lane);
    }
}

#[async_trait]
impl Views for Live {
    async fn lanes(&self) -> Result<Vec<LaneView>> {
        let lanes: Vec<_> = self.lanes.lock().expect("nothing panics while it holds the lanes").values().cloned().collect();
        lanes.iter().map(|l| l.view()).collect()
    }
}

/// Lanes as their sealed records tell, without hot rows: for a data directory that nobody owns.
#[derive(Clone, Debug, Default)]
pub struct Stored {
    /// Lane, number of its newest record and what that says.
    pub lanes: Vec<(Lane, u64, Arc<Whole>)>,
}

impl LaneView {
    /// A lane as its newest sealed record tells.
    fn sealed(lane: Lane, record: u64, whole: Arc<Whole>) -> Self {
        let (hot, provisional, watermark) = (BTreeMap::new(), BTreeMap::new(), whole.sealed_watermark());
        Self { lane, owner: None, record, whole, watermark, first: record + 1, hot, provisional }
    }
}

#[async_trait]
impl Views for Stored {
    async fn lanes(&self) -> Result<Vec<LaneView>> {
        Ok(self.lanes.iter().map(|(lane, record, whole)| LaneView::sealed(lane.clone(), *record, whole.clone())).collect())
    }
}

/// The lanes of this process as they are, and those of the others that share its store as their newest sealed records tell.
#[derive(Clone)]
pub struct Shared {
    /// The lanes of this process.
    pub live: Live,
    /// Where all of them seal.
    pub epochs: LocalEpochs,
    /// Learns of lanes whose moves it has to know.
    pub cold: ColdTables,
}

#[async_trait]
impl Views for Shared {
    async fn lanes(&self) -> Result<Vec<LaneView>> {
        let mut views = self.live.lanes().await?;
        let (own, epochs): (BTreeSet<_>, _) = (views.iter().map(|view| view.lane.clone()).collect(), self.epochs.clone());
        let read = move || -> Result<Vec<_>> {
            let others = epochs.lanes()?.into_iter().map(|name| Lane(name.into())).filter(|lane| !own.contains(lane));
            let newest = others.map(|lane| Ok(epochs.newest_of_another(&lane.0)?.map(|newest| (lane, newest))));
            newest.filter_map(Result::transpose).collect()
        };
        let read =
            tokio::task::spawn_blocking(read).await.map_err(|e| Error::stop("reading the records of other instances broke off", e))?;
        for (lane, newest) in read? {
            self.cold.add_lane(lane.clone(), newest.header.chain);
            let owner = Some(newest.header.owner.into());
            views.push(LaneView { owner, ..LaneView::sealed(lane, newest.header.number, newest.whole) });
        }
        Ok(views)
    }
}
