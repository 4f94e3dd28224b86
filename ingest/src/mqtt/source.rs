//! One connection of an MQTT source, from the broker to the journal and back: three tasks in a row.
//!
//! ```text
//! client ──events──► worker ──batches──► acks ──packet ids──► client
//!                      │ append            ▲ durable
//!                      └────► journal ─────┘
//! ```
//! The worker takes what is there, undoes redelivery, decodes and hands a group to the journal; it does not wait for the fsync. The
//! ack task does, in the same order. Both queues are bounded; the broker's Receive Maximum bounds what is in flight at all.

use super::acks::{self, Acker, BATCHES_IN_FLIGHT, Handed, UntilDurable};
use super::client::Client;
use super::events::{Event, Received};
use super::options::MqttOptions;
use super::redelivery::{Redeliveries, publish_hash};
use crate::batch::{Batcher, Made, Topics};
use crate::decode::{Decoder, OptionError};
use crate::journal::{Body, Group, JournalHandle, Publish};
use crate::status::SourceStatus;
use flow::{Error, Metric, Remedy, Result, Span};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use world::{Bug, planted};

/// Most messages of a batch: where the decoder and the journal are at full speed (a batch of rows elsewhere has 8,192).
const BATCH_MESSAGES: usize = 4_096;

/// Most payload bytes of a batch, unless one message has more: a fraction of the journal's queue.
const BATCH_BYTES: usize = 8 << 20;

/// Events that may wait for the worker: a whole Receive Maximum of the connection and of the one before, so that the connection stays
/// alive while the journal is slow.
const EVENTS: usize = 4_096;

/// One connection of a source, and what its messages mean.
pub struct MqttSource {
    /// Name of the source in the pipeline.
    pub name: Arc<str>,
    /// Number of this connection in the journal; the same after every start.
    pub producer: u32,
    /// The session's name at the broker (`MqttOptions::client_id`).
    pub client_id: String,
    /// Options of the source.
    pub options: MqttOptions,
    /// Made for the captures of the first pattern (`MqttOptions::patterns`), in its order.
    pub decoder: Box<dyn Decoder>,
    /// Indices of the key columns in the decoder's schema.
    pub key: Vec<usize>,
    /// Lanes of the journal.
    pub lanes: u32,
    /// Largest payload in bytes; a larger one is a dead letter.
    pub max_message: usize,
    /// Rows further ahead of their arrival keep the bytes of their message beside them.
    pub max_future: Span,
}

/// Takes messages until `stop`; then waits for those already taken, acknowledges them and leaves, and the broker keeps the session.
///
/// An absent broker is no error. An error means that the journal takes nothing more, or that the options are wrong.
pub async fn run(source: MqttSource, journal: JournalHandle, status: Arc<SourceStatus>, stop: CancellationToken) -> Result<()> {
    let name = source.name.clone();
    let wrong = |e: OptionError| Error::stop(format!("source {name}"), e);
    source.options.check().map_err(wrong)?;
    let patterns = source.options.patterns().map_err(wrong)?;
    let client = Client::new(&source.options, &patterns, &source.client_id).map_err(wrong)?;
    let (events, taken) = mpsc::channel(EVENTS);
    let Session { worker, acks } = Session::new(source, journal, status.clone(), taken)?;
    let (halt, settled) = (stop.child_token(), CancellationToken::new());
    // Whoever ends first ends the others: the client lets go of its queue, the worker empties it, the acks leave, the client goes.
    let (worker_ends, acks_end, acks_settled) = (halt.clone().drop_guard(), halt.clone().drop_guard(), settled.clone().drop_guard());
    let working = tokio::spawn(async move {
        let _ends = worker_ends;
        worker.await
    });
    let acking = tokio::spawn(async move {
        let _ends = (acks_end, acks_settled);
        acks.await
    });
    let connecting = tokio::spawn(async move { client.run(events, &status, halt, settled).await });

    let broken = |e| Error::stop("a task of an MQTT source broke off", e);
    let (acking, working, connecting) = (acking.await, working.await, connecting.await);
    acking.map_err(broken)??;
    working.map_err(broken)??;
    connecting.map_err(broken)
}

/// The work of one connection of a source, whoever speaks to the broker: two tasks that end with the queue of events.
pub struct Session<W, S> {
    /// Takes the events, undoes redelivery, decodes, and hands groups to the journal.
    pub worker: W,
    /// Acknowledges what is durable, in order. An error means that nothing more is acknowledged.
    pub acks: S,
}

impl Session<(), ()> {
    /// The tasks over a queue of events. An error means that the options are wrong.
    #[allow(clippy::new_ret_no_self)] // the futures have no names
    pub fn new<A: Acker + Clone + Sync + 'static>(
        source: MqttSource,
        journal: JournalHandle,
        status: Arc<SourceStatus>,
        events: mpsc::Receiver<Event<A>>,
    ) -> Result<Session<impl Future<Output = Result<()>> + Send + 'static, impl Future<Output = Result<()>> + Send + 'static>> {
        let wrong = |e: OptionError| Error::stop(format!("source {}", source.name), e);
        let topics = Topics::new(source.options.patterns().map_err(wrong)?);
        let worker = Worker::new(source, topics, journal, status.clone());
        let (handed, queue) = mpsc::channel(BATCHES_IN_FLIGHT);
        Ok(Session { worker: worker.work(events, handed), acks: async move { acks::settle(queue, &status).await } })
    }
}

struct Worker<A> {
    batcher: Batcher,
    redeliveries: Redeliveries,
    journal: JournalHandle,
    status: Arc<SourceStatus>,
    acker: Option<A>,
}

impl<A: Acker + Clone + Sync> Worker<A> {
    fn new(source: MqttSource, topics: Topics, journal: JournalHandle, status: Arc<SourceStatus>) -> Self {
        let recent = journal.recent().remove(&source.producer).unwrap_or_default();
        let recent = if planted(Bug::RedeliveryForgottenAtStart) { Vec::new() } else { recent };
        let redeliveries = Redeliveries::new(source.options.redelivery, source.options.receive_maximum, recent);
        let batcher = Batcher {
            source: source.name,
            producer: source.producer,
            decoder: source.decoder,
            topics,
            key: source.key,
            lanes: source.lanes,
            max_message: source.max_message,
            max_future: source.max_future,
            explain: false,
        };
        Self { batcher, redeliveries, journal, status, acker: None }
    }

    /// Works until the queue of events ends, or that of batches (the ack task then says why).
    async fn work(mut self, mut events: mpsc::Receiver<Event<A>>, handed: mpsc::Sender<Handed<A>>) -> Result<()> {
        self.forget_old_connection(&handed).await?;
        let mut waiting = Vec::with_capacity(BATCH_MESSAGES);
        while events.recv_many(&mut waiting, BATCH_MESSAGES).await > 0 {
            let (mut batch, mut bytes) = (Vec::with_capacity(waiting.len()), 0);
            for event in waiting.drain(..) {
                match event {
                    Event::Received(message) => {
                        bytes += message.payload.len();
                        batch.push(message);
                        if bytes >= BATCH_BYTES {
                            self.take(std::mem::take(&mut batch), &handed).await?;
                            bytes = 0;
                        }
                    }
                    Event::Connected { session_present, acker } => {
                        self.take(std::mem::take(&mut batch), &handed).await?;
                        self.redeliveries.connected(session_present);
                        self.acker = Some(acker);
                        self.tell(true, session_present, &handed).await?;
                    }
                    Event::Disconnected => {
                        self.take(std::mem::take(&mut batch), &handed).await?;
                        self.acker = None;
                        self.tell(false, true, &handed).await?;
                    }
                }
            }
            self.take(batch, &handed).await?;
        }
        Ok(())
    }

    /// After a crash the journal still says that we are connected.
    async fn forget_old_connection(&mut self, handed: &mpsc::Sender<Handed<A>>) -> Result<()> {
        let known = self.journal.connections().into_iter().find(|(producer, ..)| *producer == self.batcher.producer);
        if known.is_some_and(|(_, connected, _)| !connected) { Ok(()) } else { self.tell(false, true, handed).await }
    }

    /// Writes into the journal that the connection is there, or not, and whether the session is the one we know.
    async fn tell(&mut self, connected: bool, same_session: bool, handed: &mpsc::Sender<Handed<A>>) -> Result<()> {
        let producer = self.batcher.producer;
        let body = Body::Connection { producer, connected, at: self.journal.now() };
        let publishes = if same_session { Vec::new() } else { vec![Publish::new_session(producer)] };
        let durable = Some(self.append(Group { frames: vec![(None, body)], publishes }).await?);
        self.hand(Handed { durable, rows: 0, rejects: 0, packets: Vec::new(), acker: None }, handed).await
    }

    /// Takes messages of one connection.
    async fn take(&mut self, messages: Vec<Received>, handed: &mpsc::Sender<Handed<A>>) -> Result<()> {
        if messages.is_empty() {
            return Ok(());
        }
        let packets = messages.iter().filter_map(|m| m.packet).collect();
        let (fresh, publishes) = self.undo_redelivery(messages);
        let Made { frames, rows, rejects, .. } = self.batcher.make(&fresh, self.journal.now())?;
        self.status.received.fetch_add(rows + rejects, Relaxed);
        let group = Group { frames, publishes };
        let durable = if group.frames.is_empty() && group.publishes.is_empty() { None } else { Some(self.append(group).await?) };
        self.hand(Handed { durable, rows, rejects, packets, acker: self.acker.clone() }, handed).await
    }

    /// The messages that we do not have, and what those of them are known by that can come again.
    fn undo_redelivery(&mut self, messages: Vec<Received>) -> (Vec<Received>, Vec<Publish>) {
        let mut publishes = Vec::with_capacity(messages.len());
        let mut fresh = messages;
        fresh.retain(|message| {
            self.status.received_bytes.fetch_add((message.topic.len() + message.payload.len()) as u64, Relaxed);
            let Some(packet) = message.packet else { return true };
            let publish = Publish::new(self.batcher.producer, packet, publish_hash(&message.topic, &message.payload));
            if self.redeliveries.take(publish.key, message.dup) {
                self.status.redelivered.fetch_add(1, Relaxed);
                return false;
            }
            publishes.push(publish);
            true
        });
        (fresh, publishes)
    }

    async fn append(&mut self, group: Group) -> Result<UntilDurable> {
        let (received, journal) = (self.journal.elapsed(), self.journal.clone());
        let durable = self.journal.append(group).await?;
        Ok(Box::pin(async move {
            durable.await?;
            metrics::histogram!(Metric::IngestToDurable.name()).record(journal.elapsed().saturating_sub(received).as_secs_f64());
            Ok(())
        }))
    }

    async fn hand(&mut self, batch: Handed<A>, handed: &mpsc::Sender<Handed<A>>) -> Result<()> {
        let ended = |_| Error::new(Remedy::Stop, format!("source {}: nothing is acknowledged any more", self.batcher.source));
        handed.send(batch).await.map_err(ended)
    }
}
