//! Lanes, offsets and positions: where in a log the next unread reading stands.

use crate::WallTime;
use std::fmt;
use std::sync::Arc;

/// The name of a lane: an ordered, replayable log of readings and the state that grows from it.
///
/// `<journal id>/<n>` for the journal, `file/<source>/<n>` for files. Made by us, never from what a device sent.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lane(pub Arc<str>);

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A place in a log: the number of a journal frame, or of a row of a file. The first is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Offset(pub u64);

/// The number of an epoch record of a lane. The first is 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Epoch(pub u64);

/// What tells a file from another under the same path, and when it was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileMark {
    /// Length in bytes when it was found; a file that is shorter now has lost readings.
    pub bytes: u64,
    /// Hash of the first `min(bytes, 64 KiB)`.
    pub head: u64,
    /// The arrival of its readings.
    pub found: WallTime,
}

/// How far one log has been taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// The journal's id, or the path of a file.
    pub log: Arc<str>,
    /// The next unread frame or row.
    pub next: Offset,
    /// Present for files.
    pub file: Option<FileMark>,
}

/// How far a lane has taken its logs: one entry for the journal, or one a file in the order in which they are read.
///
/// Files are read one after the other, so at most one entry is partly taken; the list grows only at its end.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Positions(pub Vec<Position>);

impl Positions {
    /// The next unread offset of `log`; 0 where it was never read.
    #[must_use]
    pub fn next(&self, log: &str) -> Offset {
        self.0.iter().find(|p| &*p.log == log).map_or(Offset(0), |p| p.next)
    }

    /// Notes that everything of `log` below `next` has been taken. A position never goes back.
    pub fn advance(&mut self, log: &Arc<str>, next: Offset) {
        match self.0.iter_mut().find(|p| p.log == *log) {
            Some(p) => {
                assert!(p.next <= next, "position of {log} goes back from {} to {}", p.next.0, next.0);
                p.next = next;
            }
            None => self.0.push(Position { log: log.clone(), next, file: None }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_start_at_zero_and_move_on() {
        let log: Arc<str> = "j".into();
        let mut positions = Positions::default();
        assert_eq!(positions.next("j"), Offset(0));
        positions.advance(&log, Offset(3));
        positions.advance(&log, Offset(5));
        assert_eq!(positions.next("j"), Offset(5));
        assert_eq!(positions.0.len(), 1);
    }

    #[test]
    #[should_panic(expected = "goes back")]
    fn a_position_never_goes_back() {
        let log: Arc<str> = "j".into();
        let mut positions = Positions::default();
        positions.advance(&log, Offset(3));
        positions.advance(&log, Offset(2));
    }
}
