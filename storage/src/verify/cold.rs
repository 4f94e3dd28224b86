//! Cold files: as long as the log says, with its rows, of its times, readable to the last page. Parquet has no checksum of ours there.

use super::content::{Content, claimed_order, read};
use super::instant::ColdNow;
use super::report::{Part, Report};
use super::{Fault, Subject, apart};
use crate::cold::NamedFile;
use flow::Result;
use futures::TryStreamExt;
use object_store::{GetResult, GetResultPayload};
use std::fs::File;
use std::io::Write;

/// Microseconds of a day.
const DAY: i64 = 86_400_000_000;

/// Reads every file of one version of a cold table.
pub(super) async fn check(subject: Subject<'_>, table: &str, cold: &ColdNow, report: &mut Report) -> Result<()> {
    for file in cold.snapshot.named()? {
        match check_file(cold, &file).await? {
            Ok(()) => report.count(Part::Cold, file.bytes),
            Err(Fault::Missing) if !is_named(subject, table, &file).await? => report.gone += 1,
            Err(fault) => report.fault(Part::Cold, Some(table), None, file.path.clone(), fault),
        }
    }
    Ok(())
}

/// Whether the newest version names the file still: a rewrite may have taken its place, and it was deleted since.
async fn is_named(subject: Subject<'_>, table: &str, file: &NamedFile) -> Result<bool> {
    let Some(cold) = subject.cold.table(table) else { return Ok(false) };
    let Some(newest) = cold.snapshot().await? else { return Ok(false) };
    Ok(newest.named()?.iter().any(|named| named.path == file.path))
}

async fn check_file(cold: &ColdNow, file: &NamedFile) -> Result<Result<(), Fault>> {
    let got = match cold.snapshot.open(file).await {
        Ok(got) => got,
        Err(object_store::Error::NotFound { .. }) => return Ok(Err(Fault::Missing)),
        Err(error) => return Ok(Err(Fault::wrong(error.to_string()))),
    };
    let length = got.meta.size;
    if length != file.bytes {
        return Ok(Err(Fault::at(length.min(file.bytes), format!("it should have {} bytes and has {length}", file.bytes))));
    }
    let local = match local(got).await {
        Ok(local) => local,
        Err(error) => return Ok(Err(Fault::wrong(error.to_string()))),
    };
    let file = file.clone();
    apart(move || compare(&read(&local, &claimed_order(&local)?)?, &file)).await
}

/// The file itself on local disk, else a copy that goes when it is closed.
async fn local(got: GetResult) -> std::io::Result<File> {
    match got.payload {
        GetResultPayload::File(file, _) => Ok(file),
        GetResultPayload::Stream(mut bytes) => {
            let mut copy = tempfile::tempfile()?;
            while let Some(piece) = bytes.try_next().await? {
                copy.write_all(&piece)?;
            }
            Ok(copy)
        }
    }
}

fn compare(content: &Content, file: &NamedFile) -> Result<(), Fault> {
    if file.rows.is_some_and(|rows| rows != content.rows) {
        return Err(Fault::wrong(format!("{} rows, the log says {:?}", content.rows, file.rows)));
    }
    let Some((least, greatest)) = content.times else { return Ok(()) };
    // The log's times are cut to milliseconds.
    if file.times_ms.is_some_and(|(from, to)| least < from * 1_000 || greatest >= (to + 1) * 1_000) {
        return Err(Fault::wrong(format!("event times are {least} to {greatest}, the log says {:?} in milliseconds", file.times_ms)));
    }
    if file.day.is_some_and(|day| least.div_euclid(DAY) != day || greatest.div_euclid(DAY) != day) {
        return Err(Fault::wrong(format!("event times are {least} to {greatest}, which is not in its day")));
    }
    Ok(())
}
