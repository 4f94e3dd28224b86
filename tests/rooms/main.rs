//! The rules between the rooms: dependencies point one way, and the pure rooms name no effect.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};

/// What each room may depend on, beside `flow`. `tests` sees all.
const ARROWS: &[(&str, &[&str])] = &[
    ("flow", &[]),
    ("world", &[]),
    ("ingest", &["world"]),
    ("processors", &[]),
    ("storage", &["world"]),
    ("gateway", &["storage"]),
    ("bench", &[]),
    ("pipelines", &["world", "ingest", "processors", "storage", "gateway", "bench"]),
];

const PURE: &[&str] = &["pipelines/flow/src", "processors/src"];

/// Effects: another time, another machine or another run would see something else.
const EFFECTS: &[&str] = &[
    "tokio",
    "std::fs",
    "std::net",
    "std::env",
    "SystemTime",
    "Instant::now",
    "std::time::Instant",
    "Utc::now",
    "Local::now",
    "thread_rng",
    "rand::",
];

fn metadata() -> Metadata {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml");
    MetadataCommand::new().manifest_path(manifest).no_deps().other_options(["--offline".to_owned()]).exec().expect("cargo metadata")
}

#[test]
fn arrows_point_one_way() {
    let metadata = metadata();
    let rooms: BTreeSet<&str> = metadata.packages.iter().map(|package| package.name.as_str()).collect();
    let known: BTreeSet<&str> = ARROWS.iter().map(|(room, _)| *room).chain(["tests"]).collect();
    assert_eq!(rooms, known, "every room has its line in ARROWS");
    for package in metadata.packages.iter().filter(|package| package.name.as_str() != "tests") {
        let allowed = ARROWS.iter().find(|(room, _)| *room == package.name.as_str()).expect("checked above").1;
        for dependency in package.dependencies.iter().filter(|dependency| dependency.kind == DependencyKind::Normal) {
            let name = dependency.name.as_str();
            let fits = !rooms.contains(name) || name == "flow" || allowed.contains(&name);
            assert!(fits, "the arrow {} → {name} is not in the design", package.name);
        }
    }
}

#[test]
fn the_pure_rooms_depend_on_no_runtime() {
    for package in metadata().packages.iter().filter(|package| ["flow", "processors"].contains(&package.name.as_str())) {
        for dependency in package.dependencies.iter().filter(|dependency| dependency.kind == DependencyKind::Normal) {
            assert!(
                !["tokio", "rand", "reqwest", "object_store"].contains(&dependency.name.as_str()),
                "{} depends on {}",
                package.name,
                dependency.name
            );
        }
    }
}

#[test]
fn the_pure_rooms_name_no_clock_no_file_and_no_chance() {
    for file in PURE.iter().flat_map(|folder| sources(&tests::repository().join(folder))) {
        let text = fs::read_to_string(&file).expect("a source file is readable");
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//")) {
            let effect = EFFECTS.iter().find(|effect| line.contains(**effect));
            assert!(effect.is_none(), "{}:{}: {line}", file.display(), number + 1);
        }
    }
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a room has sources").map(|entry| entry.expect("readable").path());
    let (folders, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    let rust = files.into_iter().filter(|path| path.extension().is_some_and(|end| end == "rs"));
    rust.chain(folders.iter().flat_map(|folder| sources(folder))).collect()
}
