//! Answers that take their time, and answers that stop in the middle.

use std::sync::Arc;
use std::time::Duration;

use portcullis_testkit::backend::response;
use portcullis_testkit::{
    Answer, Backend, Body, Client, Cut, H1Client, Pki, Protocol, Request, Setup, TestGateway,
};
use tokio::sync::Notify;

use crate::{everything_to, to};

const HOUR: Duration = Duration::from_secs(3_600);

/// Two pieces of an answer, the second when the test says so; each is announced once it is sent.
async fn in_two(first: &'static str, second: &'static str) -> (Backend, Arc<Notify>, Arc<Notify>) {
    let (sent, more) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let inside = (Arc::clone(&sent), Arc::clone(&more));
    let backend = Backend::start(move |mut conversation| {
        let (sent, more) = (Arc::clone(&inside.0), Arc::clone(&inside.1));
        async move {
            conversation.request().await;
            conversation.send(first).await;
            sent.notify_one();
            more.notified().await;
            conversation.send(second).await;
        }
    })
    .await;
    (backend, sent, more)
}

fn with_timeout(backend: &Backend, timeout: &str) -> TestGateway {
    let timeout = format!("timeout: {timeout}, public:");
    Setup::new(&everything_to(backend).replace("public:", &timeout)).start()
}

/// What the client gets of an answer that pauses for an hour after its first piece.
async fn after_an_hour(
    gateway: &TestGateway,
    protocol: Protocol,
    sent: &Notify,
    more: &Notify,
) -> Result<Answer, Cut> {
    let mut client = Client::connect(gateway, protocol).await;
    let test = async {
        sent.notified().await;
        gateway.settle().await;
        gateway.advance(HOUR).await;
        more.notify_one();
    };
    tokio::join!(client.send(Request::get("/")), test).0
}

const EVENTS: [&str; 2] = [
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n\
     9\r\ndata: 1\n\n\r\n",
    "9\r\ndata: 2\n\n\r\n0\r\n\r\n",
];

#[tokio::test]
async fn an_event_is_passed_on_while_the_next_one_is_awaited() {
    const FIRST: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
                         Transfer-Encoding: chunked\r\n\r\nb\r\ndata: 1\r\n\r\n\r\n";
    let (backend, _sent, more) = in_two(FIRST, "0\r\n\r\n").await;
    let gateway = to(&backend).start();
    for tls in [false, true] {
        let mut client = match tls {
            false => H1Client::connect(gateway.address("plain")).await,
            true => H1Client::connect_tls(gateway.address("tls"), &gateway.pki).await,
        };
        client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
        client.head().await.unwrap();
        // The chunk looks like a head: a line with its size, one with a field, an empty one.
        let event = ("b".to_owned(), vec![("data".to_owned(), "1".to_owned())]);
        assert_eq!(client.head().await.unwrap(), event);
        more.notify_one();
        assert_eq!(client.rest().await, (b"\r\n0\r\n\r\n".to_vec(), Cut::Closed));
    }
}

#[tokio::test]
async fn an_event_stream_may_pause_as_long_as_its_route_says() {
    for timeout in ["{ idle: off }", "{ idle: 2h }", "{ idle: off, total: 2h }"] {
        for protocol in Protocol::ALL {
            let (backend, sent, more) = in_two(EVENTS[0], EVENTS[1]).await;
            let gateway = with_timeout(&backend, timeout);
            let answer = after_an_hour(&gateway, protocol, &sent, &more).await.unwrap();
            let events = "data: 1\n\ndata: 2\n\n";
            assert_eq!(answer.text(), events, "{timeout} {protocol:?}");
            assert_eq!(answer.field("content-type"), Some("text/event-stream"));
        }
    }
}

#[tokio::test]
async fn an_event_stream_that_pauses_longer_is_cut() {
    for timeout in ["15s", "{ idle: 30m }", "{ idle: off, total: 30m }"] {
        for protocol in Protocol::ALL {
            let (backend, sent, more) = in_two(EVENTS[0], EVENTS[1]).await;
            let gateway = with_timeout(&backend, timeout);
            let cut = after_an_hour(&gateway, protocol, &sent, &more).await.unwrap_err();
            assert_truncated(protocol, cut, timeout);
        }
    }
}

#[tokio::test]
async fn a_long_poll_waits_as_long_as_its_route_says() {
    const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnews";
    for (timeout, status) in [
        ("{ response: off }", 200),
        ("{ response: 2h }", 200),
        ("{ response: off, idle: 1s }", 200),
        ("15s", 504),
        ("{ response: off, total: 30m }", 504),
    ] {
        for protocol in Protocol::ALL {
            let (backend, sent, more) = in_two("", ANSWER).await;
            let gateway = with_timeout(&backend, timeout);
            let answer = after_an_hour(&gateway, protocol, &sent, &more).await.unwrap();
            assert_eq!(answer.status, status, "{timeout} {protocol:?}");
        }
    }
}

/// A client of this protocol has to notice: HTTP/2 by a reset of the stream, HTTP/1.1 by a missing
/// end.
fn assert_truncated(protocol: Protocol, cut: Cut, case: &str) {
    match protocol.is_h2() {
        true => assert_eq!(cut, Cut::Stream(2), "{protocol:?} {case:?}"),
        false => assert!(matches!(cut, Cut::Short | Cut::Reset), "{protocol:?} {case:?}: {cut:?}"),
    }
}

/// Every place where an answer with a length, or in chunks, can stop.
const STOPPED: &[&str] = &[
    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhalf",
    "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhalf",
    "HTTP/1.1 206 X\r\nContent-Range: bytes 0-4/9\r\nContent-Length: 5\r\n\r\nhalf",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nha",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\n\r",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\nx-t: 1\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalfx\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\nx t: 1\r\n\r\n",
];

#[tokio::test]
async fn requirement_16_an_answer_that_stops_never_looks_complete() {
    for bytes in STOPPED {
        let backend = Backend::start(move |mut conversation| async move {
            conversation.request().await;
            conversation.send(bytes).await;
        })
        .await;
        let gateway = to(&backend).start();
        for protocol in Protocol::ALL {
            let mut client = Client::connect(&gateway, protocol).await;
            let cut = client.send(Request::get("/")).await.unwrap_err();
            assert_truncated(protocol, cut, bytes);
        }
        // A client that reads up to the end sees it by the reset, with or without a length.
        for head in ["", "Connection: keep-alive\r\n"] {
            let mut client = H1Client::connect(gateway.address("plain")).await;
            client.send(format!("GET / HTTP/1.0\r\n{head}\r\n")).await;
            assert_eq!(client.rest().await.1, Cut::Reset, "{bytes:?}");
        }
        let lines = gateway.stop();
        let logged = lines.iter().filter(|line| line.contains(r#""problem":"backend-closed""#));
        assert_eq!(logged.count(), 6, "{lines:#?}");
    }
}

#[tokio::test]
async fn requirement_16_an_answer_up_to_the_end_is_whole_only_after_an_orderly_end() {
    let pki = Pki::new();
    let backend = Backend::start_tls(&pki, |mut conversation| async move {
        let Some(request) = conversation.request().await else { return };
        conversation.send("HTTP/1.1 200 OK\r\n\r\nall there is").await;
        if request.line.starts_with("GET /whole") {
            conversation.shutdown().await;
        }
        // Otherwise without a close_notify, as somebody in between could do it (RFC 8446 §6.1).
    })
    .await;
    let gateway = Setup::new(&format!(
        r#"
routes:
  all: {{ match: /**, public: "a test", to: backend }}
backends:
  backend: {{ endpoints: ["https://127.0.0.1:{}"], tls: {{ ca: "file:ca.pem" }} }}
"#,
        backend.address.port()
    ))
    .pki(&pki)
    .start();
    for protocol in Protocol::ALL {
        let mut client = Client::connect(&gateway, protocol).await;
        let answer = client.send(Request::get("/whole")).await.unwrap();
        assert_eq!(answer.text(), "all there is", "{protocol:?}");
        let cut = client.send(Request::get("/cut")).await.unwrap_err();
        assert_truncated(protocol, cut, "without a close_notify");
    }
}

#[tokio::test]
async fn requirement_16_a_reset_of_an_answer_up_to_the_end_is_no_end() {
    let (begun, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let inside = (Arc::clone(&begun), Arc::clone(&go));
    let backend = Backend::start(move |mut conversation| {
        let (begun, go) = (Arc::clone(&inside.0), Arc::clone(&inside.1));
        async move {
            conversation.head().await;
            begun.notify_one();
            go.notified().await;
            // The body stays unread, so that closing resets.
            conversation.send("HTTP/1.1 200 OK\r\n\r\nhalf").await;
        }
    })
    .await;
    let gateway = to(&backend).start();
    for protocol in Protocol::ALL {
        let mut client = Client::connect(&gateway, protocol).await;
        let test = async {
            begun.notified().await;
            // As much of the body as fits into the sockets' buffers is on its way.
            gateway.settle().await;
            go.notify_one();
        };
        let request = Request::post("/", vec![b'x'; 8 << 20]);
        match tokio::join!(client.send(request), test).0 {
            // The reset has overtaken the head.
            Ok(answer) => assert_eq!(answer.status, 502, "{protocol:?}: {}", answer.text()),
            Err(cut) => assert_truncated(protocol, cut, "reset"),
        }
    }
}

#[tokio::test]
async fn requirement_16_a_request_that_stops_never_looks_complete() {
    let (begun, over) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let inside = (Arc::clone(&begun), Arc::clone(&over));
    let backend = Backend::start(move |mut conversation| {
        let (begun, over) = (Arc::clone(&inside.0), Arc::clone(&inside.1));
        async move {
            let Some(head) = conversation.head().await else { return };
            begun.notify_one();
            let whole = conversation.body(head).await;
            assert!(whole.is_none(), "a request that was cut off looks whole");
            over.notify_one();
        }
    })
    .await;
    let gateway = to(&backend).start();
    for tls in [false, true] {
        for half in [
            "Content-Length: 10\r\n\r\nhalf",
            "Transfer-Encoding: chunked\r\n\r\n",
            "Transfer-Encoding: chunked\r\n\r\n4\r\nha",
            "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
            "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\n",
            "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\nx-t: 1\r\n",
        ] {
            let mut client = match tls {
                false => H1Client::connect(gateway.address("plain")).await,
                true => H1Client::connect_tls(gateway.address("tls"), &gateway.pki).await,
            };
            client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{half}")).await;
            begun.notified().await;
            drop(client);
            over.notified().await;
        }
    }
    assert_eq!(backend.requests().len(), 0);
}

#[tokio::test]
async fn requirement_16_a_stream_that_is_reset_never_looks_complete() {
    let (begun, go, over) =
        (Arc::new(Notify::new()), Arc::new(Notify::new()), Arc::new(Notify::new()));
    let inside = (Arc::clone(&begun), Arc::clone(&go), Arc::clone(&over));
    let backend = Backend::start(move |mut conversation| {
        let (begun, go, over) =
            (Arc::clone(&inside.0), Arc::clone(&inside.1), Arc::clone(&inside.2));
        async move {
            let Some(head) = conversation.head().await else { return };
            begun.notify_one();
            // Reads nothing meanwhile, so that the client cannot get rid of its body.
            go.notified().await;
            let whole = conversation.body(head).await;
            assert!(whole.is_none(), "a request that was cut off looks whole");
            over.notify_one();
        }
    })
    .await;
    let text = everything_to(&backend).replace("public:", "body_max: 64MiB, public:");
    let gateway = Setup::new(&text).start();
    let body = vec![b'x'; 64 << 20];
    let mut pieces = Request::stream("/", &[]);
    pieces.body = Body::Unknown { pieces: vec![body.clone().into()], trailers: Vec::new() };
    for request in [Request::post("/", body), pieces] {
        let client = Client::connect(&gateway, Protocol::H2).await;
        let Client::H2(client) = &client else { unreachable!() };
        let mut stream = client.stream();
        tokio::select! {
            answer = stream.exchange(&request) => panic!("{answer:?}"),
            () = begun.notified() => {}
        }
        drop(stream);
        go.notify_one();
        over.notified().await;
    }
    assert_eq!(backend.requests().len(), 0);
}

#[tokio::test]
async fn requirement_16_a_stream_that_does_not_keep_its_length_never_looks_complete() {
    let backend = Backend::echo().await;
    let gateway = to(&backend).start();
    for protocol in [Protocol::H2, Protocol::H2Tls] {
        for length in ["3", "5", "100000"] {
            let mut client = Client::connect(&gateway, protocol).await;
            let request = Request::stream("/", &["half"]).field("content-length", length);
            let cut = client.send(request).await.unwrap_err();
            // PROTOCOL_ERROR (RFC 9113 §8.1.1).
            assert_eq!(cut, Cut::Stream(1), "{protocol:?} {length}");
        }
    }
    assert_eq!(backend.requests().len(), 0);
}

#[tokio::test]
async fn requirement_16_nothing_of_an_answer_that_stopped_is_in_the_next_one() {
    let backend = Backend::start(|mut conversation| async move {
        while let Some(request) = conversation.request().await {
            if request.line.starts_with("GET /stops") {
                return conversation.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhalf").await;
            }
            conversation.send(response(200, "whole")).await;
        }
    })
    .await;
    let gateway = to(&backend).start();
    let mut client = Client::connect(&gateway, Protocol::H2).await;
    for _ in 0..3 {
        let cut = client.send(Request::get("/stops")).await.unwrap_err();
        assert_truncated(Protocol::H2, cut, "on a shared connection");
        assert_eq!(client.send(Request::get("/")).await.unwrap().text(), "whole");
    }
}
