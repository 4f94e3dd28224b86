//! A file's bytes as a version of a lookup table, or the line that is wrong.

use super::{LookupError, LookupFormat, LookupOptions};
use crate::decode::{Message, decoder_with, record_end};
use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::compute::{CastOptions, cast_with_options, concat_batches};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::row::{RowConverter, SortField};
use flow::{LookupShape, LookupVersion, WallTime};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::value::RawValue;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ops::Range;
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;

/// Rows with the line of each; Parquet has none.
struct Lines {
    rows: RecordBatch,
    lines: Option<Vec<u64>>,
}

/// What is wrong, and in which line.
struct Wrong(Option<u64>, String);

/// Reads a whole file. `from` names it in errors.
pub fn parse(shape: &LookupShape, options: &LookupOptions, from: &str, bytes: Vec<u8>) -> Result<LookupVersion, LookupError> {
    let number = xxh3_64(&bytes);
    let rows = rows(shape, options, bytes).map_err(|Wrong(line, message)| LookupError { from: from.to_owned(), line, message })?;
    Ok(LookupVersion { lookup: shape.name.clone(), number, rows })
}

fn rows(shape: &LookupShape, options: &LookupOptions, bytes: Vec<u8>) -> Result<RecordBatch, Wrong> {
    if bytes.len() as u64 > options.max_bytes.0 {
        return Err(Wrong(None, format!("it is larger than max_bytes, {} bytes", options.max_bytes.0)));
    }
    let read = match options.form() {
        Some(LookupFormat::Parquet) => parquet(shape, options, bytes)?,
        Some(form) => text(shape, options, form, &bytes)?,
        None => return Err(Wrong(None, "its ending does not say what it is".into())),
    };
    let count = read.rows.num_rows() as u64;
    if count > options.max_rows {
        return Err(Wrong(None, format!("it has {count} rows, max_rows is {}", options.max_rows)));
    }
    check(shape, &read)?;
    Ok(read.rows)
}

/// No null and nothing twice in what finds a row.
fn check(shape: &LookupShape, read: &Lines) -> Result<(), Wrong> {
    let line = |row: usize| read.lines.as_ref().map(|lines| lines[row]);
    let place = |row: usize| line(row).map_or_else(|| format!("row {}", row + 1), |line| format!("line {line}"));
    let names: Vec<&String> = shape.key.iter().chain(&shape.valid_from).collect();
    let columns: Vec<ArrayRef> = names.iter().map(|n| column(&read.rows, n)).collect::<Result<_, _>>()?;
    for (name, column) in names.iter().zip(&columns) {
        if let Some(row) = (0..column.len()).find(|row| column.is_null(*row)) {
            return Err(Wrong(line(row), format!("`{name}` of {} is missing", place(row))));
        }
    }
    let failed = |e: arrow::error::ArrowError| Wrong(None, e.to_string());
    let fields = columns.iter().map(|c| SortField::new(c.data_type().clone())).collect();
    let keys = RowConverter::new(fields).and_then(|c| c.convert_columns(&columns)).map_err(failed)?;
    let mut first = HashMap::with_capacity(keys.num_rows());
    for (row, key) in keys.iter().enumerate() {
        match first.entry(key) {
            Entry::Occupied(other) => {
                let what = names.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ");
                let hint = if shape.valid_from.is_none() { "; rows with a time each need `valid_from`" } else { "" };
                return Err(Wrong(line(row), format!("{} has the same {what} as {}{hint}", place(row), place(*other.get()))));
            }
            Entry::Vacant(free) => {
                free.insert(row);
            }
        }
    }
    Ok(())
}

fn column(rows: &RecordBatch, name: &str) -> Result<ArrayRef, Wrong> {
    rows.column_by_name(name).cloned().ok_or_else(|| Wrong(None, format!("it has no column `{name}`")))
}

/// CSV and JSON, by the decoders of the sources.
fn text(shape: &LookupShape, options: &LookupOptions, form: LookupFormat, bytes: &[u8]) -> Result<Lines, Wrong> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let failed = |e: crate::decode::OptionError| Wrong(None, e.message);
    let mut decoder = decoder_with(&options.decode(), &options.columns, &[], &options.key, &options.csv).map_err(failed)?;
    let mut records = match form {
        LookupFormat::Csv => records(bytes, |rest| record_end(rest, options.csv.delimiter as u8)),
        _ if bytes.trim_ascii_start().starts_with(b"[") => elements(bytes)?,
        _ => records(bytes, |rest| rest.iter().position(|b| *b == b'\n').map(|at| at + 1)),
    };
    if form == LookupFormat::Csv && options.csv.header {
        let header =
            if records.is_empty() { return Err(Wrong(None, "it is empty: a header is expected".into())) } else { records.remove(0) };
        decoder.begin(&bytes[header.1]).map_err(|e| Wrong(Some(header.0), e.message))?;
    }
    let messages: Vec<_> = records.iter().map(|(_, at)| Message { topic: None, captures: &[], payload: &bytes[at.clone()] }).collect();
    let decoded = decoder.decode(&messages, WallTime(0));
    let line = |message: &u32| records[*message as usize].0;
    if let Some(reject) = decoded.rejects.first() {
        return Err(Wrong(Some(line(&reject.message)), reject.detail.clone()));
    }
    let columns = decoded.rows.columns()[..shape.schema.fields().len()].to_vec();
    Ok(Lines { rows: batch(&shape.schema, columns)?, lines: Some(decoded.messages.iter().map(line).collect()) })
}

/// The records that are not blank, each with the line it begins in.
fn records(bytes: &[u8], end: impl Fn(&[u8]) -> Option<usize>) -> Vec<(u64, Range<usize>)> {
    let (mut found, mut at, mut line) = (vec![], 0, 1);
    while at < bytes.len() {
        let next = at + end(&bytes[at..]).unwrap_or(bytes.len() - at);
        let record = &bytes[at..next];
        let kept = record.strip_suffix(b"\n").unwrap_or(record);
        let kept = kept.strip_suffix(b"\r").unwrap_or(kept).len();
        if !record.trim_ascii().is_empty() {
            found.push((line, at..at + kept));
        }
        line += lines(record);
        at = next;
    }
    found
}

/// The elements of a JSON array, each with the line it begins in.
fn elements(bytes: &[u8]) -> Result<Vec<(u64, Range<usize>)>, Wrong> {
    let list: Vec<&RawValue> = serde_json::from_slice(bytes).map_err(|e| Wrong(Some(e.line() as u64), e.to_string()))?;
    let (mut found, mut at, mut line) = (Vec::with_capacity(list.len()), 0, 1);
    for element in list {
        let start = element.get().as_ptr() as usize - bytes.as_ptr() as usize;
        line += lines(&bytes[at..start]);
        at = start;
        found.push((line, start..start + element.get().len()));
    }
    Ok(found)
}

fn lines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|b| **b == b'\n').count() as u64
}

fn parquet(shape: &LookupShape, options: &LookupOptions, bytes: Vec<u8>) -> Result<Lines, Wrong> {
    let failed = |e: parquet::errors::ParquetError| Wrong(None, e.to_string());
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(bytes)).map_err(failed)?;
    // A small file may unpack to anything, so the rows are counted before.
    let count = builder.metadata().file_metadata().num_rows();
    if count as u64 > options.max_rows {
        return Err(Wrong(None, format!("it has {count} rows, max_rows is {}", options.max_rows)));
    }
    let named = |name: &str| options.columns.get(name).and_then(|c| c.path.clone()).unwrap_or_else(|| name.to_owned());
    let wanted: Vec<String> = shape.schema.fields().iter().map(|f| named(f.name())).collect();
    let mask = ProjectionMask::columns(builder.parquet_schema(), wanted.iter().map(String::as_str));
    let all = builder.schema().clone();
    let read = builder.with_projection(mask).build().map_err(failed)?;
    let batches = read.collect::<Result<Vec<_>, _>>().map_err(|e| Wrong(None, e.to_string()))?;
    if let Some(missing) = wanted.iter().find(|name| all.index_of(name).is_err()) {
        return Err(Wrong(None, format!("it has no column `{missing}`")));
    }
    let schema = batches.first().map_or_else(|| shape.schema.clone(), RecordBatch::schema);
    let whole = concat_batches(&schema, &batches).map_err(|e| Wrong(None, e.to_string()))?;
    if batches.is_empty() {
        return Ok(Lines { rows: whole, lines: None });
    }
    let held = whole.get_array_memory_size() as u64;
    if held > UNPACKED * options.max_bytes.0 {
        return Err(Wrong(None, format!("it unpacks to {held} bytes, more than {UNPACKED} times max_bytes")));
    }
    let cast = |(field, name): (&Arc<arrow::datatypes::Field>, &String)| as_type(&column(&whole, name)?, name, field.data_type());
    let columns = shape.schema.fields().iter().zip(&wanted).map(cast).collect::<Result<_, _>>()?;
    Ok(Lines { rows: batch(&shape.schema, columns)?, lines: None })
}

/// Parquet may take this much less room than its columns do in memory.
const UNPACKED: u64 = 4;

/// A value that does not fit is refused, not made null.
fn as_type(column: &ArrayRef, name: &str, of: &DataType) -> Result<ArrayRef, Wrong> {
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(column, of, &strict).map_err(|e| Wrong(None, format!("column `{name}` as {of}: {e}")))
}

/// The key's columns are declared without nulls, which is checked later, with the line.
fn batch(schema: &SchemaRef, columns: Vec<ArrayRef>) -> Result<RecordBatch, Wrong> {
    for (field, column) in schema.fields().iter().zip(&columns) {
        if let Some(row) = (0..column.len()).find(|row| !field.is_nullable() && column.is_null(*row)) {
            return Err(Wrong(None, format!("`{}` of row {} is missing", field.name(), row + 1)));
        }
    }
    RecordBatch::try_new(schema.clone(), columns).map_err(|e| Wrong(None, e.to_string()))
}
