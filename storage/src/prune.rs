//! Which pieces of a table a query may leave out: by event time and by the first key column, from numbers held in memory.

use arrow::array::{ArrayRef, StringArray, TimestampMicrosecondArray, UInt64Array};
use arrow::compute::cast;
use arrow::datatypes::SchemaRef;
use datafusion::catalog::Session;
use datafusion::common::pruning::PruningStatistics;
use datafusion::common::{Column, DFSchema, ScalarValue};
use datafusion::error::Result;
use datafusion::logical_expr::utils::conjunction;
use datafusion::physical_optimizer::pruning::PruningPredicateBuilder;
use datafusion::prelude::Expr;
use flow::EVENT_TIME;
use std::collections::HashSet;
use std::sync::Arc;

/// What is known about a piece: a segment, or a batch in memory.
#[derive(Clone, Debug)]
pub(crate) struct Extent {
    /// Rows inside.
    pub(crate) rows: u64,
    /// Least and greatest event time.
    pub(crate) times: (i64, i64),
    /// Least and greatest value of the first key column, where that is known.
    pub(crate) keys: Option<(String, String)>,
}

/// For each piece whether it may hold a row that passes the filters.
pub(crate) fn may_hold(
    state: &dyn Session,
    schema: &SchemaRef,
    key: Option<&str>,
    filters: &[Expr],
    pieces: &[Extent],
) -> Result<Vec<bool>> {
    let Some(filter) = conjunction(filters.iter().cloned()) else { return Ok(vec![true; pieces.len()]) };
    let filter = state.create_physical_expr(filter, &DFSchema::try_from(schema.as_ref().clone())?)?;
    let predicate = PruningPredicateBuilder::new().with_file_schema(schema.clone()).try_build(filter)?;
    if predicate.always_true() {
        return Ok(vec![true; pieces.len()]);
    }
    predicate.prune(&Extents { schema, key, pieces })
}

struct Extents<'a> {
    schema: &'a SchemaRef,
    key: Option<&'a str>,
    pieces: &'a [Extent],
}

impl Extents<'_> {
    fn ends(&self, column: &Column, end: impl Fn(&Extent) -> (i64, Option<&str>)) -> Option<ArrayRef> {
        let values: ArrayRef = if column.name == EVENT_TIME {
            Arc::new(TimestampMicrosecondArray::from_iter_values(self.pieces.iter().map(|p| end(p).0)).with_timezone("UTC"))
        } else if self.key == Some(column.name.as_str()) {
            Arc::new(self.pieces.iter().map(|p| end(p).1).collect::<StringArray>())
        } else {
            return None;
        };
        cast(&values, self.schema.field_with_name(&column.name).ok()?.data_type()).ok()
    }
}

impl PruningStatistics for Extents<'_> {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        self.ends(column, |p| (p.times.0, p.keys.as_ref().map(|k| k.0.as_str())))
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        self.ends(column, |p| (p.times.1, p.keys.as_ref().map(|k| k.1.as_str())))
    }

    fn num_containers(&self) -> usize {
        self.pieces.len()
    }

    fn null_counts(&self, column: &Column) -> Option<ArrayRef> {
        let never = column.name == EVENT_TIME;
        never.then(|| Arc::new(UInt64Array::from(vec![0; self.pieces.len()])) as ArrayRef)
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        Some(Arc::new(UInt64Array::from_iter_values(self.pieces.iter().map(|p| p.rows))))
    }

    fn contained(&self, _: &Column, _: &HashSet<ScalarValue>) -> Option<arrow::array::BooleanArray> {
        None
    }
}
