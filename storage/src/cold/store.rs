//! An object store on local disk whose puts are durable when they return.
//!
//! object_store 0.13's LocalFileSystem links files before any fsync could run. Here a put writes a temporary file, fsyncs it, links it
//! (create) or renames it (overwrite), and fsyncs the directory. An upload in parts does the same with its file when it is complete; until
//! then nobody sees it. Reads, lists and deletes are the library's.

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result, UploadPart,
};
use std::fmt;
use std::fs::{File, create_dir_all};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How the name of a file begins that is not complete.
pub(super) const TEMPORARY_NAME: &str = ".tmp-";

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
    let (temporary, mut file) = begin(to)?;
    payload.iter().try_for_each(|part| file.write_all(part))?;
    file.sync_all()?;
    if create {
        let linked = std::fs::hard_link(&temporary, to);
        std::fs::remove_file(&temporary)?;
        linked?;
    } else {
        std::fs::rename(&temporary, to)?;
    }
    sync_directories(folder_of(to))
}

/// A new file beside `to`, under a name of its own.
fn begin(to: &FilePath) -> std::io::Result<(PathBuf, File)> {
    let directory = folder_of(to);
    create_dir_all(directory)?;
    let name = format!("{TEMPORARY_NAME}{}-{}", std::process::id(), TEMPORARY.fetch_add(1, Ordering::Relaxed));
    let temporary = directory.join(name);
    let file = File::create_new(&temporary)?;
    Ok((temporary, file))
}

fn folder_of(file: &FilePath) -> &FilePath {
    file.parent().unwrap_or(FilePath::new("/"))
}

/// A file that grows in parts.
#[derive(Debug)]
struct Upload {
    location: Path,
    to: PathBuf,
    temporary: PathBuf,
    file: Arc<File>,
    /// Where the next part begins.
    next: u64,
}

async fn blocking<T: Send + 'static>(location: &Path, work: impl FnOnce() -> std::io::Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await.map_err(|e| Error::Generic { store: "DurableFs", source: e.into() })?;
    done.map_err(|e| failed(location, e))
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (mut at, file, location) = (self.next, self.file.clone(), self.location.clone());
        self.next += data.content_length() as u64;
        let write = move || {
            data.iter().try_for_each(|part| {
                file.write_all_at(part, at)?;
                at += part.len() as u64;
                Ok(())
            })
        };
        Box::pin(async move { blocking(&location, write).await })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let (file, temporary, to) = (self.file.clone(), self.temporary.clone(), self.to.clone());
        let end = move || {
            file.sync_all()?;
            std::fs::rename(&temporary, &to)?;
            sync_directories(folder_of(&to))
        };
        blocking(&self.location, end).await?;
        Ok(PutResult { e_tag: None, version: None })
    }

    async fn abort(&mut self) -> Result<()> {
        let temporary = self.temporary.clone();
        blocking(&self.location, move || std::fs::remove_file(&temporary)).await
    }
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
        let to = self.file(location);
        blocking(location, move || put(&to, &payload, create)).await?;
        Ok(PutResult { e_tag: None, version: None })
    }

    async fn put_multipart_opts(&self, location: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        let to = self.file(location);
        let beside = to.clone();
        let (temporary, file) = blocking(location, move || begin(&beside)).await?;
        Ok(Box::new(Upload { location: location.clone(), to, temporary, file: Arc::new(file), next: 0 }))
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

    #[tokio::test]
    async fn an_upload_is_seen_when_it_is_complete() {
        let directory = tempfile::tempdir().unwrap();
        let store = DurableFs::new(directory.path()).unwrap();
        let at = Path::from("day=2025-01-01/a.parquet");
        let mut upload = store.put_multipart_opts(&at, PutMultipartOptions::default()).await.unwrap();
        let (first, second) = (upload.put_part("one".into()), upload.put_part("two".into()));
        second.await.unwrap();
        first.await.unwrap();
        assert!(matches!(store.get_opts(&at, GetOptions::default()).await, Err(Error::NotFound { .. })));
        upload.complete().await.unwrap();
        let read = store.get_opts(&at, GetOptions::default()).await.unwrap().bytes().await.unwrap();
        assert_eq!(&read[..], b"onetwo");
        let mut given_up = store.put_multipart_opts(&at, PutMultipartOptions::default()).await.unwrap();
        given_up.abort().await.unwrap();
        assert_eq!(std::fs::read_dir(directory.path().join("day=2025-01-01")).unwrap().count(), 1);
    }
}
