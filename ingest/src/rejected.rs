//! A message that could not be decoded, on its way to the table `dead_letters`.

use flow::{Reason, WallTime};
use std::sync::Arc;

/// A message, or a row of a file, that could not be decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// Name of the source in the pipeline.
    pub source: Arc<str>,
    /// MQTT topic, or path of the file.
    pub topic: Option<Arc<str>>,
    /// Row of the file, counted from 0; none for messages.
    pub offset: Option<u64>,
    /// Why it could not be used.
    pub reason: Reason,
    /// What a person should know beyond the reason.
    pub detail: String,
    /// The bytes, cut at `Rejected::PAYLOAD_LIMIT`.
    pub payload: Vec<u8>,
    /// How many bytes there were before the cut.
    pub length: u64,
    /// When the message reached us.
    pub arrival: WallTime,
}

impl Rejected {
    /// Most bytes kept of a payload: enough to see what it was, and to send an ordinary message again.
    pub const PAYLOAD_LIMIT: usize = 64 << 10;

    /// The part of `payload` that is kept.
    #[must_use]
    pub fn cut(payload: &[u8]) -> Vec<u8> {
        payload[..payload.len().min(Self::PAYLOAD_LIMIT)].to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_cut_at_the_limit() {
        assert_eq!(Rejected::cut(b"abc"), b"abc");
        assert_eq!(Rejected::cut(&vec![7; 100_000]).len(), Rejected::PAYLOAD_LIMIT);
    }
}
