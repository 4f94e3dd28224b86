//! The contract of operators: functions of state and input alone. Wall time comes in as an argument, nothing goes out but `Output`.

use crate::{Batch, DeadLetters, EventTime, LookupVersion, Result, Span, WallTime};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

/// What an operator did with rows that it neither passed on nor gave out elsewhere. Counted in rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Count {
    /// Left out by a filter.
    Filtered,
    /// Left out because it was proven to be a duplicate.
    Duplicate,
    /// Passed on although a duplicate could not be ruled out (not part of the conservation identity).
    Unproven,
    /// Taken into state (windows).
    Taken,
    /// Windows emitted (not part of the conservation identity).
    Emitted,
}

/// Where an operator's results go. Rows come in the order in which they are given.
pub trait Output {
    /// Rows for the operators and tables that read this operator.
    fn rows(&mut self, batch: Batch);
    /// Rows for what reads one branch of this operator, by its number. An output that knows no branches takes them as `rows`.
    fn branch(&mut self, branch: usize, batch: Batch) {
        let _ = branch;
        self.rows(batch);
    }
    /// Rows that a later pane or row of the same window takes the place of: for tables, which show the newest, and for sinks; operators do
    /// not get them. They are not counted.
    fn pane(&mut self, batch: Batch);
    /// Rows that came too late: the table `late_<operator>`. They count as late, nothing else.
    fn late(&mut self, batch: Batch);
    /// Rows that could not be used: the table `dead_letters`. They count as refused, nothing else.
    fn dead(&mut self, letters: DeadLetters);
    /// Counts rows; see `Count` for which of them balance input against output.
    fn count(&mut self, what: Count, rows: u64);
}

/// A pure step over batches of one lane. The same calls in the same order give the same output and the same state.
///
/// A row's watermark is the trail column `trail::WATERMARK` where the batch has one, else the one of the last `on_watermark`.
pub trait Operator: Send {
    /// The columns of the rows that it puts out.
    fn schema(&self) -> SchemaRef;

    /// Takes a batch. A bad row is given to `Output::dead`; an error is a broken promise of ours.
    fn on_batch(&mut self, batch: Batch, out: &mut dyn Output) -> Result<()>;

    /// Takes a batch of one of several inputs, by its place among them. Only operators that tell their inputs apart do otherwise than `on_batch`.
    fn on_input(&mut self, input: usize, batch: Batch, out: &mut dyn Output) -> Result<()> {
        let _ = input;
        self.on_batch(batch, out)
    }

    /// The watermark moved on to `w` (never back). Returns the watermark for what reads this operator.
    fn on_watermark(&mut self, w: EventTime, out: &mut dyn Output) -> Result<EventTime> {
        let _ = out;
        Ok(w)
    }

    /// Wall time moved on; only for operators that measure silence of devices.
    fn on_tick(&mut self, now: WallTime, out: &mut dyn Output) -> Result<()> {
        let _ = (now, out);
        Ok(())
    }

    /// A lookup table has a new version; it counts for the rows that follow. Operators that do not use the table leave it.
    fn on_lookup(&mut self, version: &LookupVersion) -> Result<()> {
        let _ = version;
        Ok(())
    }

    /// The least watermark above `w` at which this operator would do something: an edge, an end of lateness, a timer.
    fn next_timer(&self, w: EventTime) -> Option<EventTime> {
        let _ = w;
        None
    }

    /// The greatest end of an open window: where the watermark goes when the input ends.
    fn last_timer(&self) -> Option<EventTime> {
        None
    }

    /// The input has ended for now, and the watermark has passed every end: what has no end in time is given out.
    fn on_end(&mut self, out: &mut dyn Output) -> Result<()> {
        let _ = out;
        Ok(())
    }

    /// Puts out again, by `Output::pane`, what it would show of each window that may still be revised. Called once, after a load.
    fn panes(&mut self, out: &mut dyn Output) -> Result<()> {
        let _ = out;
        Ok(())
    }

    /// How far the watermark that `on_watermark` returns stays behind the one it is given.
    fn lag(&self) -> Span {
        Span(0)
    }

    /// Writes what changed since the last save.
    fn save(&mut self, to: &mut dyn StateWriter) -> Result<()> {
        let _ = to;
        Ok(())
    }

    /// Takes over what all saves so far have written. Called once, before anything else.
    fn load(&mut self, from: &mut dyn StateReader) -> Result<()> {
        let _ = from;
        Ok(())
    }

    /// Keys and bytes held, for the metrics `state_keys` and `state_bytes`.
    fn held(&self) -> (u64, u64) {
        (0, 0)
    }
}

/// Takes an operator's state, in named parts (a slice of event time, a group of keys). All batches of a part have one schema.
pub trait StateWriter {
    /// Adds rows to what the part already holds.
    fn append(&mut self, part: &str, rows: RecordBatch);
    /// Removes the part, with all that earlier saves wrote. An `append` after it starts the part anew.
    fn remove(&mut self, part: &str);
}

/// Gives an operator its state back.
pub trait StateReader {
    /// The live parts, in order of name.
    fn parts(&self) -> Vec<String>;
    /// All that is appended to a part, in the order of the saves; empty for an unknown part.
    fn read(&mut self, part: &str) -> Result<Vec<RecordBatch>>;
}
