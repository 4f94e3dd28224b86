//! The columns of a source as its options declare them, and the rows being collected in them. What JSON and CSV have in common.

use super::time::{self, TimeReader};
use super::value::{self, Cell, Column, TYPES};
use super::{Columns, DecodeOptions, Decoded, Message, OnMissing, OptionError, Reject};
use crate::route::may_be_key;
use arrow::array::{ArrayRef, RecordBatch, StringViewBuilder, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use flow::{EVENT_TIME, Reason, WallTime};
use std::mem;
use std::sync::Arc;

/// A declared column.
pub(super) struct Slot {
    pub(super) name: String,
    pub(super) path: Option<String>,
    pub(super) kind: DataType,
    parse: bool,
    key: bool,
}

/// The columns of a source: captures, slots, event time.
pub(super) struct Layout {
    pub(super) schema: SchemaRef,
    pub(super) slots: Vec<Slot>,
    captures: usize,
    times: TimeReader,
    on_missing: OnMissing,
    min_time: i64,
}

/// Why a message cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) reason: Reason,
    pub(super) detail: String,
}

impl Wrong {
    /// In a box, so that results stay small on the way of good messages.
    pub(super) fn new(reason: Reason, detail: String) -> Box<Self> {
        Box::new(Self { reason, detail })
    }
}

impl Layout {
    pub(super) fn new(decode: &DecodeOptions, columns: &Columns, captures: &[String], key: &[String]) -> Result<Self, OptionError> {
        let mut fields = Vec::new();
        for name in captures {
            refuse_name(name, "topics")?;
            fields.push(Field::new(name, DataType::Utf8View, false));
        }
        let mut slots = Vec::new();
        for (name, options) in columns {
            let place = format!("columns.{name}");
            refuse_name(name, &place)?;
            if captures.contains(name) {
                return Err(wrong(place, format!("`{name}` is a capture of the topic too"), "rename one of them"));
            }
            let Some(kind) = value::type_of(&options.kind) else {
                return Err(wrong(format!("{place}.type"), format!("`{}` is not a type", options.kind), TYPES));
            };
            let is_key = key.contains(name);
            let field = Field::new(name, kind.clone(), !is_key);
            fields.push(match &options.unit {
                Some(unit) => field.with_metadata([("unit".to_owned(), unit.clone())].into()),
                None => field,
            });
            slots.push(Slot { name: name.clone(), path: options.path.clone(), kind, parse: options.parse, key: is_key });
        }
        for name in key {
            check_key(name, &fields)?;
        }
        fields.push(flow::event_time_field());
        Ok(Self {
            schema: Arc::new(Schema::new(fields)),
            slots,
            captures: captures.len(),
            times: TimeReader::new(&decode.event_time)?,
            on_missing: decode.event_time.on_missing,
            min_time: time::min_time(&decode.event_time)?,
        })
    }

    /// Number of cells of a row: the slots, and the event time behind them.
    pub(super) fn width(&self) -> usize {
        self.slots.len() + 1
    }

    /// Reads a number for cell `slot`.
    pub(super) fn number<'a>(&self, slot: usize, text: &'a str) -> Result<Cell<'a>, Box<Wrong>> {
        let Some(s) = self.slots.get(slot) else { return self.times.number(text).map(Cell::Int).ok_or_else(|| unreadable(text)) };
        match s.kind {
            DataType::Utf8View if s.parse => Ok(Cell::Text(text)),
            _ => value::number(text, &s.kind, &self.times).ok_or_else(|| s.refuse(text)),
        }
    }

    /// Reads text for cell `slot`; `parse` as if the column said so.
    pub(super) fn text<'a>(&self, slot: usize, text: &'a str, parse: bool) -> Result<Cell<'a>, Box<Wrong>> {
        let Some(s) = self.slots.get(slot) else { return self.times.text(text).map(Cell::Int).ok_or_else(|| unreadable(text)) };
        value::text(text, &s.kind, parse || s.parse, &self.times).ok_or_else(|| s.refuse(text))
    }

    /// Takes a boolean for cell `slot`.
    pub(super) fn boolean(&self, slot: usize, value: bool) -> Result<Cell<'static>, Box<Wrong>> {
        let text = if value { "true" } else { "false" };
        match self.slots.get(slot) {
            None => Err(unreadable(text)),
            Some(s) if s.kind == DataType::Boolean => Ok(Cell::Bool(value)),
            Some(s) if s.kind == DataType::Utf8View && s.parse => Ok(Cell::Text(text)),
            Some(s) => Err(s.refuse(text)),
        }
    }

    /// What a person calls cell `slot`.
    pub(super) fn name(&self, slot: usize) -> &str {
        self.slots.get(slot).map_or(EVENT_TIME, |s| &s.name)
    }

    /// The row's event time, if the row can be used.
    fn check(&self, cell: impl Fn(usize) -> bool, time: Cell<'_>, arrival: WallTime) -> Result<i64, Box<Wrong>> {
        if let Some(slot) = (0..self.slots.len()).find(|&s| self.slots[s].key && cell(s)) {
            return Err(Wrong::new(Reason::KeyMissing, format!("key column {} is missing", self.slots[slot].name)));
        }
        match (time, self.on_missing) {
            (Cell::Int(micros), _) if micros >= self.min_time => Ok(micros),
            (Cell::Int(micros), _) => {
                Err(Wrong::new(Reason::TimeTooOld, format!("event time is {micros} µs after 1970, min_time {} µs", self.min_time)))
            }
            (_, OnMissing::Arrival) => Ok(arrival.0),
            (_, OnMissing::DeadLetter) => Err(Wrong::new(Reason::TimeMissing, "no event time".into())),
        }
    }
}

impl Slot {
    fn refuse(&self, text: &str) -> Box<Wrong> {
        Wrong::new(Reason::WrongType, format!("column {}: {} is not a {}", self.name, shown(text), self.kind))
    }
}

fn unreadable(text: &str) -> Box<Wrong> {
    Wrong::new(Reason::TimeUnreadable, format!("event time {} cannot be read", shown(text)))
}

/// Enough of a value to recognise it.
pub(super) fn shown(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("`{}…`", &text[..end]),
        None => format!("`{text}`"),
    }
}

fn wrong(path: String, message: String, hint: &str) -> OptionError {
    OptionError { path, message, hint: Some(hint.into()) }
}

fn refuse_name(name: &str, place: &str) -> Result<(), OptionError> {
    if name.is_empty() || name == EVENT_TIME {
        return Err(wrong(place.into(), format!("a column cannot be called `{name}`"), "event_time is made from decode.event_time"));
    }
    Ok(())
}

fn check_key(name: &str, fields: &[Field]) -> Result<(), OptionError> {
    let Some(field) = fields.iter().find(|f| f.name() == name) else {
        let names: Vec<&str> = fields.iter().map(|f| f.name().as_str()).collect();
        return Err(wrong("key".into(), format!("`{name}` is no column or capture"), &format!("there are: {}", names.join(", "))));
    };
    if !may_be_key(field.data_type()) {
        return Err(wrong(
            "key".into(),
            format!("`{name}` is a {}, which makes no key", field.data_type()),
            "a key is text or whole numbers",
        ));
    }
    Ok(())
}

/// Rows being collected. A message's rows go in together or not at all: `check` all of them, then `push` them.
pub(super) struct Rows {
    pub(super) layout: Arc<Layout>,
    captures: Vec<StringViewBuilder>,
    columns: Vec<Column>,
    times: Vec<i64>,
    messages: Vec<u32>,
    rejects: Vec<Reject>,
}

impl Rows {
    pub(super) fn new(layout: Arc<Layout>) -> Self {
        let captures = (0..layout.captures).map(|_| StringViewBuilder::new()).collect();
        let columns = layout.slots.iter().map(|s| Column::new(&s.kind)).collect();
        Self { layout, captures, columns, times: vec![], messages: vec![], rejects: vec![] }
    }

    pub(super) fn reject(&mut self, message: u32, wrong: Wrong) {
        self.rejects.push(Reject { message, reason: wrong.reason, detail: wrong.detail });
    }

    /// Adds the rows of one message, `rows` times the layout's width of cells, or rejects it.
    pub(super) fn push(&mut self, number: u32, message: &Message<'_>, cells: &[Cell<'_>], scratch: &str, arrival: WallTime) {
        let width = self.layout.width();
        assert_eq!(cells.len() % width, 0, "{} cells are no rows of {width}", cells.len());
        if message.captures.len() != self.captures.len() {
            let detail = format!("the topic has {} captures, the source {}", message.captures.len(), self.captures.len());
            return self.reject(number, *Wrong::new(Reason::UnknownTopic, detail));
        }
        let first = self.times.len();
        for row in cells.chunks_exact(width) {
            match self.layout.check(|slot| row[slot].is_missing(), row[width - 1], arrival) {
                Ok(time) => self.times.push(time),
                Err(wrong) => {
                    self.times.truncate(first);
                    return self.reject(number, *wrong);
                }
            }
        }
        for row in cells.chunks_exact(width) {
            for (column, value) in self.captures.iter_mut().zip(message.captures) {
                column.append_value(value);
            }
            for (column, cell) in self.columns.iter_mut().zip(row) {
                column.push(*cell, scratch);
            }
            self.messages.push(number);
        }
    }

    /// Takes what was collected.
    pub(super) fn finish(&mut self) -> Decoded {
        let mut arrays: Vec<ArrayRef> = Vec::with_capacity(self.layout.schema.fields().len());
        arrays.extend(self.captures.iter_mut().map(|c| Arc::new(c.finish()) as ArrayRef));
        arrays.extend(self.columns.iter_mut().map(Column::finish));
        arrays.push(Arc::new(TimestampMicrosecondArray::from(mem::take(&mut self.times)).with_timezone("UTC")));
        let rows = RecordBatch::try_new(self.layout.schema.clone(), arrays).expect("columns are built by their schema, one value a row");
        Decoded { rows, messages: mem::take(&mut self.messages), rejects: mem::take(&mut self.rejects) }
    }
}
