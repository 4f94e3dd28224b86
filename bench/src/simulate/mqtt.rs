//! Connections to a broker. Each device stays with one, so that its readings stay in order.
//!
//! ```text
//! schedule ─► when it is due ─► connection n: publish ─► its notices, in order ─► acknowledged or not ─► truth
//!                                 ▲ network: events, storms, reconnects
//! ```

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use super::wire::{Client, Notice, Wire, open};
use super::{Progress, now_us, sent};
use crate::fleet::{Fleet, Message};
use crate::scenario::{Scenario, Storm};
use crate::truth::{Sent, TruthSender, TruthWriter};
use crate::{Error, Result};

/// Messages that are due and wait for their connection, all together.
const WAITING_MESSAGES: usize = 65_536;
/// Messages of a connection that wait for their acknowledgement: as many as MQTT has packet ids.
const WAITING_NOTICES: usize = 65_535;
/// From one connection to the next, while they are made.
const CONNECTED_WITHIN: Duration = Duration::from_secs(10);
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(30);
const GOODBYE: Duration = Duration::from_secs(2);
const RECONNECT_AFTER: Duration = Duration::from_millis(200);
/// Closer to a moment than this there is no use in sleeping.
const TICK: Duration = Duration::from_micros(500);

/// The clock of a simulation.
#[derive(Clone, Copy)]
struct Clock {
    start: Instant,
    start_us: i64,
}

/// One connection, and what is shared with those who serve it.
struct Link {
    /// Connections that were lost so far.
    losses: AtomicU32,
    /// A storm wants the connection to break.
    cut: AtomicBool,
    /// The goodbye is on its way: the next loss is the end.
    ending: AtomicBool,
    progress: Arc<Progress>,
}

/// The tasks of one connection.
struct Connection {
    messages: mpsc::Sender<Message>,
    link: Arc<Link>,
    sending: JoinHandle<Result<Client>>,
    settling: JoinHandle<()>,
    network: JoinHandle<()>,
}

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
    let clock = Clock { start: Instant::now(), start_us: now_us() };
    progress.begin();
    started.send_replace(Some(clock));
    let storms = scenario.wire.storm.map(|storm| tokio::spawn(storms(storm, connections.iter().map(|c| c.link.clone()).collect())));
    let published = publish(scenario, fleet, writer, &connections, clock, stop).await;
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
    scenario: &Scenario,
    fleet: &mut Fleet,
    writer: &mut Option<TruthWriter>,
    connections: &[Connection],
    clock: Clock,
    stop: impl Future<Output = ()>,
) -> Result<()> {
    let mut stop = pin!(stop);
    for message in fleet {
        let due = clock.start + message.due;
        if due > Instant::now() + TICK {
            tokio::select! {
                () = &mut stop => return Ok(()),
                () = sleep_until(due) => {}
            }
        }
        let lag = Instant::now().saturating_duration_since(due);
        if lag > scenario.wire.max_lag.0 {
            return Err(Error::Behind { lag_seconds: lag.as_secs_f64(), bound_seconds: scenario.wire.max_lag.0.as_secs_f64() });
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

/// What a connection shares with all others.
struct Parts {
    up: Arc<watch::Sender<usize>>,
    clock: watch::Receiver<Option<Clock>>,
    given_up: watch::Receiver<bool>,
    truth: TruthSender,
}

impl Connection {
    fn start(scenario: &Scenario, (client, wire): (Client, Wire), parts: Parts, progress: Arc<Progress>, count: usize) -> Connection {
        let link = Arc::new(Link { losses: AtomicU32::new(0), cut: AtomicBool::new(false), ending: AtomicBool::new(false), progress });
        let (messages, due) = mpsc::channel((WAITING_MESSAGES / count).max(16));
        let (notices, outstanding) = mpsc::channel(WAITING_NOTICES);
        let network = tokio::spawn(run_network(wire, link.clone(), parts.up));
        let settling = tokio::spawn(settle(outstanding, link.clone(), parts.truth.clone(), parts.given_up.clone()));
        let sending = Sending { client, qos: scenario.wire.qos, link: link.clone(), truth: parts.truth, given_up: parts.given_up };
        let sending = tokio::spawn(sending.run(due, parts.clock, notices));
        Connection { messages, link, sending, settling, network }
    }

    fn abort(&self) {
        self.network.abort();
        self.sending.abort();
        self.settling.abort();
    }
}

/// A publish whose fate is not known yet.
struct Outstanding {
    sent: Sent,
    due: Instant,
    losses: u32,
    notice: Notice,
}

/// Who publishes on a connection.
struct Sending {
    client: Client,
    qos: u8,
    link: Arc<Link>,
    truth: TruthSender,
    given_up: watch::Receiver<bool>,
}

impl Sending {
    async fn run(
        mut self,
        mut messages: mpsc::Receiver<Message>,
        mut clock: watch::Receiver<Option<Clock>>,
        notices: mpsc::Sender<Outstanding>,
    ) -> Result<Client> {
        let Ok(Some(clock)) = clock.wait_for(Option::is_some).await.map(|clock| *clock) else { return Ok(self.client) };
        while let Some(message) = messages.recv().await {
            let due = clock.start + message.due;
            let lag = Instant::now().saturating_duration_since(due);
            self.link.progress.sent(&message.reading, lag);
            let at = |after: Duration| clock.start_us + after.as_micros() as i64;
            let (due_us, sent_us) = (at(message.due), at(message.due + lag));
            let losses = self.link.losses.load(Relaxed);
            let (mut sent, payload) = sent(message, &self.truth, due_us, sent_us);
            let publishing = self.client.publish(&sent.topic, payload, self.qos);
            let notice = tokio::select! {
                notice = publishing => notice?,
                // Handed over or not, it was not acknowledged.
                () = given_up(&mut self.given_up) => {
                    sent.attempts += self.link.losses.load(Relaxed) - losses;
                    self.truth.put(sent).await;
                    continue;
                }
            };
            if notices.send(Outstanding { sent, due, losses, notice }).await.is_err() {
                break;
            }
        }
        Ok(self.client)
    }
}

/// Waits for each acknowledgement, in the order of publishing, which is the order of a broker's acknowledgements.
async fn settle(mut outstanding: mpsc::Receiver<Outstanding>, link: Arc<Link>, truth: TruthSender, mut given_up: watch::Receiver<bool>) {
    while let Some(Outstanding { mut sent, due, losses, notice }) = outstanding.recv().await {
        let acknowledged = tokio::select! {
            biased;
            acknowledged = notice.acknowledged() => acknowledged,
            () = self::given_up(&mut given_up) => false,
        };
        sent.attempts += link.losses.load(Relaxed) - losses;
        if acknowledged {
            let latency = Instant::now().saturating_duration_since(due);
            link.progress.acknowledged(latency);
            sent.acknowledged_us = Some(sent.due_us + latency.as_micros() as i64);
        }
        truth.put(sent).await;
    }
}

/// Waits until nobody waits for acknowledgements any longer.
async fn given_up(watched: &mut watch::Receiver<bool>) {
    // Who would say so is gone only when the simulation is.
    let _ = watched.wait_for(|given_up| *given_up).await;
}

/// Keeps the connection going.
async fn run_network(mut wire: Wire, link: Arc<Link>, up: Arc<watch::Sender<usize>>) {
    let mut connected = 0_u32;
    loop {
        match wire.poll().await {
            Ok(true) => {
                connected += 1;
                match connected {
                    1 => up.send_modify(|up| *up += 1),
                    _ => link.progress.reconnected(),
                }
            }
            Ok(false) => {}
            Err(_) if link.ending.load(Relaxed) => return,
            Err(reason) => {
                tracing::warn!(%reason, "the fleet lost its broker and tries again");
                link.losses.fetch_add(1, Relaxed);
                sleep(RECONNECT_AFTER).await;
            }
        }
        if link.cut.swap(false, Relaxed) {
            wire.cut();
            link.losses.fetch_add(1, Relaxed);
        }
    }
}
