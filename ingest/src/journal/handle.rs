//! How sources and lanes speak to the journal.

use super::body::Group;
use super::codec::Encoded;
use super::file::Segment;
use super::recent::Recent;
use flow::{Error, Metric, Offset, Remedy, Result, WallTime};
use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, UNIX_EPOCH};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use world::{Bug, DiskFile, World, planted};

/// Bytes of groups that may wait or be under way at once: one segment, so that a slow disk is felt by the sources soon.
pub(super) const QUEUE_BYTES: usize = 64 << 20;

/// A way to the journal; clones lead to the same one.
#[derive(Clone)]
pub struct JournalHandle {
    pub(super) shared: Arc<Shared>,
    pub(super) send: mpsc::UnboundedSender<Command>,
}

/// What the writer is asked to do.
pub(super) enum Command {
    Write(Pending),
    Stop,
}

/// A group that waits for its fsync.
pub(super) struct Pending {
    pub(super) group: Group,
    pub(super) encoded: Encoded,
    pub(super) tell: oneshot::Sender<Offset>,
    pub(super) _room: OwnedSemaphorePermit,
}

/// What the writer and the handles both see.
pub(super) struct Shared {
    pub(super) world: World,
    pub(super) directory: PathBuf,
    pub(super) id: Arc<str>,
    pub(super) number: u64,
    pub(super) seed: u32,
    pub(super) lanes: u32,
    pub(super) keep: Duration,
    pub(super) room: Arc<Semaphore>,
    /// Everything below is on disk.
    pub(super) durable: AtomicU64,
    /// The disk is full down to the reserve: nothing is acknowledged.
    pub(super) stalled: AtomicBool,
    pub(super) stopping: AtomicBool,
    pub(super) state: Mutex<State>,
    /// Every fsync fails from now on.
    #[cfg(test)]
    pub(super) broken_disk: AtomicBool,
}

pub(super) struct State {
    /// In order; the last one is being written.
    pub(super) segments: Vec<Segment>,
    pub(super) current: Arc<dyn DiskFile>,
    /// Everything below is written to `current` or an older segment.
    pub(super) written: u64,
    pub(super) recent: Recent,
    /// Why nothing more is taken.
    pub(super) failed: Option<Arc<str>>,
}

impl JournalHandle {
    /// Hands a group over. Waits for room in the queue (bounded by bytes); the answer resolves when the group is on disk.
    ///
    /// Groups of one caller that awaits each `append` stand in the journal in that order. An error means that the journal has stopped:
    /// nothing of the group is acknowledged, and only opening it anew helps.
    pub async fn append(&self, mut group: Group) -> Result<Durable> {
        self.shared.check()?;
        if let Some(lane) = group.frames.iter().filter_map(|(lane, _)| *lane).find(|lane| *lane >= self.shared.lanes) {
            return Err(Error::new(Remedy::Stop, format!("a frame for lane {lane}, the journal has {}", self.shared.lanes)));
        }
        group.cut();
        let cost = group.cost().min(QUEUE_BYTES) as u32;
        let room = self.shared.room.clone().acquire_many_owned(cost).await.map_err(|_| self.shared.stopped())?;
        let encoded = Encoded::new(&group, self.shared.seed)?;
        let (tell, told) = oneshot::channel();
        let pending = Pending { group, encoded, tell, _room: room };
        self.send.send(Command::Write(pending)).map_err(|_| self.shared.stopped())?;
        Ok(Durable { told, shared: self.shared.clone() })
    }

    /// The journal's id; its lanes are `<id>/<n>`.
    #[must_use]
    pub fn id(&self) -> Arc<str> {
        self.shared.id.clone()
    }

    /// The clock of the journal's world that never goes back.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.shared.world.elapsed()
    }

    /// The wall clock of the journal's world.
    #[must_use]
    pub fn now(&self) -> WallTime {
        self.shared.world.now()
    }

    /// Everything below is on disk.
    #[must_use]
    pub fn durable(&self) -> Offset {
        Offset(self.shared.durable.load(Ordering::Acquire))
    }

    /// Whether the disk is full down to the reserve, so that nothing is acknowledged for now.
    #[must_use]
    pub fn stalled(&self) -> bool {
        self.shared.stalled.load(Ordering::Relaxed)
    }

    /// Why the journal takes nothing more; none while all is well.
    #[must_use]
    pub fn failed(&self) -> Option<Arc<str>> {
        self.shared.state().failed.clone()
    }

    /// Bytes of groups that wait or are under way, and how many may be.
    #[must_use]
    pub fn queue_bytes(&self) -> (usize, usize) {
        (QUEUE_BYTES.saturating_sub(self.shared.room.available_permits()), QUEUE_BYTES)
    }

    /// Bytes of all segments.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.shared.state().segments.iter().map(|s| s.bytes).sum()
    }

    /// Keys ([`Publish::key`](super::Publish::key)) of the publishes that a broker may deliver again, by connection, oldest first: at most
    /// the last 65,535 of each session that stand in the journal, as many as a broker has packet identifiers; it may have more open than the
    /// source's Receive Maximum. One key may stand there several times, once for each publish.
    #[must_use]
    pub fn recent(&self) -> BTreeMap<u32, Vec<u64>> {
        self.shared.state().recent.keys()
    }

    /// Producers, whether they are there, and since when, as the journal's frames say.
    #[must_use]
    pub fn connections(&self) -> Vec<(u32, bool, WallTime)> {
        self.shared.state().recent.states()
    }

    /// Forces everything below `below` to disk; blocks. A lane calls it before it seals a position. With `sync = "always"` there is
    /// never anything to do.
    pub fn sync_below(&self, below: Offset) -> Result<()> {
        if self.durable() >= below {
            return Ok(());
        }
        self.shared.check()?;
        let (file, written) = {
            let state = self.shared.state();
            (state.current.clone(), state.written)
        };
        assert!(written >= below.0, "a lane wants {} on disk, the journal is written up to {written}", below.0);
        self.shared.sync(&*file).map_err(|e| self.shared.fail(&format!("fsync of the journal: {e}")))?;
        self.shared.durable.fetch_max(written, Ordering::AcqRel);
        Ok(())
    }

    /// Says that no lane needs the frames below `below` any more. Deletes whole segments, oldest first, never the one being written.
    pub fn release(&self, below: Offset) -> Result<()> {
        self.shared.check()?;
        let mut state = self.shared.state();
        while state.segments.len() > 1
            && (state.segments[1].first <= below.0 || planted(Bug::LogCutTooEarly))
            && self.shared.old_enough(&state.segments[0])
        {
            let path = &state.segments[0].path;
            self.shared.world.disk.remove(path).map_err(|e| Error::retry(format!("deleting {}", path.display()), e))?;
            state.segments.remove(0);
        }
        Ok(())
    }
}

impl Shared {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stops everything for good: nothing more is acknowledged.
    pub(super) fn fail(&self, why: &str) -> Error {
        self.state().failed.get_or_insert_with(|| why.into());
        self.room.close();
        self.stopped()
    }

    /// Forces a file to disk: its data and its length.
    pub(super) fn sync(&self, file: &dyn DiskFile) -> std::io::Result<()> {
        #[cfg(test)]
        if self.broken_disk.load(Ordering::Relaxed) {
            return Err(std::io::Error::other("the disk is broken"));
        }
        let began = self.world.elapsed();
        file.sync_data()?;
        metrics::histogram!(Metric::JournalFsync.name()).record(self.world.elapsed().saturating_sub(began).as_secs_f64());
        Ok(())
    }

    pub(super) fn check(&self) -> Result<()> {
        let failed = self.state().failed.is_some();
        if failed { Err(self.stopped()) } else { Ok(()) }
    }

    fn stopped(&self) -> Error {
        let why = self.state().failed.clone();
        Error::new(Remedy::Stop, format!("the journal has stopped: {}", why.as_deref().unwrap_or("it was closed")))
    }

    fn old_enough(&self, segment: &Segment) -> bool {
        if self.keep.is_zero() {
            return true;
        }
        let now = UNIX_EPOCH + Duration::from_micros(self.world.now().0.max(0) as u64);
        let written = self.world.disk.modified(&segment.path);
        written.is_ok_and(|at| now.duration_since(at).is_ok_and(|age| age >= self.keep))
    }
}

/// Resolves when a group is on disk, to the offset behind its last frame. An error means that it must not be acknowledged.
pub struct Durable {
    told: oneshot::Receiver<Offset>,
    shared: Arc<Shared>,
}

impl Durable {
    /// Waits on a thread that may block.
    pub fn wait(self) -> Result<Offset> {
        self.told.blocking_recv().map_err(|_| self.shared.stopped())
    }
}

impl Future for Durable {
    type Output = Result<Offset>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.told).poll(context).map(|told| told.map_err(|_| self.shared.stopped()))
    }
}
