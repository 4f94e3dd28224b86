//! Acknowledgements: they leave in the order of receipt, each when its batch and all before it are durable.
//!
//! A task of its own, since sending an ack can wait for room at the client, and the client must not wait for itself (its loop is what
//! makes the room). An ack of an ended connection is dropped: its packet id means nothing to the next one, and the broker sends again.

use crate::status::SourceStatus;
use flow::Result;
use std::pin::Pin;
use std::sync::atomic::Ordering::Relaxed;
use tokio::sync::mpsc;
use world::{Bug, planted};

/// Most batches between decoding and ack. Enough for a slow fsync (10 ms) to collect what arrives meanwhile.
pub(super) const BATCHES_IN_FLIGHT: usize = 64;

/// Resolves when a batch is durable.
pub(super) type UntilDurable = Pin<Box<dyn Future<Output = Result<()>> + Send>>;

/// One connection, as far as acks go.
pub trait Acker: Send {
    /// Hands an ack to the connection; false when it has ended.
    fn ack(&self, packet: u16) -> impl Future<Output = bool> + Send;
}

/// A batch that was handed to the journal, or one whose messages are all in batches before it.
pub(super) struct Handed<A> {
    /// None: nothing of its own to wait for.
    pub(super) durable: Option<UntilDurable>,
    /// Readings in it.
    pub(super) rows: u64,
    /// Rejected messages in it.
    pub(super) rejects: u64,
    /// Packet ids to acknowledge, in order of receipt.
    pub(super) packets: Vec<u16>,
    /// The connection they came over.
    pub(super) acker: Option<A>,
}

/// Acknowledges until the queue ends. An error means that a batch may not be durable: nothing more was acknowledged.
pub(super) async fn settle<A: Acker>(mut queue: mpsc::Receiver<Handed<A>>, status: &SourceStatus) -> Result<()> {
    while let Some(batch) = queue.recv().await {
        if let Some(durable) = batch.durable.filter(|_| !planted(Bug::AcksDoNotWait)) {
            durable.await?;
        }
        status.logged.fetch_add(batch.rows, Relaxed);
        status.rejected.fetch_add(batch.rejects, Relaxed);
        let mut open = true;
        for packet in &batch.packets {
            open = open && matches!(&batch.acker, Some(acker) if acker.ack(*packet).await);
            status.unacked.fetch_sub(1, Relaxed);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use flow::{Error, Remedy};
    use std::sync::{Arc, Mutex};
    use tokio::sync::oneshot;

    #[derive(Clone, Default)]
    struct Wire {
        sent: Arc<Mutex<Vec<u16>>>,
        ended: bool,
    }

    impl Acker for Wire {
        async fn ack(&self, packet: u16) -> bool {
            self.sent.lock().unwrap().push(packet);
            !self.ended
        }
    }

    fn handed(wire: &Wire, packets: &[u16], durable: Option<oneshot::Receiver<Result<()>>>) -> Handed<Wire> {
        let durable = durable.map(|d| Box::pin(async move { d.await.unwrap() }) as UntilDurable);
        Handed { durable, rows: 1, rejects: 0, packets: packets.to_vec(), acker: Some(wire.clone()) }
    }

    #[tokio::test]
    async fn a_later_batch_waits_for_the_earlier_one() {
        let (wire, status) = (Wire::default(), Arc::new(SourceStatus::default()));
        status.unacked.store(4, Relaxed);
        let (tx, rx) = mpsc::channel(8);
        let ((first, first_rx), (second, second_rx)) = (oneshot::channel(), oneshot::channel());
        tx.send(handed(&wire, &[1, 2], Some(first_rx))).await.unwrap();
        tx.send(handed(&wire, &[3], Some(second_rx))).await.unwrap();
        tx.send(handed(&wire, &[4], None)).await.unwrap();
        drop(tx);
        let counted = status.clone();
        let task = tokio::spawn(async move { settle(rx, &counted).await });
        second.send(Ok(())).unwrap();
        tokio::task::yield_now().await;
        assert!(wire.sent.lock().unwrap().is_empty());
        first.send(Ok(())).unwrap();
        task.await.unwrap().unwrap();
        assert_eq!(*wire.sent.lock().unwrap(), [1, 2, 3, 4]);
        assert_eq!((status.unacked.load(Relaxed), status.logged.load(Relaxed)), (0, 3));
    }

    #[tokio::test]
    async fn nothing_is_acknowledged_after_a_failed_write() {
        let (wire, status) = (Wire::default(), SourceStatus::default());
        let (tx, rx) = mpsc::channel(8);
        let (failed, failed_rx) = oneshot::channel();
        failed.send(Err(Error::new(Remedy::Stop, "disk gone"))).unwrap();
        tx.send(handed(&wire, &[1], Some(failed_rx))).await.unwrap();
        tx.send(handed(&wire, &[2], None)).await.unwrap();
        assert!(settle(rx, &status).await.is_err());
        assert!(wire.sent.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn acks_of_an_ended_connection_are_dropped() {
        let (wire, status) = (Wire { ended: true, ..Wire::default() }, SourceStatus::default());
        status.unacked.store(2, Relaxed);
        let (tx, rx) = mpsc::channel(8);
        tx.send(handed(&wire, &[1, 2], None)).await.unwrap();
        drop(tx);
        settle(rx, &status).await.unwrap();
        assert_eq!(*wire.sent.lock().unwrap(), [1], "the second is not tried");
        assert_eq!(status.unacked.load(Relaxed), 0);
    }
}
