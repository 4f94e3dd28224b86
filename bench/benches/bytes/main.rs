//! Bytes a reading, in segments and in cold files, as the product writes them.
//!
//! ```text
//! main.rs      writes the reference readings through the real writers, and the table of their figures
//! input.rs     the reference readings
//! ```
//! Warm is measured twice: as epochs of a second leave it, and as the sorted runs of an hour that compaction makes of them.
//! `make bench-bytes ARGS="--decimals"`.

mod input;

use clap::Parser;
use input::{Fleet, spec};
use parquet::file::reader::{FileReader, SerializedFileReader};
use std::collections::BTreeMap;
use std::error::Error;
use std::fs::File;
use std::io::{Write, stdout};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use storage::TableSpec;
use storage::cold::{Cold, ColdTable};
use storage::epoch::Segment;
use storage::warm::policy::Due;
use storage::warm::{Merge, write_segment};
use world::LocalDisk;

/// As in the product.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Readings of a device in an hour.
const AN_HOUR: i64 = 360;

/// Segments that make a run of an hour.
const PIECES: i64 = 4;

/// Measures bytes a reading.
#[derive(Parser)]
struct Options {
    /// Devices.
    #[arg(long, default_value_t = 5_000)]
    devices: usize,
    /// Readings of each.
    #[arg(long, default_value_t = 800)]
    readings: i64,
    /// Measured values as decimals instead of floats.
    #[arg(long)]
    decimals: bool,
    /// The same seed gives the same readings.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// What `cargo bench` says to each bench.
    #[arg(long, hide = true)]
    bench: bool,
}

/// Bytes by column, and of the files as a whole.
#[derive(Default)]
struct Bytes {
    columns: BTreeMap<String, i64>,
    files: u64,
    rows: u64,
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    let folder = tempfile::tempdir()?;
    let spec = spec(options.decimals);
    let epochs = epochs(&options, &spec, &folder.path().join("epochs"))?;
    let (runs, segments) = runs(&options, &spec, &folder.path().join("runs"))?;
    let cold = tokio::runtime::Runtime::new()?.block_on(cold(&spec, &folder.path().join("cold"), &segments))?;
    let mut out = stdout().lock();
    let rows = options.readings * options.devices as i64;
    writeln!(
        out,
        "{rows} readings of {} devices, measured values as {}",
        options.devices,
        if options.decimals { "decimals" } else { "floats" }
    )?;
    writeln!(out, "{:<16} {:>12} {:>12} {:>12}", "bytes a reading", "epochs", "hours", "cold")?;
    let all = [&epochs, &runs, &cold];
    for field in spec.schema.fields() {
        let [a, b, c] = all.map(|bytes| bytes.column(field.name()));
        writeln!(out, "{:<16} {a:>12.3} {b:>12.3} {c:>12.3}", field.name())?;
    }
    let [a, b, c] = all.map(|bytes| bytes.files as f64 / bytes.rows as f64);
    writeln!(out, "{:<16} {a:>12.3} {b:>12.3} {c:>12.3}", "files")?;
    Ok(())
}

/// Segments of a second, of the first twenty seconds.
fn epochs(options: &Options, spec: &TableSpec, dir: &Path) -> Result<Bytes, Box<dyn Error>> {
    std::fs::create_dir_all(dir)?;
    let mut fleet = Fleet::new(options.devices, options.decimals, options.seed);
    let mut bytes = Bytes::default();
    let rows = fleet.next(2);
    let an_epoch = (rows.num_rows() / 20).max(1);
    for epoch in 0..rows.num_rows() / an_epoch {
        let name = format!("{epoch}.parquet");
        let segment = write_segment(&LocalDisk, dir, &name, spec, epoch as u64, &[rows.slice(epoch * an_epoch, an_epoch)])?;
        bytes.add(&dir.join(name), segment.as_ref())?;
    }
    Ok(bytes)
}

/// Runs of an hour, merged of smaller segments as compaction does it.
fn runs(options: &Options, spec: &TableSpec, warm: &Path) -> Result<(Bytes, Vec<PathBuf>), Box<dyn Error>> {
    let dir = warm.join(&spec.name);
    std::fs::create_dir_all(&dir)?;
    let mut fleet = Fleet::new(options.devices, options.decimals, options.seed);
    let (mut bytes, mut paths, mut left) = (Bytes::default(), vec![], options.readings);
    while left > 0 {
        let mut segments = vec![];
        for piece in 0..PIECES.min(left) {
            let readings = (left - piece * AN_HOUR / PIECES).clamp(0, AN_HOUR / PIECES);
            let name = format!("{}-{piece}.parquet", paths.len());
            segments.extend(write_segment(&LocalDisk, &dir, &name, spec, piece as u64, &[fleet.next(readings)])?);
        }
        let (due, names) = (Due { segments, start: i64::MIN }, [format!("{}.parquet", paths.len()), String::new()]);
        let merge = Merge { disk: &LocalDisk, warm, spec, due: &due, names, stop: &AtomicBool::new(false) };
        for run in merge.run()? {
            paths.push(dir.join(&run.file));
            bytes.add(&dir.join(&run.file), Some(&run))?;
        }
        left -= AN_HOUR;
    }
    Ok((bytes, paths))
}

async fn cold(spec: &TableSpec, dir: &Path, segments: &[PathBuf]) -> Result<Bytes, Box<dyn Error>> {
    let cold = Cold::new(&storage::ColdOptions::at(dir.display().to_string()), &spec.name, spec.schema.clone())?;
    let mut bytes = Bytes::default();
    for file in cold.write(segments, &spec.key, "bytes", 0).await? {
        bytes.add_file(&dir.join(&spec.name).join(&file.path), file.bytes, file.rows)?;
    }
    Ok(bytes)
}

impl Bytes {
    fn add(&mut self, path: &Path, segment: Option<&Segment>) -> Result<(), Box<dyn Error>> {
        segment.map_or(Ok(()), |segment| self.add_file(path, segment.bytes, segment.rows))
    }

    fn add_file(&mut self, path: &Path, bytes: u64, rows: u64) -> Result<(), Box<dyn Error>> {
        let reader = SerializedFileReader::new(File::open(path)?)?;
        for column in reader.metadata().row_groups().iter().flat_map(|group| group.columns()) {
            *self.columns.entry(column.column_path().string()).or_default() += column.compressed_size();
        }
        self.files += bytes;
        self.rows += rows;
        Ok(())
    }

    fn column(&self, name: &str) -> f64 {
        self.columns.get(name).copied().unwrap_or_default() as f64 / self.rows as f64
    }
}
