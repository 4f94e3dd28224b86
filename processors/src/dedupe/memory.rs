//! What one key remembers: two spans of event time with the sequences seen in each.

use roaring::RoaringTreemap;

/// What is known of a reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Not seen before.
    New,
    /// Proven to have been here.
    Duplicate,
    /// Older than what is remembered: it passes, and is not remembered.
    Unproven,
}

/// The sequences seen from `first` to `highest`.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) first: i64,
    pub(super) highest: i64,
    /// The greatest sequence.
    pub(super) greatest: u64,
    pub(super) sequences: RoaringTreemap,
}

impl Seen {
    fn of(sequence: u64, time: i64) -> Self {
        Self { first: time, highest: time, greatest: sequence, sequences: RoaringTreemap::from_iter([sequence]) }
    }

    fn take(&mut self, sequence: u64, time: i64) -> Verdict {
        self.highest = self.highest.max(time);
        self.greatest = self.greatest.max(sequence);
        if self.sequences.insert(sequence) { Verdict::New } else { Verdict::Duplicate }
    }
}

/// The memory of one key. Times lie as floor < `previous` ≤ its highest < `current`.
#[derive(Clone, Debug)]
pub(super) struct Memory {
    /// Nothing is known of readings at or below it.
    pub(super) floor: i64,
    pub(super) previous: Option<Seen>,
    pub(super) current: Option<Seen>,
    changed: bool,
}

impl Memory {
    pub(super) fn new(floor: i64) -> Self {
        Self { floor, previous: None, current: None, changed: false }
    }

    /// Takes a reading of a counter: a sequence that is not above the greatest, at a new highest time, is a restart of it.
    pub(super) fn take(&mut self, sequence: u64, time: i64, horizon: i64) -> Verdict {
        self.look(sequence, time, |current| sequence <= current.greatest || time.saturating_sub(current.first) >= horizon)
    }

    /// Takes a reading whose sequence has no order.
    pub(super) fn take_unordered(&mut self, sequence: u64, time: i64, horizon: i64) -> Verdict {
        self.look(sequence, time, |current| time.saturating_sub(current.first) >= horizon)
    }

    fn look(&mut self, sequence: u64, time: i64, begins: impl Fn(&Seen) -> bool) -> Verdict {
        if time <= self.floor {
            return Verdict::Unproven;
        }
        if let Some(previous) = self.previous.as_mut().filter(|p| time <= p.highest) {
            return previous.take(sequence, time);
        }
        match &mut self.current {
            Some(current) if time <= current.highest || !begins(current) => current.take(sequence, time),
            _ => {
                self.begin(Seen::of(sequence, time));
                Verdict::New
            }
        }
    }

    /// A new span; the one before the last is forgotten.
    fn begin(&mut self, span: Seen) {
        let last = self.current.replace(span);
        if let Some(forgotten) = std::mem::replace(&mut self.previous, last) {
            self.floor = self.floor.max(forgotten.highest);
        }
    }

    /// The highest event time taken.
    pub(super) fn highest(&self) -> i64 {
        self.current.as_ref().map_or(i64::MIN, |c| c.highest)
    }

    /// Notes a change; true for the first since the last save.
    pub(super) fn touch(&mut self) -> bool {
        !std::mem::replace(&mut self.changed, true)
    }

    /// Whether it changed since the last save.
    pub(super) fn is_changed(&self) -> bool {
        self.changed
    }

    /// The change is saved.
    pub(super) fn saved(&mut self) {
        self.changed = false;
    }

    /// Bytes held, nearly.
    pub(super) fn bytes(&self) -> usize {
        let spans = self.previous.iter().chain(&self.current);
        size_of::<Self>() + spans.map(|s| s.sequences.serialized_size()).sum::<usize>()
    }
}
