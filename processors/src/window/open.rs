//! The open windows of one key, and what a reading or the watermark does to them.
//!
//! A reading is judged by W at its moment alone: a window of its key that ends at or below W has closed before it, whether or not
//! that pane was put out yet. So results do not depend on how readings come in batches.

use super::cut::Cut;
use super::device::Clock;
use super::options::{Accumulation, Emit};
use super::store::Store;
use crate::keyed::KeyState;
use flow::{Error, Remedy, Result};

/// What windows are made of, and when their panes come.
pub(super) struct Rules {
    pub(super) kind: Kind,
    pub(super) lateness: i64,
    pub(super) emit: Emit,
    pub(super) accumulation: Accumulation,
}

/// Kinds of windows.
pub(super) enum Kind {
    /// Of fixed edges.
    Fixed(Cut),
    /// One for each time of a reading; each holds the readings of one time, and is put out with those before it.
    Sliding { size: i64 },
    /// Of readings at most `gap` apart, none longer than `max`.
    Session { gap: i64, max: i64 },
    /// Of so many readings.
    Count { readings: u32 },
    /// Of all.
    Global,
}

/// An open window of a key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Open {
    /// Its readings in the store.
    pub(super) group: u32,
    pub(super) start: i64,
    pub(super) end: i64,
    pub(super) readings: u32,
    /// Readings since the last pane.
    pub(super) fresh: u32,
    /// Number of the next pane.
    pub(super) panes: u32,
    /// The multiple of `emit = "every …"` that W passes next.
    pub(super) boundary: u32,
    /// W has passed its end.
    pub(super) closed: bool,
    /// Whether a pane is to be put out after the present batch.
    pub(super) due: bool,
    pub(super) more: Option<Box<Merged>>,
}

/// What only merged sessions have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Merged {
    /// Numbers under which the store has further rows of it.
    pub(super) also: Vec<u32>,
    /// Windows with panes that it has swallowed, as (start, end).
    pub(super) replaces: Vec<(i64, i64)>,
}

/// The windows of a key.
#[derive(Debug, Default)]
pub(super) struct Windows {
    /// Those that are open, in no order.
    pub(super) open: Vec<Open>,
    /// How far the key's own time has come, where devices have watermarks of their own.
    pub(super) clock: Option<Clock>,
}

/// What became of a reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Placed {
    Taken,
    /// Every window of it was final.
    Late,
    /// It lies between windows.
    Outside,
    /// It would need a new window, and there is no room.
    Refused,
}

/// A reading, and W at its moment.
#[derive(Clone, Copy)]
pub(super) struct Reading {
    pub(super) row: u32,
    pub(super) time: i64,
    pub(super) w: i64,
}

/// What happens while readings of one batch are placed.
#[derive(Default)]
pub(super) struct Placing {
    /// Row and group, a pair for each window that takes a reading.
    pub(super) pairs: Vec<(u32, u32)>,
    /// Slot and window of panes to be put out for good.
    pub(super) complete: Vec<(u32, Open)>,
    /// Slots with windows of which a pane is due.
    pub(super) due: Vec<u32>,
    /// Groups that were joined to another: the slot of their key, from, into.
    pub(super) joined: Vec<(u32, u32, u32)>,
    /// Windows that may still be opened.
    pub(super) room: usize,
    /// Places of the sessions that a reading touches; empty between readings.
    pub(super) touched: Vec<usize>,
}

/// What W does to a window.
pub(super) enum Step {
    Nothing,
    /// A pane of this number, to be revised.
    Pane(u32),
    /// The last pane, of this number; the window goes.
    Final(u32),
    /// The readings since the last pane, as a pane for good.
    Delta(u32),
    /// The window goes.
    Gone,
}

impl Windows {
    /// Puts a reading into its windows.
    pub(super) fn place(&mut self, slot: u32, reading: Reading, rules: &Rules, store: &mut Store, to: &mut Placing) -> Placed {
        match &rules.kind {
            Kind::Fixed(cut) => self.place_fixed(slot, reading, cut, rules, store, to),
            Kind::Session { gap, max } => self.place_session(slot, reading, (*gap, *max), rules, store, to),
            Kind::Sliding { .. } if reading.time < reading.w => Placed::Late,
            Kind::Sliding { .. } => {
                let bounds = (reading.time, reading.time.saturating_add(1));
                self.take(slot, reading, bounds, rules, store, to)
            }
            Kind::Count { readings } => self.place_next(slot, reading, *readings, rules, store, to),
            Kind::Global => self.place_next(slot, reading, u32::MAX, rules, store, to),
        }
    }

    /// Puts a reading into the one window of the key, which is complete with so many readings.
    fn place_next(&mut self, slot: u32, reading: Reading, full: u32, rules: &Rules, store: &mut Store, to: &mut Placing) -> Placed {
        if self.open.is_empty() && !self.begin((i64::MAX, i64::MIN), reading.w, rules, store, to) {
            return Placed::Refused;
        }
        let open = &mut self.open[0];
        (open.start, open.end) = (open.start.min(reading.time), open.end.max(reading.time.saturating_add(1)));
        open.count(slot, reading, rules, store, to);
        if open.readings >= full {
            to.complete.push((slot, self.open.remove(0)));
            to.room += 1;
        }
        Placed::Taken
    }

    fn place_fixed(&mut self, slot: u32, reading: Reading, cut: &Cut, rules: &Rules, store: &mut Store, to: &mut Placing) -> Placed {
        if !cut.covers(reading.time) {
            return Placed::Outside;
        }
        let takes = |end: &i64| end.saturating_add(rules.lateness) > reading.w;
        let unknown = |end: &i64| self.open.iter().all(|open| open.start != cut.start(*end));
        // In all of its windows or in none: a reading that is refused counts nowhere.
        if cut.ends(reading.time).filter(takes).filter(unknown).count() > to.room {
            return Placed::Refused;
        }
        let mut placed = Placed::Late;
        for end in cut.ends(reading.time).filter(takes) {
            placed = self.take(slot, reading, (cut.start(end), end), rules, store, to);
        }
        placed
    }

    /// Puts a reading into the window of these bounds.
    fn take(&mut self, slot: u32, reading: Reading, bounds: (i64, i64), rules: &Rules, store: &mut Store, to: &mut Placing) -> Placed {
        let known = self.open.iter().position(|open| open.start == bounds.0);
        if known.is_none() && !self.begin(bounds, reading.w, rules, store, to) {
            return Placed::Refused;
        }
        let at = known.unwrap_or_else(|| self.open.len() - 1);
        let open = &mut self.open[at];
        let had = open.fresh > 0;
        if open.closes_at(reading.w, rules) {
            open.closing_pane(rules);
            if had && rules.discards() {
                open.leave_delta(slot, store, to);
            }
        } else if let Some(pane) = open.early_pane(reading.w, rules) {
            open.pass(pane);
            open.mark_due(slot, to);
        }
        open.count(slot, reading, rules, store, to);
        Placed::Taken
    }

    /// Opens a window at the end of the list; false where there is no room.
    fn begin(&mut self, (start, end): (i64, i64), w: i64, rules: &Rules, store: &mut Store, to: &mut Placing) -> bool {
        if to.room == 0 {
            return false;
        }
        to.room -= 1;
        let mut open = Open { group: store.open(), start, end, ..Open::default() };
        open.pass_boundaries(w, rules);
        // Most keys have one window at a time.
        self.open.reserve_exact(usize::from(self.open.is_empty()));
        self.open.push(open);
        true
    }

    fn place_session(
        &mut self,
        slot: u32,
        reading: Reading,
        (gap, max): (i64, i64),
        rules: &Rules,
        store: &mut Store,
        to: &mut Placing,
    ) -> Placed {
        let (mut start, mut last) = (reading.time, reading.time);
        for (at, open) in self.open.iter_mut().enumerate() {
            let is_open = open.end.saturating_add(rules.lateness) > reading.w;
            let touches = reading.time <= open.end && reading.time >= open.start.saturating_sub(gap);
            let (earlier, later) = (start.min(open.start), last.max(open.end.saturating_sub(gap)));
            if is_open && touches && later.saturating_sub(earlier) <= max {
                (start, last) = (earlier, later);
                if open.closes_at(reading.w, rules) {
                    open.closing_pane(rules);
                }
                to.touched.push(at);
            }
        }
        let end = last.saturating_add(gap);
        let Some(first) = to.touched.first().copied() else {
            if end.saturating_add(rules.lateness) <= reading.w {
                return Placed::Late;
            }
            if !self.begin((start, end), reading.w, rules, store, to) {
                return Placed::Refused;
            }
            let open = self.open.last_mut().expect("just opened");
            open.closed = open.end <= reading.w;
            open.count(slot, reading, rules, store, to);
            return Placed::Taken;
        };
        while let Some(at) = to.touched.pop().filter(|at| *at != first) {
            let swallowed = self.open.swap_remove(at);
            to.joined.push((slot, swallowed.group, self.open[first].group));
            to.room += 1;
            self.open[first].swallow(swallowed, store);
        }
        let open = &mut self.open[first];
        if (open.start, open.end) != (start, end) {
            open.become_of(start, end);
        }
        if open.closes_at(reading.w, rules) {
            open.closed = true;
        }
        open.count(slot, reading, rules, store, to);
        Placed::Taken
    }

    /// The groups that a sliding window ending with `open` takes in.
    pub(super) fn sliding(&self, open: &Open, size: i64) -> impl Iterator<Item = u32> {
        let (from, to) = (open.start.saturating_sub(size), open.start);
        self.open.iter().filter(move |o| o.start > from && o.start <= to).map(|o| o.group)
    }

    /// Lets sliding windows go that no later one takes in.
    pub(super) fn slide_on(&mut self, w: i64, size: i64, gone: &mut Vec<u32>) {
        self.open.retain(|open| {
            let passed = open.closed && open.start.saturating_add(size) <= w;
            if passed {
                gone.push(open.group);
            }
            !passed
        });
    }

    /// When W next does something to a window of the key.
    pub(super) fn next_due(&self, rules: &Rules) -> Option<i64> {
        self.open.iter().filter_map(|open| open.next_due(rules)).min()
    }
}

impl Open {
    /// What W does to it. Changes it accordingly.
    pub(super) fn step(&mut self, w: i64, rules: &Rules) -> Step {
        if !rules.is_timed() {
            return Step::Nothing;
        }
        let last = self.end.saturating_add(rules.lateness) <= w;
        let (had, closes) = (self.fresh > 0, self.closes_at(w, rules));
        if matches!(rules.kind, Kind::Sliding { .. }) {
            self.closed |= closes;
            return if closes { Step::Delta(0) } else { Step::Nothing };
        }
        if closes {
            let pane = self.closing_pane(rules);
            return match (rules.discards(), last) {
                (true, _) if had => Step::Delta(pane),
                (true, false) => Step::Nothing,
                (true, true) => Step::Gone,
                (false, true) => Step::Final(pane),
                (false, false) => Step::Pane(pane),
            };
        }
        match (last, rules.discards()) {
            (true, true) => Step::Gone,
            (true, false) => Step::Final(self.panes.saturating_sub(1)),
            (false, _) => match self.early_pane(w, rules) {
                Some(pane) => Step::Pane(self.pass(pane)),
                None => Step::Nothing,
            },
        }
    }

    /// A pane that is due after the present batch; none when it is none.
    pub(super) fn take_due(&mut self) -> Option<u32> {
        std::mem::take(&mut self.due).then(|| self.panes.saturating_sub(1))
    }

    /// Whether readings came since the last pane.
    pub(super) fn has_news(&self) -> bool {
        self.fresh > 0
    }

    /// Goes on with the readings that come after a pane for good; gives what was before.
    pub(super) fn renew(&mut self, store: &mut Store) -> Self {
        let group = store.open();
        Self { group: std::mem::replace(&mut self.group, group), ..self.clone() }
    }

    fn next_due(&self, rules: &Rules) -> Option<i64> {
        match (&rules.kind, self.closed) {
            (Kind::Count { .. } | Kind::Global, _) => None,
            (Kind::Sliding { size }, true) => Some(self.start.saturating_add(*size)),
            (_, true) => Some(self.end.saturating_add(rules.lateness)),
            (_, false) => match rules.emit {
                Emit::Every(span) => Some(self.start.saturating_add(span.0.0.saturating_mul(i64::from(self.boundary))).min(self.end)),
                _ => Some(self.end),
            },
        }
    }

    /// Counts a reading in, and the pane that follows it.
    fn count(&mut self, slot: u32, reading: Reading, rules: &Rules, store: &mut Store, to: &mut Placing) {
        self.readings += 1;
        self.fresh += 1;
        to.pairs.push((reading.row, self.group));
        let late = rules.is_timed() && self.end <= reading.w;
        let full = matches!(rules.emit, Emit::EveryReadings(n) if self.readings.is_multiple_of(n));
        if !(late || full) {
            return;
        }
        self.pass(self.panes);
        if rules.discards() {
            self.leave_delta(slot, store, to);
        } else {
            self.mark_due(slot, to);
        }
    }

    fn leave_delta(&mut self, slot: u32, store: &mut Store, to: &mut Placing) {
        to.complete.push((slot, self.renew(store)));
    }

    fn mark_due(&mut self, slot: u32, to: &mut Placing) {
        if !std::mem::replace(&mut self.due, true) {
            to.due.push(slot);
        }
    }

    fn closes_at(&self, w: i64, rules: &Rules) -> bool {
        rules.is_timed() && !self.closed && self.end <= w
    }

    /// Closes it. The pane is the last of those by time, whether or not all came.
    fn closing_pane(&mut self, rules: &Rules) -> u32 {
        self.closed = true;
        let pane = match rules.emit {
            Emit::Every(span) => {
                let panes = self.end.saturating_sub(self.start).saturating_add(span.0.0 - 1) / span.0.0;
                u32::try_from(panes - 1).unwrap_or(u32::MAX)
            }
            _ => self.panes,
        };
        if self.readings == 0 {
            return self.panes;
        }
        self.pass(pane)
    }

    /// The pane that W makes due while the window is open.
    fn early_pane(&mut self, w: i64, rules: &Rules) -> Option<u32> {
        let passed = self.boundary;
        self.pass_boundaries(w, rules);
        (self.boundary > passed && self.fresh > 0 && !self.closed).then(|| self.boundary - 2)
    }

    fn pass_boundaries(&mut self, w: i64, rules: &Rules) {
        if let Emit::Every(span) = rules.emit {
            let passed = w.saturating_sub(self.start).max(0) / span.0.0;
            self.boundary = self.boundary.max(u32::try_from(passed).unwrap_or(u32::MAX - 1) + 1);
        }
    }

    fn pass(&mut self, pane: u32) -> u32 {
        self.panes = pane + 1;
        self.fresh = 0;
        pane
    }

    /// Takes over another session of the key.
    fn swallow(&mut self, other: Self, store: &mut Store) {
        store.join(self.group, other.group);
        self.readings += other.readings;
        self.fresh += other.fresh;
        let more = self.more.get_or_insert_default();
        if other.panes > 0 {
            more.replaces.push((other.start, other.end));
        }
        let others = other.more.unwrap_or_default();
        more.replaces.extend(others.replaces);
        more.also.push(other.group);
        more.also.extend(others.also);
    }

    /// Becomes a window of other bounds, which has no pane yet.
    fn become_of(&mut self, start: i64, end: i64) {
        if self.panes > 0 {
            self.more.get_or_insert_default().replaces.push((self.start, self.end));
        }
        (self.start, self.end, self.panes, self.closed) = (start, end, 0, false);
    }
}

impl Rules {
    pub(super) fn discards(&self) -> bool {
        self.accumulation == Accumulation::Discarding
    }

    /// Whether a window's rows take the place of each other.
    pub(super) fn has_panes(&self) -> bool {
        !self.discards() && (self.lateness > 0 || self.emit != Emit::OnClose)
    }

    /// Whether W closes such windows.
    pub(super) fn is_timed(&self) -> bool {
        !matches!(self.kind, Kind::Count { .. } | Kind::Global)
    }

    /// How far the rows of final windows lie behind W.
    pub(super) fn lag(&self) -> i64 {
        match self.kind {
            Kind::Fixed(_) | Kind::Session { .. } => self.lateness,
            Kind::Sliding { .. } | Kind::Count { .. } | Kind::Global => 0,
        }
    }
}

impl KeyState for Windows {
    fn glance(&self) -> bool {
        self.open.first().is_some_and(|open| open.start > open.end)
    }

    fn write(&self, words: &mut Vec<i64>) {
        words.push(self.open.len() as i64);
        for open in &self.open {
            let counts = [open.group, open.readings, open.fresh, open.panes, open.boundary, u32::from(open.closed)].map(i64::from);
            words.extend(counts);
            words.extend([open.start, open.end]);
            let (also, replaces) = open.more.as_ref().map_or((&[][..], &[][..]), |more| (&more.also[..], &more.replaces[..]));
            words.push(also.len() as i64);
            words.extend(also.iter().map(|group| i64::from(*group)));
            words.push(replaces.len() as i64);
            words.extend(replaces.iter().flat_map(|(start, end)| [*start, *end]));
        }
        words.extend(self.clock.iter().flat_map(|clock| [clock.w, clock.lane]));
    }

    fn read(words: &[i64]) -> Option<Self> {
        let mut words = words.iter().copied();
        let open = (0..words.next()?).map(|_| read_open(&mut words)).collect::<Option<_>>()?;
        let clock = match words.next() {
            Some(w) => Some(Clock { w, lane: words.next()? }),
            None => None,
        };
        words.next().is_none().then_some(Self { open, clock })
    }
}

fn read_open(words: &mut impl Iterator<Item = i64>) -> Option<Open> {
    let mut count = || u32::try_from(words.next()?).ok();
    let (group, readings, fresh, panes, boundary, closed) = (count()?, count()?, count()?, count()?, count()?, count()? == 1);
    let (start, end) = (words.next()?, words.next()?);
    let also = (0..words.next()?).map(|_| words.next().and_then(|group| u32::try_from(group).ok())).collect::<Option<Vec<_>>>()?;
    let replaces = (0..words.next()?).map(|_| Some((words.next()?, words.next()?))).collect::<Option<Vec<_>>>()?;
    let more = (!(also.is_empty() && replaces.is_empty())).then(|| Box::new(Merged { also, replaces }));
    Some(Open { group, start, end, readings, fresh, panes, boundary, closed, due: false, more })
}

/// Which group the rows under each stored number belong to.
pub(super) fn owners<'a>(windows: impl Iterator<Item = &'a Windows>) -> Result<Vec<Option<u32>>> {
    let mut owners: Vec<Option<u32>> = vec![];
    for open in windows.flat_map(|w| &w.open) {
        let also = open.more.as_ref().map_or(&[][..], |more| &more.also[..]);
        for number in also.iter().chain([&open.group]) {
            let at = *number as usize;
            if owners.len() <= at {
                owners.resize(at + 1, None);
            }
            if owners[at].replace(open.group).is_some() {
                return Err(Error::new(Remedy::Stop, format!("window state: two windows name group {number}")));
            }
        }
    }
    Ok(owners)
}
