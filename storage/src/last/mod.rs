//! `<table>_last`: the newest row of each key of a table, kept in memory once somebody has asked for it.
//!
//! ```text
//!   first question:  all files, newest first, then the sealed hot rows ──► Newest
//!   every further:   hot rows of the epochs sealed since ─────────────────► Newest      (files, if those have left memory)
//!   each answer:     Newest, and over it the rows of its view that are not sealed yet
//! ```
//! Nothing is kept of a table that nobody asks for. Above `limit` bytes nothing is kept either, and an answer is computed from all rows, as
//! `DISTINCT ON` does: slower, never wrong. When rows have gone for good (past their age, given up, dropped with their day), it begins anew.
//! Filling goes on in a task of its own when the question that began it has run out of time.

mod newest;
mod rule;
#[cfg(test)]
mod tests;

pub(crate) use rule::LastRule;

use crate::epoch::{TableState, Whole};
use crate::hot::HotTable;
use crate::options::TableSpec;
use crate::table::OneTable;
use crate::view::{LaneView, View};
use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::memory::{DataSourceExec, MemorySourceConfig};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{DataFusionError, ScalarValue};
use datafusion::datasource::provider_as_source;
use datafusion::error::Result;
use datafusion::execution::TaskContext;
use datafusion::logical_expr::{BinaryExpr, Expr, LogicalPlanBuilder, Operator, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use datafusion::physical_plan::{ExecutionPlan, SendableRecordBatchStream, execute_stream};
use datafusion::prelude::ident;
use flow::{EVENT_TIME, Lane};
use futures::{StreamExt, TryStreamExt, stream};
use newest::Newest;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::{Mutex, OwnedMutexGuard};

/// Counters of lanes for rows that went for good, as `table.<name>.<word>`: past their age, and set aside by a person. Those of cold days stand
/// in the Delta log (`crate::cold::dropped`).
pub(crate) const REMOVED: [&str; 2] = ["expired", "quarantined"];

/// What is kept of all tables of a process. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct LastRows {
    tables: BTreeMap<String, Arc<Mutex<Kept>>>,
    limit: usize,
}

impl LastRows {
    /// Nothing yet; of each table at most about `limit` bytes will be kept.
    #[must_use]
    pub fn new(specs: &[TableSpec], limit: usize) -> Self {
        let kept = |spec: &TableSpec| (!spec.key.is_empty()).then(|| (spec.name.clone(), Arc::default()));
        Self { tables: specs.iter().filter_map(kept).collect(), limit }
    }

    /// The table of the newest rows of a table in a view; none where it has no key.
    pub(crate) fn table(&self, spec: &TableSpec, view: &Arc<View>) -> Option<LastTable> {
        let kept = self.tables.get(&spec.name)?.clone();
        Some(LastTable {
            table: OneTable::new(spec.clone(), view.clone(), false),
            spec: spec.clone(),
            view: view.clone(),
            kept,
            limit: self.limit,
        })
    }
}

/// What is kept of a table, and of which instant.
#[derive(Debug, Default)]
struct Kept {
    /// None before the first question, and when it would be too much.
    newest: Option<Newest>,
    /// How far each lane is in it: the record, and the moves to cold that were seen.
    lanes: BTreeMap<Lane, (u64, u64)>,
    /// Rows that had gone for good.
    removed: u64,
    is_too_much: bool,
}

/// What is missing in `Kept` of a view.
struct Missing {
    /// All that was kept is of no use.
    anew: bool,
    /// The files with rows that are missing; none without any.
    files: Option<View>,
    /// Sealed rows in memory, oldest first.
    hot: Vec<RecordBatch>,
    /// Kept when they are in it.
    lanes: BTreeMap<Lane, (u64, u64)>,
    removed: u64,
}

impl Kept {
    fn missing(&self, view: &View, table: &str) -> Missing {
        let removed = removed(view, table);
        let moved = |lane: &LaneView| view.moved(table, &lane.lane);
        let from = |lane: &LaneView| self.lanes.get(&lane.lane).copied().unwrap_or_default();
        // Rows that were not seen in memory may be in cold by now.
        let lost = |lane: &LaneView| lane.floor(table) > from(lane).0 + 1 && moved(lane) > from(lane).1;
        let is_behind = |lane: &LaneView| lane.record < from(lane).0;
        let anew = self.newest.is_none() || removed != self.removed || view.lanes.iter().any(|lane| lost(lane) || is_behind(lane));
        let from = |lane: &LaneView| if anew { 0 } else { from(lane).0 };
        let lanes: Vec<LaneView> = view.lanes.iter().filter_map(|lane| files_since(lane, table, from(lane))).collect();
        let cold =
            if anew { view.cold.get(table).map(|cold| (table.to_owned(), cold.clone())).into_iter().collect() } else { BTreeMap::new() };
        let files = (!(lanes.is_empty() && cold.is_empty())).then(|| View { warm: view.warm.clone(), lanes, cold });
        let hot = view.lanes.iter().flat_map(|lane| sealed(lane, table, from(lane))).collect();
        let lanes = view.lanes.iter().map(|lane| (lane.lane.clone(), (lane.record, moved(lane)))).collect();
        Missing { anew, files, hot, lanes, removed }
    }

    /// Takes over what is missing; `files` gives the rows of its files.
    async fn fill(
        &mut self,
        missing: Missing,
        files: Option<Arc<dyn ExecutionPlan>>,
        empty: Newest,
        limit: usize,
        context: Arc<TaskContext>,
    ) -> Result<()> {
        // Until all of it is in, nothing is right.
        let mut newest = self.newest.take().filter(|_| !missing.anew).unwrap_or(empty);
        if let Some(plan) = files {
            let mut rows = execute_stream(plan, context)?;
            while let Some(batch) = rows.next().await {
                newest.put(&batch?, !missing.anew)?;
                if newest.bytes() > limit {
                    break;
                }
            }
        }
        for batch in &missing.hot {
            newest.put(batch, true)?;
        }
        (self.lanes, self.removed) = (missing.lanes, missing.removed);
        self.is_too_much = newest.bytes() > limit;
        self.newest = Some(newest).filter(|_| !self.is_too_much);
        Ok(())
    }
}

/// Rows of the table that have gone for good, as this view knows it.
fn removed(view: &View, table: &str) -> u64 {
    let of = |lane: &LaneView| REMOVED.iter().filter_map(|word| lane.whole.counters.get(&format!("table.{table}.{word}"))).sum::<u64>();
    view.lanes.iter().map(of).sum::<u64>() + view.cold.get(table).map_or(0, |cold| cold.dropped)
}

/// The lane with the table's segments that hold rows of epochs above `from`, if there are any.
fn files_since(lane: &LaneView, table: &str, from: u64) -> Option<LaneView> {
    let of = lane.whole.tables.get(table)?;
    let segments: Vec<_> = of.segments.iter().filter(|s| s.epoch > from && s.epoch < lane.floor(table)).cloned().collect();
    if segments.is_empty() {
        return None;
    }
    let whole = Whole { tables: [(table.to_owned(), TableState { segments, ..of.clone() })].into(), ..Whole::default() };
    let hot = BTreeMap::from([(table.to_owned(), HotTable { floor: lane.floor(table), ..HotTable::default() })]);
    Some(LaneView { whole: Arc::new(whole), hot, provisional: BTreeMap::new(), lane: lane.lane.clone(), owner: None, ..*lane })
}

/// Rows in memory of sealed epochs above `from`.
fn sealed<'a>(lane: &'a LaneView, table: &str, from: u64) -> impl Iterator<Item = RecordBatch> + use<'a> {
    let hot = lane.hot.get(table).into_iter().flat_map(HotTable::by_epoch);
    hot.filter(move |(epoch, _)| *epoch > from && *epoch <= lane.record).map(|(_, batch)| batch.clone())
}

/// Rows of the view that are in no record yet.
fn unsealed(view: &View, table: &str) -> Vec<RecordBatch> {
    let provisional = view.lanes.iter().flat_map(|lane| lane.provisional(table).iter().cloned());
    let open = view.lanes.iter().flat_map(|lane| {
        let hot = lane.hot.get(table).into_iter().flat_map(HotTable::by_epoch);
        hot.filter(|(epoch, _)| *epoch > lane.record).map(|(_, batch)| batch.clone())
    });
    provisional.chain(open).collect()
}

/// `<table>_last` in one view.
#[derive(Debug)]
pub(crate) struct LastTable {
    /// The whole table, of the same columns.
    table: OneTable,
    spec: TableSpec,
    view: Arc<View>,
    kept: Arc<Mutex<Kept>>,
    limit: usize,
}

impl LastTable {
    /// The columns of which each row has other values.
    pub(crate) fn key(&self) -> &[String] {
        &self.spec.key
    }

    /// What is kept, up to the view.
    async fn caught_up(&self, state: &dyn Session) -> Result<OwnedMutexGuard<Kept>> {
        let mut kept = self.kept.clone().lock_owned().await;
        if kept.is_too_much && removed(&self.view, &self.spec.name) == kept.removed {
            return Ok(kept);
        }
        let missing = kept.missing(&self.view, &self.spec.name);
        let files = match &missing.files {
            Some(files) => {
                let table = OneTable::new(self.spec.clone(), Arc::new(files.clone()), false);
                Some(table.scan(state, None, &[], None).await?)
            }
            None => None,
        };
        let (empty, limit, context) = (self.empty()?, self.limit, state.task_ctx());
        let filling = tokio::spawn(async move { kept.fill(missing, files, empty, limit, context).await.map(|()| kept) });
        filling.await.map_err(|e| DataFusionError::External(e.into()))?
    }

    fn empty(&self) -> Result<Newest> {
        Ok(Newest::new(&self.schema(), &self.spec.key)?)
    }

    /// The rows, or those of one key where the filters name it; none when they are not kept.
    async fn rows(&self, state: &dyn Session, filters: &[Expr]) -> Result<Option<Vec<RecordBatch>>> {
        let kept = self.caught_up(state).await?;
        let Some(newest) = &kept.newest else { return Ok(None) };
        let mut over = self.empty()?;
        for batch in unsealed(&self.view, &self.spec.name) {
            over.put(&batch, true)?;
        }
        Ok(Some(match self.one_key(filters) {
            Some(key) => newest.one(&key, &over)?.into_iter().collect(),
            None => newest.all(&over)?,
        }))
    }

    /// The key that filters of the form `column = value` name.
    fn one_key(&self, filters: &[Expr]) -> Option<Vec<ArrayRef>> {
        let value = |name: &String| {
            let of = self.spec.schema.field_with_name(name).ok()?.data_type().clone();
            filters.iter().find_map(|filter| equals(filter, name)).filter(|v| v.data_type() == of)?.to_array().ok()
        };
        self.spec.key.iter().map(value).collect()
    }

    /// The rows as they are computed from the whole table.
    async fn computed(&self, state: &dyn Session) -> Result<Arc<dyn ExecutionPlan>> {
        let whole = OneTable::new(self.spec.clone(), self.view.clone(), false).unreplaced();
        let whole = provider_as_source(Arc::new(whole));
        let key: Vec<Expr> = self.spec.key.iter().map(ident).collect();
        let order = key.iter().map(|column| column.clone().sort(true, true)).chain([ident(EVENT_TIME).sort(false, true)]).collect();
        let columns = self.spec.schema.fields().iter().map(|f| ident(f.name())).collect();
        let plan = LogicalPlanBuilder::scan(&self.spec.name, whole, None)?.distinct_on(key, columns, Some(order))?.build()?;
        state.create_physical_plan(&plan).await
    }
}

/// The value that a filter says a column has.
fn equals<'a>(filter: &'a Expr, name: &str) -> Option<&'a ScalarValue> {
    let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) = filter else { return None };
    match (left.as_ref(), right.as_ref()) {
        (Expr::Column(column), Expr::Literal(value, _)) | (Expr::Literal(value, _), Expr::Column(column)) if column.name == name => {
            Some(value).filter(|v| !v.is_null())
        }
        _ => None,
    }
}

/// Rows that are computed from the whole table; an aggregate's columns may be null as far as it knows, and these are not.
#[derive(Debug)]
struct Computed {
    schema: SchemaRef,
    plan: Arc<dyn ExecutionPlan>,
}

impl PartitionStream for Computed {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let schema = self.schema.clone();
        let again = move |batch: RecordBatch| Ok(RecordBatch::try_new(schema.clone(), batch.columns().to_vec())?);
        let rows = stream::once(std::future::ready(execute_stream(self.plan.clone(), context))).try_flatten();
        Box::pin(RecordBatchStreamAdapter::new(self.schema.clone(), rows.map(move |batch| batch.and_then(&again))))
    }
}

#[async_trait]
impl TableProvider for LastTable {
    fn schema(&self) -> SchemaRef {
        self.table.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        _: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match self.rows(state, filters).await? {
            Some(rows) => {
                let source = MemorySourceConfig::try_new(&[rows], self.schema(), projection.cloned())?;
                Ok(DataSourceExec::from_data_source(source))
            }
            None => {
                let rows = Arc::new(Computed { schema: self.schema(), plan: self.computed(state).await? });
                Ok(Arc::new(StreamingTableExec::try_new(self.schema(), vec![rows], projection, [], false, None)?))
            }
        }
    }
}
