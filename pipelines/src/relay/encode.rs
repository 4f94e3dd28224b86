//! Rows as records: the value is a JSON object of the columns, times in RFC 3339, nulls left out; the key is made of columns.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use arrow::json::LineDelimitedWriter;
use flow::{Error, Result};

/// The records of a batch.
pub(super) struct Encoded {
    /// JSON objects, one a line.
    lines: Vec<u8>,
    /// The columns of the key, as text.
    key: Vec<ArrayRef>,
}

impl Encoded {
    pub(super) fn new(rows: &RecordBatch, key: &[String]) -> Result<Self> {
        let mut writer = LineDelimitedWriter::new(Vec::new());
        let failed = |e| Error::stop("writing rows as JSON", e);
        writer.write(rows).and_then(|()| writer.finish()).map_err(failed)?;
        let text = |name: &String| {
            let column = rows.column_by_name(name).expect("the plan has checked the columns of the key");
            cast(column, &DataType::Utf8).map_err(failed)
        };
        Ok(Self { lines: writer.into_inner(), key: key.iter().map(text).collect::<Result<_>>()? })
    }

    /// The values, one a row. A JSON object has no line end inside.
    pub(super) fn values(&self) -> impl Iterator<Item = &[u8]> {
        self.lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty())
    }

    /// Writes the key of a row; false where it has none.
    pub(super) fn key(&self, row: usize, out: &mut String) -> bool {
        out.clear();
        let part = |column: &ArrayRef| column.is_valid(row).then(|| column.as_string::<i32>().value(row).to_owned());
        match &self.key[..] {
            [] => false,
            [one] => {
                out.push_str(part(one).as_deref().unwrap_or_default());
                one.is_valid(row)
            }
            many => {
                let parts: Vec<_> = many.iter().map(part).collect();
                out.push_str(&serde_json::to_string(&parts).expect("texts are JSON"));
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Int64Array, StringViewArray, TimestampMicrosecondArray};
    use std::sync::Arc;

    #[test]
    fn a_row_is_an_object_and_its_key_is_text() {
        let device: ArrayRef = Arc::new(StringViewArray::from(vec![Some("a\n\"b"), Some("c"), None]));
        let n: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None, Some(3)]));
        let time: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![0, 1_500_000, 2]).with_timezone("UTC"));
        let rows = RecordBatch::try_from_iter([("device", device), ("n", n), ("event_time", time)]).unwrap();
        let encoded = Encoded::new(&rows, &["device".into()]).unwrap();
        let values: Vec<&str> = encoded.values().map(|v| std::str::from_utf8(v).unwrap()).collect();
        assert_eq!(
            values,
            [
                r#"{"device":"a\n\"b","n":1,"event_time":"1970-01-01T00:00:00Z"}"#,
                r#"{"device":"c","event_time":"1970-01-01T00:00:01.500Z"}"#,
                r#"{"n":3,"event_time":"1970-01-01T00:00:00.000002Z"}"#
            ]
        );
        let key = |of: &Encoded, row: usize| {
            let mut text = String::from("before");
            of.key(row, &mut text).then_some(text)
        };
        assert_eq!([key(&encoded, 0), key(&encoded, 1), key(&encoded, 2)], [Some("a\n\"b".into()), Some("c".into()), None]);
        let of_two = Encoded::new(&rows, &["device".into(), "n".into()]).unwrap();
        assert_eq!(key(&of_two, 1).as_deref(), Some(r#"["c",null]"#));
        assert_eq!(key(&Encoded::new(&rows, &[]).unwrap(), 0), None);
    }
}
