//! Clients behind a load balancer that introduces them.

use portcullis_testkit::{Backend, Cut, H1Client, Request, Setup, TestGateway};

const HEADER: &str = "PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n";
const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 203.0.113.9\r\n\r\n";

fn behind_a_balancer(backend: &Backend, trusted: &str) -> TestGateway {
    Setup::new(&format!(
        r#"
listeners:
  plain:
    bind: "127.0.0.1:0"
    proxy_protocol: true
    trusted_proxies: ["{trusted}"]
routes:
  all: {{ match: /**, public: "a test", to: backend }}
backends: {{ backend: "{}" }}
"#,
        backend.url()
    ))
    .start()
}

#[tokio::test]
async fn the_client_is_who_the_balancer_says() {
    let backend = Backend::echo().await;
    let gateway = behind_a_balancer(&backend, "127.0.0.0/8");
    let mut client = H1Client::connect(gateway.address("plain")).await;
    client.send([HEADER, GET].concat()).await;
    assert_eq!(client.response("GET").await.unwrap().status, 200);
    // The client itself is nobody's hop: what it says of others is dropped.
    assert_eq!(backend.last().field("x-forwarded-for"), Some("192.0.2.7"));
    assert_eq!(client.exchange(&Request::get("/")).await.unwrap().status, 200);
    assert_eq!(backend.last().field("x-forwarded-for"), Some("192.0.2.7"));

    // Of itself the balancer speaks as a trusted hop.
    let mut client = H1Client::connect(gateway.address("plain")).await;
    for byte in ["PROXY UNKNOWN\r\n", GET].concat().bytes() {
        client.send([byte]).await;
    }
    assert_eq!(client.response("GET").await.unwrap().status, 200);
    assert_eq!(backend.last().field("x-forwarded-for"), Some("203.0.113.9, 127.0.0.1"));
    let lines = gateway.stop();
    let count = |client: &str| {
        lines.iter().filter(|line| line.contains(&format!(r#""client":"{client}""#))).count()
    };
    assert_eq!((count("192.0.2.7"), count("203.0.113.9")), (2, 1), "{lines:#?}");
}

#[tokio::test]
async fn strangers_and_what_is_no_header_are_disconnected() {
    let backend = Backend::echo().await;
    for (trusted, bytes) in
        [("10.0.0.0/8", [HEADER, GET].concat()), ("127.0.0.0/8", GET.to_owned())]
    {
        let gateway = behind_a_balancer(&backend, trusted);
        let mut client = H1Client::connect(gateway.address("plain")).await;
        client.send(bytes).await;
        let (bytes, end) = client.rest().await;
        assert!(bytes.is_empty(), "{trusted}");
        assert!(matches!(end, Cut::Closed | Cut::Reset), "{trusted}: {end:?}");
    }
    assert_eq!(backend.connections(), 0);
}
