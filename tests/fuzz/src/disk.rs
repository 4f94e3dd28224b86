//! A disk with one file that can only be read.

use std::io::{Error, ErrorKind, Result};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;
use world::{Disk, DiskFile, Entry};

/// The first segment of a journal, in any directory.
#[derive(Debug)]
pub(crate) struct OneFile(Arc<Bytes>);

#[derive(Debug)]
struct Bytes(Vec<u8>);

impl OneFile {
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        Self(Arc::new(Bytes(bytes)))
    }

    fn path(directory: &Path) -> PathBuf {
        directory.join("00000000000000000000.log")
    }
}

fn refused<T>() -> Result<T> {
    Err(Error::from(ErrorKind::Unsupported))
}

impl Disk for OneFile {
    fn create(&self, _: &Path) -> Result<Arc<dyn DiskFile>> {
        refused()
    }
    fn open(&self, _: &Path) -> Result<Arc<dyn DiskFile>> {
        Ok(self.0.clone())
    }
    fn rename(&self, _: &Path, _: &Path) -> Result<()> {
        refused()
    }
    fn link(&self, _: &Path, _: &Path) -> Result<()> {
        refused()
    }
    fn remove(&self, _: &Path) -> Result<()> {
        refused()
    }
    fn create_dir(&self, _: &Path) -> Result<()> {
        refused()
    }
    fn sync_dir(&self, _: &Path) -> Result<()> {
        refused()
    }
    fn list(&self, path: &Path) -> Result<Vec<Entry>> {
        Ok(vec![Entry { path: Self::path(path), is_dir: false }])
    }
    fn exists(&self, _: &Path) -> Result<bool> {
        Ok(true)
    }
    fn free_bytes(&self, _: &Path) -> Result<u64> {
        refused()
    }
    fn modified(&self, _: &Path) -> Result<SystemTime> {
        refused()
    }
    fn lock(&self, _: &Path) -> Result<Box<dyn Send + Sync>> {
        refused()
    }
}

impl DiskFile for Bytes {
    fn read_at(&self, into: &mut [u8], offset: u64) -> Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|at| self.0.get(at..)).unwrap_or_default();
        let read = rest.len().min(into.len());
        into[..read].copy_from_slice(&rest[..read]);
        Ok(read)
    }
    fn write_all_at(&self, _: &[u8], _: u64) -> Result<()> {
        refused()
    }
    fn allocate(&self, _: u64) -> Result<()> {
        refused()
    }
    fn set_len(&self, _: u64) -> Result<()> {
        refused()
    }
    fn sync_data(&self) -> Result<()> {
        refused()
    }
    fn length(&self) -> Result<u64> {
        Ok(self.0.len() as u64)
    }
}
