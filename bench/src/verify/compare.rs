//! Rows that must be there against rows that are: table `expected` against table `found` of a context, by SQL.
//!
//! `expected` has each identity, which is never null, once, with the columns `least` and `most`: how often it may be there. `found` has rows as they are.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::datasource::MemTable;
use datafusion::prelude::SessionContext;
use indexmap::IndexMap;

use super::quoted;
use super::verdict::{Check, Kind, SHOWN};
use crate::{Error, Result};

/// Numbers that differ by less than this share of the greater, or of 1, are equal: sums may be rounded elsewhere.
const SHARE: f64 = 1e-9;

/// What is compared.
pub(super) struct Compared<'a> {
    /// Columns that say which row it is.
    pub(super) identity: &'a [String],
    /// Columns that must be equal.
    pub(super) exact: &'a [String],
    /// Columns of numbers that must be nearly equal.
    pub(super) near: &'a [String],
}

impl Compared<'_> {
    /// Compares `expected` with `found`, the names of two tables of the context.
    pub(super) async fn run(&self, context: &SessionContext, expected: &str, found: &str, check: &mut Check) -> Result<()> {
        check.found = context.table(found).await?.count().await? as u64;
        let total = format!("SELECT CAST(coalesce(sum(_least), 0) AS BIGINT) AS n FROM {expected}");
        check.expected = Some(number(context, &total).await?);
        let identity = list(self.identity, |name| quoted(name), ", ");
        let counted = format!("(SELECT {identity}, count(*) AS _copies FROM {found} GROUP BY {identity})");
        let on = list(self.identity, |name| format!("e.{0} = f.{0}", quoted(name)), " AND ");
        let all = list(self.all(), |name| format!("e.{}", quoted(name)), ", ");
        let missing = format!("SELECT {all} FROM {expected} e LEFT JOIN {counted} f ON {on} WHERE coalesce(f._copies, 0) < e._least");
        self.tell(context, Kind::Missing, &missing, check).await?;
        let twice = format!("SELECT {all}, f._copies, e._most FROM {expected} e JOIN {counted} f ON {on} WHERE f._copies > e._most");
        self.tell(context, Kind::Duplicate, &twice, check).await?;
        let found_all = list(self.all(), |name| format!("f.{}", quoted(name)), ", ");
        let extra = format!("SELECT {found_all} FROM {found} f LEFT JOIN {expected} e ON {on} WHERE e._most IS NULL");
        self.tell(context, Kind::Extra, &extra, check).await?;
        let differs = self.differs();
        if differs.is_empty() {
            return Ok(());
        }
        let both = |name: &String| format!("f.{0}, e.{0} AS {1}", quoted(name), quoted(&format!("{name} expected")));
        let values = list(self.exact.iter().chain(self.near), both, ", ");
        let identity = list(self.identity, |name| format!("e.{}", quoted(name)), ", ");
        let wrong = format!("SELECT {identity}, {values} FROM {found} f JOIN {expected} e ON {on} WHERE {differs}");
        self.tell(context, Kind::Wrong, &wrong, check).await
    }

    fn all(&self) -> impl Iterator<Item = &String> {
        self.identity.iter().chain(self.exact).chain(self.near)
    }

    fn differs(&self) -> String {
        let exact = self.exact.iter().map(|name| format!("(e.{0} IS DISTINCT FROM f.{0})", quoted(name)));
        let near = self.near.iter().map(|name| {
            let name = quoted(name);
            format!(
                "((e.{name} IS NULL) <> (f.{name} IS NULL) OR \
                 coalesce(abs(e.{name} - f.{name}) > {SHARE} * greatest(abs(e.{name}), abs(f.{name}), 1.0), false))"
            )
        });
        exact.chain(near).collect::<Vec<_>>().join(" OR ")
    }

    async fn tell(&self, context: &SessionContext, kind: Kind, sql: &str, check: &mut Check) -> Result<()> {
        tell(context, kind, sql, self.identity.len(), check).await
    }
}

/// Adds the rows of a statement to a check, the first of them by their first `order` columns.
pub(super) async fn tell(context: &SessionContext, kind: Kind, sql: &str, order: usize, check: &mut Check) -> Result<()> {
    let rows = context.sql(sql).await?;
    let count = rows.clone().count().await? as u64;
    if count > 0 {
        let by = (1..=order).map(|n| n.to_string()).collect::<Vec<_>>().join(", ");
        let first = context.sql(&format!("SELECT * FROM ({sql}) ORDER BY {by} LIMIT {SHOWN}")).await?.collect().await?;
        check.tell_all(kind, count, texts(&first)?);
    }
    Ok(())
}

/// The one whole number of a statement.
pub(super) async fn number(context: &SessionContext, sql: &str) -> Result<u64> {
    use arrow::array::AsArray;
    let batches = context.sql(sql).await?.collect().await?;
    let value = batches.iter().find(|batch| batch.num_rows() > 0).and_then(|batch| {
        let column = batch.column(0).as_primitive_opt::<arrow::datatypes::Int64Type>()?;
        column.iter().next().flatten()
    });
    Ok(value.unwrap_or_default() as u64)
}

/// Makes rows a table of the context, replacing one of that name. Without rows it has the columns `empty`.
pub(super) fn table(context: &SessionContext, name: &str, batches: Vec<RecordBatch>, empty: &[(&str, DataType)]) -> Result<()> {
    let none = || -> SchemaRef {
        let fields: Vec<Field> = empty.iter().map(|(name, kind)| Field::new(*name, kind.clone(), true)).collect();
        Arc::new(Schema::new(fields))
    };
    let schema = batches.first().map_or_else(none, RecordBatch::schema);
    context.deregister_table(name)?;
    context.register_table(name, Arc::new(MemTable::try_new(schema, vec![batches])?))?;
    Ok(())
}

/// Each row as `column = value, …`; a null column is left out.
pub(super) fn texts(batches: &[RecordBatch]) -> Result<Vec<String>> {
    let failed = |error: &dyn std::fmt::Display| Error::Verify(format!("showing a row: {error}"));
    let mut lines = arrow::json::LineDelimitedWriter::new(Vec::new());
    batches.iter().try_for_each(|batch| lines.write(batch)).and_then(|()| lines.finish()).map_err(|error| failed(&error))?;
    let bytes = lines.into_inner();
    let rows = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    rows.map(|line| {
        let row: IndexMap<String, serde_json::Value> = serde_json::from_slice(line).map_err(|error| failed(&error))?;
        Ok(row.iter().map(|(name, value)| format!("{name} = {value}")).collect::<Vec<_>>().join(", "))
    })
    .collect()
}

/// Names in a list.
pub(super) fn list<'n>(names: impl IntoIterator<Item = &'n String>, each: impl Fn(&'n String) -> String, between: &str) -> String {
    names.into_iter().map(each).collect::<Vec<_>>().join(between)
}
