//! Lookup tables of a running pipeline: read at the start and when they change, kept, and given to every lane.
//!
//! Lanes of the journal get a version as a frame, those of files as an event whose epoch is sealed before anything else is read. The newest
//! good version also lies in `data_dir/lookups/<name>.arrow`: a start finds it where the table's own file is gone or broken.

use crate::plan::{Plan, PlannedLookup};
use crate::run::close::{is_out_of_room, wait_for_room};
use crate::run::driver::Command;
use arrow::datatypes::Schema;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use arrow::record_batch::RecordBatch;
use flow::{Error, LookupVersion, Metric, Remedy, Result};
use ingest::journal::{Body, Group, JournalHandle};
use ingest::lookup::{FileLookup, LookupError, LookupSource};
use metrics::{counter, gauge};
use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use storage::durable::{create_dir_all, write_over};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use world::World;

/// How often a table is looked at. A change counts when two looks have seen it.
const LOOK: Duration = Duration::from_secs(1);
/// Where a kept version's schema holds its number.
const NUMBER: &str = "version";

/// A lookup table that was opened, and the version to begin with.
pub(crate) struct Opened {
    pub(crate) table: Watched,
    pub(crate) first: LookupVersion,
}

/// A lookup table that is looked at again and again.
pub(crate) struct Watched {
    name: String,
    source: Box<dyn LookupSource>,
    kept: PathBuf,
}

/// Who is told of a new version. Clones share the lanes.
#[derive(Clone, Default)]
pub(crate) struct Readers {
    pub(crate) journal: Option<JournalHandle>,
    lanes: Arc<Mutex<LaneReaders>>,
}

/// The lanes that have no journal, and what a lane that joins begins with.
#[derive(Default)]
struct LaneReaders {
    lanes: Vec<mpsc::Sender<Command>>,
    newest: BTreeMap<Arc<str>, LookupVersion>,
}

impl Readers {
    /// Nobody yet.
    pub(crate) fn new(first: &[LookupVersion]) -> Self {
        let newest = first.iter().map(|version| (version.lookup.clone(), version.clone())).collect();
        Self { journal: None, lanes: Arc::new(Mutex::new(LaneReaders { lanes: vec![], newest })) }
    }

    /// A lane without a journal joins: from here on it is told; it begins with the versions that come back.
    pub(crate) fn join(&self, lane: mpsc::Sender<Command>) -> Vec<LookupVersion> {
        let mut readers = self.readers();
        readers.lanes.push(lane);
        readers.newest.values().cloned().collect()
    }

    fn note(&self, version: &LookupVersion) -> Vec<mpsc::Sender<Command>> {
        let mut readers = self.readers();
        readers.newest.insert(version.lookup.clone(), version.clone());
        readers.lanes.clone()
    }

    fn readers(&self) -> MutexGuard<'_, LaneReaders> {
        self.lanes.lock().expect("nothing panics while it holds the readers of lookup tables")
    }
}

/// Reads every table of a plan. An error (`Stop`) when one can neither be read nor was kept by an earlier run.
pub(crate) fn open(plan: &Plan, world: &World) -> Result<Vec<Opened>> {
    if plan.lookups.is_empty() {
        // A name without a value would look like a mistake to whoever scrapes it.
        counter!(Metric::LookupVersions.name()).increment(0);
        counter!(Metric::LookupFailures.name()).increment(0);
        gauge!(Metric::LookupRows.name()).set(0.0);
    }
    plan.lookups.iter().map(|lookup| open_one(plan, lookup, world)).collect()
}

fn open_one(plan: &Plan, lookup: &PlannedLookup, world: &World) -> Result<Opened> {
    let name = lookup.shape.name.to_string();
    counter!(Metric::LookupVersions.name(), "component" => name.clone()).increment(0);
    counter!(Metric::LookupFailures.name(), "component" => name.clone()).increment(0);
    let kept = plan.data_dir.join("lookups").join(format!("{name}.arrow"));
    let mut source = FileLookup::new(lookup.shape.clone(), lookup.options.clone());
    let first = match source.look() {
        Ok(Some(version)) => {
            keep(world, &kept, &version)?;
            version
        }
        Ok(None) => return Err(Error::new(Remedy::Stop, format!("lookup {name}: its first look gave nothing"))),
        Err(error) => {
            tell(&name, &error, "the version of an earlier run goes on");
            let earlier = load(&kept, lookup)?;
            earlier.ok_or_else(|| Error::stop(format!("lookup {name} cannot be read, and no earlier run has kept a version"), error))?
        }
    };
    gauge!(Metric::LookupRows.name(), "component" => name.clone()).set(first.rows.num_rows() as f64);
    Ok(Opened { table: Watched { name, source: Box::new(source), kept }, first })
}

/// Puts versions into the journal, for every lane, durably.
pub(crate) async fn log(journal: &JournalHandle, versions: impl IntoIterator<Item = LookupVersion>) -> Result<()> {
    for version in versions {
        let group = Group { frames: vec![(None, Body::Lookup(version))], publishes: vec![] };
        journal.append(group).await?.await?;
    }
    Ok(())
}

impl Watched {
    /// Gives out each new version until it is stopped.
    pub(crate) async fn run(mut self, readers: Readers, world: World, stop: CancellationToken) -> Result<()> {
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(LOOK) => {}
            }
            let look = move || {
                let looked = self.source.look();
                (self, looked)
            };
            let looked = tokio::task::spawn_blocking(look).await.map_err(|e| Error::stop("looking at a lookup table", e))?;
            self = looked.0;
            match looked.1 {
                Ok(None) => {}
                Ok(Some(version)) => give_out(&self.name.clone(), self.kept.clone(), version, &readers, &world).await?,
                Err(error) => tell(&self.name, &error, "the version before goes on"),
            }
        }
    }
}

/// Keeps a version, then tells whoever reads it.
async fn give_out(name: &str, kept: PathBuf, version: LookupVersion, readers: &Readers, world: &World) -> Result<()> {
    let (rows, mut told) = (version.rows.num_rows(), false);
    loop {
        let (of_world, kept, copy) = (world.clone(), kept.clone(), version.clone());
        let keeping = tokio::task::spawn_blocking(move || keep(&of_world, &kept, &copy)).await;
        match keeping.map_err(|e| Error::stop("keeping a lookup table", e))? {
            Err(error) if is_out_of_room(&error) => wait_for_room(world, &error, &mut told).await,
            kept => break kept?,
        }
    }
    if let Some(journal) = &readers.journal {
        log(journal, [version.clone()]).await?;
    }
    for lane in readers.note(&version) {
        // A lane that has ended says why itself.
        let _ = lane.send(Command::Lookup(version.clone())).await;
    }
    counter!(Metric::LookupVersions.name(), "component" => name.to_owned()).increment(1);
    gauge!(Metric::LookupRows.name(), "component" => name.to_owned()).set(rows as f64);
    tracing::info!(lookup = name, rows, "a new version of a lookup table");
    Ok(())
}

fn tell(name: &str, error: &LookupError, then: &str) {
    counter!(Metric::LookupFailures.name(), "component" => name.to_owned()).increment(1);
    tracing::warn!(lookup = name, %error, "a lookup table cannot be used: {then}");
}

/// Writes the version over the one kept before, durably.
fn keep(world: &World, path: &Path, version: &LookupVersion) -> Result<()> {
    let failed = |e: arrow::error::ArrowError| Error::stop(format!("keeping lookup {}", version.lookup), e);
    let schema = version.rows.schema_ref();
    let mut metadata = schema.metadata().clone();
    metadata.insert(NUMBER.into(), version.number.to_string());
    let schema = Arc::new(Schema::new_with_metadata(schema.fields().clone(), metadata));
    let rows = RecordBatch::try_new(schema.clone(), version.rows.columns().to_vec()).map_err(failed)?;
    let mut stream = StreamWriter::try_new(Vec::new(), &schema).map_err(failed)?;
    stream.write(&rows).and_then(|()| stream.finish()).map_err(failed)?;
    let bytes = stream.into_inner().map_err(failed)?;
    let folder = path.parent().unwrap_or(Path::new("."));
    let written = create_dir_all(&*world.disk, folder).and_then(|()| write_over(&*world.disk, path, &bytes));
    written.map_err(|e| Error::stop(format!("writing {}", path.display()), e))
}

/// The version that an earlier run kept; none where there is none, or where it has other columns than the plan.
fn load(path: &Path, lookup: &PlannedLookup) -> Result<Option<LookupVersion>> {
    let bytes = match std::fs::read(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        read => read.map_err(|e| Error::stop(format!("reading {}", path.display()), e))?,
    };
    let damaged = |e: arrow::error::ArrowError| Error::stop(format!("{} is damaged", path.display()), e);
    let mut stream = StreamReader::try_new(Cursor::new(bytes), None).map_err(damaged)?;
    let Some(rows) = stream.next().transpose().map_err(damaged)? else { return Ok(None) };
    let number = rows.schema_ref().metadata().get(NUMBER).and_then(|number| number.parse().ok());
    let (Some(number), true) = (number, rows.schema_ref().fields() == lookup.shape.schema.fields()) else { return Ok(None) };
    let rows = RecordBatch::try_new(lookup.shape.schema.clone(), rows.columns().to_vec()).map_err(damaged)?;
    Ok(Some(LookupVersion { lookup: lookup.shape.name.clone(), number, rows }))
}
