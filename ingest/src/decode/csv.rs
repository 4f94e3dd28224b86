//! CSV records (RFC 4180): fields in double quotes may hold the delimiter, line ends and doubled quotes.
//!
//! A quote opens a field only as its first character. Fields are read in place; only those with doubled quotes are copied.

use super::layout::{Layout, Rows, Wrong, shown};
use super::value::Cell;
use super::{CsvOptions, DecodeOptions, Decoded, Decoder, Message, OnMissing, OptionError};
use arrow::datatypes::{DataType, SchemaRef};
use flow::{Reason, WallTime};
use std::sync::Arc;

/// The decoder of CSV records.
pub(super) struct Csv {
    layout: Arc<Layout>,
    rows: Rows,
    delimiter: u8,
    null: String,
    /// Field name of each cell.
    names: Vec<String>,
    /// For each field of a record the cells it fills.
    fields: Vec<Vec<usize>>,
    scratch: String,
}

impl Csv {
    pub(super) fn new(decode: &DecodeOptions, layout: Arc<Layout>, options: &CsvOptions) -> Result<Self, OptionError> {
        let wrong = |path: &str, message: String, hint: &str| Err(OptionError { path: path.into(), message, hint: Some(hint.into()) });
        if decode.explode.is_some() {
            return wrong("decode.explode", "CSV has no arrays to explode".into(), "leave it out");
        }
        if !options.delimiter.is_ascii() || matches!(options.delimiter, '"' | '\r' | '\n') {
            return wrong("csv.delimiter", format!("{:?} cannot stand between fields", options.delimiter), "`,`, `;` or a tab");
        }
        let mut names: Vec<String> = layout.slots.iter().map(|s| s.path.clone().unwrap_or_else(|| s.name.clone())).collect();
        if decode.event_time.path.is_empty() && decode.event_time.on_missing != OnMissing::Arrival {
            return wrong(
                "decode.event_time.path",
                "no field is named".into(),
                "a header name, or `on_missing = \"arrival\"` for rows without one",
            );
        }
        names.push(decode.event_time.path.clone());
        let mut order: Vec<&String> = Vec::new();
        for name in &names {
            if !name.is_empty() && !order.contains(&name) {
                order.push(name);
            }
        }
        let fields = order.iter().map(|field| cells_of(field, &names)).collect();
        let (delimiter, null) = (options.delimiter as u8, options.null.clone());
        Ok(Self { rows: Rows::new(layout.clone()), layout, delimiter, null, names, fields, scratch: String::new() })
    }

    /// The cells of all records in one message.
    fn message<'a>(&mut self, text: &'a str, cells: &mut Vec<Cell<'a>>) -> Result<(), Box<Wrong>> {
        let mut rest = text;
        while !rest.is_empty() {
            let next = record_end(rest.as_bytes(), self.delimiter).unwrap_or(rest.len());
            let record = without_line_end(&rest[..next]);
            if !record.is_empty() {
                self.record(record, cells)?;
            }
            rest = &rest[next..];
        }
        Ok(())
    }

    fn record<'a>(&mut self, record: &'a str, cells: &mut Vec<Cell<'a>>) -> Result<(), Box<Wrong>> {
        let row = cells.len();
        cells.resize(row + self.layout.width(), Cell::Unset);
        let mut rest = Some(record);
        for number in 0..self.fields.len() {
            let Some(text) = rest else { return Err(self.uneven(number, "only ")) };
            let field = Field::read(text, self.delimiter).map_err(|what| Wrong::new(Reason::Malformed, what.into()))?;
            for i in 0..self.fields[number].len() {
                let slot = self.fields[number][i];
                cells[row + slot] = self.cell(slot, &field)?;
            }
            rest = field.rest;
        }
        if rest.is_some() { Err(self.uneven(self.fields.len() + 1, "at least ")) } else { Ok(()) }
    }

    fn uneven(&self, found: usize, about: &str) -> Box<Wrong> {
        Wrong::new(Reason::Malformed, format!("{about}{found} fields, expected {}", self.fields.len()))
    }

    fn cell<'a>(&mut self, slot: usize, field: &Field<'a>) -> Result<Cell<'a>, Box<Wrong>> {
        if !field.quoted && field.text == self.null {
            return Ok(Cell::Null);
        }
        if !field.doubled {
            return self.layout.text(slot, field.text, true);
        }
        let start = self.scratch.len();
        field.push_to(&mut self.scratch);
        if self.layout.slots.get(slot).is_some_and(|s| s.kind == DataType::Utf8View) {
            return Ok(Cell::Scratch(start, self.scratch.len()));
        }
        self.layout.text(slot, &self.scratch[start..], true).map(|cell| cell.without_text())
    }
}

impl Decoder for Csv {
    fn schema(&self) -> &SchemaRef {
        &self.layout.schema
    }

    fn decode(&mut self, messages: &[Message<'_>], arrival: WallTime) -> Decoded {
        let mut cells = Vec::new();
        for (number, message) in messages.iter().enumerate() {
            let number = number as u32;
            cells.clear();
            self.scratch.clear();
            let read = match std::str::from_utf8(message.payload) {
                Ok(text) => self.message(text, &mut cells),
                Err(_) => Err(Wrong::new(Reason::Malformed, "not UTF-8".into())),
            };
            match read {
                Ok(()) => self.rows.push(number, message, &cells, &self.scratch, arrival),
                Err(wrong) => self.rows.reject(number, *wrong),
            }
        }
        self.rows.finish()
    }

    fn begin(&mut self, header: &[u8]) -> Result<(), OptionError> {
        let wrong = |path: String, message: String, hint: String| OptionError { path, message, hint: Some(hint) };
        let broken =
            |what: &str| wrong("csv.header".into(), format!("the header {what}"), "csv.header = false for files without one".into());
        let text = std::str::from_utf8(header).map_err(|_| broken("is not UTF-8"))?;
        let mut names = Vec::new();
        let mut rest = Some(without_line_end(text));
        while let Some(text) = rest {
            let field = Field::read(text, self.delimiter).map_err(&broken)?;
            let mut name = String::new();
            field.push_to(&mut name);
            if self.names.contains(&name) && names.contains(&name) {
                return Err(broken(&format!("names {} twice", shown(&name))));
            }
            names.push(name);
            rest = field.rest;
        }
        if let Some(slot) = (0..self.names.len()).find(|&s| !self.names[s].is_empty() && !names.contains(&self.names[s])) {
            let key =
                if slot < self.layout.slots.len() { format!("columns.{}", self.layout.name(slot)) } else { "decode.event_time".into() };
            let message = format!("the header has no field `{}`", self.names[slot]);
            return Err(wrong(format!("{key}.path"), message, format!("the header says: {}", names.join(", "))));
        }
        self.fields = names.iter().map(|name| cells_of(name, &self.names)).collect();
        Ok(())
    }
}

fn cells_of(field: &str, names: &[String]) -> Vec<usize> {
    (0..names.len()).filter(|&cell| names[cell] == field).collect()
}

/// One field, and what follows its delimiter; none behind the last.
struct Field<'a> {
    text: &'a str,
    quoted: bool,
    doubled: bool,
    rest: Option<&'a str>,
}

impl<'a> Field<'a> {
    fn read(text: &'a str, delimiter: u8) -> Result<Self, &'static str> {
        let delimiter = char::from(delimiter);
        let Some(inner) = text.strip_prefix('"') else {
            return Ok(match text.split_once(delimiter) {
                Some((field, rest)) => Self { text: field, quoted: false, doubled: false, rest: Some(rest) },
                None => Self { text, quoted: false, doubled: false, rest: None },
            });
        };
        let (mut from, mut doubled) = (0, false);
        loop {
            let end = from + inner[from..].find('"').ok_or("a quoted field does not end")?;
            let after = &inner[end + 1..];
            if after.starts_with('"') {
                doubled = true;
                from = end + 2;
                continue;
            }
            let rest = match after.strip_prefix(delimiter) {
                Some(rest) => Some(rest),
                None if after.is_empty() => None,
                None => return Err("text follows the quote that ends a field"),
            };
            return Ok(Self { text: &inner[..end], quoted: true, doubled, rest });
        }
    }

    /// Appends the field's text, its doubled quotes single.
    fn push_to(&self, out: &mut String) {
        let mut rest = self.text;
        while let Some((before, after)) = rest.split_once("\"\"").filter(|_| self.doubled) {
            out.push_str(before);
            out.push('"');
            rest = after;
        }
        out.push_str(rest);
    }
}

/// Text without the line end that may close it.
pub(crate) fn without_line_end(record: &str) -> &str {
    let record = record.strip_suffix('\n').unwrap_or(record);
    record.strip_suffix('\r').unwrap_or(record)
}

/// Where the first record of `bytes` ends, behind its line end; none when no line end closes it.
pub(crate) fn record_end(bytes: &[u8], delimiter: u8) -> Option<usize> {
    let line = bytes.iter().position(|&b| b == b'\n');
    if let Some(end) = line
        && !bytes[..end].contains(&b'"')
    {
        return Some(end + 1);
    }
    let (mut quoted, mut field_start) = (false, true);
    for (at, &byte) in bytes.iter().enumerate() {
        match byte {
            // A doubled quote closes and opens again, which leaves the state as it was.
            b'"' if quoted => (quoted, field_start) = (false, true),
            b'"' if field_start => (quoted, field_start) = (true, false),
            b'\n' if !quoted => return Some(at + 1),
            _ => field_start = !quoted && byte == delimiter,
        }
    }
    None
}

#[cfg(test)]
#[path = "csv_tests.rs"]
mod tests;
