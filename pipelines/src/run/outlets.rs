//! What the lanes of a family and their second stage tell each other: what is sealed, what is taken, and when a window there is due.

use crate::plan::PlannedExit;
use flow::{EventTime, Positions};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use storage::epoch::Whole;
use tokio::sync::Notify;

/// Shared by the lanes of a family and their second stage.
pub(crate) struct Outlets {
    pub(crate) exits: Vec<PlannedExit>,
    feeders: Mutex<Vec<Arc<Feeder>>>,
    /// Each lane has a log of its own; otherwise they share one.
    own_logs: bool,
    /// How far the second stage has taken the lanes' rows, by its newest record at the start.
    positions: Positions,
    wanted: AtomicI64,
    news: Notify,
}

/// A lane that feeds the second stage.
struct Feeder {
    name: String,
    sealed: Mutex<Arc<Whole>>,
    /// By exit: the second stage has sealed that it took all rows below.
    taken: Vec<AtomicU64>,
    /// It has read its log to the end and found nothing with an event time.
    has_nothing: AtomicBool,
}

impl Outlets {
    /// Without lanes yet. `positions` are those of the second stage.
    pub(crate) fn new(exits: Vec<PlannedExit>, own_logs: bool, positions: Positions) -> Self {
        Self { exits, feeders: Mutex::default(), own_logs, positions, wanted: AtomicI64::new(i64::MAX), news: Notify::new() }
    }

    /// Adds a lane; `sealed` is what its newest record says. Gives its number.
    pub(crate) fn add(&self, name: String, sealed: Arc<Whole>) -> usize {
        let taken = self.exits.iter().map(|exit| AtomicU64::new(self.positions.next(&log_name(&name, exit)).0)).collect();
        let feeder = Feeder { name, sealed: Mutex::new(sealed), taken, has_nothing: AtomicBool::new(false) };
        let mut feeders = self.feeders();
        feeders.push(Arc::new(feeder));
        self.news.notify_one();
        feeders.len() - 1
    }

    /// How many lanes there are.
    pub(crate) fn count(&self) -> usize {
        self.feeders().len()
    }

    /// The name of a lane.
    pub(crate) fn name(&self, feeder: usize) -> String {
        self.feeder(feeder).name.clone()
    }

    /// A lane has sealed a record.
    pub(crate) fn seal(&self, feeder: usize, whole: Arc<Whole>) {
        *sealed(&self.feeder(feeder)) = whole;
        self.news.notify_one();
    }

    /// What the newest record of a lane says.
    pub(crate) fn newest(&self, feeder: usize) -> Arc<Whole> {
        sealed(&self.feeder(feeder)).clone()
    }

    /// A lane without a watermark has read its log to the end.
    pub(crate) fn has_nothing(&self, feeder: usize) {
        if !self.feeder(feeder).has_nothing.swap(true, Ordering::AcqRel) {
            self.news.notify_one();
        }
    }

    /// How far a lane without a watermark has read: what others sealed counts so far. A log of its own says nothing of those of others:
    /// until it is read to its end, it may hold the first rows of all.
    pub(crate) fn reach(&self, feeder: usize, newest: &Whole) -> u64 {
        match self.own_logs {
            false => progress(newest),
            true if self.feeder(feeder).has_nothing.load(Ordering::Acquire) => u64::MAX,
            true => 0,
        }
    }

    /// Resolves when some lane has sealed since the last call. For one waiter.
    pub(crate) async fn news(&self) {
        self.news.notified().await;
    }

    /// The second stage has sealed that it took all rows of an exit below a number.
    pub(crate) fn take(&self, feeder: usize, exit: usize, below: u64) {
        self.feeder(feeder).taken[exit].fetch_max(below, Ordering::AcqRel);
    }

    /// By exit, how many rows of a lane are taken for good.
    pub(crate) fn taken(&self, feeder: usize) -> Vec<u64> {
        self.feeder(feeder).taken.iter().map(|taken| taken.load(Ordering::Acquire)).collect()
    }

    /// The least watermark at which the second stage would act.
    pub(crate) fn want(&self, timer: Option<EventTime>) {
        self.wanted.store(timer.map_or(i64::MAX, |timer| timer.0), Ordering::Release);
    }

    /// What was wanted last; none where nothing is.
    pub(crate) fn wanted(&self) -> Option<EventTime> {
        Some(EventTime(self.wanted.load(Ordering::Acquire))).filter(|w| *w != EventTime::MAX)
    }

    fn feeder(&self, number: usize) -> Arc<Feeder> {
        self.feeders()[number].clone()
    }

    fn feeders(&self) -> MutexGuard<'_, Vec<Arc<Feeder>>> {
        self.feeders.lock().expect("nothing panics while it holds the lanes")
    }
}

fn sealed(feeder: &Feeder) -> MutexGuard<'_, Arc<Whole>> {
    feeder.sealed.lock().expect("nothing panics while it holds what is sealed")
}

/// How much of the log is in a record: all lanes of a shared log count in the same numbers.
pub(crate) fn progress(whole: &Whole) -> u64 {
    whole.positions.0.iter().map(|p| p.next.0).sum()
}

/// The name of the log that an exit of a lane is.
pub(crate) fn log_name(feeder: &str, exit: &PlannedExit) -> String {
    format!("{feeder}/{}", exit.name)
}
