//! Rows as records: the value is a JSON object of the columns, times in RFC 3339, nulls left out; key, headers and topic are made of columns.

use super::topic::{Part, Template};
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use arrow::json::LineDelimitedWriter;
use flow::{Error, Result};

/// What of a row stands beside the value of its record.
#[derive(Clone)]
pub(super) struct Beside {
    /// The columns of the key.
    pub(super) key: Vec<String>,
    /// Names of headers, and their columns.
    pub(super) headers: Vec<(String, String)>,
    /// The topic.
    pub(super) topic: Template,
}

/// The records of a batch.
pub(super) struct Encoded<'b> {
    beside: &'b Beside,
    /// JSON objects, one a line.
    lines: Vec<u8>,
    /// The columns of key, headers and topic, as text.
    key: Vec<ArrayRef>,
    headers: Vec<ArrayRef>,
    topic: Vec<ArrayRef>,
}

impl<'b> Encoded<'b> {
    pub(super) fn new(rows: &RecordBatch, beside: &'b Beside) -> Result<Self> {
        let mut writer = LineDelimitedWriter::new(Vec::new());
        let failed = |e| Error::stop("writing rows as JSON", e);
        writer.write(rows).and_then(|()| writer.finish()).map_err(failed)?;
        let text = |name: &String| {
            let column = rows.column_by_name(name).expect("the plan has checked the columns of key, headers and topic");
            cast(column, &DataType::Utf8).map_err(failed)
        };
        Ok(Self {
            beside,
            lines: writer.into_inner(),
            key: beside.key.iter().map(text).collect::<Result<_>>()?,
            headers: beside.headers.iter().map(|(_, column)| text(column)).collect::<Result<_>>()?,
            topic: beside.topic.columns().map(text).collect::<Result<_>>()?,
        })
    }

    /// The values, one a row. A JSON object has no line end inside.
    pub(super) fn values(&self) -> impl Iterator<Item = &[u8]> {
        self.lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty())
    }

    /// Writes the key of a row; false where it has none.
    pub(super) fn key(&self, row: usize, out: &mut String) -> bool {
        out.clear();
        match &self.key[..] {
            [] => false,
            [one] => {
                out.push_str(value(one, row).unwrap_or_default());
                one.is_valid(row)
            }
            many => {
                let parts: Vec<_> = many.iter().map(|column| value(column, row)).collect();
                out.push_str(&serde_json::to_string(&parts).expect("texts are JSON"));
                true
            }
        }
    }

    /// The headers of a row: name and value.
    pub(super) fn headers(&self, row: usize) -> impl Iterator<Item = (&'b str, &str)> {
        let named = self.beside.headers.iter().zip(&self.headers);
        named.filter_map(move |((name, _), column)| Some((name.as_str(), value(column, row)?)))
    }

    /// Writes the name of a row's topic; false where a column of it is null.
    pub(super) fn topic(&self, row: usize, out: &mut String) -> bool {
        out.clear();
        let mut columns = self.topic.iter().map(|column| value(column, row));
        self.beside.topic.parts().iter().all(|part| {
            let text = match part {
                Part::Text(text) => Some(text.as_str()),
                Part::Column(_) => columns.next().flatten(),
            };
            out.push_str(text.unwrap_or_default());
            text.is_some()
        })
    }
}

fn value(column: &ArrayRef, row: usize) -> Option<&str> {
    column.is_valid(row).then(|| column.as_string::<i32>().value(row))
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
        let beside = |key: &[&str]| Beside {
            key: key.iter().map(|k| (*k).to_owned()).collect(),
            headers: vec![("x-n".into(), "n".into()), ("x-device".into(), "device".into())],
            topic: Template::parse("plant-{n}.out").unwrap(),
        };
        let of_one = beside(&["device"]);
        let encoded = Encoded::new(&rows, &of_one).unwrap();
        let values: Vec<&str> = encoded.values().map(|v| std::str::from_utf8(v).unwrap()).collect();
        assert_eq!(
            values,
            [
                r#"{"device":"a\n\"b","n":1,"event_time":"1970-01-01T00:00:00Z"}"#,
                r#"{"device":"c","event_time":"1970-01-01T00:00:01.500Z"}"#,
                r#"{"n":3,"event_time":"1970-01-01T00:00:00.000002Z"}"#
            ]
        );
        let key = |of: &Encoded<'_>, row: usize| {
            let mut text = String::from("before");
            of.key(row, &mut text).then_some(text)
        };
        assert_eq!([key(&encoded, 0), key(&encoded, 1), key(&encoded, 2)], [Some("a\n\"b".into()), Some("c".into()), None]);
        let (of_two, of_none) = (beside(&["device", "n"]), beside(&[]));
        assert_eq!(key(&Encoded::new(&rows, &of_two).unwrap(), 1).as_deref(), Some(r#"["c",null]"#));
        assert_eq!(key(&Encoded::new(&rows, &of_none).unwrap(), 0), None);
        assert_eq!(encoded.headers(0).collect::<Vec<_>>(), [("x-n", "1"), ("x-device", "a\n\"b")]);
        assert_eq!(encoded.headers(1).collect::<Vec<_>>(), [("x-device", "c")]);
        let topic = |row: usize| {
            let mut name = String::from("before");
            encoded.topic(row, &mut name).then_some(name)
        };
        assert_eq!([topic(0), topic(1), topic(2)], [Some("plant-1.out".into()), None, Some("plant-3.out".into())]);
    }
}
