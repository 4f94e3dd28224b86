//! Turns what the lanes, sources and tiers show into metrics, once a second.

use crate::plan::Plan;
use crate::run::clock::now;
use crate::run::handles::Handles;
use crate::run::lane::{dead_word, unstored_word};
use crate::run::moves::MoveCounts;
use crate::run::scale::{Look, Scale, busy};
use crate::run::status::LaneFacts;
use flow::{EventTime, Metric, Reason};
use gateway::query::Engine;
use ingest::SourceStatus;
use ingest::journal::JournalHandle;
use metrics::{counter, gauge};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use storage::quarantine::quarantined_word;
use storage::view::{Live, Views};
use tokio_util::sync::CancellationToken;

/// How often metrics are brought up to date: well below a usual scrape interval.
const EVERY: Duration = Duration::from_secs(1);

/// What is looked at.
pub(crate) struct Observer {
    pub(crate) plan: Arc<Plan>,
    pub(crate) lanes: Handles,
    pub(crate) sources: Vec<(String, Arc<SourceStatus>)>,
    pub(crate) live: Live,
    pub(crate) journal: Option<JournalHandle>,
    pub(crate) moves: Arc<MoveCounts>,
    pub(crate) engine: Engine,
}

impl Observer {
    pub(crate) async fn run(self, stop: CancellationToken) {
        let (mut scale, began) = (Scale::default(), Instant::now());
        while !stop.is_cancelled() {
            let facts: Vec<_> = self.lanes.all().iter().map(|l| l.status.get()).collect();
            self.lanes(&facts);
            self.sources();
            self.scale(&mut scale, began);
            self.tiers().await;
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(EVERY) => {}
            }
        }
    }

    fn lanes(&self, facts: &[LaneFacts]) {
        let mut sums: BTreeMap<String, u64> = BTreeMap::new();
        for (word, rows) in facts.iter().flat_map(|f| &f.counters) {
            *sums.entry(word.clone()).or_default() += rows;
        }
        let sum = |word: String| sums.get(&word).copied().unwrap_or(0);
        for operator in &self.plan.operators {
            let of = |metric: Metric, word: &str| {
                counter!(metric.name(), "component" => operator.name.clone()).absolute(sum(format!("operator.{}.{word}", operator.name)));
            };
            of(Metric::Filtered, "filtered");
            of(Metric::Duplicate, "duplicate");
            of(Metric::Unproven, "unproven");
            of(Metric::Late, "late");
            of(Metric::WindowsEmitted, "emitted");
        }
        for table in &self.plan.tables {
            counter!(Metric::Stored.name(), "table" => table.name.clone()).absolute(sum(format!("table.{}.stored", table.name)));
            counter!(Metric::Expired.name(), "table" => table.name.clone()).absolute(sum(format!("table.{}.expired", table.name)));
        }
        for table in &self.plan.tables {
            counter!(Metric::Quarantined.name(), "table" => table.name.clone()).absolute(sum(quarantined_word(&table.name)));
            gauge!(Metric::DamagedSegments.name(), "table" => table.name.clone()).set(self.moves.damaged(&table.name) as f64);
        }
        for reason in Reason::ALL {
            counter!(Metric::DeadLetters.name(), "reason" => reason.as_str()).absolute(sum(dead_word(reason)));
            counter!(Metric::DeadLettersUnstored.name(), "reason" => reason.as_str()).absolute(sum(unstored_word(reason)));
        }
        gauge!(Metric::Unaccounted.name()).set(facts.iter().map(|f| f.unaccounted).sum::<u64>() as f64);
        gauge!(Metric::WindowsOpen.name()).set(facts.iter().map(|f| f.windows_open).sum::<u64>() as f64);
        gauge!(Metric::StateKeys.name()).set(facts.iter().map(|f| f.held.0).sum::<u64>() as f64);
        gauge!(Metric::StateBytes.name()).set(facts.iter().map(|f| f.held.1).sum::<u64>() as f64);
        self.times(facts);
    }

    fn times(&self, facts: &[LaneFacts]) {
        let now = now().0 as f64 / 1e6;
        if let Some(oldest) = facts.iter().map(|f| f.sealed_at.elapsed()).max() {
            gauge!(Metric::EpochLastSeal.name()).set(now - oldest.as_secs_f64());
        }
        let started = facts.iter().map(|f| f.watermark).filter(|w| *w != EventTime::MIN);
        if let Some(least) = started.min() {
            gauge!(Metric::Watermark.name()).set(least.0 as f64 / 1e6);
            gauge!(Metric::WatermarkLag.name()).set(now - least.0 as f64 / 1e6);
        }
        counter!(Metric::EpochFailures.name()).increment(0);
        counter!(Metric::Moves.name(), "outcome" => "committed").absolute(self.moves.committed.load(Relaxed));
        for outcome in ["done", "failed"] {
            counter!(Metric::Compactions.name(), "outcome" => outcome).increment(0);
        }
        counter!(Metric::CompactedBytes.name()).increment(0);
        let failed = self.moves.failed.load(Relaxed);
        counter!(Metric::Moves.name(), "outcome" => "failed").absolute(failed);
        counter!(Metric::Retries.name(), "component" => "mover").absolute(failed + self.moves.upkeep_failed.load(Relaxed));
        let upkeep =
            |work: &'static str, count: &AtomicU64| counter!(Metric::ColdUpkeep.name(), "work" => work).absolute(count.load(Relaxed));
        upkeep("rewrite", &self.moves.rewrites);
        upkeep("drop", &self.moves.drops);
        upkeep("vacuum", &self.moves.vacuumed);
        upkeep("checkpoint", &self.moves.checkpoints);
        upkeep("failed", &self.moves.upkeep_failed);
        gauge!(Metric::ColdStoresDown.name()).set(self.moves.stores_down.load(Relaxed) as f64);
        gauge!(Metric::QueryMemory.name()).set(self.engine.memory_bytes() as f64);
    }

    /// Where the system does not tell how busy the process is, it stands at one.
    fn scale(&self, scale: &mut Scale, began: Instant) {
        gauge!(Metric::Lanes.name()).set(self.lanes.all().len() as f64);
        let sum = |of: fn(&SourceStatus) -> &AtomicU64| self.sources.iter().map(|(_, status)| of(status).load(Relaxed)).sum::<u64>();
        let cores = std::thread::available_parallelism().map_or(1.0, |cores| cores.get() as f64);
        let look = |busy| Look { at: began.elapsed(), busy, taken: sum(|s| &s.received), lag: sum(|s| &s.lag) };
        let hint = busy().and_then(|busy| scale.look(look(busy), cores));
        gauge!(Metric::ScaleHint.name()).set(hint.unwrap_or(1.0));
    }

    fn sources(&self) {
        let mut in_flight = 0;
        for (name, status) in &self.sources {
            let count = |metric: Metric, value: u64| counter!(metric.name(), "component" => name.clone()).absolute(value);
            let received = status.received.load(Relaxed);
            count(Metric::Received, received);
            count(Metric::ReceivedBytes, status.received_bytes.load(Relaxed));
            count(Metric::Redelivered, status.redelivered.load(Relaxed));
            count(Metric::SourceReconnects, status.reconnects.load(Relaxed));
            count(Metric::SourceTakeovers, status.takeovers.load(Relaxed));
            gauge!(Metric::SourceConnected.name(), "component" => name.clone()).set(status.connected.load(Relaxed) as f64);
            gauge!(Metric::SourceUnacked.name(), "component" => name.clone()).set(status.unacked.load(Relaxed) as f64);
            count(Metric::KafkaMissing, status.missing.load(Relaxed));
            count(Metric::KafkaTombstones, status.tombstones.load(Relaxed));
            gauge!(Metric::KafkaLag.name(), "component" => name.clone()).set(status.lag.load(Relaxed) as f64);
            in_flight += received.saturating_sub(status.logged.load(Relaxed) + status.rejected.load(Relaxed));
        }
        gauge!(Metric::InFlight.name()).set(in_flight as f64);
        if let Some(journal) = &self.journal {
            gauge!(Metric::JournalBytes.name()).set(journal.bytes() as f64);
            let (held, capacity) = journal.queue_bytes();
            gauge!(Metric::QueueBytes.name(), "component" => "journal").set(held as f64);
            gauge!(Metric::QueueCapacity.name(), "component" => "journal").set(capacity as f64);
            if let Ok(free) = fs4::available_space(&self.plan.data_dir) {
                gauge!(Metric::JournalFreeBytes.name()).set(free as f64);
            }
        }
    }

    async fn tiers(&self) {
        let Ok(lanes) = self.live.lanes().await else { return };
        if self.plan.sinks.is_empty() {
            // A name without a value would look like a mistake to whoever scrapes it.
            gauge!(Metric::OutboxPending.name()).set(0.0);
            counter!(Metric::OutboxPublished.name()).increment(0);
        }
        for sink in &self.plan.sinks {
            let states = lanes.iter().filter_map(|lane| lane.whole.outbox.get(&sink.name));
            let pending: u64 = states.flat_map(|state| &state.files).map(|file| file.rows).sum();
            gauge!(Metric::OutboxPending.name(), "component" => sink.name.clone()).set(pending as f64);
            counter!(Metric::OutboxPublished.name(), "component" => sink.name.clone()).increment(0);
        }
        for table in &self.plan.tables {
            let (mut hot, mut warm, mut bytes, mut cold, mut files) = (0u64, 0u64, 0u64, 0u64, 0u64);
            for lane in &lanes {
                hot += lane.batches(&table.name).iter().map(|b| b.num_rows() as u64).sum::<u64>();
                for segment in lane.segments(&table.name, 0) {
                    warm += segment.rows;
                    bytes += segment.bytes;
                    files += 1;
                }
                // Sealed rows that no segment holds any more have moved on, or are past their age.
                let count = |word: &str| lane.whole.counters.get(&format!("table.{}.{word}", table.name)).copied().unwrap_or(0);
                let stored = count("stored").saturating_sub(count("expired") + count("quarantined"));
                let held: u64 = lane.whole.tables.get(&table.name).map_or(0, |t| t.segments.iter().map(|s| s.rows).sum());
                cold += stored.saturating_sub(held);
            }
            let rows =
                |tier: &'static str, n: u64| gauge!(Metric::TierRows.name(), "table" => table.name.clone(), "tier" => tier).set(n as f64);
            rows("hot", hot);
            rows("warm", warm);
            rows("cold", cold);
            gauge!(Metric::TierBytes.name(), "table" => table.name.clone(), "tier" => "warm").set(bytes as f64);
            gauge!(Metric::WarmSegments.name(), "table" => table.name.clone()).set(files as f64);
        }
    }
}
