//! `enrich`: adds columns of a lookup table to each reading, found by the reading's key.
//!
//! Where the table's rows say from when on they count (`valid_from`), the row with the greatest `valid_from` that is not after the
//! reading's event time is taken; before the first there is no match. A null in the key of a reading matches nothing. Until the first
//! version has come, nothing matches. Readings never change the state, so any order and any split of batches gives the same rows.
//!
//! State: one part `version` with the rows in use (key columns, `valid_from`, taken columns), the version's number in the metadata. It is
//! written when the version has changed, so a lane goes on with what it had even if the table's file is gone.

mod index;

use crate::refuse::refuse;
use crate::{BuildError, error};
use arrow::array::{ArrayRef, RecordBatch, UInt32Array};
use arrow::compute::{is_not_null, take};
use arrow::datatypes::{Field, Schema, SchemaRef};
use flow::{Batch, Count, Error, LookupShape, LookupVersion, Operator, Output, Reason, Remedy, Result, StateReader, StateWriter};
use index::Index;
use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

const PART: &str = "version";
/// Where the part's schema holds the version's number.
const NUMBER: &str = "version";

/// Options of an enrich, without `type` and `inputs`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EnrichOptions {
    /// The lookup table: the name of a `[lookups.X]`.
    pub lookup: String,
    /// Columns of the readings that find the row: `["site"]` by the same name, `{ site_id = "site" }` where the names differ (reading's, then
    /// lookup's). They must be the key of the lookup table, which is also what is taken if this is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Names>,
    /// Columns to add: `["limit"]`, or `{ site_limit = "limit" }` under another name (new, then lookup's).
    pub columns: Names,
    /// What becomes of a reading without a match.
    #[serde(default)]
    pub on_miss: OnMiss,
}

/// Names of columns, and what they are called on the other side.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Names {
    /// Both sides call them the same.
    Same(Vec<String>),
    /// The readings' name, then the lookup table's.
    Pairs(IndexMap<String, String>),
}

/// What becomes of a reading without a match.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnMiss {
    /// It passes; the added columns are null.
    #[default]
    Null,
    /// It is left out and counted as filtered.
    Drop,
    /// It goes to the table `dead_letters` with reason `no_match`.
    DeadLetter,
}

impl Names {
    /// Both names of each column, with the key of the option that says so.
    fn pairs<'n>(&'n self, option: &str) -> Vec<(String, &'n str, &'n str)> {
        match self {
            Self::Same(list) => list.iter().enumerate().map(|(at, n)| (format!("{option}.{at}"), n.as_str(), n.as_str())).collect(),
            Self::Pairs(map) => map.iter().map(|(a, b)| (format!("{option}.{a}"), a.as_str(), b.as_str())).collect(),
        }
    }
}

/// Builds the operator for rows of the schema `input` and a lookup table of this shape.
pub fn build(options: &EnrichOptions, input: &SchemaRef, lookup: &LookupShape) -> Result<Box<dyn Operator>, BuildError> {
    let (readings, key) = key(options, input, lookup)?;
    let mut kept: Vec<usize> = key;
    if let Some(valid_from) = &lookup.valid_from {
        kept.push(error::column(&lookup.schema, "lookup", valid_from)?);
    }
    let mut fields: Vec<_> = input.fields().iter().cloned().collect();
    let taken = options.columns.pairs("columns");
    if taken.is_empty() {
        return Err(BuildError::new("columns", "no column is taken").hint(there_are(lookup)));
    }
    for (option, new, of) in &taken {
        let at = lookup_column(lookup, option, of)?;
        if fields.iter().any(|f| f.name() == new) {
            let hint = format!("{{ other_name = \"{of}\" }} takes it under another name");
            return Err(BuildError::new(option, format!("the readings already have a column `{new}`")).hint(hint));
        }
        let field = lookup.schema.field(at);
        fields.push(Arc::new(field.clone().with_name(*new).with_nullable(true)));
        kept.push(at);
    }
    // Positional names, since one column may be taken twice or be part of the key too.
    let positional = |(at, of): (usize, &usize)| Field::new(format!("c{at}"), lookup.schema.field(*of).data_type().clone(), true);
    let held = Arc::new(Schema::new(kept.iter().enumerate().map(positional).collect::<Vec<_>>()));
    let index = Index::new(readings.len(), lookup.valid_from.is_some(), &held)?;
    Ok(Box::new(Enrich {
        lookup: lookup.name.clone(),
        schema: Arc::new(Schema::new(fields)),
        key: readings,
        kept,
        first: held.fields().len() - taken.len(),
        held,
        on_miss: options.on_miss,
        index,
        version: None,
        unsaved: false,
    }))
}

/// The key's places: in the readings and in the lookup table, in the order of the latter's key.
fn key(options: &EnrichOptions, input: &SchemaRef, lookup: &LookupShape) -> Result<(Vec<usize>, Vec<usize>), BuildError> {
    let own = Names::Same(lookup.key.clone());
    let pairs = options.key.as_ref().unwrap_or(&own).pairs("key");
    let option = |of: &str| if options.key.is_some() { of.to_owned() } else { "lookup".to_owned() };
    for (place, _, of) in &pairs {
        if !lookup.key.iter().any(|k| k == of) {
            let hint = format!("its key is {}", listed(&lookup.key));
            return Err(BuildError::new(option(place), format!("`{of}` is not in the key of lookup `{}`", lookup.name)).hint(hint));
        }
    }
    let (mut readings, mut rows) = (vec![], vec![]);
    for column in &lookup.key {
        let mut named = pairs.iter().filter(|(_, _, of)| of == column);
        let Some((place, reading, _)) = named.next() else {
            let message = format!("`{column}` of the key of lookup `{}` is missing", lookup.name);
            return Err(BuildError::new("key", message).hint(format!("all of {} find a row", listed(&lookup.key))));
        };
        if let Some((again, ..)) = named.next() {
            return Err(BuildError::new(option(again), format!("`{column}` of lookup `{}` stands twice", lookup.name)));
        }
        let at = error::column(input, &option(place), reading)?;
        let of = lookup_column(lookup, place, column)?;
        let (ours, theirs) = (input.field(at).data_type(), lookup.schema.field(of).data_type());
        if ours != theirs {
            let message = format!("`{reading}` is {ours}, `{column}` of lookup `{}` is {theirs}", lookup.name);
            return Err(BuildError::new(option(place), message).hint("declare both with one type, or cast the reading's in a `map` before"));
        }
        readings.push(at);
        rows.push(of);
    }
    Ok((readings, rows))
}

fn lookup_column(lookup: &LookupShape, option: &str, name: &str) -> Result<usize, BuildError> {
    let missing = |_| BuildError::new(option, format!("lookup `{}` has no column `{name}`", lookup.name)).hint(there_are(lookup));
    lookup.schema.index_of(name).map_err(missing)
}

fn there_are(lookup: &LookupShape) -> String {
    let names: Vec<_> = lookup.schema.fields().iter().map(|f| f.name().clone()).collect();
    format!("it has {}", listed(&names))
}

fn listed(names: &[String]) -> String {
    names.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ")
}

struct Enrich {
    lookup: Arc<str>,
    schema: SchemaRef,
    /// Places of the key in the readings.
    key: Vec<usize>,
    /// Places of what is held in a version's rows.
    kept: Vec<usize>,
    held: SchemaRef,
    /// The first taken column among the held ones.
    first: usize,
    on_miss: OnMiss,
    index: Index,
    /// The number of the version in use, and its rows.
    version: Option<(u64, RecordBatch)>,
    unsaved: bool,
}

impl Enrich {
    fn install(&mut self, number: u64, rows: RecordBatch) -> Result<()> {
        self.index.fill(&rows)?;
        self.version = Some((number, rows));
        Ok(())
    }

    /// The readings with the columns of the rows found.
    fn widen(&self, batch: &Batch, found: &UInt32Array) -> Result<Batch> {
        let mut columns = batch.rows().columns().to_vec();
        for at in self.first..self.held.fields().len() {
            columns.push(match &self.version {
                Some((_, rows)) => take(rows.column(at), found, None).map_err(broken)?,
                None => arrow::array::new_null_array(self.held.field(at).data_type(), batch.len()),
            });
        }
        batch.with_rows(RecordBatch::try_new(self.schema.clone(), columns).map_err(broken)?)
    }
}

impl Operator for Enrich {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn on_batch(&mut self, batch: Batch, out: &mut dyn Output) -> Result<()> {
        let key: Vec<ArrayRef> = self.key.iter().map(|at| batch.rows().column(*at).clone()).collect();
        let found = self.index.find(&key, batch.times())?;
        let missed = arrow::array::Array::null_count(&found);
        if missed == 0 || self.on_miss == OnMiss::Null {
            out.rows(self.widen(&batch, &found)?);
            return Ok(());
        }
        let hit = is_not_null(&found).map_err(broken)?;
        let rest = match self.on_miss {
            OnMiss::DeadLetter => {
                let missing: Vec<u32> = (0..).zip(hit.iter()).filter(|(_, hit)| *hit != Some(true)).map(|(row, _)| row).collect();
                refuse(batch, &missing, Reason::NoMatch, format!("no row of lookup {} has its key at its time", self.lookup), out)?
            }
            OnMiss::Drop | OnMiss::Null => {
                out.count(Count::Filtered, missed as u64);
                batch.filter(&hit)?
            }
        };
        if !rest.is_empty() {
            out.rows(self.widen(&rest, &found.iter().flatten().collect::<Vec<_>>().into())?);
        }
        Ok(())
    }

    fn on_lookup(&mut self, version: &LookupVersion) -> Result<()> {
        if version.lookup != self.lookup || self.version.as_ref().is_some_and(|(number, _)| *number == version.number) {
            return Ok(());
        }
        let fits = |(at, of): (usize, &usize)| {
            version.rows.columns().get(*of).is_some_and(|column| column.data_type() == self.held.field(at).data_type())
        };
        if !self.kept.iter().enumerate().all(fits) {
            let what = format!("a version of lookup {} has other columns than the pipeline says", self.lookup);
            return Err(Error::new(Remedy::Stop, what));
        }
        let columns = self.kept.iter().map(|at| version.rows.column(*at).clone()).collect();
        self.install(version.number, RecordBatch::try_new(self.held.clone(), columns).map_err(broken)?)?;
        self.unsaved = true;
        Ok(())
    }

    fn save(&mut self, to: &mut dyn StateWriter) -> Result<()> {
        let (Some((number, rows)), true) = (&self.version, self.unsaved) else { return Ok(()) };
        let schema = Schema::new_with_metadata(self.held.fields().clone(), [(NUMBER.to_owned(), number.to_string())].into());
        to.remove(PART);
        to.append(PART, RecordBatch::try_new(Arc::new(schema), rows.columns().to_vec()).map_err(broken)?);
        self.unsaved = false;
        Ok(())
    }

    fn load(&mut self, from: &mut dyn StateReader) -> Result<()> {
        let Some(rows) = from.read(PART)?.pop() else { return Ok(()) };
        let number = rows.schema_ref().metadata().get(NUMBER).and_then(|n| n.parse().ok());
        let number = number.ok_or_else(|| Error::new(Remedy::Stop, format!("the state of lookup {} has no number", self.lookup)))?;
        self.install(number, RecordBatch::try_new(self.held.clone(), rows.columns().to_vec()).map_err(broken)?)
    }

    fn held(&self) -> (u64, u64) {
        let rows = self.version.as_ref().map_or((0, 0), |(_, rows)| (rows.num_rows(), rows.get_array_memory_size()));
        (rows.0 as u64, rows.1 as u64 + self.index.bytes())
    }
}

fn broken(e: arrow::error::ArrowError) -> Error {
    Error::stop("enriching rows", e)
}

#[cfg(test)]
mod tests;
