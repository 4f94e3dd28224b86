//! What sinks are told of moves: which partitions of which tables are in the cold tier from now on. Pure.

use crate::plan::moves_schema;
use crate::run::lane::LaneTable;
use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringViewArray, TimestampMicrosecondArray};
use flow::{Error, Result, WallTime};
use std::collections::BTreeMap;
use std::sync::Arc;
use storage::epoch::Chain;

/// The name of the event.
const PARTITION_MOVED: &str = "PartitionMoved";

/// What one move took of a partition.
struct Part {
    rows: u64,
    first: i64,
    last: i64,
}

/// A row for each partition of the moves up to the given numbers, by table, that the chain's newest record still has segments of.
pub(crate) fn rows(chain: &Chain, tables: &[LaneTable], leaving: &[(usize, u64)], now: WallTime) -> Result<RecordBatch> {
    let (mut names, mut moves, mut ends, mut starts, mut parts) = (vec![], vec![], vec![], vec![], vec![]);
    for (index, below) in leaving {
        let table = &tables[*index];
        for ((number, end), part) in partitions(chain, table, *below) {
            names.push(table.name.as_str());
            moves.push(number as i64);
            ends.push(end);
            starts.push(end.saturating_sub(table.compaction.partition));
            parts.push(part);
        }
    }
    let n = parts.len();
    let same = |text: &str| -> ArrayRef { Arc::new(StringViewArray::from_iter_values(std::iter::repeat_n(text, n))) };
    let times = |times: Vec<i64>| -> ArrayRef { Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC")) };
    let columns: Vec<ArrayRef> = vec![
        same(PARTITION_MOVED),
        Arc::new(StringViewArray::from_iter_values(names)),
        same(&chain.header().lane),
        Arc::new(Int64Array::from(moves)),
        times(starts),
        times(ends),
        Arc::new(parts.iter().map(|part| part.rows as i64).collect::<Int64Array>()),
        times(parts.iter().map(|part| part.first).collect()),
        times(parts.iter().map(|part| part.last).collect()),
        times(vec![now.0; n]),
    ];
    RecordBatch::try_new(moves_schema(), columns).map_err(|e| Error::stop("what sinks are told of moves", e))
}

/// By move number and end of the partition.
fn partitions(chain: &Chain, table: &LaneTable, below: u64) -> BTreeMap<(u64, i64), Part> {
    let mut all: BTreeMap<(u64, i64), Part> = BTreeMap::new();
    let Some(state) = chain.whole().tables.get(&table.name) else { return all };
    for segment in &state.segments {
        let Some(number) = segment.mark.filter(|mark| *mark <= below) else { continue };
        let none = Part { rows: 0, first: i64::MAX, last: i64::MIN };
        let part = all.entry((number, table.compaction.end(segment.max_time))).or_insert(none);
        part.rows += segment.rows;
        part.first = part.first.min(segment.min_time);
        part.last = part.last.max(segment.max_time);
    }
    all
}
