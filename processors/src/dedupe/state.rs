//! Saving and loading a dedupe: changed keys are appended; when the part holds twice the keys there are, it is written anew.
//!
//! Columns: the key columns, `floor`, then for `previous` and `current` each `first`, `highest`, `greatest` and `sequences` (roaring's
//! portable format for 64 bits; null where there is no span).

use super::memory::{Memory, Seen};
use super::{Dedupe, broken};
use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, Int64Array, RecordBatch, UInt32Array, UInt64Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, UInt64Type};
use datafusion::logical_expr::EmitTo;
use flow::{Error, Result, StateReader, StateWriter};
use roaring::RoaringTreemap;
use std::sync::Arc;

const PART: &str = "keys";
/// Rewriting a part smaller than this saves nothing.
const SMALL: usize = 1_024;

impl Dedupe {
    pub(super) fn write(&mut self, to: &mut dyn StateWriter) -> Result<()> {
        let anew = self.stored + self.changed.len() > 2 * self.memories.len() + SMALL;
        if self.changed.is_empty() && !anew {
            return Ok(());
        }
        let rows: Vec<u32> = if anew { (0..).take(self.memories.len()).collect() } else { std::mem::take(&mut self.changed) };
        if anew {
            to.remove(PART);
            self.stored = 0;
            self.changed.clear();
        }
        if !rows.is_empty() {
            to.append(PART, self.rows(&rows)?);
        }
        self.stored += rows.len();
        self.memories.iter_mut().for_each(Memory::saved);
        Ok(())
    }

    pub(super) fn read(&mut self, from: &mut dyn StateReader) -> Result<()> {
        let schema = self.state_schema();
        for rows in from.read(PART)? {
            let unlike = |e| Error::stop("dedupe state is of another key", e);
            let rows = RecordBatch::try_new(schema.clone(), rows.columns().to_vec()).map_err(unlike)?;
            self.keys.intern(&rows.columns()[..self.key.len()], &mut self.groups).map_err(broken)?;
            let memories = memories(&rows.columns()[self.key.len()..])?;
            for (group, memory) in self.groups.iter().zip(memories) {
                if *group == self.memories.len() {
                    self.memories.push(memory);
                } else {
                    self.memories[*group] = memory;
                }
            }
            self.stored += rows.num_rows();
        }
        Ok(())
    }

    /// Key columns and memories of some keys, by number.
    fn rows(&mut self, keys: &[u32]) -> Result<RecordBatch> {
        let all = self.keys.emit(EmitTo::All).map_err(broken)?;
        self.keys.intern(&all, &mut self.groups).map_err(broken)?;
        let failed = |e| Error::stop("rows of a dedupe's state", e);
        let numbers = UInt32Array::from(keys.to_vec());
        let mut columns: Vec<ArrayRef> = all.iter().map(|c| take(c, &numbers, None)).collect::<Result<_, _>>().map_err(failed)?;
        let memories: Vec<&Memory> = keys.iter().map(|k| &self.memories[*k as usize]).collect();
        columns.push(Arc::new(Int64Array::from_iter_values(memories.iter().map(|m| m.floor))));
        columns.extend(span_columns(memories.iter().map(|m| m.previous.as_ref()).collect()));
        columns.extend(span_columns(memories.iter().map(|m| m.current.as_ref()).collect()));
        RecordBatch::try_new(self.state_schema(), columns).map_err(failed)
    }

    fn state_schema(&self) -> SchemaRef {
        let mut fields: Vec<Field> = self.key_schema.fields().iter().map(|f| f.as_ref().clone()).collect();
        fields.push(Field::new("floor", DataType::Int64, false));
        for span in ["previous", "current"] {
            let field = |name: &str, data_type| Field::new(format!("{span} {name}"), data_type, true);
            fields.extend([field("first", DataType::Int64), field("highest", DataType::Int64)]);
            fields.extend([field("greatest", DataType::UInt64), field("sequences", DataType::Binary)]);
        }
        Arc::new(Schema::new(fields))
    }
}

fn span_columns(spans: Vec<Option<&Seen>>) -> [ArrayRef; 4] {
    let bytes = |seen: &Seen| {
        let mut bytes = Vec::with_capacity(seen.sequences.serialized_size());
        seen.sequences.serialize_into(&mut bytes).expect("a vector takes all bytes");
        bytes
    };
    let bytes: Vec<_> = spans.iter().map(|s| s.map(bytes)).collect();
    [
        Arc::new(spans.iter().map(|s| s.map(|s| s.first)).collect::<Int64Array>()),
        Arc::new(spans.iter().map(|s| s.map(|s| s.highest)).collect::<Int64Array>()),
        Arc::new(spans.iter().map(|s| s.map(|s| s.greatest)).collect::<UInt64Array>()),
        Arc::new(bytes.iter().map(|b| b.as_deref()).collect::<BinaryArray>()),
    ]
}

fn memories(columns: &[ArrayRef]) -> Result<Vec<Memory>> {
    let floor = columns[0].as_primitive::<Int64Type>();
    let mut memories = Vec::with_capacity(floor.len());
    for row in 0..floor.len() {
        let mut memory = Memory::new(floor.value(row));
        memory.previous = span(&columns[1..5], row)?;
        memory.current = span(&columns[5..9], row)?;
        memories.push(memory);
    }
    Ok(memories)
}

fn span(columns: &[ArrayRef], row: usize) -> Result<Option<Seen>> {
    if columns[3].is_null(row) {
        return Ok(None);
    }
    let time = |column: &ArrayRef| column.as_primitive::<Int64Type>().value(row);
    let bytes = columns[3].as_binary::<i32>().value(row);
    let sequences = RoaringTreemap::deserialize_from(bytes).map_err(|e| Error::stop("a bitmap of a dedupe's state", e))?;
    let greatest = columns[2].as_primitive::<UInt64Type>().value(row);
    Ok(Some(Seen { first: time(&columns[0]), highest: time(&columns[1]), greatest, sequences }))
}
