//! Keys in numbered slots: looked up for a whole batch, forgotten one by one.
//!
//! Of many keys, what one row needs lies behind several cache misses: the table, the key, then what its owner keeps for the slot. So a
//! batch is taken in passes (hashes, table, keys), each a loop so short that the processor waits for the misses of several rows at once.
//!
//! A key is its bytes: of one text column the text itself, of others arrow's row format. A slot is given anew after its key was forgotten.

use arrow::array::{Array, ArrayRef, AsArray, StringArray, StringViewArray};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};
use hashbrown::HashTable;
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;

/// The slot of a row whose key is not held.
pub(crate) const REFUSED: u32 = u32::MAX;
/// The key of a null: no text has this byte.
const NULL: &[u8] = &[0xff];
/// Two keys to a cache line; most names of devices fit.
const SHORT: usize = 30;

/// Rows whose memory is fetched before they are taken: few enough for the nearest cache.
pub(crate) const AHEAD: usize = 256;

/// See the page.
pub(crate) struct Keys {
    form: Form,
    table: HashTable<Entry>,
    /// By slot.
    keys: Vec<Key>,
    free: Vec<u32>,
    long_bytes: usize,
    /// Scratch: the hash of each row.
    hashes: Vec<u32>,
}

enum Form {
    Text(DataType),
    Rows(RowConverter),
}

#[derive(Clone, Copy)]
struct Entry {
    /// Tells most other keys apart without a look at them.
    hash: u32,
    slot: u32,
}

/// The bytes of a key.
pub(crate) enum Key {
    /// The slot is free.
    None,
    Short(u8, [u8; SHORT]),
    Long(Box<[u8]>),
}

const _: () = assert!(size_of::<Key>() == 32, "two keys are in a cache line");

impl Key {
    fn of(bytes: &[u8]) -> Self {
        match u8::try_from(bytes.len()) {
            Ok(length) if bytes.len() <= SHORT => {
                let mut short = [0; SHORT];
                short[..bytes.len()].copy_from_slice(bytes);
                Self::Short(length, short)
            }
            _ => Self::Long(bytes.into()),
        }
    }

    fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::None => None,
            Self::Short(length, bytes) => Some(&bytes[..usize::from(*length)]),
            Self::Long(bytes) => Some(bytes),
        }
    }

    fn long_bytes(&self) -> usize {
        if let Self::Long(bytes) = self { bytes.len() } else { 0 }
    }
}

impl Keys {
    /// No key yet, of these columns.
    pub(crate) fn new(schema: &SchemaRef) -> Result<Self, ArrowError> {
        let form = match schema.fields().as_ref() {
            [one] if matches!(one.data_type(), DataType::Utf8View | DataType::Utf8) => Form::Text(one.data_type().clone()),
            fields => Form::Rows(RowConverter::new(fields.iter().map(|f| SortField::new(f.data_type().clone())).collect())?),
        };
        Ok(Self { form, table: HashTable::new(), keys: vec![], free: vec![], long_bytes: 0, hashes: vec![] })
    }

    /// Keys held.
    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    /// Slots there are, free ones included.
    pub(crate) fn slots(&self) -> usize {
        self.keys.len()
    }

    /// Whether the slot has a key.
    pub(crate) fn is_held(&self, slot: u32) -> bool {
        !matches!(self.keys[slot as usize], Key::None)
    }

    /// Bytes held, nearly.
    pub(crate) fn bytes(&self) -> usize {
        self.keys.len() * size_of::<Key>() + self.table.capacity() * size_of::<Entry>() + self.long_bytes
    }

    /// Finds the slot of each row. New keys get one as long as there are fewer than `limit`; the rows of others are `REFUSED`.
    pub(crate) fn find(&mut self, columns: &[ArrayRef], limit: usize, slots: &mut Vec<u32>) -> Result<(), ArrowError> {
        match &self.form {
            Form::Text(DataType::Utf8View) => {
                let texts: &StringViewArray = columns[0].as_string_view();
                let null = |row| texts.nulls().is_some_and(|n| n.is_null(row));
                self.find_all(texts.len(), |row| if null(row) { NULL } else { texts.value(row).as_bytes() }, limit, slots);
            }
            Form::Text(_) => {
                let texts: &StringArray = columns[0].as_string();
                let null = |row| texts.nulls().is_some_and(|n| n.is_null(row));
                self.find_all(texts.len(), |row| if null(row) { NULL } else { texts.value(row).as_bytes() }, limit, slots);
            }
            Form::Rows(converter) => {
                let rows = converter.convert_columns(columns)?;
                self.find_all(rows.num_rows(), |row| rows.row(row).data(), limit, slots);
            }
        }
        Ok(())
    }

    fn find_all<'k>(&mut self, rows: usize, key: impl Fn(usize) -> &'k [u8], limit: usize, slots: &mut Vec<u32>) {
        let mut hashes = std::mem::take(&mut self.hashes);
        hashes.clear();
        hashes.extend((0..rows).map(|row| hash(key(row))));
        slots.clear();
        slots.extend(hashes.iter().map(|hash| self.table.find(spread(*hash), |e| e.hash == *hash).map_or(REFUSED, |e| e.slot)));
        for (part, slots) in slots.chunks_mut(AHEAD).enumerate() {
            fetch(slots, |slot| self.keys.get(slot).is_some_and(|key| matches!(key, Key::None)));
            for (row, slot) in (part * AHEAD..).zip(slots) {
                let found = self.keys.get(*slot as usize).and_then(Key::bytes);
                if found != Some(key(row)) {
                    *slot = self.find_one(hashes[row], key(row), limit);
                }
            }
        }
        self.hashes = hashes;
    }

    fn find_one(&mut self, hash: u32, key: &[u8], limit: usize) -> u32 {
        let same = |e: &Entry| e.hash == hash && self.keys[e.slot as usize].bytes() == Some(key);
        if let Some(entry) = self.table.find(spread(hash), same) {
            return entry.slot;
        }
        if self.table.len() >= limit {
            return REFUSED;
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.keys.push(Key::None);
            u32::try_from(self.keys.len() - 1).expect("slots are fewer than the limit, which fits")
        });
        let key = Key::of(key);
        self.long_bytes += key.long_bytes();
        self.keys[slot as usize] = key;
        self.table.insert_unique(spread(hash), Entry { hash, slot }, |e| spread(e.hash));
        slot
    }

    /// Forgets the key of a slot and gives it; none where the slot is free.
    pub(crate) fn forget(&mut self, slot: u32) -> Option<Key> {
        let key = std::mem::replace(&mut self.keys[slot as usize], Key::None);
        let hash = hash(key.bytes()?);
        let found = self.table.find_entry(spread(hash), |e| e.slot == slot).map(|entry| entry.remove()).is_ok();
        assert!(found, "the key of slot {slot} is not in the table");
        self.long_bytes -= key.long_bytes();
        self.free.push(slot);
        Some(key)
    }

    /// The key columns of keys that are gone and of slots that are held, a key a row.
    pub(crate) fn columns(&self, gone: &[Key], slots: &[u32]) -> Result<Vec<ArrayRef>, ArrowError> {
        let held = slots.iter().map(|slot| &self.keys[*slot as usize]);
        let keys = gone.iter().chain(held).map(|key| key.bytes().expect("only slots with keys are written"));
        let text = |key| if key == NULL { None } else { Some(std::str::from_utf8(key).expect("the key of a text column is a text")) };
        match &self.form {
            Form::Text(DataType::Utf8View) => Ok(vec![Arc::new(keys.map(text).collect::<StringViewArray>())]),
            Form::Text(_) => Ok(vec![Arc::new(keys.map(text).collect::<StringArray>())]),
            Form::Rows(converter) => {
                let parser = converter.parser();
                converter.convert_rows(keys.map(|key| parser.parse(key)))
            }
        }
    }
}

/// Looks at what is kept for each slot, so that it lies in the caches afterwards. The loop does nothing else: no row waits for another.
pub(crate) fn fetch(slots: &[u32], look: impl Fn(usize) -> bool) {
    std::hint::black_box(slots.iter().fold(false, |any, slot| any ^ look(*slot as usize)));
}

fn hash(key: &[u8]) -> u32 {
    // The upper half: the table's own bits are made from it anew.
    (xxh3_64(key) >> 32) as u32
}

/// A hash of 64 bits, as a table wants it: it tells keys apart by the highest seven.
fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::Int64Array;
    use arrow::datatypes::{Field, Schema};

    fn keys(types: &[DataType]) -> Keys {
        let fields: Vec<_> = types.iter().enumerate().map(|(at, t)| Field::new(format!("c{at}"), t.clone(), true)).collect();
        Keys::new(&Arc::new(Schema::new(fields))).unwrap()
    }

    fn found(keys: &mut Keys, columns: &[ArrayRef], limit: usize) -> Vec<u32> {
        let mut slots = vec![];
        keys.find(columns, limit, &mut slots).unwrap();
        slots
    }

    #[test]
    fn texts_short_and_long_empty_and_null_have_slots_of_their_own_and_come_back_as_they_were() {
        let long = "x".repeat(31);
        let texts = [Some("a"), Some(""), None, Some(&long[..30]), Some(&long), Some("a"), None];
        for data_type in [DataType::Utf8View, DataType::Utf8] {
            let column = arrow::compute::cast(&StringArray::from(texts.to_vec()), &data_type).unwrap();
            let mut keys = keys(&[data_type]);
            assert_eq!(found(&mut keys, std::slice::from_ref(&column), 9), [0, 1, 2, 3, 4, 0, 2]);
            assert_eq!(keys.columns(&[], &[0, 1, 2, 3, 4]).unwrap()[0].as_ref(), column.slice(0, 5).as_ref());
            let gone = [keys.forget(4).unwrap(), keys.forget(2).unwrap()];
            assert!(keys.columns(&gone, &[1]).unwrap()[0].is_null(1));
            assert_eq!((keys.len(), keys.long_bytes), (3, 0));
            assert_eq!(found(&mut keys, &[column], 4), [0, 1, 2, 3, REFUSED, 0, 2]);
        }
    }

    #[test]
    fn several_columns_are_one_key() {
        let texts: ArrayRef = Arc::new(StringViewArray::from(vec!["a", "a", "b", "a"]));
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None, Some(1), Some(1)]));
        let mut keys = keys(&[DataType::Utf8View, DataType::Int64]);
        assert_eq!(found(&mut keys, &[texts.clone(), numbers.clone()], 9), [0, 1, 2, 0]);
        let columns = keys.columns(&[], &[0, 1, 2]).unwrap();
        assert_eq!((columns[0].as_ref(), columns[1].as_ref()), (texts.slice(0, 3).as_ref(), numbers.slice(0, 3).as_ref()));
    }

    #[test]
    fn many_keys_with_like_hashes_are_told_apart() {
        // With 32 bits some of 200,000 keys have the same hash.
        let names: Vec<String> = (0..200_000).map(|n| format!("device {n}")).collect();
        let column: ArrayRef = Arc::new(StringViewArray::from_iter_values(&names));
        let mut keys = keys(&[DataType::Utf8View]);
        let all: Vec<u32> = (0..200_000).collect();
        assert_eq!(found(&mut keys, std::slice::from_ref(&column), usize::MAX), all);
        assert_eq!(found(&mut keys, &[column], usize::MAX), all);
        let hashes: std::collections::HashSet<u32> = names.iter().map(|n| hash(n.as_bytes())).collect();
        assert!(hashes.len() < names.len());
    }
}
