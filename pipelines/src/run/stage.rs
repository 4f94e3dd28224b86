//! The log of a second stage: what the lanes of a family have sealed for it, merged into one order.
//!
//! Each exit of each lane is a log of rows whose marks never fall, with a bound: the mark of the next row, or the watermark that the lane
//! announced where there is none. The row with the least mark comes next, of equal ones that of the first log; W is the least bound. So the order is
//! that of a single lane, whichever lane is faster and wherever epochs end.
//!
//! A lane that has announced no watermark is left out. What others sealed counts only as far as such a lane has read the log that they share:
//! otherwise the first rows of a lane whose seal takes longer would be late. While the first that a lane announced does not count yet, nothing
//! goes on.

use crate::plan::PlannedExit;
use crate::run::columns::with_all;
use crate::run::exits::{packed_marks, unpack};
use crate::run::lane::Event;
use crate::run::outlets::{Outlets, log_name, progress};
use arrow::array::RecordBatch;
use flow::{EventTime, Offset, Positions, Result};
use std::collections::VecDeque;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use storage::epoch::{ExitFile, ExitState, Whole};
use storage::outbox::read_exit;
use world::{Bug, World, planted};

/// See the page.
pub(crate) struct StageFeed {
    pub(crate) outlets: Arc<Outlets>,
    world: World,
    outbox: PathBuf,
    /// Of the newest record at the start: where the logs of a lane begin that is new here.
    positions: Positions,
    feeders: Vec<Feeder>,
    logs: Vec<Log>,
    /// The watermark that was given out last.
    told: EventTime,
    /// The lanes have come to their end: nothing is waited for that is not there.
    ended: bool,
    reading: Option<Reading>,
}

type Reading = Pin<Box<dyn Future<Output = Result<(usize, u64, Vec<RecordBatch>)>> + Send>>;

/// A lane of the first stage.
struct Feeder {
    /// What of its records counts here.
    seen: Arc<Whole>,
    /// A newer one that waits for slower lanes.
    waiting: Option<Arc<Whole>>,
}

/// One exit of one lane.
struct Log {
    feeder: usize,
    exit: usize,
    name: Arc<str>,
    /// Number of the next row.
    next: u64,
    /// Rows that were read and not given out.
    rows: VecDeque<RecordBatch>,
}

/// What to do next.
enum Step {
    /// Read a file for a log.
    Read(usize, ExitFile),
    /// Give out the first rows of a log.
    Give(usize, usize),
    /// W has moved on.
    Reach(EventTime),
    /// Nothing.
    Wait,
}

impl StageFeed {
    /// The feed of a stage that stands at these positions and this watermark.
    pub(crate) fn new(outlets: Arc<Outlets>, world: &World, outbox: PathBuf, positions: &Positions, w: EventTime) -> Self {
        let positions = positions.clone();
        Self { feeders: vec![], logs: vec![], outlets, world: world.clone(), outbox, positions, told: w, ended: false, reading: None }
    }

    /// The next events. Safe to cancel.
    pub(crate) async fn next(&mut self) -> Result<Vec<Event>> {
        loop {
            if let Some(reading) = &mut self.reading {
                let read = reading.await;
                self.reading = None;
                let (log, first, batches) = read?;
                self.logs[log].put(first, batches);
            }
            self.refresh();
            match self.step() {
                Step::Read(log, file) => self.reading = Some(self.read(log, file)),
                Step::Give(log, rows) => return Ok(vec![self.give(log, rows)?]),
                Step::Reach(w) => {
                    self.told = w;
                    return Ok(vec![Event::Reached(w)]);
                }
                Step::Wait => self.outlets.news().await,
            }
        }
    }

    /// The lanes have come to their end: what is there is given out, though some lane's watermark lies behind it.
    pub(crate) fn end(&mut self) {
        self.ended = true;
    }

    /// Whether something is there that was not given out.
    pub(crate) fn is_behind(&mut self) -> bool {
        self.refresh();
        self.reading.is_some() || self.feeders.iter().any(|f| f.waiting.is_some()) || !matches!(self.step(), Step::Wait)
    }

    /// How far a log was taken in a sealed record, told to the lane that keeps it.
    pub(crate) fn sealed(&self, positions: &Positions) {
        for log in &self.logs {
            self.outlets.take(log.feeder, log.exit, positions.next(&log.name).0 + u64::from(planted(Bug::OutboxCutTooEarly)));
        }
    }

    /// Takes the lanes in that are new. What a start finds counts under the same rule as what is sealed later.
    fn grow(&mut self) {
        if self.reading.is_some() || self.feeders.len() == self.outlets.count() {
            return;
        }
        for feeder in self.feeders.len()..self.outlets.count() {
            self.feeders.push(Feeder { seen: Arc::default(), waiting: None });
            for (exit, planned) in self.outlets.exits.iter().enumerate() {
                let name: Arc<str> = log_name(&self.outlets.name(feeder), planned).into();
                let next = self.positions.next(&name).0;
                self.logs.push(Log { feeder, exit, next, name, rows: VecDeque::new() });
            }
        }
        // The order does not depend on which lane came first; lanes that are numbered stand in the order of their numbers.
        let rank = |log: &Log| (log.name.len(), log.name.clone());
        self.logs.sort_by_cached_key(rank);
    }

    /// Takes note of what the lanes have sealed.
    fn refresh(&mut self) {
        self.grow();
        let newest: Vec<_> = (0..self.feeders.len()).map(|feeder| self.outlets.newest(feeder)).collect();
        // So far every lane without a watermark has read.
        let silent = newest.iter().enumerate().filter(|(_, whole)| !has_announced(&self.outlets.exits, whole));
        let read = silent.map(|(feeder, whole)| self.outlets.reach(feeder, whole)).min().unwrap_or(u64::MAX);
        let outlets = self.outlets.clone();
        let counts = |whole: &Arc<Whole>| !has_announced(&outlets.exits, whole) || progress(whole) <= read;
        for (feeder, newest) in self.feeders.iter_mut().zip(newest) {
            if let Some(waiting) = feeder.waiting.take_if(|waiting| counts(waiting)) {
                feeder.seen = waiting;
            }
            if feeder.waiting.is_none() && !Arc::ptr_eq(&feeder.seen, &newest) {
                match counts(&newest) {
                    true => feeder.seen = newest,
                    false => feeder.waiting = Some(newest),
                }
            }
        }
    }

    fn step(&self) -> Step {
        if self.feeders.iter().any(|f| f.waiting.is_some() && !has_announced(&self.outlets.exits, &f.seen)) {
            return Step::Wait;
        }
        let active: Vec<usize> =
            (0..self.logs.len()).filter(|log| has_announced(&self.outlets.exits, &self.feeders[self.logs[*log].feeder].seen)).collect();
        for log in &active {
            if let Some(file) = self.unread(*log) {
                return Step::Read(*log, file.clone());
            }
        }
        let waits = |log: &usize| !self.ended || !self.logs[*log].rows.is_empty();
        let mut bounds: Vec<(i64, usize)> = active.into_iter().filter(waits).map(|log| (self.bound(log), log)).collect();
        bounds.sort_unstable();
        let Some((least, log)) = bounds.first().copied() else { return Step::Wait };
        let Some(rows) = self.logs[log].rows.front() else {
            let least = if planted(Bug::FastestLaneCounts) { bounds.last().map_or(least, |last| last.0) } else { least };
            return if least > self.told.0 { Step::Reach(EventTime(least)) } else { Step::Wait };
        };
        let goes = |mark: &&i64| bounds.get(1).is_none_or(|second| (**mark, log) < *second);
        Step::Give(log, packed_marks(rows).iter().take_while(goes).count())
    }

    /// The file that must be read before the next row of a log is known.
    fn unread(&self, log: usize) -> Option<&ExitFile> {
        let of = &self.logs[log];
        if !of.rows.is_empty() {
            return None;
        }
        self.state(of)?.files.iter().find(|file| file.first + file.rows > of.next)
    }

    fn bound(&self, log: usize) -> i64 {
        let of = &self.logs[log];
        let next = of.rows.front().map(|rows| packed_marks(rows)[0]);
        next.unwrap_or_else(|| self.state(of).map_or(i64::MIN, |exit| exit.watermark))
    }

    fn state(&self, log: &Log) -> Option<&ExitState> {
        self.feeders[log.feeder].seen.outbox.get(&self.outlets.exits[log.exit].name)
    }

    fn read(&self, log: usize, file: ExitFile) -> Reading {
        let (world, dir) = (self.world.clone(), self.outbox.clone());
        Box::pin(async move {
            let disk = world.disk.clone();
            let (first, job) = (file.first, move || read_exit(&*disk, &dir, &file));
            Ok((log, first, world.blocking("the read of an outbox file", job).await??))
        })
    }

    /// Gives out the first rows of a log, of one batch.
    fn give(&mut self, log: usize, rows: usize) -> Result<Event> {
        let of = &mut self.logs[log];
        let front = of.rows.pop_front().expect("a log that gives has rows");
        let (batch, last) = (unpack(&front.slice(0, rows))?, packed_marks(&front)[rows - 1]);
        let exit = &self.outlets.exits[of.exit];
        let batch = exit.schema.as_ref().map_or(Ok(batch.clone()), |schema| with_all(batch, schema))?;
        if rows < front.num_rows() {
            of.rows.push_front(front.slice(rows, front.num_rows() - rows));
        }
        of.next += rows as u64;
        let (name, next) = (of.name.clone(), Offset(of.next + u64::from(planted(Bug::StageReadsTooFar))));
        self.told = self.told.max(EventTime(last));
        Ok(Event::Fed { input: exit.input, log: name, batch, next, watermark: self.told })
    }
}

/// Whether a lane has rows for the second stage, or a watermark.
fn has_announced(exits: &[PlannedExit], whole: &Whole) -> bool {
    let given = exits.iter().filter_map(|exit| whole.outbox.get(&exit.name));
    given.into_iter().any(|exit| exit.next > 0 || exit.watermark > i64::MIN)
}

impl Log {
    /// Takes the rows of a file, the first of which has this number; those that were taken before are left out.
    fn put(&mut self, first: u64, batches: Vec<RecordBatch>) {
        let mut at = first;
        for batch in batches {
            let (rows, skip) = (batch.num_rows() as u64, self.next.saturating_sub(at));
            at += rows;
            if skip < rows {
                self.rows.push_back(batch.slice(skip as usize, (rows - skip) as usize));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Input, PlannedExit};
    use crate::run::exits::pack;
    use arrow::array::{ArrayRef, TimestampMicrosecondArray};
    use flow::{Batch, EVENT_TIME, Origin, WallTime};
    use futures::FutureExt;
    use storage::epoch::ExitChange;
    use storage::outbox::{ExitRows, write_exit};
    use tempfile::TempDir;

    /// Lanes with one exit, and their second stage.
    struct Family {
        folder: TempDir,
        world: World,
        outlets: Arc<Outlets>,
        feed: StageFeed,
    }

    impl Family {
        fn new() -> Self {
            Self::of(2)
        }

        fn of(lanes: usize) -> Self {
            let (folder, world) = (tempfile::tempdir().unwrap(), World::real());
            let exits = vec![PlannedExit { input: Input::Partials(0), name: "all".into(), sources: vec![0], schema: None }];
            let outlets = Arc::new(Outlets::new(exits, false, Positions::default()));
            (0..lanes).for_each(|lane| _ = outlets.add(format!("j/{lane}"), Arc::default()));
            let feed = StageFeed::new(outlets.clone(), &world, folder.path().to_owned(), &Positions::default(), EventTime::MIN);
            Self { folder, world, outlets, feed }
        }

        /// A lane that has read its log up to `read` seals rows with these marks, which are their event times too.
        fn seal(&self, feeder: usize, read: u64, marks: &[i64], watermark: i64) {
            let mut whole = Whole::clone(&self.outlets.newest(feeder));
            let added = (!marks.is_empty()).then(|| {
                let time: ArrayRef = Arc::new(TimestampMicrosecondArray::from(marks.to_vec()).with_timezone("UTC"));
                let origin = Origin { source: format!("lane {feeder}").into(), producer: 0, topic: None, arrival: WallTime(0) };
                let batch = Batch::new(RecordBatch::try_from_iter([(EVENT_TIME, time)]).unwrap(), Arc::new(origin)).unwrap();
                let first = whole.outbox.get("all").map_or(0, |exit| exit.next);
                let rows = ExitRows { exit: "all".into(), first, rows: vec![pack(&batch, marks.to_vec()).unwrap()] };
                write_exit(&*self.world.disk, self.folder.path(), &format!("{feeder}-{read}.outbox"), &rows).unwrap()
            });
            let mut change = storage::epoch::Change::default();
            change.positions.advance(&"j".into(), Offset(read));
            change.outbox.insert("all".into(), ExitChange { watermark, added, taken: None });
            whole.fold(&change).unwrap();
            self.outlets.seal(feeder, Arc::new(whole));
        }

        /// All that it gives out by itself, as words: lane, marks and W, or W alone.
        async fn given(&mut self) -> Vec<String> {
            let mut words = vec![];
            while self.feed.is_behind() {
                for event in self.feed.next().await.unwrap() {
                    words.push(match event {
                        Event::Fed { batch, watermark, next, .. } => {
                            format!("{} {:?} to {} W {}", batch.origin().source, batch.times(), next.0, watermark.0)
                        }
                        Event::Reached(w) => format!("W {}", w.0),
                        _ => panic!("another event"),
                    });
                }
            }
            assert!(self.feed.next().now_or_never().is_none(), "nothing more");
            words
        }
    }

    #[tokio::test]
    async fn rows_of_all_lanes_come_in_the_order_of_their_marks_whenever_they_are_sealed() {
        let mut family = Family::new();
        family.seal(0, 1, &[1, 4, 4, 9], 9);
        assert!(family.feed.next().now_or_never().is_none(), "lane 1 has read nothing yet");
        family.seal(1, 1, &[2, 4], 5);
        assert_eq!(
            family.given().await,
            ["lane 0 [1] to 1 W 1", "lane 1 [2] to 1 W 2", "lane 0 [4, 4] to 3 W 4", "lane 1 [4] to 2 W 4", "W 5"]
        );
        family.seal(1, 2, &[9], 20);
        assert_eq!(family.given().await, ["lane 0 [9] to 4 W 9"], "of equal marks the first lane's");
        family.seal(0, 2, &[], 12);
        assert_eq!(family.given().await, ["lane 1 [9] to 3 W 9", "W 12"]);
    }

    #[tokio::test]
    async fn what_a_lane_seals_counts_when_those_without_a_watermark_have_read_as_far() {
        let mut family = Family::new();
        family.seal(0, 7, &[3], 5);
        family.seal(1, 6, &[], i64::MIN);
        assert!(family.feed.next().now_or_never().is_none(), "lane 1 may have rows between 6 and 7");
        family.seal(0, 9, &[6], 8);
        family.seal(1, 8, &[], i64::MIN);
        assert!(family.feed.is_behind());
        let first = family.feed.next().await.unwrap();
        assert!(matches!(&first[..], [Event::Fed { watermark: EventTime(3), .. }]), "the record of 7 counts, that of 9 does not");
        family.seal(1, 9, &[], i64::MIN);
        assert_eq!(family.given().await, ["lane 0 [6] to 2 W 6", "W 8"]);
    }

    #[tokio::test]
    async fn a_start_waits_for_a_lane_that_had_not_sealed_as_much() {
        let mut family = Family::new();
        family.seal(0, 9, &[6], 8);
        let (outlets, folder) = (family.outlets.clone(), family.folder.path().to_owned());
        family.feed = StageFeed::new(outlets, &family.world, folder, &Positions::default(), EventTime::MIN);
        assert!(family.feed.next().now_or_never().is_none(), "lane 1 may have rows below 9");
        family.seal(1, 9, &[2], 3);
        assert_eq!(family.given().await, ["lane 1 [2] to 1 W 2", "W 3"]);
    }

    #[tokio::test]
    async fn nothing_goes_on_without_a_lane_whose_first_rows_do_not_count_yet() {
        let mut family = Family::of(3);
        family.seal(0, 40, &[6], 50);
        family.seal(1, 60, &[2], 55);
        family.seal(2, 50, &[], i64::MIN);
        assert!(family.feed.next().now_or_never().is_none(), "lane 1 has rows, and lane 2 may have some below 60");
        family.seal(2, 61, &[], i64::MIN);
        assert_eq!(family.given().await, ["lane 1 [2] to 1 W 2", "lane 0 [6] to 1 W 6", "W 50"]);
    }

    #[tokio::test]
    async fn of_logs_of_their_own_nothing_counts_until_each_lane_has_rows_or_has_found_none() {
        let mut family = Family::of(0);
        let exits = family.outlets.exits.clone();
        family.outlets = Arc::new(Outlets::new(exits, true, Positions::default()));
        ["k/0", "k/1"].into_iter().for_each(|name| _ = family.outlets.add(name.into(), Arc::default()));
        family.feed =
            StageFeed::new(family.outlets.clone(), &family.world, family.folder.path().to_owned(), &Positions::default(), EventTime::MIN);
        family.seal(0, 1_000, &[6], 8);
        family.seal(1, 2_000, &[], i64::MIN);
        assert!(family.feed.next().now_or_never().is_none(), "lane 1 may have rows before 6, however far it has read");
        family.outlets.has_nothing(1);
        assert_eq!(family.given().await, ["lane 0 [6] to 1 W 6", "W 8"]);
        family.outlets.add("k/2".into(), Arc::default());
        family.seal(0, 1_001, &[9], 10);
        assert!(family.feed.next().now_or_never().is_none(), "a lane that is new is waited for");
        family.seal(2, 3, &[9], 9);
        assert_eq!(family.given().await, ["lane 0 [9] to 2 W 9", "lane 2 [9] to 1 W 9"]);
    }

    #[tokio::test]
    async fn at_the_end_nothing_waits_for_a_slow_lane() {
        let mut family = Family::new();
        family.seal(0, 1, &[5, 8], 9);
        family.seal(1, 1, &[], 2);
        assert_eq!(family.given().await, ["W 2"]);
        family.feed.end();
        assert_eq!(family.given().await, ["lane 0 [5, 8] to 2 W 8"]);
    }
}
