//! The columns of the tables that every pipeline has: what could not be used, and what came too late.

use super::PlannedTable;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use flow::{EVENT_TIME, event_time_field, event_time_type, trail};
use processors::window::READINGS;
use std::sync::Arc;

/// When a late row reached us.
const ARRIVAL: &str = "arrival";

/// A table whose plan may grow: what has no column yet has null in it, so that only the event time is always there.
pub(super) fn growing(table: PlannedTable) -> PlannedTable {
    let field = |field: &FieldRef| Arc::new(field.as_ref().clone().with_nullable(field.name() != EVENT_TIME));
    let schema = Arc::new(Schema::new(table.schema.fields().iter().map(field).collect::<Vec<_>>()));
    PlannedTable { schema, ..table }
}

/// The columns of `dead_letters`. `event_time` is the arrival; `topic` holds the path for files; `offset` is the row of a file; `payload`
/// is cut, `length` is not. A row that an operator refused has its columns as JSON in `payload`.
#[must_use]
pub fn dead_letters_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("source", DataType::Utf8View, false),
        Field::new(trail::TOPIC, DataType::Utf8View, true),
        Field::new(trail::OFFSET, DataType::Int64, true),
        Field::new("reason", DataType::Utf8View, false),
        Field::new("detail", DataType::Utf8View, false),
        Field::new("payload", DataType::BinaryView, true),
        Field::new("length", DataType::Int64, false),
        event_time_field(),
    ]))
}

/// The columns of `tidegate.moves` as sinks read it: a row for each partition of a table whose rows of one lane are in the cold tier from now on.
/// `event_time` is where the partition begins, `partition_end` where it ends; `first` and `last` are the event times of the rows that moved.
#[must_use]
pub fn moves_schema() -> SchemaRef {
    let text = |name| Field::new(name, DataType::Utf8View, false);
    let count = |name| Field::new(name, DataType::Int64, false);
    let time = |name| Field::new(name, event_time_type(), false);
    Arc::new(Schema::new(vec![
        text("event"),
        text("table"),
        text("lane"),
        count("move"),
        event_time_field(),
        time("partition_end"),
        count("rows"),
        time("first"),
        time("last"),
        time("moved_at"),
    ]))
}

/// The columns of `late_<operator>`: those of what the operator reads, then when and where each row came in. A column of the input that
/// has the name of one of these keeps its values in its place.
#[must_use]
pub fn late_schema(input: &SchemaRef) -> SchemaRef {
    let mut fields: Vec<_> = input.fields().iter().cloned().collect();
    let added = [Field::new(ARRIVAL, event_time_type(), false), Field::new(trail::TOPIC, DataType::Utf8View, true)];
    fields.extend(added.into_iter().filter(|f| input.index_of(f.name()).is_err()).map(Arc::new));
    Arc::new(Schema::new(fields))
}

/// The columns of `late_<operator>` of a window in two stages. A row of the second stage stands for so many `readings` of a group and has
/// nothing of the columns that are not its key; `readings` is null for a reading itself.
#[must_use]
pub fn late_partials_schema(input: &SchemaRef) -> SchemaRef {
    let late = late_schema(input);
    let mut fields: Vec<Field> = late.fields().iter().map(|f| f.as_ref().clone()).collect();
    let ours = [EVENT_TIME, ARRIVAL];
    fields.iter_mut().filter(|f| !ours.contains(&f.name().as_str())).for_each(|f| f.set_nullable(true));
    if late.index_of(READINGS).is_err() {
        fields.push(Field::new(READINGS, DataType::Int64, true));
    }
    Arc::new(Schema::new(fields))
}
