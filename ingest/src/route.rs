//! The lane of a row: xxh3-64 of its key's bytes, modulo the number of lanes.
//!
//! A data directory fixes hash and count at its first start, so the bytes below never change: signed integers, times and decimals as 8 or 16
//! bytes little endian whatever their width, unsigned ones as 8, booleans as one; text as it is, and behind its length (4 bytes) where the
//! key has several columns.

use arrow::array::{Array, AsArray, RecordBatch, UInt32Array};
use arrow::datatypes::{
    DataType, Decimal128Type, Int8Type, Int16Type, Int32Type, Int64Type, TimestampMicrosecondType, UInt8Type, UInt16Type, UInt32Type,
    UInt64Type,
};
use xxhash_rust::xxh3::xxh3_64;

/// Whether a column of this type may be part of a key: floats have no equality to rely on.
#[must_use]
pub fn may_be_key(kind: &DataType) -> bool {
    use DataType::{Boolean, Decimal128, Int8, Int16, Int32, Int64, Timestamp, UInt8, UInt16, UInt32, UInt64, Utf8View};
    matches!(kind, Utf8View | Boolean | Int8 | Int16 | Int32 | Int64 | UInt8 | UInt16 | UInt32 | UInt64 | Decimal128(..) | Timestamp(..))
}

/// The lane of each row, `0..lanes`, by the columns `key`. Without key columns every row goes to lane 0.
pub fn lanes_of(rows: &RecordBatch, key: &[usize], lanes: u32, out: &mut Vec<u32>) {
    assert!(lanes > 0, "a pipeline has at least one lane");
    out.clear();
    if lanes == 1 || key.is_empty() {
        out.resize(rows.num_rows(), 0);
        return;
    }
    let lane = |bytes: &[u8]| (xxh3_64(bytes) % u64::from(lanes)) as u32;
    if let Some(texts) = rows.column(key[0]).as_string_view_opt().filter(|_| key.len() == 1) {
        out.extend((0..texts.len()).map(|row| lane(texts.value(row).as_bytes())));
        return;
    }
    let columns: Vec<&dyn Array> = key.iter().map(|&k| rows.column(k).as_ref()).collect();
    let mut bytes = Vec::with_capacity(64);
    for row in 0..rows.num_rows() {
        bytes.clear();
        for column in &columns {
            put(*column, row, columns.len() > 1, &mut bytes);
        }
        out.push(lane(&bytes));
    }
}

fn put(column: &dyn Array, row: usize, with_length: bool, out: &mut Vec<u8>) {
    let signed = |v: i64, out: &mut Vec<u8>| out.extend_from_slice(&v.to_le_bytes());
    let unsigned = |v: u64, out: &mut Vec<u8>| out.extend_from_slice(&v.to_le_bytes());
    match column.data_type() {
        DataType::Utf8View => {
            let text = column.as_string_view().value(row).as_bytes();
            if with_length {
                out.extend_from_slice(&(text.len() as u32).to_le_bytes());
            }
            out.extend_from_slice(text);
        }
        DataType::Boolean => out.push(u8::from(column.as_boolean().value(row))),
        DataType::Int8 => signed(column.as_primitive::<Int8Type>().value(row).into(), out),
        DataType::Int16 => signed(column.as_primitive::<Int16Type>().value(row).into(), out),
        DataType::Int32 => signed(column.as_primitive::<Int32Type>().value(row).into(), out),
        DataType::Int64 => signed(column.as_primitive::<Int64Type>().value(row), out),
        DataType::UInt8 => unsigned(column.as_primitive::<UInt8Type>().value(row).into(), out),
        DataType::UInt16 => unsigned(column.as_primitive::<UInt16Type>().value(row).into(), out),
        DataType::UInt32 => unsigned(column.as_primitive::<UInt32Type>().value(row).into(), out),
        DataType::UInt64 => unsigned(column.as_primitive::<UInt64Type>().value(row), out),
        DataType::Timestamp(..) => signed(column.as_primitive::<TimestampMicrosecondType>().value(row), out),
        DataType::Decimal128(..) => out.extend_from_slice(&column.as_primitive::<Decimal128Type>().value(row).to_le_bytes()),
        other => unreachable!("a key of type {other} is refused when the decoder is made"),
    }
}

/// The rows of each lane that has any, by lane; the rows of a lane keep their order.
#[must_use]
pub fn split(lane_of_row: &[u32], lanes: u32) -> Vec<(u32, UInt32Array)> {
    let mut rows: Vec<Vec<u32>> = vec![Vec::new(); lanes as usize];
    for (row, &lane) in lane_of_row.iter().enumerate() {
        rows[lane as usize].push(row as u32);
    }
    let filled = (0..lanes).zip(rows).filter(|(_, rows)| !rows.is_empty());
    filled.map(|(lane, rows)| (lane, UInt32Array::from(rows))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, Int16Array, Int64Array, StringViewArray};
    use std::sync::Arc;

    fn lanes(columns: Vec<(&str, ArrayRef)>, count: u32) -> Vec<u32> {
        let key: Vec<usize> = (0..columns.len()).collect();
        let mut out = vec![9];
        lanes_of(&RecordBatch::try_from_iter(columns).unwrap(), &key, count, &mut out);
        out
    }

    #[test]
    fn the_lane_is_the_hash_of_the_keys_bytes() {
        let text: ArrayRef = Arc::new(StringViewArray::from(vec!["a", "device-7", "a device with a long name"]));
        let want = |s: &str| (xxh3_64(s.as_bytes()) % 7) as u32;
        assert_eq!(lanes(vec![("k", text.clone())], 7), [want("a"), want("device-7"), want("a device with a long name")]);
        assert_eq!(lanes(vec![("k", text)], 1), [0, 0, 0]);
    }

    #[test]
    fn an_integer_goes_to_the_same_lane_whatever_its_width() {
        let narrow: ArrayRef = Arc::new(Int16Array::from(vec![-3, 0, 300]));
        let wide: ArrayRef = Arc::new(Int64Array::from(vec![-3, 0, 300]));
        assert_eq!(lanes(vec![("k", narrow)], 64), lanes(vec![("k", wide)], 64));
    }

    #[test]
    fn neighbouring_texts_do_not_run_together() {
        let column = |v: [&str; 2]| -> ArrayRef { Arc::new(StringViewArray::from(v.to_vec())) };
        let lanes = lanes(vec![("a", column(["ab", "a"])), ("b", column(["c", "bc"]))], 1 << 20);
        assert_ne!(lanes[0], lanes[1]);
    }

    #[test]
    fn a_split_keeps_the_order_within_a_lane() {
        let parts = split(&[2, 0, 2, 2], 4);
        assert_eq!(parts.len(), 2);
        assert_eq!((parts[0].0, parts[0].1.values().to_vec()), (0, vec![1]));
        assert_eq!((parts[1].0, parts[1].1.values().to_vec()), (2, vec![0, 2, 3]));
    }
}
