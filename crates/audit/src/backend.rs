//! The backend behind every route of the gateway under audit: takes whatever comes, says 200, and
//! remembers what came.
//!
//! It reads HTTP/1.1 by itself and takes anything for a target or a field. A library that refuses
//! what it finds odd would hide the very requests that the audit looks for.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::draft::PROBE;

/// Requests that are remembered in full; of those beyond only the number is known, and an audit of
/// a gateway that lets everything pass has enough to show long before.
const REMEMBERED_MAX: usize = 200_000;
const HEAD_BYTES_MAX: usize = 1 << 20;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

/// A request as the backend got it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Arrival {
    /// `None`: it does not say which probe it is.
    pub(crate) probe: Option<u32>,
    pub(crate) method: String,
    /// Path and query.
    pub(crate) target: String,
    /// Names in lower case.
    pub(crate) fields: Vec<(String, String)>,
}

impl Arrival {
    fn new(method: String, target: String, fields: Vec<(String, String)>) -> Self {
        let probe = fields.iter().find(|(name, _)| name == PROBE);
        let probe = probe.and_then(|(_, value)| value.parse().ok());
        Self { probe, method, target, fields }
    }

    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.fields.iter().filter(move |(has, _)| has == name).map(|(_, value)| &**value)
    }
}

#[derive(Debug, Default)]
struct Record {
    arrivals: Vec<Arrival>,
    forgotten: usize,
}

type Shared = Arc<Mutex<Record>>;

fn lock(record: &Shared) -> MutexGuard<'_, Record> {
    record.lock().unwrap_or_else(PoisonError::into_inner)
}

fn note(record: &Shared, arrival: Arrival) {
    let mut record = lock(record);
    if record.arrivals.len() < REMEMBERED_MAX {
        record.arrivals.push(arrival);
    } else {
        record.forgotten += 1;
    }
}

/// Everything that came.
#[derive(Debug, Default)]
pub(crate) struct Arrivals {
    pub(crate) all: Vec<Arrival>,
    /// How many more there were.
    pub(crate) forgotten: usize,
}

/// It runs on a thread of its own until it is asked what came.
#[derive(Debug)]
pub(crate) struct StubBackend {
    pub(crate) address: SocketAddr,
    record: Shared,
    finish: oneshot::Sender<()>,
    thread: std::thread::JoinHandle<()>,
}

impl StubBackend {
    /// On a free port of loopback.
    pub(crate) fn start() -> std::io::Result<Self> {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let record = Shared::default();
        let inside = Arc::clone(&record);
        let (finish, finished) = oneshot::channel();
        let run = move || {
            if let Err(error) = runtime.block_on(serve(listener, &inside, finished)) {
                tracing::error!(%error, "the stub backend ended");
            }
        };
        let thread = std::thread::Builder::new().name("stub-backend".to_owned()).spawn(run)?;
        Ok(Self { address, record, finish, thread })
    }

    /// What came. Only once the gateway has closed its connections: it reads them to their end.
    pub(crate) fn finish(self) -> Arrivals {
        let Self { record, finish, thread, .. } = self;
        // It may have ended already, with what it has.
        let _told = finish.send(());
        if thread.join().is_err() {
            tracing::error!("the stub backend ended in a panic");
        }
        let mut record = lock(&record);
        Arrivals { all: std::mem::take(&mut record.arrivals), forgotten: record.forgotten }
    }
}

async fn serve(
    listener: std::net::TcpListener,
    record: &Shared,
    mut finished: oneshot::Receiver<()>,
) -> std::io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (socket, _) = accepted?;
                connections.spawn(converse(socket, Arc::clone(record)));
            }
            Some(_) = connections.join_next() => {}
            _ = &mut finished => break,
        }
    }
    // What the kernel has accepted for us is to be read as well.
    while let Ok(Ok((socket, _))) =
        tokio::time::timeout(std::time::Duration::ZERO, listener.accept()).await
    {
        connections.spawn(converse(socket, Arc::clone(record)));
    }
    drop(connections.join_all().await);
    Ok(())
}

/// One connection to its end. How it ends is the gateway's business.
async fn converse(mut socket: TcpStream, record: Shared) {
    drop(socket.set_nodelay(true));
    let mut begin = [0; PREFACE.len()];
    loop {
        match socket.peek(&mut begin).await {
            Ok(0) | Err(_) => return,
            Ok(n) if !PREFACE.starts_with(&begin[..n]) => break,
            Ok(n) if n == PREFACE.len() => return h2(socket, &record).await,
            // Less than a preface, and it may still become one. The rest is under way.
            Ok(_) => tokio::task::yield_now().await,
        }
    }
    drop(h1(&mut socket, &record).await);
}

async fn h1(socket: &mut TcpStream, record: &Shared) -> std::io::Result<()> {
    let mut buffer = Vec::with_capacity(16 << 10);
    let mut room = [0; 16 << 10];
    loop {
        let Some((arrival, mut at)) = head(&buffer) else {
            let read = socket.read(&mut room).await?;
            if read == 0 || buffer.len() > HEAD_BYTES_MAX {
                return Ok(());
            }
            buffer.extend_from_slice(&room[..read]);
            continue;
        };
        let length = arrival.all("content-length").next().and_then(|text| text.parse().ok());
        let mut body: usize = length.unwrap_or(0);
        // Probes have no bodies. Whatever comes framed otherwise ends the conversation.
        let odd = arrival.all("transfer-encoding").next().is_some();
        note(record, arrival);
        while body > buffer.len() - at {
            body -= buffer.len() - at;
            (at, buffer) = (0, Vec::new());
            let read = socket.read(&mut room).await?;
            if read == 0 {
                return Ok(());
            }
            buffer.extend_from_slice(&room[..read]);
        }
        buffer.drain(..at + body);
        if odd {
            socket.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n").await?;
            return Ok(());
        }
        socket.write_all(ANSWER).await?;
    }
}

/// The first head in the buffer, and where it ends.
fn head(buffer: &[u8]) -> Option<(Arrival, usize)> {
    let end = buffer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let text = String::from_utf8_lossy(&buffer[..end]);
    let mut lines = text.split("\r\n");
    let line = lines.next().unwrap_or_default();
    let (method, rest) = line.split_once(' ').unwrap_or((line, ""));
    let target = rest.rsplit_once(' ').map_or(rest, |(target, _)| target);
    let fields = lines.map(|line| {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        (name.to_ascii_lowercase(), value.trim().to_owned())
    });
    let arrival = Arrival::new(method.to_owned(), target.to_owned(), fields.collect());
    Some((arrival, end + 4))
}

async fn h2(socket: TcpStream, record: &Shared) {
    let Ok(mut connection) = h2::server::handshake(socket).await else { return };
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let (head, _) = request.into_parts();
        let target = head.uri.path_and_query().map_or("", |target| target.as_str());
        let fields = head.headers.iter().map(|(name, value)| {
            (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
        });
        let (method, target) = (head.method.as_str().to_owned(), target.to_owned());
        note(record, Arrival::new(method, target, fields.collect()));
        let answer = respond.send_response(http::Response::new(()), false);
        // A stream that is gone wants no answer.
        if let Ok(mut body) = answer {
            drop(body.send_data(Bytes::new(), true));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    #[test]
    fn whatever_comes_is_remembered() {
        let backend = StubBackend::start().unwrap();
        let mut socket = std::net::TcpStream::connect(backend.address).unwrap();
        socket
            .write_all(
                b"POST /a\\b;c%00?d HTTP/1.1\r\nHost: x\r\nX-Audit-Probe: 7\r\nOdd name: 1\r\n\
                  Content-Length: 3\r\n\r\nabcGET /b HTTP/1.1\r\n\r\n",
            )
            .unwrap();
        socket.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answers = Vec::new();
        socket.read_to_end(&mut answers).unwrap();
        assert_eq!(answers, ANSWER.repeat(2));
        drop(socket);
        let arrivals = backend.finish();
        let seen: Vec<_> =
            arrivals.all.iter().map(|one| (one.probe, &*one.method, &*one.target)).collect();
        assert_eq!(seen, [(Some(7), "POST", "/a\\b;c%00?d"), (None, "GET", "/b")]);
        assert_eq!(arrivals.all[0].all("odd name").collect::<Vec<_>>(), ["1"]);
    }

    #[tokio::test]
    async fn http2_is_remembered_too() {
        let backend = StubBackend::start().unwrap();
        let socket = TcpStream::connect(backend.address).await.unwrap();
        let (send, connection) = h2::client::handshake(socket).await.unwrap();
        let task = tokio::spawn(connection);
        let mut request = http::Request::new(());
        *request.uri_mut() = "http://x/a?b".parse().unwrap();
        request.headers_mut().insert(PROBE, 9.into());
        let mut send = send.ready().await.unwrap();
        let (answer, _) = send.send_request(request, true).unwrap();
        assert_eq!(answer.await.unwrap().status(), 200);
        drop(send);
        task.await.unwrap().unwrap();
        let arrivals = backend.finish();
        assert_eq!(arrivals.all.len(), 1);
        assert_eq!((arrivals.all[0].probe, &*arrivals.all[0].target), (Some(9), "/a?b"));
    }
}
