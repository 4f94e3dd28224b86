//! `union`: the rows of several inputs as one, with the columns of all; a column that an input lacks is null in its rows.

use crate::BuildError;
use arrow::array::{RecordBatch, new_null_array};
use arrow::datatypes::{Field, Schema, SchemaRef};
use flow::{Batch, Error, Operator, Output, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Options of a union, without `type` and `inputs`: it has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UnionOptions {}

/// The columns of all inputs, in the order in which they are first met. The error names the column whose types differ.
pub fn columns(inputs: &[(&str, SchemaRef)]) -> Result<SchemaRef, BuildError> {
    let mut fields: Vec<(Field, &str)> = vec![];
    for (name, schema) in inputs {
        for field in schema.fields() {
            match fields.iter_mut().find(|(f, _)| f.name() == field.name()) {
                None => fields.push((field.as_ref().clone(), name)),
                Some((known, _)) if known.data_type() == field.data_type() => {
                    known.set_nullable(known.is_nullable() || field.is_nullable());
                }
                Some((known, first)) => {
                    let (ours, theirs) = (known.data_type(), field.data_type());
                    let message = format!("column `{}` is {ours} in `{first}`, {theirs} in `{name}`", field.name());
                    return Err(BuildError::new("inputs", message).hint("a `map` before it can make them alike"));
                }
            }
        }
    }
    let everywhere = |f: &Field| inputs.iter().all(|(_, schema)| schema.index_of(f.name()).is_ok());
    let fields = fields.into_iter().map(|(f, _)| if everywhere(&f) { f } else { f.with_nullable(true) });
    Ok(Arc::new(Schema::new(fields.collect::<Vec<_>>())))
}

/// Builds the operator for rows that have some of the columns of `all`.
pub fn build(_: &UnionOptions, all: &SchemaRef) -> Result<Box<dyn Operator>, BuildError> {
    Ok(Box::new(Union { schema: all.clone() }))
}

struct Union {
    schema: SchemaRef,
}

impl Operator for Union {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn on_batch(&mut self, batch: Batch, out: &mut dyn Output) -> Result<()> {
        let rows = batch.rows();
        let column =
            |f: &Arc<Field>| rows.column_by_name(f.name()).cloned().unwrap_or_else(|| new_null_array(f.data_type(), rows.num_rows()));
        let columns = self.schema.fields().iter().map(column).collect();
        let whole = RecordBatch::try_new(self.schema.clone(), columns).map_err(|e| Error::stop("columns of a union", e))?;
        out.rows(batch.with_rows(whole)?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Collect, batch, ints, schema};
    use arrow::datatypes::DataType;
    use flow::event_time_field;

    fn other(of: DataType) -> SchemaRef {
        Arc::new(Schema::new(vec![event_time_field(), Field::new("device", of, false), Field::new("speed", DataType::Float64, false)]))
    }

    #[test]
    fn a_column_that_an_input_lacks_is_null() {
        let all = columns(&[("a", schema()), ("b", other(DataType::Utf8View))]).unwrap();
        let names: Vec<_> = all.fields().iter().map(|f| (f.name().as_str(), f.is_nullable())).collect();
        assert_eq!(names, [("device", false), ("value", true), ("event_time", false), ("speed", true)]);
        let (mut union, mut out) = (build(&UnionOptions {}, &all).unwrap(), Collect::default());
        union.on_batch(batch(&[("a", 1, 5)]), &mut out).unwrap();
        let rows = out.rows[0].rows();
        assert_eq!((rows.schema(), ints(rows.column(1)), rows.column(3).null_count()), (all, vec![Some(5)], 1));
    }

    #[test]
    fn a_column_of_two_types_is_refused() {
        let error = columns(&[("a", schema()), ("b", other(DataType::Int64))]).unwrap_err();
        assert_eq!(error.message, "column `device` is Utf8View in `a`, Int64 in `b`");
    }
}
