//! Columns that travel beside the decoded rows of messages (see `flow::trail`).

use arrow::array::{ArrayRef, BinaryViewBuilder, StringViewBuilder};
use arrow::buffer::Buffer;
use flow::{Error, Result};
use std::sync::Arc;

/// For each row later than `latest` the bytes of its message, as it may become a dead letter; none where no row is. `messages`: for each
/// row the number of its message.
pub(crate) fn raw(times: &[i64], latest: i64, messages: &[u32], payload: impl Fn(u32) -> Buffer) -> Result<Option<ArrayRef>> {
    if times.iter().all(|time| *time <= latest) {
        return Ok(None);
    }
    let mut raw = BinaryViewBuilder::with_capacity(times.len());
    let mut block: Option<(u32, u32, u32)> = None;
    for (message, time) in messages.iter().zip(times) {
        if *time <= latest {
            raw.append_null();
            continue;
        }
        // The rows of one message share its bytes.
        let (_, number, length) = match block {
            Some(known) if known.0 == *message => known,
            _ => {
                let bytes = payload(*message);
                let length = u32::try_from(bytes.len()).map_err(|e| Error::stop("keeping the bytes of a message", e))?;
                (*message, raw.append_block(bytes), length)
            }
        };
        block = Some((*message, number, length));
        raw.try_append_view(number, 0, length).map_err(|e| Error::stop("keeping the bytes of a message", e))?;
    }
    Ok(Some(Arc::new(raw.finish())))
}

/// For each row the W3C `traceparent` of its message; none where no message has one.
pub(crate) fn traces<'m>(messages: &[u32], trace: impl Fn(u32) -> Option<&'m str>) -> Option<ArrayRef> {
    if messages.iter().all(|message| trace(*message).is_none()) {
        return None;
    }
    let mut traces = StringViewBuilder::with_capacity(messages.len()).with_deduplicate_strings();
    messages.iter().for_each(|message| traces.append_option(trace(*message)));
    Some(Arc::new(traces.finish()))
}
