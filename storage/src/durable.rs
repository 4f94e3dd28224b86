//! Files that are on disk before anybody can see them: written under another name, fsynced, given their name, directory fsynced.
//!
//! A failed fsync may have lost pages for good, so a failed file is thrown away and never synced again: the caller writes it anew.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use world::{Bug, Disk, DiskFile, Point, planted, reach, sync_parent};

/// What names of unfinished files end in; such files may be deleted when their writer is gone.
pub const UNFINISHED: &str = "tmp";

static NEXT_UNFINISHED: AtomicU64 = AtomicU64::new(0);

/// A file being written. Dropped without `publish` it leaves nothing behind.
#[derive(Debug)]
pub struct NewFile<'a> {
    disk: &'a dyn Disk,
    target: PathBuf,
    unfinished: PathBuf,
    file: Arc<dyn DiskFile>,
    length: u64,
}

impl<'a> NewFile<'a> {
    /// Begins a file that will be `target`, in a directory that exists.
    pub fn create(disk: &'a dyn Disk, target: &Path) -> io::Result<Self> {
        let mut name = target.file_name().ok_or_else(|| io::Error::other(format!("{} names no file", target.display())))?.to_os_string();
        let n = NEXT_UNFINISHED.fetch_add(1, Ordering::Relaxed);
        name.push(format!(".{}_{n}.{UNFINISHED}", std::process::id()));
        let unfinished = target.with_file_name(name);
        let file = disk.create(&unfinished)?;
        Ok(Self { disk, target: target.to_owned(), unfinished, file, length: 0 })
    }

    /// Adds bytes at the end. Meant for large pieces: there is no buffer.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, self.length)?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Makes the bytes durable and gives the file its name. `AlreadyExists` when the name is taken; that file is left as it is.
    ///
    /// After another error the name may or may not be given: look, or publish the same bytes again.
    pub fn publish(self) -> io::Result<()> {
        if !planted(Bug::FilesNamedBeforeFsync) {
            self.file.sync_data()?;
        }
        if planted(Bug::TakenNamesReplaced) {
            self.disk.rename(&self.unfinished, &self.target)?;
            return sync_parent(self.disk, &self.target);
        }
        reach(Point::FileForced);
        self.disk.link(&self.unfinished, &self.target)?;
        reach(Point::FileNamed);
        self.disk.remove(&self.unfinished)?;
        if planted(Bug::NoFsyncOfDirectories) {
            return Ok(());
        }
        sync_parent(self.disk, &self.target)
    }

    /// As `publish`, but in place of what may stand under the name.
    pub fn replace(self) -> io::Result<()> {
        self.file.sync_data()?;
        self.disk.rename(&self.unfinished, &self.target)?;
        sync_parent(self.disk, &self.target)
    }
}

impl Drop for NewFile<'_> {
    fn drop(&mut self) {
        // After `publish` and `replace` it is gone already; what cannot be deleted here goes at the next clean-up.
        let _ = self.disk.remove(&self.unfinished);
    }
}

/// Creates a durable file with these bytes. `AlreadyExists` when the name is taken; see `NewFile::publish`.
pub fn write_new(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = NewFile::create(disk, path)?;
    file.append(bytes)?;
    file.publish()
}

/// Creates or replaces a durable file with these bytes: readers see the old ones or the new ones.
pub fn write_over(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = NewFile::create(disk, path)?;
    file.append(bytes)?;
    file.replace()
}

/// Creates a directory and those above it, each durable in its parent: also one that is there, since whoever made it may have crashed
/// before its name was on disk, and then all that lies in it would go with the power.
pub fn create_dir_all(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
    if planted(Bug::DirectoriesTrusted) && disk.exists(path)? {
        return Ok(());
    }
    if let Some(parent) = parent {
        create_dir_all(disk, parent)?;
    }
    let there = disk.exists(path)?;
    if !there {
        match disk.create_dir(path) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            made => made?,
        }
    }
    match disk.sync_dir(parent.unwrap_or(Path::new("."))) {
        // Where we may not even look, we have not made it.
        Err(e) if there && e.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        synced => synced,
    }
}

/// Makes what a file holds durable, whoever wrote it.
pub fn sync_file(disk: &dyn Disk, path: &Path) -> io::Result<()> {
    disk.open(path)?.sync_data()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use world::LocalDisk;

    #[test]
    fn a_taken_name_keeps_its_bytes_and_nothing_unfinished_stays() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b");
        create_dir_all(&LocalDisk, &deep).unwrap();
        let path = deep.join("x");
        write_new(&LocalDisk, &path, b"one").unwrap();
        assert_eq!(write_new(&LocalDisk, &path, b"two").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"one");
        write_over(&LocalDisk, &path, b"three").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"three");
        drop(NewFile::create(&LocalDisk, &deep.join("y")).unwrap());
        assert_eq!(fs::read_dir(&deep).unwrap().count(), 1);
    }
}
