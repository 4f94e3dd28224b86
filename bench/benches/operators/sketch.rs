//! Windows as merges of partial aggregates and nothing else: no lateness, limits, select texts or output columns.
//!
//! One slice a window, DataFusion's groups and accumulators over whole columns; rows must come in the order of their windows. It is
//! the measure for the window operator: what that takes more is the price of what it promises.

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use datafusion::common::Result;
use datafusion::functions_aggregate::{average::avg_udaf, count::count_udaf, min_max::max_udaf, min_max::min_udaf, sum::sum_udaf};
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};
use datafusion::physical_expr::aggregate::{AggregateExprBuilder, AggregateFunctionExpr};
use datafusion::physical_expr::expressions::col;
use datafusion::physical_plan::aggregates::group_values::{GroupValues, new_group_values};
use datafusion::physical_plan::aggregates::order::GroupOrdering;
use flow::Batch;
use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;

/// Keys, and the states of the aggregates.
type Partial = (Vec<ArrayRef>, Vec<Vec<ArrayRef>>);

/// Tumbling windows.
pub(crate) struct Sketch {
    size: i64,
    key: SchemaRef,
    aggregates: Vec<AggregateFunctionExpr>,
    slices: BTreeMap<i64, Slice>,
    /// Scratch: the group of each row.
    groups: Vec<usize>,
    counted: i64,
}

struct Slice {
    keys: Box<dyn GroupValues>,
    live: Vec<Box<dyn GroupsAccumulator>>,
    sealed: Vec<Partial>,
}

impl Sketch {
    /// Windows of `size` microseconds over the columns device and value: count, sum, min, max, avg.
    pub(crate) fn new(size: i64) -> Result<Self> {
        let schema = crate::input::schema();
        let mut aggregates = vec![];
        for function in [count_udaf(), sum_udaf(), min_udaf(), max_udaf(), avg_udaf()] {
            let builder = AggregateExprBuilder::new(function, vec![col("value", &schema)?]).schema(schema.clone());
            aggregates.push(builder.alias("result").build()?);
        }
        let key = Arc::new(Schema::new(vec![Field::new("device", DataType::Utf8View, false)]));
        Ok(Self { size, key, aggregates, slices: BTreeMap::new(), groups: vec![], counted: 0 })
    }

    /// Rows that have been counted in closed windows.
    pub(crate) fn counted(&self) -> i64 {
        self.counted
    }

    /// Takes a batch whose times rise.
    pub(crate) fn add(&mut self, batch: &Batch) -> Result<()> {
        let (times, mut from) = (batch.times(), 0);
        while from < times.len() {
            let start = times[from].div_euclid(self.size) * self.size;
            let to = times.partition_point(|time| *time < start + self.size);
            self.add_to(start, &batch.rows().slice(from, to - from))?;
            from = to;
        }
        Ok(())
    }

    fn add_to(&mut self, start: i64, rows: &RecordBatch) -> Result<()> {
        if !self.slices.contains_key(&start) {
            let fresh = self.open()?;
            self.slices.insert(start, fresh);
        }
        let Some(slice) = self.slices.get_mut(&start) else { return Ok(()) };
        slice.keys.intern(&rows.columns()[..1], &mut self.groups)?;
        let total = slice.keys.len();
        slice.live.iter_mut().try_for_each(|live| live.update_batch(&rows.columns()[1..2], &self.groups, None, total))
    }

    fn open(&self) -> Result<Slice> {
        Ok(Slice {
            keys: new_group_values(self.key.clone(), &GroupOrdering::None)?,
            live: self.aggregates.iter().map(AggregateFunctionExpr::create_groups_accumulator).collect::<Result<_>>()?,
            sealed: vec![],
        })
    }

    /// What came since the last save.
    pub(crate) fn save(&mut self) -> Result<Vec<Partial>> {
        let mut saved = vec![];
        let starts: Vec<i64> = self.slices.keys().copied().collect();
        for start in starts {
            let fresh = self.open()?;
            let Some(slice) = self.slices.get_mut(&start).filter(|s| !s.keys.is_empty()) else { continue };
            let keys = slice.keys.emit(EmitTo::All)?;
            let states = slice.live.iter_mut().map(|live| live.state(EmitTo::All)).collect::<Result<Vec<_>>>()?;
            saved.push((keys.clone(), states.clone()));
            slice.sealed.push((keys, states));
            (slice.keys, slice.live) = (fresh.keys, fresh.live);
        }
        Ok(saved)
    }

    /// Closes the windows that end at or before `watermark`.
    pub(crate) fn close(&mut self, watermark: i64) -> Result<()> {
        while let Some(first) = self.slices.first_entry().filter(|s| s.key() + self.size <= watermark) {
            let mut slice = first.remove();
            for (keys, states) in std::mem::take(&mut slice.sealed) {
                slice.keys.intern(&keys, &mut self.groups)?;
                let total = slice.keys.len();
                for (live, state) in slice.live.iter_mut().zip(&states) {
                    live.merge_batch(state, &self.groups, total)?;
                }
            }
            black_box(slice.keys.emit(EmitTo::All)?);
            for (at, live) in slice.live.iter_mut().enumerate() {
                let results = black_box(live.evaluate(EmitTo::All)?);
                if at == 0 {
                    self.counted += results.as_primitive::<Int64Type>().values().iter().sum::<i64>();
                }
            }
        }
        Ok(())
    }
}
