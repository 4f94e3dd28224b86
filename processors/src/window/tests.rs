//! The window operator against a naive one, and its limits.

use super::output::START;
use super::*;
use crate::testing::{Collect, Parts, batch, ints, schema};
use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::DataType;
use flow::{Batch, Count, EventTime, Reason, trail};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

pub(super) fn options(size: &str, more: serde_json::Value) -> WindowOptions {
    let mut options = serde_json::json!({
        "key": ["device"], "window": { "type": "tumbling", "size": size },
        "select": { "n": "count(*)", "total": "sum(value)", "span": "max(value) - min(value)", "big": "count(*) filter (where value > 5)" }
    });
    options.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    serde_json::from_value(options).unwrap()
}

fn window(size: &str) -> Box<dyn Operator> {
    build(&options(size, serde_json::json!({})), &schema()).unwrap()
}

/// (start, device) → count, sum, span, big.
type Results = BTreeMap<(i64, String), [i64; 4]>;

fn results(out: &Collect) -> Results {
    let mut results = Results::new();
    for rows in out.rows.iter().map(Batch::rows) {
        let device = rows.column(0).as_string_view();
        let column = |name: &str| ints(rows.column_by_name(name).unwrap());
        let start = rows.column_by_name(START).unwrap().as_primitive::<arrow::datatypes::TimestampMicrosecondType>();
        let values = ["n", "total", "span", "big"].map(column);
        for row in 0..rows.num_rows() {
            let twice = results.insert((start.value(row), device.value(row).into()), values.each_ref().map(|v| v[row].unwrap()));
            assert!(twice.is_none(), "a window came twice");
        }
    }
    results
}

fn naive(readings: &[(String, i64, i64)], size: i64) -> Results {
    let mut groups: BTreeMap<(i64, String), Vec<i64>> = BTreeMap::new();
    for (device, time, value) in readings {
        groups.entry((time.div_euclid(size) * size, device.clone())).or_default().push(*value);
    }
    let of = |v: Vec<i64>| {
        let (n, big) = (v.len() as i64, v.iter().filter(|x| **x > 5).count() as i64);
        [n, v.iter().sum(), v.iter().max().unwrap() - v.iter().min().unwrap(), big]
    };
    groups.into_iter().map(|(k, v)| (k, of(v))).collect()
}

fn marked(readings: &[(String, i64, i64)], marks: &[i64]) -> Batch {
    let plain: Vec<_> = readings.iter().map(|r| (r.0.as_str(), r.1, r.2)).collect();
    let marks: ArrayRef = Arc::new(Int64Array::from(marks.to_vec()));
    batch(&plain).with_trail(Some(RecordBatch::try_from_iter([(trail::WATERMARK, marks)]).unwrap()))
}

proptest! {
    #[test]
    fn any_split_into_batches_and_any_save_and_load_equals_the_naive_answer(
        readings in prop::collection::vec((0..4u8, -50i64..200, 0i64..10), 1..80),
        steps in prop::collection::vec((1usize..12, 0..4u8), 1..40),
        delay in 0i64..60,
    ) {
        let readings: Vec<_> = readings.into_iter().map(|(d, t, v)| (format!("device-{d}"), t, v)).collect();
        // One row at a time: W and lateness.
        let (mut w, mut marks, mut taken) = (i64::MIN, vec![], vec![]);
        for reading in &readings {
            marks.push(w);
            if reading.1.div_euclid(20) * 20 + 20 > w {
                taken.push(reading.clone());
            }
            w = w.max(reading.1 - delay);
        }
        let (mut operator, mut out, mut parts, mut from) = (window("20us"), Collect::default(), Parts::default(), 0);
        for (length, what) in steps.iter().cycle() {
            let to = readings.len().min(from + length);
            operator.on_batch(marked(&readings[from..to], &marks[from..to]), &mut out).unwrap();
            let w = EventTime(marks.get(to).copied().unwrap_or(w));
            operator.on_watermark(w, &mut out).unwrap();
            if *what > 0 {
                operator.save(&mut parts).unwrap();
            }
            if *what > 2 {
                operator = window("20us");
                operator.load(&mut parts).unwrap();
                operator.on_watermark(w, &mut out).unwrap();
            }
            from = to;
            if from == readings.len() {
                break;
            }
        }
        if let Some(end) = operator.last_timer() {
            operator.on_watermark(end, &mut out).unwrap();
        }
        prop_assert_eq!(results(&out), naive(&taken, 20));
        let late: usize = out.late.iter().map(Batch::len).sum();
        prop_assert_eq!((late, out.count(Count::Taken) as usize), (readings.len() - taken.len(), taken.len()));
        operator.save(&mut parts).unwrap();
        prop_assert!(parts.0.is_empty(), "state of closed windows is left: {:?}", parts.0.keys());
    }
}

#[test]
fn a_save_writes_only_what_came_since_the_last_and_parts_stay_few() {
    let (mut operator, mut out, mut parts) = (window("1s"), Collect::default(), Parts::default());
    operator.on_batch(batch(&[("a", 1, 1), ("b", 2, 2)]), &mut out).unwrap();
    operator.save(&mut parts).unwrap();
    operator.save(&mut parts).unwrap();
    assert_eq!(parts.0["0"].iter().map(RecordBatch::num_rows).collect::<Vec<_>>(), [2]);
    for round in 0..20 {
        operator.on_batch(batch(&[("a", 3, round)]), &mut out).unwrap();
        operator.save(&mut parts).unwrap();
        assert!(parts.0["0"].len() <= 8);
    }
    operator.on_watermark(EventTime(1_000_000), &mut out).unwrap();
    assert_eq!(results(&out)[&(0, "a".into())], [21, 191, 19, 14]);
}

#[test]
fn groups_beyond_the_limit_are_refused_and_known_ones_go_on() {
    let mut operator = build(&options("1s", serde_json::json!({ "max_keys": 2 })), &schema()).unwrap();
    let mut out = Collect::default();
    operator.on_batch(batch(&[("a", 1, 1), ("b", 2, 2), ("c", 3, 3), ("a", 4, 4)]), &mut out).unwrap();
    operator.on_batch(batch(&[("c", 5, 5), ("b", 6, 6)]), &mut out).unwrap();
    assert_eq!(out.refused(), [(Reason::StateLimit, 1), (Reason::StateLimit, 1)]);
    assert_eq!(out.count(Count::Taken), 4);
    operator.on_watermark(EventTime(1_000_000), &mut out).unwrap();
    assert_eq!(results(&out)[&(0, "b".into())], [2, 8, 4, 1]);
    assert_eq!(results(&out).len(), 2);
}

#[test]
fn bytes_are_bounded_where_each_reading_is_kept() {
    for (sum, bounded) in [("median(value)", true), ("time_weighted_avg(value, event_time)", true), ("sum(value)", false)] {
        let more = serde_json::json!({ "select": { "x": sum }, "max_state": "64KiB" });
        let mut operator = build(&options("1s", more), &schema()).unwrap();
        let (mut out, mut most) = (Collect::default(), 0);
        let readings: Vec<_> = (0..1_000).map(|time| ("a", time, time)).collect();
        for _ in 0..30 {
            operator.on_batch(batch(&readings), &mut out).unwrap();
            most = most.max(operator.held().1);
        }
        let refused: usize = out.refused().iter().map(|r| r.1).sum();
        assert_eq!(refused > 0, bounded, "{sum}");
        assert_eq!(refused + usize::try_from(out.count(Count::Taken)).unwrap(), 30_000);
        // The batch in which the limit is passed may double the list.
        assert!(most < 3 * 65_536, "{sum} holds {most} bytes");
    }
}

#[test]
fn a_failing_argument_refuses_its_row_and_a_failing_output_gives_null() {
    let select = serde_json::json!({ "select": { "x": "sum(10 / value)", "y": "10 / (sum(value) - 5)" } });
    let mut operator = build(&options("1s", select), &schema()).unwrap();
    let mut out = Collect::default();
    operator.on_batch(batch(&[("a", 1, 5), ("a", 1, 0), ("b", 2, 2)]), &mut out).unwrap();
    assert_eq!(out.refused(), [(Reason::Expression, 1)]);
    operator.on_watermark(EventTime(1_000_000), &mut out).unwrap();
    let rows = out.rows[0].rows();
    assert_eq!(ints(rows.column_by_name("x").unwrap()), [Some(2), Some(5)]);
    assert_eq!(ints(rows.column_by_name("y").unwrap()), [None, Some(-3)]);
}

#[test]
fn options_that_cannot_be_obeyed_name_their_key() {
    for (more, key) in [
        (serde_json::json!({ "window": { "type": "count", "count": 2 }, "allowed_lateness": "1s" }), "allowed_lateness"),
        (serde_json::json!({ "window": { "type": "tumbling", "size": "1s", "gap": "1s" } }), "window.gap"),
        (serde_json::json!({ "window": { "type": "session" } }), "window"),
        (serde_json::json!({ "window": { "type": "hopping", "size": "1s", "hop": "0s" } }), "window.hop"),
        (serde_json::json!({ "window": { "type": "calendar", "size": "1d", "timezone": "Mars" } }), "window.timezone"),
        (serde_json::json!({ "window": { "type": "calendar", "size": "1h", "timezone": "UTC" } }), "window.size"),
        (serde_json::json!({ "accumulation": "discarding", "emit": "every 1s" }), "accumulation"),
        (serde_json::json!({ "window": { "type": "session", "gap": "1s" }, "emit": "every 1s" }), "emit"),
        (serde_json::json!({ "key": [], "window": { "type": "session", "gap": "1s" } }), "key"),
        (serde_json::json!({ "key": [], "allowed_lateness": "1s" }), "key"),
        (serde_json::json!({ "key": ["devize"] }), "key"),
        (serde_json::json!({ "select": { "a": "value" } }), "select.a"),
        (serde_json::json!({ "select": { "a": "sum(value) + value" } }), "select.a"),
        (serde_json::json!({ "select": { "pane": "sum(value)" } }), "select.pane"),
        (serde_json::json!({ "window": { "type": "tumbling", "size": "0s" } }), "window.size"),
        (serde_json::json!({ "window": { "type": "tumbling", "size": "1s", "offset": "1s" } }), "window.offset"),
    ] {
        assert_eq!(build(&options("1s", more), &schema()).err().unwrap().key, key);
    }
}

proptest! {
    #[test]
    fn first_and_last_go_by_event_time_whatever_order_readings_come_in(
        readings in prop::collection::vec((0..2u8, 0i64..6, 0i64..9), 1..30),
        steps in prop::collection::vec((1usize..6, 0..3u8), 1..10),
    ) {
        let select = serde_json::json!({ "select": {
            "first": "first_value(value)", "last": "last_value(value)", "high": "last_value(value) filter (where value > 5)",
            "arrived": "last_value(value order by event_time)"
        } });
        let make = || build(&options("10us", select.clone()), &schema()).unwrap();
        let names = ["a", "b"];
        let plain: Vec<_> = readings.iter().map(|r| (names[usize::from(r.0)], r.1, r.2)).collect();
        let outcome = crate::testing::drive(&make, &plain, &steps, 100, 100);
        let mut want = vec![];
        for name in names {
            let mut own: Vec<_> = plain.iter().filter(|r| r.0 == name).map(|r| (r.1, r.2)).collect();
            own.sort_unstable();
            let high = own.iter().rfind(|r| r.1 > 5).map(|r| r.1);
            if let (Some(first), Some(last)) = (own.first(), own.last()) {
                let arrived = plain.iter().find(|r| r.0 == name && r.1 == last.0).unwrap();
                want.push([Some(first.1), Some(last.1), high, Some(arrived.2)]);
            }
        }
        let got = outcome.rows.iter().map(|row| {
            let row: serde_json::Value = serde_json::from_str(row).unwrap();
            ["first", "last", "high", "arrived"].map(|column| row[column].as_i64())
        });
        prop_assert_eq!(got.collect::<Vec<_>>(), want);
    }
}

#[test]
fn the_usual_aggregates_can_be_kept_as_partials() {
    let select = serde_json::json!({ "select": {
        "a": "avg(value)", "b": "stddev(value)", "c": "count(distinct value)", "d": "approx_percentile_cont(value, 0.5)",
        "e": "first_value(value order by event_time)", "f": "last_value(value order by event_time)", "g": "median(value)"
    } });
    let mut out = Collect::default();
    let mut parts = Parts::default();
    let make = || build(&options("1s", select.clone()), &schema()).unwrap();
    let mut operator = make();
    operator.on_batch(batch(&[("a", 3, 6), ("a", 1, 2)]), &mut out).unwrap();
    operator.save(&mut parts).unwrap();
    operator = make();
    operator.load(&mut parts).unwrap();
    operator.on_batch(batch(&[("a", 2, 4), ("a", 4, 4)]), &mut out).unwrap();
    operator.on_watermark(EventTime(1_000_000), &mut out).unwrap();
    let rows = out.rows[0].rows();
    let column = |name: &str| ints(&arrow::compute::cast(rows.column_by_name(name).unwrap(), &DataType::Int64).unwrap())[0].unwrap();
    assert_eq!(["a", "c", "d", "e", "f", "g"].map(column), [4, 3, 4, 2, 4, 4]);
}

#[test]
fn at_the_limit_complete_windows_come_out_and_a_refused_reading_counts_in_no_window() {
    let count = serde_json::json!({ "window": { "type": "count", "count": 2 }, "max_keys": 1 });
    let (mut operator, mut out) = (build(&options("1s", count), &schema()).unwrap(), Collect::default());
    operator.on_batch(batch(&[("a", 1, 1), ("a", 2, 2), ("b", 3, 3), ("a", 4, 4), ("b", 5, 5)]), &mut out).unwrap();
    assert_eq!((out.count(Count::Taken), out.count(Count::Emitted), operator.held().0), (4, 2, 0));
    assert_eq!(out.refused(), [(Reason::StateLimit, 1)]);

    let hopping = serde_json::json!({ "type": "hopping", "size": "20us", "hop": "10us" });
    let hopping = serde_json::json!({ "window": hopping, "allowed_lateness": "1s", "max_keys": 3 });
    let (mut operator, mut out) = (build(&options("1s", hopping), &schema()).unwrap(), Collect::default());
    operator.on_batch(batch(&[("a", 1, 1), ("b", 2, 2), ("a", 3, 3)]), &mut out).unwrap();
    assert_eq!((out.count(Count::Taken), out.refused(), operator.held().0), (2, vec![(Reason::StateLimit, 1)], 2));
}

#[test]
fn keys_of_which_every_reading_fails_are_not_held() {
    let session = serde_json::json!({ "window": { "type": "session", "gap": "5us" }, "select": { "n": "sum(10 / value)" } });
    let (mut operator, mut out) = (build(&options("1s", session), &schema()).unwrap(), Collect::default());
    let empty = operator.held();
    operator.on_batch(batch(&[("a", 1, 0), ("b", 2, 0)]), &mut out).unwrap();
    assert_eq!((out.refused(), operator.held()), (vec![(Reason::Expression, 2)], empty));
}

/// State, and how many rows were written.
#[derive(Default)]
struct Written(Parts, usize);

impl flow::StateWriter for Written {
    fn append(&mut self, part: &str, rows: RecordBatch) {
        self.1 += rows.num_rows();
        self.0.append(part, rows);
    }
    fn remove(&mut self, part: &str) {
        self.0.remove(part);
    }
}

#[test]
fn saves_write_in_proportion_to_what_changed() {
    let names: Vec<String> = (0..5_000).map(|n| format!("device {n}")).collect();
    let (mut operator, mut out, mut written, mut all) = (window("10us"), Collect::default(), Written::default(), vec![]);
    for round in 0..200 {
        // First all devices, then one in a hundred.
        let part = if round == 0 { &names[..] } else { &names[round * 50 % 5_000..][..50] };
        let readings: Vec<_> = part.iter().map(|name| (name.as_str(), 3, round as i64)).collect();
        operator.on_batch(batch(&readings), &mut out).unwrap();
        all.extend(readings.iter().map(|(name, time, value)| ((*name).to_owned(), *time, *value)));
        operator.save(&mut written).unwrap();
        if round % 50 == 7 {
            operator = window("10us");
            operator.load(&mut written.0).unwrap();
        }
    }
    assert!(written.1 <= 5_000 + 3 * 199 * 50, "{} rows were written", written.1);
    operator.on_watermark(EventTime(10), &mut out).unwrap();
    assert_eq!(results(&out), naive(&all, 10));
}
