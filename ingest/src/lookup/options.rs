//! What a user says about a lookup table: `[lookups.X]`.

use crate::decode::{Columns, CsvOptions, DecodeOptions, EventTimeOptions, Format, OnMissing, OptionError, schema};
use crate::journal::Size;
use arrow::datatypes::Schema;
use flow::{LookupShape, event_time_type};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::Arc;

/// A version stands in one frame of the journal, whose queue holds 64 MiB; columns take more room than text.
const MOST_BYTES: u64 = 32 << 20;

/// A lookup table in a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LookupOptions {
    /// The file. Relative to the working directory. It is read at the start and again when its content changes.
    pub path: String,
    /// The form of the file; by its ending if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<LookupFormat>,
    /// The columns that find a row. Never null.
    pub key: Vec<String>,
    /// A column of type `timestamp`: a row counts for readings from this event time on, until the next row of its key. Never null.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_from: Option<String>,
    /// The columns, those of the key included. The file may have more. Timestamps are RFC 3339.
    #[schemars(with = "std::collections::BTreeMap<String, crate::decode::ColumnOptions>")]
    pub columns: Columns,
    /// How CSV is written.
    #[serde(default)]
    pub csv: CsvOptions,
    /// A file with more rows is refused.
    #[serde(default = "max_rows")]
    pub max_rows: u64,
    /// A larger file is refused; at most 32MiB. Every lane holds the table, and every lane's state has a copy.
    #[serde(default = "max_bytes")]
    pub max_bytes: Size,
}

/// The form of a lookup table's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LookupFormat {
    /// Records of RFC 4180, with a header unless `csv.header = false`.
    Csv,
    /// One array of objects, or an object a line.
    Json,
    /// An object a line.
    Ndjson,
    /// Apache Parquet.
    Parquet,
}

fn max_rows() -> u64 {
    1_000_000
}

fn max_bytes() -> Size {
    Size(16 << 20)
}

impl LookupOptions {
    /// The table's columns; or the first mistake in the options.
    pub fn shape(&self, name: &str) -> Result<LookupShape, OptionError> {
        let wrong = |path: &str, message: String, hint: &str| OptionError { path: path.into(), message, hint: Some(hint.into()) };
        if self.key.is_empty() {
            return Err(wrong("key", "no column is named".into(), "name the columns that find a row"));
        }
        if self.form().is_none() {
            let message = format!("the ending of `{}` does not say what it is", self.path);
            return Err(wrong("path", message, "`.csv`, `.json`, `.ndjson`, `.parquet`, or say `format`"));
        }
        if self.max_bytes.0 > MOST_BYTES {
            return Err(wrong(
                "max_bytes",
                format!("{} bytes are more than {MOST_BYTES}", self.max_bytes.0),
                "a larger table needs a database",
            ));
        }
        let read = schema(&self.decode(), &self.columns, &[], &self.key)?;
        // The event time, which every reading has and no row of a lookup table, stands last.
        let declared = read.fields().len() - 1;
        let columns = Schema::new(read.fields()[..declared].to_vec());
        if let Some(valid_from) = &self.valid_from {
            match columns.field_with_name(valid_from).map(|f| f.data_type().clone()) {
                Ok(of) if of == event_time_type() => {}
                Ok(of) => {
                    return Err(wrong("valid_from", format!("`{valid_from}` is {of}, not a time"), "declare it with type \"timestamp\""));
                }
                Err(_) => return Err(wrong("valid_from", format!("`{valid_from}` is no column"), "declare it in `columns`")),
            }
        }
        Ok(LookupShape { name: name.into(), schema: Arc::new(columns), key: self.key.clone(), valid_from: self.valid_from.clone() })
    }

    /// The form of the file; none where neither `format` nor the ending says it.
    pub(super) fn form(&self) -> Option<LookupFormat> {
        let by_ending = || match Path::new(&self.path).extension()?.to_str()? {
            "csv" => Some(LookupFormat::Csv),
            "json" => Some(LookupFormat::Json),
            "ndjson" | "jsonl" => Some(LookupFormat::Ndjson),
            "parquet" => Some(LookupFormat::Parquet),
            _ => None,
        };
        self.format.or_else(by_ending)
    }

    /// How the decoders of sources read it: as readings without an event time.
    pub(super) fn decode(&self) -> DecodeOptions {
        let is_csv = self.form() == Some(LookupFormat::Csv);
        let nowhere = if is_csv { String::new() } else { "$['no event time']".to_owned() };
        DecodeOptions {
            format: if is_csv { Format::Csv } else { Format::Json },
            event_time: EventTimeOptions {
                path: nowhere,
                format: "rfc3339".into(),
                timezone: None,
                on_missing: OnMissing::Arrival,
                min_time: None,
            },
            explode: None,
        }
    }
}
