//! Pumps a file source: one thread reads in file order, some decode, and each lane gets its rows in that order.
//!
//! Every batch goes to every lane, with the rows of its keys or none, so that all positions move on together. A lane skips what it has.

use crate::plan::PlannedSource;
use crate::run::clock::now;
use crate::run::feed::FileDelivery;
use crate::spec::Source;
use arrow::array::UInt32Array;
use flow::{Error, Offset, Positions, Remedy, Result};
use ingest::SourceStatus;
use ingest::decode::{CsvOptions, Decoder};
use ingest::file::{FileBatch, FileReader, Mode};
use ingest::rejected::Rejected;
use ingest::route::lanes_of;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::mpsc::Sender;
use tokio_util::sync::CancellationToken;

/// How often a watched folder is looked at.
const WATCH: Duration = Duration::from_millis(500);

/// The most threads that decode the files of a source: the one that reads and hands out feeds no more.
const DECODERS: usize = 4;

/// The thread of a file source.
pub(crate) struct Reader {
    thread: Option<JoinHandle<Result<()>>>,
    finite: bool,
}

/// A decoder for a source, made anew: each thread and connection has its own.
pub(crate) fn decoder(source: &PlannedSource) -> Result<Box<dyn Decoder>> {
    let csv = match &source.kind {
        Source::File(options) => options.csv.clone(),
        Source::Mqtt(_) | Source::Kafka(_) | Source::Http(_) => CsvOptions::default(),
    };
    ingest::decode::decoder_with(&source.decode, &source.columns, &source.captures, &source.key, &csv)
        .map_err(|e| Error::stop(format!("source {}", source.name), e))
}

/// As many as there are cores: lanes and decoders wait for each other.
fn decoders() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(DECODERS)
}

impl Reader {
    /// Starts reading at the least of the lanes' positions.
    pub(crate) fn start(
        source: &PlannedSource,
        positions: Vec<Positions>,
        lanes: Vec<Sender<FileDelivery>>,
        status: Arc<SourceStatus>,
        stop: CancellationToken,
    ) -> Result<Self> {
        let Source::File(options) = &source.kind else {
            return Err(Error::new(Remedy::Stop, format!("source {} reads no files", source.name)));
        };
        let finite = options.mode == Mode::Once;
        let known = positions.iter().max_by_key(|p| p.0.len()).map_or(&[][..], |p| &p.0);
        let decoders = (0..decoders()).map(|_| decoder(source)).collect::<Result<_>>()?;
        let mut reader = FileReader::open(&source.name.as_str().into(), options.clone(), source.decode.format, decoders, known, now())?;
        let (file, row) = least(&positions, reader.files().len());
        reader.start_at(file, row);
        let pump = Pump { finite, reader, lanes, key: source.key_columns.clone(), known: positions, status, of: vec![] };
        let thread = std::thread::Builder::new().name(format!("file-{}", source.name)).spawn(move || pump.run(&stop));
        Ok(Self { thread: Some(thread.map_err(|e| Error::stop("starting a file reader", e))?), finite })
    }

    /// Whether everything is read.
    pub(crate) fn finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Whether the source comes to an end by itself.
    pub(crate) fn finite(&self) -> bool {
        self.finite
    }

    /// The error of a reader that broke off.
    pub(crate) fn check(&mut self) -> Result<()> {
        match self.thread.take() {
            Some(thread) if thread.is_finished() => {
                thread.join().unwrap_or_else(|_| Err(Error::new(Remedy::Stop, "a file reader broke off")))
            }
            running => {
                self.thread = running;
                Ok(())
            }
        }
    }
}

/// The first (file, row) that some lane has not taken. Files are read one after the other, so a lane stands in its last begun one.
fn least(positions: &[Positions], files: usize) -> (usize, Offset) {
    let stands = |p: &Positions| p.0.iter().rposition(|f| f.next > Offset(0)).map_or((0, Offset(0)), |file| (file, p.0[file].next));
    positions.iter().map(stands).min().filter(|(file, _)| *file < files).unwrap_or((0, Offset(0)))
}

struct Pump {
    finite: bool,
    reader: FileReader,
    lanes: Vec<Sender<FileDelivery>>,
    key: Vec<usize>,
    known: Vec<Positions>,
    status: Arc<SourceStatus>,
    of: Vec<u32>,
}

impl Pump {
    fn run(mut self, stop: &CancellationToken) -> Result<()> {
        self.tell_files();
        let mut caught_up = false;
        while !stop.is_cancelled() {
            if let Some(batch) = self.reader.next()? {
                caught_up = false;
                if !self.hand_out(batch)? {
                    return Ok(());
                }
            } else if self.finite {
                return Ok(());
            } else if self.reader.look(now())? {
                self.tell_files();
            } else {
                if !std::mem::replace(&mut caught_up, true) {
                    self.tell_caught_up();
                }
                std::thread::sleep(WATCH);
            }
        }
        Ok(())
    }

    /// From here on silence may count.
    fn tell_caught_up(&self) {
        for lane in &self.lanes {
            // A lane that has ended says why itself.
            let _ = lane.blocking_send(FileDelivery::CaughtUp);
        }
    }

    /// Gives each lane the files that it does not know.
    fn tell_files(&mut self) {
        for (lane, known) in self.lanes.iter().zip(&mut self.known) {
            let files = self.reader.files();
            let mut new: Vec<_> = files[known.0.len().min(files.len())..].to_vec();
            new.iter_mut().for_each(|file| file.next = Offset(0));
            known.0.extend(new.iter().cloned());
            if !new.is_empty() {
                // A lane that has ended says why itself.
                let _ = lane.blocking_send(FileDelivery::Files(new));
            }
        }
    }

    /// False when a lane has ended.
    fn hand_out(&mut self, read: FileBatch) -> Result<bool> {
        let (rows, rejects) = (read.rows.len() as u64, read.rejects.len() as u64);
        self.status.received.fetch_add(rows + rejects, Relaxed);
        let path = self.reader.files()[read.file].log.clone();
        let parts = self.split(&read)?;
        let mut rejects_of: Vec<Vec<Rejected>> = self.lanes.iter().map(|_| vec![]).collect();
        let count = rejects_of.len() as u64;
        for (row, mut reject) in read.rejects {
            reject.offset = Some(row);
            let lane = row % count;
            rejects_of[lane as usize].push(reject);
        }
        for ((lane, batch), rejects) in self.lanes.iter().zip(parts).zip(rejects_of) {
            let delivery = FileDelivery::Rows { path: path.clone(), batch, rejects, next: read.next_row };
            if lane.blocking_send(delivery).is_err() {
                return Ok(false);
            }
        }
        self.status.logged.fetch_add(rows, Relaxed);
        self.status.rejected.fetch_add(rejects, Relaxed);
        Ok(true)
    }

    fn split(&mut self, read: &FileBatch) -> Result<Vec<Option<flow::Batch>>> {
        let lanes = self.lanes.len() as u32;
        if lanes == 1 {
            return Ok(vec![Some(read.rows.clone())]);
        }
        lanes_of(read.rows.rows(), &self.key, lanes, &mut self.of);
        let mut indices: Vec<Vec<u32>> = (0..lanes).map(|_| Vec::with_capacity(read.rows.len() / lanes as usize + 1)).collect();
        for (row, lane) in self.of.iter().enumerate() {
            indices[*lane as usize].push(row as u32);
        }
        let part = |rows: Vec<u32>| if rows.is_empty() { Ok(None) } else { read.rows.take(&UInt32Array::from(rows)).map(Some) };
        indices.into_iter().map(part).collect()
    }
}
