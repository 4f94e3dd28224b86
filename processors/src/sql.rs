//! SQL text of the configuration → physical expressions over columns.
//!
//! One bad row never fails its batch: an expression that fails is evaluated on halves until the failing rows stand alone. Only
//! immutable functions are allowed, so that a replay gives what the first run gave. Aggregates are read in `window::aggregates`.

use crate::{BuildError, functions};
use arrow::array::{Array, ArrayRef, RecordBatch, new_null_array};
use arrow::compute::concat;
use arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, DataFusionError};
use datafusion::execution::SessionStateBuilder;
use datafusion::logical_expr::{Expr, Volatility};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::prelude::{SessionConfig, SessionContext};
use std::sync::{Arc, LazyLock};

/// An SQL text that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SqlError {
    /// What is wrong.
    pub message: String,
    /// Where in the text, counted in characters from 1.
    pub column: Option<usize>,
    /// What would help.
    pub hint: Option<String>,
}

impl SqlError {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), column: None, hint: None }
    }

    pub(crate) fn at(self, key: impl Into<String>) -> BuildError {
        BuildError { key: key.into(), message: self.message, column: self.column, hint: self.hint }
    }
}

impl From<DataFusionError> for SqlError {
    /// Takes place and hint from the diagnostic where there is one, else the place from the parser's words.
    fn from(error: DataFusionError) -> Self {
        let said = error.diagnostic();
        let message = said.map_or_else(|| without_nesting(error.strip_backtrace()), |d| d.message.clone());
        let hint = said.and_then(|d| d.helps.first().map(|h| &h.message).or(d.notes.first().map(|n| &n.message))).cloned();
        let place = said.and_then(|d| d.span).map(|s| s.start.column).filter(|c| *c > 0);
        let column = place.or_else(|| message.rsplit_once("Column: ")?.1.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok());
        Self { message, column: column.and_then(|c| usize::try_from(c).ok()), hint }
    }
}

/// What a function says of its arguments, out of what DataFusion says around it: ours in its own words, any other by what it takes.
fn without_nesting(message: String) -> String {
    if let Some((_, said)) = message.split_once("user-defined coercion failed with: Error during planning: ") {
        return said.split_once(" No function matches").map_or(said, |(first, _)| first).trim_end_matches('.').to_owned();
    }
    let call = message.split_once("No function matches the given name and argument types '");
    let Some((call, rest)) = call.and_then(|(_, said)| said.split_once('\'')) else { return message };
    let known = rest.lines().skip_while(|line| !line.contains("Candidate functions")).skip(1).map(str::trim);
    let known: Vec<_> = known.filter(|line| !line.is_empty()).take(CANDIDATES).collect();
    let known = if known.is_empty() { String::new() } else { format!("; there is {}", known.join(", ")) };
    format!("{call}: no function of this name takes these types{known}")
}

/// So many forms of a function are named to whom uses another.
const CANDIDATES: usize = 4;

/// A scalar SQL expression over the columns of one schema.
#[derive(Clone, Debug)]
pub struct Expression {
    physical: Arc<dyn PhysicalExpr>,
    data_type: DataType,
    nullable: bool,
    column: Option<String>,
}

/// What an expression gave for a batch.
#[derive(Clone, Debug)]
pub struct Evaluated {
    /// One value a row; null where it failed.
    pub values: ArrayRef,
    /// The rows on which it failed, ascending.
    pub failed: Vec<u32>,
    /// What the first failure said; empty without one.
    pub detail: String,
}

impl Expression {
    /// Reads an expression over the columns of `schema`. Names are lower-cased unless quoted (`"Temp"`), as in SQL.
    pub fn parse(text: &str, schema: &SchemaRef) -> Result<Self, SqlError> {
        let context = context();
        let columns = DFSchema::try_from(schema.clone())?;
        let logical = logical(context, text, &columns)?.unalias();
        if !datafusion::logical_expr::utils::find_aggregate_exprs([&logical]).is_empty() {
            return Err(SqlError::new("an aggregate is only possible in a window"));
        }
        let column = if let Expr::Column(c) = &logical { Some(c.name.clone()) } else { None };
        let physical = context.create_physical_expr(logical, &columns)?;
        Self::from_physical(physical, schema, column)
    }

    pub(crate) fn from_physical(physical: Arc<dyn PhysicalExpr>, schema: &Schema, column: Option<String>) -> Result<Self, SqlError> {
        Ok(Self { data_type: physical.data_type(schema)?, nullable: physical.nullable(schema)?, physical, column })
    }

    /// The type of its values.
    #[must_use]
    pub fn data_type(&self) -> &DataType {
        &self.data_type
    }

    /// Whether a value may be null.
    #[must_use]
    pub fn nullable(&self) -> bool {
        self.nullable
    }

    /// The column's name, where it is nothing but a column.
    #[must_use]
    pub fn column(&self) -> Option<&str> {
        self.column.as_deref()
    }

    /// Evaluates over all rows. Costs one pass; with `f` failing rows about `2 f log(rows)` evaluations more.
    #[must_use]
    pub fn evaluate(&self, rows: &RecordBatch) -> Evaluated {
        match self.whole(rows) {
            Ok(values) => Evaluated { values, failed: Vec::new(), detail: String::new() },
            Err(error) => self.bisect(rows, &error),
        }
    }

    fn whole(&self, rows: &RecordBatch) -> Result<ArrayRef, DataFusionError> {
        self.physical.evaluate(rows)?.into_array(rows.num_rows())
    }

    fn bisect(&self, rows: &RecordBatch, error: &DataFusionError) -> Evaluated {
        let mut found = Evaluated { values: new_null_array(&self.data_type, 0), failed: Vec::new(), detail: error.strip_backtrace() };
        let mut pieces = Vec::new();
        let mut open = vec![(0, rows.num_rows())];
        while let Some((from, length)) = open.pop() {
            match self.whole(&rows.slice(from, length)) {
                Ok(values) => pieces.push(values),
                Err(_) if length > 1 => open.extend([(from + length / 2, length - length / 2), (from, length / 2)]),
                Err(error) => {
                    if found.failed.is_empty() {
                        found.detail = error.strip_backtrace();
                    }
                    found.failed.push(u32::try_from(from).expect("a batch has fewer rows than u32 holds"));
                    pieces.push(new_null_array(&self.data_type, 1));
                }
            }
        }
        let pieces: Vec<&dyn Array> = pieces.iter().map(AsRef::as_ref).collect();
        found.values = concat(&pieces).expect("the pieces are of the expression's one type");
        found
    }
}

/// A planner that changes nothing it is not asked to change: one partition, no optimizer, places in its errors. Nothing is registered in it
/// by name, so all share one: it has some hundred functions.
pub(crate) fn context() -> &'static SessionContext {
    static CONTEXT: LazyLock<SessionContext> = LazyLock::new(made);
    &CONTEXT
}

fn made() -> SessionContext {
    let mut config = SessionConfig::new().with_target_partitions(1).with_create_default_catalog_and_schema(false);
    config.options_mut().sql_parser.collect_spans = true;
    let state = SessionStateBuilder::new().with_config(config).with_default_features();
    let context = SessionContext::new_with_state(state.with_optimizer_rules(vec![]).with_physical_optimizer_rules(vec![]).build());
    functions::register(&context);
    context
}

/// Reads the text and refuses what a replay could answer differently, or what needs more than the row.
pub(crate) fn logical(context: &SessionContext, text: &str, columns: &DFSchema) -> Result<Expr, SqlError> {
    let expr = context.parse_sql_expr(text, columns)?;
    let mut refused = None;
    expr.apply(|part| {
        refused = refusal(part);
        Ok(if refused.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    match refused {
        Some((name, why)) => Err(SqlError { column: find(text, &name), message: why, hint: None }),
        None => functions::prepare(expr).map_err(|misplaced| SqlError {
            column: inside(text, &misplaced.text, misplaced.wrong.at),
            message: misplaced.wrong.message,
            hint: None,
        }),
    }
}

fn refusal(part: &Expr) -> Option<(String, String)> {
    match part {
        Expr::ScalarFunction(f) if f.func.signature().volatility != Volatility::Immutable => {
            let name = f.name().to_owned();
            let why = format!("{name}() gives another value at each call: a replay would not repeat the first run");
            Some((name, why))
        }
        Expr::ScalarSubquery(_) | Expr::Exists(_) | Expr::InSubquery(_) | Expr::SetComparison(_) => {
            Some(("select".into(), "a subquery is not possible: an expression sees one row".into()))
        }
        Expr::WindowFunction(_) => Some(("over".into(), "OVER is not possible: an expression sees one row".into())),
        _ => None,
    }
}

/// Where a word stands in the text, counted in characters from 1.
pub(crate) fn find(text: &str, word: &str) -> Option<usize> {
    let lower = text.to_ascii_lowercase();
    lower.find(&word.to_ascii_lowercase()).map(|byte| text[..byte].chars().count() + 1)
}

/// Where a line and column of a literal stands in the text, counted in characters from 1; the literal's first character without them.
fn inside(text: &str, literal: &str, at: Option<(usize, usize)>) -> Option<usize> {
    let start = find(text, literal)?;
    let Some((line, column)) = at else { return Some(start) };
    let before: usize = literal.split_inclusive('\n').take(line - 1).map(|l| l.chars().count()).sum();
    Some(start + before + column - 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{ints, rows, schema};
    use proptest::prelude::*;

    #[test]
    fn an_error_points_into_the_text() {
        let error = Expression::parse("value > 1 AND temprature > 2", &schema()).unwrap_err();
        assert_eq!(error.column, Some(15), "{error:?}");
        assert!(error.message.contains("temprature"), "{error:?}");
        assert!(Expression::parse("value >", &schema()).unwrap_err().message.contains("Expected"));
    }

    #[test]
    fn what_a_replay_could_not_repeat_is_refused() {
        for text in ["now() > event_time", "value > random()", "current_date > '2020-01-01'", "uuid() = device"] {
            let error = Expression::parse(text, &schema()).unwrap_err();
            assert!(error.message.contains("replay"), "{text}: {error:?}");
        }
        for text in ["value > (select 1)", "exists (select 1)", "value in (select 1)", "sum(value) > 1", "sum(value) over () > 1"] {
            assert!(Expression::parse(text, &schema()).is_err(), "{text}");
        }
    }

    #[test]
    fn failing_rows_stand_alone() {
        let expression = Expression::parse("10 / value", &schema()).unwrap();
        let got = expression.evaluate(&rows(&[("a", 0, 1), ("a", 0, 0), ("a", 0, 5), ("a", 0, 0)]));
        assert_eq!(got.failed, [1, 3]);
        assert_eq!(ints(&got.values), [Some(10), None, Some(2), None]);
        assert!(got.detail.to_lowercase().contains("zero"), "{}", got.detail);
    }

    proptest! {
        #[test]
        fn a_batch_gives_what_its_rows_give_alone(values in prop::collection::vec(0i64..4, 1..60)) {
            let expression = Expression::parse("12 / value", &schema()).unwrap();
            let all: Vec<_> = values.iter().map(|v| ("a", 0, *v)).collect();
            let got = expression.evaluate(&rows(&all));
            let want: Vec<_> = values.iter().map(|v| (*v != 0).then(|| 12 / v)).collect();
            prop_assert_eq!(ints(&got.values), want);
        }
    }
}
