//! The Delta table of one table: made when first needed, read by snapshot. How it is changed is in `commit`.

use super::files::{MoveFile, rewrite_files, write_files};
use super::log;
use super::place::Place;
use super::seam::{ColdFile, ColdTable, ColdVersion, Edit, RemovedFile};
use super::sweep::sweep;
use super::types::stored_type;
use crate::options::ColdOptions;
use arrow::datatypes::{DataType, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::TableProvider;
use deltalake::kernel::transaction::CommitProperties;
use deltalake::kernel::{DataType as Delta, LogicalFileView, PrimitiveType, StructField, TombstoneView};
use deltalake::operations::create::CreateBuilder;
use deltalake::{DeltaTable, DeltaTableError, TableProperty};
use flow::{Error, EventTime, Remedy, Result};
use futures::TryStreamExt;
use object_store::ObjectStoreExt;
use object_store::path::Path as ObjectPath;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The log remembers a removed file longer than the file is kept, so that nothing is forgotten before it is deleted.
const REMEMBERED_LONGER: Duration = Duration::from_secs(86_400);

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

/// A cold table. Clones share what they have seen of it.
#[derive(Clone, Debug)]
pub struct Cold {
    place: Place,
    schema: SchemaRef,
    file_size: u64,
    keep_removed: Duration,
    /// The newest version that was seen, and one.
    seen: Arc<AtomicU64>,
}

/// One version of a cold table: everything a view needs comes from the same one.
#[derive(Clone)]
pub struct Snapshot {
    pub(super) table: DeltaTable,
}

impl Cold {
    /// The table `name` below the options' address. Opens nothing. An error when a column has no form in Delta.
    pub fn new(options: &ColdOptions, name: &str, schema: SchemaRef) -> Result<Self> {
        for field in schema.fields() {
            stored_type(field.name(), field.data_type())?;
        }
        let place = Place::new(options, name)?;
        let (file_size, keep_removed) = (options.file_size, options.keep_removed);
        Ok(Self { place, schema, file_size, keep_removed, seen: Arc::default() })
    }

    /// Where the table lies.
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// The columns as rows have them.
    pub(super) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// A file is ended at about so many bytes.
    pub(super) fn file_size(&self) -> u64 {
        self.file_size
    }

    /// The columns as they are stored, without the partition column.
    pub(crate) fn stored(&self) -> Result<Vec<(String, DataType)>> {
        self.schema.fields().iter().map(|f| Ok((f.name().clone(), stored_type(f.name(), f.data_type())?.0))).collect()
    }

    /// Remembers that there is a version.
    pub(super) fn saw(&self, version: u64) {
        self.seen.fetch_max(version + 1, Ordering::Relaxed);
    }

    /// Whether this process has seen a newer version than this one.
    pub(super) fn is_outdated(&self, snapshot: Option<u64>) -> bool {
        self.seen.load(Ordering::Relaxed) > snapshot.map_or(0, |version| version + 1)
    }

    /// The newest version; none while the table was never written to. Writes nothing.
    pub async fn snapshot(&self) -> Result<Option<Snapshot>> {
        if self.place.folder().is_some_and(|folder| !folder.join("_delta_log").exists()) {
            return Ok(None);
        }
        let mut table = DeltaTable::new(self.place.log());
        match table.load().await {
            Ok(()) => {
                self.saw(table.version().unwrap_or_default());
                Ok(Some(Snapshot { table }))
            }
            Err(DeltaTableError::NotATable(_)) => Ok(None),
            Err(e) => Err(Error::retry(format!("reading the cold table {}", self.place), e)),
        }
    }

    /// The columns as Delta has them, without the partition column.
    fn columns(&self) -> Result<Vec<StructField>> {
        let column = |f: &arrow::datatypes::Field| Ok(StructField::new(f.name(), stored_type(f.name(), f.data_type())?.1, true));
        self.schema.fields().iter().map(|f| column(f)).collect()
    }

    /// The newest version, with all of our columns: those that it lacks are added, null in the rows that are there. An error when it has one
    /// of another type.
    async fn with_columns(&self, snapshot: Snapshot) -> Result<Snapshot> {
        let state = snapshot.table.snapshot().map_err(|e| Error::retry(format!("the columns of the cold table {}", self.place), e))?;
        let theirs = state.schema();
        let mut missing = vec![];
        for ours in self.columns()? {
            match theirs.field(ours.name()) {
                None => missing.push(ours),
                Some(their) if their.data_type() == ours.data_type() => {}
                Some(their) => {
                    let what = format!("column {} of the cold table {} is {}", ours.name(), self.place, their.data_type());
                    let way_out = "give the table another name, or its cold tier another url";
                    return Err(Error::new(Remedy::Stop, format!("{what}, and rows have {}; {way_out}", ours.data_type())));
                }
            }
        }
        if missing.is_empty() {
            return Ok(snapshot);
        }
        tracing::info!(table = %self.place, columns = ?missing.iter().map(StructField::name).collect::<Vec<_>>(), "the cold table gets new columns");
        let properties =
            CommitProperties::default().with_max_retries(0).with_create_checkpoint(false).with_cleanup_expired_logs(Some(false));
        let added = snapshot.table.add_columns().with_fields(missing).with_commit_properties(properties).await;
        let table = added.map_err(|e| Error::retry(format!("adding columns to the cold table {}", self.place), e))?;
        self.saw(table.version().unwrap_or_default());
        Ok(Snapshot { table })
    }

    /// The newest version, of a table that is made if it is not there.
    pub async fn snapshot_or_create(&self) -> Result<Snapshot> {
        if let Some(snapshot) = self.snapshot().await? {
            return Ok(snapshot);
        }
        let mut columns = self.columns()?;
        columns.push(StructField::new(DAY, Delta::Primitive(PrimitiveType::Date), true));
        let kept = format!("interval {} seconds", (self.keep_removed + REMEMBERED_LONGER).as_secs());
        let made = CreateBuilder::new()
            .with_log_store(self.place.log())
            .with_columns(columns)
            .with_partition_columns([DAY])
            .with_configuration_property(TableProperty::DeletedFileRetentionDuration, Some(kept))
            .await;
        match made {
            Ok(table) => Ok(Snapshot { table }),
            Err(e) => self.snapshot().await?.ok_or_else(|| Error::retry(format!("making the cold table {}", self.place), e)),
        }
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

    /// The files of this version.
    pub fn files(&self) -> Result<Vec<ColdFile>> {
        let state = self.table.snapshot().map_err(|e| Error::retry("listing the files of a cold table", e))?;
        Ok(state.log_data().into_iter().filter_map(|file| cold_file(&file)).collect())
    }

    /// The files that were let go of, as far as the log remembers.
    pub async fn removed(&self) -> Result<Vec<RemovedFile>> {
        let failed = |e: DeltaTableError| Error::retry("listing the files that a cold table let go", e);
        let log = self.table.log_store();
        let removed: Vec<_> = self.table.snapshot().map_err(failed)?.all_tombstones(log.as_ref()).try_collect().await.map_err(failed)?;
        let known = |t: &TombstoneView| Some(RemovedFile { path: t.path().into_owned(), at_ms: t.deletion_timestamp()? });
        Ok(removed.iter().filter_map(known).collect())
    }

    /// The version's number.
    #[must_use]
    pub fn version(&self) -> Option<u64> {
        self.table.version()
    }
}

/// A file of the log as ours are; none when it has no day.
fn cold_file(file: &LogicalFileView) -> Option<ColdFile> {
    let part = file.partition_values_map().remove(DAY)??;
    let next = part.parse::<chrono::NaiveDate>().ok()?.succ_opt()?.and_time(chrono::NaiveTime::MIN);
    Some(ColdFile {
        path: file.path().into_owned(),
        ends: EventTime(next.and_utc().timestamp_micros()),
        part,
        bytes: file.size() as u64,
        rows: file.num_records().map(|n| n as u64),
    })
}

/// A version with the table that it is of.
struct Version(Cold, Snapshot);

#[async_trait]
impl ColdTable for Cold {
    async fn newest(&self) -> Result<Box<dyn ColdVersion>> {
        let snapshot = self.with_columns(self.snapshot_or_create().await?).await?;
        self.place.sync_log()?;
        Ok(Box::new(Version(self.clone(), snapshot)))
    }

    async fn write(&self, segments: &[PathBuf], key: &[String], name: &str, now_ms: i64) -> Result<Vec<MoveFile>> {
        write_files(self, segments, key, name, now_ms).await
    }

    async fn rewrite(&self, files: &[ColdFile], key: &[String], name: &str, now_ms: i64) -> Result<Vec<MoveFile>> {
        let paths: Vec<String> = files.iter().map(|f| f.path.clone()).collect();
        rewrite_files(self, &paths, key, name, now_ms).await
    }

    async fn discard(&self, files: &[MoveFile]) {
        for file in files {
            if let Err(error) = self.place.store().delete(&ObjectPath::from(file.path.as_str())).await {
                tracing::warn!(table = %self.place, file = file.path, %error, "a file of a move that was given up stays");
            }
        }
    }

    async fn sweep(&self, incarnation: u64, lanes: &BTreeMap<String, u64>) -> Result<usize> {
        sweep(self, incarnation, lanes).await
    }

    async fn vacuum(&self, before_ms: i64) -> Result<usize> {
        log::vacuum(self, before_ms).await
    }

    async fn checkpoint(&self) -> Result<bool> {
        log::checkpoint(self).await
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

    async fn files(&self) -> Result<Vec<ColdFile>> {
        self.1.files()
    }

    async fn removed(&self) -> Result<Vec<RemovedFile>> {
        self.1.removed().await
    }

    async fn commit(&self, edit: &Edit) -> Result<()> {
        self.0.commit(&self.1, edit).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{cold, spec};
    use arrow::datatypes::{Field, Schema};

    #[tokio::test]
    async fn columns_are_added_once_and_other_types_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let narrow = cold(folder.path());
        let with = |field: Field| {
            let fields = spec().schema.fields().iter().filter(|f| f.name() != field.name()).map(|f| f.as_ref().clone()).collect::<Vec<_>>();
            Cold { schema: Arc::new(Schema::new([vec![field], fields].concat())), ..cold(folder.path()) }
        };
        assert_eq!(narrow.newest().await.unwrap().number(), 0);
        let wide = with(Field::new("w", DataType::UInt64, true));
        assert_eq!(wide.newest().await.unwrap().number(), 1);
        assert_eq!(wide.newest().await.unwrap().number(), 1, "it has them");
        let names = wide.snapshot().await.unwrap().unwrap().provider().await.unwrap().schema();
        assert_eq!(names.fields().iter().map(|f| f.name().as_str()).collect::<Vec<_>>(), ["device", "v", "event_time", "day", "w"]);
        assert_eq!(narrow.newest().await.unwrap().number(), 1, "one that knows less leaves them");
        let error = with(Field::new("v", DataType::Utf8, true)).newest().await.err().unwrap().to_string();
        assert!(error.contains("column v of the cold table") && error.contains("another name"), "{error}");
    }
}
