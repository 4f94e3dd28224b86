//! Epochs: a lane's progress as a chain of records, each of which commits by being created.
//!
//! `record` is what a record says, `frame` its bytes, `chain` folds records and makes the next one (pure), `store` creates and reads
//! them, `clean` removes what no longer counts, `names` gives files their names.

mod chain;
mod clean;
mod error;
mod frame;
mod names;
mod record;
mod store;

pub(crate) use chain::fold_state;
pub use chain::{Chain, Claimed, Misfit, WHOLE_EVERY};
pub use clean::{KEEP_RECORDS, clean_files, clean_records};
pub use error::{EpochError, Result};
pub use frame::{decode, encode};
pub use names::{Names, component, from_component};
pub use record::{
    Body, Change, ExitChange, ExitFile, ExitState, FORMAT, Fingerprint, Header, Mark, Merge, Record, Segment, StateChange, StateFile,
    StatePart, TableChange, TableState, Whole,
};
pub use store::{EpochStore, LocalEpochs, Newest, Sealed};

#[cfg(test)]
mod tests;
