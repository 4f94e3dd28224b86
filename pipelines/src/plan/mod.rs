//! What is meant: names resolved, operators in an order in which each comes after what it reads, schemas joined, expressions checked.
//!
//! Making a plan opens no file and no socket (`Plan::check` reads the files of lookup tables after it). The lanes are built from it; nothing looks at the spec afterwards.

mod build;
mod fingerprint;
mod join;
mod lookups;
mod names;
mod stages;
mod stream;
mod tables;
mod trials;

pub use stages::{Part, Placed, PlannedExit, Stage};
pub use tables::{dead_letters_schema, late_partials_schema, late_schema, moves_schema};

use crate::diagnose::Problems;
use crate::relay::KafkaSinkOptions;
use crate::spec::{DeadLetterOptions, HttpOptions, LimitOptions, ObservabilityOptions, Source, TestOptions, Written};
use arrow::datatypes::SchemaRef;
use flow::{LookupShape, Operator};
use ingest::decode::{Columns, DecodeOptions};
use ingest::journal::JournalOptions;
use ingest::lookup::LookupOptions;
use ingest::mqtt::MOST_CONNECTIONS;
use processors::watermark::WatermarkOptions;
use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use storage::epoch::Fingerprint;
use storage::{TableOptions, TableSpec};
use xxhash_rust::xxh3::xxh3_64;

/// A pipeline, ready to be built.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The pipeline's name.
    pub name: String,
    /// Folder of the journal, the epoch records and the warm tier.
    pub data_dir: PathBuf,
    /// Whether several processes share the lanes.
    pub shared: bool,
    /// How many lanes readings are spread over: at least 1.
    pub lanes: u32,
    /// How often a lane seals what it has.
    pub epoch: Duration,
    /// Time zone of what is shown to people: an IANA name.
    pub timezone: String,
    /// Options of the journal; it is there only if `has_journal`.
    pub journal: JournalOptions,
    /// The sources, in the order of the file.
    pub sources: Vec<PlannedSource>,
    /// The lookup tables, in the order of the file.
    pub lookups: Vec<PlannedLookup>,
    /// The operators; each reads only sources and operators before it.
    pub operators: Vec<PlannedOperator>,
    /// What lanes have for their second stage; empty where there is none.
    pub exits: Vec<PlannedExit>,
    /// The tables of the file, then `dead_letters`, then the `late_<operator>`.
    pub tables: Vec<PlannedTable>,
    /// The sinks, in the order of the file.
    pub sinks: Vec<PlannedSink>,
    /// Bounds of the table `dead_letters`.
    pub dead_letters: DeadLetterOptions,
    /// The HTTP interface.
    pub http: HttpOptions,
    /// Logs and metrics.
    pub observability: ObservabilityOptions,
    /// Bounds of queries.
    pub limits: LimitOptions,
    /// What the file says about what comes out of what goes in.
    pub tests: Vec<TestOptions>,
    /// What is possible and has a price.
    pub warnings: Problems,
    /// What must not change while a data directory lives.
    pub fingerprint: Fingerprint,
}

/// A source with its columns.
#[derive(Clone, Debug)]
pub struct PlannedSource {
    /// Its name.
    pub name: String,
    /// What its type has.
    pub kind: Source,
    /// How messages become rows.
    pub decode: DecodeOptions,
    /// The declared columns.
    pub columns: Columns,
    /// Columns captured from topics or from what stands beside a record, in the order of the schema; empty for files.
    pub captures: Vec<String>,
    /// The names of the key columns: their values choose the lane.
    pub key: Vec<String>,
    /// The places of the key columns in the schema.
    pub key_columns: Vec<usize>,
    /// How far readings may be out of order.
    pub watermark: WatermarkOptions,
    /// A longer message is a dead letter; in bytes.
    pub max_message: u64,
    /// The columns of its rows.
    pub schema: SchemaRef,
}

/// A lookup table with its columns.
#[derive(Clone, Debug)]
pub struct PlannedLookup {
    /// What its versions look like.
    pub shape: LookupShape,
    /// Where it is read from.
    pub options: LookupOptions,
}

/// What an operator or a table reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Input {
    /// The source of this number in `Plan::sources`.
    Source(usize),
    /// The operator of this number in `Plan::operators`; lower than the reader's own.
    Operator(usize),
    /// A branch, by its number, of the route that is the operator of this number.
    Branch(usize, usize),
    /// The partial aggregates of the window that is the operator of this number.
    Partials(usize),
}

impl Input {
    /// The number of the operator that it reads, if it is none of a source.
    #[must_use]
    pub fn operator(&self) -> Option<usize> {
        match self {
            Self::Source(_) => None,
            Self::Operator(of) | Self::Branch(of, _) | Self::Partials(of) => Some(*of),
        }
    }
}

/// What a processor's type is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperatorKind {
    /// Keeps rows that fulfil a condition.
    Filter,
    /// Computes columns.
    Map,
    /// Leaves out proven duplicates.
    Dedupe,
    /// Aggregates over time: its rows are held, and what is too late has a table.
    Window,
    /// Sends each row to one of its branches.
    Route,
    /// Puts the rows of several inputs together.
    Union,
    /// Pairs the rows of two inputs: they are held, and what is too late has a table.
    Join,
    /// Passes what changed; what is older than the newest of its key has a table.
    Deadband,
    /// Adds how fast columns change; what is older than the newest of its key has a table.
    Rate,
    /// Says when a condition lasts: its rows are held, and what is too late has a table.
    Alert,
    /// Says which device is there: its rows are held.
    Presence,
    /// Says where a number behaves as it did not before: its rows are held, and what is too late has a table.
    Anomaly,
    /// Adds columns of a lookup table.
    Enrich,
}

impl OperatorKind {
    /// True for operators that account for their input by what they took into state, not by what they put out.
    #[must_use]
    pub fn holds_rows(self) -> bool {
        matches!(self, Self::Window | Self::Join | Self::Alert | Self::Presence | Self::Anomaly)
    }

    /// True for operators that have a table `late_<operator>`.
    #[must_use]
    pub fn has_late(self) -> bool {
        matches!(self, Self::Window | Self::Join | Self::Deadband | Self::Rate | Self::Alert | Self::Anomaly)
    }
}

/// Makes a fresh operator, one for each lane.
#[derive(Clone)]
pub struct BuildOperator(Arc<dyn Fn() -> flow::Result<Box<dyn Operator>> + Send + Sync>);

/// An operator with its columns.
#[derive(Clone, Debug)]
pub struct PlannedOperator {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: OperatorKind,
    /// What it reads, in the order of the file.
    pub inputs: Vec<Input>,
    /// The columns of what it reads; of a join those of both sides (see `processors::join::columns`).
    pub input_schema: SchemaRef,
    /// The columns of what it puts out.
    pub schema: SchemaRef,
    /// The sources that reach it, rising.
    pub sources: Vec<usize>,
    /// Makes one that sees all rows.
    pub build: BuildOperator,
    /// Which lanes have it.
    pub stage: Stage,
    /// The columns that tell one of its windows from another, where a window's rows take the place of each other.
    pub identity: Option<Vec<String>>,
    /// The number of its table of late rows in `Plan::tables`, where it has one.
    pub late: Option<usize>,
}

/// Why a table is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableKind {
    /// The file names it.
    Declared,
    /// What could not be used.
    DeadLetters,
    /// What came too late for the operator of this number.
    Late(usize),
}

/// A table with its columns.
#[derive(Clone, Debug)]
pub struct PlannedTable {
    /// Its name in SQL.
    pub name: String,
    /// Why it is there.
    pub kind: TableKind,
    /// Its columns; one is `event_time`.
    pub schema: SchemaRef,
    /// The columns by which it is sorted, before `event_time`.
    pub key: Vec<String>,
    /// Its tiers.
    pub options: TableOptions,
    /// What it reads; empty for `dead_letters` and `late_…`.
    pub inputs: Vec<Input>,
    /// The sources that reach it, rising.
    pub sources: Vec<usize>,
}

/// A sink with its columns.
#[derive(Clone, Debug)]
pub struct PlannedSink {
    /// Its name.
    pub name: String,
    /// Its columns.
    pub schema: SchemaRef,
    /// The columns that make a record's key.
    pub key: Vec<String>,
    /// Where it publishes.
    pub options: KafkaSinkOptions,
    /// What it reads.
    pub inputs: Vec<Input>,
    /// The sources that reach it, rising.
    pub sources: Vec<usize>,
    /// It reads nothing, and is told of rows that have gone to the cold tier (`moves_schema`).
    pub moves: bool,
}

impl Plan {
    /// What a file means. The error holds all mistakes that do not follow from another one.
    pub fn of(written: &Written) -> Result<Self, Problems> {
        build::plan(written).map_err(|list| written.problems(list))
    }

    /// Reads a file's text and says what it means; environment variables come from the process.
    pub fn read(file: &str, text: &str) -> Result<Self, Problems> {
        Self::of(&Written::read(file, text, &|name| std::env::var(name).ok())?)
    }

    /// The same, and the files of the lookup tables are read too: what is wrong with them is a mistake as well.
    pub fn check(file: &str, text: &str) -> Result<Self, Problems> {
        let written = Written::read(file, text, &|name| std::env::var(name).ok())?;
        let plan = Self::of(&written)?;
        let problems = lookups::files(&written, &plan);
        if problems.is_empty() { Ok(plan) } else { Err(written.problems(problems)) }
    }

    /// True if some source cannot be read again and so needs the journal.
    #[must_use]
    pub fn has_journal(&self) -> bool {
        self.sources.iter().any(PlannedSource::is_journaled)
    }

    /// The number of the table of what could not be used.
    #[must_use]
    pub fn dead_letters_table(&self) -> usize {
        self.tables.iter().position(|t| t.kind == TableKind::DeadLetters).expect("every plan has the table dead_letters")
    }

    /// The table of this name.
    #[must_use]
    pub fn table(&self, name: &str) -> Option<&PlannedTable> {
        self.tables.iter().find(|t| t.name == name)
    }
}

impl PlannedSource {
    /// True if its readings go through the journal; a file or a topic is its own log.
    #[must_use]
    pub fn is_journaled(&self) -> bool {
        matches!(self.kind, Source::Mqtt(_) | Source::Http(_))
    }

    /// The numbers of its connections as producers of the journal; none where it is its own log. They follow from its name alone, so that
    /// other sources may come beside it.
    #[must_use]
    pub fn producers(&self) -> Range<u32> {
        let count = match &self.kind {
            Source::Mqtt(options) => options.connections,
            Source::Http(_) => 1,
            Source::File(_) | Source::Kafka(_) => return 0..0,
        };
        let place = xxh3_64(self.name.as_bytes()) % u64::from(u32::MAX / MOST_CONNECTIONS);
        let first = place as u32 * MOST_CONNECTIONS;
        first..first + count
    }
}

impl PlannedTable {
    /// What storage has to know of it.
    #[must_use]
    pub fn spec(&self) -> TableSpec {
        TableSpec { name: self.name.clone(), schema: self.schema.clone(), key: self.key.clone(), options: self.options.clone() }
    }
}

impl BuildOperator {
    /// Makes a fresh operator. It succeeded once when the plan was made, with the same arguments.
    pub fn build(&self) -> flow::Result<Box<dyn Operator>> {
        (self.0)()
    }
}

impl fmt::Debug for BuildOperator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BuildOperator")
    }
}
