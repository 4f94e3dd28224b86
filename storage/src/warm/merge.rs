//! Compaction: segments of one table merged into sorted runs, row group by row group, so that memory does not grow with the rows.

use super::RUN_LEVEL;
use super::input::read;
use super::output::Output;
use super::policy::Due;
use crate::epoch::Segment;
use crate::options::TableSpec;
use arrow::array::{AsArray, BooleanArray, RecordBatch, TimestampMicrosecondArray, new_null_array};
use arrow::compute::filter_record_batch;
use arrow::compute::kernels::cmp;
use arrow::datatypes::{SchemaRef, TimestampMicrosecondType};
use arrow::error::ArrowError;
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, UnboundedMemoryPool};
use datafusion::physical_expr::expressions::col;
use datafusion::physical_expr::{LexOrdering, PhysicalSortExpr};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet};
use datafusion::physical_plan::sorts::streaming_merge::StreamingMergeBuilder;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use flow::{EVENT_TIME, Error, Remedy, Result};
use futures::StreamExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use world::{Disk, Point, reach};

/// Rows that are read of a segment and merged at once: with `policy::MOST_INPUTS` segments some tens of megabytes.
const ROWS: usize = 4096;

/// What a merge reads and writes.
pub struct Merge<'a> {
    /// Where the files lie.
    pub disk: &'a dyn Disk,
    /// Folder of the warm tier.
    pub warm: &'a Path,
    /// The table.
    pub spec: &'a TableSpec,
    /// What is merged.
    pub due: &'a Due,
    /// Names for the two runs that may come of it.
    pub names: [String; 2],
    /// The merge ends without a result when this becomes true.
    pub stop: &'a AtomicBool,
}

impl Merge<'_> {
    /// Merges the segments into one run of the partition, and one of earlier rows if there are any; durable, and named by no record yet.
    /// Rows equal in key and time keep the order of their epochs. An error leaves nothing behind but what may have got its name.
    pub fn run(&self) -> Result<Vec<Segment>> {
        let mut inputs: Vec<&Segment> = self.due.segments.iter().collect();
        inputs.sort_by_key(|s| s.epoch);
        let dir = self.warm.join(&self.spec.name);
        let merged = self.merged(&inputs)?;
        let runs = futures::executor::block_on(self.written(merged, &dir))?;
        let rows: u64 = runs.iter().map(|run| run.rows()).sum();
        let expected: u64 = inputs.iter().map(|s| s.rows).sum();
        if rows != expected {
            let what = format!("compaction of table {} made {rows} rows of {expected}", self.spec.name);
            return Err(Error::new(Remedy::Stop, what));
        }
        let epoch = inputs.iter().map(|s| s.epoch).max().unwrap_or_default();
        let done = runs.into_iter().map(|run| run.finish(epoch)).collect();
        reach(Point::CompactionWritten);
        done
    }

    fn merged(&self, inputs: &[&Segment]) -> Result<SendableRecordBatchStream> {
        let schema = self.spec.schema.clone();
        let streams = inputs.iter().map(|segment| self.stream(segment)).collect::<Result<Vec<_>>>()?;
        let sorted = self.spec.key.iter().map(String::as_str).chain([EVENT_TIME]);
        let sorted = sorted.map(|name| Ok(PhysicalSortExpr::new_default(col(name, &schema)?)));
        let order = sorted.collect::<Result<Vec<_>, DataFusionError>>().map_err(|e| self.failed(e))?;
        let order = LexOrdering::new(order).expect("every table is sorted by its event time");
        let pool: Arc<dyn MemoryPool> = Arc::new(UnboundedMemoryPool::default());
        StreamingMergeBuilder::new()
            .with_streams(streams)
            .with_schema(schema)
            .with_expressions(&order)
            .with_metrics(BaselineMetrics::new(&ExecutionPlanMetricsSet::new(), 0))
            .with_batch_size(ROWS)
            .with_reservation(MemoryConsumer::new("compaction").register(&pool))
            .with_round_robin_tie_breaker(false)
            .build()
            .map_err(|e| self.failed(e))
    }

    fn stream(&self, segment: &Segment) -> Result<SendableRecordBatchStream> {
        let batches = read(self.disk, self.warm, &self.spec.name, segment, ROWS)?;
        let schema = self.spec.schema.clone();
        let conformed = {
            let schema = schema.clone();
            batches.map(move |batch| conformed(&batch?, &schema).map_err(DataFusionError::from))
        };
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, futures::stream::iter(conformed))))
    }

    async fn written(&self, mut merged: SendableRecordBatchStream, dir: &Path) -> Result<Vec<Output<'_>>> {
        let mut runs: [Option<Output>; 2] = [None, None];
        while let Some(rows) = merged.next().await {
            if self.stop.load(Ordering::Relaxed) {
                return Err(Error::new(Remedy::Retry, format!("the compaction of table {} was stopped", self.spec.name)));
            }
            let parts = split(rows.map_err(|e| self.failed(e))?, self.due.start).map_err(|e| self.failed(e.into()))?;
            for ((run, name), part) in runs.iter_mut().zip(&self.names).zip(parts) {
                if part.num_rows() == 0 {
                    continue;
                }
                if run.is_none() {
                    *run = Some(Output::begin(self.disk, dir, name, self.spec, RUN_LEVEL)?);
                }
                run.as_mut().expect("begun above").write(&part)?;
            }
        }
        Ok(runs.into_iter().flatten().collect())
    }

    fn failed(&self, error: DataFusionError) -> Error {
        Error::retry(format!("merging segments of table {}", self.spec.name), error)
    }
}

/// The rows from a time on, and those before it.
fn split(rows: RecordBatch, start: i64) -> Result<[RecordBatch; 2], ArrowError> {
    let times = rows.column_by_name(EVENT_TIME).expect("every table has an event time");
    if times.as_primitive::<TimestampMicrosecondType>().values().iter().all(|t| *t >= start) {
        let none = rows.slice(0, 0);
        return Ok([rows, none]);
    }
    let start = TimestampMicrosecondArray::new_scalar(start).into_inner().with_timezone("UTC");
    let since: BooleanArray = cmp::gt_eq(times, &arrow::array::Scalar::new(start))?;
    let before = arrow::compute::not(&since)?;
    Ok([filter_record_batch(&rows, &since)?, filter_record_batch(&rows, &before)?])
}

/// Rows with the columns of today's table: one that the segment lacks is null.
pub(super) fn conformed(rows: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    if rows.schema_ref() == schema {
        return Ok(rows.clone());
    }
    let column = |field: &Arc<arrow::datatypes::Field>| {
        rows.column_by_name(field.name()).cloned().unwrap_or_else(|| new_null_array(field.data_type(), rows.num_rows()))
    };
    RecordBatch::try_new(schema.clone(), schema.fields().iter().map(column).collect())
}
