//! Readings in a file, one a line, in the order they are due. A file knows no waiting: it is written as fast as the disk takes it, and
//! appears whole or not at all. What stands in it counts as acknowledged.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::Duration;

use super::{Progress, sent};
use crate::fleet::Fleet;
use crate::scenario::Scenario;
use crate::truth::{TruthSender, TruthWriter};
use crate::{Error, Result};

pub(super) fn send(
    scenario: &Scenario,
    fleet: &mut Fleet,
    writer: &mut Option<TruthWriter>,
    truth: TruthSender,
    progress: &Progress,
    began_us: i64,
) -> Result<()> {
    let path = &scenario.wire.file;
    let part = path.with_extension("part");
    write(&part, fleet, writer, &truth, progress, began_us).map_err(Error::file(&part))?;
    std::fs::rename(&part, path).map_err(Error::file(path))
}

fn write(
    path: &Path,
    fleet: &mut Fleet,
    writer: &mut Option<TruthWriter>,
    truth: &TruthSender,
    progress: &Progress,
    began_us: i64,
) -> std::io::Result<()> {
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    if let Some(header) = fleet.header() {
        writeln!(file, "{header}")?;
    }
    for message in fleet {
        file.write_all(&message.payload)?;
        file.write_all(b"\n")?;
        if let Some(writer) = writer {
            writer.hash(&message);
        }
        progress.sent(&message.reading, Duration::ZERO);
        progress.acknowledged(Duration::ZERO);
        let due_us = began_us + message.due.as_micros() as i64;
        let (mut sent, _) = sent(message, truth, due_us, due_us);
        sent.acknowledged_us = Some(due_us);
        truth.put_blocking(sent);
    }
    file.into_inner().map_err(|error| error.into_error())?.sync_all()
}
