//! Decodes the chunks of a source's files on several threads, and gives what became of them in the order of the chunks.
//!
//! Chunks go to the threads in turn and are taken from them in the same turn. A decoder depends on nothing that it decoded before, so the
//! rows are those that one thread would give.

use super::reader::FileBatch;
use super::records::Chunk;
use crate::Rejected;
use crate::decode::{Decoded, Decoder, Format, Message, Reject};
use arrow::array::{ArrayRef, RecordBatch, UInt64Array};
use flow::{Batch, Error, Offset, Origin, Remedy, Result, WallTime, trail};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

/// Chunks at a thread: one that is decoded, one that waits.
const AHEAD: usize = 2;

/// The file of some chunks.
pub(super) struct OfFile {
    /// Its index in `FileReader::files`.
    pub(super) number: usize,
    pub(super) path: Arc<str>,
    /// When it was found: its rows reached us then.
    pub(super) arrival: WallTime,
    /// The first record of a CSV file that has one.
    pub(super) header: Option<Vec<u8>>,
}

/// A chunk to be decoded. One without records is the end of its file.
pub(super) struct Job {
    pub(super) file: Arc<OfFile>,
    /// Number of its first record in the file.
    pub(super) first: u64,
    pub(super) chunk: Chunk,
}

/// What became of a chunk, and its bytes.
type Done = (Result<FileBatch>, Arc<Vec<u8>>);

/// See the page.
pub(super) struct Decoders {
    threads: Vec<(SyncSender<Job>, Receiver<Done>)>,
    /// Chunks given and taken so far.
    given: usize,
    taken: usize,
}

impl Decoders {
    /// A thread for each decoder; there is at least one.
    pub(super) fn start(source: &Arc<str>, format: Format, decoders: Vec<Box<dyn Decoder>>) -> Result<Self> {
        let mut threads = Vec::with_capacity(decoders.len());
        for decoder in decoders {
            let (jobs, to_do) = sync_channel::<Job>(AHEAD);
            let (done, results) = sync_channel(AHEAD);
            let mut thread = Thread { source: source.clone(), format, decoder, header_of: None };
            let work = move || {
                // Both ends of a channel go when the reader is gone.
                while let Ok(job) = to_do.recv() {
                    let result = thread.decode(&job);
                    if done.send((result, job.chunk.bytes)).is_err() {
                        return;
                    }
                }
            };
            let started = thread::Builder::new().name(format!("decode-{source}")).spawn(work);
            started.map_err(|e| Error::stop("starting a decoder", e))?;
            threads.push((jobs, results));
        }
        assert!(!threads.is_empty(), "files are decoded by at least one thread");
        Ok(Self { threads, given: 0, taken: 0 })
    }

    /// Whether another chunk can be given without waiting.
    pub(super) fn has_room(&self) -> bool {
        self.given - self.taken < AHEAD * self.threads.len()
    }

    pub(super) fn give(&mut self, job: Job) -> Result<()> {
        let (jobs, _) = &self.threads[self.given % self.threads.len()];
        jobs.send(job).map_err(|_| broken())?;
        self.given += 1;
        Ok(())
    }

    /// What became of the first chunk that is not taken yet; waits for it. None when there is none.
    pub(super) fn take(&mut self) -> Option<Done> {
        if self.given == self.taken {
            return None;
        }
        let (_, done) = &self.threads[self.taken % self.threads.len()];
        self.taken += 1;
        Some(done.recv().unwrap_or_else(|_| (Err(broken()), Arc::default())))
    }
}

fn broken() -> Error {
    Error::new(Remedy::Stop, "a decoder of files broke off")
}

struct Thread {
    source: Arc<str>,
    format: Format,
    decoder: Box<dyn Decoder>,
    /// The file whose header the decoder has.
    header_of: Option<usize>,
}

impl Thread {
    fn decode(&mut self, job: &Job) -> Result<FileBatch> {
        let file = &job.file;
        if let Some(header) = file.header.as_ref().filter(|_| self.header_of != Some(file.number)) {
            self.decoder.begin(header).map_err(|e| Error::stop(format!("header of {}", file.path), e))?;
            self.header_of = Some(file.number);
        }
        // Blank lines are rows without readings. They are told apart here, so that a decoder sees only records.
        let mut numbers = Vec::with_capacity(job.chunk.places.len());
        let mut messages = Vec::with_capacity(job.chunk.places.len());
        for (number, place) in (job.first..).zip(&job.chunk.places) {
            let record = &job.chunk.bytes[place.clone()];
            let payload = record.strip_suffix(b"\n").unwrap_or(record);
            let payload = payload.strip_suffix(b"\r").unwrap_or(payload);
            // In CSV spaces and tabs may be fields.
            let blank = if self.format == Format::Json { payload.trim_ascii().is_empty() } else { payload.is_empty() };
            if !blank {
                numbers.push(number);
                messages.push(Message { topic: Some(&file.path), captures: &[], payload });
            }
        }
        let Decoded { rows, messages: of, rejects } = self.decoder.decode(&messages, file.arrival);
        let offsets: ArrayRef = Arc::new(UInt64Array::from_iter_values(of.iter().map(|&m| numbers[m as usize])));
        let trail = RecordBatch::try_from_iter([(trail::OFFSET, offsets)]).map_err(|e| Error::stop("numbering rows", e))?;
        let origin = Origin { source: self.source.clone(), producer: 0, topic: Some(file.path.clone()), arrival: file.arrival };
        let reject = |r: Reject| {
            let (number, payload) = (numbers[r.message as usize], messages[r.message as usize].payload);
            let rejected = Rejected {
                source: self.source.clone(),
                topic: Some(file.path.clone()),
                offset: Some(number),
                reason: r.reason,
                detail: r.detail,
                payload: Rejected::cut(payload),
                length: payload.len() as u64,
                arrival: file.arrival,
            };
            (number, rejected)
        };
        Ok(FileBatch {
            file: file.number,
            rejects: rejects.into_iter().map(reject).collect(),
            rows: Batch::new(rows, Arc::new(origin))?.with_trail(Some(trail)),
            next_row: Offset(job.first + job.chunk.places.len() as u64),
            end_of_file: job.chunk.places.is_empty(),
        })
    }
}
