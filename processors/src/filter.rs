//! `filter`: passes the rows on which a condition is true.

use crate::refuse::refuse;
use crate::{BuildError, sql::Expression};
use arrow::array::{AsArray, BooleanArray};
use arrow::compute::{is_null, not, or};
use arrow::datatypes::{DataType, SchemaRef};
use flow::{Batch, Count, DeadLetters, Error, Operator, Output, Reason, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Options of a filter, without `type` and `inputs`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FilterOptions {
    /// The condition, in SQL: rows on which it is true pass.
    pub when: String,
    /// What becomes of rows on which it is false or null.
    #[serde(rename = "else", default)]
    pub otherwise: Otherwise,
}

/// What becomes of rows that a filter does not pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Otherwise {
    /// They are left out and counted: the usual meaning of a filter.
    #[default]
    Drop,
    /// They go to the table `dead_letters`, with reason `filtered`.
    DeadLetter,
}

/// Builds the operator for rows of the schema `input`.
pub fn build(options: &FilterOptions, input: &SchemaRef) -> Result<Box<dyn Operator>, BuildError> {
    let when = Expression::parse(&options.when, input).map_err(|e| e.at("when"))?;
    if *when.data_type() != DataType::Boolean {
        return Err(BuildError::new("when", format!("the condition gives {}, not true or false", when.data_type())));
    }
    let detail = format!("not ({})", options.when);
    Ok(Box::new(Filter { schema: input.clone(), when, otherwise: options.otherwise, detail }))
}

struct Filter {
    schema: SchemaRef,
    when: Expression,
    otherwise: Otherwise,
    detail: String,
}

impl Operator for Filter {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn on_batch(&mut self, batch: Batch, out: &mut dyn Output) -> Result<()> {
        let mut found = self.when.evaluate(batch.rows());
        let failed = std::mem::take(&mut found.failed);
        let batch = if failed.is_empty() {
            batch
        } else {
            let rest = refuse(batch, &failed, Reason::Expression, std::mem::take(&mut found.detail), out)?;
            found = self.when.evaluate(rest.rows());
            rest
        };
        self.pass(batch, found.values.as_boolean(), out)
    }
}

impl Filter {
    fn pass(&self, batch: Batch, holds: &BooleanArray, out: &mut dyn Output) -> Result<()> {
        let kept = holds.true_count();
        if kept == batch.len() {
            if kept > 0 {
                out.rows(batch);
            }
            return Ok(());
        }
        match self.otherwise {
            Otherwise::Drop => out.count(Count::Filtered, (batch.len() - kept) as u64),
            Otherwise::DeadLetter => {
                let rows = batch.filter(&fails(holds)?)?;
                out.dead(DeadLetters { rows, reason: Reason::Filtered, detail: self.detail.clone() });
            }
        }
        if kept > 0 {
            out.rows(batch.filter(holds)?);
        }
        Ok(())
    }
}

/// True where the condition is false or null.
fn fails(holds: &BooleanArray) -> Result<BooleanArray> {
    let plain = BooleanArray::new(holds.values().clone(), None);
    not(&plain).and_then(|f| or(&f, &is_null(holds)?)).map_err(|e| Error::stop("inverting a filter's condition", e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Collect, batch, schema};

    fn run(options: serde_json::Value) -> Collect {
        let options: FilterOptions = serde_json::from_value(options).unwrap();
        let mut filter = build(&options, &schema()).unwrap();
        let mut out = Collect::default();
        filter.on_batch(batch(&[("a", 1, 5), ("b", 2, 0), ("c", 3, 1)]), &mut out).unwrap();
        out
    }

    #[test]
    fn rows_that_are_not_true_are_dropped_and_failing_ones_refused() {
        let out = run(serde_json::json!({ "when": "10 / value < 5" }));
        assert_eq!(out.readings(), [("a".into(), 1, 5)]);
        assert_eq!(out.count(Count::Filtered), 1);
        assert_eq!(out.refused(), [(Reason::Expression, 1)]);
    }

    #[test]
    fn null_is_not_true() {
        let out = run(serde_json::json!({ "when": "nullif(value, 5) < 1", "else": "dead_letter" }));
        assert_eq!(out.readings(), [("b".into(), 2, 0)]);
        assert_eq!(out.refused(), [(Reason::Filtered, 2)]);
    }

    #[test]
    fn a_condition_must_be_one() {
        let error = build(&FilterOptions { when: "value".into(), otherwise: Otherwise::Drop }, &schema()).err().unwrap();
        assert_eq!((error.key.as_str(), error.message.contains("Int64")), ("when", true));
        assert!(serde_json::from_str::<FilterOptions>(r#"{"when":"true","els":"drop"}"#).is_err());
    }
}
