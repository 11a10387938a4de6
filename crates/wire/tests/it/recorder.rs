//! A backend that keeps every byte it gets, and answers as a case says.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use portcullis_wire::case::{Act, Script};
use portcullis_wire::models::{Reader, Request, read};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinSet};

/// Bytes of one connection, which grow while it lives.
pub(crate) type Tape = Arc<Mutex<Vec<u8>>>;

pub(crate) fn recorded(tape: &Tape) -> Vec<u8> {
    tape.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Listens until it is dropped; its connections end with it.
#[derive(Debug)]
pub(crate) struct Recorder {
    pub(crate) address: SocketAddr,
    tapes: Arc<Mutex<Vec<Tape>>>,
    released: Arc<Semaphore>,
    task: AbortHandle,
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Recorder {
    pub(crate) async fn start(script: &Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tapes, released) = (Arc::default(), Arc::new(Semaphore::new(0)));
        let inside: (Arc<Mutex<Vec<Tape>>>, _) = (Arc::clone(&tapes), Arc::clone(&released));
        let script = Arc::new(script.clone());
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let Ok((tcp, _)) = listener.accept().await else { continue };
                drop(tcp.set_nodelay(true));
                let tape = Tape::default();
                inside.0.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&tape));
                let connection = Connection {
                    tcp,
                    tape,
                    script: Arc::clone(&script),
                    released: Arc::clone(&inside.1),
                };
                connections.spawn(connection.serve());
            }
        });
        Self { address, tapes, released, task: task.abort_handle() }
    }

    /// What has come so far, of each connection that brought anything.
    pub(crate) fn streams(&self) -> Vec<Vec<u8>> {
        let tapes = self.tapes.lock().unwrap_or_else(PoisonError::into_inner);
        tapes.iter().map(recorded).filter(|stream| !stream.is_empty()).collect()
    }

    /// Whoever was told to hold goes on.
    pub(crate) fn release(&self) {
        self.released.add_permits(1000);
    }
}

struct Connection {
    tcp: TcpStream,
    tape: Tape,
    script: Arc<Script>,
    released: Arc<Semaphore>,
}

impl Connection {
    async fn serve(mut self) {
        let mut chunk = vec![0; 0x10000];
        let mut answered = 0;
        while let Ok(n @ 1..) = self.tcp.read(&mut chunk).await {
            let (requests, head_ended) = self.record(&chunk[..n]);
            for request in &requests[answered.min(requests.len())..] {
                let early = self.script.early && head_ended && is_scripted(request);
                if request.partial && !early {
                    break;
                }
                answered += 1;
                if !self.answer(request).await {
                    return;
                }
            }
        }
    }

    /// The requests so far, and whether a head has ended.
    fn record(&self, bytes: &[u8]) -> (Vec<Request>, bool) {
        let mut tape = self.tape.lock().unwrap_or_else(PoisonError::into_inner);
        tape.extend_from_slice(bytes);
        // Any reader would do: if they differ, that is the verdict.
        let (requests, _) = read(&tape, Reader::AnyEncoding);
        (requests, tape.windows(4).any(|four| four == b"\r\n\r\n"))
    }

    /// Whether the connection goes on.
    async fn answer(&mut self, request: &Request) -> bool {
        if !is_scripted(request) || self.script.acts.is_empty() {
            let body = ["to ".as_bytes(), &request.target, b"\n"].concat();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            let body = if request.method == b"HEAD" { Vec::new() } else { body };
            return self.tcp.write_all(&[head.as_bytes(), &body].concat()).await.is_ok();
        }
        for act in &self.script.acts {
            match act {
                Act::Send(bytes) => {
                    if self.tcp.write_all(bytes).await.is_err() {
                        return false;
                    }
                }
                Act::Hold => self.released.acquire().await.unwrap().forget(),
                Act::Close => return false,
                Act::Tunnel => {
                    let mut chunk = vec![0; 0x10000];
                    while let Ok(n @ 1..) = self.tcp.read(&mut chunk).await {
                        self.record(&chunk[..n]);
                    }
                    return false;
                }
            }
        }
        true
    }
}

fn is_scripted(request: &Request) -> bool {
    request.target.starts_with(b"/u/")
}
