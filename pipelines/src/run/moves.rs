//! Drives the moves from warm to cold, and the upkeep of the cold tables beside them: looks at what the lanes have marked, moves it, tells
//! the lanes, and then does what `upkeep` finds to do. One task does all of it for all tables of the process, so that a table never has two
//! commits under way at once.

use crate::plan::Plan;
use crate::run::breaker::{Backoff, Breakers};
use crate::run::driver::Command;
use crate::run::handles::{Handle, Handles};
use crate::run::tend::{UpkeepPolicy, UpkeepTimes, is_due, overdue, reached, small};
use flow::{Error, Result};
use ingest::lock::DirectoryLock;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use storage::cold::ColdTable;
use storage::mover::{Damaged, Marked, Mover};
use storage::view::{LaneView, Views};
use tokio_util::sync::CancellationToken;
use world::{Point, World, reach};

/// How often the mover looks for marks.
const LOOK: Duration = Duration::from_millis(250);

/// What the moves of a process have done, and the upkeep beside them.
#[derive(Debug, Default)]
pub(crate) struct MoveCounts {
    pub(crate) committed: AtomicU64,
    pub(crate) failed: AtomicU64,
    /// Damaged segments that moves have met, by table, as of the last pass.
    pub(crate) damaged: Mutex<BTreeMap<String, u64>>,
    pub(crate) rewrites: AtomicU64,
    pub(crate) drops: AtomicU64,
    pub(crate) vacuumed: AtomicU64,
    pub(crate) checkpoints: AtomicU64,
    pub(crate) upkeep_failed: AtomicU64,
    pub(crate) stores_down: AtomicU64,
}

impl MoveCounts {
    fn set_damaged(&self, table: &str, segments: u64) {
        self.damaged.lock().expect("nothing panics while it holds the counts").insert(table.to_owned(), segments);
    }

    /// Damaged segments of a table that its last pass met.
    pub(crate) fn damaged(&self, table: &str) -> u64 {
        self.damaged.lock().expect("nothing panics while it holds the counts").get(table).copied().unwrap_or(0)
    }
}

/// Everything the moves of a pipeline need.
pub(crate) struct Moves {
    pub(crate) world: World,
    pub(crate) tables: Vec<MovingTable>,
    pub(crate) lanes: Handles,
    pub(crate) counts: Arc<MoveCounts>,
    /// The pipeline is leaving: what is marked moves at once.
    pub(crate) hurry: Arc<AtomicBool>,
    pub(crate) views: Arc<dyn Views>,
    pub(crate) breakers: Breakers,
    /// Where the movers of instances that share the pipeline take turns.
    pub(crate) others: Option<PathBuf>,
}

/// A table with a cold tier.
pub(crate) struct MovingTable {
    number: usize,
    mover: Mover,
    /// The object store, as its breaker knows it.
    store: String,
    every: Duration,
    last: Option<Duration>,
    backoff: Backoff,
    /// What crashed moves of earlier processes left has been taken away.
    swept: bool,
    /// Damaged segments that were told.
    told: BTreeSet<String>,
    policy: UpkeepPolicy,
    times: UpkeepTimes,
}

/// The tables of a plan that have a cold tier.
pub(crate) fn moving(
    plan: &Plan,
    world: &World,
    cold: &BTreeMap<String, Arc<dyn ColdTable>>,
    warm: &std::path::Path,
    incarnation: u64,
) -> Vec<MovingTable> {
    let moving = |(number, table): (usize, &crate::plan::PlannedTable)| {
        let (options, cold) = (table.options.cold.as_ref()?, cold.get(&table.name)?.clone());
        let warm: PathBuf = warm.join(&table.name);
        let mover = Mover {
            pipeline: plan.name.clone(),
            table: table.name.clone(),
            key: table.key.clone(),
            cold,
            disk: world.disk.clone(),
            warm,
            incarnation,
            passes: AtomicU64::new(0),
        };
        Some(MovingTable {
            number,
            mover,
            store: options.store().to_owned(),
            every: options.commit_every,
            last: None,
            backoff: Backoff::default(),
            swept: false,
            told: BTreeSet::new(),
            policy: UpkeepPolicy::of(&table.options.warm, options),
            times: UpkeepTimes::default(),
        })
    };
    plan.tables.iter().enumerate().filter_map(moving).collect()
}

impl MovingTable {
    /// Once a process, after its first move. What cannot be deleted is only space.
    async fn sweep(&mut self, lanes: &BTreeMap<String, u64>) {
        if std::mem::replace(&mut self.swept, true) {
            return;
        }
        let mover = &self.mover;
        match mover.cold.sweep(mover.incarnation, lanes).await {
            Ok(0) => {}
            Ok(files) => tracing::info!(table = mover.table, files, "removed files of moves that an earlier process left"),
            Err(error) => tracing::warn!(table = mover.table, %error, "files of moves that an earlier process left stay"),
        }
    }

    /// What its cold files need, once something has moved. `ended`: the input is at its end, nothing large is begun.
    async fn keep(&mut self, views: &[LaneView], world: &World, ended: bool, counts: &MoveCounts) -> Result<()> {
        let (mover, now) = (&self.mover, world.now());
        let (elapsed, now_ms) = (world.elapsed(), now.0 / 1_000);
        if let Some(reached) = reached(views.iter().map(|view| view.watermark), now, ended) {
            let newest = mover.cold.newest().await?;
            let files = newest.files().await?;
            if let Some(old) = overdue(&files, &self.policy, reached).filter(|_| self.times.take_drop(elapsed)) {
                tracing::info!(table = mover.table, day = old[0].part, files = old.len(), "dropping a day that is too old");
                mover.drop_files(&*newest, old, now_ms).await?;
                counts.drops.fetch_add(1, Ordering::Relaxed);
            } else if let Some(small) = small(&files, &self.policy, reached).filter(|_| !ended) {
                tracing::info!(table = mover.table, day = small[0].part, files = small.len(), "rewriting small files");
                mover.rewrite(&*newest, small, now_ms).await?;
                counts.rewrites.fetch_add(1, Ordering::Relaxed);
            }
        }
        if self.times.vacuum_is_due(&self.policy, elapsed) {
            let kept_ms = i64::try_from(self.policy.keep_removed.as_millis()).unwrap_or(i64::MAX);
            let gone = mover.cold.vacuum(now_ms.saturating_sub(kept_ms)).await?;
            counts.vacuumed.fetch_add(gone as u64, Ordering::Relaxed);
            self.times.vacuumed = Some(elapsed);
        }
        // After the deletion: a checkpoint forgets files that were let go of long ago.
        if mover.cold.checkpoint().await? {
            counts.checkpoints.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Tells each damaged segment once, with all that a person needs to decide.
    fn tell(&mut self, damaged: &[Damaged]) {
        for Damaged { lane, segment, what } in damaged {
            if !self.told.insert(segment.file.clone()) {
                continue;
            }
            tracing::error!(
                table = self.mover.table,
                lane,
                file = segment.file,
                rows = segment.rows,
                min_time_us = segment.min_time,
                max_time_us = segment.max_time,
                what,
                "a segment is damaged: the move of its lane waits until the file is whole again, or is given up with `tidegate tiers quarantine`"
            );
        }
        self.told.retain(|file| damaged.iter().any(|d| d.segment.file == *file));
    }
}

impl Moves {
    /// Moves until it is stopped. A failure is logged and tried again: until a commit nothing has changed for anyone.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            for index in 0..self.tables.len() {
                if self.may_try(index) {
                    self.pass(index).await;
                }
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = self.world.sleep(LOOK) => {}
            }
        }
    }

    /// Whether neither the table nor its store waits after a failure.
    fn may_try(&self, index: usize) -> bool {
        let (table, now) = (&self.tables[index], self.world.elapsed());
        table.backoff.is_over(now) && self.breakers.lets_through(&table.store, now)
    }

    async fn pass(&mut self, index: usize) {
        let (ended, now) = (self.hurry.load(Ordering::Relaxed), self.world.elapsed());
        let table = &self.tables[index];
        let move_is_due = is_due(table.last, if ended { LOOK } else { table.every }, now);
        let upkeep_is_due = is_due(table.times.looked, table.every, now);
        if !move_is_due && !upkeep_is_due {
            return;
        }
        let Ok(views) = self.views.lanes().await else { return };
        // Two commits at once are no danger, but one of them would be in vain.
        let Some(_turn) = self.turn(&self.tables[index].mover.table) else { return };
        let handles = self.lanes.all();
        if move_is_due {
            let marks = marks(&views, &handles, &table.mover.table);
            if !marks.is_empty() {
                let moved = self.move_to_cold(index, &marks, &handles).await;
                self.note(index, moved, |counts| &counts.failed);
            }
        }
        // A table from which nothing ever moved may not be there.
        let has_moved = |view: &LaneView| view.whole.tables.get(&self.tables[index].mover.table).is_some_and(|state| state.dropped > 0);
        if upkeep_is_due && self.may_try(index) && views.iter().any(has_moved) {
            let table = &mut self.tables[index];
            table.times.looked = Some(now);
            let kept = table.keep(&views, &self.world, ended, &self.counts).await;
            self.note(index, kept, |counts| &counts.upkeep_failed);
        }
    }

    /// The turn to work on a table, as long as it is kept; none while another instance has it.
    fn turn(&self, table: &str) -> Option<Option<DirectoryLock>> {
        let Some(others) = &self.others else { return Some(None) };
        DirectoryLock::take(&*self.world.disk, &others.join(table)).ok().map(Some)
    }

    async fn move_to_cold(&mut self, index: usize, marks: &[Marked], handles: &[Handle]) -> Result<()> {
        let table = &mut self.tables[index];
        let moved = table.mover.pass(marks, self.world.now().0 / 1_000).await?;
        table.last = Some(self.world.elapsed());
        table.tell(&moved.damaged);
        self.counts.set_damaged(&table.mover.table, moved.damaged.len() as u64);
        self.counts.failed.fetch_add(u64::from(!moved.damaged.is_empty()), Ordering::Relaxed);
        if moved.lanes.is_empty() {
            return Ok(());
        }
        self.counts.committed.fetch_add(1, Ordering::Relaxed);
        tracing::info!(table = table.mover.table, rows = moved.rows, bytes = moved.bytes, "moved to cold");
        table.sweep(&moved.lanes).await;
        reach(Point::MoveSwept);
        for (lane, number) in moved.lanes {
            if let Some(handle) = handles.iter().find(|h| *h.lane.0 == lane) {
                // A lane that has ended asks again after its next start.
                let _ = handle.commands.send(Command::Moved { table: table.number, number }).await;
            }
        }
        reach(Point::MoveTold);
        Ok(())
    }

    /// What the store's breaker and the table's waits learn of an outcome.
    fn note(&mut self, index: usize, outcome: Result<()>, failures: fn(&MoveCounts) -> &AtomicU64) {
        let (table, now) = (&mut self.tables[index], self.world.elapsed());
        match outcome {
            Ok(()) => {
                self.breakers.close(&table.store);
                if table.told.is_empty() {
                    table.backoff = Backoff::default();
                } else {
                    // Damage is no fault of the store; a person has to look at it.
                    table.backoff.fail(now, self.world.time.chance());
                }
            }
            Err(error) => {
                failures(&self.counts).fetch_add(1, Ordering::Relaxed);
                let wait = table.backoff.fail(now, self.world.time.chance());
                self.breakers.fail(&table.store, now, self.world.time.chance());
                tell(&table.mover.table, &error, wait);
            }
        }
        self.counts.stores_down.store(self.breakers.open(), Ordering::Relaxed);
    }
}

fn tell(table: &str, error: &Error, wait: Duration) {
    tracing::error!(table, %error, retry_seconds = wait.as_secs(), "work on a cold table failed; nothing has changed");
}

/// What the lanes have marked of a table.
fn marks(views: &[LaneView], handles: &[Handle], table: &str) -> Vec<Marked> {
    let marked = |view: &LaneView| {
        let handle = handles.iter().find(|h| h.lane == view.lane)?;
        Marked::of(&view.lane.0, &handle.chain, &view.whole, table)
    };
    views.iter().filter_map(marked).collect()
}
