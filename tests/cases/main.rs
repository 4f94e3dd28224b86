//! The worked cases of windows: what comes in, and after which event which pane comes out.
//!
//! `TIDEGATE_WINDOW_CASES=FILE cargo test --test cases` runs those of another file of the same form in the place of
//! `window_cases.json`. A millisecond of a case is a microsecond here, so that the end of time is the same.

#![expect(clippy::unwrap_used, reason = "a case that cannot be read fails the test")]

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringViewArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema, SchemaRef, TimestampMicrosecondType};
use flow::{Batch, Count, DeadLetters, EventTime, Operator, Origin, Output, Span, WallTime, event_time_field, trail};
use processors::watermark::{Watermark, WatermarkOptions};
use processors::window::{ByDevice, REPLACES, WindowOptions, maker};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// Our clock where a case gives no arrivals: after every event time.
const NOW: i64 = i64::MAX / 2;

/// What operators put out.
#[derive(Default)]
struct Collect {
    rows: Vec<Batch>,
    panes: Vec<Batch>,
    late: Vec<Batch>,
    duplicates: u64,
}

impl Output for Collect {
    fn rows(&mut self, batch: Batch) {
        self.rows.push(batch);
    }
    fn pane(&mut self, batch: Batch) {
        self.panes.push(batch);
    }
    fn late(&mut self, batch: Batch) {
        self.late.push(batch);
    }
    fn dead(&mut self, letters: DeadLetters) {
        panic!("no reading of a case is refused: {}", letters.detail);
    }
    fn count(&mut self, what: Count, rows: u64) {
        if what == Count::Duplicate {
            self.duplicates += rows;
        }
    }
}

struct Case {
    dedupe: Option<Box<dyn Operator>>,
    operator: Box<dyn Operator>,
    watermark: Watermark,
    partitions: Vec<String>,
    /// Arrivals are the case's own.
    arrivals: bool,
    clock: i64,
    out: Collect,
    duplicates: u64,
    quarantined: u64,
    /// Panes that were put out, without their timing.
    seen: BTreeMap<String, Value>,
}

fn schema() -> SchemaRef {
    let field = |name: &str, of| Field::new(name, of, false);
    Arc::new(Schema::new(vec![
        field("device", DataType::Utf8View),
        field("value", DataType::Int64),
        field("seq", DataType::Int64),
        event_time_field(),
    ]))
}

fn micros(v: &Value) -> String {
    format!("{}us", v.as_i64().unwrap_or(0))
}

fn options(case: &Value) -> WindowOptions {
    let of = &case["window"];
    let mut window = json!({ "type": of["type"] });
    for (theirs, ours) in [("size_ms", "size"), ("slide_ms", "hop"), ("offset_ms", "offset"), ("gap_ms", "gap")] {
        if of[theirs].is_i64() {
            window[ours] = micros(&of[theirs]).into();
        }
    }
    if of["count"].is_i64() {
        window["count"] = of["count"].clone();
    }
    let select = json!({ "count": "count(*)", "sum": "sum(value)", "min": "min(value)", "max": "max(value)" });
    let mut options =
        json!({ "key": ["device"], "window": window, "select": select, "allowed_lateness": micros(&case["allowed_lateness_ms"]) });
    if let Some(accumulation) = case["accumulation"].as_str() {
        options["accumulation"] = accumulation.into();
    }
    if let Some(count) = case["trigger"]["early_count"].as_i64() {
        options["emit"] = format!("every {count} readings").into();
    }
    serde_json::from_value(options).unwrap()
}

impl Case {
    fn open(case: &Value) -> Self {
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
        let dedupe = case["dedup"]["field"].as_str().map(|field| {
            let options = json!({ "key": ["device"], "sequence": field });
            processors::dedupe::build(&serde_json::from_value(options).unwrap(), &schema()).unwrap()
        });
        let by = ByDevice { delay: strategy["delay_ms"].as_i64().unwrap_or(0), idle: NOW, retention: NOW };
        let by = (strategy["scope"] == "key").then_some(by);
        let operator = maker(&options(case), by, &schema()).unwrap()().unwrap();
        Self {
            dedupe,
            operator,
            watermark,
            partitions,
            arrivals,
            clock,
            out: Collect::default(),
            duplicates: 0,
            quarantined: 0,
            seen: BTreeMap::new(),
        }
    }

    fn step(&mut self, event: &Value) {
        if let Some(mark) = event["watermark"].as_i64() {
            self.watermark.on_tick(EventTime(mark));
        } else if let Some(idle) = event["idle"].as_str() {
            self.clock += Span::from_secs(1).0;
            for producer in (0..self.partitions.len()).filter(|p| self.partitions[*p] != idle) {
                self.watermark.on_rows(u32::try_from(producer).unwrap(), &[], WallTime(self.clock), &mut vec![]);
            }
        } else if event["end"].as_bool() == Some(true) {
            if let Some(last) = self.operator.last_timer() {
                self.watermark.on_tick(last);
            }
        } else {
            self.reading(event);
        }
        self.operator.on_watermark(self.watermark.current(), &mut self.out).unwrap();
        if event["end"].as_bool() == Some(true) {
            self.operator.on_end(&mut self.out).unwrap();
        }
    }

    fn reading(&mut self, event: &Value) {
        let (time, value) = (event["ts"].as_i64().unwrap(), event["value"].as_i64().unwrap());
        let mut marks = vec![self.watermark.current().0];
        if !self.partitions.is_empty() {
            let arrival = if self.arrivals { event["arrival"].as_i64().unwrap() } else { self.clock };
            let producer = self.partitions.iter().position(|p| event["partition"].as_str().is_some_and(|e| e == p)).unwrap_or(0);
            if self.watermark.on_rows(u32::try_from(producer).unwrap(), &[time], WallTime(arrival), &mut marks).future.is_some() {
                self.quarantined += 1;
                return;
            }
        }
        let device: ArrayRef = Arc::new(StringViewArray::from_iter_values([event["key"].as_str().unwrap()]));
        let [value, seq] = [value, event["seq"].as_i64().unwrap_or(0)].map(|v| -> ArrayRef { Arc::new(Int64Array::from(vec![v])) });
        let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![time]).with_timezone("UTC"));
        let rows = RecordBatch::try_new(schema(), vec![device, value, seq, times]).unwrap();
        let marks: ArrayRef = Arc::new(Int64Array::from(marks));
        let trail = RecordBatch::try_from_iter([(trail::WATERMARK, marks)]).unwrap();
        let origin = Arc::new(Origin { source: "test".into(), producer: 0, topic: None, arrival: WallTime(NOW) });
        let mut batches = vec![Batch::new(rows, origin).unwrap().with_trail(Some(trail))];
        if let Some(dedupe) = &mut self.dedupe {
            let mut once = Collect::default();
            dedupe.on_batch(batches.remove(0), &mut once).unwrap();
            self.duplicates += once.duplicates;
            batches = once.rows;
        }
        for batch in batches {
            self.operator.on_batch(batch, &mut self.out).unwrap();
        }
    }

    /// What has come out, as the case writes it; leaves nothing.
    fn drain(&mut self, case: &Value, after: usize) -> Vec<Value> {
        let unbounded = ["count", "global"].iter().any(|kind| case["window"]["type"] == *kind);
        let of_reading = case["events"][after]["ts"].is_i64();
        let mut panes = Vec::new();
        let (revised, last) = (std::mem::take(&mut self.out.panes), std::mem::take(&mut self.out.rows));
        for (rows, is_last) in revised.iter().map(|b| (b.rows(), false)).chain(last.iter().map(|b| (b.rows(), true))) {
            for row in 0..rows.num_rows() {
                let mut pane = pane(rows, row);
                let name = format!("{} {} {} {}", pane["key"], pane["start"], pane["end"], pane["pane"]);
                if is_last && let Some(before) = self.seen.get(&name) {
                    assert_eq!(*before, pane, "the last row is another than the last pane");
                    continue;
                }
                self.seen.insert(name, pane.clone());
                let ended = pane["end"].as_i64().unwrap() <= self.watermark.current().0;
                pane["timing"] = match (of_reading && !unbounded && self.partitions.is_empty(), ended) {
                    (true, true) => "late",
                    (true, false) => "early",
                    (false, _) => "on_time",
                }
                .into();
                pane["after"] = after.into();
                if unbounded {
                    (pane["start"], pane["end"]) = (Value::Null, Value::Null);
                }
                panes.push(pane);
            }
        }
        panes.sort_by_key(|p| (p["end"].as_i64(), p["start"].as_i64(), p["key"].to_string()));
        panes
    }
}

fn pane(rows: &RecordBatch, row: usize) -> Value {
    let ms = |column: &ArrayRef, row: usize| column.as_primitive::<TimestampMicrosecondType>().value(row);
    let time = |name: &str| ms(rows.column_by_name(name).unwrap(), row);
    let mut pane = json!({ "key": rows.column(0).as_string_view().value(row), "start": time("window_start"), "end": time("window_end") });
    for name in ["count", "sum", "min", "max"] {
        pane[name] = rows.column_by_name(name).unwrap().as_primitive::<Int64Type>().value(row).into();
    }
    pane["pane"] = rows.column_by_name("pane").unwrap().as_primitive::<Int32Type>().value(row).into();
    if let Some(replaces) = rows.column_by_name(REPLACES) {
        let windows = replaces.as_list::<i32>().value(row);
        let windows = windows.as_struct();
        let pairs: Vec<Value> = (0..windows.len()).map(|at| json!([ms(windows.column(0), at), ms(windows.column(1), at)])).collect();
        if !pairs.is_empty() {
            pane["replaces"] = pairs.into();
        }
    }
    pane
}

#[test]
fn the_worked_cases_come_out_as_written() {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases/window_cases.json");
    let file = std::env::var_os("TIDEGATE_WINDOW_CASES").map_or(own, Into::into);
    let text = std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    let cases: Vec<Value> = serde_json::from_str(&text).unwrap();
    assert!(!cases.is_empty(), "{} has no case", file.display());
    let mut wrong = vec![];
    for case in &cases {
        let mut state = Case::open(case);
        let mut panes = Vec::new();
        for (after, event) in case["events"].as_array().unwrap().iter().enumerate() {
            state.step(event);
            panes.extend(state.drain(case, after));
        }
        let late: usize = state.out.late.iter().map(Batch::len).sum();
        let counts = [late as u64, state.quarantined, state.duplicates];
        let expected = ["late_dropped", "quarantined", "duplicates"].map(|count| case[count].as_u64().unwrap_or(0));
        if Value::from(panes.clone()) != case["expected"] || counts != expected {
            wrong.push(format!(
                "{}: {}\n  {counts:?} {}\n  {expected:?} {}",
                case["name"],
                case["why"],
                Value::from(panes),
                case["expected"]
            ));
        }
    }
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}
