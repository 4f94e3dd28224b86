//! Times and spans: microseconds since 1970-01-01T00:00:00Z, kept apart by type so that a device's clock is never taken for ours.

/// When something happened, as the device says: microseconds, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventTime(pub i64);

/// When something reached us, as our clock says: microseconds, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WallTime(pub i64);

/// A length of time in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Span(pub i64);

impl EventTime {
    /// Before every reading: where a watermark begins.
    pub const MIN: Self = Self(i64::MIN);
    /// After every reading.
    pub const MAX: Self = Self(i64::MAX);

    /// This time moved on by `span`, held at the ends of the scale.
    #[must_use]
    pub fn plus(self, span: Span) -> Self {
        Self(self.0.saturating_add(span.0))
    }

    /// This time moved back by `span`, held at the ends of the scale.
    #[must_use]
    pub fn minus(self, span: Span) -> Self {
        Self(self.0.saturating_sub(span.0))
    }
}

impl WallTime {
    /// This time moved on by `span`, held at the ends of the scale.
    #[must_use]
    pub fn plus(self, span: Span) -> Self {
        Self(self.0.saturating_add(span.0))
    }

    /// How long after `earlier` this is; negative when it is before.
    #[must_use]
    pub fn since(self, earlier: Self) -> Span {
        Span(self.0.saturating_sub(earlier.0))
    }
}

impl Span {
    /// A span of whole milliseconds.
    #[must_use]
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis * 1_000)
    }

    /// A span of whole seconds.
    #[must_use]
    pub const fn from_secs(secs: i64) -> Self {
        Self(secs * 1_000_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_stays_on_the_scale() {
        assert_eq!(EventTime::MAX.plus(Span(1)), EventTime::MAX);
        assert_eq!(EventTime::MIN.minus(Span(1)), EventTime::MIN);
        assert_eq!(WallTime(5).since(WallTime(7)), Span(-2));
        assert_eq!(Span::from_secs(1), Span::from_millis(1_000));
    }
}
