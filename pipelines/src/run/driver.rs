//! The shell of a lane: takes events from its log, its clock and its own close, steps the lane, and performs what it asks for.
//!
//! The lane's task never waits for a disk: segments, state and the record are written on other threads, one close at a time.

use crate::relay::Link;
use crate::run::close::{seal, write_out};
use crate::run::compact::compact;
use crate::run::feed::{Feed, Taken, tick};
use crate::run::lane::{Action, Event, Gone, Lane};
use crate::run::memory::{LaneMemory, Memory};
use crate::run::outlets::{NOTHING, Outlets, TIMER};
use crate::run::recall::{Back, recall, wanted};
use crate::run::status::LaneStatus;
use arrow::array::{AsArray, RecordBatch};
use arrow::compute::max;
use arrow::datatypes::TimestampMicrosecondType;
use flow::{EVENT_TIME, Epoch, EventTime, LookupVersion, Metric, Offset, Result, Span};
use ingest::journal::JournalHandle;
use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use storage::epoch::{LocalEpochs, Segment, Whole};
use storage::hot::HotLimits;
use storage::options::TableSpec;
use storage::state::StateStore;
use storage::view::LiveLane;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use world::{Bug, Point, World, planted, reach};

/// How often a lane looks at its clock: the grain of silence, marks and closes.
const LOOK: Duration = Duration::from_millis(100);

/// How often a lane looks for segments to compact, and how full the disk is.
const UPKEEP: Duration = Duration::from_secs(1);

/// The longest wait after a compaction that failed: the wait doubles up to it.
const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// What a lane is told by the rest of the process.
pub(crate) enum Command {
    /// All move numbers of a table up to this one are in the cold table.
    Moved { table: usize, number: u64 },
    /// Everything has been read: windows close (`flush`), everything is sealed and moved. Answers when that is done; the lane stays.
    End { flush: bool, tell: oneshot::Sender<()> },
    /// A lookup table has a new version, which no log tells.
    Lookup(LookupVersion),
    /// Seal what is there and leave.
    Stop,
    /// Leave at once: another process has the lane.
    Abandon,
}

/// What every lane of a pipeline writes to.
pub(crate) struct Shared {
    pub(crate) world: World,
    pub(crate) specs: Vec<Arc<TableSpec>>,
    pub(crate) warm: PathBuf,
    pub(crate) outbox: PathBuf,
    pub(crate) state_dir: PathBuf,
    pub(crate) state: StateStore,
    pub(crate) epochs: LocalEpochs,
    /// Bounds of the hot tier, by table, of all lanes together.
    pub(crate) hot: BTreeMap<String, HotLimits>,
    /// How many lanes share them.
    pub(crate) lanes: AtomicU64,
    /// The budget of all lanes.
    pub(crate) memory: Memory,
    /// One lane compacts at a time: others wait for their turn.
    pub(crate) compactions: Arc<Semaphore>,
    /// Below so many free bytes rows go to cold before their age.
    pub(crate) free_disk: u64,
    pub(crate) every: Duration,
    /// How long a file that no record names stays, for queries that began before.
    pub(crate) linger: Duration,
}

impl Shared {
    fn path(&self, gone: Gone) -> PathBuf {
        match gone {
            Gone::Segment { table, file } => self.warm.join(table).join(file),
            Gone::State { file } => self.state_dir.join(file),
            Gone::Outbox { file } => self.outbox.join(file),
        }
    }
}

/// What a lane of the journal needs to move on in silence and to release the log.
pub(crate) struct JournalLane {
    pub(crate) number: u32,
    pub(crate) handle: JournalHandle,
    /// The sealed position of every lane of the journal.
    pub(crate) sealed: Arc<Vec<AtomicU64>>,
}

/// What a lane of a first stage needs to show its second one what is sealed.
pub(crate) struct Outlet {
    pub(crate) outlets: Arc<Outlets>,
    /// Its number among the lanes.
    pub(crate) feeder: usize,
}

/// What a lane and the relays of its sinks tell each other.
pub(crate) struct Relays {
    /// What is sealed.
    pub(crate) sealed: watch::Sender<Arc<Whole>>,
    /// In the order of the lane's sinks.
    pub(crate) links: Vec<Link>,
}

/// A lane with everything it touches.
pub(crate) struct Driver {
    pub(crate) lane: Lane,
    pub(crate) feed: Feed,
    pub(crate) journal: Option<JournalLane>,
    pub(crate) outlet: Option<Outlet>,
    pub(crate) relays: Relays,
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) live: Arc<LiveLane>,
    pub(crate) status: Arc<LaneStatus>,
    pub(crate) memory: Arc<LaneMemory>,
    /// The lookup tables to begin with, where no log tells them.
    pub(crate) lookups: Vec<LookupVersion>,
}

/// A merge of segments under way.
type Compacting = Pin<Box<dyn Future<Output = Result<Vec<Segment>>> + Send>>;

/// Hot rows on their way back.
type Recalling = Pin<Box<dyn Future<Output = Result<Vec<Back>>> + Send>>;

/// What goes on beside the events.
struct Progress {
    close: Option<Pin<Box<dyn Future<Output = Result<Event>> + Send>>>,
    /// Instants of the clock that never goes back.
    last_close: Duration,
    last_input: Duration,
    /// When a log without an end of its own was read to its end; none while it is not.
    caught_up: Option<Duration>,
    /// A tick on its way into the journal.
    tick: Option<Pin<Box<dyn Future<Output = Result<()>> + Send>>>,
    /// The merge of segments under way.
    compaction: Option<Compacting>,
    /// Rows that were hot before the start, on their way back.
    recall: Option<Recalling>,
    /// When upkeep is looked at next, and how long it waits after a compaction that failed.
    upkeep_at: Duration,
    upkeep_wait: Duration,
    /// The disk is nearly full.
    pressed: bool,
    /// The epoch must close at once.
    must_close: bool,
    /// Nothing is read, and no result is shown, until this epoch is sealed: what began it stands in no log.
    hold: Option<Epoch>,
    /// Something was taken in this epoch of which a replay may decide otherwise: no result is shown until it is sealed.
    guarded: Option<Epoch>,
    /// Results that wait for the seal of their epoch.
    withheld: Vec<(Epoch, Action)>,
    ended: bool,
    stopping: bool,
    abandoned: bool,
    /// Who waits for the end, before the log is taken to its end and after.
    end_wanted: Vec<(bool, oneshot::Sender<()>)>,
    waiting_for_end: Vec<oneshot::Sender<()>>,
    doomed: Vec<(Duration, PathBuf)>,
}

impl Driver {
    /// Runs until it is stopped, the log ends for good, or something must stop it. What is sealed stays; the rest is read again.
    pub(crate) async fn run(mut self) -> Result<()> {
        let start = self.world().elapsed();
        let mut progress = Progress {
            close: None,
            last_close: start,
            last_input: start,
            caught_up: None,
            tick: None,
            compaction: None,
            recall: self.begin_recall(),
            upkeep_at: start,
            upkeep_wait: UPKEEP,
            pressed: false,
            must_close: false,
            hold: None,
            guarded: None,
            withheld: vec![],
            ended: false,
            stopping: false,
            abandoned: false,
            end_wanted: vec![],
            waiting_for_end: vec![],
            doomed: vec![],
        };
        for action in self.lane.begin()? {
            self.show(action)?;
        }
        for version in std::mem::take(&mut self.lookups) {
            self.step_unlogged(Event::Lookup { log: None, version }, &mut progress)?;
        }
        let mut clock = self.world().time.sleep(Duration::ZERO);
        while !progress.abandoned {
            if !progress.end_wanted.is_empty() && (progress.ended || !self.behind()) {
                for (flush, tell) in std::mem::take(&mut progress.end_wanted) {
                    if flush {
                        self.step_unlogged(Event::End, &mut progress)?;
                    }
                    progress.waiting_for_end.push(tell);
                }
                progress.must_close = true;
            }
            // The results of a second stage wait for their seal: it comes when there is nothing else to do.
            progress.must_close |= self.is_stage() && !progress.withheld.is_empty() && progress.close.is_none() && !self.behind();
            if let (Feed::Stage(stage), true) = (&self.feed, self.lane.dirty() && progress.close.is_none())
                && stage.outlets.own_logs()
            {
                self.lane.note(TIMER, self.lane.next_timer().map_or(0, |timer| timer.0.max(1) as u64));
            }
            if self.is_due(&progress) {
                let (now, floors, taken) = (self.world().now(), self.floors(), self.taken());
                self.step(Event::Close { now, floors, taken, pressed: progress.pressed }, &mut progress)?;
                progress.must_close = false;
            }
            if progress.close.is_none() && !self.lane.dirty() {
                // Rows that are hot do not move: whoever waits for the end waits for all of them to be cold.
                if !progress.waiting_for_end.is_empty() && progress.recall.take().is_some() {
                    self.live.expect_nothing();
                }
                self.evict(&progress);
                let settled = !self.lane.moving() && !self.lane.compacting() && !self.wants_to_mark(&progress);
                if settled && self.lane.is_published(&self.taken()) {
                    for told in progress.waiting_for_end.drain(..) {
                        // Whoever asked may have given up.
                        let _ = told.send(());
                    }
                }
                if progress.stopping {
                    return Ok(());
                }
            }
            let blocked = progress.stopping
                || progress.hold.is_some()
                || progress.close.is_some() && (progress.must_close || self.full() || self.overdue(&progress));
            tokio::select! {
                biased;
                closed = async { progress.close.as_mut().expect("checked").await }, if progress.close.is_some() => {
                    progress.close = None;
                    self.step(closed.inspect_err(|_| metrics::counter!(Metric::EpochFailures.name()).increment(1))?, &mut progress)?;
                }
                ticked = async { progress.tick.as_mut().expect("checked").await }, if progress.tick.is_some() => {
                    progress.tick = None;
                    ticked?;
                }
                merged = async { progress.compaction.as_mut().expect("checked").await }, if progress.compaction.is_some() => {
                    progress.compaction = None;
                    self.compacted(merged, &mut progress);
                }
                back = async { progress.recall.as_mut().expect("checked").await }, if progress.recall.is_some() => {
                    progress.recall = None;
                    self.recalled(back);
                }
                Some(command) = self.commands.recv() => self.obey(command, &mut progress)?,
                () = &mut clock => {
                    self.look(&mut progress).await?;
                    clock = self.world().time.sleep(LOOK);
                }
                input = self.feed.next(), if !blocked && !progress.ended => match input? {
                    Some(taken) => {
                        self.take(taken, &mut progress)?;
                        // A lane that is never idle would keep timers from going on, for itself and for all.
                        self.world().time.give_way().await;
                    }
                    None => progress.ended = true,
                },
            }
        }
        Ok(())
    }

    fn world(&self) -> &World {
        &self.shared.world
    }

    fn since(&self, then: Duration) -> Duration {
        self.world().elapsed().saturating_sub(then)
    }

    fn take(&mut self, taken: Taken, progress: &mut Progress) -> Result<()> {
        let Taken { events, guarded } = taken;
        progress.caught_up = events.is_empty().then(|| self.world().elapsed());
        if guarded {
            progress.guarded = Some(self.lane.epoch());
        }
        for event in events {
            match event {
                // Neither a tick of our own nor a lookup table is a sign of life.
                Event::Progress { .. } | Event::Tick { .. } | Event::Lookup { .. } => self.step(event, progress)?,
                Event::Logs(_) => self.step_unlogged(event, progress)?,
                _ => {
                    progress.last_input = self.world().elapsed();
                    self.step(event, progress)?;
                }
            }
        }
        Ok(())
    }

    /// Takes an event that no log would repeat: the epoch closes, and until its seal nothing else is read and nothing of it is shown.
    fn step_unlogged(&mut self, event: Event, progress: &mut Progress) -> Result<()> {
        progress.must_close = true;
        progress.hold = Some(self.lane.epoch());
        self.step(event, progress)
    }

    fn obey(&mut self, command: Command, progress: &mut Progress) -> Result<()> {
        match command {
            Command::Moved { table, number } => {
                progress.must_close |= self.lane.note_moved(table, number);
            }
            Command::End { flush, tell } => {
                if let (Feed::Stage(stage), true) = (&mut self.feed, flush) {
                    stage.end();
                }
                progress.end_wanted.push((flush, tell));
            }
            Command::Lookup(version) => self.step_unlogged(Event::Lookup { log: None, version }, progress)?,
            Command::Stop => progress.stopping = true,
            Command::Abandon => progress.abandoned = true,
        }
        Ok(())
    }

    fn is_due(&self, progress: &Progress) -> bool {
        let asked =
            progress.must_close || progress.stopping || !progress.waiting_for_end.is_empty() || self.full() || self.overdue(progress);
        let expire = || self.lane.wants_to_expire(self.world().now(), &self.floors());
        let useful = || self.wants_to_mark(progress) || expire() || self.lane.wants_to_release(&self.taken());
        let worth = self.lane.dirty() || (self.since(progress.last_close) >= LOOK && useful());
        progress.close.is_none() && worth && asked
    }

    /// Whether the log holds something that the lane has not taken. A reader of files drops its queue when it has handed out all.
    fn behind(&mut self) -> bool {
        match &mut self.feed {
            Feed::Stage(stage) => return stage.is_behind(),
            Feed::Kafka(partition) => return !partition.is_read(),
            Feed::Journal { .. } | Feed::Files { .. } => {}
        }
        let Some(journal) = &self.journal else { return true };
        self.lane.positions().0.first().map_or(Offset(0), |p| p.next) < journal.handle.durable()
    }

    /// Whether it reads what other lanes have sealed. What it would do after a crash with rows that it has not sealed depends on how far
    /// those are by then, so nothing of an epoch is shown before its seal.
    fn is_stage(&self) -> bool {
        matches!(self.feed, Feed::Stage(_))
    }

    /// How many rows of each exit the second stage, and of each sink its relay, has taken for good.
    fn taken(&self) -> Vec<u64> {
        let mut taken = self.outlet.as_ref().map(|of| of.outlets.taken(of.feeder)).unwrap_or_default();
        taken.extend(self.relays.links.iter().map(|link| link.published() + u64::from(planted(Bug::SinkCutTooEarly))));
        taken
    }

    fn floors(&self) -> Vec<u64> {
        self.shared.specs.iter().map(|spec| self.live.floor(&spec.name)).collect()
    }

    fn overdue(&self, progress: &Progress) -> bool {
        self.since(progress.last_close) >= self.shared.every
    }

    /// Whether so much lies in the open epoch that it must close now.
    fn full(&self) -> bool {
        self.lane.open_bytes() >= self.shared.memory.epoch()
    }

    fn wants_to_mark(&self, progress: &Progress) -> bool {
        self.lane.wants_to_mark(self.world().now(), &self.floors(), progress.pressed)
    }

    /// Looks at the room on the disk, and begins to merge segments when some are due. Whoever waits for the end does not wait for more.
    fn keep_up(&mut self, progress: &mut Progress) {
        let now = self.world().elapsed();
        if now < progress.upkeep_at {
            return;
        }
        progress.upkeep_at = now + UPKEEP;
        // A disk that does not tell is told by whoever writes to it.
        progress.pressed = self.world().disk.free_bytes(&self.shared.warm).is_ok_and(|free| free < self.shared.free_disk);
        let leaving = progress.stopping || !progress.end_wanted.is_empty() || !progress.waiting_for_end.is_empty();
        if leaving || progress.compaction.is_some() {
            return;
        }
        let floors = self.floors();
        if let Some(job) = self.lane.next_compaction(self.world().now(), &floors) {
            progress.compaction = Some(Box::pin(compact(self.shared.clone(), job)));
        }
    }

    /// A compaction that failed has changed nothing: it is tried again later, and the lane goes on.
    fn compacted(&mut self, merged: Result<Vec<Segment>>, progress: &mut Progress) {
        match self.lane.compacted(merged) {
            Ok(()) => progress.upkeep_wait = UPKEEP,
            Err(error) => {
                progress.upkeep_wait = (progress.upkeep_wait * 2).min(LONGEST_WAIT);
                progress.upkeep_at = self.world().elapsed() + progress.upkeep_wait;
                let retry_seconds = progress.upkeep_wait.as_secs();
                tracing::error!(lane = %self.live.lane().0, %error, retry_seconds, "a compaction failed; nothing has changed");
            }
        }
    }

    /// Begins to read back what was hot before the start.
    fn begin_recall(&self) -> Option<Recalling> {
        let wanted = wanted(&self.shared, self.lane.chain().whole());
        for of in &wanted {
            self.live.expect(&self.shared.specs[of.table].name, of.floor);
        }
        (!wanted.is_empty()).then(|| Box::pin(recall(self.shared.clone(), wanted)) as Recalling)
    }

    fn recalled(&self, back: Result<Vec<Back>>) {
        match back {
            Ok(tables) => {
                for Back { table, floor, epochs } in tables {
                    self.live.put_back(&self.shared.specs[table].name, floor, epochs);
                }
            }
            Err(error) => tracing::warn!(lane = %self.live.lane().0, %error, "rows that were hot before the start stay warm"),
        }
        self.live.expect_nothing();
    }

    /// What time alone brings: silence, eviction, files to delete, segments to merge.
    async fn look(&mut self, progress: &mut Progress) -> Result<()> {
        self.status.show(&self.lane);
        self.live.watermark(self.lane.watermark());
        if let Feed::Stage(stage) = &self.feed {
            stage.outlets.want(self.lane.next_timer());
        }
        self.evict(progress);
        self.keep_up(progress);
        let now = self.world().elapsed();
        for (_, path) in progress.doomed.extract_if(.., |(at, _)| now.saturating_sub(*at) >= self.shared.linger) {
            if let Err(error) = self.world().disk.remove(&path) {
                tracing::warn!(file = %path.display(), %error, "a segment that is no longer needed stays");
            }
        }
        self.look_for_silence(progress).await
    }

    /// The least watermark at which an operator would act, here or in the second stage, which waits for all of its lanes.
    fn next_timer(&self) -> Option<EventTime> {
        let wanted = self.outlet.as_ref().and_then(|of| of.outlets.wanted());
        wanted.filter(|w| *w > self.lane.watermark()).into_iter().chain(self.lane.next_timer()).min()
    }

    /// Moves the watermark on when the lane has been silent for so long that an operator would act.
    async fn look_for_silence(&mut self, progress: &mut Progress) -> Result<()> {
        if self.is_stage() {
            // The silence of its lanes is theirs to tell.
            return Ok(());
        }
        let busy = progress.close.is_some() || progress.hold.is_some() || progress.tick.is_some() || progress.stopping || progress.ended;
        let Some(silent) = (if busy { None } else { self.silence(progress) }) else { return Ok(()) };
        self.tell_nothing(silent);
        let (Some(to), Some(timer)) = (self.lane.silent(silent), self.next_timer()) else { return Ok(()) };
        if to < timer {
            return Ok(());
        }
        let Some(journal) = &self.journal else { return self.step_unlogged(Event::Silence(to), progress) };
        // The frame comes back through the log, so that a replay sees it; its own arrival does not end the silence. The lane does not
        // wait for it: the journal may be waiting for the lane.
        let (handle, group) = (journal.handle.clone(), tick(journal.number, to, self.world().now()));
        progress.tick = Some(Box::pin(async move { handle.append(group).await?.await.map(|_| ()) }));
        Ok(())
    }

    /// The second stage waits for a lane whose log has nothing with an event time as long as for one that is idle.
    fn tell_nothing(&mut self, silent: Span) {
        if let Some(of) = &self.outlet
            && of.outlets.own_logs()
            && self.lane.watermark() == EventTime::MIN
            && silent >= self.lane.idle_timeout()
        {
            of.outlets.has_nothing(of.feeder);
            // The stage may be another process's.
            self.lane.note(NOTHING, 1);
        }
    }

    /// How long the lane has had nothing to read; none while something waits for it.
    fn silence(&mut self, progress: &Progress) -> Option<Span> {
        let behind = self.behind();
        let silent = match &self.journal {
            Some(_) if behind => return None,
            Some(_) => self.since(progress.last_input),
            None => self.since(progress.caught_up.filter(|_| self.feed.is_empty())?).min(self.since(progress.last_input)),
        };
        Some(Span(silent.as_micros() as i64))
    }

    /// Lets hot rows go that are past their limits; all of them once the input is at its end and somebody waits for that.
    fn evict(&self, progress: &Progress) {
        let none = HotLimits { age: Span(0), bytes: 0 };
        let lanes = self.shared.lanes.load(Ordering::Relaxed).max(1);
        let share = |(table, all): (&String, &HotLimits)| (table.clone(), HotLimits { bytes: all.bytes / lanes, ..*all });
        let leaving = || self.shared.hot.keys().map(|table| (table.clone(), none)).collect();
        let limits = if progress.waiting_for_end.is_empty() { self.shared.hot.iter().map(share).collect() } else { leaving() };
        self.memory.show(self.lane.open_bytes() + self.lane.closing_bytes() + self.lane.held().1, self.live.hot_bytes());
        self.live.evict(self.world().now(), &limits, self.shared.memory.hot(&self.memory));
    }

    fn step(&mut self, event: Event, progress: &mut Progress) -> Result<()> {
        for action in self.lane.step(event)? {
            self.perform(action, progress)?;
        }
        Ok(())
    }

    fn perform(&mut self, action: Action, progress: &mut Progress) -> Result<()> {
        match action {
            Action::Show { .. } | Action::ShowPanes { .. } => {
                let waits = progress.hold.is_some() || progress.guarded.is_some() || self.is_stage();
                if waits {
                    progress.withheld.push((self.lane.epoch(), action));
                } else {
                    self.show(action)?;
                }
            }
            Action::Write(cut) => {
                progress.last_close = self.world().elapsed();
                let (shared, whole) = (self.shared.clone(), self.lane.chain().whole().clone());
                progress.close = Some(Box::pin(write_out(shared, whole, *cut)));
            }
            Action::Seal(record) => progress.close = Some(Box::pin(seal(self.shared.clone(), self.sync_point(), *record))),
            Action::Publish { epoch, gone } => self.publish(epoch, gone, progress)?,
        }
        Ok(())
    }

    fn show(&self, action: Action) -> Result<()> {
        match action {
            Action::Show { epoch, table, rows, of } => self.show_rows(epoch, table, rows, of),
            Action::ShowPanes { table, of, rows } => {
                self.live.put_panes(&self.shared.specs[table].name, of, rows, self.lane.identity(table, of))
            }
            Action::Write(_) | Action::Seal(_) | Action::Publish { .. } => unreachable!("only rows are shown"),
        }
    }

    /// From here on queries see the rows.
    fn show_rows(&self, epoch: Epoch, table: usize, rows: RecordBatch, of: Option<usize>) -> Result<()> {
        let newest = rows.column_by_name(EVENT_TIME).and_then(|times| max(times.as_primitive::<TimestampMicrosecondType>()));
        if let Some(newest) = newest {
            metrics::histogram!(Metric::EndToEnd.name()).record((self.world().now().0 - newest) as f64 / 1e6);
        }
        self.live.push(&self.shared.specs[table].name, epoch.0, rows, of)
    }

    /// With `journal.sync` other than "always", a position may be sealed only when the log is on disk below it.
    fn sync_point(&self) -> Option<(JournalHandle, Offset)> {
        let journal = self.journal.as_ref()?;
        let id = journal.handle.id();
        Some((journal.handle.clone(), self.lane.positions().next(&id)))
    }

    fn publish(&mut self, epoch: Epoch, gone: Vec<Gone>, progress: &mut Progress) -> Result<()> {
        metrics::histogram!(Metric::EpochClose.name()).record(self.since(progress.last_close).as_secs_f64());
        progress.hold = progress.hold.filter(|held| *held > epoch);
        progress.guarded = progress.guarded.filter(|guarded| *guarded > epoch);
        // In hot before the seal is seen, so that no query misses them.
        for (_, action) in progress.withheld.extract_if(.., |(of, _)| *of <= epoch) {
            self.show(action)?;
        }
        let whole = self.lane.chain().whole().clone();
        let now = self.world().elapsed();
        self.live.seal(epoch.0, whole.clone(), self.world().now());
        progress.doomed.extend(gone.into_iter().map(|gone| (now, self.shared.path(gone))));
        self.status.sealed(epoch, &whole);
        self.relays.sealed.send_replace(whole.clone());
        if let Feed::Stage(stage) = &self.feed {
            stage.sealed(&whole.positions);
        }
        if let Feed::Kafka(partition) = &self.feed {
            partition.release(&whole.positions);
        }
        if let Some(of) = &self.outlet {
            of.outlets.seal(of.feeder, whole.clone());
        }
        if let Some(journal) = &self.journal {
            let id = journal.handle.id();
            let sealed = if planted(Bug::LogReleasedBeforeSeal) { self.lane.positions() } else { &whole.positions };
            journal.sealed[journal.number as usize].store(sealed.next(&id).0, Ordering::Release);
            let least = journal.sealed.iter().map(|p| p.load(Ordering::Acquire)).min().unwrap_or(0);
            journal.handle.release(Offset(least))?;
        }
        reach(Point::EpochPublished);
        Ok(())
    }
}
