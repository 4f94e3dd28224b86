//! Takes requests one after the other, many at a time: decode, route, journal; each is answered when the journal has it on disk.
//!
//! ```text
//! request ──► Intake ──queue──► worker ──append──► journal
//!    ▲                            │                   │
//!    └──────── Receipt ◄──────────┴──── durable ◄─────┘
//! ```
//! The queue is bounded by requests and bytes; beyond it a request is refused at once, and its sender tries again.

use super::keys::{Keys, Settled, key_hash, settling};
use super::options::HttpSourceOptions;
use super::request::{Receipt, Refusal, Refused, Request};
use crate::batch::{Batcher, Made, Topics, Unusable};
use crate::decode::{Decoder, OptionError};
use crate::journal::{Body, Group, JournalHandle, Publish};
use crate::mqtt::Received;
use crate::status::SourceStatus;
use flow::{Error, Metric, Result, Span};
use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// Requests that may wait.
const WAITING: usize = 1_024;

/// Bytes of requests that may wait or be under way.
const WAITING_BYTES: usize = 64 << 20;

/// Requests that are taken at once.
const TOGETHER: usize = 256;

/// A source that is sent to by HTTP.
pub struct HttpSource {
    /// Name of the source in the pipeline.
    pub name: Arc<str>,
    /// Its number as a producer of the journal; the same after every start.
    pub producer: u32,
    /// Options of the source.
    pub options: HttpSourceOptions,
    /// Made for the captures of the first pattern (`HttpSourceOptions::patterns`), in its order.
    pub decoder: Box<dyn Decoder>,
    /// Indices of the key columns in the decoder's schema.
    pub key: Vec<usize>,
    /// Lanes of the journal.
    pub lanes: u32,
    /// Largest message in bytes; a larger one is a dead letter.
    pub max_message: usize,
    /// Rows further ahead of their arrival keep the bytes of their message beside them.
    pub max_future: Span,
}

/// The way in for requests; clones lead to the same source.
#[derive(Clone)]
pub struct Intake {
    queue: mpsc::Sender<Asked>,
    room: Arc<Semaphore>,
    max_body: usize,
    status: Arc<SourceStatus>,
}

struct Asked {
    request: Request,
    tell: oneshot::Sender<Answer>,
    _room: OwnedSemaphorePermit,
}

/// A receipt, and when it holds; none: it does.
type Answer = (Receipt, Option<Settled>);

impl Intake {
    /// The most bytes of a request.
    #[must_use]
    pub fn max_body(&self) -> usize {
        self.max_body
    }

    /// Takes a request; resolves when all of it is durable.
    pub async fn take(&self, request: Request) -> Result<Receipt, Refusal> {
        let bytes = request.bytes().clamp(1, WAITING_BYTES) as u32;
        let room = self.room.clone().try_acquire_many_owned(bytes).map_err(|_| Refusal::Busy)?;
        let (tell, told) = oneshot::channel();
        self.queue.try_send(Asked { request, tell, _room: room }).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => Refusal::Busy,
            mpsc::error::TrySendError::Closed(_) => Refusal::Stopping,
        })?;
        self.status.unacked.fetch_add(1, Relaxed);
        let answer = settled(told).await;
        self.status.unacked.fetch_sub(1, Relaxed);
        answer
    }
}

async fn settled(told: oneshot::Receiver<Answer>) -> Result<Receipt, Refusal> {
    let (receipt, settled) = told.await.map_err(|_| Refusal::Stopping)?;
    match settled {
        Some(settled) => settled.await.map(|()| receipt).map_err(|_| Refusal::Stopping),
        None => Ok(receipt),
    }
}

/// Opens a source: its way in, and the task that works until `stop`. An error of the task means that the journal takes nothing more.
pub fn open(
    source: HttpSource,
    journal: JournalHandle,
    status: Arc<SourceStatus>,
    stop: CancellationToken,
) -> Result<(Intake, impl Future<Output = Result<()>> + Send + 'static)> {
    let wrong = |e: OptionError| Error::stop(format!("source {}", source.name), e);
    let topics = Topics::new(source.options.patterns().map_err(wrong)?);
    let max_body = usize::try_from(source.options.max_body.0).unwrap_or(usize::MAX);
    let keys = Keys::new(journal.recent().remove(&source.producer).unwrap_or_default());
    let batcher = Batcher {
        source: source.name,
        producer: source.producer,
        decoder: source.decoder,
        topics,
        key: source.key,
        lanes: source.lanes,
        max_message: source.max_message,
        max_future: source.max_future,
        explain: true,
    };
    let (queue, asked) = mpsc::channel(WAITING);
    let worker = Worker { batcher, keys, journal, status: status.clone() };
    Ok((Intake { queue, room: Arc::new(Semaphore::new(WAITING_BYTES)), max_body, status }, worker.work(asked, stop)))
}

struct Worker {
    batcher: Batcher,
    keys: Keys,
    journal: JournalHandle,
    status: Arc<SourceStatus>,
}

impl Worker {
    async fn work(mut self, mut asked: mpsc::Receiver<Asked>, stop: CancellationToken) -> Result<()> {
        // Senders come and go unseen: the source as a whole is there as long as it runs, and its silence counts.
        self.tell(true).await?;
        self.status.connected.store(1, Relaxed);
        let mut waiting = Vec::with_capacity(TOGETHER);
        loop {
            let taken = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                taken = asked.recv_many(&mut waiting, TOGETHER) => taken,
            };
            if taken == 0 {
                break;
            }
            self.take(&mut waiting).await?;
        }
        self.status.connected.store(0, Relaxed);
        self.tell(false).await
    }

    async fn tell(&mut self, connected: bool) -> Result<()> {
        let body = Body::Connection { producer: self.batcher.producer, connected, at: self.journal.now() };
        self.journal.append(Group { frames: vec![(None, body)], publishes: vec![] }).await?.await.map(|_| ())
    }

    /// Takes requests that came together as one group of the journal.
    async fn take(&mut self, waiting: &mut Vec<Asked>) -> Result<()> {
        let (done, settled) = settling();
        let (mut messages, mut publishes, mut answers) = (vec![], vec![], vec![]);
        for Asked { request, tell, _room } in waiting.drain(..) {
            self.status.received_bytes.fetch_add(request.bytes() as u64, Relaxed);
            if let Some(key) = request.key.as_deref().map(key_hash) {
                if let Some(before) = self.keys.find(key) {
                    self.status.redelivered.fetch_add(request.messages.len() as u64, Relaxed);
                    // Whoever asked may have gone.
                    let _ = tell.send((Receipt { duplicate: true, ..Receipt::default() }, before));
                    continue;
                }
                self.keys.enter(key, Some(settled.clone()));
                publishes.push(Publish { connection: self.batcher.producer, key });
            }
            let from = messages.len();
            let Request { topic, trace, .. } = &request;
            messages.extend(request.messages.iter().map(|m| Received::new(topic.clone(), m.clone(), false, None, trace.clone())));
            answers.push((from..messages.len(), tell, _room));
        }
        if messages.is_empty() && publishes.is_empty() {
            answers.into_iter().for_each(|(_, tell, _)| drop(tell.send((Receipt::default(), None))));
            return Ok(());
        }
        let Made { frames, rows, rejects, refused } = self.batcher.make(&messages, self.journal.now())?;
        self.status.received.fetch_add(rows + rejects, Relaxed);
        let began = self.journal.elapsed();
        let durable = self.journal.append(Group { frames, publishes }).await?;
        let (status, journal) = (self.status.clone(), self.journal.clone());
        tokio::spawn(async move {
            if durable.await.is_err() {
                // The journal says why, and ends the source.
                return;
            }
            metrics::histogram!(Metric::IngestToDurable.name()).record(journal.elapsed().saturating_sub(began).as_secs_f64());
            status.logged.fetch_add(rows, Relaxed);
            status.rejected.fetch_add(rejects, Relaxed);
            for (of, tell, _room) in answers {
                // Whoever asked may have gone; the bytes counted until here.
                let _ = tell.send((receipt(of, &refused), None));
            }
            let _ = done.send(());
        });
        Ok(())
    }
}

fn receipt(of: Range<usize>, refused: &[Unusable]) -> Receipt {
    let explained = |(place, reason, detail): &Unusable| {
        let message = (place - of.start + 1) as u64;
        Refused { message, reason: *reason, detail: detail.clone() }
    };
    let refused: Vec<_> = refused.iter().filter(|(place, ..)| of.contains(place)).map(explained).collect();
    Receipt { accepted: of.len() as u64 - refused.len() as u64, refused, duplicate: false }
}
