//! Kafka sources: a lane for each partition. The lanes of earlier runs are there at once, so that their tables are; the reader brings their
//! partitions when a broker answers, and asks for lanes of partitions that are new.

use crate::plan::{Plan, PlannedSource};
use crate::run::clock::now;
use crate::run::feed::Taken;
use crate::run::files::decoder;
use crate::run::lane::Event;
use crate::spec::Source;
use flow::{Error, Offset, Position, Positions, Remedy, Result};
use ingest::SourceStatus;
use ingest::kafka::{Attach, Partition, Read, Reader, Wanted, log_name};
use std::sync::Arc;
use std::thread::JoinHandle;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// A partition as the log of a lane.
pub(crate) struct KafkaFeed {
    source: usize,
    log: Arc<str>,
    attached: Attached,
}

enum Attached {
    Waiting(oneshot::Receiver<Partition>),
    Here(Box<Partition>),
}

/// A partition, and the lane that is to have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Of {
    pub(crate) topic: String,
    pub(crate) partition: i32,
}

impl KafkaFeed {
    /// A lane's log and its place in the reader's list. `positions` are the lane's.
    pub(crate) fn new(source: usize, of: Of, positions: &Positions) -> (Self, Attach) {
        let (to, waiting) = oneshot::channel();
        let log = log_name(&of.topic, of.partition);
        let next = positions.0.iter().find(|p| p.log == log).map(|p| p.next);
        (Self { source, log, attached: Attached::Waiting(waiting) }, Attach { topic: of.topic, partition: of.partition, next, to })
    }

    /// The next events; none when the source has stopped. Safe to cancel.
    pub(crate) async fn next(&mut self) -> Result<Option<Taken>> {
        if let Attached::Waiting(waiting) = &mut self.attached {
            let Ok(partition) = waiting.await else { return Ok(None) };
            self.attached = Attached::Here(Box::new(partition));
        }
        let Attached::Here(partition) = &mut self.attached else { return Ok(None) };
        Ok(partition.next().await?.map(|read| events(self.source, &self.log, read)))
    }

    /// Whether everything that is there has been taken.
    pub(crate) fn is_read(&self) -> bool {
        matches!(&self.attached, Attached::Here(partition) if partition.is_read())
    }

    /// Everything below is sealed.
    pub(crate) fn release(&self, positions: &Positions) {
        if let Attached::Here(partition) = &self.attached {
            partition.release(positions.next(&self.log));
        }
    }
}

fn events(source: usize, log: &Arc<str>, read: Read) -> Taken {
    match read {
        Read::Begin(next) => Taken::of(vec![Event::Logs(vec![Position { log: log.clone(), next, file: None }])]),
        Read::CaughtUp => Taken::of(vec![]),
        Read::Rows { batch, rejects, next, guarded } => {
            let mut events = vec![];
            if !rejects.is_empty() {
                // Without moving the position, so that the rows below `next` are still taken.
                events.push(Event::Rejects { log: log.clone(), rejects, next: Offset(0) });
            }
            events.push(match batch {
                Some(batch) => Event::Rows { source, log: log.clone(), batch, next },
                None => Event::Progress { log: log.clone(), next },
            });
            Taken { events, guarded }
        }
    }
}

/// What all lanes of a source begin with.
pub(crate) fn stem(source: &str) -> String {
    format!("kafka/{source}/")
}

/// The name of the lane of a source's second stage.
pub(crate) fn stage_name(source: &str) -> String {
    format!("{}stage", stem(source))
}

/// The name of a partition's lane.
pub(crate) fn lane_name(source: &str, of: &Of) -> String {
    format!("{}{}", stem(source), log_name(&of.topic, of.partition))
}

/// The partitions of a source that have lanes, of the names of all lanes.
pub(crate) fn known(source: &str, lanes: &[String]) -> Vec<Of> {
    let stem = stem(source);
    let of = |lane: &String| {
        let (topic, partition) = lane.strip_prefix(&stem)?.rsplit_once('/')?;
        Some(Of { topic: topic.to_owned(), partition: partition.parse().ok()? })
    };
    let mut found: Vec<_> = lanes.iter().filter_map(of).collect();
    found.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
    found
}

/// Starts the reader of a source, with the lanes that are there. `has_started`: some process has had lanes of it before.
pub(crate) fn start(
    plan: &Plan,
    source: &PlannedSource,
    has_started: bool,
    lanes: Vec<Attach>,
    wanted: mpsc::Sender<Wanted>,
    status: Arc<SourceStatus>,
    stop: CancellationToken,
) -> Result<JoinHandle<Result<()>>> {
    let Source::Kafka(options) = &source.kind else {
        return Err(Error::new(Remedy::Stop, format!("source {} reads no Kafka", source.name)));
    };
    let of = source.clone();
    let reader = Reader {
        name: source.name.as_str().into(),
        group: options.group(&plan.name, &source.name),
        options: options.as_ref().clone(),
        decoder: Box::new(move || decoder(&of)),
        on_missing: source.decode.event_time.on_missing,
        max_message: usize::try_from(source.max_message).unwrap_or(usize::MAX),
        max_future: source.watermark.max_future.0,
        is_shared: plan.shared,
        has_started,
        lanes,
        wanted,
        status,
        stop,
        clock: now,
    };
    reader.start()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lanes_name_says_its_partition() {
        let of = Of { topic: "plant.a-b_c".into(), partition: 12 };
        let names = [lane_name("floor", &of), "kafka/floors/x/1".into(), "file/floor/0".into(), "j1/0".into()];
        assert_eq!(known("floor", &names), [of]);
    }
}
