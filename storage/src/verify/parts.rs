//! State and outbox files: every part that counts, by its checksum.

use super::instant::LaneNow;
use super::report::{Part, Report};
use super::{Fault, Subject, apart, disk, is_named};
use crate::epoch::{EpochError, StateFile};
use crate::outbox::read_exit;
use crate::state::check_file;
use flow::Result;
use std::path::Path;

/// Reads the state and outbox files of a lane.
pub(super) async fn check(subject: Subject<'_>, lane: &LaneNow, report: &mut Report) -> Result<()> {
    for file in &lane.whole.state {
        let (of, dir) = (file.clone(), subject.state.to_path_buf());
        let found = apart(move || check_state(&dir, &of)).await?;
        told(subject, lane, report, Part::State, (&subject.state.join(&file.file), file.bytes), found)?;
    }
    for file in lane.whole.outbox.values().flat_map(|exit| &exit.files) {
        let (of, dir) = (file.clone(), subject.outbox.to_path_buf());
        let read = move || read_exit(&*disk(), &dir, &of).map(|_| ()).map_err(|e| from_error(&e));
        let found = apart(read).await?;
        told(subject, lane, report, Part::Outbox, (&subject.outbox.join(&file.file), file.bytes), found)?;
    }
    Ok(())
}

fn told(
    subject: Subject<'_>,
    lane: &LaneNow,
    report: &mut Report,
    part: Part,
    (path, bytes): (&Path, u64),
    found: Result<(), Fault>,
) -> Result<()> {
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    match found {
        Ok(()) => report.count(part, bytes),
        Err(_) if !path.exists() && !is_named(subject.epochs, &lane.name, name)? => report.gone += 1,
        Err(_) if !path.exists() => report.fault(part, None, Some(&lane.name), path.display().to_string(), Fault::Missing),
        Err(fault) => report.fault(part, None, Some(&lane.name), path.display().to_string(), fault),
    }
    Ok(())
}

fn check_state(dir: &Path, file: &StateFile) -> Result<(), Fault> {
    check_file(&*disk(), dir, file).map_err(|error| match error {
        EpochError::Damaged { byte, what, .. } => Fault::at(byte, what),
        other => Fault::wrong(other.to_string()),
    })
}

fn from_error(error: &flow::Error) -> Fault {
    Fault::wrong(error.to_string())
}
