//! `route`: sends each row to the first branch whose condition is true. Readers name a branch as `router.branch`.

use crate::refuse::refuse;
use crate::{BuildError, sql::Expression};
use arrow::array::{Array, AsArray, UInt32Array};
use arrow::datatypes::{DataType, SchemaRef};
use flow::{Batch, Count, DeadLetters, Operator, Output, Reason, Result};
use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What `else` says for rows that are left out and counted.
const DROP: &str = "drop";
/// What `else` says for rows that go to the table `dead_letters`.
const DEAD_LETTER: &str = "dead_letter";

/// Options of a route, without `type` and `inputs`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteOptions {
    /// Branches in the order in which they are tried: name = SQL condition. A row goes to the first one that is true.
    pub branches: IndexMap<String, String>,
    /// What becomes of the other rows: `drop` (counted as filtered), `dead_letter`, or the name of one more branch.
    #[serde(rename = "else", default = "drop_word")]
    pub otherwise: String,
}

fn drop_word() -> String {
    DROP.into()
}

impl RouteOptions {
    /// The names of all branches, in the order of their numbers.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        let rest = Some(self.otherwise.as_str()).filter(|word| ![DROP, DEAD_LETTER].contains(word));
        self.branches.keys().map(String::as_str).chain(rest).collect()
    }

    fn check(&self) -> Result<(), BuildError> {
        if self.branches.is_empty() {
            return Err(BuildError::new("branches", "there is no branch"));
        }
        if let Some(word) = self.branches.keys().find(|name| [DROP, DEAD_LETTER].contains(&name.as_str())) {
            return Err(BuildError::new(format!("branches.{word}"), format!("`{word}` cannot be a branch: `else` means something by it")));
        }
        if self.branches.contains_key(&self.otherwise) {
            return Err(BuildError::new("else", format!("`{}` is a branch with a condition", self.otherwise)));
        }
        let plain = |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        match self.names().into_iter().find(|name| !plain(name)) {
            Some(name) if self.branches.contains_key(name) => Err(unfit(&format!("branches.{name}"), name)),
            Some(name) => Err(unfit("else", name)),
            None => Ok(()),
        }
    }
}

fn unfit(key: &str, name: &str) -> BuildError {
    BuildError::new(key, format!("`{name}` cannot be the name of a branch")).hint("lower-case letters, digits and _")
}

/// Builds the operator for rows of the schema `input`.
pub fn build(options: &RouteOptions, input: &SchemaRef) -> Result<Box<dyn Operator>, BuildError> {
    options.check()?;
    let mut conditions = vec![];
    for (name, text) in &options.branches {
        let key = format!("branches.{name}");
        let condition = Expression::parse(text, input).map_err(|e| e.at(&key))?;
        if *condition.data_type() != DataType::Boolean {
            return Err(BuildError::new(key, format!("the condition gives {}, not true or false", condition.data_type())));
        }
        conditions.push((name.clone(), condition));
    }
    let otherwise = match options.otherwise.as_str() {
        DROP => Otherwise::Drop,
        DEAD_LETTER => Otherwise::DeadLetter,
        _ => Otherwise::Branch,
    };
    Ok(Box::new(Route { schema: input.clone(), conditions, otherwise }))
}

enum Otherwise {
    Drop,
    DeadLetter,
    /// The branch after those with conditions.
    Branch,
}

struct Route {
    schema: SchemaRef,
    conditions: Vec<(String, Expression)>,
    otherwise: Otherwise,
}

impl Operator for Route {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn on_batch(&mut self, batch: Batch, out: &mut dyn Output) -> Result<()> {
        let mut rest = batch;
        for (branch, (name, condition)) in self.conditions.iter().enumerate() {
            let found = condition.evaluate(rest.rows());
            let holds = found.values.as_boolean();
            let is_true = |row: u32| holds.is_valid(row as usize) && holds.value(row as usize);
            // Failed rows are null, so they are in neither list by themselves.
            let (yes, no): (Vec<u32>, Vec<u32>) = (0..rest.len() as u32).partition(|row| is_true(*row));
            if yes.len() == rest.len() && !yes.is_empty() {
                out.branch(branch, rest);
                return Ok(());
            }
            if !yes.is_empty() {
                out.branch(branch, rest.take(&UInt32Array::from(yes.clone()))?);
            }
            if !found.failed.is_empty() {
                let failed = rest.take(&UInt32Array::from(found.failed.clone()))?;
                let all: Vec<u32> = (0..failed.len() as u32).collect();
                refuse(failed, &all, Reason::Expression, format!("{name}: {}", found.detail), out)?;
            }
            if !yes.is_empty() || !found.failed.is_empty() {
                let left: Vec<u32> = no.into_iter().filter(|row| found.failed.binary_search(row).is_err()).collect();
                rest = rest.take(&UInt32Array::from(left))?;
            }
        }
        self.rest(rest, out);
        Ok(())
    }
}

impl Route {
    fn rest(&self, rest: Batch, out: &mut dyn Output) {
        if rest.is_empty() {
            return;
        }
        match self.otherwise {
            Otherwise::Drop => out.count(Count::Filtered, rest.len() as u64),
            Otherwise::DeadLetter => {
                out.dead(DeadLetters { rows: rest, reason: Reason::Filtered, detail: "no branch takes it".into() });
            }
            Otherwise::Branch => out.branch(self.conditions.len(), rest),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Collect, batch, schema};
    use proptest::prelude::*;

    fn options(value: serde_json::Value) -> RouteOptions {
        serde_json::from_value(value).unwrap()
    }

    fn run(route: serde_json::Value, readings: &[(&str, i64, i64)]) -> Collect {
        let (mut route, mut out) = (build(&options(route), &schema()).unwrap(), Collect::default());
        route.on_batch(batch(readings), &mut out).unwrap();
        out
    }

    #[test]
    fn a_row_goes_to_the_first_true_branch_and_a_failing_row_alone_is_refused() {
        let branches = serde_json::json!({ "branches": { "high": "10 / value > 4", "odd": "value % 2 = 1" }, "else": "rest" });
        let out = run(branches, &[("a", 1, 1), ("b", 2, 0), ("c", 3, 7), ("d", 4, 8), ("e", 5, 2)]);
        let of = |branch: usize| out.branches.iter().filter(|b| b.0 == branch).flat_map(|b| b.1.times().to_vec()).collect::<Vec<_>>();
        assert_eq!((of(0), of(1), of(2)), (vec![1, 5], vec![3], vec![4]));
        assert_eq!(out.refused(), [(Reason::Expression, 1)]);
    }

    #[test]
    fn mistakes_name_their_key() {
        let key = |value| build(&options(value), &schema()).err().unwrap().key;
        assert_eq!(key(serde_json::json!({ "branches": {} })), "branches");
        assert_eq!(key(serde_json::json!({ "branches": { "a": "value" } })), "branches.a");
        assert_eq!(key(serde_json::json!({ "branches": { "drop": "true" } })), "branches.drop");
        assert_eq!(key(serde_json::json!({ "branches": { "a": "true" }, "else": "a" })), "else");
        assert_eq!(key(serde_json::json!({ "branches": { "a": "true" }, "else": "not so" })), "else");
    }

    proptest! {
        #[test]
        fn each_row_is_in_one_place_as_a_row_by_row_look_says(values in prop::collection::vec(0i64..6, 0..60)) {
            let readings: Vec<_> = values.iter().enumerate().map(|(at, v)| ("a", at as i64, *v)).collect();
            let out = run(serde_json::json!({ "branches": { "x": "12 / value > 5", "y": "value = 3" } }), &readings);
            let place = |v: i64| if v == 0 { None } else if 12 / v > 5 { Some(0) } else if v == 3 { Some(1) } else { Some(2) };
            let count = |of| readings.iter().filter(|r| place(r.2) == of).count();
            for branch in 0..2 {
                let got: Vec<i64> = out.branches.iter().filter(|b| b.0 == branch).flat_map(|b| b.1.times().to_vec()).collect();
                let want: Vec<i64> = readings.iter().filter(|r| place(r.2) == Some(branch)).map(|r| r.1).collect();
                prop_assert_eq!(got, want);
            }
            prop_assert_eq!(out.count(Count::Filtered) as usize, count(Some(2)));
            prop_assert_eq!(out.refused().iter().map(|r| r.1).sum::<usize>(), count(None));
        }
    }
}
