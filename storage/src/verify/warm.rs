//! Segments: the bytes that were written, and in them the rows that the record says.

use super::content::{Content, read};
use super::instant::LaneNow;
use super::report::{Part, Report};
use super::{Fault, Subject, apart, is_named};
use crate::epoch::Segment;
use crate::warm::segment_path;
use flow::{EVENT_TIME, Result};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use xxhash_rust::xxh3::Xxh3;

/// Bytes that are hashed at once.
const PIECE: usize = 1 << 20;

/// Reads every segment of a lane, also those whose rows are in cold by now: the record names them.
pub(super) async fn check(subject: Subject<'_>, lane: &LaneNow, report: &mut Report) -> Result<()> {
    for (table, state) in &lane.whole.tables {
        let order = subject.specs.iter().find(|s| s.name == *table).map_or(vec![], |s| [&s.key[..], &[EVENT_TIME.to_owned()]].concat());
        for segment in &state.segments {
            let path = segment_path(subject.warm, table, &segment.file);
            let (of, order, at) = (segment.clone(), order.clone(), path.clone());
            match apart(move || check_segment(&at, &of, &order)).await? {
                Ok(()) => report.count(Part::Warm, segment.bytes),
                Err(Fault::Missing) if !is_named(subject.epochs, &lane.name, &segment.file)? => report.gone += 1,
                Err(fault) => {
                    report.fault(Part::Warm, Some(table), Some(&lane.name), path.display().to_string(), with_rows(fault, segment))
                }
            }
        }
    }
    Ok(())
}

/// Says also which rows are in question.
fn with_rows(fault: Fault, segment: &Segment) -> Fault {
    let time = |micros| chrono::DateTime::from_timestamp_micros(micros).map_or_else(|| micros.to_string(), |t| t.to_rfc3339());
    let rows = format!("{} rows from {} to {}", segment.rows, time(segment.min_time), time(segment.max_time));
    match fault {
        Fault::Missing => Fault::wrong(format!("it is missing; {rows}")),
        Fault::Wrong { byte, what } => Fault::Wrong { byte, what: format!("{what}; {rows}") },
    }
}

fn check_segment(path: &Path, segment: &Segment, order: &[String]) -> Result<(), Fault> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    if length != segment.bytes {
        return Err(Fault::at(length.min(segment.bytes), format!("it should have {} bytes and has {length}", segment.bytes)));
    }
    let found = checksum(&mut file)?;
    let content = read(&file, order);
    if found != segment.checksum {
        let what = format!("its checksum is {found:016x}, its record says {:016x}", segment.checksum);
        return Err(match content {
            Err(Fault::Wrong { byte, what: more }) => Fault::Wrong { byte, what: format!("{what}: {more}") },
            _ => Fault::wrong(format!("{what}; it can be read as Parquet, so single values are changed")),
        });
    }
    compare(&content?, segment)
}

fn compare(content: &Content, segment: &Segment) -> Result<(), Fault> {
    let differs = |what: &str, found: &dyn std::fmt::Debug, said: &dyn std::fmt::Debug| {
        Err(Fault::wrong(format!("{what} {found:?}, its record says {said:?}")))
    };
    if content.rows != segment.rows {
        return differs("rows are", &content.rows, &segment.rows);
    }
    let times = Some((segment.min_time, segment.max_time));
    if content.times != times {
        return differs("event times are", &content.times, &times);
    }
    let keys = Some((segment.min_key.clone(), segment.max_key.clone()));
    let says_keys = !(segment.min_key.is_empty() && segment.max_key.is_empty());
    if says_keys && content.keys.is_some() && content.keys != keys {
        return differs("keys are", &content.keys, &keys);
    }
    Ok(())
}

fn checksum(file: &mut File) -> std::io::Result<u64> {
    let (mut piece, mut digest) = (vec![0; PIECE], Xxh3::new());
    file.seek(SeekFrom::Start(0))?;
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(digest.digest()),
            read => digest.update(&piece[..read]),
        }
    }
}
