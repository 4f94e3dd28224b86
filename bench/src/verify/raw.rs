//! Tables of single readings.

use arrow::datatypes::DataType;

use super::compare::{Compared, table};
use super::{Ask, Check, Referee, quoted};
use crate::Result;
use crate::scenario::{Duplicates, RawOptions};

impl<A: Ask> Referee<'_, A> {
    /// Compares a raw table. Leaves `expected_<table>` and `found_<table>` in the context.
    pub(super) async fn raw(&self, name: &str, options: &RawOptions) -> Result<Check> {
        let (expected, found) = (named("expected", name), named("found", name));
        self.expect(&expected, options).await?;
        self.fetch(&found, &format!("{} AS t", quoted(name)), options).await?;
        let mut check = Check::new(name);
        Names::of(options).compared().run(&self.context, &expected, &found, &mut check).await?;
        Ok(check)
    }

    /// The readings that a raw table must hold, with how often.
    async fn expect(&self, name: &str, options: &RawOptions) -> Result<()> {
        let values: String = options.values.values().map(|signal| format!(", min({0}) AS {0}", quoted(signal))).collect();
        let (least, most) = match options.duplicates {
            Duplicates::Dropped => ("max(CASE WHEN acknowledged IS NULL THEN 0 ELSE 1 END)", "1"),
            Duplicates::Kept => ("sum(CASE WHEN acknowledged IS NULL THEN 0 ELSE 1 END)", "sum(CAST(attempts AS BIGINT))"),
        };
        let condition = options.condition.as_ref().map_or(String::new(), |sql| format!(" AND ({sql})"));
        let sql = format!(
            "CREATE OR REPLACE TABLE {name} AS SELECT device, seq, min(CAST(event_time AS BIGINT)) AS event_time{values}, \
             CAST({least} AS BIGINT) AS _least, CAST({most} AS BIGINT) AS _most \
             FROM truth WHERE reason IS NULL{condition} GROUP BY device, seq"
        );
        self.context.sql(&sql).await?.collect().await?;
        Ok(())
    }

    /// The rows that are there, of a table or a part of one.
    pub(super) async fn fetch(&self, name: &str, from: &str, options: &RawOptions) -> Result<()> {
        let rows = self.pipeline.ask(&format!("SELECT {} FROM {from}", columns(options))).await?;
        let mut empty = vec![("device", DataType::Utf8), ("seq", DataType::Int64), ("event_time", DataType::Int64)];
        empty.extend(options.values.values().map(|signal| (signal.as_str(), DataType::Float64)));
        table(&self.context, name, rows, &empty)
    }
}

/// The columns of a raw table under the names of the truth.
pub(super) fn columns(options: &RawOptions) -> String {
    let values = options.values.iter().map(|(column, signal)| format!(", CAST({} AS DOUBLE) AS {}", quoted(column), quoted(signal)));
    format!(
        "CAST({} AS VARCHAR) AS device, CAST({} AS BIGINT) AS seq, CAST(event_time AS BIGINT) AS event_time{}",
        quoted(&options.device),
        quoted(&options.sequence),
        values.collect::<String>()
    )
}

/// What of a raw table is compared.
pub(super) struct Names {
    identity: [String; 2],
    exact: [String; 1],
    near: Vec<String>,
}

impl Names {
    pub(super) fn of(options: &RawOptions) -> Names {
        Names {
            identity: ["device".to_owned(), "seq".to_owned()],
            exact: ["event_time".to_owned()],
            near: options.values.values().cloned().collect(),
        }
    }

    pub(super) fn compared(&self) -> Compared<'_> {
        Compared { identity: &self.identity, exact: &self.exact, near: &self.near }
    }
}

/// The name of a table of ours about a table of the pipeline.
pub(super) fn named(what: &str, table: &str) -> String {
    quoted(&format!("{what}_{table}"))
}
