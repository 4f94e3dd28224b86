//! Where memory is short, the allocator gives freed pages back at once.
//!
//! mimalloc keeps them for a second, so that a process which writes an epoch a second seems to need what it needs twice. It reads its options from the
//! environment before `main`, and from nowhere else that safe code reaches; so the process begins once more, in the same pid, with the variable set.

use crate::spec::LimitOptions;
use std::env;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// mimalloc's option: milliseconds until a freed page goes back.
const OPTION: &str = "MIMALLOC_PURGE_DELAY";
/// As soon as is of use: what is taken again within an epoch's writing stays.
const DELAY: &str = "10";
/// Budgets that together are below this many bytes say that memory is short. Those by default are above it.
const SHORT: u64 = 1 << 30;

/// Begins the process again where the budgets are small and nobody has set the option. Otherwise, and where it cannot, it does nothing: the delay
/// is then the allocator's own.
pub fn begin_again(limits: &LimitOptions) {
    if env::var_os(OPTION).is_some() || limits.memory.0.saturating_add(limits.query_memory.0) >= SHORT {
        return;
    }
    if let Ok(program) = env::current_exe() {
        let mut words = env::args_os();
        let name = words.next().unwrap_or_else(|| program.clone().into());
        // It comes back only with an error.
        let _ = Command::new(&program).arg0(name).args(words).env(OPTION, DELAY).exec();
    }
}
