//! What the lanes of a family and their second stage tell each other: what is sealed, what is taken, and when a window there is due.

use crate::plan::PlannedExit;
use flow::EventTime;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use storage::epoch::Whole;
use tokio::sync::Notify;

/// Shared by the lanes of one log and their second stage.
pub(crate) struct Outlets {
    pub(crate) exits: Vec<PlannedExit>,
    /// The names of the lanes, in their order.
    pub(crate) feeders: Vec<String>,
    sealed: Mutex<Vec<Arc<Whole>>>,
    /// By lane and exit: the second stage has sealed that it took all rows below.
    taken: Vec<Vec<AtomicU64>>,
    wanted: AtomicI64,
    news: Notify,
}

impl Outlets {
    /// `sealed` is what each lane's newest record says; `taken` gives how far a log was taken, by its name.
    pub(crate) fn new(exits: Vec<PlannedExit>, lanes: Vec<(String, Arc<Whole>)>, taken: &dyn Fn(&str) -> u64) -> Self {
        let (feeders, sealed): (Vec<_>, Vec<_>) = lanes.into_iter().unzip();
        let of = |feeder: &String| exits.iter().map(|exit| AtomicU64::new(taken(&log_name(feeder, exit)))).collect();
        let taken = feeders.iter().map(of).collect();
        Self { exits, feeders, sealed: Mutex::new(sealed), taken, wanted: AtomicI64::new(i64::MAX), news: Notify::new() }
    }

    /// A lane has sealed a record.
    pub(crate) fn seal(&self, feeder: usize, whole: Arc<Whole>) {
        self.sealed()[feeder] = whole;
        self.news.notify_one();
    }

    /// What the newest record of a lane says.
    pub(crate) fn newest(&self, feeder: usize) -> Arc<Whole> {
        self.sealed()[feeder].clone()
    }

    /// Resolves when some lane has sealed since the last call. For one waiter.
    pub(crate) async fn news(&self) {
        self.news.notified().await;
    }

    /// The second stage has sealed that it took all rows of an exit below a number.
    pub(crate) fn take(&self, feeder: usize, exit: usize, below: u64) {
        self.taken[feeder][exit].fetch_max(below, Ordering::AcqRel);
    }

    /// By exit, how many rows of a lane are taken for good.
    pub(crate) fn taken(&self, feeder: usize) -> Vec<u64> {
        self.taken[feeder].iter().map(|taken| taken.load(Ordering::Acquire)).collect()
    }

    /// The least watermark at which the second stage would act.
    pub(crate) fn want(&self, timer: Option<EventTime>) {
        self.wanted.store(timer.map_or(i64::MAX, |timer| timer.0), Ordering::Release);
    }

    /// What was wanted last; none where nothing is.
    pub(crate) fn wanted(&self) -> Option<EventTime> {
        Some(EventTime(self.wanted.load(Ordering::Acquire))).filter(|w| *w != EventTime::MAX)
    }

    fn sealed(&self) -> MutexGuard<'_, Vec<Arc<Whole>>> {
        self.sealed.lock().expect("nothing panics while it holds what is sealed")
    }
}

/// The name of the log that an exit of a lane is.
pub(crate) fn log_name(feeder: &str, exit: &PlannedExit) -> String {
    format!("{feeder}/{}", exit.name)
}
