//! Which requests open a WebSocket, and what becomes of the others.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use portcullis_testkit::backend::response;
use portcullis_testkit::h2_backend::Manner;
use portcullis_testkit::websocket::{ACCEPT, KEY, opening};
use portcullis_testkit::{
    Backend, Client, Cut, Frame, H1Client, H2Backend, Protocol, Request, Setup, WebSocket,
};
use tokio::sync::Notify;

use super::{Far, to, upgrading};

#[tokio::test]
async fn every_client_gets_to_every_backend() {
    for mut far in Far::all().await {
        let gateway = far.gateway("");
        for protocol in Protocol::ALL {
            let (mut near, mut other) = far.open(&gateway, protocol).await;
            assert_eq!(near.status, if protocol.is_h2() { 200 } else { 101 }, "{protocol:?}");
            for frame in [Frame::text("gr\u{fc}n"), Frame::new(2, [0; 70_000]), Frame::new(9, "")] {
                near.send(&frame).await;
                other.expect(&frame).await;
                other.send(&frame).await;
                near.expect(&frame).await;
            }
        }
    }
}

/// Names and values, of these names only.
fn told(fields: &[(String, String)], names: &[&str]) -> Vec<String> {
    let of = |(name, _): &&(String, String)| names.contains(&&**name);
    fields.iter().filter(of).map(|(name, value)| format!("{name}: {value}")).collect()
}

const NAMES: &[&str] = &[
    "connection",
    "upgrade",
    "sec-websocket-accept",
    "sec-websocket-extensions",
    "sec-websocket-protocol",
    "sec-websocket-version",
    "content-length",
    "transfer-encoding",
    "x-forwarded-for",
    "x-mine",
];

#[tokio::test]
async fn the_handshake_is_told_in_the_words_of_each_side() {
    for mut far in Far::all().await {
        let gateway = far.gateway("");
        for protocol in [Protocol::H1, Protocol::H2] {
            let more = |request: Request| {
                request
                    .field("sec-websocket-protocol", "chat, superchat")
                    .field("sec-websocket-extensions", "permessage-deflate")
                    .field("x-mine", "yes")
            };
            match Client::connect(&gateway, protocol).await {
                Client::H1(client) => {
                    WebSocket::open_h1(client, &more(opening("/live?a=b"))).await.unwrap()
                }
                Client::H2(client) => {
                    WebSocket::open_h2(&client, &more(Request::get("/live?a=b"))).await.unwrap()
                }
            };
            let other = far.sockets.recv().await.unwrap();
            let mut expected = vec![
                "sec-websocket-extensions: permessage-deflate",
                "sec-websocket-protocol: chat, superchat",
                "sec-websocket-version: 13",
                "x-forwarded-for: 127.0.0.1",
                "x-mine: yes",
            ];
            let key = told(&other.fields, &["sec-websocket-key"]);
            if far.protocol == "h1" {
                expected.extend(["connection: upgrade", "upgrade: websocket"]);
                assert_eq!(key.len(), 1);
                // A client that speaks HTTP/2 has none, and each time gets another one.
                let own = key[0] == format!("sec-websocket-key: {KEY}");
                assert_eq!(own, protocol == Protocol::H1, "{key:?}");
            } else {
                assert_eq!(key, [""; 0]);
            }
            let mut seen = told(&other.fields, NAMES);
            seen.sort();
            expected.sort_unstable();
            assert_eq!(seen, expected, "{protocol:?} to {}", far.protocol);
        }
    }
}

#[tokio::test]
async fn what_the_backend_chooses_reaches_the_client() {
    let backend = Backend::start(|mut conversation| async move {
        let Some(request) = conversation.request().await else { return };
        let more = "Sec-WebSocket-Protocol: chat\r\nSet-Cookie: a=b\r\nServer: x\r\n";
        conversation.websocket(&request, more).await.echo().await;
    })
    .await;
    let gateway = to(&backend);
    for protocol in Protocol::ALL {
        let near = WebSocket::open(&gateway, protocol, "/live").await.unwrap();
        let seen = told(&near.fields, &["sec-websocket-protocol", "set-cookie"]);
        let expected = ["sec-websocket-protocol: chat", "set-cookie: a=b"];
        assert_eq!(seen, expected, "{protocol:?}");
    }
}

#[tokio::test]
async fn keys_of_the_gateways_own_differ() {
    let mut far = Far::h1().await;
    let gateway = far.gateway("");
    let mut keys = Vec::new();
    for _ in 0..10 {
        let (_, other) = far.open(&gateway, Protocol::H2).await;
        keys.extend(told(&other.fields, &["sec-websocket-key"]));
    }
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), 10);
}

/// Grants whatever looks like an upgrade; answers the rest with the fields it has seen.
async fn eager() -> Backend {
    Backend::start(|mut conversation| async move {
        while let Some(request) = conversation.request().await {
            if request.fields.iter().any(|(name, _)| name == "upgrade") {
                return conversation.websocket(&request, "").await.echo().await;
            }
            conversation.send(response(200, "plain")).await;
        }
    })
    .await
}

#[tokio::test]
async fn a_route_that_upgrades_nothing_gets_a_plain_request() {
    let backend = eager().await;
    let gateway = crate::to(&backend).start();
    for protocol in [Protocol::H1, Protocol::H1Tls] {
        let refused = WebSocket::open(&gateway, protocol, "/live").await.unwrap_err();
        assert_eq!((refused.status, refused.text()), (200, "plain".to_owned()), "{protocol:?}");
        let seen = told(&backend.last().fields, &["connection", "upgrade"]);
        assert_eq!(seen, [""; 0], "{protocol:?}");
    }
    // To an extended CONNECT any 2xx would say that it is open (RFC 8441 §5).
    let before = backend.requests().len();
    for protocol in [Protocol::H2, Protocol::H2Tls] {
        let refused = WebSocket::open(&gateway, protocol, "/live").await.unwrap_err();
        assert_eq!((refused.status, &*refused.problem()), (405, "method-not-allowed"));
    }
    assert_eq!(backend.requests().len(), before, "there is no plain form of CONNECT");
}

#[tokio::test]
async fn a_backend_that_refuses_has_its_answer_passed_on() {
    for (status, body) in [(403, "no"), (426, "newer"), (404, ""), (302, "over there")] {
        let backend = Backend::always(response(status, body)).await;
        let gateway = to(&backend);
        for protocol in Protocol::ALL {
            let refused = WebSocket::open(&gateway, protocol, "/live").await.unwrap_err();
            assert_eq!((refused.status, refused.text()), (status, body.to_owned()), "{protocol:?}");
        }
    }
    let manner = Manner { connect: true, ..Manner::default() };
    let backend =
        H2Backend::start(manner, |mut stream| async move { stream.answer(403, &[], "no") }).await;
    let gateway = upgrading(&backend.url(), "h2", "").start();
    for protocol in Protocol::ALL {
        let refused = WebSocket::open(&gateway, protocol, "/live").await.unwrap_err();
        assert_eq!((refused.status, refused.text()), (403, "no".to_owned()), "{protocol:?}");
    }
}

#[tokio::test]
async fn a_plain_answer_opens_nothing() {
    let backend = Backend::always(response(200, "a page")).await;
    let gateway = to(&backend);
    for protocol in Protocol::ALL {
        let refused = WebSocket::open(&gateway, protocol, "/live").await.unwrap_err();
        match protocol.is_h2() {
            false => assert_eq!((refused.status, refused.text()), (200, "a page".to_owned())),
            // Passed on it would say that a WebSocket is open.
            true => assert_eq!((refused.status, &*refused.problem()), (502, "backend-malformed")),
        }
    }
}

#[tokio::test]
async fn an_answer_of_the_gateways_own_opens_nothing() {
    let mut far = Far::h1().await;
    let gateway = Setup::new(&format!(
        r#"
routes:
  here: {{ match: /here, public: "a test", respond: {{ status: 200, body: "a page" }} }}
  instead:
    match: /instead
    public: "a test"
    upgrade: [websocket]
    test_replace: {{ status: 200, body: "a page" }}
    to: backend
backends: {{ backend: "{}" }}
"#,
        far.url
    ))
    .start();
    for protocol in Protocol::ALL {
        for path in ["/here", "/instead"] {
            let refused = WebSocket::open(&gateway, protocol, path).await.unwrap_err();
            let said = (refused.status, &*refused.problem());
            match protocol.is_h2() {
                false => assert_eq!(said, (200, ""), "{path} {protocol:?}"),
                true => assert_eq!(said, (405, "method-not-allowed"), "{path} {protocol:?}"),
            }
        }
    }
    // The one that was replaced had been granted.
    for _ in Protocol::ALL {
        far.sockets.recv().await.unwrap();
    }
}

#[tokio::test]
async fn a_connection_whose_upgrade_was_refused_goes_on() {
    let backend = Backend::start(|mut conversation| async move {
        while let Some(request) = conversation.request().await {
            let status = if request.field("upgrade").is_some() { 403 } else { 200 };
            conversation.send(response(status, &request.line)).await;
        }
    })
    .await;
    let gateway = to(&backend);
    let mut client = Client::connect(&gateway, Protocol::H1).await;
    for (request, status) in
        [(opening("/live"), 403), (Request::get("/next"), 200), (opening("/again"), 403)]
    {
        let line = format!("GET {} HTTP/1.1", request.path);
        let answer = client.send(request).await.unwrap();
        assert_eq!((answer.status, answer.text()), (status, line));
    }
    assert_eq!(backend.connections(), 1);
}

#[tokio::test]
async fn a_grant_that_is_none_is_a_502() {
    let head = "HTTP/1.1 101 Switching Protocols\r\n";
    let grant = format!("Upgrade: websocket\r\nSec-WebSocket-Accept: {ACCEPT}\r\n");
    let connection = "Connection: Upgrade\r\n";
    for (asked, answer) in [
        // Unasked.
        (false, format!("{head}{connection}{grant}\r\n")),
        (false, format!("{head}\r\n")),
        // Another protocol, none, or two.
        (true, format!("{head}{connection}Upgrade: h2c\r\nSec-WebSocket-Accept: {ACCEPT}\r\n\r\n")),
        (true, format!("{head}{connection}Sec-WebSocket-Accept: {ACCEPT}\r\n\r\n")),
        (true, format!("{head}{connection}Upgrade: h2c\r\n{grant}\r\n")),
        (true, format!("{head}{grant}\r\n")),
        // Another key's answer, none, or two.
        (true, format!("{head}{connection}Upgrade: websocket\r\n\r\n")),
        (true, format!("{head}{connection}{}\r\n", grant.replace("s3pP", "S3pP"))),
        (true, format!("{head}{connection}{grant}Sec-WebSocket-Accept: a\r\n\r\n")),
        // Half a head.
        (true, format!("{head}{connection}")),
    ] {
        let sent = answer.clone();
        let backend = Backend::start(move |mut conversation| {
            let sent = sent.clone();
            async move {
                conversation.request().await;
                conversation.send([sent.as_bytes(), b"\x81\x02hi"].concat()).await;
                conversation.shutdown().await;
                conversation.until_closed().await;
            }
        })
        .await;
        let gateway = to(&backend);
        let mut client = Client::connect(&gateway, Protocol::H1).await;
        let request = if asked { opening("/live") } else { Request::get("/live") };
        let refused = client.send(request).await.unwrap_or_else(|cut| panic!("{cut:?} {answer:?}"));
        assert_eq!(refused.status, 502, "{answer:?}");
        assert!(refused.problem().starts_with("backend-"), "{answer:?}");
        if asked {
            let refused = WebSocket::open(&gateway, Protocol::H2, "/live").await.unwrap_err();
            assert_eq!(refused.status, 502, "{answer:?}");
        }
    }
}

#[tokio::test]
async fn an_unasked_grant_on_a_route_that_upgrades_nothing_is_a_502() {
    let backend = Backend::start(|mut conversation| async move {
        let Some(mut request) = conversation.request().await else { return };
        request.fields.push(("sec-websocket-key".to_owned(), KEY.to_owned()));
        conversation.websocket(&request, "").await.echo().await;
    })
    .await;
    let gateway = crate::to(&backend).start();
    let refused = WebSocket::open(&gateway, Protocol::H1, "/live").await.unwrap_err();
    assert_eq!((refused.status, &*refused.problem()), (502, "backend-malformed"));
}

#[tokio::test]
async fn a_request_that_does_not_quite_ask_is_a_plain_one() {
    let key = format!("Sec-WebSocket-Key: {KEY}\r\n");
    let (version, upgrade) = ("Sec-WebSocket-Version: 13\r\n", "Upgrade: websocket\r\n");
    let connection = "Connection: Upgrade\r\n";
    let get = "GET /live HTTP/1.1\r\nHost: a\r\n";
    let asking = format!("{connection}{upgrade}{version}{key}");
    let backend = eager().await;
    let gateway = to(&backend);
    for bytes in [
        format!("{get}{connection}{upgrade}{version}\r\n"),
        format!("{get}{connection}{upgrade}{key}\r\n"),
        format!("{get}{connection}{upgrade}{version}{key}{key}\r\n"),
        format!("{get}{connection}{upgrade}{version}{version}{key}\r\n"),
        format!("{get}{connection}{upgrade}Sec-WebSocket-Version: 12\r\n{key}\r\n"),
        format!("{get}{connection}{upgrade}Sec-WebSocket-Version: 13, 8\r\n{key}\r\n"),
        format!("{get}{connection}{upgrade}{version}Sec-WebSocket-Key: {}\r\n\r\n", &KEY[1..]),
        format!("{get}{connection}{upgrade}{version}Sec-WebSocket-Key:\r\n\r\n"),
        format!("{get}{connection}Upgrade: h2c\r\n{version}{key}\r\n"),
        format!("{get}{connection}Upgrade: websocket, h2c\r\n{version}{key}\r\n"),
        format!("{get}{connection}Upgrade: h2c\r\n{upgrade}{version}{key}\r\n"),
        format!("{get}{connection}Upgrade: websocket/13\r\n{version}{key}\r\n"),
        format!("{get}{upgrade}{version}{key}\r\n"),
        format!("{get}Connection: keep-alive\r\n{upgrade}{version}{key}\r\n"),
        format!("{get}Connection: X-Upgrade\r\n{upgrade}{version}{key}\r\n"),
        format!("POST /live HTTP/1.1\r\nHost: a\r\n{asking}Content-Length: 0\r\n\r\n"),
        format!("HEAD /live HTTP/1.1\r\nHost: a\r\n{asking}\r\n"),
        format!("OPTIONS /live HTTP/1.1\r\nHost: a\r\n{asking}\r\n"),
        format!("{get}{asking}Content-Length: 2\r\n\r\nhi"),
        format!("{get}{asking}Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"),
        format!("GET /live HTTP/1.0\r\nHost: a\r\n{asking}\r\n"),
    ] {
        let mut client = H1Client::connect(gateway.address("plain")).await;
        client.send(&bytes).await;
        let method = bytes.split(' ').next().unwrap();
        let answer = client.response(method).await.unwrap();
        let interim: Vec<_> = answer.interim.iter().map(|(status, _)| *status).collect();
        assert_eq!((answer.status, interim), (200, vec![]), "{bytes:?}");
        let seen = told(&backend.last().fields, &["connection", "upgrade"]);
        assert_eq!(seen, [""; 0], "{bytes:?}");
    }
    assert_eq!(backend.requests().len(), 21);
}

#[tokio::test]
async fn extended_connect_for_anything_else_is_refused() {
    let backend = eager().await;
    let gateway = to(&backend);
    for (protocol, version) in
        [("connect-udp", Some("13")), ("websocket", None), ("websocket", Some("8"))]
    {
        let Client::H2(client) = Client::connect(&gateway, Protocol::H2).await else {
            unreachable!()
        };
        let request = Request::get("/live");
        let request = version
            .iter()
            .fold(request, |request, version| request.field("sec-websocket-version", version));
        let refused = WebSocket::connect(&client, protocol, &request).await.unwrap_err();
        assert_eq!(refused.status, 405, "{protocol} {version:?}");
    }
    assert_eq!(backend.connections(), 0);
}

const KEYS: &str = r#"
- id: acme-1
  hash: "blake3:12072b7fdeb28ff8e34647c33e8c24a79af7996195968f3aecda4eeee3ae9189"
  client: acme
"#;

#[tokio::test]
async fn whoever_may_not_pass_reaches_no_backend() {
    let mut far = Far::h1().await;
    let gateway = Setup::new(&format!(
        r#"
auth: {{ partners: {{ api_keys: {{ keys: "file:keys.yaml" }} }} }}
routes:
  live: {{ match: /live, auth: partners, upgrade: [websocket], to: backend }}
  denied: {{ match: /denied, public: "a test", upgrade: [websocket], deny: "not this one" }}
backends: {{ backend: "{}" }}
"#,
        far.url
    ))
    .file("keys.yaml", KEYS)
    .start();
    for protocol in Protocol::ALL {
        for (path, status, problem) in [
            ("/live", 401, "credentials-missing"),
            ("/denied", 403, "denied"),
            ("/nowhere", 404, "no-route"),
        ] {
            let refused = WebSocket::open(&gateway, protocol, path).await.unwrap_err();
            assert_eq!((refused.status, &*refused.problem()), (status, problem), "{protocol:?}");
        }
    }
    assert!(far.sockets.try_recv().is_err());
    let key = "pk_acme-1_4Kogz2wCj1GHTXhY3c7uchTN4lYPY06oJuh9x09hjj2";
    let client = H1Client::connect(gateway.address("plain")).await;
    WebSocket::open_h1(client, &opening("/live").field("x-api-key", key)).await.unwrap();
    let Client::H2(client) = Client::connect(&gateway, Protocol::H2).await else { unreachable!() };
    let request = Request::get("/live").field("x-api-key", key);
    WebSocket::open_h2(&client, &request).await.unwrap();
    for _ in 0..2 {
        let other = far.sockets.recv().await.unwrap();
        assert_eq!(told(&other.fields, &["portcullis-client"]), ["portcullis-client: acme"]);
    }
}

/// Requirement 4: what a client sends before there is a WebSocket belongs to nobody yet.
#[tokio::test]
async fn requirement_4_early_bytes_wait_for_the_grant() {
    let (here, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let inside = (Arc::clone(&here), Arc::clone(&go));
    let backend = Backend::start(move |mut conversation| {
        let (here, go) = (Arc::clone(&inside.0), Arc::clone(&inside.1));
        async move {
            let Some(request) = conversation.request().await else { return };
            here.notify_one();
            go.notified().await;
            assert_eq!(conversation.arrived().await, b"", "before the 101");
            conversation.websocket(&request, "").await.echo().await;
        }
    })
    .await;
    let gateway = to(&backend);
    let early = Frame::text("as early as can be");
    for tls in [false, true] {
        let mut client = match tls {
            false => H1Client::connect(gateway.address("plain")).await,
            true => H1Client::connect_tls(gateway.address("tls"), &gateway.pki).await,
        };
        let head = portcullis_testkit::h1::encode(&opening("/live"));
        client.send([&head[..], &early.encode(Some([1, 2, 3, 4]))].concat()).await;
        here.notified().await;
        client.send(early.encode(Some([5, 6, 7, 8]))).await;
        gateway.settle().await;
        go.notify_one();
        let (line, _) = client.head().await.unwrap();
        assert_eq!(line, "HTTP/1.1 101 Switching Protocols");
        client.shutdown().await;
        let (echoed, end) = client.rest().await;
        let twice = [early.encode(None), early.encode(None)].concat();
        assert_eq!((echoed, end), (twice, Cut::Closed), "tls: {tls}");
    }
}

#[tokio::test]
async fn requirement_4_early_bytes_of_a_refused_upgrade_are_the_next_request() {
    let backend = Backend::start(|mut conversation| async move {
        while let Some(request) = conversation.request().await {
            assert!(request.line.starts_with("GET /live"), "smuggled: {}", request.line);
            conversation.send(response(403, "no")).await;
        }
    })
    .await;
    let gateway = Setup::new(&format!(
        r#"
routes:
  live: {{ match: /live, public: "a test", upgrade: [websocket], to: backend }}
  inner: {{ match: /inner, deny: "not from outside", public: "a test" }}
backends: {{ backend: "{}" }}
"#,
        backend.url()
    ))
    .start();
    let mut client = H1Client::connect(gateway.address("plain")).await;
    let head = portcullis_testkit::h1::encode(&opening("/live"));
    let smuggled = b"GET /inner HTTP/1.1\r\nHost: a\r\n\r\n";
    client.send([&head[..], smuggled].concat()).await;
    assert_eq!(client.response("GET").await.unwrap().text(), "no");
    assert_eq!(client.response("GET").await.unwrap().problem(), "denied");
    // Frames are no request.
    client.send([&head[..], &Frame::text("hi").encode(Some([1, 2, 3, 4]))].concat()).await;
    assert_eq!(client.response("GET").await.unwrap().text(), "no");
    assert_eq!(client.response("GET").await.unwrap().status, 400);
    assert_eq!(client.rest().await.0, b"");
    assert_eq!((backend.connections(), backend.requests().len()), (1, 2));
}

#[tokio::test]
async fn frames_that_come_with_the_grant_are_passed_on() {
    let backend = Backend::start(|mut conversation| async move {
        let Some(request) = conversation.request().await else { return };
        let accept = portcullis_testkit::websocket::accept(&request.fields);
        let head = format!(
            "HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: WebSocket\r\n\
             Sec-WebSocket-Accept: {accept}\r\n\r\n"
        );
        conversation.send([head.as_bytes(), &Frame::text("at once").encode(None)].concat()).await;
        conversation.into_websocket(&request).echo().await;
    })
    .await;
    let gateway = to(&backend);
    for protocol in Protocol::ALL {
        let mut near = WebSocket::open(&gateway, protocol, "/live").await.unwrap();
        near.expect(&Frame::text("at once")).await;
        near.echoes(&Frame::text("later")).await;
    }
}

#[tokio::test]
async fn a_backend_that_speaks_only_http2_and_no_websocket_is_a_502() {
    let backend = H2Backend::echo().await;
    let gateway = upgrading(&backend.url(), "h2", "").start();
    for protocol in Protocol::ALL {
        let mut refused = pin!(WebSocket::open(&gateway, protocol, "/live"));
        // What it may do is in its first SETTINGS, which are waited for.
        let refused = loop {
            tokio::select! {
                refused = &mut refused => break refused,
                () = gateway.advance(Duration::from_millis(100)) => {}
            }
        };
        let refused = refused.unwrap_err();
        assert_eq!(refused.status, 502, "{protocol:?}");
    }
    assert!(backend.seen().is_empty());
}
