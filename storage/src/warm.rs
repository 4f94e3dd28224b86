//! Warm segments: rows of one table as a Parquet file, sorted by (key, event time), durable before it is named.
//!
//! An epoch's segment is not split by partition; it belongs to the partition of its greatest event time. Later small segments of a
//! partition are merged into greater ones (`policy` says which, `merge` does it), and rows of earlier partitions part from them.
//! `min_key` and `max_key` are of the first key column where that is text, else both are empty, which says nothing.

mod input;
mod merge;
mod order;
mod output;
pub mod policy;
#[cfg(test)]
mod tests;

pub use input::check_segment;
pub use merge::Merge;

use crate::encoding::encoded;
use crate::epoch::Segment;
use crate::options::TableSpec;
use arrow::array::{Array, AsArray, RecordBatch, UInt32Array};
use arrow::compute::{cast, concat_batches, take_record_batch};
use arrow::datatypes::{DataType, TimestampMicrosecondType};
use datafusion::common::DataFusionError;
use flow::{EVENT_TIME, Error, Result};
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::SortingColumn;
use parquet::file::properties::WriterProperties;
use std::path::{Path, PathBuf};
use world::Disk;

use order::order;
use output::Output;

/// How hard zstd tries in an epoch's segment: a lane waits for it, and it is merged soon.
const EPOCH_LEVEL: i32 = 1;
/// The same in a run of merged segments, which stays until its rows are cold: 5 % less than level 1.
const RUN_LEVEL: i32 = 3;
/// Rows of a row group: small enough to skip, large enough to compress.
const ROW_GROUP_ROWS: usize = 128 * 1024;

/// Rows of a batch that is read back.
const READ_ROWS: usize = 8 * 1024;

/// Rows that are put in order at once, so that no second copy of an epoch lies in memory.
const WRITE_ROWS: usize = 64 * 1024;

/// The path of a segment file: `<warm>/<table>/<file>`.
#[must_use]
pub fn segment_path(warm: &Path, table: &str, file: &str) -> PathBuf {
    warm.join(table).join(file)
}

/// The rows of a segment, in its order, with the columns of today's table. An error with remedy `Retry` when its bytes are not those that
/// were written.
pub fn read_segment(disk: &dyn Disk, warm: &Path, spec: &TableSpec, segment: &Segment) -> Result<Vec<RecordBatch>> {
    let failed = |e| Error::retry(format!("reading segment {} of table {}", segment.file, spec.name), e);
    let batches = input::read(disk, warm, &spec.name, segment, READ_ROWS)?;
    batches.map(|batch| batch.and_then(|rows| merge::conformed(&rows, &spec.schema)).map_err(failed)).collect()
}

/// Writes an epoch's rows as `<dir>/<name>`, durably, and gives its entry for the record; none without rows.
///
/// `dir` is `<warm>/<table>` and exists; `epoch` is the number of the record that will name the segment.
pub fn write_segment(
    disk: &dyn Disk,
    dir: &Path,
    name: &str,
    spec: &TableSpec,
    epoch: u64,
    batches: &[RecordBatch],
) -> Result<Option<Segment>> {
    let failed = |e: DataFusionError| Error::stop(format!("segment {name} of table {}", spec.name), e);
    let rows = concat_batches(&spec.schema, batches).map_err(|e| failed(e.into()))?;
    if rows.num_rows() == 0 {
        return Ok(None);
    }
    let order = order(&rows, &spec.key).map_err(failed)?;
    let mut output = Output::begin(disk, dir, name, spec, EPOCH_LEVEL)?;
    for from in (0..order.len()).step_by(WRITE_ROWS) {
        let part = order.slice(from, WRITE_ROWS.min(order.len() - from));
        output.write(&take_record_batch(&rows, &part).map_err(|e| failed(e.into()))?)?;
    }
    output.finish(epoch).map(Some)
}

/// Least and greatest event time; none without rows.
#[must_use]
pub fn time_range(rows: &RecordBatch) -> Option<(i64, i64)> {
    let times = rows.column_by_name(EVENT_TIME)?.as_primitive_opt::<TimestampMicrosecondType>()?.values();
    Some((*times.iter().min()?, *times.iter().max()?))
}

/// Whether the first key column is text, so that segments know its range.
pub(crate) fn text_key(spec: &TableSpec) -> Option<&str> {
    let name = spec.key.first()?;
    let field = spec.schema.field_with_name(name).ok()?;
    matches!(field.data_type(), DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View).then_some(name)
}

/// First and last key of sorted rows; none where the first key column is not text, or has nulls.
fn key_ends(rows: &RecordBatch, spec: &TableSpec) -> Result<Option<(String, String)>, arrow::error::ArrowError> {
    let column = text_key(spec).and_then(|k| rows.column_by_name(k)).filter(|c| c.null_count() == 0);
    let Some(column) = column else { return Ok(None) };
    let ends = UInt32Array::from(vec![0, column.len() as u32 - 1]);
    let ends = cast(&arrow::compute::take(column, &ends, None)?, &DataType::Utf8View)?;
    let text = ends.as_string_view();
    Ok(Some((text.value(0).to_owned(), text.value(1).to_owned())))
}

/// Zstd of this level, and the encodings of all tiers.
fn properties(spec: &TableSpec, level: i32) -> Result<WriterProperties, parquet::errors::ParquetError> {
    let place =
        |name: &str| spec.schema.index_of(name).ok().map(|i| SortingColumn { column_idx: i as i32, descending: false, nulls_first: true });
    let sorting = spec.key.iter().map(String::as_str).chain([EVENT_TIME]).filter_map(place).collect();
    let builder = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(level)?))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_sorting_columns(Some(sorting));
    Ok(encoded(&spec.schema, builder).build())
}
