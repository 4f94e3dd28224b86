//! A socket whose writes wait until somebody reads: the client library flushes after each acknowledgement, and a system call for each costs
//! more than the message, here and in the broker.
//!
//! The library's loop sends what is to be sent, one packet after the other, and reads when there is nothing more. So the first read after
//! some writes is the moment at which they leave together.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// So many bytes leave without a read.
const MOST: usize = 16 * 1024;

/// See the page.
pub(super) struct Corked {
    socket: TcpStream,
    waiting: Vec<u8>,
    /// Of the bytes that wait, those that have left.
    left: usize,
}

impl Corked {
    pub(super) fn new(socket: TcpStream) -> Self {
        Self { socket, waiting: Vec::with_capacity(MOST), left: 0 }
    }

    /// Sends all that waits.
    fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.left < self.waiting.len() {
            match ready!(Pin::new(&mut self.socket).poll_write(context, &self.waiting[self.left..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                sent => self.left += sent,
            }
        }
        self.waiting.clear();
        self.left = 0;
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Corked {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // While the other side takes nothing there is still something to read, and each of both wakes the task.
        if let Poll::Ready(Err(error)) = this.poll_send(context) {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut this.socket).poll_read(context, into)
    }
}

impl AsyncWrite for Corked {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.waiting.len() >= MOST {
            ready!(this.poll_send(context))?;
        }
        this.waiting.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_send(context))?;
        Pin::new(&mut this.socket).poll_shutdown(context)
    }
}

impl Drop for Corked {
    fn drop(&mut self) {
        // A goodbye that nobody read behind. What the socket does not take at once is lost, as it would be in its own buffer.
        if self.left < self.waiting.len() {
            let _ = self.socket.try_write(&self.waiting[self.left..]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    async fn pair() -> (Corked, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (Corked::new(ours), listener.accept().await.unwrap().0)
    }

    #[tokio::test]
    async fn what_is_written_leaves_together_with_the_next_read() {
        let (mut ours, mut theirs) = pair().await;
        for part in [&b"ack 1 "[..], b"ack 2 ", b"ack 3"] {
            ours.write_all(part).await.unwrap();
            ours.flush().await.unwrap();
        }
        assert_eq!(theirs.try_read(&mut [0; 64]).unwrap_err().kind(), io::ErrorKind::WouldBlock, "nobody has read");
        let answering = async {
            let mut seen = [0; 17];
            theirs.read_exact(&mut seen).await.unwrap();
            theirs.write_all(b"seen").await.unwrap();
            seen
        };
        let mut answer = [0; 4];
        let (seen, read) = tokio::join!(answering, ours.read_exact(&mut answer));
        read.unwrap();
        assert_eq!((&seen, &answer), (b"ack 1 ack 2 ack 3", b"seen"));
    }

    #[tokio::test]
    async fn many_bytes_leave_without_a_read_and_the_last_ones_with_the_end() {
        let (mut ours, mut theirs) = pair().await;
        let bytes: Vec<u8> = (0..3 * MOST).map(|n| (n % 251) as u8).collect();
        for part in bytes.chunks(1_000) {
            ours.write_all(part).await.unwrap();
        }
        let mut first = vec![0; MOST];
        theirs.read_exact(&mut first).await.unwrap();
        drop(ours);
        let mut rest = vec![];
        theirs.read_to_end(&mut rest).await.unwrap();
        assert!(first.iter().chain(&rest).eq(&bytes));
    }
}
