//! Sending probes, many at once: a lane is all that one connection must have in common, and has a
//! few connections of its own. Which probe is meant to pass is not known here.

mod h1;
mod h2;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use portcullis_core::proxy_protocol::encode_v1;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use crate::draft::Draft;

/// Lanes that are open at once. Each has descriptors of its own.
const LANES_MAX: usize = 48;
/// Connections of one lane.
const CONNECTIONS: usize = 2;
/// Requests under way on one connection. Their answers fit into the buffers of a socket, so that
/// neither side waits for the other one to read.
pub(crate) const BATCH: usize = 48;
/// How often a probe is sent whose connection ended without a word.
const TRIES: usize = 2;

pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Stream for T {}

/// A version of HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Protocol {
    H1,
    H2,
}

impl Protocol {
    pub(crate) const ALL: [Self; 2] = [Self::H1, Self::H2];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::H1 => "HTTP/1.1",
            Self::H2 => "HTTP/2",
        }
    }
}

/// Which certificate a client has: none, or one of the workshop's.
pub(crate) type Presented = Option<usize>;

/// What requests must have in common to share a connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Lane {
    /// By position in the configuration.
    pub(crate) listener: u16,
    pub(crate) protocol: Protocol,
    /// The address that the gateway takes the client for.
    pub(crate) peer: IpAddr,
    /// With TLS: the name that is asked for, which is the host of all its requests.
    pub(crate) server_name: Option<String>,
    pub(crate) certificate: Presented,
}

/// A probe on its way.
#[derive(Debug)]
pub(crate) struct Parcel {
    pub(crate) probe: u32,
    pub(crate) draft: Draft,
}

/// What came of a probe.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It was not sent, or nothing has come back yet.
    #[default]
    Nothing,
    /// HTTP/2 has no form for it.
    NotExpressible,
    /// The connection was refused or ended without an answer.
    Closed,
    Status {
        status: u16,
        /// The code in the body of a refusal.
        problem: Option<Box<str>>,
        request_id: Option<Box<str>>,
    },
}

/// Where connections go, and how.
pub(crate) trait Roads {
    /// Where a listener really listens.
    fn address(&self, listener: u16) -> SocketAddr;

    /// The TLS that a lane speaks, if it speaks TLS.
    fn tls(&self, lane: &Lane) -> Option<Arc<ClientConfig>>;

    /// Whether the listener wants to be told who the client is.
    fn introduces(&self) -> bool;
}

type Answers = Rc<RefCell<Vec<Answer>>>;

/// Sends what it is given along open lanes, and opens and closes these.
pub(crate) struct Sender {
    roads: Rc<dyn Roads>,
    answers: Answers,
    /// The one that was used longest ago first.
    lanes: VecDeque<(Lane, mpsc::Sender<Parcel>)>,
    workers: Vec<JoinHandle<()>>,
}

impl Sender {
    pub(crate) fn new(roads: Rc<dyn Roads>) -> Self {
        Self { roads, answers: Rc::default(), lanes: VecDeque::new(), workers: Vec::new() }
    }

    /// Waits while the lane has enough to do.
    pub(crate) async fn send(&mut self, lane: &Lane, parcel: Parcel) {
        let at = self.lanes.iter().position(|(open, _)| open == lane);
        let sender = match at.and_then(|at| self.lanes.remove(at)) {
            Some((_, sender)) => sender,
            None => self.open(lane).await,
        };
        // A lane's workers end when it does.
        drop(sender.send(parcel).await);
        self.lanes.push_back((lane.clone(), sender));
    }

    async fn open(&mut self, lane: &Lane) -> mpsc::Sender<Parcel> {
        if self.lanes.len() >= LANES_MAX {
            self.lanes.pop_front();
            // Its workers finish what they have, and give their descriptors back.
            if self.workers.len() >= LANES_MAX * CONNECTIONS {
                for worker in self.workers.drain(..CONNECTIONS) {
                    drop(worker.await);
                }
            }
        }
        let (sender, receiver) = mpsc::channel(BATCH * CONNECTIONS);
        let receiver = Rc::new(tokio::sync::Mutex::new(receiver));
        for _ in 0..CONNECTIONS {
            let worker = Worker {
                roads: Rc::clone(&self.roads),
                answers: Rc::clone(&self.answers),
                lane: lane.clone(),
            };
            self.workers.push(tokio::task::spawn_local(worker.work(Rc::clone(&receiver))));
        }
        sender
    }

    /// All answers, by the numbers of the probes, once everything has one.
    pub(crate) async fn finish(mut self) -> Vec<Answer> {
        self.lanes.clear();
        for worker in self.workers.drain(..) {
            drop(worker.await);
        }
        self.answers.take()
    }
}

/// A connection, in whichever version.
enum Connection {
    H1(h1::Connection),
    H2(h2::Connection),
}

struct Worker {
    roads: Rc<dyn Roads>,
    answers: Answers,
    lane: Lane,
}

impl Worker {
    async fn work(self, parcels: Rc<tokio::sync::Mutex<mpsc::Receiver<Parcel>>>) {
        let mut connection = None;
        let mut batch = Vec::with_capacity(BATCH);
        while parcels.lock().await.recv_many(&mut batch, BATCH).await > 0 {
            self.deliver(&mut connection, std::mem::take(&mut batch)).await;
        }
    }

    /// Every parcel of the batch gets an answer.
    async fn deliver(&self, connection: &mut Option<Connection>, batch: Vec<Parcel>) {
        let mut left: VecDeque<(usize, Parcel)> =
            batch.into_iter().map(|parcel| (0, parcel)).collect();
        while !left.is_empty() {
            if connection.is_none() {
                *connection = self.connect().await;
            }
            let answers = match connection {
                Some(connection) => connection.exchange(left.make_contiguous()).await,
                None => Vec::new(),
            };
            let answered = answers.len();
            for (answer, (_, parcel)) in answers.into_iter().zip(left.drain(..answered)) {
                self.note(parcel.probe, answer);
            }
            // A connection ends with the probe that ended it; those behind it are sent again.
            if let Some((tries, parcel)) = left.front_mut() {
                *connection = None;
                *tries += 1;
                if *tries >= TRIES {
                    self.note(parcel.probe, Answer::Closed);
                    left.pop_front();
                }
            }
        }
    }

    fn note(&self, probe: u32, answer: Answer) {
        let mut answers = self.answers.borrow_mut();
        let at = probe as usize;
        if answers.len() <= at {
            answers.resize(at + 1, Answer::Nothing);
        }
        answers[at] = answer;
    }

    async fn connect(&self) -> Option<Connection> {
        // That there is none is seen by what its probes come to.
        let stream = connect(&*self.roads, &self.lane).await.ok()?;
        self.speak(stream).await
    }

    async fn speak(&self, stream: Box<dyn Stream>) -> Option<Connection> {
        Some(match self.lane.protocol {
            Protocol::H1 => Connection::H1(h1::Connection::new(stream)),
            Protocol::H2 => Connection::H2(h2::Connection::new(stream).await?),
        })
    }
}

/// Opens a connection of a lane.
///
/// # Errors
/// For people: why there is none.
pub(crate) async fn connect(roads: &dyn Roads, lane: &Lane) -> Result<Box<dyn Stream>, String> {
    let address = roads.address(lane.listener);
    let failed = |error: std::io::Error| error.to_string();
    let mut socket = TcpStream::connect(address).await.map_err(failed)?;
    socket.set_nodelay(true).map_err(failed)?;
    if roads.introduces() {
        let mut introduction = Vec::new();
        encode_v1(SocketAddr::new(lane.peer, 40_000), address, &mut introduction);
        socket.write_all(&introduction).await.map_err(failed)?;
    }
    let Some(tls) = roads.tls(lane) else { return Ok(Box::new(socket)) };
    let name = lane.server_name.clone().and_then(|name| ServerName::try_from(name).ok());
    let name = name.unwrap_or(ServerName::IpAddress(address.ip().into()));
    let stream = TlsConnector::from(tls).connect(name, socket).await.map_err(failed)?;
    let speaks_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    match lane.protocol == Protocol::H1 || speaks_h2 {
        true => Ok(Box::new(stream)),
        false => Err("it does not speak HTTP/2".to_owned()),
    }
}

impl Connection {
    /// The answers to the first so many of the parcels: to all of them, or up to where the
    /// connection ended.
    async fn exchange(&mut self, parcels: &[(usize, Parcel)]) -> Vec<Answer> {
        match self {
            Self::H1(connection) => connection.exchange(parcels).await,
            Self::H2(connection) => connection.exchange(parcels).await,
        }
    }
}

/// What a refusal to HEAD says of its reason, which would be in its body.
pub(crate) const UNSAID: &str = "(unsaid)";

/// The code in the body of a problem (RFC 9457), as the gateway writes it.
fn problem(body: &[u8]) -> Option<Box<str>> {
    let text = std::str::from_utf8(body).ok()?;
    let (_, rest) = text.split_once("\"code\":\"")?;
    rest.split('"').next().map(Box::from)
}
