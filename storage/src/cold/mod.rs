//! Cold: one Delta table per table, on local disk or in a bucket, that any Delta reader opens.
//!
//! `table` is the Delta table and `commit` its edits; `files` writes Parquet files as `layout` has them, of rows that `sort` gives; `sweep`
//! takes away what a crashed move left; `log` keeps the log short and deletes what it let go; `place` is where it lies, `store` the object
//! store that makes a commit on local disk durable before it is seen; `types` says how our columns are stored. The move as a whole is
//! `crate::mover`, what is done beside the moves `crate::upkeep`.
//!
//! **The commit is the switch.** A move adds its files and raises, for each lane inside, the application transaction
//! `tidegate/<pipeline>/<table>/<lane>/<chain>` to its move number, in one Delta commit. A reader of that snapshot has the rows here;
//! a reader of an older one has them in warm.
//!
//! Files that a commit let go of stay for a while: whoever reads an older version finds them.

mod commit;
mod files;
mod layout;
mod log;
mod named;
mod place;
mod seam;
mod sort;
mod store;
mod sweep;
mod table;
mod types;
mod views;

pub use files::{MoveFile, write_files};
pub(crate) use layout::properties;
pub use named::NamedFile;
pub(crate) use place::Place;
pub use seam::{ColdFile, ColdTable, ColdVersion, Edit, RemovedFile};
pub use store::DurableFs;
pub use sweep::{is_abandoned, move_name, rewrite_name};
pub use table::{Cold, Snapshot, dropped, transaction};
pub use views::ColdTables;
