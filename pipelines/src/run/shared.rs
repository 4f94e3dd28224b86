//! What processes of one pipeline do to share a data directory: each has a name and a folder of its own in it, and takes part in the
//! directory's lock, which keeps out whoever wants it alone.
//!
//! ```text
//! <data_dir>/instances/<name>/instance.json   where it listens; its lock is held while it runs
//! <data_dir>/movers/<table>/                  the lock of whoever works on the cold table at the moment
//! ```
//! Neither decides who owns a lane: that is the epoch record's number, which can be given once.

use crate::plan::Plan;
use flow::{Error, Lane, Remedy, Result};
use ingest::lock::DirectoryLock;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use tokio::sync::oneshot;
use world::LocalDisk;

/// The folder of the instances' folders.
pub(crate) const INSTANCES: &str = "instances";
/// The folder of the movers' locks.
pub(crate) const MOVERS: &str = "movers";
/// How a process is known that has its data directory alone.
pub(crate) const OWNER: &str = "local";
/// Where Linux says what the machine is called.
const HOSTNAME: &str = "/proc/sys/kernel/hostname";

/// How other processes know this one.
pub(crate) fn owner(plan: &Plan, asked: Option<&str>) -> Result<String> {
    match asked {
        Some(name) if plan.shared => Ok(name.to_owned()),
        Some(name) => {
            let what = format!("`--instance {name}` names one of several processes: the pipeline says nothing of `shared = true`");
            Err(Error::new(Remedy::Stop, what))
        }
        None if plan.shared => Ok(some_name()),
        None => Ok(OWNER.to_owned()),
    }
}

/// A name that no other instance has: the machine's, and the number of the process on it.
fn some_name() -> String {
    let host = std::fs::read_to_string(HOSTNAME).unwrap_or_default();
    let host: String = host.trim().chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(50).collect();
    format!("{}-{}", if host.is_empty() { "instance" } else { &host }, std::process::id())
}

/// The folder in which a process says where it listens.
pub(crate) fn home(plan: &Plan, owner: &str) -> PathBuf {
    if plan.shared { plan.data_dir.join(INSTANCES).join(owner) } else { plan.data_dir.clone() }
}

/// The locks that a process holds as long as it runs: on the data directory, alone or with the others, and on its own folder.
pub(crate) fn locks(plan: &Plan, home: &Path) -> Result<Vec<DirectoryLock>> {
    if !plan.shared {
        return Ok(vec![DirectoryLock::take(&LocalDisk, &plan.data_dir)?]);
    }
    let locks = vec![DirectoryLock::share(&LocalDisk, &plan.data_dir)?, DirectoryLock::take(&LocalDisk, home)?];
    forget_the_dead(&plan.data_dir.join(INSTANCES));
    Ok(locks)
}

/// Takes away the folders of instances that have ended: nobody holds their locks. What cannot be deleted is only space.
fn forget_the_dead(instances: &Path) {
    for entry in std::fs::read_dir(instances).into_iter().flatten().flatten() {
        if let Ok(_dead) = DirectoryLock::take(&LocalDisk, &entry.path()) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// Lanes that were told to end, and who waits for that.
#[derive(Default)]
pub(crate) struct Leaving(Vec<(BTreeSet<Lane>, Option<oneshot::Sender<()>>)>);

impl Leaving {
    /// Tells `ended` when all of these have ended: at once when there are none.
    pub(crate) fn add(&mut self, lanes: BTreeSet<Lane>, ended: oneshot::Sender<()>) {
        self.0.push((lanes, Some(ended)));
        self.tell();
    }

    /// Whether somebody waits for the end of a lane.
    pub(crate) fn awaits(&self, lane: &Lane) -> bool {
        self.0.iter().any(|(lanes, _)| lanes.contains(lane))
    }

    /// A lane has ended.
    pub(crate) fn ended(&mut self, lane: &Lane) {
        for (lanes, _) in &mut self.0 {
            lanes.remove(lane);
        }
        self.tell();
    }

    fn tell(&mut self) {
        self.0.retain_mut(|(lanes, ended)| {
            if lanes.is_empty() {
                // Whoever asked may have gone on without it.
                let _ = ended.take().map(|ended| ended.send(()));
            }
            !lanes.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_for_lanes_is_told_when_the_last_has_ended() {
        let lane = |name: &str| Lane(name.into());
        let (mut leaving, (first, mut told), (second, mut at_once)) = (Leaving::default(), oneshot::channel(), oneshot::channel());
        leaving.add([lane("a"), lane("b")].into(), first);
        leaving.add([].into(), second);
        assert!(at_once.try_recv().is_ok());
        leaving.ended(&lane("a"));
        assert!(told.try_recv().is_err());
        assert!(leaving.awaits(&lane("b")) && !leaving.awaits(&lane("a")));
        leaving.ended(&lane("b"));
        assert!(told.try_recv().is_ok());
    }

    #[test]
    fn folders_of_the_dead_go_and_those_of_the_living_stay() {
        let instances = tempfile::tempdir().unwrap();
        let _living = DirectoryLock::take(&LocalDisk, &instances.path().join("living")).unwrap();
        drop(DirectoryLock::take(&LocalDisk, &instances.path().join("dead")).unwrap());
        forget_the_dead(instances.path());
        let there = ["living", "dead"].map(|name| instances.path().join(name).exists());
        assert_eq!(there, [true, false]);
    }

    #[test]
    fn a_name_can_be_a_folder() {
        let name = some_name();
        assert!(name.ends_with(&format!("-{}", std::process::id())) && !name.contains('/'), "{name}");
    }
}
