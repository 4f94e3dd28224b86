//! Results for others: what a sink reads lies in the outbox of each lane, and a relay publishes it, in order.
//!
//! ```text
//! lane: epoch ──► outbox file, named by the epoch record (the commit) ──► relay ──► Kafka: records and progress in one transaction
//!                         ▲ a later record lets go of the file ◄── taken ──┘
//! ```
//! The unit is (sink, lane): rows are numbered from 0 through all epochs, and progress is a number of rows. With `exactly_once` it stands in the
//! cluster itself, as an offset that the transaction commits with the records; a relay asks for it after it has ended whatever an earlier one had
//! open. So a crash anywhere between, an answer that never came, or two relays at once publish no row twice and leave none out.
//! With `at_least_once` progress is what the lane's record let go of, and the rows behind it come again after a crash.
//!
//! Every failure of brokers, also a missing right, is met by a new client after a while: the first thing it does is to find out how far it is.

mod encode;
mod options;
mod publisher;
mod topic;

pub use options::{Delivery, KafkaSinkOptions};
pub use publisher::{Failure, Publish, Rows};

use crate::plan::PlannedSink;
use flow::{Error, Metric, Result};
use publisher::{Destination, Publisher};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use storage::epoch::{ExitFile, ExitState, Whole};
use storage::outbox::read_exit;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use world::{Bug, Point, World, planted, reach};

/// The wait after a failure, doubling up to the second.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));
/// A transaction takes further files while it has fewer rows than this.
const ROWS: u64 = 50_000;

/// What a lane and its relay share.
#[derive(Clone)]
pub(crate) struct Link {
    /// How many rows are published for good.
    published: Arc<AtomicU64>,
}

impl Link {
    /// How many rows of the lane are published for good.
    pub(crate) fn published(&self) -> u64 {
        self.published.load(Ordering::Acquire)
    }
}

/// Publishes the rows of one sink from one lane.
pub(crate) struct Relay {
    sink: String,
    lane: String,
    world: World,
    outbox: PathBuf,
    sealed: watch::Receiver<Arc<Whole>>,
    published: Arc<AtomicU64>,
    /// None while it is at work on another thread.
    publisher: Option<Box<dyn Publish>>,
}

/// Makes what publishes.
pub trait Publishers: Send + Sync {
    /// What publishes the rows of a sink from a lane. An error means that the options are wrong.
    fn publisher(&self, sink: &PlannedSink, pipeline: &str, lane: &str, chain: &str) -> Result<Box<dyn Publish>>;
}

/// Publishes to Apache Kafka.
pub(crate) struct ToKafka;

impl Publishers for ToKafka {
    fn publisher(&self, sink: &PlannedSink, pipeline: &str, lane: &str, chain: &str) -> Result<Box<dyn Publish>> {
        Ok(Box::new(Publisher::new(Destination::new(sink, pipeline, lane, chain)?)))
    }
}

/// Where a relay runs.
#[derive(Clone)]
pub(crate) struct Place<'p> {
    pub(crate) pipeline: &'p str,
    pub(crate) lane: &'p str,
    /// The random name of the lane's records: with another data directory rows are numbered anew.
    pub(crate) chain: &'p str,
    pub(crate) world: &'p World,
    pub(crate) outbox: PathBuf,
    pub(crate) sealed: watch::Receiver<Arc<Whole>>,
}

impl Relay {
    /// The relay of a sink for a lane, and what the lane needs of it. An error means that the options are wrong.
    pub(crate) fn new(sink: &PlannedSink, publishers: &dyn Publishers, place: Place<'_>) -> Result<(Self, Link)> {
        let published = Arc::new(AtomicU64::new(0));
        let publisher = Some(publishers.publisher(sink, place.pipeline, place.lane, place.chain)?);
        let relay = Self {
            sink: sink.name.clone(),
            lane: place.lane.to_owned(),
            world: place.world.clone(),
            outbox: place.outbox,
            sealed: place.sealed,
            published: published.clone(),
            publisher,
        };
        Ok((relay, Link { published }))
    }

    /// Publishes until it is stopped. An error means that a file is damaged.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Result<()> {
        let (mut wait, mut told) = (BACKOFF.0, false);
        while !stop.is_cancelled() {
            let files = self.waiting();
            if files.is_empty() {
                tokio::select! {
                    () = stop.cancelled() => {}
                    news = self.sealed.changed() => if news.is_err() { return Ok(()) },
                }
                continue;
            }
            match self.publish(files).await? {
                Ok(()) => (wait, told) = (BACKOFF.0, false),
                Err(error) => {
                    metrics::counter!(Metric::Retries.name(), "component" => self.sink.clone()).increment(1);
                    if !std::mem::replace(&mut told, true) {
                        tracing::warn!(sink = self.sink, lane = self.lane, %error, "not published; trying again with a new client");
                    }
                    tokio::select! {
                        () = stop.cancelled() => {}
                        () = self.world.sleep(wait) => {}
                    }
                    wait = (wait * 2).min(BACKOFF.1);
                }
            }
        }
        Ok(())
    }

    /// The files that are not published, oldest first, up to a transaction.
    fn waiting(&mut self) -> Vec<ExitFile> {
        let (whole, from) = (self.sealed.borrow_and_update().clone(), self.published.load(Ordering::Acquire));
        let empty = ExitState::default();
        let state = whole.outbox.get(&self.sink).unwrap_or(&empty);
        // What no file holds any more was published by an earlier process.
        let first = state.files.first().map_or(state.next, |file| file.first);
        self.published.fetch_max(if planted(Bug::RelaySkipsFiles) { state.next } else { first }, Ordering::AcqRel);
        let mut rows = 0;
        let fits = |file: &&ExitFile| {
            let begins = rows < ROWS;
            rows += file.rows;
            begins
        };
        state.files.iter().filter(|file| file.first + file.rows > from).take_while(fits).cloned().collect()
    }

    /// One transaction. The outer error is for good.
    async fn publish(&mut self, files: Vec<ExitFile>) -> Result<Result<(), publisher::Failure>> {
        let (disk, dir) = (self.world.disk.clone(), self.outbox.clone());
        let mut publisher = self.publisher.take().expect("it is at work here alone");
        let tried = files.last().map_or(0, |last| last.first + last.rows);
        let job = move || {
            let mut rows = vec![];
            for file in &files {
                rows.push(Rows { first: file.first, batches: read_exit(&*disk, &dir, file)? });
            }
            reach(Point::RelayRead);
            let published = publisher.publish(&rows);
            Ok::<_, Error>((publisher, published))
        };
        // On a thread that may wait for brokers.
        let (publisher, published) = self.world.blocking("publishing", job).await??;
        self.publisher = Some(publisher);
        let published = if planted(Bug::UnknownPublishIsSuccess) { Ok(published.unwrap_or(tried)) } else { published };
        Ok(match published {
            Ok(below) => {
                let before = self.published.fetch_max(below, Ordering::AcqRel);
                metrics::counter!(Metric::OutboxPublished.name(), "component" => self.sink.clone()).increment(below.saturating_sub(before));
                Ok(())
            }
            Err(failure) if failure.is_final() => return Err(Error::stop(format!("sink {}, lane {}", self.sink, self.lane), failure)),
            Err(failure) => Err(failure),
        })
    }
}
