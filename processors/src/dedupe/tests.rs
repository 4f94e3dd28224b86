//! Laws of dedupe: nothing unique is lost, everything repeated within the horizon is dropped, a restart changes nothing.

use super::*;
use crate::testing::{Collect, Parts, batch, schema};
use arrow::array::{ArrayRef, BinaryArray, Int64Array, RecordBatch, StringViewArray};
use flow::Reason;
use proptest::prelude::*;
use std::sync::Arc;

fn dedupe(more: serde_json::Value) -> Box<dyn Operator> {
    let mut options = serde_json::json!({ "key": ["device"], "sequence": "value", "horizon": "100us" });
    options.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    build(&serde_json::from_value(options).unwrap(), &schema()).unwrap()
}

fn run(readings: &[(&str, i64, i64)]) -> Collect {
    let (mut operator, mut out) = (dedupe(serde_json::json!({})), Collect::default());
    operator.on_batch(batch(readings), &mut out).unwrap();
    out
}

#[test]
fn the_same_sequence_of_another_device_is_no_duplicate() {
    let out = run(&[("a", 1, 1), ("a", 2, 2), ("a", 1, 1), ("b", 1, 1), ("a", 2, 2)]);
    assert_eq!(out.readings(), [("a".into(), 1, 1), ("a".into(), 2, 2), ("b".into(), 1, 1)]);
    assert_eq!(out.count(Count::Duplicate), 2);
}

#[test]
fn a_restarted_counter_loses_nothing_and_what_came_before_it_is_still_known() {
    let out = run(&[("a", 10, 7), ("a", 11, 8), ("a", 20, 1), ("a", 11, 8), ("a", 21, 7), ("a", 20, 1)]);
    assert_eq!(out.readings().iter().map(|r| (r.1, r.2)).collect::<Vec<_>>(), [(10, 7), (11, 8), (20, 1), (21, 7)]);
    assert_eq!(out.count(Count::Duplicate), 2);
}

#[test]
fn a_reading_beyond_memory_passes_and_is_counted() {
    let out = run(&[("a", 10, 1), ("a", 210, 2), ("a", 410, 3), ("a", 10, 1)]);
    assert_eq!((out.readings().len(), out.count(Count::Unproven)), (4, 1));
}

#[test]
fn whole_rows_and_event_times_can_be_compared() {
    for more in [serde_json::json!({ "sequence": null, "by": "row" }), serde_json::json!({ "sequence": "event_time" })] {
        let (mut operator, mut out) = (dedupe(more), Collect::default());
        operator.on_batch(batch(&[("a", -5, 9), ("a", 3, 1), ("a", -5, 9), ("a", 4, 1)]), &mut out).unwrap();
        assert_eq!(out.readings().len(), 3);
    }
}

#[test]
fn silent_keys_are_forgotten() {
    let (mut operator, mut out) = (dedupe(serde_json::json!({})), Collect::default());
    operator.on_batch(batch(&[("a", 1, 1), ("b", 3_000_000, 1)]), &mut out).unwrap();
    operator.on_watermark(EventTime(3_000_000), &mut out).unwrap();
    assert_eq!(operator.held().0, 1);
    operator.on_batch(batch(&[("a", 1, 1), ("b", 3_000_000, 1)]), &mut out).unwrap();
    assert_eq!((out.count(Count::Unproven), out.count(Count::Duplicate)), (1, 1));
}

/// Rows that were refused because the state is full.
fn refused(out: &Collect) -> usize {
    out.refused().iter().filter(|(reason, _)| *reason == Reason::StateLimit).map(|(_, rows)| rows).sum()
}

#[test]
fn keys_beyond_the_limit_are_dead_letters_until_a_held_one_is_forgotten() {
    let (mut operator, mut out) = (dedupe(serde_json::json!({ "max_keys": 2 })), Collect::default());
    operator.on_batch(batch(&[("a", 1, 1), ("b", 3_000_000, 1), ("c", 3, 1), ("a", 1, 1), ("a", 2, 2), ("c", 3, 1)]), &mut out).unwrap();
    assert_eq!(out.readings(), [("a".into(), 1, 1), ("b".into(), 3_000_000, 1), ("a".into(), 2, 2)]);
    assert_eq!((refused(&out), out.count(Count::Duplicate)), (2, 1));
    operator.on_watermark(EventTime(3_000_000), &mut out).unwrap();
    operator.on_batch(batch(&[("c", 3_000_000, 1)]), &mut out).unwrap();
    assert_eq!((refused(&out), out.readings().len()), (2, 4));
}

proptest! {
    #[test]
    fn repeats_are_dropped_and_nothing_else_whenever_it_is_saved_and_loaded(
        picks in prop::collection::vec((0..3usize, 0i64..30), 1..120),
        steps in prop::collection::vec((1usize..9, 0..3u8), 1..30),
    ) {
        // Sequence and time of a device go together, so a pick is the same reading whenever it comes, in any order.
        let names = ["a", "b", "c"];
        let readings: Vec<_> = picks.iter().map(|(d, s)| (names[*d], s * 3, *s)).collect();
        let mut unique = Vec::new();
        for r in &readings {
            let r = (r.0.to_owned(), r.1, r.2);
            if !unique.contains(&r) {
                unique.push(r);
            }
        }
        let (mut operator, mut out, mut parts, mut from) = (dedupe(serde_json::json!({})), Collect::default(), Parts::default(), 0);
        for (length, what) in steps.iter().cycle() {
            let to = readings.len().min(from + length);
            operator.on_batch(batch(&readings[from..to]), &mut out).unwrap();
            if *what > 0 {
                operator.save(&mut parts).unwrap();
            }
            if *what > 1 {
                operator = dedupe(serde_json::json!({}));
                operator.load(&mut parts).unwrap();
            }
            from = to;
            if from == readings.len() {
                break;
            }
        }
        prop_assert_eq!(out.readings(), unique);
    }
}

#[test]
fn state_of_the_form_before_is_read_and_written_anew() {
    let sequences = |of: &[u64]| {
        let (bitmap, mut bytes) = (of.iter().map(|s| ordered(*s as i64)).collect::<roaring::RoaringTreemap>(), vec![]);
        bitmap.serialize_into(&mut bytes).unwrap();
        bytes
    };
    let (previous, current) = (sequences(&[1, 70]), sequences(&[2]));
    let times = |time: Option<i64>| -> ArrayRef { Arc::new(Int64Array::from(vec![time])) };
    let greatest = |s: u64| -> ArrayRef { Arc::new(UInt64Array::from(vec![s])) };
    let bitmap = |bytes: &[u8]| -> ArrayRef { Arc::new(BinaryArray::from(vec![bytes])) };
    let key: ArrayRef = Arc::new(StringViewArray::from(vec!["a"]));
    let columns = [
        ("device", key),
        ("floor", times(Some(-5))),
        ("previous first", times(Some(10))),
        ("previous highest", times(Some(20))),
        ("previous greatest", greatest(70)),
        ("previous sequences", bitmap(&previous)),
        ("current first", times(Some(30))),
        ("current highest", times(Some(30))),
        ("current greatest", greatest(2)),
        ("current sequences", bitmap(&current)),
    ];
    let mut parts = Parts([("keys".to_owned(), vec![RecordBatch::try_from_iter(columns).unwrap()])].into());
    for _ in 0..2 {
        let (mut operator, mut out) = (dedupe(serde_json::json!({})), Collect::default());
        operator.load(&mut parts).unwrap();
        operator.on_batch(batch(&[("a", 10, 1), ("a", 20, 70), ("a", 20, 71), ("a", 30, 2), ("a", -5, 9)]), &mut out).unwrap();
        assert_eq!((out.count(Count::Duplicate), out.count(Count::Unproven), out.readings().len()), (3, 1, 2));
        let mut again = dedupe(serde_json::json!({}));
        again.load(&mut parts).unwrap();
        again.save(&mut parts).unwrap();
    }
    assert_eq!(parts.0["keys"].iter().map(RecordBatch::num_columns).collect::<Vec<_>>(), [2]);
}
