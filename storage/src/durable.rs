//! Files that are on disk before anybody can see them: written under another name, fsynced, given their name, directory fsynced.
//!
//! A failed fsync may have lost pages for good, so a failed file is thrown away and never synced again: the caller writes it anew.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// What names of unfinished files end in; such files may be deleted when their writer is gone.
pub const UNFINISHED: &str = "tmp";

static NEXT_UNFINISHED: AtomicU64 = AtomicU64::new(0);

/// A file being written. Dropped without `publish` it leaves nothing behind.
#[derive(Debug)]
pub struct NewFile {
    target: PathBuf,
    unfinished: PathBuf,
    file: Option<BufWriter<File>>,
}

impl NewFile {
    /// Begins a file that will be `target`, in a directory that exists.
    pub fn create(target: &Path) -> io::Result<Self> {
        let mut name = target.file_name().ok_or_else(|| io::Error::other(format!("{} names no file", target.display())))?.to_os_string();
        let n = NEXT_UNFINISHED.fetch_add(1, Ordering::Relaxed);
        name.push(format!(".{}_{n}.{UNFINISHED}", std::process::id()));
        let unfinished = target.with_file_name(name);
        let file = File::options().write(true).create(true).truncate(true).open(&unfinished)?;
        Ok(Self { target: target.to_owned(), unfinished, file: Some(BufWriter::new(file)) })
    }

    /// Makes the bytes durable and gives the file its name. `AlreadyExists` when the name is taken; that file is left as it is.
    ///
    /// After another error the name may or may not be given: look, or publish the same bytes again.
    pub fn publish(mut self) -> io::Result<()> {
        self.sync()?;
        fs::hard_link(&self.unfinished, &self.target)?;
        fs::remove_file(&self.unfinished)?;
        sync_parent(&self.target)
    }

    /// As `publish`, but in place of what may stand under the name.
    pub fn replace(mut self) -> io::Result<()> {
        self.sync()?;
        fs::rename(&self.unfinished, &self.target)?;
        sync_parent(&self.target)
    }

    fn sync(&mut self) -> io::Result<()> {
        let writer = self.file.take().ok_or_else(|| io::Error::other("file is closed"))?;
        writer.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
    }
}

impl Write for NewFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.as_mut().ok_or_else(|| io::Error::other("file is closed"))?.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.as_mut().map_or(Ok(()), Write::flush)
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        // After `publish` and `replace` it is gone already; what cannot be deleted here goes at the next clean-up.
        let _ = fs::remove_file(&self.unfinished);
    }
}

/// Creates a durable file with these bytes. `AlreadyExists` when the name is taken; see `NewFile::publish`.
pub fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = NewFile::create(path)?;
    file.write_all(bytes)?;
    file.publish()
}

/// Creates or replaces a durable file with these bytes: readers see the old ones or the new ones.
pub fn write_over(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = NewFile::create(path)?;
    file.write_all(bytes)?;
    file.replace()
}

/// Creates a directory and those above it, each durable in its parent.
pub fn create_dir_all(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
    if let Some(parent) = parent {
        create_dir_all(parent)?;
    }
    match fs::create_dir(path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
        other => other?,
    }
    sync_dir(parent.unwrap_or(Path::new(".")))
}

/// Makes what a file holds durable, whoever wrote it.
pub fn sync_file(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Makes the names in a directory durable.
pub fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn sync_parent(path: &Path) -> io::Result<()> {
    sync_dir(path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_name_keeps_its_bytes_and_nothing_unfinished_stays() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b");
        create_dir_all(&deep).unwrap();
        let path = deep.join("x");
        write_new(&path, b"one").unwrap();
        assert_eq!(write_new(&path, b"two").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"one");
        write_over(&path, b"three").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"three");
        drop(NewFile::create(&deep.join("y")).unwrap());
        assert_eq!(fs::read_dir(&deep).unwrap().count(), 1);
    }
}
