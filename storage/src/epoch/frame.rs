//! A record as bytes (see the picture in `record`) and back, with every byte checked.

use super::{EpochError, FORMAT, Record, Result};
use std::path::Path;

const MAGIC: &[u8; 8] = b"tidegate";
const PREFIX: usize = 20;

/// The record's bytes: the same for the same record.
#[must_use]
pub fn encode(record: &Record) -> Vec<u8> {
    let json = serde_json::to_vec(record).expect("a record has string keys only");
    let length = u32::try_from(json.len()).expect("a record is far below 4 GiB");
    let mut out = Vec::with_capacity(PREFIX + json.len());
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&FORMAT.to_le_bytes());
    out.extend_from_slice(&length.to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&out), &json);
    out.extend_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(&json);
    out
}

/// The record in the bytes of the file `path`.
pub fn decode(bytes: &[u8], path: &Path) -> Result<Record> {
    let damaged = |byte: usize, what: String| EpochError::damaged(path, byte as u64, what);
    if bytes.len() < PREFIX {
        return Err(damaged(bytes.len(), format!("the file ends inside the {PREFIX} bytes before the record")));
    }
    if &bytes[..8] != MAGIC {
        return Err(damaged(0, "it does not begin with \"tidegate\"".into()));
    }
    let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let (format, length, crc) = (word(8), word(12) as usize, word(16));
    let json = &bytes[PREFIX..];
    if json.len() != length && format <= FORMAT {
        return Err(damaged(12, format!("the record should have {length} bytes and has {}", json.len())));
    }
    let found = crc32c::crc32c_append(crc32c::crc32c(&bytes[..16]), json);
    if found != crc {
        return Err(damaged(16, format!("checksum is {found:08x}, should be {crc:08x}")));
    }
    if format > FORMAT {
        return Err(EpochError::NewerFormat { path: path.to_owned(), found: format, ours: FORMAT });
    }
    serde_json::from_slice(json).map_err(|e| damaged(PREFIX + e.column().saturating_sub(1), e.to_string()))
}
