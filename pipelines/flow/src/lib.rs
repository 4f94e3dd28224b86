//! What flows between the rooms: readings in batches, their times, the lanes and positions they are read from, the operators
//! that take them, and one error that says what the driver should do.
//!
//! Absent by intent: no I/O, no clock, no randomness, no async, no serde. Every other room may know this one; this one knows nobody.

mod batch;
mod dead;
mod error;
mod lane;
mod lookup;
pub mod metric;
mod operator;
mod time;

pub use batch::{Batch, EVENT_TIME, Origin, event_time_field, event_time_type, trail};
pub use dead::{DeadLetters, Reason};
pub use error::{Error, Remedy, Result};
pub use lane::{Epoch, FileMark, Lane, Offset, Position, Positions};
pub use lookup::{LookupShape, LookupVersion};
pub use metric::Metric;
pub use operator::{Count, Operator, Output, StateReader, StateWriter};
pub use time::{EventTime, Span, WallTime};
