//! Which columns of which side are held, and where they stand in what comes out.

use super::{JoinOptions, Unmatched};
use crate::{BuildError, error};
use arrow::array::{RecordBatch, new_null_array};
use arrow::datatypes::{Field, FieldRef, Schema, SchemaRef};
use flow::{Batch, EVENT_TIME, Error, Result, event_time_field};
use std::sync::Arc;

/// Where an output column comes from, by its number among what is held of a side.
#[derive(Clone, Copy)]
pub(super) enum From {
    Left(usize),
    Right(usize),
    /// The greater of the two event times.
    Time,
}

/// The columns of a side that are held: the key, those that come out, and last the event time.
pub(super) struct Held {
    columns: Vec<usize>,
    pub(super) schema: SchemaRef,
}

/// See the page.
pub(super) struct Shape {
    pub(super) keys: usize,
    pub(super) output: SchemaRef,
    pub(super) columns: Vec<From>,
    /// Left, right.
    pub(super) held: [Held; 2],
    late: SchemaRef,
    prefix: String,
}

impl Shape {
    /// The error names the option that cannot be obeyed.
    pub(super) fn new(options: &JoinOptions, left: &SchemaRef, right: &SchemaRef) -> Result<Self, BuildError> {
        let late = late(options, left, right)?;
        let key = |input: &SchemaRef| options.key.iter().map(|k| error::column(input, "key", k)).collect::<Result<Vec<_>, _>>();
        let (mut held, keys) = ([key(left)?, key(right)?], options.key.len());
        let mut fields: Vec<FieldRef> = held[0].iter().map(|at| left.fields()[*at].clone()).collect();
        let mut columns: Vec<From> = (0..keys).map(From::Left).collect();
        for (name, path, side, at) in chosen(options, left, right)? {
            if fields.iter().any(|f| f.name() == &name) || name == EVENT_TIME {
                let message = format!("two columns would be named `{name}`");
                return Err(BuildError::new(path, message).hint("`select` gives columns other names"));
            }
            let number = hold(&mut held[side], at);
            let field = [left, right][side].field(at).clone().with_name(name);
            let is_optional = side == 1 && options.join == Unmatched::Left;
            fields.push(Arc::new(if is_optional { field.with_nullable(true) } else { field }));
            columns.push(if side == 0 { From::Left(number) } else { From::Right(number) });
        }
        fields.push(Arc::new(event_time_field()));
        columns.push(From::Time);
        let [left_held, right_held] = held;
        let held = [Held::new(left_held, left)?, Held::new(right_held, right)?];
        Ok(Self { keys, output: Arc::new(Schema::new(fields)), columns, held, late, prefix: options.prefix.clone() })
    }

    /// Rows of a side in the shape in which both sides' late rows have room.
    pub(super) fn late(&self, side: usize, batch: &Batch) -> Result<Batch> {
        let rows = batch.rows();
        let own = |(at, field): (usize, &FieldRef)| {
            let is_shared = at < self.keys || field.name() == EVENT_TIME;
            let name = match (side, field.name().strip_prefix(&self.prefix)) {
                (1, Some(name)) if !is_shared => Some(name),
                (1, None) if !is_shared => None,
                _ => Some(field.name().as_str()),
            };
            let found = name.and_then(|name| rows.column_by_name(name));
            found.cloned().unwrap_or_else(|| new_null_array(field.data_type(), rows.num_rows()))
        };
        let columns = self.late.fields().iter().enumerate().map(own).collect();
        batch.with_rows(RecordBatch::try_new(self.late.clone(), columns).map_err(|e| Error::stop("late rows of a join", e))?)
    }
}

impl Held {
    fn new(mut columns: Vec<usize>, input: &SchemaRef) -> Result<Self, BuildError> {
        columns.push(error::column(input, "inputs", EVENT_TIME)?);
        let schema = input.project(&columns).map_err(|e| BuildError::new("select", e.to_string()))?;
        Ok(Self { columns, schema: Arc::new(schema) })
    }

    /// What is held of rows of the input.
    pub(super) fn of(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        rows.project(&self.columns).map_err(|e| Error::stop("columns of a join", e))
    }
}

/// The columns of late rows of both sides.
pub(super) fn late(options: &JoinOptions, left: &SchemaRef, right: &SchemaRef) -> Result<SchemaRef, BuildError> {
    let mut fields: Vec<Field> = vec![];
    for name in &options.key {
        let (ours, theirs) = (left.field(error::column(left, "key", name)?), right.field(error::column(right, "key", name)?));
        if ours.data_type() != theirs.data_type() {
            let message = format!("`{name}` is {} on the left, {} on the right", ours.data_type(), theirs.data_type());
            return Err(BuildError::new("key", message).hint("a `map` before it can make them alike"));
        }
        fields.push(ours.clone().with_nullable(ours.is_nullable() || theirs.is_nullable()));
    }
    let is_rest = |f: &&FieldRef| !options.key.contains(f.name()) && f.name() != EVENT_TIME;
    let rest = left.fields().iter().filter(is_rest).map(|f| f.as_ref().clone());
    fields.extend(rest.map(|f| f.with_nullable(true)));
    for field in right.fields().iter().filter(is_rest) {
        let name = format!("{}{}", options.prefix, field.name());
        if fields.iter().any(|f| *f.name() == name) || name == EVENT_TIME {
            let message = format!("with the prefix `{}` two columns would be named `{name}`", options.prefix);
            return Err(BuildError::new("prefix", message).hint("another prefix tells the right columns from the left ones"));
        }
        fields.push(field.as_ref().clone().with_name(name).with_nullable(true));
    }
    fields.push(event_time_field());
    Ok(Arc::new(Schema::new(fields)))
}

/// A column that comes out: its name, the option that says so, its side and its place there.
type Chosen = (String, String, usize, usize);

fn chosen(options: &JoinOptions, left: &SchemaRef, right: &SchemaRef) -> Result<Vec<Chosen>, BuildError> {
    if options.select.is_empty() {
        return Ok(all(options, left, right));
    }
    let mut chosen = vec![];
    for (name, written) in &options.select {
        let path = format!("select.{name}");
        let (side, column) = match written.split_once('.') {
            Some(("left", column)) => (0, column),
            Some(("right", column)) => (1, column),
            _ => {
                let message = format!("`{written}` is no column of a side");
                return Err(BuildError::new(path, message).hint("write \"left.column\" or \"right.column\"; a `map` after it computes"));
            }
        };
        let at = error::column([left, right][side], &path, column)?;
        chosen.push((name.clone(), path, side, at));
    }
    Ok(chosen)
}

/// All columns of both sides: left ones by their names, right ones with the prefix, and the two event times.
fn all(options: &JoinOptions, left: &SchemaRef, right: &SchemaRef) -> Vec<Chosen> {
    let mut chosen = vec![];
    for (side, input) in [left, right].into_iter().enumerate() {
        for (at, field) in input.fields().iter().enumerate().filter(|(_, f)| !options.key.contains(f.name())) {
            let name = match (side, field.name().as_str()) {
                (0, EVENT_TIME) => "left_event_time".to_owned(),
                (0, name) => name.to_owned(),
                (_, name) => format!("{}{name}", options.prefix),
            };
            chosen.push((name, "prefix".to_owned(), side, at));
        }
    }
    chosen
}

/// The number of an input column among those held.
fn hold(held: &mut Vec<usize>, at: usize) -> usize {
    held.iter().position(|h| *h == at).unwrap_or_else(|| {
        held.push(at);
        held.len() - 1
    })
}
