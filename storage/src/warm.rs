//! Warm segments: an epoch's rows of one table as a Parquet file, sorted by (key, event time), durable before it is named.
//!
//! A segment is not split by partition; it belongs to the partition of its greatest event time.
//! `min_key` and `max_key` are of the first key column where that is text, else both are empty, which says nothing.

use crate::epoch::Segment;
use crate::options::TableSpec;
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt32Array};
use arrow::compute::{cast, concat_batches, take_record_batch};
use arrow::datatypes::{DataType, TimestampMicrosecondType};
use arrow::row::{RowConverter, SortField};
use flow::{EVENT_TIME, Error, Result};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::metadata::SortingColumn;
use parquet::file::properties::WriterProperties;
use parquet::schema::types::ColumnPath;
use std::path::{Path, PathBuf};
use world::Disk;
use xxhash_rust::xxh3::xxh3_64;

/// Rows of a row group: small enough to skip, large enough to compress.
const ROW_GROUP_ROWS: usize = 128 * 1024;

/// The path of a segment file: `<warm>/<table>/<file>`.
#[must_use]
pub fn segment_path(warm: &Path, table: &str, file: &str) -> PathBuf {
    warm.join(table).join(file)
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
    let failed = |e: arrow::error::ArrowError| Error::stop(format!("segment {name} of table {}", spec.name), e);
    let rows = concat_batches(&spec.schema, batches).map_err(failed)?;
    if rows.num_rows() == 0 {
        return Ok(None);
    }
    let rows = sorted(&rows, &spec.key).map_err(failed)?;
    let bytes = encoded(&rows, spec).map_err(|e| Error::stop(format!("segment {name} of table {}", spec.name), e))?;
    let (min_key, max_key) = key_range(&rows, spec).map_err(failed)?;
    let (min_time, max_time) = time_range(&rows).expect("a segment has rows");
    let segment = Segment {
        file: name.to_owned(),
        rows: rows.num_rows() as u64,
        bytes: bytes.len() as u64,
        checksum: xxh3_64(&bytes),
        min_time,
        max_time,
        min_key,
        max_key,
        epoch,
        mark: None,
    };
    crate::durable::write_new(disk, &dir.join(name), &bytes).map_err(|e| Error::stop(format!("writing segment {name}"), e))?;
    Ok(Some(segment))
}

/// The rows in the order of (key, event time); rows equal in both keep their order.
pub fn sorted(rows: &RecordBatch, key: &[String]) -> Result<RecordBatch, arrow::error::ArrowError> {
    let columns: Vec<ArrayRef> =
        key.iter().map(String::as_str).chain([EVENT_TIME]).filter_map(|c| rows.column_by_name(c).cloned()).collect();
    let converter = RowConverter::new(columns.iter().map(|c| SortField::new(c.data_type().clone())).collect())?;
    let keys = converter.convert_columns(&columns)?;
    let mut order: Vec<u32> = (0..rows.num_rows() as u32).collect();
    order.sort_unstable_by(|&a, &b| keys.row(a as usize).cmp(&keys.row(b as usize)).then(a.cmp(&b)));
    take_record_batch(rows, &UInt32Array::from(order))
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

fn key_range(rows: &RecordBatch, spec: &TableSpec) -> Result<(String, String), arrow::error::ArrowError> {
    let column = text_key(spec).and_then(|k| rows.column_by_name(k)).filter(|c| c.null_count() == 0);
    let Some(column) = column else { return Ok(Default::default()) };
    let ends = take_ends(column)?;
    let text = ends.as_string_view();
    Ok((text.value(0).to_owned(), text.value(1).to_owned()))
}

/// First and last value of a sorted column.
fn take_ends(column: &ArrayRef) -> Result<ArrayRef, arrow::error::ArrowError> {
    let ends = UInt32Array::from(vec![0, column.len() as u32 - 1]);
    cast(&arrow::compute::take(column, &ends, None)?, &DataType::Utf8View)
}

fn encoded(rows: &RecordBatch, spec: &TableSpec) -> Result<Vec<u8>, parquet::errors::ParquetError> {
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, rows.schema(), Some(properties(spec)?))?;
    writer.write(rows)?;
    writer.close()?;
    Ok(bytes)
}

/// Zstd 1; deltas for times and integers (7.5 bytes a reading in our measurements), dictionaries for the rest.
fn properties(spec: &TableSpec) -> Result<WriterProperties, parquet::errors::ParquetError> {
    let place =
        |name: &str| spec.schema.index_of(name).ok().map(|i| SortingColumn { column_idx: i as i32, descending: false, nulls_first: true });
    let sorting = spec.key.iter().map(String::as_str).chain([EVENT_TIME]).filter_map(place).collect();
    let mut builder = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_sorting_columns(Some(sorting));
    for field in spec.schema.fields() {
        if matches!(field.data_type(), DataType::Timestamp(..)) || field.data_type().is_integer() {
            let path = ColumnPath::from(field.name().as_str());
            builder = builder.set_column_dictionary_enabled(path.clone(), false).set_column_encoding(path, Encoding::DELTA_BINARY_PACKED);
        }
    }
    Ok(builder.build())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{readings, spec};
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

    #[test]
    fn a_segment_is_sorted_and_says_what_is_inside() {
        let dir = tempfile::tempdir().unwrap();
        let rows = readings(&[("b", 5, 1.0), ("a", 9, 2.0), ("b", 3, 3.0), ("a", 9, 4.0)]);
        let segment =
            write_segment(&world::LocalDisk, dir.path(), "s.parquet", &spec(), 7, &[rows.slice(0, 2), rows.slice(2, 2)]).unwrap().unwrap();
        assert_eq!((segment.rows, segment.epoch, segment.min_time, segment.max_time), (4, 7, 3, 9));
        assert_eq!((segment.min_key.as_str(), segment.max_key.as_str()), ("a", "b"));
        let bytes = std::fs::read(dir.path().join("s.parquet")).unwrap();
        assert_eq!((segment.bytes, segment.checksum), (bytes.len() as u64, xxh3_64(&bytes)));
        let mut reader = ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(bytes)).unwrap().build().unwrap();
        assert_eq!(reader.next().unwrap().unwrap(), readings(&[("a", 9, 2.0), ("a", 9, 4.0), ("b", 3, 3.0), ("b", 5, 1.0)]));
    }

    #[test]
    fn nothing_is_written_without_rows() {
        let dir = tempfile::tempdir().unwrap();
        assert!(write_segment(&world::LocalDisk, dir.path(), "s.parquet", &spec(), 1, &[]).unwrap().is_none());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
