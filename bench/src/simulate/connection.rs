//! One connection to a broker, and the tasks that serve it: one publishes, one waits for acknowledgements, one keeps it going.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::wire::{Client, Notice, Wire};
use super::{Progress, sent};
use crate::Result;
use crate::fleet::Message;
use crate::scenario::Scenario;
use crate::truth::{Sent, TruthSender};

/// Messages that are due and wait for their connection, all together.
const WAITING_MESSAGES: usize = 65_536;
/// Messages of a connection that wait for their acknowledgement: as many as MQTT has packet ids.
const WAITING_NOTICES: usize = 65_535;
const RECONNECT_AFTER: Duration = Duration::from_millis(200);

/// The clock of a simulation.
#[derive(Clone, Copy)]
pub(super) struct Clock {
    pub(super) start: Instant,
    pub(super) start_us: i64,
}

/// One connection, and what is shared with those who serve it.
pub(super) struct Link {
    /// Connections that were lost so far.
    losses: AtomicU32,
    /// A storm wants the connection to break.
    pub(super) cut: AtomicBool,
    /// The goodbye is on its way: the next loss is the end.
    pub(super) ending: AtomicBool,
    progress: Arc<Progress>,
}

/// The tasks of one connection.
pub(super) struct Connection {
    pub(super) messages: mpsc::Sender<Message>,
    pub(super) link: Arc<Link>,
    pub(super) sending: JoinHandle<Result<Client>>,
    pub(super) settling: JoinHandle<()>,
    pub(super) network: JoinHandle<()>,
}

/// What a connection shares with all others.
pub(super) struct Parts {
    pub(super) up: Arc<watch::Sender<usize>>,
    pub(super) clock: watch::Receiver<Option<Clock>>,
    pub(super) given_up: watch::Receiver<bool>,
    pub(super) truth: TruthSender,
}

impl Connection {
    pub(super) fn start(
        scenario: &Scenario,
        (client, wire): (Client, Wire),
        parts: Parts,
        progress: Arc<Progress>,
        count: usize,
    ) -> Connection {
        let link = Arc::new(Link { losses: AtomicU32::new(0), cut: AtomicBool::new(false), ending: AtomicBool::new(false), progress });
        let (messages, due) = mpsc::channel((WAITING_MESSAGES / count).max(16));
        let (notices, outstanding) = mpsc::channel(WAITING_NOTICES);
        let network = tokio::spawn(run_network(wire, link.clone(), parts.up));
        let settling = tokio::spawn(settle(outstanding, link.clone(), parts.truth.clone(), parts.given_up.clone()));
        let sending = Sending { client, qos: scenario.wire.qos, link: link.clone(), truth: parts.truth, given_up: parts.given_up };
        let sending = tokio::spawn(sending.run(due, parts.clock, notices));
        Connection { messages, link, sending, settling, network }
    }

    pub(super) fn abort(&self) {
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
