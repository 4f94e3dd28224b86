//! The client of a source: its properties, and what it tells of itself.

use super::options::KafkaOptions;
use crate::decode::OptionError;
use crate::status::SourceStatus;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::statistics::Statistics;
use rdkafka::types::{RDKafkaErrorCode, RDKafkaRespErr};
use rdkafka::{ClientConfig, TopicPartitionList};
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

pub(super) type Consumer = BaseConsumer<Context>;

/// How often the client says how it is doing.
const STATISTICS_MS: &str = "1000";
/// A partition's queue holds at most this much: with many partitions the client's own 64 MiB for each would be a lot.
const QUEUE_KBYTES: &str = "8192";

/// What the client calls back.
pub(super) struct Context {
    source: Arc<str>,
    status: Arc<SourceStatus>,
    /// How far each partition is that is read here.
    taken: Mutex<BTreeMap<(String, i32), Arc<Progress>>>,
    /// What the group has decided about this client and was not done yet, oldest first.
    decided: Mutex<VecDeque<Decided>>,
    /// Nobody is there any more to do what the group decides.
    is_closing: AtomicBool,
}

/// Partitions of a group that come to this client, or leave it. The group waits until the client has said that they have.
#[derive(Debug)]
pub(super) enum Decided {
    Come(TopicPartitionList),
    /// `lost`: another may have them already.
    Leave {
        partitions: TopicPartitionList,
        lost: bool,
    },
}

/// How far a partition is read.
#[derive(Default)]
pub(super) struct Progress {
    /// The next offset.
    pub(super) next: AtomicU64,
    /// Nothing is behind it but marks of transactions.
    pub(super) at_end: AtomicBool,
}

impl Context {
    pub(super) fn new(source: Arc<str>, status: Arc<SourceStatus>) -> Self {
        Self { source, status, taken: Mutex::default(), decided: Mutex::default(), is_closing: AtomicBool::new(false) }
    }

    /// The oldest decision of the group that was not done yet.
    pub(super) fn decided(&self) -> Option<Decided> {
        self.decisions().pop_front()
    }

    /// From here on what the group takes away goes at once.
    pub(super) fn close(&self) {
        self.is_closing.store(true, Ordering::Release);
    }

    fn decisions(&self) -> MutexGuard<'_, VecDeque<Decided>> {
        self.decided.lock().expect("nothing panics while it holds the decisions")
    }

    /// From here on the lag of a partition is somebody else's.
    pub(super) fn leave(&self, topic: &str, partition: i32) {
        self.taken().remove(&(topic.to_owned(), partition));
    }

    /// From here on the lag of a partition counts.
    pub(super) fn follow(&self, topic: &str, partition: i32, progress: Arc<Progress>) {
        self.taken().insert((topic.to_owned(), partition), progress);
    }

    fn taken(&self) -> MutexGuard<'_, BTreeMap<(String, i32), Arc<Progress>>> {
        self.taken.lock().expect("nothing panics while it holds the offsets")
    }

    /// Records that are there and not taken.
    fn lag(&self, statistics: &Statistics) -> u64 {
        let lag = |((topic, partition), progress): (&(String, i32), &Arc<Progress>)| {
            if progress.at_end.load(Ordering::Relaxed) {
                return None;
            }
            let end = statistics.topics.get(topic)?.partitions.get(partition)?.ls_offset;
            Some(u64::try_from(end).ok()?.saturating_sub(progress.next.load(Ordering::Relaxed)))
        };
        self.taken().iter().filter_map(lag).sum()
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        let source = &*self.source;
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical | RDKafkaLogLevel::Error => {
                tracing::warn!(source, facility, "{message}");
            }
            RDKafkaLogLevel::Warning | RDKafkaLogLevel::Notice => tracing::info!(source, facility, "{message}"),
            RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => tracing::debug!(source, facility, "{message}"),
        }
    }

    fn stats(&self, statistics: Statistics) {
        let up = statistics.brokers.values().any(|broker| broker.nodeid >= 0 && broker.state == "UP");
        let was = self.status.connected.swap(u64::from(up), Relaxed);
        if up && was == 0 {
            tracing::info!(source = &*self.source, "connected");
        }
        self.status.lag.store(self.lag(&statistics), Relaxed);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        use RDKafkaErrorCode::{AutoOffsetReset, PartitionEOF};
        // These come to the reader of the partition too, who knows what they mean.
        if !matches!(error.rdkafka_error_code(), Some(PartitionEOF | AutoOffsetReset)) {
            tracing::warn!(source = &*self.source, %error, "{reason}");
        }
    }
}

impl ConsumerContext for Context {
    /// Notes what is decided: the reader does it, since lanes are claimed or sealed first, which takes longer than a callback may.
    fn rebalance(&self, client: &BaseConsumer<Self>, decision: RDKafkaRespErr, partitions: &mut TopicPartitionList) {
        let comes = decision == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        if self.is_closing.load(Ordering::Acquire) {
            // Without an answer the client waits for it before it leaves the group.
            let done = if comes { client.incremental_assign(partitions) } else { client.incremental_unassign(partitions) };
            return done.unwrap_or_else(|error| tracing::debug!(source = &*self.source, %error, "leaving the group"));
        }
        let partitions = partitions.clone();
        let decided = if comes { Decided::Come(partitions) } else { Decided::Leave { partitions, lost: client.assignment_lost() } };
        self.decisions().push_back(decided);
    }

    fn commit_callback(&self, result: Result<(), KafkaError>, _: &TopicPartitionList) {
        if let Err(error) = result {
            tracing::debug!(source = &*self.source, %error, "progress is not shown to the group; reading does not go by it");
        }
    }
}

/// How partitions go over to another client, one by one and not all at once.
const ASSIGNOR: &str = "cooperative-sticky";
/// The property that says who decides where partitions go: with the value `consumer` the brokers do (KIP-848).
const GROUP_PROTOCOL: &str = "group.protocol";

/// The properties of a source's client. Reads the password.
pub(super) fn properties(options: &KafkaOptions, group: &str) -> Result<ClientConfig, OptionError> {
    let mut config = options.connection().properties()?;
    for (name, value) in [("queued.max.messages.kbytes", QUEUE_KBYTES), ("topic.metadata.refresh.interval.ms", "30000")] {
        if config.get(name).is_none() {
            config.set(name, value);
        }
    }
    config
        .set("group.id", group)
        .set("client.id", group)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", "error")
        .set("enable.partition.eof", "true")
        .set("isolation.level", "read_committed")
        .set("statistics.interval.ms", STATISTICS_MS);
    if config.get(GROUP_PROTOCOL).is_none_or(|protocol| protocol == "classic") {
        config.set("partition.assignment.strategy", ASSIGNOR);
    }
    Ok(config)
}
