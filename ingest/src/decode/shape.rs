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
/// How far trust rises: by one with each message that fits, as it falls with each that does not.
const MOST_TRUST: u32 = 64;
/// Without trust, one message in so many is tried.
const RARELY: u32 = 64;

/// A value in a message.
#[derive(Clone, Debug)]
pub(super) struct Hole {
    /// Its bytes.
    pub(super) at: Range<usize>,
    /// The declared place whose value it is; none for one that is passed over.
    pub(super) node: Option<usize>,
    /// How deep it is nested.
    pub(super) depth: u32,
}

/// A message with holes.
#[derive(Default)]
struct Shape {
    /// The text around the holes.
    text: String,
    /// The holes, each at the end of the text before it.
    holes: Vec<Hole>,
}

/// The shapes of the messages before.
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

    /// Puts the values of a message and their places into `values`; false when it fits no shape.
    pub(super) fn read<'a>(&mut self, text: &'a str, values: &mut Vec<(usize, Scalar<'a>)>) -> bool {
        let count = self.known.len();
        let fits = (0..count).map(|n| (self.last + n) % count).find(|n| self.known[*n].fits(text, values));
        match fits {
            Some(shape) => {
                self.last = shape;
                self.trust = MOST_TRUST.min(self.trust + 1);
            }
            None => self.trust = self.trust.saturating_sub(1),
        }
        fits.is_some()
    }

    /// Keeps the shape of a good message in the place of the one that was learned first.
    pub(super) fn learn(&mut self, text: &str, holes: &[Hole]) {
        if holes.len() > MOST_HOLES {
            return;
        }
        if self.known.len() < KEPT {
            self.known.push(Shape::default());
        }
        self.known[self.next].become_of(text, holes);
        self.last = self.next;
        self.next = (self.next + 1) % KEPT;
    }
}

impl Shape {
    fn become_of(&mut self, text: &str, holes: &[Hole]) {
        self.text.clear();
        self.holes.clear();
        let mut from = 0;
        for hole in holes {
            self.text.push_str(&text[from..hole.at.start]);
            self.holes.push(Hole { at: self.text.len()..self.text.len(), ..hole.clone() });
            from = hole.at.end;
        }
        self.text.push_str(&text[from..]);
    }

    fn fits<'a>(&self, text: &'a str, values: &mut Vec<(usize, Scalar<'a>)>) -> bool {
        values.clear();
        let (mut scan, mut from) = (Scan::new(text), 0);
        for hole in &self.holes {
            if !scan.pass(&self.text[from..hole.at.start]) {
                return false;
            }
            from = hole.at.end;
            let good = match hole.node {
                Some(node) => scan.scalar().map(|value| values.push((node, value))),
                None => scan.skip_at(hole.depth),
            };
            if good.is_err() {
                return false;
            }
        }
        scan.pass(&self.text[from..]) && scan.end().is_ok()
    }
}
