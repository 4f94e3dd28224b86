//! A model of what sinks publish to: for each pair of sink and lane a log of rows, with the progress that stands beside it. As with transactions of
//! Kafka, rows and progress come together or not at all; whoever begins anew under a name ends what others had open under it; and a failure
//! says nothing about the outcome.

use crate::clockwork::{Process, Sim};
use crate::oracle::{Tables, text, times, whole};
use arrow::array::RecordBatch;
use flow::Result;
use pipelines::plan::PlannedSink;
use pipelines::relay::{Failure, Publish, Publishers, Rows};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use storage::view::LaneView;

/// The sinks of the plan: name, the windows that they get, and the column of their key.
pub(crate) const SINKS: [(&str, &str, &str); 2] = [("windows", "per_window", "device"), ("totals", "total", "")];

/// The sink that is told of moves.
pub(crate) const MOVES: &str = "moves";

/// All that was ever published. It outlives every process.
#[derive(Default)]
pub(crate) struct Published {
    logs: Mutex<BTreeMap<String, Log>>,
}

/// What one sink has of one lane.
#[derive(Default)]
struct Log {
    sink: String,
    /// Of clients under this name only the newest may publish.
    newest: u64,
    progress: u64,
    rows: Vec<RecordBatch>,
    gap: Option<String>,
}

/// The way of one process to it.
pub(crate) struct SimPublishers {
    pub(crate) sim: Arc<Sim>,
    pub(crate) process: Arc<Process>,
    pub(crate) published: Arc<Published>,
}

struct SimPublisher {
    sim: Arc<Sim>,
    process: Arc<Process>,
    published: Arc<Published>,
    name: String,
    /// Number of our client, and the progress that it knows.
    live: Option<(u64, u64)>,
}

impl Publishers for SimPublishers {
    fn publisher(&self, sink: &PlannedSink, _: &str, lane: &str, chain: &str) -> Result<Box<dyn Publish>> {
        let (sim, process, published) = (self.sim.clone(), self.process.clone(), self.published.clone());
        let name = format!("{}/{lane}/{chain}", sink.name);
        published.logs().entry(name.clone()).or_default().sink.clone_from(&sink.name);
        Ok(Box::new(SimPublisher { sim, process, published, name, live: None }))
    }
}

impl Publish for SimPublisher {
    fn publish(&mut self, rows: &[Rows]) -> std::result::Result<u64, Failure> {
        let (client, next) = match self.live.take() {
            Some(live) => live,
            None => self.begin()?,
        };
        let end = rows.last().map_or(0, Rows::end);
        if end > next {
            self.fails("publish refused", self.sim.faults.publish_error)?;
            self.commit(client, next, rows, end)?;
            self.fails("publish without answer", self.sim.faults.publish_unknown)?;
        }
        self.live = Some((client, end.max(next)));
        Ok(end.max(next))
    }
}

impl SimPublisher {
    fn begin(&self) -> std::result::Result<(u64, u64), Failure> {
        self.fails("publish refused", self.sim.faults.publish_error)?;
        let mut logs = self.published.logs();
        let log = logs.get_mut(&self.name).expect("made with the publisher");
        log.newest += 1;
        Ok((log.newest, log.progress))
    }

    fn commit(&self, client: u64, next: u64, rows: &[Rows], end: u64) -> std::result::Result<(), Failure> {
        let mut logs = self.published.logs();
        let log = logs.get_mut(&self.name).expect("made with the publisher");
        if log.newest != client {
            self.sim.event("publisher fenced");
            return Err(Failure::Other("another client publishes under this name".into()));
        }
        if rows[0].first > next {
            log.gap.get_or_insert(format!("{}: rows {next} to {} were never published", self.name, rows[0].first));
        }
        for of in rows {
            let mut first = of.first;
            for batch in &of.batches {
                let skip = next.saturating_sub(first).min(batch.num_rows() as u64) as usize;
                log.rows.push(batch.slice(skip, batch.num_rows() - skip));
                first += batch.num_rows() as u64;
            }
        }
        log.progress = end;
        Ok(())
    }

    fn fails(&self, what: &'static str, rate: u64) -> std::result::Result<(), Failure> {
        if self.process.is_dead() {
            return Err(Failure::Other("the process is dead".into()));
        }
        if self.sim.fault(rate) {
            self.sim.event(what);
            return Err(Failure::Other(what.into()));
        }
        Ok(())
    }
}

impl Published {
    fn logs(&self) -> MutexGuard<'_, BTreeMap<String, Log>> {
        self.logs.lock().expect("nothing panics while it holds what is published")
    }

    /// Whether each move of each lane was told once, with as many rows as have left its warm tier, for the tables with a cold one.
    pub(crate) fn judge_moves(&self, lanes: &[LaneView], tables: &[&str]) -> std::result::Result<(), String> {
        let (mut parts, mut told) = (BTreeSet::new(), BTreeMap::<(String, String), (BTreeSet<i64>, i64)>::new());
        for batch in self.logs().values().filter(|log| log.sink == MOVES).flat_map(|log| &log.rows) {
            let [table, lane] = ["table", "lane"].map(|column| text(batch, column));
            let ([moves, rows], partitions) = (["move", "rows"].map(|column| whole(batch, column)), times(batch, "event_time"));
            for i in 0..batch.num_rows() {
                let part = (table[i].clone(), lane[i].clone(), moves[i], partitions[i]);
                let sum = told.entry((part.0.clone(), part.1.clone())).or_default();
                sum.0.insert(moves[i]);
                sum.1 += rows[i];
                if !parts.insert(part.clone()) {
                    return Err(format!("the move {part:?} was told twice"));
                }
            }
        }
        for (lane, table) in lanes.iter().flat_map(|lane| tables.iter().map(move |table| (lane, *table))) {
            let (state, stored) = (lane.whole.tables.get(table), lane.whole.counters.get(&format!("table.{table}.stored")));
            let (dropped, there) = state.map_or((0, 0), |s| (s.dropped, s.segments.iter().map(|s| s.rows).sum()));
            let expected = ((1..=dropped as i64).collect(), (stored.copied().unwrap_or(0) - there) as i64);
            let found = told.remove(&(table.to_owned(), lane.lane.0.to_string())).unwrap_or_default();
            if found != expected {
                return Err(format!("of moves and rows of {table} in {} {expected:?} are done, told were {found:?}", lane.lane));
            }
        }
        told.keys().next().map_or(Ok(()), |of| Err(format!("a move of {of:?} was told and is in no record")))
    }

    /// Whether each sink has each window of its table once, and nothing else.
    pub(crate) fn judge(&self, tables: &Tables) -> std::result::Result<(), String> {
        let logs = self.logs();
        if let Some(gap) = logs.values().find_map(|log| log.gap.clone()) {
            return Err(gap);
        }
        for (sink, table, key) in SINKS {
            let mut seen = BTreeMap::new();
            for batch in logs.values().filter(|log| log.sink == sink).flat_map(|log| &log.rows) {
                let (counts, sums, starts) = (whole(batch, "count"), whole(batch, "total"), times(batch, "window_start"));
                let keys = if key.is_empty() { vec![String::new(); batch.num_rows()] } else { text(batch, key) };
                for i in 0..batch.num_rows() {
                    let window = (table, keys[i].clone(), starts[i]);
                    if seen.insert(window.clone(), (counts[i], sums[i])).is_some() {
                        return Err(format!("window {window:?} was published twice"));
                    }
                }
            }
            let expected: BTreeMap<_, _> =
                tables.windows.iter().filter(|((name, ..), _)| *name == table).map(|(window, values)| (window.clone(), *values)).collect();
            if let Some((window, values)) = expected.iter().find(|(window, values)| seen.get(*window) != Some(values)) {
                return Err(format!("window {window:?} is {values:?}, published was {:?}", seen.get(window)));
            }
            if let Some(window) = seen.keys().find(|window| !expected.contains_key(*window)) {
                return Err(format!("window {window:?} was published and is in no table"));
            }
        }
        Ok(())
    }
}
