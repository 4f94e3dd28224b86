//! What a lane reads, as events: deliveries of the journal, rows of files, records of a partition, or what other lanes have sealed for it.

use crate::run::kafka::KafkaFeed;
use crate::run::lane::Event;
use crate::run::stage::StageFeed;
use flow::{Batch, Error, EventTime, Offset, Position, Remedy, Result, WallTime};
use ingest::journal::{Body, Delivery};
use ingest::rejected::Rejected;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::mpsc;
use world::{Bug, planted};

/// What the reader of a file source hands to one of its lanes.
pub(crate) enum FileDelivery {
    /// New files, to be sealed before their first row is read.
    Files(Vec<Position>),
    /// Rows of this lane (none when only the position moves on).
    Rows { path: Arc<str>, batch: Option<Batch>, rejects: Vec<Rejected>, next: Offset },
    /// All that is there has been handed out; more may come.
    CaughtUp,
}

/// The log of one lane.
pub(crate) enum Feed {
    /// The journal: its id, the numbers of the sources by name.
    Journal { id: Arc<str>, sources: HashMap<Arc<str>, usize>, deliveries: mpsc::Receiver<Delivery> },
    /// The files of one source.
    Files { source: usize, deliveries: mpsc::Receiver<FileDelivery> },
    /// A partition of a Kafka topic.
    Kafka(Box<KafkaFeed>),
    /// What the lanes of a first stage have sealed.
    Stage(Box<StageFeed>),
}

/// What was taken of a log.
pub(crate) struct Taken {
    /// Nothing: the log is read to its end for now.
    pub(crate) events: Vec<Event>,
    /// A replay may decide otherwise: nothing of the epoch may be shown before it is sealed.
    pub(crate) guarded: bool,
}

impl Taken {
    /// What a replay would give again.
    pub(crate) fn of(events: Vec<Event>) -> Self {
        Self { events, guarded: false }
    }
}

impl Feed {
    /// Whether nothing waits to be taken.
    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Self::Journal { deliveries, .. } => deliveries.is_empty(),
            Self::Files { deliveries, .. } => deliveries.is_empty(),
            Self::Kafka(partition) => partition.is_read(),
            Self::Stage(_) => false,
        }
    }

    /// The next events; none when the log has stopped for good. Safe to cancel.
    pub(crate) async fn next(&mut self) -> Result<Option<Taken>> {
        match self {
            Self::Journal { id, sources, deliveries } => {
                let Some(delivery) = deliveries.recv().await else { return Ok(None) };
                let event = |(offset, body)| journal_event(id, sources, offset, body);
                let mut events = delivery.lane_frames.into_iter().map(event).collect::<Result<Vec<_>>>()?;
                let next = Offset(delivery.next.0 + u64::from(planted(Bug::PositionTooFar)));
                events.push(Event::Progress { log: id.clone(), next });
                Ok(Some(Taken::of(events)))
            }
            Self::Stage(stage) => Ok(Some(Taken::of(stage.next().await?))),
            Self::Kafka(partition) => partition.next().await,
            Self::Files { source, deliveries } => Ok(deliveries.recv().await.map(|delivery| Taken::of(file_events(*source, delivery)))),
        }
    }
}

fn journal_event(id: &Arc<str>, sources: &HashMap<Arc<str>, usize>, offset: Offset, body: Body) -> Result<Event> {
    let (log, next) = (id.clone(), Offset(offset.0 + 1));
    Ok(match body {
        Body::Rows(batch) => {
            let name = &batch.origin().source;
            let missing =
                || Error::new(Remedy::Stop, format!("the journal holds readings of source {name}, which the pipeline no longer has"));
            Event::Rows { source: *sources.get(name).ok_or_else(missing)?, log, batch, next }
        }
        Body::Rejects(rejects) => Event::Rejects { log, rejects, next },
        Body::Connection { producer, connected, at } => Event::Connection { log, producer, connected, at, next },
        Body::Lookup(version) => Event::Lookup { log: Some((log, next)), version },
        Body::Tick { watermark, .. } => Event::Tick { log, watermark, next },
    })
}

fn file_events(source: usize, delivery: FileDelivery) -> Vec<Event> {
    match delivery {
        FileDelivery::Files(files) => vec![Event::Logs(files)],
        FileDelivery::CaughtUp => vec![],
        FileDelivery::Rows { path, batch, rejects, next } => {
            let mut events = vec![];
            // Rejects first and without moving the position, so that the rows below `next` are still taken.
            if !rejects.is_empty() {
                events.push(Event::Rejects { log: path.clone(), rejects, next: Offset(0) });
            }
            events.push(match batch {
                Some(batch) => Event::Rows { source, log: path, batch, next },
                None => Event::Progress { log: path, next },
            });
            events
        }
    }
}

/// The frame that moves a silent lane's watermark on.
pub(crate) fn tick(lane: u32, watermark: EventTime, at: WallTime) -> ingest::journal::Group {
    ingest::journal::Group { frames: vec![(Some(lane), Body::Tick { watermark, at })], publishes: vec![] }
}
