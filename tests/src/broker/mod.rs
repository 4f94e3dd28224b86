//! A broker that misbehaves on request, toward one subscriber: it loses acks, obeys them in another order, delivers in turned order, redelivers with and without DUP and in another order, cuts
//! connections, forgets the session, takes the client id away, and writes down everything it sent and every PUBACK it got.
//!
//! Publishes do not come over MQTT but from the test, as `publish`. At most `window` of them are open at once, as with a Receive Maximum.
//! It is no broker for anything else: one session, QoS 1, every filter gets every message.

mod packet;

use packet::Packet;
use std::collections::{BTreeSet, VecDeque};
use std::io::Write;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::until;

/// What happened, in order. `number` counts publishes from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record {
    /// A client was taken, with this said about its session.
    Connected {
        /// What the CONNACK said.
        session_present: bool,
    },
    /// The client has subscribed.
    Subscribed,
    /// A publish went out.
    Sent {
        /// Its packet id.
        packet: u16,
        /// Which publish.
        number: usize,
        /// Marked as redelivered.
        dup: bool,
    },
    /// A PUBACK came and was obeyed.
    Acked {
        /// Its packet id.
        packet: u16,
        /// Which publish.
        number: usize,
    },
    /// A PUBACK came and was forgotten, as if it had been lost on its way.
    Lost {
        /// Its packet id.
        packet: u16,
        /// Which publish.
        number: usize,
    },
    /// A PUBACK came and is held back; it is obeyed after later ones, or lost with the connection.
    Held {
        /// Its packet id.
        packet: u16,
        /// Which publish.
        number: usize,
    },
    /// A PUBACK came for a packet that is not open.
    Stray {
        /// Its packet id.
        packet: u16,
    },
    /// The connection ended.
    Ended,
}

/// How the broker behaves from now on.
#[derive(Clone, Debug)]
pub struct Manners {
    /// Most publishes without an ack.
    pub window: usize,
    /// Whether a redelivered publish says so.
    pub marks_dup: bool,
    /// Whether redelivery starts with the newest.
    pub reversed: bool,
    /// How many PUBACKs are lost next.
    pub lose_acks: usize,
    /// So many PUBACKs are held back, and obeyed in another order than they came; a connection that ends leaves those it holds unobeyed.
    pub holds_acks: usize,
    /// So many publishes at a time are delivered in turned order when they are sent for the first time.
    pub turns_round: usize,
    /// Ends the connection after so many publishes sent on it.
    pub cut_after: Option<usize>,
}

impl Default for Manners {
    fn default() -> Self {
        Self { window: 1_000, marks_dup: true, reversed: false, lose_acks: 0, holds_acks: 0, turns_round: 0, cut_after: None }
    }
}

/// A running broker; it ends when this is dropped.
pub struct TestBroker {
    /// Where it listens on 127.0.0.1.
    pub port: u16,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    manners: Manners,
    publishes: Vec<Publish>,
    /// Publishes not sent yet.
    queue: VecDeque<usize>,
    /// Sent and not acknowledged: packet id and publish, in the order of sending.
    open: Vec<(u16, usize)>,
    /// Of `open`, what goes out again on this connection.
    again: VecDeque<(u16, usize)>,
    /// Of `open`, what was acknowledged on this connection and is held back.
    held: Vec<u16>,
    /// How many at the front of `queue` stand in turned order.
    turned: usize,
    next_packet: u16,
    acked: BTreeSet<usize>,
    session: bool,
    subscribed: bool,
    records: Vec<Record>,
    /// Number of the connection that is served, and the way to end it.
    connection: u64,
    socket: Option<TcpStream>,
    level: u8,
    /// Answers that wait for the writing thread.
    answers: VecDeque<Vec<u8>>,
    /// Publishes sent on this connection.
    sent: usize,
    stopping: bool,
}

struct Publish {
    topic: String,
    payload: Vec<u8>,
    trace: Option<String>,
}

impl TestBroker {
    /// Starts on a free port with good manners.
    pub fn start() -> TestBroker {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free loopback port");
        let port = listener.local_addr().expect("a bound listener has an address").port();
        let shared = Arc::new(Shared { state: Mutex::new(State::default()), changed: Condvar::new() });
        let served = shared.clone();
        let accepting = std::thread::spawn(move || accept(&listener, &served));
        TestBroker { port, shared, accepting: Some(accepting) }
    }

    /// The broker's address as pipelines take it.
    pub fn url(&self) -> String {
        format!("mqtt://127.0.0.1:{}", self.port)
    }

    /// Puts a message into the session.
    pub fn publish(&self, topic: &str, payload: &[u8]) {
        self.publish_traced(topic, payload, None);
    }

    /// The same with a trace among the user properties (MQTT 5).
    pub fn publish_traced(&self, topic: &str, payload: &[u8], trace: Option<&str>) {
        let mut state = self.shared.lock();
        let number = state.publishes.len();
        state.publishes.push(Publish { topic: topic.to_owned(), payload: payload.to_vec(), trace: trace.map(str::to_owned) });
        state.queue.push_back(number);
        self.shared.changed.notify_all();
    }

    /// Changes how it behaves.
    pub fn behave(&self, change: impl FnOnce(&mut Manners)) {
        change(&mut self.shared.lock().manners);
        self.shared.changed.notify_all();
    }

    /// Ends the connection without a word.
    pub fn cut(&self) {
        self.shared.lock().end();
        self.shared.changed.notify_all();
    }

    /// Ends the connection as if another client had taken the id.
    pub fn take_over(&self) {
        let mut state = self.shared.lock();
        if state.level == packet::V5
            && let Some(mut socket) = state.socket.as_ref().and_then(|socket| socket.try_clone().ok())
        {
            // A client that is gone needs no farewell.
            let _ = socket.write_all(&packet::taken_over());
        }
        state.end();
        self.shared.changed.notify_all();
    }

    /// Forgets the session: the next CONNACK says so, and what was open is sent as new.
    pub fn forget_session(&self) {
        let mut state = self.shared.lock();
        state.session = false;
        state.subscribed = false;
        for (_, number) in std::mem::take(&mut state.open).into_iter().rev() {
            state.queue.push_front(number);
        }
        state.end();
        self.shared.changed.notify_all();
    }

    /// What happened so far.
    pub fn records(&self) -> Vec<Record> {
        self.shared.lock().records.clone()
    }

    /// Publishes that were acknowledged, obeyed, held back or lost on the way.
    pub fn acknowledged(&self) -> BTreeSet<usize> {
        let state = self.shared.lock();
        let lost = state.records.iter().filter_map(|r| match r {
            Record::Lost { number, .. } | Record::Held { number, .. } => Some(*number),
            _ => None,
        });
        state.acked.iter().copied().chain(lost).collect()
    }

    /// How many publishes have no obeyed ack yet.
    pub fn missing(&self) -> usize {
        let state = self.shared.lock();
        state.publishes.len() - state.acked.len()
    }

    /// Waits until a client has subscribed.
    #[track_caller]
    pub fn wait_for_subscriber(&self, limit: Duration) {
        until("a subscription at the test broker", limit, || self.records().contains(&Record::Subscribed));
    }

    /// Waits until every publish is acknowledged.
    #[track_caller]
    pub fn wait_until_drained(&self, limit: Duration) {
        until("every publish acknowledged", limit, || self.missing() == 0);
    }

    /// Holds the acks against the rule: on each connection they come in the order in which the publishes were sent, none for another
    /// packet, and none twice. Panics with the first that breaks it.
    #[track_caller]
    pub fn check_order_of_acks(&self) {
        let mut sent: VecDeque<u16> = VecDeque::new();
        for (place, record) in self.records().into_iter().enumerate() {
            match record {
                Record::Connected { .. } => sent.clear(),
                Record::Sent { packet, .. } => sent.push_back(packet),
                Record::Acked { packet, .. } | Record::Lost { packet, .. } | Record::Held { packet, .. } | Record::Stray { packet } => {
                    assert_eq!(sent.pop_front(), Some(packet), "record {place}: a PUBACK out of order");
                }
                Record::Subscribed | Record::Ended => {}
            }
        }
    }
}

impl Drop for TestBroker {
    fn drop(&mut self) {
        {
            let mut state = self.shared.lock();
            state.stopping = true;
            state.end();
        }
        self.shared.changed.notify_all();
        // Wakes the accepting thread.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn end(&mut self) {
        if let Some(socket) = self.socket.take() {
            // It may be gone already.
            let _ = socket.shutdown(Shutdown::Both);
            self.connection += 1;
            self.records.push(Record::Ended);
        }
    }

    fn connected(&mut self, level: u8, socket: TcpStream) -> u64 {
        self.end();
        self.level = level;
        self.sent = 0;
        self.held.clear();
        self.answers = VecDeque::from([packet::connack(level, self.session)]);
        self.socket = Some(socket);
        let present = std::mem::replace(&mut self.session, true);
        self.again = self.open.iter().copied().collect();
        if self.manners.reversed {
            self.again = self.again.drain(..).rev().collect();
        }
        self.records.push(Record::Connected { session_present: present });
        self.connection
    }

    fn acked(&mut self, packet: u16) {
        let Some(place) = self.open.iter().position(|(id, _)| *id == packet) else {
            self.records.push(Record::Stray { packet });
            return;
        };
        let number = self.open[place].1;
        if self.manners.lose_acks > 0 {
            self.manners.lose_acks -= 1;
            self.records.push(Record::Lost { packet, number });
            return;
        }
        if self.manners.holds_acks > 0 {
            self.records.push(Record::Held { packet, number });
            self.held.push(packet);
            if self.held.len() > self.manners.holds_acks {
                // Any but the oldest: it waits longest.
                let packet = self.held.swap_remove(1 + number % (self.held.len() - 1));
                self.obey(packet);
            }
            return;
        }
        self.records.push(Record::Acked { packet, number });
        self.obey(packet);
    }

    fn obey(&mut self, packet: u16) {
        let place = self.open.iter().position(|(id, _)| *id == packet).expect("what is held is open");
        let (_, number) = self.open.remove(place);
        self.acked.insert(number);
    }

    /// Nothing more comes: what is held is obeyed, the newest first.
    fn let_go(&mut self) {
        while let Some(packet) = self.held.pop() {
            self.obey(packet);
        }
    }

    /// The next publish that was never sent.
    fn first_of_queue(&mut self) -> Option<usize> {
        if self.turned == 0 {
            self.turned = self.manners.turns_round.min(self.queue.len());
            self.queue.make_contiguous()[..self.turned].reverse();
        }
        self.turned = self.turned.saturating_sub(1);
        self.queue.pop_front()
    }

    /// The next packet to send, if there is one now.
    fn next(&mut self) -> Option<Vec<u8>> {
        if let Some(answer) = self.answers.pop_front() {
            return Some(answer);
        }
        if !self.subscribed || self.manners.cut_after.is_some_and(|most| self.sent >= most) {
            return None;
        }
        let redelivered = self.again.pop_front();
        let (packet, number) = match redelivered {
            Some(open) => open,
            None if self.open.len() >= self.manners.window => return None,
            None => {
                let number = self.first_of_queue()?;
                let packet = self.free_packet();
                self.open.push((packet, number));
                (packet, number)
            }
        };
        let dup = redelivered.is_some() && self.manners.marks_dup;
        self.sent += 1;
        self.records.push(Record::Sent { packet, number, dup });
        let of = &self.publishes[number];
        Some(packet::publish(self.level, packet, dup, &of.topic, &of.payload, of.trace.as_deref()))
    }

    fn free_packet(&mut self) -> u16 {
        loop {
            self.next_packet = self.next_packet.checked_add(1).unwrap_or(1);
            if self.open.iter().all(|(id, _)| *id != self.next_packet) {
                return self.next_packet;
            }
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for socket in listener.incoming() {
        if shared.lock().stopping {
            return;
        }
        if let Ok(socket) = socket {
            let shared = shared.clone();
            std::thread::spawn(move || serve(socket, &shared));
        }
    }
}

/// Reads what the client says; a thread beside it writes. Both end with the connection.
fn serve(mut socket: TcpStream, shared: &Arc<Shared>) {
    let Ok(Packet::Connect { level }) = packet::read(&mut socket, packet::V5) else { return };
    let (Ok(kept), Ok(mut out)) = (socket.try_clone(), socket.try_clone()) else { return };
    let connection = shared.lock().connected(level, kept);
    let writes = shared.clone();
    let writer = std::thread::spawn(move || write(&mut out, &writes, connection));
    while let Ok(packet) = packet::read(&mut socket, level) {
        let mut state = shared.lock();
        if state.connection != connection {
            break;
        }
        match packet {
            Packet::PubAck { id } => state.acked(id),
            Packet::Subscribe { id, filters } => {
                state.answers.push_back(packet::suback(level, id, filters));
                state.subscribed = true;
                state.records.push(Record::Subscribed);
            }
            Packet::PingReq => state.answers.push_back(packet::pingresp()),
            Packet::Connect { .. } | Packet::Disconnect => break,
        }
        drop(state);
        shared.changed.notify_all();
    }
    let mut state = shared.lock();
    if state.connection == connection {
        state.end();
    }
    drop(state);
    shared.changed.notify_all();
    let _ = writer.join();
}

fn write(out: &mut TcpStream, shared: &Shared, connection: u64) {
    let mut state = shared.lock();
    while state.connection == connection && !state.stopping {
        if let Some(bytes) = state.next() {
            // Only this thread writes, so the records stand in the order of the bytes.
            drop(state);
            if out.write_all(&bytes).is_err() {
                return;
            }
            state = shared.lock();
        } else if state.manners.cut_after.is_some_and(|most| state.sent >= most) {
            state.manners.cut_after = None;
            state.end();
        } else {
            let (woken, waited) = shared.changed.wait_timeout(state, Duration::from_millis(200)).unwrap_or_else(PoisonError::into_inner);
            state = woken;
            if waited.timed_out() && state.connection == connection {
                state.let_go();
            }
        }
    }
}
