//! The aggregates over time against slow, obvious ones: any order, any split, any merge, in windows and in SQL.

use super::history::{Histories, Single};
use super::measure::Measure;
use crate::testing::{Outcome, drive, rows, schema};
use crate::window;
use arrow::array::{ArrayRef, AsArray, Float64Array, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::Float64Type;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{Accumulator, EmitTo, GroupsAccumulator};
use datafusion::prelude::{SessionConfig, SessionContext};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Group, microseconds, value; null where the value is above 9.
type Row = (usize, i64, i64);

const GROUPS: usize = 3;

fn some_rows() -> impl Strategy<Value = Vec<Row>> {
    prop::collection::vec((0..GROUPS, -40i64..40, 0i64..11), 1..60)
}

/// The present values of a group in order; for the duration of the state 5, whether it was that.
fn present(measure: Measure, rows: &[Row], group: usize) -> Vec<(i64, f64)> {
    let of = |value: i64| if measure == Measure::StateDuration { i64::from(value == 5) } else { value };
    let mut present: Vec<_> = rows.iter().filter(|r| r.0 == group && r.2 < 10).map(|r| (r.1, of(r.2))).collect();
    present.sort_unstable();
    present.into_iter().map(|(time, value)| (time, value as f64)).collect()
}

/// Moment by moment: what held at each microsecond from the first reading to before the last.
fn held(readings: &[(i64, f64)]) -> Vec<f64> {
    let by_time: BTreeMap<i64, f64> = readings.iter().copied().collect();
    let (Some(first), Some(last)) = (readings.first(), readings.last()) else { return vec![] };
    (first.0..last.0).map(|at| *by_time.range(..=at).next_back().unwrap().1).collect()
}

fn naive(measure: Measure, readings: &[(i64, f64)]) -> Option<f64> {
    let (first, last) = (readings.first()?, readings.last()?);
    let held = held(readings);
    let increase = || {
        let falls = readings.windows(2).filter(|w| w[1].1 < w[0].1).map(|w| w[0].1);
        last.1 - first.1 + falls.sum::<f64>()
    };
    match measure {
        Measure::TimeWeightedAvg if held.is_empty() => Some(last.1),
        Measure::TimeWeightedAvg => Some(held.iter().sum::<f64>() / held.len() as f64),
        Measure::CounterIncrease => (readings.len() > 1).then(increase),
        Measure::CounterRate => (!held.is_empty()).then(|| increase() / (held.len() as f64 / 1e6)),
        Measure::StateDuration => Some(held.iter().filter(|v| **v == 1.0).count() as f64 / 1e6),
    }
}

fn arguments(measure: Measure, rows: &[Row]) -> Vec<ArrayRef> {
    let values: Float64Array = rows.iter().map(|r| (r.2 < 10).then_some(r.2 as f64)).collect();
    let times = TimestampMicrosecondArray::from_iter_values(rows.iter().map(|r| r.1)).with_timezone("UTC");
    let wanted: ArrayRef = Arc::new(Float64Array::from_value(5.0, rows.len()));
    let both: [ArrayRef; 2] = [Arc::new(values), Arc::new(times)];
    both.into_iter().chain((measure == Measure::StateDuration).then_some(wanted)).collect()
}

fn updated(measure: Measure, rows: &[Row]) -> Histories {
    let mut histories = Histories::new(measure);
    let groups: Vec<_> = rows.iter().map(|r| r.0).collect();
    histories.update_batch(&arguments(measure, rows), &groups, None, GROUPS).unwrap();
    histories
}

fn numbers(column: &ArrayRef) -> Vec<Option<f64>> {
    column.as_primitive::<Float64Type>().iter().collect()
}

/// `rows` in another order.
fn shuffled(rows: &[Row], seed: &[u16]) -> Vec<Row> {
    let mut order: Vec<_> = (0..rows.len()).collect();
    order.sort_by_key(|at| (seed[at % seed.len()], *at));
    order.into_iter().map(|at| rows[at]).collect()
}

proptest! {
    #[test]
    fn any_order_any_split_and_any_merge_equal_the_naive_answer(
        readings in some_rows(), seed in prop::collection::vec(any::<u16>(), 61), length in 1usize..20, first in 0..=GROUPS,
    ) {
        for measure in Measure::ALL {
            let want: Vec<_> = (0..GROUPS).map(|g| naive(measure, &present(measure, &readings, g))).collect();
            let whole = numbers(&updated(measure, &readings).evaluate(EmitTo::All).unwrap());
            for (got, want) in whole.iter().zip(&want) {
                prop_assert!(match (got, want) {
                    (Some(got), Some(want)) => (got - want).abs() <= 1e-9 * want.abs(),
                    _ => got == want,
                }, "{measure:?}: {got:?} instead of {want:?}");
            }
            let mut merged = Histories::new(measure);
            for part in shuffled(&readings, &seed).chunks(length) {
                let state = updated(measure, part).state(EmitTo::All).unwrap();
                merged.merge_batch(&state, &[0, 1, 2], GROUPS).unwrap();
            }
            // A state of a state, and the emission in two parts.
            let state = merged.state(EmitTo::All).unwrap();
            merged.merge_batch(&state, &[0, 1, 2], GROUPS).unwrap();
            let mut parts = numbers(&merged.evaluate(EmitTo::First(first.min(GROUPS))).unwrap());
            parts.extend(numbers(&merged.evaluate(EmitTo::All).unwrap()));
            parts.resize(GROUPS, None);
            prop_assert_eq!(&parts, &whole, "{:?} to the last bit", measure);
            prop_assert_eq!(merged.size(), Histories::new(measure).size(), "memory that nobody holds");
        }
    }

    #[test]
    fn one_group_alone_and_rows_as_states_give_the_same(readings in some_rows(), length in 1usize..20) {
        for measure in Measure::ALL {
            let mine: Vec<Row> = readings.iter().filter(|r| r.0 == 0).copied().collect();
            let want = updated(measure, &mine).evaluate(EmitTo::First(1)).unwrap();
            let (mut all, mut rows) = (Single::new(measure), Histories::new(measure));
            for part in mine.chunks(length) {
                let mut one = Single::new(measure);
                one.update_batch(&arguments(measure, part)).unwrap();
                let state: Vec<ArrayRef> = one.state().unwrap().iter().map(|s| s.to_array().unwrap()).collect();
                all.merge_batch(&state).unwrap();
                let each = rows.convert_to_state(&arguments(measure, part), None).unwrap();
                rows.merge_batch(&each, &vec![0; part.len()], 1).unwrap();
            }
            rows.merge_batch(&rows.convert_to_state(&arguments(measure, &[]), None).unwrap(), &[], 1).unwrap();
            prop_assert_eq!(all.evaluate().unwrap(), ScalarValue::try_from_array(&want, 0).unwrap());
            prop_assert_eq!(numbers(&rows.evaluate(EmitTo::All).unwrap()), numbers(&want));
        }
    }

    #[test]
    fn windows_give_the_same_in_any_order_with_any_saves(
        readings in prop::collection::vec((0..3u8, 0i64..60, 0i64..10), 1..60),
        seed in prop::collection::vec(any::<u16>(), 61),
        steps in prop::collection::vec((1usize..12, 0..3u8), 1..20),
    ) {
        let names: Vec<String> = (0..3).map(|d| format!("device-{d}")).collect();
        let plain: Vec<_> = readings.iter().map(|r| (names[usize::from(r.0)].as_str(), r.1, r.2)).collect();
        let mut order: Vec<_> = (0..plain.len()).collect();
        order.sort_by_key(|at| (seed[*at], *at));
        let other: Vec<_> = order.into_iter().map(|at| plain[at]).collect();
        let outcome = |readings: &[(&str, i64, i64)], steps: &[(usize, u8)]| -> Outcome {
            drive(&|| window::build(&options("20us"), &schema()).unwrap(), readings, steps, 1_000, 1_000)
        };
        prop_assert_eq!(outcome(&other, &steps), outcome(&plain, &[(plain.len(), 0)]));
    }
}

fn options(size: &str) -> window::WindowOptions {
    let options = serde_json::json!({
        "key": ["device"], "window": { "type": "tumbling", "size": size },
        "select": {
            "mean": "time_weighted_avg(value, event_time)",
            "rise": "counter_increase(value, event_time)",
            "others": "counter_increase(value, event_time) filter (where value <> 8)",
            "rate": "counter_rate(value, event_time)",
            "five": "state_duration(value, event_time, 5)",
            "high": "state_duration(value > 5, event_time, true)",
            "first": "first_value(value)",
            "last": "last_value(value) - 1",
        }
    });
    serde_json::from_value(options).unwrap()
}

#[test]
fn a_window_of_readings_out_of_order_over_a_restart() {
    let readings = [("a", 6_000_000, 5), ("a", 2_000_000, 8), ("a", 0, 2), ("a", 9_000_000, 7), ("b", 5_000_000, 5)];
    let make = || window::build(&options("10s"), &schema()).unwrap();
    let outcome = drive(&make, &readings, &[(1, 2)], 60_000_000, 10_000_000);
    // 2 for 2 s, 8 for 4 s, 5 for 3 s; 6 up, a reset to 5, 2 up.
    let start = r#""window_start":"1970-01-01T00:00:00Z","window_end":"1970-01-01T00:00:10Z","event_time":"1970-01-01T00:00:09.999999Z""#;
    let a = format!(
        r#"{{"device":"a",{start},"first":2,"five":3.0,"high":4.0,"last":6,"mean":5.666666666666667,"others":5.0,"rate":1.4444444444444444,"rise":13.0,"pane":0}}"#
    );
    let b = format!(r#"{{"device":"b",{start},"first":5,"five":0.0,"high":0.0,"last":4,"mean":5.0,"pane":0}}"#);
    assert_eq!(outcome.rows, [a, b]);
}

fn session() -> SessionContext {
    let session = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
    super::register(&session);
    let readings = rows(&[("a", 9_000_000, 7), ("a", 0, 2), ("b", 5_000_000, 5), ("a", 6_000_000, 5), ("a", 2_000_000, 8)]);
    let parts = vec![vec![readings.slice(0, 2), readings.slice(2, 3)]];
    let table = datafusion::datasource::MemTable::try_new(schema(), parts).unwrap();
    session.register_table("readings", Arc::new(table)).unwrap();
    session
}

fn ask(sql: &str) -> Result<String, String> {
    let answer = futures::executor::block_on(async { session().sql(sql).await?.collect().await });
    let batches = answer.map_err(|e| e.strip_backtrace())?;
    Ok(arrow::util::pretty::pretty_format_batches(&batches).unwrap().to_string())
}

#[track_caller]
fn check(sql: &str, want: &[&str]) {
    let got = ask(sql).unwrap();
    let lines: Vec<_> = got.lines().filter(|l| !l.starts_with('+')).skip(1).map(|l| l.replace(' ', "")).collect();
    assert_eq!(lines, want, "{sql}");
}

#[test]
fn queries_have_them_too() {
    let all = "time_weighted_avg(value, event_time) * 9, counter_increase(value, event_time), state_duration(value, event_time, 8)";
    check(&format!("select device, {all} from readings group by device order by device"), &["|a|51.0|13.0|4.0|", "|b|45.0||0.0|"]);
    check("select counter_increase(value, event_time) from readings where device = 'a'", &["|13.0|"]);
    check(
        "select counter_increase(value, event_time) over (partition by device order by event_time) from readings order by device, event_time",
        &["||", "|6.0|", "|11.0|", "|13.0|", "||"],
    );
    check("select state_duration(device, event_time, 'a') from readings", &["|8.0|"]);
    check("select round(geo_distance(52.52, 13.405, 48.137, value + 6.575) / 1000) from readings where device = 'b'", &["|504.0|"]);
}

#[test]
fn an_area_is_asked_about_columns_and_constants() {
    let area = r#"{"type":"Polygon","coordinates":[[[0,0],[6,0],[6,6],[0,6],[0,0]]]}"#;
    check(&format!("select count(*) from readings where geo_within(value, 1, '{area}')"), &["|3|"]);
    check(&format!("select geo_within(1, 7, '{area}'), geo_within(null, 1, '{area}')"), &["|false||"]);
    check(&format!("select geo_within(1, 2, '{area}') from readings limit 1"), &["|true|"]);
}

#[test]
fn calls_that_make_no_sense_are_refused() {
    for (sql, why) in [
        ("select counter_rate(value) from readings", "1 arguments"),
        ("select counter_rate(device, event_time) from readings", "not a number"),
        ("select counter_rate(value, value) from readings", "the time is"),
        ("select state_duration(value, event_time) from readings", "2 arguments"),
        ("select counter_rate(distinct value, event_time) from readings", "DISTINCT"),
        ("select counter_rate(value, event_time) over (order by event_time rows 1 preceding) from readings", "retract"),
        ("select geo_within(1, 2, device) from readings", "no constant"),
        ("select geo_within(1, 2, 'depot') from readings", "no GeoJSON"),
        ("select geo_within(device, 2, 'depot') from readings", "no degrees"),
    ] {
        let error = ask(sql).unwrap_err();
        assert!(error.contains(why), "{sql}: {error}");
    }
}

#[test]
fn texts_are_states_and_a_missing_state_does_not_end_one() {
    let mut state = Single::new(Measure::StateDuration);
    let states: ArrayRef = Arc::new(StringArray::from(vec![Some("on"), None, Some("off"), Some("on")]));
    let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![0, 1_000_000, 3_000_000, 4_000_000]).with_timezone("UTC"));
    let wanted: ArrayRef = Arc::new(StringArray::from(vec!["on"; 4]));
    state.update_batch(&[states, times, wanted]).unwrap();
    assert_eq!(state.evaluate().unwrap(), ScalarValue::Float64(Some(3.0)));
}
