//! Active health checks take an endpoint out and put it back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use portcullis_testkit::backend::{Conversation, response};
use portcullis_testkit::h2_backend::{H2Backend, Manner, map};
use portcullis_testkit::{Backend, Client, Pki, Protocol, Request, Setup, TestGateway, until};
use portcullis_upstream::Health;

/// Answers `/healthz` as told and everything else with its name.
struct Patient {
    backend: Backend,
    status: Arc<AtomicU16>,
    checks: Arc<AtomicUsize>,
}

impl Patient {
    async fn new(name: &'static str) -> Self {
        let (status, checks) = (Arc::new(AtomicU16::new(200)), Arc::new(AtomicUsize::new(0)));
        let inside = (Arc::clone(&status), Arc::clone(&checks));
        let backend = Backend::start(move |mut conversation| {
            let (status, checks) = (Arc::clone(&inside.0), Arc::clone(&inside.1));
            async move {
                while let Some(request) = conversation.request().await {
                    if !request.line.starts_with("GET /healthz ") {
                        conversation.send(response(200, name)).await;
                        continue;
                    }
                    conversation.send(response(status.load(SeqCst), "")).await;
                    checks.fetch_add(1, SeqCst);
                }
            }
        })
        .await;
        Self { backend, status, checks }
    }
}

async fn served(gateway: &TestGateway) -> Vec<String> {
    let mut client = Client::connect(gateway, Protocol::H1).await;
    let mut names = Vec::new();
    for _ in 0..6 {
        names.push(client.send(Request::get("/")).await.unwrap().text());
    }
    names.sort();
    names
}

/// Moves the clock in small steps until both have been asked `more` times.
async fn checks(gateway: &TestGateway, patients: [&Patient; 2], more: usize) {
    let wanted = patients.map(|patient| patient.checks.load(SeqCst) + more);
    until("health checks", || {
        gateway.clock.advance(Duration::from_millis(1));
        patients.iter().zip(wanted).all(|(patient, wanted)| patient.checks.load(SeqCst) >= wanted)
    })
    .await;
    gateway.settle().await;
}

#[tokio::test]
async fn an_endpoint_that_is_not_well_gets_nothing_until_it_is() {
    let (one, two) = (Patient::new("one").await, Patient::new("two").await);
    let gateway = Setup::new(&format!(
        r#"
routes:
  all: {{ match: /**, public: "a test", to: backend }}
backends:
  backend:
    endpoints: ["{}", "{}"]
    balance: round_robin
    slow_start: off
    health: {{ path: /healthz, interval: 10s, timeout: 1h }}
"#,
        one.backend.url(),
        two.backend.url()
    ))
    .start();
    checks(&gateway, [&one, &two], 1).await;
    assert_eq!(served(&gateway).await, ["one", "one", "one", "two", "two", "two"]);

    one.status.store(500, SeqCst);
    checks(&gateway, [&one, &two], 2).await;
    assert_eq!(served(&gateway).await, ["two"; 6]);
    let asked = one.backend.requests();
    let check = asked.iter().find(|request| request.line.starts_with("GET /healthz ")).unwrap();
    assert_eq!(check.field("host"), Some(&*one.backend.address.to_string()));

    one.status.store(204, SeqCst);
    checks(&gateway, [&one, &two], 2).await;
    assert_eq!(served(&gateway).await, ["one", "one", "one", "two", "two", "two"]);
}

#[tokio::test]
async fn the_state_of_an_endpoint_survives_a_reload() {
    let (one, two) = (Patient::new("one").await, Patient::new("two").await);
    one.status.store(500, SeqCst);
    let text = format!(
        r#"
routes:
  all: {{ match: /**, public: "a test", to: backend }}
backends:
  backend: {{ endpoints: ["{}", "{}"], health: {{ path: /healthz, timeout: 1h }} }}
"#,
        one.backend.url(),
        two.backend.url()
    );
    let gateway = Setup::new(&text).start();
    checks(&gateway, [&one, &two], 2).await;
    assert_eq!(served(&gateway).await, ["two"; 6]);
    for i in 0..5 {
        gateway.swap(&text.replace("a test", &format!("reload {i}")));
        gateway.settle().await;
        assert_eq!(served(&gateway).await, ["two"; 6]);
    }
}

/// The health of each endpoint once all have been asked often enough to be believed.
pub(crate) async fn verdicts(gateway: &TestGateway, wanted: &[Health]) {
    let snapshot = gateway.gateway.snapshot();
    let set = snapshot.backends[0].endpoints.load();
    let members = set.balancer.members();
    until("the health of each endpoint", || {
        gateway.clock.advance(Duration::from_millis(10));
        members.iter().map(|member| member.endpoint.health()).eq(wanted.iter().copied())
    })
    .await;
}

fn asking(health: &str, urls: &[String]) -> TestGateway {
    let urls: Vec<String> = urls.iter().map(|url| format!("{url:?}")).collect();
    let urls = urls.join(", ");
    Setup::new(&format!(
        r#"
routes:
  all: {{ match: /**, public: "a test", to: backend }}
backends:
  backend: {{ endpoints: [{urls}], health: {health} }}
"#
    ))
    .start()
}

#[tokio::test]
async fn the_answer_may_have_to_contain_something() {
    let well = Patient::new("state: ready").await;
    let not = Patient::new("state: starting").await;
    let urls = [well.backend.url(), not.backend.url()].map(|url| url.to_string());
    let gateway = asking(r#"{ path: /state, contains: "ready", timeout: 1h }"#, &urls);
    verdicts(&gateway, &[Health::Up, Health::Down]).await;
}

/// What each server says by gRPC's health protocol, in its bytes.
async fn grpc_server(message: &'static [u8], status: &'static str) -> H2Backend {
    H2Backend::start(Manner::default(), move |mut stream| async move {
        let (question, _) = stream.whole().await.unwrap();
        assert_eq!(question, b"\0\0\0\0\x08\x0a\x06a.Shop");
        assert_eq!(stream.request.uri().path(), "/grpc.health.v1.Health/Check");
        let mut body = stream.head(200, &[("content-type", "application/grpc")]);
        body.send_data(message.into(), false).unwrap();
        body.send_trailers(map(&[("grpc-status", status)])).unwrap();
    })
    .await
}

#[tokio::test]
async fn a_grpc_server_is_asked_in_its_own_words() {
    let servers = [
        grpc_server(b"\0\0\0\0\x02\x08\x01", "0").await,
        grpc_server(b"\0\0\0\0\x02\x08\x02", "0").await,
        grpc_server(b"", "5").await,
    ];
    let urls = servers.each_ref().map(|server| server.url().replace("http://", "h2c://"));
    let gateway = asking(r#"{ grpc: "a.Shop", timeout: 1h }"#, &urls);
    verdicts(&gateway, &[Health::Up, Health::Down, Health::Down]).await;
}

#[tokio::test]
async fn a_connection_may_be_enough() {
    let well = Patient::new("one").await;
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let urls = [well.backend.url().to_string(), format!("http://{gone}")];
    let gateway = asking("connect", &urls);
    verdicts(&gateway, &[Health::Up, Health::Down]).await;
    assert!(well.backend.requests().is_empty());
}

/// A check by connection is a handshake where there is TLS: whom the gateway would not trust with a
/// request is down.
#[tokio::test]
async fn a_connection_over_tls_is_one_only_where_it_is_trusted() {
    let (trusted, stranger) = (Pki::new(), Pki::new());
    let silent = |mut conversation: Conversation| async move {
        conversation.request().await;
    };
    let well = Backend::start_tls(&trusted, silent).await;
    let not = Backend::start_tls(&stranger, silent).await;
    let plain = Backend::start(silent).await;
    let https = |backend: &Backend| format!("https://localhost:{}", backend.address.port());
    let urls = [https(&well), https(&not), https(&plain)];
    let gateway = Setup::new(&format!(
        r#"
routes:
  all: {{ match: /**, public: "a test", to: backend }}
backends:
  backend:
    endpoints: {urls:?}
    health: {{ connect: true, timeout: 1h }}
    tls: {{ ca: "file:trusted.pem" }}
"#
    ))
    .file("trusted.pem", &trusted.ca)
    .start();
    verdicts(&gateway, &[Health::Up, Health::Down, Health::Down]).await;
    assert!(well.requests().is_empty());
}
