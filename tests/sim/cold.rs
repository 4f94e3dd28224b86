//! A cold table in the manner of Delta: files that nobody sees, and a log whose entries are created if absent, each one version.

use crate::clockwork::Sim;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use bytes::Bytes;
use datafusion::catalog::{Session, TableProvider};
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;
use flow::{Error, EventTime, Lane, Result};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde::{Deserialize, Serialize};
use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use storage::cold::{ColdFile, ColdTable, ColdVersion, Edit, MoveFile, RemovedFile, is_abandoned, transaction};
use storage::durable::{create_dir_all, write_new};
use storage::view::{ColdView, ColdViews};
use world::{Disk, World};

/// A simulated cold table of one process.
#[derive(Clone)]
pub(crate) struct SimCold {
    pub(crate) sim: Arc<Sim>,
    pub(crate) world: World,
    pub(crate) root: PathBuf,
}

impl fmt::Debug for SimCold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the cold table {}", self.root.display())
    }
}

/// One version: what its log says up to here.
#[derive(Clone)]
pub(crate) struct SimVersion {
    table: SimCold,
    number: u64,
    moved: BTreeMap<String, u64>,
    files: Vec<Named>,
    /// Files that were let go of, and when.
    removed: Vec<(String, i64)>,
}

/// A file as the log names it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Named {
    path: String,
    rows: u64,
    bytes: u64,
    /// The greatest event time.
    max_time: i64,
}

/// An entry of the log.
#[derive(Serialize, Deserialize)]
struct Entry {
    number: u64,
    transactions: BTreeMap<String, u64>,
    added: Vec<Named>,
    removed: Vec<String>,
    now_ms: i64,
}

impl SimCold {
    fn log(&self) -> PathBuf {
        self.root.join("_log")
    }

    async fn trouble(&self, what: &str) -> Result<()> {
        let wait = self.sim.below(30_000);
        self.world.sleep(Duration::from_micros(wait)).await;
        // Half way through what another pass does.
        let late = if self.sim.below(3) == 0 { self.sim.state().late_commits.pop() } else { None };
        if let Some(commit) = late {
            commit();
        }
        if self.sim.fault(self.sim.faults.cold_error) {
            self.sim.note(|| format!("503 on {what}"));
            return Err(Error::new(flow::Remedy::Retry, format!("503 on {what}")));
        }
        Ok(())
    }

    /// The newest version, as far as the log is seen.
    pub(crate) fn read(&self, disk: &dyn Disk) -> io::Result<SimVersion> {
        let mut version = SimVersion { table: self.clone(), number: 0, moved: BTreeMap::new(), files: vec![], removed: vec![] };
        let mut names: Vec<PathBuf> = match disk.list(&self.log()) {
            Ok(entries) => entries.into_iter().map(|e| e.path).filter(|p| p.extension().is_some_and(|e| e == "json")).collect(),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(version),
            Err(e) => return Err(e),
        };
        names.sort();
        for name in names {
            let entry: Entry = serde_json::from_slice(&steady(disk, &name)?).map_err(io::Error::other)?;
            if entry.number != version.number + 1 {
                return Err(io::Error::other(format!("version {} follows {}", entry.number, version.number)));
            }
            version.number = entry.number;
            version.moved.extend(entry.transactions);
            version.files.retain(|file| !entry.removed.contains(&file.path));
            version.files.extend(entry.added);
            version.removed.extend(entry.removed.into_iter().map(|path| (path, entry.now_ms)));
        }
        Ok(version)
    }
}

impl SimCold {
    /// Writes the rows of files as one file.
    async fn put(&self, from: Vec<PathBuf>, name: &str, now_ms: i64) -> Result<Vec<MoveFile>> {
        self.trouble("a put").await?;
        let failed = |e| Error::retry("writing a file of the cold table", e);
        let mut batches = vec![];
        for path in &from {
            let bytes = steady(&*self.world.disk, path).map_err(failed)?;
            batches.extend(decode(bytes).map_err(failed)?);
        }
        let rows: u64 = batches.iter().map(|b| b.num_rows() as u64).sum();
        let times = batches.iter().filter_map(storage::warm::time_range);
        let (min_time, max_time) = times.fold((i64::MAX, i64::MIN), |all, one| (all.0.min(one.0), all.1.max(one.1)));
        let mut bytes = vec![];
        let mut writer = ArrowWriter::try_new(&mut bytes, batches[0].schema(), None).map_err(|e| failed(io::Error::other(e)))?;
        batches.iter().try_for_each(|b| writer.write(b)).map_err(|e| failed(io::Error::other(e)))?;
        writer.close().map_err(|e| failed(io::Error::other(e)))?;
        let path = format!("{name}-0.parquet");
        write_new(&*self.world.disk, &self.root.join(&path), &bytes).map_err(failed)?;
        Ok(vec![MoveFile { path, day: String::new(), rows, bytes: bytes.len() as u64, min_time, max_time, written_ms: now_ms }])
    }
}

#[async_trait]
impl ColdTable for SimCold {
    async fn newest(&self) -> Result<Box<dyn ColdVersion>> {
        self.trouble("reading the log").await?;
        let failed = |e| Error::retry("reading the log", e);
        create_dir_all(&*self.world.disk, &self.log()).map_err(failed)?;
        let version = self.read(&*self.world.disk).map_err(failed)?;
        self.world.disk.sync_dir(&self.log()).map_err(failed)?;
        Ok(Box::new(version))
    }

    async fn write(&self, segments: &[PathBuf], _: &[String], name: &str, now_ms: i64) -> Result<Vec<MoveFile>> {
        self.put(segments.to_vec(), name, now_ms).await
    }

    async fn rewrite(&self, files: &[ColdFile], _: &[String], name: &str, now_ms: i64) -> Result<Vec<MoveFile>> {
        self.sim.event("cold files rewritten");
        self.put(files.iter().map(|file| self.root.join(&file.path)).collect(), name, now_ms).await
    }

    async fn discard(&self, files: &[MoveFile]) {
        for file in files {
            // What cannot be deleted is only space.
            let _ = self.world.disk.remove(&self.root.join(&file.path));
        }
    }

    async fn vacuum(&self, before_ms: i64) -> Result<usize> {
        self.trouble("a delete").await?;
        let failed = |e| Error::retry("deleting old files of the cold table", e);
        let mut gone = 0;
        for (path, at_ms) in self.read(&*self.world.disk).map_err(failed)?.removed {
            let path = self.root.join(path);
            if at_ms < before_ms && self.world.disk.exists(&path).map_err(failed)? {
                self.world.disk.remove(&path).map_err(failed)?;
                self.sim.event("old cold file deleted");
                gone += 1;
            }
        }
        Ok(gone)
    }

    async fn checkpoint(&self) -> Result<bool> {
        Ok(false)
    }

    async fn sweep(&self, incarnation: u64, lanes: &BTreeMap<String, u64>) -> Result<usize> {
        self.trouble("a list").await?;
        let failed = |e| Error::retry("sweeping the cold table", e);
        let version = self.read(&*self.world.disk).map_err(failed)?;
        let known = |name: &String| version.files.iter().any(|f| f.path == *name) || version.removed.iter().any(|(path, _)| path == name);
        let mut gone = 0;
        for entry in self.world.disk.list(&self.root).map_err(failed)? {
            let name = entry.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if !known(&name) && is_abandoned(&name, incarnation, lanes, version.number) {
                self.world.disk.remove(&entry.path).map_err(failed)?;
                gone += 1;
            }
        }
        Ok(gone)
    }
}

#[async_trait]
impl ColdVersion for SimVersion {
    fn number(&self) -> u64 {
        self.number
    }

    async fn moved(&self, app: &str) -> Result<u64> {
        Ok(self.moved.get(app).copied().unwrap_or(0))
    }

    async fn files(&self) -> Result<Vec<ColdFile>> {
        let file = |f: &Named| ColdFile {
            path: f.path.clone(),
            part: String::new(),
            ends: EventTime(f.max_time + 1),
            bytes: f.bytes,
            rows: Some(f.rows),
        };
        Ok(self.files.iter().map(file).collect())
    }

    async fn removed(&self) -> Result<Vec<RemovedFile>> {
        Ok(self.removed.iter().map(|(path, at_ms)| RemovedFile { path: path.clone(), at_ms: *at_ms }).collect())
    }

    async fn commit(&self, edit: &Edit) -> Result<()> {
        self.table.trouble("a commit").await?;
        let named = |f: &MoveFile| Named { path: f.path.clone(), rows: f.rows, bytes: f.bytes, max_time: f.max_time };
        let entry = Entry {
            number: self.number + 1,
            transactions: edit.transactions.clone(),
            added: edit.added.iter().map(named).collect(),
            removed: edit.removed.iter().map(|f| f.path.clone()).collect(),
            now_ms: edit.now_ms,
        };
        let bytes = serde_json::to_vec(&entry).unwrap();
        let path = self.table.log().join(format!("{:020}.json", self.number + 1));
        let disk = self.table.world.disk.clone();
        let sim = &self.table.sim;
        if sim.fault(sim.faults.late_commit) {
            sim.event("late commit");
            let late: Box<dyn FnOnce() + Send> = Box::new(move || _ = write_new(&*disk, &path, &bytes));
            if sim.below(2) == 0 {
                self.table.world.threads.start(late);
            } else {
                sim.state().late_commits.push(late);
            }
            return Err(Error::new(flow::Remedy::Retry, "the commit timed out"));
        }
        write_new(&*disk, &path, &bytes).map_err(|e| Error::retry("the commit", e))
    }
}

/// A file's bytes as two reads agree on them: neither this log nor a Parquet file has checksums, and bits that flip there are not the
/// product's to find.
fn steady(disk: &dyn Disk, path: &Path) -> io::Result<Vec<u8>> {
    let mut before = world::read(disk, path)?;
    loop {
        let again = world::read(disk, path)?;
        if again == before {
            return Ok(again);
        }
        before = again;
    }
}

/// Rows of a Parquet file.
pub(crate) fn decode(bytes: Vec<u8>) -> io::Result<Vec<RecordBatch>> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(bytes)).and_then(|b| b.build()).map_err(io::Error::other)?;
    reader.collect::<std::result::Result<_, _>>().map_err(io::Error::other)
}

/// The cold tables as a view sees them.
pub(crate) struct SimColdViews {
    pub(crate) pipeline: String,
    pub(crate) tables: BTreeMap<String, SimCold>,
    /// Lanes with their chains.
    pub(crate) lanes: Vec<(Lane, String)>,
    /// Versions that were read before: a view may take one that is not the newest.
    pub(crate) recent: Mutex<BTreeMap<String, SimVersion>>,
}

#[async_trait]
impl ColdViews for SimColdViews {
    async fn cold(&self, table: &str, refresh: bool) -> Result<Option<ColdView>> {
        let Some(cold) = self.tables.get(table) else { return Ok(None) };
        // A version whose files are deleted is not read any more: they are kept for longer than a query takes.
        let is_whole =
            |version: &&SimVersion| version.files.iter().all(|f| cold.world.disk.exists(&cold.root.join(&f.path)).unwrap_or(true));
        let known = self.recent.lock().unwrap().get(table).filter(|_| !refresh).filter(is_whole).cloned();
        let version = match known {
            Some(version) => version,
            None => cold.read(&*cold.world.disk).map_err(|e| Error::retry("reading a cold table", e))?,
        };
        self.recent.lock().unwrap().insert(table.to_owned(), version.clone());
        let t = |(lane, chain): &(Lane, String)| {
            let app = transaction(&self.pipeline, table, &lane.0, chain);
            (lane.clone(), version.moved.get(&app).copied().unwrap_or(0))
        };
        let moved = self.lanes.iter().map(t).collect();
        Ok(Some(ColdView {
            provider: Arc::new(Files { root: cold.root.clone(), files: version.files.into_iter().map(|f| f.path).collect() }),
            moved,
            dropped: 0,
        }))
    }
}

/// The files of a version, carried by a view. The oracle reads them itself.
#[derive(Debug)]
pub(crate) struct Files {
    pub(crate) root: PathBuf,
    pub(crate) files: Vec<String>,
}

#[async_trait]
impl TableProvider for Files {
    fn schema(&self) -> SchemaRef {
        Arc::new(arrow::datatypes::Schema::empty())
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _: &dyn Session,
        _: Option<&Vec<usize>>,
        _: &[Expr],
        _: Option<usize>,
    ) -> datafusion::error::Result<Arc<dyn ExecutionPlan>> {
        datafusion::error::Result::Err(datafusion::error::DataFusionError::Internal("the oracle reads files itself".into()))
    }
}

/// Paths of the cold files that a view shows.
pub(crate) fn files_of(view: &ColdView) -> Vec<PathBuf> {
    let provider: &dyn TableProvider = &*view.provider;
    let any: &dyn Any = provider;
    any.downcast_ref::<Files>().map(|f| f.files.iter().map(|name| Path::new(&f.root).join(name)).collect()).unwrap_or_default()
}
