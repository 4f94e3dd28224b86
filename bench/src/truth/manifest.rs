//! `manifest.json`: what a truth holds, in short, so that a reader can see that it is whole.

use std::path::Path;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use super::{Counts, MANIFEST};
use crate::{Error, Result};

/// The manifest of a truth.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The scenario's name.
    pub scenario: String,
    /// Its seed.
    pub seed: u64,
    /// The time of the first reading in Unix microseconds.
    pub start_us: i64,
    /// XXH3-64 of the topics and payloads of all messages in the order they were due, in hex; the same seed and start give the same.
    pub messages_xxh3: String,
    /// XXH3-64 of the bytes of `readings.parquet`, in hex.
    pub readings_xxh3: String,
    /// What was sent.
    pub counts: Counts,
}

impl Manifest {
    /// Writes it into a truth.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let path = folder.join(MANIFEST);
        let text = serde_json::to_string_pretty(self).expect("a manifest is plain words and numbers");
        std::fs::write(&path, text + "\n").map_err(Error::file(&path))
    }

    /// Reads that of a truth.
    pub fn read(folder: &Path) -> Result<Manifest> {
        let path = folder.join(MANIFEST);
        let text = std::fs::read_to_string(&path).map_err(Error::file(&path))?;
        serde_json::from_str(&text).map_err(|error| Error::Scenario { file: path.display().to_string(), reason: error.to_string() })
    }
}

/// XXH3-64 of a file's bytes, in hex.
pub(crate) fn hash_of(path: &Path) -> Result<String> {
    let mut file = std::fs::File::open(path).map_err(Error::file(path))?;
    let mut hash = Hashing(Xxh3::new());
    std::io::copy(&mut file, &mut hash).map_err(Error::file(path))?;
    Ok(hash.hex())
}

/// A hash that takes what is written to it.
pub(crate) struct Hashing(pub(crate) Xxh3);

impl Hashing {
    pub(crate) fn hex(&self) -> String {
        format!("{:016x}", self.0.digest())
    }
}

impl std::io::Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
