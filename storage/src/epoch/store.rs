//! Where records live. Creating one is the commit: the name can be given once, and only to bytes that are already durable.
//!
//! Locally: `<data_dir>/epochs/<pipeline>/<lane>/<number as 20 digits>.record`.

use super::{Body, Claimed, EpochError, Fingerprint, Header, Record, Result, Whole, chain, component, decode, encode, from_component};
use crate::durable;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use world::{Bug, Disk, local_disk, planted, sync_parent};
use xxhash_rust::xxh3::xxh3_64;

/// How often a claim starts again when others are faster, before it gives the lane up.
const CLAIM_TRIES: u32 = 16;
/// How often a create with unknown outcome is tried at once; the caller may go on with the same record after that.
const CREATE_TRIES: u32 = 3;

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sealed {
    /// It stands under its number.
    Ours,
    /// Another owns the lane. Stop it, publish nothing, touch nothing.
    Fenced,
}

/// The newest state of a lane, for readers that own nothing.
#[derive(Clone, Debug)]
pub struct Newest {
    /// Header of the newest record.
    pub header: Header,
    /// Number of the newest whole record.
    pub last_whole: u64,
    /// What the lane holds.
    pub whole: Arc<Whole>,
}

/// A store of epoch records. All calls block.
pub trait EpochStore: Send + Sync {
    /// Makes the lane ours under a new generation. An error when its newest record is damaged, of a newer format or of another plan.
    ///
    /// `incarnation` is random and never used by another claimer of the lane; `owner` is where others find us.
    fn claim(&self, lane: &str, fingerprint: &Fingerprint, incarnation: u64, owner: &str) -> Result<Claimed>;
    /// Creates the record. After an error the outcome is unknown: seal the same record again.
    fn seal(&self, record: &Record) -> Result<Sealed>;
    /// The newest record, folded; none for a lane that was never claimed.
    fn newest(&self, lane: &str) -> Result<Option<Newest>>;
    /// One record; none when it is absent.
    fn read(&self, lane: &str, number: u64) -> Result<Option<Record>>;
    /// The numbers that are there, rising.
    fn numbers(&self, lane: &str) -> Result<Vec<u64>>;
    /// Names of all lanes, in order.
    fn lanes(&self) -> Result<Vec<String>>;
    /// Deletes a record, for clean-up alone. Absent is fine.
    fn delete(&self, lane: &str, number: u64) -> Result<()>;
}

/// Records as files of a local directory.
#[derive(Clone, Debug)]
pub struct LocalEpochs {
    disk: Arc<dyn Disk>,
    root: PathBuf,
}

enum Created {
    Ours,
    Taken,
}

impl LocalEpochs {
    /// The records of a pipeline under `data_dir`. Nothing is made before the first claim.
    #[must_use]
    pub fn new(data_dir: &Path, pipeline: &str) -> Self {
        Self::on(local_disk(), data_dir, pipeline)
    }

    /// As `new`, on any disk.
    #[must_use]
    pub fn on(disk: Arc<dyn Disk>, data_dir: &Path, pipeline: &str) -> Self {
        Self { disk, root: data_dir.join("epochs").join(component(pipeline)) }
    }

    /// As `newest`, of a lane whose owner may clean up between two reads of ours.
    pub fn newest_of_another(&self, lane: &str) -> Result<Option<Newest>> {
        for _ in 1..CLAIM_TRIES {
            if let Ok(newest) = self.newest(lane) {
                return Ok(newest);
            }
        }
        self.newest(lane)
    }

    fn dir(&self, lane: &str) -> PathBuf {
        self.root.join(component(lane))
    }

    fn path(&self, lane: &str, number: u64) -> PathBuf {
        self.dir(lane).join(format!("{number:020}.record"))
    }

    /// Creates a file until the answer is known, or gives up with the outcome unknown. `retried`: an earlier call may have created it.
    fn create(&self, record: &Record, mut retried: bool) -> Result<Created> {
        let path = self.path(&record.header.lane, record.header.number);
        let bytes = encode(record);
        let mut failure = None;
        for _ in 0..CREATE_TRIES {
            match durable::write_new(&*self.disk, &path, &bytes) {
                Ok(()) => return Ok(Created::Ours),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists && !retried => return Ok(Created::Taken),
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return self.whose(&path, &bytes),
                Err(_) if planted(Bug::UnknownOutcomeIsSuccess) => return Ok(Created::Ours),
                Err(e) => failure = Some(e),
            }
            retried = true;
        }
        Err(EpochError::io("cannot create", &path)(failure.expect("every try failed")))
    }

    /// A taken number is ours when it holds our bytes: header with incarnation, generation and content.
    fn whose(&self, path: &Path, ours: &[u8]) -> Result<Created> {
        if !planted(Bug::TakenIsOurs) && world::read(&*self.disk, path).map_err(EpochError::io("cannot read", path))? != ours {
            return Ok(Created::Taken);
        }
        self.make_durable(path)?;
        Ok(Created::Ours)
    }

    /// True when a record hit a number whose parent was cleaned up long ago.
    fn is_zombie(&self, header: &Header) -> Result<bool> {
        let parent = self.path(&header.lane, header.parent);
        Ok(header.parent > 0 && !self.disk.exists(&parent).map_err(EpochError::io("cannot look for", &parent))?)
    }

    fn make_durable(&self, path: &Path) -> Result<()> {
        durable::sync_file(&*self.disk, path).map_err(EpochError::io("cannot sync", path))?;
        sync_parent(&*self.disk, path).map_err(EpochError::io("cannot sync the directory of", path))
    }

    /// Names in a directory; none when it is absent.
    fn file_names(&self, dir: &Path) -> Result<Vec<String>> {
        let entries = match self.disk.list(dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(EpochError::io("cannot list", dir)(e)),
        };
        Ok(entries.iter().filter_map(|e| e.path.file_name()?.to_str().map(str::to_owned)).collect())
    }

    fn must_read(&self, lane: &str, number: u64) -> Result<Record> {
        self.read(lane, number)?.ok_or_else(|| EpochError::damaged(&self.path(lane, number), 0, "the record is missing"))
    }
}

impl EpochStore for LocalEpochs {
    fn claim(&self, lane: &str, fingerprint: &Fingerprint, incarnation: u64, owner: &str) -> Result<Claimed> {
        let dir = self.dir(lane);
        durable::create_dir_all(&*self.disk, &dir).map_err(EpochError::io("cannot create", &dir))?;
        for _ in 0..CLAIM_TRIES {
            let newest = self.newest(lane)?;
            if let Some(newest) = &newest {
                check_plan(&newest.header, fingerprint)?;
                self.make_durable(&self.path(lane, newest.header.number))?;
            }
            let (parent, chain, whole) = match newest {
                Some(n) => (n.header.number, n.header.chain, n.whole),
                None => (0, format!("{:016x}", xxh3_64(format!("{incarnation} {lane}").as_bytes())), Arc::default()),
            };
            let header = Header {
                lane: lane.into(),
                number: parent + 1,
                parent,
                generation: parent + 1,
                chain,
                incarnation,
                owner: owner.into(),
                fingerprint: fingerprint.clone(),
                product: env!("CARGO_PKG_VERSION").into(),
            };
            let record = Record { header, body: Body::Whole(Whole::clone(&whole)) };
            if matches!(self.create(&record, false)?, Created::Ours) && !self.is_zombie(&record.header)? {
                return Ok(Claimed { header: record.header, whole });
            }
        }
        Err(EpochError::Contended { lane: lane.into(), tries: CLAIM_TRIES })
    }

    fn seal(&self, record: &Record) -> Result<Sealed> {
        if planted(Bug::EveryThirdSealForgotten) && record.header.number.is_multiple_of(3) {
            return Ok(Sealed::Ours);
        }
        let ours = matches!(self.create(record, true)?, Created::Ours) && !self.is_zombie(&record.header)?;
        Ok(if ours { Sealed::Ours } else { Sealed::Fenced })
    }

    fn newest(&self, lane: &str) -> Result<Option<Newest>> {
        let Some(&number) = self.numbers(lane)?.last() else { return Ok(None) };
        let mut records = vec![self.must_read(lane, number)?];
        while let Some(Record { header, body: Body::Delta(_) }) = records.last() {
            records.push(self.must_read(lane, header.number - 1)?);
        }
        records.reverse();
        let last_whole = records[0].header.number;
        let whole = chain::fold_all(&records).map_err(|(n, what)| EpochError::damaged(&self.path(lane, n), 0, what))?;
        let header = records.swap_remove(records.len() - 1).header;
        Ok(Some(Newest { header, last_whole, whole: Arc::new(whole) }))
    }

    fn read(&self, lane: &str, number: u64) -> Result<Option<Record>> {
        let path = self.path(lane, number);
        let bytes = match world::read(&*self.disk, &path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(EpochError::io("cannot read", &path)(e)),
        };
        let record = decode(&bytes, &path)?;
        if (record.header.lane.as_str(), record.header.number) != (lane, number) || Some(number) != record.header.parent.checked_add(1) {
            return Err(EpochError::damaged(&path, 0, format!("it holds record {} of lane {}", record.header.number, record.header.lane)));
        }
        Ok(Some(record))
    }

    fn numbers(&self, lane: &str) -> Result<Vec<u64>> {
        let number = |name: String| name.strip_suffix(".record").filter(|n| n.len() == 20).and_then(|n| n.parse().ok());
        let mut numbers: Vec<u64> = self.file_names(&self.dir(lane))?.into_iter().filter_map(number).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    fn lanes(&self) -> Result<Vec<String>> {
        let mut lanes: Vec<String> = self.file_names(&self.root)?.iter().filter_map(|n| from_component(n)).collect();
        lanes.sort_unstable();
        Ok(lanes)
    }

    fn delete(&self, lane: &str, number: u64) -> Result<()> {
        let path = self.path(lane, number);
        match self.disk.remove(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(EpochError::io("cannot delete", &path)(e)),
            _ => Ok(()),
        }
    }
}

fn check_plan(header: &Header, ours: &Fingerprint) -> Result<()> {
    let difference = header.fingerprint.conflicts(ours);
    if difference.is_empty() {
        let grown = header.fingerprint.grown(ours);
        if !grown.is_empty() {
            tracing::info!(lane = header.lane, new = grown.join(", "), "the plan has grown; rows of before have null in new columns");
        }
        return Ok(());
    }
    Err(EpochError::OtherPlan { lane: header.lane.clone(), number: header.number, difference })
}
