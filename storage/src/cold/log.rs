//! The upkeep of a cold table's log and of what it has let go: checkpoints, and the files that only old readers need.

use super::table::Cold;
use deltalake::checkpoints::{cleanup_metadata, create_checkpoint};
use flow::{Error, Result};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{Error as StoreError, ObjectStoreExt};
use serde::Deserialize;

/// Versions between two checkpoints, as Delta itself has it: a reader reads so many entries at most.
const CHECKPOINT_EVERY: u64 = 10;

/// What `_last_checkpoint` says, as far as it is needed.
#[derive(Deserialize)]
struct LastCheckpoint {
    version: u64,
}

/// Writes a checkpoint of the newest version when enough versions have passed since the last one, and lets go of log entries that are
/// older than the table's `delta.logRetentionDuration` (30 days) and before a checkpoint. Returns whether it did.
pub(super) async fn checkpoint(cold: &Cold) -> Result<bool> {
    let Some(snapshot) = cold.snapshot().await? else { return Ok(false) };
    let version = snapshot.version().unwrap_or_default();
    let last = last_checkpoint(cold).await?;
    if version < last + CHECKPOINT_EVERY {
        return Ok(false);
    }
    let failed = |e| Error::retry(format!("a checkpoint of {}", cold.place()), e);
    create_checkpoint(&snapshot.table, None).await.map_err(failed)?;
    cleanup_metadata(&snapshot.table, None).await.map_err(failed)?;
    Ok(true)
}

/// The version of the last checkpoint; 0 before the first. One that nobody can read is none.
async fn last_checkpoint(cold: &Cold) -> Result<u64> {
    let failed = |e| Error::retry(format!("the last checkpoint of {}", cold.place()), e);
    let bytes = match cold.place().store().get(&Path::from("_delta_log/_last_checkpoint")).await {
        Ok(found) => found.bytes().await.map_err(failed)?,
        Err(StoreError::NotFound { .. }) => return Ok(0),
        Err(e) => return Err(failed(e)),
    };
    Ok(serde_json::from_slice::<LastCheckpoint>(&bytes).map_or(0, |last| last.version))
}

/// Deletes the files that the log let go of before this time; see `ColdTable::vacuum`. The entries themselves stay until a checkpoint
/// leaves them out, so a file may be gone already.
pub(super) async fn vacuum(cold: &Cold, before_ms: i64) -> Result<usize> {
    let Some(snapshot) = cold.snapshot().await? else { return Ok(0) };
    let old: Vec<_> = snapshot.removed().await?.into_iter().filter(|f| f.at_ms < before_ms).collect();
    let locations = futures::stream::iter(old.into_iter().map(|f| Ok(Path::from(f.path.as_str())))).boxed();
    let mut gone = 0;
    let mut deleted = cold.place().store().delete_stream(locations);
    loop {
        match deleted.try_next().await {
            Ok(Some(_)) => gone += 1,
            Ok(None) => return Ok(gone),
            Err(StoreError::NotFound { .. }) => {}
            Err(e) => return Err(Error::retry(format!("deleting old files of {}", cold.place()), e)),
        }
    }
}
