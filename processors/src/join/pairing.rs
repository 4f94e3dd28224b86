//! The operator: each row looks for its pairs among what is held of the other side, then it is held itself.
//!
//! State: that of the two sides, and beside them parts `matched.<number of the span>` with the numbers of the left rows that are in a
//! pair. After a load the driver tells the watermark of the record by `on_watermark` before any batch.

use super::output::{EMITTED_ROWS, put_out};
use super::shape::Shape;
use super::side::{Place, Side, times};
use super::{JoinOptions, Unmatched};
use crate::BuildError;
use crate::presence::origin;
use arrow::array::{Array, AsArray, BooleanArray, RecordBatch, UInt32Array};
use arrow::compute::{not, take_record_batch};
use arrow::datatypes::{Int64Type, SchemaRef, UInt32Type};
use arrow::row::{RowConverter, Rows, SortField};
use flow::{
    Batch, Count, DeadLetters, Error, EventTime, Operator, Origin, Output, Reason, Remedy, Result, Span, StateReader, StateWriter, trail,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const LEFT: usize = 0;
const RIGHT: usize = 1;
/// The parts of the state that say which left rows are in a pair.
const MATCHED: &str = "matched";

/// See the page.
pub(super) struct Pairing {
    shape: Shape,
    converter: RowConverter,
    before: i64,
    after: i64,
    join: Unmatched,
    max_rows: usize,
    max_state: usize,
    /// Left, right.
    sides: [Side; 2],
    /// With `join = "left"`: the left rows that are in no pair yet.
    waiting: BTreeSet<Place>,
    /// Left rows by span that came into a pair since the last save.
    matched: BTreeMap<i64, Vec<u32>>,
    /// Spans with a stored part of matched rows, and those of them that are gone.
    stored: BTreeSet<i64>,
    gone: Vec<i64>,
    watermark: i64,
    /// The state is loaded, and the next watermark is the one it was saved at: its rows have been given out.
    loaded: bool,
}

impl Pairing {
    pub(super) fn new(options: &JoinOptions, shape: Shape) -> Result<Self, BuildError> {
        let fields = shape.held[LEFT].schema.fields().iter().take(shape.keys).map(|f| SortField::new(f.data_type().clone()));
        let converter = RowConverter::new(fields.collect()).map_err(|e| BuildError::new("key", e.to_string()))?;
        let (before, after) = (options.before.0.0, options.after.0.0);
        let side = |name, of: usize| Side::new(name, shape.held[of].schema.clone(), before.saturating_add(after));
        Ok(Self {
            sides: [side("left", LEFT), side("right", RIGHT)],
            shape,
            converter,
            before,
            after,
            join: options.join,
            max_rows: usize::try_from(options.max_rows).unwrap_or(usize::MAX),
            max_state: usize::try_from(options.max_state.as_u64()).unwrap_or(usize::MAX),
            waiting: BTreeSet::new(),
            matched: BTreeMap::new(),
            stored: BTreeSet::new(),
            gone: vec![],
            watermark: i64::MIN,
            loaded: false,
        })
    }
}

impl Operator for Pairing {
    fn schema(&self) -> SchemaRef {
        self.shape.output.clone()
    }

    fn on_batch(&mut self, batch: Batch, out: &mut dyn Output) -> Result<()> {
        self.on_input(LEFT, batch, out)
    }

    fn on_input(&mut self, side: usize, batch: Batch, out: &mut dyn Output) -> Result<()> {
        let batch = self.divert(side, batch, out)?;
        let batch = self.admit(batch, out);
        if batch.is_empty() {
            return Ok(());
        }
        out.count(Count::Taken, batch.len() as u64);
        let rows = self.shape.held[side].of(batch.rows())?;
        let (keys, has_key) = keys(&self.converter, self.shape.keys, &rows)?;
        self.pair(side, &rows, &keys, &has_key, batch.origin(), out)
    }

    fn on_watermark(&mut self, w: EventTime, out: &mut dyn Output) -> Result<EventTime> {
        self.watermark = self.watermark.max(w.0);
        let (left, right) = (self.watermark.saturating_sub(self.after), self.watermark.saturating_sub(self.before));
        let alone = self.alone(left);
        if !std::mem::take(&mut self.loaded) {
            for places in alone.chunks(EMITTED_ROWS) {
                put_out(&self.shape, &self.sides[LEFT].gather(places)?, None, origin(), out)?;
            }
        }
        for span in self.sides[LEFT].forget(left) {
            self.matched.remove(&span);
            if self.stored.remove(&span) {
                self.gone.push(span);
            }
        }
        self.sides[RIGHT].forget(right);
        Ok(EventTime(self.watermark.saturating_sub(self.lag().0)))
    }

    fn next_timer(&self, w: EventTime) -> Option<EventTime> {
        self.waiting.first().map(|place| self.due(place)).filter(|due| *due > w)
    }

    fn last_timer(&self) -> Option<EventTime> {
        self.waiting.last().map(|place| self.due(place))
    }

    fn lag(&self) -> Span {
        match self.join {
            Unmatched::Inner => Span(0),
            Unmatched::Left => Span(self.after),
        }
    }

    fn save(&mut self, to: &mut dyn StateWriter) -> Result<()> {
        self.sides.iter_mut().try_for_each(|side| side.save(to))?;
        for span in self.gone.drain(..) {
            to.remove(&format!("{MATCHED}.{span}"));
        }
        for (span, rows) in std::mem::take(&mut self.matched) {
            let rows = RecordBatch::try_from_iter([("row", Arc::new(UInt32Array::from(rows)) as Arc<dyn Array>)]);
            to.append(&format!("{MATCHED}.{span}"), rows.map_err(|e| Error::stop("matched rows of a join", e))?);
            self.stored.insert(span);
        }
        Ok(())
    }

    fn load(&mut self, from: &mut dyn StateReader) -> Result<()> {
        for side in [LEFT, RIGHT] {
            let places = self.sides[side].load(from, |rows| keys(&self.converter, self.shape.keys, rows))?;
            if side == LEFT && self.join == Unmatched::Left {
                self.waiting.extend(places);
            }
        }
        for part in from.parts() {
            if let Some((MATCHED, span)) = part.split_once('.') {
                let span = span.parse().map_err(|e| Error::stop(format!("state of a join has a part `{part}`"), e))?;
                self.load_matched(span, from.read(&part)?)?;
            }
        }
        self.loaded = true;
        Ok(())
    }

    fn held(&self) -> (u64, u64) {
        let keys: usize = self.sides.iter().map(Side::keys).sum();
        (keys as u64, self.bytes() as u64)
    }
}

impl Pairing {
    /// Gives away the rows that are behind W.
    fn divert(&self, side: usize, batch: Batch, out: &mut dyn Output) -> Result<Batch> {
        let marks = batch.trail_column(trail::WATERMARK).map(|m| m.as_primitive::<Int64Type>().values());
        let w = |row: usize| marks.map_or(self.watermark, |m| m[row]);
        let late: BooleanArray = batch.times().iter().enumerate().map(|(row, time)| Some(*time < w(row))).collect();
        if !late.has_true() {
            return Ok(batch);
        }
        out.late(self.shape.late(side, &batch.filter(&late)?)?);
        batch.filter(&not(&late).map_err(|e| Error::stop("inverting the late rows", e))?)
    }

    /// Refuses the rows for which there is no room: they are in no pair either.
    fn admit(&self, batch: Batch, out: &mut dyn Output) -> Batch {
        let held: usize = self.sides.iter().map(Side::rows).sum();
        let room = if self.bytes() > self.max_state { 0 } else { self.max_rows.saturating_sub(held) };
        if batch.len() <= room {
            return batch;
        }
        let detail = format!("the join holds its limit of {} rows or {} bytes", self.max_rows, self.max_state);
        out.dead(DeadLetters { rows: batch.slice(room, batch.len() - room), reason: Reason::StateLimit, detail });
        batch.slice(0, room)
    }

    /// Finds the pairs of new rows, and holds the rows.
    fn pair(
        &mut self,
        side: usize,
        rows: &RecordBatch,
        keys: &Rows,
        has_key: &[bool],
        origin: &Arc<Origin>,
        out: &mut dyn Output,
    ) -> Result<()> {
        let (back, ahead) = if side == LEFT { (self.before, self.after) } else { (self.after, self.before) };
        let (mut pairs, mut paired) = (Pairs::default(), vec![false; has_key.len()]);
        for (row, time) in (0..).zip(times(rows)) {
            if !has_key[row as usize] {
                continue;
            }
            let (from, to) = (time.saturating_sub(back), time.saturating_add(ahead));
            self.sides[1 - side].matches(keys.row(row as usize).as_ref(), from, to, &mut pairs.held);
            paired[row as usize] = pairs.held.len() > pairs.new.len();
            pairs.new.resize(pairs.held.len(), row);
            if pairs.new.len() >= EMITTED_ROWS {
                self.put_pairs(side, rows, &mut pairs, origin, out)?;
            }
        }
        self.put_pairs(side, rows, &mut pairs, origin, out)?;
        let places = self.sides[side].insert(rows, keys, has_key)?;
        if side == LEFT && self.join == Unmatched::Left {
            for (place, paired) in places.into_iter().zip(paired) {
                if paired { self.mark_matched(place) } else { _ = self.waiting.insert(place) }
            }
        }
        Ok(())
    }

    /// Puts out pairs, and leaves none.
    fn put_pairs(&mut self, side: usize, rows: &RecordBatch, pairs: &mut Pairs, origin: &Arc<Origin>, out: &mut dyn Output) -> Result<()> {
        for (new, held) in pairs.new.chunks(EMITTED_ROWS).zip(pairs.held.chunks(EMITTED_ROWS)) {
            let new = take_record_batch(rows, &UInt32Array::from(new.to_vec())).map_err(|e| Error::stop("pairing rows", e))?;
            let other = self.sides[1 - side].gather(held)?;
            let (left, right) = if side == LEFT { (&new, &other) } else { (&other, &new) };
            put_out(&self.shape, left, Some(right), origin.clone(), out)?;
        }
        if side == RIGHT && self.join == Unmatched::Left {
            for place in &pairs.held {
                if self.waiting.remove(place) {
                    self.mark_matched(*place);
                }
            }
        }
        pairs.new.clear();
        pairs.held.clear();
        Ok(())
    }

    fn mark_matched(&mut self, place: Place) {
        self.matched.entry(self.sides[LEFT].span(place.time)).or_default().push(place.row);
    }

    /// Takes the left rows before `from` that are in no pair.
    fn alone(&mut self, from: i64) -> Vec<Place> {
        let rest = self.waiting.split_off(&Place { time: from, row: 0 });
        std::mem::replace(&mut self.waiting, rest).into_iter().collect()
    }

    /// The least W at which a left row comes out alone.
    fn due(&self, place: &Place) -> EventTime {
        EventTime(place.time.saturating_add(self.after).saturating_add(1))
    }

    fn bytes(&self) -> usize {
        let sides: usize = self.sides.iter().map(Side::bytes).sum();
        sides + self.waiting.len() * size_of::<Place>()
    }

    fn load_matched(&mut self, span: i64, batches: Vec<RecordBatch>) -> Result<()> {
        let unlike = || Error::new(Remedy::Stop, format!("state of a join names matched rows of span {span} that it does not hold"));
        for rows in batches {
            let rows = rows.column(0).as_primitive_opt::<UInt32Type>().ok_or_else(unlike)?;
            for row in rows.values() {
                self.waiting.remove(&self.sides[LEFT].place(span, *row).ok_or_else(unlike)?);
            }
        }
        self.stored.insert(span);
        Ok(())
    }
}

/// New rows with the held ones that they match: as many of these as of those.
#[derive(Default)]
struct Pairs {
    new: Vec<u32>,
    held: Vec<Place>,
}

/// The keys of rows that are held, and which of them have no null in it.
fn keys(converter: &RowConverter, keys: usize, rows: &RecordBatch) -> Result<(Rows, Vec<bool>)> {
    let columns = &rows.columns()[..keys];
    let found = converter.convert_columns(columns).map_err(|e| Error::stop("the keys of a join", e))?;
    let has_key = (0..rows.num_rows()).map(|row| columns.iter().all(|c| c.is_valid(row))).collect();
    Ok((found, has_key))
}
