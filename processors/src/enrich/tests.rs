//! Laws of `enrich`: a look at all rows of the table for each reading finds the same; splits and restarts change nothing.

use super::*;
use crate::testing::{Collect, Parts, batch, schema, texts};
use arrow::array::{Int64Array, StringViewArray, TimestampMicrosecondArray};
use arrow::datatypes::DataType;
use flow::event_time_type;
use proptest::prelude::*;
use serde_json::json;

fn shape(timed: bool) -> LookupShape {
    let columns = vec![
        Field::new("id", DataType::Utf8View, false),
        Field::new("since", event_time_type(), true),
        Field::new("limit", DataType::Int64, true),
    ];
    LookupShape {
        name: "sites".into(),
        schema: Arc::new(Schema::new(columns)),
        key: vec!["id".into()],
        valid_from: timed.then(|| "since".into()),
    }
}

fn version(number: u64, rows: &[(&str, i64, i64)]) -> LookupVersion {
    let id: ArrayRef = Arc::new(StringViewArray::from_iter_values(rows.iter().map(|r| r.0)));
    let since: ArrayRef = Arc::new(TimestampMicrosecondArray::from_iter_values(rows.iter().map(|r| r.1)).with_timezone("UTC"));
    let limit: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.2)));
    LookupVersion { lookup: "sites".into(), number, rows: RecordBatch::try_new(shape(true).schema, vec![id, since, limit]).unwrap() }
}

fn enrich(timed: bool, on_miss: &str) -> Box<dyn Operator> {
    let options = json!({ "lookup": "sites", "key": { "device": "id" }, "columns": ["limit"], "on_miss": on_miss });
    build(&serde_json::from_value(options).unwrap(), &schema(), &shape(timed)).unwrap()
}

fn limits(out: &Collect) -> Vec<Option<i64>> {
    out.rows.iter().flat_map(|b| crate::testing::ints(b.rows().column_by_name("limit").unwrap())).collect()
}

#[test]
fn a_version_counts_from_its_time_on_and_before_the_first_nothing_matches() {
    let (mut operator, mut out) = (enrich(true, "null"), Collect::default());
    operator.on_lookup(&version(1, &[("a", 20, 2), ("b", 0, 9), ("a", 10, 1)])).unwrap();
    operator.on_batch(batch(&[("a", 9, 0), ("a", 10, 0), ("a", 19, 0), ("a", 20, 0), ("b", 5, 0), ("c", 5, 0)]), &mut out).unwrap();
    assert_eq!(limits(&out), [None, Some(1), Some(1), Some(2), Some(9), None]);
}

#[test]
fn a_new_version_counts_for_later_readings_alone_and_the_same_again_changes_nothing() {
    let (mut operator, mut out, mut parts) = (enrich(false, "null"), Collect::default(), Parts::default());
    operator.on_batch(batch(&[("a", 1, 0)]), &mut out).unwrap();
    operator.on_lookup(&version(1, &[("a", 0, 1)])).unwrap();
    operator.on_batch(batch(&[("a", 2, 0)]), &mut out).unwrap();
    operator.on_lookup(&LookupVersion { lookup: "others".into(), ..version(7, &[("a", 0, 7)]) }).unwrap();
    operator.save(&mut parts).unwrap();
    parts.0.clear();
    operator.on_lookup(&version(1, &[("a", 0, 1)])).unwrap();
    operator.save(&mut parts).unwrap();
    assert!(parts.0.is_empty(), "nothing is written for a version that is there");
    operator.on_lookup(&version(2, &[("a", 0, 2)])).unwrap();
    operator.on_batch(batch(&[("a", 3, 0)]), &mut out).unwrap();
    assert_eq!(limits(&out), [None, Some(1), Some(2)]);
}

#[test]
fn what_does_not_match_is_null_left_out_or_a_dead_letter() {
    let readings = [("a", 1, 0), ("x", 2, 0), ("a", 3, 0)];
    for (on_miss, passed, filtered, dead) in [("null", 3, 0, vec![]), ("drop", 2, 1, vec![]), ("dead_letter", 2, 0, vec![1])] {
        let (mut operator, mut out) = (enrich(false, on_miss), Collect::default());
        operator.on_lookup(&version(1, &[("a", 0, 1)])).unwrap();
        operator.on_batch(batch(&readings), &mut out).unwrap();
        assert_eq!((limits(&out).len(), out.count(Count::Filtered)), (passed, filtered), "{on_miss}");
        assert_eq!(out.refused(), dead.into_iter().map(|rows| (Reason::NoMatch, rows)).collect::<Vec<_>>(), "{on_miss}");
        assert_eq!(limits(&out).iter().flatten().count(), 2, "{on_miss}");
    }
}

#[test]
fn a_null_in_the_key_matches_nothing() {
    let shape = LookupShape { key: vec!["limit".into()], ..shape(false) };
    let options = json!({ "lookup": "sites", "key": { "value": "limit" }, "columns": { "site": "id" } });
    let mut operator = build(&serde_json::from_value(options).unwrap(), &schema(), &shape).unwrap();
    operator.on_lookup(&version(1, &[("zero", 0, 0), ("five", 0, 5)])).unwrap();
    let with_null = batch(&[("a", 1, 0), ("a", 2, 5), ("a", 3, 5)]);
    let value: ArrayRef = Arc::new(Int64Array::from(vec![None, Some(5), Some(6)]));
    let columns = vec![with_null.rows().column(0).clone(), value, with_null.rows().column(2).clone()];
    let mut out = Collect::default();
    operator.on_batch(with_null.with_rows(RecordBatch::try_new(schema(), columns).unwrap()).unwrap(), &mut out).unwrap();
    let sites: Vec<bool> = texts(&out.rows[0]).iter().map(|row| row.contains("\"site\":\"five\"")).collect();
    assert_eq!(sites, [false, true, false]);
    assert!(!texts(&out.rows[0])[0].contains("site"), "null is not zero");
}

#[test]
fn mistakes_name_their_key() {
    let wrong = |options: serde_json::Value| build(&serde_json::from_value(options).unwrap(), &schema(), &shape(false)).err().unwrap();
    let key = |options| wrong(options).key;
    assert_eq!(key(json!({ "lookup": "sites", "columns": ["limit"] })), "lookup", "the readings have no column id");
    assert_eq!(key(json!({ "lookup": "sites", "key": { "x": "id" }, "columns": ["limit"] })), "key.x");
    assert_eq!(key(json!({ "lookup": "sites", "key": { "device": "limit" }, "columns": ["limit"] })), "key.device");
    assert_eq!(key(json!({ "lookup": "sites", "key": [], "columns": ["limit"] })), "key");
    assert_eq!(key(json!({ "lookup": "sites", "key": { "value": "id" }, "columns": ["limit"] })), "key.value", "a number is no text");
    assert_eq!(key(json!({ "lookup": "sites", "key": { "device": "id" }, "columns": ["limits"] })), "columns.0");
    assert_eq!(key(json!({ "lookup": "sites", "key": { "device": "id" }, "columns": { "value": "limit" } })), "columns.value");
    assert_eq!(key(json!({ "lookup": "sites", "key": { "device": "id" }, "columns": [] })), "columns");
}

/// The row that counts, by a look at all of them.
fn naive(rows: &[(&str, i64, i64)], device: &str, time: i64) -> Option<i64> {
    rows.iter().filter(|r| r.0 == device && r.1 <= time).max_by_key(|r| r.1).map(|r| r.2)
}

proptest! {
    #[test]
    fn any_split_and_any_restart_find_what_a_look_at_all_rows_finds(
        versions in prop::collection::vec(prop::collection::btree_map((0..4usize, 0i64..40), 0i64..100, 0..12), 1..4),
        readings in prop::collection::vec((0..5usize, 0i64..50), 0..80),
        steps in prop::collection::vec((1usize..9, any::<bool>()), 1..20),
    ) {
        let names = ["a", "b", "c", "d", "e"];
        let versions: Vec<Vec<(&str, i64, i64)>> =
            versions.iter().map(|v| v.iter().map(|((d, t), l)| (names[*d], *t, *l)).collect()).collect();
        let (mut operator, mut out, mut parts) = (enrich(true, "null"), Collect::default(), Parts::default());
        let each = readings.len() / versions.len() + 1;
        let mut expected = vec![];
        let mut steps = steps.iter().cycle();
        for (number, rows) in versions.iter().enumerate() {
            operator.on_lookup(&version(number as u64, rows)).unwrap();
            let part: Vec<(&str, i64, i64)> =
                readings.iter().skip(number * each).take(each).map(|(d, t)| (names[*d], *t, 0)).collect();
            expected.extend(part.iter().map(|(device, time, _)| naive(rows, device, *time)));
            let mut rest = &part[..];
            while !rest.is_empty() {
                let (length, restart) = steps.next().unwrap();
                let (now, later) = rest.split_at((*length).min(rest.len()));
                operator.on_batch(batch(now), &mut out).unwrap();
                rest = later;
                if *restart {
                    operator.save(&mut parts).unwrap();
                    operator = enrich(true, "null");
                    operator.load(&mut parts).unwrap();
                }
            }
        }
        prop_assert_eq!(limits(&out), expected);
    }
}
