//! `window`: aggregates of readings by key and window.
//!
//! A window closes when W ≥ its end, and is final when W ≥ its end + `allowed_lateness`. A reading counts in every window of it that is
//! not final at the W of its moment; where all are, it is late. Output columns: the key columns, `window_start`, `window_end`,
//! `event_time` = `window_end` − 1 µs, the columns of `select`, `pane` (0 for the first), and for sessions that may be revised
//! `replaces`, the windows that were merged into it. A `select` expression that fails on a finished window (a division by zero) gives
//! null. Count and global windows begin with the least event time of their readings and end 1 µs behind the greatest.
//!
//! ```text
//! sliced.rs   windows of fixed edges with one pane: aggregated by slices of time     cut.rs  calendar.rs  slice.rs
//! paned.rs    all others: one by one, by key                                         open.rs  device.rs  store.rs
//! ```

mod aggregates;
mod calendar;
mod cut;
mod device;
mod first_last;
#[cfg(test)]
mod laws;
mod open;
mod options;
mod output;
mod paned;
mod slice;
mod sliced;
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
use sliced::Sliced;
pub use warnings::warnings;

/// Builds the operator for rows of the schema `input`.
pub fn build(options: &WindowOptions, input: &SchemaRef) -> Result<Box<dyn Operator>, BuildError> {
    build_by_device(options, None, input)
}

/// Builds the operator where each key has a watermark of its own, which decides in place of the lane's. All batches must be marked with
/// the lane's (`flow::trail::WATERMARK`).
pub fn build_by_device(options: &WindowOptions, by_device: Option<ByDevice>, input: &SchemaRef) -> Result<Box<dyn Operator>, BuildError> {
    let shape = options.check()?;
    error::column(input, "key", EVENT_TIME)?;
    let aggregates = Aggregates::parse(&options.select, &options.key, input)?;
    let lateness = options.allowed_lateness.0.0;
    let finish = Finish::new(&aggregates, matches!(shape, Shape::Session { .. }) && lateness > 0)?;
    let limits =
        (usize::try_from(options.max_keys).unwrap_or(usize::MAX), usize::try_from(options.max_state.as_u64()).unwrap_or(usize::MAX));
    let kind = match (shape, Cut::of(shape)) {
        (_, Some(cut)) if options.one_pane() && by_device.is_none() => return Ok(Box::new(Sliced::new(cut, aggregates, finish, limits))),
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
