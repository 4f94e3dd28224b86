//! The thread of a source: finds the partitions, or is given them by the group; has a lane made for each, assigns them, and serves the client.

use super::batch::Batcher;
use super::client::{Consumer, Context, Decided, properties};
use super::options::{KafkaOptions, Start};
use super::partition::{Partition, Parts, resume};
use crate::decode::{Decoder, OnMissing};
use crate::status::SourceStatus;
use flow::{Error, Offset, Remedy, Result, Span, WallTime};
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{Message, OwnedMessage};
use rdkafka::types::RDKafkaErrorCode;
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

/// How long lanes may take to seal what they have before their partitions go without that: whoever has them next reads it again.
const SEAL_WITHIN: Duration = Duration::from_secs(30);
/// How often an answer is looked for.
const WAIT: Duration = Duration::from_millis(5);

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

/// What a source asks of whoever has its lanes.
pub enum Wanted {
    /// Lanes for partitions that have none.
    Lanes {
        /// Topic and number of each.
        partitions: Vec<(String, i32)>,
        /// All partitions that the brokers know.
        all: Vec<(String, i32)>,
        /// The lanes that were made for them.
        made: oneshot::Sender<Vec<Attach>>,
    },
    /// The end of lanes whose partitions go to another process.
    End {
        /// Topic and number of each.
        partitions: Vec<(String, i32)>,
        /// Another may have them already: nothing is sealed.
        lost: bool,
        /// They have ended.
        ended: oneshot::Sender<()>,
    },
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
    /// The group gives out the partitions among several processes, instead of all going to this one.
    pub is_shared: bool,
    /// The lanes of earlier runs; none where the group gives them out.
    pub lanes: Vec<Attach>,
    /// Whether the pipeline has started before, here or elsewhere.
    pub has_started: bool,
    /// Who makes further lanes, and ends them.
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
        // What is new to a pipeline that has started before was made since.
        let start = if self.has_started { Start::Earliest } else { self.options.start };
        if self.is_shared {
            return self.run_in_group(&consumer, start);
        }
        let mut state = State::new(std::mem::take(&mut self.lanes), start);
        while !self.stop.is_cancelled() {
            if state.is_due() {
                self.look(&consumer, &mut state)?;
            }
            self.serve(&consumer)?;
        }
        Ok(())
    }

    /// Takes and gives up partitions as the group decides, until it is told to stop. The last lane leaves the group, once it is sealed.
    fn run_in_group(&self, consumer: &Arc<Consumer>, start: Start) -> Result<()> {
        let topics: Vec<&str> = self.options.topics.iter().map(String::as_str).collect();
        consumer.subscribe(&topics).map_err(|e| Error::stop(format!("source {}: joining group {}", self.name, self.group), e))?;
        while !self.stop.is_cancelled() {
            self.serve(consumer)?;
            while let Some(decided) = consumer.context().decided() {
                self.follow(consumer, decided, start)?;
            }
        }
        consumer.context().close();
        // What is decided and not done keeps the client in the group. What lanes have not sealed is read again by whoever has them next.
        while let Some(decided) = consumer.context().decided() {
            self.agree(consumer, &decided);
        }
        Ok(())
    }

    /// Says that it is done, while the process is ending.
    fn agree(&self, consumer: &Consumer, decided: &Decided) {
        let done = match decided {
            Decided::Come(list) => consumer.incremental_assign(list),
            Decided::Leave { partitions, .. } => consumer.incremental_unassign(partitions),
        };
        done.unwrap_or_else(|error| tracing::debug!(source = &*self.name, %error, "leaving the group"));
    }

    /// Does what the group has decided, and says so.
    fn follow(&self, consumer: &Arc<Consumer>, decided: Decided, start: Start) -> Result<()> {
        let names =
            |list: &TopicPartitionList| list.elements().iter().map(|of| (of.topic().to_owned(), of.partition())).collect::<Vec<_>>();
        match decided {
            Decided::Come(list) => {
                tracing::info!(source = &*self.name, partitions = list.count(), "partitions come from the group");
                let all = self.discover(consumer, &mut BTreeSet::new());
                match self.want(names(&list), &all) {
                    Some(lanes) => self.attach(consumer, lanes, start),
                    None => {
                        self.agree(consumer, &Decided::Come(list));
                        Ok(())
                    }
                }
            }
            Decided::Leave { partitions, lost } => {
                tracing::info!(source = &*self.name, partitions = partitions.count(), lost, "partitions go to others of the group");
                let end = |ended| Wanted::End { partitions: names(&partitions), lost, ended };
                // Sealed or not: who owns a lane is not decided here.
                let _ = self.ask(end, Some(SEAL_WITHIN));
                let failed = |e| Error::stop(format!("source {}: giving up partitions", self.name), e);
                consumer.incremental_unassign(&partitions).map_err(failed)
            }
        }
    }

    /// Looks for partitions: those that are new get lanes, those whose lanes wait are handed out.
    fn look(&self, consumer: &Arc<Consumer>, state: &mut State) -> Result<()> {
        let found = self.discover(consumer, &mut state.unknown);
        let new: Vec<_> = found.iter().filter(|of| !state.known.contains(*of)).cloned().collect();
        if !new.is_empty() {
            tracing::info!(source = &*self.name, partitions = new.len(), "new partitions");
            state.known.extend(new.iter().cloned());
            // None when the process is ending.
            state.waiting.extend(self.want(new, &found).unwrap_or_default());
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
    fn want(&self, partitions: Vec<(String, i32)>, all: &BTreeSet<(String, i32)>) -> Option<Vec<Attach>> {
        let all = all.iter().cloned().collect();
        self.ask(|made| Wanted::Lanes { partitions, all, made }, None)
    }

    /// Asks whoever has the lanes, and waits for the answer; none when the process is ending, or when it takes longer than `within`.
    fn ask<T>(&self, wanted: impl FnOnce(oneshot::Sender<T>) -> Wanted, within: Option<Duration>) -> Option<T> {
        let (to, mut answer) = oneshot::channel();
        self.wanted.blocking_send(wanted(to)).ok()?;
        let asked = Instant::now();
        loop {
            match answer.try_recv() {
                Ok(answer) => return Some(answer),
                Err(oneshot::error::TryRecvError::Closed) => return None,
                Err(oneshot::error::TryRecvError::Empty) => {}
            }
            if self.stop.is_cancelled() || within.is_some_and(|within| asked.elapsed() >= within) {
                return None;
            }
            std::thread::sleep(WAIT);
        }
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
            // Told by whoever looks for partitions.
            Some(Err(KafkaError::MessageConsumption(RDKafkaErrorCode::UnknownTopicOrPartition))) if !self.is_shared => {}
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
