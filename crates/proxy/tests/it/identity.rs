//! Whoever has come by the address of a backend's endpoint gets no request, nor does a client hear
//! of him.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use portcullis_testkit::backend::response;
use portcullis_testkit::{Backend, Client, Pki, Protocol, Request, Setup, TestGateway};
use portcullis_upstream::Health;
use rcgen::{SanType, date_time_ymd};

use crate::health::verdicts;

const ORDERS: &str = "spiffe://example.org/ns/shop/sa/orders";
const USERS: &str = "spiffe://example.org/ns/shop/sa/users";

fn uri(name: &str) -> SanType {
    SanType::URI(name.try_into().unwrap())
}

fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

/// A service whose certificate has these names.
fn service(names: Vec<SanType>) -> Pki {
    Pki::with(|leaf| leaf.subject_alt_names = names)
}

#[tokio::test]
async fn a_certificate_has_to_name_the_service_whatever_the_host_is() {
    let localhost = || SanType::IpAddress([127, 0, 0, 1].into());
    let other_authority = Pki { ca: Pki::new().ca, ..service(vec![uri(ORDERS)]) };
    let expired = Pki::with(|leaf| {
        leaf.subject_alt_names = vec![uri(ORDERS)];
        leaf.not_after = date_time_ymd(2020, 1, 1);
    });
    let none_of_them = "which is none of `tls.identity`";
    let cases = [
        (ORDERS, service(vec![uri(ORDERS)]), Ok(())),
        ("spiffe://example.org/ns/*/sa/orders", service(vec![uri(ORDERS), dns("x.test")]), Ok(())),
        ("spiffe://example.org/**", service(vec![uri(USERS)]), Ok(())),
        ("orders.internal", service(vec![dns("orders.internal")]), Ok(())),
        ("urn:service:orders", service(vec![uri("urn:service:orders")]), Ok(())),
        (ORDERS, service(vec![uri(USERS)]), Err(USERS)),
        (ORDERS, service(vec![localhost(), dns("orders.internal")]), Err("orders.internal")),
        // An SVID has one URI: of two nobody can tell which it is.
        (ORDERS, service(vec![uri(ORDERS), uri(USERS)]), Err(none_of_them)),
        ("orders.internal", service(vec![localhost()]), Err("that of nobody")),
        ("orders.internal", service(vec![dns("*.internal")]), Err(none_of_them)),
        (ORDERS, other_authority, Err("invalid peer certificate")),
        (ORDERS, expired, Err("expired")),
    ];
    for (identity, pki, expected) in cases {
        let backend = Backend::start_tls(&pki, |mut conversation| async move {
            while conversation.request().await.is_some() {
                conversation.send(response(200, "")).await;
            }
        })
        .await;
        let text = format!(
            r#"
routes: {{ all: {{ match: /**, public: "a test", to: backend }} }}
backends:
  backend:
    endpoints: ["https://{}"]
    tls: {{ ca: "file:ca.pem", identity: ["spiffe://other.org/a", "{identity}"] }}
"#,
            backend.address
        );
        let gateway = Setup::new(&text).pki(&pki).start();
        let mut client = Client::connect(&gateway, Protocol::H1).await;
        let answer = client.send(Request::get("/")).await.unwrap();
        let line = gateway.stop().pop().unwrap();
        let context = format!("{identity}: {line}");
        match expected {
            Ok(()) => assert_eq!((answer.status, backend.requests().len()), (200, 1), "{context}"),
            Err(told) => {
                assert_eq!((answer.status, backend.requests().len()), (502, 0), "{context}");
                assert!(line.contains("backend-unreachable") && line.contains(told), "{context}");
            }
        }
    }
}

/// A service in clear text that says by a field who it is.
struct Service {
    backend: Backend,
    well: Arc<AtomicBool>,
    is_orders: Arc<AtomicBool>,
    /// Requests that were no checks.
    served: Arc<AtomicUsize>,
}

impl Service {
    async fn new(is_orders: bool) -> Self {
        let (well, is_orders) =
            (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(is_orders)));
        let served = Arc::new(AtomicUsize::new(0));
        let inside = (Arc::clone(&well), Arc::clone(&is_orders), Arc::clone(&served));
        let backend = Backend::start(move |mut conversation| {
            let (well, is_orders, served) = inside.clone();
            async move {
                while let Some(request) = conversation.request().await {
                    let check = request.line.starts_with("GET /healthz ");
                    served.fetch_add(usize::from(!check), SeqCst);
                    let name = if is_orders.load(SeqCst) { "orders" } else { "users" };
                    let status = if well.load(SeqCst) { 200 } else { 500 };
                    let head = format!("HTTP/1.1 {status} X\r\nx-service: {name}\r\n");
                    conversation.send(format!("{head}content-length: 0\r\n\r\n")).await;
                }
            }
        })
        .await;
        Self { backend, well, is_orders, served }
    }
}

fn gateway(urls: &[String], header: &str) -> TestGateway {
    Setup::new(&format!(
        r#"
routes:
  all: {{ match: /**, public: "a test", to: backend }}
backends:
  backend:
    endpoints: {urls:?}
    balance: round_robin
    slow_start: off
    outliers: off
    health: {{ path: /healthz, timeout: 1h, expect_header: {header} }}
"#
    ))
    .start()
}

const HEADER: &str = "{ name: X-Service, value: orders }";

async fn statuses(gateway: &TestGateway) -> Vec<u16> {
    let mut client = Client::connect(gateway, Protocol::H1).await;
    let mut seen = Vec::new();
    for _ in 0..8 {
        seen.push(client.send(Request::get("/")).await.unwrap().status);
    }
    seen
}

#[tokio::test]
async fn another_service_at_an_endpoint_gets_nothing_whatever_becomes_of_the_rest() {
    let (orders, users) = (Service::new(true).await, Service::new(false).await);
    let gateway = gateway(&[orders.backend.url(), users.backend.url()], HEADER);
    verdicts(&gateway, &[Health::Up, Health::Foreign]).await;
    let served = || users.served.load(SeqCst);
    let before = served();
    assert_eq!(statuses(&gateway).await, [200; 8]);
    // The panic threshold gives to those that are down, and never to a stranger.
    orders.well.store(false, SeqCst);
    verdicts(&gateway, &[Health::Down, Health::Foreign]).await;
    assert_eq!(statuses(&gateway).await, [500; 8]);
    orders.is_orders.store(false, SeqCst);
    verdicts(&gateway, &[Health::Foreign; 2]).await;
    assert_eq!(statuses(&gateway).await, [503; 8]);
    assert_eq!(served(), before);
    users.is_orders.store(true, SeqCst);
    verdicts(&gateway, &[Health::Foreign, Health::Up]).await;
    assert_eq!(statuses(&gateway).await, [200; 8]);
    assert_eq!(served(), before + 8);
}

#[tokio::test]
async fn what_says_nothing_of_itself_is_not_the_service() {
    let silent = Backend::always(response(200, "")).await;
    let other = Backend::always("SSH-2.0-OpenSSH_9.9\r\n\r\n").await;
    let orders = Service::new(true).await;
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let urls = [orders.backend.url(), silent.url(), other.url(), format!("http://{gone}")];
    let gateway = gateway(&urls, HEADER);
    // That nobody answers says nothing of who would.
    verdicts(&gateway, &[Health::Up, Health::Foreign, Health::Foreign, Health::Down]).await;
}
