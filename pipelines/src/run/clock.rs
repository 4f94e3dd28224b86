//! The wall clock of this process. Pure rooms are given its time as an argument.

use flow::WallTime;
use std::time::{SystemTime, UNIX_EPOCH};

/// Now, in microseconds UTC.
pub(crate) fn now() -> WallTime {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    WallTime(since.as_micros() as i64)
}
