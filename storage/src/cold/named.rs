//! The files that a version of a cold table names, with what its log says of each.

use super::table::{DAY, Snapshot};
use chrono::{DateTime, NaiveDate};
use flow::{EVENT_TIME, Error, Result};
use object_store::path::Path;
use object_store::{GetResult, ObjectStoreExt};
use serde_json::Value;

/// A Parquet file of a cold table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedFile {
    /// Path below the table's root.
    pub path: String,
    /// Length in bytes.
    pub bytes: u64,
    /// Rows inside, where the log says so.
    pub rows: Option<u64>,
    /// Least and greatest event time in milliseconds, where the log says so.
    pub times_ms: Option<(i64, i64)>,
    /// The day of the partition, in days since 1970.
    pub day: Option<i64>,
}

impl Snapshot {
    /// The files of this version.
    pub fn named(&self) -> Result<Vec<NamedFile>> {
        let state = self.table.snapshot().map_err(|e| Error::retry("listing the files of a cold table", e))?;
        let file = |file: deltalake::kernel::LogicalFileView| {
            let statistics: Value = file.stats().and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
            let day = file.partition_values_map().get(DAY).cloned().flatten();
            NamedFile {
                path: file.object_store_path().to_string(),
                bytes: file.size() as u64,
                rows: statistics["numRecords"].as_u64(),
                times_ms: time(&statistics["minValues"]).zip(time(&statistics["maxValues"])),
                day: day.and_then(|day| days(&day)),
            }
        };
        Ok(state.log_data().into_iter().map(file).collect())
    }

    /// Opens a file of this version.
    pub async fn open(&self, file: &NamedFile) -> object_store::Result<GetResult> {
        self.table.log_store().object_store(None).get(&Path::parse(&file.path)?).await
    }
}

fn time(of: &Value) -> Option<i64> {
    Some(DateTime::parse_from_rfc3339(of[EVENT_TIME].as_str()?).ok()?.timestamp_millis())
}

fn days(text: &str) -> Option<i64> {
    let day: NaiveDate = text.parse().ok()?;
    Some(day.signed_duration_since(NaiveDate::default()).num_days())
}
