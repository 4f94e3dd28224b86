//! The lane of a row: a hash of its key.
