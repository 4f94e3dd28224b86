//! The watermark's state as it stands in the epoch record.

use flow::{EventTime, Result, Span, WallTime};
use processors::watermark::{ProducerState, Watermark, WatermarkState};
use serde::{Deserialize, Serialize};
use world::{Bug, planted};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    /// `Whole::sealed_watermark` reads it.
    w: i64,
    producers: Vec<StoredProducer>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredProducer {
    producer: u32,
    w: i64,
    since: i64,
    silence: i64,
    connected: bool,
}

/// The state for the record.
pub(crate) fn store(watermark: &Watermark) -> serde_json::Value {
    let state = watermark.state();
    let producer = |p: &ProducerState| StoredProducer {
        producer: p.producer,
        w: p.w.0,
        since: p.since.0,
        silence: p.silence.0,
        connected: p.connected,
    };
    let stored = Stored { w: state.w.0, producers: state.producers.iter().map(producer).collect() };
    serde_json::to_value(stored).expect("numbers and booleans have a JSON form")
}

/// Goes on from the record's state; null is a lane that has seen nothing.
pub(crate) fn restore(watermark: &mut Watermark, from: &serde_json::Value) -> Result<()> {
    if from.is_null() || planted(Bug::WatermarkForgotten) {
        return Ok(());
    }
    let stored: Stored = serde_json::from_value(from.clone()).map_err(|e| flow::Error::stop("watermark of an epoch record", e))?;
    let producer = |p: StoredProducer| ProducerState {
        producer: p.producer,
        w: EventTime(p.w),
        since: WallTime(p.since),
        silence: Span(p.silence),
        connected: p.connected,
    };
    watermark.restore(WatermarkState { w: EventTime(stored.w), producers: stored.producers.into_iter().map(producer).collect() });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use processors::watermark::WatermarkOptions;

    #[test]
    fn a_watermark_goes_through_a_record_unchanged() {
        let mut before = Watermark::new(&WatermarkOptions::default());
        before.on_rows(3, &[5, 9], WallTime(100), &mut vec![]);
        before.on_connection(3, false, WallTime(200));
        let record = store(&before);
        let mut after = Watermark::new(&WatermarkOptions::default());
        restore(&mut after, &record).unwrap();
        assert_eq!(after.state(), before.state());
        let whole = storage::epoch::Whole { watermark: record, ..Default::default() };
        assert_eq!(whole.sealed_watermark(), before.current());
        assert_eq!(storage::epoch::Whole::default().sealed_watermark(), EventTime::MIN);
    }
}
