//! A real Mosquitto that keeps every message for an absent subscriber, in memory; and what fills it.

use std::collections::VecDeque;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::{Error, Result};

/// Publishes without an acknowledgement at a time.
const OPEN: usize = 1_000;
const LISTENING_WITHIN: Duration = Duration::from_secs(20);

/// When messages are sent: the first at once, each further one at its own time, whatever became of those before it.
#[derive(Clone, Copy)]
pub(crate) struct Pace {
    /// When the first is sent.
    pub(crate) start: Instant,
    /// Messages a second.
    pub(crate) a_second: f64,
}

impl Pace {
    pub(crate) fn from_now(a_second: f64) -> Self {
        Self { start: Instant::now(), a_second }
    }

    /// When a message is sent, by its number.
    pub(crate) fn at(&self, number: usize) -> Instant {
        self.start + Duration::from_secs_f64(number as f64 / self.a_second)
    }
}

/// A running broker; it ends when this is dropped.
pub(crate) struct Mosquitto {
    pub(crate) port: u16,
    child: Child,
}

impl Mosquitto {
    /// Starts the program `mosquitto` with a configuration in `folder`.
    pub(crate) fn start(folder: &Path) -> Result<Mosquitto> {
        let (port, config) = (free_port()?, folder.join("mosquitto.conf"));
        let settings = format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\nmax_queued_messages 0\nmax_inflight_messages {OPEN}\nlog_dest none\n"
        );
        fs::write(&config, settings).map_err(Error::file(&config))?;
        let failed = |reason: String| Error::Program { program: "mosquitto".to_owned(), reason };
        let mut command = Command::new("mosquitto");
        command.arg("-c").arg(&config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let broker = Mosquitto { port, child: command.spawn().map_err(|error| failed(error.to_string()))? };
        let since = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if since.elapsed() > LISTENING_WITHIN {
                return Err(failed(format!("nobody listens on port {port}")));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(broker)
    }

    pub(crate) fn url(&self) -> String {
        format!("mqtt://127.0.0.1:{}", self.port)
    }

    /// Publishes messages, as fast as the broker takes them or at their pace; returns when it has acknowledged all.
    pub(crate) fn publish(&self, messages: impl Iterator<Item = (String, Vec<u8>)>, pace: Option<Pace>) -> Result<()> {
        let failed = |reason: String| Error::Broker(reason);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| failed(error.to_string()))?;
        runtime.block_on(async {
            let mut to = rumqttc::MqttOptions::new("bench-publish", ("127.0.0.1".to_owned(), self.port));
            to.set_keep_alive(30).set_outgoing_inflight_upper_limit(OPEN as u16).set_max_request_batch(OPEN / 10);
            let (client, mut network) = rumqttc::AsyncClient::builder(to).capacity(OPEN).build();
            let polling = tokio::spawn(async move { while network.poll().await.is_ok() {} });
            let mut open = VecDeque::new();
            for (number, (topic, payload)) in messages.enumerate() {
                if let Some(pace) = pace {
                    tokio::time::sleep_until(pace.at(number).into()).await;
                }
                let options = rumqttc::PublishOptions::at_least_once();
                open.push_back(client.publish_tracked(topic, payload, options).await.map_err(|error| failed(error.to_string()))?);
                if open.len() >= OPEN {
                    acknowledged(open.pop_front()).await?;
                }
            }
            while let Some(notice) = open.pop_front() {
                acknowledged(Some(notice)).await?;
            }
            polling.abort();
            Ok(())
        })
    }
}

/// A client that acknowledges what it is given and does nothing else.
pub(crate) struct Bare {
    runtime: tokio::runtime::Runtime,
    _client: rumqttc::AsyncClient,
    network: rumqttc::EventLoop,
}

impl Bare {
    /// Subscribes, and leaves all that comes to wait in the broker.
    pub(crate) fn subscribe(broker: &Mosquitto, topics: &str) -> Result<Self> {
        let failed = |reason: String| Error::Broker(reason);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| failed(error.to_string()))?;
        let (client, network) = runtime.block_on(async {
            let mut to = rumqttc::MqttOptions::new("bench-bare", ("127.0.0.1".to_owned(), broker.port));
            // Nobody answers the broker while it is filled.
            to.set_keep_alive(3_600).set_receive_maximum(Some(OPEN as u16));
            let (client, mut network) = rumqttc::AsyncClient::builder(to).capacity(OPEN).build();
            client.subscribe(topics, rumqttc::QoS::AtLeastOnce).await.map_err(|error| failed(error.to_string()))?;
            while !matches!(next(&mut network).await?, rumqttc::Packet::SubAck(_)) {}
            Ok::<_, Error>((client, network))
        })?;
        Ok(Self { runtime, _client: client, network })
    }

    /// Takes so many messages: the seconds from the first to the last.
    pub(crate) fn take(mut self, messages: u64) -> Result<f64> {
        self.runtime.block_on(async {
            let (mut taken, mut first) = (0, None);
            while taken < messages {
                if matches!(next(&mut self.network).await?, rumqttc::Packet::Publish(_)) {
                    first.get_or_insert_with(Instant::now);
                    taken += 1;
                }
            }
            Ok(first.map_or(0.0, |first| first.elapsed().as_secs_f64()))
        })
    }
}

/// The next packet that the broker sends.
async fn next(network: &mut rumqttc::EventLoop) -> Result<rumqttc::Packet> {
    loop {
        if let rumqttc::Event::Incoming(packet) = network.poll().await.map_err(|error| Error::Broker(error.to_string()))? {
            return Ok(packet);
        }
    }
}

async fn acknowledged(notice: Option<rumqttc::PublishNotice>) -> Result<()> {
    let Some(notice) = notice else { return Ok(()) };
    match notice.wait_async().await {
        Ok(rumqttc::PublishResult::Qos1(_)) => Ok(()),
        _ => Err(Error::Broker("a message that was to fill it was not acknowledged".to_owned())),
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that was free a moment ago.
pub(crate) fn free_port() -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr());
    listener.map(|address| address.port()).map_err(|error| Error::Broker(format!("no free port: {error}")))
}
