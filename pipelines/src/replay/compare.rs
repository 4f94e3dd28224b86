//! The rows of a table as two pipelines have made them, held against each other.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, Rows, SortField};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use flow::{Error, Result};
use serde::Serialize;
use std::collections::HashMap;
use std::fmt;

/// Floating numbers that differ by less than this share of the greater, or of 1, are equal: sums are rounded in the order of their terms.
const SHARE: f64 = 1e-9;
/// How many rows of each kind are shown.
const SHOWN: usize = 5;

/// How a table differs.
#[derive(Clone, Debug, Default, Serialize)]
pub struct TableDifference {
    /// The table.
    pub table: String,
    /// Rows that are the same in both.
    pub equal: u64,
    /// Rows of which both have one with other values.
    pub changed: u64,
    /// Rows that only the old pipeline has.
    pub only_old: u64,
    /// Rows that only the new one has.
    pub only_new: u64,
    /// Columns that only one of them has, or that are of another type there: not compared.
    pub columns: Vec<String>,
    /// Some of the rows.
    pub examples: Vec<String>,
}

impl TableDifference {
    /// Whether the rows are the same.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.changed + self.only_old + self.only_new == 0
    }
}

/// Compares rows by the columns of `identity`. Rows that agree in them are compared in the order of their other columns.
pub(super) fn compare(table: &str, identity: &[String], old: &RecordBatch, new: &RecordBatch) -> Result<TableDifference> {
    let mut found = TableDifference { table: table.to_owned(), ..TableDifference::default() };
    compared(&mut found, identity, old, new).map_err(|e| Error::stop(format!("comparing table {table}"), e))?;
    Ok(found)
}

fn compared(found: &mut TableDifference, identity: &[String], old: &RecordBatch, new: &RecordBatch) -> Result<(), ArrowError> {
    let common: Vec<String> = names(old).filter(|name| is_alike(old, new, name)).cloned().collect();
    let other = names(old).chain(names(new).filter(|name| old.column_by_name(name).is_none()));
    found.columns = other.filter(|name| !common.contains(name)).cloned().collect();
    let (by, values): (Vec<String>, Vec<String>) = common.into_iter().partition(|name| identity.contains(name));
    let (old, new) = (Side::new(old, &by, &values)?, Side::new(new, &by, &values)?);
    let mut rest = new.by_identity();
    let mut told = [0; 3];
    let mut tell = |examples: &mut Vec<String>, kind: usize, line: String| {
        told[kind] += 1;
        if told[kind] <= SHOWN {
            examples.push(line);
        }
    };
    for row in old.in_order() {
        let other = rest.get_mut(old.identity.row(row).as_ref()).and_then(Vec::pop);
        match other {
            None => {
                found.only_old += 1;
                tell(&mut found.examples, 0, format!("only in the old: {}", old.shown(row, &by, &values)?));
            }
            Some(other) => match old.differs(row, &new, other, &values)? {
                differs if differs.is_empty() => found.equal += 1,
                differs => {
                    found.changed += 1;
                    tell(&mut found.examples, 1, format!("changed: {}: {}", old.shown(row, &by, &[])?, differs.join(", ")));
                }
            },
        }
    }
    let mut left: Vec<usize> = rest.into_values().flatten().collect();
    left.sort_unstable_by(|a, b| new.identity.row(*a).cmp(&new.identity.row(*b)));
    for row in left {
        found.only_new += 1;
        tell(&mut found.examples, 2, format!("only in the new: {}", new.shown(row, &by, &values)?));
    }
    Ok(())
}

/// The rows of one pipeline.
struct Side {
    identity: Rows,
    /// Identity, then the other columns: an order of all rows.
    whole: Rows,
    by: Vec<ArrayRef>,
    values: Vec<ArrayRef>,
}

impl Side {
    fn new(rows: &RecordBatch, by: &[String], values: &[String]) -> Result<Self, ArrowError> {
        let columns =
            |names: &[String]| names.iter().map(|name| rows.column_by_name(name).expect("a common column").clone()).collect::<Vec<_>>();
        let (by, values) = (columns(by), columns(values));
        let whole: Vec<ArrayRef> = by.iter().chain(&values).cloned().collect();
        Ok(Self { identity: converted(&by, rows.num_rows())?, whole: converted(&whole, rows.num_rows())?, by, values })
    }

    fn in_order(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.whole.num_rows()).collect();
        order.sort_unstable_by(|a, b| self.whole.row(*a).cmp(&self.whole.row(*b)));
        order
    }

    /// The rows of each identity, so that the last is the first in order.
    fn by_identity(&self) -> HashMap<Vec<u8>, Vec<usize>> {
        let mut rows: HashMap<Vec<u8>, Vec<usize>> = HashMap::new();
        for row in self.in_order().into_iter().rev() {
            rows.entry(self.identity.row(row).as_ref().to_vec()).or_default().push(row);
        }
        rows
    }

    /// The values that differ, as `name old → new`.
    fn differs(&self, row: usize, other: &Self, at: usize, names: &[String]) -> Result<Vec<String>, ArrowError> {
        let mut differs = vec![];
        for (name, (ours, theirs)) in names.iter().zip(self.values.iter().zip(&other.values)) {
            if !is_equal(ours, row, theirs, at)? {
                differs.push(format!("{name} {} → {}", text(ours, row)?, text(theirs, at)?));
            }
        }
        Ok(differs)
    }

    fn shown(&self, row: usize, by: &[String], values: &[String]) -> Result<String, ArrowError> {
        let columns = by.iter().zip(&self.by).chain(values.iter().zip(&self.values));
        let texts = columns.map(|(name, column)| Ok(format!("{name} {}", text(column, row)?))).collect::<Result<Vec<_>, ArrowError>>()?;
        Ok(texts.join(", "))
    }
}

fn converted(columns: &[ArrayRef], rows: usize) -> Result<Rows, ArrowError> {
    let converter = RowConverter::new(columns.iter().map(|column| SortField::new(column.data_type().clone())).collect())?;
    if columns.is_empty() {
        // All rows are one: of a table of which nothing is common.
        let one: ArrayRef = std::sync::Arc::new(arrow::array::BooleanArray::from(vec![true; rows]));
        return converted(&[one], rows);
    }
    converter.convert_columns(columns)
}

fn names(rows: &RecordBatch) -> impl Iterator<Item = &String> {
    rows.schema_ref().fields().iter().map(|field| field.name())
}

fn is_alike(old: &RecordBatch, new: &RecordBatch, name: &str) -> bool {
    let kind = |rows: &RecordBatch| rows.column_by_name(name).map(|column| column.data_type().clone());
    kind(old) == kind(new)
}

fn is_equal(ours: &ArrayRef, row: usize, theirs: &ArrayRef, at: usize) -> Result<bool, ArrowError> {
    if ours.is_null(row) || theirs.is_null(at) {
        return Ok(ours.is_null(row) && theirs.is_null(at));
    }
    if ours.data_type().is_floating() {
        let number = |column: &ArrayRef, row: usize| -> Result<f64, ArrowError> {
            Ok(cast(&column.slice(row, 1), &DataType::Float64)?.as_primitive::<Float64Type>().value(0))
        };
        let (ours, theirs) = (number(ours, row)?, number(theirs, at)?);
        let is_near = (ours - theirs).abs() <= SHARE * ours.abs().max(theirs.abs()).max(1.0);
        return Ok(is_near || ours.to_bits() == theirs.to_bits() || (ours.is_nan() && theirs.is_nan()) || ours == theirs);
    }
    Ok(ours.slice(row, 1).to_data() == theirs.slice(at, 1).to_data())
}

fn text(column: &ArrayRef, row: usize) -> Result<String, ArrowError> {
    let options = FormatOptions::default().with_null("null");
    ArrayFormatter::try_new(column, &options)?.value(row).try_to_string()
}

impl fmt::Display for TableDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { table, equal, changed, only_old, only_new, .. } = self;
        writeln!(f, "{table}: {equal} rows are equal, {changed} changed, {only_old} only in the old, {only_new} only in the new")?;
        if !self.columns.is_empty() {
            writeln!(f, "    not compared: {}", self.columns.join(", "))?;
        }
        self.examples.iter().try_for_each(|line| writeln!(f, "    {line}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Float64Array, Int64Array, StringViewArray};
    use std::sync::Arc;

    fn rows(keys: &[&str], n: &[i64], mean: &[Option<f64>]) -> RecordBatch {
        let (keys, n): (ArrayRef, ArrayRef) = (Arc::new(StringViewArray::from(keys.to_vec())), Arc::new(Int64Array::from(n.to_vec())));
        RecordBatch::try_from_iter([("device", keys), ("n", n), ("mean", Arc::new(Float64Array::from(mean.to_vec())) as ArrayRef)]).unwrap()
    }

    fn difference(old: &RecordBatch, new: &RecordBatch) -> TableDifference {
        compare("t", &["device".to_owned()], old, new).unwrap()
    }

    #[test]
    fn rows_are_equal_changed_or_of_one_side() {
        let old = rows(&["a", "b", "c", "d"], &[1, 2, 3, 4], &[Some(0.1 + 0.2), None, Some(1.0), None]);
        let new = rows(&["e", "b", "a", "c"], &[9, 2, 1, 3], &[None, None, Some(0.3), Some(2.0)]);
        let found = difference(&old, &new);
        assert_eq!((found.equal, found.changed, found.only_old, found.only_new), (2, 1, 1, 1));
        assert_eq!(
            found.examples,
            ["changed: device c: mean 1.0 → 2.0", "only in the old: device d, n 4, mean null", "only in the new: device e, n 9, mean null"]
        );
        assert!(!found.is_none() && difference(&old, &old).is_none());
    }

    #[test]
    fn rows_of_one_identity_are_paired_by_their_values() {
        let old = rows(&["a", "a", "a"], &[1, 2, 2], &[None, None, None]);
        let found = difference(&old, &rows(&["a", "a"], &[2, 1], &[None, None]));
        assert_eq!((found.equal, found.changed, found.only_old, found.only_new), (2, 0, 1, 0));
    }

    #[test]
    fn a_column_of_one_side_is_told_and_not_compared() {
        let old = rows(&["a"], &[1], &[None]);
        let new = old.project(&[0, 1]).unwrap();
        let found = difference(&old, &new);
        assert_eq!((found.equal, found.columns), (1, vec!["mean".to_owned()]));
    }
}
