//! `config/prometheus`: the scrape configuration and every rule file are valid for Prometheus's own checker.

use std::path::Path;
use std::process::Command;

fn check(arguments: &[&str], file: &Path) {
    let output = Command::new("promtool").args(arguments).arg(file).output();
    let output = output.expect("promtool starts (tests/setup/install.sh installs it)");
    assert!(
        output.status.success(),
        "{}: {}{}",
        file.display(),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn promtool_accepts_the_scrape_configuration_and_every_rule_file() {
    let folder = tests::repository().join("config/prometheus");
    check(&["check", "config"], &folder.join("prometheus.yml"));
    let files = std::fs::read_dir(&folder).expect("config/prometheus is there").map(|entry| entry.expect("readable").path());
    let rules: Vec<_> =
        files.filter(|path| path.extension().is_some_and(|end| end == "yml") && !path.ends_with("prometheus.yml")).collect();
    assert!(!rules.is_empty(), "no rule file in {}", folder.display());
    rules.iter().for_each(|file| check(&["check", "rules"], file));
}
