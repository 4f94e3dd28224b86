//! Known bugs that a test can switch on, to show that the simulation finds them.
//!
//! Without the feature `planted`, which no build of the product has, `planted` is a constant `false` and the bugs are compiled away.

/// A bug, named by what it does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Bug {
    /// The journal acknowledges before its fsync.
    AckBeforeFsync = 1,
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
