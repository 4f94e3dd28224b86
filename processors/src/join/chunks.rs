//! Rows of one span of time, numbered in the order in which they came.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{SchemaRef, TimestampMicrosecondType};
use arrow::error::ArrowError;
use std::sync::Arc;

/// Few chunks, each at least twice as long as the next: a row is copied once for each doubling.
#[derive(Default)]
pub(super) struct Chunks {
    chunks: Vec<RecordBatch>,
    rows: usize,
    /// The first so many rows are saved.
    saved: usize,
}

impl Chunks {
    /// Adds rows, which own their memory from here on.
    pub(super) fn push(&mut self, rows: &RecordBatch) -> Result<(), ArrowError> {
        self.rows += rows.num_rows();
        self.chunks.push(compact(rows)?);
        while let [.., before, last] = &self.chunks[..] {
            if before.num_rows() > 2 * last.num_rows() {
                break;
            }
            let both = concat_batches(last.schema_ref(), [before, last])?;
            self.chunks.truncate(self.chunks.len() - 2);
            self.chunks.push(compact(&both)?);
        }
        Ok(())
    }

    /// The chunks, in the order of their rows.
    pub(super) fn chunks(&self) -> &[RecordBatch] {
        &self.chunks
    }

    /// How many rows there are.
    pub(super) fn len(&self) -> usize {
        self.rows
    }

    /// The chunk of a row, and the row's place in it.
    pub(super) fn find(&self, row: u32) -> (usize, usize) {
        let mut at = row as usize;
        for (number, chunk) in self.chunks.iter().enumerate() {
            if at < chunk.num_rows() {
                return (number, at);
            }
            at -= chunk.num_rows();
        }
        panic!("row {row} of {}", self.rows)
    }

    /// The event time of a row: the last column.
    pub(super) fn time(&self, row: u32) -> i64 {
        let (chunk, at) = self.find(row);
        let chunk = &self.chunks[chunk];
        chunk.column(chunk.num_columns() - 1).as_primitive::<TimestampMicrosecondType>().value(at)
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        self.chunks.iter().map(RecordBatch::get_array_memory_size).sum()
    }

    /// The rows that came since the last call; they count as saved.
    pub(super) fn save(&mut self, schema: &SchemaRef) -> Result<Option<RecordBatch>, ArrowError> {
        let (mut skip, mut parts) = (std::mem::replace(&mut self.saved, self.rows), vec![]);
        for chunk in &self.chunks {
            let from = skip.min(chunk.num_rows());
            skip -= from;
            if from < chunk.num_rows() {
                parts.push(chunk.slice(from, chunk.num_rows() - from));
            }
        }
        if parts.is_empty() {
            return Ok(None);
        }
        compact(&concat_batches(schema, &parts)?).map(Some)
    }

    /// All rows came from a save.
    pub(super) fn loaded(&mut self) {
        self.saved = self.rows;
    }

    /// Whether a save has rows of it.
    pub(super) fn is_saved(&self) -> bool {
        self.saved > 0
    }
}

/// The same rows without the bytes of others: texts may point into a whole message.
fn compact(rows: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let of = |column: &Arc<dyn Array>| -> Arc<dyn Array> {
        if let Some(texts) = column.as_string_view_opt() {
            Arc::new(texts.gc())
        } else if let Some(bytes) = column.as_binary_view_opt() {
            Arc::new(bytes.gc())
        } else {
            column.clone()
        }
    };
    RecordBatch::try_new(rows.schema(), rows.columns().iter().map(of).collect())
}
