//! The newest row of each key, in memory: by event time, and of equal times the one that came later.
//!
//! ```text
//!   places:  key ──► (time, batch, row)
//!   batches: rows as they came, and which of them are still the newest of their key
//! ```
//! A row that is overtaken stays in its batch until half of all rows are such; then the others are copied together.

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, UInt32Array};
use arrow::compute::{filter_record_batch, take_record_batch};
use arrow::datatypes::{DataType, SchemaRef, TimestampMicrosecondType};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, Rows, SortField};
use flow::EVENT_TIME;
use std::collections::HashMap;
use xxhash_rust::xxh3::Xxh3DefaultBuilder;

/// Fewer overtaken rows are not worth a copy.
const SMALL: usize = 8_192;

/// Rows by key. See the page.
#[derive(Debug)]
pub(super) struct Newest {
    schema: SchemaRef,
    key: Vec<usize>,
    time: usize,
    converter: RowConverter,
    places: HashMap<Box<[u8]>, Place, Xxh3DefaultBuilder>,
    batches: Vec<Held>,
    key_bytes: usize,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    time: i64,
    batch: u32,
    row: u32,
}

#[derive(Debug)]
struct Held {
    rows: RecordBatch,
    is_newest: Vec<bool>,
    bytes: usize,
}

impl Newest {
    /// No row yet; the columns `key` name a key, and there is an event time.
    pub(super) fn new(schema: &SchemaRef, key: &[String]) -> Result<Self, ArrowError> {
        let key = key.iter().map(|name| schema.index_of(name)).collect::<Result<Vec<_>, _>>()?;
        let fields = key.iter().map(|&at| SortField::new(schema.field(at).data_type().clone()));
        Ok(Self {
            time: schema.index_of(EVENT_TIME)?,
            converter: RowConverter::new(fields.collect())?,
            schema: schema.clone(),
            key,
            places: HashMap::default(),
            batches: vec![],
            key_bytes: 0,
        })
    }

    /// Keys.
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// Bytes held, nearly.
    pub(super) fn bytes(&self) -> usize {
        let each = size_of::<Box<[u8]>>() + size_of::<Place>() + size_of::<u64>();
        self.batches.iter().map(|b| b.bytes + b.is_newest.len()).sum::<usize>() + self.key_bytes + self.places.capacity() * each
    }

    /// Takes the rows that are newer than what is held of their key; with `later` also those that are as new.
    pub(super) fn put(&mut self, rows: &RecordBatch, later: bool) -> Result<(), ArrowError> {
        let keys = self.keys(&self.key.iter().map(|&at| rows.column(at).clone()).collect::<Vec<_>>())?;
        let times = rows.column(self.time).as_primitive::<TimestampMicrosecondType>().values();
        let batch = u32::try_from(self.batches.len()).expect("tidied long before");
        let mut taken: Vec<u32> = vec![];
        for (row, (key, &time)) in (0u32..).zip(keys.iter().zip(times)) {
            let place = Place { time, batch, row };
            match self.places.get_mut(key.as_ref()) {
                Some(held) if time < held.time || time == held.time && !(later || held.batch == batch) => continue,
                Some(held) => {
                    if held.batch != batch {
                        self.batches[held.batch as usize].is_newest[held.row as usize] = false;
                    }
                    *held = place;
                }
                None => {
                    self.key_bytes += key.as_ref().len();
                    self.places.insert(key.as_ref().into(), place);
                }
            }
            taken.push(row);
        }
        // Others of the batch may have overtaken them.
        taken.retain(|&row| self.places[keys.row(row as usize).as_ref()].row == row);
        if !taken.is_empty() {
            self.hold(rows, &keys, taken)?;
        }
        self.tidy()
    }

    /// Copies the rows, so that they do not keep alive what they lie in.
    fn hold(&mut self, rows: &RecordBatch, keys: &Rows, taken: Vec<u32>) -> Result<(), ArrowError> {
        for (row, from) in (0u32..).zip(&taken) {
            let held = self.places.get_mut(keys.row(*from as usize).as_ref()).expect("it was put there");
            held.row = row;
        }
        let is_newest = vec![true; taken.len()];
        let rows = take_record_batch(rows, &UInt32Array::from(taken))?;
        let columns = rows.columns().iter().map(alone).collect();
        let rows = RecordBatch::try_new(self.schema.clone(), columns)?;
        self.batches.push(Held { bytes: rows.get_array_memory_size(), rows, is_newest });
        Ok(())
    }

    fn keys(&self, columns: &[ArrayRef]) -> Result<Rows, ArrowError> {
        self.converter.convert_columns(columns)
    }

    fn tidy(&mut self) -> Result<(), ArrowError> {
        let rows: usize = self.batches.iter().map(|b| b.is_newest.len()).sum();
        // Many small batches cost as much as rows that nobody needs.
        if rows + self.batches.len() * 64 <= 2 * self.len() + SMALL {
            return Ok(());
        }
        let kept: Vec<RecordBatch> = self.batches.iter().map(Held::newest).collect::<Result<_, _>>()?;
        let kept = arrow::compute::concat_batches(&self.schema, &kept)?;
        (self.places, self.batches, self.key_bytes) = (HashMap::default(), vec![], 0);
        let keys = self.keys(&self.key.iter().map(|&at| kept.column(at).clone()).collect::<Vec<_>>())?;
        let times = kept.column(self.time).as_primitive::<TimestampMicrosecondType>().values();
        for (row, (key, &time)) in (0u32..).zip(keys.iter().zip(times)) {
            self.key_bytes += key.as_ref().len();
            self.places.insert(key.as_ref().into(), Place { time, batch: 0, row });
        }
        let all = (0..u32::try_from(kept.num_rows()).expect("a batch has fewer rows")).collect();
        self.hold(&kept, &keys, all)
    }

    /// The row of one key, whose columns have one value each; none if there is none, or a newer one in `over`.
    pub(super) fn one(&self, key: &[ArrayRef], over: &Self) -> Result<Option<RecordBatch>, ArrowError> {
        let keys = self.keys(key)?;
        let key = keys.row(0);
        let [here, there] = [self, over].map(|of| of.places.get(key.as_ref()).map(|place| (of, place)));
        let newest = match (here, there) {
            (Some(here), Some(there)) if here.1.time > there.1.time => Some(here),
            (here, there) => there.or(here),
        };
        Ok(newest.map(|(of, place)| of.batches[place.batch as usize].rows.slice(place.row as usize, 1)))
    }

    /// All rows, with those of `over` in the place of older or equally old ones.
    pub(super) fn all(&self, over: &Self) -> Result<Vec<RecordBatch>, ArrowError> {
        let mut ours: Vec<_> = self.batches.iter().map(|b| b.is_newest.clone()).collect();
        let mut theirs: Vec<_> = over.batches.iter().map(|b| b.is_newest.clone()).collect();
        for (key, there) in &over.places {
            match self.places.get(key) {
                Some(here) if here.time > there.time => theirs[there.batch as usize][there.row as usize] = false,
                Some(here) => ours[here.batch as usize][here.row as usize] = false,
                None => {}
            }
        }
        let batches = self.batches.iter().zip(ours).chain(over.batches.iter().zip(theirs));
        batches.filter(|(_, wanted)| wanted.contains(&true)).map(|(held, wanted)| held.only(wanted)).collect()
    }
}

impl Held {
    fn newest(&self) -> Result<RecordBatch, ArrowError> {
        self.only(self.is_newest.clone())
    }

    fn only(&self, wanted: Vec<bool>) -> Result<RecordBatch, ArrowError> {
        match wanted.contains(&false) {
            true => filter_record_batch(&self.rows, &BooleanArray::from(wanted)),
            false => Ok(self.rows.clone()),
        }
    }
}

/// A view points into buffers that hold the values of many other rows.
fn alone(column: &ArrayRef) -> ArrayRef {
    match column.data_type() {
        DataType::Utf8View => std::sync::Arc::new(column.as_string_view().gc()),
        DataType::BinaryView => std::sync::Arc::new(column.as_binary_view().gc()),
        _ => column.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{readings, spec};
    use arrow::array::StringViewArray;
    use arrow::datatypes::Float64Type;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::sync::Arc;

    type Row = (usize, i64, f64);
    const DEVICES: [&str; 5] = ["a", "b", "c", "d", "a device with a name that fits in no view"];

    fn newest() -> Newest {
        Newest::new(&spec().schema, &spec().key).unwrap()
    }

    fn batch(rows: &[Row]) -> RecordBatch {
        readings(&rows.iter().map(|&(d, t, v)| (DEVICES[d], t, v)).collect::<Vec<_>>())
    }

    fn shown(batches: &[RecordBatch]) -> BTreeMap<String, (i64, f64)> {
        let mut all = BTreeMap::new();
        for batch in batches {
            let (device, value) = (batch.column(0).as_string_view(), batch.column(1).as_primitive::<Float64Type>());
            let time = batch.column(2).as_primitive::<TimestampMicrosecondType>();
            for row in 0..batch.num_rows() {
                let before = all.insert(device.value(row).to_owned(), (time.value(row), value.value(row)));
                assert_eq!(before, None, "a key is there twice");
            }
        }
        all
    }

    proptest! {
        #[test]
        fn it_holds_the_newest_of_each_key_however_rows_come(
            sealed in prop::collection::vec(prop::collection::vec((0..5usize, 0i64..20, 0..9i32), 0..40), 0..12),
            open in prop::collection::vec((0..5usize, 0i64..20, 0..9i32), 0..10),
        ) {
            let rows = |of: &[(usize, i64, i32)]| of.iter().map(|(d, t, v)| (*d, *t, f64::from(*v))).collect::<Vec<Row>>();
            let (mut under, mut over, mut want) = (newest(), newest(), BTreeMap::new());
            for part in sealed.iter().chain([&open]) {
                for (device, time, value) in rows(part) {
                    let held = want.entry(DEVICES[device].to_owned()).or_insert((time, value));
                    if time >= held.0 {
                        *held = (time, value);
                    }
                }
            }
            for part in &sealed {
                under.put(&batch(&rows(part)), true).unwrap();
            }
            over.put(&batch(&rows(&open)), true).unwrap();
            prop_assert_eq!(&shown(&under.all(&over).unwrap()), &want);
            for name in DEVICES {
                let key: ArrayRef = Arc::new(StringViewArray::from(vec![name]));
                let one = under.one(&[key], &over).unwrap();
                let one = shown(one.as_slice());
                prop_assert_eq!(one.get(name), want.get(name));
            }
        }
    }

    #[test]
    fn older_rows_of_the_same_time_do_not_come_over_newer_ones() {
        let mut held = newest();
        held.put(&batch(&[(0, 5, 1.0)]), true).unwrap();
        held.put(&batch(&[(0, 5, 2.0), (1, 5, 2.0)]), false).unwrap();
        assert_eq!(shown(&held.all(&newest()).unwrap())["a"], (5, 1.0));
    }

    #[test]
    fn rows_that_are_overtaken_go() {
        let mut held = newest();
        for time in 0..20_000 {
            held.put(&batch(&[(0, time, 0.0), (1, time, 0.0)]), true).unwrap();
        }
        assert_eq!(held.len(), 2);
        assert!(held.bytes() < 1 << 20, "{} bytes", held.bytes());
        assert_eq!(shown(&held.all(&newest()).unwrap())["b"], (19_999, 0.0));
    }
}
