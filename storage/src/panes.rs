//! Rows of windows that may still be revised: the newest of each window, in memory alone.
//!
//! They follow from the operators' state, which the epoch records keep, so nothing is written for them: after a restart a lane puts them
//! out again. A window's last row is a row like any other; when it comes, what was here for its window goes.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt32Array};
use arrow::compute::{interleave_record_batch, take};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::row::{RowConverter, Rows, SortField};
use flow::{Error, Result};
use std::collections::HashMap;
use std::sync::Arc;

/// Holding fewer rows twice costs nothing.
const SMALL: usize = 1_024;

/// By which columns of a table one window is told from another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Their places.
    columns: Vec<usize>,
    /// The place of a list of (start, end): windows that a row takes the place of. They are the last two of `columns`.
    replaces: Option<usize>,
}

impl Identity {
    /// Of columns by name. With `replaces`, the name of a list of (start, end), the last two columns are those bounds. None where the
    /// table lacks one.
    #[must_use]
    pub fn new(schema: &SchemaRef, columns: &[String], replaces: Option<&str>) -> Option<Self> {
        let place = |name: &str| schema.index_of(name).ok();
        let replaces = match replaces {
            Some(name) => Some(place(name)?),
            None => None,
        };
        Some(Self { columns: columns.iter().map(|name| place(name)).collect::<Option<_>>()?, replaces })
    }
}

/// The newest row of each window. See the page.
#[derive(Debug)]
pub struct Panes {
    identity: Arc<Identity>,
    converter: RowConverter,
    /// Batch and row of each window.
    newest: HashMap<Box<[u8]>, (usize, usize)>,
    batches: Vec<RecordBatch>,
    /// Rows in `batches`, with those that another took the place of.
    rows: usize,
}

impl Panes {
    /// None yet, of a table with these columns.
    pub fn new(identity: Arc<Identity>, schema: &SchemaRef) -> Result<Self> {
        let fields = identity.columns.iter().map(|at| SortField::new(schema.field(*at).data_type().clone())).collect();
        let converter = RowConverter::new(fields).map_err(broken)?;
        Ok(Self { identity, converter, newest: HashMap::new(), batches: vec![], rows: 0 })
    }

    /// Rows in the place of earlier ones of their windows.
    pub fn put(&mut self, rows: RecordBatch) -> Result<()> {
        self.remove_replaced(&rows)?;
        let windows = self.windows(&rows)?;
        let batch = self.batches.len();
        self.newest.extend(windows.iter().enumerate().map(|(row, window)| (window.as_ref().into(), (batch, row))));
        self.rows += rows.num_rows();
        self.batches.push(rows);
        self.tidy()
    }

    /// The last rows of their windows: nothing of these is to be revised any more.
    pub fn settle(&mut self, rows: &RecordBatch) -> Result<()> {
        if self.newest.is_empty() {
            return Ok(());
        }
        self.remove_replaced(rows)?;
        for window in &self.windows(rows)? {
            self.newest.remove(window.as_ref());
        }
        self.tidy()
    }

    /// The rows, at most one batch.
    pub fn snapshot(&self) -> Result<Option<RecordBatch>> {
        let mut places: Vec<(usize, usize)> = self.newest.values().copied().collect();
        places.sort_unstable();
        self.at(&places)
    }

    fn at(&self, places: &[(usize, usize)]) -> Result<Option<RecordBatch>> {
        if places.is_empty() {
            return Ok(None);
        }
        let batches: Vec<&RecordBatch> = self.batches.iter().collect();
        interleave_record_batch(&batches, places).map(Some).map_err(broken)
    }

    /// Lets rows go that others took the place of, when there are more of them than of the others.
    fn tidy(&mut self) -> Result<()> {
        if self.rows <= 2 * self.newest.len() + SMALL {
            return Ok(());
        }
        let mut kept: Vec<&mut (usize, usize)> = self.newest.values_mut().collect();
        kept.sort_unstable();
        let places: Vec<(usize, usize)> = kept.iter().map(|place| **place).collect();
        kept.into_iter().enumerate().for_each(|(row, place)| *place = (0, row));
        self.batches = self.at(&places)?.into_iter().collect();
        self.rows = places.len();
        Ok(())
    }

    fn windows(&self, rows: &RecordBatch) -> Result<Rows> {
        let columns: Vec<ArrayRef> = self.identity.columns.iter().map(|at| rows.column(*at).clone()).collect();
        self.converter.convert_columns(&columns).map_err(broken)
    }

    fn remove_replaced(&mut self, rows: &RecordBatch) -> Result<()> {
        let Some(place) = self.identity.replaces else { return Ok(()) };
        let lists = rows.column(place).as_list::<i32>();
        if lists.values().is_empty() {
            return Ok(());
        }
        // Without the bounds a window's columns are those of the row that names it.
        let of: UInt32Array =
            (0..).zip(0..lists.len()).flat_map(|(row, at)| (0..lists.value_length(at)).map(move |_| row)).collect::<Vec<u32>>().into();
        let (key, _) = self.identity.columns.split_at(self.identity.columns.len() - 2);
        let mut columns: Vec<ArrayRef> =
            key.iter().map(|at| take(rows.column(*at), &of, None)).collect::<Result<_, _>>().map_err(broken)?;
        let (first, last) = (lists.value_offsets()[0] as usize, lists.value_offsets()[lists.len()] as usize);
        let bounds = lists.values().slice(first, last - first);
        columns.extend(bounds.as_struct().columns().iter().cloned());
        for window in &self.converter.convert_columns(&columns).map_err(broken)? {
            self.newest.remove(window.as_ref());
        }
        Ok(())
    }
}

fn broken(cause: ArrowError) -> Error {
    Error::stop("rows of windows that may be revised", cause)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{readings, spec};
    use arrow::array::{Int64Array, ListArray, StructArray};
    use arrow::buffer::OffsetBuffer;
    use arrow::datatypes::{DataType, Field, Float64Type, Int64Type, Schema};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const DEVICES: [&str; 3] = ["a", "b", "c"];

    fn names(of: &[&str]) -> Vec<String> {
        of.iter().map(|n| (*n).to_owned()).collect()
    }

    fn panes() -> Panes {
        let identity = Identity::new(&spec().schema, &names(&["device", "event_time"]), None).unwrap();
        Panes::new(Arc::new(identity), &spec().schema).unwrap()
    }

    fn held(panes: &Panes) -> BTreeMap<(String, i64), i64> {
        let Some(rows) = panes.snapshot().unwrap() else { return BTreeMap::new() };
        let (device, value) = (rows.column(0).as_string_view(), rows.column(1).as_primitive::<Float64Type>());
        let time = rows.column(2).as_primitive::<arrow::datatypes::TimestampMicrosecondType>();
        let held: BTreeMap<_, _> =
            (0..rows.num_rows()).map(|i| ((device.value(i).to_owned(), time.value(i)), value.value(i) as i64)).collect();
        assert_eq!(held.len(), rows.num_rows(), "a window has one row");
        held
    }

    proptest! {
        #[test]
        fn of_each_window_the_newest_row_is_there_until_its_last(
            steps in prop::collection::vec((any::<bool>(), prop::collection::vec((0..3usize, 0..40i64, 0..1_000i64), 1..300)), 1..40),
        ) {
            let (mut panes, mut expected) = (panes(), BTreeMap::new());
            for (settles, rows) in steps {
                let batch = readings(&rows.iter().map(|(d, t, v)| (DEVICES[*d], *t, *v as f64)).collect::<Vec<_>>());
                for (device, time, value) in &rows {
                    let window = (DEVICES[*device].to_owned(), *time);
                    if settles { expected.remove(&window); } else { expected.insert(window, *value); }
                }
                if settles { panes.settle(&batch).unwrap(); } else { panes.put(batch).unwrap(); }
                prop_assert_eq!(held(&panes), expected.clone());
                prop_assert!(panes.rows <= 2 * panes.newest.len() + SMALL);
            }
        }
    }

    /// A row of device, start, end and the windows that it replaces.
    fn session(device: i64, start: i64, end: i64, replaces: &[(i64, i64)]) -> RecordBatch {
        let number = |values: Vec<i64>| -> ArrayRef { Arc::new(Int64Array::from(values)) };
        let fields: Vec<Field> = ["start", "end"].iter().map(|n| Field::new(*n, DataType::Int64, false)).collect();
        let bounds = vec![number(replaces.iter().map(|r| r.0).collect()), number(replaces.iter().map(|r| r.1).collect())];
        let bounds = StructArray::new(fields.into(), bounds, None);
        let item = Arc::new(Field::new_list_field(bounds.data_type().clone(), false));
        let list = ListArray::new(item.clone(), OffsetBuffer::from_lengths([replaces.len()]), Arc::new(bounds), None);
        let mut fields: Vec<Field> = ["device", "start", "end"].iter().map(|n| Field::new(*n, DataType::Int64, false)).collect();
        fields.push(Field::new("replaces", DataType::List(item), false));
        let columns = vec![number(vec![device]), number(vec![start]), number(vec![end]), Arc::new(list) as ArrayRef];
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
    }

    #[test]
    fn a_session_takes_the_place_of_those_that_it_was_merged_from() {
        let schema = session(1, 0, 1, &[]).schema();
        let identity = Identity::new(&schema, &names(&["device", "start", "end"]), Some("replaces")).unwrap();
        let mut panes = Panes::new(Arc::new(identity), &schema).unwrap();
        for rows in [session(1, 0, 5, &[]), session(1, 10, 15, &[]), session(2, 0, 5, &[])] {
            panes.put(rows).unwrap();
        }
        panes.put(session(1, 0, 15, &[(0, 5), (10, 15)])).unwrap();
        let rows = panes.snapshot().unwrap().unwrap();
        let column = |at: usize| rows.column(at).as_primitive::<Int64Type>().values().to_vec();
        assert_eq!((column(0), column(1), column(2)), (vec![2, 1], vec![0, 0], vec![5, 15]));
        panes.settle(&session(1, 0, 20, &[(0, 15)])).unwrap();
        assert_eq!(panes.newest.len(), 1);
    }

    #[test]
    fn a_table_without_a_windows_columns_has_no_windows() {
        assert_eq!(Identity::new(&spec().schema, &names(&["device", "window_start"]), None), None);
    }
}
