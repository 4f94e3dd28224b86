//! Tables of what was found to be unusual, against the labels of the truth: precision, recall and delay.
//!
//! A spell is a run of readings of a device with the same label; it is found by a row between its start and `within` behind its end.
//! What was not acknowledged and what nobody can read has no spell.

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Float64Type};

use super::compare::{number, table, tell};
use super::raw::named;
use super::{Ask, Check, Kind, Referee, quoted};
use crate::Result;
use crate::scenario::AlertOptions;

impl<A: Ask> Referee<'_, A> {
    /// Compares a table with the labels. What was not found counts as missing where that is too much, and rows without a cause as extra.
    pub(super) async fn alerts(&self, name: &str, options: &AlertOptions) -> Result<Check> {
        let (spells, raised) = (named("spells", name), named("raised", name));
        self.spells(&spells, options).await?;
        self.raised(&raised, name, options).await?;
        let finds = format!("r.device = s.device AND r.raised BETWEEN s.starts AND s.ends + {}", options.within.micros());
        let count = async |sql: String| number(&self.context, &sql).await;
        let mut check = Check::new(name);
        check.found = count(format!("SELECT count(*) AS n FROM {raised}")).await?;
        let labelled = count(format!("SELECT count(*) AS n FROM {spells}")).await?;
        let without_cause = format!("SELECT r.device, r.raised FROM {raised} r LEFT ANTI JOIN {spells} s ON {finds}");
        let not_found = format!("SELECT s.device, s.label, s.starts, s.ends FROM {spells} s LEFT ANTI JOIN {raised} r ON {finds}");
        let extra = count(format!("SELECT count(*) AS n FROM ({without_cause})")).await?;
        let missing = count(format!("SELECT count(*) AS n FROM ({not_found})")).await?;
        // Of nothing all is right.
        let share = |wrong: u64, all: u64| if all == 0 { 1.0 } else { 1.0 - wrong as f64 / all as f64 };
        let (precision, recall) = (share(extra, check.found), share(missing, labelled));
        if precision < options.precision {
            tell(&self.context, Kind::Extra, &without_cause, 2, &mut check).await?;
        }
        if recall < options.recall {
            tell(&self.context, Kind::Missing, &not_found, 2, &mut check).await?;
        }
        let delay = format!(
            "SELECT approx_percentile_cont(late, 0.5) / 1e6, approx_percentile_cont(late, 0.99) / 1e6 FROM \
             (SELECT CAST(min(r.raised) - s.starts AS DOUBLE) AS late FROM {spells} s JOIN {raised} r ON {finds} GROUP BY s.device, s.starts)"
        );
        check.note = Some(format!(
            "precision {precision:.3} (at least {}), recall {recall:.3} of {labelled} (at least {}), {}",
            options.precision,
            options.recall,
            self.delay(&delay).await?
        ));
        Ok(check)
    }

    /// What is labelled: device, label, start and end in microseconds.
    async fn spells(&self, name: &str, options: &AlertOptions) -> Result<()> {
        let labels: Vec<_> = options.labels.iter().map(|label| format!("'{label}'")).collect();
        // Readings of a device with one label follow each other where all of its readings since have been counted alike.
        let sql = format!(
            "CREATE OR REPLACE TABLE {name} AS SELECT device, label, min(time) AS starts, max(time) AS ends FROM \
             (SELECT device, coalesce(anomaly, '') AS label, CAST(event_time AS BIGINT) AS time, \
             row_number() OVER (PARTITION BY device ORDER BY seq) - \
             row_number() OVER (PARTITION BY device, coalesce(anomaly, '') ORDER BY seq) AS run \
             FROM truth WHERE reason IS NULL AND duplicate_of IS NULL AND acknowledged IS NOT NULL) \
             WHERE label IN ({}) GROUP BY device, label, run",
            labels.join(", ")
        );
        self.context.sql(&sql).await?.collect().await?;
        Ok(())
    }

    /// The rows that raise: device, and when in microseconds.
    async fn raised(&self, name: &str, of: &str, options: &AlertOptions) -> Result<()> {
        let condition = options.when.as_ref().map_or(String::new(), |sql| format!(" WHERE {sql}"));
        let (device, time) = (quoted(&options.device), quoted(&options.time));
        let sql = format!("SELECT CAST({device} AS VARCHAR) AS device, CAST({time} AS BIGINT) AS raised FROM {}{condition}", quoted(of));
        let rows = self.pipeline.ask(&sql).await?;
        table(&self.context, name, rows, &[("device", DataType::Utf8), ("raised", DataType::Int64)])
    }

    async fn delay(&self, sql: &str) -> Result<String> {
        let batches = self.context.sql(sql).await?.collect().await?;
        let of = |column: usize| {
            let values = batches.first()?.column(column).as_primitive::<Float64Type>();
            values.iter().next().flatten()
        };
        Ok(match (of(0), of(1)) {
            (Some(half), Some(most)) => format!("delay p50 {half:.1} s, p99 {most:.1} s"),
            _ => "nothing found".to_owned(),
        })
    }
}
