//! `tidegate sql`: asks the running instance, or reads the data directory when none runs.

use crate::cli::{Format, SqlArguments};
use crate::plan::Plan;
use crate::run::build::{self, Folders};
use crate::run::instance::{INSTANCE, PIPELINE, limits};
use crate::run::shared::INSTANCES;
use flow::{Error, Lane, Remedy, Result};
use gateway::query::{Engine, Limits, Tables};
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use storage::cold::ColdTables;
use storage::epoch::{EpochStore, LocalEpochs};
use storage::view::Stored;

/// Where a pipeline's data lies when nobody says.
const DATA_DIR: &str = "data";
/// How long an instance may take to say that it is there: one that is stopped or busy does not.
const ANSWERS_WITHIN: Duration = Duration::from_secs(2);
/// The environment variable with the token of an instance whose pipeline does not say where it stands.
const TOKEN: &str = "TIDEGATE_TOKEN";

/// Answers a statement on stdout.
pub(crate) async fn sql(plan: Option<Plan>, arguments: &SqlArguments) -> Result<()> {
    show(&answer(plan, arguments, form(arguments.format)).await?)
}

/// The answer to a statement.
pub(crate) async fn answer(plan: Option<Plan>, arguments: &SqlArguments, format: gateway::format::Format) -> Result<Vec<u8>> {
    let data_dir = data_dir(plan.as_ref(), arguments.data_dir.as_deref());
    let running = match &arguments.url {
        Some(url) => Some(Running::at(url.to_string(), plan.as_ref())),
        None => Running::find(plan.as_ref(), &data_dir).await,
    };
    match running {
        Some(running) => running.ask(&arguments.sql, format).await,
        None => read(plan, &data_dir, &arguments.sql, format).await,
    }
}

/// Where the data lies: as the plan says, or who asks.
pub(crate) fn data_dir(plan: Option<&Plan>, asked: Option<&Path>) -> PathBuf {
    plan.map(|plan| plan.data_dir.clone()).or(asked.map(Path::to_owned)).unwrap_or_else(|| PathBuf::from(DATA_DIR))
}

/// Writes an answer to stdout.
pub(crate) fn show(text: &[u8]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(Error::stop("writing the answer", e)),
        _ => Ok(()),
    }
}

/// What a person asked for; else a table on a terminal, and CSV.
pub(crate) fn form(wanted: Option<Format>) -> gateway::format::Format {
    use gateway::format::Format as Form;
    match wanted {
        Some(Format::Table) => Form::Table,
        Some(Format::Csv) => Form::Csv,
        Some(Format::Json) => Form::Ndjson,
        Some(Format::Arrow) => Form::Arrow,
        None if std::io::stdout().is_terminal() => Form::Table,
        None => Form::Csv,
    }
}

/// An instance that runs, and the token that it may ask for.
pub(crate) struct Running {
    pub(crate) url: String,
    token: Option<String>,
}

impl Running {
    /// The one at an address.
    pub(crate) fn at(url: String, plan: Option<&Plan>) -> Self {
        let of_plan = plan.and_then(|plan| plan.http.token.as_ref()).and_then(|token| token.read("token").ok());
        Self { url, token: of_plan.or_else(|| std::env::var(TOKEN).ok()) }
    }

    /// The one that owns a data directory; none when nobody answers there.
    pub(crate) async fn find(plan: Option<&Plan>, data_dir: &Path) -> Option<Self> {
        for place in homes(data_dir) {
            if let Some(url) = listens(&place.join(INSTANCE)).await {
                let kept = if plan.is_none() { kept(data_dir).ok() } else { None };
                return Some(Self::at(url, plan.or(kept.as_ref())));
            }
        }
        None
    }

    /// What it answers to a statement.
    pub(crate) async fn ask(&self, sql: &str, format: gateway::format::Format) -> Result<Vec<u8>> {
        let failed = |e: reqwest::Error| Error::stop(format!("asking {}", self.url), e);
        let request = client().map_err(failed)?.post(format!("{}/api/v1/sql", self.url.trim_end_matches('/')));
        let request = request.header("accept", format.media_type()).header("content-type", "text/plain").body(sql.to_owned());
        let request = if let Some(token) = &self.token { request.bearer_auth(token) } else { request };
        let answer = request.send().await.map_err(failed)?;
        let good = answer.status().is_success();
        let body = answer.bytes().await.map_err(failed)?;
        if good {
            return Ok(body.to_vec());
        }
        let problem: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        let said = problem.get("detail").and_then(|d| d.as_str());
        Err(Error::new(Remedy::Stop, said.map_or_else(|| String::from_utf8_lossy(&body).into_owned(), str::to_owned)))
    }
}

/// The folders in which instances say where they listen: that of the one which has the directory alone, and those of who share it.
fn homes(data_dir: &Path) -> Vec<PathBuf> {
    let shared = std::fs::read_dir(data_dir.join(INSTANCES)).into_iter().flatten().flatten().map(|entry| entry.path());
    std::iter::once(data_dir.to_owned()).chain(shared).collect()
}

/// The address in an instance's file; none when nobody answers there.
async fn listens(at: &Path) -> Option<String> {
    let facts: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(at).ok()?).ok()?;
    let url = format!("http://{}", facts.get("http")?.as_str()?);
    client().ok()?.get(format!("{url}/health/live")).timeout(ANSWERS_WITHIN).send().await.ok()?;
    Some(url)
}

/// Straight to the instance: a proxy of the environment has no business on loopback.
fn client() -> reqwest::Result<reqwest::Client> {
    reqwest::Client::builder().no_proxy().build()
}

/// Answers from the sealed records of a data directory that nobody owns.
async fn read(plan: Option<Plan>, data_dir: &Path, sql: &str, format: gateway::format::Format) -> Result<Vec<u8>> {
    let plan = match plan {
        Some(plan) => plan,
        None => kept(data_dir)?,
    };
    let answer = stopped(&plan, data_dir, limits(&plan))?.query(sql).await.map_err(|e| Error::stop("query", e))?;
    gateway::format::render(format, &answer.schema, &answer.batches).map_err(|e| Error::stop("writing the answer", e))
}

/// Who answers from the sealed records of a data directory that nobody owns.
pub(crate) fn stopped(plan: &Plan, data_dir: &Path, limits: Limits) -> Result<Engine> {
    let (stored, cold) = sealed(plan, data_dir)?;
    let positions: Vec<_> = stored.lanes.iter().map(|(lane, _, whole)| (lane.0.to_string(), whole.positions.clone())).collect();
    let missing = ingest::journal::unread(&Folders::of(data_dir).journal, &positions)?;
    if missing > 0 {
        note(&format!("tidegate: {missing} journaled readings are not in this answer; the next run takes them\n"));
    }
    let tables =
        Tables { specs: build::specs(plan), views: Arc::new(stored), cold: Some(Arc::new(cold)), warm: Folders::of(data_dir).warm };
    let engine = Engine::new(tables, limits).map_err(|e| Error::stop("query", e))?;
    Ok(engine.with_functions(processors::functions::register))
}

/// The lanes as their newest records say, and the cold tables, which know of these lanes.
pub(crate) fn sealed(plan: &Plan, data_dir: &Path) -> Result<(Stored, ColdTables)> {
    let epochs = LocalEpochs::new(data_dir, &plan.name);
    let (cold, mut stored) = (build::cold_tables(plan)?, Stored::default());
    for name in epochs.lanes()? {
        if let Some(newest) = epochs.newest(&name)? {
            let lane = Lane(name.into());
            cold.add_lane(lane.clone(), newest.header.chain.clone());
            stored.lanes.push((lane, newest.header.number, newest.whole));
        }
    }
    Ok((stored, cold))
}

/// The plan that the last run kept in the data directory.
pub(crate) fn kept(data_dir: &Path) -> Result<Plan> {
    let at = data_dir.join(PIPELINE);
    let text = std::fs::read_to_string(&at)
        .map_err(|e| Error::stop(format!("{} is no data directory of a pipeline: {}", data_dir.display(), at.display()), e))?;
    Plan::read(&at.display().to_string(), &text).map_err(|problems| Error::new(Remedy::Stop, problems.render(false)))
}

/// A line for the person who asked; where stderr cannot be written there is nobody to tell.
pub(crate) fn note(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}
