//! What a request brings, and what it is told.

use bytes::Bytes;
use flow::Reason;

/// Messages that were sent together.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// What follows the source's name in its path.
    pub topic: Bytes,
    /// Its messages.
    pub messages: Vec<Bytes>,
    /// `Idempotency-Key`: the request is taken once, however often it is sent.
    pub key: Option<String>,
    /// The W3C `traceparent` that came with it.
    pub trace: Option<Box<str>>,
}

impl Request {
    /// Bytes of all messages.
    pub(super) fn bytes(&self) -> usize {
        self.topic.len() + self.messages.iter().map(Bytes::len).sum::<usize>()
    }
}

/// The messages of a body: one for a JSON document, one for bytes even if there are none, else one a line; empty lines are none.
#[must_use]
pub fn messages(content_type: Option<&str>, body: &Bytes) -> Vec<Bytes> {
    let kind = content_type.and_then(|kind| kind.split(';').next()).unwrap_or_default().trim().to_ascii_lowercase();
    match kind.as_str() {
        "application/octet-stream" => return vec![body.clone()],
        "application/json" if !body.trim_ascii().is_empty() => return vec![body.clone()],
        _ => {}
    }
    let lines = body.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    lines.filter(|line| !line.trim_ascii().is_empty()).map(|line| body.slice_ref(line)).collect()
}

/// What became of a request: all of it is durable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Receipt {
    /// Messages whose rows were taken.
    pub accepted: u64,
    /// Messages that are dead letters.
    pub refused: Vec<Refused>,
    /// It was taken before, and nothing of it was taken now.
    pub duplicate: bool,
}

/// A message that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Its number in the request, from 1; empty lines do not count.
    pub message: u64,
    /// Why.
    pub reason: Reason,
    /// What a person should know.
    pub detail: String,
}

/// Why a request was not taken. Nothing of it is stored, unless it was sent before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Too much waits already: try again soon.
    Busy,
    /// The pipeline is stopping.
    Stopping,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_one_message_or_one_a_line() {
        let of =
            |kind: Option<&str>, body: &'static str| messages(kind, &Bytes::from(body)).into_iter().map(|m| m.to_vec()).collect::<Vec<_>>();
        assert_eq!(of(None, "{\"a\":1}\r\n\n{\"a\":2}"), [b"{\"a\":1}".to_vec(), b"{\"a\":2}".to_vec()]);
        assert_eq!(of(Some("application/json; charset=utf-8"), "{\n\"a\":1}\n").len(), 1);
        assert_eq!(of(Some("application/x-ndjson"), " \n").len(), 0);
        assert_eq!(of(Some("application/json"), " \n").len(), 0);
        assert_eq!(of(Some("application/octet-stream"), "").len(), 1);
    }
}
