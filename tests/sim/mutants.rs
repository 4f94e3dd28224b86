//! Planted bugs: each must be found, or the simulation proves less than it says. `make mutants [BUG=Name]`.

use crate::{campaign, kept, say};
use world::{Bug, plant};

/// Seeds that are tried for each bug, besides those that are kept; `SEEDS=n` takes more.
const SEEDS: u64 = 600;

#[test]
fn every_planted_bug_is_found() {
    // Most bugs end in an assertion of the product or of the judge; their reports would bury the table.
    std::panic::set_hook(Box::new(|_| {}));
    let wanted = std::env::var("BUG").ok().filter(|name| !name.is_empty());
    let bugs = Bug::ALL.into_iter().filter(|bug| wanted.as_ref().is_none_or(|name| *name == format!("{bug:?}")));
    let most = std::env::var("SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(SEEDS);
    let seeds: Vec<u64> = kept().into_iter().chain(0..most).collect();
    let (mut survivors, mut found) = (vec![], 0);
    for bug in bugs {
        plant(Some(bug));
        let done = campaign(&seeds, true);
        plant(None);
        match done.failed.first() {
            Some((seed, violation)) => {
                found += 1;
                say(&format!("{bug:?}: found after {} seeds, by {seed}: {}", done.seeds, violation.lines().next().unwrap_or_default()));
            }
            None => {
                say(&format!("{bug:?}: SURVIVES {} seeds", done.seeds));
                survivors.push(bug);
            }
        }
    }
    say(&format!("{found} planted bugs found, {} survive", survivors.len()));
    assert!(survivors.is_empty(), "not found: {survivors:?}");
}
