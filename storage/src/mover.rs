//! The move from warm to cold: a saga whose register is the Delta log.
//!
//! `sealed (marked in the lanes' records) → written → verified → committed → reclaimed`. Before the commit a failure leaves nothing that
//! anyone sees, and the same marks are tried again; after it the move only goes forward: the lanes are told, and their next records let
//! the segments go. Nothing is remembered elsewhere: after a crash the marks and the log's transactions say what is left to do.

use crate::cold::{ColdTable, ColdVersion, Edit, MoveFile, move_name, transaction};
use crate::epoch::{Segment, Whole};
use crate::warm::check_segment;
use flow::{Error, Remedy, Result};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use world::{Bug, Disk, Point, planted, reach};

/// What a lane has marked of one table.
#[derive(Clone, Debug)]
pub struct Marked {
    /// The lane.
    pub lane: String,
    /// Its chain of records.
    pub chain: String,
    /// The move number.
    pub number: u64,
    /// The marked segments.
    pub segments: Vec<Segment>,
}

impl Marked {
    /// The move that a lane's newest record asks for; none when all of its moves are done.
    #[must_use]
    pub fn of(lane: &str, chain: &str, whole: &Whole, table: &str) -> Option<Self> {
        let state = whole.tables.get(table).filter(|state| state.marked > state.dropped)?;
        let segments = state.segments.iter().filter(|s| s.mark == Some(state.marked)).cloned().collect();
        Some(Self { lane: lane.into(), chain: chain.into(), number: state.marked, segments })
    }
}

/// A table whose segments move.
#[derive(Debug)]
pub struct Mover {
    /// The pipeline's name.
    pub pipeline: String,
    /// The table's name.
    pub table: String,
    /// The columns that its rows are sorted by, before the event time.
    pub key: Vec<String>,
    /// Where the rows go.
    pub cold: Arc<dyn ColdTable>,
    /// Where the segments lie.
    pub disk: Arc<dyn Disk>,
    /// The folder of the table's segments.
    pub warm: PathBuf,
    /// Random, of this process: a file of an earlier one is never written to.
    pub incarnation: u64,
    /// Passes begun: each names its files anew, since the commit of an earlier one may still come.
    pub passes: AtomicU64,
}

/// What a pass of the mover did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// For each lane the highest move number that is now in the cold table.
    pub lanes: BTreeMap<String, u64>,
    /// Rows moved by this pass.
    pub rows: u64,
    /// Bytes of the files that this pass added.
    pub bytes: u64,
    /// What keeps the moves of its lanes waiting.
    pub damaged: Vec<Damaged>,
}

/// A segment that does not hold what was written. Nobody else has its rows, so the move of its lane waits until it is whole again, or until
/// a person gives it up (`crate::quarantine`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damaged {
    /// The lane.
    pub lane: String,
    /// The segment.
    pub segment: Segment,
    /// What is wrong with it.
    pub what: String,
}

impl Mover {
    /// Brings all marks into the cold table in one commit. Marks that are already there are only reported. An error with remedy `Retry`
    /// leaves everything as it was.
    pub async fn pass(&self, marks: &[Marked], now_ms: i64) -> Result<Moved> {
        let snapshot = self.cold.newest().await?;
        let (mut moved, open) = self.sort_out(&*snapshot, marks).await?;
        if open.is_empty() {
            return Ok(moved);
        }
        reach(Point::MoveBegun);
        let open = self.leave_out_damaged(open, &mut moved);
        if open.is_empty() {
            return Ok(moved);
        }
        reach(Point::MoveChecked);
        let segments: Vec<PathBuf> = open.iter().flat_map(|m| &m.segments).map(|s| self.warm.join(&s.file)).collect();
        let expected: u64 = open.iter().flat_map(|m| &m.segments).map(|s| s.rows).sum();
        let files = match segments.is_empty() {
            // All that was marked was given up by a person.
            true => vec![],
            false => self.cold.write(&segments, &self.key, &self.name(open[0]), now_ms).await?,
        };
        let written: u64 = files.iter().map(|f| f.rows).sum();
        if written != expected {
            self.cold.discard(&files).await;
            return Err(Error::new(Remedy::Retry, format!("table {}: {written} rows written for {expected} in the segments", self.table)));
        }
        reach(Point::MoveWritten);
        let transactions: BTreeMap<_, _> = open.iter().map(|m| (self.app(m), m.number)).collect();
        let snapshot = if planted(Bug::CommitOnAnotherSnapshot) { self.cold.newest().await? } else { snapshot };
        let edit = Edit { added: files, transactions, now_ms, ..Edit::default() };
        if let Err(error) = snapshot.commit(&edit).await {
            self.settle(&open, &edit.added, snapshot.number(), error).await?;
        }
        reach(Point::MoveCommitted);
        moved.lanes.extend(open.iter().map(|m| (m.lane.clone(), m.number)));
        moved.rows = written;
        moved.bytes = edit.added.iter().map(|f| f.bytes).sum();
        Ok(moved)
    }

    /// Which marks are in the snapshot already, and which are exactly the next of their lane. Anything else is lost data.
    async fn sort_out<'m>(&self, snapshot: &dyn ColdVersion, marks: &'m [Marked]) -> Result<(Moved, Vec<&'m Marked>)> {
        let (mut moved, mut open) = (Moved::default(), vec![]);
        for mark in marks {
            let t = snapshot.moved(&self.app(mark)).await?;
            if t >= mark.number && !planted(Bug::MovedAgain) {
                moved.lanes.insert(mark.lane.clone(), t);
            } else if t + 1 == mark.number || planted(Bug::MovedAgain) {
                open.push(mark);
            } else {
                let what = format!(
                    "cold table {} has move {t} of lane {}, the lane is at {}: commits were lost",
                    self.table, mark.lane, mark.number
                );
                return Err(Error::new(Remedy::Stop, what));
            }
        }
        Ok((moved, open))
    }

    /// The marks whose segments are all whole: one transaction stands for all segments of a mark. Lanes do not wait for one another.
    fn leave_out_damaged<'m>(&self, open: Vec<&'m Marked>, moved: &mut Moved) -> Vec<&'m Marked> {
        let is_whole = |mark: &&Marked| {
            let before = moved.damaged.len();
            for segment in &mark.segments {
                if let Err(error) = check_segment(&*self.disk, &self.warm, segment) {
                    let (lane, segment) = (mark.lane.clone(), segment.clone());
                    moved.damaged.push(Damaged { lane, segment, what: error.to_string() });
                }
            }
            moved.damaged.len() == before
        };
        open.into_iter().filter(is_whole).collect()
    }

    /// After a commit that failed or whose outcome is unknown: the log decides. Where it does not hold the commit yet, that may still
    /// come, so its files stay; they go only when another commit has taken its place.
    async fn settle(&self, open: &[&Marked], files: &[MoveFile], on: u64, error: Error) -> Result<()> {
        if planted(Bug::UnknownCommitIsSuccess) {
            return Ok(());
        }
        let newest = self.cold.newest().await?;
        for mark in open {
            if newest.moved(&self.app(mark)).await? < mark.number {
                if newest.number() > on || planted(Bug::FilesOfUnknownCommitDeleted) {
                    self.cold.discard(files).await;
                }
                return Err(error);
            }
        }
        Ok(())
    }

    fn app(&self, mark: &Marked) -> String {
        transaction(&self.pipeline, &self.table, &mark.lane, &mark.chain)
    }

    fn name(&self, first: &Marked) -> String {
        let pass = self.passes.fetch_add(1, Ordering::Relaxed);
        format!("{}-{pass}", move_name(self.incarnation, &first.lane, first.number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{readings, spec};
    use crate::warm::write_segment;

    #[tokio::test]
    async fn a_damaged_segment_keeps_its_own_lane_waiting_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let cold = crate::testing::cold(&folder.path().join("cold"));
        let mover = Mover {
            pipeline: "p".into(),
            table: "t".into(),
            key: spec().key,
            cold: Arc::new(cold.clone()),
            disk: world::local_disk(),
            warm: folder.path().to_owned(),
            incarnation: 1,
            passes: 0.into(),
        };
        let mark = |lane: &str| {
            let rows = readings(&[(lane, 1, 1.0)]);
            let segment = write_segment(&world::LocalDisk, folder.path(), &format!("{lane}.parquet"), &spec(), 1, &[rows]).unwrap();
            Marked { lane: lane.into(), chain: "c".into(), number: 1, segments: vec![segment.unwrap()] }
        };
        let marks = [mark("a"), mark("b")];
        let whole = std::fs::read(folder.path().join("a.parquet")).unwrap();
        std::fs::write(folder.path().join("a.parquet"), &whole[1..]).unwrap();
        let moved = mover.pass(&marks, 0).await.unwrap();
        assert_eq!((moved.rows, moved.lanes), (1, [("b".to_owned(), 1)].into()));
        assert_eq!(moved.damaged.iter().map(|d| (d.lane.as_str(), &d.segment)).collect::<Vec<_>>(), [("a", &marks[0].segments[0])]);
        // Back from a backup.
        std::fs::write(folder.path().join("a.parquet"), whole).unwrap();
        let moved = mover.pass(&marks, 0).await.unwrap();
        assert!(moved.rows == 1 && moved.lanes.len() == 2 && moved.damaged.is_empty(), "{moved:?}");
    }
}
