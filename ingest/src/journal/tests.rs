//! The journal's laws: what was acknowledged survives, a group is whole or absent, damage below what was on disk is told.

use super::file::VERSION;
use super::*;
use crate::Rejected;
use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, StringViewArray, TimestampMicrosecondArray, UInt32Array};
use flow::{Batch, EVENT_TIME, EventTime, LookupVersion, Offset, Origin, Reason, WallTime, trail};
use proptest::prelude::*;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::mpsc;

const LANES: u32 = 2;

fn options(segment_bytes: u64) -> JournalOptions {
    JournalOptions { reserve: Size(0), segment_bytes, ..JournalOptions::default() }
}

fn rows(values: &[i64]) -> Batch {
    let value: ArrayRef = Arc::new(Int64Array::from(values.to_vec()));
    let time: ArrayRef = Arc::new(TimestampMicrosecondArray::from(values.to_vec()).with_timezone("UTC"));
    let topic: ArrayRef = Arc::new(StringArray::from_iter_values(values.iter().map(|v| format!("t/{v}"))).slice(0, values.len()));
    let batch = RecordBatch::try_from_iter([("topic", value), (EVENT_TIME, time)]).unwrap();
    let origin = Origin { source: "mqtt".into(), producer: 1, topic: Some("t".into()), arrival: WallTime(9) };
    Batch::new(batch, Arc::new(origin)).unwrap().with_trail(Some(RecordBatch::try_from_iter([(trail::TOPIC, topic)]).unwrap()))
}

fn reject() -> Rejected {
    Rejected {
        source: "mqtt".into(),
        topic: None,
        offset: Some(4),
        reason: Reason::Malformed,
        detail: "no brace".into(),
        payload: b"x".to_vec(),
        length: 1,
        arrival: WallTime(3),
    }
}

/// A group for both lanes, told from others by its number.
fn group(number: i64) -> Group {
    Group {
        frames: vec![(Some(0), Body::Rows(rows(&[number, number + 1]))), (Some(1), Body::Rejects(vec![reject()]))],
        publishes: vec![Publish { connection: 1, key: number as u64 }],
    }
}

struct Open {
    journal: Journal,
    lanes: Vec<mpsc::Receiver<Delivery>>,
}

fn open(directory: &Path, segment_bytes: u64, from: [u64; 2]) -> flow::Result<Open> {
    let (queues, lanes) = (0..LANES).map(|_| mpsc::channel(1_000)).unzip();
    let journal = Journal::open(directory, &options(segment_bytes), LANES, &from.map(Offset), queues)?;
    Ok(Open { journal, lanes })
}

impl Open {
    fn append(&self, group: Group) -> u64 {
        let handle = self.journal.handle();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async { handle.append(group).await.unwrap().await.unwrap() }).0
    }

    /// Stops, and gives what each lane was sent.
    fn close(mut self) -> Vec<Vec<(u64, String)>> {
        self.journal.close();
        self.lanes.iter_mut().map(taken).collect()
    }
}

fn taken(lane: &mut mpsc::Receiver<Delivery>) -> Vec<(u64, String)> {
    let (mut all, mut next) = (Vec::new(), 0);
    while let Ok(delivery) = lane.try_recv() {
        for (offset, body) in delivery.lane_frames {
            assert!(offset.0 >= next && offset < delivery.next, "frame {} after {next}, before {}", offset.0, delivery.next.0);
            next = offset.0 + 1;
            all.push((offset.0, format!("{body:?}")));
        }
        assert!(delivery.next.0 >= next);
        next = delivery.next.0;
    }
    all
}

fn last_segment(directory: &Path) -> PathBuf {
    let mut paths: Vec<_> = std::fs::read_dir(directory).unwrap().map(|e| e.unwrap().path()).collect();
    paths.retain(|p| p.extension().is_some_and(|e| e == "log"));
    paths.sort();
    paths.pop().unwrap()
}

/// A journal of `groups` groups, copied as a crash would leave it; gives the segment being written and where each group ends in it.
fn crashed(groups: i64) -> (tempfile::TempDir, PathBuf, Vec<usize>) {
    let directory = tempfile::tempdir().unwrap();
    let open = open(directory.path(), 1 << 16, [0, 0]).unwrap();
    let handle = open.journal.handle();
    let ends = (0..groups)
        .map(|n| {
            open.append(group(n));
            handle.bytes() as usize
        })
        .collect();
    open.close();
    let path = last_segment(directory.path());
    (directory, path, ends)
}

#[test]
fn what_was_given_live_is_given_again() {
    let directory = tempfile::tempdir().unwrap();
    let first = open(directory.path(), 1 << 16, [0, 0]).unwrap();
    let id = first.journal.handle().id();
    assert_eq!(Journal::peek(directory.path()).unwrap(), Some(id.clone()));
    first.append(group(1));
    first.append(Group {
        frames: vec![
            (None, Body::Connection { producer: 1, connected: true, at: WallTime(5) }),
            (None, Body::Tick { watermark: EventTime(-7), at: WallTime(6) }),
            (None, Body::Lookup(LookupVersion { lookup: "sites".into(), number: u64::MAX, rows: rows(&[7, 8]).into_rows() })),
        ],
        publishes: vec![],
    });
    first.append(Group { frames: vec![], publishes: vec![Publish { connection: 2, key: 77 }] });
    let end = first.append(group(2));
    let live = first.close();
    assert_eq!(live.iter().map(Vec::len).collect::<Vec<_>>(), [5, 5]);

    let again = open(directory.path(), 1 << 16, [0, 0]).unwrap();
    let handle = again.journal.handle();
    assert_eq!(handle.id(), id);
    assert_eq!(handle.recent()[&1], [1, 2]);
    assert_eq!(handle.recent()[&2], [77]);
    assert_eq!(handle.connections(), [(1, true, WallTime(5))]);
    assert!(handle.durable() > Offset(end));
    assert_eq!(again.close(), live);

    let later = open(directory.path(), 1 << 16, [live[0][4].0, end]).unwrap();
    assert_eq!(later.close(), [vec![live[0][4].clone()], vec![]]);
}

#[test]
fn a_lane_without_rows_moves_on() {
    let directory = tempfile::tempdir().unwrap();
    let mut open = open(directory.path(), 1 << 16, [0, 0]).unwrap();
    let end = open.append(Group { frames: vec![(Some(0), Body::Rows(rows(&[1])))], publishes: vec![] });
    let mut next = Offset(0);
    while next.0 < end {
        let delivery = open.lanes[1].blocking_recv().unwrap();
        assert!(delivery.lane_frames.is_empty());
        next = delivery.next;
    }
    assert_eq!(next, Offset(end));
    open.close();
}

#[test]
fn many_segments_are_one_log_and_released_ones_go() {
    let directory = tempfile::tempdir().unwrap();
    let first = open(directory.path(), 2_000, [0, 0]).unwrap();
    let ends: Vec<u64> = (0..20).map(|n| first.append(group(n))).collect();
    let live = first.close();
    let files = || std::fs::read_dir(directory.path()).unwrap().filter(|e| e.as_ref().unwrap().path().extension().is_some()).count();
    assert!(files() > 5);
    let again = open(directory.path(), 2_000, [0, 0]).unwrap();
    let handle = again.journal.handle();
    let before = handle.bytes();
    handle.release(Offset(ends[14])).unwrap();
    assert!(handle.bytes() < before / 2);
    again.close();
    let rest = open(directory.path(), 2_000, [ends[14], ends[14]]).unwrap();
    assert_eq!(rest.journal.handle().recent()[&1], (0..20).collect::<Vec<u64>>());
    let kept = rest.close();
    assert_eq!(kept[0][..], live[0][15..]);
    assert_eq!(kept[1][..], live[1][15..]);
}

#[test]
fn one_process_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let first = open(directory.path(), 1 << 16, [0, 0]).unwrap();
    assert!(open(directory.path(), 1 << 16, [0, 0]).is_err());
    let handle = first.journal.handle();
    first.close();
    assert!(handle.failed().is_some());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    assert!(runtime.block_on(handle.append(group(1))).is_err());
    open(directory.path(), 1 << 16, [0, 0]).unwrap().close();
}

#[test]
fn after_a_failed_fsync_nothing_is_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let first = open(directory.path(), 1 << 16, [0, 0]).unwrap();
    let end = first.append(group(1));
    let handle = first.journal.handle();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    handle.shared.broken_disk.store(true, std::sync::atomic::Ordering::Relaxed);
    let refused = runtime.block_on(async { handle.append(group(2)).await.unwrap().await.unwrap_err() });
    assert!(refused.to_string().contains("the disk is broken"), "{refused}");
    handle.shared.broken_disk.store(false, std::sync::atomic::Ordering::Relaxed);
    assert!(runtime.block_on(handle.append(group(3))).is_err());
    assert_eq!(handle.durable(), Offset(end));
    assert_eq!(first.close()[0].len(), 1);
}

#[test]
fn a_full_disk_acknowledges_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (queues, _lanes): (Vec<_>, Vec<_>) = (0..LANES).map(|_| mpsc::channel(10)).unzip();
    let full = JournalOptions { reserve: Size(u64::MAX), ..options(1 << 16) };
    let journal = Journal::open(directory.path(), &full, LANES, &[Offset(0); 2], queues).unwrap();
    let handle = journal.handle();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let waiting = runtime.block_on(handle.append(group(1))).unwrap();
    while !handle.stalled() {
        std::thread::yield_now();
    }
    journal.close();
    assert!(waiting.wait().is_err());
    assert!(open(directory.path(), 1 << 16, [0, 0]).unwrap().close()[0].is_empty());
}

#[test]
fn without_always_a_lane_forces_what_it_seals() {
    let directory = tempfile::tempdir().unwrap();
    let (queues, _lanes): (Vec<_>, Vec<_>) = (0..LANES).map(|_| mpsc::channel(10)).unzip();
    let never = JournalOptions { sync: Sync::Never, ..options(1 << 16) };
    let journal = Journal::open(directory.path(), &never, LANES, &[Offset(0); 2], queues).unwrap();
    let handle = journal.handle();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let end = runtime.block_on(async { handle.append(group(1)).await.unwrap().await.unwrap() });
    assert!(handle.durable() < end);
    handle.sync_below(end).unwrap();
    assert_eq!(handle.durable(), end);
    journal.close();
}

#[test]
fn damage_in_an_ended_segment_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let first = open(directory.path(), 2_000, [0, 0]).unwrap();
    let ends: Vec<u64> = (0..6).map(|n| first.append(group(n))).collect();
    first.close();
    let path = directory.path().join(format!("{:020}.log", 0));
    let bytes = std::fs::read(&path).unwrap();
    let mut flipped = bytes.clone();
    flipped[900] ^= 1;
    for damaged in [&flipped[..], &bytes[..bytes.len() - 1], &bytes[..bytes.len() / 2]] {
        std::fs::write(&path, damaged).unwrap();
        let error = open(directory.path(), 2_000, [0, 0]).err().expect("the damage is seen").to_string();
        assert!(error.contains("00000000000000000000.log is damaged at byte"), "{error}");
    }
    // Nobody reads it any more: every lane has sealed past it.
    open(directory.path(), 2_000, [ends[5], ends[5]]).unwrap().close();
}

#[test]
fn a_segment_of_an_earlier_version_is_read_and_one_of_a_newer_is_left_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let first = open(directory.path(), 1 << 20, [0, 0]).unwrap();
    first.append(group(7));
    let before = first.close();
    let path = directory.path().join(format!("{:020}.log", 0));
    let of_version = |version: u16| {
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[6..8].copy_from_slice(&version.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..32]);
        bytes[32..36].copy_from_slice(&crc.to_le_bytes());
        std::fs::write(&path, &bytes).unwrap();
        bytes
    };
    let newer = of_version(VERSION + 1);
    let error = open(directory.path(), 1 << 20, [0, 0]).err().expect("nobody knows what it means").to_string();
    let what = format!("00000000000000000000.log has version {} of the format, this program reads up to {VERSION}", VERSION + 1);
    assert!(error.contains(&what), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), newer);
    of_version(1);
    assert_eq!(open(directory.path(), 1 << 20, [0, 0]).unwrap().close(), before);
    assert_eq!(std::fs::read(&path).unwrap()[6..8], VERSION.to_le_bytes(), "what follows in it is of this version");
}

/// Names, lengths and times of all files: what a reader must leave as it was.
fn listing(directory: &Path) -> Vec<(PathBuf, u64, std::time::SystemTime)> {
    let entries = std::fs::read_dir(directory).unwrap().map(|e| e.unwrap());
    let mut files: Vec<_> = entries.map(|e| (e.path(), e.metadata().unwrap().len(), e.metadata().unwrap().modified().unwrap())).collect();
    files.sort();
    files
}

/// Positions of lanes, by name.
fn sealed(id: &Arc<str>, lanes: &[(u32, u64)]) -> Vec<(String, flow::Positions)> {
    let at = |next| flow::Positions(vec![flow::Position { log: id.clone(), next: Offset(next), file: None }]);
    let others = [("file/f/0".to_owned(), at(1_000_000)), ("00/1".to_owned(), at(1_000_000))];
    others.into_iter().chain(lanes.iter().map(|(lane, next)| (format!("{id}/{lane}"), at(*next)))).collect()
}

#[test]
fn what_no_lane_has_sealed_is_counted_without_a_trace() {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("journal");
    assert_eq!(unread(&directory, &[]).unwrap(), 0);
    assert!(!directory.exists());
    std::fs::create_dir(&directory).unwrap();
    assert_eq!(unread(&directory, &[]).unwrap(), 0);

    // Each group has two rows for lane 0 and one reject for lane 1.
    let first = open(&directory, 2_000, [0, 0]).unwrap();
    let id = first.journal.handle().id();
    let ends: Vec<u64> = (0..9).map(|n| first.append(group(n))).collect();
    first.append(Group { frames: vec![(None, Body::Tick { watermark: EventTime(1), at: WallTime(1) })], publishes: vec![] });
    let end = first.append(group(9));
    first.close();
    let before = listing(&directory);
    let count = |lanes: &[(u32, u64)]| unread(&directory, &sealed(&id, lanes)).unwrap();
    assert_eq!(count(&[]), 30);
    assert_eq!(count(&[(0, ends[3])]), 12 + 10);
    assert_eq!(count(&[(0, ends[3]), (1, ends[8])]), 12 + 1);
    // The frame of lane 1 is the last of its group.
    assert_eq!(count(&[(0, end - 1), (1, end - 1)]), 1);
    assert_eq!(count(&[(0, end), (1, end)]), 0);
    assert_eq!(listing(&directory), before);

    let oldest = directory.join(format!("{:020}.log", 0));
    let whole = std::fs::read(&oldest).unwrap();
    let mut flipped = whole.clone();
    flipped[900] ^= 1;
    std::fs::write(&oldest, flipped).unwrap();
    let error = unread(&directory, &[]).unwrap_err().to_string();
    assert!(error.contains("00000000000000000000.log is damaged at byte"), "{error}");
    assert_eq!(count(&[(0, end), (1, end)]), 0);
}

#[test]
fn a_torn_tail_is_not_counted() {
    let (directory, path, ends) = crashed(3);
    let whole = std::fs::read(&path).unwrap();
    for (cut, expected) in [(ends[2], 9), (ends[2] - 10, 6), (ends[1] + 1, 6), (ends[1], 6), (ends[1] - 10, 3)] {
        for length in [cut, whole.len() + 100] {
            let mut bytes = whole[..cut].to_vec();
            bytes.resize(length, 0);
            std::fs::write(&path, &bytes).unwrap();
            assert_eq!(unread(directory.path(), &[]).unwrap(), expected, "cut at {cut}, {length} bytes");
            assert_eq!(std::fs::read(&path).unwrap(), bytes);
        }
    }
}

/// Many connections with all that a broker may deliver again: their restatement is longer than a segment, and yet a segment takes groups.
#[test]
fn a_long_restatement_leaves_room() {
    let directory = tempfile::tempdir().unwrap();
    let first = open(directory.path(), 1 << 14, [0, 0]).unwrap();
    let publishes = |connection| (0..70_000).map(move |key| Publish { connection, key });
    first.append(Group { frames: vec![], publishes: publishes(1).chain(publishes(2)).collect() });
    (0..20).for_each(|n| _ = first.append(group(n)));
    first.close();
    let segments = file::list(&world::LocalDisk, directory.path()).unwrap().len();
    assert!(segments < 6, "{segments} segments");
    let again = open(directory.path(), 1 << 14, [0, 0]).unwrap();
    let recent = again.journal.handle().recent();
    assert_eq!((recent[&1].len(), recent[&2].len()), (65_535, 65_535));
    assert_eq!(recent[&2][0], 70_000 - 65_535);
    assert_eq!(recent[&1][65_515..], (0..20).collect::<Vec<u64>>());
    assert_eq!(again.close()[0].len(), 20);
}

/// Each lane's part of a batch is a selection: it must not carry the text of all the others' rows.
#[test]
fn a_selection_of_text_is_written_without_the_rest() {
    let words: Vec<String> = (0..1_000u64)
        .map(|n| format!("a word that is longer than twelve bytes, number {n}, {:x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
        .collect();
    let text: ArrayRef = Arc::new(StringViewArray::from_iter_values(&words));
    let time: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![1; 1_000]).with_timezone("UTC"));
    let all = RecordBatch::try_from_iter([("word", text), (EVENT_TIME, time)]).unwrap();
    let origin = Origin { source: "s".into(), producer: 0, topic: None, arrival: WallTime(0) };
    let part = Batch::new(all, Arc::new(origin)).unwrap().take(&UInt32Array::from(vec![3, 900])).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let first = open(directory.path(), 1 << 16, [0, 0]).unwrap();
    let before = first.journal.handle().bytes();
    first.append(Group { frames: vec![(Some(0), Body::Rows(part.clone()))], publishes: vec![] });
    assert!(first.journal.handle().bytes() - before < 2_000);
    first.close();
    let mut again = open(directory.path(), 1 << 16, [0, 0]).unwrap();
    let Body::Rows(found) = again.lanes[0].blocking_recv().unwrap().lane_frames.remove(0).1 else { panic!("rows were written") };
    assert_eq!(found.rows(), part.rows());
    assert_eq!(found.origin(), part.origin());
    again.close();
}

#[test]
fn groups_that_wait_together_are_one_commit_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let open = open(directory.path(), 1 << 16, [0, 0]).unwrap();
    let handle = open.journal.handle();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let mut waiting = Vec::new();
        for number in 0..100 {
            waiting.push(handle.append(group(number)).await.unwrap());
        }
        let mut end = Offset(0);
        for durable in waiting {
            let next = durable.await.unwrap();
            assert!(next > end && handle.durable() >= next);
            end = next;
        }
    });
    assert_eq!(handle.recent()[&1], (0..100).collect::<Vec<u64>>());
    assert_eq!(open.close()[0].len(), 100);
}

/// The log cut at every byte behind the first group: every group that is still whole is given, no other.
#[test]
fn a_torn_tail_costs_only_the_groups_it_tears() {
    let (_kept, path, ends) = crashed(3);
    let whole = std::fs::read(&path).unwrap();
    for cut in ends[0]..=ends[2] {
        let directory = tempfile::tempdir().unwrap();
        let mut bytes = whole[..cut].to_vec();
        // A file that ends here, and one whose rest was preallocated.
        bytes.resize(if cut % 2 == 0 { whole.len() } else { cut }, 0);
        let expected = ends.iter().filter(|end| bytes.get(..**end) == Some(&whole[..**end])).count();
        std::fs::write(directory.path().join(path.file_name().unwrap()), bytes).unwrap();
        let found = recover::recover(&world::LocalDisk, directory.path(), 0, 0).unwrap_or_else(|e| panic!("cut at {cut}: {e}")).unwrap();
        assert_eq!(found.recent.keys()[&1].len(), expected, "cut at {cut}");
        if cut % 101 == 0 {
            let given = open(directory.path(), 1 << 12, [0, 0]).unwrap().close();
            assert_eq!((given[0].len(), given[1].len()), (expected, expected), "cut at {cut}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    /// A flipped bit in a group that a later one knows to be on disk is told, with file and byte; in the last group it is a torn tail.
    #[test]
    fn damage_below_what_was_on_disk_is_told(place in 0.0..1.0f64, bit in 0..8u32) {
        thread_local!(static CRASHED: (tempfile::TempDir, PathBuf, Vec<usize>) = crashed(3));
        CRASHED.with(|(_, path, ends)| {
            let mut bytes = std::fs::read(path).unwrap();
            let byte = (place * ends[2] as f64) as usize;
            bytes[byte] ^= 1 << bit;
            let directory = tempfile::tempdir().unwrap();
            std::fs::write(directory.path().join(path.file_name().unwrap()), bytes).unwrap();
            match recover::recover(&world::LocalDisk, directory.path(), 0, 0) {
                Ok(found) => {
                    assert!(byte >= ends[1], "damage at {byte} was passed over");
                    assert_eq!(found.unwrap().recent.keys()[&1].len(), 2);
                }
                Err(error) => {
                    assert!(byte < ends[1], "damage at {byte} is a torn tail: {error}");
                    assert!(error.to_string().contains("damaged at byte"), "{error}");
                }
            }
        });
    }
}

proptest! {
    // Each case makes dozens of fsyncs.
    #![proptest_config(ProptestConfig { cases: 20, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any run of starts, each with some groups, in segments of any size: a lane that reads from any place gets what was acknowledged
    /// from there on, once, in order.
    #[test]
    fn going_on_equals_never_having_stopped(runs in proptest::collection::vec(0..6i64, 1..5), segment_bytes in 500..6_000u64, part in 0.0..1.0f64) {
        let directory = tempfile::tempdir().unwrap();
        let (mut live, mut number) = (vec![Vec::new(), Vec::new()], 0);
        for run in runs {
            let next = live.iter().map(|lane: &Vec<(u64, String)>| lane.last().map_or(0, |(offset, _)| offset + 1));
            let from: Vec<u64> = next.collect();
            let open = open(directory.path(), segment_bytes, [from[0], from[1]]).unwrap();
            for _ in 0..run {
                open.append(group(number));
                number += 1;
            }
            open.close().into_iter().zip(&mut live).for_each(|(new, lane)| lane.extend(new));
        }
        assert_eq!(live[0].len() as i64, number);
        let from = (part * live[0].last().map_or(1, |(offset, _)| offset + 1) as f64) as u64;
        let again = open(directory.path(), segment_bytes, [from, 0]).unwrap().close();
        let expected: Vec<_> = live[0].iter().filter(|(offset, _)| *offset >= from).cloned().collect();
        assert_eq!(&again[0], &expected);
        assert_eq!(&again[1], &live[1]);
    }
}
