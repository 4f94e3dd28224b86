//! Publishes payloads at QoS 1 and returns when the broker has acknowledged every one of them.

use std::time::Duration;

use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Packet, PublishOptions};

/// A connection to a broker that keeps its order.
pub struct Publisher {
    runtime: tokio::runtime::Runtime,
    client: AsyncClient,
    events: EventLoop,
}

impl Publisher {
    /// A publisher to the broker on this loopback port; it connects with the first message.
    pub fn new(port: u16) -> Publisher {
        let mut options = MqttOptions::new(format!("publisher-{port}"), ("127.0.0.1", port));
        options.set_keep_alive(30).set_max_packet_size(Some(16 << 20));
        let (client, events) = AsyncClient::builder(options).capacity(100).build();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        Publisher { runtime, client, events }
    }

    /// Sends (topic, payload) in order. Panics when the broker has not acknowledged all within two minutes.
    pub fn publish(&mut self, messages: &[(String, Vec<u8>)]) {
        let (client, events) = (self.client.clone(), &mut self.events);
        let sending = async move {
            for (topic, payload) in messages {
                client.publish(topic.as_str(), payload.clone(), PublishOptions::at_least_once()).await.expect("the client takes a message");
            }
        };
        let acknowledging = async move {
            let mut missing = messages.len();
            while missing > 0 {
                if let Event::Incoming(Packet::PubAck(_)) = events.poll().await.expect("the broker stays") {
                    missing -= 1;
                }
            }
        };
        let both = async { tokio::join!(sending, acknowledging) };
        self.runtime.block_on(async { tokio::time::timeout(Duration::from_secs(120), both).await.expect("every message acknowledged") });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Mosquitto;

    #[test]
    fn a_thousand_messages_are_acknowledged_by_mosquitto() {
        let broker = Mosquitto::start();
        let messages: Vec<_> = (0..1_000).map(|n| (format!("t/{}", n % 7), n.to_string().into_bytes())).collect();
        let mut publisher = Publisher::new(broker.port);
        publisher.publish(&messages);
        publisher.publish(&[("big".to_owned(), vec![b'x'; 200_000])]);
        assert_eq!(broker.logged("Sending PUBACK to"), 1_001);
    }
}
