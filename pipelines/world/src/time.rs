//! Clocks, chance, and threads that may block.

use flow::WallTime;
use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Something that is waited for.
pub type Waiting = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Work that may block.
pub type Job = Box<dyn FnOnce() + Send>;

/// Clocks and chance of a process.
pub trait Time: Send + Sync {
    /// The wall clock, in microseconds UTC. It may be set back.
    fn now(&self) -> WallTime;
    /// A clock that never goes back, since some instant of this process.
    fn elapsed(&self) -> Duration;
    /// Resolves after `how_long`.
    fn sleep(&self, how_long: Duration) -> Waiting;
    /// A random number.
    fn chance(&self) -> u64;
    /// A place between two effects where others may run. On a machine they run anyway.
    fn between(&self) -> Waiting {
        Box::pin(std::future::ready(()))
    }
    /// A place where a task that always has work lets others run, and clocks go on.
    fn give_way(&self) -> Waiting {
        Box::pin(std::future::ready(()))
    }
}

/// Threads that may block.
pub trait Threads: Send + Sync {
    /// Begins a job; it is done sometime, in any order with others.
    fn start(&self, job: Job);
}

/// The clocks and threads of this machine.
#[derive(Debug)]
pub struct RealTime {
    start: Instant,
}

impl RealTime {
    /// The monotonic clock begins here.
    #[must_use]
    pub fn new() -> Self {
        Self { start: Instant::now() }
    }
}

impl Default for RealTime {
    fn default() -> Self {
        Self::new()
    }
}

impl Time for RealTime {
    fn now(&self) -> WallTime {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        WallTime(since.as_micros() as i64)
    }

    fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    fn sleep(&self, how_long: Duration) -> Waiting {
        Box::pin(tokio::time::sleep(how_long))
    }

    fn chance(&self) -> u64 {
        rand::random()
    }

    fn give_way(&self) -> Waiting {
        Box::pin(tokio::task::yield_now())
    }
}

impl Threads for RealTime {
    fn start(&self, job: Job) {
        // The job tells its outcome itself.
        drop(tokio::task::spawn_blocking(job));
    }
}
