//! Messages that are written like earlier ones are read without looking for their fields.
//!
//! A device writes its messages by one program: the same fields in the same order, with the same spaces, and only the values between
//! them change. A shape is such a message with holes where the values were. To read another one is to compare the text between the
//! holes, and to read a value at each. A message that does not fit is read as if there were no shapes, so they never change a result.
//! The idea is that of speculative parsing in Li et al., "Mison: A Fast JSON Parser for Data Analytics", VLDB 2017.

use super::scan::{Scalar, Scan};
use std::ops::Range;

/// Shapes that are kept. A message that fits none has been compared with all of them.
const KEPT: usize = 4;
/// A shape of more holes than these is not kept.
pub(super) const MOST_HOLES: usize = 256;
/// Nor is one of more bytes: they stay in memory.
const MOST_BYTES: usize = 64 << 10;
/// How far trust rises: by one with each message that fits, as it falls with each that does not.
const MOST_TRUST: u32 = 64;
/// Without trust, one message in so many is tried.
const RARELY: u32 = 64;

/// A value in a message or element.
#[derive(Clone, Debug)]
pub(super) struct Hole {
    /// Its bytes.
    pub(super) at: Range<usize>,
    pub(super) what: What,
    /// How deep it is nested.
    pub(super) depth: u32,
}

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// That of a declared place.
    Leaf(usize),
    /// One that is passed over.
    Other,
    /// The array whose elements become rows.
    Array,
}

/// What is found in a message.
#[derive(Clone, Copy, Debug)]
pub(super) enum Found<'a> {
    /// The value of a declared place.
    Value(usize, Scalar<'a>),
    /// Another element of the array begins.
    Element,
    /// The array has ended.
    EndOfArray,
}

/// A message, or an element of the array that is exploded, with holes.
#[derive(Default)]
struct Shape {
    /// The text around the holes.
    text: String,
    /// The holes, each at the end of the text before it.
    holes: Vec<Hole>,
}

/// The shapes of the messages, or elements, before.
pub(super) struct Shapes {
    known: Vec<Shape>,
    /// The one that fitted last.
    last: usize,
    /// Where the next new one goes.
    next: usize,
    trust: u32,
    /// Messages since one was tried without trust.
    untried: u32,
}

impl Shapes {
    pub(super) fn new() -> Self {
        Self { known: vec![], last: 0, next: 0, trust: MOST_TRUST, untried: 0 }
    }

    /// Whether the next message should be tried, and learned where it fits none.
    pub(super) fn are_worth_a_try(&mut self) -> bool {
        self.untried += 1;
        let tried = self.trust > 0 || self.untried >= RARELY;
        if tried {
            self.untried = 0;
        }
        tried
    }

    /// Passes over what follows and appends what is found in it; false, and nothing passed or appended, when it fits no shape. `elements` are
    /// the shapes of the array's elements, where there is one.
    pub(super) fn read<'a>(&mut self, scan: &mut Scan<'a>, found: &mut Vec<Found<'a>>, mut elements: Option<&mut Self>) -> bool {
        let (count, start, before) = (self.known.len(), scan.place(), found.len());
        for shape in (0..count).map(|n| (self.last + n) % count) {
            if self.known[shape].fits(scan, found, elements.as_deref_mut()) {
                self.last = shape;
                self.trust = MOST_TRUST.min(self.trust + 1);
                return true;
            }
            scan.go_back(start);
            found.truncate(before);
        }
        self.trust = self.trust.saturating_sub(1);
        false
    }

    /// Keeps the shape of what is good and lies there in `text`, in the place of the one that was learned first.
    pub(super) fn learn(&mut self, text: &str, at: Range<usize>, holes: &[Hole]) {
        if holes.len() > MOST_HOLES || at.len() > MOST_BYTES {
            return;
        }
        if self.known.len() < KEPT {
            self.known.push(Shape::default());
        }
        self.known[self.next].become_of(text, at, holes);
        self.last = self.next;
        self.next = (self.next + 1) % KEPT;
    }
}

impl Shape {
    fn become_of(&mut self, text: &str, at: Range<usize>, holes: &[Hole]) {
        self.text.clear();
        self.holes.clear();
        let mut from = at.start;
        for hole in holes {
            self.text.push_str(&text[from..hole.at.start]);
            self.holes.push(Hole { at: self.text.len()..self.text.len(), ..hole.clone() });
            from = hole.at.end;
        }
        self.text.push_str(&text[from..at.end]);
    }

    fn fits<'a>(&self, scan: &mut Scan<'a>, found: &mut Vec<Found<'a>>, mut elements: Option<&mut Shapes>) -> bool {
        let mut from = 0;
        for hole in &self.holes {
            if !scan.pass(&self.text[from..hole.at.start]) {
                return false;
            }
            from = hole.at.end;
            scan.be_at(hole.depth);
            let good = match hole.what {
                What::Leaf(node) => scan.scalar().map(|value| found.push(Found::Value(node, value))).is_ok(),
                What::Other => scan.skip().is_ok(),
                What::Array => elements.as_deref_mut().is_some_and(|elements| array(scan, found, elements)),
            };
            if !good {
                return false;
            }
        }
        scan.pass(&self.text[from..])
    }
}

fn array<'a>(scan: &mut Scan<'a>, found: &mut Vec<Found<'a>>, elements: &mut Shapes) -> bool {
    if scan.peek().ok() != Some(b'[') || scan.enter().is_err() {
        return false;
    }
    let mut first = true;
    loop {
        match scan.next_element(first) {
            Ok(true) => found.push(Found::Element),
            Ok(false) => break,
            Err(_) => return false,
        }
        first = false;
        if !elements.read(scan, found, None) {
            return false;
        }
    }
    found.push(Found::EndOfArray);
    true
}
