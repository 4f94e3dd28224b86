//! The lock on a directory that one process may use at a time.
//!
//! It holds as long as the value lives, and the kernel drops it with the process, however that ends. Other machines see it where the file
//! system's locks reach over machines, as those of NFS do.

use flow::{Error, Result};
use std::path::Path;
use world::Disk;

/// A directory is ours until this is dropped.
pub struct DirectoryLock {
    _held: Box<dyn Send + Sync>,
}

impl DirectoryLock {
    /// Takes the lock of `directory` (made if it is missing), or says which process has it.
    pub fn take(disk: &dyn Disk, directory: &Path) -> Result<Self> {
        let held = disk.lock(directory).map_err(|e| Error::stop(format!("locking {}", directory.display()), e))?;
        Ok(Self { _held: held })
    }

    /// Takes a part in the lock of `directory`, which others may have too that share it; or says which process has it alone.
    pub fn share(disk: &dyn Disk, directory: &Path) -> Result<Self> {
        let held = disk.lock_with_others(directory).map_err(|e| Error::stop(format!("locking {}", directory.display()), e))?;
        Ok(Self { _held: held })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use world::LocalDisk;

    #[test]
    fn a_directory_has_one_owner_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let first = DirectoryLock::take(&LocalDisk, directory.path()).unwrap();
        let refused = DirectoryLock::take(&LocalDisk, directory.path()).err().unwrap();
        assert!(refused.to_string().contains(&std::process::id().to_string()), "{refused}");
        drop(first);
        DirectoryLock::take(&LocalDisk, directory.path()).unwrap();
    }

    #[test]
    fn those_who_share_a_directory_keep_out_who_wants_it_alone() {
        let directory = tempfile::tempdir().unwrap();
        let (one, other) =
            (DirectoryLock::share(&LocalDisk, directory.path()).unwrap(), DirectoryLock::share(&LocalDisk, directory.path()));
        let refused = DirectoryLock::take(&LocalDisk, directory.path()).err().unwrap();
        assert!(refused.to_string().contains("instances that share it"), "{refused}");
        drop((one, other));
        let _alone = DirectoryLock::take(&LocalDisk, directory.path()).unwrap();
        DirectoryLock::share(&LocalDisk, directory.path()).err().unwrap();
    }
}
