//! A lane as a state machine without I/O: events in, actions out. The driver performs the actions and feeds their results back.
//!
//! ```text
//!   Rows, Rejects, Connection, Tick, Silence, Lookup, Logs, Fed, Reached, End ─► step ──► Show (hot)
//!   Close ────────────────────────────────────────► step ──► Write(cut): segments, outbox and state
//!   Written(receipts) ────────────────────────────► step ──► Seal(record): the commit
//!   Sealed ───────────────────────────────────────► step ──► Publish: swap the view, release the log
//! ```
//! One close is in flight at most. The lane goes on with the next epoch meanwhile.

use crate::plan::Input;
use crate::run::columns::{conform, dead_rows, rejected_rows, with_all};
use crate::run::compact::Job;
use crate::run::exits;
use crate::run::flood::Flood;
use crate::run::graph::{Arriving, Emitted, Graph};
use crate::run::marks::Ages;
use crate::run::moved;
use crate::run::tally::Tally;
use crate::run::upkeep::{Edit, Upkeep};
use crate::run::water;
use crate::spec::DeadLetterOptions;
use arrow::array::{AsArray, BooleanArray, Int64Array, RecordBatch, UInt64Array};
use arrow::compute::kernels::cmp;
use arrow::datatypes::{Int64Type, SchemaRef, UInt64Type};
use flow::{Batch, DeadLetters, Epoch, EventTime, LookupVersion, Offset, Position, Reason, Result, Span, WallTime, trail};
use ingest::rejected::Rejected;
use processors::watermark::Watermark;
use std::collections::BTreeMap;
use std::sync::Arc;
use storage::epoch::{Chain, Change, ExitChange, ExitFile, Names, Record, Segment, StateChange, Whole};
use storage::outbox::ExitRows;
use storage::panes::Identity;
use storage::state::StateSave;
use storage::warm::policy::Compaction;
use world::{Bug, planted};

/// What happens to a lane.
pub(crate) enum Event {
    /// Rows of a source. All of `log` below `next` is in this or earlier events.
    Rows { source: usize, log: Arc<str>, batch: Batch, next: Offset },
    /// Messages of a source that could not be decoded.
    Rejects { log: Arc<str>, rejects: Vec<Rejected>, next: Offset },
    /// A producer came or went.
    Connection { log: Arc<str>, producer: u32, connected: bool, at: WallTime, next: Offset },
    /// The watermark moves at least to here.
    Tick { log: Arc<str>, watermark: EventTime, next: Offset },
    /// The watermark moves at least to here, and no log says so: the epoch must close before anything else is read.
    Silence(EventTime),
    /// A lookup table has a new version. `log`: its place in the lane's log; without one no log says so, and the epoch must close before
    /// anything else is read.
    Lookup { log: Option<(Arc<str>, Offset)>, version: LookupVersion },
    /// Nothing of this lane stands in `log` below `next`.
    Progress { log: Arc<str>, next: Offset },
    /// Rows that lanes of the first stage have sealed for this second one, in the order of their marks. All of `log` below `next` is in this or
    /// earlier events; the watermark moves at least to `watermark` after them.
    Fed { input: Input, log: Arc<str>, batch: Batch, next: Offset, watermark: EventTime },
    /// The lanes of the first stage have sealed that their watermarks are at least here.
    Reached(EventTime),
    /// New logs, files or a partition, to be read after those that are known. They are sealed before their first row is taken.
    Logs(Vec<Position>),
    /// The input is at its end: windows close.
    End,
    /// The epoch is due.
    /// `floors`: the least hot epoch of each table; `taken`: how many rows of each exit the second stage, and of each sink its relay, has taken
    /// for good.
    /// `pressed`: the disk is nearly full.
    Close { now: WallTime, floors: Vec<u64>, taken: Vec<u64>, pressed: bool },
    /// Segments and state of the cut are durable.
    Written(Written),
    /// The record is created: ours.
    Sealed,
}

/// What the driver is to do.
pub(crate) enum Action {
    /// Rows of the open epoch for the hot tier; `of`: they are the last of their windows, and the operator that made them.
    Show { epoch: Epoch, table: usize, rows: RecordBatch, of: Option<usize> },
    /// Rows of windows of the operator `of` that may still be revised, in the place of earlier ones.
    ShowPanes { table: usize, of: usize, rows: RecordBatch },
    /// Write segments and state files durably, then feed back `Written`.
    Write(Box<Cut>),
    /// Create the record, then feed back `Sealed` (or stop the lane when it is fenced).
    Seal(Box<Record>),
    /// The record counts: show it, release the log. `gone`: the files that it no longer names.
    Publish { epoch: Epoch, gone: Vec<Gone> },
}

/// A file that no record names any more.
pub(crate) enum Gone {
    /// A segment of a table.
    Segment { table: String, file: String },
    /// A state file.
    State { file: String },
    /// A file of the outbox.
    Outbox { file: String },
}

/// What an epoch leaves to be written.
pub(crate) struct Cut {
    pub(crate) epoch: Epoch,
    pub(crate) names: Names,
    /// Rows by table, in the order in which they came.
    pub(crate) tables: Vec<(usize, Vec<RecordBatch>)>,
    /// Rows for the second stage.
    pub(crate) exits: Vec<ExitRows>,
    pub(crate) state: StateSave,
}

/// What was written.
pub(crate) struct Written {
    pub(crate) segments: Vec<(usize, Segment)>,
    /// By the name of the exit.
    pub(crate) exits: Vec<(String, ExitFile)>,
    pub(crate) state: StateChange,
}

/// A table as a lane sees it.
pub(crate) struct LaneTable {
    pub(crate) name: String,
    pub(crate) schema: SchemaRef,
    /// How its segments are merged.
    pub(crate) compaction: Compaction,
    /// How long rows stay in warm after the end of their partition; none: for ever.
    pub(crate) age: Option<Span>,
    /// Past that age rows go to cold, else for good.
    pub(crate) is_cold: bool,
    /// The operators that give it rows of windows which may still be revised, and what tells those from each other.
    pub(crate) windows: BTreeMap<usize, Arc<Identity>>,
}

/// A source as a lane sees it.
pub(crate) struct LaneSource {
    pub(crate) name: String,
    pub(crate) schema: SchemaRef,
}

/// A sink as a lane sees it.
pub(crate) struct LaneSink {
    pub(crate) name: String,
    pub(crate) schema: SchemaRef,
    /// It is told of rows that have gone to the cold tier.
    pub(crate) moves: bool,
}

/// What a lane is made of.
pub(crate) struct Parts {
    pub(crate) graph: Graph,
    pub(crate) watermark: Watermark,
    pub(crate) sources: Vec<LaneSource>,
    pub(crate) tables: Vec<LaneTable>,
    /// Number of the table `dead_letters`.
    pub(crate) dead_letters: usize,
    /// The bounds of that table, and the number of lanes that share them.
    pub(crate) dead_letter_options: DeadLetterOptions,
    pub(crate) lanes: u32,
    /// For each operator the number of its table `late_<operator>`, if it has one.
    pub(crate) late: Vec<Option<usize>>,
    /// The names of the exits, in the order of the graph's.
    pub(crate) exits: Vec<String>,
    /// The sinks: in the graph they are tables behind the tables, in the outbox exits behind the exits.
    pub(crate) sinks: Vec<LaneSink>,
    pub(crate) chain: Chain,
}

/// The part of a change that is fixed at the cut.
struct Closing {
    change: Change,
    rows: Vec<u64>,
    now: WallTime,
    floors: Vec<u64>,
    pressed: bool,
    /// Bytes of its rows.
    bytes: u64,
    /// Rows that expire with it, by table.
    expired: BTreeMap<usize, u64>,
}

/// One lane. See the page.
pub(crate) struct Lane {
    parts: Parts,
    sources: Vec<Tally>,
    tables: Vec<TableTally>,
    open: Vec<Vec<RecordBatch>>,
    leaving: Vec<ExitRows>,
    open_bytes: usize,
    positions: flow::Positions,
    closing: Option<Closing>,
    sealing: bool,
    upkeep: Upkeep,
    /// Compactions begun: each names its files anew.
    compactions: u64,
    /// Dead letters by reason, since the lane began.
    dead: BTreeMap<Reason, u64>,
    /// Dead letters by reason that the flood bound kept out of the table.
    unstored: BTreeMap<Reason, u64>,
    flood: Flood,
    /// What other processes look for in its records.
    notes: BTreeMap<&'static str, u64>,
    dirty: bool,
    ended: bool,
    water: Vec<i64>,
}

/// Rows that a table was given, and those in a sealed epoch.
#[derive(Clone, Copy, Default)]
struct TableTally {
    input: u64,
    stored: u64,
    /// Of those stored, past their age and gone.
    expired: u64,
}

impl Lane {
    /// A lane that goes on from the record of its chain. The operators have loaded their state.
    pub(crate) fn new(mut parts: Parts) -> Result<Self> {
        let whole = parts.chain.whole();
        let counters = if planted(Bug::CountersForgotten) { BTreeMap::new() } else { whole.counters.clone() };
        let positions = whole.positions.clone();
        water::restore(&mut parts.watermark, &whole.watermark)?;
        for node in &mut parts.graph.nodes {
            node.tally.load(&format!("operator.{}", node.name), &counters);
        }
        parts.graph.restore(parts.watermark.current())?;
        let load = |source: &LaneSource| {
            let mut tally = Tally::default();
            tally.load(&format!("source.{}", source.name), &counters);
            tally
        };
        let count = |word: String| counters.get(&word).copied().unwrap_or(0);
        let tally = |t: &LaneTable| TableTally {
            input: count(format!("table.{}.input", t.name)),
            stored: count(format!("table.{}.stored", t.name)),
            expired: count(format!("table.{}.expired", t.name)),
        };
        Ok(Self {
            sources: parts.sources.iter().map(load).collect(),
            tables: parts.tables.iter().map(tally).collect(),
            open: parts.tables.iter().map(|_| vec![]).collect(),
            leaving: outbox_names(&parts).map(|exit| nothing_leaving(exit, whole.outbox.get(exit).map_or(0, |e| e.next))).collect(),
            open_bytes: 0,
            positions,
            closing: None,
            sealing: false,
            upkeep: Upkeep::default(),
            compactions: 0,
            dead: by_reason(&counters, dead_word),
            unstored: by_reason(&counters, unstored_word),
            flood: Flood::new(parts.dead_letter_options.max_per_second, parts.lanes, &counters),
            notes: BTreeMap::new(),
            dirty: false,
            ended: false,
            water: vec![],
            parts,
        })
    }

    /// Writes a number for other processes into the records from the next one on.
    pub(crate) fn note(&mut self, word: &'static str, value: u64) {
        self.dirty |= self.notes.insert(word, value) != Some(value);
    }

    /// What it shows of windows that may still be revised, before it takes anything.
    pub(crate) fn begin(&mut self) -> Result<Vec<Action>> {
        let (emitted, mut actions) = (self.parts.graph.panes()?, vec![]);
        self.take_emitted(emitted, &mut actions)?;
        Ok(actions)
    }

    /// What tells the windows of an operator from each other in a table.
    pub(crate) fn identity(&self, table: usize, of: usize) -> &Arc<Identity> {
        &self.parts.tables[table].windows[&of]
    }

    /// Takes one event.
    pub(crate) fn step(&mut self, event: Event) -> Result<Vec<Action>> {
        let mut actions = vec![];
        match event {
            Event::Rows { source, log, batch, next } => self.on_rows(source, &log, batch, next, &mut actions)?,
            Event::Rejects { log, mut rejects, next } => {
                let from = self.positions.next(&log);
                rejects.retain(|r| r.offset.is_none_or(|row| row >= from.0));
                self.advance(&log, next);
                rejects.iter().for_each(|r| *self.dead.entry(r.reason).or_default() += 1);
                rejects.retain(|r| r.offset.is_some() && self.reads_files() || self.admit(r.reason, r.arrival, 1) == 1);
                let rows = rejected_rows(&rejects, self.payload())?;
                self.store(self.parts.dead_letters, rows, &mut actions);
            }
            Event::Connection { log, producer, connected, at, next } => {
                self.advance(&log, next);
                self.parts.watermark.on_connection(producer, connected, at);
                self.dirty = true;
            }
            Event::Tick { log, watermark, next } => {
                self.advance(&log, next);
                self.move_on(watermark, &mut actions)?;
            }
            Event::Silence(watermark) | Event::Reached(watermark) => self.move_on(watermark, &mut actions)?,
            Event::Fed { input, log, batch, next, watermark } => {
                self.advance(&log, next);
                let batch = raised(batch, self.watermark())?;
                self.parts.watermark.on_tick(watermark);
                self.pass(Some((input, batch)), &mut actions)?;
            }
            Event::Lookup { log, version } => {
                if let Some((log, next)) = log {
                    self.advance(&log, next);
                }
                self.parts.graph.lookup(&version)?;
                self.dirty = true;
            }
            Event::Progress { log, next } => self.advance(&log, next),
            Event::Logs(logs) => {
                self.positions.0.extend(logs);
                self.dirty = true;
            }
            Event::End => self.on_end(&mut actions)?,
            Event::Close { now, floors, taken, pressed } => self.close((now, floors, pressed), &taken, &mut actions)?,
            Event::Written(written) => actions.push(Action::Seal(Box::new(self.record(written)?))),
            Event::Sealed => actions.push(self.on_sealed()),
        }
        Ok(actions)
    }

    /// The number that the next record will have.
    pub(crate) fn epoch(&self) -> Epoch {
        Epoch(self.parts.chain.header().number + 1 + u64::from(self.closing.is_some()))
    }

    /// Whether a close is under way.
    pub(crate) fn closing(&self) -> bool {
        self.closing.is_some()
    }

    /// Bytes of rows in the open epoch.
    pub(crate) fn open_bytes(&self) -> u64 {
        self.open_bytes as u64
    }

    /// Bytes of rows of the epoch that is being written.
    pub(crate) fn closing_bytes(&self) -> u64 {
        self.closing.as_ref().map_or(0, |closing| closing.bytes)
    }

    /// Whether anything happened since the last cut.
    pub(crate) fn dirty(&self) -> bool {
        self.dirty
    }

    /// The watermark.
    pub(crate) fn watermark(&self) -> EventTime {
        self.parts.watermark.current()
    }

    /// The least watermark above the present one at which an operator would act.
    pub(crate) fn next_timer(&self) -> Option<EventTime> {
        self.parts.graph.next_timer(self.watermark())
    }

    /// How far each log was taken, with what is not sealed yet.
    pub(crate) fn positions(&self) -> &flow::Positions {
        &self.positions
    }

    /// The chain of records, as far as sealed.
    pub(crate) fn chain(&self) -> &Chain {
        &self.parts.chain
    }

    /// Notes that all move numbers of a table up to `t` are in the cold table. True when that is news.
    pub(crate) fn note_moved(&mut self, table: usize, t: u64) -> bool {
        let dropped = self.parts.chain.whole().tables.get(&self.parts.tables[table].name).map_or(0, |state| state.dropped);
        let news = self.upkeep.note_moved(table, dropped, t);
        self.dirty |= news;
        news
    }

    /// What is to be compacted next. It is under way from here on; `compacted` follows.
    pub(crate) fn next_compaction(&mut self, now: WallTime, floors: &[u64]) -> Option<Job> {
        if self.closing() {
            return None;
        }
        let (watermark, ended) = (self.watermark(), self.ended);
        let ages = |table: usize| Ages { watermark, now, ended, floor: floors[table], pressed: false };
        let (table, due) = self.upkeep.begin(&self.parts.tables, self.parts.chain.whole(), ages)?;
        self.compactions += 1;
        let mut names = self.parts.chain.names().of_compaction(self.compactions);
        Some(Job { table, due, names: [names.next("parquet"), names.next("parquet")] })
    }

    /// The compaction under way is done, and the next record says so; or it was given up, for this reason.
    pub(crate) fn compacted(&mut self, runs: Result<Vec<Segment>>) -> Result<()> {
        self.upkeep.ended(runs)?;
        self.dirty = true;
        Ok(())
    }

    /// Whether a compaction is under way.
    pub(crate) fn compacting(&self) -> bool {
        self.upkeep.is_busy()
    }

    /// Whether segments are on their way to cold.
    pub(crate) fn moving(&self) -> bool {
        self.parts.chain.whole().tables.values().any(|t| t.marked > t.dropped)
    }

    /// Whether a close would give segments to a move.
    pub(crate) fn wants_to_mark(&self, now: WallTime, floors: &[u64], pressed: bool) -> bool {
        self.upkeep.wants_to_mark(&self.parts.tables, self.parts.chain.whole(), |table| self.ages(now, floors[table], pressed))
    }

    /// Whether a close would let go of rows that are past their age.
    pub(crate) fn wants_to_expire(&self, now: WallTime, floors: &[u64]) -> bool {
        self.upkeep.wants_to_expire(&self.parts.tables, self.parts.chain.whole(), |table| self.ages(now, floors[table], false))
    }

    fn ages(&self, now: WallTime, floor: u64, pressed: bool) -> Ages {
        Ages { watermark: self.watermark(), now, ended: self.ended, floor, pressed }
    }

    /// Whether everything for sinks that is sealed is published, with so many rows of each exit and sink taken.
    pub(crate) fn is_published(&self, taken: &[u64]) -> bool {
        let outbox = &self.parts.chain.whole().outbox;
        let sinks = self.parts.sinks.iter().zip(taken.iter().skip(self.parts.exits.len()));
        sinks.into_iter().all(|(sink, taken)| outbox.get(&sink.name).is_none_or(|state| state.next <= *taken))
    }

    /// Whether a close would let go of files that the second stage or a sink has taken.
    pub(crate) fn wants_to_release(&self, taken: &[u64]) -> bool {
        taken.iter().enumerate().any(|(exit, below)| self.released(exit, *below).is_some())
    }

    /// The number below which the rows of an exit are taken, where that lets go of a file.
    fn released(&self, exit: usize, below: u64) -> Option<u64> {
        let state = self.parts.chain.whole().outbox.get(&self.leaving[exit].exit)?;
        state.files.first().filter(|file| file.first + file.rows <= below)?;
        Some(below.min(state.next))
    }

    /// Where the watermark may move after the lane has been silent for so long; none while it may not.
    pub(crate) fn silent(&self, silent: Span) -> Option<EventTime> {
        self.parts.watermark.silent(silent)
    }

    /// How long a lane may have nothing to read before others do not wait for it.
    pub(crate) fn idle_timeout(&self) -> Span {
        self.parts.watermark.idle_timeout()
    }

    /// Keys and bytes that the operators hold.
    pub(crate) fn held(&self) -> (u64, u64) {
        let held = self.parts.graph.nodes.iter().map(|n| n.operator.held());
        held.fold((0, 0), |sum, (keys, bytes)| (sum.0 + keys, sum.1 + bytes))
    }

    /// Windows that are open, of all keys.
    pub(crate) fn windows_open(&self) -> u64 {
        self.parts.graph.nodes.iter().filter(|n| n.tally.holds_rows).map(|n| n.operator.held().0).sum()
    }

    /// All counts, as they stand now.
    pub(crate) fn counters(&self) -> BTreeMap<String, u64> {
        let mut words = self.parts.chain.whole().counters.clone();
        for (name, tally) in self.parts.sources.iter().map(|s| &s.name).zip(&self.sources) {
            tally.store(&format!("source.{name}"), &mut words);
        }
        for node in &self.parts.graph.nodes {
            node.tally.store(&format!("operator.{}", node.name), &mut words);
        }
        words.extend(self.dead.iter().map(|(reason, rows)| (dead_word(*reason), *rows)));
        words.extend(self.notes.iter().map(|(word, value)| ((*word).to_owned(), *value)));
        words.extend(self.unstored.iter().map(|(reason, rows)| (unstored_word(*reason), *rows)));
        self.flood.store(&mut words);
        for (table, tally) in self.parts.tables.iter().zip(&self.tables) {
            words.insert(format!("table.{}.input", table.name), tally.input);
            words.insert(format!("table.{}.stored", table.name), tally.stored);
            if tally.expired > 0 {
                words.insert(format!("table.{}.expired", table.name), tally.expired);
            }
        }
        words
    }

    /// Readings that no count explains; 0 when every component keeps its promise.
    pub(crate) fn unaccounted(&self) -> u64 {
        let sources: u64 = self.sources.iter().map(Tally::unaccounted).sum();
        let operators: u64 = self.parts.graph.nodes.iter().map(|n| n.tally.unaccounted()).sum();
        let in_flight = |table: usize| {
            let open: usize = self.open[table].iter().map(RecordBatch::num_rows).sum();
            open as u64 + self.closing.as_ref().map_or(0, |c| c.rows[table])
        };
        let tables: u64 = self.tables.iter().enumerate().map(|(i, t)| t.input.abs_diff(t.stored + in_flight(i))).sum();
        sources + operators + tables
    }

    fn on_rows(&mut self, source: usize, log: &Arc<str>, batch: Batch, next: Offset, actions: &mut Vec<Action>) -> Result<()> {
        let batch = skip_taken(batch, self.positions.next(log))?;
        self.advance(log, next);
        if batch.is_empty() {
            return Ok(());
        }
        // The journal keeps rows as they were when they came: with the columns of that day.
        let batch = with_all(batch, &self.parts.sources[source].schema)?;
        let origin = batch.origin().clone();
        let advance = self.parts.watermark.on_rows(origin.producer, batch.times(), origin.arrival, &mut self.water);
        let tally = &mut self.sources[source];
        tally.input += batch.len() as u64;
        let batch = if advance.marked || self.parts.graph.has_row_exits() { mark_watermarks(batch, &self.water)? } else { batch };
        let (batch, future) = split_future(batch, advance.future.as_ref())?;
        tally.output += batch.len() as u64;
        if let Some(rows) = future {
            tally.refused += rows.len() as u64;
            let detail = "the event time lies further ahead of the arrival than max_future".to_string();
            self.bury(&DeadLetters { rows, reason: Reason::TimeInFuture, detail }, actions)?;
        }
        self.pass((!batch.is_empty()).then_some((Input::Source(source), batch)), actions)
    }

    fn pass(&mut self, rows: Option<(Input, Batch)>, actions: &mut Vec<Action>) -> Result<()> {
        self.dirty = true;
        let mut emitted = Emitted::default();
        self.parts.graph.pass(rows, self.parts.watermark.current(), &mut emitted)?;
        self.take_emitted(emitted, actions)
    }

    /// Stores what left the graph.
    fn take_emitted(&mut self, emitted: Emitted, actions: &mut Vec<Action>) -> Result<()> {
        for Arriving { table, of, provisional, batch } in emitted.tables {
            if let Some(sink) = table.checked_sub(self.parts.tables.len()) {
                if !provisional {
                    self.leave(sink, &batch)?;
                }
                continue;
            }
            let rows = conform(&batch, &self.parts.tables[table].schema)?;
            let of = of.filter(|of| self.parts.tables[table].windows.contains_key(of));
            match (provisional, of) {
                (true, Some(of)) => actions.push(Action::ShowPanes { table, of, rows }),
                // A table that lacks the columns by which it could tell windows from each other shows them when they are done.
                (true, None) => {}
                (false, of) => self.store_of(table, rows, of, actions),
            }
        }
        for (operator, batch) in emitted.late {
            let table = self.parts.late[operator].expect("only operators with a table for late rows put out late rows");
            let rows = conform(&batch, &self.parts.tables[table].schema)?;
            self.store(table, rows, actions);
        }
        for letters in emitted.dead {
            self.bury(&letters, actions)?;
        }
        for (exit, batch, marks) in emitted.exits {
            let rows = exits::pack(&batch, marks)?;
            self.open_bytes += rows.get_array_memory_size();
            self.leaving[exit].rows.push(rows);
        }
        Ok(())
    }

    /// Rows for a sink. Those of windows that may still be revised are nobody's yet.
    fn leave(&mut self, sink: usize, batch: &Batch) -> Result<()> {
        let rows = conform(batch, &self.parts.sinks[sink].schema)?;
        self.open_bytes += rows.get_array_memory_size();
        self.leaving[self.parts.exits.len() + sink].rows.push(rows);
        Ok(())
    }

    fn bury(&mut self, letters: &DeadLetters, actions: &mut Vec<Action>) -> Result<()> {
        let of_file = letters.rows.trail_column(trail::OFFSET).is_some() && self.reads_files();
        let rows = letters.rows.len() as u64;
        *self.dead.entry(letters.reason).or_default() += rows;
        let kept = if of_file { rows } else { self.admit(letters.reason, letters.rows.origin().arrival, rows) };
        let kept = dead_rows(letters, kept as usize, self.payload())?;
        self.store(self.parts.dead_letters, kept, actions);
        Ok(())
    }

    /// Whether its logs are files, which have an end: there is no flood to guard against.
    fn reads_files(&self) -> bool {
        self.positions.0.iter().all(|p| p.file.is_some())
    }

    /// How many of so many dead letters have room in the table. The others are counted.
    fn admit(&mut self, reason: Reason, arrival: WallTime, rows: u64) -> u64 {
        let kept = self.flood.admit(reason, arrival, rows);
        if kept < rows {
            *self.unstored.entry(reason).or_default() += rows - kept;
        }
        kept
    }

    /// How many bytes of a message the table keeps.
    fn payload(&self) -> usize {
        usize::try_from(self.parts.dead_letter_options.payload.0).unwrap_or(usize::MAX)
    }

    fn store(&mut self, table: usize, rows: RecordBatch, actions: &mut Vec<Action>) {
        self.store_of(table, rows, None, actions);
    }

    fn store_of(&mut self, table: usize, rows: RecordBatch, of: Option<usize>, actions: &mut Vec<Action>) {
        if rows.num_rows() == 0 {
            return;
        }
        self.dirty = true;
        self.tables[table].input += rows.num_rows() as u64;
        self.open_bytes += rows.get_array_memory_size();
        self.open[table].push(rows.clone());
        actions.push(Action::Show { epoch: self.epoch(), table, rows, of });
    }

    fn on_end(&mut self, actions: &mut Vec<Action>) -> Result<()> {
        self.ended = true;
        self.dirty = true;
        self.close_windows(actions)?;
        let mut emitted = Emitted::default();
        self.parts.graph.end(self.watermark(), &mut emitted)?;
        self.take_emitted(emitted, actions)?;
        self.close_windows(actions)
    }

    /// Moves the watermark over the ends of all open windows. Windows over windows: each pass may open the next one's last window.
    fn close_windows(&mut self, actions: &mut Vec<Action>) -> Result<()> {
        while let Some(last) = self.parts.graph.last_timer().filter(|last| *last > self.watermark()) {
            self.move_on(last, actions)?;
        }
        Ok(())
    }

    fn move_on(&mut self, watermark: EventTime, actions: &mut Vec<Action>) -> Result<()> {
        self.parts.watermark.on_tick(watermark);
        self.pass(None, actions)
    }

    fn advance(&mut self, log: &Arc<str>, next: Offset) {
        if next > self.positions.next(log) {
            self.positions.advance(log, next);
            self.dirty = true;
        }
    }

    fn close(&mut self, (now, floors, pressed): (WallTime, Vec<u64>, bool), taken: &[u64], actions: &mut Vec<Action>) -> Result<()> {
        assert!(!self.closing(), "a close while epoch {} is being closed", self.epoch().0 - 1);
        let epoch = self.epoch();
        self.tell_of_moves(now)?;
        let mut state = StateSave::default();
        for node in &mut self.parts.graph.nodes {
            node.operator.save(&mut state.operator(&node.name))?;
        }
        let tables: Vec<_> =
            self.open.iter_mut().enumerate().filter(|(_, rows)| !rows.is_empty()).map(|(i, rows)| (i, std::mem::take(rows))).collect();
        let mut rows = vec![0; self.open.len()];
        for (table, batches) in &tables {
            rows[*table] = batches.iter().map(|b| b.num_rows() as u64).sum();
        }
        let mut counters = self.counters();
        for (table, n) in self.parts.tables.iter().zip(&rows) {
            *counters.entry(format!("table.{}.stored", table.name)).or_default() += n;
        }
        let (watermark, outbox) = (water::store(&self.parts.watermark), self.exit_changes(taken));
        let change = Change { positions: self.positions.clone(), watermark, counters, outbox, ..Change::default() };
        let exits = self.take_leaving();
        let names = self.parts.chain.names();
        let bytes = std::mem::take(&mut self.open_bytes) as u64;
        self.dirty = false;
        self.closing = Some(Closing { change, rows, now, floors, pressed, bytes, expired: BTreeMap::new() });
        actions.push(Action::Write(Box::new(Cut { epoch, names, tables, exits, state })));
        Ok(())
    }

    /// Tells sinks of the segments that the record of this cut lets go because their rows are in cold: once for each move, as the record is the one
    /// that does it.
    fn tell_of_moves(&mut self, now: WallTime) -> Result<()> {
        let leaving = self.upkeep.cut(&self.parts.tables, self.parts.chain.whole());
        if leaving.is_empty() || !self.parts.sinks.iter().any(|sink| sink.moves) {
            return Ok(());
        }
        let rows = moved::rows(&self.parts.chain, &self.parts.tables, &leaving, now)?;
        for (at, _) in self.parts.sinks.iter().enumerate().filter(|(_, sink)| sink.moves) {
            self.leaving[self.parts.exits.len() + at].rows.push(rows.clone());
        }
        Ok(())
    }

    /// How far the exits are at a cut, and what of them is taken.
    fn exit_changes(&self, taken: &[u64]) -> BTreeMap<String, ExitChange> {
        let change = |(exit, name): (usize, &String)| {
            let taken = taken.get(exit).and_then(|below| self.released(exit, *below));
            // The rows of a sink have no marks.
            let watermark = if exit < self.parts.exits.len() { self.parts.graph.frontier(exit).0 } else { i64::MIN };
            (name.clone(), ExitChange { watermark, added: None, taken })
        };
        outbox_names(&self.parts).enumerate().map(change).collect()
    }

    /// What leaves for exits and sinks; the rows that follow are numbered on.
    pub(crate) fn take_leaving(&mut self) -> Vec<ExitRows> {
        let mut all = vec![];
        for leaving in &mut self.leaving {
            let rows: u64 = leaving.rows.iter().map(|b| b.num_rows() as u64).sum();
            if rows > 0 {
                let next = nothing_leaving(&leaving.exit, leaving.first + rows);
                all.push(std::mem::replace(leaving, next));
            }
        }
        all
    }

    fn record(&mut self, written: Written) -> Result<Record> {
        let closing = self.closing.as_mut().expect("written follows a cut");
        let mut change = std::mem::take(&mut closing.change);
        change.state = written.state;
        if planted(Bug::PositionsOfTheSeal) {
            change.positions = self.positions.clone();
        }
        for (table, segment) in written.segments.into_iter().skip(usize::from(planted(Bug::SegmentNotNamed))) {
            let name = self.parts.tables[table].name.clone();
            change.tables.entry(name).or_default().added.push(segment);
        }
        for (exit, file) in written.exits {
            change.outbox.entry(exit).and_modify(|change| change.added = Some(file));
        }
        let (watermark, ended) = (self.parts.watermark.current(), self.ended);
        let ages = |table: usize| Ages { watermark, now: closing.now, ended, floor: closing.floors[table], pressed: closing.pressed };
        for Edit { table, change: edit, expired } in self.upkeep.edits(&self.parts.tables, self.parts.chain.whole(), ages) {
            let name = &self.parts.tables[table].name;
            let entry = change.tables.entry(name.clone()).or_default();
            (entry.removed, entry.marked, entry.dropped) = (edit.removed, edit.marked, edit.dropped);
            entry.added.extend(edit.added);
            if expired > 0 {
                closing.expired.insert(table, expired);
                *change.counters.entry(format!("table.{name}.expired")).or_default() += expired;
            }
        }
        self.sealing = true;
        Ok(self.parts.chain.next(change)?.clone())
    }

    fn on_sealed(&mut self) -> Action {
        assert!(std::mem::take(&mut self.sealing), "sealed follows a record");
        let closing = self.closing.take().expect("sealed follows a cut");
        for (tally, rows) in self.tables.iter_mut().zip(closing.rows) {
            tally.stored += rows;
        }
        closing.expired.into_iter().for_each(|(table, rows)| self.tables[table].expired += rows);
        self.upkeep.sealed();
        let before = self.parts.chain.whole().clone();
        let gone = self.parts.chain.sealed();
        let epoch = Epoch(self.parts.chain.header().number);
        Action::Publish { epoch, gone: gone.into_iter().map(|file| place(&before, file)).collect() }
    }
}

/// The name of the count of dead letters of a reason.
pub(crate) fn dead_word(reason: Reason) -> String {
    format!("dead_letters.{}", reason.as_str())
}

/// The name of the count of dead letters of a reason that are not in the table, because there were too many at once.
pub(crate) fn unstored_word(reason: Reason) -> String {
    format!("dead_letters_unstored.{}", reason.as_str())
}

fn by_reason(counters: &BTreeMap<String, u64>, word: fn(Reason) -> String) -> BTreeMap<Reason, u64> {
    Reason::ALL.into_iter().filter_map(|r| counters.get(&word(r)).map(|rows| (r, *rows))).collect()
}

/// What a file was.
fn place(before: &Whole, file: String) -> Gone {
    let of = before.tables.iter().find(|(_, state)| state.segments.iter().any(|s| s.file == file));
    match of {
        Some((table, _)) => Gone::Segment { table: table.clone(), file },
        None if before.outbox.values().any(|exit| exit.files.iter().any(|f| f.file == file)) => Gone::Outbox { file },
        None => Gone::State { file },
    }
}

/// The names under which rows stand in the outbox: of exits, then of sinks.
fn outbox_names(parts: &Parts) -> impl Iterator<Item = &String> {
    parts.exits.iter().chain(parts.sinks.iter().map(|sink| &sink.name))
}

fn nothing_leaving(exit: &str, first: u64) -> ExitRows {
    ExitRows { exit: exit.to_owned(), first, rows: vec![] }
}

/// Rows whose marks are at least `w`: a lane that is new to a second stage may send some that were taken below it.
fn raised(batch: Batch, w: EventTime) -> Result<Batch> {
    let marks = batch.trail_column(trail::WATERMARK).expect("rows of a first stage are marked").as_primitive::<Int64Type>().values();
    if marks.first().is_none_or(|first| *first >= w.0) {
        return Ok(batch);
    }
    let marks: Vec<i64> = marks.iter().map(|mark| *mark.max(&w.0)).collect();
    mark_watermarks(batch, &marks)
}

/// The rows of a file batch that lie at or above the lane's own position; other batches unchanged.
fn skip_taken(batch: Batch, from: Offset) -> Result<Batch> {
    let Some(offsets) = batch.trail_column(trail::OFFSET) else { return Ok(batch) };
    let offsets = offsets.as_primitive::<UInt64Type>();
    if offsets.values().first().is_none_or(|first| *first >= from.0) {
        return Ok(batch);
    }
    let keep = cmp::gt_eq(offsets, &UInt64Array::new_scalar(from.0)).map_err(|e| flow::Error::stop("comparing row numbers", e))?;
    batch.filter(&keep)
}

fn mark_watermarks(batch: Batch, water: &[i64]) -> Result<Batch> {
    let marks: arrow::array::ArrayRef = Arc::new(Int64Array::from(water.to_vec()));
    let mut columns: Vec<(String, arrow::array::ArrayRef, bool)> = vec![];
    if let Some(beside) = batch.trail() {
        let others = beside.schema_ref().fields().iter().zip(beside.columns()).filter(|(field, _)| field.name() != trail::WATERMARK);
        for (field, column) in others {
            columns.push((field.name().clone(), column.clone(), field.is_nullable()));
        }
    }
    columns.push((trail::WATERMARK.to_string(), marks, false));
    let beside = RecordBatch::try_from_iter_with_nullable(columns).map_err(|e| flow::Error::stop("marking watermarks", e))?;
    Ok(batch.with_trail(Some(beside)))
}

/// The rows that count, and those too far ahead of their arrival.
fn split_future(batch: Batch, future: Option<&BooleanArray>) -> Result<(Batch, Option<Batch>)> {
    let Some(future) = future.filter(|mask| mask.true_count() > 0) else { return Ok((batch, None)) };
    let keep = arrow::compute::not(future).map_err(|e| flow::Error::stop("future guard", e))?;
    Ok((batch.filter(&keep)?, Some(batch.filter(future)?)))
}
