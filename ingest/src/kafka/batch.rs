//! Records become rows: decode, put aside what cannot be used. Pure: the same records with the same stamp give the same rows.

use super::options::MetadataColumns;
use crate::Rejected;
use crate::beside::{raw, traces};
use crate::decode::{Decoder, Message};
use arrow::array::{ArrayRef, RecordBatch, UInt64Array};
use arrow::buffer::Buffer;
use flow::{Batch, Error, Origin, Reason, Result, Span, WallTime, trail};
use rdkafka::message::{BorrowedMessage, Headers, Message as _, OwnedMessage, Timestamp};
use std::sync::Arc;

/// The header that carries a trace on.
const TRACEPARENT: &str = "traceparent";
const SECOND: i64 = 1_000_000;

/// A record as the client gives it, or a copy that was put back.
pub(super) enum Record<'q> {
    Lent(BorrowedMessage<'q>),
    Kept(OwnedMessage),
}

/// What is read of a record.
struct Content<'r> {
    offset: u64,
    /// Microseconds; none where the broker knows none.
    time: Option<i64>,
    value: &'r [u8],
    key: Option<&'r [u8]>,
    /// The values of the configured headers, in their order.
    headers: Vec<Option<&'r [u8]>>,
    trace: Option<&'r str>,
}

/// What all records of a batch share, so that a replay gives each the same, however it is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    /// The time of the log where decoding may ask for it; none where our clock will do.
    at: Option<i64>,
    /// The broker wrote the time: event times can be held against it. A producer's own time says nothing about a clock that is wrong.
    trusted: bool,
}

/// Makes rows of the records of one partition.
pub(super) struct Batcher {
    pub(super) source: Arc<str>,
    pub(super) topic: Arc<str>,
    /// How people call the partition: `topic[partition]`.
    pub(super) label: Arc<str>,
    pub(super) decoder: Box<dyn Decoder>,
    pub(super) metadata: MetadataColumns,
    /// A row without an event time has that of its record.
    pub(super) takes_arrival: bool,
    pub(super) max_message: usize,
    pub(super) max_future: Span,
}

/// What records became.
pub(super) struct Made {
    pub(super) batch: Option<Batch>,
    pub(super) rejects: Vec<Rejected>,
    /// Some row lies ahead of our clock, and nothing else says how far it may: a replay could decide otherwise.
    pub(super) guarded: bool,
    /// Records without a value.
    pub(super) tombstones: u64,
}

type Unusable = (usize, Reason, String);

impl Record<'_> {
    pub(super) fn offset(&self) -> u64 {
        let offset = match self {
            Self::Lent(record) => record.offset(),
            Self::Kept(record) => record.offset(),
        };
        u64::try_from(offset).unwrap_or(0)
    }

    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Lent(record) => record.payload_len() + record.key_len(),
            Self::Kept(record) => record.payload().map_or(0, <[u8]>::len) + record.key().map_or(0, <[u8]>::len),
        }
    }

    /// The same record, on its own.
    pub(super) fn keep(self) -> OwnedMessage {
        match self {
            Self::Lent(record) => record.detach(),
            Self::Kept(record) => record,
        }
    }

    fn timestamp(&self) -> Timestamp {
        match self {
            Self::Lent(record) => record.timestamp(),
            Self::Kept(record) => record.timestamp(),
        }
    }

    /// None for a record without a value.
    fn content(&self, metadata: &MetadataColumns) -> Option<Content<'_>> {
        match self {
            Self::Lent(record) => content(record, metadata),
            Self::Kept(record) => content(record, metadata),
        }
    }
}

fn content<'r, M: rdkafka::Message>(record: &'r M, metadata: &MetadataColumns) -> Option<Content<'r>> {
    let (mut headers, mut trace) = (vec![None; metadata.headers.len()], None);
    if let Some(all) = record.headers() {
        for header in all.iter() {
            if header.key == TRACEPARENT {
                trace = header.value.and_then(|value| std::str::from_utf8(value).ok());
            }
            for (place, _) in metadata.headers.values().enumerate().filter(|(_, name)| *name == header.key) {
                headers[place] = header.value;
            }
        }
    }
    Some(Content {
        offset: u64::try_from(record.offset()).unwrap_or(0),
        time: record.timestamp().to_millis().map(|ms| ms.saturating_mul(1_000)),
        value: record.payload()?,
        key: record.key(),
        headers,
        trace,
    })
}

impl Batcher {
    /// The stamp of a record; a batch has records of one stamp.
    pub(super) fn stamp(&self, record: &Record<'_>) -> Stamp {
        let micros = |ms: i64| ms.saturating_mul(1_000);
        match record.timestamp() {
            Timestamp::LogAppendTime(ms) if self.takes_arrival => Stamp { at: Some(micros(ms)), trusted: true },
            // Whole seconds, so that a batch may have many records.
            Timestamp::LogAppendTime(ms) => Stamp { at: Some(micros(ms).saturating_add(SECOND - 1) / SECOND * SECOND), trusted: true },
            Timestamp::CreateTime(ms) if self.takes_arrival => Stamp { at: Some(micros(ms)), trusted: false },
            Timestamp::CreateTime(_) | Timestamp::NotAvailable => Stamp { at: None, trusted: false },
        }
    }

    /// The rows of records that have this stamp.
    pub(super) fn make(&mut self, records: &[Record<'_>], stamp: Stamp, now: WallTime) -> Result<Made> {
        let contents: Vec<Content<'_>> = records.iter().filter_map(|record| record.content(&self.metadata)).collect();
        let tombstones = (records.len() - contents.len()) as u64;
        let (mut unusable, mut usable, mut captures): (Vec<Unusable>, Vec<usize>, Vec<&str>) = (vec![], vec![], vec![]);
        let width = usize::from(self.metadata.key.is_some()) + usize::from(self.metadata.topic.is_some()) + self.metadata.headers.len();
        for (place, content) in contents.iter().enumerate() {
            match admit(content, &self.topic, &self.metadata, self.max_message, &mut captures) {
                Ok(()) => usable.push(place),
                Err((reason, detail)) => {
                    captures.truncate(usable.len() * width);
                    unusable.push((place, reason, detail));
                }
            }
        }
        let message = |(n, place): (usize, &usize)| Message {
            topic: Some(&*self.topic),
            captures: &captures[n * width..(n + 1) * width],
            payload: contents[*place].value,
        };
        let list: Vec<Message<'_>> = usable.iter().enumerate().map(message).collect();
        let mut decoded = self.decoder.decode(&list, stamp.at.map_or(now, WallTime));
        let refused = std::mem::take(&mut decoded.rejects);
        unusable.extend(refused.into_iter().map(|r| (usable[r.message as usize], r.reason, r.detail)));
        unusable.sort_by_key(|(place, ..)| *place);

        let arrival = if stamp.trusted { stamp.at.map_or(now, WallTime) } else { now };
        let rejects = unusable.into_iter().map(|(place, reason, detail)| self.reject(&contents[place], reason, detail, now)).collect();
        if decoded.rows.num_rows() == 0 {
            return Ok(Made { batch: None, rejects, guarded: false, tombstones });
        }
        let origin = Origin { source: self.source.clone(), producer: 0, topic: Some(self.label.clone()), arrival };
        let batch = Batch::new(decoded.rows, Arc::new(origin))?;
        let guarded = !stamp.trusted && batch.times().iter().any(|time| *time > now.0);
        let of = |message: u32| &contents[usable[message as usize]];
        let offsets = UInt64Array::from_iter_values(decoded.messages.iter().map(|message| of(*message).offset));
        let mut beside: Vec<(&str, ArrayRef, bool)> = vec![(trail::OFFSET, Arc::new(offsets), false)];
        let latest = arrival.plus(self.max_future).0;
        if let Some(raw) = raw(batch.times(), latest, &decoded.messages, |message| Buffer::from(of(message).value))? {
            beside.push((trail::RAW, raw, true));
        }
        if let Some(traces) = traces(&decoded.messages, |message| of(message).trace) {
            beside.push((trail::TRACE, traces, true));
        }
        let beside = RecordBatch::try_from_iter_with_nullable(beside).map_err(|e| Error::stop("columns beside the rows", e))?;
        Ok(Made { batch: Some(batch.with_trail(Some(beside))), rejects, guarded, tombstones })
    }

    fn reject(&self, content: &Content<'_>, reason: Reason, detail: String, now: WallTime) -> Rejected {
        Rejected {
            source: self.source.clone(),
            topic: Some(self.label.clone()),
            offset: Some(content.offset),
            reason,
            detail,
            payload: Rejected::cut(content.value),
            length: content.value.len() as u64,
            // A time ahead of ours would spoil the table, which goes by it.
            arrival: WallTime(content.time.map_or(now.0, |time| time.min(now.0))),
        }
    }
}

/// Appends what stands beside a record's value; or says why the decoder need not see it.
fn admit<'r>(
    content: &Content<'r>,
    topic: &'r str,
    metadata: &MetadataColumns,
    max_message: usize,
    captures: &mut Vec<&'r str>,
) -> Result<(), (Reason, String)> {
    if content.value.len() > max_message {
        return Err((Reason::TooLarge, format!("{} bytes, max_message is {max_message}", content.value.len())));
    }
    let text = |what: &str, bytes: Option<&'r [u8]>| {
        let bytes = bytes.ok_or_else(|| (Reason::KeyMissing, format!("the record has no {what}")))?;
        std::str::from_utf8(bytes).map_err(|e| (Reason::Malformed, format!("{what}: {e}")))
    };
    if metadata.key.is_some() {
        captures.push(text("key", content.key)?);
    }
    if metadata.topic.is_some() {
        captures.push(topic);
    }
    for (name, value) in metadata.headers.values().zip(&content.headers) {
        captures.push(text(&format!("header {name}"), *value)?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::{Columns, DecodeOptions, decoder};
    use arrow::array::AsArray;
    use arrow::datatypes::UInt64Type;
    use rdkafka::message::{Header, OwnedHeaders};

    const NOW: i64 = 1_700_000_000_000_000;

    fn batcher(metadata: &str, takes_arrival: bool) -> Batcher {
        let metadata: MetadataColumns = toml::from_str(metadata).unwrap();
        let missing = if takes_arrival { "on_missing = \"arrival\"" } else { "" };
        let decode: DecodeOptions = toml::from_str(&format!("[event_time]\npath = \"$.ts\"\nformat = \"unix_ms\"\n{missing}")).unwrap();
        let columns: Columns = toml::from_str("[t]\ntype = \"float64\"").unwrap();
        let of = metadata.key.iter().chain(&metadata.topic).chain(metadata.headers.keys()).cloned().collect::<Vec<_>>();
        let decoder = decoder(&decode, &columns, &of, &[]).unwrap();
        Batcher {
            source: "floor".into(),
            topic: "readings".into(),
            label: "readings[3]".into(),
            decoder,
            metadata,
            takes_arrival,
            max_message: 100,
            max_future: Span(60 * SECOND),
        }
    }

    fn record(offset: i64, value: Option<&str>, time: Timestamp) -> Record<'static> {
        let headers = OwnedHeaders::new().insert(Header { key: "x-site", value: Some("north") });
        let value = value.map(|v| v.as_bytes().to_vec());
        Record::Kept(OwnedMessage::new(value, Some(b"press".to_vec()), "readings".into(), time, 3, offset, Some(headers)))
    }

    fn good(offset: i64) -> Record<'static> {
        record(offset, Some(r#"{"ts": 1699999999000, "t": 1.5}"#), Timestamp::CreateTime(1_699_999_999_500))
    }

    fn make(batcher: &mut Batcher, records: &[Record<'_>]) -> Made {
        let stamp = batcher.stamp(&records[0]);
        batcher.make(records, stamp, WallTime(NOW)).unwrap()
    }

    #[test]
    fn key_topic_and_headers_are_columns_and_rows_know_their_offset() {
        let mut batcher = batcher("key = \"device\"\ntopic = \"of\"\nheaders = { site = \"x-site\" }", false);
        let made = make(&mut batcher, &[good(7), record(8, None, Timestamp::NotAvailable), good(9)]);
        let batch = made.batch.unwrap();
        let text = |name: &str| batch.rows().column_by_name(name).unwrap().as_string_view().value(1).to_owned();
        assert_eq!([text("device"), text("of"), text("site")], ["press", "readings", "north"]);
        let offsets = batch.trail_column(trail::OFFSET).unwrap().as_primitive::<UInt64Type>();
        assert_eq!(offsets.values().to_vec(), [7, 9]);
        assert_eq!((made.tombstones, made.rejects.len(), made.guarded), (1, 0, false));
    }

    #[test]
    fn what_cannot_be_used_has_topic_partition_and_offset() {
        let mut batcher = batcher("headers = { line = \"x-line\" }", false);
        let made = make(&mut batcher, &[good(7)]);
        let of = |r: &Rejected| (r.topic.as_deref().map(str::to_owned), r.offset, r.reason, r.detail.clone());
        assert_eq!(
            of(&made.rejects[0]),
            (Some("readings[3]".into()), Some(7), Reason::KeyMissing, "the record has no header x-line".into())
        );
        let mut batcher = self::batcher("", false);
        let long = "x".repeat(101);
        let made =
            make(&mut batcher, &[record(1, Some("{"), Timestamp::NotAvailable), good(2), record(3, Some(&long), Timestamp::NotAvailable)]);
        let reasons: Vec<_> = made.rejects.iter().map(|r| (r.offset, r.reason)).collect();
        assert_eq!(reasons, [(Some(1), Reason::Malformed), (Some(3), Reason::TooLarge)]);
        assert_eq!(made.batch.unwrap().len(), 1);
    }

    #[test]
    fn a_row_ahead_of_our_clock_is_guarded_unless_the_broker_wrote_the_time() {
        let ahead = format!(r#"{{"ts": {}, "t": 1}}"#, NOW / 1_000 + 5_000);
        let mut batcher = batcher("", false);
        assert!(make(&mut batcher, &[record(1, Some(&ahead), Timestamp::CreateTime(NOW / 1_000))]).guarded);
        let made = make(&mut batcher, &[record(1, Some(&ahead), Timestamp::LogAppendTime(NOW / 1_000 - 400))]);
        assert!(!made.guarded);
        assert_eq!(made.batch.unwrap().origin().arrival, WallTime(NOW), "whole seconds, upwards");
    }

    #[test]
    fn a_row_without_event_time_takes_that_of_its_record() {
        let mut batcher = batcher("", true);
        let records = [record(1, Some(r#"{"t": 1}"#), Timestamp::CreateTime(1_600_000_000_123))];
        assert_eq!(make(&mut batcher, &records).batch.unwrap().times(), [1_600_000_000_123_000]);
        let other = batcher.stamp(&record(2, Some("{}"), Timestamp::CreateTime(1_600_000_000_124)));
        assert_ne!(batcher.stamp(&records[0]), other, "records of different times go into batches of their own");
    }
}
