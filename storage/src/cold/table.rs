//! The Delta table of one table: made when first needed, read by snapshot, changed by one commit a move.

use super::files::{MoveFile, write_files};
use super::seam::{ColdTable, ColdVersion};
use super::store::{DurableFs, sync_directories};
use super::sweep::sweep;
use super::types::stored_type;
use arrow::datatypes::{DataType, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::TableProvider;
use deltalake::kernel::transaction::{CommitBuilder, CommitProperties};
use deltalake::kernel::{Action, Add, DataType as Delta, PrimitiveType, StructField, Transaction};
use deltalake::operations::create::CreateBuilder;
use deltalake::protocol::{DeltaOperation, SaveMode};
use deltalake::{DeltaTable, DeltaTableBuilder, DeltaTableError};
use flow::{Error, Result};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use url::Url;

/// The column that a cold table is partitioned by: the day of the event time, UTC.
pub(super) const DAY: &str = "day";

/// The application id of a lane's moves of a table.
#[must_use]
pub fn transaction(pipeline: &str, table: &str, lane: &str, chain: &str) -> String {
    format!("tidegate/{pipeline}/{table}/{lane}/{chain}")
}

/// The application id under which a table's log counts rows that went for good with their days: its version is how many, since the table's
/// beginning. Whoever drops files raises it in the same commit, so that counts explain every row.
#[must_use]
pub fn dropped(pipeline: &str, table: &str) -> String {
    format!("tidegate/{pipeline}/{table}/dropped")
}

/// A cold table on local disk.
#[derive(Clone, Debug)]
pub struct Cold {
    root: PathBuf,
    schema: SchemaRef,
}

/// One version of a cold table: everything a view needs comes from the same one.
#[derive(Clone)]
pub struct Snapshot {
    pub(super) table: DeltaTable,
}

impl Cold {
    /// The table `name` below `url` (a path; nothing is opened). An error when a column has no form in Delta.
    pub fn new(url: &str, name: &str, schema: SchemaRef) -> Result<Self> {
        for field in schema.fields() {
            stored_type(field.name(), field.data_type())?;
        }
        let path = url.strip_prefix("file://").unwrap_or(url);
        let root = std::path::absolute(Path::new(path).join(name)).map_err(|e| Error::stop(format!("cold path {url}"), e))?;
        Ok(Self { root, schema })
    }

    /// Where the table lies.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The columns as they are stored, without the partition column.
    pub(crate) fn stored(&self) -> Result<Vec<(String, DataType)>> {
        self.schema.fields().iter().map(|f| Ok((f.name().clone(), stored_type(f.name(), f.data_type())?.0))).collect()
    }

    /// The newest version; none while the table was never written to. Writes nothing.
    pub async fn snapshot(&self) -> Result<Option<Snapshot>> {
        if !self.root.join("_delta_log").exists() {
            return Ok(None);
        }
        match self.builder()?.load().await {
            Ok(table) => Ok(Some(Snapshot { table })),
            Err(DeltaTableError::NotATable(_)) => Ok(None),
            Err(e) => Err(Error::retry(format!("reading the cold table {}", self.root.display()), e)),
        }
    }

    /// The newest version, of a table that is made if it is not there.
    pub async fn snapshot_or_create(&self) -> Result<Snapshot> {
        if let Some(snapshot) = self.snapshot().await? {
            return Ok(snapshot);
        }
        std::fs::create_dir_all(&self.root).map_err(|e| Error::retry(format!("making {}", self.root.display()), e))?;
        let column = |f: &arrow::datatypes::Field| Ok(StructField::new(f.name(), stored_type(f.name(), f.data_type())?.1, true));
        let mut columns = self.schema.fields().iter().map(|f| column(f)).collect::<Result<Vec<_>>>()?;
        columns.push(StructField::new(DAY, Delta::Primitive(PrimitiveType::Date), true));
        let log = self.builder()?.build_storage().map_err(|e| Error::stop("a log for the cold table", e))?;
        let made = CreateBuilder::new().with_log_store(log).with_columns(columns).with_partition_columns([DAY]).await;
        match made {
            Ok(table) => Ok(Snapshot { table }),
            Err(e) => self.snapshot().await?.ok_or_else(|| Error::retry(format!("making the cold table {}", self.root.display()), e)),
        }
    }

    /// Adds the files of a move and raises the transaction of each lane inside, on the snapshot that was checked: nothing is retried
    /// on another one. An error tells nothing about the outcome; look at a new snapshot.
    pub async fn commit(&self, on: &Snapshot, files: &[MoveFile], transactions: &BTreeMap<String, u64>) -> Result<()> {
        let mut properties = CommitProperties::default().with_max_retries(0);
        properties = properties
            .with_application_transactions(transactions.iter().map(|(app, number)| Transaction::new(app, *number as i64)).collect());
        let operation = DeltaOperation::Write { mode: SaveMode::Append, partition_by: Some(vec![DAY.into()]), predicate: None };
        let failed = |e: DeltaTableError| Error::retry(format!("committing to the cold table {}", self.root.display()), e);
        let state = on.table.snapshot().map_err(failed)?;
        CommitBuilder::from(properties)
            .with_actions(files.iter().map(|f| Action::Add(add(f))).collect())
            .build(Some(state.snapshot()), on.table.log_store(), operation)
            .await
            .map_err(failed)?;
        Ok(())
    }

    fn builder(&self) -> Result<DeltaTableBuilder> {
        std::fs::create_dir_all(&self.root).map_err(|e| Error::retry(format!("making {}", self.root.display()), e))?;
        let store = DurableFs::new(Path::new("/")).map_err(|e| Error::retry(format!("opening {}", self.root.display()), e))?;
        let url = Url::from_directory_path(&self.root)
            .map_err(|()| Error::new(flow::Remedy::Stop, format!("{} is no absolute path", self.root.display())))?;
        let builder = DeltaTableBuilder::from_url(url.clone()).map_err(|e| Error::stop("the address of a cold table", e))?;
        Ok(builder.with_storage_backend(Arc::new(store), url))
    }
}

impl Snapshot {
    /// The transaction of an application id: the highest move number of a lane that is in this version; 0 before the first.
    pub async fn transaction(&self, app: &str) -> Result<u64> {
        let failed = |e: DeltaTableError| Error::retry(format!("reading transaction {app}"), e);
        let log = self.table.log_store();
        let version = self.table.snapshot().map_err(failed)?.transaction_version(log.as_ref(), app).await.map_err(failed)?;
        Ok(version.map_or(0, |v| v as u64))
    }

    /// The rows of this version.
    pub async fn provider(&self) -> Result<Arc<dyn TableProvider>> {
        let provider = self.table.table_provider().build().await.map_err(|e| Error::retry("opening a cold table for reading", e))?;
        Ok(Arc::new(provider))
    }

    /// Paths of the files of this version, below the table's root.
    pub fn files(&self) -> Result<Vec<PathBuf>> {
        let state = self.table.snapshot().map_err(|e| Error::retry("listing the files of a cold table", e))?;
        Ok(state.log_data().into_iter().map(|file| PathBuf::from(file.path().as_ref())).collect())
    }

    /// The version's number.
    #[must_use]
    pub fn version(&self) -> Option<u64> {
        self.table.version()
    }
}

/// A version with the table that it is of.
struct Version(Cold, Snapshot);

#[async_trait]
impl ColdTable for Cold {
    async fn newest(&self) -> Result<Box<dyn ColdVersion>> {
        let snapshot = self.snapshot_or_create().await?;
        // A commit whose put failed after the link is seen, and not yet on disk.
        let log = self.root.join("_delta_log");
        sync_directories(&log).map_err(|e| Error::retry(format!("fsync of {}", log.display()), e))?;
        Ok(Box::new(Version(self.clone(), snapshot)))
    }

    async fn write(&self, segments: &[PathBuf], key: &[String], name: &str, now_ms: i64) -> Result<Vec<MoveFile>> {
        write_files(self, segments, key, name, now_ms).await
    }

    fn discard(&self, files: &[MoveFile]) {
        for file in files {
            let at = self.root.join(&file.path);
            if let Err(error) = std::fs::remove_file(&at) {
                tracing::warn!(file = %at.display(), %error, "a file of a move that was given up stays");
            }
        }
    }

    async fn sweep(&self, incarnation: u64, lanes: &BTreeMap<String, u64>) -> Result<usize> {
        sweep(self, incarnation, lanes).await
    }
}

#[async_trait]
impl ColdVersion for Version {
    fn number(&self) -> u64 {
        self.1.version().unwrap_or_default()
    }

    async fn moved(&self, app: &str) -> Result<u64> {
        self.1.transaction(app).await
    }

    async fn commit(&self, files: &[MoveFile], transactions: &BTreeMap<String, u64>) -> Result<()> {
        self.0.commit(&self.1, files, transactions).await
    }
}

fn add(file: &MoveFile) -> Add {
    Add {
        path: file.path.clone(),
        partition_values: HashMap::from([(DAY.into(), Some(file.day.clone()))]),
        size: file.bytes as i64,
        modification_time: file.written_ms,
        data_change: true,
        stats: Some(file.statistics()),
        ..Default::default()
    }
}
