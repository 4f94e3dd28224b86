//! Writes a truth while messages are sent, on a thread of its own.

use std::fs::File;
use std::path::{Path, PathBuf};

use arrow::datatypes::SchemaRef;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use xxhash_rust::xxh3::Xxh3;

use super::columns::{rows, truth_schema};
use super::manifest::{Hashing, hash_of};
use super::{Counts, MANIFEST, Manifest, READINGS, SCENARIO, Sent};
use crate::fleet::Message;
use crate::scenario::Scenario;
use crate::{Error, Result};

/// Rows written at once: enough for Parquet's encodings, 2 MB of memory.
const BATCH_ROWS: usize = 8_192;
/// Rows that may wait for the disk.
const WAITING_ROWS: usize = 65_536;

/// Where those who know a message's fate put it. Without a truth it goes nowhere.
#[derive(Clone, Default)]
pub struct TruthSender(Option<mpsc::Sender<Sent>>);

/// A truth that is being written.
pub struct TruthWriter {
    folder: PathBuf,
    scenario: Scenario,
    start_us: i64,
    messages: Hashing,
    sender: TruthSender,
    writing: JoinHandle<Result<()>>,
}

impl TruthSender {
    /// Puts a message with its fate into the truth. A truth that cannot be written says so at its end.
    pub async fn put(&self, sent: Sent) {
        if let Some(sender) = &self.0 {
            let _ = sender.send(sent).await;
        }
    }

    /// The same for a thread.
    pub fn put_blocking(&self, sent: Sent) {
        if let Some(sender) = &self.0 {
            let _ = sender.blocking_send(sent);
        }
    }

    /// Whether anybody keeps it.
    pub fn keeps(&self) -> bool {
        self.0.is_some()
    }
}

impl TruthWriter {
    /// Begins a truth in a folder, which is made. An older truth there is replaced.
    pub fn create(folder: &Path, scenario: &Scenario, start_us: i64) -> Result<TruthWriter> {
        std::fs::create_dir_all(folder).map_err(Error::file(folder))?;
        let manifest = folder.join(MANIFEST);
        if manifest.exists() {
            std::fs::remove_file(&manifest).map_err(Error::file(&manifest))?;
        }
        let (path, text) = (folder.join(SCENARIO), toml::to_string(scenario));
        let text = text.map_err(|error| Error::Scenario { file: path.display().to_string(), reason: error.to_string() })?;
        std::fs::write(&path, text).map_err(Error::file(&path))?;
        let path = folder.join(READINGS);
        let file = File::create(&path).map_err(Error::file(&path))?;
        let schema = truth_schema(scenario.signals.keys().map(String::as_str));
        let (sender, receiver) = mpsc::channel(WAITING_ROWS);
        let writing = tokio::task::spawn_blocking(move || write(file, &path, schema, receiver));
        Ok(TruthWriter {
            folder: folder.to_path_buf(),
            scenario: scenario.clone(),
            start_us,
            messages: Hashing(Xxh3::new()),
            sender: TruthSender(Some(sender)),
            writing,
        })
    }

    /// Where messages go whose fate is known.
    pub fn sender(&self) -> TruthSender {
        self.sender.clone()
    }

    /// Takes the bytes of the next message in the order of due.
    pub fn hash(&mut self, message: &Message) {
        self.messages.0.update(message.topic.as_bytes());
        self.messages.0.update(&message.payload);
    }

    /// Ends it, once all other senders are gone.
    pub async fn finish(self, counts: &Counts) -> Result<()> {
        drop(self.sender);
        self.writing.await.expect("the thread that writes the truth does not panic")?;
        let manifest = Manifest {
            scenario: self.scenario.name.clone(),
            seed: self.scenario.seed,
            start_us: self.start_us,
            messages_xxh3: self.messages.hex(),
            readings_xxh3: hash_of(&self.folder.join(READINGS))?,
            counts: counts.clone(),
        };
        manifest.write(&self.folder)
    }
}

fn write(file: File, path: &Path, schema: SchemaRef, mut receiver: mpsc::Receiver<Sent>) -> Result<()> {
    let failed = |error: &dyn std::fmt::Display| Error::file(path)(std::io::Error::other(error.to_string()));
    let properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default())).build();
    let mut writer = ArrowWriter::try_new(file, schema.clone(), Some(properties)).map_err(|error| failed(&error))?;
    let mut batch = Vec::with_capacity(BATCH_ROWS);
    while receiver.blocking_recv_many(&mut batch, BATCH_ROWS) > 0 {
        let rows = rows(&batch, &schema).map_err(|error| failed(&error))?;
        writer.write(&rows).map_err(|error| failed(&error))?;
        batch.clear();
    }
    writer.close().map(|_| ()).map_err(|error| failed(&error))
}
