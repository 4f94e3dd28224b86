//! Where a cold table lies: a folder on local disk, or a prefix of an object store.

use super::store::{DurableFs, sync_directories};
use crate::durable::create_dir_all;
use crate::options::ColdOptions;
use deltalake::logstore::{LogStoreRef, StorageConfig, default_logstore};
use flow::{Error, Remedy, Result};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, RetryConfig};
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use url::Url;
use world::LocalDisk;

/// Few and short: the mover has a breaker and waits of its own, and a query should say that the store is away before its time is over.
const RETRIES: usize = 3;
const RETRY_FOR: Duration = Duration::from_secs(20);

/// The place of one table. Clones share the store.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// The table's own address, which ends with a slash.
    url: Url,
    /// The store as a whole, as addresses count from it.
    root: Arc<dyn ObjectStore>,
    /// The table's part of it: paths count from the table.
    table: Arc<dyn ObjectStore>,
    /// The folder, on local disk.
    folder: Option<PathBuf>,
}

impl Place {
    /// The place `<url>/<name>`; `url` is a path, a `file:` URL or `s3://bucket/prefix`. Opens nothing.
    pub(crate) fn new(options: &ColdOptions, name: &str) -> Result<Self> {
        let url = options.url.as_str();
        match url.split_once("://").map(|(scheme, _)| scheme) {
            Some("s3") => Self::bucket(options, name),
            None | Some("file") => Self::local(url, name),
            Some(scheme) => Err(Error::new(Remedy::Stop, format!("a cold table lies in a path, file: or s3:, not in {scheme}: ({url})"))),
        }
    }

    fn local(url: &str, name: &str) -> Result<Self> {
        let path = url.strip_prefix("file://").unwrap_or(url);
        let folder = std::path::absolute(FilePath::new(path).join(name)).map_err(|e| Error::stop(format!("cold path {url}"), e))?;
        let no_path = |()| Error::new(Remedy::Stop, format!("{} is no absolute path", folder.display()));
        let address = Url::from_directory_path(&folder).map_err(no_path)?;
        let root = DurableFs::new(FilePath::new("/")).map_err(|e| Error::stop(format!("opening {}", folder.display()), e))?;
        Self::of(address, Arc::new(root), Some(folder))
    }

    /// What a put has answered is durable there, and an entry of the log is put only if absent (`If-None-Match`).
    fn bucket(options: &ColdOptions, name: &str) -> Result<Self> {
        let failed = |e: &dyn std::fmt::Display| Error::new(Remedy::Stop, format!("the cold address {}: {e}", options.url));
        let url: Url = format!("{}/{name}/", options.url.trim_end_matches('/')).parse().map_err(|e| failed(&e))?;
        let retry = RetryConfig { max_retries: RETRIES, retry_timeout: RETRY_FOR, ..RetryConfig::default() };
        let mut builder = AmazonS3Builder::from_env().with_url(url.as_str()).with_retry(retry);
        for (key, value) in &options.s3 {
            builder = builder.with_config(key.parse().map_err(|e: object_store::Error| failed(&e))?, value);
        }
        // Whoever writes http:// means it.
        if builder.get_config_value(&AmazonS3ConfigKey::Endpoint).is_some_and(|endpoint| endpoint.starts_with("http://")) {
            builder = builder.with_allow_http(true);
        }
        Self::of(url, Arc::new(builder.build().map_err(|e| failed(&e))?), None)
    }

    fn of(url: Url, root: Arc<dyn ObjectStore>, folder: Option<PathBuf>) -> Result<Self> {
        let prefix = Path::from_url_path(url.path()).map_err(|e| Error::stop(format!("the address {url}"), e))?;
        Ok(Self { table: Arc::new(PrefixStore::new(root.clone(), prefix)), url, root, folder })
    }

    /// The address, which has no secrets.
    pub(super) fn url(&self) -> &Url {
        &self.url
    }

    /// The table's files: paths count from the table.
    pub(crate) fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.table
    }

    /// The store as a whole.
    pub(super) fn root(&self) -> &Arc<dyn ObjectStore> {
        &self.root
    }

    /// The folder, on local disk.
    pub(super) fn folder(&self) -> Option<&FilePath> {
        self.folder.as_deref()
    }

    /// The log of the table as deltalake knows it: an entry is created if absent, on every store.
    pub(super) fn log(&self) -> LogStoreRef {
        default_logstore(self.table.clone(), self.root.clone(), &self.url, &StorageConfig::default())
    }

    /// Makes what others have put into the log durable: a commit whose put failed after the link is seen, and not yet on disk. The folders
    /// above it too, which whoever made them may not have forced.
    pub(super) fn sync_log(&self) -> Result<()> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let log = folder.join("_delta_log");
        create_dir_all(&LocalDisk, &log)
            .and_then(|()| sync_directories(&log))
            .map_err(|e| Error::retry(format!("fsync of {}", log.display()), e))
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.folder {
            Some(folder) => write!(f, "{}", folder.display()),
            None => write!(f, "{}", self.url),
        }
    }
}
