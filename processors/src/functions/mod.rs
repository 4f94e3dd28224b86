//! SQL functions that telemetry needs and SQL lacks, for the texts of operators and for ad-hoc queries alike.
//!
//! | function | what it gives |
//! |---|---|
//! | `time_weighted_avg(value, event_time)` | the average, each value weighted by how long it held |
//! | `counter_increase(value, event_time)` | how much a counter rose, over its resets |
//! | `counter_rate(value, event_time)` | the same a second of the time between first and last reading |
//! | `state_duration(state, event_time, wanted)` | seconds for which `state = wanted` held |
//! | `geo_within(lat, lon, 'GeoJSON')` | whether a point lies in a polygon |
//! | `geo_distance(lat1, lon1, lat2, lon2)` | metres along the surface of the earth |
//!
//! The first four are aggregates that keep every reading of a group, 16 bytes each, until the group is done: `over_time` says why. All
//! functions are immutable: the same arguments give the same result in every run.

mod geo;
mod history;
mod measure;
mod over_time;
#[cfg(test)]
mod tests;

use datafusion::logical_expr::{AggregateUDF, ScalarUDF};
use datafusion::prelude::SessionContext;
pub(crate) use geo::prepare;
use measure::Measure;
use std::sync::Arc;

/// Aggregates of DataFusion that hold every value of a group until it is done, as ours do.
const KEEPS_ALL: [&str; 5] = ["median", "percentile_cont", "array_agg", "string_agg", "nth_value"];

/// Makes all functions known to a session.
pub fn register(session: &SessionContext) {
    for measure in Measure::ALL {
        session.register_udaf(AggregateUDF::new_from_shared_impl(Arc::new(over_time::OverTime::new(measure))));
    }
    session.register_udf(ScalarUDF::new_from_impl(geo::Within::new()));
    session.register_udf(ScalarUDF::new_from_impl(geo::Distance::new()));
}

/// Whether an aggregate's memory grows with the readings of a group rather than with the groups.
pub(crate) fn keeps_all(name: &str, distinct: bool) -> bool {
    distinct || KEEPS_ALL.contains(&name) || Measure::ALL.iter().any(|m| m.name() == name)
}
