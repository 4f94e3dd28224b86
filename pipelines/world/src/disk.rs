//! A disk, as far as durability goes: what is written, what is forced, and names, which are forced by their directory.
//!
//! Promised by every implementation: after a crash the bytes of a file are those of its last successful `sync_data`, with any part of
//! what was written since; a name is there as at the last successful `sync_dir` of its directory, with any part of what was renamed,
//! linked or removed since. After a failed `sync_data` the bytes that it should have forced may be lost, even if a later one succeeds.
//! After any other error the effect may or may not have happened.

use std::fmt::Debug;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

/// A disk. All calls block.
pub trait Disk: Send + Sync + Debug {
    /// Makes a file to read and write, empty; one that is there is emptied.
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// Opens a file to read.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// Gives a file another name, in place of the file that may have it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Gives a file a second name; `AlreadyExists` when it is taken.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Takes a name from a file; `NotFound` when there is none.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes one directory; `AlreadyExists` when it is there.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// Forces the names in a directory to disk.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// The names in a directory, in no order; `NotFound` when it is absent.
    fn list(&self, path: &Path) -> io::Result<Vec<Entry>>;
    /// Whether a file or directory has this name.
    fn exists(&self, path: &Path) -> io::Result<bool>;
    /// Bytes that may still be written below a directory.
    fn free_bytes(&self, path: &Path) -> io::Result<u64>;
    /// When a file was last written.
    fn modified(&self, path: &Path) -> io::Result<SystemTime>;
    /// Takes the lock of a directory, made if it is missing; it holds as long as what is returned, and as the process. An error of kind
    /// `ResourceBusy` says who has it.
    fn lock(&self, directory: &Path) -> io::Result<Box<dyn Send + Sync>>;
    /// The same, of a lock that several processes may have at once, while none has it alone; a disk of one process has no others.
    fn lock_with_others(&self, directory: &Path) -> io::Result<Box<dyn Send + Sync>> {
        self.lock(directory)
    }
}

/// An open file.
pub trait DiskFile: Send + Sync + Debug {
    /// Reads up to as many bytes as `into` holds; 0 at the end of the file.
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all bytes at `offset`. After an error any part of them may be there.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Reserves room and lengthens the file with zeros, where the file system can; `Unsupported` where not.
    fn allocate(&self, length: u64) -> io::Result<()>;
    /// Cuts or lengthens the file.
    fn set_len(&self, length: u64) -> io::Result<()>;
    /// Forces bytes and length to disk.
    fn sync_data(&self) -> io::Result<()>;
    /// The file's length in bytes.
    fn length(&self) -> io::Result<u64>;
}

/// A name in a directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// The whole path.
    pub path: PathBuf,
    /// Whether it is a directory.
    pub is_dir: bool,
}

/// Reads a file from a place on.
#[derive(Debug)]
pub struct FileReader {
    file: Arc<dyn DiskFile>,
    at: u64,
}

impl FileReader {
    /// Begins at `at`.
    #[must_use]
    pub fn new(file: Arc<dyn DiskFile>, at: u64) -> Self {
        Self { file, at }
    }
}

impl Read for FileReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(into, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

/// All bytes of a file.
pub fn read(disk: &dyn Disk, path: &Path) -> io::Result<Vec<u8>> {
    let file = disk.open(path)?;
    let mut bytes = Vec::with_capacity(usize::try_from(file.length()?).unwrap_or_default());
    FileReader::new(file, 0).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Forces a file's name to disk.
pub fn sync_parent(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    disk.sync_dir(path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")))
}

/// Whether an error says that the disk is full.
#[must_use]
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
