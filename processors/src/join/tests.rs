//! The join against every row with every other one, its limits and its mistakes.

use super::*;
use crate::testing::{Collect, Parts, batch, schema, texts};
use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringViewArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use flow::{Batch, Count, EventTime, Reason, StateReader, event_time_field, trail};
use proptest::prelude::*;
use std::sync::Arc;

/// A tenth of a second: spans are at least one long, so that they come and go in a test.
const TICK: i64 = 100_000;

fn options(more: serde_json::Value) -> JoinOptions {
    let mut options = serde_json::json!({ "key": ["device"], "before": "1s", "after": "2s" });
    options.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    serde_json::from_value(options).unwrap()
}

fn join(more: serde_json::Value) -> Box<dyn Operator> {
    build(&options(more), &schema(), &schema()).unwrap()
}

/// A reading of a side: side, device, tick, value.
type Reading = (usize, usize, i64, i64);

const DEVICES: [&str; 3] = ["a", "b", "c"];

/// What came in time, W being `delay` behind the greatest time so far: W before each reading, and whether it is in time.
fn in_time(readings: &[Reading], delay: i64) -> Vec<(i64, bool)> {
    let mut w = i64::MIN;
    let mut one = |r: &Reading| {
        let (mark, time) = (w, r.2 * TICK);
        w = w.max(time - delay * TICK);
        (mark, time >= mark)
    };
    readings.iter().map(&mut one).collect()
}

/// (device, event time, left value, right value) of every pair, and of left rows alone where asked for.
fn naive(readings: &[Reading], before: i64, after: i64, is_left: bool) -> Vec<String> {
    let mut rows = vec![];
    for (_, device, l, left) in readings.iter().filter(|r| r.0 == 0) {
        let right = readings.iter().filter(|r| r.0 == 1 && r.1 == *device && (l - before..=l + after).contains(&r.2));
        let pairs: Vec<_> = right.map(|r| (r.2.max(*l), Some(r.3))).collect();
        let alone = pairs.is_empty() && is_left;
        rows.extend(pairs.into_iter().chain(alone.then_some((*l, None))).map(|(t, right)| row(*device, t, *left, right)));
    }
    rows.sort();
    rows
}

fn row(device: usize, tick: i64, left: i64, right: Option<i64>) -> String {
    format!("{} {tick} {left} {right:?}", DEVICES[device])
}

fn rows(out: &Collect) -> Vec<String> {
    let mut rows: Vec<String> = out
        .rows
        .iter()
        .flat_map(texts)
        .map(|text| {
            let row: serde_json::Value = serde_json::from_str(&text).unwrap();
            format!("{} {} {:?}", row["device"].as_str().unwrap(), row["value"], row.get("right_value").and_then(serde_json::Value::as_i64))
        })
        .collect();
    let times = out.rows.iter().flat_map(|b| b.times().to_vec());
    for (row, time) in rows.iter_mut().zip(times) {
        let (device, values) = row.split_once(' ').unwrap();
        *row = format!("{device} {} {values}", time / TICK);
    }
    rows.sort();
    rows
}

/// Runs of readings of one side, as long as `length` allows, with their watermarks.
fn give(operator: &mut dyn Operator, readings: &[Reading], marks: &[(i64, bool)], out: &mut Collect) {
    let mut from = 0;
    for run in readings.chunk_by(|a, b| a.0 == b.0) {
        let plain: Vec<_> = run.iter().map(|r| (DEVICES[r.1], r.2 * TICK, r.3)).collect();
        let marks: ArrayRef = Arc::new(Int64Array::from_iter_values(marks[from..from + run.len()].iter().map(|m| m.0)));
        let trail = RecordBatch::try_from_iter([(trail::WATERMARK, marks)]).unwrap();
        operator.on_input(run[0].0, batch(&plain).with_trail(Some(trail)), out).unwrap();
        from += run.len();
    }
}

proptest! {
    #[test]
    fn any_split_and_any_save_and_load_give_the_pairs_of_all_rows_that_came_in_time(
        readings in prop::collection::vec((0..2usize, 0..3usize, -50i64..200, 0i64..100), 1..120),
        steps in prop::collection::vec((1usize..12, 0..4u8), 1..40),
        delay in 0i64..60,
        is_left in any::<bool>(),
        (before, after) in (0i64..25, 0i64..25),
        sorted in 0usize..120,
    ) {
        let mut readings = readings;
        let sorted = sorted.min(readings.len());
        readings[..sorted].sort_by_key(|r| r.2);
        let kind = if is_left { "left" } else { "inner" };
        let make = || join(serde_json::json!({ "before": format!("{before}00ms"), "after": format!("{after}00ms"), "join": kind }));
        let marks = in_time(&readings, delay);
        let (mut operator, mut out, mut parts, mut from, mut w) = (make(), Collect::default(), Parts::default(), 0, i64::MIN);
        let mut downstream = i64::MIN;
        for (length, what) in steps.iter().cycle() {
            let to = readings.len().min(from + length);
            let known = out.rows.len();
            give(&mut *operator, &readings[from..to], &marks[from..to], &mut out);
            w = readings[from..to].iter().map(|r| (r.2 - delay) * TICK).fold(w, i64::max);
            let passed_on = operator.on_watermark(EventTime(w), &mut out).unwrap();
            prop_assert_eq!(passed_on.0, w.saturating_sub(operator.lag().0));
            for came in &out.rows[known..] {
                prop_assert!(came.times().iter().all(|t| *t >= downstream), "a row is late for what reads the join");
            }
            downstream = passed_on.0;
            if *what > 0 {
                operator.save(&mut parts).unwrap();
            }
            if *what > 1 {
                operator = make();
                operator.load(&mut parts).unwrap();
                let mut nothing = Collect::default();
                operator.on_watermark(EventTime(w), &mut nothing).unwrap();
                prop_assert!(nothing.rows.is_empty(), "a restored join put out rows of before its save");
            }
            from = to;
            if from == readings.len() {
                break;
            }
        }
        if let Some(end) = operator.last_timer() {
            prop_assert!(operator.next_timer(EventTime(w)).is_some_and(|next| next <= end));
            operator.on_watermark(end, &mut out).unwrap();
        }
        prop_assert_eq!(operator.last_timer(), None);
        let taken: Vec<_> = readings.iter().zip(&marks).filter(|(_, m)| m.1).map(|(r, _)| *r).collect();
        prop_assert_eq!(rows(&out), naive(&taken, before, after, is_left));
        let late: usize = out.late.iter().map(Batch::len).sum();
        prop_assert_eq!((late, out.count(Count::Taken) as usize), (readings.len() - taken.len(), taken.len()));
        operator.on_watermark(EventTime(1_000 * TICK), &mut out).unwrap();
        operator.save(&mut parts).unwrap();
        prop_assert!(parts.0.is_empty(), "state of rows that are gone is left: {:?}", parts.0.keys());
        prop_assert_eq!(operator.held(), (0, 0));
    }

    #[test]
    fn how_the_two_streams_are_mixed_plays_no_part_while_no_row_is_late(
        readings in prop::collection::vec((0..2usize, 0..3usize, 0i64..60, 0i64..100), 1..60),
        order in prop::collection::vec(any::<u32>(), 60),
    ) {
        let run = |readings: &[Reading]| {
            let (mut operator, mut out) = (join(serde_json::json!({ "join": "left" })), Collect::default());
            give(&mut *operator, readings, &vec![(i64::MIN, true); readings.len()], &mut out);
            operator.on_watermark(EventTime(i64::MAX), &mut out).unwrap();
            rows(&out)
        };
        let mut mixed: Vec<_> = readings.iter().zip(&order).collect();
        mixed.sort_by_key(|(_, place)| **place);
        let mixed: Vec<_> = mixed.into_iter().map(|(reading, _)| *reading).collect();
        prop_assert_eq!(run(&mixed), run(&readings));
    }
}

#[test]
fn both_ends_of_the_interval_belong_to_it() {
    let (mut operator, mut out) = (join(serde_json::json!({})), Collect::default());
    let right = [("a", 3_999_999, 1), ("a", 4_000_000, 2), ("a", 7_000_000, 3), ("a", 7_000_001, 4)];
    operator.on_input(1, batch(&right), &mut out).unwrap();
    operator.on_input(0, batch(&[("a", 5_000_000, 9)]), &mut out).unwrap();
    assert_eq!(rows(&out), ["a 50 9 Some(2)", "a 70 9 Some(3)"]);
    assert_eq!(out.count(Count::Emitted), 2);
}

#[test]
fn a_left_row_comes_out_alone_once_none_can_match_it_any_more() {
    let (mut operator, mut out) = (join(serde_json::json!({ "join": "left" })), Collect::default());
    operator.on_input(0, batch(&[("a", 5_000_000, 9), ("b", 6_000_000, 8)]), &mut out).unwrap();
    assert_eq!(operator.next_timer(EventTime(0)), Some(EventTime(7_000_001)));
    operator.on_watermark(EventTime(7_000_000), &mut out).unwrap();
    assert!(out.rows.is_empty());
    assert_eq!(operator.on_watermark(EventTime(7_000_001), &mut out).unwrap(), EventTime(5_000_001));
    assert_eq!((rows(&out), operator.last_timer()), (vec!["a 50 9 None".to_owned()], Some(EventTime(8_000_001))));
}

#[test]
fn a_late_row_of_either_side_has_its_columns_in_the_table_of_late_rows() {
    let (mut operator, mut out) = (join(serde_json::json!({})), Collect::default());
    operator.on_watermark(EventTime(100), &mut out).unwrap();
    operator.on_input(0, batch(&[("a", 99, 1), ("a", 100, 2)]), &mut out).unwrap();
    operator.on_input(1, batch(&[("b", 98, 3)]), &mut out).unwrap();
    let late: Vec<_> = out.late.iter().flat_map(texts).collect();
    let ends = [r#"{"device":"a","value":1,"event_time""#, r#"{"device":"b","right_value":3,"event_time""#];
    assert!(late.iter().zip(ends).all(|(row, end)| row.starts_with(end)) && late.len() == 2, "{late:?}");
    assert_eq!(out.late[0].rows().schema(), columns(&options(serde_json::json!({})), &schema(), &schema()).unwrap());
    assert_eq!(out.count(Count::Taken), 1);
}

#[test]
fn beyond_the_limit_rows_are_refused_and_in_no_pair_until_there_is_room() {
    let (mut operator, mut out) = (join(serde_json::json!({ "max_rows": 2 })), Collect::default());
    operator.on_input(0, batch(&[("a", 1, 1), ("b", 2, 2), ("a", 3, 3)]), &mut out).unwrap();
    operator.on_input(1, batch(&[("a", 4, 4)]), &mut out).unwrap();
    assert_eq!((out.refused(), rows(&out).len()), (vec![(Reason::StateLimit, 1), (Reason::StateLimit, 1)], 0));
    operator.on_watermark(EventTime(9_000_000), &mut out).unwrap();
    operator.on_input(1, batch(&[("a", 9_000_000, 5)]), &mut out).unwrap();
    operator.on_input(0, batch(&[("a", 9_000_000, 6)]), &mut out).unwrap();
    assert_eq!((rows(&out), out.count(Count::Taken)), (vec!["a 90 6 Some(5)".to_owned()], 4));
    let (mut tight, mut out) = (join(serde_json::json!({ "max_state": "1B" })), Collect::default());
    tight.on_input(0, batch(&[("a", 1, 1)]), &mut out).unwrap();
    tight.on_input(1, batch(&[("a", 1, 1)]), &mut out).unwrap();
    assert_eq!(out.refused(), [(Reason::StateLimit, 1)]);
}

#[test]
fn a_row_with_more_pairs_than_a_batch_holds_comes_out_in_several() {
    let (mut operator, mut out) = (join(serde_json::json!({})), Collect::default());
    let many: Vec<_> = (0..20_000).map(|at| ("a", 5_000_000 + at, at)).collect();
    operator.on_input(1, batch(&many), &mut out).unwrap();
    operator.on_input(0, batch(&[("a", 5_000_000, 1)]), &mut out).unwrap();
    assert_eq!(out.rows.iter().map(Batch::len).collect::<Vec<_>>(), [8_192, 8_192, 3_616]);
}

#[test]
fn a_save_writes_only_what_came_since_the_last() {
    let (mut operator, mut out, mut parts) = (join(serde_json::json!({ "join": "left" })), Collect::default(), Parts::default());
    let many: Vec<_> = (0..1_000).map(|at| ("a", 5_000_000 + at, at)).collect();
    operator.on_input(0, batch(&many), &mut out).unwrap();
    operator.save(&mut parts).unwrap();
    operator.on_input(0, batch(&[("b", 5_000_000, 1)]), &mut out).unwrap();
    operator.on_input(1, batch(&[("b", 5_000_000, 1)]), &mut out).unwrap();
    operator.save(&mut parts).unwrap();
    operator.save(&mut parts).unwrap();
    let lengths = |part: &str| parts.0[part].iter().map(RecordBatch::num_rows).collect::<Vec<_>>();
    assert_eq!((lengths("left.5"), lengths("right.5"), lengths("matched.5")), (vec![1_000, 1], vec![1], vec![1]));
}

#[test]
fn state_of_fewer_columns_has_null_in_the_others() {
    let narrow = || join(serde_json::json!({ "select": { "x": "right.value" } }));
    let (mut before, mut out, mut parts) = (narrow(), Collect::default(), Parts::default());
    before.on_input(0, batch(&[("a", 1, 1)]), &mut out).unwrap();
    before.save(&mut parts).unwrap();
    let mut after = join(serde_json::json!({ "select": { "y": "left.value", "x": "right.value" } }));
    after.load(&mut parts).unwrap();
    after.on_input(1, batch(&[("a", 1, 7)]), &mut out).unwrap();
    let pair = out.rows[0].rows();
    assert_eq!(pair.column_by_name("x").unwrap().as_primitive::<Int64Type>().value(0), 7);
    assert!(pair.column_by_name("y").unwrap().is_null(0));
}

#[test]
fn state_of_other_columns_is_an_error() {
    let (mut operator, mut out, mut parts) = (join(serde_json::json!({ "join": "left" })), Collect::default(), Parts::default());
    operator.on_input(0, batch(&[("a", 1, 1)]), &mut out).unwrap();
    operator.save(&mut parts).unwrap();
    assert!(join(serde_json::json!({ "select": { "x": "right.value" } })).load(&mut parts).is_err());
    let row: ArrayRef = Arc::new(arrow::array::UInt32Array::from(vec![7]));
    parts.0.insert("matched.0".into(), vec![RecordBatch::try_from_iter([("row", row)]).unwrap()]);
    assert_eq!(parts.parts(), ["left.0", "matched.0"]);
    assert!(join(serde_json::json!({ "join": "left" })).load(&mut parts).is_err());
}

/// Rows of (device, speed), a device of none allowed.
fn speeds(readings: &[(Option<&str>, i64)]) -> (SchemaRef, Batch) {
    let fields = vec![Field::new("device", DataType::Utf8View, true), event_time_field(), Field::new("speed", DataType::Int64, false)];
    let schema = Arc::new(Schema::new(fields));
    let device: ArrayRef = Arc::new(readings.iter().map(|r| r.0).collect::<StringViewArray>());
    let time: ArrayRef = Arc::new(TimestampMicrosecondArray::from_iter_values(readings.iter().map(|r| r.1)).with_timezone("UTC"));
    let speed: ArrayRef = Arc::new(Int64Array::from_iter_values(0..readings.len() as i64));
    let rows = RecordBatch::try_new(schema.clone(), vec![device, time, speed]).unwrap();
    (schema, Batch::new(rows, batch(&[]).origin().clone()).unwrap())
}

#[test]
fn selected_columns_have_their_names_and_a_null_key_agrees_with_none() {
    let select = [("speed", "left.speed"), ("at", "right.event_time"), ("again", "right.device")];
    let select = select.into_iter().map(|(name, column)| (name.to_owned(), column.to_owned())).collect();
    let options = JoinOptions { select, ..options(serde_json::json!({ "join": "left" })) };
    let (schema, rows) = speeds(&[(Some("a"), 1), (None, 2)]);
    let (mut operator, mut out) = (build(&options, &schema, &schema).unwrap(), Collect::default());
    operator.on_input(0, rows.clone(), &mut out).unwrap();
    operator.on_input(1, rows, &mut out).unwrap();
    operator.on_watermark(EventTime(10_000_000), &mut out).unwrap();
    let rows: Vec<_> = out.rows.iter().flat_map(texts).collect();
    let time = |t: u8| format!("1970-01-01T00:00:00.00000{t}Z");
    let pair = format!(r#"{{"device":"a","speed":0,"at":"{0}","again":"a","event_time":"{0}"}}"#, time(1));
    assert_eq!(rows, [pair, format!(r#"{{"speed":1,"event_time":"{}"}}"#, time(2))]);
}

#[test]
fn mistakes_name_their_key() {
    let (other, _) = speeds(&[]);
    let wrong = |more| build(&options(more), &schema(), &other).err().unwrap().key;
    assert_eq!(wrong(serde_json::json!({ "key": [] })), "key");
    assert_eq!(wrong(serde_json::json!({ "key": ["value"] })), "key");
    assert_eq!(wrong(serde_json::json!({ "key": ["speed"] })), "key");
    assert_eq!(wrong(serde_json::json!({ "max_rows": 0 })), "max_rows");
    assert_eq!(wrong(serde_json::json!({ "max_state": "0B" })), "max_state");
    assert_eq!(wrong(serde_json::json!({ "select": { "x": "speed" } })), "select.x");
    assert_eq!(wrong(serde_json::json!({ "select": { "x": "left.speed" } })), "select.x");
    assert_eq!(wrong(serde_json::json!({ "select": { "event_time": "left.value" } })), "select.event_time");
    assert_eq!(wrong(serde_json::json!({ "select": { "device": "left.value" } })), "select.device");
    let twice = build(&options(serde_json::json!({ "prefix": "" })), &schema(), &schema());
    assert_eq!(twice.err().unwrap().key, "prefix");
    let types = build(&options(serde_json::json!({ "key": ["value"] })), &schema(), &{
        Arc::new(Schema::new(vec![Field::new("value", DataType::Utf8View, false), event_time_field()]))
    });
    assert_eq!(types.err().unwrap().message, "`value` is Int64 on the left, Utf8View on the right");
}
