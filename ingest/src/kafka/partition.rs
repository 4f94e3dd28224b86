//! One partition as the log of a lane: polled by the lane itself, decoded there, read again from any offset.

use super::batch::{Batcher, Made, Record};
use super::client::{Consumer, Context, Progress};
use super::options::OnGap;
use crate::rejected::Rejected;
use crate::status::SourceStatus;
use flow::{Batch, Error, Offset, Remedy, Result, WallTime};
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{CommitMode, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::OwnedMessage;
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset as At, TopicPartitionList};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Most records of a batch, and most bytes, as with MQTT: where the decoder is at full speed.
const BATCH_RECORDS: usize = 4_096;
const BATCH_BYTES: usize = 8 << 20;
/// How long a broker may take to say where a partition begins and ends.
const ASK: Duration = Duration::from_secs(10);

/// What a partition gives.
#[derive(Debug)]
pub enum Read {
    /// The partition is read for the first time, from here on. To be sealed before anything else is read of it.
    Begin(Offset),
    /// Rows and what cannot be used; all below `next` is in this or earlier ones. `guarded`: a replay may decide otherwise about rows that
    /// lie ahead of our clock, so nothing of it may be shown before it is sealed.
    Rows {
        /// The rows.
        batch: Option<Batch>,
        /// The records that are no rows.
        rejects: Vec<Rejected>,
        /// The next offset to read.
        next: Offset,
        /// See above.
        guarded: bool,
    },
    /// All that is there has been given out.
    CaughtUp,
}

/// Wakes the reader of a partition when the client has something for it.
#[derive(Default)]
struct News {
    notify: Notify,
    pending: AtomicBool,
}

/// One partition. Dropping it drops the client on a thread of its own where it was the last to hold it, since that waits for brokers.
pub struct Partition {
    pub(super) inside: Option<Inside>,
}

pub(super) struct Inside {
    pub(super) topic: Arc<str>,
    pub(super) number: i32,
    consumer: Arc<Consumer>,
    queue: PartitionQueue<Context>,
    /// What the client gave out before the partition had its queue.
    early: VecDeque<OwnedMessage>,
    batcher: Batcher,
    /// A first position that is not sealed.
    begin: Option<Offset>,
    progress: Arc<Progress>,
    /// What the client said behind the last batch.
    waiting: VecDeque<Read>,
    news: Arc<News>,
    on_gap: OnGap,
    status: Arc<SourceStatus>,
    stop: CancellationToken,
    clock: fn() -> WallTime,
}

/// What a partition is made of.
pub(super) struct Parts {
    pub(super) topic: Arc<str>,
    pub(super) number: i32,
    pub(super) queue: PartitionQueue<Context>,
    pub(super) early: VecDeque<OwnedMessage>,
    pub(super) batcher: Batcher,
    pub(super) next: Offset,
    pub(super) is_new: bool,
    /// Nothing stands at `next` yet: the client may have said so before the partition had its queue.
    pub(super) is_read: bool,
    pub(super) on_gap: OnGap,
    pub(super) status: Arc<SourceStatus>,
    pub(super) stop: CancellationToken,
    pub(super) clock: fn() -> WallTime,
}

impl Partition {
    pub(super) fn new(consumer: Arc<Consumer>, parts: Parts) -> Self {
        let Parts { topic, number, mut queue, early, batcher, next, is_new, is_read, on_gap, status, stop, clock } = parts;
        let news = Arc::new(News::default());
        tell(&mut queue, &news);
        let begin = is_new.then_some(next);
        let progress = Arc::new(Progress { next: AtomicU64::new(next.0), at_end: AtomicBool::new(is_read) });
        consumer.context().follow(&topic, number, progress.clone());
        let inside = Inside {
            topic,
            number,
            consumer,
            queue,
            early,
            batcher,
            begin,
            progress,
            waiting: is_read.then_some(Read::CaughtUp).into_iter().collect(),
            news,
            on_gap,
            status,
            stop,
            clock,
        };
        Self { inside: Some(inside) }
    }

    fn inside(&mut self) -> &mut Inside {
        self.inside.as_mut().expect("taken only by the drop")
    }

    /// What comes next; none once the source is told to stop. Safe to cancel. An error names what is missing of the partition, or says that it
    /// may not be read.
    pub async fn next(&mut self) -> Result<Option<Read>> {
        self.inside().next().await
    }

    /// Whether everything that is there has been given out, as far as a broker that can be reached knows: a broker that is away is no silence.
    #[must_use]
    pub fn is_read(&self) -> bool {
        self.inside.as_ref().is_some_and(|of| of.is_read())
    }

    /// Tells the group that everything below `next` is sealed: for lag tools alone, so a failure is no matter.
    pub fn release(&self, next: Offset) {
        let Some(of) = &self.inside else { return };
        let mut list = TopicPartitionList::new();
        let offset = At::Offset(i64::try_from(next.0).unwrap_or(i64::MAX));
        if list.add_partition_offset(&of.topic, of.number, offset).is_ok() {
            // Said by the callback.
            let _ = of.consumer.commit(&list, CommitMode::Async);
        }
    }
}

impl Drop for Partition {
    fn drop(&mut self) {
        if let Some(inside) = self.inside.take() {
            inside.consumer.context().leave(&inside.topic, inside.number);
            let consumer = inside.consumer.clone();
            // Before whoever gets the partition next has its queue: this takes the callback from it.
            drop(inside);
            std::thread::spawn(move || drop(consumer));
        }
    }
}

/// What a look at the client's queue brought.
enum Found {
    Read(Read),
    /// Nothing, and there may be more.
    Nothing,
    /// Nothing, until the client has news.
    Wait,
}

impl Inside {
    fn is_read(&self) -> bool {
        let is_connected = self.status.connected.load(Ordering::Relaxed) > 0;
        let at_end = self.progress.at_end.load(Ordering::Relaxed);
        is_connected && at_end && self.waiting.is_empty() && !self.news.pending.load(Ordering::Acquire)
    }

    async fn next(&mut self) -> Result<Option<Read>> {
        if let Some(begin) = self.begin.take() {
            return Ok(Some(Read::Begin(begin)));
        }
        while !self.stop.is_cancelled() {
            match self.take()? {
                Found::Read(read) => return Ok(Some(read)),
                Found::Nothing => {}
                Found::Wait => tokio::select! {
                    () = self.stop.cancelled() => {}
                    () = self.news.notify.notified() => {}
                },
            }
        }
        Ok(None)
    }

    /// Takes what the client has, up to a batch.
    fn take(&mut self) -> Result<Found> {
        self.news.pending.store(false, Ordering::Release);
        let mut next = self.progress.next.load(Ordering::Relaxed);
        let (mut records, mut bytes, mut stamp, mut other, mut failed) = (vec![], 0, None, None, None);
        let is_drained = loop {
            if records.len() >= BATCH_RECORDS || bytes >= BATCH_BYTES {
                break false;
            }
            let record = match self.early.pop_front() {
                Some(early) => Record::Kept(early),
                None => match self.queue.poll(Duration::ZERO) {
                    Some(Ok(record)) => Record::Lent(record),
                    Some(Err(error)) => {
                        failed = Some(error);
                        break false;
                    }
                    None => break true,
                },
            };
            self.progress.at_end.store(false, Ordering::Relaxed);
            if record.offset() < next {
                continue;
            }
            let of = self.batcher.stamp(&record);
            if *stamp.get_or_insert(of) != of {
                other = Some(record.keep());
                break false;
            }
            next = record.offset() + 1;
            bytes += record.bytes();
            records.push(record);
        };
        let made = stamp.map(|stamp| self.batcher.make(&records, stamp, (self.clock)())).transpose()?;
        drop(records);
        self.early.extend(other);
        self.progress.next.store(next, Ordering::Relaxed);
        if !is_drained {
            self.news.pending.store(true, Ordering::Release);
        }
        let told = failed.map(|error| self.settle(&error)).transpose()?.flatten();
        self.waiting.extend(told);
        match made {
            Some(made) => Ok(Found::Read(self.count(made, bytes, Offset(next)))),
            None => Ok(self.waiting.pop_front().map_or(if is_drained { Found::Wait } else { Found::Nothing }, Found::Read)),
        }
    }

    fn count(&self, made: Made, bytes: usize, next: Offset) -> Read {
        let Made { batch, rejects, guarded, tombstones } = made;
        let (rows, rejected) = (batch.as_ref().map_or(0, Batch::len) as u64, rejects.len() as u64);
        self.status.received_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.status.received.fetch_add(rows + rejected, Ordering::Relaxed);
        self.status.logged.fetch_add(rows, Ordering::Relaxed);
        self.status.rejected.fetch_add(rejected, Ordering::Relaxed);
        self.status.tombstones.fetch_add(tombstones, Ordering::Relaxed);
        Read::Rows { batch, rejects, next, guarded }
    }

    /// What to do about what the client says instead of a record.
    fn settle(&mut self, error: &KafkaError) -> Result<Option<Read>> {
        use RDKafkaErrorCode::{
            AutoOffsetReset, OffsetOutOfRange, TopicAuthorizationFailed, UnknownPartition, UnknownTopic, UnknownTopicOrPartition,
        };
        let label = &self.batcher.label;
        match error {
            KafkaError::PartitionEOF(_) => {
                self.progress.at_end.store(true, Ordering::Relaxed);
                Ok(Some(Read::CaughtUp))
            }
            KafkaError::MessageConsumption(AutoOffsetReset | OffsetOutOfRange) => self.step_over_gap(),
            KafkaError::MessageConsumption(
                code @ (TopicAuthorizationFailed | UnknownPartition | UnknownTopic | UnknownTopicOrPartition),
            )
            | KafkaError::MessageConsumptionFatal(code) => Err(Error::new(Remedy::Stop, format!("{label} cannot be read: {code}"))),
            _ => {
                tracing::warn!(source = &*self.batcher.source, partition = &**label, %error, "the client goes on by itself");
                Ok(None)
            }
        }
    }

    /// The records from `next` on are not there: goes where `on_gap` says.
    fn step_over_gap(&mut self) -> Result<Option<Read>> {
        let (label, next) = (self.batcher.label.clone(), self.progress.next.load(Ordering::Relaxed));
        let failed = |error: KafkaError| Error::stop(format!("asking where {label} begins and ends"), error);
        let consumer = self.consumer.clone();
        // Rare, and nothing can go on without it.
        let (low, high) = tokio::task::block_in_place(|| consumer.fetch_watermarks(&self.topic, self.number, ASK)).map_err(failed)?;
        let to = resume(self.on_gap, next, low, high).map_err(|what| Error::new(Remedy::Stop, format!("{label}: {what}")))?;
        tracing::warn!(partition = &*label, from = next, to, "records are gone that were not read; going on behind them");
        self.status.missing.fetch_add(to - next, Ordering::Relaxed);
        self.assign_anew(to).map_err(|error| Error::stop(format!("going on at offset {to} of {label}"), error))?;
        self.progress.next.store(to, Ordering::Relaxed);
        Ok(Some(Read::Rows { batch: None, rejects: vec![], next: Offset(to), guarded: false }))
    }

    /// A client that found no offset has let go of the partition: a seek would come too late.
    fn assign_anew(&mut self, to: u64) -> std::result::Result<(), KafkaError> {
        let mut list = TopicPartitionList::new();
        list.add_partition(&self.topic, self.number);
        self.consumer.incremental_unassign(&list)?;
        list.set_partition_offset(&self.topic, self.number, At::Offset(i64::try_from(to).unwrap_or(i64::MAX)))?;
        self.consumer.incremental_assign(&list)?;
        if let Some(queue) = self.consumer.split_partition_queue(&self.topic, self.number) {
            self.queue = queue;
        }
        tell(&mut self.queue, &self.news);
        Ok(())
    }
}

/// Has the client say when it has something.
fn tell(queue: &mut PartitionQueue<Context>, news: &Arc<News>) {
    let told = news.clone();
    queue.set_nonempty_callback(move || {
        told.pending.store(true, Ordering::Release);
        told.notify.notify_one();
    });
    // What came before the callback.
    news.pending.store(true, Ordering::Release);
    news.notify.notify_one();
}

/// Where to go on when offset `next` is not there and the partition reaches from `low` to `high`; or why not.
pub(super) fn resume(on_gap: OnGap, next: u64, low: i64, high: i64) -> std::result::Result<u64, String> {
    let (first, end) = (u64::try_from(low).unwrap_or(0), u64::try_from(high).unwrap_or(0));
    if end < next {
        return Err(format!(
            "it ends at offset {end}, and {next} were taken: the topic was made anew or cut at its end, so the offsets no longer mean what they \
             did. Give the source another name to read the new topic from its beginning"
        ));
    }
    match on_gap {
        OnGap::Earliest => Ok(first.max(next)),
        OnGap::Latest => Ok(end),
        OnGap::Stop => Err(format!(
            "the records from offset {next} to {} are gone: retention was faster than this pipeline. `on_gap = \"earliest\"` goes on behind them",
            first.saturating_sub(1)
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_stops_unless_the_user_says_where_to_go_on() {
        assert!(resume(OnGap::Stop, 5, 10, 20).unwrap_err().contains("from offset 5 to 9 are gone"));
        assert_eq!(resume(OnGap::Earliest, 5, 10, 20), Ok(10));
        assert_eq!(resume(OnGap::Latest, 5, 10, 20), Ok(20));
    }

    #[test]
    fn a_partition_that_ends_before_what_was_taken_stops_whatever_the_user_says() {
        for on_gap in [OnGap::Stop, OnGap::Earliest, OnGap::Latest] {
            assert!(resume(on_gap, 21, 0, 20).unwrap_err().contains("made anew"), "{on_gap:?}");
        }
    }
}
