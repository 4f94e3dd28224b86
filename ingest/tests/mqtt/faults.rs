//! Against a broker that misbehaves: whatever it does, each message is taken once, and each ack leaves in order and after the fsync.

use crate::support::{Log, Running, TOPIC, reaches, until};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tests::{Record, TestBroker};

const MESSAGES: i64 = 2_000;

fn publish(broker: &TestBroker, numbers: std::ops::Range<i64>) {
    numbers.for_each(|n| broker.publish(TOPIC, n.to_string().as_bytes()));
}

/// Publishes, lets `disturb` happen in the middle, and sees every number once and every ack in order. `disturb` publishes the rest of a
/// part by what it is given.
async fn survives(options: &str, prepare: impl FnOnce(&TestBroker), disturb: impl Fn(&TestBroker, &dyn Fn())) -> Vec<Record> {
    let (broker, log) = (TestBroker::start(), Log::open());
    prepare(&broker);
    let source = Running::with(&format!("url = \"{}\"\n{options}", broker.url()), log.handle());
    let part = MESSAGES / 4;
    for from in (0..MESSAGES).step_by(part as usize) {
        publish(&broker, from..from + part / 2);
        until("some of a part are taken", || source.status.logged.load(Relaxed) >= (from + part / 4) as u64).await;
        disturb(&broker, &|| publish(&broker, from + part / 2..from + part));
    }
    until("every publish is acknowledged", || broker.missing() == 0).await;
    reaches("logged", &source.status.logged, MESSAGES as u64).await;
    reaches("unacked", &source.status.unacked, 0).await;
    source.end().await;
    assert_eq!(log.rows(MESSAGES as usize).await.numbers, (0..MESSAGES).collect::<Vec<_>>());
    broker.check_order_of_acks();
    broker.records()
}

/// So many acks are lost, then the connection: what comes afterwards is acknowledged for good. `rest` publishes more messages than these, so
/// that there are acks to lose however fast those before were acknowledged.
fn lose_acks(broker: &TestBroker, count: usize, rest: &dyn Fn()) {
    broker.behave(|m| m.lose_acks = count);
    rest();
    let is_done = || {
        let mut left = 0;
        broker.behave(|m| left = m.lose_acks);
        left == 0
    };
    tests::until("the loss of acks", Duration::from_secs(20), is_done);
    broker.cut();
}

/// The connection is lost.
fn cut(broker: &TestBroker, rest: &dyn Fn()) {
    rest();
    broker.cut();
}

fn redelivered(records: &[Record]) -> usize {
    records.iter().filter(|r| matches!(r, Record::Sent { dup: true, .. })).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn acks_come_in_the_order_of_receipt() {
    let records = survives("", |_| {}, |_, rest| rest()).await;
    assert!(!records.iter().any(|r| matches!(r, Record::Stray { .. } | Record::Ended)) || records.ends_with(&[Record::Ended]));
}

#[tokio::test(flavor = "multi_thread")]
async fn cuts_in_the_middle_double_nothing_in_either_version() {
    for version in ["5", "3.1.1"] {
        let records = survives(&format!("version = \"{version}\""), |_| {}, cut).await;
        // The last cut may find everything acknowledged, and nobody who still has to come back.
        assert!(records.iter().filter(|r| matches!(r, Record::Connected { session_present: true })).count() >= 3, "{version}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_acks_bring_redeliveries_that_are_undone() {
    let records = survives("", |_| {}, |broker, rest| lose_acks(broker, 50, rest)).await;
    assert!(redelivered(&records) > 0, "no ack was lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn redeliveries_in_another_order_are_undone() {
    let records = survives("", |broker| broker.behave(|m| m.reversed = true), |broker, rest| lose_acks(broker, 100, rest)).await;
    assert!(redelivered(&records) > 0, "no ack was lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_publishes_are_each_taken_once() {
    let (broker, log) = (TestBroker::start(), Log::open());
    let source = Running::with(&format!("url = \"{}\"", broker.url()), log.handle());
    for part in 1..=4 {
        let half = || (0..MESSAGES / 8).for_each(|_| broker.publish(TOPIC, b"7"));
        half();
        let some = (part * MESSAGES / 4 - MESSAGES * 3 / 16) as u64;
        until("some of a part are taken", || source.status.logged.load(Relaxed) >= some).await;
        if part % 2 == 0 { lose_acks(&broker, 50, &half) } else { cut(&broker, &half) }
    }
    until("every publish is acknowledged", || broker.missing() == 0).await;
    reaches("logged", &source.status.logged, MESSAGES as u64).await;
    source.end().await;
    assert_eq!(log.rows(MESSAGES as usize).await.numbers, vec![7; MESSAGES as usize]);
    assert!(redelivered(&broker.records()) > 0, "no ack was lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_without_dup_needs_the_rule_any() {
    let records = survives(
        "redelivery = \"any\"\nreceive_maximum = 200",
        |broker| broker.behave(|m| (m.marks_dup, m.window) = (false, 200)),
        |broker, rest| lose_acks(broker, 20, rest),
    )
    .await;
    assert!(records.iter().any(|r| matches!(r, Record::Lost { .. })), "no ack was lost");
    assert_eq!(redelivered(&records), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_always_cuts_after_a_few_is_read_to_the_end() {
    survives(
        "",
        |broker| broker.behave(|m| m.cut_after = Some(300)),
        |broker, rest| {
            broker.behave(|m| m.cut_after = Some(100));
            rest();
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forgotten_session_is_subscribed_anew() {
    let (broker, log) = (TestBroker::start(), Log::open());
    let source = Running::with(&format!("url = \"{}\"", broker.url()), log.handle());
    publish(&broker, 0..100);
    until("the first are acknowledged", || broker.missing() == 0).await;
    broker.forget_session();
    publish(&broker, 100..200);
    until("the others too", || broker.missing() == 0).await;
    source.end().await;
    assert_eq!(log.rows(200).await.numbers, (0..200).collect::<Vec<_>>());
    let subscribed = broker.records().iter().filter(|r| **r == Record::Subscribed).count();
    assert_eq!(subscribed, 2, "once for each session");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_client_id_raises_an_alarm_and_is_waited_out() {
    let (broker, log) = (TestBroker::start(), Log::open());
    let source = Running::with(&format!("url = \"{}\"", broker.url()), log.handle());
    for taken in 1..=3 {
        reaches("connected", &source.status.connected, 1).await;
        broker.take_over();
        reaches("takeovers", &source.status.takeovers, taken).await;
    }
    publish(&broker, 0..10);
    until("all are acknowledged", || broker.missing() == 0).await;
    source.end().await;
    assert_eq!(log.rows(10).await.numbers, (0..10).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_travels_beside_its_row() {
    const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let (broker, log) = (TestBroker::start(), Log::open());
    let source = Running::with(&format!("url = \"{}\"", broker.url()), log.handle());
    broker.publish(TOPIC, b"1");
    broker.publish_traced(TOPIC, b"2", Some(TRACE));
    broker.publish_traced(TOPIC, b"3", Some(&"x".repeat(200)));
    until("all are acknowledged", || broker.missing() == 0).await;
    source.end().await;
    assert_eq!(log.rows(3).await.traces, [(2, TRACE.to_owned())]);
}
