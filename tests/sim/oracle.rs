//! The judge. It knows what devices sent and what the broker was told, and nothing of the engine but its tables and files.

use crate::broker::Broker;
use crate::cold::{decode, files_of};
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use storage::view::View;
use world::Disk;

/// Length of the windows, in microseconds.
const WINDOW: i64 = 5_000_000;

/// All rows of a table that a view shows: each from the tier that the view says.
pub(crate) fn rows(view: &View, table: &str, warm: &Path, disk: &dyn Disk) -> Result<Vec<RecordBatch>, String> {
    let file = |path: &Path| world::read(disk, path).and_then(decode).map_err(|e| format!("{}: {e}", path.display()));
    let mut all = vec![];
    for lane in &view.lanes {
        all.extend(lane.batches(table).iter().cloned());
        for segment in lane.segments(table, view.moved(table, &lane.lane)) {
            all.extend(file(&warm.join(table).join(&segment.file))?);
        }
    }
    for path in view.cold.get(table).map(files_of).unwrap_or_default() {
        all.extend(file(&path)?);
    }
    Ok(all)
}

/// What the tables show.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Tables {
    /// Numbers of readings, with their device and event time.
    readings: BTreeMap<i64, (String, i64)>,
    late: BTreeSet<i64>,
    dead: BTreeSet<i64>,
    /// Device and start of a window: count and sum.
    windows: BTreeMap<(String, i64), (i64, i64)>,
}

impl Tables {
    /// Reads all tables of a view. An error when one shows something twice.
    pub(crate) fn read(view: &View, warm: &Path, disk: &dyn Disk) -> Result<Self, String> {
        let mut tables = Self::default();
        let once = |new: bool, what: String| if new { Ok(()) } else { Err(format!("{what} is there twice")) };
        for batch in rows(view, "readings", warm, disk)? {
            let (numbers, times, devices) = (whole(&batch, "n"), times(&batch, "event_time"), text(&batch, "device"));
            for i in 0..batch.num_rows() {
                let new = tables.readings.insert(numbers[i], (devices[i].clone(), times[i])).is_none();
                once(new, format!("reading {}", numbers[i]))?;
            }
        }
        for batch in rows(view, "late_per_window", warm, disk)? {
            for n in whole(&batch, "n") {
                once(tables.late.insert(n), format!("late reading {n}"))?;
            }
        }
        for batch in rows(view, "dead_letters", warm, disk)? {
            for payload in payloads(&batch) {
                let digits = payload.split("\"n\":").nth(1).unwrap_or_default();
                let digits = digits.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
                let n: i64 = digits.parse().map_err(|_| format!("a dead letter without a number: {payload}"))?;
                once(tables.dead.insert(n), format!("dead letter {n}"))?;
            }
        }
        for batch in rows(view, "per_window", warm, disk)? {
            let (counts, sums) = (whole(&batch, "count"), whole(&batch, "total"));
            let (devices, starts) = (text(&batch, "device"), times(&batch, "window_start"));
            for i in 0..batch.num_rows() {
                let key = (devices[i].clone(), starts[i]);
                let what = format!("window {key:?}");
                once(tables.windows.insert(key, (counts[i], sums[i])).is_none(), what)?;
            }
        }
        Ok(tables)
    }

    /// Whether the engine has counted as many rows of a table as there are.
    pub(crate) fn counted(&self, table: &str, rows: u64) -> Result<(), String> {
        let there = if table == "readings" { self.readings.len() } else { self.dead.len() };
        if there as u64 == rows { Ok(()) } else { Err(format!("table {table} has {there} rows, {rows} are counted")) }
    }

    /// Whether the tables hold what they must once everything is drained.
    pub(crate) fn judge(&self, broker: &Broker, all_on_time: bool) -> Result<(), String> {
        let (sent, acked, dropped) = (broker.sent(), broker.acked(), broker.dropped());
        for (number, message) in &sent {
            let n = *number as i64;
            let (stored, dead) = (self.readings.get(&n), self.dead.contains(&n));
            if stored.is_some() && dead {
                return Err(format!("reading {n} is stored and a dead letter"));
            }
            if acked.contains(number) && stored.is_none() && !dead {
                return Err(format!("reading {n} was acknowledged and is lost"));
            }
            if !acked.contains(number) && !dropped.contains(number) {
                return Err(format!("reading {n} was never acknowledged"));
            }
            match (stored, message.time) {
                (Some((device, time)), Some(expected))
                    if (device.as_str(), *time) != (&*format!("device-{}", message.device), expected) =>
                {
                    return Err(format!("reading {n} is {device} at {time}, sent were {} at {expected}", message.device));
                }
                (Some(_), None) => return Err(format!("broken message {n} became a reading")),
                (None, Some(_)) if dead && all_on_time => return Err(format!("reading {n} is a dead letter")),
                _ => {}
            }
        }
        if let Some(n) = self.readings.keys().chain(&self.dead).find(|n| !sent.contains_key(&(**n as u64))) {
            return Err(format!("reading {n} was never sent"));
        }
        if let Some(n) = self.late.iter().find(|n| !self.readings.contains_key(n) || all_on_time) {
            return Err(format!("reading {n} is called late; it is stored: {}", self.readings.contains_key(n)));
        }
        let mut expected: BTreeMap<(String, i64), (i64, i64)> = BTreeMap::new();
        for (n, (device, time)) in self.readings.iter().filter(|(n, _)| !self.late.contains(n)) {
            let window = expected.entry((device.clone(), time.div_euclid(WINDOW) * WINDOW)).or_default();
            *window = (window.0 + 1, window.1 + n % 7);
        }
        let wrong = expected.iter().find(|(key, value)| self.windows.get(key) != Some(value));
        if let Some((key, value)) = wrong {
            return Err(format!("window {key:?} is {:?} and must be {value:?}", self.windows.get(key)));
        }
        let extra = self.windows.keys().find(|key| !expected.contains_key(key));
        extra.map_or(Ok(()), |key| Err(format!("window {key:?} has no readings")))
    }
}

/// Positions, epochs and watermarks that never fall.
#[derive(Debug, Default)]
pub(crate) struct Rising(BTreeMap<String, i64>);

impl Rising {
    pub(crate) fn at_least(&mut self, what: String, now: i64) -> Result<(), String> {
        let before = self.0.entry(what.clone()).or_insert(now);
        if now < *before {
            return Err(format!("{what} falls from {before} to {now}"));
        }
        *before = now;
        Ok(())
    }
}

fn whole(batch: &RecordBatch, column: &str) -> Vec<i64> {
    let cast = arrow::compute::cast(batch.column_by_name(column).expect(column), &arrow::datatypes::DataType::Int64).unwrap();
    cast.as_primitive::<Int64Type>().values().to_vec()
}

fn times(batch: &RecordBatch, column: &str) -> Vec<i64> {
    batch.column_by_name(column).expect(column).as_primitive::<TimestampMicrosecondType>().values().to_vec()
}

fn text(batch: &RecordBatch, column: &str) -> Vec<String> {
    let cast = arrow::compute::cast(batch.column_by_name(column).expect(column), &arrow::datatypes::DataType::Utf8).unwrap();
    cast.as_string::<i32>().iter().map(|t| t.unwrap_or_default().to_owned()).collect()
}

fn payloads(batch: &RecordBatch) -> Vec<String> {
    let cast = arrow::compute::cast(batch.column_by_name("payload").unwrap(), &arrow::datatypes::DataType::Binary).unwrap();
    let bytes = cast.as_binary::<i32>();
    (0..bytes.len()).map(|i| String::from_utf8_lossy(bytes.value(i)).into_owned()).collect()
}
