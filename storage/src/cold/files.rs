//! The Parquet files of a move: all marked segments, sorted by (day, key, event time), one file a day or more.

use super::store::sync_directories;
use super::table::{Cold, DAY};
use crate::encoding::encoded;
use arrow::array::{AsArray, RecordBatch};
use arrow::compute::partition;
use arrow::datatypes::{Date32Type, Schema, SchemaRef, TimestampMicrosecondType};
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::logical_expr::SortExpr;
use datafusion::prelude::{DataFrame, Expr, ParquetReadOptions, SessionConfig, SessionContext, cast, col, ident};
use flow::{EVENT_TIME, Error, Result};
use futures::StreamExt;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::SortingColumn;
use parquet::file::properties::WriterProperties;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::schema::types::ColumnPath;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use world::{Point, reach};

/// Memory of the sort; more goes to temporary files.
const SORT_MEMORY: usize = 256 << 20;
/// A file is ended at about this size.
const FILE_BYTES: usize = 256 << 20;
/// Rows of a row group: small enough to skip, large enough to compress.
const ROW_GROUP_ROWS: usize = 128 << 10;

/// A durable Parquet file of a move that no commit names yet.
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

/// Writes the rows of `segments` (paths of Parquet files) as files of the cold table, fsynced; nothing names them yet.
pub async fn write_files(cold: &Cold, segments: &[PathBuf], key: &[String], name: &str, now_ms: i64) -> Result<Vec<MoveFile>> {
    let failed = |e| Error::retry(format!("sorting segments for {}", cold.root().display()), e);
    let mut rows = sorted(cold, segments, key).await?.execute_stream().await.map_err(failed)?;
    let mut writer = Days { cold, key, name, now_ms, open: None, done: vec![] };
    while let Some(batch) = rows.next().await {
        writer.write(&batch.map_err(failed)?)?;
    }
    writer.finish_file()?;
    writer.done.iter().try_for_each(|file| verify(cold, file))?;
    Ok(writer.done)
}

async fn sorted(cold: &Cold, segments: &[PathBuf], key: &[String]) -> Result<DataFrame> {
    let failed = |e| Error::retry(format!("reading segments for {}", cold.root().display()), e);
    let runtime = RuntimeEnvBuilder::new().with_memory_pool(Arc::new(FairSpillPool::new(SORT_MEMORY))).build_arc().map_err(failed)?;
    let context = SessionContext::new_with_config_rt(SessionConfig::new().with_target_partitions(1), runtime);
    let paths: Vec<String> = segments.iter().map(|p| p.display().to_string()).collect();
    let rows = context.read_parquet(paths, ParquetReadOptions::default()).await.map_err(failed)?;
    let mut columns: Vec<Expr> = cold.stored()?.into_iter().map(|(name, of)| cast(ident(&name), of).alias(name)).collect();
    columns.push(cast(ident(EVENT_TIME), arrow::datatypes::DataType::Date32).alias(DAY));
    let order = std::iter::once(DAY).chain(key.iter().map(String::as_str)).chain([EVENT_TIME]);
    let order: Vec<SortExpr> = order.map(|c| col(datafusion::common::Column::from_name(c)).sort(true, true)).collect();
    rows.select(columns).and_then(|d| d.sort(order)).map_err(failed)
}

/// Cuts a sorted stream into files of one day each.
struct Days<'a> {
    cold: &'a Cold,
    key: &'a [String],
    name: &'a str,
    now_ms: i64,
    open: Option<(MoveFile, ArrowWriter<File>)>,
    done: Vec<MoveFile>,
}

impl Days<'_> {
    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let day = batch.num_columns() - 1;
        let ranges = partition(&batch.columns()[day..]).map_err(|e| Error::stop("cutting rows into days", e))?.ranges();
        for range in ranges {
            let part = batch.slice(range.start, range.len());
            let of = part.column(day).as_primitive::<Date32Type>().value(0);
            let of = Date32Type::to_naive_date_opt(of).map_or_else(|| of.to_string(), |d| d.to_string());
            let rows = part.project(&(0..day).collect::<Vec<_>>()).map_err(|e| Error::stop("leaving out the day", e))?;
            self.write_day(of, &rows)?;
        }
        Ok(())
    }

    fn write_day(&mut self, day: String, rows: &RecordBatch) -> Result<()> {
        let full = |(file, writer): &(MoveFile, ArrowWriter<File>)| {
            file.day != day || writer.bytes_written() + writer.in_progress_size() > FILE_BYTES
        };
        if self.open.as_ref().is_some_and(full) {
            self.finish_file()?;
        }
        if self.open.is_none() {
            self.open = Some(self.begin(day, rows.schema())?);
        }
        let (file, writer) = self.open.as_mut().expect("a file was begun above");
        let times = rows.column_by_name(EVENT_TIME).expect("every table has an event time").as_primitive::<TimestampMicrosecondType>();
        file.rows += rows.num_rows() as u64;
        file.min_time = times.values().iter().copied().fold(file.min_time, i64::min);
        file.max_time = times.values().iter().copied().fold(file.max_time, i64::max);
        writer.write(rows).map_err(|e| Error::retry(format!("writing {}", file.path), e))
    }

    fn begin(&self, day: String, schema: SchemaRef) -> Result<(MoveFile, ArrowWriter<File>)> {
        let path = format!("{DAY}={day}/{}-{}.parquet", self.name, self.done.len());
        let at = self.cold.root().join(&path);
        let open = || {
            std::fs::create_dir_all(at.parent().unwrap_or(self.cold.root()))?;
            File::create(&at)
        };
        let out = open().map_err(|e| Error::retry(format!("making {}", at.display()), e))?;
        let options = ArrowWriterOptions::new().with_properties(properties(&schema, self.key)).with_skip_arrow_metadata(true);
        let writer = ArrowWriter::try_new_with_options(out, schema, options).map_err(|e| Error::stop(format!("beginning {path}"), e))?;
        let file = MoveFile { path, day, rows: 0, bytes: 0, min_time: i64::MAX, max_time: i64::MIN, written_ms: self.now_ms };
        Ok((file, writer))
    }

    fn finish_file(&mut self) -> Result<()> {
        let Some((mut file, writer)) = self.open.take() else { return Ok(()) };
        let at = self.cold.root().join(&file.path);
        let out = writer.into_inner().map_err(|e| Error::retry(format!("ending {}", file.path), e))?;
        reach(Point::MoveFileWritten);
        let sync = || {
            out.sync_all()?;
            sync_directories(at.parent().unwrap_or(self.cold.root()))?;
            Ok::<_, std::io::Error>(out.metadata()?.len())
        };
        file.bytes = sync().map_err(|e| Error::retry(format!("fsync of {}", at.display()), e))?;
        reach(Point::MoveFileForced);
        self.done.push(file);
        Ok(())
    }
}

/// Reads a written file's footer again: the rows it counts must be those that went in.
fn verify(cold: &Cold, file: &MoveFile) -> Result<()> {
    let at = cold.root().join(&file.path);
    let wrong = |what: String| Error::new(flow::Remedy::Retry, format!("{}: {what}", at.display()));
    let open = File::open(&at).map_err(|e| wrong(e.to_string()))?;
    let rows = SerializedFileReader::new(open).map_err(|e| wrong(e.to_string()))?.metadata().file_metadata().num_rows();
    if rows as u64 == file.rows { Ok(()) } else { Err(wrong(format!("{rows} rows in the footer, {} written", file.rows))) }
}

/// The layout: zstd 3, row groups of 128 Ki rows, deltas for whole numbers and times, a bloom filter on the key.
pub(crate) fn properties(schema: &Schema, key: &[String]) -> WriterProperties {
    let level = ZstdLevel::try_new(3).expect("zstd has a level 3");
    let order = key.iter().map(String::as_str).chain([EVENT_TIME]).filter_map(|c| schema.index_of(c).ok());
    let sorting = order.map(|i| SortingColumn { column_idx: i as i32, descending: false, nulls_first: true }).collect();
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(level))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_sorting_columns(Some(sorting));
    if let Some(key) = key.first() {
        properties = properties.set_column_bloom_filter_enabled(ColumnPath::from(key.as_str()), true);
    }
    encoded(schema, properties).build()
}
