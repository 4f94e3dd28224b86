//! What is possible in a window and has a price that one should know.

use super::WindowOptions;
use crate::sql::{self, SqlError};
use crate::{BuildError, functions};
use arrow::datatypes::SchemaRef;
use datafusion::common::DFSchema;
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::utils::find_aggregate_exprs;

/// Aggregates whose memory grows with the readings of a window, each told at its key as a mistake would be; none for options that
/// `build` refuses.
#[must_use]
pub fn warnings(options: &WindowOptions, input: &SchemaRef) -> Vec<BuildError> {
    let Ok(columns) = DFSchema::try_from(input.clone()) else { return vec![] };
    let context = sql::context();
    let mut warnings = vec![];
    for (name, text) in &options.select {
        let Ok(expr) = sql::logical(context, text, &columns) else { continue };
        let Some(function) = find_aggregate_exprs([&expr]).iter().find_map(keeping) else { continue };
        let message = format!("{function} keeps every value until its window is done: memory grows with the readings of a window");
        let hint = Some(
            "readings beyond `max_state` are dead letters; an aggregate such as avg or approx_percentile_cont keeps a few numbers a group"
                .into(),
        );
        warnings.push(SqlError { column: sql::find(text, &function), message, hint }.at(format!("select.{name}")));
    }
    warnings
}

/// The name of a function that keeps every value.
fn keeping(aggregate: &Expr) -> Option<String> {
    let Expr::AggregateFunction(call) = aggregate else { return None };
    let name = call.func.name();
    functions::keeps_all(name, call.params.distinct).then(|| name.to_owned())
}
