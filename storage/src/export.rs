//! Writes rows as a table of its own: plain Parquet files, or a fresh Delta table with the layout of cold.
//!
//! Everything is written into a folder beside the target and gets its name at the end, so that nobody ever sees a part of it. Rows are
//! sorted by (day, key, event time) with bounded memory, a file is of one day in a Delta table, and each file's footer is read again.

use crate::cold::{Cold, Edit, MoveFile};
use crate::durable::create_dir_all;
use crate::last::LastRows;
use crate::options::{ColdOptions, TableSpec};
use crate::view::View;
use arrow::array::{AsArray, RecordBatch};
use arrow::compute::partition;
use arrow::datatypes::{DataType, Date32Type};
use datafusion::common::Column;
use datafusion::execution::context::SQLOptions;
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::logical_expr::SortExpr;
use datafusion::prelude::{DataFrame, Expr, SessionConfig, SessionContext, cast, col, ident};
use flow::{EVENT_TIME, Error, Remedy, Result};
use futures::StreamExt;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::file::reader::{FileReader, SerializedFileReader};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use world::LocalDisk;

/// Memory of an export; its sort writes more to temporary files.
const MEMORY: usize = 256 << 20;
/// A file is ended at about this size.
const FILE_BYTES: usize = 256 << 20;
/// The column that rows are cut into days by; it is a folder's name in a Delta table and in no file.
const DAY: &str = "day";

/// What is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Parquet files in one folder.
    Parquet,
    /// A Delta table.
    Delta,
}

/// What was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exported {
    /// Files.
    pub files: u64,
    /// Rows in them.
    pub rows: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// All rows of the table in a view, or those for which an SQL condition is true. `functions` adds what the condition may call.
pub async fn rows(spec: &TableSpec, view: View, condition: Option<&str>, functions: fn(&SessionContext)) -> Result<DataFrame> {
    let failed = |e| Error::stop("a session for an export", e);
    let runtime = RuntimeEnvBuilder::new().with_memory_pool(Arc::new(FairSpillPool::new(MEMORY))).build_arc().map_err(failed)?;
    let session = SessionContext::new_with_config_rt(SessionConfig::new(), runtime);
    crate::catalog::register(&session, std::slice::from_ref(spec), &Arc::new(view), &LastRows::default()).map_err(failed)?;
    functions(&session);
    let name = spec.name.replace('"', "\"\"");
    let filter = condition.map(|condition| format!(" WHERE ({condition})")).unwrap_or_default();
    let options = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    let sql = format!("SELECT * FROM \"{name}\"{filter}");
    session.sql_with_options(&sql, options).await.map_err(|e| Error::stop(format!("the statement {sql}"), e))
}

/// Writes `rows`, which have the columns of the table, as the folder `to`: absent or empty before, whole afterwards.
pub async fn export(rows: DataFrame, spec: &TableSpec, form: Form, to: &Path, now_ms: i64) -> Result<Exported> {
    let to = std::path::absolute(to).map_err(|e| Error::stop(format!("the path {}", to.display()), e))?;
    refuse_full(&to)?;
    let expected = rows.clone().count().await.map_err(|e| Error::stop("counting the rows of an export", e))? as u64;
    let above = to.parent().ok_or_else(|| Error::new(Remedy::Stop, format!("{} has no folder above it", to.display())))?;
    create_dir_all(&LocalDisk, above).map_err(|e| Error::stop(format!("making {}", above.display()), e))?;
    let aside = tempfile::Builder::new().prefix(".tidegate-export-").tempdir_in(above);
    let aside = aside.map_err(|e| Error::stop(format!("making a folder in {}", above.display()), e))?;
    let options = ColdOptions::at(aside.path().to_string_lossy().into_owned());
    let cold = Cold::new(&options, &spec.name, spec.schema.clone());
    let root = aside.path().join(&spec.name);
    create_dir_all(&LocalDisk, &root).map_err(|e| Error::stop(format!("making {}", root.display()), e))?;
    let types = match form {
        Form::Delta => cold.as_ref().map_err(|e| Error::new(Remedy::Stop, e.to_string()))?.stored()?,
        Form::Parquet => spec.schema.fields().iter().map(|f| (f.name().clone(), plain(f.data_type()))).collect(),
    };
    let mut files = Files { root: &root, form, spec, now_ms, open: None, done: vec![] };
    files.write_all(sorted(rows, types, &spec.key)?).await?;
    let sum = |of: fn(&MoveFile) -> u64| files.done.iter().map(of).sum();
    let made = Exported { files: files.done.len() as u64, rows: sum(|f| f.rows), bytes: sum(|f| f.bytes) };
    if made.rows != expected {
        return Err(Error::new(
            Remedy::Stop,
            format!("{} rows were written, {expected} were counted before: nothing is exported", made.rows),
        ));
    }
    if form == Form::Delta {
        let cold = cold?;
        let snapshot = cold.snapshot_or_create().await?;
        cold.commit(&snapshot, &Edit { added: std::mem::take(&mut files.done), now_ms, ..Edit::default() }).await?;
    }
    give_name(&root, &to, above).map_err(|e| Error::stop(format!("giving the export its name {}", to.display()), e))?;
    Ok(made)
}

fn refuse_full(to: &Path) -> Result<()> {
    let full = match std::fs::read_dir(to) {
        Ok(mut entries) => entries.next().is_some(),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => false,
        Err(e) => return Err(Error::stop(format!("looking into {}", to.display()), e)),
    };
    match full {
        true => Err(Error::new(Remedy::Stop, format!("{} is not empty: an export makes a folder of its own", to.display()))),
        false => Ok(()),
    }
}

/// Others' readers know no views.
fn plain(of: &DataType) -> DataType {
    match of {
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        other => other.clone(),
    }
}

fn sorted(rows: DataFrame, types: Vec<(String, DataType)>, key: &[String]) -> Result<DataFrame> {
    let mut columns: Vec<Expr> = types.into_iter().map(|(name, of)| cast(ident(&name), of).alias(name)).collect();
    columns.push(cast(ident(EVENT_TIME), DataType::Date32).alias(DAY));
    let order = std::iter::once(DAY).chain(key.iter().map(String::as_str)).chain([EVENT_TIME]);
    let order: Vec<SortExpr> = order.map(|c| col(Column::from_name(c)).sort(true, true)).collect();
    rows.select(columns).and_then(|rows| rows.sort(order)).map_err(|e| Error::stop("sorting the rows of an export", e))
}

/// The last step: an empty folder of that name gives way.
fn give_name(root: &Path, to: &Path, above: &Path) -> std::io::Result<()> {
    if to.exists() {
        std::fs::remove_dir(to)?;
    }
    std::fs::rename(root, to)?;
    File::open(above)?.sync_all()
}

/// A sorted stream cut into files.
struct Files<'a> {
    root: &'a Path,
    form: Form,
    spec: &'a TableSpec,
    now_ms: i64,
    open: Option<(MoveFile, ArrowWriter<File>)>,
    done: Vec<MoveFile>,
}

impl Files<'_> {
    async fn write_all(&mut self, rows: DataFrame) -> Result<()> {
        let failed = |e| Error::stop("reading the rows of an export", e);
        let mut rows = rows.execute_stream().await.map_err(failed)?;
        while let Some(batch) = rows.next().await {
            self.write(&batch.map_err(failed)?)?;
        }
        self.finish_file()
    }

    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let last = batch.num_columns() - 1;
        let ranges = partition(&batch.columns()[last..]).map_err(|e| Error::stop("cutting rows into days", e))?.ranges();
        for range in ranges {
            let part = batch.slice(range.start, range.len());
            let day = part.column(last).as_primitive::<Date32Type>().value(0);
            let day = Date32Type::to_naive_date_opt(day).map_or_else(|| day.to_string(), |day| day.to_string());
            let rows = part.project(&(0..last).collect::<Vec<_>>()).map_err(|e| Error::stop("leaving out the day", e))?;
            self.write_day(day, &rows)?;
        }
        Ok(())
    }

    fn write_day(&mut self, day: String, rows: &RecordBatch) -> Result<()> {
        let is_full = |(file, writer): &(MoveFile, ArrowWriter<File>)| {
            (self.form == Form::Delta && file.day != day) || writer.bytes_written() + writer.in_progress_size() > FILE_BYTES
        };
        if self.open.as_ref().is_some_and(is_full) {
            self.finish_file()?;
        }
        if self.open.is_none() {
            self.open = Some(self.begin(day, rows)?);
        }
        let (file, writer) = self.open.as_mut().expect("a file was begun above");
        file.rows += rows.num_rows() as u64;
        if let Some((least, greatest)) = crate::warm::time_range(rows) {
            file.min_time = file.min_time.min(least);
            file.max_time = file.max_time.max(greatest);
        }
        writer.write(rows).map_err(|e| Error::stop(format!("writing {}", file.path), e))
    }

    fn begin(&self, day: String, rows: &RecordBatch) -> Result<(MoveFile, ArrowWriter<File>)> {
        let name = format!("part-{:05}.parquet", self.done.len());
        let path = if self.form == Form::Delta { format!("{DAY}={day}/{name}") } else { name };
        let at = self.root.join(&path);
        let open = || {
            create_dir_all(&LocalDisk, at.parent().unwrap_or(self.root))?;
            File::create_new(&at)
        };
        let out = open().map_err(|e| Error::stop(format!("making {}", at.display()), e))?;
        let properties = crate::cold::properties(&rows.schema(), &self.spec.key);
        let options = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
        let writer = ArrowWriter::try_new_with_options(out, rows.schema(), options);
        let writer = writer.map_err(|e| Error::stop(format!("beginning {}", at.display()), e))?;
        let file = MoveFile { path, day, rows: 0, bytes: 0, min_time: i64::MAX, max_time: i64::MIN, written_ms: self.now_ms };
        Ok((file, writer))
    }

    fn finish_file(&mut self) -> Result<()> {
        let Some((mut file, writer)) = self.open.take() else { return Ok(()) };
        let at: PathBuf = self.root.join(&file.path);
        let out = writer.into_inner().map_err(|e| Error::stop(format!("ending {}", at.display()), e))?;
        let forced = out.sync_all().and_then(|()| File::open(at.parent().unwrap_or(self.root))?.sync_all()).and_then(|()| out.metadata());
        file.bytes = forced.map_err(|e| Error::stop(format!("fsync of {}", at.display()), e))?.len();
        check_footer(&at, &file)?;
        self.done.push(file);
        Ok(())
    }
}

/// Reads the file's footer again: it must count the rows that went in.
fn check_footer(at: &Path, file: &MoveFile) -> Result<()> {
    let wrong = |what: String| Error::new(Remedy::Stop, format!("{}: {what}", at.display()));
    let open = File::open(at).map_err(|e| wrong(e.to_string()))?;
    let rows = SerializedFileReader::new(open).map_err(|e| wrong(e.to_string()))?.metadata().file_metadata().num_rows();
    if rows as u64 == file.rows { Ok(()) } else { Err(wrong(format!("{rows} rows in the footer, {} written", file.rows))) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{readings, spec};
    use datafusion::prelude::ParquetReadOptions;

    const HOUR: i64 = 3_600_000_000;

    async fn rows(context: &SessionContext) -> DataFrame {
        let rows = readings(&[("b", 30 * HOUR, 1.5), ("a", 1, 2.5), ("b", 2, 3.5), ("a", 31 * HOUR, 4.5)]);
        context.read_batch(rows).unwrap()
    }

    #[tokio::test]
    async fn both_forms_hold_every_row_and_appear_whole() {
        let (folder, context) = (tempfile::tempdir().unwrap(), SessionContext::new());
        for (form, files) in [(Form::Parquet, 1), (Form::Delta, 2)] {
            let to = folder.path().join(format!("{form:?}"));
            let made = export(rows(&context).await, &spec(), form, &to, 0).await.unwrap();
            assert_eq!((made.files, made.rows), (files, 4));
            let read = context.read_parquet(to.to_str().unwrap(), ParquetReadOptions::default()).await.unwrap();
            assert_eq!(read.count().await.unwrap(), 4);
            let refused = export(rows(&context).await, &spec(), form, &to, 0).await.unwrap_err();
            assert!(refused.to_string().contains("not empty"), "{refused}");
        }
        let cold = Cold::new(&ColdOptions::at(folder.path().to_str().unwrap().into()), "Delta", spec().schema).unwrap();
        let mut named = cold.snapshot().await.unwrap().unwrap().named().unwrap();
        named.sort_by_key(|f| f.day);
        assert_eq!(named.iter().map(|f| (f.rows, f.day)).collect::<Vec<_>>(), [(Some(2), Some(0)), (Some(2), Some(1))]);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "nothing else stays");
    }

    #[tokio::test]
    async fn no_rows_are_a_table_too() {
        let (folder, context) = (tempfile::tempdir().unwrap(), SessionContext::new());
        let none = context.read_batch(readings(&[])).unwrap();
        let to = folder.path().join("t");
        std::fs::create_dir(&to).unwrap();
        assert_eq!(export(none, &spec(), Form::Delta, &to, 0).await.unwrap(), Exported::default());
        assert!(to.join("_delta_log").exists());
    }
}
