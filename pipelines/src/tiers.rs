//! `tidegate tiers`: looks after the files of a pipeline's tables, of a stopped data directory or beside the instance that owns it.
//!
//! Beside an instance both commands see what is sealed at one instant. Rows of the open epoch are in no file yet and belong to the next.

use crate::cli::{ExportFormat, TiersExportArguments, TiersQuarantineArguments};
use crate::plan::Plan;
use crate::run::ask::{Running, kept, sealed};
use crate::run::build::{self, Folders};
use crate::run::shared::OWNER;
use flow::{Error, Remedy, Result};
use ingest::lock::DirectoryLock;
use std::path::{Path, PathBuf};
use storage::cold::ColdTables;
use storage::epoch::LocalEpochs;
use storage::export::{Exported, Form, export as export_rows, rows};
use storage::quarantine::{Aside, Sealer, set_aside};
use storage::upload::upload;
use storage::verify::{Report, Subject};
use storage::view::View;
use storage::warm::segment_path;
use storage::{ColdOptions, TableSpec};
use tempfile::TempDir;
use url::Url;
use world::{LocalDisk, World};

/// How often an export begins again because the owner let segments go meanwhile.
const TRIES: usize = 5;

/// The parts of a pipeline that its files are read by.
struct Parts {
    name: String,
    epochs: LocalEpochs,
    folders: Folders,
    specs: Vec<TableSpec>,
    cold: ColdTables,
}

impl Parts {
    fn of(plan: Option<Plan>, data_dir: &Path) -> Result<Self> {
        let plan = plan.map_or_else(|| kept(data_dir), Ok)?;
        let (specs, cold) = (build::specs(&plan), build::cold_tables(&plan)?);
        Ok(Self { epochs: LocalEpochs::new(data_dir, &plan.name), folders: Folders::of(data_dir), specs, cold, name: plan.name })
    }

    fn subject(&self) -> Subject<'_> {
        Subject {
            pipeline: &self.name,
            epochs: &self.epochs,
            warm: &self.folders.warm,
            state: &self.folders.state,
            outbox: &self.folders.outbox,
            specs: &self.specs,
            cold: &self.cold,
        }
    }
}

/// Reads every file, and counts. Damage is in the report.
pub fn verify(plan: Option<Plan>, data_dir: &Path) -> Result<Report> {
    let parts = Parts::of(plan, data_dir)?;
    runtime()?.block_on(storage::verify::verify(parts.subject()))
}

/// Gives damaged segments up; a line for each. The data directory is ours meanwhile.
pub fn quarantine(plan: Option<Plan>, data_dir: &Path, arguments: &TiersQuarantineArguments) -> Result<String> {
    let parts = Parts::of(plan, data_dir)?;
    let _lock = DirectoryLock::take(&LocalDisk, data_dir)?;
    let by = Sealer { incarnation: rand::random(), owner: OWNER };
    let (runtime, mut lines) = (runtime()?, String::new());
    for file in &arguments.file {
        let name = file.file_name().and_then(|name| name.to_str());
        let name = name.ok_or_else(|| Error::new(Remedy::Stop, format!("{} names no segment", file.display())))?;
        let aside = runtime.block_on(set_aside(parts.subject(), data_dir, &arguments.table, name, by));
        // What was given up before is told also where the next one cannot be.
        let Aside { lane, segment, to } = aside.map_err(|e| Error { context: format!("{lines}{}", e.context), ..e })?;
        let kept = to.map_or_else(|| "the file was missing".to_owned(), |to| format!("the file is now {}", to.display()));
        lines += &format!("{} rows of {} in lane {lane} are given up: {name}; {kept}\n", segment.rows, arguments.table);
    }
    Ok(lines)
}

/// Writes the rows of a table as a fresh one; the text says how many.
pub fn export(plan: Option<Plan>, data_dir: &Path, arguments: &TiersExportArguments) -> Result<String> {
    let plan = plan.map_or_else(|| kept(data_dir), Ok)?;
    let made = match target(&arguments.to)? {
        Target::Folder(to) => runtime()?.block_on(write(&plan, data_dir, arguments, &to))?,
        Target::Bucket { url, name } => runtime()?.block_on(async {
            let aside = tempfile::Builder::new().prefix("export-").tempdir_in(data_dir);
            let aside = aside.map_err(|e| Error::stop(format!("making a folder in {}", data_dir.display()), e))?;
            let folder = aside.path().join(&name);
            let made = write(&plan, data_dir, arguments, &folder).await?;
            let table = plan.tables.iter().find(|table| table.name == arguments.table);
            let s3 = table.and_then(|table| Some(table.options.cold.as_ref()?.s3.clone())).unwrap_or_default();
            upload(&folder, &ColdOptions { s3, ..ColdOptions::at(url) }, &name).await.map(|()| made)
        })?,
    };
    let Exported { files, rows, bytes } = made;
    Ok(format!("{rows} rows of {} in {files} files of {bytes} bytes: {}\n", arguments.table, arguments.to))
}

async fn write(plan: &Plan, data_dir: &Path, arguments: &TiersExportArguments, to: &Path) -> Result<Exported> {
    let specs = build::specs(plan);
    let spec = specs.iter().find(|spec| spec.name == arguments.table);
    let spec = spec.ok_or_else(|| {
        let names: Vec<_> = specs.iter().map(|s| s.name.as_str()).collect();
        Error::new(Remedy::Stop, format!("there is no table {}; there are {}", arguments.table, names.join(", ")))
    })?;
    // The links hold what the owner may delete meanwhile, until all is written.
    let (view, _links) = held_view(plan, data_dir, &spec.name).await?;
    let rows = rows(spec, view, arguments.condition.as_deref(), processors::functions::register).await?;
    let form = match arguments.format {
        ExportFormat::Parquet => Form::Parquet,
        ExportFormat::Delta => Form::Delta,
    };
    export_rows(rows, spec, form, to, World::real().now().0 / 1_000).await
}

/// A view of what is sealed. Where an instance is at work, its segments have a second name each, so that none goes while it is read.
async fn held_view(plan: &Plan, data_dir: &Path, table: &str) -> Result<(View, Option<TempDir>)> {
    let warm = Folders::of(data_dir).warm;
    let is_running = Running::find(None, data_dir).await.is_some();
    let mut tries = 1;
    loop {
        let (stored, cold) = sealed(plan, data_dir)?;
        let mut view = View::take(warm.clone(), &stored, Some(&cold), &[table]).await?;
        if !is_running {
            return Ok((view, None));
        }
        match link(&view, data_dir, table) {
            Ok(links) => {
                view.warm = links.path().to_path_buf();
                return Ok((view, Some(links)));
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && tries < TRIES => tries += 1,
            Err(e) => return Err(Error::stop(format!("linking segments of {table} in {}", data_dir.display()), e)),
        }
    }
}

fn link(view: &View, data_dir: &Path, table: &str) -> std::io::Result<TempDir> {
    let links = tempfile::Builder::new().prefix("export-").tempdir_in(data_dir)?;
    std::fs::create_dir(links.path().join(table))?;
    for lane in &view.lanes {
        for segment in lane.segments(table, view.moved(table, &lane.lane)) {
            let (from, to) = (segment_path(&view.warm, table, &segment.file), segment_path(links.path(), table, &segment.file));
            std::fs::hard_link(from, to)?;
        }
    }
    Ok(links)
}

/// Where an export goes.
#[derive(Debug, PartialEq, Eq)]
enum Target {
    Folder(PathBuf),
    /// The address of what holds it, and its name there.
    Bucket {
        url: String,
        name: String,
    },
}

/// What a path or a URL says.
fn target(to: &str) -> Result<Target> {
    let wrong = |what: String| Err(Error::new(Remedy::Stop, what));
    match Url::parse(to) {
        Ok(url) if url.scheme() == "file" => match url.to_file_path() {
            Ok(path) => Ok(Target::Folder(path)),
            Err(()) => wrong(format!("{to} is no path of this machine")),
        },
        Ok(url) if url.scheme() == "s3" => match to.trim_end_matches('/').rsplit_once('/') {
            Some((above, name)) if !above.ends_with('/') => Ok(Target::Bucket { url: above.to_owned(), name: name.to_owned() }),
            _ => wrong(format!("{to} names no folder of the bucket")),
        },
        Ok(url) if to.contains("://") => wrong(format!("an export goes to a path, a file: or an s3: URL, not to {}:", url.scheme())),
        _ => Ok(Target::Folder(PathBuf::from(to))),
    }
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|e| Error::stop("starting threads", e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_path_a_file_url_or_a_folder_of_a_bucket() {
        assert_eq!(target("out/t").unwrap(), Target::Folder("out/t".into()));
        assert_eq!(target("file:///tmp/t").unwrap(), Target::Folder("/tmp/t".into()));
        assert_eq!(target("s3://bucket/a/t/").unwrap(), Target::Bucket { url: "s3://bucket/a".into(), name: "t".into() });
        assert!(target("s3://bucket").unwrap_err().to_string().contains("no folder"));
        assert!(target("gs://bucket/t").unwrap_err().to_string().contains("not to gs:"));
    }
}
