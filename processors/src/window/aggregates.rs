//! From `select = { name = "sql with aggregates" }` to DataFusion's accumulators.
//!
//! The texts are planned as `SELECT … GROUP BY key` over an empty table, so that coercions, FILTER and `max(a) - min(a)` come out as
//! they do in a query; the parts of that plan are taken. Nothing of the plan itself is run.

use super::first_last;
use crate::sql::{self, Expression, SqlError};
use crate::{BuildError, error, functions};
use arrow::array::{ArrayRef, BooleanArray, RecordBatch};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DataFusionError, Result};
use datafusion::datasource::MemTable;
use datafusion::logical_expr::utils::find_aggregate_exprs;
use datafusion::logical_expr::{Expr, GroupsAccumulator};
use datafusion::physical_expr::GroupsAccumulatorAdapter;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode, aggregate_expressions};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::prelude::DataFrame;
use indexmap::IndexMap;
use std::sync::Arc;

/// How the columns of the functions' results begin: no column of a user has a space and a number by chance.
const RESULT: &str = "aggregate ";

/// The column by which readings without a key are grouped: all are in one group. No column of a user begins with a space by chance.
const ALL: &str = " all";
/// The hidden output that counts the readings of a group.
const READINGS: &str = " readings";

/// The aggregates of a window, ready to be fed and evaluated.
pub(super) struct Aggregates {
    /// Indices of the key columns in the input; one behind its columns where there is no key, and all readings are in one group.
    pub(super) key: Vec<usize>,
    keyless: bool,
    /// The key columns alone.
    pub(super) key_schema: SchemaRef,
    /// Some function keeps every value: memory grows with the readings of known groups too.
    pub(super) grows: bool,
    functions: Vec<Function>,
    /// Arguments and filters of the functions, one after the other.
    inputs: Vec<Expression>,
    /// Key columns, then the state columns of the functions: what a partial looks like.
    pub(super) partial_schema: SchemaRef,
    /// Key columns, then one column a function: what `outputs` read.
    pub(super) result_schema: SchemaRef,
    /// What `select` asks for, over `result_schema`.
    pub(super) outputs: Vec<(String, Expression)>,
    /// How many readings a group has, over `result_schema`, where that was asked for.
    pub(super) readings: Option<Expression>,
}

/// One aggregate function and how its columns lie in `inputs` and in a partial.
pub(super) struct Function {
    expr: Arc<AggregateFunctionExpr>,
    /// How many of `inputs` are its arguments.
    pub(super) arguments: usize,
    /// Whether a filter follows its arguments.
    pub(super) filtered: bool,
    /// How many columns its state has.
    pub(super) states: usize,
}

/// Rows on which an argument of an aggregate failed.
pub(super) struct Failed {
    pub(super) rows: Vec<u32>,
    pub(super) detail: String,
}

impl Function {
    /// A fresh accumulator; through the adapter where the function has no vectorised one.
    pub(super) fn accumulator(&self) -> Result<Box<dyn GroupsAccumulator>> {
        if self.expr.groups_accumulator_supported() {
            return self.expr.create_groups_accumulator();
        }
        let expr = self.expr.clone();
        Ok(Box::new(GroupsAccumulatorAdapter::new(move || expr.create_accumulator())))
    }
}

impl Aggregates {
    /// As `parse`, and the readings of each group are counted too.
    pub(super) fn counting(select: &IndexMap<String, String>, key: &[String], input: &SchemaRef) -> Result<Self, BuildError> {
        let mut counting = select.clone();
        counting.insert(READINGS.to_owned(), "count(*)".to_owned());
        let mut made = Self::parse(&counting, key, input)?;
        made.readings = made.outputs.pop().map(|(_, readings)| readings);
        Ok(made)
    }

    /// Reads the texts over the columns of `input`. An error names the key: `key` or `select.<name>`.
    pub(super) fn parse(select: &IndexMap<String, String>, key: &[String], input: &SchemaRef) -> Result<Self, BuildError> {
        if key.is_empty() {
            let mut fields = input.fields().to_vec();
            fields.push(Arc::new(Field::new(ALL, DataType::Boolean, false)));
            let made = Self::parse(select, &[ALL.to_owned()], &Arc::new(Schema::new(fields)))?;
            return Ok(Self { keyless: true, ..made });
        }
        let key_at = key.iter().map(|k| error::column(input, "key", k)).collect::<Result<Vec<_>, _>>()?;
        let at_select = |e: SqlError| e.at("select");
        let context = sql::context();
        let table = MemTable::try_new(input.clone(), vec![vec![]]).and_then(|t| context.read_table(Arc::new(t)));
        let table = table.map_err(|e| at_select(e.into()))?;
        let mut texts = Vec::with_capacity(select.len());
        for (name, text) in select {
            let expr = sql::logical(context, text, table.schema()).and_then(|e| checked(e, key));
            let expr = expr.and_then(|e| first_last::by_event_time(e, table.schema()));
            texts.push(expr.map_err(|e| e.at(format!("select.{name}")))?);
        }
        let plan = match plan(table.clone(), &texts, key) {
            Ok(plan) => plan,
            Err(error) => return Err(blamed(&table, select, &texts, key, error)),
        };
        let names: Vec<_> = select.keys().cloned().collect();
        from_plan(plan.as_ref(), key_at, names, input).map_err(at_select)
    }

    /// The functions, in the order of their columns.
    pub(super) fn functions(&self) -> &[Function] {
        &self.functions
    }

    /// How many key columns stand before those that a user knows.
    pub(super) fn hidden(&self) -> usize {
        usize::from(self.keyless)
    }

    /// The key columns that a user knows.
    pub(super) fn key_fields(&self) -> &[FieldRef] {
        &self.key_schema.fields()[self.hidden()..]
    }

    /// Key columns, then arguments and filters, one value a row; or the rows on which one of them failed.
    pub(super) fn evaluate(&self, rows: &RecordBatch) -> Result<Vec<ArrayRef>, Failed> {
        let mut columns: Vec<ArrayRef> = match self.keyless {
            true => vec![Arc::new(BooleanArray::from(vec![true; rows.num_rows()]))],
            false => self.key.iter().map(|k| rows.column(*k).clone()).collect(),
        };
        for input in &self.inputs {
            let found = input.evaluate(rows);
            if !found.failed.is_empty() {
                return Err(Failed { rows: found.failed, detail: found.detail });
            }
            columns.push(found.values);
        }
        Ok(columns)
    }
}

/// An expression of aggregates and key columns alone.
fn checked(expr: Expr, key: &[String]) -> Result<Expr, SqlError> {
    if find_aggregate_exprs([&expr]).is_empty() {
        return Err(SqlError::new("there is no aggregate in it, such as avg(…) or count(*)"));
    }
    let outside = over_results(expr.clone(), &find_aggregate_exprs([&expr]))?;
    let stray = outside.column_refs().into_iter().find(|c| !key.contains(&c.name) && !c.name.starts_with(RESULT)).map(|c| c.name.clone());
    match stray {
        Some(name) => Err(SqlError::new(format!("column `{name}` stands outside of an aggregate and is no key"))),
        None => Ok(expr),
    }
}

/// The text that cannot be planned alone; all of them where each can be.
fn blamed(table: &DataFrame, select: &IndexMap<String, String>, texts: &[Expr], key: &[String], error: DataFusionError) -> BuildError {
    for (text, (name, sql)) in texts.iter().zip(select) {
        if let Err(error) = plan(table.clone(), std::slice::from_ref(text), key) {
            let mut error = SqlError::from(error);
            error.column = error.column.or_else(|| sql::find(sql, error.message.split('(').next()?));
            return error.at(format!("select.{name}"));
        }
    }
    SqlError::from(error).at("select")
}

/// The same expression with each aggregate replaced by the column that holds its result.
fn over_results(expr: Expr, aggregates: &[Expr]) -> Result<Expr> {
    let replaced = expr.transform_down(|part| match aggregates.iter().position(|a| *a == part) {
        Some(at) => Ok(Transformed::yes(Expr::Column(Column::new_unqualified(format!("{RESULT}{at}"))))),
        None => Ok(Transformed::no(part)),
    })?;
    Ok(replaced.data)
}

fn plan(table: DataFrame, texts: &[Expr], key: &[String]) -> Result<Arc<dyn ExecutionPlan>> {
    let mut group = Vec::with_capacity(key.len());
    for name in key {
        group.push(Expr::Column(Column::from(table.schema().qualified_field_with_unqualified_name(name)?)));
    }
    let aggregates = find_aggregate_exprs(texts);
    let mut outputs = Vec::with_capacity(texts.len());
    for (at, text) in texts.iter().enumerate() {
        outputs.push(over_results(text.clone(), &aggregates)?.alias(format!("output {at}")));
    }
    let named = aggregates.into_iter().enumerate().map(|(at, a)| a.alias(format!("{RESULT}{at}"))).collect();
    let frame = table.aggregate(group, named)?.select(outputs)?;
    futures::executor::block_on(frame.create_physical_plan())
}

fn from_plan(plan: &dyn ExecutionPlan, key: Vec<usize>, names: Vec<String>, input: &SchemaRef) -> Result<Aggregates, SqlError> {
    let unlike = || SqlError::new("these aggregates cannot be kept as partial results");
    let projection = plan.downcast_ref::<ProjectionExec>().ok_or_else(unlike)?;
    let result = projection.input().downcast_ref::<AggregateExec>().ok_or_else(unlike)?;
    let first = innermost(result);
    if first.input_schema().fields() != input.fields() {
        return Err(unlike());
    }
    let mut made = Aggregates {
        key_schema: Arc::new(input.project(&key).map_err(|e| SqlError::new(e.to_string()))?),
        key,
        keyless: false,
        grows: false,
        functions: vec![],
        inputs: vec![],
        partial_schema: input.clone(),
        result_schema: result.schema(),
        outputs: vec![],
        readings: None,
    };
    let mut states: Vec<Field> = made.key_schema.fields().iter().map(|f| f.as_ref().clone()).collect();
    let arguments = aggregate_expressions(first.aggr_expr(), &AggregateMode::Partial, 0)?;
    for ((expr, arguments), filter) in first.aggr_expr().iter().zip(arguments).zip(first.filter_expr()) {
        if expr.order_sensitivity().hard_requires() && !expr.order_bys().is_empty() {
            return Err(SqlError::new(format!("{}: ORDER BY is not possible in it", expr.name())));
        }
        made.grows |= functions::keeps_all(expr.fun().name(), expr.is_distinct());
        let fields = expr.state_fields()?;
        let (count, filtered) = (arguments.len(), filter.is_some());
        made.functions.push(Function { expr: expr.clone(), arguments: count, filtered, states: fields.len() });
        let from = states.len();
        states.extend(fields.iter().enumerate().map(|(at, f)| Field::new(format!("state {}", from + at), f.data_type().clone(), true)));
        for expr in arguments.into_iter().chain(filter.clone()) {
            made.inputs.push(Expression::from_physical(expr, input, None)?);
        }
    }
    made.partial_schema = Arc::new(Schema::new(states));
    for (name, output) in names.into_iter().zip(projection.expr()) {
        made.outputs.push((name, Expression::from_physical(output.expr.clone(), &made.result_schema, None)?));
    }
    Ok(made)
}

/// The aggregation that reads the table: partial where the plan has two steps, single where it has one.
fn innermost(exec: &AggregateExec) -> &AggregateExec {
    let mut below = exec.input();
    loop {
        if let Some(deeper) = below.downcast_ref::<AggregateExec>() {
            return innermost(deeper);
        }
        match below.children().first() {
            Some(child) => below = child,
            None => return exec,
        }
    }
}
