//! Lookup tables: what readings are enriched with. A table reaches a lane as versions, in the order of the lane's log, so that a replay
//! sees the same versions at the same readings.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use std::sync::Arc;

/// What a lookup table looks like, whatever it is read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LookupShape {
    /// Its name in the pipeline.
    pub name: Arc<str>,
    /// Its columns, those of the key included.
    pub schema: SchemaRef,
    /// The columns that find a row; at least one.
    pub key: Vec<String>,
    /// The column (`Timestamp(µs, "UTC")`) from which on a row counts; without it each key has one row, which counts always.
    pub valid_from: Option<String>,
}

/// All rows of a lookup table at one moment.
///
/// Whoever makes one promises: the columns of its `LookupShape`, no null in the key and in `valid_from`, no two rows with the same key
/// and `valid_from`.
#[derive(Clone, Debug)]
pub struct LookupVersion {
    /// The table's name.
    pub lookup: Arc<str>,
    /// Hash of its content: a version with the number of the one before is the same again.
    pub number: u64,
    /// The rows, in any order.
    pub rows: RecordBatch,
}
