//! `tidegate verify`: the tables of a pipeline, running or stopped, held against the truth of a simulation.

use crate::cli::VerifyArguments;
use crate::plan::Plan;
use crate::run::ask::{Running, kept, stopped};
use arrow::array::RecordBatch;
use arrow::ipc::reader::StreamReader;
use bench::verify::{Ask, Verdict};
use flow::{Error, Result};
use gateway::query::{Engine, Limits};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Compares; the verdict says what differs.
pub fn verify(plan: Option<Plan>, arguments: &VerifyArguments) -> Result<Verdict> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.map_err(|e| Error::stop("starting threads", e))?.block_on(async {
        let pipeline = Pipeline::find(plan, arguments).await?;
        let verdict = bench::verify::verify(&arguments.truth, &pipeline, arguments.cold.as_deref()).await;
        verdict.map_err(|e| Error::stop(format!("comparing with {}", arguments.truth.display()), e))
    })
}

/// Who answers SQL about the tables.
enum Pipeline {
    /// An instance. Its limits hold.
    Running(Running),
    /// A data directory that nobody owns.
    Stopped(Box<Engine>),
}

impl Pipeline {
    async fn find(plan: Option<Plan>, arguments: &VerifyArguments) -> Result<Self> {
        if let Some(url) = &arguments.sql {
            return Ok(Self::Running(Running::at(url.to_string(), plan.as_ref())));
        }
        let data_dir = match (&plan, &arguments.data_dir) {
            (Some(plan), _) => plan.data_dir.clone(),
            (None, Some(data_dir)) => data_dir.clone(),
            (None, None) => PathBuf::from("data"),
        };
        if let Some(running) = Running::find(plan.as_ref(), &data_dir).await {
            return Ok(Self::Running(running));
        }
        Self::stopped(plan, &data_dir)
    }

    fn stopped(plan: Option<Plan>, data_dir: &Path) -> Result<Self> {
        let plan = plan.map_or_else(|| kept(data_dir), Ok)?;
        // Whole tables are read, and nothing runs beside.
        let limits = Limits { memory_bytes: usize::MAX, deadline: Duration::from_secs(3_600), rows: usize::MAX, ..Limits::default() };
        Ok(Self::Stopped(Box::new(stopped(&plan, data_dir, limits)?)))
    }

    async fn rows(&self, sql: &str) -> Result<Vec<RecordBatch>> {
        match self {
            Self::Running(running) => {
                let stream = running.ask(sql, gateway::format::Format::Arrow).await?;
                let reader = StreamReader::try_new(stream.as_slice(), None).and_then(Iterator::collect);
                reader.map_err(|e| Error::stop(format!("reading what {} answered", running.url), e))
            }
            Self::Stopped(engine) => engine.query(sql).await.map(|answer| answer.batches).map_err(|e| Error::stop("query", e)),
        }
    }
}

impl Ask for Pipeline {
    async fn ask(&self, sql: &str) -> bench::Result<Vec<RecordBatch>> {
        let failed = |e: Error| bench::Error::Verify(format!("{e}, asked `{sql}`"));
        self.rows(sql).await.map_err(failed)
    }
}
