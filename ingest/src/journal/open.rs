//! Opening and closing a journal.

use super::body::Delivery;
use super::codec::EncodedFrame;
use super::file::{SegmentHeader, clean, create, full, seed, sync_directory};
use super::handle::{Command, JournalHandle, QUEUE_BYTES, Shared, State};
use super::options::JournalOptions;
use super::recover::{Recovered, peek, recover};
use super::replay::Lanes;
use super::writer::Writer;
use crate::lock::DirectoryLock;
use flow::{Error, Offset, Remedy, Result};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use tokio::sync::Semaphore;

/// An open journal: its writer thread lives as long as this.
pub struct Journal {
    handle: JournalHandle,
    writer: Option<JoinHandle<()>>,
}

impl Journal {
    /// The id of the journal in `directory`, by which a lane finds its position; none where there is no journal yet (every position is 0).
    pub fn peek(directory: &Path) -> Result<Option<Arc<str>>> {
        Ok(peek(directory)?.map(name))
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
        deliver: Vec<tokio::sync::mpsc::Sender<Delivery>>,
    ) -> Result<Self> {
        if from.len() != lanes as usize || deliver.len() != lanes as usize || lanes == 0 {
            let what = format!("{lanes} lanes with {} positions and {} queues", from.len(), deliver.len());
            return Err(Error::new(Remedy::Stop, what));
        }
        let lock = DirectoryLock::take(directory)?;
        clean(directory)?;
        let known = from.iter().map(|o| o.0).max().unwrap_or_default();
        let least = from.iter().map(|o| o.0).min().unwrap_or_default();
        let found = recover(directory, least, known)?;
        let mut journal = found.unwrap_or_else(|| Recovered { id: new_id(), segments: Vec::new(), end: 0, recent: Default::default() });
        let header = SegmentHeader { id: journal.id, first: journal.end.max(known), follows: journal.end };
        let restatement = EncodedFrame::restatement(&journal.recent, seed(journal.id));
        let made = |e| {
            let what = format!("making a journal segment in {}", directory.display());
            if full(&e) { Error::retry(what, e) } else { Error::stop(what, e) }
        };
        let (file, segment) = create(directory, header, &restatement, options.segment_bytes).map_err(made)?;
        if let Some(parent) = directory.parent() {
            sync_directory(if parent.as_os_str().is_empty() { Path::new(".") } else { parent }).map_err(made)?;
        }
        journal.segments.push(segment);
        let shared = Arc::new(share(directory, options, lanes, journal, Arc::new(file), header.first + 1));
        let (send, take) = mpsc::channel();
        let writer = Writer::new(shared.clone(), take, Lanes::new(deliver), options, lock);
        let from = from.to_vec();
        let spawned = std::thread::Builder::new().name("journal".into()).spawn(move || writer.run(&from));
        let writer = spawned.map_err(|e| Error::stop("starting the journal's thread", e))?;
        Ok(Self { handle: JournalHandle { shared, send }, writer: Some(writer) })
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
        if self.writer.is_some() {
            self.stop();
        }
    }
}

fn share(directory: &Path, options: &JournalOptions, lanes: u32, journal: Recovered, current: Arc<std::fs::File>, next: u64) -> Shared {
    Shared {
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

/// Two journals of one machine must not share an id; chance is enough.
fn new_id() -> u64 {
    rand::random()
}
