//! One seeded scheduler over virtual time. It chooses which task goes on, fires timers, and does blocking jobs when it likes.
//!
//! Nothing here waits: when no task is ready, time jumps to the next timer or job.

use crate::chance::Chance;
use crate::coverage::{At, Coverage, Fault};
use crate::faults::Faults;
use flow::WallTime;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::Future;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;
use world::{Job, Threads, Time, Waiting};

/// The wall clock when a simulation begins: 2026-01-01T00:00:00Z, in microseconds.
pub(crate) const BEGINNING: i64 = 1_767_225_600_000_000;
/// How many of the last events a failing seed prints, where `EVENTS` says nothing.
const SHOWN: usize = 60;

/// What everything in one simulation shares.
pub(crate) struct Sim {
    pub(crate) faults: Faults,
    /// How many of the last events a failing seed prints.
    shown: usize,
    state: Mutex<State>,
}

pub(crate) struct State {
    pub(crate) chance: Chance,
    pub(crate) now: Duration,
    pub(crate) wall_step: i64,
    /// Faults are over.
    pub(crate) healed: bool,
    /// Until when the disk is full.
    pub(crate) full_until: Duration,
    pub(crate) coverage: Coverage,
    hasher: DefaultHasher,
    last: VecDeque<String>,
    timers: BTreeMap<(Duration, u64), Waker>,
    jobs: BTreeMap<(Duration, u64), (Arc<Process>, Job)>,
    /// Commits to cold that have failed for who made them, and will happen yet.
    pub(crate) late_commits: Vec<Job>,
    serial: u64,
    ready: Arc<Mutex<BTreeSet<u64>>>,
}

/// One life of the product's process.
pub(crate) struct Process {
    pub(crate) number: u64,
    /// Nothing it does has an effect any more.
    pub(crate) dead: AtomicBool,
    /// It is starting.
    pub(crate) recovering: AtomicBool,
    /// Disk operations until it crashes; negative for never.
    pub(crate) left: AtomicI64,
}

impl Process {
    pub(crate) fn new(number: u64, left: i64) -> Arc<Self> {
        Arc::new(Self { number, dead: AtomicBool::new(false), recovering: AtomicBool::new(true), left: AtomicI64::new(left) })
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Relaxed)
    }

    pub(crate) fn kill(&self) {
        self.dead.store(true, Ordering::Relaxed);
    }
}

impl Sim {
    pub(crate) fn new(seed: u64, faults: Faults) -> Arc<Self> {
        let state = State {
            chance: Chance::new(seed.wrapping_mul(0x2545_f491_4f6c_dd1d)),
            now: Duration::ZERO,
            wall_step: 0,
            healed: false,
            full_until: Duration::ZERO,
            coverage: Coverage::default(),
            hasher: DefaultHasher::new(),
            last: VecDeque::new(),
            timers: BTreeMap::new(),
            jobs: BTreeMap::new(),
            late_commits: vec![],
            serial: 0,
            ready: Arc::default(),
        };
        let shown = std::env::var("EVENTS").ok().and_then(|n| n.parse().ok()).unwrap_or(SHOWN);
        Arc::new(Self { faults, shown, state: Mutex::new(state) })
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// What the wall clock shows.
    pub(crate) fn wall(&self) -> WallTime {
        let state = self.state();
        WallTime(BEGINNING + state.now.as_micros() as i64 + state.wall_step)
    }

    pub(crate) fn now(&self) -> Duration {
        self.state().now
    }

    /// True in `rate` of 10,000 cases, while faults are on.
    pub(crate) fn fault(&self, rate: u64) -> bool {
        let mut state = self.state();
        !state.healed && state.chance.happens(rate)
    }

    pub(crate) fn below(&self, n: u64) -> u64 {
        self.state().chance.below(n)
    }

    /// Notes an event: it goes into the hash that two runs of a seed must share.
    pub(crate) fn note(&self, event: impl FnOnce() -> String) {
        let mut state = self.state();
        let event = event();
        event.hash(&mut state.hasher);
        let line = format!("{:>12.6} {event}", state.now.as_secs_f64());
        if state.last.len() == self.shown {
            state.last.pop_front();
        }
        state.last.push_back(line);
    }

    pub(crate) fn met(&self, fault: Fault, at: At) {
        self.state().coverage.count(fault, at);
    }

    pub(crate) fn event(&self, what: &'static str) {
        self.state().coverage.event(what);
        self.note(|| what.to_owned());
    }

    pub(crate) fn hash(&self) -> u64 {
        self.state().hasher.finish()
    }

    pub(crate) fn last_events(&self) -> Vec<String> {
        self.state().last.iter().cloned().collect()
    }

    pub(crate) fn sleep(self: &Arc<Self>, how_long: Duration) -> Waiting {
        let deadline = self.now() + how_long;
        Box::pin(Sleep { sim: self.clone(), deadline, key: None })
    }
}

struct Sleep {
    sim: Arc<Sim>,
    deadline: Duration,
    key: Option<(Duration, u64)>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let sim = self.sim.clone();
        let mut state = sim.state();
        if let Some(key) = self.key.take() {
            state.timers.remove(&key);
            if state.now >= self.deadline {
                return Poll::Ready(());
            }
        }
        // Even no time at all lets others go first.
        state.serial += 1;
        let key = (self.deadline, state.serial);
        state.timers.insert(key, context.waker().clone());
        self.key = Some(key);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            self.sim.state().timers.remove(&key);
        }
    }
}

/// The clocks and threads of one process.
pub(crate) struct ProcessTime {
    pub(crate) sim: Arc<Sim>,
    pub(crate) process: Arc<Process>,
}

impl Time for ProcessTime {
    fn now(&self) -> WallTime {
        self.sim.wall()
    }

    fn elapsed(&self) -> Duration {
        self.sim.now()
    }

    fn sleep(&self, how_long: Duration) -> Waiting {
        self.sim.sleep(how_long)
    }

    fn chance(&self) -> u64 {
        self.sim.state().chance.next()
    }

    fn between(&self) -> Waiting {
        let pause = self.sim.below(300);
        self.sim.sleep(Duration::from_micros(pause))
    }
}

impl Threads for ProcessTime {
    fn start(&self, job: Job) {
        let mut state = self.sim.state();
        let longest = if state.healed { 1_000 } else { self.sim.faults.job_us };
        let at = state.now + Duration::from_micros(state.chance.below(longest));
        state.serial += 1;
        let key = (at, state.serial);
        state.jobs.insert(key, (self.process.clone(), job));
    }
}

struct TaskWaker {
    id: u64,
    ready: Arc<Mutex<BTreeSet<u64>>>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.ready.lock().unwrap().insert(self.id);
    }
}

type Future_ = Pin<Box<dyn Future<Output = flow::Result<()>> + Send>>;

struct Running {
    name: String,
    process: Arc<Process>,
    future: Future_,
}

/// The tasks of all processes that live.
pub(crate) struct Scheduler {
    sim: Arc<Sim>,
    tasks: BTreeMap<u64, Running>,
    next: u64,
    pub(crate) steps: u64,
}

/// A task that has ended.
pub(crate) struct Ended {
    pub(crate) name: String,
    pub(crate) process: u64,
    pub(crate) outcome: flow::Result<()>,
}

impl Scheduler {
    pub(crate) fn new(sim: &Arc<Sim>) -> Self {
        Self { sim: sim.clone(), tasks: BTreeMap::new(), next: 0, steps: 0 }
    }

    pub(crate) fn spawn(&mut self, process: &Arc<Process>, name: &str, future: impl Future<Output = flow::Result<()>> + Send + 'static) {
        self.tasks.insert(self.next, Running { name: name.to_owned(), process: process.clone(), future: Box::pin(future) });
        self.sim.state().ready.lock().unwrap().insert(self.next);
        self.next += 1;
    }

    /// Drops the tasks of a process whose names `gone` holds for, and its jobs if all are.
    pub(crate) fn drop_tasks(&mut self, process: u64, gone: impl Fn(&str) -> bool) {
        let ids: Vec<u64> = self.tasks.iter().filter(|(_, t)| t.process.number == process && gone(&t.name)).map(|(id, _)| *id).collect();
        let dropped: Vec<_> = ids.iter().filter_map(|id| self.tasks.remove(id)).collect();
        drop(dropped);
        if !self.tasks.values().any(|t| t.process.number == process) {
            let jobs: Vec<_> = self.sim.state().jobs.extract_if(.., |_, (of, _)| of.number == process).collect();
            drop(jobs);
        }
    }

    /// Does one thing: polls a ready task, or does the job or fires the timer that is due next. What ended is given back.
    pub(crate) fn step(&mut self) -> Option<Ended> {
        self.steps += 1;
        let ready = self.sim.state().ready.clone();
        let id = {
            let mut ready = ready.lock().unwrap();
            ready.retain(|id| self.tasks.contains_key(id));
            let place = self.sim.below(ready.len() as u64) as usize;
            let id = ready.iter().nth(place).copied();
            id.inspect(|id| _ = ready.remove(id))
        };
        let Some(id) = id else {
            self.advance();
            return None;
        };
        let waker = Waker::from(Arc::new(TaskWaker { id, ready }));
        let task = self.tasks.get_mut(&id)?;
        let polled = task.future.as_mut().poll(&mut Context::from_waker(&waker));
        let Poll::Ready(outcome) = polled else { return None };
        let task = self.tasks.remove(&id)?;
        Some(Ended { name: task.name, process: task.process.number, outcome })
    }

    fn advance(&mut self) {
        let mut state = self.sim.state();
        let (timer, job) = (state.timers.keys().next().copied(), state.jobs.keys().next().copied());
        let due = [timer, job].into_iter().flatten().min();
        let Some((at, _)) = due else { panic!("nothing can happen any more at {:?}", state.now) };
        state.now = state.now.max(at);
        if due == timer {
            let waker = state.timers.remove(&due.unwrap());
            drop(state);
            waker.unwrap().wake();
        } else if let Some((process, job)) = state.jobs.remove(&due.unwrap()) {
            drop(state);
            if !process.is_dead() {
                job();
            }
        }
    }
}
