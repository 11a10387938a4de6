//! Unix sockets as listener and as backend.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use portcullis_testkit::backend::{Conversation, response};
use portcullis_testkit::h2::H2Client;
use portcullis_testkit::{
    Answer, Backend, Body, Cut, H1Client, Pki, Request, Setup, TestGateway, event, until,
};
use tempfile::TempDir;
use tokio::net::UnixListener;

/// A folder with sockets; short, since the kernel's addresses are.
fn folder() -> (TempDir, impl Fn(&str) -> PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    (folder, move |name: &str| path.join(name))
}

/// A listener `unix`, with these settings besides, and one for the testkit's own requests.
fn config(socket: &Path, settings: &str, url: &str) -> String {
    format!(
        r#"
listeners:
  plain: {{ bind: "127.0.0.1:0" }}
  unix: {{ bind: "unix:{}", {settings} }}
defaults: {{ on: [plain, unix] }}
routes:
  everything: {{ match: /**, public: "a test", to: backend }}
backends:
  backend: {{ endpoints: ["{url}"], host: backend }}
"#,
        socket.display()
    )
}

async fn echo(mut conversation: Conversation) {
    while let Some(request) = conversation.request().await {
        let head = format!("HTTP/1.1 200 X\r\nContent-Length: {}\r\n\r\n", request.body.len());
        conversation.send([head.as_bytes(), &request.body].concat()).await;
    }
}

fn is_gone(path: &Path) -> bool {
    path.symlink_metadata().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
}

#[tokio::test]
async fn requests_pass_from_socket_to_socket_in_every_protocol() {
    let (_folder, at) = folder();
    let backend = Backend::start_unix(&at("app.sock"), echo);
    let tls = r#"tls: { certificates: [{ cert: "file:cert.pem", key: "file:key.pem" }] }"#;
    let clear = Setup::new(&config(&at("clear.sock"), "", &backend.url())).start();
    let gateway = Setup::new(&config(&at("tls.sock"), tls, &backend.url())).start();
    let body = Bytes::from(vec![7; 1 << 20]);
    let post = || Request::post("/", body.clone());

    let whole = |answer: Result<Answer, Cut>| {
        let answer = answer.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(answer.body == body);
    };
    let mut client = H1Client::connect_unix(&at("clear.sock")).await;
    whole(client.exchange(&post()).await);
    whole(client.exchange(&post()).await);
    let mut client = H2Client::connect_unix(&at("clear.sock")).await;
    whole(client.exchange(&post()).await);
    let mut client = H1Client::connect_unix_tls(&at("tls.sock"), &gateway.pki).await;
    whole(client.exchange(&post()).await);

    let last = backend.last();
    assert_eq!(last.field("host"), Some("localhost"));
    assert_eq!(last.field("x-forwarded-for"), Some("127.0.0.1"));
    // One for each gateway: they are used again.
    assert_eq!(backend.connections(), 2);
    let lines = clear.stop();
    let line = lines.last().unwrap();
    let endpoint = format!(r#""endpoint":"unix:{}""#, at("app.sock").display());
    assert!(line.contains(&endpoint) && line.contains(r#""client":"127.0.0.1""#), "{line}");
    drop(gateway);
}

#[tokio::test]
async fn a_backend_that_speaks_http_2_on_a_socket() {
    let (_folder, at) = folder();
    let socket = UnixListener::bind(at("app.sock")).unwrap();
    let backend = tokio::spawn(async move {
        let (io, _) = socket.accept().await.unwrap();
        let mut connection = h2::server::handshake(io).await.unwrap();
        let (request, mut respond) = connection.accept().await.unwrap().unwrap();
        let mut body = respond.send_response(http::Response::new(()), false).unwrap();
        body.send_data(Bytes::from_static(b"two"), true).unwrap();
        let authority = request.uri().authority().unwrap().to_string();
        // Until the gateway closes.
        while connection.accept().await.is_some() {}
        authority
    });
    let url = format!("unix:{}", at("app.sock").display());
    let text =
        config(&at("http.sock"), "", &url).replace("host: backend", "host: backend, protocol: h2");
    let gateway = Setup::new(&text).start();
    let mut client = H1Client::connect_unix(&at("http.sock")).await;
    let answer = client.exchange(&Request::get("/")).await.unwrap();
    assert_eq!((answer.status, answer.text()), (200, "two".to_owned()));
    drop(gateway.stop());
    assert_eq!(event("the backend ends", backend).await.unwrap(), "localhost");
}

#[tokio::test]
async fn whoever_connects_to_a_socket_counts_as_127_0_0_1() {
    let (_folder, at) = folder();
    let backend = Backend::start_unix(&at("app.sock"), echo);
    let trusting = r#"trusted_proxies: ["127.0.0.1/32"]"#;
    let forwarded = Request::get("/").field("x-forwarded-for", "192.0.2.7");

    let gateway = Setup::new(&config(&at("a.sock"), trusting, &backend.url())).start();
    let mut client = H1Client::connect_unix(&at("a.sock")).await;
    client.exchange(&forwarded).await.unwrap();
    assert_eq!(backend.last().field("x-forwarded-for"), Some("192.0.2.7, 127.0.0.1"));
    let line = gateway.stop().pop().unwrap();
    assert!(line.contains(r#""client":"192.0.2.7""#), "{line}");

    let settings = format!("{trusting}, proxy_protocol: true");
    let gateway = Setup::new(&config(&at("b.sock"), &settings, &backend.url())).start();
    let mut client = H1Client::connect_unix(&at("b.sock")).await;
    client
        .send("PROXY TCP6 2001:db8::7 2001:db8::1 5 443\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n")
        .await;
    assert_eq!(client.response("GET").await.unwrap().status, 200);
    assert_eq!(backend.last().field("x-forwarded-for"), Some("2001:db8::7"));
    drop(gateway);

    let text = config(&at("c.sock"), "", &backend.url());
    let filtered = text.replace(
        "public: \"a test\",",
        "public: \"a test\", ip_filter: { deny: [\"127.0.0.1\"] },",
    );
    let gateway = Setup::new(&filtered).start();
    let mut client = H1Client::connect_unix(&at("c.sock")).await;
    assert_eq!(client.exchange(&Request::get("/")).await.unwrap().problem(), "address-not-allowed");
    drop(gateway);
}

#[tokio::test]
async fn connections_of_a_socket_are_shared_out_among_workers() {
    let (_folder, at) = folder();
    let backend = Backend::start_unix(&at("app.sock"), echo);
    let text = config(&at("http.sock"), "", &backend.url());
    let gateway = Setup::new(&text).workers(2).real_clock().start();
    let mut clients = Vec::new();
    for n in 1..=8 {
        let mut client = H1Client::connect_unix(&at("http.sock")).await;
        // Before it is answered there is no telling whether it has been counted.
        assert_eq!(client.exchange(&Request::get("/")).await.unwrap().status, 200);
        gateway.connections(n).await;
        clients.push(client);
    }
    assert_eq!(gateway.gateway.loads(), [4, 4]);
}

#[tokio::test]
async fn a_reload_keeps_a_socket_and_a_listener_that_goes_takes_its_file_along() {
    let (_folder, at) = folder();
    let backend = Backend::start_unix(&at("app.sock"), echo);
    let path = at("http.sock");
    let text = config(&path, "", &backend.url());
    let gateway = Setup::new(&text).start();
    let file = || path.metadata().map(|it| (it.ino(), it.permissions().mode() & 0o7777)).unwrap();
    let (inode, mode) = file();
    assert_eq!(mode, 0o660);
    let mut client = H1Client::connect_unix(&path).await;
    assert_eq!(client.exchange(&Request::get("/")).await.unwrap().status, 200);

    let other_mode = config(&path, r#"socket_mode: "0600""#, &backend.url());
    gateway.swap(&other_mode);
    assert_eq!(file(), (inode, 0o600));
    assert_eq!(client.exchange(&Request::get("/")).await.unwrap().status, 200);
    // Under another name it is the same socket.
    gateway.swap(&other_mode.replace("unix: {", "renamed: {").replace(", unix]", ", renamed]"));
    assert_eq!(file(), (inode, 0o600));
    let mut another = H1Client::connect_unix(&path).await;
    assert_eq!(another.exchange(&Request::get("/")).await.unwrap().status, 200);
    assert_eq!(client.rest().await, (Vec::new(), Cut::Closed));

    let moved = config(&at("moved.sock"), "", &backend.url());
    gateway.swap(&moved);
    assert!(is_gone(&path));
    let mut moved = H1Client::connect_unix(&at("moved.sock")).await;
    assert_eq!(moved.exchange(&Request::get("/")).await.unwrap().status, 200);
    assert_eq!(another.rest().await, (Vec::new(), Cut::Closed));
    drop(gateway.stop());
    assert!(is_gone(&at("moved.sock")));
}

#[tokio::test]
async fn a_drain_refuses_whoever_comes_and_lets_finish_who_is_there() {
    let (_folder, at) = folder();
    let (permit, wait) = tokio::sync::oneshot::channel::<()>();
    let wait = std::sync::Mutex::new(Some(wait));
    let backend = Backend::start_unix(&at("app.sock"), move |mut conversation| {
        let wait = wait.lock().unwrap().take();
        async move {
            conversation.request().await;
            wait.unwrap().await.unwrap();
            conversation.send(response(200, "late")).await;
        }
    });
    let gateway = Setup::new(&config(&at("http.sock"), "", &backend.url())).real_clock().start();
    let mut client = H1Client::connect_unix(&at("http.sock")).await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    until("the request", || backend.requests().len() == 1).await;
    let drain = gateway.gateway.drain(Duration::from_secs(50));
    let finish = async {
        until("the file is gone", || is_gone(&at("http.sock"))).await;
        permit.send(()).unwrap();
        assert_eq!(client.response("GET").await.unwrap().text(), "late");
        drop(client);
    };
    let (drained, ()) = event("a drain", async { tokio::join!(drain, finish) }).await;
    assert!(drained);
}

#[tokio::test]
async fn an_endpoint_without_a_socket_is_passed_over() {
    let (_folder, at) = folder();
    let alive = Backend::start_unix(&at("alive.sock"), echo);
    let text = format!(
        r#"
routes:
  one: {{ match: /one, public: "a test", to: one }}
  two: {{ match: /two, public: "a test", to: two }}
backends:
  one: "unix:{dead}"
  two: {{ endpoints: ["unix:{dead}", "{}"], balance: round_robin }}
"#,
        alive.url(),
        dead = at("dead.sock").display(),
    );
    let gateway = Setup::new(&text).start();
    let mut client = H1Client::connect(gateway.address("plain")).await;
    let answer = client.exchange(&Request::get("/one")).await.unwrap();
    assert_eq!((answer.status, &*answer.problem()), (502, "backend-unreachable"));
    for _ in 0..4 {
        assert_eq!(client.exchange(&Request::get("/two")).await.unwrap().status, 200);
    }
    assert_eq!(alive.requests().len(), 4);
}

#[tokio::test]
async fn a_backend_with_a_full_backlog_is_waited_for() {
    let (_folder, at) = folder();
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
    socket.bind(&socket2::SockAddr::unix(at("app.sock")).unwrap()).unwrap();
    socket.listen(0).unwrap();
    socket.set_nonblocking(true).unwrap();
    let socket = UnixListener::from_std(socket.into()).unwrap();
    let before = tokio::net::UnixStream::connect(at("app.sock")).await.unwrap();
    let full = tokio::net::UnixStream::connect(at("app.sock")).await.unwrap_err();
    assert_eq!(full.kind(), std::io::ErrorKind::WouldBlock);

    let url = format!("unix:{}", at("app.sock").display());
    let gateway = Setup::new(&config(&at("http.sock"), "", &url)).start();
    let mut client = H1Client::connect_unix(&at("http.sock")).await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    gateway.settle().await;
    drop((socket.accept().await.unwrap(), before));
    gateway.advance(Duration::from_millis(10)).await;
    let (io, _) = event("the gateway connects", socket.accept()).await.unwrap();
    // It waits for as long as it may for any connection, and no longer.
    gateway.clock.advance(Duration::from_secs(60));
    assert_eq!(client.response("GET").await.unwrap().problem(), "backend-timeout");
    drop(io);
}

#[tokio::test]
async fn health_checks_ask_sockets_too() {
    let (_folder, at) = folder();
    let backend = Backend::start_unix(&at("app.sock"), |mut conversation| async move {
        while let Some(request) = conversation.request().await {
            let status = if request.line.starts_with("GET /healthz") { 500 } else { 200 };
            conversation.send(response(status, "")).await;
        }
    });
    let text = config(&at("http.sock"), "", &backend.url())
        .replace("host: backend }", "health: { path: /healthz, down_after: 1 } }");
    let gateway = Setup::new(&text).start();
    let asked = || backend.requests().iter().any(|request| request.line.contains("/healthz"));
    event("a check", async {
        while !asked() {
            gateway.advance(Duration::from_millis(100)).await;
        }
    })
    .await;
    assert_eq!(backend.requests()[0].field("host"), Some("localhost"));
}

/// Both listeners of `config` have connections of their own.
#[tokio::test]
async fn a_body_with_trailers_passes_a_socket() {
    let (_folder, at) = folder();
    let backend = Backend::start_unix(&at("app.sock"), echo);
    let gateway: TestGateway =
        Setup::new(&config(&at("a.sock"), "", &backend.url())).pki(&Pki::new()).start();
    let mut client = H1Client::connect_unix(&at("a.sock")).await;
    let request = Request::stream("/", &["one", "two"]).trailer("x-sum", "6");
    assert!(matches!(request.body, Body::Unknown { .. }));
    assert_eq!(client.exchange(&request).await.unwrap().text(), "onetwo");
    assert_eq!(backend.last().trailers, [("x-sum".to_owned(), "6".to_owned())]);
    drop(gateway);
}
