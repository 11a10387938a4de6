//! What a gateway must not be: it looks at the first line, puts its field behind it, and relays
//! bytes both ways. The judge has to find it out.

use std::net::SocketAddr;

use portcullis_testkit::{H1Client, Request};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

#[derive(Debug)]
pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    task: AbortHandle,
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Relay {
    /// How the streams begin that only say how far it has got.
    pub(crate) const PING: &[u8] = b"GET /testkit/ping ";

    pub(crate) async fn start(backend: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let Ok((tcp, _)) = listener.accept().await else { continue };
                connections.spawn(relay(tcp, backend));
            }
        });
        Self { address, task: task.abort_handle() }
    }

    /// Two rounds through it: everybody else had their turn.
    pub(crate) async fn settle(&self) {
        for _ in 0..2 {
            let mut client = H1Client::connect(self.address).await;
            let answer = client.exchange(&Request::get("/testkit/ping")).await;
            assert_eq!(answer.map(|answer| answer.status), Ok(200));
        }
    }
}

async fn relay(mut client: TcpStream, backend: SocketAddr) -> Option<()> {
    let mut text = Vec::new();
    let line = loop {
        if let Some(end) = text.iter().position(|byte| *byte == b'\n') {
            break end + 1;
        }
        if client.read_buf(&mut text).await.ok()? == 0 {
            return None;
        }
    };
    if text[..line].windows(7).any(|part| part == b" /admin") {
        let refusal = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        return client.write_all(refusal).await.ok();
    }
    let mut backend = TcpStream::connect(backend).await.ok()?;
    let own = b"X-Gw-Identity: gw\r\nX-Forwarded-For: 127.0.0.1\r\n";
    backend.write_all(&[&text[..line], own, &text[line..]].concat()).await.ok()?;
    copy_bidirectional(&mut client, &mut backend).await.ok()?;
    Some(())
}
