//! A lane's calls to one operator: each batch, then the watermark 5 s behind the greatest time, a save now and then, all windows closed
//! at the end. It is checked that every row was taken or passed.

use crate::input::Input;
use crate::sketch::Sketch;
use arrow::array::RecordBatch;
use flow::{Batch, Count, DeadLetters, EventTime, Operator, Output, StateWriter};
use std::error::Error;
use std::fs;
use std::hint::black_box;

/// How far readings may be out of order, microseconds.
const OUT_OF_ORDERNESS: i64 = 5_000_000;

/// What a case took.
pub(crate) struct Cost {
    cpu_seconds: f64,
    rows: usize,
}

impl Cost {
    pub(crate) fn seconds_a_million(&self) -> f64 {
        self.cpu_seconds / self.rows as f64 * 1e6
    }
}

/// What a case does with rows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// They end in it, as in windows.
    Ends,
    /// They pass or are left out.
    Passes,
    /// They come in by two inputs, and pass as pairs: each row with itself.
    Pairs,
}

/// Gives all batches to an operator.
pub(crate) fn operator(mut operator: Box<dyn Operator>, input: &Input, save_every: usize, way: Way) -> Result<Cost, Box<dyn Error>> {
    let (mut out, mut greatest, mut unsaved) = (Counted::default(), i64::MIN, 0);
    let inputs = if way == Way::Pairs { 2 } else { 1 };
    let start = cpu_seconds()?;
    for batch in &input.batches {
        greatest = greatest.max(batch.time_range().map_or(i64::MIN, |(_, greatest)| greatest.0));
        for number in 0..inputs {
            unsaved += batch.len();
            operator.on_input(number, batch.clone(), &mut out)?;
        }
        operator.on_watermark(EventTime(greatest - OUT_OF_ORDERNESS), &mut out)?;
        if save_every > 0 && unsaved >= save_every {
            operator.save(&mut out)?;
            unsaved = 0;
        }
    }
    if let Some(end) = operator.last_timer() {
        operator.on_watermark(end, &mut out)?;
    }
    operator.on_end(&mut out)?;
    let cost = Cost { cpu_seconds: cpu_seconds()? - start, rows: inputs * input.rows };
    let seen = match way {
        Way::Ends => out.taken,
        Way::Passes => out.passed + out.left_out,
        Way::Pairs => inputs as u64 * out.passed,
    };
    if seen != cost.rows as u64 {
        return Err(format!("the operator accounts for {seen} of {} rows", cost.rows).into());
    }
    Ok(cost)
}

/// The same for the bare partial aggregates.
pub(crate) fn sketch(input: &Input, save_every: usize) -> Result<Cost, Box<dyn Error>> {
    let (mut sketch, mut greatest, mut unsaved) = (Sketch::new(10_000_000)?, i64::MIN, 0);
    let start = cpu_seconds()?;
    for batch in &input.batches {
        greatest = greatest.max(batch.time_range().map_or(i64::MIN, |(_, greatest)| greatest.0));
        unsaved += batch.len();
        sketch.add(batch)?;
        sketch.close(greatest - OUT_OF_ORDERNESS)?;
        if save_every > 0 && unsaved >= save_every {
            black_box(sketch.save()?);
            unsaved = 0;
        }
    }
    sketch.close(i64::MAX)?;
    let cost = Cost { cpu_seconds: cpu_seconds()? - start, rows: input.rows };
    if sketch.counted() != input.rows as i64 {
        return Err(format!("the sketch counted {} of {} rows", sketch.counted(), input.rows).into());
    }
    Ok(cost)
}

/// The CPU time of this thread, from Linux's `/proc`: the first number of `schedstat` is nanoseconds on a core.
fn cpu_seconds() -> Result<f64, Box<dyn Error>> {
    let text = fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanoseconds: u64 = text.split_whitespace().next().ok_or("/proc/thread-self/schedstat is empty")?.parse()?;
    Ok(nanoseconds as f64 / 1e9)
}

/// Looks at what comes out and counts it.
#[derive(Default)]
pub(crate) struct Counted {
    passed: u64,
    taken: u64,
    left_out: u64,
}

impl Output for Counted {
    fn rows(&mut self, batch: Batch) {
        self.passed += black_box(batch).len() as u64;
    }
    fn pane(&mut self, batch: Batch) {
        self.rows(batch);
    }

    fn late(&mut self, batch: Batch) {
        self.left_out += black_box(batch).len() as u64;
    }
    fn dead(&mut self, letters: DeadLetters) {
        black_box(letters);
    }
    fn count(&mut self, what: Count, rows: u64) {
        match what {
            Count::Taken => self.taken += rows,
            Count::Filtered | Count::Duplicate => self.left_out += rows,
            Count::Unproven | Count::Emitted => {}
        }
    }
}

impl StateWriter for Counted {
    fn append(&mut self, _: &str, rows: RecordBatch) {
        black_box(rows);
    }
    fn remove(&mut self, _: &str) {}
}
