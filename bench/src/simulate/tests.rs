use std::collections::BTreeMap;
use std::fs::File;

use arrow::array::RecordBatch;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::*;
use crate::Broker;
use crate::scenario::{FaultOptions, Format, MalformedOptions, Span, Storm, Version, WireOptions};
use crate::truth::{MANIFEST, Manifest, READINGS};

fn scenario(wire: WireOptions) -> Scenario {
    // So many that each class of them is met.
    let malformed = Some(MalformedOptions { share: 0.05, classes: Vec::new() });
    Scenario {
        devices: 50,
        lasting: Some(Span::from_secs(2)),
        start: Some("2026-01-01T00:00:00Z".to_owned()),
        faults: FaultOptions { malformed, ..FaultOptions::usual() },
        wire,
        ..Scenario::demo()
    }
}

async fn run(scenario: &Scenario, folder: &Path) -> Report {
    simulate(scenario, Some(folder), &Arc::default(), std::future::pending()).await.unwrap()
}

fn truth(folder: &Path) -> Vec<RecordBatch> {
    let file = File::open(folder.join(READINGS)).unwrap();
    ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap().map(|batch| batch.unwrap()).collect()
}

fn is_whole(folder: &Path, report: &Report) {
    let manifest = Manifest::read(folder).unwrap();
    assert_eq!(manifest.counts, report.counts);
    let rows: usize = truth(folder).iter().map(RecordBatch::num_rows).sum();
    assert_eq!(rows as u64, report.counts.messages);
    assert_eq!(report.counts.messages, report.counts.readings + report.counts.duplicate + report.counts.broken);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_both_versions_every_message_is_acknowledged_and_stands_in_the_truth() {
    let broker = Broker::start().await.unwrap();
    for version in [Version::V5, Version::V311] {
        let folder = tempfile::tempdir().unwrap();
        let report =
            run(&scenario(WireOptions { url: broker.url(), version, connections: 3, ..WireOptions::default() }), folder.path()).await;
        assert!(report.counts.messages >= 500, "{report:?}");
        assert_eq!((report.unacknowledged, report.reconnects), (0, 0), "{report:?}");
        assert!(report.latency_seconds.p50 > 0.0 && report.counts.reasons.contains_key("too_large"));
        is_whole(folder.path(), &report);
    }
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_reconnects_and_is_known_in_the_attempts() {
    let broker = Broker::start().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let storm = Some(Storm { every: "500ms".parse().unwrap(), share: 1.0 });
    let report = run(&scenario(WireOptions { url: broker.url(), storm, connections: 4, ..WireOptions::default() }), folder.path()).await;
    assert!(report.reconnects >= 4, "{report:?}");
    is_whole(folder.path(), &report);
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_simulator_that_falls_behind_its_schedule_gives_up_and_says_so() {
    let broker = Broker::start().await.unwrap();
    // No timer is as good as this.
    let wire = WireOptions { url: broker.url(), max_lag: "1us".parse().unwrap(), ..WireOptions::default() };
    let ended = simulate(&scenario(wire), None, &Arc::default(), std::future::pending()).await;
    assert!(matches!(ended, Err(crate::Error::Behind { .. })), "{ended:?}");
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_simulation_that_is_stopped_has_a_whole_truth() {
    let broker = Broker::start().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let endless = Scenario { lasting: None, ..scenario(WireOptions { url: broker.url(), ..WireOptions::default() }) };
    let progress = Arc::<Progress>::default();
    let enough = async {
        while progress.report(0).counts.messages < 100 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    let report = simulate(&endless, Some(folder.path()), &progress, enough).await.unwrap();
    assert!(report.counts.messages >= 100 && report.unacknowledged == 0, "{report:?}");
    is_whole(folder.path(), &report);
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn qos_0_has_no_acknowledgements() {
    let broker = Broker::start().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let report = run(&scenario(WireOptions { url: broker.url(), qos: 0, ..WireOptions::default() }), folder.path()).await;
    assert_eq!(report.unacknowledged, report.counts.messages);
    is_whole(folder.path(), &report);
    broker.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_seed_gives_the_same_file_and_another_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let mut bytes = BTreeMap::new();
    for (name, seed) in [("a", 1), ("b", 1), ("c", 2)] {
        let file = folder.path().join(format!("{name}.ndjson"));
        let wire = WireOptions { transport: Transport::File, file: file.clone(), ..WireOptions::default() };
        let options = Scenario { seed, ..scenario(wire) };
        let report = run(&options, &folder.path().join(name)).await;
        assert_eq!(report.unacknowledged, 0);
        is_whole(&folder.path().join(name), &report);
        let text = std::fs::read(&file).unwrap();
        assert_eq!(text.iter().filter(|byte| **byte == b'\n').count() as u64, report.counts.messages);
        bytes.insert(name, (text, Manifest::read(&folder.path().join(name)).unwrap().messages_xxh3));
    }
    assert_eq!(bytes["a"], bytes["b"]);
    assert_ne!(bytes["a"], bytes["c"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_csv_file_has_a_header_and_a_field_for_each_signal() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("readings.csv");
    let wire = WireOptions { transport: Transport::File, format: Format::Csv, file: file.clone(), ..WireOptions::default() };
    let options = Scenario { faults: FaultOptions::default(), ..scenario(wire) };
    run(&options, folder.path()).await;
    let text = std::fs::read_to_string(file).unwrap();
    assert_eq!(text.lines().next(), Some("device_id,ts,seq,t"));
    assert!(text.lines().all(|line| line.split(',').count() == 4));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_truth_that_broke_off_has_no_manifest() {
    let folder = tempfile::tempdir().unwrap();
    let wire = |file: &str| WireOptions { transport: Transport::File, file: folder.path().join(file), ..WireOptions::default() };
    run(&scenario(wire("a.ndjson")), folder.path()).await;
    assert!(folder.path().join(MANIFEST).exists());
    let broken = scenario(wire("missing/b.ndjson"));
    assert!(simulate(&broken, Some(folder.path()), &Arc::default(), std::future::pending()).await.is_err());
    assert!(!folder.path().join(MANIFEST).exists());
}
