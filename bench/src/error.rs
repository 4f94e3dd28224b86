//! What can go wrong while load is made or measured. Nothing here is retried: a measurement that failed is made again by hand.

use std::path::PathBuf;

/// The result of this room.
pub type Result<T> = std::result::Result<T, Error>;

/// Why load could not be made or measured.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The embedded broker could not start or stop.
    #[error("embedded broker: {0}")]
    Broker(String),
    /// The broker's address is not an `mqtt://host:port` URL.
    #[error("broker address {url}: {reason}")]
    Address {
        /// What was given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The simulator could not keep its schedule, so its figures would mean nothing.
    #[error("{lag_seconds:.1} s behind schedule, wire.max_lag is {bound_seconds} s: a slower rate, more connections or a faster broker")]
    Behind {
        /// How far behind it is.
        lag_seconds: f64,
        /// How far behind it may be.
        bound_seconds: f64,
    },
    /// The truth or the tables could not be read, or SQL of the scenario is wrong.
    #[error("{0}")]
    Verify(String),
    /// A scenario's file says something that cannot be meant. A mistake of configuration.
    #[error("{file}: {reason}")]
    Scenario {
        /// The file, or what else said it.
        file: String,
        /// What is wrong, with the line.
        reason: String,
    },
    /// A file of the measurement could not be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// The measured program failed, or its answer made no sense.
    #[error("{program}: {reason}")]
    Program {
        /// The command as started.
        program: String,
        /// Its exit status or the answer that was not understood, with the end of its log.
        reason: String,
    },
}

impl Error {
    /// Names the file an I/O error is about.
    pub(crate) fn file(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Error + '_ {
        move |source| Error::File { path: path.to_path_buf(), source }
    }
}
