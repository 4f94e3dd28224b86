//! Sets a damaged segment aside: the one way in which rows that were stored are given up, and a person asks for it by the file's name.
//!
//! The file goes to `<data_dir>/quarantine/<table>/`, the lane's next record takes the segment out, and its counter
//! `table.<table>.quarantined` says how many rows went, so that counts still explain every row. What else the lane has marked moves on.

use crate::cold::transaction;
use crate::durable::create_dir_all;
use crate::epoch::{Chain, Change, EpochStore, Newest, Sealed, Segment, TableChange};
use crate::verify::Subject;
use crate::warm::{check_segment, segment_path};
use flow::{Error, Remedy, Result};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use world::{Disk, LocalDisk, sync_parent};

/// The counter of rows that were given up.
#[must_use]
pub fn quarantined_word(table: &str) -> String {
    format!("table.{table}.quarantined")
}

/// Who seals the record.
#[derive(Clone, Copy, Debug)]
pub struct Sealer<'a> {
    /// Random, of this process.
    pub incarnation: u64,
    /// Where others find it.
    pub owner: &'a str,
}

/// What was set aside.
#[derive(Clone, Debug)]
pub struct Aside {
    /// The lane that had it.
    pub lane: String,
    /// What the lane's records said of it.
    pub segment: Segment,
    /// Where the file is now; none where it was missing.
    pub to: Option<PathBuf>,
}

/// Sets the segment `file` of a table aside. The caller owns the data directory. Refused for a segment that is whole, and for one whose rows
/// are in the cold table already.
pub async fn set_aside(subject: Subject<'_>, data_dir: &Path, table: &str, file: &str, by: Sealer<'_>) -> Result<Aside> {
    let (lane, newest, segment) = find(subject, table, file)?;
    let moved = moved(subject, table, &lane, &newest).await?;
    if segment.mark.is_some_and(|mark| mark <= moved) {
        return refused(format!("the rows of {file} are in the cold table: the next start lets the segment go"));
    }
    if check_segment(&LocalDisk, &subject.warm.join(table), &segment).is_ok() {
        return refused(format!("{file} is whole: there is no reason to give its rows up"));
    }
    let from = segment_path(subject.warm, table, file);
    let to = keep(&from, &data_dir.join("quarantine").join(table).join(file))?;
    seal(subject, &lane, &newest, table, &segment, by)?;
    // Without a record that names it, it goes at the next start if it cannot go now.
    let _ = LocalDisk.remove(&from);
    Ok(Aside { lane, segment, to })
}

fn refused<T>(why: String) -> Result<T> {
    Err(Error::new(Remedy::Stop, why))
}

fn find(subject: Subject<'_>, table: &str, file: &str) -> Result<(String, Newest, Segment)> {
    for lane in subject.epochs.lanes()? {
        let Some(newest) = subject.epochs.newest(&lane)? else { continue };
        let segments = newest.whole.tables.get(table).map_or(&[][..], |state| &state.segments);
        if let Some(segment) = segments.iter().find(|segment| segment.file == file).cloned() {
            return Ok((lane, newest, segment));
        }
    }
    refused(format!("no lane has a segment {file} of table {table}"))
}

/// The highest move number of the lane that is in the cold table.
async fn moved(subject: Subject<'_>, table: &str, lane: &str, newest: &Newest) -> Result<u64> {
    let Some(cold) = subject.cold.table(table) else { return Ok(0) };
    let Some(snapshot) = cold.snapshot().await? else { return Ok(0) };
    snapshot.transaction(&transaction(subject.pipeline, table, lane, &newest.header.chain)).await
}

/// Gives the file a second name that stays; none where it is missing.
fn keep(from: &Path, to: &Path) -> Result<Option<PathBuf>> {
    let failed = |e| Error::stop(format!("keeping {} as {}", from.display(), to.display()), e);
    create_dir_all(&LocalDisk, to.parent().unwrap_or(to)).map_err(failed)?;
    match LocalDisk.link(from, to) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        // An earlier attempt that ended before its record.
        Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
        linked => linked.map_err(failed)?,
    }
    sync_parent(&LocalDisk, to).map_err(failed)?;
    Ok(Some(to.to_owned()))
}

fn seal(subject: Subject<'_>, lane: &str, newest: &Newest, table: &str, segment: &Segment, by: Sealer<'_>) -> Result<()> {
    let claimed = subject.epochs.claim(lane, &newest.header.fingerprint, by.incarnation, by.owner)?;
    let mut chain = Chain::from_claimed(claimed);
    let whole = chain.whole().clone();
    let word = quarantined_word(table);
    let rows = whole.counters.get(&word).copied().unwrap_or(0) + segment.rows;
    let removed = TableChange { removed: vec![segment.file.clone()], ..TableChange::default() };
    let change = Change {
        watermark: whole.watermark.clone(),
        counters: [(word, rows)].into(),
        tables: [(table.to_owned(), removed)].into(),
        ..Change::default()
    };
    match subject.epochs.seal(chain.next(change)?)? {
        Sealed::Ours => Ok(()),
        Sealed::Fenced => refused(format!("lane {lane} was taken by another process: nothing is given up")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::tests::Data;

    const BY: Sealer<'_> = Sealer { incarnation: 2, owner: "here" };

    async fn give_up(data: &Data, file: &str) -> Result<Aside> {
        data.with(async |subject| set_aside(subject, data.folder.path(), "t", file, BY).await).await
    }

    #[tokio::test]
    async fn a_damaged_segment_that_is_marked_goes_and_its_move_goes_on() {
        let data = Data::new().await;
        let path = data.one("warm", "1-0.parquet");
        data.flip(&path, 10);
        let aside = give_up(&data, "l-1-1-0.parquet").await.unwrap();
        assert!(aside.segment.rows == 2 && aside.to.unwrap().exists() && !path.exists());
        let report = data.verify().await;
        assert!(report.is_sound() && report.tables[0].removed == 2, "{report}");
        // The mark is empty now, and its number still has to come into the cold table.
        data.move_on().await;
        let report = data.verify().await;
        assert!(report.is_sound() && report.tables[0].cold == 2, "{report}");
        let again = give_up(&data, "l-1-1-0.parquet").await.unwrap_err();
        assert!(again.to_string().contains("no lane has a segment"), "{again}");
    }

    #[tokio::test]
    async fn a_missing_segment_can_be_given_up_and_a_whole_one_cannot() {
        let data = Data::new().await;
        let refused = give_up(&data, "l-1-2-0.parquet").await.unwrap_err();
        assert!(refused.to_string().contains("is whole"), "{refused}");
        std::fs::remove_file(data.one("warm", "2-0.parquet")).unwrap();
        assert!(give_up(&data, "l-1-2-0.parquet").await.unwrap().to.is_none());
        let report = data.verify().await;
        assert!(report.is_sound() && report.tables[0].removed == 2, "{report}");
    }

    #[tokio::test]
    async fn rows_that_are_in_the_cold_table_are_not_given_up() {
        let data = Data::new().await;
        data.move_on().await;
        data.flip(&data.one("warm", "1-0.parquet"), 10);
        let refused = give_up(&data, "l-1-1-0.parquet").await.unwrap_err();
        assert!(refused.to_string().contains("in the cold table"), "{refused}");
    }
}
