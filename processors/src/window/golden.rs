//! The worked cases of `tests/golden/window_cases.json` that speak of tumbling windows without lateness.

use super::tests::options;
use super::*;
use crate::testing::{Collect, batch, ints, schema};
use crate::watermark::{Watermark, WatermarkOptions};
use arrow::array::Int64Array;
use flow::Span;
use serde_json::{Value, json};

const CASES: &str = include_str!("../../../tests/golden/window_cases.json");
/// Our clock where a case gives no arrivals: after every event time.
const NOW: i64 = i64::MAX / 2;

struct Case {
    operator: Box<dyn Operator>,
    watermark: Watermark,
    partitions: Vec<String>,
    /// Arrivals are the case's own.
    arrivals: bool,
    clock: i64,
    out: Collect,
    quarantined: u64,
}

impl Case {
    fn open(case: &Value) -> Self {
        let micros = |v: &Value| format!("{}us", v.as_i64().unwrap_or(0) * 1_000);
        let window =
            json!({ "type": "tumbling", "size": micros(&case["window"]["size_ms"]), "offset": micros(&case["window"]["offset_ms"]) });
        let select = json!({ "count": "count(*)", "sum": "sum(value)", "min": "min(value)", "max": "max(value)" });
        let options = options("1s", json!({ "window": window, "select": select }));
        let strategy = &case["watermark"];
        let mut waits = json!({ "out_of_orderness": micros(&strategy["delay_ms"]), "idle_timeout": "1s" });
        let arrivals = strategy["max_ahead_ms"].is_i64();
        if arrivals {
            waits["max_future"] = micros(&strategy["max_ahead_ms"]).into();
        }
        let mut watermark = Watermark::new(&serde_json::from_value::<WatermarkOptions>(waits).unwrap());
        let partitions: Vec<String> = serde_json::from_value(strategy["partitions"].clone()).unwrap_or_default();
        let clock = if arrivals { 0 } else { NOW };
        for producer in 0..partitions.len() {
            watermark.on_connection(u32::try_from(producer).unwrap(), true, WallTime(clock));
        }
        Self {
            operator: build(&options, &schema()).unwrap(),
            watermark,
            partitions,
            arrivals,
            clock,
            out: Collect::default(),
            quarantined: 0,
        }
    }

    fn step(&mut self, event: &Value) {
        if let Some(mark) = event["watermark"].as_i64() {
            self.watermark.on_tick(EventTime(mark * 1_000));
        } else if let Some(idle) = event["idle"].as_str() {
            self.clock += Span::from_secs(1).0;
            for producer in (0..self.partitions.len()).filter(|p| self.partitions[*p] != idle) {
                self.watermark.on_rows(u32::try_from(producer).unwrap(), &[], WallTime(self.clock), &mut vec![]);
            }
        } else if event["end"].as_bool() == Some(true) {
            self.watermark.on_tick(self.operator.last_timer().unwrap());
        } else {
            self.reading(event);
        }
        self.operator.on_watermark(self.watermark.current(), &mut self.out).unwrap();
    }

    fn reading(&mut self, event: &Value) {
        let (time, value) = (event["ts"].as_i64().unwrap() * 1_000, event["value"].as_i64().unwrap());
        let mut marks = vec![self.watermark.current().0];
        if !self.partitions.is_empty() {
            let arrival = if self.arrivals { event["arrival"].as_i64().unwrap() * 1_000 } else { self.clock };
            let producer = self.partitions.iter().position(|p| event["partition"].as_str().is_some_and(|e| e == p)).unwrap_or(0);
            if self.watermark.on_rows(u32::try_from(producer).unwrap(), &[time], WallTime(arrival), &mut marks).future.is_some() {
                self.quarantined += 1;
                return;
            }
        }
        let marks: ArrayRef = Arc::new(Int64Array::from(marks));
        let trail = RecordBatch::try_from_iter([(trail::WATERMARK, marks)]).unwrap();
        let reading = batch(&[(event["key"].as_str().unwrap(), time, value)]).with_trail(Some(trail));
        self.operator.on_batch(reading, &mut self.out).unwrap();
    }

    /// What has come out, as the case writes it; leaves nothing.
    fn drain(&mut self, after: usize) -> Vec<Value> {
        let mut panes = Vec::new();
        for rows in std::mem::take(&mut self.out.rows).iter().map(Batch::rows) {
            let time = |name: &str| arrow::compute::cast(rows.column_by_name(name).unwrap(), &DataType::Int64).unwrap();
            let [start, end] = [START, END].map(|name| ints(&time(name)));
            let [count, sum, min, max] = ["count", "sum", "min", "max"].map(|name| ints(rows.column_by_name(name).unwrap()));
            for row in 0..rows.num_rows() {
                panes.push(json!({
                    "after": after, "key": rows.column(0).as_string_view().value(row), "start": start[row].unwrap() / 1_000,
                    "end": end[row].unwrap() / 1_000, "count": count[row], "sum": sum[row], "min": min[row], "max": max[row],
                    "timing": "on_time", "pane": 0
                }));
            }
        }
        panes
    }
}

#[test]
fn the_worked_cases_come_out_as_written() {
    let cases: Vec<Value> = serde_json::from_str(CASES).unwrap();
    let ours = |case: &&Value| {
        let absent = ["trigger", "accumulation", "dedup"].iter().all(|k| case[*k].is_null());
        absent && case["window"]["type"] == "tumbling" && case["allowed_lateness_ms"] == 0 && case["watermark"]["scope"].is_null()
    };
    let mut run = 0;
    for case in cases.iter().filter(ours) {
        let mut state = Case::open(case);
        let mut panes = Vec::new();
        for (after, event) in case["events"].as_array().unwrap().iter().enumerate() {
            state.step(event);
            panes.extend(state.drain(after));
        }
        assert_eq!(Value::from(panes), case["expected"], "{}: {}", case["name"], case["why"]);
        let late: usize = state.out.late.iter().map(Batch::len).sum();
        assert_eq!(Value::from(late), case["late_dropped"], "{}", case["name"]);
        assert_eq!(state.quarantined, case["quarantined"].as_u64().unwrap_or(0), "{}", case["name"]);
        run += 1;
    }
    assert_eq!(run, 24, "cases of this kind in the file");
}
