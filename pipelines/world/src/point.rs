//! Places between two durable steps where a test can end the process, by the variable `FAILPOINTS` of the crate `fail`:
//! `FAILPOINTS="MoveCommitted=2*off->return"` ends it when it comes there for the third time.
//!
//! It ends by `abort`: like after SIGKILL nothing is flushed, closed or undone. Without the feature `failpoints`, which no build of the
//! product has, `reach` is empty.

/// A place, named by what has just been done there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// Frames are in the journal's file, not forced.
    JournalWritten,
    /// Frames are durable, nothing is acknowledged.
    JournalForced,
    /// A start has copied the last segment without its torn tail; the copy has not its name yet.
    JournalCopied,
    /// The copy has taken the segment's place; the directory is not forced.
    JournalRenamed,
    /// A file's bytes are durable, under a temporary name.
    FileForced,
    /// A file has its name; the directory is not forced.
    FileNamed,
    /// A lane is claimed; nothing of it is loaded.
    LaneClaimed,
    /// What earlier owners left is cleaned up.
    LaneCleaned,
    /// A lane's operators have their state back.
    LaneLoaded,
    /// The segments of an epoch are durable, its state is not.
    SegmentsWritten,
    /// Segments and state of an epoch are durable, no record names them.
    EpochWritten,
    /// The journal is forced for a seal; the record is not made.
    SealForced,
    /// The record is durable; nobody was told.
    EpochSealed,
    /// The record is shown, the log is released.
    EpochPublished,
    /// The runs of a compaction are durable, no record names them.
    CompactionWritten,
    /// Marked segments are there; their move has not begun.
    MoveBegun,
    /// The segments of a move are checked.
    MoveChecked,
    /// A file of a move is written, not forced.
    MoveFileWritten,
    /// A file of a move is durable.
    MoveFileForced,
    /// All files of a move are durable and verified, no commit names them.
    MoveWritten,
    /// The commit of a move is done; the lanes were not told.
    MoveCommitted,
    /// What crashed moves left in cold is swept; the lanes were not told.
    MoveSwept,
    /// The lanes were told of a move; no record of theirs says so.
    MoveTold,
    /// A relay has read what the outbox has; nothing of it is sent.
    RelayRead,
    /// The records of a transaction are sent, their progress is not.
    RelaySent,
    /// Records and progress are sent; the transaction is open.
    RelayProgressed,
    /// The transaction is committed; the lane does not know.
    RelayCommitted,
}

impl Point {
    /// Those that a pipeline from MQTT to cold tables comes to, in their order.
    pub const ALL: [Point; 23] = [
        Self::JournalWritten,
        Self::JournalForced,
        Self::JournalCopied,
        Self::JournalRenamed,
        Self::FileForced,
        Self::FileNamed,
        Self::LaneClaimed,
        Self::LaneCleaned,
        Self::LaneLoaded,
        Self::SegmentsWritten,
        Self::EpochWritten,
        Self::SealForced,
        Self::EpochSealed,
        Self::EpochPublished,
        Self::CompactionWritten,
        Self::MoveBegun,
        Self::MoveChecked,
        Self::MoveFileWritten,
        Self::MoveFileForced,
        Self::MoveWritten,
        Self::MoveCommitted,
        Self::MoveSwept,
        Self::MoveTold,
    ];
    /// Those that a pipeline from Kafka to Kafka comes to, in their order.
    pub const OF_SINKS: [Point; 11] = [
        Self::LaneClaimed,
        Self::LaneLoaded,
        Self::SegmentsWritten,
        Self::EpochWritten,
        Self::SealForced,
        Self::EpochSealed,
        Self::EpochPublished,
        Self::RelayRead,
        Self::RelaySent,
        Self::RelayProgressed,
        Self::RelayCommitted,
    ];
}

/// The process is there.
#[cfg(not(feature = "failpoints"))]
#[inline]
pub const fn reach(_: Point) {}

/// The process is there, and ends if the variable says so.
#[cfg(feature = "failpoints")]
pub fn reach(point: Point) {
    static READ: std::sync::Once = std::sync::Once::new();
    // Dropped, it would forget what it has read.
    READ.call_once(|| std::mem::forget(fail::FailScenario::setup()));
    fail::fail_point!(&format!("{point:?}"), |_| std::process::abort());
}
