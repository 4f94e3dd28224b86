//! The seeds of the fuzzers, and what once failed, through what they fuzz (`make fuzz`).

#[path = "src/lib.rs"]
mod targets;

mod spec;

use std::path::Path;

fn each(target: &str, run: fn(&[u8])) {
    all(&tests::repository().join("tests/fuzz/seeds").join(target), run);
}

fn all(folder: &Path, run: fn(&[u8])) {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let files: Vec<_> = entries.map(|entry| entry.expect("a name").path()).collect();
    assert!(!files.is_empty(), "no seeds in {}", folder.display());
    let bytes = |path: &Path| std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    files.iter().for_each(|path| run(&bytes(path)));
}

#[test]
fn no_kept_input_makes_a_decoder_panic() {
    each("decode", targets::decode);
}

#[test]
fn no_kept_input_makes_the_topic_parser_panic() {
    each("topic", targets::topic);
}

#[test]
fn no_kept_input_makes_the_journal_reader_panic() {
    each("journal", targets::journal);
}

#[test]
fn no_kept_input_makes_the_record_reader_panic() {
    each("record", targets::record);
}

#[test]
fn no_kept_text_makes_the_reader_of_pipelines_panic() {
    each("toml", spec::spec);
    all(&tests::repository().join("config/pipelines"), spec::spec);
}
