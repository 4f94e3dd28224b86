//! What the mover of a table does to its cold files beside the moves: it rewrites small files, drops days, and deletes what was let go.
//!
//! A rewrite and a drop are sagas like the move, with the log as their register: files are written that nobody sees, one commit on the
//! version that was looked at makes them count, and where its outcome is unknown the log is looked at again. Until the commit nothing
//! has changed for anyone; after it the old files stay for readers of older versions.

use crate::cold::{ColdFile, ColdVersion, Edit, dropped, rewrite_name};
use crate::mover::Mover;
use flow::{Error, Remedy, Result};
use std::collections::HashSet;
use std::sync::atomic::Ordering;
use world::{Bug, planted};

impl Mover {
    /// Writes the rows of these files of a version as fewer files, and puts those in their place. An error leaves everything as it was.
    pub async fn rewrite(&self, on: &dyn ColdVersion, files: Vec<ColdFile>, now_ms: i64) -> Result<()> {
        let pass = self.passes.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}-{pass}", rewrite_name(self.incarnation, on.number()));
        let added = self.cold.rewrite(&files, &self.key, &name, now_ms).await?;
        let (written, expected): (u64, u64) = (added.iter().map(|f| f.rows).sum(), files.iter().filter_map(|f| f.rows).sum());
        if written != expected {
            self.cold.discard(&added).await;
            return Err(Error::new(
                Remedy::Retry,
                format!("table {}: {written} rows rewritten of {expected} in its cold files", self.table),
            ));
        }
        self.commit(on, Edit { added, removed: files, now_ms, ..Edit::default() }).await
    }

    /// Lets the rows of these files of a version go for good, and counts them in the log. An error leaves everything as it was.
    pub async fn drop_files(&self, on: &dyn ColdVersion, files: Vec<ColdFile>, now_ms: i64) -> Result<()> {
        let app = dropped(&self.pipeline, &self.table);
        let rows = on.moved(&app).await? + files.iter().filter_map(|f| f.rows).sum::<u64>();
        self.commit(on, Edit { removed: files, transactions: [(app, rows)].into(), now_ms, ..Edit::default() }).await
    }

    async fn commit(&self, on: &dyn ColdVersion, edit: Edit) -> Result<()> {
        match on.commit(&edit).await {
            Ok(()) => Ok(()),
            Err(error) => self.look_again(on.number(), &edit, error).await,
        }
    }

    /// After a commit that failed or whose outcome is unknown: the log decides. Where it does not hold the commit yet, that may still
    /// come, so new files stay; they go only when another commit has taken its place.
    async fn look_again(&self, on: u64, edit: &Edit, error: Error) -> Result<()> {
        let newest = self.cold.newest().await?;
        let mut known: HashSet<String> = newest.files().await?.into_iter().map(|f| f.path).collect();
        let is_done = if edit.added.is_empty() {
            edit.removed.iter().all(|f| !known.contains(&f.path))
        } else {
            // What another mover has rewritten again was ours and is let go.
            known.extend(newest.removed().await?.into_iter().map(|f| f.path));
            edit.added.iter().all(|f| known.contains(&f.path))
        };
        if is_done {
            return Ok(());
        }
        if newest.number() > on || planted(Bug::FilesOfUnknownCommitDeleted) {
            self.cold.discard(&edit.added).await;
        }
        Err(error)
    }
}
