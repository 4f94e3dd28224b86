//! Times at which something is to be done for a key. A timer is only looked up in a heap; when it comes, the key's state says whether
//! it still holds, so moving a timer on (each reading of a device does) costs nothing. There is a heap for each span of time, so that the
//! one at hand lies in the caches.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

/// Microseconds of a heap, about a quarter of a second: with 100,000 timers a second 400 kB.
const SPAN: i64 = 1 << 18;

/// One timer a slot at most.
#[derive(Default)]
pub(crate) struct Timers {
    /// By number of the span; none is empty.
    heaps: BTreeMap<i64, BinaryHeap<Reverse<(i64, u32)>>>,
    /// By slot: the time under which it is found in the heap; `NONE` if it is not.
    queued: Vec<i64>,
}

const NONE: i64 = i64::MAX;

impl Timers {
    /// Makes sure that the slot is looked at when W reaches `due`, or earlier.
    pub(crate) fn set(&mut self, slot: u32, due: i64) {
        let at = slot as usize;
        if self.queued.len() <= at {
            self.queued.resize(at + 1, NONE);
        }
        if due < self.queued[at] {
            self.queued[at] = due;
            self.heaps.entry(due.div_euclid(SPAN)).or_default().push(Reverse((due, slot)));
        }
    }

    /// A slot to look at, since W has reached `w`. Its timer is gone; whoever asks sets it again if it moved on.
    pub(crate) fn pop(&mut self, w: i64) -> Option<u32> {
        while let Some(mut heap) = self.heaps.first_entry() {
            let Reverse((due, slot)) = heap.get().peek().copied().expect("no heap is empty");
            if due > w {
                return None;
            }
            heap.get_mut().pop();
            if heap.get().is_empty() {
                heap.remove();
            }
            if self.queued[slot as usize] == due {
                self.queued[slot as usize] = NONE;
                return Some(slot);
            }
        }
        None
    }

    /// The least time above `w` at which a slot may be due.
    pub(crate) fn next(&self, w: i64) -> Option<i64> {
        let first = self.heaps.first_key_value().and_then(|(_, heap)| heap.peek());
        first.map(|Reverse((due, _))| *due).filter(|due| *due > w)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_comes_once_at_its_least_time() {
        let mut timers = Timers::default();
        timers.set(3, 50);
        timers.set(3, 70);
        timers.set(3, 20);
        timers.set(0, 30);
        assert_eq!((timers.next(10), timers.pop(19)), (Some(20), None));
        assert_eq!((timers.pop(60), timers.pop(60), timers.pop(60)), (Some(3), Some(0), None));
        timers.set(3, 80);
        assert_eq!((timers.next(60), timers.pop(80), timers.next(80)), (Some(80), Some(3), None));
    }
}
