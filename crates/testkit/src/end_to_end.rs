//! Whatever a client sends: what reaches the backend has one reading, carries the gateway's own
//! fields, and asks for nothing that is denied. For fuzzers, and for the replay of their corpus.
//!
//! One gateway serves all inputs. Its clock stands still, so that no deadline ends what hangs.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use portcullis_wire::lenient_paths::read_as_admin;
use portcullis_wire::models::{self, Reader};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};

use crate::gateway::{Setup, TestGateway};
use crate::{event, until};

/// `edge` is behind a load balancer that may say who the client is.
const CONFIG: &str = r#"
listeners:
  plain: { bind: "127.0.0.1:0" }
  edge: { bind: "127.0.0.1:0", proxy_protocol: true, trusted_proxies: ["127.0.0.0/8"] }
defaults:
  on: [plain, edge]
  body_max: 1KiB
  headers: { request: { set: { x-gw-identity: gw } } }
routes:
  admin: { match: /admin/**, deny: "nobody gets here, however the path is written" }
  everything: { match: /**, public: "strangers' bytes", to: recorder }
backends:
  recorder: "http://RECORDER"
"#;

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const ANSWER_TO_HEAD: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n";
const PING: &[u8] = b"GET /testkit/ping HTTP/1.1\r\nHost: a\r\n\r\n";

/// What one connection has brought to the backend since the last input.
#[derive(Debug, Default)]
struct Stream {
    bytes: Vec<u8>,
    answered: usize,
    /// For so many requests, the backend has said that the body may come.
    continued: usize,
    closed: bool,
}

impl Stream {
    /// Nothing is under way: whatever begins after these bytes is a new request.
    fn is_idle(&self) -> bool {
        let next = [&self.bytes, &b"NEXT / HTTP/1.1\r\n\r\n"[..]].concat();
        let (requests, fault) = models::read(&next, Reader::Strict);
        fault.is_some()
            || requests.last().is_some_and(|last| last.method == b"NEXT" && !last.partial)
    }

    /// What the backend says to what has come so far.
    fn answer(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        let (requests, _) = models::read(&self.bytes, Reader::Strict);
        for (number, request) in requests.iter().enumerate().skip(self.answered) {
            if request.partial {
                if self.continued <= number && asks_to_continue(&self.bytes) {
                    self.continued = number + 1;
                    out.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
                }
                break;
            }
            let answer = if request.method == b"HEAD" { ANSWER_TO_HEAD } else { ANSWER };
            out.extend_from_slice(answer);
            self.answered = number + 1;
        }
        out
    }
}

/// Saying it too often does no harm.
fn asks_to_continue(bytes: &[u8]) -> bool {
    bytes.windows(20).any(|text| text == b"expect: 100-continue")
}

type Streams = Arc<Mutex<BTreeMap<usize, Stream>>>;

fn lock(streams: &Streams) -> MutexGuard<'_, BTreeMap<usize, Stream>> {
    streams.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A gateway, its backend, and what the backend got.
#[derive(Debug)]
pub struct EndToEnd {
    runtime: Runtime,
    gateway: TestGateway,
    plain: SocketAddr,
    edge: SocketAddr,
    streams: Streams,
    /// A connection of our own, to learn that the gateway has looked at everything.
    ping: Option<TcpStream>,
    forwarded: usize,
}

impl EndToEnd {
    /// # Panics
    /// If the machine has no free port.
    #[must_use]
    pub fn start() -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let streams = Streams::default();
        let recorder = runtime.block_on(record(Arc::clone(&streams)));
        let text = CONFIG.replace("RECORDER", &recorder.to_string());
        let gateway = Setup::new(&text).without_log().start();
        let (plain, edge) = (gateway.address("plain"), gateway.address("edge"));
        Self { runtime, gateway, plain, edge, streams, ping: None, forwarded: 0 }
    }

    /// One byte of choices, then all that a client sends before it closes its half.
    ///
    /// The choices: to which listener, and after how many 128ths of the input a pause is made.
    ///
    /// # Panics
    /// Where a rule is broken.
    pub fn run(&mut self, input: &[u8]) {
        let Some((&choice, bytes)) = input.split_first() else { return };
        let address = if choice & 0x80 == 0 { self.plain } else { self.edge };
        let cut = bytes.len() * usize::from(choice & 0x7f) / 128;
        let Self { runtime, ping, streams, .. } = self;
        runtime.block_on(async {
            let mut client = TcpStream::connect(address).await.unwrap();
            client.set_nodelay(true).unwrap();
            for part in [&bytes[..cut], &bytes[cut..]] {
                if part.is_empty() {
                    continue;
                }
                // A gateway that has closed already is found out by reading.
                drop(event("the gateway takes bytes", client.write_all(part)).await);
                if cut > 0 {
                    looked(self.plain, ping).await;
                }
            }
            drop(client.shutdown().await);
            let mut answers = Vec::new();
            // A reset is an end too.
            drop(event("an answer or an end", client.read_to_end(&mut answers)).await);
            drop(client);
            check_answers(&answers, input);
            looked(self.plain, ping).await;
            until("an end of what was forwarded", || {
                lock(streams).values().all(|stream| stream.closed || stream.is_idle())
            })
            .await;
        });
        self.check_streams(choice & 0x80 != 0, input);
    }

    /// So many requests have reached the backend whole.
    #[must_use]
    pub const fn forwarded(&self) -> usize {
        self.forwarded
    }

    /// The gateway has panicked so often.
    #[must_use]
    pub fn panics(&self) -> Option<f64> {
        self.gateway.metric("portcullis_panics_total")
    }

    fn check_streams(&mut self, edge: bool, input: &[u8]) {
        let mut streams = lock(&self.streams);
        for stream in streams.values() {
            if let Err(fault) = check(&stream.bytes, edge) {
                let (input, out) = (input.escape_ascii(), stream.bytes.escape_ascii());
                panic!("{fault}\nin  {input}\nout {out}");
            }
        }
        self.forwarded += streams.values().map(|stream| stream.answered).sum::<usize>();
        streams.retain(|_, stream| !stream.closed);
        for stream in streams.values_mut() {
            *stream = Stream::default();
        }
    }
}

/// A backend that answers each request that the strict reader sees.
async fn record(streams: Streams) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for number in 0.. {
            let Ok((tcp, _)) = listener.accept().await else { return };
            lock(&streams).insert(number, Stream::default());
            tokio::spawn(converse(tcp, number, Arc::clone(&streams)));
        }
    });
    address
}

async fn converse(mut tcp: TcpStream, number: usize, streams: Streams) {
    drop(tcp.set_nodelay(true));
    let mut buffer = Vec::with_capacity(16 * 1024);
    loop {
        buffer.clear();
        let read = tcp.read_buf(&mut buffer).await.unwrap_or(0);
        let answer = match lock(&streams).get_mut(&number) {
            Some(stream) if read > 0 => {
                stream.bytes.extend_from_slice(&buffer);
                stream.answer()
            }
            Some(stream) => {
                stream.closed = true;
                return;
            }
            None => return,
        };
        if !answer.is_empty() && tcp.write_all(&answer).await.is_err() {
            answer_is_lost(&streams, number);
            return;
        }
    }
}

fn answer_is_lost(streams: &Streams, number: usize) {
    if let Some(stream) = lock(streams).get_mut(&number) {
        stream.closed = true;
    }
}

/// Returns when the gateway's only worker has gone round twice.
async fn looked(address: SocketAddr, ping: &mut Option<TcpStream>) {
    for _ in 0..2 {
        let mut tcp = match ping.take() {
            Some(tcp) => tcp,
            None => TcpStream::connect(address).await.unwrap(),
        };
        if event("the gateway's own answer", pinged(&mut tcp)).await.is_ok() {
            *ping = Some(tcp);
        }
    }
}

async fn pinged(tcp: &mut TcpStream) -> io::Result<()> {
    tcp.write_all(PING).await?;
    let mut answer = Vec::with_capacity(512);
    while !answer.ends_with(b"\r\n\r\n") {
        if tcp.read_buf(&mut answer).await? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

fn check_answers(answers: &[u8], input: &[u8]) {
    let shown = || format!("in  {}\nout {}", input.escape_ascii(), answers.escape_ascii());
    let first = answers.is_empty() || answers.starts_with(b"HTTP/1.1 ");
    // Some find the preface of HTTP/2, which is answered with SETTINGS.
    let preface = input.windows(14).any(|text| text == b"PRI * HTTP/2.0");
    assert!(first || (preface && answers.get(3) == Some(&4)), "{}", shown());
    // The backend says 200 to everything: this could only be a panic.
    assert!(!answers.windows(13).any(|text| text == b"HTTP/1.1 500 "), "{}", shown());
}

/// All rules for what reached the backend.
fn check(stream: &[u8], edge: bool) -> Result<(), String> {
    for request in models::one_reading(stream)? {
        if let Some(path) = read_as_admin(&request.target) {
            return Err(format!("somebody reads {path}"));
        }
        if !matches!(request.target.first(), Some(b'/' | b'*')) {
            return Err("the target is no path".to_owned());
        }
    }
    for message in messages(stream) {
        check_fields(&message, edge)?;
    }
    Ok(())
}

/// The field lines of a request and of its trailers, names as CGI reads them.
#[derive(Debug, Default)]
struct Message {
    fields: Vec<(String, Vec<u8>)>,
    trailers: Vec<(String, Vec<u8>)>,
}

impl Message {
    fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.fields.iter().filter(move |(n, _)| n == name).map(|(_, value)| &value[..])
    }
}

fn check_fields(message: &Message, edge: bool) -> Result<(), String> {
    let exactly = |name: &str, value: &str| {
        let seen: Vec<_> = message.all(name).collect();
        if seen == [value.as_bytes()] { Ok(()) } else { Err(format!("{name} is {seen:?}")) }
    };
    exactly("X_GW_IDENTITY", "gw")?;
    exactly("X_FORWARDED_PROTO", "http").or_else(|fault| if edge { Ok(()) } else { Err(fault) })?;
    if !edge {
        exactly("X_FORWARDED_FOR", "127.0.0.1")?;
    }
    for name in ["HOST", "X_FORWARDED_FOR", "X_REQUEST_ID", "TRACEPARENT"] {
        if message.all(name).count() != 1 {
            return Err(format!("not one {name}"));
        }
    }
    let mut own = ["X_FORWARDED_FOR", "X_FORWARDED_HOST", "X_FORWARDED_PROTO"].to_vec();
    if edge {
        // Trusted proxies may say it.
        own.push("X_FORWARDED_PORT");
    }
    for (name, value) in &message.fields {
        let odd = match name.as_str() {
            "CONNECTION" => !matches!(&value[..], b"te"),
            "TE" => value != b"trailers",
            "KEEP_ALIVE" | "PROXY_CONNECTION" | "UPGRADE" | "HTTP2_SETTINGS" | "TRAILER"
            | "X_REAL_IP" | "FORWARDED" => true,
            name if name.starts_with("PORTCULLIS") => true,
            name if name.starts_with("X_FORWARDED") => !edge && !own.contains(&name),
            _ => false,
        };
        if odd {
            return Err(format!("{name} is {}", value.escape_ascii()));
        }
    }
    let never = |name: &str| {
        let exact = [
            "X_GW_IDENTITY",
            "X_REAL_IP",
            "X_REQUEST_ID",
            "HOST",
            "CONTENT_LENGTH",
            "TRANSFER_ENCODING",
        ];
        let begins = ["X_FORWARDED", "PORTCULLIS"];
        exact.contains(&name) || begins.iter().any(|prefix| name.starts_with(prefix))
    };
    match message.trailers.iter().find(|(name, _)| never(name)) {
        Some((name, _)) => Err(format!("{name} in a trailer")),
        None => Ok(()),
    }
}

/// The messages of a stream that has one reading; the last may be cut.
fn messages(stream: &[u8]) -> Vec<Message> {
    let mut messages = Vec::new();
    let mut rest = stream;
    while let Some(message) = take_message(&mut rest) {
        messages.push(message);
    }
    messages
}

fn take_message(rest: &mut &[u8]) -> Option<Message> {
    while rest.starts_with(b"\r\n") {
        *rest = &rest[2..];
    }
    take_line(rest)?;
    let mut message = Message { fields: take_fields(rest)?, trailers: Vec::new() };
    if message.all("TRANSFER_ENCODING").next().is_some() {
        while let Some(line) = take_line(rest) {
            let size = usize::from_str_radix(&String::from_utf8_lossy(line), 16).unwrap_or(0);
            if size == 0 {
                message.trailers = take_fields(rest).unwrap_or_default();
                break;
            }
            *rest = rest.get(size + 2..).unwrap_or_default();
        }
        return Some(message);
    }
    let length = message.all("CONTENT_LENGTH").next();
    let length = length.and_then(|value| std::str::from_utf8(value).ok()?.parse().ok());
    *rest = rest.get(length.unwrap_or(0)..).unwrap_or_default();
    Some(message)
}

fn take_fields(rest: &mut &[u8]) -> Option<Vec<(String, Vec<u8>)>> {
    let mut fields = Vec::new();
    loop {
        let line = take_line(rest)?;
        if line.is_empty() {
            return Some(fields);
        }
        let colon = line.iter().position(|byte| *byte == b':')?;
        let fold = |byte: &u8| {
            if byte.is_ascii_alphanumeric() { char::from(byte.to_ascii_uppercase()) } else { '_' }
        };
        let name = line[..colon].iter().map(fold).collect();
        fields.push((name, line[colon + 1..].trim_ascii().to_vec()));
    }
}

fn take_line<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let end = rest.windows(2).position(|pair| pair == b"\r\n")?;
    let line = &rest[..end];
    *rest = &rest[end + 2..];
    Some(line)
}
