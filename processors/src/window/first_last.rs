//! Plain `first_value(x)` and `last_value(x)` of a window go by event time.
//!
//! DataFusion takes them in the order of arrival, which late readings and partial states disturb. Of several values at one event
//! time `last_value` is the greatest and `first_value` the least, so that order of arrival plays no part. Their own `ORDER BY` stays.

use crate::sql::SqlError;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema};
use datafusion::logical_expr::Expr;
use flow::EVENT_TIME;

/// The same expression with an order where there is none.
pub(super) fn by_event_time(expr: Expr, columns: &DFSchema) -> Result<Expr, SqlError> {
    let time = Expr::Column(Column::from(columns.qualified_field_with_unqualified_name(EVENT_TIME)?));
    let ordered = expr.transform_down(|part| match part {
        Expr::AggregateFunction(mut call) if unordered(&call.func, &call.params.order_by) => {
            let by = std::iter::once(&time).chain(call.params.args.first());
            call.params.order_by = by.map(|e| e.clone().sort(true, true)).collect();
            Ok(Transformed::yes(Expr::AggregateFunction(call)))
        }
        other => Ok(Transformed::no(other)),
    })?;
    Ok(ordered.data)
}

fn unordered(function: &datafusion::logical_expr::AggregateUDF, order: &[datafusion::logical_expr::SortExpr]) -> bool {
    order.is_empty() && ["first_value", "last_value"].contains(&function.name())
}
