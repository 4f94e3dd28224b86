//! `dead_letters`: each message that nobody can use, with the right reason and its bytes.
//!
//! Reasons that operators give (`filtered`, `expression`, `state_limit`, `no_match`) are not looked at: what they take away is missing
//! in the tables behind them, unless `where` says so. Of a file's reading with a time in the future only its columns are kept, so these are
//! only counted.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema};
use xxhash_rust::xxh3::xxh3_64;

use super::compare::{Compared, table};
use super::{Ask, Check, Referee};
use crate::scenario::Transport;
use crate::truth::PAYLOAD_BYTES;
use crate::{Error, Result};

/// Reasons that are not of the message alone.
const OF_OPERATORS: &str = "'filtered', 'expression', 'state_limit', 'no_match'";
const OF_MQTT: &str = "payload, CAST(reason AS VARCHAR) AS reason, coalesce(CAST(topic AS VARCHAR), '') AS topic, \
                       CAST(length AS BIGINT) AS length";
const OF_FILES: &str = "CASE WHEN reason <> 'time_in_future' THEN payload END AS payload, CAST(reason AS VARCHAR) AS reason, '' AS topic, \
                        CASE WHEN reason <> 'time_in_future' THEN CAST(length AS BIGINT) ELSE 0 END AS length";
/// Characters of a payload that are shown.
const SHOWN_CHARACTERS: usize = 60;

/// The columns that are fetched; the payload comes first.
const COLUMNS: [(&str, DataType); 4] =
    [("payload", DataType::Utf8), ("reason", DataType::Utf8), ("topic", DataType::Utf8), ("length", DataType::Int64)];

impl<A: Ask> Referee<'_, A> {
    pub(super) async fn letters(&self) -> Result<Check> {
        // Of a file the topic is its path, of Kafka it has the partition.
        let columns = match self.scenario.wire.transport {
            Transport::Mqtt | Transport::Http => OF_MQTT,
            Transport::File | Transport::Kafka => OF_FILES,
        };
        let sql = format!(
            "SELECT {columns}, CASE WHEN acknowledged IS NULL THEN 0 ELSE 1 END AS acknowledged, attempts FROM truth \
             WHERE reason IS NOT NULL"
        );
        let sent = self.context.sql(&sql).await?.collect().await?;
        let sent = sent.iter().map(told_apart).collect::<Result<Vec<_>>>()?;
        let further = [("acknowledged", DataType::Int64), ("attempts", DataType::Int32)];
        table(&self.context, "broken", sent, &[&COLUMNS[..], &further[..]].concat())?;
        let sql = "CREATE OR REPLACE TABLE expected_letters AS SELECT reason, topic, length, payload, \
                   CAST(sum(acknowledged) AS BIGINT) AS _least, CAST(sum(attempts) AS BIGINT) AS _most FROM broken \
                   GROUP BY reason, topic, length, payload";
        self.context.sql(sql).await?.collect().await?;
        let rows = self.pipeline.ask(&format!("SELECT {columns} FROM dead_letters WHERE reason NOT IN ({OF_OPERATORS})")).await?;
        let rows = rows.iter().map(told_apart).collect::<Result<Vec<_>>>()?;
        table(&self.context, "found_letters", rows, &COLUMNS)?;
        let mut check = Check::new("dead_letters");
        let identity = ["reason", "topic", "length", "payload"].map(str::to_owned);
        let compared = Compared { identity: &identity, exact: &[], near: &[] };
        compared.run(&self.context, "expected_letters", "found_letters", &mut check).await?;
        Ok(check)
    }
}

/// The rows with their first column, the payload, as a text that is short enough for a person and differs where payloads differ.
fn told_apart(rows: &RecordBatch) -> Result<RecordBatch> {
    let failed = |error: arrow::error::ArrowError| Error::Verify(format!("payloads of dead letters: {error}"));
    let payloads = cast(rows.column(0), &DataType::Binary).map_err(failed)?;
    let texts: StringArray = payloads.as_binary::<i32>().iter().map(|payload| Some(shown(payload.unwrap_or_default()))).collect();
    let texts: ArrayRef = Arc::new(texts);
    let mut fields: Vec<Arc<Field>> = rows.schema().fields().iter().cloned().collect();
    fields[0] = Arc::new(Field::new("payload", DataType::Utf8, true));
    let mut columns = rows.columns().to_vec();
    columns[0] = texts;
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(failed)
}

fn shown(payload: &[u8]) -> String {
    let payload = &payload[..payload.len().min(PAYLOAD_BYTES)];
    let text = String::from_utf8_lossy(payload);
    let start: String = text.chars().take(SHOWN_CHARACTERS).collect();
    format!("{start} #{:016x}", xxh3_64(payload))
}
