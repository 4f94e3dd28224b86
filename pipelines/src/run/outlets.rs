//! What the lanes of a family and their second stage tell each other: what is sealed, what is taken, and when a window there is due. Where processes
//! share the lanes, some of them and the stage are elsewhere, and `liaison` tells here what their records say.

use crate::plan::PlannedExit;
use flow::{EventTime, Positions};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use storage::epoch::{ExitState, Whole};
use tokio::sync::Notify;

/// Stands in the record of a lane that has read its log to the end and found nothing with an event time.
pub(crate) const NOTHING: &str = "lane.nothing";
/// Stands in the record of a second stage: the least watermark at which it would act, in microseconds; 0 for none.
pub(crate) const TIMER: &str = "lane.timer";

/// Shared by the lanes of a family and their second stage.
pub(crate) struct Outlets {
    pub(crate) exits: Vec<PlannedExit>,
    feeders: Mutex<Vec<Arc<Feeder>>>,
    /// Each lane has a log of its own; otherwise they share one.
    own_logs: bool,
    /// How far the second stage has taken the lanes' rows, by its newest record at the start.
    positions: Mutex<Positions>,
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
        let (positions, wanted) = (Mutex::new(positions), AtomicI64::new(i64::MAX));
        Self { exits, feeders: Mutex::default(), own_logs, positions, wanted, news: Notify::new() }
    }

    /// Adds a lane, or goes on with the one of that name; `whole` is what its newest record says. Gives its number.
    pub(crate) fn add(&self, name: String, whole: Arc<Whole>) -> usize {
        let mut feeders = self.feeders();
        let number = match feeders.iter().position(|feeder| feeder.name == name) {
            Some(number) => {
                *sealed(&feeders[number]) = whole;
                number
            }
            None => {
                let positions = self.positions();
                let taken = self.exits.iter().map(|exit| AtomicU64::new(positions.next(&log_name(&name, exit)).0)).collect();
                feeders.push(Arc::new(Feeder { name, sealed: Mutex::new(whole), taken, has_nothing: AtomicBool::new(false) }));
                feeders.len() - 1
            }
        };
        self.news.notify_one();
        number
    }

    /// What the newest record of a lane says that another process has; one that is not newer than what is known changes nothing.
    pub(crate) fn tell(&self, name: String, whole: Arc<Whole>) {
        let known = self.feeders().iter().find(|feeder| feeder.name == name).map(|feeder| sealed(feeder).clone());
        if known.is_none_or(|known| *known != *whole && !is_older(&whole, &known)) {
            self.add(name, whole);
        }
    }

    /// The second stage has sealed that it took the lanes' rows up to here: as it begins, or as another process has it.
    pub(crate) fn reached(&self, positions: &Positions) {
        *self.positions() = positions.clone();
        for feeder in self.feeders().iter() {
            for (exit, taken) in self.exits.iter().zip(&feeder.taken) {
                taken.fetch_max(positions.next(&log_name(&feeder.name, exit)).0, Ordering::AcqRel);
            }
        }
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
            true if newest.counters.contains_key(NOTHING) => u64::MAX,
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

    /// Whether the lanes have logs of their own.
    pub(crate) fn own_logs(&self) -> bool {
        self.own_logs
    }

    fn positions(&self) -> MutexGuard<'_, Positions> {
        self.positions.lock().expect("nothing panics while it holds positions")
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

/// Whether a record of a lane comes before another one of it, by what can only grow: its log may stand still while windows close by silence.
fn is_older(whole: &Whole, than: &Whole) -> bool {
    let has_less = |(name, known): (&String, &ExitState)| {
        let exit = whole.outbox.get(name);
        exit.map_or(known.next > 0, |exit| exit.next < known.next || exit.watermark < known.watermark)
    };
    progress(whole) < progress(than) || than.outbox.iter().any(has_less)
}

/// The name of the log that an exit of a lane is.
pub(crate) fn log_name(feeder: &str, exit: &PlannedExit) -> String {
    format!("{feeder}/{}", exit.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Input;
    use flow::{Offset, Position};

    fn whole(next: u64) -> Arc<Whole> {
        let position = Position { log: "t/0".into(), next: Offset(next), file: None };
        Arc::new(Whole { positions: Positions(vec![position]), ..Whole::default() })
    }

    fn outlets() -> Outlets {
        let exit = PlannedExit { input: Input::Partials(0), name: "all".into(), sources: vec![0], schema: None };
        Outlets::new(vec![exit], true, Positions::default())
    }

    #[test]
    fn a_lane_that_comes_back_goes_on_under_its_number() {
        let outlets = outlets();
        assert_eq!((outlets.add("a".into(), whole(1)), outlets.add("b".into(), whole(1))), (0, 1));
        assert_eq!(outlets.add("a".into(), whole(7)), 0);
        assert_eq!((outlets.count(), progress(&outlets.newest(0))), (2, 7));
    }

    #[test]
    fn what_is_told_of_a_lane_elsewhere_never_goes_back() {
        let outlets = outlets();
        outlets.tell("a".into(), whole(5));
        outlets.tell("a".into(), whole(3));
        assert_eq!(progress(&outlets.newest(0)), 5);
        outlets.tell("a".into(), whole(9));
        assert_eq!(progress(&outlets.newest(0)), 9);
    }

    #[test]
    fn what_is_told_late_does_not_take_back_a_window_that_silence_has_closed() {
        let with_exit = |watermark, next| {
            let exit = ExitState { watermark, next, ..ExitState::default() };
            Arc::new(Whole { outbox: [("all".to_owned(), exit)].into(), ..(*whole(5)).clone() })
        };
        let newest = |outlets: &Outlets| outlets.newest(0).outbox.get("all").map(|exit| (exit.watermark, exit.next));
        let outlets = outlets();
        outlets.tell("a".into(), with_exit(10, 1));
        for older in [whole(5), with_exit(9, 1), with_exit(10, 0)] {
            outlets.tell("a".into(), older);
            assert_eq!(newest(&outlets), Some((10, 1)));
        }
        outlets.tell("a".into(), with_exit(20, 2));
        assert_eq!(newest(&outlets), Some((20, 2)));
    }

    #[test]
    fn what_a_stage_elsewhere_has_taken_counts_for_lanes_that_are_there_and_for_later_ones() {
        let outlets = outlets();
        outlets.add("a".into(), whole(1));
        let log = |name: &str, next| Position { log: format!("{name}/all").into(), next: Offset(next), file: None };
        outlets.reached(&Positions(vec![log("a", 4), log("b", 6)]));
        outlets.add("b".into(), whole(1));
        outlets.reached(&Positions(vec![log("a", 2)]));
        assert_eq!((outlets.taken(0), outlets.taken(1)), (vec![4], vec![6]));
    }

    #[test]
    fn a_lane_whose_record_says_that_it_has_nothing_is_not_waited_for() {
        let outlets = outlets();
        outlets.add("a".into(), whole(0));
        assert_eq!(outlets.reach(0, &whole(0)), 0);
        let nothing = Whole { counters: [(NOTHING.to_owned(), 1)].into(), ..Whole::default() };
        assert_eq!(outlets.reach(0, &nothing), u64::MAX);
    }
}
