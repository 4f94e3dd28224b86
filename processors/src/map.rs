//! `map`: makes each column of its output from an SQL expression over the input. The event time passes by itself.

use crate::refuse::refuse;
use crate::{BuildError, sql::Expression};
use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{Field, Schema, SchemaRef};
use flow::{Batch, EVENT_TIME, Error, Operator, Output, Reason, Result, event_time_field};
use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Options of a map, without `type` and `inputs`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MapOptions {
    /// Output columns, in this order: name = SQL expression. `event_time` is added at the end where it is not named.
    pub select: IndexMap<String, String>,
}

/// Builds the operator for rows of the schema `input`.
pub fn build(options: &MapOptions, input: &SchemaRef) -> Result<Box<dyn Operator>, BuildError> {
    let (mut fields, mut columns) = (Vec::new(), Vec::new());
    for (name, text) in &options.select {
        let key = format!("select.{name}");
        let expression = Expression::parse(text, input).map_err(|e| e.at(&key))?;
        if name == EVENT_TIME && expression.column() != Some(EVENT_TIME) {
            return Err(
                BuildError::new(key, "the event time cannot be changed").hint("it is set in the source's `decode`, and passes by itself")
            );
        }
        let same = expression.column().and_then(|c| input.field_with_name(c).ok());
        let field = same.map_or_else(|| Field::new(name, expression.data_type().clone(), true), |f| f.clone().with_name(name));
        fields.push(field);
        columns.push(expression);
    }
    if !options.select.contains_key(EVENT_TIME) {
        fields.push(event_time_field());
        columns.push(Expression::parse(EVENT_TIME, input).map_err(|e| e.at("select"))?);
    }
    Ok(Box::new(Map { schema: Arc::new(Schema::new(fields)), columns }))
}

struct Map {
    schema: SchemaRef,
    columns: Vec<Expression>,
}

impl Operator for Map {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn on_batch(&mut self, mut batch: Batch, out: &mut dyn Output) -> Result<()> {
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.columns.len());
        let mut next = 0;
        while next < self.columns.len() {
            let found = self.columns[next].evaluate(batch.rows());
            if found.failed.is_empty() {
                columns.push(found.values);
                next += 1;
            } else {
                batch = refuse(batch, &found.failed, Reason::Expression, self.detail(next, &found.detail), out)?;
                columns.clear();
                next = 0;
            }
        }
        if !batch.is_empty() {
            let rows = RecordBatch::try_new(self.schema.clone(), columns).map_err(|e| Error::stop("columns of a map", e))?;
            out.rows(batch.with_rows(rows)?);
        }
        Ok(())
    }
}

impl Map {
    fn detail(&self, column: usize, said: &str) -> String {
        format!("{}: {said}", self.schema.field(column).name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Collect, batch, ints, schema};

    fn map(select: &[(&str, &str)]) -> Result<Box<dyn Operator>, BuildError> {
        build(&MapOptions { select: select.iter().map(|(name, sql)| ((*name).into(), (*sql).into())).collect() }, &schema())
    }

    #[test]
    fn columns_come_in_the_order_they_are_written_and_bad_rows_alone_are_refused() {
        let mut map = map(&[("z", "value * 2"), ("a", "10 / value"), ("device", "device")]).unwrap();
        let mut out = Collect::default();
        map.on_batch(batch(&[("a", 1, 5), ("b", 2, 0), ("c", 3, 1)]), &mut out).unwrap();
        let rows = out.rows[0].rows();
        let names: Vec<_> = rows.schema().fields().iter().map(|f| f.name().clone()).collect();
        assert_eq!(names, ["z", "a", "device", EVENT_TIME]);
        assert_eq!(ints(rows.column(0)), [Some(10), Some(2)]);
        assert_eq!(ints(rows.column(1)), [Some(2), Some(10)]);
        assert_eq!(out.rows[0].times(), [1, 3]);
        assert_eq!(out.refused(), [(Reason::Expression, 1)]);
        assert_eq!(map.schema(), rows.schema());
    }

    #[test]
    fn the_event_time_stays_what_it_is() {
        assert!(map(&[("event_time", "event_time")]).is_ok());
        assert_eq!(map(&[("event_time", "event_time + interval '1 day'")]).err().unwrap().key, "select.event_time");
    }
}
