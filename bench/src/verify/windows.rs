//! Tables of tumbling windows, and the readings that came too late for them.

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{DataType, Int64Type};

use super::compare::{Compared, list, number, table, texts};
use super::raw::named;
use super::verdict::SHOWN;
use super::{Ask, Check, Kind, Referee, quoted};
use crate::Result;
use crate::scenario::{RawOptions, WindowOptions};

/// How much later than its acknowledgement a reading may be seen by a lane: brokers and several connections change the order.
const OVERTAKEN_BY_US: i64 = 10_000_000;

/// The start of a window.
const START: &str = "window_start";

impl<A: Ask> Referee<'_, A> {
    /// Compares a table of windows, and its table of late readings if it has one.
    pub(super) async fn windows(&self, name: &str, options: &WindowOptions) -> Result<Vec<Check>> {
        let raw = &self.scenario.verify.raw[&options.raw];
        let mut checks = Vec::new();
        let late = named("late", name);
        let rows = match &options.late {
            Some(late) => self.pipeline.ask(&late_rows(late, raw)).await?,
            None => Vec::new(),
        };
        table(&self.context, &late, rows, &[("device", DataType::Utf8), ("seq", DataType::Int64), ("copies", DataType::Int64)])?;
        let taken = self.taken(name, options).await?;
        if let Some(table) = &options.late {
            checks.push(self.late(table, options, &taken, &late).await?);
        }
        let input = self.input(name, options, &taken, &late).await?;
        let (expected, found) = (named("expected", name), named("found", name));
        self.aggregate(&expected, options, &input).await?;
        self.fetch_windows(&found, name, options).await?;
        let mut identity: Vec<String> = options.key.keys().cloned().collect();
        identity.push(START.to_owned());
        let near: Vec<String> = options.select.keys().cloned().collect();
        let mut check = Check::new(name);
        Compared { identity: &identity, exact: &[], near: &near }.run(&self.context, &expected, &found, &mut check).await?;
        checks.push(check);
        Ok(checks)
    }

    /// The readings that reached the windows, in time or late, and how often: as many as are certain, and of the others those that the raw
    /// table has.
    async fn taken(&self, name: &str, options: &WindowOptions) -> Result<String> {
        let (expected, found, taken) = (named("expected", &options.raw), named("found", &options.raw), named("taken", name));
        let (size, offset) = (options.size.micros(), options.offset.micros());
        let sql = format!(
            "CREATE OR REPLACE TABLE {taken} AS SELECT e.device, e.seq, \
             greatest(e._least, least(e._most, coalesce(f.copies, 0))) AS copies, \
             e.event_time - (((e.event_time - {offset}) % {size}) + {size}) % {size} AS {START} \
             FROM {expected} e LEFT JOIN (SELECT device, seq, count(*) AS copies FROM {found} GROUP BY device, seq) f \
             ON e.device = f.device AND e.seq = f.seq"
        );
        self.context.sql(&sql).await?.collect().await?;
        Ok(taken)
    }

    /// Compares the table of late readings: each was sent, is late as often as it came at most, and has a cause.
    async fn late(&self, name: &str, options: &WindowOptions, taken: &str, late: &str) -> Result<Check> {
        let mut check = Check::new(name);
        check.found = number(&self.context, &format!("SELECT CAST(coalesce(sum(copies), 0) AS BIGINT) AS n FROM {late}")).await?;
        let joined = format!("{late} l LEFT JOIN {taken} t ON l.device = t.device AND l.seq = t.seq");
        for (kind, condition) in
            [(Kind::Extra, "t.copies IS NULL OR t.copies = 0"), (Kind::Duplicate, "l.copies > t.copies AND t.copies > 0")]
        {
            let sql = format!("SELECT l.device, l.seq, l.copies FROM {joined} WHERE {condition}");
            super::compare::tell(&self.context, kind, &sql, 2, &mut check).await?;
        }
        let (count, rows) = self.without_cause(options, taken, late).await?;
        check.tell_all(Kind::LateWithoutCause, count, rows);
        check.note = Some("that a reading is late is the pipeline's word; that it may be was looked at".to_owned());
        Ok(check)
    }

    /// Late readings before which no reading beyond the end of their window was sent: no watermark can have closed that.
    async fn without_cause(&self, options: &WindowOptions, taken: &str, late: &str) -> Result<(u64, Vec<String>)> {
        let sent = "SELECT CAST(sent AS BIGINT) AS sent, max(CAST(event_time AS BIGINT)) AS event_time FROM truth \
                    WHERE reason IS NULL GROUP BY 1 ORDER BY 1";
        let mut newest = Vec::new();
        for batch in self.context.sql(sent).await?.collect().await? {
            let (sent, times) = (batch.column(0).as_primitive::<Int64Type>(), batch.column(1).as_primitive::<Int64Type>());
            for (sent, time) in sent.values().iter().zip(times.values()) {
                let before = newest.last().map_or(i64::MIN, |(_, time)| *time);
                newest.push((*sent, before.max(*time)));
            }
        }
        let size = options.size.micros();
        let late = format!(
            "SELECT l.device, l.seq, t.{START}, t.{START} + {size} AS ends, coalesce(s.until, {}) AS until FROM {late} l \
             JOIN {taken} t ON l.device = t.device AND l.seq = t.seq \
             JOIN (SELECT device, seq, max(CAST(acknowledged AS BIGINT)) + {OVERTAKEN_BY_US} AS until FROM truth WHERE reason IS NULL \
             GROUP BY device, seq) s ON l.device = s.device AND l.seq = s.seq ORDER BY 1, 2",
            i64::MAX
        );
        let (mut count, mut rows) = (0, Vec::new());
        for batch in self.context.sql(&late).await?.collect().await? {
            let (ends, until) = (batch.column(3).as_primitive::<Int64Type>(), batch.column(4).as_primitive::<Int64Type>());
            let has_cause = |row: usize| {
                let before = newest.partition_point(|(sent, _)| *sent <= until.value(row));
                before > 0 && newest[before - 1].1 >= ends.value(row)
            };
            let without: Vec<RecordBatch> = (0..batch.num_rows()).filter(|row| !has_cause(*row)).map(|row| batch.slice(row, 1)).collect();
            count += without.len() as u64;
            rows.extend(texts(&without[..without.len().min(SHOWN.saturating_sub(rows.len()))])?);
        }
        Ok((count, rows))
    }

    /// The readings that windows hold: those that were taken less those that came late, each as often as it counts.
    async fn input(&self, name: &str, options: &WindowOptions, taken: &str, late: &str) -> Result<String> {
        let input = named("input", name);
        let most = number(&self.context, &format!("SELECT CAST(coalesce(max(copies), 0) AS BIGINT) AS n FROM {taken}")).await?;
        let numbers = (1..=most.max(1)).map(|n| format!("({n})")).collect::<Vec<_>>().join(", ");
        let signals = list(self.scenario.signals.keys(), |signal| format!(", r.{}", quoted(signal)), "");
        let raw = &self.scenario.verify.raw[&options.raw];
        let condition = raw.condition.as_ref().map_or(String::new(), |sql| format!(" AND ({sql})"));
        let sql = format!(
            "CREATE OR REPLACE TABLE {input} AS SELECT t.device, t.seq, t.{START}, r.site, r.event_time{signals} FROM {taken} t \
             JOIN (SELECT * FROM (SELECT *, row_number() OVER (PARTITION BY device, seq ORDER BY number) AS copy FROM truth \
             WHERE reason IS NULL{condition}) WHERE copy = 1) r ON t.device = r.device AND t.seq = r.seq \
             LEFT JOIN {late} l ON t.device = l.device AND t.seq = l.seq \
             JOIN (SELECT * FROM (VALUES {numbers}) AS v(n)) v ON v.n <= t.copies - coalesce(l.copies, 0)"
        );
        self.context.sql(&sql).await?.collect().await?;
        Ok(input)
    }

    async fn aggregate(&self, expected: &str, options: &WindowOptions, input: &str) -> Result<()> {
        let key = options.key.iter().map(|(column, sql)| format!("CAST({sql} AS VARCHAR) AS {}, ", quoted(column)));
        let select = options.select.iter().map(|(column, sql)| format!(", CAST({sql} AS DOUBLE) AS {}", quoted(column)));
        let by = list(options.key.values(), |sql| format!("{sql}, "), "");
        let sql = format!(
            "CREATE OR REPLACE TABLE {expected} AS SELECT {}{START}{}, CAST(1 AS BIGINT) AS _least, CAST(1 AS BIGINT) AS _most \
             FROM {input} GROUP BY {by}{START}",
            key.collect::<String>(),
            select.collect::<String>()
        );
        self.context.sql(&sql).await?.collect().await?;
        Ok(())
    }

    async fn fetch_windows(&self, found: &str, name: &str, options: &WindowOptions) -> Result<()> {
        let key = list(options.key.keys(), |column| format!("CAST({0} AS VARCHAR) AS {0}, ", quoted(column)), "");
        let select = list(options.select.keys(), |column| format!(", CAST({0} AS DOUBLE) AS {0}", quoted(column)), "");
        let sql = format!("SELECT {key}CAST({START} AS BIGINT) AS {START}{select} FROM {}", quoted(name));
        let rows = self.pipeline.ask(&sql).await?;
        let mut empty: Vec<(&str, DataType)> = options.key.keys().map(|column| (column.as_str(), DataType::Utf8)).collect();
        empty.push((START, DataType::Int64));
        empty.extend(options.select.keys().map(|column| (column.as_str(), DataType::Float64)));
        table(&self.context, found, rows, &empty)
    }
}

/// How often each reading is in a table of late ones.
fn late_rows(late: &str, raw: &RawOptions) -> String {
    let (device, sequence) = (quoted(&raw.device), quoted(&raw.sequence));
    format!(
        "SELECT CAST({device} AS VARCHAR) AS device, CAST({sequence} AS BIGINT) AS seq, count(*) AS copies FROM {} GROUP BY 1, 2",
        quoted(late)
    )
}
