//! A client that sends exact bytes and notes what comes back.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, PoisonError};

use portcullis_testkit::event;
use portcullis_wire::verdict::Client;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::task::AbortHandle;

use crate::recorder::{Tape, recorded};

#[derive(Debug)]
pub(crate) struct RawClient {
    half: OwnedWriteHalf,
    h2: bool,
    sent: Vec<u8>,
    received: Tape,
    closed: Arc<AtomicBool>,
    task: AbortHandle,
}

impl Drop for RawClient {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl RawClient {
    pub(crate) async fn connect(address: SocketAddr, h2: bool) -> Self {
        let tcp = TcpStream::connect(address).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        let (mut from, half) = tcp.into_split();
        let (received, closed) = (Tape::default(), Arc::new(AtomicBool::new(false)));
        let (tape, end) = (Arc::clone(&received), Arc::clone(&closed));
        let task = tokio::spawn(async move {
            let mut chunk = vec![0; 0x10000];
            while let Ok(n @ 1..) = from.read(&mut chunk).await {
                tape.lock().unwrap_or_else(PoisonError::into_inner).extend(&chunk[..n]);
            }
            end.store(true, SeqCst);
        });
        let task = task.abort_handle();
        Self { half, h2, sent: Vec::new(), received, closed, task }
    }

    /// Nothing is sent to a gateway that has closed; that it has is found out by reading.
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        if !self.h2 {
            self.sent.extend_from_slice(bytes);
        }
        if !self.closed.load(SeqCst) {
            drop(event("the gateway takes bytes", self.half.write_all(bytes)).await);
        }
    }

    pub(crate) async fn half_close(&mut self) {
        drop(self.half.shutdown().await);
    }

    /// Bytes received and whether it has ended: changes whenever anything happens.
    pub(crate) fn progress(&self) -> usize {
        let received = self.received.lock().unwrap_or_else(PoisonError::into_inner).len();
        received + usize::from(self.closed.load(SeqCst))
    }

    pub(crate) fn seen(&self) -> Client {
        Client {
            h2: self.h2,
            sent: self.sent.clone(),
            received: recorded(&self.received),
            closed: self.closed.load(SeqCst),
        }
    }
}
