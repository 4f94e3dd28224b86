//! What the mover needs of a cold table: files that nobody sees, and a log in which one commit makes them count.

use super::files::MoveFile;
use async_trait::async_trait;
use flow::{EventTime, Result};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::PathBuf;

/// A file that a version of a cold table names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColdFile {
    /// Path below the table's root.
    pub path: String,
    /// The partition that its rows are of: the day, `YYYY-MM-DD`.
    pub part: String,
    /// Where the partition ends: all of its rows are before.
    pub ends: EventTime,
    /// Length in bytes.
    pub bytes: u64,
    /// Rows inside, where the log says it.
    pub rows: Option<u64>,
}

/// A file that the log has let go of, and that may still be there for readers of older versions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemovedFile {
    /// Path below the table's root.
    pub path: String,
    /// When it was let go, milliseconds since 1970.
    pub at_ms: i64,
}

/// What one commit does: all of it, or nothing.
#[derive(Clone, Debug, Default)]
pub struct Edit {
    /// Files whose rows count from now on.
    pub added: Vec<MoveFile>,
    /// Files whose rows count no more; those of `added` are the same rows where both are given.
    pub removed: Vec<ColdFile>,
    /// Move numbers by the lanes' application ids.
    pub transactions: BTreeMap<String, u64>,
    /// When, milliseconds since 1970.
    pub now_ms: i64,
}

/// A cold table as the mover sees it.
#[async_trait]
pub trait ColdTable: Send + Sync + Debug {
    /// The newest version, of a table that is made if it is not there. What it shows is on disk.
    async fn newest(&self) -> Result<Box<dyn ColdVersion>>;

    /// Writes the rows of `segments` (paths of Parquet files), sorted by `key`, as files whose names begin with `name`; on disk, and named by nothing yet.
    async fn write(&self, segments: &[PathBuf], key: &[String], name: &str, now_ms: i64) -> Result<Vec<MoveFile>>;

    /// Writes the rows of some of its own files anew, as `write` does.
    async fn rewrite(&self, files: &[ColdFile], key: &[String], name: &str, now_ms: i64) -> Result<Vec<MoveFile>>;

    /// Deletes files that no commit names or ever will. What cannot be deleted is only space.
    async fn discard(&self, files: &[MoveFile]);

    /// Deletes the files of other incarnations that the log does not know and nobody can commit any more (see `is_abandoned`).
    /// `lanes`: the highest move number in the table, by lane. Returns how many went.
    async fn sweep(&self, incarnation: u64, lanes: &BTreeMap<String, u64>) -> Result<usize>;

    /// Deletes files that the log let go of before this time, in milliseconds since 1970. Returns how many went.
    async fn vacuum(&self, before_ms: i64) -> Result<usize>;

    /// Makes a log that has grown cheap to read again. Returns whether it did.
    async fn checkpoint(&self) -> Result<bool>;
}

/// One version of a cold table.
#[async_trait]
pub trait ColdVersion: Send + Sync {
    /// Its number.
    fn number(&self) -> u64;

    /// The highest move number of a lane (by its application id) that is in this version; 0 before the first.
    async fn moved(&self, app: &str) -> Result<u64>;

    /// The files whose rows it shows.
    async fn files(&self) -> Result<Vec<ColdFile>>;

    /// The files that were let go of up to here, as far as the log remembers: at least as long as they are kept.
    async fn removed(&self) -> Result<Vec<RemovedFile>>;

    /// Makes an edit, as the version right after this one and as no other. An error tells nothing about the outcome: the commit may be
    /// there, and it may still come.
    async fn commit(&self, edit: &Edit) -> Result<()>;
}
