//! How readings come in: sources take messages, decoders make columns of them, and a row goes to the lane of its key.
//!
//! Data flows `mqtt, http → decode → route → journal → lane`, `file → decode → route → lane` and `kafka → decode → lane`. What cannot be decoded goes the same way as
//! `Rejected`. Absent by intent: no operators, no tables, no SQL; what an operator could not use is the business of later rooms.

mod batch;
mod beside;
mod credentials;
pub mod decode;
pub mod file;
pub mod http;
pub mod journal;
pub mod kafka;
pub mod lock;
pub mod lookup;
pub mod mqtt;
pub mod rejected;
pub mod route;
mod status;

pub use credentials::{Secret, TlsOptions};
pub use rejected::Rejected;
pub use status::SourceStatus;
