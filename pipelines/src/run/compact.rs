//! The durable steps of a compaction: segments are merged on another thread, one lane at a time, and nothing stays of one that failed.

use crate::run::driver::Shared;
use flow::{Error, Metric, Remedy, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use storage::epoch::Segment;
use storage::warm::Merge;
use storage::warm::policy::Due;

/// Segments of a table to be merged.
pub(crate) struct Job {
    pub(crate) table: usize,
    pub(crate) due: Due,
    /// Names for the runs that come of it.
    pub(crate) names: [String; 2],
}

/// Tells the thread that nobody waits for it any more.
struct Abandon(Arc<AtomicBool>);

impl Drop for Abandon {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Merges segments into runs that no record names yet. Dropped, it ends soon and without a result.
pub(crate) async fn compact(shared: Arc<Shared>, job: Job) -> Result<Vec<Segment>> {
    let turn = shared.compactions.clone().acquire_owned().await;
    let _turn = turn.map_err(|_| Error::new(Remedy::Stop, "no more compactions"))?;
    let stop = Arc::new(AtomicBool::new(false));
    let _abandon = Abandon(stop.clone());
    let of = shared.clone();
    let runs = shared.world.blocking("a compaction", move || merge(&of, &job, &stop)).await?;
    let outcome = if runs.is_ok() { "done" } else { "failed" };
    metrics::counter!(Metric::Compactions.name(), "outcome" => outcome).increment(1);
    if let Ok(runs) = &runs {
        metrics::counter!(Metric::CompactedBytes.name()).increment(runs.iter().map(|run| run.bytes).sum());
    }
    runs
}

fn merge(shared: &Shared, job: &Job, stop: &AtomicBool) -> Result<Vec<Segment>> {
    let (disk, spec) = (&*shared.world.disk, &*shared.specs[job.table]);
    let merge = Merge { disk, warm: &shared.warm, spec, due: &job.due, names: job.names.clone(), stop };
    let runs = merge.run();
    if runs.is_err() {
        for name in &job.names {
            // No record names it; what stays goes at the next claim.
            let _ = disk.remove(&shared.warm.join(&spec.name).join(name));
        }
    }
    runs
}
