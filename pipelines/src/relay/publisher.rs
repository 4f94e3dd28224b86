//! The client of a relay: rows and progress in one transaction. It waits for brokers, so it belongs on a thread of its own.
//!
//! Sources: KIP-98 (transactions), KIP-447 (offsets in a transaction), librdkafka's INTRODUCTION.md, "Transactional producer".

use super::encode::{Beside, Encoded};
use super::options::Delivery;
use crate::plan::PlannedSink;
use arrow::array::RecordBatch;
use flow::{Error, Result};
use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerGroupMetadata};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{Offset, TopicPartitionList};
use std::collections::{BTreeSet, HashSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use world::{Point, reach};

/// How long brokers may take to answer.
const ASK: Duration = Duration::from_secs(30);
/// How long the client's queue may stay full.
const ROOM: Duration = Duration::from_millis(10);
/// The header with a row's name: the same whenever it is published.
pub(super) const ID: &str = "tidegate-id";
/// How often topics are asked for that were not there.
const LOOK: Duration = Duration::from_secs(30);
/// Of how many topics that are not there a client tells.
const TOLD: usize = 10;

/// Rows with the number of the first.
pub struct Rows {
    /// The number of the first row.
    pub first: u64,
    /// The rows, in order.
    pub batches: Vec<RecordBatch>,
}

impl Rows {
    /// The number behind the last row.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.first + self.batches.iter().map(|batch| batch.num_rows() as u64).sum::<u64>()
    }
}

/// Publishes the rows of one sink from one lane. It may wait for brokers, so it belongs on a thread of its own.
pub trait Publish: Send {
    /// Publishes the rows that are not published; gives the number below which all are. After a failure nobody knows what became of the rows: the
    /// next call finds out.
    fn publish(&mut self, rows: &[Rows]) -> Result<u64, Failure>;
}

/// Where rows go, and under which name.
#[derive(Clone)]
pub(crate) struct Destination {
    /// The topic, or the one of rows whose own is not there. Progress stands under it.
    topic: String,
    beside: Beside,
    delivery: Delivery,
    client: ClientConfig,
    /// Names the transactions and, as a consumer group, their progress.
    id: String,
    /// What a row's name begins with.
    prefix: String,
}

/// Why nothing was published.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A broker or the client.
    #[error("{0}")]
    Kafka(#[from] KafkaError),
    /// So many records were not taken.
    #[error("{0} records were not taken by the brokers")]
    NotTaken(u64),
    /// The rows cannot be written as records.
    #[error("{0}")]
    Rows(#[from] Error),
    /// Another client publishes under the same name, or something else went wrong that a new client may meet.
    #[error("{0}")]
    Other(String),
}

impl Failure {
    /// Whether trying again cannot help.
    pub(super) fn is_final(&self) -> bool {
        matches!(self, Self::Rows(_))
    }
}

impl Destination {
    /// An error means that the options are wrong.
    pub(crate) fn new(sink: &PlannedSink, pipeline: &str, lane: &str, chain: &str) -> Result<Self> {
        let client = sink.options.connection().properties().map_err(|e| Error::stop(format!("sink {}", sink.name), e))?;
        let id = format!("tidegate.{pipeline}.{}.{lane}.{chain}", sink.name);
        let prefix = format!("{pipeline}/{}/{lane}/{chain}/", sink.name);
        let of = &sink.options;
        let headers = of.headers.iter().map(|(name, column)| (name.clone(), column.clone())).collect();
        let beside = Beside { key: sink.key.clone(), headers, topic: of.template() };
        let topic = of.otherwise.as_ref().unwrap_or(&of.topic).clone();
        Ok(Self { topic, beside, delivery: of.delivery, client, id, prefix })
    }
}

/// Publishes the rows of one sink from one lane, with a client that it makes when there is something to publish.
pub(super) struct Publisher {
    to: Destination,
    live: Option<Live>,
}

/// A client that knows how far it is.
struct Live {
    producer: ThreadedProducer<Deliveries>,
    /// None without transactions.
    group: Option<ConsumerGroupMetadata>,
    next: u64,
    topics: Topics,
}

/// The topics that are there, for rows that name theirs.
#[derive(Default)]
struct Topics {
    known: HashSet<String>,
    missing: BTreeSet<String>,
    asked: Option<Instant>,
}

impl Topics {
    /// Whether a topic is there. The brokers are asked now and then, for names that they did not know before.
    fn has(&mut self, topic: &str, producer: &ThreadedProducer<Deliveries>, otherwise: &str) -> Result<bool, KafkaError> {
        if !self.known.contains(topic) && self.asked.is_none_or(|at| at.elapsed() >= LOOK) {
            let metadata = producer.client().fetch_metadata(None, ASK)?;
            self.known = metadata.topics().iter().map(|of| of.name().to_owned()).collect();
            self.asked = Some(Instant::now());
        }
        // Those of the cluster itself are for nobody's rows, whatever a device calls itself.
        let is_there = self.known.contains(topic) && !topic.starts_with("__");
        if !is_there && self.missing.len() < TOLD && self.missing.insert(topic.to_owned()) {
            tracing::warn!(topic, otherwise, "the topic is not there: its rows go to another one");
        }
        Ok(is_there)
    }
}

/// Counts the records that were not taken.
#[derive(Clone, Default)]
struct Deliveries {
    failed: Arc<AtomicU64>,
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        // What matters comes back as an error of the call.
        tracing::debug!(?level, facility, "{message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, "{reason}");
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if result.is_err() {
            self.failed.fetch_add(1, Ordering::AcqRel);
        }
    }
}

impl Publisher {
    pub(super) fn new(to: Destination) -> Self {
        Self { to, live: None }
    }
}

impl Publish for Publisher {
    /// After a failure the client is given up: the next one finds out how far it came.
    fn publish(&mut self, rows: &[Rows]) -> Result<u64, Failure> {
        let mut live = match self.live.take() {
            Some(live) => live,
            None => Live::new(&self.to)?,
        };
        let below = live.publish(&self.to, rows)?;
        self.live = Some(live);
        Ok(below)
    }
}

impl Live {
    /// Ends what an earlier client has left open, and asks how far it came.
    fn new(to: &Destination) -> Result<Self, KafkaError> {
        let mut config = to.client.clone();
        config.set("client.id", &to.id).set("enable.idempotence", "true").set("partitioner", "murmur2_random");
        if to.delivery == Delivery::AtLeastOnce {
            let producer = config.create_with_context(Deliveries::default())?;
            return Ok(Self { producer, group: None, next: 0, topics: Topics::default() });
        }
        let producer: ThreadedProducer<Deliveries> =
            config.clone().set("transactional.id", &to.id).create_with_context(Deliveries::default())?;
        producer.init_transactions(ASK)?;
        // From here on nobody else can commit under this name, so the answer stays right.
        let mut config = to.client.clone();
        config.set("client.id", &to.id).set("group.id", &to.id).set("isolation.level", "read_committed");
        let consumer: BaseConsumer = config.create()?;
        let mut list = TopicPartitionList::new();
        list.add_partition(&to.topic, 0);
        let committed = consumer.committed_offsets(list, ASK)?;
        let next = committed.elements().first().map_or(Ok(0), |of| {
            of.error()?;
            Ok::<_, KafkaError>(of.offset().to_raw().and_then(|raw| u64::try_from(raw).ok()).unwrap_or(0))
        })?;
        let group = consumer.group_metadata();
        Ok(Self { producer, group, next, topics: Topics::default() })
    }

    fn publish(&mut self, to: &Destination, rows: &[Rows]) -> Result<u64, Failure> {
        let end = rows.last().map_or(0, Rows::end);
        if end <= self.next {
            return Ok(self.next);
        }
        if self.group.is_some() {
            self.producer.begin_transaction()?;
        }
        for of in rows {
            let mut first = of.first;
            for batch in &of.batches {
                self.send(to, first, batch)?;
                first += batch.num_rows() as u64;
            }
        }
        reach(Point::RelaySent);
        match &self.group {
            Some(group) => {
                let mut list = TopicPartitionList::new();
                list.add_partition_offset(&to.topic, 0, Offset::Offset(i64::try_from(end).unwrap_or(i64::MAX)))?;
                self.producer.send_offsets_to_transaction(&list, group, ASK)?;
                reach(Point::RelayProgressed);
                // It waits for all records, and fails where one was not taken.
                self.producer.commit_transaction(ASK)?;
            }
            None => {
                self.producer.flush(ASK)?;
                let failed = self.producer.context().failed.load(Ordering::Acquire);
                if failed > 0 {
                    return Err(Failure::NotTaken(failed));
                }
            }
        }
        reach(Point::RelayCommitted);
        self.next = end;
        Ok(end)
    }

    /// Sends the rows of a batch from number `next` on.
    fn send(&mut self, to: &Destination, first: u64, batch: &RecordBatch) -> Result<(), Failure> {
        let skip = usize::try_from(self.next.saturating_sub(first)).unwrap_or(usize::MAX).min(batch.num_rows());
        let batch = batch.slice(skip, batch.num_rows() - skip);
        let encoded = Encoded::new(&batch, &to.beside)?;
        let (mut key, mut topic, mut id) = (String::new(), String::new(), String::new());
        let is_one = to.beside.topic.columns().next().is_none();
        for (row, value) in encoded.values().enumerate() {
            id.clear();
            let _ = write!(id, "{}{}", to.prefix, first + (skip + row) as u64);
            let named = OwnedHeaders::new().insert(Header { key: ID, value: Some(&id) });
            let headers = encoded.headers(row).fold(named, |all, (key, value)| all.insert(Header { key, value: Some(value) }));
            let is_its_own = !is_one && encoded.topic(row, &mut topic) && self.topics.has(&topic, &self.producer, &to.topic)?;
            let mut record = BaseRecord::<str, [u8], ()>::to(if is_its_own { &topic } else { &to.topic }).payload(value).headers(headers);
            if encoded.key(row, &mut key) {
                record = record.key(&key);
            }
            self.send_one(record)?;
        }
        Ok(())
    }

    /// Waits while the client's queue is full.
    fn send_one(&self, record: BaseRecord<'_, str, [u8], ()>) -> Result<(), KafkaError> {
        let mut refused = self.producer.send(record).err();
        while let Some((error, record)) = refused {
            if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                return Err(error);
            }
            std::thread::sleep(ROOM);
            refused = self.producer.send(record).err();
        }
        Ok(())
    }
}
