//! A real MQTT broker (v3.1.1 and v5) inside the process, on loopback, for the demo: any client can connect to it over TCP.
//!
//! It keeps sessions in memory only and its PUBACK does not mean durable, so it is for demonstrations and tests; where nothing may
//! be lost a broker with persistence stands in its place.

use std::net::SocketAddr;

use mqtt5::broker::config::{AuthConfig, StorageBackend, StorageConfig};
use mqtt5::broker::{BrokerConfig, BrokerShutdownHandle, MqttBroker};
use tokio::task::JoinHandle;

use crate::{Error, Result};

/// Messages kept for a client that is away or slow. 200 devices at 5 readings a second fill it in 16 minutes.
const QUEUED_MESSAGES: usize = 1_000_000;

/// A running broker. Dropping it leaves the broker running until the runtime ends; [`Broker::stop`] ends it.
pub struct Broker {
    address: SocketAddr,
    shutdown: BrokerShutdownHandle,
    running: JoinHandle<()>,
}

impl Broker {
    /// Starts a broker on a free loopback port. When this returns, clients can connect.
    pub async fn start() -> Result<Broker> {
        let mut broker = MqttBroker::with_config(config()).await.map_err(broken)?;
        let address = broker.local_addr().ok_or_else(|| Error::Broker("listens on no address".into()))?;
        let shutdown = broker.shutdown_handle();
        let mut ready = broker.ready_receiver();
        let running = tokio::spawn(async move {
            if let Err(error) = broker.run().await {
                tracing::error!(%error, "embedded broker ended");
            }
        });
        ready.wait_for(|ready| *ready).await.map_err(|_| Error::Broker("ended before it was ready".into()))?;
        Ok(Broker { address, shutdown, running })
    }

    /// Where it listens, with the port that was free.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address as Tidegate and the simulator take it: `mqtt://127.0.0.1:<port>`.
    pub fn url(&self) -> String {
        format!("mqtt://{}", self.address)
    }

    /// Closes all connections and waits until the broker has ended.
    pub async fn stop(self) -> Result<()> {
        self.shutdown.shutdown();
        self.running.await.map_err(broken)
    }
}

fn config() -> BrokerConfig {
    let sessions = StorageConfig::new().with_backend(StorageBackend::Memory).with_max_queued_messages_per_client(QUEUED_MESSAGES);
    BrokerConfig::new()
        .with_bind_address(SocketAddr::from(([127, 0, 0, 1], 0)))
        .with_auth(AuthConfig::new().with_allow_anonymous(true))
        .with_storage(sessions)
}

fn broken(error: impl std::fmt::Display) -> Error {
    Error::Broker(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_started_broker_takes_connections_and_stops() {
        let broker = Broker::start().await.unwrap();
        assert_ne!(broker.address().port(), 0);
        tokio::net::TcpStream::connect(broker.address()).await.unwrap();
        broker.stop().await.unwrap();
    }
}
