//! The demo's folder, which belongs to nobody else:
//! ```text
//! demo.toml        the pipeline
//! data/            journal, epoch records, warm tier
//! cold/            Delta tables
//! tidegate.log     what the pipeline logs, a JSON object a line
//! ```
//! It stays when the demo ends, so that one can look at it.

use flow::{Error, Remedy, Result};
use std::fs::{self, DirBuilder};
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// The pipeline as it is shipped.
const PIPELINE: &str = include_str!("../../../config/pipelines/demo.toml");
/// What of it is the demo's own: broker, metrics, data directory, cold tables.
const OWN: [&str; 4] = ["mqtt://127.0.0.1:1883", "127.0.0.1:9464", "data/demo", "cold/demo"];
/// Log lines that are shown when something failed.
const TAIL: usize = 10;

/// Where everything of a demo lies.
#[derive(Clone, Debug)]
pub(super) struct Folder {
    root: PathBuf,
}

impl Folder {
    /// Makes `wanted`, which must be new or empty, or a fresh folder among the temporary ones.
    pub(super) fn make(wanted: Option<&Path>) -> Result<Self> {
        let path = wanted.map_or_else(|| std::env::temp_dir().join(format!("tidegate-demo-{:08x}", rand::random::<u32>())), Path::to_owned);
        let failed = |e| Error::stop(format!("making {}", path.display()), e);
        // In the common temporary folder a name that is there already must not be taken over.
        DirBuilder::new().mode(0o700).recursive(wanted.is_some()).create(&path).map_err(failed)?;
        if fs::read_dir(&path).map_err(failed)?.next().is_some() {
            return Err(Error::new(Remedy::Stop, format!("{} is not empty; the demo wants a folder of its own", path.display())));
        }
        let root = path.canonicalize().map_err(failed)?;
        Ok(Self { root })
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn pipeline(&self) -> PathBuf {
        self.root.join("demo.toml")
    }

    pub(super) fn data(&self) -> PathBuf {
        self.root.join("data")
    }

    pub(super) fn cold(&self) -> PathBuf {
        self.root.join("cold")
    }

    pub(super) fn log(&self) -> PathBuf {
        self.root.join("tidegate.log")
    }

    /// Writes the pipeline's file.
    pub(super) fn write_pipeline(&self, broker: &str, metrics: SocketAddr) -> Result<()> {
        let path = |path: PathBuf| path.display().to_string();
        let text = pipeline(&[broker.to_owned(), metrics.to_string(), path(self.data()), path(self.cold())]);
        let at = self.pipeline();
        fs::write(&at, text).map_err(|e| Error::stop(format!("writing {}", at.display()), e))
    }

    /// The last lines of the log.
    pub(super) fn end_of_log(&self) -> String {
        let text = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(TAIL)..].join("\n")
    }
}

/// The shipped pipeline with values of its own in place of `OWN`.
fn pipeline(own: &[String; OWN.len()]) -> String {
    let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
    OWN.iter().zip(own).fold(PIPELINE.to_owned(), |text, (from, to)| text.replace(&quoted(from), &quoted(to)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Plan;

    #[test]
    fn the_pipeline_takes_the_demos_own_places() {
        let own = ["mqtt://127.0.0.1:7", "127.0.0.1:8", "/d \"e\"/data", "/d \"e\"/cold"].map(str::to_owned);
        let plan = Plan::read("demo.toml", &pipeline(&own)).unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(plan.data_dir, Path::new("/d \"e\"/data"));
        assert_eq!(plan.observability.metrics.port(), 8);
        assert!(matches!(&plan.sources[0].kind, crate::spec::Source::Mqtt(mqtt) if mqtt.url == "mqtt://127.0.0.1:7"));
        for table in ["readings", "per_window"] {
            let options = &plan.table(table).unwrap().options;
            assert_eq!(options.cold.as_ref().unwrap().url, "/d \"e\"/cold");
        }
    }

    #[test]
    fn a_folder_with_something_in_it_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Folder::make(Some(&dir.path().join("new/folder"))).is_ok());
        assert!(Folder::make(Some(dir.path())).unwrap_err().to_string().contains("not empty"));
    }
}
