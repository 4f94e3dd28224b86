//! Epochs: a lane's progress as a chain of records, each of which commits by being created.
//!
//! `record` is what a record says and how it is laid out in bytes, `chain` folds records and makes the next one (pure),
//! `store` creates and reads them, `clean` removes what no longer counts.

mod record;

pub use record::{
    Body, Change, FORMAT, Fingerprint, Header, Mark, Merge, Record, Segment, StateChange, StateFile, StatePart, TableChange, TableState,
    Whole,
};
