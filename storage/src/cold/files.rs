//! The Parquet files of a cold table: rows sorted by (day, key, event time), one file a day or more.

use super::layout::properties;
use super::sort::{From, sorted};
use super::table::{Cold, DAY};
use arrow::array::{AsArray, RecordBatch};
use arrow::compute::partition;
use arrow::datatypes::{Date32Type, SchemaRef, TimestampMicrosecondType};
use flow::{EVENT_TIME, Error, Result};
use futures::StreamExt;
use object_store::ObjectStoreExt;
use object_store::buffered::BufWriter;
use object_store::path::Path;
use parquet::arrow::AsyncArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::file::FOOTER_SIZE;
use parquet::file::metadata::{FooterTail, ParquetMetaDataReader};
use std::path::PathBuf;
use world::{Point, reach};

/// A durable Parquet file that no commit names yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MoveFile {
    /// Path below the table's root, `day=…/<name>-<n>.parquet`.
    pub path: String,
    /// The day, `YYYY-MM-DD`.
    pub day: String,
    /// Rows inside.
    pub rows: u64,
    /// Length in bytes.
    pub bytes: u64,
    /// Least event time, microseconds.
    pub min_time: i64,
    /// Greatest event time, microseconds.
    pub max_time: i64,
    /// When it was written, milliseconds since 1970.
    pub written_ms: i64,
}

impl MoveFile {
    /// Delta's statistics. Times are cut to milliseconds as the protocol wants, outward, so that no reader skips a row.
    pub(super) fn statistics(&self) -> String {
        let text = |ms: i64| chrono::DateTime::from_timestamp_millis(ms).map(|t| t.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string());
        let (min, max) = (text(self.min_time.div_euclid(1_000)), text(self.max_time.div_euclid(1_000) + 1));
        serde_json::json!({
            "numRecords": self.rows,
            "minValues": { EVENT_TIME: min },
            "maxValues": { EVENT_TIME: max },
            "nullCount": { EVENT_TIME: 0 },
        })
        .to_string()
    }
}

/// Writes the rows of `segments` (paths of Parquet files) as files of the cold table, durable; nothing names them yet.
pub async fn write_files(cold: &Cold, segments: &[PathBuf], key: &[String], name: &str, now_ms: i64) -> Result<Vec<MoveFile>> {
    write(cold, From::Segments(segments), key, name, now_ms).await
}

/// Writes the rows of files of the cold table anew, as fewer ones.
pub(super) async fn rewrite_files(cold: &Cold, files: &[String], key: &[String], name: &str, now_ms: i64) -> Result<Vec<MoveFile>> {
    write(cold, From::Cold(files), key, name, now_ms).await
}

async fn write(cold: &Cold, from: From<'_>, key: &[String], name: &str, now_ms: i64) -> Result<Vec<MoveFile>> {
    let failed = |e| Error::retry(format!("sorting rows for {}", cold.place()), e);
    let mut rows = sorted(cold, from, key).await?;
    let mut writer = Days { cold, key, name, now_ms, open: None, done: vec![] };
    while let Some(batch) = rows.next().await {
        writer.write(&batch.map_err(failed)?).await?;
    }
    writer.finish_file().await?;
    for file in &writer.done {
        verify(cold, file).await?;
    }
    Ok(writer.done)
}

type Writer = AsyncArrowWriter<BufWriter>;

/// Cuts a sorted stream into files of one day each.
struct Days<'a> {
    cold: &'a Cold,
    key: &'a [String],
    name: &'a str,
    now_ms: i64,
    open: Option<(MoveFile, Writer)>,
    done: Vec<MoveFile>,
}

impl Days<'_> {
    async fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let day = batch.num_columns() - 1;
        let ranges = partition(&batch.columns()[day..]).map_err(|e| Error::stop("cutting rows into days", e))?.ranges();
        for range in ranges {
            let part = batch.slice(range.start, range.len());
            let of = part.column(day).as_primitive::<Date32Type>().value(0);
            let of = Date32Type::to_naive_date_opt(of).map_or_else(|| of.to_string(), |d| d.to_string());
            let rows = part.project(&(0..day).collect::<Vec<_>>()).map_err(|e| Error::stop("leaving out the day", e))?;
            self.write_day(of, &rows).await?;
        }
        Ok(())
    }

    async fn write_day(&mut self, day: String, rows: &RecordBatch) -> Result<()> {
        let full = |(file, writer): &(MoveFile, Writer)| {
            file.day != day || (writer.bytes_written() + writer.in_progress_size()) as u64 > self.cold.file_size()
        };
        if self.open.as_ref().is_some_and(full) {
            self.finish_file().await?;
        }
        if self.open.is_none() {
            self.open = Some(self.begin(day, rows.schema())?);
        }
        let (file, writer) = self.open.as_mut().expect("a file was begun above");
        let times = rows.column_by_name(EVENT_TIME).expect("every table has an event time").as_primitive::<TimestampMicrosecondType>();
        file.rows += rows.num_rows() as u64;
        file.min_time = times.values().iter().copied().fold(file.min_time, i64::min);
        file.max_time = times.values().iter().copied().fold(file.max_time, i64::max);
        writer.write(rows).await.map_err(|e| Error::retry(format!("writing {}", file.path), e))
    }

    fn begin(&self, day: String, schema: SchemaRef) -> Result<(MoveFile, Writer)> {
        let path = format!("{DAY}={day}/{}-{}.parquet", self.name, self.done.len());
        let out = BufWriter::new(self.cold.place().store().clone(), Path::from(path.as_str()));
        let options = ArrowWriterOptions::new().with_properties(properties(&schema, self.key)).with_skip_arrow_metadata(true);
        let writer = Writer::try_new_with_options(out, schema, options).map_err(|e| Error::stop(format!("beginning {path}"), e))?;
        let file = MoveFile { path, day, rows: 0, bytes: 0, min_time: i64::MAX, max_time: i64::MIN, written_ms: self.now_ms };
        Ok((file, writer))
    }

    async fn finish_file(&mut self) -> Result<()> {
        let Some((mut file, writer)) = self.open.take() else { return Ok(()) };
        reach(Point::MoveFileWritten);
        writer.close().await.map_err(|e| Error::retry(format!("ending {}", file.path), e))?;
        reach(Point::MoveFileForced);
        let there = self.cold.place().store().head(&Path::from(file.path.as_str())).await;
        file.bytes = there.map_err(|e| Error::retry(format!("the size of {}", file.path), e))?.size;
        self.done.push(file);
        Ok(())
    }
}

/// Reads a written file's footer again: the rows it counts must be those that went in.
async fn verify(cold: &Cold, file: &MoveFile) -> Result<()> {
    let wrong = |what: String| Error::new(flow::Remedy::Retry, format!("{} in {}: {what}", file.path, cold.place()));
    let rows = footer_rows(cold, file).await.map_err(|e| wrong(e.to_string()))?;
    if rows as u64 == file.rows { Ok(()) } else { Err(wrong(format!("{rows} rows in the footer, {} written", file.rows))) }
}

/// The footer is at the end: its bytes, their length, a magic word.
async fn footer_rows(cold: &Cold, file: &MoveFile) -> parquet::errors::Result<i64> {
    let (store, at) = (cold.place().store(), Path::from(file.path.as_str()));
    let end = file.bytes.saturating_sub(FOOTER_SIZE as u64);
    let tail = FooterTail::try_from(&store.get_range(&at, end..file.bytes).await?[..])?;
    let bytes = store.get_range(&at, end.saturating_sub(tail.metadata_length() as u64)..end).await?;
    Ok(ParquetMetaDataReader::decode_metadata(&bytes)?.file_metadata().num_rows())
}
