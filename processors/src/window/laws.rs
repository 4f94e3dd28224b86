//! Laws of all kinds of windows: how readings come in batches and when state is saved changes nothing, and a naive computation agrees.

use super::*;
use crate::testing::{Outcome, drive, drive_marked, schema};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;

fn window(window: &Value, more: &Value, by: Option<ByDevice>) -> Box<dyn Operator> {
    let mut options =
        json!({ "key": ["device"], "window": window, "select": { "n": "count(*)", "total": "sum(value)", "most": "max(value)" } });
    options.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    maker(&serde_json::from_value(options).unwrap(), by, &schema()).unwrap()().unwrap()
}

/// Each kind, with and without what makes panes.
fn kinds() -> Vec<(Value, Value)> {
    let late = json!({ "allowed_lateness": "30us" });
    vec![
        (json!({ "type": "hopping", "size": "20us", "hop": "7us" }), json!({})),
        (json!({ "type": "hopping", "size": "5us", "hop": "9us", "offset": "2us" }), json!({})),
        (json!({ "type": "hopping", "size": "20us", "hop": "7us" }), late.clone()),
        (json!({ "type": "tumbling", "size": "20us" }), late.clone()),
        (json!({ "type": "tumbling", "size": "20us" }), json!({ "allowed_lateness": "30us", "emit": "every 2 readings" })),
        (json!({ "type": "tumbling", "size": "20us" }), json!({ "allowed_lateness": "30us", "emit": "every 6us" })),
        (
            json!({ "type": "tumbling", "size": "20us" }),
            json!({ "allowed_lateness": "30us", "emit": "every 3 readings", "accumulation": "discarding" }),
        ),
        (json!({ "type": "session", "gap": "6us" }), json!({})),
        (json!({ "type": "session", "gap": "6us", "max": "25us" }), json!({})),
        (json!({ "type": "session", "gap": "6us" }), late),
        (json!({ "type": "sliding", "size": "15us" }), json!({})),
        (json!({ "type": "count", "count": 3 }), json!({})),
        (json!({ "type": "global" }), json!({ "emit": "every 4 readings", "accumulation": "discarding" })),
    ]
}

const DEVICES: [&str; 4] = ["a", "b", "c", "d"];

fn run(kind: &(Value, Value), readings: &[(&str, i64, i64)], steps: &[(usize, u8)], lag: i64) -> Outcome {
    drive(&|| window(&kind.0, &kind.1, None), readings, steps, lag, 10_000)
}

fn run_by_device(kind: &(Value, Value), readings: &[(&str, i64, i64)], steps: &[(usize, u8)], lag: i64, by: ByDevice) -> Outcome {
    drive_marked(&|| window(&kind.0, &kind.1, Some(by)), readings, steps, lag, 10_000, true)
}

/// Rows of (device, start, end, count, sum) as `drive` gives them.
fn results(outcome: &Outcome) -> BTreeMap<(String, i64, i64), (i64, i64)> {
    let micros = |v: &Value| {
        let text = v.as_str().unwrap();
        text.parse::<chrono::DateTime<chrono::Utc>>().unwrap().timestamp_micros()
    };
    let row = |line: &String| {
        let row: Value = serde_json::from_str(line).unwrap();
        let key = (row["device"].as_str().unwrap().to_owned(), micros(&row["window_start"]), micros(&row["window_end"]));
        (key, (row["n"].as_i64().unwrap(), row["total"].as_i64().unwrap()))
    };
    outcome.rows.iter().map(row).collect()
}

fn hopping(readings: &[(&str, i64, i64)], size: i64, hop: i64) -> BTreeMap<(String, i64, i64), (i64, i64)> {
    let mut windows = BTreeMap::new();
    for (device, time, value) in readings {
        for start in (-400..400).map(|k| k * hop).filter(|start| *start <= *time && *time < start + size) {
            let window: &mut (i64, i64) = windows.entry(((*device).to_owned(), start, start + size)).or_default();
            *window = (window.0 + 1, window.1 + value);
        }
    }
    windows
}

fn sessions(readings: &[(&str, i64, i64)], gap: i64) -> BTreeMap<(String, i64, i64), (i64, i64)> {
    let mut sorted = readings.to_vec();
    sorted.sort_unstable();
    let mut sessions: Vec<(&str, i64, i64, i64, i64)> = vec![];
    for (device, time, value) in sorted {
        match sessions.last_mut() {
            Some(last) if last.0 == device && time - last.2 <= gap => (last.2, last.3, last.4) = (time, last.3 + 1, last.4 + value),
            _ => sessions.push((device, time, time, 1, value)),
        }
    }
    sessions.into_iter().map(|(device, start, last, n, sum)| ((device.to_owned(), start, last + gap), (n, sum))).collect()
}

proptest! {
    // Each case runs every kind twice.
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn batches_saves_and_restarts_change_no_row_of_any_kind(
        readings in prop::collection::vec((0..4usize, 0i64..200, 0i64..10), 1..60),
        steps in prop::collection::vec((1usize..12, 0..3u8), 1..20),
        lag in 1i64..60,
    ) {
        let readings: Vec<_> = readings.into_iter().map(|(device, time, value)| (DEVICES[device], time, value)).collect();
        for kind in kinds() {
            let (alone, together) = (run(&kind, &readings, &[(1, 0)], lag), run(&kind, &readings, &steps, lag));
            prop_assert_eq!(alone, together, "{} {}", kind.0, kind.1);
        }
    }

    #[test]
    fn with_watermarks_by_device_neither_batches_nor_saves_nor_silence_change_a_row(
        readings in prop::collection::vec((0..4usize, 0i64..200, 0i64..10), 1..60),
        steps in prop::collection::vec((1usize..12, 0..3u8), 1..20),
        lag in 1i64..60,
        by in (0i64..30, 1i64..150, 30i64..300),
    ) {
        let readings: Vec<_> = readings.into_iter().map(|(device, time, value)| (DEVICES[device], time, value)).collect();
        let by = ByDevice { delay: by.0, idle: by.1, retention: by.2 };
        for kind in kinds() {
            let (alone, together) = (run_by_device(&kind, &readings, &[(1, 0)], lag, by), run_by_device(&kind, &readings, &steps, lag, by));
            prop_assert_eq!(alone, together, "{} {} {:?}", kind.0, kind.1, by);
        }
    }

    #[test]
    fn a_device_with_its_own_watermark_gets_what_it_would_get_alone(
        readings in prop::collection::vec((0..4usize, 0i64..200, 0i64..10), 1..60),
        steps in prop::collection::vec((1usize..12, 0..3u8), 1..20),
        lag in 1i64..60,
        delay in 0i64..30,
    ) {
        let readings: Vec<_> = readings.into_iter().map(|(device, time, value)| (DEVICES[device], time, value)).collect();
        // Silent only when all is over.
        let by = ByDevice { delay, idle: 1_000, retention: 1_000_000 };
        for kind in kinds() {
            let together = run_by_device(&kind, &readings, &steps, lag, by);
            let (mut rows, mut late) = (vec![], vec![]);
            for device in DEVICES {
                let own: Vec<_> = readings.iter().filter(|r| r.0 == device).copied().collect();
                let alone = run(&kind, &own, &[(1, 0)], delay);
                rows.extend(alone.rows);
                late.extend(alone.late);
            }
            rows.sort();
            late.sort();
            prop_assert_eq!((together.rows, together.late), (rows, late), "{} {}", kind.0, kind.1);
        }
    }

    #[test]
    fn readings_that_are_never_late_give_what_a_naive_computation_gives(
        readings in prop::collection::vec((0..4usize, 0i64..200, 0i64..10), 1..60),
        steps in prop::collection::vec((1usize..12, 0..3u8), 1..20),
    ) {
        let readings: Vec<_> = readings.into_iter().map(|(device, time, value)| (DEVICES[device], time, value)).collect();
        for (kind, expected) in [
            (&kinds()[0], hopping(&readings, 20, 7)),
            (&kinds()[2], hopping(&readings, 20, 7)),
            (&kinds()[3], hopping(&readings, 20, 20)),
            (&kinds()[5], hopping(&readings, 20, 20)),
            (&kinds()[7], sessions(&readings, 6)),
            (&kinds()[9], sessions(&readings, 6)),
        ] {
            prop_assert_eq!(results(&run(kind, &readings, &steps, 300)), expected, "{} {}", kind.0, kind.1);
        }
    }
}
