//! Power cuts: an ext4 of our own in a file, shut down without a flush of its log while Tidegate works on it. What no fsync has put on
//! disk is gone, as if the plug had been pulled. `make kills CUTS=50`.
//!
//! It needs root, loop devices and ext4's shutdown (`EXT4_IOC_SHUTDOWN`, Linux 4.16); where the machine refuses, that is said.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A disk that loses power.
pub(crate) struct Disk {
    image: PathBuf,
    /// Where it is mounted.
    pub(crate) at: PathBuf,
}

impl Disk {
    /// A new one in this folder; none where the machine does not allow it, which is written to standard error.
    pub(crate) fn new(folder: &Path) -> Option<Disk> {
        let disk = Disk { image: folder.join("image"), at: folder.join("disk") };
        std::fs::create_dir(&disk.at).expect("a folder");
        std::fs::File::create(&disk.image).and_then(|file| file.set_len(1 << 30)).expect("a sparse file");
        let image = disk.image.to_str().expect("temporary folders have UTF-8 names");
        if let Err(why) = run("mkfs.ext4", &["-q", image]).and_then(|()| disk.mount()) {
            // Written itself, so that it is seen also when the test passes.
            let _ = writeln!(std::io::stderr(), "NOT RUN: power cuts need root, a loop device and ext4: {why}");
            return None;
        }
        Some(disk)
    }

    /// What was not forced is gone from here on, and nothing can be written.
    pub(crate) fn cut(&self) {
        let flags_no_flush =
            "import fcntl, os, struct, sys; fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587d, struct.pack('I', 2))";
        run("python3", &["-c", flags_no_flush, &self.path()]).expect("ext4 shuts down");
    }

    /// Power is back. Nothing may have a file of it open.
    pub(crate) fn start(&self) {
        run("umount", &[&self.path()]).and_then(|()| self.mount()).expect("the disk comes back");
    }

    fn mount(&self) -> Result<(), String> {
        let image = self.image.to_str().expect("temporary folders have UTF-8 names");
        run("mount", &["-o", "loop", image, &self.path()])
    }

    fn path(&self) -> String {
        self.at.to_str().expect("temporary folders have UTF-8 names").to_owned()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a process that failed the test may still hold it.
        let _ = run("umount", &["-l", &self.path()]);
    }
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let done = Command::new(program).args(arguments).stdin(Stdio::null()).output().map_err(|e| format!("{program}: {e}"))?;
    if done.status.success() { Ok(()) } else { Err(format!("{program}: {}", String::from_utf8_lossy(&done.stderr).trim())) }
}
