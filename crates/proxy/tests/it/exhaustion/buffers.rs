//! One side of an exchange is fast and the other does not read: how much the fast one gets rid of
//! is all that the gateway, and the kernel, hold.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use bytes::Bytes;
use portcullis_testkit::h2::H2Client;
use portcullis_testkit::h2_backend::{H2Backend, Manner};
use portcullis_testkit::{H1Client, Setup, TestGateway};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::AbortHandle;

/// Bytes of a body; many times what may be held.
const BODY: usize = 16 << 20;

/// What the gateway may hold of one direction of an exchange, in user space.
const HELD_MAX: usize = 64 * 1024;

/// What HTTP/2 lets a sender send that the receiver has not asked for yet, by stream.
const WINDOW: usize = 64 * 1024;

const PIECE: usize = 16 * 1024;

/// What the kernel holds of a Unix socket that nobody reads. Unlike TCP's, that is always the same,
/// so these tests use Unix sockets.
fn kernel_holds() -> usize {
    let (write, _read) = std::os::unix::net::UnixStream::pair().unwrap();
    write.set_nonblocking(true).unwrap();
    let mut held = 0;
    while let Ok(n) = std::io::Write::write(&mut &write, &[0; PIECE]) {
        held += n;
    }
    held
}

/// Counts what its holder got rid of, until it is dropped.
struct Sender {
    sent: Arc<AtomicUsize>,
    task: AbortHandle,
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Sender {
    /// Whatever `send` does, which adds to the count.
    fn start<F>(send: impl FnOnce(Arc<AtomicUsize>) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let sent = Arc::new(AtomicUsize::new(0));
        let task = tokio::spawn(send(Arc::clone(&sent))).abort_handle();
        Self { sent, task }
    }

    /// How much it got rid of by the time it gets rid of no more.
    async fn blocked(&self, gateway: &TestGateway) -> usize {
        let (mut before, mut rounds) = (0, 0);
        while rounds < 5 {
            // Whatever the worker can do, it has done; then whatever the sender can.
            gateway.settle().await;
            for _ in 0..200 {
                tokio::task::yield_now().await;
            }
            let sent = self.sent.load(SeqCst);
            rounds = if sent == before && sent > 0 { rounds + 1 } else { 0 };
            before = sent;
        }
        before
    }
}

/// Pieces of a body on HTTP/1.1.
async fn pour(mut io: UnixStream, head: String, sent: Arc<AtomicUsize>) {
    io.write_all(head.as_bytes()).await.unwrap();
    let piece = [0; PIECE];
    let mut left = BODY;
    while left > 0 {
        let n = io.write(&piece[..PIECE.min(left)]).await.unwrap();
        sent.fetch_add(n, SeqCst);
        left -= n;
    }
    // What comes back is for nobody; the connection stays open.
    while io.read_u8().await.is_ok() {}
}

/// The same on HTTP/2, as windows allow.
async fn stream(mut send: h2::SendStream<Bytes>, sent: Arc<AtomicUsize>) {
    let mut left = BODY;
    while left > 0 {
        send.reserve_capacity(PIECE.min(left));
        let Some(Ok(room)) = std::future::poll_fn(|cx| send.poll_capacity(cx)).await else {
            return;
        };
        let n = room.min(PIECE).min(left);
        if n > 0 {
            send.send_data(Bytes::from_static(&[0; PIECE]).split_to(n), n == left).unwrap();
            sent.fetch_add(n, SeqCst);
            left -= n;
        }
    }
}

fn gateway(folder: &TempDir, url: &str, h2: bool) -> TestGateway {
    let protocol = if h2 { "h2" } else { "h1" };
    let socket = folder.path().join("http.sock");
    Setup::new(&format!(
        r#"
listeners:
  plain: {{ bind: "127.0.0.1:0" }}
  unix: {{ bind: "unix:{}" }}
defaults: {{ on: [plain, unix], body_max: 1GiB }}
routes: {{ all: {{ match: /**, public: "a test", to: backend }} }}
backends: {{ backend: {{ endpoints: ["{url}"], protocol: {protocol} }} }}
"#,
        socket.display()
    ))
    .start()
}

async fn accepted(listener: &UnixListener) -> UnixStream {
    portcullis_testkit::event("the gateway connects", listener.accept()).await.unwrap().0
}

/// Up to the end of a head.
async fn head(io: &mut UnixStream) {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        bytes.push(io.read_u8().await.unwrap());
    }
}

fn check(sent: usize, others: usize, what: &str) {
    let held = sent.saturating_sub(others);
    assert!(sent < BODY && held <= HELD_MAX, "{what}: {sent} sent, {others} held by others");
}

/// A client that asks and does not read, over HTTP/1.1.
async fn h1_asks(socket: &Path) -> H1Client {
    let mut client = H1Client::connect_unix(socket).await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client
}

/// The same over HTTP/2: the stream's window is never opened again.
async fn h2_asks(socket: &Path) -> (H2Raw, h2::client::ResponseFuture) {
    let mut client = H2Raw::connect(socket).await;
    let request = http::Request::get("http://a/").body(()).unwrap();
    let (answer, _) = client.send.send_request(request, true).unwrap();
    (client, answer)
}

/// An HTTP/2 connection whose streams the test handles itself.
struct H2Raw {
    send: h2::client::SendRequest<Bytes>,
    task: AbortHandle,
}

impl Drop for H2Raw {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl H2Raw {
    async fn connect(socket: &Path) -> Self {
        let io = UnixStream::connect(socket).await.unwrap();
        let (send, connection) = h2::client::handshake(io).await.unwrap();
        let task = tokio::spawn(async move { drop(connection.await) }).abort_handle();
        Self { send: send.ready().await.unwrap(), task }
    }
}

#[tokio::test]
async fn a_fast_h1_backend_and_a_client_that_does_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.sock");
    let url = format!("unix:{}", path.display());
    let kernel = kernel_holds();
    for client_h2 in [false, true] {
        let listener = UnixListener::bind(&path).unwrap();
        let gateway = gateway(&folder, &url, false);
        let socket = folder.path().join("http.sock");
        let (mut one, mut two) = (None, None);
        match client_h2 {
            false => one = Some(h1_asks(&socket).await),
            true => two = Some(h2_asks(&socket).await),
        }
        let mut io = accepted(&listener).await;
        head(&mut io).await;
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {BODY}\r\n\r\n");
        let sender = Sender::start(|sent| pour(io, answer, sent));
        let sent = sender.blocked(&gateway).await;
        let before_the_client = if client_h2 { WINDOW } else { kernel };
        check(sent, kernel + before_the_client, &format!("h2 client: {client_h2}"));
        // It was only slow: once it reads, all arrives.
        if let Some(client) = &mut one {
            assert_eq!(client.response("GET").await.unwrap().body.len(), BODY);
        }
        if let Some((_client, answer)) = two {
            assert_eq!(read(answer).await, BODY);
        }
        std::fs::remove_file(&path).unwrap();
    }
}

async fn read(answer: h2::client::ResponseFuture) -> usize {
    let mut body = answer.await.unwrap().into_body();
    let mut whole = 0;
    while let Some(data) = portcullis_testkit::event("data", body.data()).await {
        let n = data.unwrap().len();
        whole += n;
        body.flow_control().release_capacity(n).unwrap();
    }
    whole
}

#[tokio::test]
async fn a_fast_h2_backend_and_a_client_that_does_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let kernel = kernel_holds();
    for client_h2 in [false, true] {
        let sent = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&sent);
        let backend = H2Backend::start(Manner::default(), move |mut request| {
            let sent = Arc::clone(&count);
            async move { stream(request.head(200, &[]), sent).await }
        })
        .await;
        let gateway = gateway(&folder, &backend.url(), true);
        let socket = folder.path().join("http.sock");
        let (mut one, mut two) = (None, None);
        match client_h2 {
            false => one = Some(h1_asks(&socket).await),
            true => two = Some(h2_asks(&socket).await),
        }
        let sender = Sender { sent, task: tokio::spawn(async {}).abort_handle() };
        let sent = sender.blocked(&gateway).await;
        let before_the_client = if client_h2 { WINDOW } else { kernel };
        check(sent, WINDOW + before_the_client, &format!("h2 client: {client_h2}"));
        if let Some(client) = &mut one {
            assert_eq!(client.response("GET").await.unwrap().body.len(), BODY);
        }
        if let Some((_client, answer)) = two {
            assert_eq!(read(answer).await, BODY);
        }
    }
}

#[tokio::test]
async fn a_fast_client_and_a_backend_that_does_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.sock");
    let url = format!("unix:{}", path.display());
    let kernel = kernel_holds();
    for (client_h2, backend_h2) in [(false, false), (true, false), (false, true), (true, true)] {
        let what = format!("h2 client: {client_h2}, h2 backend: {backend_h2}");
        let listener = UnixListener::bind(&path).unwrap();
        let slow = H2Backend::start(Manner::default(), |mut request| async move {
            // Takes the body as far as the window goes, and never opens it again.
            let _body = request.body.data().await;
            std::future::pending::<()>().await;
        })
        .await;
        let gateway = match backend_h2 {
            false => gateway(&folder, &url, false),
            true => gateway(&folder, &slow.url(), true),
        };
        let socket = folder.path().join("http.sock");
        let mut raw = None;
        let sender = match client_h2 {
            false => {
                let io = UnixStream::connect(&socket).await.unwrap();
                let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {BODY}\r\n\r\n");
                Sender::start(|sent| pour(io, head, sent))
            }
            true => {
                let mut client = H2Raw::connect(&socket).await;
                let request = http::Request::post("http://a/").body(()).unwrap();
                let (answer, body) = client.send.send_request(request, false).unwrap();
                raw = Some((client, answer));
                Sender::start(|sent| stream(body, sent))
            }
        };
        let sent = sender.blocked(&gateway).await;
        let before = if client_h2 { WINDOW } else { kernel };
        let after = if backend_h2 { WINDOW } else { kernel };
        check(sent, before + after, &what);
        drop(raw);
        if !backend_h2 {
            // It has come as far as the backend's door.
            let mut io = accepted(&listener).await;
            head(&mut io).await;
        }
        std::fs::remove_file(&path).unwrap();
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_costs_its_neighbour_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    let backend = H2Backend::start(Manner::default(), move |mut request| {
        let sent = Arc::clone(&count);
        async move {
            match request.request.uri().path() {
                "/" => stream(request.head(200, &[]), sent).await,
                _ => request.answer(200, &[], "quick"),
            }
        }
    })
    .await;
    let gateway = gateway(&folder, &backend.url(), true);
    let socket = folder.path().join("http.sock");
    let _slow = h1_asks(&socket).await;
    let sender = Sender { sent, task: tokio::spawn(async {}).abort_handle() };
    let held = sender.blocked(&gateway).await;
    assert!(held < BODY);
    // Over the same connection to the backend.
    let mut quick = H2Client::connect_unix(&socket).await;
    let answer = quick.exchange(&portcullis_testkit::Request::get("/quick")).await.unwrap();
    assert_eq!(answer.text(), "quick");
    assert_eq!(backend.connections(), 1);
}
