//! The client library behind types of our own: one connection of MQTT 5 or 3.1.1, over TCP, TLS or a websocket.
//!
//! Nothing else in this room knows the library. It never acknowledges by itself, keeps no state over a connection, and does not reconnect:
//! after `Broken` a connection is of no more use.

use super::client::MOST_PACKET_BYTES;
use super::cork::Corked;
use super::events::Received;
use super::options::{MqttOptions, Version};
use super::session::NothingOpen;
use crate::decode::OptionError;
use rumqttc as v5;
use rumqttc_v4 as v4;

/// Acks that may wait for the event loop: one for each packet id. So the ack task never waits for the loop while the loop, with a full
/// queue of events, waits for the worker and so for the ack task. (Not every broker keeps to the Receive Maximum.)
const REQUESTS: usize = u16::MAX as usize;

/// Packets taken from what was read before anything is sent.
const READ_AT_ONCE: usize = 64;

/// Packet ids of our own: we only subscribe. The library keeps a slot for each.
pub(super) const OWN_PACKETS: u16 = 8;

/// The name of the user property that carries a trace (W3C Trace Context, for MQTT: W3C draft "Trace Context: MQTT protocol").
const TRACE: &str = "traceparent";
/// Longer values are no trace parents: version 00 has 55 bytes.
const MOST_TRACE_BYTES: usize = 128;

/// How to connect.
pub(super) enum Settings {
    V5(Box<v5::MqttOptions>),
    V4(Box<v4::MqttOptions>),
}

/// The way to the connection: acks, subscriptions, goodbye.
#[derive(Clone)]
pub(super) enum Requests {
    V5(v5::AsyncClient),
    V4(v4::AsyncClient),
}

/// The connection itself; it moves only while it is polled.
pub(super) enum Wire {
    V5(Box<v5::EventLoop>),
    V4(Box<v4::EventLoop>),
}

/// What came over the connection.
pub(super) enum Heard {
    Connected {
        session_present: bool,
    },
    Publish(Received),
    /// The subscriptions stand; or the broker refuses one, and says why.
    Subscribed(Result<(), String>),
    Other,
}

/// Why a connection ended.
pub(super) struct Broken {
    pub(super) reason: String,
    /// Another client took our id. MQTT 3.1.1 does not say so.
    pub(super) takeover: bool,
}

impl Settings {
    /// Reads the password and the certificates; touches nothing else.
    pub(super) fn new(options: &MqttOptions, client_id: &str) -> Result<Self, OptionError> {
        match options.version {
            Version::V5 => settings_5(options, client_id).map(|s| Self::V5(Box::new(s))),
            Version::V311 => settings_4(options, client_id).map(|s| Self::V4(Box::new(s))),
        }
    }

    /// A new connection, without any state of an older one; it connects when it is polled.
    pub(super) fn open(&self) -> (Requests, Wire) {
        match self {
            Self::V5(settings) => {
                let (requests, wire) = v5::AsyncClient::builder((**settings).clone()).capacity(REQUESTS).build();
                (Requests::V5(requests), Wire::V5(Box::new(wire)))
            }
            Self::V4(settings) => {
                let (requests, wire) = v4::AsyncClient::builder((**settings).clone()).capacity(REQUESTS).build();
                (Requests::V4(requests), Wire::V4(Box::new(wire)))
            }
        }
    }
}

fn settings_5(options: &MqttOptions, client_id: &str) -> Result<v5::MqttOptions, OptionError> {
    let address = options.address()?;
    let tls = || options.tls.clone().unwrap_or_default().read();
    let wrong = |e: v5::OptionError| crate::credentials::mistake("url", format!("`{}`: {e}", options.url), None);
    let mut to = match (&address.websocket, address.secure) {
        (Some(url), true) => v5::MqttOptions::websocket_with_tls_config(client_id, url, tls()?).map_err(wrong)?,
        (Some(url), false) => {
            let mut to = v5::MqttOptions::new(client_id, v5::Broker::websocket(url).map_err(wrong)?);
            to.set_transport(v5::Transport::ws());
            to
        }
        (None, secure) => {
            let mut to = v5::MqttOptions::new(client_id, (address.host, address.port));
            if secure {
                to.set_transport(v5::Transport::tls_with_config(tls()?));
            }
            to
        }
    };
    to.set_keep_alive(keep_alive(options)).set_clean_start(false).set_ack_mode(v5::AckMode::Manual);
    to.set_session_store(NothingOpen);
    to.set_session_expiry_interval(Some(u32::try_from(options.session_expiry.as_secs()).unwrap_or(u32::MAX)));
    to.set_receive_maximum(Some(options.receive_maximum)).set_max_packet_size(Some(MOST_PACKET_BYTES));
    to.set_outgoing_inflight_upper_limit(OWN_PACKETS).set_read_batch_size(READ_AT_ONCE);
    to.set_socket_connector(|host, network| async { v5::default_socket_connect(host, network).await.map(Corked::new) });
    if let Some((username, password)) = credentials(options)? {
        to.set_credentials(username, password);
    }
    Ok(to)
}

fn settings_4(options: &MqttOptions, client_id: &str) -> Result<v4::MqttOptions, OptionError> {
    let address = options.address()?;
    let tls = || options.tls.clone().unwrap_or_default().read();
    let wrong = |e: v4::OptionError| crate::credentials::mistake("url", format!("`{}`: {e}", options.url), None);
    let mut to = match (&address.websocket, address.secure) {
        (Some(url), true) => v4::MqttOptions::websocket_with_tls_config(client_id, url, tls()?).map_err(wrong)?,
        (Some(url), false) => {
            let mut to = v4::MqttOptions::new(client_id, v4::Broker::websocket(url).map_err(wrong)?);
            to.set_transport(v4::Transport::ws());
            to
        }
        (None, secure) => {
            let mut to = v4::MqttOptions::new(client_id, (address.host, address.port));
            if secure {
                to.set_transport(v4::Transport::tls_with_config(tls()?));
            }
            to
        }
    };
    to.set_keep_alive(keep_alive(options)).set_clean_session(false).set_ack_mode(v4::AckMode::Manual);
    to.set_max_packet_size(MOST_PACKET_BYTES as usize, MOST_PACKET_BYTES as usize).set_inflight(OWN_PACKETS);
    to.set_read_batch_size(READ_AT_ONCE);
    to.set_socket_connector(|host, network| async { v4::default_socket_connect(host, network).await.map(Corked::new) });
    if let Some((username, password)) = credentials(options)? {
        to.set_credentials(username, password);
    }
    Ok(to)
}

fn keep_alive(options: &MqttOptions) -> u16 {
    u16::try_from(options.keep_alive.as_secs()).unwrap_or(u16::MAX)
}

fn credentials(options: &MqttOptions) -> Result<Option<(String, String)>, OptionError> {
    let Some(username) = &options.username else { return Ok(None) };
    let password = options.password.as_ref().map_or(Ok(String::new()), |p| p.read("password"))?;
    Ok(Some((username.clone(), password)))
}

impl Requests {
    /// Asks for these filters at this QoS (0 or 1). False when the queue is full or a filter is none.
    pub(super) fn subscribe(&self, filters: &[String], qos: u8) -> bool {
        match self {
            Self::V5(client) => {
                let qos = if qos == 0 { v5::QoS::AtMostOnce } else { v5::QoS::AtLeastOnce };
                let filter = |path: &String| v5::SubscribeFilter {
                    retain_forward_rule: v5::RetainForwardRule::OnNewSubscribe,
                    ..v5::SubscribeFilter::new(path, qos)
                };
                client.try_subscribe_many(filters.iter().map(filter)).is_ok()
            }
            Self::V4(client) => {
                let qos = if qos == 0 { v4::QoS::AtMostOnce } else { v4::QoS::AtLeastOnce };
                client.try_subscribe_many(filters.iter().map(|path| v4::SubscribeFilter::new(path.clone(), qos))).is_ok()
            }
        }
    }

    /// Hands an ack over; false when the connection has ended.
    pub(super) async fn ack(&self, packet: u16) -> bool {
        match self {
            Self::V5(client) => client.manual_ack(v5::ManualAck::PubAck(v5::PubAck::new(packet, None))).await.is_ok(),
            Self::V4(client) => client.manual_ack(v4::ManualAck::PubAck(v4::PubAck::new(packet))).await.is_ok(),
        }
    }

    /// Asks for an end in order, behind every ack that was handed over.
    pub(super) async fn disconnect(&self) -> bool {
        match self {
            Self::V5(client) => client.disconnect().await.is_ok(),
            Self::V4(client) => client.disconnect().await.is_ok(),
        }
    }
}

impl Wire {
    /// The next event. Not cancel safe as a whole: a connection whose poll was dropped is good for `leave` only.
    pub(super) async fn poll(&mut self) -> Result<Heard, Broken> {
        match self {
            Self::V5(wire) => {
                let heard = wire.poll().await.map(heard_5).map_err(broken_5);
                if matches!(heard, Ok(Heard::Connected { .. })) {
                    // The library knows by now what we know of the session. With a store it would write down for each ack that we still know nothing.
                    wire.options.clear_session_store();
                }
                heard
            }
            Self::V4(wire) => wire.poll().await.map(heard_4).map_err(|e| Broken { reason: e.to_string(), takeover: false }),
        }
    }
}

fn heard_5(event: v5::Event) -> Heard {
    match event {
        v5::Event::Incoming(v5::Packet::ConnAck(ack)) => Heard::Connected { session_present: ack.session_present },
        v5::Event::Incoming(v5::Packet::Publish(publish)) => {
            let packet = (publish.qos != v5::QoS::AtMostOnce).then_some(publish.pkid);
            let trace = publish.properties.and_then(|p| trace(p.user_properties));
            Heard::Publish(Received::new(publish.topic, publish.payload, publish.dup, packet, trace))
        }
        v5::Event::Incoming(v5::Packet::SubAck(ack)) => {
            let refused = ack.return_codes.iter().find(|code| !matches!(code, v5::SubscribeReasonCode::Success(_)));
            Heard::Subscribed(refused.map_or(Ok(()), |code| Err(format!("{code:?}"))))
        }
        _ => Heard::Other,
    }
}

fn heard_4(event: v4::Event) -> Heard {
    match event {
        v4::Event::Incoming(v4::Packet::ConnAck(ack)) => Heard::Connected { session_present: ack.session_present },
        v4::Event::Incoming(v4::Packet::Publish(publish)) => {
            let packet = (publish.qos != v4::QoS::AtMostOnce).then_some(publish.pkid);
            Heard::Publish(Received::new(publish.topic, publish.payload, publish.dup, packet, None))
        }
        v4::Event::Incoming(v4::Packet::SubAck(ack)) => {
            let refused = ack.return_codes.iter().any(|code| matches!(code, v4::SubscribeReasonCode::Failure));
            Heard::Subscribed(if refused { Err("Failure".into()) } else { Ok(()) })
        }
        _ => Heard::Other,
    }
}

fn trace(properties: Vec<(String, String)>) -> Option<Box<str>> {
    let found = properties.into_iter().find(|(name, _)| name == TRACE);
    found.map(|(_, value)| value).filter(|value| value.len() <= MOST_TRACE_BYTES).map(String::into_boxed_str)
}

fn broken_5(error: v5::ConnectionError) -> Broken {
    use v5::{ConnectionError, DisconnectReasonCode, StateError};
    let takeover = matches!(
        error,
        ConnectionError::MqttState(StateError::ServerDisconnect { reason_code: DisconnectReasonCode::SessionTakenOver, .. })
    );
    Broken { reason: error.to_string(), takeover }
}
