//! The pure part of `storage::epoch`, the same files, compiled by themselves: the whole of `storage` brings DataFusion, and an instrumented build
//! of that takes longer than the fuzzing.

#![allow(dead_code, reason = "of these files a fuzzer needs what reads and folds")]

#[path = "../../../storage/src/epoch/chain.rs"]
mod chain;
#[path = "../../../storage/src/epoch/error.rs"]
mod error;
#[path = "../../../storage/src/epoch/frame.rs"]
mod frame;
#[path = "../../../storage/src/epoch/names.rs"]
mod names;
#[path = "../../../storage/src/epoch/record.rs"]
mod record;

pub(crate) use chain::fold_all;
use error::{EpochError, Result};
pub(crate) use frame::{decode, encode};
use names::Names;
pub(crate) use record::{Body, FORMAT, Record};
use record::{Change, ExitChange, ExitState, Fingerprint, Header, StateChange, StateFile, TableChange, TableState, Whole};
