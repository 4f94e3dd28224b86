//! The inside of the tables as tables: what a view knows of segments, moves, lanes and positions. Made when a statement names them, from the
//! view of the query, so that they fit what the query sees.
//!
//! | table | a row is |
//! |---|---|
//! | `segments` | a warm file of a table, with its rows, bytes, range and the tier in which its rows are seen |
//! | `moves` | a lane's moves of a table to cold: the numbers marked, committed and dropped, and what is under way |
//! | `lanes` | a lane: its newest record, watermark, and rows in memory |
//! | `epochs` | a log of a lane, and how far its newest record has taken it |
//! | `counters` | a count of a lane at its newest record |
//! | `tables` | a tier of a table: its rows, bytes and files |

use crate::epoch::{Segment, TableState};
use crate::options::TableSpec;
use crate::view::{LaneView, View};
use crate::warm::time_range;
use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::error::ArrowError;
use async_trait::async_trait;
use datafusion::catalog::{MemTable, SchemaProvider, TableProvider};
use datafusion::common::stats::Precision;
use datafusion::error::Result;
use std::sync::Arc;

/// The schema of these tables.
pub const SYSTEM: &str = "tidegate";

const NAMES: [&str; 6] = ["segments", "moves", "lanes", "epochs", "counters", "tables"];

/// The schema over one view.
#[derive(Debug)]
pub(crate) struct System {
    pub(crate) specs: Vec<TableSpec>,
    pub(crate) view: Arc<View>,
}

#[async_trait]
impl SchemaProvider for System {
    fn table_names(&self) -> Vec<String> {
        NAMES.map(str::to_owned).to_vec()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        let rows = match name {
            "segments" => self.segments(),
            "moves" => self.moves(),
            "lanes" => self.lanes(),
            "epochs" => self.epochs(),
            "counters" => self.counters(),
            "tables" => self.tables(),
            _ => return Ok(None),
        }?;
        Ok(Some(Arc::new(MemTable::try_new(rows.schema(), vec![vec![rows]])?)))
    }

    fn table_exist(&self, name: &str) -> bool {
        NAMES.contains(&name)
    }
}

/// One tier of a table.
#[derive(Default)]
struct Tier {
    rows: Option<u64>,
    bytes: Option<u64>,
    files: Option<u64>,
    times: Option<(i64, i64)>,
}

impl System {
    /// The warm part of each table, by lane.
    fn states(&self) -> Vec<(&str, &LaneView, &TableState)> {
        let of = |spec: &'_ TableSpec, lane: &'_ LaneView| lane.whole.tables.contains_key(&spec.name);
        let lanes = |spec| self.view.lanes.iter().filter(move |lane| of(spec, lane)).map(move |lane| (spec, lane));
        let all = self.specs.iter().flat_map(lanes);
        all.map(|(spec, lane)| (spec.name.as_str(), lane, &lane.whole.tables[&spec.name])).collect()
    }

    fn segments(&self) -> Result<RecordBatch, ArrowError> {
        let states = self.states();
        let all: Vec<(&str, &LaneView, &Segment)> = states.iter().flat_map(|(t, l, s)| s.segments.iter().map(|s| (*t, *l, s))).collect();
        let number = |of: fn(&Segment) -> u64| all.iter().map(|(_, _, s)| Some(of(s))).collect::<Vec<_>>();
        let key =
            |of: fn(&Segment) -> &String| all.iter().map(|(_, _, s)| Some(of(s).clone()).filter(|k| !k.is_empty())).collect::<Vec<_>>();
        let tier = |(table, lane, segment): &(&str, &LaneView, &Segment)| {
            let (hot, moved) = (segment.epoch >= lane.floor(table), self.view.moved(table, &lane.lane));
            Some(
                if hot {
                    "hot"
                } else if segment.mark.is_some_and(|m| m <= moved) {
                    "cold"
                } else {
                    "warm"
                }
                .to_owned(),
            )
        };
        RecordBatch::try_from_iter_with_nullable([
            texts("table_name", all.iter().map(|(table, ..)| Some((*table).to_owned())).collect()),
            texts("lane", all.iter().map(|(_, lane, _)| Some(lane.lane.0.to_string())).collect()),
            texts("file", all.iter().map(|(_, _, s)| Some(s.file.clone())).collect()),
            texts("tier", all.iter().map(tier).collect()),
            numbers("rows", number(|s| s.rows)),
            numbers("bytes", number(|s| s.bytes)),
            times("min_time", all.iter().map(|(_, _, s)| Some(s.min_time)).collect()),
            times("max_time", all.iter().map(|(_, _, s)| Some(s.max_time)).collect()),
            texts("min_key", key(|s| &s.min_key)),
            texts("max_key", key(|s| &s.max_key)),
            numbers("epoch", number(|s| s.epoch)),
            numbers("move", all.iter().map(|(_, _, s)| s.mark).collect()),
            texts("checksum", all.iter().map(|(_, _, s)| Some(format!("{:016x}", s.checksum))).collect()),
        ])
    }

    fn moves(&self) -> Result<RecordBatch, ArrowError> {
        let cold: Vec<&str> = self.specs.iter().filter(|s| s.options.cold.is_some()).map(|s| s.name.as_str()).collect();
        let all: Vec<_> = self.states().into_iter().filter(|(table, ..)| cold.contains(table)).collect();
        let committed = |table: &str, lane: &LaneView| self.view.moved(table, &lane.lane);
        let state = |(table, lane, state): &(&str, &LaneView, &TableState)| {
            let word = if state.marked == state.dropped {
                "idle"
            } else if committed(table, lane) < state.marked {
                "marked"
            } else {
                "committed"
            };
            Some(word.to_owned())
        };
        let under_way =
            |state: &TableState, of: fn(&Segment) -> u64| Some(state.segments.iter().filter(|s| s.mark.is_some()).map(of).sum());
        RecordBatch::try_from_iter_with_nullable([
            texts("table_name", all.iter().map(|(table, ..)| Some((*table).to_owned())).collect()),
            texts("lane", all.iter().map(|(_, lane, _)| Some(lane.lane.0.to_string())).collect()),
            texts("state", all.iter().map(state).collect()),
            numbers("marked", all.iter().map(|(_, _, s)| Some(s.marked)).collect()),
            numbers("committed", all.iter().map(|(table, lane, _)| Some(committed(table, lane))).collect()),
            numbers("dropped", all.iter().map(|(_, _, s)| Some(s.dropped)).collect()),
            numbers("segments", all.iter().map(|(_, _, s)| under_way(s, |_| 1)).collect()),
            numbers("rows", all.iter().map(|(_, _, s)| under_way(s, |s| s.rows)).collect()),
        ])
    }

    fn lanes(&self) -> Result<RecordBatch, ArrowError> {
        let lanes = &self.view.lanes;
        let hot = |lane: &LaneView, of: fn(&RecordBatch) -> usize| {
            Some(lane.hot.values().flat_map(|table| &table.batches).map(|batch| of(batch) as u64).sum())
        };
        let provisional = |lane: &LaneView| Some(lane.provisional.values().flatten().map(|batch| batch.num_rows() as u64).sum());
        let segments = |lane: &LaneView| Some(lane.whole.tables.values().map(|table| table.segments.len() as u64).sum());
        RecordBatch::try_from_iter_with_nullable([
            texts("lane", lanes.iter().map(|lane| Some(lane.lane.0.to_string())).collect()),
            texts("owner", lanes.iter().map(|lane| lane.owner.as_deref().map(str::to_owned)).collect()),
            numbers("record", lanes.iter().map(|lane| Some(lane.record)).collect()),
            // Before the first reading there is none.
            times("watermark", lanes.iter().map(|lane| Some(lane.watermark.0).filter(|w| *w != i64::MIN)).collect()),
            numbers("hot_rows", lanes.iter().map(|lane| hot(lane, RecordBatch::num_rows)).collect()),
            numbers("hot_bytes", lanes.iter().map(|lane| hot(lane, RecordBatch::get_array_memory_size)).collect()),
            numbers("provisional_rows", lanes.iter().map(provisional).collect()),
            numbers("segments", lanes.iter().map(segments).collect()),
        ])
    }

    fn epochs(&self) -> Result<RecordBatch, ArrowError> {
        let all: Vec<_> = self.view.lanes.iter().flat_map(|lane| lane.whole.positions.0.iter().map(move |p| (lane, p))).collect();
        RecordBatch::try_from_iter_with_nullable([
            texts("lane", all.iter().map(|(lane, _)| Some(lane.lane.0.to_string())).collect()),
            numbers("record", all.iter().map(|(lane, _)| Some(lane.record)).collect()),
            texts("log", all.iter().map(|(_, p)| Some(p.log.to_string())).collect()),
            numbers("next", all.iter().map(|(_, p)| Some(p.next.0)).collect()),
        ])
    }

    fn counters(&self) -> Result<RecordBatch, ArrowError> {
        let all: Vec<_> = self.view.lanes.iter().flat_map(|lane| lane.whole.counters.iter().map(move |c| (lane, c))).collect();
        RecordBatch::try_from_iter_with_nullable([
            texts("lane", all.iter().map(|(lane, _)| Some(lane.lane.0.to_string())).collect()),
            numbers("record", all.iter().map(|(lane, _)| Some(lane.record)).collect()),
            texts("counter", all.iter().map(|(_, (name, _))| Some((*name).clone())).collect()),
            numbers("value", all.iter().map(|(_, (_, value))| Some(**value)).collect()),
        ])
    }

    fn tables(&self) -> Result<RecordBatch, ArrowError> {
        let tiers =
            |spec: &TableSpec| ["provisional", "hot", "warm", "cold"].map(|tier| (spec.name.clone(), tier, self.tier(&spec.name, tier)));
        let all: Vec<_> = self.specs.iter().flat_map(tiers).filter_map(|(table, name, tier)| Some((table, name, tier?))).collect();
        RecordBatch::try_from_iter_with_nullable([
            texts("table_name", all.iter().map(|(table, ..)| Some(table.clone())).collect()),
            texts("tier", all.iter().map(|(_, name, _)| Some((*name).to_owned())).collect()),
            numbers("rows", all.iter().map(|(_, _, tier)| tier.rows).collect()),
            numbers("bytes", all.iter().map(|(_, _, tier)| tier.bytes).collect()),
            numbers("files", all.iter().map(|(_, _, tier)| tier.files).collect()),
            times("min_time", all.iter().map(|(_, _, tier)| tier.times.map(|t| t.0)).collect()),
            times("max_time", all.iter().map(|(_, _, tier)| tier.times.map(|t| t.1)).collect()),
        ])
    }

    /// What is in a tier of a table; none where nothing is.
    fn tier(&self, table: &str, tier: &str) -> Option<Tier> {
        let lanes = &self.view.lanes;
        match tier {
            "provisional" => in_memory(lanes.iter().flat_map(|lane| lane.provisional(table))),
            "hot" => in_memory(lanes.iter().flat_map(|lane| lane.batches(table))),
            "warm" => in_files(lanes.iter().flat_map(|lane| lane.segments(table, self.view.moved(table, &lane.lane)))),
            _ => {
                let statistics = self.view.cold.get(table)?.provider.statistics();
                let known = |of: Precision<usize>| of.get_value().map(|n| *n as u64);
                let (rows, bytes) = statistics.map_or((None, None), |s| (known(s.num_rows), known(s.total_byte_size)));
                Some(Tier { rows, bytes, files: None, times: None })
            }
        }
    }
}

fn in_memory<'a>(batches: impl Iterator<Item = &'a RecordBatch>) -> Option<Tier> {
    batches.map(|b| (b.num_rows() as u64, b.get_array_memory_size() as u64, None, time_range(b))).fold(None, put)
}

fn in_files<'a>(segments: impl Iterator<Item = &'a Segment>) -> Option<Tier> {
    segments.map(|s| (s.rows, s.bytes, Some(1), Some((s.min_time, s.max_time)))).fold(None, put)
}

fn put(tier: Option<Tier>, (rows, bytes, files, times): (u64, u64, Option<u64>, Option<(i64, i64)>)) -> Option<Tier> {
    let Tier { rows: r, bytes: b, files: f, times: t } = tier.unwrap_or_default();
    let both = |a: Option<u64>, b: Option<u64>| b.map(|b| a.unwrap_or(0) + b).or(a);
    let times = match (t, times) {
        (Some(a), Some(b)) => Some((a.0.min(b.0), a.1.max(b.1))),
        (one, other) => one.or(other),
    };
    Some(Tier { rows: both(r, Some(rows)), bytes: both(b, Some(bytes)), files: both(f, files), times })
}

type Column = (&'static str, ArrayRef, bool);

fn texts(name: &'static str, of: Vec<Option<String>>) -> Column {
    (name, Arc::new(StringArray::from(of)), true)
}

/// Signed, as SQL has them; no count and no number of a record comes near the limit.
fn numbers(name: &'static str, of: Vec<Option<u64>>) -> Column {
    let signed: Int64Array = of.into_iter().map(|n| n.map(|n| i64::try_from(n).unwrap_or(i64::MAX))).collect();
    (name, Arc::new(signed), true)
}

fn times(name: &'static str, of: Vec<Option<i64>>) -> Column {
    (name, Arc::new(TimestampMicrosecondArray::from(of).with_timezone("UTC")), true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::register;
    use crate::epoch::Whole;
    use crate::last::LastRows;
    use crate::testing::{readings, spec};
    use crate::view::{LiveLane, Views};
    use arrow::util::pretty::pretty_format_batches;
    use datafusion::prelude::{SessionConfig, SessionContext};
    use flow::{EventTime, Lane, Offset, Position, Positions, WallTime};

    fn segment(file: &str, epoch: u64, mark: Option<u64>) -> Segment {
        let (min_key, max_key) = ("a".to_owned(), "b".to_owned());
        Segment {
            file: file.into(),
            rows: 10 * epoch,
            bytes: 100,
            checksum: 255,
            min_time: 1,
            max_time: 1_000_000,
            min_key,
            max_key,
            epoch,
            mark,
        }
    }

    /// A lane with two segments below its hot rows, one of them on its way to cold, and one whose rows are hot.
    async fn session() -> SessionContext {
        let segments = vec![segment("s1", 1, Some(1)), segment("s2", 2, None)];
        let mut whole = Whole {
            positions: Positions(vec![Position { log: "j".into(), next: Offset(7), file: None }]),
            counters: [("table.t.stored".to_owned(), 31)].into(),
            tables: [("t".to_owned(), TableState { segments, marked: 1, dropped: 0 })].into(),
            ..Whole::default()
        };
        let lane = Arc::new(LiveLane::new(Lane("l".into()), 2, Arc::new(whole.clone())));
        lane.push("t", 3, readings(&[("a", 2_000_000, 1.0)]), None).unwrap();
        whole.tables.get_mut("t").unwrap().segments.push(segment("s3", 3, None));
        lane.seal(3, Arc::new(whole), WallTime(0));
        lane.watermark(EventTime(5_000_000));
        let live = crate::view::Live::default();
        live.add(lane);
        let view = View { lanes: live.lanes().await.unwrap(), ..View::default() };
        let session = SessionContext::new_with_config(SessionConfig::new().with_information_schema(true));
        let mut spec = spec();
        spec.options.cold = Some(serde_json::from_str(r#"{"url": "cold"}"#).unwrap());
        register(&session, &[spec], &Arc::new(view), &LastRows::default()).unwrap();
        session
    }

    async fn ask(sql: &str) -> Vec<String> {
        let batches = session().await.sql(sql).await.unwrap().collect().await.unwrap();
        let text = pretty_format_batches(&batches).unwrap().to_string();
        let rows: Vec<&str> = text.lines().collect();
        let words = |row: &&str| row.split('|').map(str::trim).filter(|w| !w.is_empty()).collect::<Vec<_>>().join(" ");
        rows[3..rows.len() - 1].iter().map(words).collect()
    }

    #[tokio::test]
    async fn the_inside_is_shown_as_the_view_sees_it() {
        let sql = "SELECT file, tier, rows, move, checksum, max_time FROM tidegate.segments WHERE table_name = 't' ORDER BY file";
        let time = "1970-01-01T00:00:01Z";
        let hash = "00000000000000ff";
        let expected = [format!("s1 warm 10 1 {hash} {time}"), format!("s2 warm 20 {hash} {time}"), format!("s3 hot 30 {hash} {time}")];
        assert_eq!(ask(sql).await, expected);
        assert_eq!(ask("SELECT state, marked, committed, dropped, segments, rows FROM tidegate.moves").await, ["marked 1 0 0 1 10"]);
        assert_eq!(ask("SELECT lane, record, watermark, hot_rows, segments FROM tidegate.lanes").await, ["l 3 1970-01-01T00:00:05Z 1 3"]);
        assert_eq!(ask("SELECT lane, record, log, next FROM tidegate.epochs").await, ["l 3 j 7"]);
        assert_eq!(ask("SELECT counter, value FROM tidegate.counters").await, ["table.t.stored 31"]);
        let tiers = "SELECT tier, rows, files, min_time FROM tidegate.tables ORDER BY tier";
        assert_eq!(ask(tiers).await, ["hot 1 1970-01-01T00:00:02Z", "warm 30 2 1970-01-01T00:00:00.000001Z"]);
    }

    #[tokio::test]
    async fn the_tables_are_listed() {
        let sql = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'tidegate' ORDER BY table_name";
        assert_eq!(ask(sql).await, ["counters", "epochs", "lanes", "moves", "segments", "tables"]);
    }
}
