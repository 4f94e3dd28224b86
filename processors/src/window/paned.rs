//! Windows that are looked after one by one: sessions, counts, sliding and global windows, and all that give out more than one pane.
//!
//! Each key has its open windows (`open`); the partial aggregates of their readings lie in one store (`store`). A window that may still
//! be revised gives out panes, each in the place of the one before (`Output::pane`); its last one is a row like any other.
//!
//! State: the windows by key (part `keys`) and their partial aggregates (part `partials`).

use super::aggregates::Aggregates;
use super::device::ByDevice;
use super::open::{Kind, Open, Placed, Placing, Reading, Rules, Step, Windows, owners};
use super::output::{Bounds, Finish};
use super::store::Store;
use crate::keyed::{Forget, Keyed};
use crate::keys::AHEAD;
use crate::refuse::refuse;
use crate::timers::Timers;
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{Int64Type, SchemaRef};
use datafusion::common::DataFusionError;
use flow::{Batch, Count, Error, EventTime, Operator, Output, Reason, Remedy, Result, Span, StateReader, StateWriter, trail};
use std::collections::HashMap;
use std::sync::Arc;

/// See the page.
pub(super) struct Paned {
    rules: Rules,
    aggregates: Arc<Aggregates>,
    finish: Finish,
    /// Whether what is left over is given out when the input ends.
    ends: bool,
    /// Watermarks by device, and when silent ones are looked for.
    by_device: Option<(ByDevice, Forget)>,
    max_windows: usize,
    max_state: usize,
    keys: Keyed<Windows>,
    windows: usize,
    store: Store,
    timers: Timers,
    watermark: i64,
    /// Slots and groups of windows that have more than one number in the store.
    joined: Vec<(u32, u32)>,
    /// Scratch: the key of each row.
    slots: Vec<u32>,
}

/// Rows on their way out.
#[derive(Default)]
struct Leaving {
    slots: Vec<u32>,
    bounds: Bounds,
    /// Row and group.
    of: Vec<(usize, u32)>,
}

impl Paned {
    pub(super) fn new(
        rules: Rules,
        aggregates: Arc<Aggregates>,
        finish: Finish,
        ends: bool,
        by_device: Option<ByDevice>,
        limits: (usize, usize),
        keys: Keyed<Windows>,
    ) -> Self {
        Self {
            store: Store::new(&aggregates),
            rules,
            aggregates,
            finish,
            ends,
            by_device: by_device.map(|by| (by, Forget::new(by.retention))),
            max_windows: limits.0,
            max_state: limits.1,
            keys,
            windows: 0,
            timers: Timers::default(),
            watermark: i64::MIN,
            joined: vec![],
            slots: vec![],
        }
    }
}

impl Operator for Paned {
    fn schema(&self) -> SchemaRef {
        self.finish.schema.clone()
    }

    fn on_batch(&mut self, batch: Batch, out: &mut dyn Output) -> Result<()> {
        let (mut batch, mut slots) = (batch, std::mem::take(&mut self.slots));
        // Evaluated first: a key of readings that fail would be held for nothing.
        let columns = loop {
            match self.aggregates.evaluate(batch.rows()) {
                Ok(columns) => break columns,
                Err(failed) => batch = refuse(batch, &failed.rows, Reason::Expression, failed.detail, out)?,
            }
        };
        let (rows, batch) = (batch.len(), self.keys.admit(batch, &mut slots, out)?);
        let columns = match batch.len() == rows {
            true => columns,
            false => self.aggregates.evaluate(batch.rows()).map_err(|failed| Error::new(Remedy::Stop, failed.detail))?,
        };
        let placing = self.place(&batch, &slots, out)?;
        self.store_rows(&placing, &columns[self.aggregates.key.len()..])?;
        self.put_out_placed(placing, out)?;
        if self.by_device.is_some() {
            self.look_at_due(&slots, out)?;
        }
        slots.iter().for_each(|slot| self.forget_if_empty(*slot));
        self.slots = slots;
        self.tidy()
    }

    fn on_watermark(&mut self, w: EventTime, out: &mut dyn Output) -> Result<EventTime> {
        self.watermark = self.watermark.max(w.0);
        let mut due = vec![];
        while let Some(slot) = self.timers.pop(self.watermark) {
            due.push((slot, self.reached(slot)));
        }
        self.look_at(&due, out)?;
        for (slot, _) in due {
            self.set_timer(slot);
            self.forget_if_empty(slot);
        }
        self.forget_silent();
        self.tidy()?;
        Ok(EventTime(self.watermark.saturating_sub(self.rules.lag())))
    }

    fn on_end(&mut self, out: &mut dyn Output) -> Result<()> {
        if self.by_device.is_some() && self.rules.is_timed() {
            let open: Vec<_> = self.keys.iter().filter(|(_, windows)| !windows.open.is_empty()).map(|(slot, _)| slot).collect();
            open.iter().for_each(|slot| self.keys.touch(*slot).pass_all(self.watermark));
            return self.look_at_due(&open, out);
        }
        if !self.ends {
            return Ok(());
        }
        let (mut last, mut gone) = (Leaving::default(), vec![]);
        let slots: Vec<u32> = self.keys.iter().map(|(slot, _)| slot).collect();
        for slot in &slots {
            for open in std::mem::take(&mut self.keys.touch(*slot).open) {
                if open.has_news() || !self.rules.discards() {
                    last.add(*slot, &open, open.panes, [open.group]);
                }
                gone.push(open.group);
            }
        }
        self.windows -= gone.len();
        self.emit(last, true, out)?;
        self.let_go(&gone);
        slots.iter().for_each(|slot| self.forget_if_empty(*slot));
        self.tidy()
    }

    fn next_timer(&self, w: EventTime) -> Option<EventTime> {
        self.timers.next(w.0).map(EventTime)
    }

    fn last_timer(&self) -> Option<EventTime> {
        let last = |open: &Open| open.end.saturating_add(self.rules.lag());
        self.keys.iter().filter(|_| self.rules.is_timed()).flat_map(|(_, windows)| &windows.open).map(last).max().map(EventTime)
    }

    fn panes(&mut self, out: &mut dyn Output) -> Result<()> {
        let mut panes = Leaving::default();
        for (slot, windows) in self.keys.iter().filter(|_| self.rules.has_panes()) {
            for open in windows.open.iter().filter(|open| open.panes > 0) {
                panes.add(slot, open, open.panes - 1, [open.group]);
            }
        }
        self.emit(panes, false, out)
    }

    fn lag(&self) -> Span {
        Span(self.rules.lag())
    }

    fn save(&mut self, to: &mut dyn StateWriter) -> Result<()> {
        self.keys.save(to)?;
        self.store.save(to).map_err(broken)
    }

    fn load(&mut self, from: &mut dyn StateReader) -> Result<()> {
        self.keys.load(from)?;
        let owners = owners(self.keys.iter().map(|(_, windows)| windows))?;
        let by = self.by_device();
        for (slot, windows) in self.keys.iter() {
            self.windows += windows.open.len();
            if let Some(due) = windows.next_look(&self.rules, by) {
                self.timers.set(slot, due);
            }
            let many = windows.open.iter().filter(|open| open.more.as_ref().is_some_and(|more| !more.also.is_empty()));
            self.joined.extend(many.map(|open| (slot, open.group)));
        }
        self.store.load(from, self.windows, &owners)
    }

    fn held(&self) -> (u64, u64) {
        (self.windows as u64, self.bytes() as u64)
    }
}

impl Paned {
    fn bytes(&self) -> usize {
        self.store.bytes() + self.windows * size_of::<Open>() + usize::try_from(self.keys.held().1).unwrap_or(usize::MAX)
    }

    /// Puts the readings into their windows, in their order, and gives away those that find none.
    fn place(&mut self, batch: &Batch, slots: &[u32], out: &mut dyn Output) -> Result<Placing> {
        let marks = batch.trail_column(trail::WATERMARK).map(|m| m.as_primitive::<Int64Type>().values());
        let full = self.bytes() > self.max_state;
        let room = if full { 0 } else { self.max_windows.saturating_sub(self.windows) };
        let (by, arrival) = (self.by_device(), batch.origin().arrival.0);
        let mut placing = Placing { room, ..Placing::default() };
        let (mut late, mut outside, mut refused) = (vec![], vec![], vec![]);
        for (row, (slot, time)) in slots.iter().zip(batch.times()).enumerate() {
            if row % AHEAD == 0 {
                self.keys.fetch(&slots[row..slots.len().min(row + AHEAD)]);
            }
            let lane = marks.map_or(self.watermark, |m| m[row]);
            let windows = self.keys.touch(*slot);
            let w = by.map_or(lane, |by| windows.hear(*time.min(&arrival), lane, &self.rules, by));
            let reading = Reading { row: row as u32, time: *time, w };
            if full && self.aggregates.grows {
                refused.push(reading.row);
                continue;
            }
            match windows.place(*slot, reading, &self.rules, &mut self.store, &mut placing) {
                Placed::Taken => {
                    if let Some(due) = windows.next_look(&self.rules, by) {
                        self.timers.set(*slot, due);
                    }
                }
                Placed::Late => late.push(reading.row),
                Placed::Outside => outside.push(reading.row),
                Placed::Refused => refused.push(reading.row),
            }
        }
        self.windows = self.windows + room - placing.room;
        let without: Vec<u32> = late.iter().chain(&outside).chain(&refused).copied().collect();
        out.count(Count::Taken, (batch.len() - without.len()) as u64);
        if !without.is_empty() {
            self.give_away(batch, &late, &refused, out)?;
            out.count(Count::Filtered, outside.len() as u64);
        }
        Ok(placing)
    }

    fn give_away(&self, batch: &Batch, late: &[u32], refused: &[u32], out: &mut dyn Output) -> Result<()> {
        if !late.is_empty() {
            out.late(batch.take(&UInt32Array::from(late.to_vec()))?);
        }
        let detail = format!("the window holds its limit of {} windows or {} bytes", self.max_windows, self.max_state);
        refuse(batch.clone(), refused, Reason::StateLimit, detail, out)?;
        Ok(())
    }

    /// Adds the readings of a batch to the store.
    fn store_rows(&mut self, placing: &Placing, arguments: &[ArrayRef]) -> Result<()> {
        if placing.pairs.is_empty() {
            return Ok(());
        }
        let into: HashMap<u32, u32> = placing.joined.iter().map(|(_, from, into)| (*from, *into)).collect();
        let group = |mut group: u32| {
            while let Some(other) = into.get(&group).filter(|_| !into.is_empty()) {
                group = *other;
            }
            group
        };
        let rows = placing.pairs.iter().map(|(row, _)| *row);
        let all = arguments.first().is_none_or(|a| a.len() == placing.pairs.len()) && rows.clone().eq(0..placing.pairs.len() as u32);
        let chosen: Vec<ArrayRef> = if all {
            arguments.to_vec()
        } else {
            let rows = UInt32Array::from_iter_values(rows);
            arguments.iter().map(|a| take(a, &rows, None)).collect::<Result<_, _>>().map_err(|e| Error::stop("readings of windows", e))?
        };
        self.store.add(&self.aggregates, &chosen, placing.pairs.iter().map(|(_, of)| group(*of))).map_err(broken)
    }

    /// Puts out the panes that the readings of a batch made.
    fn put_out_placed(&mut self, placing: Placing, out: &mut dyn Output) -> Result<()> {
        self.joined.extend(placing.joined.iter().map(|(slot, _, into)| (*slot, *into)));
        let (mut last, mut panes, mut gone) = (Leaving::default(), Leaving::default(), vec![]);
        for (slot, open) in &placing.complete {
            last.add(*slot, open, open.panes.saturating_sub(1), [open.group]);
            gone.push(open.group);
        }
        for slot in &placing.due {
            for open in &mut self.keys.touch(*slot).open {
                if let Some(pane) = open.take_due() {
                    panes.add(*slot, open, pane, [open.group]);
                }
            }
        }
        self.emit(last, true, out)?;
        self.emit(panes, false, out)?;
        self.let_go(&gone);
        Ok(())
    }

    /// Watermarks by device, if there are.
    fn by_device(&self) -> Option<ByDevice> {
        self.by_device.as_ref().map(|(by, _)| *by)
    }

    /// The W of a key, now that the lane's stands at `watermark`.
    fn reached(&mut self, slot: u32) -> i64 {
        match self.by_device() {
            Some(by) => self.keys.touch(slot).follow(self.watermark, &self.rules, by),
            None => self.watermark,
        }
    }

    /// Sees that a key is looked at when the lane's W next does something to its windows.
    fn set_timer(&mut self, slot: u32) {
        if let Some(due) = self.keys.state(slot).next_look(&self.rules, self.by_device()) {
            self.timers.set(slot, due);
        }
    }

    /// Forgets devices that have been silent for so long that they may as well be new.
    fn forget_silent(&mut self) {
        let Some((by, forget)) = &mut self.by_device else { return };
        if forget.look(self.watermark) {
            self.keys.retain(|windows| !windows.is_forgettable(self.watermark, *by));
        }
    }

    /// Puts out what the keys' own W have passed.
    fn look_at_due(&mut self, slots: &[u32], out: &mut dyn Output) -> Result<()> {
        let mut slots = slots.to_vec();
        slots.sort_unstable();
        slots.dedup();
        let due = |slot: &u32| self.keys.state(*slot).due(&self.rules).map(|w| (*slot, w));
        let due: Vec<(u32, i64)> = slots.iter().filter_map(due).collect();
        self.look_at(&due, out)?;
        due.iter().for_each(|(slot, _)| self.set_timer(*slot));
        Ok(())
    }

    /// What W does to the windows of some keys, each with its own.
    fn look_at(&mut self, keys: &[(u32, i64)], out: &mut dyn Output) -> Result<()> {
        let (mut panes, mut last, mut gone) = (Leaving::default(), Leaving::default(), vec![]);
        for (slot, w) in keys {
            self.look(*slot, *w, &mut panes, &mut last, &mut gone);
        }
        self.emit(panes, false, out)?;
        self.emit(last, true, out)?;
        self.let_go(&gone);
        Ok(())
    }

    /// What W does to the windows of a key.
    fn look(&mut self, slot: u32, w: i64, panes: &mut Leaving, last: &mut Leaving, gone: &mut Vec<u32>) {
        let mut windows = std::mem::take(self.keys.touch(slot));
        windows.open.sort_by_key(|open| open.end);
        let mut at = 0;
        while at < windows.open.len() {
            let step = windows.open[at].step(w, &self.rules);
            let open = &windows.open[at];
            let goes = match (step, &self.rules.kind) {
                (Step::Nothing, _) => false,
                (Step::Pane(pane), _) => {
                    panes.add(slot, open, pane, [open.group]);
                    false
                }
                (Step::Delta(_), Kind::Sliding { size }) => {
                    last.add(
                        slot,
                        &Open { start: open.end.saturating_sub(*size), end: open.end, ..Open::default() },
                        0,
                        windows.sliding(open, *size),
                    );
                    false
                }
                (Step::Delta(pane), _) => {
                    let left = windows.open[at].renew(&mut self.store);
                    last.add(slot, &left, pane, [left.group]);
                    gone.push(left.group);
                    windows.open[at].end.saturating_add(self.rules.lateness) <= w
                }
                (Step::Final(pane), _) => {
                    last.add(slot, open, pane, [open.group]);
                    true
                }
                (Step::Gone, _) => true,
            };
            if goes {
                gone.push(windows.open.remove(at).group);
                self.windows -= 1;
            } else {
                at += 1;
            }
        }
        if let Kind::Sliding { size } = self.rules.kind {
            let before = gone.len();
            windows.slide_on(w, size, gone);
            self.windows -= gone.len() - before;
        }
        *self.keys.touch(slot) = windows;
    }

    /// Puts out panes: `last` ones as rows, others to be revised.
    fn emit(&mut self, leaving: Leaving, last: bool, out: &mut dyn Output) -> Result<()> {
        let Leaving { slots, bounds, of } = leaving;
        if slots.is_empty() {
            return Ok(());
        }
        let mut columns = self.keys.key_columns(&slots)?;
        columns.extend(self.store.results(&self.aggregates, &of, slots.len()).map_err(broken)?);
        let groups =
            RecordBatch::try_new(self.aggregates.result_schema.clone(), columns).map_err(|e| Error::stop("results of windows", e))?;
        // What a device's own W has passed is done now, wherever the lane's stands.
        let ahead = bounds.end.iter().copied().max().filter(|_| last && self.by_device.is_some() && self.rules.is_timed());
        let arrival = ahead.unwrap_or(i64::MIN).max(self.watermark);
        let rows = self.finish.rows(&self.aggregates, &groups, &bounds, arrival)?;
        if last {
            out.count(Count::Emitted, slots.len() as u64);
            out.rows(rows);
        } else {
            out.pane(rows);
        }
        Ok(())
    }

    fn let_go(&mut self, groups: &[u32]) {
        groups.iter().for_each(|group| self.store.close(*group));
    }

    /// A device with a watermark of its own is remembered.
    fn forget_if_empty(&mut self, slot: u32) {
        if self.by_device.is_none() && self.keys.state(slot).open.is_empty() {
            self.keys.forget_slot(slot);
        }
    }

    /// Merges the store's rows when it is worth it.
    fn tidy(&mut self) -> Result<()> {
        if !self.store.is_sparse() {
            return Ok(());
        }
        self.store.compact(&self.aggregates).map_err(broken)?;
        for (slot, group) in std::mem::take(&mut self.joined) {
            let held = self.keys.state(slot).open.iter().any(|open| open.group == group);
            if held {
                let merged = self.keys.touch(slot).open.iter_mut().filter(|open| open.group == group).filter_map(|open| open.more.as_mut());
                merged.for_each(|more| more.also.clear());
            }
        }
        self.store.free_all_but(self.keys.iter().flat_map(|(_, windows)| windows.open.iter().map(|open| open.group)));
        Ok(())
    }
}

impl Leaving {
    fn add(&mut self, slot: u32, open: &Open, pane: u32, groups: impl IntoIterator<Item = u32>) {
        let row = self.slots.len();
        self.slots.push(slot);
        self.bounds.start.push(open.start);
        self.bounds.end.push(open.end);
        self.bounds.pane.push(i32::try_from(pane).unwrap_or(i32::MAX));
        let mut replaces = open.more.as_ref().map_or(vec![], |more| more.replaces.clone());
        replaces.sort_unstable();
        self.bounds.replaces.push(replaces);
        self.of.extend(groups.into_iter().map(|group| (row, group)));
    }
}

fn broken(cause: DataFusionError) -> Error {
    Error::stop("aggregates of windows", cause)
}
