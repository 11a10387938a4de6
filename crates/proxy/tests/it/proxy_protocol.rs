//! Clients behind a load balancer that introduces them.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use portcullis_core::proxy_protocol::{self, Parsed};
use portcullis_testkit::{Backend, Cut, H1Client, Request, Setup, TestGateway};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

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

/// Answers every request, and says which connection began with which bytes and how many requests
/// it carried.
async fn introduced() -> (String, Arc<Mutex<Vec<(Vec<u8>, usize)>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let record = Arc::clone(&seen);
    tokio::spawn(async move {
        for number in 0.. {
            let (mut tcp, _) = listener.accept().await.unwrap();
            let record = Arc::clone(&record);
            record.lock().unwrap().push((Vec::new(), 0));
            tokio::spawn(async move {
                let mut bytes = Vec::new();
                while tcp.read_buf(&mut bytes).await.unwrap_or(0) > 0 {
                    let get = bytes.windows(4).position(|word| word == b"GET ");
                    let Some(head) = get else { continue };
                    if !bytes.ends_with(b"\r\n\r\n") {
                        continue;
                    }
                    {
                        let mut record = record.lock().unwrap();
                        let (begins, requests): &mut (Vec<u8>, usize) = &mut record[number];
                        begins.extend_from_slice(&bytes[..head]);
                        *requests += 1;
                    }
                    bytes.clear();
                    tcp.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
                }
            });
        }
    });
    (url, seen)
}

#[tokio::test]
async fn a_backend_is_told_who_the_client_is_and_no_other_client_uses_its_connection() {
    for version in ["v1", "v2"] {
        let (url, seen) = introduced().await;
        let text = format!(
            r#"
routes:
  all: {{ match: /**, public: "a test", to: backend }}
backends:
  backend: {{ endpoints: ["{url}"], proxy_protocol: {version} }}
"#
        );
        let gateway = Setup::new(&text).workers(1).start();
        let to = gateway.address("plain");
        let mut expected = Vec::new();
        for requests in [2, 1] {
            let mut client = TcpStream::connect(to).await.unwrap();
            let from = client.local_addr().unwrap();
            for _ in 0..requests {
                client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
                let mut answer = Vec::new();
                while !answer.ends_with(b"\r\n\r\nok") {
                    assert!(client.read_buf(&mut answer).await.unwrap() > 0, "{answer:?}");
                }
            }
            expected.push((from, requests));
        }
        let told: Vec<_> =
            seen.lock().unwrap().iter().map(|(header, n)| (source(header), *n)).collect();
        assert_eq!(told, expected, "{version}");
    }
}

/// Whom a header names.
fn source(header: &[u8]) -> SocketAddr {
    let parsed = proxy_protocol::parse(header).unwrap();
    let Parsed::Complete { consumed, addresses: Some(addresses) } = parsed else {
        panic!("{parsed:?}");
    };
    assert_eq!(consumed, header.len());
    addresses.source
}
