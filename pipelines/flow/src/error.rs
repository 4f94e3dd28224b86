//! The error at joints between rooms: what happened, and what the driver should do. Inside a room errors are the room's own.

use std::fmt;

/// What the driver should do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Try the same again after a while: the world may heal.
    Retry,
    /// Put the input aside as a dead letter and go on.
    Divert,
    /// Drop what is in memory, load the last epoch and read the log again from there.
    Rewind,
    /// Stop: going on would lose or double readings, or a person must decide.
    Stop,
}

/// An error that crosses rooms.
#[derive(Debug)]
pub struct Error {
    /// What the driver should do.
    pub remedy: Remedy,
    /// What happened: lower case, names the thing and the number.
    pub context: String,
    /// What it came from.
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// A result whose error says what to do.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error without a deeper cause.
    pub fn new(remedy: Remedy, context: impl Into<String>) -> Self {
        Self { remedy, context: context.into(), source: None }
    }

    /// Stop, because of `source`.
    pub fn stop(context: impl Into<String>, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { remedy: Remedy::Stop, context: context.into(), source: Some(source.into()) }
    }

    /// Try again, because of `source`.
    pub fn retry(context: impl Into<String>, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { remedy: Remedy::Retry, context: context.into(), source: Some(source.into()) }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.context)?;
        let mut cause = self.source.as_deref().map(|s| s as &dyn std::error::Error);
        while let Some(inner) = cause {
            write!(f, ": {inner}")?;
            cause = inner.source();
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|s| s as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_tells_the_whole_chain() {
        let error = Error::stop("segment 7 ends at byte 812", std::io::Error::other("disk gone"));
        assert_eq!(error.to_string(), "segment 7 ends at byte 812: disk gone");
        assert_eq!(error.remedy, Remedy::Stop);
    }
}
