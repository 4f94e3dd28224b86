//! `tidegate lanes`: which process has each lane, how far it has taken its log, and how much of a topic is still before it.

use crate::cli::{LanesArguments, SqlArguments};
use crate::plan::Plan;
use crate::run::{ask, kafka};
use crate::spec::Source;
use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, Field, Schema, UInt64Type};
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamReader;
use flow::{Error, Result};
use gateway::format::{Format, render};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A row for each log of each lane.
const LANES: &str = "SELECT l.lane, l.owner, e.log, e.next, l.record, l.watermark, l.hot_rows, l.segments \
                     FROM tidegate.lanes l LEFT JOIN tidegate.epochs e ON e.lane = l.lane ORDER BY l.lane, e.log";

/// Shows the lanes on stdout.
pub(crate) async fn lanes(plan: Option<Plan>, arguments: &LanesArguments) -> Result<()> {
    let LanesArguments { config, data_dir, url, format } = arguments.clone();
    let plan = match (plan, &url) {
        (None, None) => Some(ask::kept(&ask::data_dir(None, data_dir.as_deref()))?),
        (plan, _) => plan,
    };
    let question = SqlArguments { config, data_dir, url, format, sql: LANES.to_owned() };
    let answer = ask::answer(plan.clone(), &question, Format::Arrow).await?;
    let asking = tokio::task::spawn_blocking(move || with_lag(&answer, plan.as_ref()));
    let rows = asking.await.map_err(|e| Error::stop("asking brokers broke off", e))?;
    let rows = rows.map_err(|e| Error::stop("reading the lanes", e))?;
    let text = render(ask::form(format), &rows.schema(), std::slice::from_ref(&rows));
    ask::show(&text.map_err(|e| Error::stop("writing the answer", e))?)
}

/// The rows with one more column: how many offsets of its topic a lane has not sealed. Null for what is no topic, and where nobody can be asked.
fn with_lag(answer: &[u8], plan: Option<&Plan>) -> Result<RecordBatch, ArrowError> {
    let reader = StreamReader::try_new(answer, None)?;
    let schema = reader.schema();
    let rows = concat_batches(&schema, &reader.collect::<Result<Vec<_>, _>>()?)?;
    let text = |name: &str| cast(rows.column_by_name(name).expect("we asked for it"), &DataType::Utf8);
    let (lanes, logs) = (text("lane")?, text("log")?);
    let next = cast(rows.column_by_name("next").expect("we asked for it"), &DataType::UInt64)?;
    let names: Vec<String> = lanes.as_string::<i32>().iter().flatten().map(str::to_owned).collect();
    let ends = plan.map(|plan| ends(plan, &names)).unwrap_or_default();
    let of = lanes.as_string::<i32>().iter().zip(logs.as_string::<i32>()).zip(next.as_primitive::<UInt64Type>());
    let lag = of.map(|((lane, log), next)| {
        let end = ends.get(&(lane?.to_owned(), log?.to_owned()))?;
        Some(i64::try_from(end.saturating_sub(next?)).unwrap_or(i64::MAX))
    });
    let lag: ArrayRef = Arc::new(lag.collect::<Int64Array>());
    let at = schema.index_of("next")? + 1;
    let (mut fields, mut columns) = (schema.fields().to_vec(), rows.columns().to_vec());
    fields.insert(at, Arc::new(Field::new("lag", DataType::Int64, true)));
    columns.insert(at, lag);
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)
}

/// Where the log of each lane of a topic ends, by lane and log. Of a source whose brokers do not answer there is nothing.
fn ends(plan: &Plan, lanes: &[String]) -> BTreeMap<(String, String), u64> {
    let mut all = BTreeMap::new();
    for source in &plan.sources {
        let Source::Kafka(options) = &source.kind else { continue };
        let partitions = kafka::known(&source.name, lanes);
        if partitions.is_empty() {
            continue;
        }
        let asked: Vec<_> = partitions.iter().map(|of| (of.topic.clone(), of.partition)).collect();
        match ingest::kafka::ends(options, &asked) {
            Ok(ends) => all.extend(partitions.iter().zip(ends).filter_map(|(of, end)| {
                let log = ingest::kafka::log_name(&of.topic, of.partition).to_string();
                Some(((kafka::lane_name(&source.name, of), log), end?))
            })),
            Err(error) => ask::note(&format!("tidegate: how far `{}` is behind is not known: {error}\n", source.name)),
        }
    }
    all
}
