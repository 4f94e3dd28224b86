//! Each row is in one tier: what the lanes have stored is what segments, cold files and those who went for good make together.

use super::instant::Instant;
use super::report::{Part, Report, TableCount};
use super::{Fault, Subject};
use crate::last::REMOVED;
use crate::view::{LaneView, Stored, Views};
use flow::Lane;
use futures::FutureExt;
use std::collections::BTreeSet;

/// Counts the rows of every table, by the rule of the view: a segment whose move is in the cold table is not warm.
pub(super) fn check(subject: Subject<'_>, instant: &Instant, report: &mut Report) {
    if instant.is_partial {
        report.notes.push("rows are not counted: a lane or a cold table could not be read".to_owned());
        return;
    }
    let lanes = views(instant);
    let named = lanes.iter().flat_map(|lane| lane.whole.tables.keys().map(String::as_str));
    let tables: BTreeSet<&str> = subject.specs.iter().map(|s| s.name.as_str()).chain(named).collect();
    for table in tables {
        let sum = |word: &str| -> u64 { lanes.iter().filter_map(|lane| lane.whole.counters.get(&format!("table.{table}.{word}"))).sum() };
        let warm = lanes.iter().flat_map(|lane| lane.segments(table, instant.moved(table, &lane.lane.0))).map(|s| s.rows).sum();
        let cold = match instant.cold.get(table).map(|cold| cold.snapshot.named()).transpose() {
            Ok(files) => files.into_iter().flatten().filter_map(|file| file.rows).sum(),
            // That is in the report already.
            Err(_) => continue,
        };
        let dropped = instant.cold.get(table).map_or(0, |cold| cold.dropped);
        let removed = REMOVED.into_iter().map(sum).sum::<u64>() + dropped;
        let count = TableCount { table: table.to_owned(), stored: sum("stored"), warm, cold, removed };
        compare(&count, report);
        report.tables.push(count);
    }
}

fn compare(count: &TableCount, report: &mut Report) {
    let TableCount { table, stored, warm, cold, removed } = count;
    let found = warm + cold + removed;
    if found == *stored {
        return;
    }
    let how = if found > *stored {
        format!("{} rows are there twice, or the cold table has rows of another data directory", found - stored)
    } else {
        format!("{} rows are in no tier", stored - found)
    };
    let what = format!("{stored} rows were stored; {warm} are warm, {cold} cold and {removed} removed: {how}");
    report.fault(Part::Count, Some(table), None, String::new(), Fault::wrong(what));
}

fn views(instant: &Instant) -> Vec<LaneView> {
    let lanes = instant.lanes.iter().map(|lane| (Lane(lane.name.as_str().into()), lane.record, lane.whole.clone())).collect();
    // Records are there already: nothing is waited for, and nothing can fail.
    Stored { lanes }.lanes().now_or_never().and_then(flow::Result::ok).unwrap_or_default()
}
