//! Deterministic simulation of the durable part of a pipeline: the code of the product over a disk, clocks, a broker and a cold table that a
//! seed owns. `make sim SEEDS=n [SEED=k]`; seeds that once failed stand in `tests/seeds` and are run always.

#![allow(clippy::unwrap_used, reason = "all of it is a test")]

mod broker;
mod chance;
mod clockwork;
mod cold;
mod coverage;
mod disk;
mod faults;
#[cfg(feature = "planted")]
mod mutants;
mod oracle;
mod run;
mod shown;
mod sinks;

/// As in the product; half of a seed's time is memory.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

use coverage::Coverage;
use faults::Faults;
use run::{Report, run};
use std::io::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Seeds of a run without `SEEDS`: what two cores do in five minutes.
const SEEDS: u64 = 10_000;
/// One seed in so many is run twice, and must log the same.
const TWICE: u64 = 100;

fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().filter(|text| !text.is_empty()).map(|text| text.parse().unwrap_or_else(|e| panic!("{name}={text}: {e}")))
}

/// What a failing seed prints.
fn tell(seed: u64, report: &Report) {
    say(&format!("seed {seed} fails: {}", report.violation.as_deref().unwrap_or("nothing")));
    say(&format!("{:#?}", Faults::of(seed)));
    report.last_events.iter().for_each(|line| say(line));
    say(&format!("again: make sim SEED={seed}; keep it: echo {seed} >> tests/seeds/kept.txt"));
}

struct Campaign {
    coverage: Coverage,
    failed: Vec<(u64, String)>,
    seeds: u64,
    starts: u64,
}

/// Runs seeds on all cores; a silent campaign stops at the first that fails.
fn campaign(seeds: &[u64], silent: bool) -> Campaign {
    let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let all = Mutex::new(Campaign { coverage: Coverage::default(), failed: vec![], seeds: 0, starts: 0 });
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let Some(&seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed) as usize) else { break };
                    let report = run(seed);
                    let again = (seed % TWICE == 0).then(|| run(seed).hash);
                    let mut all = all.lock().unwrap();
                    all.coverage.add(&report.coverage);
                    all.seeds += 1;
                    all.starts += report.starts;
                    if let Some(violation) = &report.violation {
                        if !silent {
                            tell(seed, &report);
                        }
                        all.failed.push((seed, violation.clone()));
                        stop.fetch_or(silent, Ordering::Relaxed);
                    } else if again.is_some_and(|hash| hash != report.hash) {
                        tell(seed, &report);
                        all.failed.push((seed, "two runs of the seed differ".into()));
                    }
                }
            });
        }
    });
    all.into_inner().unwrap()
}

/// The seeds that failed once.
fn kept() -> Vec<u64> {
    let path = tests::repository().join("tests/seeds/kept.txt");
    let text = std::fs::read_to_string(&path).expect("tests/seeds/kept.txt is there");
    let seed = |line: &str| line.split('#').next().map(str::trim).filter(|t| !t.is_empty()).map(|t| t.parse().expect("a number of a seed"));
    text.lines().filter_map(seed).collect()
}

fn check(done: &Campaign) {
    for (seed, violation) in &done.failed {
        say(&format!("seed {seed}: {violation}"));
    }
    assert!(done.failed.is_empty(), "{} seeds fail, the first is {:?}", done.failed.len(), done.failed[0]);
}

#[test]
fn every_seed_keeps_every_promise() {
    if let Some(seed) = setting("SEED") {
        let report = run(seed);
        tell(seed, &report);
        assert_eq!(report.hash, run(seed).hash, "two runs of seed {seed} differ");
        assert_eq!(report.violation, None);
        return;
    }
    let (from, count) = (setting("FROM").unwrap_or(0), setting("SEEDS").unwrap_or(SEEDS));
    let done = campaign(&(from..from + count).collect::<Vec<_>>(), false);
    say(&format!("{count} seeds, {} starts, {:?}", done.starts, done.coverage.events));
    say(&format!("{:?}", done.coverage.cells));
    check(&done);
    if count >= SEEDS {
        let missing = done.coverage.missing();
        assert!(missing.is_empty(), "never met: {missing:?}");
    }
}

#[test]
fn seeds_that_failed_once_hold() {
    check(&campaign(&kept(), false));
}
