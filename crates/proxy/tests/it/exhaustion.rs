//! What happens when something is used up: descriptors, connections of an address, buffers.

mod buffers;

use std::fs::File;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use portcullis_testkit::backend::response;
use portcullis_testkit::{Backend, Cut, H1Client, Request, Setup, TestGateway, until};
use tokio::net::{TcpSocket, TcpStream};

use crate::to;

/// Runs a test of this module in a process of its own with few descriptors. `true` in that process.
fn has_few_descriptors(test: &str) -> bool {
    const MARK: &str = "PORTCULLIS_TEST_FEW_DESCRIPTORS";
    if std::env::var_os(MARK).is_some() {
        return true;
    }
    let script = format!("ulimit -n 128 && exec \"$0\" --exact exhaustion::{test} --nocapture");
    let program = std::env::current_exe().unwrap();
    let output =
        Command::new("sh").arg("-c").arg(script).arg(program).env(MARK, "1").output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    false
}

/// Takes all descriptors there are.
fn fill() -> Vec<File> {
    std::iter::from_fn(|| File::open("/dev/null").ok()).collect()
}

fn pauses(gateway: &TestGateway) -> Option<f64> {
    gateway.metric(r#"portcullis_accept_pauses_total{listener="plain"}"#)
}

fn bound(gateway: &TestGateway, name: &str) -> Option<f64> {
    gateway.metric(&format!(r#"portcullis_bounds_total{{bound="{name}"}}"#))
}

#[tokio::test]
async fn without_descriptors_accepting_pauses_and_who_is_there_is_served() {
    let name = "without_descriptors_accepting_pauses_and_who_is_there_is_served";
    if !has_few_descriptors(name) {
        return;
    }
    let backend = Backend::echo().await;
    let gateway = to(&backend).start();
    let mut here = H1Client::connect(gateway.address("plain")).await;
    assert_eq!(here.exchange(&Request::post("/", "a")).await.unwrap().status, 200);

    let mut files = fill();
    assert!(files.len() > 10, "{}", files.len());
    drop(files.pop());
    // Its own descriptor was the last one; the kernel connects it all the same.
    let tcp = TcpStream::connect(gateway.address("plain")).await.unwrap();
    let mut late = H1Client::over(tcp);
    late.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    until("a pause", || pauses(&gateway) == Some(1.0)).await;
    for _ in 0..20 {
        assert_eq!(here.exchange(&Request::post("/", "a")).await.unwrap().status, 200);
    }
    // The worker has been through all that without looking again: time stands still.
    assert_eq!(pauses(&gateway), Some(1.0));
    assert_eq!(bound(&gateway, "descriptors"), Some(1.0));
    gateway.clock.advance(Duration::from_millis(100));
    until("another pause", || pauses(&gateway) == Some(2.0)).await;
    assert_eq!(here.exchange(&Request::post("/", "a")).await.unwrap().status, 200);
    assert_eq!(pauses(&gateway), Some(2.0));

    drop(files);
    gateway.clock.advance(Duration::from_millis(100));
    assert_eq!(late.response("GET").await.unwrap().status, 200);
    assert_eq!(pauses(&gateway), Some(2.0));
    gateway.settle().await;
}

#[tokio::test]
async fn without_descriptors_a_new_connection_to_a_backend_is_a_503() {
    let name = "without_descriptors_a_new_connection_to_a_backend_is_a_503";
    if !has_few_descriptors(name) {
        return;
    }
    let (used, fresh) = (Backend::echo().await, Backend::echo().await);
    let folder = tempfile::tempdir().unwrap();
    let gateway = Setup::new(&format!(
        r#"
routes:
  used: {{ match: /used, public: "a test", to: used }}
  fresh: {{ match: /fresh, public: "a test", to: fresh }}
  named: {{ match: /named, public: "a test", to: named }}
  unix: {{ match: /unix, public: "a test", to: unix }}
backends:
  used: "{}"
  fresh: "{}"
  named: "http://localhost:{}"
  unix: "unix:{}"
"#,
        used.url(),
        fresh.url(),
        fresh.address.port(),
        folder.path().join("app.sock").display(),
    ))
    .start();
    let mut client = H1Client::connect(gateway.address("plain")).await;
    let mut ask = async |path: &str| {
        let answer = client.exchange(&Request::get(path)).await.unwrap();
        (answer.status, answer.problem())
    };
    let (fine, busy) = ((200, String::new()), (503, "backend-busy".to_owned()));
    assert_eq!(ask("/used").await, fine);
    let files = fill();
    assert_eq!(ask("/fresh").await, busy);
    assert_eq!(ask("/unix").await, busy);
    // A name cannot be looked up without descriptors.
    assert_eq!(ask("/named").await, busy);
    // A connection that is there already can be used.
    assert_eq!(ask("/used").await, fine);
    assert_eq!(bound(&gateway, "descriptors"), Some(3.0));
    drop(files);
    // The endpoints were not to blame: they have not been set aside.
    assert_eq!(ask("/fresh").await, fine);
    assert_eq!(ask("/named").await, fine);
    assert_eq!(fresh.connections(), 2);
}

#[tokio::test]
async fn without_descriptors_nobody_is_found_unhealthy() {
    if !has_few_descriptors("without_descriptors_nobody_is_found_unhealthy") {
        return;
    }
    let sick = Backend::always(response(500, "")).await;
    let well = Backend::always(response(200, "")).await;
    let gateway = Setup::new(&format!(
        r#"
routes: {{ all: {{ match: /**, public: "a test", to: backend }} }}
backends:
  backend:
    endpoints: ["{}", "{}"]
    balance: round_robin
    health: {{ path: /healthz, interval: 10s, timeout: 1h }}
"#,
        sick.url(),
        well.url()
    ))
    .start();
    let checks = async |done: &dyn Fn() -> bool| {
        let tick = || gateway.clock.advance(Duration::from_millis(10));
        until("health checks", || {
            tick();
            done()
        })
        .await;
    };
    checks(&|| !sick.requests().is_empty() && !well.requests().is_empty()).await;
    gateway.settle().await;
    let mut files = fill();
    // More than it takes to be found down, for both.
    checks(&|| bound(&gateway, "descriptors") >= Some(6.0)).await;
    files.clear();
    // If there were nobody left who is well, everybody would be asked.
    let mut client = H1Client::connect(gateway.address("plain")).await;
    for _ in 0..4 {
        assert_eq!(client.exchange(&Request::get("/")).await.unwrap().status, 200);
    }
}

/// Two connections for each address.
fn two(settings: &str, backend: &Backend) -> Setup {
    Setup::new(&format!(
        r#"
listeners:
  plain: {{ bind: "127.0.0.1:0", connections_per_address_max: 2, {settings} }}
  other: {{ bind: "127.0.0.1:0" }}
defaults: {{ on: [plain, other] }}
routes: {{ all: {{ match: /**, public: "a test", to: backend }} }}
backends: {{ backend: "{}" }}
"#,
        backend.url()
    ))
}

/// A connection that has been served, or how it ended instead.
async fn connect(from: &str, to: SocketAddr, preamble: &str) -> Result<H1Client, Cut> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{from}:0").parse().unwrap()).unwrap();
    let mut client = H1Client::over(socket.connect(to).await.unwrap());
    // Not before it is known whether the gateway keeps it: a close with unread bytes is a reset.
    client.send(preamble).await;
    client.send("GET /testkit/ping HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.response("GET").await.map(|answer| {
        assert_eq!(answer.status, 204);
        client
    })
}

#[tokio::test]
async fn an_address_has_so_many_connections_over_all_workers() {
    let backend = Backend::echo().await;
    let gateway = two("", &backend).workers(2).start();
    let plain = gateway.address("plain");
    let one = connect("127.0.0.1", plain, "").await.unwrap();
    let _two = connect("127.0.0.1", plain, "").await.unwrap();
    assert_eq!(gateway.gateway.loads(), [1, 1]);
    for _ in 0..2 {
        let cut = connect("127.0.0.1", plain, "").await.unwrap_err();
        assert!(matches!(cut, Cut::Closed | Cut::Reset), "{cut:?}");
    }
    let refused = r#"portcullis_connections_refused_total{listener="plain"}"#;
    assert_eq!(gateway.metric(refused), Some(2.0));
    assert_eq!(bound(&gateway, "connections_per_address_max"), Some(2.0));
    assert_eq!(bound(&gateway, "connections_max"), Some(0.0));
    // The neighbour has connections of its own.
    let _neighbour = connect("127.0.0.2", plain, "").await.unwrap();
    // A listener that allows more counts the same ones.
    let _other = connect("127.0.0.1", gateway.address("other"), "").await.unwrap();
    drop(one);
    gateway.connections(3).await;
    assert!(connect("127.0.0.1", plain, "").await.is_err());
    drop(_other);
    gateway.connections(2).await;
    let _again = connect("127.0.0.1", plain, "").await.unwrap();
    assert_eq!(bound(&gateway, "connections_per_address_max"), Some(3.0));
}

#[tokio::test]
async fn behind_a_proxy_nobody_is_counted_or_whom_it_names() {
    let backend = Backend::echo().await;
    let gateway = two(r#"trusted_proxies: ["127.0.0.1"]"#, &backend).start();
    let mut clients = Vec::new();
    for _ in 0..5 {
        clients.push(connect("127.0.0.1", gateway.address("plain"), "").await.unwrap());
    }

    let settings = r#"trusted_proxies: ["127.0.0.1"], proxy_protocol: true"#;
    let gateway = two(settings, &backend).start();
    let plain = gateway.address("plain");
    let mut named = async |client: &str| {
        let header = format!("PROXY {client} 80 80\r\n");
        let result = connect("127.0.0.1", plain, &header).await;
        result.map(|client| clients.push(client)).is_ok()
    };
    let (v4, v6) = ("TCP4 192.0.2.1 192.0.2.9", "TCP6 2001:db8::1 2001:db8:9::9");
    let subscriber = "TCP6 2001:db8::2 2001:db8:9::9";
    assert!(named(v4).await && named(v4).await && !named(v4).await);
    assert!(named(v6).await && named(subscriber).await && !named(v6).await);
    assert!(named("TCP4 192.0.2.2 192.0.2.9").await);
    // The proxy itself, and whoever it does not know.
    for _ in 0..3 {
        assert!(named("UNKNOWN").await);
    }
    assert_eq!(bound(&gateway, "connections_per_address_max"), Some(2.0));
}

#[tokio::test]
async fn peers_of_a_unix_socket_are_not_counted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("http.sock");
    let backend = Backend::echo().await;
    let text = format!(
        r#"
listeners: {{ unix: {{ bind: "unix:{}", connections_per_address_max: 1 }} }}
routes: {{ all: {{ match: /**, public: "a test", to: backend }} }}
backends: {{ backend: "{}" }}
"#,
        path.display(),
        backend.url()
    );
    let gateway = Setup::new(&text).start();
    let mut clients = Vec::new();
    for _ in 0..5 {
        let mut client = H1Client::connect_unix(&path).await;
        assert_eq!(client.exchange(&Request::get("/")).await.unwrap().status, 200);
        clients.push(client);
    }
    assert_eq!(bound(&gateway, "connections_per_address_max"), Some(0.0));
}
