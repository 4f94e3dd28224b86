//! The client library behind types of our own: one publishing connection of MQTT 5 or 3.1.1, over TCP or TLS. It reconnects by itself
//! and, with MQTT 5, sends again what was not acknowledged; of 3.1.1 that stays unacknowledged.

use std::path::Path;
use std::sync::Arc;

use rumqttc as v5;
use rumqttc::tokio_rustls::rustls::crypto::ring::default_provider;
use rumqttc::tokio_rustls::rustls::pki_types::CertificateDer;
use rumqttc::tokio_rustls::rustls::pki_types::pem::PemObject;
use rumqttc::tokio_rustls::rustls::{ClientConfig, RootCertStore};
use rumqttc_v4 as v4;
use url::Url;

use crate::scenario::{Version, WireOptions};
use crate::{Error, Result};

/// Publishes that may wait in the client for the network.
const WAITING_REQUESTS: usize = 1_000;
/// Publishes without an acknowledgement, of all connections together; the library keeps a slot for each, 200 bytes or so.
const IN_FLIGHT: u32 = 65_536;
/// The same of one connection: more is faster on long ways, and fewer would stall on short ones.
const IN_FLIGHT_OF_ONE: (u32, u32) = (16, 1_000);
/// More than the largest payload there is.
const MOST_PACKET_BYTES: usize = 1 << 20;
const KEEP_ALIVE_SECONDS: u16 = 30;
/// Longer than any pause between two connections.
const SESSION_SECONDS: u32 = 300;

/// The way to a connection.
pub(super) enum Client {
    V5(v5::AsyncClient),
    V4(v4::AsyncClient),
}

/// The connection itself; it moves only while it is polled.
pub(super) enum Wire {
    V5(Box<v5::EventLoop>),
    V4(Box<v4::EventLoop>),
}

/// What will be known of a publish.
pub(super) enum Notice {
    V5(v5::PublishNotice),
    V4(v4::PublishNotice),
}

/// A new connection of that client id; it connects when it is polled.
pub(super) fn open(options: &WireOptions, id: &str) -> Result<(Client, Wire)> {
    let address = Address::of(options)?;
    let host = (address.host.clone(), address.port);
    let in_flight = (IN_FLIGHT / options.connections.max(1)).clamp(IN_FLIGHT_OF_ONE.0, IN_FLIGHT_OF_ONE.1) as u16;
    match options.version {
        Version::V5 => {
            let mut to = v5::MqttOptions::new(id, host);
            to.set_keep_alive(KEEP_ALIVE_SECONDS).set_clean_start(false).set_session_expiry_interval(Some(SESSION_SECONDS));
            to.set_outgoing_inflight_upper_limit(in_flight);
            if let Some(tls) = address.tls {
                to.set_transport(v5::Transport::tls_with_config(v5::TlsConfiguration::Rustls(tls)));
            }
            let (client, wire) = v5::AsyncClient::builder(to).capacity(WAITING_REQUESTS).build();
            Ok((Client::V5(client), Wire::V5(Box::new(wire))))
        }
        Version::V311 => {
            let mut to = v4::MqttOptions::new(id, host);
            // A session of 3.1.1 that lasts would stay at the broker for ever.
            to.set_keep_alive(KEEP_ALIVE_SECONDS).set_clean_session(true).set_inflight(in_flight);
            to.set_max_packet_size(MOST_PACKET_BYTES, MOST_PACKET_BYTES);
            if let Some(tls) = address.tls {
                to.set_transport(v4::Transport::tls_with_config(v4::TlsConfiguration::Rustls(tls)));
            }
            let (client, wire) = v4::AsyncClient::builder(to).capacity(WAITING_REQUESTS).build();
            Ok((Client::V4(client), Wire::V4(Box::new(wire))))
        }
    }
}

struct Address {
    host: String,
    port: u16,
    tls: Option<Arc<ClientConfig>>,
}

impl Address {
    fn of(options: &WireOptions) -> Result<Address> {
        let wrong = |reason: String| Error::Address { url: options.url.clone(), reason };
        let parsed = Url::parse(&options.url).map_err(|error| wrong(error.to_string()))?;
        let (tls, port) = match parsed.scheme() {
            "mqtt" => (None, 1_883),
            "mqtts" => (Some(Arc::new(tls(options.ca.as_deref()).map_err(wrong)?)), 8_883),
            other => return Err(wrong(format!("`{other}` is not mqtt or mqtts"))),
        };
        let host = parsed.host_str().ok_or_else(|| wrong("no host".to_owned()))?;
        Ok(Address { host: host.to_owned(), port: parsed.port().unwrap_or(port), tls })
    }
}

/// Trusts the authorities of a file.
fn tls(ca: Option<&Path>) -> std::result::Result<ClientConfig, String> {
    let ca = ca.ok_or("mqtts needs `ca`, a file with the certificates to trust")?;
    let certificates = CertificateDer::pem_file_iter(ca).and_then(Iterator::collect::<std::result::Result<Vec<_>, _>>);
    let certificates = certificates.map_err(|error| format!("{}: {error}", ca.display()))?;
    let mut roots = RootCertStore::empty();
    if roots.add_parsable_certificates(certificates).0 == 0 {
        return Err(format!("{} has no certificate of an authority", ca.display()));
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider())).with_safe_default_protocol_versions();
    Ok(builder.map_err(|error| error.to_string())?.with_root_certificates(roots).with_no_client_auth())
}

impl Client {
    /// Hands a message over; waits while too many wait for the network. An error when the connection has ended for good.
    pub(super) async fn publish(&self, topic: &str, payload: Vec<u8>, qos: u8) -> Result<Notice> {
        let broken = |error: &dyn std::fmt::Display| Error::Broker(error.to_string());
        match self {
            Client::V5(client) => {
                let options = if qos == 0 { v5::PublishOptions::at_most_once() } else { v5::PublishOptions::at_least_once() };
                client.publish_tracked(topic, payload, options).await.map(Notice::V5).map_err(|error| broken(&error))
            }
            Client::V4(client) => {
                let options = if qos == 0 { v4::PublishOptions::at_most_once() } else { v4::PublishOptions::at_least_once() };
                client.publish_tracked(topic, payload, options).await.map(Notice::V4).map_err(|error| broken(&error))
            }
        }
    }

    /// Says goodbye; a broker that is gone needs none.
    pub(super) async fn disconnect(&self) {
        let _ = match self {
            Client::V5(client) => client.disconnect().await.map_err(|_| ()),
            Client::V4(client) => client.disconnect().await.map_err(|_| ()),
        };
    }
}

impl Notice {
    /// Whether a PUBACK came. False also for QoS 0, of which nobody says so.
    pub(super) async fn acknowledged(self) -> bool {
        match self {
            Notice::V5(notice) => matches!(notice.wait_async().await, Ok(v5::PublishResult::Qos1(_))),
            Notice::V4(notice) => matches!(notice.wait_async().await, Ok(v4::PublishResult::Qos1(_))),
        }
    }
}

impl Wire {
    /// Waits for the next event; true when it is that the broker took us. An error when the connection is lost; the next poll makes it anew.
    pub(super) async fn poll(&mut self) -> std::result::Result<bool, String> {
        match self {
            Wire::V5(wire) => {
                let event = wire.poll().await.map_err(|error| error.to_string())?;
                Ok(matches!(event, v5::Event::Incoming(v5::Packet::ConnAck(_))))
            }
            Wire::V4(wire) => {
                let event = wire.poll().await.map_err(|error| error.to_string())?;
                Ok(matches!(event, v4::Event::Incoming(v4::Packet::ConnAck(_))))
            }
        }
    }

    /// Drops the connection without a goodbye, between two polls; the next poll makes it anew.
    pub(super) fn cut(&mut self) {
        match self {
            Wire::V5(wire) => wire.clean(),
            Wire::V4(wire) => wire.clean(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_is_not_mqtt_is_refused() {
        for url in ["http://127.0.0.1:1883", "127.0.0.1", "mqtts://127.0.0.1"] {
            assert!(open(&WireOptions { url: url.to_owned(), ..WireOptions::default() }, "x").is_err(), "{url}");
        }
    }
}
