//! Cold: one Delta table per table, on local disk, that any Delta reader opens.
//!
//! `table` is the Delta table and its one commit a move; `files` writes a move's Parquet files; `sweep` takes away what a
//! crashed move left; `store` is the object store that makes a
//! Delta commit durable before it is seen; `types` says how our columns are stored. The move as a whole is `crate::mover`.
//!
//! **The commit is the switch.** A move adds its files and raises, for each lane inside, the application transaction
//! `tidegate/<pipeline>/<table>/<lane>/<chain>` to its move number, in one Delta commit. A reader of that snapshot has the rows here;
//! a reader of an older one has them in warm.
//!
//! Not here yet: object stores other than local disk, optimize and vacuum, retention.

mod files;
mod named;
mod seam;
mod store;
mod sweep;
mod table;
mod types;
mod views;

pub(crate) use files::properties;
pub use files::{MoveFile, write_files};
pub use named::NamedFile;
pub use seam::{ColdTable, ColdVersion};
pub use store::DurableFs;
pub use sweep::{is_abandoned, move_name};
pub use table::{Cold, Snapshot, dropped, transaction};
pub use views::ColdTables;
