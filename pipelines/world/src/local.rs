//! The disk of this machine.

use crate::disk::{Disk, DiskFile, Entry};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

/// Name of the lock's file inside a directory. It stays there; only the lock on it counts, and the kernel drops that with the process.
const LOCK: &str = "lock";

/// The files of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct LocalDisk;

/// The disk of this machine.
#[must_use]
pub fn local_disk() -> Arc<dyn Disk> {
    Arc::new(LocalDisk)
}

impl Disk for LocalDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(File::options().read(true).write(true).create(true).truncate(true).open(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(File::open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        fs::create_dir(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        fs::read_dir(path)?.map(|entry| entry.map(|e| Entry { path: e.path(), is_dir: e.path().is_dir() })).collect()
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        path.try_exists()
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        fs4::available_space(path)
    }

    fn modified(&self, path: &Path) -> io::Result<SystemTime> {
        fs::metadata(path)?.modified()
    }

    fn lock(&self, directory: &Path) -> io::Result<Box<dyn Send + Sync>> {
        take_lock(directory, fs4::fs_std::FileExt::try_lock_exclusive, &format!("process {}", std::process::id()))
    }

    fn lock_with_others(&self, directory: &Path) -> io::Result<Box<dyn Send + Sync>> {
        take_lock(directory, fs4::fs_std::FileExt::try_lock_shared, "instances that share it")
    }
}

/// `owner` is what others are told who find the lock taken.
fn take_lock(directory: &Path, take: fn(&File) -> io::Result<bool>, owner: &str) -> io::Result<Box<dyn Send + Sync>> {
    fs::create_dir_all(directory)?;
    let path = directory.join(LOCK);
    let mut file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
    if !take(&file)? {
        let mut owner = String::new();
        file.read_to_string(&mut owner)?;
        return Err(io::Error::new(io::ErrorKind::ResourceBusy, format!("it is in use by {}", owner.trim())));
    }
    // Over the old one, whose block is ours: so there is room on a full disk too.
    let owner = format!("{owner}\n");
    FileExt::write_all_at(&file, owner.as_bytes(), 0)?;
    file.set_len(owner.len() as u64)?;
    Ok(Box::new(file))
}

impl DiskFile for File {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, into, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        FileExt::write_all_at(self, bytes, offset)
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        fs4::fs_std::FileExt::allocate(self, length)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        File::set_len(self, length)
    }

    fn sync_data(&self) -> io::Result<()> {
        File::sync_data(self)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::read;

    #[test]
    fn a_file_is_written_forced_renamed_and_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("a"), folder.path().join("b"));
        let file = LocalDisk.create(&from).unwrap();
        file.write_all_at(b"tide", 2).unwrap();
        file.sync_data().unwrap();
        LocalDisk.rename(&from, &to).unwrap();
        LocalDisk.sync_dir(folder.path()).unwrap();
        assert_eq!(read(&LocalDisk, &to).unwrap(), b"\0\0tide");
        assert!(!LocalDisk.exists(&from).unwrap());
        assert_eq!(LocalDisk.link(&to, &to).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    }

    #[test]
    fn a_lock_is_held_once_and_says_by_whom() {
        let folder = tempfile::tempdir().unwrap();
        let held = LocalDisk.lock(folder.path()).unwrap();
        let refused = LocalDisk.lock(folder.path()).err().unwrap();
        assert_eq!(refused.kind(), io::ErrorKind::ResourceBusy);
        assert!(refused.to_string().contains(&std::process::id().to_string()), "{refused}");
        drop(held);
        LocalDisk.lock(folder.path()).unwrap();
    }
}
