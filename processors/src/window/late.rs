//! Which rows come too late for windows of fixed edges, and which lie between them.

use super::cut::Cut;
use arrow::array::{AsArray, BooleanArray};
use arrow::compute::not;
use arrow::datatypes::Int64Type;
use flow::{Batch, Count, Error, Output, Result, trail};

/// What becomes of a batch.
pub(super) struct Parted {
    /// Rows that some open window covers.
    pub(super) kept: Batch,
    /// Rows of which every window had closed at the W of their moment.
    pub(super) late: Option<Batch>,
}

/// Parts a batch. `w` is the watermark of rows without a mark; rows between windows are counted as filtered.
pub(super) fn part(batch: Batch, cut: &Cut, w: i64, out: &mut dyn Output) -> Result<Parted> {
    let Some((least, greatest)) = batch.time_range() else { return Ok(Parted { kept: batch, late: None }) };
    let (batch, late) = match mask(&batch, cut, w, least.0) {
        Some(mask) => {
            let kept = batch.filter(&not(&mask).map_err(|e| Error::stop("inverting the late rows", e))?)?;
            (kept, Some(batch.filter(&mask)?))
        }
        None => (batch, None),
    };
    let of_one = cut.slice(least.0) == cut.slice(greatest.0) && cut.covers(least.0);
    if of_one || !cut.has_gaps() {
        return Ok(Parted { kept: batch, late });
    }
    let covered: BooleanArray = batch.times().iter().map(|t| Some(cut.covers(*t))).collect();
    out.count(Count::Filtered, covered.false_count() as u64);
    Ok(Parted { kept: batch.filter(&covered)?, late })
}

/// True for the late rows; none where no row is.
fn mask(batch: &Batch, cut: &Cut, w: i64, least: i64) -> Option<BooleanArray> {
    let marks = batch.trail_column(trail::WATERMARK).map(|m| m.as_primitive::<Int64Type>().values());
    let newest = marks.and_then(|m| m.last().copied()).unwrap_or(w);
    if cut.last_end(least) > newest {
        return None;
    }
    let mark = |row: usize| marks.map_or(w, |m| m[row]);
    let is_late = |(row, time): (usize, &i64)| Some(cut.last_end(*time) <= mark(row) && cut.covers(*time));
    let late: BooleanArray = batch.times().iter().enumerate().map(is_late).collect();
    late.has_true().then_some(late)
}
