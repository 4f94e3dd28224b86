//! The law of two stages: whatever lane a reading is in, and whenever batches end and state is saved, the merged windows are those of a
//! naive computation in which each reading counts in the windows that its lane had not closed.

use super::*;
use crate::testing::{Collect, Parts, batch, ints, schema};
use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use flow::{Batch, EventTime, trail};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

const LANES: usize = 3;

/// Key (none for all), start and end of a window: count, sum and greatest value.
type Windows = BTreeMap<(Option<i64>, i64, i64), [i64; 3]>;
/// Device, event time and value, as the lanes have them.
type Readings = Vec<(usize, i64, i64)>;

fn options(window: &Value, by: &[&str]) -> WindowOptions {
    let select = json!({ "n": "count(*)", "total": "sum(value)", "most": "max(value)" });
    serde_json::from_value(json!({ "key": by, "window": window, "select": select })).unwrap()
}

/// Goes on with an operator that has loaded what this one saved.
fn restart(operator: &mut Box<dyn Operator>, fresh: Box<dyn Operator>, parts: &mut Parts, w: i64) {
    operator.save(parts).unwrap();
    *operator = fresh;
    operator.load(parts).unwrap();
    let mut nothing = Collect::default();
    operator.on_watermark(EventTime(w), &mut nothing).unwrap();
    assert!(nothing.rows.is_empty(), "a restored operator put out rows of before its save");
}

fn marked(rows: Batch, marks: Vec<i64>) -> Batch {
    let marks: ArrayRef = Arc::new(Int64Array::from(marks));
    rows.with_trail(Some(RecordBatch::try_from_iter([(trail::WATERMARK, marks)]).unwrap()))
}

/// What a lane gives out, with its marks, and how many of its readings are late.
fn first(options: &WindowOptions, readings: &[(usize, i64, i64)], steps: &[(usize, bool)], lag: i64) -> (Vec<(i64, Batch)>, usize) {
    let make = || first_maker(options, &schema()).unwrap()().unwrap();
    let (mut operator, mut out, mut parts, mut w, mut from) = (make(), Collect::default(), Parts::default(), i64::MIN, 0);
    for (length, again) in steps.iter().cycle() {
        let part = &readings[from..readings.len().min(from + length)];
        let marks = part.iter().map(|r| (w, w = w.max(r.1 - lag)).0).collect();
        let rows: Vec<_> = part.iter().map(|r| ("d", r.1, r.2)).collect();
        if !part.is_empty() {
            operator.on_batch(marked(batch(&rows), marks), &mut out).unwrap();
            operator.on_watermark(EventTime(w), &mut out).unwrap();
        }
        if *again {
            restart(&mut operator, make(), &mut parts, w);
        }
        from += part.len();
        if from == readings.len() {
            break;
        }
    }
    let last = operator.last_timer().unwrap_or(EventTime(0)).0.max(w);
    operator.on_watermark(EventTime(last), &mut out).unwrap();
    assert_eq!(operator.held().0, 0, "all has left");
    let mark = |b: &Batch| b.trail_column(trail::WATERMARK).unwrap().as_primitive::<Int64Type>().value(0);
    let left: Vec<_> = out.rows.into_iter().map(|b| (mark(&b), b)).collect();
    assert!(left.is_sorted_by_key(|(mark, _)| *mark), "marks rise");
    (left, out.late.iter().map(Batch::len).sum())
}

fn second(options: &WindowOptions, mut partials: Vec<(i64, Batch)>, again: usize) -> Windows {
    let make = || second_maker(options, &schema()).unwrap()().unwrap();
    let (mut operator, mut out, mut parts) = (make(), Collect::default(), Parts::default());
    partials.sort_by_key(|(mark, _)| *mark);
    for (at, (mark, rows)) in partials.into_iter().enumerate() {
        operator.on_batch(rows, &mut out).unwrap();
        operator.on_watermark(EventTime(mark), &mut out).unwrap();
        if at % again == 0 {
            restart(&mut operator, make(), &mut parts, mark);
        }
    }
    operator.on_watermark(EventTime(10_000), &mut out).unwrap();
    assert!(out.late.is_empty(), "lateness is judged once");
    let mut windows = Windows::new();
    for rows in out.rows.iter().map(Batch::rows) {
        let times = |name: &str| rows.column_by_name(name).unwrap().as_primitive::<TimestampMicrosecondType>().values().to_vec();
        let column = |name: &str| rows.column_by_name(name).map(ints);
        let (keys, starts, ends) = (column("value"), times("window_start"), times("window_end"));
        let [n, total, most] = ["n", "total", "most"].map(|name| column(name).unwrap());
        for row in 0..rows.num_rows() {
            let key = keys.as_ref().map(|keys| keys[row].unwrap());
            let twice = windows.insert((key, starts[row], ends[row]), [n[row], total[row], most[row]].map(Option::unwrap));
            assert!(twice.is_none(), "a window came twice");
        }
    }
    windows
}

fn naive(readings: &Readings, keyed: bool, (size, hop): (i64, i64), lag: i64) -> (Windows, usize) {
    let (mut windows, mut late, mut w) = (Windows::new(), 0, [i64::MIN; LANES]);
    for (device, time, value) in readings {
        let mark = w[device % LANES];
        let covering = (-400..400).map(|k| k * hop).filter(|start| start <= time && *time < start + size);
        let open: Vec<i64> = covering.clone().filter(|start| start + size > mark).collect();
        late += usize::from(open.is_empty() && covering.count() > 0);
        for start in open {
            let window = windows.entry((keyed.then_some(*value), start, start + size)).or_insert([0, 0, i64::MIN]);
            *window = [window[0] + 1, window[1] + value, window[2].max(*value)];
        }
        w[device % LANES] = mark.max(time - lag);
    }
    (windows, late)
}

proptest! {
    #[test]
    fn windows_of_two_stages_are_those_of_a_naive_computation(
        readings in prop::collection::vec((0..7usize, 0i64..200, 0i64..4), 1..80),
        steps in prop::collection::vec((1usize..12, any::<bool>()), 1..20),
        again in 1usize..9,
        lag in 0i64..60,
    ) {
        for (size, hop) in [(20, 20), (20, 7), (5, 9), (21, 7)] {
            for by in [&["value"][..], &[]] {
                let window = match size == hop {
                    true => json!({ "type": "tumbling", "size": format!("{size}us") }),
                    false => json!({ "type": "hopping", "size": format!("{size}us"), "hop": format!("{hop}us") }),
                };
                let options = options(&window, by);
                let (mut partials, mut late) = (vec![], 0);
                for lane in 0..LANES {
                    let own: Vec<_> = readings.iter().filter(|r| r.0 % LANES == lane).copied().collect();
                    let (left, behind) = first(&options, &own, &steps, lag);
                    partials.extend(left);
                    late += behind;
                }
                let windows = second(&options, partials, again);
                prop_assert_eq!((windows, late), naive(&readings, !by.is_empty(), (size, hop), lag), "{} {:?}", window, by);
            }
        }
    }
}

#[test]
fn a_partial_that_comes_too_late_is_told_with_the_number_of_its_readings() {
    let options = options(&json!({ "type": "tumbling", "size": "10us" }), &["device"]);
    let mut lane = first_maker(&options, &schema()).unwrap()().unwrap();
    let (mut out, mut merged) = (Collect::default(), Collect::default());
    lane.on_batch(batch(&[("a", 1, 5), ("b", 2, 6), ("a", 3, 7)]), &mut out).unwrap();
    lane.on_watermark(EventTime(10), &mut out).unwrap();
    let mut second = second_maker(&options, &schema()).unwrap()().unwrap();
    second.on_watermark(EventTime(30), &mut merged).unwrap();
    let partial = out.rows.remove(0);
    let behind = vec![30; partial.len()];
    second.on_batch(marked(partial, behind), &mut merged).unwrap();
    assert!(merged.rows.is_empty());
    let late = crate::testing::texts(&merged.late[0]);
    assert_eq!(late[0], r#"{"device":"a","readings":2,"event_time":"1970-01-01T00:00:00Z"}"#);
    assert_eq!(late[1], r#"{"device":"b","readings":1,"event_time":"1970-01-01T00:00:00Z"}"#);
}
