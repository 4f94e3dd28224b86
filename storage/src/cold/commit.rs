//! An edit of a cold table as one Delta commit.

use super::files::MoveFile;
use super::seam::{ColdFile, Edit};
use super::table::{Cold, DAY, Snapshot};
use deltalake::DeltaTableError;
use deltalake::kernel::transaction::{CommitBuilder, CommitProperties};
use deltalake::kernel::{Action, Add, Remove, Transaction};
use deltalake::protocol::{DeltaOperation, SaveMode};
use flow::{Error, Result};
use std::collections::HashMap;

impl Cold {
    /// Makes an edit on the snapshot that was checked: nothing is retried on another one. An error tells nothing about the outcome; look at
    /// a new snapshot. Checkpoints are made apart: what fails there would look like a commit that failed.
    pub async fn commit(&self, on: &Snapshot, edit: &Edit) -> Result<()> {
        let transactions = edit.transactions.iter().map(|(app, number)| Transaction::new(app, *number as i64)).collect();
        let properties = CommitProperties::default()
            .with_max_retries(0)
            .with_create_checkpoint(false)
            .with_cleanup_expired_logs(Some(false))
            .with_application_transactions(transactions);
        let failed = |e: DeltaTableError| Error::retry(format!("committing to the cold table {}", self.place()), e);
        let state = on.table.snapshot().map_err(failed)?;
        let done = CommitBuilder::from(properties)
            .with_actions(actions(edit))
            .build(Some(state.snapshot()), on.table.log_store(), self.operation(edit))
            .await
            .map_err(failed)?;
        self.saw(done.version());
        Ok(())
    }

    /// How the log calls it.
    fn operation(&self, edit: &Edit) -> DeltaOperation {
        match (edit.added.is_empty(), edit.removed.is_empty()) {
            (false, false) => DeltaOperation::Optimize { predicate: None, target_size: self.file_size() as i64 },
            (true, false) => DeltaOperation::Delete { predicate: Some(format!("{DAY} = '{}'", edit.removed[0].part)) },
            _ => DeltaOperation::Write { mode: SaveMode::Append, partition_by: Some(vec![DAY.into()]), predicate: None },
        }
    }
}

fn actions(edit: &Edit) -> Vec<Action> {
    // The same rows in other files are no change for whoever follows the log.
    let is_change = edit.added.is_empty() || edit.removed.is_empty();
    let removed = edit.removed.iter().map(|f| Action::Remove(remove(f, edit.now_ms, is_change)));
    removed.chain(edit.added.iter().map(|f| Action::Add(add(f, is_change)))).collect()
}

fn day(of: &str) -> HashMap<String, Option<String>> {
    HashMap::from([(DAY.into(), Some(of.to_owned()))])
}

fn add(file: &MoveFile, data_change: bool) -> Add {
    Add {
        path: file.path.clone(),
        partition_values: day(&file.day),
        size: file.bytes as i64,
        modification_time: file.written_ms,
        data_change,
        stats: Some(file.statistics()),
        ..Default::default()
    }
}

fn remove(file: &ColdFile, now_ms: i64, data_change: bool) -> Remove {
    Remove {
        path: file.path.clone(),
        data_change,
        deletion_timestamp: Some(now_ms),
        extended_file_metadata: Some(true),
        partition_values: Some(day(&file.part)),
        size: Some(file.bytes as i64),
        tags: None,
        deletion_vector: None,
        base_row_id: None,
        default_row_commit_version: None,
    }
}
