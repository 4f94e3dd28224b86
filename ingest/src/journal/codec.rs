//! Bodies as bytes and back.

use super::body::{Body, Group, Publish};
use super::bytes::{Take, put_bytes, put_flag, put_u32, put_u64};
use super::frame::{EVERY_LANE, Kind};
use super::recent::Recent;
use crate::Rejected;
use arrow::array::{Array, ArrayRef, AsArray, GenericByteViewArray, RecordBatch};
use arrow::datatypes::{ByteViewType, DataType, Schema};
use arrow::error::ArrowError;
use arrow::ipc::CompressionType;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::{IpcWriteOptions, StreamWriter};
use flow::{Batch, Error, EventTime, LookupVersion, Origin, Reason, Remedy, Result, WallTime};
use std::sync::Arc;
use world::{Bug, planted};

/// A group as bytes, but for the headers, which the writer adds.
pub(super) struct Encoded {
    pub(super) frames: Vec<EncodedFrame>,
}

pub(super) struct EncodedFrame {
    pub(super) lane: u32,
    pub(super) kind: Kind,
    pub(super) publishes: u32,
    /// Publishes, then the body.
    pub(super) content: Vec<u8>,
    pub(super) crc: u32,
}

/// What a frame was found to carry.
pub(super) enum Content {
    Body(Body),
    Note,
    Restatement(Recent),
}

impl Encoded {
    /// The publishes go into the last frame; a group without frames becomes a note.
    pub(super) fn new(group: &Group, seed: u32) -> Result<Self> {
        let mut frames = Vec::with_capacity(group.frames.len().max(1));
        let last = group.frames.len().saturating_sub(1);
        for (index, (lane, body)) in group.frames.iter().enumerate() {
            let publishes: &[Publish] = if index == last && !planted(Bug::PublishesLeftOut) { &group.publishes } else { &[] };
            frames.push(EncodedFrame::new(lane.unwrap_or(EVERY_LANE), Some(body), publishes, seed)?);
        }
        if frames.is_empty() {
            frames.push(EncodedFrame::new(EVERY_LANE, None, &group.publishes, seed)?);
        }
        Ok(Self { frames })
    }
}

impl EncodedFrame {
    fn new(lane: u32, body: Option<&Body>, publishes: &[Publish], seed: u32) -> Result<Self> {
        let mut content = Vec::new();
        for publish in publishes {
            put_u32(&mut content, publish.connection);
            put_u64(&mut content, publish.key);
        }
        let kind = match body {
            Some(body) => encode(body, &mut content)?,
            None => Kind::Note,
        };
        Ok(Self::of(lane, kind, publishes.len() as u32, content, seed))
    }

    pub(super) fn restatement(recent: &Recent, seed: u32) -> Self {
        let mut content = Vec::new();
        recent.encode(&mut content);
        Self::of(EVERY_LANE, Kind::Restatement, 0, content, seed)
    }

    fn of(lane: u32, kind: Kind, publishes: u32, content: Vec<u8>, seed: u32) -> Self {
        let crc = crc32c::crc32c_append(seed, &content);
        assert!(u32::try_from(content.len()).is_ok(), "a frame of {} bytes: a group is far smaller", content.len());
        Self { lane, kind, publishes, content, crc }
    }
}

/// What a frame carries.
pub(super) fn decode(kind: Kind, publishes: u32, content: &[u8]) -> Result<Content> {
    let mut take = Take::new(content);
    decode_publishes(&mut take, publishes)?;
    decode_content(kind, &mut take)
}

/// The part of a frame that `Recent` remembers: readings and rejects are left unread.
pub(super) fn decode_memory(kind: Kind, publishes: u32, content: &[u8]) -> Result<(Vec<Publish>, Content)> {
    let mut take = Take::new(content);
    let list = decode_publishes(&mut take, publishes)?;
    let content = if matches!(kind, Kind::Rows | Kind::Rejects | Kind::Lookup) { Content::Note } else { decode_content(kind, &mut take)? };
    Ok((list, content))
}

fn decode_publishes(take: &mut Take<'_>, count: u32) -> Result<Vec<Publish>> {
    (0..count).map(|_| Ok(Publish { connection: take.u32()?, key: take.u64()? })).collect()
}

fn decode_content(kind: Kind, take: &mut Take<'_>) -> Result<Content> {
    Ok(match kind {
        Kind::Rows => Content::Body(Body::Rows(decode_rows(take)?)),
        Kind::Rejects => Content::Body(Body::Rejects(decode_rejects(take)?)),
        Kind::Connection => {
            let (producer, connected) = (take.u32()?, take.flag()?);
            Content::Body(Body::Connection { producer, connected, at: WallTime(take.u64()? as i64) })
        }
        Kind::Tick => Content::Body(Body::Tick { watermark: EventTime(take.u64()? as i64), at: WallTime(take.u64()? as i64) }),
        Kind::Lookup => Content::Body(Body::Lookup(decode_lookup(take)?)),
        Kind::Note => Content::Note,
        Kind::Restatement => Content::Restatement(Recent::decode(take)?),
    })
}

fn encode(body: &Body, to: &mut Vec<u8>) -> Result<Kind> {
    match body {
        Body::Rows(batch) => {
            encode_rows(batch, to)?;
            Ok(Kind::Rows)
        }
        Body::Rejects(rejects) => {
            encode_rejects(rejects, to);
            Ok(Kind::Rejects)
        }
        Body::Connection { producer, connected, at } => {
            put_u32(to, *producer);
            put_flag(to, *connected);
            put_u64(to, at.0 as u64);
            Ok(Kind::Connection)
        }
        Body::Tick { watermark, at } => {
            put_u64(to, watermark.0 as u64);
            put_u64(to, at.0 as u64);
            Ok(Kind::Tick)
        }
        Body::Lookup(version) => {
            put_bytes(to, version.lookup.as_bytes());
            put_u64(to, version.number);
            put_ipc(to, &version.rows).map_err(|e| Error::stop(format!("writing lookup {} for the journal", version.lookup), e))?;
            Ok(Kind::Lookup)
        }
    }
}

fn encode_rows(batch: &Batch, to: &mut Vec<u8>) -> Result<()> {
    let origin = batch.origin();
    put_bytes(to, origin.source.as_bytes());
    put_u32(to, origin.producer);
    put_text_or_none(to, origin.topic.as_deref());
    put_u64(to, origin.arrival.0 as u64);
    put_u32(to, batch.trail().map_or(0, RecordBatch::num_columns) as u32);
    let whole = beside(batch)?;
    let ipc = |e| Error::stop(format!("writing {} rows of {} for the journal", whole.num_rows(), origin.source), e);
    put_ipc(to, &whole).map_err(ipc)
}

fn put_ipc(to: &mut Vec<u8>, rows: &RecordBatch) -> Result<(), ArrowError> {
    let options = IpcWriteOptions::default().try_with_compression(Some(CompressionType::LZ4_FRAME))?;
    let mut writer = StreamWriter::try_new_with_options(to, rows.schema_ref(), options)?;
    writer.write(rows)?;
    writer.finish()
}

fn decode_lookup(from: &mut Take<'_>) -> Result<LookupVersion> {
    let (lookup, number) = (Arc::from(from.text()?), from.u64()?);
    let ipc = |e| Error::stop("reading a lookup table of the journal", e);
    let mut reader = StreamReader::try_new(from.rest(), None).map_err(ipc)?;
    let rows = reader.next().ok_or_else(|| Error::new(Remedy::Stop, "a frame of a lookup table without rows"))?.map_err(ipc)?;
    Ok(LookupVersion { lookup, number, rows })
}

/// Columns and trail columns in one batch; found again by their number, since names may meet.
fn beside(batch: &Batch) -> Result<RecordBatch> {
    let mut fields = batch.rows().schema_ref().fields().to_vec();
    let mut columns = batch.rows().columns().to_vec();
    if let Some(trail) = batch.trail() {
        fields.extend(trail.schema_ref().fields().iter().cloned());
        columns.extend(trail.columns().iter().cloned());
    }
    let columns = columns.into_iter().map(compact).collect();
    let schema = Schema::new_with_metadata(fields, batch.rows().schema_ref().metadata().clone());
    RecordBatch::try_new(Arc::new(schema), columns).map_err(|e| Error::stop("laying the trail beside its rows", e))
}

/// A selection of a view column still holds the bytes of all the rows it was taken from: each lane's frame would carry them all.
fn compact(column: ArrayRef) -> ArrayRef {
    fn compact_views<T: ByteViewType>(views: &GenericByteViewArray<T>) -> Option<ArrayRef> {
        let held: usize = views.data_buffers().iter().map(|b| b.len()).sum();
        (views.total_buffer_bytes_used() < held).then(|| Arc::new(views.gc()) as ArrayRef)
    }
    let compacted = match column.data_type() {
        DataType::Utf8View => compact_views(column.as_string_view()),
        DataType::BinaryView => compact_views(column.as_binary_view()),
        _ => None,
    };
    compacted.unwrap_or(column)
}

fn decode_rows(from: &mut Take<'_>) -> Result<Batch> {
    let source: Arc<str> = from.text()?.into();
    let producer = from.u32()?;
    let topic = text_or_none(from)?;
    let arrival = WallTime(from.u64()? as i64);
    let trailing = from.u32()? as usize;
    let ipc = |e| Error::stop("reading rows of the journal", e);
    let mut reader = StreamReader::try_new(from.rest(), None).map_err(ipc)?;
    let whole = reader.next().ok_or_else(|| Error::new(Remedy::Stop, "a frame of rows without rows"))?.map_err(ipc)?;
    let Some(own) = whole.num_columns().checked_sub(trailing) else {
        return Err(Error::new(Remedy::Stop, format!("{trailing} trail columns of {} columns", whole.num_columns())));
    };
    let project = |range: std::ops::Range<usize>| whole.project(&range.collect::<Vec<_>>()).map_err(ipc);
    let trail = if trailing > 0 { Some(project(own..whole.num_columns())?) } else { None };
    let origin = Origin { source, producer, topic, arrival };
    Ok(Batch::new(project(0..own)?, Arc::new(origin))?.with_trail(trail))
}

fn encode_rejects(rejects: &[Rejected], to: &mut Vec<u8>) {
    put_u32(to, rejects.len() as u32);
    for reject in rejects {
        put_bytes(to, reject.source.as_bytes());
        put_text_or_none(to, reject.topic.as_deref());
        put_flag(to, reject.offset.is_some());
        put_u64(to, reject.offset.unwrap_or_default());
        put_bytes(to, reject.reason.as_str().as_bytes());
        put_bytes(to, reject.detail.as_bytes());
        put_bytes(to, &reject.payload);
        put_u64(to, reject.length);
        put_u64(to, reject.arrival.0 as u64);
    }
}

fn decode_rejects(from: &mut Take<'_>) -> Result<Vec<Rejected>> {
    let mut rejects = Vec::new();
    for _ in 0..from.u32()? {
        let source = from.text()?.into();
        let topic = text_or_none(from)?;
        let (present, offset) = (from.flag()?, from.u64()?);
        let word = from.text()?;
        let reason = Reason::from_word(word).ok_or_else(|| Error::new(Remedy::Stop, format!("a reject for the unknown reason {word}")))?;
        let detail = from.text()?.to_owned();
        let payload = from.bytes()?.to_vec();
        let (length, arrival) = (from.u64()?, WallTime(from.u64()? as i64));
        rejects.push(Rejected { source, topic, offset: present.then_some(offset), reason, detail, payload, length, arrival });
    }
    Ok(rejects)
}

fn put_text_or_none(to: &mut Vec<u8>, text: Option<&str>) {
    put_flag(to, text.is_some());
    put_bytes(to, text.unwrap_or_default().as_bytes());
}

fn text_or_none(from: &mut Take<'_>) -> Result<Option<Arc<str>>> {
    let (present, text) = (from.flag()?, from.text()?);
    Ok(present.then(|| text.into()))
}
