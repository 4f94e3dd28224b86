//! How records follow from one another. Pure: no files, no clock.
//!
//! The law: folding the deltas onto the last whole record gives what a whole record would say.

use super::{
    Body, Change, EpochError, ExitChange, ExitState, Fingerprint, Header, Names, Record, Result, StateChange, StateFile, TableChange,
    TableState, Whole,
};
use flow::{EventTime, Positions};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Every record with this distance from the last whole one is whole, so that recovery reads at most this many.
pub const WHOLE_EVERY: u64 = 64;

/// What a change did not fit; `Chain` and the store add lane and number.
pub type Misfit = String;

impl Whole {
    /// The watermark at the seal: the number `w` in the driver's form of its state.
    #[must_use]
    pub fn sealed_watermark(&self) -> EventTime {
        self.watermark.get("w").and_then(serde_json::Value::as_i64).map_or(EventTime::MIN, EventTime)
    }

    /// Applies what changed. On an error the content is half changed and of no use.
    pub fn fold(&mut self, change: &Change) -> Result<(), Misfit> {
        fold_positions(&mut self.positions, &change.positions)?;
        self.watermark = change.watermark.clone();
        self.counters.extend(change.counters.iter().map(|(name, count)| (name.clone(), *count)));
        fold_state(&mut self.state, &change.state)?;
        for (name, table) in &change.tables {
            fold_table(self.tables.entry(name.clone()).or_default(), table).map_err(|what| format!("table {name}: {what}"))?;
        }
        for (name, exit) in &change.outbox {
            fold_exit(self.outbox.entry(name.clone()).or_default(), exit).map_err(|what| format!("exit {name}: {what}"))?;
        }
        Ok(())
    }

    /// Names of all files that count, of state, tables and outbox.
    #[must_use]
    pub fn files(&self) -> BTreeSet<String> {
        let segments = self.tables.values().flat_map(|t| &t.segments).map(|s| s.file.clone());
        let outbox = self.outbox.values().flat_map(|exit| &exit.files).map(|f| f.file.clone());
        self.state.iter().map(|f| f.file.clone()).chain(segments).chain(outbox).collect()
    }
}

impl Record {
    /// Names of the files that the record itself says are to be kept.
    #[must_use]
    pub fn files(&self) -> BTreeSet<String> {
        match &self.body {
            Body::Whole(whole) => whole.files(),
            Body::Delta(change) => {
                let state = change.state.added.iter().chain(change.state.merged.iter().map(|m| &m.into)).map(|f| f.file.clone());
                let segments = change.tables.values().flat_map(|t| &t.added).map(|s| s.file.clone());
                let outbox = change.outbox.values().filter_map(|exit| Some(exit.added.as_ref()?.file.clone()));
                state.chain(segments).chain(outbox).collect()
            }
        }
    }
}

fn fold_positions(positions: &mut Positions, change: &Positions) -> Result<(), Misfit> {
    for new in &change.0 {
        match positions.0.iter_mut().find(|p| p.log == new.log) {
            Some(old) if old.next > new.next => return Err(format!("{} goes back from {} to {}", old.log, old.next.0, new.next.0)),
            Some(old) => *old = new.clone(),
            None => positions.0.push(new.clone()),
        }
    }
    Ok(())
}

/// Removes parts, then puts the merged file in the place of its sources, then adds; files without parts go.
pub(crate) fn fold_state(files: &mut Vec<StateFile>, change: &StateChange) -> Result<(), Misfit> {
    let removed: BTreeSet<(&str, &str)> = change.removed.iter().map(|(o, p)| (o.as_str(), p.as_str())).collect();
    for file in files.iter_mut() {
        file.parts.retain(|p| !removed.contains(&(p.operator.as_str(), p.part.as_str())));
    }
    files.retain(|f| !f.parts.is_empty());
    if let Some(merge) = &change.merged {
        let first: Vec<&String> = files.iter().take(merge.from.len()).map(|f| &f.file).collect();
        if first != merge.from.iter().collect::<Vec<_>>() {
            return Err(format!("state merged from {:?}, but the oldest files are {first:?}", merge.from));
        }
        files.splice(..merge.from.len(), [merge.into.clone()]);
    }
    files.extend(change.added.clone());
    Ok(())
}

fn fold_table(table: &mut TableState, change: &TableChange) -> Result<(), Misfit> {
    for file in &change.removed {
        let at = table.segments.iter().position(|s| s.file == *file).ok_or_else(|| format!("removed segment {file} is not live"))?;
        table.segments.remove(at);
    }
    for segment in &change.added {
        if table.segments.iter().any(|s| s.file == segment.file) {
            return Err(format!("added segment {} is there already", segment.file));
        }
        table.segments.push(segment.clone());
    }
    if let Some(mark) = &change.marked {
        if Some(mark.number) != table.marked.checked_add(1) {
            return Err(format!("move {} is marked after {}", mark.number, table.marked));
        }
        for file in &mark.files {
            let free = table.segments.iter_mut().find(|s| s.file == *file && s.mark.is_none());
            free.ok_or_else(|| format!("segment {file} cannot be marked"))?.mark = Some(mark.number);
        }
        table.marked = mark.number;
    }
    if let Some(dropped) = change.dropped {
        if dropped < table.dropped || dropped > table.marked {
            return Err(format!("dropped becomes {dropped}, but is {} and marked is {}", table.dropped, table.marked));
        }
        table.segments.retain(|s| s.mark.is_none_or(|m| m > dropped));
        table.dropped = dropped;
    }
    Ok(())
}

fn fold_exit(exit: &mut ExitState, change: &ExitChange) -> Result<(), Misfit> {
    if change.watermark < exit.watermark {
        return Err(format!("its watermark falls from {} to {}", exit.watermark, change.watermark));
    }
    exit.watermark = change.watermark;
    if let Some(file) = &change.added {
        if file.first != exit.next {
            return Err(format!("file {} begins with row {}, and {} rows came before", file.file, file.first, exit.next));
        }
        exit.next = exit.next.checked_add(file.rows).ok_or_else(|| format!("file {} ends behind the last number of rows", file.file))?;
        exit.files.push(file.clone());
    }
    if let Some(taken) = change.taken {
        if taken > exit.next {
            return Err(format!("{taken} rows are taken of {}", exit.next));
        }
        exit.files.retain(|file| file.first.saturating_add(file.rows) > taken);
    }
    Ok(())
}

impl Fingerprint {
    /// What in `newer` does not fit what this plan has left behind, a phrase for each part; empty where a lane may go on with it.
    ///
    /// A plan may grow: by components, and by columns of sources and tables, which are null in rows of before.
    #[must_use]
    pub fn conflicts(&self, newer: &Self) -> Vec<String> {
        let names: BTreeSet<&String> = self.0.keys().chain(newer.0.keys()).collect();
        let phrase = |name: &String| match (self.0.get(name), newer.0.get(name)) {
            (Some(was), Some(is)) if was == is => None,
            (Some(was), Some(is)) => Some(format!("{name} was {was} and is {is}")),
            (Some(_), None) => Some(format!("{name} is gone")),
            (None, _) if self.may_grow_by(name) => None,
            (None, _) => Some(format!("{name} is new")),
        };
        names.into_iter().filter_map(phrase).collect()
    }

    /// The parts that are new in `newer`, where it has no conflict.
    #[must_use]
    pub fn grown(&self, newer: &Self) -> Vec<String> {
        newer.0.keys().filter(|name| !self.0.contains_key(*name)).cloned().collect()
    }

    /// Whether a part that this plan lacks is a column of a source or table, or belongs to a component that it lacks too.
    fn may_grow_by(&self, part: &str) -> bool {
        let mut words = part.splitn(3, '.');
        let (Some(section), Some(name), Some(rest)) = (words.next(), words.next(), words.next()) else { return false };
        let component = format!("{section}.{name}.");
        let is_known = self.0.range(component.clone()..).next().is_some_and(|(known, _)| known.starts_with(&component));
        !is_known || (matches!(section, "sources" | "tables") && rest.starts_with("columns."))
    }
}

/// A claimed lane: the content at the claim, and the header of the claiming record.
#[derive(Clone, Debug)]
pub struct Claimed {
    /// Header of the record that claimed the lane; its number is the generation.
    pub header: Header,
    /// What the lane holds.
    pub whole: Arc<Whole>,
}

/// The owner's end of a lane's chain: makes the next record and takes it over once it is sealed.
#[derive(Debug)]
pub struct Chain {
    header: Header,
    whole: Arc<Whole>,
    last_whole: u64,
    pending: Option<(Record, Arc<Whole>)>,
}

impl Chain {
    /// The chain from its claim on.
    #[must_use]
    pub fn from_claimed(claimed: Claimed) -> Self {
        Self { last_whole: claimed.header.number, header: claimed.header, whole: claimed.whole, pending: None }
    }

    /// Header of the newest sealed record.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// What the newest sealed record says.
    #[must_use]
    pub fn whole(&self) -> &Arc<Whole> {
        &self.whole
    }

    /// Number of the newest sealed whole record: clean-up goes up to it.
    #[must_use]
    pub fn last_whole(&self) -> u64 {
        self.last_whole
    }

    /// Names for the files of the record that comes next.
    #[must_use]
    pub fn names(&self) -> Names {
        Names::new(&self.header.lane, self.header.generation, self.header.number + 1)
    }

    /// The next record. Seal it, again and again if the outcome is unknown, then call `sealed`: a number has one content only.
    pub fn next(&mut self, mut change: Change) -> Result<&Record> {
        assert!(self.pending.is_none(), "record {} of {} is not sealed yet", self.header.number + 1, self.header.lane);
        let number = self.header.number + 1;
        change.positions.0.retain(|p| !self.whole.positions.0.contains(p));
        let mut whole = Whole::clone(&self.whole);
        whole.fold(&change).map_err(|what| EpochError::Unfit { lane: self.header.lane.clone(), number, what })?;
        let body = if number - self.last_whole >= WHOLE_EVERY { Body::Whole(whole.clone()) } else { Body::Delta(change) };
        let record = Record { header: Header { number, parent: self.header.number, ..self.header.clone() }, body };
        Ok(&self.pending.insert((record, Arc::new(whole))).0)
    }

    /// The record of `next` is sealed and ours. Returns the files that count no longer; delete them once no query can read them.
    pub fn sealed(&mut self) -> BTreeSet<String> {
        let (record, whole) = self.pending.take().expect("a record was made and sealed");
        let gone = self.whole.files().difference(&whole.files()).cloned().collect();
        if matches!(record.body, Body::Whole(_)) {
            self.last_whole = record.header.number;
        }
        self.header = record.header;
        self.whole = whole;
        gone
    }
}

/// Folds records onto one another, a whole one first, each following the one before. The error names the number that does not fit.
pub(crate) fn fold_all(records: &[Record]) -> Result<Whole, (u64, Misfit)> {
    let mut whole: Option<(Whole, &Header)> = None;
    for record in records {
        let (header, fail) = (&record.header, |what: Misfit| (record.header.number, what));
        whole = Some(match (whole, &record.body) {
            (_, Body::Whole(content)) => (content.clone(), header),
            (None, Body::Delta(_)) => return Err(fail("a delta without a whole record below it".into())),
            (Some((mut content, before)), Body::Delta(change)) => {
                if (header.parent, header.generation, &header.chain) != (before.number, before.generation, &before.chain) {
                    return Err(fail(format!("it does not follow record {} of generation {}", before.number, before.generation)));
                }
                content.fold(change).map_err(fail)?;
                (content, header)
            }
        });
    }
    whole.map(|(content, _)| content).ok_or((0, "no records".into()))
}
