//! Handshakes that have to fail, certificates that do not hold, and hosts that belong to another
//! certificate.

use std::sync::Arc;

use portcullis_testkit::backend::response;
use portcullis_testkit::pki::SERVER_NAME;
use portcullis_testkit::{
    Backend, Client, H1Client, Pki, Protocol, Request, Setup, TestGateway, event,
};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair, SanType, date_time_ymd};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, HandshakeKind};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::{everything_to, to};

fn server_name() -> ServerName<'static> {
    ServerName::try_from(SERVER_NAME).unwrap()
}

async fn handshake(
    gateway: &TestGateway,
    config: &Arc<ClientConfig>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(gateway.address("tls")).await.unwrap();
    TlsConnector::from(Arc::clone(config)).connect(server_name(), tcp).await
}

fn names(names: &[&str]) -> Vec<SanType> {
    names.iter().map(|name| SanType::DnsName((*name).try_into().unwrap())).collect()
}

#[tokio::test]
async fn a_host_of_another_certificate_is_misdirected() {
    let backend = Backend::echo().await;
    let other = Pki::with(|leaf| leaf.subject_alt_names = names(&["b.test"]));
    let text = format!(
        r#"
listeners:
  tls:
    bind: "127.0.0.1:0"
    tls:
      certificates:
        - {{ cert: "file:cert.pem", key: "file:key.pem" }}
        - {{ cert: "file:b.pem", key: "file:b.key" }}
{}"#,
        everything_to(&backend)
    );
    let gateway =
        Setup::new(&text).file("b.pem", &other.certificate).file("b.key", &other.key).start();
    for protocol in [Protocol::H1Tls, Protocol::H2Tls] {
        let before = backend.requests().len();
        let mut client = Client::connect(&gateway, protocol).await;
        let answer = client.send(Request::get("/").field("host", "b.test")).await.unwrap();
        assert_eq!((answer.status, &*answer.problem()), (421, "misdirected-request"));
        assert_eq!(backend.requests().len(), before, "{protocol:?}");
        let mut client = Client::connect(&gateway, protocol).await;
        let answer = client.send(Request::get("/").field("host", SERVER_NAME)).await.unwrap();
        assert_eq!(answer.status, 200, "{protocol:?}");
    }
}

#[tokio::test]
async fn without_a_protocol_in_common_there_is_no_connection() {
    let backend = Backend::echo().await;
    let gateway = to(&backend).start();
    let refused = handshake(&gateway, &gateway.pki.client(&["foo"])).await.unwrap_err();
    assert!(refused.to_string().contains("NoApplicationProtocol"), "{refused}");
    assert!(handshake(&gateway, &gateway.pki.client(&["foo", "http/1.1"])).await.is_ok());
}

#[tokio::test]
async fn what_was_agreed_on_is_what_is_read() {
    let backend = Backend::echo().await;
    let gateway = to(&backend).start();
    for (agreed, sent) in [
        ("h2", "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        ("http/1.1", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\u{4}\0\0\0\0\0"),
    ] {
        let mut client = handshake(&gateway, &gateway.pki.client(&[agreed])).await.unwrap();
        client.write_all(sent.as_bytes()).await.unwrap();
        client.shutdown().await.unwrap();
        let mut answer = Vec::new();
        // However it ends.
        drop(event(agreed, client.read_to_end(&mut answer)).await);
        let refused = answer.starts_with(b"HTTP/1.1 400 ") || answer.starts_with(b"HTTP/1.1 505 ");
        assert_eq!(refused, agreed == "http/1.1", "{agreed}: {}", answer.escape_ascii());
    }
    assert_eq!(backend.requests().len(), 0);
}

/// A ClientHello (RFC 5246 §7.4.1.2) for X25519 and ECDSA on P-256, as a record.
fn hello(version: [u8; 2], suites: &[u16]) -> Vec<u8> {
    let sized = |bytes: &[u8]| [&(bytes.len() as u16).to_be_bytes(), bytes].concat();
    let suites: Vec<u8> = suites.iter().flat_map(|suite| suite.to_be_bytes()).collect();
    let extension = |kind: u8, body: &[u8]| [&[0, kind], &*sized(body)].concat();
    let extensions = [
        extension(10, &sized(&[0x00, 0x1d])),
        extension(11, &[1, 0]),
        extension(13, &sized(&[0x04, 0x03])),
    ]
    .concat();
    let body =
        [&version[..], &[7; 32], &[0], &sized(&suites), &[1, 0], &sized(&extensions)].concat();
    let message = [&[1, 0], &*sized(&body)].concat();
    [&[22, 3, 1], &*sized(&message)].concat()
}

#[tokio::test]
async fn old_versions_and_weak_suites_are_refused() {
    const GOOD: u16 = 0xc02b;
    let backend = Backend::echo().await;
    let gateway = to(&backend).start();
    let (versions, none_in_common) = (70, 40);
    for (version, suite, alert) in [
        ([3, 0], GOOD, Some(versions)),
        ([3, 1], GOOD, Some(versions)),
        ([3, 2], GOOD, Some(versions)),
        // NULL, export RC4, RC4, 3DES, RSA without forward secrecy, CBC.
        ([3, 3], 0x0002, Some(none_in_common)),
        ([3, 3], 0x0003, Some(none_in_common)),
        ([3, 3], 0xc007, Some(none_in_common)),
        ([3, 3], 0xc008, Some(none_in_common)),
        ([3, 3], 0x009c, Some(none_in_common)),
        ([3, 3], 0xc009, Some(none_in_common)),
        ([3, 3], GOOD, None),
    ] {
        let mut client = H1Client::connect(gateway.address("tls")).await;
        client.send(hello(version, &[suite])).await;
        client.shutdown().await;
        let (answer, _) = client.rest().await;
        let seen = (answer[0] == 21).then(|| answer[6]);
        assert_eq!(seen, alert, "{version:?} {suite:#06x}: {}", answer.escape_ascii());
    }
}

#[tokio::test]
async fn nothing_is_taken_before_the_handshake_has_ended() {
    let backend = Backend::echo().await;
    let gateway = to(&backend).start();
    let mut config = ClientConfig::clone(&gateway.pki.client(&["http/1.1"]));
    config.enable_early_data = true;
    let config = Arc::new(config);
    let mut first = handshake(&gateway, &config).await.unwrap();
    first.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
    first.read_to_end(&mut Vec::new()).await.unwrap();
    let mut early = ClientConnection::new(Arc::clone(&config), server_name()).unwrap();
    assert!(early.early_data().is_none(), "the ticket would let a request go ahead");
    let again = handshake(&gateway, &config).await.unwrap();
    assert_eq!(again.get_ref().1.handshake_kind(), Some(HandshakeKind::Resumed));
}

#[tokio::test]
async fn a_new_certificate_is_for_new_connections() {
    let backend = Backend::echo().await;
    let new = Pki::new();
    let text = |name: &str| {
        format!(
            r#"
listeners:
  plain: {{ bind: "127.0.0.1:0" }}
  tls:
    bind: "127.0.0.1:0"
    tls: {{ certificates: [{{ cert: "file:{name}.pem", key: "file:{name}.key" }}] }}
defaults: {{ on: [plain, tls] }}
{}"#,
            everything_to(&backend)
        )
    };
    let old = Pki::new();
    let gateway = Setup::new(&text("old"))
        .pki(&old)
        .file("old.pem", &old.certificate)
        .file("old.key", &old.key)
        .file("new.pem", &new.certificate)
        .file("new.key", &new.key)
        .start();
    let mut before = Client::connect(&gateway, Protocol::H2Tls).await;
    assert_eq!(before.send(Request::get("/")).await.unwrap().status, 200);
    gateway.swap(&text("new"));
    // A worker takes the new snapshot over between two events.
    gateway.settle().await;
    assert!(handshake(&gateway, &new.client(&["h2"])).await.is_ok());
    assert!(handshake(&gateway, &old.client(&["h2"])).await.is_err());
    assert_eq!(before.send(Request::get("/")).await.unwrap().status, 200);
}

#[tokio::test]
async fn a_backend_whose_certificate_does_not_hold_is_not_asked() {
    let (key, own) = (KeyPair::generate().unwrap(), CertificateParams::new(["localhost".into()]));
    let mut self_signed = Pki::new();
    self_signed.certificate = own.unwrap().self_signed(&key).unwrap().pem();
    self_signed.key = key.serialize_pem();
    let wild = || Pki::with(|leaf| leaf.subject_alt_names = names(&["*.example.com"]));
    let cases = [
        ("good", Pki::new(), "localhost", 200),
        ("one label", wild(), "a.example.com", 200),
        ("two labels", wild(), "a.b.example.com", 502),
        ("no label", wild(), "example.com", 502),
        ("another name", Pki::new(), "other.test", 502),
        ("expired", Pki::with(|leaf| leaf.not_after = date_time_ymd(2020, 1, 1)), "localhost", 502),
        ("early", Pki::with(|leaf| leaf.not_before = date_time_ymd(2090, 1, 1)), "localhost", 502),
        (
            "a client's",
            Pki::with(|leaf| {
                leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            }),
            "localhost",
            502,
        ),
        ("self-signed", self_signed, "localhost", 502),
    ];
    for (name, pki, server, status) in cases {
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
    tls: {{ ca: "file:ca.pem", server_name: {server} }}
"#,
            backend.address
        );
        let gateway = Setup::new(&text).pki(&pki).start();
        let mut client = Client::connect(&gateway, Protocol::H1).await;
        let answer = client.send(Request::get("/")).await.unwrap();
        assert_eq!(answer.status, status, "{name}");
        assert_eq!(backend.requests().len(), usize::from(status == 200), "{name}");
        let line = gateway.stop().pop().unwrap();
        let told = line.contains("backend-unreachable") && line.contains("certificate");
        assert_eq!(told, status == 502, "{name}: {line}");
    }
}
