//! What one key remembers: two spans of event time with the sequences seen in each.
//!
//! ```text
//!   a key's cache line                                                  elsewhere, for one reading in 64 of a counter
//!   [ floor | current: first, highest, word, bits ............ older ] → older sequences of the span
//!   [                                                       previous ] → the span before
//! ```
//! A device counts up, so nearly each reading belongs to the newest 64 sequences: those lie beside the times, and nothing else is
//! touched for it.

use crate::keyed::KeyState;
use roaring::RoaringTreemap;

/// Sequences in a word of bits.
const WORD: u64 = 64;

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
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Seen {
    pub(super) first: i64,
    pub(super) highest: i64,
    /// Which word of sequences `bits` is: the one with the greatest sequence.
    word: u64,
    /// Which of its sequences were seen; at least one.
    bits: u64,
    /// Those of the words before it.
    older: Option<Box<RoaringTreemap>>,
}

impl Seen {
    fn of(sequence: u64, time: i64) -> Self {
        Self { first: time, highest: time, word: sequence / WORD, bits: 1 << (sequence % WORD), older: None }
    }

    /// A span with all of these sequences; none if there are none.
    pub(super) fn of_all(first: i64, highest: i64, mut sequences: RoaringTreemap) -> Option<Self> {
        let word = sequences.max()? / WORD;
        let within = word * WORD..=word * WORD + (WORD - 1);
        let bits = within.clone().filter(|s| sequences.contains(*s)).fold(0, |bits, s| bits | 1 << (s % WORD));
        sequences.remove_range(within);
        let older = Some(sequences).filter(|s| !s.is_empty()).map(Box::new);
        Some(Self { first, highest, word, bits, older })
    }

    /// The greatest sequence.
    fn greatest(&self) -> u64 {
        self.word * WORD + u64::from(self.bits.ilog2())
    }

    fn take(&mut self, sequence: u64, time: i64) -> Verdict {
        self.highest = self.highest.max(time);
        if self.insert(sequence) { Verdict::New } else { Verdict::Duplicate }
    }

    /// False where the sequence was seen before.
    fn insert(&mut self, sequence: u64) -> bool {
        let (word, bit) = (sequence / WORD, 1 << (sequence % WORD));
        if word < self.word {
            return self.older.get_or_insert_default().insert(sequence);
        }
        if word > self.word {
            self.put_away();
            (self.word, self.bits) = (word, 0);
        }
        let is_new = self.bits & bit == 0;
        self.bits |= bit;
        is_new
    }

    /// Moves the newest sequences to the older ones, a run at a time.
    fn put_away(&mut self) {
        let (older, mut from) = (self.older.get_or_insert_default(), 0);
        while from < WORD && self.bits >> from != 0 {
            from += u64::from((self.bits >> from).trailing_zeros());
            let run = u64::from((self.bits >> from).trailing_ones());
            let first = self.word * WORD + from;
            older.insert_range(first..=first + (run - 1));
            from += run;
        }
    }

    fn write(&self, words: &mut Vec<i64>) {
        words.extend([self.first, self.highest, self.word.cast_signed(), self.bits.cast_signed()]);
        let mut bytes = vec![];
        if let Some(older) = &self.older {
            older.serialize_into(&mut bytes).expect("a vector takes all bytes");
        }
        words.push(bytes.len() as i64);
        words.extend(bytes.chunks(8).map(|chunk| {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            i64::from_le_bytes(word)
        }));
    }

    /// The span at the beginning of the words, and the words behind it.
    fn read(words: &[i64]) -> Option<(Self, &[i64])> {
        let ([first, highest, word, bits, length], rest) = words.split_first_chunk()?;
        let length = usize::try_from(*length).ok()?;
        let (older, rest) = rest.split_at_checked(length.div_ceil(8))?;
        let older = match length {
            0 => None,
            _ => {
                let bytes: Vec<u8> = older.iter().flat_map(|word| word.to_le_bytes()).take(length).collect();
                Some(Box::new(RoaringTreemap::deserialize_from(&bytes[..]).ok()?))
            }
        };
        let (word, bits) = (word.cast_unsigned(), bits.cast_unsigned());
        (bits != 0).then_some((Self { first: *first, highest: *highest, word, bits, older }, rest))
    }

    /// Bytes on the heap, nearly.
    fn bytes(&self) -> usize {
        self.older.as_ref().map_or(0, |older| size_of::<RoaringTreemap>() + older.serialized_size())
    }
}

/// The memory of one key. Times lie as floor < `previous` ≤ its highest < `current`.
#[derive(Clone, Debug, PartialEq)]
#[repr(align(64))]
pub(super) struct Memory {
    /// Nothing is known of readings at or below it.
    pub(super) floor: i64,
    pub(super) current: Option<Seen>,
    pub(super) previous: Option<Box<Seen>>,
}

const _: () = assert!(size_of::<Memory>() == 64, "a key's memory is one cache line");

impl Default for Memory {
    fn default() -> Self {
        Self { floor: i64::MIN, current: None, previous: None }
    }
}

impl Memory {
    /// Whether no reading has been looked up in it.
    pub(super) fn is_new(&self) -> bool {
        self.floor == i64::MIN && self.current.is_none()
    }

    /// Takes a reading of a counter: a sequence that is not above the greatest, at a new highest time, is a restart of it.
    pub(super) fn take(&mut self, sequence: u64, time: i64, horizon: i64) -> Verdict {
        self.look(sequence, time, |current| sequence <= current.greatest() || time.saturating_sub(current.first) >= horizon)
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
        let last = self.current.replace(span).map(Box::new);
        if let Some(forgotten) = std::mem::replace(&mut self.previous, last) {
            self.floor = self.floor.max(forgotten.highest);
        }
    }

    /// The highest event time taken.
    pub(super) fn highest(&self) -> i64 {
        self.current.as_ref().map_or(i64::MIN, |c| c.highest)
    }

    /// Bytes on the heap, nearly.
    pub(super) fn bytes(&self) -> usize {
        let previous = self.previous.as_ref().map_or(0, |p| size_of::<Seen>() + p.bytes());
        previous + self.current.as_ref().map_or(0, Seen::bytes)
    }
}

/// Floor, then the spans, the current one first; of each its times, its newest word of sequences, and the older ones in roaring's portable
/// format for 64 bits: how many bytes, and these, eight a word.
impl KeyState for Memory {
    fn write(&self, words: &mut Vec<i64>) {
        words.push(self.floor);
        self.current.iter().chain(self.previous.as_deref()).for_each(|span| span.write(words));
    }

    fn glance(&self) -> bool {
        self.floor == 0
    }

    fn read(words: &[i64]) -> Option<Self> {
        let (floor, mut words) = words.split_first()?;
        let mut spans = vec![];
        while !words.is_empty() {
            let (span, rest) = Seen::read(words)?;
            spans.push(span);
            words = rest;
        }
        let mut spans = spans.into_iter();
        let (current, previous) = (spans.next(), spans.next().map(Box::new));
        spans.next().is_none().then_some(Self { floor: *floor, current, previous })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn sequences() -> impl Strategy<Value = Vec<u64>> {
        let near = 0u64..300;
        let edges = prop::sample::select(vec![0, 63, 64, u64::MAX, u64::MAX - 63, u64::MAX - 64, 1 << 32]);
        prop::collection::vec(prop_oneof![4 => near, 1 => edges, 1 => any::<u64>()], 1..120)
    }

    proptest! {
        #[test]
        fn a_span_knows_just_what_it_has_seen_and_so_does_its_saved_form(sequences in sequences()) {
            let mut span = Seen::of(sequences[0], 0);
            let mut want = BTreeSet::from([sequences[0]]);
            for sequence in &sequences {
                prop_assert_eq!(span.insert(*sequence), want.insert(*sequence));
                prop_assert_eq!(Some(span.greatest()), want.last().copied());
                let mut words = vec![];
                let memory = Memory { floor: -7, current: Some(span.clone()), previous: Some(Box::new(span.clone())) };
                memory.write(&mut words);
                prop_assert_eq!(Memory::read(&words), Some(memory));
            }
            let all: RoaringTreemap = want.iter().copied().collect();
            prop_assert_eq!(Seen::of_all(0, 0, all), Some(span));
        }
    }
}
