//! A table as SQL sees it: hot batches, warm segments and cold files as one, each row once.
//!
//! Filters go down inexactly: pieces are left out by event time and key, Parquet does the rest by row group and page, and by row where
//! that pays.
//! Row counts and the range of event times are exact without a filter, so `count(*)` reads no file.

use crate::epoch::Segment;
use crate::options::TableSpec;
use crate::prune::{Extent, may_hold};
use crate::view::{LaneView, View};
use crate::warm::{segment_path, text_key, time_range};
use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::memory::{DataSourceExec, MemorySourceConfig};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::config::TableParquetOptions;
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DataFusionError, ScalarValue, Statistics};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::CachedParquetFileReaderFactory;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::error::Result;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType, cast, lit};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{CastExpr, Column, Literal};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};
use datafusion::physical_plan::union::UnionExec;
use flow::EVENT_TIME;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The column that names a row's tier, in the schema `tiers`.
pub const TIER: &str = "_tier";

/// One table of a view.
#[derive(Debug)]
pub struct OneTable {
    spec: TableSpec,
    view: Arc<View>,
    schema: SchemaRef,
    /// Its rows have its own columns only, and somebody may ask for the newest ones.
    has_last: bool,
    pruned: AtomicU64,
}

impl OneTable {
    /// The table with its own columns; with `tiers` also `_tier`, which is `hot`, `warm`, `cold`, or `provisional` for windows that may
    /// still be revised.
    #[must_use]
    pub fn new(spec: TableSpec, view: Arc<View>, tiers: bool) -> Self {
        // Delta keeps every column nullable, and the plan may not promise more than its coldest part.
        let is_nullable = |f: &Arc<Field>| f.is_nullable() || spec.options.cold.is_some();
        let mut fields: Vec<_> = spec.schema.fields().iter().map(|f| Arc::new(f.as_ref().clone().with_nullable(is_nullable(f)))).collect();
        if tiers {
            fields.push(Arc::new(Field::new(TIER, DataType::Utf8, false)));
        }
        let schema = Arc::new(Schema::new(fields));
        Self { spec, view, schema, has_last: !tiers, pruned: AtomicU64::new(0) }
    }

    /// The same, and no rule puts `<table>_last` in its place.
    pub(crate) fn unreplaced(self) -> Self {
        Self { has_last: false, ..self }
    }

    /// The table's name, where `<table>_last` may stand in its place.
    pub(crate) fn with_last(&self) -> Option<&str> {
        self.has_last.then_some(self.spec.name.as_str())
    }

    /// Segments and batches that scans have left out so far because of their filters.
    pub fn pruned(&self) -> u64 {
        self.pruned.load(Relaxed)
    }

    /// The filters on the table's own columns.
    fn own<'a>(&self, filters: &'a [Expr]) -> impl Iterator<Item = &'a Expr> + use<'a> {
        filters.iter().filter(|f| !f.column_refs().iter().any(|c| c.name == TIER))
    }

    /// Leaves out the pieces that cannot hold a row that passes.
    fn prune<T>(&self, state: &dyn Session, filters: &[Expr], pieces: Vec<T>, extent: impl Fn(&T) -> Extent) -> Result<Vec<T>> {
        if pieces.is_empty() || filters.is_empty() {
            return Ok(pieces);
        }
        let extents: Vec<_> = pieces.iter().map(extent).collect();
        let keep = may_hold(state, &self.spec.schema, text_key(&self.spec), filters, &extents)?;
        let before = pieces.len();
        let kept: Vec<T> = pieces.into_iter().zip(keep).filter_map(|(piece, keep)| keep.then_some(piece)).collect();
        self.pruned.fetch_add((before - kept.len()) as u64, Relaxed);
        Ok(kept)
    }

    /// Rows in memory: of each lane those that `of` gives.
    fn memory(
        &self,
        state: &dyn Session,
        columns: &[usize],
        filters: &[Expr],
        of: fn(&LaneView, &str) -> Vec<RecordBatch>,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let batches: Vec<RecordBatch> = self.view.lanes.iter().flat_map(|lane| of(lane, &self.spec.name)).collect();
        let extent = |b: &RecordBatch| Extent { rows: b.num_rows() as u64, times: time_range(b).unwrap_or_default(), keys: None };
        let batches = self.prune(state, filters, batches, extent)?;
        if batches.is_empty() {
            return Ok(None);
        }
        let source = MemorySourceConfig::try_new(&[batches], self.spec.schema.clone(), Some(columns.to_vec()))?;
        Ok(Some(DataSourceExec::from_data_source(source)))
    }

    fn warm(
        &self,
        state: &dyn Session,
        columns: &[usize],
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let name = &self.spec.name;
        let segments: Vec<&Segment> = self.view.lanes.iter().flat_map(|l| l.segments(name, self.view.moved(name, &l.lane))).collect();
        let mut segments = self.prune(state, filters, segments, |s| extent(s))?;
        // Whoever wants the newest rows finds them first, and then leaves out the files that have none as new (TopK's dynamic filter).
        segments.sort_by_key(|s| std::cmp::Reverse(s.max_time));
        if segments.is_empty() {
            return Ok(None);
        }
        let each: Vec<Statistics> = segments.iter().map(|s| self.statistics_of(s)).collect();
        let total = Statistics::try_merge_iter(&each, &self.spec.schema)?;
        let mut groups = vec![(0, FileGroup::default()); state.config().target_partitions().min(segments.len())];
        for segment in &segments {
            let least = groups.iter_mut().min_by_key(|(bytes, _)| *bytes).expect("there is at least one segment");
            least.0 += segment.bytes;
            least.1.push(self.file(segment)?);
        }
        let groups = groups.into_iter().map(|(_, group)| group).collect();
        let parquet = TableParquetOptions { global: state.config_options().execution.parquet.clone(), ..Default::default() };
        // A segment never changes under its name, so its footer is read once.
        let (runtime, url) = (state.runtime_env(), ObjectStoreUrl::local_filesystem());
        let footers = CachedParquetFileReaderFactory::new(runtime.object_store(&url)?, runtime.cache_manager.get_file_metadata_cache());
        let source = ParquetSource::new(self.spec.schema.clone())
            .with_table_parquet_options(parquet)
            .with_parquet_file_reader_factory(Arc::new(footers))
            .with_pushdown_filters(self.is_selective(filters))
            .with_reorder_filters(true);
        let config = FileScanConfigBuilder::new(url, Arc::new(source))
            .with_file_groups(groups)
            .with_statistics(total)
            .with_limit(limit)
            .with_projection_indices(Some(columns.to_vec()))?
            .build();
        Ok(Some(DataSourceExec::from_data_source(config)))
    }

    /// Whether rows should be left out while they are decoded. That pays where the rows that pass stand together: files are sorted by key
    /// and time. Rows that pass here and there cost more to step over than to decode. Where there are no filters, those of the newest rows may
    /// still come while the query runs.
    fn is_selective(&self, filters: &[Expr]) -> bool {
        let is_sorted = |name: &String| name == EVENT_TIME || self.spec.key.contains(name);
        filters.is_empty() || filters.iter().any(|filter| filter.column_refs().iter().any(|column| is_sorted(&column.name)))
    }

    fn file(&self, segment: &Segment) -> Result<PartitionedFile> {
        let path = std::path::absolute(segment_path(&self.view.warm, &self.spec.name, &segment.file))?;
        let location = object_store::path::Path::from_absolute_path(&path).map_err(|e| DataFusionError::External(Box::new(e)))?;
        let meta =
            object_store::ObjectMeta { location, last_modified: Default::default(), size: segment.bytes, e_tag: None, version: None };
        Ok(PartitionedFile::new_from_meta(meta).with_statistics(Arc::new(self.statistics_of(segment))))
    }

    fn statistics_of(&self, segment: &Segment) -> Statistics {
        let mut statistics = Statistics::new_unknown(&self.spec.schema).with_num_rows(Precision::Exact(segment.rows as usize));
        statistics.total_byte_size = Precision::Inexact(segment.bytes as usize);
        if let Ok(time) = self.spec.schema.index_of(EVENT_TIME) {
            let exact = |t| Precision::Exact(ScalarValue::TimestampMicrosecond(Some(t), Some("UTC".into())));
            let column = &mut statistics.column_statistics[time];
            (column.min_value, column.max_value) = (exact(segment.min_time), exact(segment.max_time));
            column.null_count = Precision::Exact(0);
        }
        statistics
    }

    /// The cold files, their columns found by name and cast to the table's types. One that the cold table does not have yet is null.
    async fn cold(
        &self,
        state: &dyn Session,
        columns: &[usize],
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let Some(cold) = self.view.cold.get(&self.spec.name) else { return Ok(None) };
        let theirs = cold.provider.schema();
        let there = |c: usize| theirs.index_of(self.spec.schema.field(c).name()).ok();
        let places: Vec<usize> = columns.iter().filter_map(|&c| there(c)).collect();
        let filters = filters.iter().map(|f| self.translated(f, &theirs)).collect::<Result<Vec<_>>>()?;
        let plan = cold.provider.scan(state, Some(&places), &filters, limit).await?;
        let mut read = 0..;
        let expressions = columns.iter().map(|&c| {
            let field = self.spec.schema.field(c);
            let Some(at) = there(c).and_then(|_| read.next()) else {
                return Ok(Arc::new(Literal::new(ScalarValue::try_from(field.data_type())?)) as Arc<dyn PhysicalExpr>);
            };
            let (theirs, column) = (plan.schema().field(at).clone(), Arc::new(Column::new(plan.schema().field(at).name(), at)));
            let same = theirs.data_type() == field.data_type();
            Ok(if same { column as Arc<dyn PhysicalExpr> } else { Arc::new(CastExpr::new(column, field.data_type().clone(), None)) })
        });
        let expressions = expressions.collect::<Result<Vec<_>>>()?;
        if expressions.iter().all(|e| e.is::<Column>()) {
            return Ok(Some(plan));
        }
        let named =
            expressions.into_iter().zip(columns).map(|(expr, &c)| ProjectionExpr { expr, alias: self.spec.schema.field(c).name().clone() });
        Ok(Some(Arc::new(ProjectionExec::try_new(named.collect::<Vec<_>>(), plan)?)))
    }

    /// A filter for a provider whose columns may be of other types, or not be there: those are null.
    fn translated(&self, filter: &Expr, theirs: &SchemaRef) -> Result<Expr> {
        let adapt = |e: Expr| {
            let Expr::Column(column) = &e else { return Ok(Transformed::no(e)) };
            let own = self.spec.schema.field_with_name(&column.name)?;
            let Ok(their) = theirs.field_with_name(&column.name) else {
                return Ok(Transformed::yes(lit(ScalarValue::try_from(own.data_type())?)));
            };
            Ok(if own.data_type() == their.data_type() { Transformed::no(e) } else { Transformed::yes(cast(e, own.data_type().clone())) })
        };
        Ok(filter.clone().transform_up(adapt)?.data)
    }

    /// The columns asked for, with the tier's name where `_tier` stands.
    fn labelled(&self, plan: Arc<dyn ExecutionPlan>, wanted: &[usize], tier: &str) -> Result<Arc<dyn ExecutionPlan>> {
        let place = self.spec.schema.fields().len();
        if !wanted.contains(&place) {
            return Ok(plan);
        }
        let mut next = 0;
        let mut expressions = Vec::with_capacity(wanted.len());
        for &column in wanted {
            let expr: Arc<dyn PhysicalExpr> = if column == place {
                Arc::new(Literal::new(ScalarValue::Utf8(Some(tier.to_owned()))))
            } else {
                next += 1;
                Arc::new(Column::new(self.schema.field(column).name(), next - 1))
            };
            expressions.push(ProjectionExpr { expr, alias: self.schema.field(column).name().clone() });
        }
        Ok(Arc::new(ProjectionExec::try_new(expressions, plan)?))
    }
}

fn extent(segment: &Segment) -> Extent {
    let known = !(segment.min_key.is_empty() && segment.max_key.is_empty());
    Extent {
        rows: segment.rows,
        times: (segment.min_time, segment.max_time),
        keys: known.then(|| (segment.min_key.clone(), segment.max_key.clone())),
    }
}

#[async_trait]
impl TableProvider for OneTable {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let wanted: Vec<usize> = projection.cloned().unwrap_or_else(|| (0..self.schema.fields().len()).collect());
        let columns: Vec<usize> = wanted.iter().copied().filter(|&c| c < self.spec.schema.fields().len()).collect();
        // A limit counts rows that pass all filters; those given here are inexact.
        let limit = limit.filter(|_| filters.is_empty());
        let filters: Vec<Expr> = self.own(filters).cloned().collect();
        let parts = [
            ("provisional", self.memory(state, &columns, &filters, |lane, table| lane.provisional(table).to_vec())?),
            ("hot", self.memory(state, &columns, &filters, |lane, table| lane.batches(table).to_vec())?),
            ("warm", self.warm(state, &columns, &filters, limit)?),
            ("cold", self.cold(state, &columns, &filters, limit).await?),
        ];
        let mut plans = Vec::new();
        for (tier, plan) in parts {
            if let Some(plan) = plan {
                plans.push(self.labelled(plan, &wanted, tier)?);
            }
        }
        match plans.len() {
            0 => Ok(Arc::new(EmptyExec::new(Arc::new(self.schema.project(&wanted)?)))),
            _ => UnionExec::try_new(plans),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::register;
    use crate::epoch::{TableState, Whole};
    use crate::last::LastRows;
    use crate::panes::Identity;
    use crate::testing::{readings, spec};
    use crate::view::{ColdView, LiveLane, View};
    use crate::warm::write_segment;
    use arrow::compute::concat_batches;
    use arrow::util::pretty::pretty_format_batches;
    use datafusion::datasource::MemTable;
    use datafusion::prelude::{SessionConfig, SessionContext};
    use flow::Lane;
    use proptest::prelude::*;
    use std::path::Path;

    const DEVICES: [&str; 4] = ["a", "b", "c", "d"];

    /// Rows of one epoch: device, time, value.
    type Rows = Vec<(usize, i64, i64)>;

    fn batch(rows: &Rows) -> RecordBatch {
        readings(&rows.iter().map(|&(d, t, v)| (DEVICES[d], t, v as f64)).collect::<Vec<_>>())
    }

    /// A lane with `old` as segments of epochs 1.., of which the first `marked` carry the move numbers 1.., and `new` hot.
    fn view(warm: &Path, old: &[Rows], marked: usize, moved: u64, new: &Rows) -> Arc<View> {
        let dir = warm.join("t");
        std::fs::create_dir_all(&dir).unwrap();
        let mut state = TableState { marked: marked as u64, ..TableState::default() };
        for (i, rows) in old.iter().enumerate() {
            let mut segment =
                write_segment(&world::LocalDisk, &dir, &format!("{i}.parquet"), &spec(), i as u64 + 1, &[batch(rows)]).unwrap();
            if let Some(segment) = &mut segment {
                segment.mark = (i < marked).then_some(i as u64 + 1);
            }
            state.segments.extend(segment);
        }
        let whole = Whole { tables: [("t".to_owned(), state)].into(), ..Whole::default() };
        let lane = LiveLane::new(Lane("l".into()), old.len() as u64, Arc::new(whole));
        lane.push("t", old.len() as u64 + 1, batch(new), None).unwrap();
        let mut view = View { warm: warm.to_owned(), lanes: vec![lane.view().unwrap()], ..View::default() };
        if moved > 0 {
            let rows: Vec<_> = old.iter().take(moved as usize).map(batch).collect();
            let provider = Arc::new(MemTable::try_new(spec().schema, vec![rows]).unwrap());
            view.cold.insert("t".to_owned(), ColdView { provider, moved: [(Lane("l".into()), moved)].into(), dropped: 0 });
        }
        Arc::new(view)
    }

    fn session(view: &Arc<View>) -> SessionContext {
        let session = SessionContext::new_with_config(SessionConfig::new().with_information_schema(true).with_target_partitions(2));
        register(&session, &[spec()], view, &LastRows::default()).unwrap();
        session
    }

    async fn ask(session: &SessionContext, sql: &str) -> String {
        let batches = session.sql(sql).await.unwrap().collect().await.unwrap();
        pretty_format_batches(&batches.into_iter().filter(|b| b.num_rows() > 0).collect::<Vec<_>>()).unwrap().to_string()
    }

    fn memory(all: &[Rows]) -> SessionContext {
        let session = SessionContext::new();
        let rows = concat_batches(&spec().schema, &all.iter().map(batch).collect::<Vec<_>>()).unwrap();
        session.register_table("t", Arc::new(MemTable::try_new(spec().schema, vec![vec![rows]]).unwrap())).unwrap();
        session
    }

    fn epochs() -> impl Strategy<Value = Vec<Rows>> {
        let row = (0..4usize, 0..60i64, -3..3i64);
        proptest::collection::vec(proptest::collection::vec(row, 0..8), 1..6)
    }

    fn condition() -> impl Strategy<Value = String> {
        let device = (0..4usize, prop_oneof![Just("="), Just("<>"), Just(">="), Just("<")]);
        let device = device.prop_map(|(d, op)| format!("device {op} '{}'", DEVICES[d]));
        let time = (0..60i64, prop_oneof![Just("="), Just("<"), Just(">=")]);
        let time = time.prop_map(|(t, op)| format!("event_time {op} arrow_cast({t}, 'Timestamp(Microsecond, Some(\"UTC\"))')"));
        let value = (-3..3i64).prop_map(|v| format!("v > {v}"));
        let any = prop_oneof![device, time, value, Just("device IN ('a', 'c')".to_owned()), Just("v IS NULL".to_owned())];
        (any.clone(), any, prop_oneof![Just("AND"), Just("OR")]).prop_map(|(l, r, op)| format!("{l} {op} {r}"))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn a_view_over_all_tiers_equals_one_table_in_memory(all in epochs(), marked in 0..3usize, moved in 0..3u64, condition in condition()) {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
            let dir = tempfile::tempdir().unwrap();
            let (new, old) = all.split_last().unwrap();
            let marked = marked.min(old.len());
            let view = view(dir.path(), old, marked, moved.min(marked as u64), new);
            let (ours, judge) = (session(&view), memory(&all));
            for select in ["*", "device, v", "v"] {
                let sql = format!("SELECT {select} FROM t WHERE {condition} ORDER BY device, event_time, v");
                prop_assert_eq!(runtime.block_on(ask(&ours, &sql)), runtime.block_on(ask(&judge, &sql)), "{}", sql);
            }
            for sql in [format!("SELECT count(*), sum(v), max(event_time) FROM t WHERE {condition}"), "SELECT count(*), min(event_time) FROM t".into()] {
                prop_assert_eq!(runtime.block_on(ask(&ours, &sql)), runtime.block_on(ask(&judge, &sql)), "{}", sql);
            }
        }
    }

    #[tokio::test]
    async fn filters_leave_out_segments_by_time_and_key() {
        let dir = tempfile::tempdir().unwrap();
        let old = [vec![(0, 1, 0), (1, 2, 0)], vec![(2, 11, 0), (3, 12, 0)], vec![(0, 21, 0), (0, 22, 0)]];
        let table = OneTable::new(spec(), view(dir.path(), &old, 0, 0, &vec![(0, 31, 0)]), false);
        let table = Arc::new(table);
        let session = SessionContext::new();
        session.register_table("t", table.clone()).unwrap();
        let at = |t| format!("arrow_cast({t}, 'Timestamp(Microsecond, Some(\"UTC\"))')");
        ask(&session, &format!("SELECT * FROM t WHERE event_time > {}", at(15))).await;
        assert_eq!(table.pruned(), 2, "by time");
        ask(&session, "SELECT * FROM t WHERE device = 'd'").await;
        assert_eq!(table.pruned(), 4, "by key; hot batches have no key range");
        ask(&session, &format!("SELECT * FROM t WHERE event_time > {}", at(99))).await;
        assert_eq!(table.pruned(), 8, "everything");
    }

    #[tokio::test]
    async fn a_mark_that_is_committed_leaves_its_segment_out_and_takes_it_from_cold() {
        let dir = tempfile::tempdir().unwrap();
        let old = [vec![(0, 1, 0)], vec![(1, 2, 0)], vec![(2, 3, 0)]];
        let new = vec![(3, 4, 0)];
        for (moved, tiers) in [(0, "a warm|b warm|c warm|d hot"), (1, "a cold|b warm|c warm|d hot"), (2, "a cold|b cold|c warm|d hot")] {
            let session = session(&view(&dir.path().join(moved.to_string()), &old, 2, moved, &new));
            let text = ask(&session, "SELECT string_agg(device || ' ' || _tier, '|' ORDER BY device) AS x FROM tiers.t").await;
            assert!(text.contains(tiers), "{text}");
            assert!(ask(&session, "SELECT count(*) FROM tiers.t WHERE _tier = 'warm'").await.contains(&format!("| {} ", 3 - moved)));
        }
    }

    #[tokio::test]
    async fn a_column_that_is_newer_than_the_cold_table_is_null_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut view = Arc::into_inner(view(dir.path(), &[vec![(0, 1, 5), (1, 2, 6)]], 1, 1, &vec![(2, 3, 7)])).unwrap();
        let without = spec().schema.project(&[0, 2]).unwrap();
        assert_eq!(without.fields().iter().map(|f| f.name()).collect::<Vec<_>>(), ["device", "event_time"]);
        let rows = batch(&vec![(0, 1, 5), (1, 2, 6)]).project(&[0, 2]).unwrap();
        view.cold.get_mut("t").unwrap().provider = Arc::new(MemTable::try_new(Arc::new(without), vec![vec![rows]]).unwrap());
        let session = session(&Arc::new(view));
        for (select, expected) in [
            ("v FROM t ORDER BY v", "| 7.0 |\n|     |\n|     |"),
            ("count(v) FROM t", "| 1 "),
            ("count(*) FROM t WHERE v IS NULL", "| 2 "),
            ("device, v FROM t WHERE v > 1", "| c      | 7.0 |"),
            ("count(*), min(event_time) FROM t", "| 3 "),
        ] {
            let text = ask(&session, &format!("SELECT {select}")).await;
            assert!(text.contains(expected), "{select}: {text}");
        }
    }

    #[tokio::test]
    async fn a_window_that_may_be_revised_has_its_newest_row_and_then_its_last() {
        let schema = spec().schema;
        let identity = Arc::new(Identity::new(&schema, &["device".to_owned(), "event_time".to_owned()], None).unwrap());
        let lane = LiveLane::new(Lane("l".into()), 0, Arc::new(Whole::default()));
        let mut seen = vec![];
        let mut look = async |lane: &LiveLane| {
            let view = Arc::new(View { lanes: vec![lane.view().unwrap()], ..View::default() });
            let text =
                ask(&session(&view), "SELECT string_agg(device || ' ' || v || ' ' || _tier, '|' ORDER BY device) AS x FROM tiers.t").await;
            seen.push(text.lines().nth(3).unwrap_or_default().trim_matches(['|', ' ']).to_owned());
        };
        lane.put_panes("t", 0, batch(&vec![(0, 9, 1), (1, 9, 1)]), &identity).unwrap();
        look(&lane).await;
        lane.put_panes("t", 0, batch(&vec![(0, 9, 2)]), &identity).unwrap();
        look(&lane).await;
        lane.push("t", 1, batch(&vec![(0, 9, 3)]), Some(0)).unwrap();
        look(&lane).await;
        assert_eq!(seen, ["a 1.0 provisional|b 1.0 provisional", "a 2.0 provisional|b 1.0 provisional", "a 3.0 hot|b 1.0 provisional"]);
    }

    #[tokio::test]
    async fn counting_reads_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let view = view(dir.path(), &[vec![(0, 1, 0), (0, 2, 0)], vec![(1, 3, 0)]], 0, 0, &vec![(0, 9, 0)]);
        std::fs::remove_dir_all(dir.path().join("t")).unwrap();
        assert!(ask(&session(&view), "SELECT count(*) FROM t").await.contains("| 4 "));
    }

    #[tokio::test]
    async fn the_newest_rows_are_found_without_the_older_files() {
        let dir = tempfile::tempdir().unwrap();
        let old = [vec![(0, 1, 0), (0, 2, 0)], vec![(1, 11, 0), (2, 12, 0)], vec![(0, 21, 0), (3, 22, 1)]];
        let view = view(dir.path(), &old, 0, 0, &vec![(0, 23, 0)]);
        let session = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
        register(&session, &[spec()], &view, &LastRows::default()).unwrap();
        for gone in ["0", "1"] {
            std::fs::remove_file(segment_path(&view.warm, "t", &format!("{gone}.parquet"))).unwrap();
        }
        let newest = ask(&session, "SELECT device, v FROM t ORDER BY event_time DESC LIMIT 2").await;
        assert!(newest.contains("| a      | 0.0 |\n| d      | 1.0 |"), "{newest}");
    }

    #[tokio::test]
    async fn an_empty_table_is_a_table() {
        let session = session(&Arc::new(View::default()));
        assert!(ask(&session, "SELECT count(*) FROM t WHERE v > 1").await.contains("| 0 "));
        let tables = ask(&session, "SHOW TABLES").await;
        assert!(tables.contains("tiers") && tables.contains("public"), "{tables}");
    }
}
