//! Rows that were expected against rows that came, in any order, and their difference for a person.

use arrow::array::RecordBatch;
use flow::{Error, Result};
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// Numbers that differ by less than this share of the greater are equal: sums may be rounded elsewhere.
const SHARE: f64 = 1e-9;

/// The rows of batches as JSON; a null column is not there.
pub(super) fn rows(batches: &[RecordBatch]) -> Result<Vec<Map<String, Value>>> {
    let mut lines = arrow::json::LineDelimitedWriter::new(Vec::new());
    let failed = |e| Error::stop("writing rows of a table as JSON", e);
    batches.iter().try_for_each(|b| lines.write(b)).and_then(|()| lines.finish()).map_err(failed)?;
    let bytes = lines.into_inner();
    let rows = bytes.split(|b| *b == b'\n').filter(|line| !line.is_empty());
    rows.map(|line| serde_json::from_slice(line).map_err(|e| Error::stop("reading a row of a table as JSON", e))).collect()
}

/// What TOML says as JSON.
pub(crate) fn expected(row: &toml::Table) -> Map<String, Value> {
    row.iter().map(|(name, value)| (name.clone(), json(value))).collect()
}

fn json(value: &toml::Value) -> Value {
    match value {
        toml::Value::String(text) => Value::String(text.clone()),
        toml::Value::Integer(number) => (*number).into(),
        toml::Value::Float(number) => (*number).into(),
        toml::Value::Boolean(word) => (*word).into(),
        toml::Value::Datetime(time) => Value::String(time.to_string()),
        toml::Value::Array(list) => list.iter().map(json).collect(),
        toml::Value::Table(table) => Value::Object(expected(table)),
    }
}

/// The lines of a difference: `-` for what was expected and did not come, `+` for what came and was not expected. Empty if all is as
/// expected. Only columns that some expected row names are looked at; if none is, all of them are shown.
pub(super) fn difference(expected: Vec<Map<String, Value>>, mut came: Vec<Map<String, Value>>) -> Vec<String> {
    let columns: BTreeSet<String> = expected.iter().flat_map(Map::keys).cloned().collect();
    if !columns.is_empty() {
        came.iter_mut().for_each(|row| row.retain(|name, _| columns.contains(name)));
    }
    let mut lines = vec![];
    for row in expected {
        match came.iter().position(|other| same(&row, other)) {
            Some(at) => {
                came.remove(at);
            }
            None => lines.push(format!("- {}", line(&row))),
        }
    }
    let mut more: Vec<_> = came.iter().map(|row| format!("+ {}", line(row))).collect();
    more.sort();
    lines.extend(more);
    lines
}

fn same(a: &Map<String, Value>, b: &Map<String, Value>) -> bool {
    a.len() == b.len() && a.iter().all(|(name, value)| b.get(name).is_some_and(|other| alike(value, other)))
}

fn alike(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a == b || (a - b).abs() <= SHARE * a.abs().max(b.abs()),
        _ => a == b,
    }
}

fn line(row: &Map<String, Value>) -> String {
    row.iter().map(|(name, value)| format!("{name} = {value}")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(text: &str) -> Map<String, Value> {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn equal_rows_in_any_order_have_no_difference() {
        let expected = vec![row(r#"{"a":1,"b":"x"}"#), row(r#"{"a":2}"#)];
        let came = vec![row(r#"{"a":2.0000000000001,"c":9}"#), row(r#"{"a":1,"b":"x","c":9}"#)];
        assert!(difference(expected, came).is_empty());
    }

    #[test]
    fn a_difference_names_what_is_missing_and_what_is_too_much() {
        let expected = vec![row(r#"{"a":1}"#), row(r#"{"a":1}"#)];
        assert_eq!(difference(expected, vec![row(r#"{"a":1}"#), row(r#"{"a":3,"b":1}"#)]), ["- a = 1", "+ a = 3"]);
        assert_eq!(difference(vec![], vec![row(r#"{"a":3,"b":1}"#)]), ["+ a = 3, b = 1"]);
    }

    #[test]
    fn a_column_that_a_row_leaves_out_must_be_null() {
        let expected = vec![row(r#"{"a":1,"b":2}"#), row(r#"{"a":2}"#)];
        assert_eq!(difference(expected, vec![row(r#"{"a":1,"b":2}"#), row(r#"{"a":2,"b":5}"#)]), ["- a = 2", "+ a = 2, b = 5"]);
    }
}
