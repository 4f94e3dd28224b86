//! The journal: the durable log of what cannot be read again. One file, one order, one fsync for all lanes of a pipeline.
//!
//! **Promises.** What [`Durable`] resolved for survives a crash, with all its frames (a group is whole or absent). Lanes are given
//! frames only after their fsync, each lane in order of offset, and once more from its own position when the journal is opened.
//! Damage below what was known durable stops the journal, naming file and byte; a torn tail is cut. After a failed fsync nothing more is
//! acknowledged. What a broker may deliver again ([`JournalHandle::recent`]) survives truncation.
//!
//! **Absent.** It dies with its disk; it does not decode, route or judge readings.
//!
//! ```text
//! <directory>/00000000000000000000.log     named by the first offset; about 64 MiB
//!             00000000000000081234.log     the last one is preallocated with zeros
//!
//! segment  "TGJRNL" version:u16 | id:u64 | first:u64 | follows:u64 | crc32c:u32      36 bytes; `follows` = end of the segment before
//!          restatement frame                                                        always there: the file is renamed into place with it
//!          frame frame frame …
//!
//! frame    0      4         8         16        24      28      29       30         34          38          42
//!          "TGfr" length:u32 offset:u64 synced:u64 lane:u32 kind:u8 flags:u8 publishes:u32 bodycrc:u32 headcrc:u32
//!          publishes × (connection:u32 hash:u64) | body                              `length` bytes in all
//!
//! kind     1 rows   source, producer, topic, arrival, number of trail columns | Arrow IPC stream, lz4: columns, then trail columns
//!          2 rejects   3 connection   4 tick   5 note (publishes without frames)   6 restatement
//!          7 lookup  table, number of the version | Arrow IPC stream, lz4
//! flags    1 = last frame of its group        lane 0xffffffff = every lane
//! ```
//! All numbers are little endian. `offset` numbers frames, restatements included. `synced`: everything below was on disk when the frame was
//! written. Both checksums are seeded with the journal's id, so bytes that a device sent, or that an old file left, never pass for a frame.

mod body;
mod bytes;
mod codec;
mod file;
mod frame;
mod handle;
mod open;
mod options;
mod recent;
mod recover;
mod replay;
mod unread;
mod writer;

#[cfg(test)]
mod tests;

pub use body::{Body, Delivery, Group, Publish};
pub use handle::{Durable, JournalHandle};
pub use open::Journal;
pub use options::{JournalOptions, Keep, Size, Sync};
pub use unread::{unread, unread_on};
