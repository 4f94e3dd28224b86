//! What stands in a journal and in no sealed record yet: asked of a directory that nobody owns, without changing it.

use super::Body;
use super::codec::{Content, decode};
use super::file::seed;
use super::frame::{EVERY_LANE, Header};
use super::open::name;
use super::recover::{Found, find, verify, whole_groups};
use flow::{Positions, Result};
use std::collections::BTreeMap;
use std::path::Path;
use world::{Disk, LocalDisk};

/// How many rows and rejected messages of the journal in `directory` its lanes have not taken; 0 where there is no journal.
///
/// `positions` has lanes by name: those of this journal, `<journal id>/<n>`, count from their position in it, its lanes that are not there
/// from the start, and others do not matter. Takes no lock and writes nothing; only for a journal that is not open. A torn tail is left
/// out. Damage that would stop the journal from being opened is told.
pub fn unread(directory: &Path, positions: &[(String, Positions)]) -> Result<u64> {
    unread_on(&LocalDisk, directory, positions)
}

/// As `unread`, on any disk.
pub fn unread_on(disk: &dyn Disk, directory: &Path, positions: &[(String, Positions)]) -> Result<u64> {
    let Some(Found { id, segments, headers }) = find(disk, directory)? else { return Ok(0) };
    let from = lanes(&name(id), positions);
    let least = from.values().copied().min().unwrap_or_default();
    let known = from.values().copied().max().unwrap_or_default();
    let mut count = 0;
    for (segment, following) in segments.iter().zip(&headers[1..]) {
        let read = verify(disk, segment, seed(id), following.follows, |header, content| {
            count += readings(header, content, &from)?;
            Ok(())
        });
        match read {
            Err(error) if following.follows <= least => tracing::debug!(%error, "every lane has sealed past the damage"),
            read => read?,
        }
    }
    let last = segments.last().expect("a journal that is found has a segment");
    whole_groups(disk, last, seed(id), known, |header, content| readings(header, content, &from), |more| count += more)?;
    Ok(count)
}

/// The positions of this journal's lanes, by number.
fn lanes(id: &str, positions: &[(String, Positions)]) -> BTreeMap<u32, u64> {
    let number = |lane: &str| lane.strip_prefix(id)?.strip_prefix('/')?.parse().ok();
    positions.iter().filter_map(|(lane, positions)| Some((number(lane)?, positions.next(id).0))).collect()
}

/// How many readings a frame has that its lane has not taken.
fn readings(header: &Header, content: &[u8], from: &BTreeMap<u32, u64>) -> Result<u64> {
    let taken = from.get(&header.lane).is_some_and(|next| header.offset < *next);
    if taken || header.lane == EVERY_LANE {
        return Ok(0);
    }
    Ok(match decode(header.kind, header.publishes, content)? {
        Content::Body(Body::Rows(batch)) => batch.rows().num_rows() as u64,
        Content::Body(Body::Rejects(rejects)) => rejects.len() as u64,
        _ => 0,
    })
}
