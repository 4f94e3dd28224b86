//! Files that are nearly right: shipped pipelines with pieces cut out, doubled, moved or replaced. Each is a plan or a list of mistakes that can
//! be shown; none makes the program panic or takes long. `MUTATED_CASES=n` tries more, from `MUTATED_SEED=k` on.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails with it")]

use pipelines::plan::Plan;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// Words that stand where others do.
const WORDS: [&str; 24] = [
    "\"\"",
    "-1",
    "0",
    "1e400",
    "18446744073709551616",
    "true",
    "[]",
    "{}",
    "\"10s\"",
    "\"10\"",
    "\"∞\"",
    "nan",
    "2026-13-01T00:00:00Z",
    "[[tests]]",
    "[tables.x]",
    "inputs",
    "= [",
    "\"\"\"",
    "#",
    "\u{0}",
    "select = { a = \"1 + \" }",
    "key = []",
    "\"CASE WHEN\"",
    "\"sum(\"",
];

/// Some file of so many bytes takes no longer, on a busy machine.
const LONGEST: Duration = Duration::from_secs(10);

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

struct Chance(StdRng);

impl Chance {
    fn below(&mut self, n: usize) -> usize {
        self.0.random_range(0..n.max(1))
    }

    /// A piece of a text, between two characters.
    fn piece(&mut self, text: &str, longest: usize) -> std::ops::Range<usize> {
        let start = (0..=self.below(text.len() + 1)).rev().find(|at| text.is_char_boundary(*at)).unwrap();
        let wanted = (start + self.below(longest)).min(text.len());
        start..(start..=wanted).rev().find(|at| text.is_char_boundary(*at)).unwrap()
    }

    fn mutate(&mut self, text: &mut String, other: &str) {
        let place = self.piece(text, 40);
        let with = match self.below(5) {
            0 => String::new(),
            1 => text[self.piece(text, 60)].to_owned(),
            2 => other[self.piece(other, 200)].to_owned(),
            3 => WORDS[self.below(WORDS.len())].to_owned(),
            _ => text[place.clone()].repeat(2),
        };
        text.replace_range(place, &with);
    }
}

#[test]
fn a_file_that_is_nearly_right_is_a_plan_or_a_list_of_mistakes() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/pipelines");
    let mut files: Vec<_> =
        fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).filter(|p| p.extension().is_some_and(|e| e == "toml")).collect();
    files.sort();
    let shipped: Vec<String> = files.iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    let (first, cases) = (number("MUTATED_SEED", 0), number("MUTATED_CASES", 500));
    let (mut right, mut wrong) = (0, 0);
    for seed in first..first + cases {
        let mut chance = Chance(StdRng::seed_from_u64(seed));
        let mut text = shipped[chance.below(shipped.len())].clone();
        let other = &shipped[chance.below(shipped.len())];
        (0..=chance.below(4)).for_each(|_| chance.mutate(&mut text, other));
        let since = Instant::now();
        let read = std::panic::catch_unwind(|| Plan::read("mutated.toml", &text).map_err(|problems| problems.render(false)));
        match read.unwrap_or_else(|_| panic!("MUTATED_SEED={seed} panics on\n{text}")) {
            Ok(_) => right += 1,
            Err(told) => {
                assert!(told.contains("mutated.toml:"), "MUTATED_SEED={seed}: no place in\n{told}");
                wrong += 1;
            }
        }
        assert!(since.elapsed() < LONGEST, "MUTATED_SEED={seed} takes {:?} on\n{text}", since.elapsed());
    }
    assert!(right > 0 && wrong > cases / 3, "{right} right and {wrong} wrong: the mutations show nothing");
}
