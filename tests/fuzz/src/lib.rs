//! What is fuzzed: each function takes any bytes, and a panic, a hang or a large allocation in it is a bug. `make fuzz` runs them for long;
//! `make test` runs the seeds and what once failed (`tests/fuzz/kept.rs`).

#![allow(clippy::expect_used, clippy::missing_panics_doc, reason = "a panic is how a fuzzer is told")]
#![allow(unreachable_pub, reason = "a module of a test is a crate of its own here")]

mod disk;
mod epoch;

use disk::OneFile;
use flow::WallTime;
use ingest::decode::{Columns, DecodeOptions, Decoder, Message, TopicPattern, decoder};
use std::cell::RefCell;
use std::path::Path;

/// Options of decoders: every type of column, times as text and as numbers, arrays, CSV.
const DECODERS: [(&str, &str); 3] = [
    (
        r#"{ "format": "json", "event_time": { "path": "$.ts", "format": "unix_ms" } }"#,
        r#"{ "a": { "type": "int64" }, "b": { "type": "uint8" }, "c": { "type": "float64", "path": "$.c.d" }, "e": { "type": "bool" },
             "f": { "type": "utf8" }, "g": { "type": "decimal(9,2)" }, "h": { "type": "timestamp" }, "i": { "type": "float32", "parse": true } }"#,
    ),
    (
        r#"{ "format": "json", "explode": "$.r", "event_time": { "path": "$.r.t", "format": "rfc3339", "on_missing": "arrival" } }"#,
        r#"{ "f": { "type": "utf8" }, "a": { "type": "int32", "path": "$.r.a", "parse": true }, "b": { "type": "float64", "path": "$.r.b" } }"#,
    ),
    (
        r#"{ "format": "csv", "event_time": { "path": "t", "format": "%d.%m.%Y %H:%M:%S", "timezone": "Europe/Berlin" } }"#,
        r#"{ "f": { "type": "utf8" }, "a": { "type": "int64" }, "b": { "type": "bool" } }"#,
    ),
];

thread_local! {
    static READY: RefCell<Vec<Box<dyn Decoder>>> = RefCell::new(DECODERS.iter().map(|(decode, columns)| made(decode, columns)).collect());
}

fn made(decode: &str, columns: &str) -> Box<dyn Decoder> {
    let decode: DecodeOptions = serde_json::from_str(decode).expect("options of a decoder");
    let columns: Columns = serde_json::from_str(columns).expect("declared columns");
    decoder(&decode, &columns, &["device".to_owned()], &["device".to_owned()]).expect("a decoder")
}

/// Messages through a decoder: the first byte chooses it, 0xff parts messages. Each message has rows, one reject, or neither.
pub fn decode(data: &[u8]) {
    let Some((choice, rest)) = data.split_first() else { return };
    let messages: Vec<_> =
        rest.split(|b| *b == 0xff).take(8).map(|payload| Message { topic: Some("t"), captures: &["d"], payload }).collect();
    READY.with_borrow_mut(|ready| {
        let decoder = &mut ready[usize::from(*choice) % DECODERS.len()];
        let decoded = decoder.decode(&messages, WallTime(1_767_225_600_000_000));
        assert_eq!(decoded.rows.schema_ref(), decoder.schema());
        assert_eq!(decoded.rows.num_rows(), decoded.messages.len());
        assert!(decoded.messages.is_sorted() && decoded.rejects.is_sorted_by_key(|r| r.message));
        let mut rejected = decoded.rejects.iter().map(|r| r.message);
        assert!(rejected.all(|message| decoded.messages.binary_search(&message).is_err()), "a message has rows and a reject");
    });
}

/// A topic pattern and a topic, parted by a zero: what fits has a value for each capture, and is made of the topic's levels.
pub fn topic(data: &[u8]) {
    let mut parts = data.splitn(2, |b| *b == 0).map(std::str::from_utf8);
    let (Some(Ok(pattern)), Some(Ok(topic))) = (parts.next(), parts.next()) else { return };
    let Ok(pattern) = TopicPattern::parse(pattern) else { return };
    let mut found = vec![];
    if pattern.match_into(topic, &mut found) {
        assert_eq!(found.len(), pattern.captures().len());
        assert!(found.iter().all(|value| topic.contains(value)));
    } else {
        assert!(found.is_empty());
    }
}

/// A segment of the journal: raw bytes after an even first byte, frames with right checksums after an odd one.
pub fn journal(data: &[u8]) {
    let Some((choice, rest)) = data.split_first() else { return };
    let bytes = if choice % 2 == 0 { rest.to_vec() } else { segment(rest) };
    // Whatever it says, it says it without a panic.
    let _ = ingest::journal::unread_on(&OneFile::new(bytes), Path::new("journal"), &[]);
}

/// Records of a lane: raw bytes of one after an even first byte; after an odd one the JSON of several, parted by 0xff, each with a right length
/// and checksum. What is read can be read again from its own bytes, and records fold onto one another or say why not.
pub fn record(data: &[u8]) {
    let Some((choice, rest)) = data.split_first() else { return };
    let files: Vec<Vec<u8>> = match choice % 2 {
        0 => vec![rest.to_vec()],
        _ => rest.split(|b| *b == 0xff).take(8).map(|json| record_file(u32::from(choice / 2), json)).collect(),
    };
    let path = Path::new("00000000000000000001.record");
    let records: Vec<_> = files.iter().filter_map(|bytes| epoch::decode(bytes, path).ok()).collect();
    for record in &records {
        // Not compared: the last digit of a fraction in the free part `watermark` may differ.
        epoch::decode(&epoch::encode(record), path).expect("what we wrote");
        let _ = record.files();
    }
    if let Ok(whole) = epoch::fold_all(&records) {
        let _ = whole.files();
    }
}

/// A record's file around any bytes: of a format that is read for most choices.
fn record_file(choice: u32, json: &[u8]) -> Vec<u8> {
    let format = if choice < 4 { choice } else { epoch::FORMAT };
    let mut bytes = b"tidegate".to_vec();
    bytes.extend_from_slice(&format.to_le_bytes());
    bytes.extend_from_slice(&u32::try_from(json.len()).expect("a short record").to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes), json);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes.extend_from_slice(json);
    bytes
}

/// The journal's id in made segments.
const ID: u64 = 7;

/// A segment with a frame for each piece of the bytes. Rows and lookup tables are left out: their bodies are Arrow's to read, and no bytes get
/// there but those that Arrow wrote.
fn segment(mut from: &[u8]) -> Vec<u8> {
    let mut bytes = b"TGJRNL\x02\x00".to_vec();
    [ID, 0, 0].iter().for_each(|n| bytes.extend_from_slice(&n.to_le_bytes()));
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
    frame(&mut bytes, 0, [6, 1, 0, 0], &0u32.to_le_bytes());
    for offset in 1..64 {
        let Some((head, rest)) = from.split_first_chunk::<5>() else { break };
        let (content, rest) = rest.split_at(rest.len().min(usize::from(head[4])));
        frame(&mut bytes, offset, [2 + head[0] % 5, head[1] & 1, head[2], head[3] % 4], content);
        from = rest;
    }
    bytes.extend_from_slice(from);
    bytes
}

/// Kind, flags, lane and number of publishes, then the content.
fn frame(to: &mut Vec<u8>, offset: u64, [kind, flags, lane, publishes]: [u8; 4], content: &[u8]) {
    let (seed, start) = (crc32c::crc32c(&ID.to_le_bytes()), to.len());
    to.extend_from_slice(b"TGfr");
    to.extend_from_slice(&u32::try_from(content.len()).expect("a short content").to_le_bytes());
    to.extend_from_slice(&offset.to_le_bytes());
    to.extend_from_slice(&0u64.to_le_bytes());
    to.extend_from_slice(&u32::from(lane).to_le_bytes());
    to.extend_from_slice(&[kind, flags]);
    to.extend_from_slice(&u32::from(publishes).to_le_bytes());
    to.extend_from_slice(&crc32c::crc32c_append(seed, content).to_le_bytes());
    let crc = crc32c::crc32c_append(seed, &to[start..]);
    to.extend_from_slice(&crc.to_le_bytes());
    to.extend_from_slice(content);
}
