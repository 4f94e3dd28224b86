//! Python in the environment that `tests/setup/install.sh` made, and the places of files.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The repository's root.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests lie in the repository")
}

/// Real data that lies beside the repository on some machines, `../shared/data`; none of it is in the repository.
pub fn shared_data() -> Option<PathBuf> {
    let folder = repository().join("../shared/data");
    folder.is_dir().then_some(folder)
}

/// Runs `tests/e2e/truth.py` with these arguments and returns what it prints. Panics with its error output when it fails.
pub fn python(arguments: &[&str]) -> String {
    let interpreter = environment().join("bin/python");
    let mut command = Command::new(&interpreter);
    let output = command.arg(repository().join("tests/e2e/truth.py")).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{}: {error} (tests/setup/install.sh makes it)", interpreter.display()));
    assert!(output.status.success(), "truth.py {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("truth.py prints UTF-8")
}

/// Runs Python in a folder and returns what it prints. Panics with its error output when it fails.
pub fn python_in(folder: &Path, code: &str) -> String {
    let output = Command::new(environment().join("bin/python")).current_dir(folder).args(["-c", code]).output();
    let output = output.unwrap_or_else(|error| panic!("python: {error} (tests/setup/install.sh makes it)"));
    assert!(output.status.success(), "{code}\n{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("it prints UTF-8")
}

fn environment() -> PathBuf {
    set("TIDEGATE_VENV").unwrap_or_else(|| cache().join("venv"))
}

/// The tools that `tests/setup/install.sh` made.
pub(crate) fn tools() -> PathBuf {
    cache().join("tools")
}

fn cache() -> PathBuf {
    set("XDG_CACHE_HOME").unwrap_or_else(|| set("HOME").expect("HOME is set").join(".cache")).join("tidegate")
}

fn set(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}
