//! What has led around being asked for a certificate elsewhere: resumption, a ClientHello in
//! pieces, names in another case, and connections that outlive what let them in.

use std::time::Duration;

use portcullis_testkit::{H1Client, Pki};
use rustls::{ClientConnection, HandshakeKind, SupportedProtocolVersion, version};
use tokio::io::AsyncWriteExt as _;

use super::*;

/// A client that remembers sessions, of one version.
fn of_version(
    pki: &Pki,
    identity: Option<&Identity>,
    version: &'static SupportedProtocolVersion,
) -> Arc<ClientConfig> {
    // The other settings are those of every client.
    let template = pki.client_as(identity, &["http/1.1"]);
    let provider = Arc::clone(template.crypto_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(pki.roots())
        .with_client_cert_resolver(Arc::clone(&template.client_auth_cert_resolver));
    config.alpn_protocols.clone_from(&template.alpn_protocols);
    Arc::new(config)
}

/// Connects and asks; how the handshake went, and what came of it.
async fn ask(
    gateway: &TestGateway,
    listener: &str,
    config: &Arc<ClientConfig>,
    path: &str,
) -> String {
    let tls = match handshake(gateway, listener, SERVER_NAME, config).await {
        Ok(tls) => tls,
        Err(error) => return alert(&error),
    };
    let tls = match probe(tls).await {
        Ok(tls) => tls,
        Err(error) => return alert(&error),
    };
    let resumed = tls.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
    let mut client = Client::over_tls(tls).await;
    let answer = client.send(Request::get(path)).await.unwrap();
    let how = if resumed { "resumed" } else { "anew" };
    format!("{how} {} {}", answer.status, answer.problem()).trim_end().to_owned()
}

#[tokio::test]
async fn a_resumed_session_has_the_certificate_of_the_first() {
    let backend = Backend::echo().await;
    let ours = Authority::new("ours");
    let gateway = setup(&config(r#"ca: "file:clients.pem""#, &backend), &ours).start();
    for version in [&version::TLS12, &version::TLS13] {
        let config = of_version(&gateway.pki, Some(&ours.client(1, |_| {})), version);
        for expected in ["anew 200", "resumed 200"] {
            assert_eq!(ask(&gateway, "tls", &config, "/guarded").await, expected, "{version:?}");
            assert_eq!(backend.last().field("portcullis-client"), Some("1.clients.test"));
        }
    }
}

/// TL-01
#[tokio::test]
async fn a_ticket_is_good_only_where_it_was_given() {
    let backend = Backend::echo().await;
    let ours = Authority::new("ours");
    let gateway = setup(&config(r#"ca: "file:clients.pem""#, &backend), &ours).start();
    for version in [&version::TLS12, &version::TLS13] {
        let config = of_version(&gateway.pki, None, version);
        assert_eq!(ask(&gateway, "open", &config, "/public").await, "anew 200");
        assert_eq!(ask(&gateway, "open", &config, "/public").await, "resumed 200");
        let refused = ask(&gateway, "tls", &config, "/public").await;
        assert_eq!(refused, "CertificateRequired", "{version:?}");
        // Nor does it get weaker the other way round.
        let config = of_version(&gateway.pki, Some(&ours.client(1, |_| {})), version);
        assert_eq!(ask(&gateway, "tls", &config, "/guarded").await, "anew 200");
        assert_eq!(ask(&gateway, "open", &config, "/public").await, "anew 200");
    }
}

#[tokio::test]
async fn a_ticket_is_good_as_long_as_the_same_is_asked() {
    let backend = Backend::echo().await;
    let (ours, others) = (Authority::new("ours"), Authority::new("others"));
    let asks = |client: &str| config(client, &backend);
    let requested = asks(r#"ca: "file:clients.pem", mode: request"#);
    for (name, stricter, with, without) in [
        ("required", asks(r#"ca: "file:clients.pem""#), "anew 200", "CertificateRequired"),
        (
            "revoked",
            asks(r#"ca: "file:clients.pem", mode: request, crl: "file:lists.pem""#),
            "CertificateRevoked",
            "anew 200",
        ),
        ("others", asks(r#"ca: "file:others.pem", mode: request"#), "UnknownCA", "anew 200"),
    ] {
        for version in [&version::TLS12, &version::TLS13] {
            let gateway = setup(&requested, &ours)
                .file("lists.pem", &ours.revoking(&[1], 2090))
                .file("others.pem", &others.pem())
                .start();
            let certified = of_version(&gateway.pki, Some(&ours.client(1, |_| {})), version);
            let anonymous = of_version(&gateway.pki, None, version);
            for config in [&certified, &anonymous] {
                assert_eq!(ask(&gateway, "tls", config, "/public").await, "anew 200");
            }
            gateway.swap(&requested);
            gateway.settle().await;
            for config in [&certified, &anonymous] {
                assert_eq!(ask(&gateway, "tls", config, "/public").await, "resumed 200");
            }
            gateway.swap(&stricter);
            gateway.settle().await;
            assert_eq!(ask(&gateway, "tls", &certified, "/public").await, with, "{name}");
            assert_eq!(ask(&gateway, "tls", &anonymous, "/public").await, without, "{name}");
        }
    }
}

#[tokio::test]
async fn an_open_connection_has_to_hold_too() {
    let backend = Backend::echo().await;
    let (ours, others) = (Authority::new("ours"), Authority::new("others"));
    let asks = |client: &str| config(client, &backend);
    let requested = asks(r#"ca: "file:clients.pem", mode: request"#);
    for (name, changed, with, without) in [
        ("the same", requested.clone(), 200, 200),
        ("required", asks(r#"ca: "file:clients.pem""#), 200, 421),
        (
            "another revoked",
            asks(r#"ca: "file:clients.pem", mode: request, crl: "file:other.pem""#),
            200,
            200,
        ),
        (
            "revoked",
            asks(r#"ca: "file:clients.pem", mode: request, crl: "file:lists.pem""#),
            421,
            200,
        ),
        ("others", asks(r#"ca: "file:others.pem", mode: request"#), 421, 200),
    ] {
        for alpn in ["http/1.1", "h2"] {
            let gateway = setup(&requested, &ours)
                .file("lists.pem", &ours.revoking(&[1], 2090))
                .file("other.pem", &ours.revoking(&[2], 2090))
                .file("others.pem", &others.pem())
                .start();
            let certified = gateway.pki.client_as(Some(&ours.client(1, |_| {})), &[alpn]);
            let anonymous = gateway.pki.client(&[alpn]);
            let mut clients = Vec::new();
            for config in [&certified, &anonymous] {
                let tls = handshake(&gateway, "tls", SERVER_NAME, config).await.unwrap();
                let mut client = Client::over_tls(tls).await;
                assert_eq!(client.send(Request::get("/public")).await.unwrap().status, 200);
                clients.push(client);
            }
            gateway.swap(&changed);
            gateway.settle().await;
            for (mut client, expected) in clients.into_iter().zip([with, without]) {
                for _ in 0..2 {
                    let before = backend.requests().len();
                    let Ok(answer) = client.send(Request::get("/public")).await else {
                        // Misdirected once, and closed.
                        assert_eq!((alpn, expected), ("http/1.1", 421));
                        continue;
                    };
                    assert_eq!(answer.status, expected, "{name} {alpn}");
                    let forwarded = usize::from(expected == 200);
                    assert_eq!(backend.requests().len(), before + forwarded, "{name} {alpn}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_certificate_ends_on_an_open_connection_and_in_a_ticket() {
    let backend = Backend::echo().await;
    let ours = Authority::new("ours");
    let client = r#"ca: "file:clients.pem", crl: "file:lists.pem""#;
    for (leaf_until, list_until) in [(2090, 2095), (2095, 2090)] {
        let gateway = setup(&config(client, &backend), &ours)
            .file("lists.pem", &ours.revoking(&[], list_until))
            .start();
        let leaf = ours.client(1, |leaf| leaf.not_after = date_time_ymd(leaf_until, 1, 1));
        let config = of_version(&gateway.pki, Some(&leaf), &version::TLS13);
        assert_eq!(ask(&gateway, "tls", &config, "/guarded").await, "anew 200");
        let tls = handshake(&gateway, "tls", SERVER_NAME, &config).await.unwrap();
        let mut client = Client::over_tls(tls).await;
        assert_eq!(client.send(Request::get("/guarded")).await.unwrap().status, 200);
        // From June 2026 to June 2086, and on to June 2091.
        gateway.advance(Duration::from_secs(60 * 365 * 86_400)).await;
        assert_eq!(client.send(Request::get("/guarded")).await.unwrap().status, 200);
        assert_eq!(ask(&gateway, "tls", &config, "/guarded").await, "resumed 200");
        gateway.advance(Duration::from_secs(5 * 365 * 86_400)).await;
        let forwarded = backend.requests().len();
        let answer = client.send(Request::get("/guarded")).await.unwrap();
        assert_eq!((answer.status, &*answer.problem()), (421, "misdirected-request"));
        let refused = ask(&gateway, "tls", &config, "/guarded").await;
        // The handshake itself goes by the time of this machine, and the ticket is good.
        assert!(!refused.contains("anew") && !refused.contains("resumed"), "{refused}");
        assert_eq!(backend.requests().len(), forwarded);
    }
}

/// The first record of a handshake, cut into two records after so many bytes.
fn two_records(record: &[u8], first: usize) -> Vec<u8> {
    let (head, body) = record.split_at(5);
    assert_eq!(body.len(), usize::from(u16::from_be_bytes([head[3], head[4]])));
    let one = |piece: &[u8]| [&head[..3], &(piece.len() as u16).to_be_bytes(), piece].concat();
    [one(&body[..first]), one(&body[first..])].concat()
}

/// TL-05, and names in another case
#[tokio::test]
async fn a_hello_in_pieces_is_asked_like_any_other() {
    let backend = Backend::echo().await;
    let ours = Authority::new("ours");
    let gateway = setup(&config(r#"ca: "file:clients.pem""#, &backend), &ours).start();
    for (name, in_records, in_segments) in [
        ("localhost", false, false),
        ("localhost", true, false),
        ("localhost", false, true),
        ("localhost", true, true),
        ("a.EXAMPLE.com", true, false),
        ("LocalHost", false, false),
    ] {
        let config = gateway.pki.client(&["http/1.1"]);
        let mut session = ClientConnection::new(config, name.try_into().unwrap()).unwrap();
        let mut hello = Vec::new();
        session.write_tls(&mut hello).unwrap();
        if in_records {
            hello = two_records(&hello, 5);
        }
        let mut tcp = TcpStream::connect(gateway.address("tls")).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        let pieces = hello.chunks(if in_segments { 1 } else { hello.len() });
        for piece in pieces {
            tcp.write_all(piece).await.unwrap();
            if in_segments {
                tokio::task::yield_now().await;
            }
        }
        let refused = loop {
            let mut received = [0; 8192];
            let n = event("the gateway's part", tcp.read(&mut received)).await.unwrap();
            assert!(n > 0, "an end without an alert");
            let mut received = &received[..n];
            while !received.is_empty() {
                session.read_tls(&mut received).unwrap();
            }
            if let Err(error) = session.process_new_packets() {
                break error.to_string();
            }
            let mut ours = Vec::new();
            while session.wants_write() {
                session.write_tls(&mut ours).unwrap();
            }
            tcp.write_all(&ours).await.unwrap();
        };
        assert_eq!(refused, "received fatal alert: CertificateRequired", "{name}");
    }
    assert_eq!(backend.requests().len(), 0);
}

/// There is no way in but the handshake, either.
#[tokio::test]
async fn nothing_is_read_before_the_certificate() {
    let backend = Backend::echo().await;
    let ours = Authority::new("ours");
    let gateway = setup(&config(r#"ca: "file:clients.pem""#, &backend), &ours).start();
    let mut client = H1Client::connect(gateway.address("tls")).await;
    client.send("GET /public HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let (answer, _) = client.rest().await;
    assert!(!answer.starts_with(b"HTTP"), "{}", answer.escape_ascii());
    // And a client that only pretends sends its request with the end of its handshake.
    let config = gateway.pki.client(&["http/1.1"]);
    let mut tls = handshake(&gateway, "tls", SERVER_NAME, &config).await.unwrap();
    drop(tls.write_all(b"GET /public HTTP/1.1\r\nHost: localhost\r\n\r\n").await);
    let refused = tls.read(&mut [0; 1024]).await.unwrap_err();
    assert_eq!(alert(&refused), "CertificateRequired");
    assert_eq!(backend.requests().len(), 0);
}
