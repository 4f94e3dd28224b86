//! Known bugs that a test can switch on, to show that the simulation finds them.
//!
//! Without the feature `planted`, which no build of the product has, `planted` is a constant `false` and the bugs are compiled away.

/// A bug, named by what it does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Bug {
    /// The journal acknowledges, then forces.
    AckBeforeFsync = 1,
    /// The journal never forces what it writes.
    NoFsync,
    /// A failed fsync of the journal is ignored.
    FailedFsyncIgnored,
    /// A failed fsync of the journal is tried again and believed.
    FsyncTriedAgain,
    /// A frame says that itself is on disk.
    SyncedAhead,
    /// A new segment forgets what may be delivered again.
    EmptyRestatement,
    /// Recovery passes over what a segment restates.
    RestatementNotRead,
    /// What a full disk did not take counts as written.
    FullDiskIgnored,
    /// A journal segment has its name before its bytes.
    SegmentNamedBeforeFsync,
    /// The name of a journal segment is not forced.
    NoFsyncOfJournalDirectory,
    /// Recovery trusts what the page cache shows of the last segment.
    NoCopyAtRecovery,
    /// A torn tail is cut inside a group.
    GroupsCutAnywhere,
    /// What later frames say of what was on disk is not read.
    NoSyncedRule,
    /// The recovered copy of a segment is not forced.
    CopyNotForced,
    /// The recovered copy of a segment is not read again.
    CopyNotChecked,
    /// Frames do not list their publishes.
    PublishesLeftOut,
    /// Segments go although a lane still needs them.
    LogCutTooEarly,
    /// A lane misses the frame at its position.
    ReplayBeginsLate,
    /// A lane gets the frame before its position again.
    ReplayBeginsEarly,
    /// The ack task does not wait for the journal.
    AcksDoNotWait,
    /// What comes again after a reconnect is taken as new.
    RedeliveryNotUndone,
    /// What comes again after a start is taken as new.
    RedeliveryForgottenAtStart,
    /// What comes again is known by its bytes, whatever its packet id.
    RedeliveryByBytes,
    /// A file has its name before its bytes.
    FilesNamedBeforeFsync,
    /// A relay takes rows as published of which it does not know.
    UnknownPublishIsSuccess,
    /// A relay takes what lies in the outbox as published.
    RelaySkipsFiles,
    /// A lane lets go of rows that its relay has not published.
    SinkCutTooEarly,
    /// A record lets segments go of whose move sinks were not told at its cut.
    MovesUntold,
    /// A taken name is given to other bytes.
    TakenNamesReplaced,
    /// The names of records, segments and state are not forced.
    NoFsyncOfDirectories,
    /// A directory that is there is taken as durable.
    DirectoriesTrusted,
    /// A record whose create failed counts as created.
    UnknownOutcomeIsSuccess,
    /// A taken number counts as ours.
    TakenIsOurs,
    /// Some epochs are published without their record.
    EveryThirdSealForgotten,
    /// Files that nobody names stay.
    NothingCleaned,
    /// Files of earlier owners go although they count.
    NamedFilesCleaned,
    /// Parts of state that went come back.
    RemovedStateKept,
    /// Open windows are not saved.
    StateNotSaved,
    /// A move that is in the log is made again.
    MovedAgain,
    /// A move is committed on another version than was checked.
    CommitOnAnotherSnapshot,
    /// The files of a commit that may still come are deleted.
    FilesOfUnknownCommitDeleted,
    /// A commit that failed counts as done.
    UnknownCommitIsSuccess,
    /// A view takes a cold version that does not fit its lanes.
    OldSnapshotTaken,
    /// Rows at the floor are shown from memory and from files.
    HotRowsAlsoWarm,
    /// Rows that come back to hot after a restart are read from their segments too.
    RecalledRowsAlsoWarm,
    /// Rows that moved are shown from warm as well.
    MovedRowsAlsoWarm,
    /// Segments whose rows are hot are moved.
    HotSegmentsMarked,
    /// A lane begins without its watermark.
    WatermarkForgotten,
    /// A lane says it has taken one frame more than it has.
    PositionTooFar,
    /// A record has the positions of its seal, not of its cut.
    PositionsOfTheSeal,
    /// A record leaves out a segment of its epoch.
    SegmentNotNamed,
    /// A lane begins to count anew.
    CountersForgotten,
    /// The journal is released up to what is taken, not to what is sealed.
    LogReleasedBeforeSeal,
    /// A second stage says it has taken one row more than it has.
    StageReadsTooFar,
    /// The files of an outbox go before all of their rows are taken.
    OutboxCutTooEarly,
    /// A second stage has the watermark of its fastest lane.
    FastestLaneCounts,
    /// The segments of a compaction stay beside its run.
    CompactedRowsTwice,
    /// Segments whose rows are hot are compacted with others.
    HotSegmentsCompacted,
}

impl Bug {
    /// All of them.
    pub const ALL: [Self; 58] = [
        Self::AckBeforeFsync,
        Self::NoFsync,
        Self::FailedFsyncIgnored,
        Self::FsyncTriedAgain,
        Self::SyncedAhead,
        Self::EmptyRestatement,
        Self::RestatementNotRead,
        Self::FullDiskIgnored,
        Self::SegmentNamedBeforeFsync,
        Self::NoFsyncOfJournalDirectory,
        Self::NoCopyAtRecovery,
        Self::GroupsCutAnywhere,
        Self::NoSyncedRule,
        Self::CopyNotForced,
        Self::CopyNotChecked,
        Self::PublishesLeftOut,
        Self::LogCutTooEarly,
        Self::ReplayBeginsLate,
        Self::ReplayBeginsEarly,
        Self::AcksDoNotWait,
        Self::RedeliveryNotUndone,
        Self::RedeliveryForgottenAtStart,
        Self::RedeliveryByBytes,
        Self::UnknownPublishIsSuccess,
        Self::RelaySkipsFiles,
        Self::SinkCutTooEarly,
        Self::MovesUntold,
        Self::FilesNamedBeforeFsync,
        Self::TakenNamesReplaced,
        Self::NoFsyncOfDirectories,
        Self::DirectoriesTrusted,
        Self::UnknownOutcomeIsSuccess,
        Self::TakenIsOurs,
        Self::EveryThirdSealForgotten,
        Self::NothingCleaned,
        Self::NamedFilesCleaned,
        Self::RemovedStateKept,
        Self::StateNotSaved,
        Self::MovedAgain,
        Self::CommitOnAnotherSnapshot,
        Self::FilesOfUnknownCommitDeleted,
        Self::UnknownCommitIsSuccess,
        Self::OldSnapshotTaken,
        Self::HotRowsAlsoWarm,
        Self::RecalledRowsAlsoWarm,
        Self::MovedRowsAlsoWarm,
        Self::HotSegmentsMarked,
        Self::WatermarkForgotten,
        Self::PositionTooFar,
        Self::PositionsOfTheSeal,
        Self::SegmentNotNamed,
        Self::CountersForgotten,
        Self::LogReleasedBeforeSeal,
        Self::StageReadsTooFar,
        Self::OutboxCutTooEarly,
        Self::FastestLaneCounts,
        Self::CompactedRowsTwice,
        Self::HotSegmentsCompacted,
    ];
}

/// Whether a bug is switched on.
#[cfg(not(feature = "planted"))]
#[must_use]
#[inline]
pub const fn planted(_: Bug) -> bool {
    false
}

#[cfg(feature = "planted")]
static PLANTED: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);

/// Whether a bug is switched on.
#[cfg(feature = "planted")]
#[must_use]
pub fn planted(bug: Bug) -> bool {
    PLANTED.load(std::sync::atomic::Ordering::Relaxed) == bug as usize
}

/// Switches one bug on, or all off, for the whole process.
#[cfg(feature = "planted")]
pub fn plant(bug: Option<Bug>) {
    PLANTED.store(bug.map_or(0, |b| b as usize), std::sync::atomic::Ordering::Relaxed);
}
