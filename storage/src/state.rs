//! Operators' state on disk: each save is one new file with what was appended, and a list of parts that went.
//!
//! A file is a row of Arrow IPC streams (lz4), one a part; the epoch record says where each stands and which still count. When the
//! files are more than 32, or hold more than twice the live bytes, a save also writes the oldest as one.

use crate::durable::{self, NewFile};
use crate::epoch::{EpochError, Merge, Names, Result, StateChange, StateFile, StatePart, fold_state};
use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::error::ArrowError;
use arrow::ipc::CompressionType;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::{IpcWriteOptions, StreamWriter};
use flow::{StateReader, StateWriter};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use world::{Bug, Disk, FileReader, planted};
use xxhash_rust::xxh3::xxh3_64;

/// More files than this are merged: a restore opens them all.
const MAX_FILES: usize = 32;
/// More bytes than this times the live ones are merged.
const MAX_WASTE: u64 = 2;

/// Operator and part.
type Key = (String, String);

/// A directory of state files.
#[derive(Clone, Debug)]
pub struct StateStore {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
}

/// What operators write between two cuts.
#[derive(Debug, Default)]
pub struct StateSave {
    removed: BTreeSet<Key>,
    appended: BTreeMap<Key, Vec<RecordBatch>>,
}

/// Takes the state of one operator.
#[derive(Debug)]
pub struct OperatorSave<'a> {
    save: &'a mut StateSave,
    operator: &'a str,
}

/// Gives one operator its state back.
#[derive(Debug)]
pub struct OperatorLoad {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    operator: String,
    parts: BTreeMap<String, Vec<(String, StatePart)>>,
}

impl StateSave {
    /// The writer for one operator.
    pub fn operator<'a>(&'a mut self, operator: &'a str) -> OperatorSave<'a> {
        OperatorSave { save: self, operator }
    }
}

impl StateWriter for OperatorSave<'_> {
    fn append(&mut self, part: &str, rows: RecordBatch) {
        self.save.appended.entry((self.operator.into(), part.into())).or_default().push(rows);
    }

    fn remove(&mut self, part: &str) {
        let key = (self.operator.to_owned(), part.to_owned());
        self.save.appended.remove(&key);
        self.save.removed.insert(key);
    }
}

impl StateReader for OperatorLoad {
    fn parts(&self) -> Vec<String> {
        self.parts.keys().cloned().collect()
    }

    fn read(&mut self, part: &str) -> flow::Result<Vec<RecordBatch>> {
        let mut batches = Vec::new();
        for (file, place) in self.parts.get(part).into_iter().flatten() {
            batches.extend(read_part(&*self.disk, &self.dir.join(file), place)?);
        }
        Ok(batches)
    }
}

impl StateStore {
    /// Opens the directory, made if absent.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path) -> Result<Self> {
        durable::create_dir_all(&*disk, dir).map_err(EpochError::io("cannot create", dir))?;
        Ok(Self { disk, dir: dir.to_owned() })
    }

    /// Writes what the operators gave, durably. `live` are the files of the newest sealed record. Blocks.
    ///
    /// The change takes effect with the record that holds it; without one the files are waste, and go at the next claim.
    pub fn finish(&self, save: &StateSave, live: &[StateFile], names: &mut Names) -> Result<StateChange> {
        let held: BTreeSet<Key> = live.iter().flat_map(|f| &f.parts).map(|p| (p.operator.clone(), p.part.clone())).collect();
        let mut change = StateChange {
            removed: save.removed.intersection(&held).filter(|_| !planted(Bug::RemovedStateKept)).cloned().collect(),
            merged: None,
            added: None,
        };
        if !save.appended.is_empty() && !planted(Bug::StateNotSaved) {
            change.added = Some(self.write(names.next("state"), &save.appended)?);
        }
        let mut files = live.to_vec();
        fold_state(&mut files, &change).expect("a change without a merge fits any files");
        let older = &files[..files.len() - usize::from(change.added.is_some())];
        let count = oldest_to_merge(&files).min(older.len());
        if count > 0 {
            let from = &older[..count];
            let merged = self.read_all(from).and_then(|all| self.write(names.next("state"), &all));
            if let (Err(_), Some(added)) = (&merged, &change.added) {
                // No record names it; what stays goes at the next claim.
                let _ = self.disk.remove(&self.dir.join(&added.file));
            }
            let into = merged?;
            change.merged = Some(Merge { from: from.iter().map(|f| f.file.clone()).collect(), into });
        }
        Ok(change)
    }

    /// The state of one operator in the files of a record.
    #[must_use]
    pub fn load(&self, files: &[StateFile], operator: &str) -> OperatorLoad {
        let mut parts: BTreeMap<String, Vec<(String, StatePart)>> = BTreeMap::new();
        for file in files {
            for part in file.parts.iter().filter(|p| p.operator == operator) {
                parts.entry(part.part.clone()).or_default().push((file.file.clone(), part.clone()));
            }
        }
        OperatorLoad { disk: self.disk.clone(), dir: self.dir.clone(), operator: operator.to_owned(), parts }
    }

    fn read_all(&self, files: &[StateFile]) -> Result<BTreeMap<Key, Vec<RecordBatch>>> {
        let mut all: BTreeMap<Key, Vec<RecordBatch>> = BTreeMap::new();
        for file in files {
            for part in &file.parts {
                let batches = read_part(&*self.disk, &self.dir.join(&file.file), part)?;
                all.entry((part.operator.clone(), part.part.clone())).or_default().extend(batches);
            }
        }
        Ok(all)
    }

    fn write(&self, name: String, content: &BTreeMap<Key, Vec<RecordBatch>>) -> Result<StateFile> {
        let path = self.dir.join(&name);
        let failed = || EpochError::io("cannot write", &path);
        let mut out = NewFile::create(&*self.disk, &path).map_err(failed())?;
        let (mut offset, mut parts) = (0, Vec::with_capacity(content.len()));
        for ((operator, part), batches) in content {
            let stream = encode(batches).map_err(|source| state_error(operator, part, source))?;
            out.append(&stream).map_err(failed())?;
            let (bytes, checksum) = (stream.len() as u64, xxh3_64(&stream));
            parts.push(StatePart { operator: operator.clone(), part: part.clone(), offset, bytes, checksum });
            offset += bytes;
        }
        if let Err(error) = out.publish() {
            // The name may be given already. It is ours unless it was taken; no record names it, and what stays goes at the next claim.
            if error.kind() != io::ErrorKind::AlreadyExists {
                let _ = self.disk.remove(&path);
            }
            return Err(failed()(error));
        }
        Ok(StateFile { file: name, bytes: offset, parts })
    }
}

impl OperatorLoad {
    /// The operator whose state this is.
    #[must_use]
    pub fn operator(&self) -> &str {
        &self.operator
    }
}

/// How many of the oldest files to merge so that both limits hold again; half of the files at least, so that merges are rare.
fn oldest_to_merge(files: &[StateFile]) -> usize {
    let live = |f: &StateFile| f.parts.iter().map(|p| p.bytes).sum::<u64>();
    let limit = MAX_WASTE * files.iter().map(live).sum::<u64>();
    let mut total: u64 = files.iter().map(|f| f.bytes).sum();
    if files.len() <= MAX_FILES && total <= limit {
        return 0;
    }
    let least = if files.len() > MAX_FILES { files.len() / 2 } else { 1 };
    for (i, file) in files.iter().enumerate() {
        total -= file.bytes - live(file);
        if i + 1 >= least && total <= limit {
            return i + 1;
        }
    }
    files.len()
}

fn encode(batches: &[RecordBatch]) -> Result<Vec<u8>, ArrowError> {
    let options = IpcWriteOptions::default().try_with_compression(Some(CompressionType::LZ4_FRAME))?;
    let schema = batches.first().map(RecordBatch::schema).ok_or_else(|| ArrowError::InvalidArgumentError("no batches".into()))?;
    let mut stream = StreamWriter::try_new_with_options(Vec::new(), &schema, options)?;
    stream.write(&concat_batches(&schema, batches)?)?;
    stream.finish()?;
    stream.into_inner()
}

/// Reads every part of a state file that counts; an error names the first that is not what was written.
pub(crate) fn check_file(disk: &dyn Disk, dir: &Path, file: &StateFile) -> Result<()> {
    let path = dir.join(&file.file);
    let held = disk.open(&path).and_then(|open| open.length()).map_err(EpochError::io("cannot open", &path))?;
    if held != file.bytes {
        return Err(EpochError::damaged(&path, held.min(file.bytes), format!("it should have {} bytes and has {held}", file.bytes)));
    }
    file.parts.iter().try_for_each(|part| read_part(disk, &path, part).map(|_| ()))
}

fn read_part(disk: &dyn Disk, path: &Path, part: &StatePart) -> Result<Vec<RecordBatch>> {
    let length = usize::try_from(part.bytes).expect("a part was in memory when it was written");
    let file = disk.open(path).map_err(EpochError::io("cannot open", path))?;
    let held = file.length().map_err(EpochError::io("cannot measure", path))?;
    if part.offset.checked_add(part.bytes).is_none_or(|end| held < end) {
        return Err(EpochError::damaged(path, held, format!("it ends inside the part {} of {}", part.part, part.operator)));
    }
    let mut bytes = vec![0; length];
    FileReader::new(file, part.offset).read_exact(&mut bytes).map_err(EpochError::io("cannot read", path))?;
    if xxh3_64(&bytes) != part.checksum {
        return Err(EpochError::damaged(path, part.offset, format!("wrong checksum of part {} of {}", part.part, part.operator)));
    }
    let batches = StreamReader::try_new(Cursor::new(bytes), None).and_then(Iterator::collect);
    batches.map_err(|source| state_error(&part.operator, &part.part, source))
}

fn state_error(operator: &str, part: &str, source: ArrowError) -> EpochError {
    EpochError::State { operator: operator.into(), part: part.into(), source }
}

#[cfg(test)]
mod tests;
