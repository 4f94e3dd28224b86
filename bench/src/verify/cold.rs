//! The cold Parquet files of a raw table, read without Tidegate: which files count is what Delta's log says.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use datafusion::prelude::ParquetReadOptions;

use super::compare::number;
use super::raw::{Names, columns, named};
use super::{Ask, Check, Kind, Referee, quoted};
use crate::scenario::RawOptions;
use crate::{Error, Result};

impl<A: Ask> Referee<'_, A> {
    /// Holds the cold rows against the truth (nothing extra, twice or wrong; what is not cold yet is not missing), and their number
    /// against what the pipeline says is cold.
    pub(super) async fn cold(&self, name: &str, options: &RawOptions, folder: &Path) -> Result<Check> {
        let title = format!("{name}, cold files");
        let mut check = Check::new(&title);
        let folder = folder.join(name);
        let found = named("cold", name);
        let files = live(&folder)?;
        let sql = if files.is_empty() {
            format!("CREATE OR REPLACE TABLE {found} AS SELECT * FROM {} WHERE false", named("found", name))
        } else {
            let files: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
            let rows = self.context.read_parquet(files, ParquetReadOptions::default()).await?;
            let parts = named("parts", name);
            self.context.deregister_table(parts.trim_matches('"'))?;
            self.context.register_table(parts.trim_matches('"'), rows.into_view())?;
            format!("CREATE OR REPLACE TABLE {found} AS SELECT {} FROM {parts}", columns(options))
        };
        self.context.sql(&sql).await?.collect().await?;
        let expected = named("may_be_cold", name);
        let sql = format!(
            "CREATE OR REPLACE VIEW {expected} AS SELECT * EXCEPT (_least), CAST(0 AS BIGINT) AS _least FROM {}",
            named("expected", name)
        );
        self.context.sql(&sql).await?.collect().await?;
        Names::of(options).compared().run(&self.context, &expected, &found, &mut check).await?;
        let rows = self.pipeline.ask(&format!("SELECT count(*) AS n FROM tiers.{} WHERE _tier = 'cold'", quoted(name))).await?;
        super::compare::table(&self.context, "told", rows, &[])?;
        let told = number(&self.context, "SELECT n FROM told").await?;
        check.expected = Some(told);
        if told != check.found {
            check.tell(Kind::Wrong, format!("{} rows in the files, the pipeline says {told}", check.found));
        }
        Ok(check)
    }
}

/// The files of a Delta table that count: those added and not removed by its log. Checkpoints repeat the log and are not read.
fn live(table: &Path) -> Result<BTreeSet<PathBuf>> {
    let log = table.join("_delta_log");
    let mut commits = Vec::new();
    if log.exists() {
        for entry in std::fs::read_dir(&log).map_err(Error::file(&log))? {
            let path = entry.map_err(Error::file(&log))?.path();
            if path.extension().is_some_and(|end| end == "json") {
                commits.push(path);
            }
        }
    }
    commits.sort();
    if !commits.is_empty() && commits[0].file_stem().is_none_or(|name| name != "00000000000000000000") {
        return Err(Error::Verify(format!("{}: the log's beginning was cleaned up, so its files cannot be told", log.display())));
    }
    let mut files = BTreeSet::new();
    for commit in commits {
        let text = std::fs::read_to_string(&commit).map_err(Error::file(&commit))?;
        for line in text.lines().filter(|line| !line.is_empty()) {
            let wrong = |reason: String| Error::Verify(format!("{}: {reason}", commit.display()));
            let action: serde_json::Value = serde_json::from_str(line).map_err(|error| wrong(error.to_string()))?;
            let path = |of: &str| action.get(of).and_then(|action| action.get("path")).and_then(|path| path.as_str());
            if let Some(path) = path("add") {
                files.insert(table.join(decoded(path)));
            }
            if let Some(path) = path("remove") {
                files.remove(&table.join(decoded(path)));
            }
        }
    }
    Ok(files)
}

/// Paths in the log are URL-encoded (Delta protocol, "Add File and Remove File").
fn decoded(path: &str) -> String {
    url::form_urlencoded::parse(format!("p={}", path.replace('+', "%2B").replace('&', "%26")).as_bytes())
        .next()
        .map_or_else(|| path.to_owned(), |(_, path)| path.into_owned())
}
