//! The lock on a directory that one process may use at a time.
//!
//! It holds as long as the value lives, and the kernel drops it with the process, however that ends. It says nothing about other
//! machines: a data directory lies on a local disk.

use flow::{Error, Remedy, Result};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;

/// Name of the lock's file inside the directory. It stays there; only the lock on it counts.
const NAME: &str = "lock";

/// A directory is ours until this is dropped.
#[derive(Debug)]
pub struct DirectoryLock {
    _file: File,
}

impl DirectoryLock {
    /// Takes the lock of `directory` (made if it is missing), or says which process has it.
    pub fn take(directory: &Path) -> Result<Self> {
        let at = |e| Error::stop(format!("locking {}", directory.display()), e);
        std::fs::create_dir_all(directory).map_err(at)?;
        let path = directory.join(NAME);
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(at)?;
        if !fs4::fs_std::FileExt::try_lock_exclusive(&file).map_err(at)? {
            let mut owner = String::new();
            file.read_to_string(&mut owner).map_err(at)?;
            return Err(Error::new(Remedy::Stop, format!("{} is in use by process {}", directory.display(), owner.trim())));
        }
        file.set_len(0).map_err(at)?;
        writeln!(file, "{}", std::process::id()).map_err(at)?;
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_owner_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let first = DirectoryLock::take(directory.path()).unwrap();
        let refused = DirectoryLock::take(directory.path()).unwrap_err();
        assert!(refused.to_string().contains(&std::process::id().to_string()), "{refused}");
        drop(first);
        DirectoryLock::take(directory.path()).unwrap();
    }
}
