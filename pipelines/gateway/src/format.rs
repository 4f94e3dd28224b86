//! Renders results: a table for people, CSV, JSON and NDJSON for programs, Arrow IPC for data tools.

use arrow::array::RecordBatch;
use arrow::csv::WriterBuilder as CsvBuilder;
use arrow::datatypes::Schema;
use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;
use arrow::json::WriterBuilder as JsonBuilder;
use arrow::json::writer::{JsonArray, JsonFormat, LineDelimited};
use arrow::util::pretty::pretty_format_batches;

/// A form of results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Lines and columns for a terminal.
    Table,
    /// CSV with a header line.
    Csv,
    /// One JSON array of objects; nulls are written.
    Json,
    /// One JSON object a line; nulls are written.
    Ndjson,
    /// An Arrow IPC stream.
    Arrow,
}

impl Format {
    /// Every form, the one for programs first.
    pub const ALL: [Self; 5] = [Self::Json, Self::Ndjson, Self::Csv, Self::Arrow, Self::Table];

    /// The media type.
    #[must_use]
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Table => "text/plain",
            Self::Csv => "text/csv",
            Self::Json => "application/json",
            Self::Ndjson => "application/x-ndjson",
            Self::Arrow => "application/vnd.apache.arrow.stream",
        }
    }

    /// The first form that an `Accept` header names; JSON for none, `*/*` and `application/*`. None when it names only others.
    #[must_use]
    pub fn accepted(accept: Option<&str>) -> Option<Self> {
        let Some(accept) = accept.filter(|a| !a.trim().is_empty()) else { return Some(Self::Json) };
        accept.split(',').find_map(|range| {
            let media = range.split(';').next().unwrap_or_default().trim();
            if matches!(media, "*/*" | "application/*") {
                return Some(Self::Json);
            }
            Self::ALL.into_iter().find(|f| f.media_type().eq_ignore_ascii_case(media))
        })
    }
}

impl std::str::FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "table" => Ok(Self::Table),
            "csv" => Ok(Self::Csv),
            "json" => Ok(Self::Json),
            "ndjson" => Ok(Self::Ndjson),
            "arrow" => Ok(Self::Arrow),
            _ => Err(format!("`{text}` is not a format; there are table, csv, json, ndjson and arrow")),
        }
    }
}

/// The rows in a form, with the columns of `schema` where there are no rows. Text ends with a line feed.
pub fn render(format: Format, schema: &Schema, batches: &[RecordBatch]) -> Result<Vec<u8>, ArrowError> {
    match format {
        Format::Table => table(schema, batches),
        Format::Csv => csv(schema, batches),
        Format::Json => json::<JsonArray>(batches, true),
        Format::Ndjson => json::<LineDelimited>(batches, false),
        Format::Arrow => ipc(schema, batches),
    }
}

fn table(schema: &Schema, batches: &[RecordBatch]) -> Result<Vec<u8>, ArrowError> {
    let text = if batches.is_empty() {
        pretty_format_batches(&[RecordBatch::new_empty(schema.clone().into())])?
    } else {
        pretty_format_batches(batches)?
    };
    Ok(format!("{text}\n").into_bytes())
}

fn csv(schema: &Schema, batches: &[RecordBatch]) -> Result<Vec<u8>, ArrowError> {
    let mut bytes = Vec::new();
    let mut writer = CsvBuilder::new().with_header(true).build(&mut bytes);
    if batches.is_empty() {
        writer.write(&RecordBatch::new_empty(schema.clone().into()))?;
    }
    for batch in batches {
        writer.write(batch)?;
    }
    drop(writer);
    Ok(bytes)
}

fn json<F: JsonFormat>(batches: &[RecordBatch], newline: bool) -> Result<Vec<u8>, ArrowError> {
    let mut bytes = Vec::new();
    let mut writer = JsonBuilder::new().with_explicit_nulls(true).build::<_, F>(&mut bytes);
    for batch in batches {
        writer.write(batch)?;
    }
    writer.finish()?;
    drop(writer);
    if newline {
        bytes.push(b'\n');
    }
    Ok(bytes)
}

fn ipc(schema: &Schema, batches: &[RecordBatch]) -> Result<Vec<u8>, ArrowError> {
    let mut bytes = Vec::new();
    let mut writer = StreamWriter::try_new(&mut bytes, schema)?;
    for batch in batches {
        writer.write(batch)?;
    }
    writer.finish()?;
    drop(writer);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Int64Array, StringArray};
    use std::sync::Arc;

    fn rows() -> RecordBatch {
        let name: ArrayRef = Arc::new(StringArray::from(vec![Some("a,b"), None]));
        let n: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
        RecordBatch::try_from_iter_with_nullable([("name", name, true), ("n", n, false)]).unwrap()
    }

    fn text(format: Format, batches: &[RecordBatch]) -> String {
        String::from_utf8(render(format, &rows().schema(), batches).unwrap()).unwrap()
    }

    #[test]
    fn results_have_the_form_that_was_asked_for() {
        assert_eq!(text(Format::Csv, &[rows()]), "name,n\n\"a,b\",1\n,2\n");
        assert_eq!(text(Format::Json, &[rows()]), "[{\"name\":\"a,b\",\"n\":1},{\"name\":null,\"n\":2}]\n");
        assert_eq!(text(Format::Ndjson, &[rows()]), "{\"name\":\"a,b\",\"n\":1}\n{\"name\":null,\"n\":2}\n");
        assert!(text(Format::Table, &[rows()]).contains("| a,b  | 1 |"));
    }

    #[test]
    fn no_rows_still_have_columns() {
        assert_eq!(text(Format::Csv, &[]), "name,n\n");
        assert_eq!(text(Format::Json, &[]), "[]\n");
        assert_eq!(text(Format::Ndjson, &[]), "");
        assert!(text(Format::Table, &[]).contains("name"));
    }

    #[test]
    fn the_accept_header_chooses() {
        assert_eq!(Format::accepted(None), Some(Format::Json));
        assert_eq!(Format::accepted(Some("text/html, text/csv;q=0.9")), Some(Format::Csv));
        assert_eq!(Format::accepted(Some("*/*")), Some(Format::Json));
        assert_eq!(Format::accepted(Some("image/png")), None);
    }
}
