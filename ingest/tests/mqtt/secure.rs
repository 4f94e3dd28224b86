//! How a source reaches its broker: with TLS, with a certificate of its own, in MQTT 3.1.1, through a websocket, over several connections.

use crate::mosquitto::{numbers, publish};
use crate::support::{Broker, Log, Running, reaches};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tests::certificates;

/// A broker with a plain listener for publishers, and a second one with these settings.
fn broker_with(second: &str, port: u16) -> Broker {
    Broker::with(&format!("listener {port} 127.0.0.1\n{second}"), certificates)
}

/// Publishes a thousand numbers and sees each arrive once.
async fn takes_a_thousand(options: &str, broker: &Broker) {
    let log = Log::open();
    let source = Running::with(options, log.handle());
    reaches("connected", &source.status.connected, 1).await;
    // The subscription follows the connection.
    tokio::time::sleep(Duration::from_millis(300)).await;
    publish(broker.port, numbers(0..1_000)).await;
    reaches("logged", &source.status.logged, 1_000).await;
    reaches("unacked", &source.status.unacked, 0).await;
    source.end().await;
    assert_eq!(log.rows(1_000).await.numbers, (0..1_000).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn readings_arrive_over_tls_and_no_stranger_is_trusted() {
    let port = tests::free_port();
    let broker = broker_with("certfile FOLDER/broker.pem\nkeyfile FOLDER/broker.key", port);
    let url = format!("url = \"mqtts://localhost:{port}\"");
    takes_a_thousand(&format!("{url}\ntls = {{ ca = \"{}\" }}", broker.path("ca.pem")), &broker).await;

    let log = Log::open();
    let other = tempfile::tempdir().unwrap();
    certificates(other.path());
    let stranger = Running::with(&format!("{url}\ntls = {{ ca = \"{}\" }}", other.path().join("ca.pem").display()), log.handle());
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(stranger.status.connected.load(Relaxed), 0, "the broker's certificate is of another authority");
    assert!(!stranger.task.is_finished(), "it is waited for a broker that can show the right one");
    stranger.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_asks_for_a_certificate_gets_ours() {
    let port = tests::free_port();
    let broker = broker_with("cafile FOLDER/ca.pem\ncertfile FOLDER/broker.pem\nkeyfile FOLDER/broker.key\nrequire_certificate true", port);
    let ca = broker.path("ca.pem");
    let log = Log::open();
    let nobody = Running::with(&format!("url = \"mqtts://localhost:{port}\"\ntls = {{ ca = \"{ca}\" }}"), log.handle());
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(nobody.status.logged.load(Relaxed), 0);
    nobody.end().await;
    let tls = format!("{{ ca = \"{ca}\", certificate = \"{}\", key = \"{}\" }}", broker.path("client.pem"), broker.path("client.key"));
    takes_a_thousand(&format!("url = \"mqtts://localhost:{port}\"\ntls = {tls}"), &broker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_broker_is_spoken_to_in_its_version() {
    let broker = Broker::start();
    takes_a_thousand(&format!("url = \"mqtt://127.0.0.1:{}\"\nversion = \"3.1.1\"", broker.port), &broker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn readings_arrive_through_a_websocket_in_both_versions() {
    let port = tests::free_port();
    let broker = broker_with("protocol websockets", port);
    for version in ["5", "3.1.1"] {
        takes_a_thousand(&format!("url = \"ws://127.0.0.1:{port}/mqtt\"\nversion = \"{version}\"\nclient_id = \"ws-{version}\""), &broker)
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_connections_share_the_messages() {
    let broker = Broker::start();
    let log = Log::open();
    let options = format!("url = \"mqtt://127.0.0.1:{}\"\nshare = \"floor\"\nconnections = 2", broker.port);
    let both = [0, 1].map(|number| Running::connection(&options, number, log.handle()));
    for source in &both {
        reaches("connected", &source.status.connected, 1).await;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    publish(broker.port, numbers(0..1_000)).await;
    let taken = log.rows(1_000).await.numbers.clone();
    assert_eq!(taken, (0..1_000).collect::<Vec<_>>(), "each message reaches one of the two");
    for source in both {
        reaches("unacked", &source.status.unacked, 0).await;
        assert!(source.status.logged.load(Relaxed) > 0, "both had some");
        source.end().await;
    }
}
