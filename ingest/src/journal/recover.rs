//! What a start finds: the end of the log, the cut of a torn tail, and damage that must not be passed over.

use super::codec::{Content, decode_memory};
use super::file::{Segment, SegmentHeader, SegmentReader, Step, at, corrupt, list, seed, temporary};
use super::frame::Header;
use super::recent::Recent;
use super::{Body, Publish};
use flow::{Error, Result};
use std::io::Read;
use std::path::Path;
use world::{Bug, Disk, FileReader, Point, planted, reach};

/// A segment is copied in pieces of this many bytes.
const COPY_BYTES: usize = 1 << 20;

/// A journal as it was left.
pub(super) struct Recovered {
    pub(super) id: u64,
    pub(super) segments: Vec<Segment>,
    /// Everything below is there.
    pub(super) end: u64,
    pub(super) recent: Recent,
}

/// Checks every segment that is still to be read (those with frames at or above `from`) and rewrites the last one without its torn
/// tail. None for a directory without a journal. `known` is the highest position of a sealed record: it was on disk once.
pub(super) fn recover(disk: &dyn Disk, directory: &Path, from: u64, known: u64) -> Result<Option<Recovered>> {
    let Some(Found { id, mut segments, headers }) = find(disk, directory)? else { return Ok(None) };
    for (segment, following) in segments.iter().zip(&headers[1..]) {
        if following.follows > from {
            verify(disk, segment, seed(id), following.follows, |_, _| Ok(()))?;
        }
    }
    let last = segments.last_mut().expect("a journal that is found has a segment");
    let (end, recent) = salvage(disk, last, seed(id), known)?;
    disk.sync_dir(directory).map_err(at(directory))?;
    Ok(Some(Recovered { id, segments, end, recent }))
}

/// The segments of one journal, in order, each with its header; there is at least one.
pub(super) struct Found {
    pub(super) id: u64,
    pub(super) segments: Vec<Segment>,
    pub(super) headers: Vec<SegmentHeader>,
}

/// The journal in a directory; none where there is no journal yet.
pub(super) fn find(disk: &dyn Disk, directory: &Path) -> Result<Option<Found>> {
    if !disk.exists(directory).map_err(at(directory))? {
        return Ok(None);
    }
    let segments = list(disk, directory)?;
    let headers = segments.iter().map(|segment| SegmentHeader::read(disk, segment)).collect::<Result<Vec<_>>>()?;
    let Some(id) = headers.first().map(|h| h.id) else { return Ok(None) };
    if let Some(index) = headers.iter().position(|h| h.id != id) {
        return Err(corrupt(&segments[index].path, 8, &format!("it belongs to journal {:016x}, not {id:016x}", headers[index].id)));
    }
    Ok(Some(Found { id, segments, headers }))
}

/// The id of the journal in a directory; none where there is no journal yet.
pub(super) fn peek(disk: &dyn Disk, directory: &Path) -> Result<Option<u64>> {
    if !disk.exists(directory).map_err(at(directory))? {
        return Ok(None);
    }
    list(disk, directory)?.first().map(|segment| Ok(SegmentHeader::read(disk, segment)?.id)).transpose()
}

/// A segment that was ended must be whole up to where the next one takes over. `each` sees its frames.
pub(super) fn verify(
    disk: &dyn Disk,
    segment: &Segment,
    seed: u32,
    end: u64,
    mut each: impl FnMut(&Header, &[u8]) -> Result<()>,
) -> Result<()> {
    let mut reader = SegmentReader::open(disk, segment, seed)?;
    loop {
        let byte = reader.byte;
        match reader.step()? {
            Step::Frame(header, content) => each(&header, &content).map_err(|e| corrupt(&reader.path, byte, &e.to_string()))?,
            Step::Damage(what) => return Err(corrupt(&reader.path, reader.byte, what)),
            Step::End if reader.next == end => return Ok(()),
            Step::End => {
                let what = format!("it ends before offset {}, the next segment follows {end}", reader.next);
                return Err(corrupt(&reader.path, reader.byte, &what));
            }
        }
    }
}

/// Writes the whole groups of the last segment to a new file, which takes its place: after a failed fsync the page cache may show what
/// the disk does not hold. Gives the end and what may be delivered again.
fn salvage(disk: &dyn Disk, segment: &mut Segment, seed: u32, known: u64) -> Result<(u64, Recent)> {
    let (mut recent, mut again) = (Recent::default(), Recent::default());
    let memory = |header: &Header, content: &[u8]| decode_memory(header.kind, header.publishes, content);
    let found = whole_groups(disk, segment, seed, known, memory, |(publishes, content)| fold(&mut recent, publishes, content))?;
    let (end, edge) = found;
    if edge < segment.bytes {
        // A bit that flips in one read must not cut what was acknowledged.
        let second = whole_groups(disk, segment, seed, known, memory, |(publishes, content)| fold(&mut again, publishes, content))?;
        if second != found {
            return Err(unsteady(&segment.path, edge, second.1));
        }
    }
    if planted(Bug::NoCopyAtRecovery) {
        return Ok((end, recent));
    }
    rewrite(disk, segment, seed, end, edge)?;
    segment.bytes = edge;
    Ok((end, recent))
}

/// Takes what `read` makes of the frames of the last segment's whole groups; a torn tail is left out. Gives the end, and the byte where
/// it stands.
pub(super) fn whole_groups<T>(
    disk: &dyn Disk,
    segment: &Segment,
    seed: u32,
    known: u64,
    read: impl Fn(&Header, &[u8]) -> Result<T>,
    mut take: impl FnMut(T),
) -> Result<(u64, u64)> {
    let mut reader = SegmentReader::open(disk, segment, seed)?;
    let (mut end, mut edge, mut group) = (reader.next, reader.byte, Vec::new());
    let damage = loop {
        let byte = reader.byte;
        match reader.step()? {
            Step::Frame(header, content) => {
                group.push(read(&header, &content).map_err(|e| corrupt(&reader.path, byte, &e.to_string()))?);
                if header.last || planted(Bug::GroupsCutAnywhere) {
                    group.drain(..).for_each(&mut take);
                    (end, edge) = (reader.next, reader.byte);
                }
            }
            Step::End => break None,
            Step::Damage(what) => break Some(what),
        }
    };
    judge(&reader, segment.first, end, damage, known)?;
    Ok((end, edge))
}

/// Whether what stands behind the last whole group may be cut: not when it was on disk once.
fn judge(reader: &SegmentReader, first: u64, end: u64, damage: Option<&str>, known: u64) -> Result<()> {
    let byte = reader.byte;
    let corruption = |why: &str| {
        let what = damage.unwrap_or("the log ends here");
        Err(corrupt(&reader.path, byte, &format!("{what}, {why}; offset {end} is lost")))
    };
    if end == first {
        return corruption("the restatement was on disk before the segment had its name");
    }
    if damage.is_some() && known > end {
        return corruption(&format!("a sealed record has read up to {known}"));
    }
    if byte >= reader.length() {
        return Ok(());
    }
    let synced = reader.synced_behind()?;
    if synced > end && !planted(Bug::NoSyncedRule) {
        let what = damage.unwrap_or("zeros");
        return Err(corrupt(&reader.path, byte, &format!("{what}, but a later frame says that all below {synced} was on disk")));
    }
    Ok(())
}

fn fold(recent: &mut Recent, publishes: Vec<Publish>, content: Content) {
    match content {
        Content::Restatement(_) if planted(Bug::RestatementNotRead) => {}
        Content::Restatement(stated) => *recent = stated,
        Content::Body(Body::Connection { producer, connected, at }) => recent.connection(producer, connected, at),
        Content::Body(_) | Content::Note => {}
    }
    publishes.into_iter().for_each(|publish| recent.enter(publish));
}

/// Copies the first `length` bytes of a segment, reads them again, and puts the copy in the place of the segment.
fn rewrite(disk: &dyn Disk, segment: &Segment, seed: u32, end: u64, length: u64) -> Result<()> {
    let copy = Segment { path: temporary(&segment.path), first: segment.first, bytes: length };
    let failed = |e| Error::stop(format!("copying {} to recover it", segment.path.display()), e);
    let (from, to) = (disk.open(&segment.path).map_err(failed)?, disk.create(&copy.path).map_err(failed)?);
    let mut reader = FileReader::new(from, 0).take(length);
    let (mut chunk, mut copied) = (vec![0; COPY_BYTES], 0);
    loop {
        let read = reader.read(&mut chunk).map_err(failed)?;
        if read == 0 {
            break;
        }
        to.write_all_at(&chunk[..read], copied).map_err(failed)?;
        copied += read as u64;
    }
    assert_eq!(copied, length, "the copy of {} has another length than what was read", segment.path.display());
    // What follows is of this program's version.
    to.write_all_at(&SegmentHeader::read(disk, segment)?.encode(), 0).map_err(failed)?;
    if !planted(Bug::CopyNotForced) {
        to.sync_data().map_err(failed)?;
    }
    // The bytes were read once to be checked and once to be copied: a bit that flipped the second time would now be there for good.
    if !planted(Bug::CopyNotChecked) {
        SegmentHeader::read(disk, &copy)?;
        verify(disk, &copy, seed, end, |_, _| Ok(()))?;
    }
    reach(Point::JournalCopied);
    disk.rename(&copy.path, &segment.path).map_err(failed)?;
    reach(Point::JournalRenamed);
    Ok(())
}

fn unsteady(path: &Path, first: u64, second: u64) -> Error {
    let what = format!("journal segment {} reads as whole up to byte {first}, and up to byte {second} when read again", path.display());
    Error::new(flow::Remedy::Stop, what)
}
