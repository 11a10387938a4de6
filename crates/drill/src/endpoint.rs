//! A scripted endpoint: how it behaves changes while it runs.
//!
//! It reads as much HTTP as the gateway sends here, which has no bodies.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

/// Asked by the gateway's health checks.
pub(crate) const HEALTH: &str = "/healthz";
/// Names the endpoint in each of its answers: without it an answer is the gateway's own.
pub(crate) const NAME: &str = "x-endpoint";

const HEAD_BYTES_MAX: usize = 64 * 1024;
const BACKLOG: u32 = 1_024;

/// How an endpoint behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    Good,
    /// Nothing listens, and whatever was open is cut off.
    Down,
    /// Takes requests and never answers, its checks neither.
    Hung,
    /// Answers after this time; its checks at once.
    Slow(Duration),
    /// Answers with this status; to its checks that it is well.
    Failing(u16),
    /// Answers with something that is not HTTP.
    Garbage,
}

/// Runs until it is dropped.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) address: SocketAddr,
    manner: watch::Sender<Manner>,
    asked: Arc<AtomicU64>,
    task: AbortHandle,
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Endpoint {
    /// At this address of loopback, on a free port where it says 0, which it keeps.
    pub(crate) fn start(name: u32, address: SocketAddr) -> std::io::Result<Self> {
        let socket = bind(address)?;
        let address = socket.local_addr()?;
        let (manner, seen) = watch::channel(Manner::Good);
        let asked = Arc::new(AtomicU64::new(0));
        let shared = Shared { name, manner: seen, asked: Arc::clone(&asked) };
        let task = tokio::spawn(live(socket.listen(BACKLOG)?, address, shared)).abort_handle();
        Ok(Self { address, manner, asked, task })
    }

    pub(crate) fn set(&self, manner: Manner) {
        self.manner.send_replace(manner);
    }

    /// Requests that came, without health checks.
    pub(crate) fn asked(&self) -> u64 {
        self.asked.load(Relaxed)
    }
}

#[derive(Clone, Debug)]
struct Shared {
    name: u32,
    manner: watch::Receiver<Manner>,
    asked: Arc<AtomicU64>,
}

fn bind(address: SocketAddr) -> std::io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

async fn live(first: TcpListener, address: SocketAddr, mut shared: Shared) {
    let mut listener = Some(first);
    loop {
        if let Some(listener) = listener.take() {
            serve(listener, &mut shared).await;
        }
        // A port that is bound and not listened on refuses connections, and stays ours.
        let held = loop {
            match bind(address) {
                Ok(socket) => break socket,
                Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        };
        if shared.manner.wait_for(|manner| *manner != Manner::Down).await.is_err() {
            return;
        }
        listener = held.listen(BACKLOG).ok();
    }
}

/// Until it goes down, and all its connections with it.
async fn serve(listener: TcpListener, shared: &mut Shared) {
    let mut connections = JoinSet::new();
    let (asking, mut manner) = (shared.clone(), shared.manner.clone());
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((tcp, _)) = accepted {
                    drop(tcp.set_nodelay(true));
                    connections.spawn(converse(tcp, asking.clone()));
                }
            }
            Some(_) = connections.join_next() => {}
            down = manner.wait_for(|manner| *manner == Manner::Down) => {
                drop(down);
                return;
            }
        }
    }
}

async fn converse(mut tcp: TcpStream, mut shared: Shared) {
    let mut buffer = Vec::new();
    loop {
        let end = loop {
            if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break end;
            }
            let mut piece = [0; 4_096];
            match tcp.read(&mut piece).await {
                Ok(read @ 1..) if buffer.len() < HEAD_BYTES_MAX => {
                    buffer.extend_from_slice(&piece[..read]);
                }
                _ => return,
            }
        };
        let line = buffer.split(|byte| *byte == b'\r').next().unwrap_or_default();
        let check = line.split(|byte| *byte == b' ').nth(1) == Some(HEALTH.as_bytes());
        buffer.drain(..end + 4);
        if !check {
            shared.asked.fetch_add(1, Relaxed);
        }
        let manner = *shared.manner.borrow();
        let answer = match manner {
            Manner::Hung => {
                // Whoever still waits when it is well again gets nothing.
                drop(shared.manner.wait_for(|manner| *manner != Manner::Hung).await);
                return;
            }
            Manner::Garbage => "\0\u{1}\u{2}what is this\r\n\r\n".to_owned(),
            Manner::Failing(status) if !check => answer(status, shared.name),
            Manner::Slow(wait) if !check => {
                tokio::time::sleep(wait).await;
                answer(200, shared.name)
            }
            _ => answer(200, shared.name),
        };
        if tcp.write_all(answer.as_bytes()).await.is_err() || manner == Manner::Garbage {
            return;
        }
    }
}

fn answer(status: u16, name: u32) -> String {
    format!("HTTP/1.1 {status} Drill\r\n{NAME}: {name}\r\ncontent-length: 3\r\n\r\nok\n")
}
