//! Drives the moves from warm to cold: looks at what the lanes have marked, moves it, and tells the lanes.

use crate::plan::Plan;
use crate::run::driver::Command;
use crate::run::handles::Handles;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use storage::cold::ColdTable;
use storage::mover::{Damaged, Marked, Mover};
use storage::view::Views;
use tokio_util::sync::CancellationToken;
use world::{Point, World, reach};

/// How often the mover looks for marks.
const LOOK: Duration = Duration::from_millis(250);
/// How long it waits after a failure, doubling up to the second.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// What the moves of a process have done.
#[derive(Debug, Default)]
pub(crate) struct MoveCounts {
    pub(crate) committed: AtomicU64,
    pub(crate) failed: AtomicU64,
    /// Damaged segments that moves have met, by table, as of the last pass.
    pub(crate) damaged: Mutex<BTreeMap<String, u64>>,
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
}

/// A table with a cold tier.
pub(crate) struct MovingTable {
    number: usize,
    mover: Mover,
    every: Duration,
    last: Option<Duration>,
    wait: Duration,
    /// What crashed moves of earlier processes left has been taken away.
    swept: bool,
    /// Damaged segments that were told.
    told: BTreeSet<String>,
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
        Some(MovingTable { number, mover, every: options.commit_every, last: None, wait: BACKOFF.0, swept: false, told: BTreeSet::new() })
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
}

impl MovingTable {
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
                if self.is_due(index) {
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

    fn is_due(&self, index: usize) -> bool {
        let table = &self.tables[index];
        let every = if self.hurry.load(Ordering::Relaxed) { LOOK } else { table.every };
        let every = if table.wait > BACKOFF.0 { table.wait } else { every };
        table.last.is_none_or(|last| self.world.elapsed().saturating_sub(last) >= every)
    }

    async fn pass(&mut self, index: usize) {
        let Ok(views) = self.views.lanes().await else { return };
        let (table, handles) = (&mut self.tables[index], self.lanes.all());
        let marked = |view: &storage::view::LaneView| {
            let handle = handles.iter().find(|h| h.lane == view.lane)?;
            Marked::of(&view.lane.0, &handle.chain, &view.whole, &table.mover.table)
        };
        let marks: Vec<_> = views.iter().filter_map(marked).collect();
        if marks.is_empty() {
            return;
        }
        table.last = Some(self.world.elapsed());
        match table.mover.pass(&marks, self.world.now().0 / 1_000).await {
            Ok(moved) => {
                table.tell(&moved.damaged);
                self.counts.set_damaged(&table.mover.table, moved.damaged.len() as u64);
                if moved.damaged.is_empty() {
                    table.wait = BACKOFF.0;
                } else {
                    self.counts.failed.fetch_add(1, Ordering::Relaxed);
                    table.wait = (table.wait * 2).min(BACKOFF.1);
                }
                if moved.lanes.is_empty() {
                    return;
                }
                self.counts.committed.fetch_add(1, Ordering::Relaxed);
                tracing::info!(table = table.mover.table, rows = moved.rows, bytes = moved.bytes, "moved to cold");
                table.sweep(&moved.lanes).await;
                reach(Point::MoveSwept);
                let number = table.number;
                for (lane, t) in moved.lanes {
                    if let Some(handle) = handles.iter().find(|h| *h.lane.0 == lane) {
                        // A lane that has ended asks again after its next start.
                        let _ = handle.commands.send(Command::Moved { table: number, number: t }).await;
                    }
                }
                reach(Point::MoveTold);
            }
            Err(error) => {
                self.counts.failed.fetch_add(1, Ordering::Relaxed);
                table.wait = (table.wait * 2).min(BACKOFF.1);
                tracing::error!(table = table.mover.table, %error, retry_seconds = table.wait.as_secs(), "a move failed; nothing has changed");
            }
        }
    }
}
