//! The judge. It knows what devices sent and what the broker was told, and nothing of the engine but its tables and files.

use crate::broker::Broker;
use crate::cold::{decode, files_of};
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use storage::view::View;
use world::Disk;

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
    pub(crate) readings: BTreeMap<i64, (String, i64)>,
    /// Readings that were late for a window, by its name.
    late: BTreeSet<(&'static str, i64)>,
    /// How many readings of a slice were late in the second stage.
    late_parts: BTreeMap<i64, i64>,
    /// Dead letters by the number that they tell: several where broken messages had the same bytes.
    dead: BTreeMap<i64, u64>,
    /// Name, key and start of a window: count and sum.
    pub(crate) windows: BTreeMap<(&'static str, String, i64), (i64, i64)>,
}

/// The windows by name, with the column of their key and their length in microseconds.
const WINDOWS: [(&str, &str, i64); 3] = [("per_window", "device", 5_000_000), ("total", "", 10_000_000), ("per_value", "v", 5_000_000)];

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
        for (name, ..) in WINDOWS {
            for batch in rows(view, &format!("late_{name}"), warm, disk)? {
                let (numbers, parts) = (batch.column_by_name("n").unwrap(), batch.column_by_name("readings"));
                for (i, time) in times(&batch, "event_time").into_iter().enumerate() {
                    match parts.filter(|parts| parts.is_valid(i)) {
                        Some(parts) => *tables.late_parts.entry(time).or_default() += parts.as_primitive::<Int64Type>().value(i),
                        None => {
                            let n = numbers.as_primitive::<Int64Type>().value(i);
                            once(tables.late.insert((name, n)), format!("late reading {n} of {name}"))?;
                        }
                    }
                }
            }
        }
        for batch in rows(view, "dead_letters", warm, disk)? {
            for payload in payloads(&batch) {
                let digits = payload.split("\"n\":").nth(1).unwrap_or_default();
                let digits = digits.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
                let n: i64 = digits.parse().map_err(|_| format!("a dead letter without a number: {payload}"))?;
                *tables.dead.entry(n).or_default() += 1;
            }
        }
        for (name, key, ..) in WINDOWS {
            for batch in rows(view, name, warm, disk)? {
                let (counts, sums, starts) = (whole(&batch, "count"), whole(&batch, "total"), times(&batch, "window_start"));
                let keys = if key.is_empty() { vec![String::new(); batch.num_rows()] } else { text(&batch, key) };
                for i in 0..batch.num_rows() {
                    let window = (name, keys[i].clone(), starts[i]);
                    let what = format!("window {window:?}");
                    once(tables.windows.insert(window, (counts[i], sums[i])).is_none(), what)?;
                }
            }
        }
        Ok(tables)
    }

    /// Whether the engine has counted as many rows of a table as there are.
    pub(crate) fn counted(&self, table: &str, rows: u64) -> Result<(), String> {
        let there = if table == "readings" { self.readings.len() as u64 } else { self.dead.values().sum() };
        if there == rows { Ok(()) } else { Err(format!("table {table} has {there} rows, {rows} are counted")) }
    }

    /// Whether the tables hold what they must once everything is drained.
    pub(crate) fn judge(&self, broker: &Broker, all_on_time: bool) -> Result<(), String> {
        let (sent, acked, dropped) = (broker.sent(), broker.acked(), broker.dropped());
        for (number, message) in &sent {
            let n = *number as i64;
            let (stored, dead) = (self.readings.get(&n), self.dead.contains_key(&(message.told as i64)));
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
        for (n, letters) in &self.dead {
            let told = || sent.iter().filter(|(_, m)| m.told as i64 == *n).map(|(number, _)| number);
            let (least, most) = (told().filter(|number| acked.contains(number)).count() as u64, told().count() as u64);
            if !(least..=most).contains(letters) {
                return Err(format!("{letters} dead letters tell {n}, of {most} messages {least} were acknowledged"));
            }
        }
        if let Some(n) = self.readings.keys().chain(self.dead.keys()).find(|n| !sent.contains_key(&(**n as u64))) {
            return Err(format!("reading {n} was never sent"));
        }
        if let Some((name, n)) = self.late.iter().find(|(_, n)| !self.readings.contains_key(n) || all_on_time) {
            return Err(format!("reading {n} is called late for {name}; it is stored: {}", self.readings.contains_key(n)));
        }
        if all_on_time && !self.late_parts.is_empty() {
            return Err(format!("parts are called late: {:?}", self.late_parts));
        }
        self.judge_windows()
    }

    fn judge_windows(&self) -> Result<(), String> {
        let mut expected: BTreeMap<(&str, String, i64), (i64, i64)> = BTreeMap::new();
        for (name, key, length) in WINDOWS {
            for (n, (device, time)) in self.readings.iter().filter(|(n, _)| !self.late.contains(&(name, **n))) {
                let key = match key {
                    "device" => device.clone(),
                    "v" => (n % 7).to_string(),
                    _ => String::new(),
                };
                let window = expected.entry((name, key, time.div_euclid(length) * length)).or_default();
                *window = (window.0 + 1, window.1 + n % 7);
            }
        }
        for (window, (count, sum)) in &expected {
            // How many were late in the second stage is known, not which.
            let late = self.late_parts.get(&window.2).filter(|_| window.0 == "total").copied().unwrap_or_default();
            let found = self.windows.get(window).copied().unwrap_or_default();
            if found.0 + late != *count || late == 0 && found.1 != *sum {
                return Err(format!("window {window:?} is {found:?} and must be {:?}, {late} were late", (count, sum)));
            }
        }
        let extra = self.windows.keys().find(|window| !expected.contains_key(*window));
        extra.map_or(Ok(()), |window| Err(format!("window {window:?} has no readings")))
    }
}

pub(crate) fn whole(batch: &RecordBatch, column: &str) -> Vec<i64> {
    let cast = arrow::compute::cast(batch.column_by_name(column).expect(column), &arrow::datatypes::DataType::Int64).unwrap();
    cast.as_primitive::<Int64Type>().values().to_vec()
}

pub(crate) fn times(batch: &RecordBatch, column: &str) -> Vec<i64> {
    batch.column_by_name(column).expect(column).as_primitive::<TimestampMicrosecondType>().values().to_vec()
}

pub(crate) fn text(batch: &RecordBatch, column: &str) -> Vec<String> {
    let cast = arrow::compute::cast(batch.column_by_name(column).expect(column), &arrow::datatypes::DataType::Utf8).unwrap();
    cast.as_string::<i32>().iter().map(|t| t.unwrap_or_default().to_owned()).collect()
}

fn payloads(batch: &RecordBatch) -> Vec<String> {
    let cast = arrow::compute::cast(batch.column_by_name("payload").unwrap(), &arrow::datatypes::DataType::Binary).unwrap();
    let bytes = cast.as_binary::<i32>();
    (0..bytes.len()).map(|i| String::from_utf8_lossy(bytes.value(i)).into_owned()).collect()
}
