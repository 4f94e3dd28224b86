//! What the mover needs of a cold table: files that nobody sees, and a log in which one commit makes them count.

use super::files::MoveFile;
use async_trait::async_trait;
use flow::Result;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::PathBuf;

/// A cold table as the mover sees it.
#[async_trait]
pub trait ColdTable: Send + Sync + Debug {
    /// The newest version, of a table that is made if it is not there. What it shows is on disk.
    async fn newest(&self) -> Result<Box<dyn ColdVersion>>;

    /// Writes the rows of `segments` (paths of Parquet files), sorted by `key`, as files whose names begin with `name`; on disk, and named by nothing yet.
    async fn write(&self, segments: &[PathBuf], key: &[String], name: &str, now_ms: i64) -> Result<Vec<MoveFile>>;

    /// Deletes files that no commit names or ever will. What cannot be deleted is only space.
    fn discard(&self, files: &[MoveFile]);

    /// Deletes the files of other incarnations that the newest version does not name and nobody can commit any more (see `is_abandoned`).
    /// `lanes`: the highest move number in the table, by lane. Returns how many went.
    async fn sweep(&self, incarnation: u64, lanes: &BTreeMap<String, u64>) -> Result<usize>;
}

/// One version of a cold table.
#[async_trait]
pub trait ColdVersion: Send + Sync {
    /// Its number.
    fn number(&self) -> u64;

    /// The highest move number of a lane (by its application id) that is in this version; 0 before the first.
    async fn moved(&self, app: &str) -> Result<u64>;

    /// Adds files and raises transactions, as the version right after this one and as no other. An error tells nothing about the outcome:
    /// the commit may be there, and it may still come.
    async fn commit(&self, files: &[MoveFile], transactions: &BTreeMap<String, u64>) -> Result<()>;
}
