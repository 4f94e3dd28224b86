//! An object store on local disk whose puts are durable when they return.
//!
//! object_store 0.13's LocalFileSystem links files before any fsync could run. Here a put writes a temporary file, fsyncs it, links it
//! (create) or renames it (overwrite), and fsyncs the directory. Reads, lists and deletes are the library's.

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result,
};
use std::fmt;
use std::fs::{File, create_dir_all};
use std::io::Write;
use std::path::{Path as FilePath, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

static TEMPORARY: AtomicU64 = AtomicU64::new(0);

/// A directory as an object store with durable puts.
#[derive(Debug)]
pub struct DurableFs {
    inner: LocalFileSystem,
    root: PathBuf,
}

impl DurableFs {
    /// The store over an existing directory.
    pub fn new(root: &FilePath) -> Result<Self> {
        Ok(Self { inner: LocalFileSystem::new_with_prefix(root)?, root: root.to_path_buf() })
    }

    fn file(&self, location: &Path) -> PathBuf {
        self.root.join(location.as_ref())
    }
}

impl fmt::Display for DurableFs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DurableFs({})", self.root.display())
    }
}

/// Writes `to` durably; `create` refuses an existing file. The error kind tells which.
fn put(to: &FilePath, payload: &PutPayload, create: bool) -> std::io::Result<()> {
    let directory = to.parent().unwrap_or(FilePath::new("/"));
    create_dir_all(directory)?;
    let name = format!(".tmp-{}-{}", std::process::id(), TEMPORARY.fetch_add(1, Ordering::Relaxed));
    let temporary = directory.join(name);
    let mut file = File::create_new(&temporary)?;
    payload.iter().try_for_each(|part| file.write_all(part))?;
    file.sync_all()?;
    if create {
        let linked = std::fs::hard_link(&temporary, to);
        std::fs::remove_file(&temporary)?;
        linked?;
    } else {
        std::fs::rename(&temporary, to)?;
    }
    sync_directories(directory)
}

/// Fsyncs a directory and the one above it, which may have just been given it.
pub(super) fn sync_directories(directory: &FilePath) -> std::io::Result<()> {
    File::open(directory)?.sync_all()?;
    directory.parent().map_or(Ok(()), |above| File::open(above)?.sync_all())
}

fn failed(location: &Path, source: std::io::Error) -> Error {
    match source.kind() {
        std::io::ErrorKind::AlreadyExists => Error::AlreadyExists { path: location.to_string(), source: source.into() },
        _ => Error::Generic { store: "DurableFs", source: source.into() },
    }
}

#[async_trait]
impl ObjectStore for DurableFs {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let create = match opts.mode {
            PutMode::Create => true,
            PutMode::Overwrite => false,
            PutMode::Update(_) => {
                return Err(Error::NotImplemented { operation: "conditional update".into(), implementer: self.to_string() });
            }
        };
        let (to, at) = (self.file(location), location.clone());
        let written = tokio::task::spawn_blocking(move || put(&to, &payload, create)).await;
        written.map_err(|e| Error::Generic { store: "DurableFs", source: e.into() })?.map_err(|e| failed(&at, e))?;
        Ok(PutResult { e_tag: None, version: None })
    }

    async fn put_multipart_opts(&self, location: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(Error::NotImplemented { operation: format!("multipart upload of {location}"), implementer: self.to_string() })
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let payload = self.inner.get_opts(from, GetOptions::default()).await?.bytes().await?;
        let mode = if options.mode == object_store::CopyMode::Create { PutMode::Create } else { PutMode::Overwrite };
        self.put_opts(to, payload.into(), mode.into()).await.map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_create_happens_once_and_leaves_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let store = DurableFs::new(directory.path()).unwrap();
        let at = Path::from("_delta_log/0.json");
        store.put_opts(&at, "one".into(), PutMode::Create.into()).await.unwrap();
        let second = store.put_opts(&at, "two".into(), PutMode::Create.into()).await;
        assert!(matches!(second, Err(Error::AlreadyExists { .. })));
        let read = store.get_opts(&at, GetOptions::default()).await.unwrap().bytes().await.unwrap();
        assert_eq!(&read[..], b"one");
        assert_eq!(std::fs::read_dir(directory.path().join("_delta_log")).unwrap().count(), 1);
    }
}
