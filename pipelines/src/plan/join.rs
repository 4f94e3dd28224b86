//! The columns of what reads several inputs: they must have the same columns, in any order.

use arrow::datatypes::{Field, Schema, SchemaRef};
use std::sync::Arc;

/// One schema for several: the columns of the first; a column is nullable if it is so in one. The error says what differs.
pub(super) fn join(inputs: &[(&str, SchemaRef)]) -> Result<SchemaRef, String> {
    let Some(((first_name, first), others)) = inputs.split_first() else { return Ok(Arc::new(Schema::empty())) };
    let mut fields: Vec<Field> = first.fields().iter().map(|f| f.as_ref().clone()).collect();
    for (name, schema) in others {
        for field in schema.fields() {
            if first.index_of(field.name()).is_err() {
                return Err(format!("`{name}` has a column `{}`, `{first_name}` has not", field.name()));
            }
        }
        for field in &mut fields {
            let Ok(other) = schema.field_with_name(field.name()) else {
                return Err(format!("`{first_name}` has a column `{}`, `{name}` has not", field.name()));
            };
            if other.data_type() != field.data_type() {
                let (ours, theirs) = (field.data_type(), other.data_type());
                return Err(format!("column `{}` is {ours} in `{first_name}`, {theirs} in `{name}`", field.name()));
            }
            field.set_nullable(field.is_nullable() || other.is_nullable());
        }
    }
    if others.is_empty() { Ok(first.clone()) } else { Ok(Arc::new(Schema::new_with_metadata(fields, first.metadata().clone()))) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::DataType;

    fn schema(fields: &[(&str, DataType, bool)]) -> SchemaRef {
        Arc::new(Schema::new(fields.iter().map(|(n, t, null)| Field::new(*n, t.clone(), *null)).collect::<Vec<_>>()))
    }

    #[test]
    fn inputs_have_the_same_columns_in_any_order() {
        let a = schema(&[("x", DataType::Int64, false), ("y", DataType::Utf8, false)]);
        let b = schema(&[("y", DataType::Utf8, true), ("x", DataType::Int64, false)]);
        let joined = join(&[("a", a.clone()), ("b", b)]).unwrap();
        assert_eq!(joined, schema(&[("x", DataType::Int64, false), ("y", DataType::Utf8, true)]));
        let less = schema(&[("x", DataType::Int64, false)]);
        assert_eq!(join(&[("a", a.clone()), ("b", less.clone())]).unwrap_err(), "`a` has a column `y`, `b` has not");
        assert_eq!(join(&[("b", less.clone()), ("a", a)]).unwrap_err(), "`a` has a column `y`, `b` has not");
        let other = schema(&[("x", DataType::Utf8, false)]);
        assert_eq!(join(&[("b", less), ("c", other)]).unwrap_err(), "column `x` is Int64 in `b`, Utf8 in `c`");
    }
}
