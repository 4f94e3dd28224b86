//! Against a real broker, mosquitto: its restart, an absent one, a client that takes our id, what a crash leaves unacknowledged.

use crate::support::{Broker, Log, Running, SESSION, TOPIC, reaches, until};
use flow::Reason;
use ingest::Rejected;
use ingest::journal::{Group, Publish};
use ingest::mqtt::publish_hash;
use rumqttc::{AckMode, AsyncClient, BrokerSessionResumePolicy, Event, EventLoop, Packet, PublishOptions, QoS};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// Publishes with QoS 1, and waits until the broker has all of it.
pub(crate) async fn publish(port: u16, payloads: Vec<Vec<u8>>) {
    let mut options = rumqttc::MqttOptions::new("publisher", ("127.0.0.1", port));
    options.set_keep_alive(60);
    let (client, mut wire) = client(options, payloads.len().max(1));
    let mut open = payloads.len();
    for payload in payloads {
        client.try_publish(TOPIC, payload, PublishOptions::at_least_once()).unwrap();
    }
    while open > 0 {
        match wire.poll().await {
            Ok(Event::Incoming(Packet::PubAck(_))) => open -= 1,
            Ok(_) => {}
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

pub(crate) fn numbers(range: std::ops::Range<i64>) -> Vec<Vec<u8>> {
    range.map(|n| n.to_string().into_bytes()).collect()
}

/// The source's session, in the hands of another client.
fn session(port: u16) -> rumqttc::MqttOptions {
    let mut options = rumqttc::MqttOptions::new(SESSION, ("127.0.0.1", port));
    options.set_clean_start(false).set_ack_mode(AckMode::Manual).set_session_expiry_interval(Some(600)).set_keep_alive(60);
    options.set_broker_session_resume_policy(BrokerSessionResumePolicy::AllowBrokerOnly);
    options
}

fn client(options: rumqttc::MqttOptions, requests: usize) -> (AsyncClient, EventLoop) {
    AsyncClient::builder(options).capacity(requests).build()
}

/// Takes `count` messages in the source's session without an ack, as a process that dies before it can send one.
async fn take_without_ack(port: u16, count: usize) -> Vec<u16> {
    let (client, mut wire) = client(session(port), 10);
    client.try_subscribe("plant/+/+", QoS::AtLeastOnce).unwrap();
    let (mut packets, mut publisher) = (Vec::new(), None);
    while packets.len() < count {
        match wire.poll().await {
            Ok(Event::Incoming(Packet::SubAck(_))) => publisher = Some(tokio::spawn(publish(port, numbers(0..count as i64)))),
            Ok(Event::Incoming(Packet::Publish(publish))) => packets.push(publish.pkid),
            Ok(_) => {}
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
    publisher.expect("subscribed before the first message").await.unwrap();
    packets
}

#[tokio::test(flavor = "multi_thread")]
async fn readings_arrive_once_and_the_source_outlives_its_broker() {
    let mut broker = Broker::start();
    let log = Log::open();
    let source = Running::start(broker.port, log.handle());
    reaches("connected", &source.status.connected, 1).await;
    // The subscription follows the connection.
    tokio::time::sleep(Duration::from_millis(200)).await;

    let mut messages = numbers(0..500);
    messages.extend([b"broken".to_vec(), vec![b'7'; 70_000], b"f500".to_vec()]);
    publish(broker.port, messages).await;
    reaches("logged", &source.status.logged, 501).await;
    reaches("rejected", &source.status.rejected, 2).await;
    reaches("unacked", &source.status.unacked, 0).await;

    broker.end();
    reaches("connected", &source.status.connected, 0).await;
    broker.go_on();
    reaches("connected", &source.status.connected, 1).await;
    publish(broker.port, numbers(501..5_000)).await;
    reaches("logged", &source.status.logged, 5_000).await;
    assert_eq!(source.status.received.load(Relaxed), 5_002);
    assert_eq!(source.status.reconnects.load(Relaxed), 1);
    source.end().await;

    let taken = log.rows(5_000).await;
    assert_eq!(taken.numbers, (0..5_000).collect::<Vec<_>>());
    assert_eq!(taken.raw, [(500, b"f500".to_vec())], "a reading an hour ahead keeps its bytes");
    let mut rejects: Vec<_> = taken.rejects.iter().map(|r| (r.reason, r.length, r.payload.len())).collect();
    rejects.sort_unstable();
    assert_eq!(rejects, [(Reason::Malformed, 6, 6), (Reason::TooLarge, 70_000, Rejected::PAYLOAD_LIMIT)]);
    assert!(taken.connections.starts_with(&[false, true, false, true]), "{:?}", taken.connections);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_logged_before_a_crash_is_not_taken_twice() {
    let broker = Broker::start();
    let log = Log::open();
    let packets = take_without_ack(broker.port, 30).await;
    let known = |n: usize| Publish::new(0, packets[n], publish_hash(TOPIC.as_bytes(), n.to_string().as_bytes()));
    let publishes = (0..10).map(known).collect();
    log.handle().append(Group { frames: Vec::new(), publishes }).await.unwrap().await.unwrap();

    let source = Running::start(broker.port, log.handle());
    reaches("redelivered", &source.status.redelivered, 10).await;
    reaches("logged", &source.status.logged, 20).await;
    reaches("unacked", &source.status.unacked, 0).await;
    source.end().await;
    let again = Running::start(broker.port, log.handle());
    reaches("connected", &again.status.connected, 1).await;
    publish(broker.port, numbers(30..31)).await;
    reaches("logged", &again.status.logged, 1).await;
    assert_eq!(again.status.redelivered.load(Relaxed), 0, "all 30 were acknowledged");
    again.end().await;
    let taken = log.rows(21).await;
    assert_eq!(taken.numbers, (10..31).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_ends_in_the_middle_doubles_nothing() {
    const MESSAGES: i64 = 10_000;
    let broker = Broker::start();
    let log = Log::open();
    let source = Running::start(broker.port, log.handle());
    reaches("connected", &source.status.connected, 1).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let publisher = tokio::spawn(publish(broker.port, numbers(0..MESSAGES)));
    until("some are taken", || source.status.logged.load(Relaxed) > 1_000).await;
    // Another client under our name, for a moment.
    let (_client, mut wire) = client(session(broker.port), 10);
    let mut polls = 0;
    while polls < 100 && wire.poll().await.is_ok() {
        polls += 1;
    }
    drop(wire);
    publisher.await.unwrap();
    reaches("logged", &source.status.logged, MESSAGES as u64).await;
    reaches("unacked", &source.status.unacked, 0).await;
    assert!(source.status.reconnects.load(Relaxed) > 0);
    source.end().await;
    assert_eq!(log.rows(MESSAGES as usize).await.numbers, (0..MESSAGES).collect::<Vec<_>>());
}

/// A connection that ends before its SUBSCRIBE leaves such a session, and so does a run with other topics.
#[tokio::test(flavor = "multi_thread")]
async fn a_kept_session_without_our_subscription_gets_it_in_either_version() {
    for version in ["5", "3.1.1"] {
        let broker = Broker::start();
        let (_requests, mut events) = client(session(broker.port), 10);
        loop {
            match events.poll().await {
                Ok(Event::Incoming(Packet::ConnAck(_))) => break,
                Ok(_) => {}
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
        drop(events);
        let log = Log::open();
        let source = Running::with(&format!("url = \"mqtt://127.0.0.1:{}\"\nversion = \"{version}\"", broker.port), log.handle());
        reaches("connected", &source.status.connected, 1).await;
        for number in 0..100 {
            publish(broker.port, numbers(number..number + 1)).await;
            if source.status.logged.load(Relaxed) > 0 {
                break;
            }
        }
        let status = source.status.clone();
        until("a reading", || status.logged.load(Relaxed) > 0).await;
        source.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_absent_broker_is_waited_for() {
    let log = Log::open();
    let mut broker = Broker::start();
    broker.end();
    let source = Running::start(broker.port, log.handle());
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!source.task.is_finished());
    broker.go_on();
    reaches("connected", &source.status.connected, 1).await;
    source.end().await;
}
