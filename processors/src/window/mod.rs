//! `window`: aggregates of readings by key and window.
//!
//! A window closes when W ≥ its end, and is final when W ≥ its end + `allowed_lateness`. A reading counts in every window of it that is
//! not final at the W of its moment; where all are, it is late. Output columns: the key columns, `window_start`, `window_end`,
//! `event_time` = `window_end` − 1 µs, the columns of `select`, `pane` (0 for the first), and for sessions that may be revised
//! `replaces`, the windows that were merged into it. A `select` expression that fails on a finished window (a division by zero) gives
//! null. Count and global windows begin with the least event time of their readings and end 1 µs behind the greatest.
//!
//! ```text
//! sliced.rs   windows of fixed edges with one pane: aggregated by slices of time     cut.rs  calendar.rs  slice.rs  slices.rs  live.rs  late.rs
//! partials.rs the first of two stages of those, where a group reaches over lanes
//! paned.rs    all others: one by one, by key                                         open.rs  device.rs  store.rs
//! ```

mod aggregates;
mod calendar;
mod cut;
mod device;
mod first_last;
mod late;
#[cfg(test)]
mod laws;
mod live;
mod open;
mod options;
mod output;
mod paned;
mod partials;
mod slice;
mod sliced;
mod slices;
#[cfg(test)]
mod stages;
mod store;
#[cfg(test)]
mod tests;
mod warnings;

use crate::keyed::Keyed;
use crate::{BuildError, error};
use aggregates::Aggregates;
use arrow::datatypes::SchemaRef;
use cut::Cut;
pub use device::ByDevice;
use flow::{EVENT_TIME, Operator};
use open::{Kind, Rules};
use options::Shape;
pub use options::{Accumulation, Emit, WindowKind, WindowOptions, WindowShape};
use output::Finish;
pub use output::REPLACES;
use paned::Paned;
use partials::Partials;
pub use partials::READINGS;
use sliced::Sliced;
use slices::Intake;
use std::sync::Arc;
pub use warnings::warnings;

/// Makes operators of one window, one a lane: its texts were read once.
pub type Maker = Box<dyn Fn() -> Result<Box<dyn Operator>, BuildError> + Send + Sync>;

/// Builds the operator for rows of the schema `input`.
pub fn build(options: &WindowOptions, input: &SchemaRef) -> Result<Box<dyn Operator>, BuildError> {
    maker(options, None, input)?()
}

/// What makes the operator for rows of the schema `input`. With `by_device` each key has a watermark of its own, which decides in place of the
/// lane's; all batches must then be marked with the lane's (`flow::trail::WATERMARK`).
pub fn maker(options: &WindowOptions, by_device: Option<ByDevice>, input: &SchemaRef) -> Result<Maker, BuildError> {
    let shape = options.check()?;
    error::column(input, "key", EVENT_TIME)?;
    let aggregates = Arc::new(Aggregates::parse(&options.select, &options.key, input)?);
    let (options, input) = (options.clone(), input.clone());
    Ok(Box::new(move || whole(&options, shape, by_device, aggregates.clone(), &input)))
}

fn whole(
    options: &WindowOptions,
    shape: Shape,
    by_device: Option<ByDevice>,
    aggregates: Arc<Aggregates>,
    input: &SchemaRef,
) -> Result<Box<dyn Operator>, BuildError> {
    let lateness = options.allowed_lateness.0.0;
    let finish = Finish::new(&aggregates, matches!(shape, Shape::Session { .. }) && lateness > 0)?;
    let limits = limits(options);
    let kind = match (shape, Cut::of(shape)) {
        (_, Some(cut)) if options.one_pane() && by_device.is_none() => {
            return Ok(Box::new(Sliced::new(cut, aggregates, finish, Intake::Readings, limits)));
        }
        (_, Some(cut)) => Kind::Fixed(cut),
        (Shape::Sliding { size }, _) => Kind::Sliding { size },
        (Shape::Session { gap, max }, _) => Kind::Session { gap, max },
        (Shape::Count { readings, .. }, _) => Kind::Count { readings },
        (Shape::Global | Shape::Even { .. } | Shape::Calendar { .. }, _) => Kind::Global,
    };
    let ends = matches!(shape, Shape::Global | Shape::Count { partial: true, .. });
    let rules = Rules { kind, lateness, emit: options.emit, accumulation: options.accumulation };
    // Without watermarks of their own, keys are bounded by their windows.
    let max_keys = if by_device.is_some() { options.max_keys } else { u64::from(u32::MAX) };
    let keys = Keyed::new(&options.key, max_keys, input)?;
    Ok(Box::new(Paned::new(rules, aggregates, finish, ends, by_device, limits, keys)))
}

/// What makes the first of two stages, for rows of the schema `input`: it gives out partial aggregates (see `partials`). The options must
/// `WindowOptions::splits`.
pub fn first_maker(options: &WindowOptions, input: &SchemaRef) -> Result<Maker, BuildError> {
    let ((shape, aggregates), limits) = (split(options, input)?, limits(options));
    Ok(Box::new(move || Ok(Box::new(Partials::new(cut(shape)?, aggregates.clone(), limits)))))
}

/// What makes the second of two stages: it takes the rows of the first ones, merged so that their marks (`flow::trail::WATERMARK`) rise. `input`
/// is what those read.
pub fn second_maker(options: &WindowOptions, input: &SchemaRef) -> Result<Maker, BuildError> {
    let ((shape, aggregates), limits) = (split(options, input)?, limits(options));
    Ok(Box::new(move || {
        let finish = Finish::new(&aggregates, false)?;
        Ok(Box::new(Sliced::new(cut(shape)?, aggregates.clone(), finish, Intake::Partials, limits)))
    }))
}

fn split(options: &WindowOptions, input: &SchemaRef) -> Result<(Shape, Arc<Aggregates>), BuildError> {
    let shape = options.check()?;
    error::column(input, "key", EVENT_TIME)?;
    cut(shape).and_then(|_| if options.splits() { Ok(()) } else { Err(whole_only()) })?;
    Ok((shape, Arc::new(Aggregates::counting(&options.select, &options.key, input)?)))
}

fn cut(shape: Shape) -> Result<Cut, BuildError> {
    Cut::of(shape).ok_or_else(whole_only)
}

fn whole_only() -> BuildError {
    BuildError::new("window", "such a window cannot be taken in two stages")
}

/// The most groups and bytes.
fn limits(options: &WindowOptions) -> (usize, usize) {
    let most = |limit: u64| usize::try_from(limit).unwrap_or(usize::MAX);
    (most(options.max_keys), most(options.max_state.as_u64()))
}
