//! Opening and closing a journal.

use super::body::Delivery;
use super::codec::EncodedFrame;
use super::file::{SegmentHeader, clean, create, seed};
use super::handle::{Command, JournalHandle, QUEUE_BYTES, Shared, State};
use super::options::JournalOptions;
use super::recover::{Recovered, peek, recover};
use super::replay::Lanes;
use super::writer::Writer;
use crate::lock::DirectoryLock;
use flow::{Error, Offset, Remedy, Result};
use std::future::Future;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use tokio::sync::{Semaphore, mpsc};
use world::{DiskFile, World, is_full, sync_parent};

/// An open journal: its writer thread lives as long as this.
pub struct Journal {
    handle: JournalHandle,
    writer: Option<JoinHandle<()>>,
}

impl Journal {
    /// The id of the journal in `directory`, by which a lane finds its position; none where there is no journal yet (every position is 0).
    pub fn peek(directory: &Path) -> Result<Option<Arc<str>>> {
        Self::peek_on(&World::real(), directory)
    }

    /// As `peek`, in any world.
    pub fn peek_on(world: &World, directory: &Path) -> Result<Option<Arc<str>>> {
        Ok(peek(&*world.disk, directory)?.map(name))
    }

    /// Opens the journal in `directory`, or makes it. `from` holds each lane's position in it, `deliver` each lane's queue.
    ///
    /// Returns when the log is checked and its torn tail is cut; the writer thread then sends each lane its frames from its position on
    /// and goes live. An error that says stop names the file and byte of damage below what
    /// was on disk; one that says retry, that the disk is full.
    pub fn open(
        directory: &Path,
        options: &JournalOptions,
        lanes: u32,
        from: &[Offset],
        deliver: Vec<mpsc::Sender<Delivery>>,
    ) -> Result<Self> {
        let (mut journal, writing) = Self::prepare(&World::real(), directory, options, lanes, from, deliver)?;
        journal.start(writing)?;
        Ok(journal)
    }

    /// Gives the journal a thread of its own, on which it writes.
    pub fn start(&mut self, writing: impl Future<Output = ()> + Send + 'static) -> Result<()> {
        let failed = |e| Error::stop("starting the journal's thread", e);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(failed)?;
        let spawned = std::thread::Builder::new().name("journal".into()).spawn(move || runtime.block_on(writing));
        self.writer = Some(spawned.map_err(failed)?);
        Ok(())
    }

    /// As `open`, in any world: the journal works while the future that is given back is polled, which ends after `close`.
    pub fn prepare(
        world: &World,
        directory: &Path,
        options: &JournalOptions,
        lanes: u32,
        from: &[Offset],
        deliver: Vec<mpsc::Sender<Delivery>>,
    ) -> Result<(Self, impl Future<Output = ()> + Send + 'static)> {
        let disk = &*world.disk;
        if from.len() != lanes as usize || deliver.len() != lanes as usize || lanes == 0 {
            let what = format!("{lanes} lanes with {} positions and {} queues", from.len(), deliver.len());
            return Err(Error::new(Remedy::Stop, what));
        }
        let lock = DirectoryLock::take(disk, directory)?;
        clean(disk, directory)?;
        let known = from.iter().map(|o| o.0).max().unwrap_or_default();
        let least = from.iter().map(|o| o.0).min().unwrap_or_default();
        let found = recover(disk, directory, least, known)?;
        let mut journal =
            found.unwrap_or_else(|| Recovered { id: world.time.chance(), segments: Vec::new(), end: 0, recent: Default::default() });
        let header = SegmentHeader { id: journal.id, first: journal.end.max(known), follows: journal.end };
        let restatement = EncodedFrame::restatement(&journal.recent, seed(journal.id));
        let made = |e| {
            let what = format!("making a journal segment in {}", directory.display());
            if is_full(&e) { Error::retry(what, e) } else { Error::stop(what, e) }
        };
        let (file, segment) = create(disk, directory, header, &restatement, options.segment_bytes).map_err(made)?;
        sync_parent(disk, directory).map_err(made)?;
        journal.segments.push(segment);
        let shared = Arc::new(share(world, directory, options, lanes, journal, file, header.first + 1));
        let (send, take) = mpsc::unbounded_channel();
        let writer = Writer::new(shared.clone(), take, Lanes::new(deliver), options, lock);
        let from = from.to_vec();
        Ok((Self { handle: JournalHandle { shared, send }, writer: None }, async move { writer.run(&from).await }))
    }

    /// A way to the journal for sources and lanes.
    #[must_use]
    pub fn handle(&self) -> JournalHandle {
        self.handle.clone()
    }

    /// Writes what was appended so far and stops; blocks until the files are free. The lanes must still take their deliveries, or have
    /// dropped their queues.
    pub fn close(mut self) {
        self.stop();
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the journal's thread panicked");
        }
    }

    fn stop(&self) {
        self.handle.shared.stopping.store(true, Ordering::Release);
        if self.handle.send.send(Command::Stop).is_err() {
            tracing::debug!("the journal's thread had ended before");
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.stop();
    }
}

fn share(
    world: &World,
    directory: &Path,
    options: &JournalOptions,
    lanes: u32,
    journal: Recovered,
    current: Arc<dyn DiskFile>,
    next: u64,
) -> Shared {
    Shared {
        world: world.clone(),
        directory: directory.to_owned(),
        id: name(journal.id),
        number: journal.id,
        seed: seed(journal.id),
        lanes,
        keep: options.keep.0,
        room: Arc::new(Semaphore::new(QUEUE_BYTES)),
        durable: AtomicU64::new(next),
        stalled: AtomicBool::new(false),
        stopping: AtomicBool::new(false),
        state: Mutex::new(State { segments: journal.segments, current, written: next, recent: journal.recent, failed: None }),
        #[cfg(test)]
        broken_disk: AtomicBool::new(false),
    }
}

pub(super) fn name(id: u64) -> Arc<str> {
    format!("{id:016x}").into()
}
