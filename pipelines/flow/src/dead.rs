//! Dead letters: messages and rows that could not be used, with the reason.

use crate::Batch;

/// Why a message or row could not be used. The text form stands in the table `dead_letters` and on the metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// The bytes are not of the declared format (broken JSON, wrong number of CSV fields, not UTF-8).
    Malformed,
    /// A value is not of its column's type or does not fit it.
    WrongType,
    /// A declared column stands twice in one message.
    DuplicateColumn,
    /// A key column is missing or null.
    KeyMissing,
    /// The event time is missing.
    TimeMissing,
    /// The event time cannot be read.
    TimeUnreadable,
    /// The event time lies before `min_time`.
    TimeTooOld,
    /// The event time lies further ahead of the arrival than `max_future`.
    TimeInFuture,
    /// The message is larger than `max_message`.
    TooLarge,
    /// The message is nested deeper than the decoder goes.
    TooDeep,
    /// The topic fits none of the source's patterns.
    UnknownTopic,
    /// An expression failed on the row (division by zero, a cast).
    Expression,
    /// A filter with `else = "dead_letter"` did not hold.
    Filtered,
    /// `max_keys` or `max_state` of an operator is reached.
    StateLimit,
    /// An enrich with `on_miss = "dead_letter"` found nothing in its lookup table.
    NoMatch,
}

impl Reason {
    /// Every reason, in the order of the enum.
    pub const ALL: [Self; 15] = [
        Self::Malformed,
        Self::WrongType,
        Self::DuplicateColumn,
        Self::KeyMissing,
        Self::TimeMissing,
        Self::TimeUnreadable,
        Self::TimeTooOld,
        Self::TimeInFuture,
        Self::TooLarge,
        Self::TooDeep,
        Self::UnknownTopic,
        Self::Expression,
        Self::Filtered,
        Self::StateLimit,
        Self::NoMatch,
    ];

    /// The word for tables and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::WrongType => "wrong_type",
            Self::DuplicateColumn => "duplicate_column",
            Self::KeyMissing => "key_missing",
            Self::TimeMissing => "time_missing",
            Self::TimeUnreadable => "time_unreadable",
            Self::TimeTooOld => "time_too_old",
            Self::TimeInFuture => "time_in_future",
            Self::TooLarge => "too_large",
            Self::TooDeep => "too_deep",
            Self::UnknownTopic => "unknown_topic",
            Self::Expression => "expression",
            Self::Filtered => "filtered",
            Self::StateLimit => "state_limit",
            Self::NoMatch => "no_match",
        }
    }

    /// The reason of a word; none for a word we do not know.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|r| r.as_str() == word)
    }
}

/// Rows that an operator or a lane could not use.
#[derive(Clone, Debug)]
pub struct DeadLetters {
    /// The rows, with their origin.
    pub rows: Batch,
    /// Why, for all of them.
    pub reason: Reason,
    /// What a person should know beyond the reason.
    pub detail: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_word_of_its_own() {
        for reason in Reason::ALL {
            assert_eq!(Reason::from_word(reason.as_str()), Some(reason));
        }
        assert_eq!(Reason::from_word("mood"), None);
    }
}
