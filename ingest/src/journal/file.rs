//! Segment files: made, listed, and read frame by frame.

use super::bytes::{Take, put_u64};
use super::codec::EncodedFrame;
use super::frame::{HEADER, Header, MARK};
use flow::{Error, Remedy, Result};
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use world::{Bug, Disk, DiskFile, Entry, FileReader, planted};

/// The first bytes of a segment; the version of the format follows, in two bytes.
const MAGIC: [u8; 6] = *b"TGJRNL";
/// The version that is written, and the newest that is read. 2 added frames of lookup tables, 3 the packet id to
/// what a publish is known by: an earlier publish that comes again is taken as a new one.
pub(super) const VERSION: u16 = 3;
/// Length of a segment's header.
pub(super) const SEGMENT_HEADER: usize = 36;
const ENDING: &str = "log";
const TEMPORARY: &str = "tmp";

/// One file of the journal.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) path: PathBuf,
    /// Its first offset, which is its name.
    pub(super) first: u64,
    pub(super) bytes: u64,
}

/// What a segment says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) id: u64,
    pub(super) first: u64,
    /// The end of the segment before it.
    pub(super) follows: u64,
}

/// The seed of every checksum of the journal with this id.
pub(super) fn seed(id: u64) -> u32 {
    crc32c::crc32c(&id.to_le_bytes())
}

pub(super) fn corrupt(path: &Path, byte: u64, what: &str) -> Error {
    Error::new(Remedy::Stop, format!("journal segment {} is damaged at byte {byte}: {what}", path.display()))
}

pub(super) fn at(path: &Path) -> impl Fn(io::Error) -> Error {
    move |e| Error::stop(format!("journal file {}", path.display()), e)
}

/// Where a file is prepared before it is renamed to `path`.
pub(super) fn temporary(path: &Path) -> PathBuf {
    path.with_extension(TEMPORARY)
}

/// The segments in order. What a crash left half made is no segment.
pub(super) fn list(disk: &dyn Disk, directory: &Path) -> Result<Vec<Segment>> {
    let mut segments = Vec::new();
    for Entry { path, .. } in disk.list(directory).map_err(at(directory))? {
        let ending = path.extension().and_then(|e| e.to_str());
        if ending == Some(ENDING)
            && let Some(first) = path.file_stem().and_then(|s| s.to_str()).and_then(|s| s.parse().ok())
        {
            let bytes = disk.open(&path).and_then(|file| file.length()).map_err(at(&path))?;
            segments.push(Segment { path, first, bytes });
        }
    }
    segments.sort_by_key(|s| s.first);
    Ok(segments)
}

/// Removes what a crash left half made. Only for the owner of the directory.
pub(super) fn clean(disk: &dyn Disk, directory: &Path) -> Result<()> {
    for Entry { path, .. } in disk.list(directory).map_err(at(directory))? {
        if path.extension().is_some_and(|e| e == TEMPORARY) {
            disk.remove(&path).map_err(at(&path))?;
        }
    }
    Ok(())
}

/// Makes a segment that begins with a restatement, on disk under its name before this returns. `allocate`
/// bytes behind that are preallocated. Gives the file and its length so far.
pub(super) fn create(
    disk: &dyn Disk,
    directory: &Path,
    header: SegmentHeader,
    recent: &EncodedFrame,
    allocate: u64,
) -> io::Result<(Arc<dyn DiskFile>, Segment)> {
    let mut bytes = header.encode();
    let frame = Header {
        length: recent.content.len() as u32,
        offset: header.first,
        synced: header.first,
        lane: recent.lane,
        kind: recent.kind,
        last: true,
        publishes: 0,
        crc: recent.crc,
    };
    frame.encode(&mut bytes, seed(header.id));
    bytes.extend_from_slice(&recent.content);
    let path = directory.join(format!("{:020}.{ENDING}", header.first));
    let temporary = temporary(&path);
    let file = disk.create(&temporary)?;
    match file.allocate(bytes.len() as u64 + allocate) {
        Err(e) if e.kind() == io::ErrorKind::Unsupported => tracing::debug!("this file system cannot preallocate"),
        done => done?,
    }
    file.write_all_at(&bytes, 0)?;
    if !planted(Bug::SegmentNamedBeforeFsync) {
        file.sync_data()?;
    }
    disk.rename(&temporary, &path)?;
    if !planted(Bug::NoFsyncOfJournalDirectory) {
        disk.sync_dir(directory)?;
    }
    Ok((file, Segment { path, first: header.first, bytes: bytes.len() as u64 }))
}

impl SegmentHeader {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        put_u64(&mut bytes, self.id);
        put_u64(&mut bytes, self.first);
        put_u64(&mut bytes, self.follows);
        let crc = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads and checks the header of a segment.
    pub(super) fn read(disk: &dyn Disk, segment: &Segment) -> Result<Self> {
        let mut bytes = [0; SEGMENT_HEADER];
        let broken = |what: &str| corrupt(&segment.path, 0, what);
        let file = disk.open(&segment.path).map_err(at(&segment.path))?;
        FileReader::new(file, 0).read_exact(&mut bytes).map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => broken("the segment's header is cut"),
            _ => at(&segment.path)(e),
        })?;
        let (front, crc) = bytes.split_at(SEGMENT_HEADER - 4);
        if front[..6] != MAGIC || crc32c::crc32c(front).to_le_bytes() != crc {
            return Err(broken("the segment's header does not fit its checksum"));
        }
        let version = u16::from_le_bytes([front[6], front[7]]);
        if version > VERSION {
            let path = segment.path.display();
            let what = format!("journal segment {path} has version {version} of the format, this program reads up to {VERSION}");
            return Err(Error::new(Remedy::Stop, what));
        }
        let mut take = Take::new(&front[8..]);
        let header = Self { id: take.u64()?, first: take.u64()?, follows: take.u64()? };
        if header.first != segment.first {
            return Err(broken(&format!("the header says offset {}, the name {}", header.first, segment.first)));
        }
        Ok(header)
    }
}

/// Reads a segment from its first frame on, one frame in memory at a time.
pub(super) struct SegmentReader {
    file: Arc<dyn DiskFile>,
    reader: BufReader<FileReader>,
    pub(super) path: PathBuf,
    seed: u32,
    length: u64,
    /// Where the next frame begins.
    pub(super) byte: u64,
    /// The offset that the next frame must have.
    pub(super) next: u64,
}

/// What stands at the reader's place.
pub(super) enum Step {
    Frame(Header, Vec<u8>),
    /// Zeros or the end of the file.
    End,
    Damage(&'static str),
}

impl SegmentReader {
    pub(super) fn open(disk: &dyn Disk, segment: &Segment, seed: u32) -> Result<Self> {
        let file = disk.open(&segment.path).map_err(at(&segment.path))?;
        let length = file.length().map_err(at(&segment.path))?;
        let reader = BufReader::with_capacity(chunk(length), FileReader::new(file.clone(), SEGMENT_HEADER as u64));
        Ok(Self { file, reader, path: segment.path.clone(), seed, length, byte: SEGMENT_HEADER as u64, next: segment.first })
    }

    pub(super) fn length(&self) -> u64 {
        self.length
    }

    pub(super) fn step(&mut self) -> Result<Step> {
        if self.byte >= self.length {
            return Ok(Step::End);
        }
        if self.length - self.byte < HEADER as u64 {
            return Ok(Step::Damage("a frame's header is cut"));
        }
        let mut bytes = [0; HEADER];
        self.reader.read_exact(&mut bytes).map_err(at(&self.path))?;
        let Some(header) = Header::decode(&bytes, self.seed) else {
            return Ok(if bytes == [0; HEADER] { Step::End } else { Step::Damage("a frame's header does not fit its checksum") });
        };
        if header.offset != self.next {
            return Ok(Step::Damage("a frame has another offset than the one before it leads to"));
        }
        if self.length - self.byte - (HEADER as u64) < u64::from(header.length) {
            return Ok(Step::Damage("a frame is cut"));
        }
        let mut content = vec![0; header.length as usize];
        self.reader.read_exact(&mut content).map_err(at(&self.path))?;
        if crc32c::crc32c_append(self.seed, &content) != header.crc {
            return Ok(Step::Damage("a frame does not fit its checksum"));
        }
        self.byte += (HEADER + content.len()) as u64;
        self.next += 1;
        Ok(Step::Frame(header, content))
    }

    /// The greatest `synced` that a frame's header behind the reader's place tells of: 0 where there is none.
    pub(super) fn synced_behind(&self) -> Result<u64> {
        let failed = at(&self.path);
        let mut behind = FileReader::new(self.file.clone(), self.byte);
        let (mut window, mut chunk, mut synced) = (Vec::new(), vec![0; chunk(self.length)], 0);
        loop {
            let read = behind.read(&mut chunk).map_err(&failed)?;
            if read == 0 {
                return Ok(synced);
            }
            window.extend_from_slice(&chunk[..read]);
            for place in marks(&window) {
                if let Some(bytes) = window[place..].first_chunk::<HEADER>()
                    && let Some(header) = Header::decode(bytes, self.seed)
                {
                    synced = synced.max(header.synced);
                }
            }
            let known = window.len().saturating_sub(HEADER - 1);
            window.drain(..known);
        }
    }
}

/// How much of a file of this length is read at a time.
fn chunk(length: u64) -> usize {
    const MOST: u64 = 1 << 20;
    length.clamp(1, MOST) as usize
}

/// Where a frame may begin.
fn marks(window: &[u8]) -> impl Iterator<Item = usize> + '_ {
    let rest = if window.iter().all(|b| *b == 0) { &[] } else { window };
    rest.windows(MARK.len()).enumerate().filter_map(|(place, bytes)| (bytes == MARK).then_some(place))
}
