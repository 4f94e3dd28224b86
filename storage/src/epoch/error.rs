//! What can go wrong with epochs and state files, and what the driver should do.

use flow::Remedy;
use std::io;
use std::path::{Path, PathBuf};

/// A result of this module.
pub type Result<T, E = EpochError> = std::result::Result<T, E>;

/// An error of epoch records or state files.
#[derive(Debug, thiserror::Error)]
pub enum EpochError {
    /// The disk did not do it; the outcome may be unknown. Try the same again.
    #[error("{what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file does not hold what was written. Stop: an older record must not be taken in its place.
    #[error("{} is damaged at byte {byte}: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where in it.
        byte: u64,
        /// What was found.
        what: String,
    },
    /// A newer program wrote the record. Stop: run that program or a newer one.
    #[error("{} has format {found}, this program reads up to {ours}: run the version that wrote it, or a newer one", path.display())]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// Ours.
        ours: u32,
    },
    /// The lane's state belongs to another plan. Stop: a person must decide.
    #[error(
        "lane {lane} stands at record {number} of another plan: {}; restore the old options and give what is changed a new name beside them, \
         or start the pipeline in a new data_dir",
        difference.join(", ")
    )]
    OtherPlan {
        /// The lane.
        lane: String,
        /// Its newest record.
        number: u64,
        /// What differs, a phrase each.
        difference: Vec<String>,
    },
    /// Others took the number again and again. Stop: they own the lane.
    #[error("lane {lane} was taken by another {tries} times while it was claimed")]
    Contended {
        /// The lane.
        lane: String,
        /// How often.
        tries: u32,
    },
    /// A change does not fit what the lane holds: a broken promise of ours. Stop.
    #[error("lane {lane}, record {number}: {what}")]
    Unfit {
        /// The lane.
        lane: String,
        /// The record.
        number: u64,
        /// What does not fit.
        what: String,
    },
    /// State rows cannot be written or read as Arrow IPC. Stop.
    #[error("state of {operator}, part {part}: {source}")]
    State {
        /// The operator.
        operator: String,
        /// Its part.
        part: String,
        /// What Arrow said.
        source: arrow::error::ArrowError,
    },
}

impl EpochError {
    pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { what, path, source }
    }

    pub(crate) fn damaged(path: &Path, byte: u64, what: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_owned(), byte, what: what.into() }
    }
}

impl From<EpochError> for flow::Error {
    fn from(error: EpochError) -> Self {
        match error {
            // The cause goes along: whoever waits for room on a full disk looks for it.
            EpochError::Io { what, path, source } => Self::retry(format!("{what} {}", path.display()), source),
            other => Self::new(Remedy::Stop, other.to_string()),
        }
    }
}
