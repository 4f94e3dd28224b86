//! A model of a broker and its devices: sessions with QoS 1, redelivery with DUP after every reconnect, acks that are lost on the way.

use crate::clockwork::{Process, Sim};
use crate::disk::Medium;
use bytes::Bytes;
use flow::Result;
use ingest::SourceStatus;
use ingest::journal::Publish;
use ingest::mqtt::{Acker, Event, Received, publish_hash};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// A message of a device.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) number: u64,
    pub(crate) device: u64,
    /// Event time in microseconds; none for one that cannot be decoded.
    pub(crate) time: Option<i64>,
    /// The number in the payload: another's where both have the same bytes.
    pub(crate) told: u64,
    topic: Bytes,
    payload: Bytes,
}

/// The broker: it outlives every process.
pub(crate) struct Broker {
    sim: Arc<Sim>,
    medium: Arc<Medium>,
    journal: PathBuf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    sessions: Vec<Session>,
    /// The broken message that was published last.
    broken: Option<Message>,
    /// All messages that were published, and how each stands.
    sent: BTreeMap<u64, Message>,
    acked: BTreeSet<u64>,
    /// Dropped with a session before an ack came: they may be stored or not.
    dropped: BTreeSet<u64>,
    violation: Option<String>,
}

#[derive(Default)]
struct Session {
    queue: VecDeque<Message>,
    /// By packet id in the order of their first sending.
    in_flight: VecDeque<(u16, Message, bool)>,
    next_packet: u16,
    /// Number of the connection that is up.
    connection: u64,
    exists: bool,
    /// Acks on their way.
    acks: VecDeque<u16>,
}

impl Broker {
    pub(crate) fn new(sim: &Arc<Sim>, medium: &Arc<Medium>, journal: PathBuf) -> Arc<Self> {
        let sessions = (0..sim.faults.connections).map(|_| Session::default()).collect();
        let state = Mutex::new(State { sessions, ..State::default() });
        Arc::new(Self { sim: sim.clone(), medium: medium.clone(), journal, state })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Everything a device publishes, over virtual time.
    pub(crate) async fn publish(self: Arc<Self>) -> Result<()> {
        for number in 0..self.sim.faults.messages {
            if self.sim.below(10_000) >= self.sim.faults.bursts {
                let pause = self.sim.below(if self.sim.below(10) == 0 { 4_000_000 } else { 200_000 });
                self.sim.sleep(Duration::from_micros(pause)).await;
            }
            let message = self.message(number);
            let mut state = self.state();
            let session = message.device as usize % state.sessions.len();
            state.sent.insert(number, message.clone());
            state.sessions[session].queue.push_back(message);
        }
        Ok(())
    }

    fn message(&self, number: u64) -> Message {
        let faults = &self.sim.faults;
        let device = self.sim.below(faults.devices);
        let time_ms =
            (crate::clockwork::BEGINNING + self.sim.now().as_micros() as i64) / 1_000 - self.sim.below(faults.disorder_ms + 1) as i64;
        let broken = self.sim.below(10_000) < faults.malformed;
        let payload =
            if broken { format!("{{\"n\":{number}, broken") } else { format!("{{\"ts\":{time_ms},\"n\":{number},\"v\":{}}}", number % 7) };
        let time = (!broken).then_some(time_ms * 1_000);
        let message = Message { number, device, time, told: number, topic: format!("d/device-{device}").into(), payload: payload.into() };
        if !broken {
            return message;
        }
        let before = self.state().broken.replace(message.clone());
        let twin = faults.twins > 0 && self.sim.below(10_000) < faults.twins;
        before.filter(|_| twin).map_or(message, |before| Message { number, ..before })
    }

    /// Whether all that was published is acknowledged, or was dropped with a session.
    pub(crate) fn is_drained(&self) -> bool {
        let state = self.state();
        state.sent.len() as u64 == self.sim.faults.messages && state.sessions.iter().all(|s| s.queue.is_empty() && s.in_flight.is_empty())
    }

    pub(crate) fn sent(&self) -> BTreeMap<u64, Message> {
        self.state().sent.clone()
    }

    pub(crate) fn acked(&self) -> BTreeSet<u64> {
        self.state().acked.clone()
    }

    pub(crate) fn dropped(&self) -> BTreeSet<u64> {
        self.state().dropped.clone()
    }

    pub(crate) fn violation(&self) -> Option<String> {
        self.state().violation.clone()
    }

    /// One client of a session, until it is told to stop or its process dies.
    pub(crate) async fn serve(
        self: Arc<Self>,
        number: usize,
        process: Arc<Process>,
        to: mpsc::Sender<Event<SimAcker>>,
        status: Arc<SourceStatus>,
        stop: CancellationToken,
    ) -> Result<()> {
        while !stop.is_cancelled() && !process.is_dead() {
            let (connection, present) = self.connect(number);
            let acker = SimAcker { broker: self.clone(), session: number, connection, process: process.clone() };
            if to.send(Event::Connected { session_present: present, acker }).await.is_err() {
                return Ok(());
            }
            while self.is_up(number, connection) {
                self.receive_acks(number, usize::MAX);
                if stop.is_cancelled() && self.state().sessions[number].in_flight.is_empty() {
                    break;
                }
                if self.sim.fault(self.sim.faults.disconnect) {
                    self.disconnect(number);
                    break;
                }
                match self.next(number) {
                    Some(message) => {
                        status.unacked.fetch_add(1, Ordering::Relaxed);
                        if to.send(Event::Received(message)).await.is_err() {
                            return Ok(());
                        }
                        // What comes in one piece becomes one batch.
                        if self.sim.below(10_000) >= self.sim.faults.bursts {
                            let pause = self.sim.below(2_000);
                            self.sim.sleep(Duration::from_micros(pause)).await;
                        }
                    }
                    None => self.sim.sleep(Duration::from_millis(20)).await,
                }
            }
            if to.send(Event::Disconnected).await.is_err() {
                return Ok(());
            }
            let pause = self.sim.below(500);
            self.sim.sleep(Duration::from_millis(pause)).await;
        }
        Ok(())
    }

    fn connect(&self, number: usize) -> (u64, bool) {
        let lost = self.sim.fault(self.sim.faults.lose_session);
        let shuffle = self.sim.faults.shuffle;
        let mut state = self.state();
        if lost && state.sessions[number].exists {
            self.sim.event("session lost");
            let open: Vec<u64> = state.sessions[number].in_flight.drain(..).map(|(_, m, _)| m.number).collect();
            state.dropped.extend(open);
            state.sessions[number].exists = false;
        }
        let session = &mut state.sessions[number];
        session.connection += 1;
        session.acks.clear();
        session.in_flight.iter_mut().for_each(|(_, _, sent)| *sent = false);
        if shuffle {
            for i in (1..session.in_flight.len()).rev() {
                session.in_flight.swap(i, self.sim.below(i as u64 + 1) as usize);
            }
        }
        let present = std::mem::replace(&mut session.exists, true);
        if present && !session.in_flight.is_empty() {
            self.sim.event("redelivered");
        }
        (session.connection, present)
    }

    /// Breaks a connection; of the acks on their way only the first may arrive.
    pub(crate) fn disconnect(&self, number: usize) {
        self.sim.event("disconnect");
        let waiting = self.state().sessions[number].acks.len();
        let arrive = self.sim.below(waiting as u64 + 1) as usize;
        self.receive_acks(number, arrive);
        let mut state = self.state();
        if !std::mem::take(&mut state.sessions[number].acks).is_empty() {
            self.sim.event("ack lost");
        }
        state.sessions[number].connection += 1;
    }

    fn is_up(&self, number: usize, connection: u64) -> bool {
        self.state().sessions[number].connection == connection
    }

    /// The next publish of a session: first what is open and was not sent over this connection, then new ones while there is room.
    fn next(&self, number: usize) -> Option<Received> {
        let most = self.sim.faults.receive_maximum as usize;
        let mut state = self.state();
        let session = &mut state.sessions[number];
        let received =
            |message: &Message, dup, packet| Received::new(message.topic.clone(), message.payload.clone(), dup, Some(packet), None);
        if let Some((packet, message, sent)) = session.in_flight.iter_mut().find(|(_, _, sent)| !*sent) {
            *sent = true;
            return Some(received(message, true, *packet));
        }
        if session.in_flight.len() >= most {
            return None;
        }
        let message = session.queue.pop_front()?;
        session.next_packet = session.next_packet % 1_000 + 1;
        let packet = session.next_packet;
        session.in_flight.push_back((packet, message.clone(), true));
        Some(received(&message, false, packet))
    }

    /// Takes up to `most` acks from the wire. What is acknowledged must be on the medium.
    fn receive_acks(&self, number: usize, most: usize) {
        for _ in 0..most {
            let mut state = self.state();
            let Some(packet) = state.sessions[number].acks.pop_front() else { return };
            let Some(place) = state.sessions[number].in_flight.iter().position(|(p, ..)| *p == packet) else { continue };
            let (_, message, _) = state.sessions[number].in_flight.remove(place).unwrap();
            self.sim.note(|| format!("PUBACK of {}", message.number));
            let known = Publish::new(0, packet, publish_hash(&message.topic, &message.payload)).key;
            if !self.medium.holds(&self.journal, &known.to_le_bytes()) {
                let what = format!("message {} is acknowledged and would not survive a power cut", message.number);
                state.violation.get_or_insert(what);
            }
            state.acked.insert(message.number);
        }
    }
}

/// The way for acks of one connection.
#[derive(Clone)]
pub(crate) struct SimAcker {
    broker: Arc<Broker>,
    session: usize,
    connection: u64,
    process: Arc<Process>,
}

impl Acker for SimAcker {
    async fn ack(&self, packet: u16) -> bool {
        let mut state = self.broker.state();
        let session = &mut state.sessions[self.session];
        let open = session.connection == self.connection && !self.process.is_dead();
        if open {
            session.acks.push_back(packet);
        }
        open
    }
}
