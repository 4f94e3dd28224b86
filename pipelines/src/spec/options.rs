//! The options of a pipeline, as its file says them. Parts belong to the rooms that obey them and are only composed here.

use super::trial::TestOptions;
use crate::relay::KafkaSinkOptions;
use crate::units::{Size, Time};
use indexmap::IndexMap;
use ingest::Secret;
use ingest::decode::{Columns, DecodeOptions};
use ingest::file::FileOptions;
use ingest::http::HttpSourceOptions;
use ingest::journal::JournalOptions;
use ingest::kafka::KafkaOptions;
use ingest::lookup::LookupOptions;
use ingest::mqtt::MqttOptions;
use processors::alert::AlertOptions;
use processors::anomaly::AnomalyOptions;
use processors::deadband::DeadbandOptions;
use processors::dedupe::DedupeOptions;
use processors::enrich::EnrichOptions;
use processors::filter::FilterOptions;
use processors::join::JoinOptions;
use processors::map::MapOptions;
use processors::presence::PresenceOptions;
use processors::rate::RateOptions;
use processors::route::RouteOptions;
use processors::union::UnionOptions;
use processors::watermark::WatermarkOptions;
use processors::window::WindowOptions;
use schemars::JsonSchema;
use serde::Deserialize;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::time::Duration;
use storage::TableOptions;

/// The keys that all sources have, beside those of their type.
pub(crate) const SOURCE_KEYS: [&str; 6] = ["decode", "columns", "key", "watermark", "max_message", "on_error"];
/// The keys that `[dead_letters]` has beside those of a table.
pub(crate) const DEAD_LETTER_KEYS: [&str; 2] = ["max_per_second", "payload"];
/// The kinds of sources.
pub(crate) const SOURCE_TYPES: [&str; 4] = ["mqtt", "file", "kafka", "http"];
/// The kinds of sinks.
pub(crate) const SINK_TYPES: [&str; 1] = ["kafka"];
/// The kinds of processors.
pub(crate) const PROCESSOR_TYPES: [&str; 13] =
    ["filter", "map", "dedupe", "window", "route", "union", "join", "deadband", "rate", "alert", "presence", "anomaly", "enrich"];

/// Everything a pipeline's file says.
#[derive(Clone, Debug)]
pub struct Spec {
    /// `[pipeline]`
    pub pipeline: PipelineOptions,
    /// `[journal]`
    pub journal: JournalOptions,
    /// `[sources.X]`, in the order of the file.
    pub sources: IndexMap<String, SourceSpec>,
    /// `[lookups.X]`, in the order of the file.
    pub lookups: IndexMap<String, LookupOptions>,
    /// `[processors.X]`, in the order of the file.
    pub processors: IndexMap<String, ProcessorSpec>,
    /// `[tables.X]`, in the order of the file.
    pub tables: IndexMap<String, TableSpec>,
    /// `[sinks.X]`, in the order of the file.
    pub sinks: IndexMap<String, SinkSpec>,
    /// `[dead_letters]`
    pub dead_letters: DeadLetters,
    /// `[http]`
    pub http: HttpOptions,
    /// `[observability]`
    pub observability: ObservabilityOptions,
    /// `[limits]`
    pub limits: LimitOptions,
    /// `[[tests]]`, in the order of the file.
    pub tests: Vec<TestOptions>,
}

/// The pipeline as a whole.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PipelineOptions {
    /// The pipeline's name: lower-case letters, digits and `_`.
    pub name: String,
    /// Folder of the journal, the epoch records and the warm tier. Relative to the working directory.
    #[serde(default = "data_dir")]
    pub data_dir: String,
    /// Several processes, on one machine or many, run this pipeline on one data directory and share its lanes: each partition of a Kafka topic
    /// is read by one of them, and goes to another when that one leaves or dies. For Kafka sources alone; the directory's file system must
    /// have hard links and locks that reach over the machines.
    #[serde(default)]
    pub shared: bool,
    /// How many lanes readings are spread over by their key. Fixed at the first start.
    #[serde(default = "lanes")]
    pub lanes: NonZeroU32,
    /// How often a lane seals what it has: `"5s"`. After a crash at most this much is read again.
    #[serde(default = "epoch")]
    pub epoch: Time,
    /// Time zone of what is shown to people.
    #[serde(default = "timezone")]
    pub timezone: String,
}

/// A source: what all have, and what its type has.
#[derive(Clone, Debug)]
pub struct SourceSpec {
    /// What all sources have.
    pub common: SourceCommon,
    /// What its type has.
    pub source: Source,
}

/// The options of a source's type.
#[derive(Clone, Debug)]
pub enum Source {
    /// `type = "mqtt"`
    Mqtt(Box<MqttOptions>),
    /// `type = "file"`
    File(FileOptions),
    /// `type = "kafka"`
    Kafka(Box<KafkaOptions>),
    /// `type = "http"`
    Http(HttpSourceOptions),
}

/// What all sources have.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SourceCommon {
    /// How messages become rows.
    pub decode: DecodeOptions,
    /// The columns of its rows, beside those captured from topics.
    #[serde(default)]
    #[schemars(with = "std::collections::BTreeMap<String, ingest::decode::ColumnOptions>")]
    pub columns: Columns,
    /// The columns that name a device: its readings stay in order. Never null.
    pub key: Vec<String>,
    /// How far readings may be out of order, and when silence counts as progress.
    #[serde(default)]
    pub watermark: WatermarkOptions,
    /// A larger message is a dead letter.
    #[serde(default = "max_message")]
    pub max_message: Size,
    /// What to do with a message that cannot be read.
    #[serde(default)]
    pub on_error: OnError,
}

/// What to do with a message that cannot be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnError {
    /// Put it aside in the table `dead_letters` and go on.
    #[default]
    DeadLetter,
}

/// A processor: what it reads, and what its type has.
#[derive(Clone, Debug)]
pub struct ProcessorSpec {
    /// Names of sources and processors.
    pub inputs: Vec<String>,
    /// What its type has.
    pub processor: Processor,
}

/// The options of a processor's type.
#[derive(Clone, Debug)]
pub enum Processor {
    /// `type = "filter"`
    Filter(FilterOptions),
    /// `type = "map"`
    Map(MapOptions),
    /// `type = "dedupe"`
    Dedupe(DedupeOptions),
    /// `type = "window"`
    Window(WindowOptions),
    /// `type = "route"`
    Route(RouteOptions),
    /// `type = "union"`
    Union(UnionOptions),
    /// `type = "join"`
    Join(JoinOptions),
    /// `type = "deadband"`
    Deadband(DeadbandOptions),
    /// `type = "rate"`
    Rate(RateOptions),
    /// `type = "alert"`
    Alert(AlertOptions),
    /// `type = "presence"`
    Presence(PresenceOptions),
    /// `type = "anomaly"`
    Anomaly(AnomalyOptions),
    /// `type = "enrich"`
    Enrich(EnrichOptions),
}

/// A table: what it reads, and its tiers.
#[derive(Clone, Debug)]
pub struct TableSpec {
    /// Names of sources and processors.
    pub inputs: Vec<String>,
    /// Its tiers.
    pub options: TableOptions,
}

/// A sink: what it publishes, and where.
#[derive(Clone, Debug)]
pub struct SinkSpec {
    /// Names of sources and processors, or `tidegate.moves` alone.
    pub inputs: Vec<String>,
    /// `type = "kafka"`
    pub options: KafkaSinkOptions,
}

/// The key `inputs`, which processors, tables and sinks have.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Inputs {
    /// Names of sources and processors that it reads. A sink with `["tidegate.moves"]` is told of rows that have gone to the cold tier.
    pub inputs: Vec<String>,
}

/// The table of what could not be used.
#[derive(Clone, Debug, Default)]
pub struct DeadLetters {
    /// Its bounds.
    pub options: DeadLetterOptions,
    /// Its tiers.
    pub table: TableOptions,
}

/// The bounds of the table of what could not be used.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DeadLetterOptions {
    /// How many a second are kept for each reason; the rest is only counted. A device in a loop must not fill the disk.
    pub max_per_second: u32,
    /// How much of a message is kept.
    pub payload: Size,
}

/// The HTTP interface.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HttpOptions {
    /// Address to listen on; port 0 takes a free one. The address is written to `data_dir/instance.json`.
    pub listen: SocketAddr,
    /// Who sends this token (`Authorization: Bearer …`) may ask and send. Without it nobody is asked, and the address must be a loopback one.
    /// `tidegate sql` and `tidegate verify` send it where they know the pipeline, else what stands in the environment variable TIDEGATE_TOKEN.
    pub token: Option<Secret>,
    /// Who sends this one may only send readings: for devices.
    pub ingest_token: Option<Secret>,
}

/// What can be seen from outside.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ObservabilityOptions {
    /// Address of the Prometheus endpoint; port 0 takes a free one.
    pub metrics: SocketAddr,
    /// What is logged: a level, or directives such as `info,ingest=debug`. The environment variable TIDEGATE_LOG goes before it.
    pub log: String,
}

/// Bounds of queries.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LimitOptions {
    /// Memory of the lanes: hot rows of all tables, operators' state, and what is not written yet. Hot rows leave early when it is short.
    pub memory: Size,
    /// Memory in which the newest row of each key of a table is kept once `<table>_last` was asked for. Above it every answer is computed from
    /// all rows.
    pub last_rows: Size,
    /// Memory of all queries together.
    pub query_memory: Size,
    /// How long a query may take.
    pub query_time: Time,
    /// How many rows a query may answer.
    pub query_rows: u64,
    /// How many queries run at once.
    pub query_concurrency: NonZeroU32,
    /// Below so many free bytes on the disk rows go to cold before their age.
    pub free_disk: Size,
}

fn data_dir() -> String {
    "data".into()
}

fn lanes() -> NonZeroU32 {
    const { NonZeroU32::new(4).expect("4 is not 0") }
}

fn epoch() -> Time {
    Time(Duration::from_secs(5))
}

fn timezone() -> String {
    "UTC".into()
}

/// What Kafka and most brokers' clients call a large message, with room to spare: a reading has about 100 bytes.
fn max_message() -> Size {
    Size(128 << 10)
}

impl Default for DeadLetterOptions {
    fn default() -> Self {
        Self { max_per_second: 1_000, payload: Size(64 << 10) }
    }
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 0)), token: None, ingest_token: None }
    }
}

impl Default for ObservabilityOptions {
    fn default() -> Self {
        Self { metrics: SocketAddr::from(([127, 0, 0, 1], 9464)), log: "info".into() }
    }
}

impl Default for LimitOptions {
    fn default() -> Self {
        Self {
            memory: Size(1 << 30),
            last_rows: Size(128 << 20),
            query_memory: Size(512 << 20),
            query_time: Time(Duration::from_secs(30)),
            query_rows: 1_000_000,
            query_concurrency: const { NonZeroU32::new(4).expect("4 is not 0") },
            free_disk: Size(1 << 30),
        }
    }
}
