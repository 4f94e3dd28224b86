//! The way over a broker: messages go out when they are due, over several connections. Each device stays with one, so
//! that its readings stay in order.
//!
//! ```text
//! schedule ─► when it is due ─► connection n: publish ─► its notices, in order ─► acknowledged or not ─► truth
//!                                 ▲ network: events, storms, reconnects
//! ```

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use super::connection::{Clock, Connection, Link, Parts};
use super::pace::Pace;
use super::wire::{Client, open};
use super::{Progress, now_us};
use crate::fleet::Fleet;
use crate::scenario::{Scenario, Storm};
use crate::truth::{TruthSender, TruthWriter};
use crate::{Error, Result};

/// From one connection to the next, while they are made.
const CONNECTED_WITHIN: Duration = Duration::from_secs(10);
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(30);
const GOODBYE: Duration = Duration::from_secs(2);

pub(super) async fn send(
    scenario: &Scenario,
    fleet: &mut Fleet,
    writer: &mut Option<TruthWriter>,
    truth: TruthSender,
    progress: &Arc<Progress>,
    stop: impl Future<Output = ()>,
) -> Result<()> {
    let (give_up, given_up) = watch::channel(false);
    let (up, connected) = watch::channel(0);
    let run = format!("tidegate-fleet-{}-{}", std::process::id(), now_us());
    let up = Arc::new(up);
    let count = scenario.wire.connections as usize;
    let mut connections = Vec::with_capacity(count);
    // The clock starts once all are connected; those that send know it from here.
    let (started, clock) = watch::channel(None);
    for number in 0..count {
        let wire = open(&scenario.wire, &format!("{run}-{number}"))?;
        let parts = Parts { up: up.clone(), clock: clock.clone(), given_up: given_up.clone(), truth: truth.clone() };
        connections.push(Connection::start(scenario, wire, parts, progress.clone(), count));
    }
    drop(truth);
    if let Err(error) = all_connected(connected, count).await {
        connections.iter().for_each(Connection::abort);
        return Err(error);
    }
    let pace = Pace::begin(scenario);
    progress.begin();
    started.send_replace(Some(Clock { start: pace.start, start_us: pace.start_us }));
    let storms = scenario.wire.storm.map(|storm| tokio::spawn(storms(storm, connections.iter().map(|c| c.link.clone()).collect())));
    let published = publish(fleet, writer, &connections, pace, stop).await;
    if let Some(storms) = storms {
        storms.abort();
    }
    let ended = end(connections, &give_up, progress).await;
    published.and(ended)
}

/// Waits for all connections, as long as one after the other succeeds.
async fn all_connected(mut connected: watch::Receiver<usize>, count: usize) -> Result<()> {
    loop {
        let up = *connected.borrow_and_update();
        if up >= count {
            return Ok(());
        }
        if !matches!(timeout(CONNECTED_WITHIN, connected.changed()).await, Ok(Ok(()))) {
            let waited = CONNECTED_WITHIN.as_secs();
            return Err(Error::Broker(format!("{up} of {count} connections, and no further one within {waited} s")));
        }
    }
}

/// Gives each message to its connection when it is due.
async fn publish(
    fleet: &mut Fleet,
    writer: &mut Option<TruthWriter>,
    connections: &[Connection],
    pace: Pace,
    stop: impl Future<Output = ()>,
) -> Result<()> {
    let mut stop = pin!(stop);
    for message in fleet {
        if pace.wait(message.due, &mut stop).await?.is_none() {
            return Ok(());
        }
        if let Some(writer) = writer {
            writer.hash(&message);
        }
        let connection = &connections[message.slot as usize % connections.len()];
        tokio::select! {
            () = &mut stop => return Ok(()),
            // A connection that ended for good says why at the end.
            given = connection.messages.send(message) => if given.is_err() { return Ok(()) },
        }
    }
    Ok(())
}

/// Cuts a share of the connections again and again, others each time.
async fn storms(storm: Storm, links: Vec<Arc<Link>>) {
    let cut = ((links.len() as f64 * storm.share).ceil() as usize).min(links.len());
    let mut first = 0;
    loop {
        sleep(storm.every.0).await;
        for number in 0..cut {
            links[(first + number) % links.len()].cut.store(true, Relaxed);
        }
        first += cut;
    }
}

/// Waits for what is still on its way, then says goodbye.
async fn end(connections: Vec<Connection>, give_up: &watch::Sender<bool>, progress: &Progress) -> Result<()> {
    let deadline = Instant::now() + ACKNOWLEDGED_WITHIN;
    let (mut result, mut leaving, mut networks) = (Ok(()), Vec::new(), Vec::new());
    // No connection gets more messages, so that all send at once what they have.
    let rest: Vec<_> = connections.into_iter().map(|c| (c.link, c.sending, c.settling, c.network)).collect();
    for (link, sending, settling, network) in rest {
        let mut all = pin!(async { (sending.await, settling.await) });
        let (sending, _) = tokio::select! {
            ended = &mut all => ended,
            () = sleep_until(deadline) => {
                give_up.send_replace(true);
                all.await
            }
        };
        match sending {
            Ok(Ok(client)) => leaving.push((link, client)),
            Ok(Err(error)) => result = Err(error),
            Err(error) => result = Err(Error::Broker(error.to_string())),
        }
        networks.push(network);
    }
    progress.end();
    leave(leaving, networks).await;
    result
}

/// Says goodbye on all connections; a broker that does not close one is left to find out by itself.
async fn leave(leaving: Vec<(Arc<Link>, Client)>, networks: Vec<JoinHandle<()>>) {
    for (link, client) in leaving {
        link.ending.store(true, Relaxed);
        client.disconnect().await;
    }
    let deadline = Instant::now() + GOODBYE;
    for mut network in networks {
        let _ = timeout_at(deadline, &mut network).await;
        network.abort();
    }
}
