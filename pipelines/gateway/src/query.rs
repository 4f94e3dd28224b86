//! Runs a statement over the tables as they are now: read-only, with limits, in a session of its own.
//!
//! Each query takes its own view, so all its tables are of one instant. Out of reach of the limits is memory that a single
//! function call takes; the functions known to do that are not registered.

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use datafusion::error::DataFusionError;
use datafusion::execution::context::SQLOptions;
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};
use flow::Metric;
use futures::StreamExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use storage::last::LastRows;
use storage::options::TableSpec;
use storage::view::{ColdViews, View, Views};
use tokio::sync::Semaphore;

/// Functions whose one call can take gigabytes outside of the memory pool (`repeat('x', 2000000000)`).
const WITHHELD: [&str; 9] =
    ["repeat", "lpad", "rpad", "range", "generate_series", "array_repeat", "list_repeat", "array_resize", "list_resize"];

/// The most operators in a statement: 20,000 additions overflow the stack.
const MOST_OPERATORS: usize = 1_000;

/// What one query may take.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes for all queries together; sorts, joins and groups above it spill to disk.
    pub memory_bytes: usize,
    /// Bytes in which the newest rows of each table are kept for `<table>_last`.
    pub last_bytes: usize,
    /// From the statement to the last row.
    pub deadline: Duration,
    /// Rows of a result; more is an error, never a cut result.
    pub rows: usize,
    /// Bytes of a statement.
    pub statement_bytes: usize,
    /// Queries at once; others wait within their deadline.
    pub concurrency: usize,
}

impl Default for Limits {
    /// For a person or dashboard beside the ingest: its memory stays a small part of a machine.
    fn default() -> Self {
        Self {
            memory_bytes: 512 << 20,
            last_bytes: 128 << 20,
            deadline: Duration::from_secs(30),
            rows: 1_000_000,
            statement_bytes: 64 << 10,
            concurrency: 4,
        }
    }
}

/// The tables of a pipeline, and where their rows are read from.
#[derive(Clone)]
pub struct Tables {
    /// The tables.
    pub specs: Vec<TableSpec>,
    /// The lanes.
    pub views: Arc<dyn Views>,
    /// The cold tables, if any.
    pub cold: Option<Arc<dyn ColdViews>>,
    /// Directory of the warm segments, `<warm>/<table>/<file>`.
    pub warm: PathBuf,
}

/// A result in memory.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The columns.
    pub schema: SchemaRef,
    /// The rows, in order.
    pub batches: Vec<RecordBatch>,
    /// Readings that are journalled and not in the answer.
    pub journaled: u64,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The statement is wrong, too long or not allowed.
    #[error("{0}")]
    Refused(String),
    /// The result has too many rows.
    #[error("the result has more than {0} rows; add a LIMIT")]
    TooManyRows(usize),
    /// The deadline passed.
    #[error("the query took longer than {} s", .0.as_secs_f64())]
    Deadline(Duration),
    /// More memory than queries may have.
    #[error("{0}")]
    Memory(String),
    /// It failed on our side.
    #[error("{0}")]
    Failed(String),
}

impl QueryError {
    const REASONS: [&str; 5] = ["refused", "rows", "deadline", "memory", "failed"];

    /// A word for the metric.
    fn reason(&self) -> &'static str {
        let [refused, rows, deadline, memory, failed] = Self::REASONS;
        match self {
            Self::Refused(_) => refused,
            Self::TooManyRows(_) => rows,
            Self::Deadline(_) => deadline,
            Self::Memory(_) => memory,
            Self::Failed(_) => failed,
        }
    }
}

/// Runs queries over the tables of a pipeline.
#[derive(Clone)]
pub struct Engine {
    tables: Arc<Tables>,
    limits: Limits,
    runtime: Arc<RuntimeEnv>,
    running: Arc<Semaphore>,
    last: LastRows,
    functions: fn(&SessionContext),
}

impl Engine {
    /// An engine whose queries share the memory of `limits`.
    pub fn new(tables: Tables, limits: Limits) -> Result<Self, QueryError> {
        let pool = Arc::new(FairSpillPool::new(limits.memory_bytes));
        let runtime = RuntimeEnvBuilder::new().with_memory_pool(pool).build_arc().map_err(|e| QueryError::Failed(e.to_string()))?;
        let running = Arc::new(Semaphore::new(limits.concurrency));
        for reason in QueryError::REASONS {
            // A counter that is not there cannot be told from one that nothing feeds.
            metrics::counter!(Metric::QueriesRejected.name(), "reason" => reason).absolute(0);
        }
        let last = LastRows::new(&tables.specs, limits.last_bytes);
        Ok(Self { tables: Arc::new(tables), limits, runtime, running, last, functions: |_| {} })
    }

    /// The same with more functions: `register` adds them to the session of each query.
    #[must_use]
    pub fn with_functions(self, register: fn(&SessionContext)) -> Self {
        Self { functions: register, ..self }
    }

    /// Bytes that the queries under way hold of their memory pool.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.runtime.memory_pool.reserved()
    }

    /// The answer to one statement.
    pub async fn query(&self, sql: &str) -> Result<Answer, QueryError> {
        let began = Instant::now();
        let answer = self.answer(sql).await;
        metrics::histogram!(Metric::Query.name()).record(began.elapsed().as_secs_f64());
        if let Err(QueryError::Failed(error)) = &answer {
            tracing::error!(error, "a query failed");
        }
        if let Err(error) = &answer {
            metrics::counter!(Metric::QueriesRejected.name(), "reason" => error.reason()).increment(1);
        }
        answer
    }

    async fn answer(&self, sql: &str) -> Result<Answer, QueryError> {
        self.check(sql)?;
        let run = async {
            let _permit = self.running.acquire().await.map_err(|e| QueryError::Failed(e.to_string()))?;
            self.run(sql).await
        };
        tokio::time::timeout(self.limits.deadline, run).await.map_err(|_| QueryError::Deadline(self.limits.deadline))?
    }

    async fn run(&self, sql: &str) -> Result<Answer, QueryError> {
        let session = self.session().await?;
        let options = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        let frame = session.sql_with_options(sql, options).await.map_err(planning)?;
        let schema = Arc::new(frame.schema().as_arrow().clone());
        let mut stream = frame.execute_stream().await.map_err(running)?;
        let mut answer = Answer { schema, batches: Vec::new(), journaled: self.tables.views.journaled() };
        let mut rows = 0;
        while let Some(batch) = stream.next().await {
            let batch = batch.map_err(running)?;
            rows += batch.num_rows();
            if rows > self.limits.rows {
                return Err(QueryError::TooManyRows(self.limits.rows));
            }
            answer.batches.push(batch);
        }
        Ok(answer)
    }

    /// A session over a new view.
    async fn session(&self) -> Result<SessionContext, QueryError> {
        let tables = &self.tables;
        let names: Vec<&str> = tables.specs.iter().map(|s| s.name.as_str()).collect();
        let view = View::take(tables.warm.clone(), &*tables.views, tables.cold.as_deref(), &names).await;
        let view = Arc::new(view.map_err(|e| QueryError::Failed(e.to_string()))?);
        let mut config = SessionConfig::new().with_information_schema(true);
        config.options_mut().execution.enable_recursive_ctes = false;
        config.options_mut().execution.parquet.reorder_filters = true;
        let session = SessionContext::new_with_config_rt(config, self.runtime.clone());
        for name in WITHHELD {
            session.deregister_udf(name);
        }
        (self.functions)(&session);
        storage::catalog::register(&session, &tables.specs, &view, &self.last).map_err(|e| QueryError::Failed(e.to_string()))?;
        Ok(session)
    }

    fn check(&self, sql: &str) -> Result<(), QueryError> {
        if sql.len() > self.limits.statement_bytes {
            let most = self.limits.statement_bytes;
            return Err(QueryError::Refused(format!("the statement has {} bytes, {most} are allowed", sql.len())));
        }
        let tokens = Tokenizer::new(&GenericDialect {}, sql).tokenize().map_err(|e| QueryError::Refused(e.to_string()))?;
        let operators = tokens.iter().filter(|t| is_operator(t)).count();
        if operators > MOST_OPERATORS {
            return Err(QueryError::Refused(format!("the statement has {operators} operators, {MOST_OPERATORS} are allowed")));
        }
        Ok(())
    }
}

/// Whether the token can make an expression one level deeper.
fn is_operator(token: &Token) -> bool {
    match token {
        Token::Word(word) => {
            let deepens = ["AND", "OR", "NOT", "UNION", "INTERSECT", "EXCEPT", "JOIN", "IS", "LIKE", "BETWEEN"];
            word.quote_style.is_none() && deepens.iter().any(|d| word.value.eq_ignore_ascii_case(d))
        }
        Token::Whitespace(_) | Token::Comma | Token::Period | Token::RParen | Token::SemiColon | Token::EOF => false,
        Token::Number(..) | Token::SingleQuotedString(_) | Token::DoubleQuotedString(_) | Token::LParen => false,
        _ => true,
    }
}

fn planning(error: DataFusionError) -> QueryError {
    match error.find_root() {
        DataFusionError::External(_) | DataFusionError::Internal(_) | DataFusionError::IoError(_) => QueryError::Failed(error.to_string()),
        _ => QueryError::Refused(error.strip_backtrace()),
    }
}

/// Whether a file could not be read as what it should be: the statement is not to blame.
fn is_unreadable(root: &DataFusionError) -> bool {
    match root {
        DataFusionError::ParquetError(_) | DataFusionError::ObjectStore(_) => true,
        DataFusionError::ArrowError(error, _) => matches!(**error, ArrowError::ParquetError(_)),
        _ => false,
    }
}

fn running(error: DataFusionError) -> QueryError {
    match error.find_root() {
        root if is_unreadable(root) => {
            QueryError::Failed(format!("{}; `tidegate tiers verify` says which files are damaged or gone", error.strip_backtrace()))
        }
        DataFusionError::ResourcesExhausted(_) => QueryError::Memory(error.strip_backtrace()),
        DataFusionError::ArrowError(..) | DataFusionError::Execution(_) | DataFusionError::Plan(_) => {
            QueryError::Refused(error.strip_backtrace())
        }
        _ => QueryError::Failed(error.strip_backtrace()),
    }
}
