//! A disk that keeps its promises (see `world::Disk`) and not one more.
//!
//! A file has the bytes that readers see and the bytes that are on the medium; what was written since the last fsync is known by sector. A power cut
//! keeps any subset of those sectors, and any subset of the names that were given or taken since their directory was forced. A failed fsync
//! forces some sectors and forgets that the others were ever written.

use crate::clockwork::{Process, Sim};
use crate::coverage::{Fault, place};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use world::{Disk, DiskFile, Entry};

const SECTOR: usize = 512;
/// A full disk stays so for this long.
const FULL: Duration = Duration::from_secs(3);

/// The medium and its cache: they outlive every process.
#[derive(Default)]
pub(crate) struct Medium {
    state: Mutex<Files>,
}

#[derive(Default)]
struct Files {
    inodes: BTreeMap<u64, Inode>,
    next: u64,
    seen: BTreeMap<PathBuf, Node>,
    durable: BTreeMap<PathBuf, Node>,
    pending: BTreeMap<PathBuf, Vec<Name>>,
    locks: BTreeMap<PathBuf, u64>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Node {
    Dir,
    File(u64),
}

/// A name given or taken, not forced yet.
#[derive(Clone, Debug)]
enum Name {
    Give(PathBuf, Node),
    Take(PathBuf),
    Move(PathBuf, PathBuf, Node),
}

#[derive(Default, Debug)]
struct Inode {
    seen: Vec<u8>,
    durable: Vec<u8>,
    dirty: BTreeSet<usize>,
    resized: bool,
    /// The wall clock at the last write, in microseconds.
    written: u64,
    /// Where the last write began.
    last_write: usize,
    last_bytes: Vec<u8>,
}

/// Where a bit flipped, to flip it back.
#[derive(Clone, Copy)]
pub(crate) struct Rot {
    inode: u64,
    bit: usize,
}

impl Medium {
    fn files(&self) -> MutexGuard<'_, Files> {
        self.state.lock().unwrap()
    }

    /// Whether some file below `folder` that would survive a power cut holds these bytes.
    pub(crate) fn holds(&self, folder: &Path, needle: &[u8]) -> bool {
        let files = self.files();
        let finder = memchr::memmem::Finder::new(needle);
        files
            .durable
            .range(folder.to_owned()..)
            .take_while(|(path, _)| path.starts_with(folder))
            .any(|(_, node)| matches!(node, Node::File(id) if finder.find(&files.inodes[id].durable).is_some()))
    }

    /// All files below a folder.
    pub(crate) fn names(&self, folder: &Path) -> Vec<PathBuf> {
        let files = self.files();
        let below = files.seen.range(folder.to_owned()..).take_while(|(path, _)| path.starts_with(folder));
        below.filter(|(_, node)| matches!(node, Node::File(_))).map(|(path, _)| path.clone()).collect()
    }

    /// The power goes: of what was not forced, `sim` chooses what stays.
    pub(crate) fn power_cut(&self, sim: &Sim) {
        let mut files = self.files();
        let style = sim.below(4);
        let keep = |sim: &Sim| match style {
            0 => false,
            1 => true,
            _ => sim.below(2) == 0,
        };
        let names: BTreeMap<u64, PathBuf> =
            files.seen.iter().filter_map(|(path, node)| if let Node::File(id) = node { Some((*id, path.clone())) } else { None }).collect();
        for (id, inode) in &mut files.inodes {
            let mut lost = false;
            let length = if !inode.resized || !keep(sim) { inode.durable.len() } else { inode.seen.len() };
            lost |= inode.resized && length != inode.seen.len();
            inode.durable.resize(length, 0);
            for sector in std::mem::take(&mut inode.dirty) {
                if keep(sim) {
                    copy_sector(&inode.seen, &mut inode.durable, sector);
                } else {
                    lost = true;
                }
            }
            (inode.seen, inode.resized) = (inode.durable.clone(), false);
            if let (true, Some(path)) = (lost, names.get(id)) {
                sim.met(Fault::Lost, place(path, false));
            }
        }
        for (folder, pending) in std::mem::take(&mut files.pending) {
            for name in pending {
                if keep(sim) {
                    name.apply(&mut files.durable);
                } else {
                    sim.met(Fault::Lost, place(&folder.join("x"), false));
                }
            }
        }
        let all: Vec<PathBuf> = files.durable.keys().cloned().collect();
        for path in all {
            let parent = path.parent().unwrap_or(Path::new("/")).to_owned();
            if parent != Path::new("/") && files.durable.get(&parent) != Some(&Node::Dir) {
                files.durable.remove(&path);
            }
        }
        files.seen = files.durable.clone();
        files.locks.clear();
    }

    /// Flips a bit of the last file in a folder, below what was written last, so that a later write tells that it was on disk. None where
    /// that is not so.
    pub(crate) fn rot(&self, folder: &Path, sim: &Sim) -> Option<Rot> {
        let last = self.names(folder).into_iter().rfind(|path| path.extension().is_some_and(|e| e == "log"))?;
        let mut files = self.files();
        let Some(Node::File(inode)) = files.seen.get(&last).copied() else { return None };
        let file = files.inodes.get_mut(&inode)?;
        // A write that was cut short, or went with a power cut, tells nothing of the bytes before it.
        let whole = file.seen.get(file.last_write..).is_some_and(|rest| rest.starts_with(&file.last_bytes));
        if file.last_write == 0 || !whole || !file.dirty.is_empty() || file.resized || file.seen != file.durable {
            return None;
        }
        let rot = Rot { inode, bit: sim.below(file.last_write as u64 * 8) as usize };
        drop(files);
        self.flip(rot);
        Some(rot)
    }

    /// Flips a bit on the medium.
    pub(crate) fn flip(&self, rot: Rot) {
        if let Some(file) = self.files().inodes.get_mut(&rot.inode) {
            file.seen[rot.bit / 8] ^= 1 << (rot.bit % 8);
            file.durable[rot.bit / 8] ^= 1 << (rot.bit % 8);
        }
    }

    /// The kernel takes a process's locks.
    pub(crate) fn unlock(&self, process: u64) {
        self.files().locks.retain(|_, owner| *owner != process);
    }
}

fn copy_sector(from: &[u8], to: &mut [u8], sector: usize) {
    let range = (sector * SECTOR).min(from.len()).min(to.len())..((sector + 1) * SECTOR).min(from.len()).min(to.len());
    to[range.clone()].copy_from_slice(&from[range]);
}

impl Name {
    fn apply(self, names: &mut BTreeMap<PathBuf, Node>) {
        match self {
            Self::Give(path, node) => _ = names.insert(path, node),
            Self::Take(path) => _ = names.remove(&path),
            Self::Move(from, to, node) => {
                names.remove(&from);
                names.insert(to, node);
            }
        }
    }
}

/// The disk as one process sees it, with the faults of the seed.
pub(crate) struct ProcessDisk {
    pub(crate) sim: Arc<Sim>,
    pub(crate) medium: Arc<Medium>,
    pub(crate) process: Arc<Process>,
    /// The judge looks: without faults, and without a trace.
    pub(crate) judging: bool,
}

impl fmt::Debug for ProcessDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the disk of process {}", self.process.number)
    }
}

/// What an operation does, as far as faults go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Op {
    Read,
    Write,
    Name,
    Fsync,
}

/// What is to happen to an operation.
#[derive(PartialEq, Eq)]
enum Verdict {
    Do,
    DoAndFail,
    Part,
}

impl ProcessDisk {
    fn recovering(&self) -> bool {
        self.process.recovering.load(Ordering::Relaxed)
    }

    fn gate(&self, op: Op, what: &str, path: &Path) -> io::Result<Verdict> {
        let (sim, at) = (&self.sim, place(path, self.recovering()));
        if self.judging {
            return Ok(Verdict::Do);
        }
        if self.process.is_dead() {
            return Err(io::Error::other("the process has crashed"));
        }
        sim.note(|| format!("p{} {what} {}", self.process.number, plain(path)));
        if self.process.left.fetch_sub(1, Ordering::Relaxed) == 0 {
            self.process.kill();
            sim.met(Fault::Crash, at);
            sim.note(|| "crash".into());
            // What was begun may be done in part or as a whole.
            return match sim.below(3) {
                0 => Err(io::Error::other("the process has crashed")),
                1 => Ok(Verdict::Part),
                _ => Ok(Verdict::DoAndFail),
            };
        }
        let faults = &sim.faults;
        let failed = |fault: Fault, kind: io::ErrorKind| {
            sim.met(fault, at);
            sim.note(|| format!("{fault:?}"));
            io::Error::new(kind, format!("simulated {fault:?}"))
        };
        // A start reads and forces much more than a second of work.
        let part = if self.recovering() { 5 } else { 1 };
        if sim.fault(faults.io_error / part) {
            return Err(failed(Fault::IoError, io::ErrorKind::Other));
        }
        if op == Op::Fsync && sim.fault(faults.fsync_error / part) {
            _ = failed(Fault::FsyncError, io::ErrorKind::Other);
            return Ok(Verdict::Part);
        }
        if matches!(op, Op::Name | Op::Write) && sim.fault(faults.unknown_outcome / part) {
            _ = failed(Fault::UnknownOutcome, io::ErrorKind::Other);
            return Ok(Verdict::DoAndFail);
        }
        if matches!(op, Op::Name | Op::Write) {
            if sim.fault(faults.full_disk / part) {
                let mut state = sim.state();
                state.full_until = state.now + FULL;
            }
            if self.is_full() && what != "remove" {
                let error = failed(Fault::FullDisk, io::ErrorKind::StorageFull);
                return if op == Op::Write && sim.below(2) == 0 { Ok(Verdict::Part) } else { Err(error) };
            }
        }
        Ok(Verdict::Do)
    }

    fn is_full(&self) -> bool {
        let state = self.sim.state();
        !state.healed && state.now < state.full_until
    }

    /// Gives or takes a name, as the verdict says.
    fn name(&self, what: &str, folder_of: &Path, check: impl FnOnce(&Files) -> io::Result<Name>) -> io::Result<()> {
        let verdict = self.gate(Op::Name, what, folder_of)?;
        let mut files = self.medium.files();
        let name = check(&files)?;
        if verdict == Verdict::Part {
            return Err(io::Error::other("simulated crash before a name"));
        }
        name.clone().apply(&mut files.seen);
        files.pending.entry(folder_of.parent().unwrap_or(Path::new("/")).to_owned()).or_default().push(name);
        if verdict == Verdict::DoAndFail { Err(io::Error::other("simulated error after the effect")) } else { Ok(()) }
    }

    fn file(&self, path: &Path, id: u64) -> Arc<dyn DiskFile> {
        let disk = Self { sim: self.sim.clone(), medium: self.medium.clone(), process: self.process.clone(), judging: self.judging };
        Arc::new(File { disk, path: path.to_owned(), id })
    }
}

/// A path without the numbers that other simulations of this process share.
fn plain(path: &Path) -> String {
    let text = path.to_string_lossy();
    if text.ends_with(".tmp") {
        text.split(".tmp").next().and_then(|t| t.split('_').next()).unwrap_or_default().to_owned()
    } else {
        text.into_owned()
    }
}

fn missing(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("{} is not there", path.display()))
}

impl Disk for ProcessDisk {
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let parent = path.parent().unwrap_or(Path::new("/")).to_owned();
        let known = match self.medium.files().seen.get(path) {
            Some(Node::File(id)) => Some(*id),
            _ => None,
        };
        if let Some(id) = known {
            // Opening empties it.
            let file = self.file(path, id);
            file.set_len(0)?;
            return Ok(file);
        }
        let mut made = 0;
        self.name("create", path, |files| {
            if parent != Path::new("/") && files.seen.get(&parent) != Some(&Node::Dir) {
                return Err(missing(&parent));
            }
            made = files.next;
            Ok(Name::Give(path.to_owned(), Node::File(files.next)))
        })
        .inspect_err(|_| self.keep_inode(made))?;
        self.keep_inode(made);
        Ok(self.file(path, made))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.gate(Op::Read, "open", path)?;
        match self.medium.files().seen.get(path) {
            Some(Node::File(id)) => Ok(self.file(path, *id)),
            _ => Err(missing(path)),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.name("rename to", to, |files| {
            let node = files.seen.get(from).ok_or_else(|| missing(from))?;
            Ok(Name::Move(from.to_owned(), to.to_owned(), *node))
        })
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.name("link", to, |files| {
            if files.seen.contains_key(to) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            let node = files.seen.get(from).ok_or_else(|| missing(from))?;
            Ok(Name::Give(to.to_owned(), *node))
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.name("remove", path, |files| {
            files.seen.get(path).ok_or_else(|| missing(path))?;
            Ok(Name::Take(path.to_owned()))
        })
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.name("mkdir", path, |files| match files.seen.get(path) {
            Some(_) => Err(io::ErrorKind::AlreadyExists.into()),
            None => Ok(Name::Give(path.to_owned(), Node::Dir)),
        })
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let verdict = self.gate(Op::Fsync, "fsync of", path)?;
        if verdict == Verdict::Part {
            return Err(io::Error::other("simulated fsync error of a directory"));
        }
        let mut files = self.medium.files();
        for name in files.pending.remove(path).unwrap_or_default() {
            name.apply(&mut files.durable);
        }
        if verdict == Verdict::DoAndFail { Err(io::Error::other("simulated error after the fsync")) } else { Ok(()) }
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        self.gate(Op::Read, "list", path)?;
        let files = self.medium.files();
        if files.seen.get(path) != Some(&Node::Dir) {
            return Err(missing(path));
        }
        let inside = files.seen.range(path.to_owned()..).take_while(|(p, _)| p.starts_with(path)).filter(|(p, _)| p.parent() == Some(path));
        Ok(inside.map(|(p, node)| Entry { path: p.clone(), is_dir: *node == Node::Dir }).collect())
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.gate(Op::Read, "look for", path)?;
        Ok(path == Path::new("/") || self.medium.files().seen.contains_key(path))
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        self.gate(Op::Read, "free space of", path)?;
        Ok(if self.is_full() { 0 } else { 1 << 40 })
    }

    fn modified(&self, path: &Path) -> io::Result<SystemTime> {
        let files = self.medium.files();
        let Some(Node::File(inode)) = files.seen.get(path) else { return Err(missing(path)) };
        Ok(UNIX_EPOCH + Duration::from_micros(files.inodes[inode].written))
    }

    fn lock(&self, directory: &Path) -> io::Result<Box<dyn Send + Sync>> {
        storage::durable::create_dir_all(self, directory)?;
        let mut files = self.medium.files();
        let mine = self.process.number;
        match files.locks.get(directory) {
            Some(owner) if *owner != mine => Err(io::Error::new(io::ErrorKind::ResourceBusy, format!("held by {owner}"))),
            _ => {
                files.locks.insert(directory.to_owned(), mine);
                Ok(Box::new(()))
            }
        }
    }
}

impl ProcessDisk {
    fn keep_inode(&self, id: u64) {
        let mut files = self.medium.files();
        if id == files.next {
            files.inodes.insert(id, Inode::default());
            files.next += 1;
        }
    }
}

/// An open file.
struct File {
    disk: ProcessDisk,
    path: PathBuf,
    id: u64,
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path.display())
    }
}

impl File {
    fn resize(&self, length: usize) {
        let mut files = self.disk.medium.files();
        let inode = files.inodes.get_mut(&self.id).unwrap();
        // What is behind the end comes back as zeros, if at all.
        inode.dirty.extend(length / SECTOR..=inode.seen.len() / SECTOR);
        inode.seen.resize(length, 0);
        inode.resized = true;
    }
}

impl DiskFile for File {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        self.disk.gate(Op::Read, "read", &self.path)?;
        let files = self.disk.medium.files();
        let bytes = &files.inodes[&self.id].seen;
        let from = (offset as usize).min(bytes.len());
        let length = into.len().min(bytes.len() - from);
        into[..length].copy_from_slice(&bytes[from..from + length]);
        drop(files);
        let sim = &self.disk.sim;
        if length > 0 && !self.disk.judging && sim.fault(sim.faults.bit_flip) {
            let bit = sim.below(length as u64 * 8) as usize;
            into[bit / 8] ^= 1 << (bit % 8);
            sim.met(Fault::BitFlip, place(&self.path, self.disk.recovering()));
            sim.note(|| format!("bit {bit} of a read of {length} flips"));
        }
        Ok(length)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let verdict = self.disk.gate(Op::Write, "write", &self.path)?;
        let length = if verdict == Verdict::Part { self.disk.sim.below(bytes.len() as u64) as usize } else { bytes.len() };
        let (from, now) = (offset as usize, self.disk.sim.wall());
        let mut files = self.disk.medium.files();
        let inode = files.inodes.get_mut(&self.id).unwrap();
        (inode.last_write, inode.last_bytes, inode.written) = (from, bytes.to_vec(), now.0.max(0) as u64);
        if inode.seen.len() < from + length {
            inode.seen.resize(from + length, 0);
            inode.resized = true;
        }
        inode.seen[from..from + length].copy_from_slice(&bytes[..length]);
        if length > 0 {
            inode.dirty.extend(from / SECTOR..=(from + length - 1) / SECTOR);
        }
        match verdict {
            Verdict::Do => Ok(()),
            Verdict::Part if self.disk.is_full() => Err(io::ErrorKind::StorageFull.into()),
            _ => Err(io::Error::other("simulated error of a write")),
        }
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        if self.disk.gate(Op::Write, "allocate", &self.path)? != Verdict::Do {
            return Err(io::Error::other("simulated error of an allocation"));
        }
        self.resize(length as usize);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        if self.disk.gate(Op::Write, "cut", &self.path)? != Verdict::Do {
            return Err(io::Error::other("simulated error of a cut"));
        }
        self.resize(length as usize);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let verdict = self.disk.gate(Op::Fsync, "fsync", &self.path)?;
        let mut files = self.disk.medium.files();
        let inode = files.inodes.get_mut(&self.id).unwrap();
        let all = verdict != Verdict::Part;
        if all || self.disk.sim.below(2) == 0 {
            inode.durable.resize(inode.seen.len(), 0);
            inode.resized = false;
        }
        for sector in std::mem::take(&mut inode.dirty) {
            if all || self.disk.sim.below(2) == 0 {
                copy_sector(&inode.seen, &mut inode.durable, sector);
            }
        }
        if verdict == Verdict::Do { Ok(()) } else { Err(io::Error::other("simulated fsync error")) }
    }

    fn length(&self) -> io::Result<u64> {
        self.disk.gate(Op::Read, "length of", &self.path)?;
        Ok(self.disk.medium.files().inodes[&self.id].seen.len() as u64)
    }
}
