//! The order of (key, event time), in which segments are written.
//!
//! A key stands in many rows of an epoch: its distinct values are sorted once, and rows then by the rank of their key, which compares
//! integers and not texts.

use arrow::array::{ArrayRef, AsArray, RecordBatch, UInt32Array};
use arrow::datatypes::{Field, Schema, TimestampMicrosecondType};
use arrow::row::{RowConverter, SortField};
use datafusion::error::Result;
use datafusion::logical_expr::EmitTo;
use datafusion::physical_plan::aggregates::group_values::new_group_values;
use datafusion::physical_plan::aggregates::order::GroupOrdering;
use flow::EVENT_TIME;
use std::sync::Arc;

/// The places of rows in the order of (key, event time), nulls first; rows equal in both keep their order.
pub(super) fn order(rows: &RecordBatch, key: &[String]) -> Result<UInt32Array> {
    let columns: Vec<ArrayRef> = key.iter().filter_map(|name| rows.column_by_name(name).cloned()).collect();
    let ranks = if columns.is_empty() { vec![0; rows.num_rows()] } else { ranks(&columns)? };
    let times = rows.column_by_name(EVENT_TIME).expect("every table has an event time");
    let times = times.as_primitive::<TimestampMicrosecondType>().values();
    let mut order: Vec<(u32, i64, u32)> = ranks.into_iter().zip(times).zip(0..).map(|((rank, time), row)| (rank, *time, row)).collect();
    order.sort_unstable();
    Ok(order.into_iter().map(|(_, _, row)| row).collect())
}

/// For each row the rank of its key among the distinct ones.
fn ranks(columns: &[ArrayRef]) -> Result<Vec<u32>> {
    let fields = columns.iter().enumerate().map(|(n, column)| Field::new(n.to_string(), column.data_type().clone(), true));
    let mut keys = new_group_values(Arc::new(Schema::new(fields.collect::<Vec<_>>())), &GroupOrdering::None)?;
    let mut key_of = vec![];
    keys.intern(columns, &mut key_of)?;
    let distinct = keys.emit(EmitTo::All)?;
    let converter = RowConverter::new(distinct.iter().map(|column| SortField::new(column.data_type().clone())).collect())?;
    let comparable = converter.convert_columns(&distinct)?;
    let mut sorted: Vec<usize> = (0..comparable.num_rows()).collect();
    sorted.sort_unstable_by(|a, b| comparable.row(*a).cmp(&comparable.row(*b)));
    let mut ranks = vec![0; sorted.len()];
    for (rank, key) in (0..).zip(sorted) {
        ranks[key] = rank;
    }
    Ok(key_of.into_iter().map(|key| ranks[key]).collect())
}
