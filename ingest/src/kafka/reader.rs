//! The thread of a source: finds the partitions, has a lane made for each, assigns them, and serves the client.

use super::batch::Batcher;
use super::client::{Consumer, Context, properties};
use super::options::{KafkaOptions, Start};
use super::partition::{Partition, Parts, resume};
use crate::decode::{Decoder, OnMissing};
use crate::status::SourceStatus;
use flow::{Error, Offset, Remedy, Result, Span, WallTime};
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{Message, OwnedMessage};
use rdkafka::{ClientConfig, Offset as At, config::FromClientConfigAndContext};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// How long the client is served at a time: the grain of a stop.
const SERVE: Duration = Duration::from_millis(100);
/// How often partitions are looked for.
const DISCOVER: Duration = Duration::from_secs(10);
/// The same until all topics were found once.
const RETRY: Duration = Duration::from_secs(1);
/// How long a broker may take to answer; a stop waits for it.
const ASK: Duration = Duration::from_secs(3);

/// A lane that waits for its partition.
pub struct Attach {
    /// The topic.
    pub topic: String,
    /// The number of the partition.
    pub partition: i32,
    /// The next offset to read; none where the lane has never read.
    pub next: Option<Offset>,
    /// Where it waits.
    pub to: oneshot::Sender<Partition>,
}

/// Partitions that have no lane yet.
pub struct Wanted {
    /// Topic and number of each.
    pub partitions: Vec<(String, i32)>,
    /// The lanes that were made for them.
    pub lanes: oneshot::Sender<Vec<Attach>>,
}

/// What a source reads, and what its records mean.
pub struct Reader {
    /// Name of the source in the pipeline.
    pub name: Arc<str>,
    /// Options of the source.
    pub options: KafkaOptions,
    /// The consumer group under which progress is shown.
    pub group: String,
    /// Makes a decoder, with the columns of `KafkaOptions::captures` as captures.
    pub decoder: Box<dyn Fn() -> Result<Box<dyn Decoder>> + Send>,
    /// What to do with a row that has no event time.
    pub on_missing: OnMissing,
    /// Largest value in bytes; a larger one is a dead letter.
    pub max_message: usize,
    /// Rows further ahead of their arrival keep the bytes of their record beside them.
    pub max_future: Span,
    /// The lanes of earlier runs.
    pub lanes: Vec<Attach>,
    /// Who makes further ones.
    pub wanted: mpsc::Sender<Wanted>,
    /// Counters.
    pub status: Arc<SourceStatus>,
    /// Ends the thread and the partitions.
    pub stop: CancellationToken,
    /// The wall clock.
    pub clock: fn() -> WallTime,
}

/// What is known of the partitions.
struct State {
    known: BTreeSet<(String, i32)>,
    /// Lanes whose partitions were not found yet.
    waiting: Vec<Attach>,
    /// Topics that no broker knows, each told once.
    unknown: BTreeSet<String>,
    /// Where lanes begin that have never read.
    start: Start,
    found_all: bool,
    looked: Option<Instant>,
}

impl State {
    fn new(waiting: Vec<Attach>, start: Start) -> Self {
        let known: BTreeSet<_> = waiting.iter().map(|lane| (lane.topic.clone(), lane.partition)).collect();
        // A pipeline that has lanes has started before: what is new to it was made since.
        let start = if known.is_empty() { start } else { Start::Earliest };
        Self { known, waiting, unknown: BTreeSet::new(), start, found_all: false, looked: None }
    }

    fn is_due(&self) -> bool {
        let every = if self.found_all { DISCOVER } else { RETRY };
        self.looked.is_none_or(|at| at.elapsed() >= every)
    }
}

/// The name of the log that a partition is.
#[must_use]
pub fn log_name(topic: &str, partition: i32) -> Arc<str> {
    format!("{topic}/{partition}").into()
}

impl Reader {
    /// Starts the thread. An error means that the options are wrong.
    pub fn start(self) -> Result<JoinHandle<Result<()>>> {
        let wrong = |e: crate::decode::OptionError| Error::stop(format!("source {}", self.name), e);
        let config = properties(&self.options, &self.group).map_err(wrong)?;
        let thread = std::thread::Builder::new().name(format!("kafka-{}", self.name));
        thread.spawn(move || self.run(&config)).map_err(|e| Error::stop("starting a Kafka reader", e))
    }

    fn run(mut self, config: &ClientConfig) -> Result<()> {
        let context = Context::new(self.name.clone(), self.status.clone());
        let consumer = BaseConsumer::from_config_and_context(config, context);
        let consumer = Arc::new(consumer.map_err(|e| Error::stop(format!("source {}: making a Kafka client", self.name), e))?);
        let mut state = State::new(std::mem::take(&mut self.lanes), self.options.start);
        while !self.stop.is_cancelled() {
            if state.is_due() {
                self.look(&consumer, &mut state)?;
            }
            self.serve(&consumer)?;
        }
        Ok(())
    }

    /// Looks for partitions: those that are new get lanes, those whose lanes wait are handed out.
    fn look(&self, consumer: &Arc<Consumer>, state: &mut State) -> Result<()> {
        let found = self.discover(consumer, &mut state.unknown);
        let new: Vec<_> = found.iter().filter(|of| !state.known.contains(*of)).cloned().collect();
        if !new.is_empty() {
            tracing::info!(source = &*self.name, partitions = new.len(), "new partitions");
            state.known.extend(new.iter().cloned());
            // None when the process is ending.
            state.waiting.extend(self.want(new).unwrap_or_default());
        }
        let is_found = |lane: &mut Attach| found.contains(&(lane.topic.clone(), lane.partition));
        let ready: Vec<Attach> = state.waiting.extract_if(.., is_found).collect();
        if !ready.is_empty() {
            self.attach(consumer, ready, state.start)?;
            state.start = Start::Earliest;
        }
        state.found_all |= !found.is_empty() && state.waiting.is_empty() && state.unknown.is_empty();
        state.looked = Some(Instant::now());
        Ok(())
    }

    /// The partitions that the brokers know. What they do not know is told once.
    fn discover(&self, consumer: &Arc<Consumer>, unknown: &mut BTreeSet<String>) -> BTreeSet<(String, i32)> {
        let mut found = BTreeSet::new();
        for topic in &self.options.topics {
            let partitions = consumer.fetch_metadata(Some(topic), ASK).and_then(|metadata| {
                let of = metadata.topics().iter().find(|of| of.name() == topic);
                match of.and_then(|of| of.error()) {
                    Some(error) => Err(KafkaError::MetadataFetch(error.into())),
                    None => Ok(of.map(|of| of.partitions().iter().map(|p| p.id()).collect::<Vec<_>>()).unwrap_or_default()),
                }
            });
            match partitions {
                Ok(ids) if !ids.is_empty() => {
                    unknown.remove(topic);
                    found.extend(ids.into_iter().map(|id| (topic.clone(), id)));
                }
                Ok(_) => self.tell_unknown(topic, unknown, "the topic has no partitions"),
                Err(error) => self.tell_unknown(topic, unknown, &error.to_string()),
            }
            if self.stop.is_cancelled() {
                break;
            }
        }
        found
    }

    fn tell_unknown(&self, topic: &str, unknown: &mut BTreeSet<String>, why: &str) {
        if unknown.insert(topic.to_owned()) {
            tracing::warn!(source = &*self.name, topic, why, "the topic is not there; looking again");
        }
    }

    /// Has lanes made for partitions; none when the process is ending.
    fn want(&self, partitions: Vec<(String, i32)>) -> Option<Vec<Attach>> {
        let (lanes, made) = oneshot::channel();
        self.wanted.blocking_send(Wanted { partitions, lanes }).ok()?;
        made.blocking_recv().ok()
    }

    /// Assigns partitions, each with a queue of its own, and hands them to their lanes.
    fn attach(&self, consumer: &Arc<Consumer>, lanes: Vec<Attach>, start: Start) -> Result<()> {
        let failed = |what: String| move |e: KafkaError| Error::stop(what, e);
        let mut list = TopicPartitionList::new();
        let mut begins = vec![];
        for lane in &lanes {
            let (next, is_read) = self.begin(consumer, lane, start)?;
            let at = At::Offset(i64::try_from(next.0).unwrap_or(i64::MAX));
            let added = list.add_partition_offset(&lane.topic, lane.partition, at);
            added.map_err(failed(format!("source {}: offset {} of {}", self.name, next.0, lane.topic)))?;
            begins.push((next, is_read));
        }
        // Before the assignment, so that no record goes the client's common way.
        let queue = |lane: &Attach| {
            let broken = || Error::new(Remedy::Stop, format!("{}[{}] has no queue", lane.topic, lane.partition));
            consumer.split_partition_queue(&lane.topic, lane.partition).ok_or_else(broken)
        };
        let queues = lanes.iter().map(queue).collect::<Result<Vec<_>>>()?;
        consumer.incremental_assign(&list).map_err(failed(format!("source {}: assigning partitions", self.name)))?;
        let mut early = self.early(consumer);
        for ((lane, queue), (next, is_read)) in lanes.into_iter().zip(queues).zip(begins) {
            let parts = Parts {
                early: early.remove(&(lane.topic.clone(), lane.partition)).unwrap_or_default(),
                batcher: self.batcher(&lane)?,
                topic: lane.topic.as_str().into(),
                number: lane.partition,
                queue,
                next,
                is_new: lane.next.is_none(),
                is_read,
                on_gap: self.options.on_gap,
                status: self.status.clone(),
                stop: self.stop.clone(),
                clock: self.clock,
            };
            // A lane that has ended says why itself.
            let _ = lane.to.send(Partition::new(consumer.clone(), parts));
        }
        Ok(())
    }

    fn batcher(&self, lane: &Attach) -> Result<Batcher> {
        Ok(Batcher {
            source: self.name.clone(),
            topic: lane.topic.as_str().into(),
            label: format!("{}[{}]", lane.topic, lane.partition).into(),
            decoder: (self.decoder)()?,
            metadata: self.options.metadata.clone(),
            takes_arrival: self.on_missing == OnMissing::Arrival,
            max_message: self.max_message,
            max_future: self.max_future,
        })
    }

    /// Where a lane reads on, and whether nothing stands there yet. Asks until a broker answers.
    fn begin(&self, consumer: &Arc<Consumer>, lane: &Attach, start: Start) -> Result<(Offset, bool)> {
        let (low, high) = loop {
            match consumer.fetch_watermarks(&lane.topic, lane.partition, ASK) {
                Ok(ends) => break ends,
                Err(_) if self.stop.is_cancelled() => break (0, 0),
                Err(error) => tracing::warn!(source = &*self.name, topic = lane.topic, partition = lane.partition, %error, "asking again"),
            }
            self.serve(consumer)?;
        };
        let at = |offset: i64| Offset(u64::try_from(offset).unwrap_or(0));
        match lane.next {
            // Records that are gone are the partition's own to tell; those that never were are told here.
            Some(next) if next.0 > at(high).0 && !self.stop.is_cancelled() => {
                let why = resume(self.options.on_gap, next.0, low, high).err().unwrap_or_default();
                Err(Error::new(Remedy::Stop, format!("{}[{}]: {why}", lane.topic, lane.partition)))
            }
            Some(next) => Ok((next, next >= at(high))),
            None if start == Start::Latest => Ok((at(high), true)),
            None => Ok((at(low), low >= high)),
        }
    }

    /// What the client gave out between the assignment and the queues.
    fn early(&self, consumer: &Arc<Consumer>) -> BTreeMap<(String, i32), VecDeque<OwnedMessage>> {
        let mut early: BTreeMap<_, VecDeque<_>> = BTreeMap::new();
        while let Some(polled) = consumer.poll(Duration::ZERO) {
            match polled {
                Ok(record) => early.entry((record.topic().to_owned(), record.partition())).or_default().push_back(record.detach()),
                Err(error) => tracing::debug!(source = &*self.name, %error, "the client goes on by itself"),
            }
        }
        early
    }

    /// Serves the client's callbacks. Records do not come this way: one that does would be missing in its lane.
    fn serve(&self, consumer: &Arc<Consumer>) -> Result<()> {
        match consumer.poll(SERVE) {
            Some(Err(error)) => tracing::warn!(source = &*self.name, %error, "the client goes on by itself"),
            Some(Ok(record)) => {
                let place = format!("{}[{}] offset {}", record.topic(), record.partition(), record.offset());
                return Err(Error::new(Remedy::Stop, format!("source {}: {place} came beside its queue", self.name)));
            }
            None => {}
        }
        Ok(())
    }
}
