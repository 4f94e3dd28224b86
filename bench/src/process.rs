//! What a program costs: runs it to its end and reads its CPU time and peak memory from Linux's `/proc`.
//!
//! A process that has ended keeps its times in `/proc/<pid>/stat` until it is waited for, so they are exact to a clock tick
//! (10 ms); its memory does not outlive it, so the peak is read while it runs, every 10 ms.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::{Error, Result};

/// `sysconf(_SC_CLK_TCK)`, 100 on every Linux: the kernel scales what it shows to user space.
const TICKS_PER_SECOND: f64 = 100.0;
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// What a finished process has used, all its threads together.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Usage {
    /// CPU seconds in its own code.
    pub user_seconds: f64,
    /// CPU seconds in the kernel on its behalf.
    pub system_seconds: f64,
    /// From start to end.
    pub wall_seconds: f64,
    /// The greatest resident set, bytes.
    pub peak_bytes: u64,
}

/// Runs `command` to its end. Linux only.
pub fn run_and_measure(command: &mut Command) -> Result<(ExitStatus, Usage)> {
    let program = format!("{command:?}");
    let failed = |reason: String| Error::Program { program: program.clone(), reason };
    let start = Instant::now();
    let mut child = command.spawn().map_err(|error| failed(error.to_string()))?;
    let folder = PathBuf::from(format!("/proc/{}", child.id()));
    let mut usage = Usage { user_seconds: 0.0, system_seconds: 0.0, wall_seconds: 0.0, peak_bytes: 0 };
    loop {
        let stat = fs::read_to_string(folder.join("stat")).map_err(|error| failed(format!("its /proc/stat: {error}")))?;
        let status = fs::read_to_string(folder.join("status")).unwrap_or_default();
        usage.peak_bytes = usage.peak_bytes.max(peak_bytes(&status).unwrap_or(0));
        let (ended, user, system) = times(&stat).ok_or_else(|| failed(format!("its /proc/stat reads {stat:?}")))?;
        if ended {
            (usage.user_seconds, usage.system_seconds) = (user, system);
            usage.wall_seconds = start.elapsed().as_secs_f64();
            return child.wait().map(|status| (status, usage)).map_err(|error| failed(error.to_string()));
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Has it ended, its user and its system seconds. The name in parentheses may hold blanks, so fields count from behind it.
fn times(stat: &str) -> Option<(bool, f64, f64)> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let seconds = |field: usize| fields.get(field)?.parse::<f64>().ok().map(|ticks| ticks / TICKS_PER_SECOND);
    Some((*fields.first()? == "Z", seconds(11)?, seconds(12)?))
}

fn peak_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_time_of_a_busy_shell_is_seen() {
        let (status, usage) =
            run_and_measure(Command::new("sh").args(["-c", "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done"])).unwrap();
        assert!(status.success());
        assert!(usage.user_seconds + usage.system_seconds > 0.01, "{usage:?}");
        assert!(usage.peak_bytes > 100_000 && usage.wall_seconds > 0.0, "{usage:?}");
    }

    #[test]
    fn a_name_with_blanks_and_parentheses_does_not_shift_the_fields() {
        assert_eq!(times("1 (a b) c) Z 1 1 1 0 -1 0 0 0 0 0 250 50 0 0"), Some((true, 2.5, 0.5)));
    }
}
