//! A Parquet file read to its last page: how many rows, of which times, in which order.

use super::Fault;
use crate::warm::time_range;
use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::row::{OwnedRow, RowConverter, SortField};
use arrow::util::display::array_value_to_string;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::errors::ParquetError;
use std::fs::File;

/// Rows that are in memory at once.
const ROWS: usize = 8_192;

/// What a Parquet file holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Content {
    /// Rows, counted.
    pub(super) rows: u64,
    /// Least and greatest event time.
    pub(super) times: Option<(i64, i64)>,
    /// First and last value of the first sort column, where that is text without nulls.
    pub(super) keys: Option<(String, String)>,
}

/// The columns that a file says its rows are sorted by, rising; none where it does not say so.
pub(super) fn claimed_order(file: &File) -> Result<Vec<String>, Fault> {
    let metadata = ArrowReaderMetadata::load(file, ArrowReaderOptions::new()).map_err(|e| footer(file, &e))?;
    let Some(group) = metadata.metadata().row_groups().first() else { return Ok(vec![]) };
    let sorting = group.sorting_columns().map_or(&[][..], Vec::as_slice);
    let rising = sorting.iter().take_while(|c| !c.descending && c.nulls_first);
    Ok(rising.filter_map(|c| Some(group.columns().get(c.column_idx as usize)?.column_path().string())).collect())
}

/// Reads all rows, which must be sorted by the columns `order`.
pub(super) fn read(file: &File, order: &[String]) -> Result<Content, Fault> {
    let metadata = ArrowReaderMetadata::load(file, ArrowReaderOptions::new()).map_err(|e| footer(file, &e))?;
    let mut content = Content::default();
    let mut sorted = Sorted::new(metadata.schema(), order)?;
    for group in 0..metadata.metadata().num_row_groups() {
        let batches = open(file, &metadata, group, ProjectionMask::all()).map_err(|e| locate(file, &metadata, group, &e))?;
        for batch in batches {
            let batch = batch.map_err(|e| locate(file, &metadata, group, &e.into()))?;
            content.add(&batch, order);
            sorted.follow(&batch)?;
        }
    }
    let counted = metadata.metadata().file_metadata().num_rows();
    match u64::try_from(counted) == Ok(content.rows) {
        true => Ok(content),
        false => Err(Fault::wrong(format!("its footer counts {counted} rows, {} are inside", content.rows))),
    }
}

fn open(
    file: &File,
    metadata: &ArrowReaderMetadata,
    group: usize,
    columns: ProjectionMask,
) -> Result<ParquetRecordBatchReader, ParquetError> {
    let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file.try_clone()?, metadata.clone());
    builder.with_row_groups(vec![group]).with_projection(columns).with_batch_size(ROWS).build()
}

fn footer(file: &File, error: &ParquetError) -> Fault {
    let length = file.metadata().map_or(0, |m| m.len());
    Fault::at(length.saturating_sub(8), format!("its footer cannot be read: {error}"))
}

/// The place of the first column that cannot be read by itself.
fn locate(file: &File, metadata: &ArrowReaderMetadata, group: usize, error: &ParquetError) -> Fault {
    let columns = metadata.metadata().row_group(group).columns();
    for (leaf, column) in columns.iter().enumerate() {
        let only = ProjectionMask::leaves(metadata.parquet_schema(), [leaf]);
        let read = || open(file, metadata, group, only)?.try_for_each(|batch| batch.map(|_| ())).map_err(ParquetError::from);
        if let Err(error) = read() {
            let (byte, _) = column.byte_range();
            return Fault::at(byte, format!("row group {group}, column {}: {error}", column.column_path().string()));
        }
    }
    Fault::wrong(format!("row group {group}: {error}"))
}

impl Content {
    fn add(&mut self, batch: &RecordBatch, order: &[String]) {
        self.rows += batch.num_rows() as u64;
        if let Some((least, greatest)) = time_range(batch) {
            let (before, after) = self.times.unwrap_or((least, greatest));
            self.times = Some((before.min(least), after.max(greatest)));
        }
        let is_text = |c: &&ArrayRef| matches!(c.data_type(), DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
        let Some(key) = order.first().and_then(|name| batch.column_by_name(name)).filter(is_text) else { return };
        let ends = [0, key.len().saturating_sub(1)].map(|at| array_value_to_string(key, at).ok());
        if let [Some(first), Some(last)] = ends {
            self.keys = Some((self.keys.take().map_or(first, |(first, _)| first), last));
        }
    }
}

/// Rows that must not fall.
struct Sorted {
    columns: Vec<usize>,
    converter: RowConverter,
    last: Option<OwnedRow>,
    rows: u64,
}

impl Sorted {
    fn new(schema: &SchemaRef, order: &[String]) -> Result<Self, Fault> {
        let places = order.iter().map(|name| schema.index_of(name)).collect::<Result<Vec<_>, _>>();
        let columns = places.map_err(|e| Fault::wrong(e.to_string()))?;
        let fields = columns.iter().map(|at| SortField::new(schema.field(*at).data_type().clone())).collect();
        let converter = RowConverter::new(fields).map_err(|e| Fault::wrong(e.to_string()))?;
        Ok(Self { columns, converter, last: None, rows: 0 })
    }

    fn follow(&mut self, batch: &RecordBatch) -> Result<(), Fault> {
        if self.columns.is_empty() || batch.num_rows() == 0 {
            return Ok(());
        }
        let columns: Vec<ArrayRef> = self.columns.iter().map(|at| batch.column(*at).clone()).collect();
        let rows = self.converter.convert_columns(&columns).map_err(|e| Fault::wrong(e.to_string()))?;
        let falls_at_once = self.last.as_ref().is_some_and(|last| rows.row(0) < last.row());
        let falls = falls_at_once.then_some(0).or_else(|| (1..rows.num_rows()).find(|at| rows.row(*at) < rows.row(at - 1)));
        if let Some(at) = falls {
            return Err(Fault::wrong(format!("row {} is out of order", self.rows + at as u64)));
        }
        self.last = Some(rows.row(rows.num_rows() - 1).owned());
        self.rows += rows.num_rows() as u64;
        Ok(())
    }
}
