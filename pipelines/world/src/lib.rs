//! What a process touches, behind seams: a disk, the time, and threads that may block.
//!
//! The durable part of the product (journal, records, state, segments, lanes, mover) reaches the world through [`World`] alone, so the
//! same code runs on a machine and under a simulation that owns every disk, clock and interleaving. [`World::real`] is the machine.
//!
//! Absent by intent: networks and processes; and what a file means, which is the business of the rooms that write it.

mod disk;
mod local;
mod planted;
mod point;
mod time;

pub use disk::{Disk, DiskFile, Entry, FileReader, is_full, read, sync_parent};
pub use local::{LocalDisk, local_disk};
#[cfg(feature = "planted")]
pub use planted::plant;
pub use planted::{Bug, planted};
pub use point::{Point, reach};
pub use time::{Job, RealTime, Threads, Time, Waiting};

use flow::{Error, Result, WallTime};
use std::sync::Arc;
use std::time::Duration;

/// The disk, the time and the threads of one process. Clones share them.
#[derive(Clone)]
pub struct World {
    /// Where files lie.
    pub disk: Arc<dyn Disk>,
    /// Clocks and chance.
    pub time: Arc<dyn Time>,
    /// Threads that may block.
    pub threads: Arc<dyn Threads>,
}

impl World {
    /// This machine. Waiting and jobs need a tokio runtime around them.
    #[must_use]
    pub fn real() -> Self {
        let real = Arc::new(RealTime::new());
        Self { disk: local_disk(), time: real.clone(), threads: real }
    }

    /// The wall clock, in microseconds UTC. It may be set back.
    #[must_use]
    pub fn now(&self) -> WallTime {
        self.time.now()
    }

    /// A clock that never goes back, since some instant of this process.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.time.elapsed()
    }

    /// Waits.
    pub async fn sleep(&self, how_long: Duration) {
        self.time.sleep(how_long).await;
    }

    /// Does `job` on a thread that may block. Dropping the answer does not stop the job. `what` names it in the error of a job that broke.
    pub async fn blocking<T: Send + 'static>(&self, what: &'static str, job: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let (tell, told) = tokio::sync::oneshot::channel();
        self.threads.start(Box::new(move || {
            // Whoever asked may have gone; the work is done all the same.
            let _ = tell.send(job());
        }));
        told.await.map_err(|e| Error::stop(format!("{what} broke off"), e))
    }
}
