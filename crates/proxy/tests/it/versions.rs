//! Older versions of HTTP on either side, and what passes through as it is: ranges, early hints.

use portcullis_testkit::backend::response;
use portcullis_testkit::{Backend, Client, Cut, H1Client, Protocol, Request};

use crate::to;

/// The answer to one request over a connection of its own, and what the connection did then.
async fn http_1_0(gateway: &portcullis_testkit::TestGateway, head: &str) -> (String, Cut) {
    let mut client = H1Client::connect(gateway.address("plain")).await;
    client.send(format!("{head}\r\n")).await;
    let (bytes, end) = client.rest().await;
    (String::from_utf8(bytes).unwrap(), end)
}

/// The fields of an answer but for the ones that are different each time.
fn without_id(answer: &str) -> String {
    let lines = answer.split_inclusive("\r\n");
    lines.filter(|line| !line.starts_with("x-request-id: ")).collect()
}

#[tokio::test]
async fn http_1_0_reads_a_body_without_a_length_up_to_the_end() {
    let backend = Backend::always(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-t\r\n\r\n\
         3;ext=1\r\nabc\r\n2\r\nde\r\n0\r\nx-t: 1\r\n\r\n",
    )
    .await;
    let gateway = to(&backend).start();
    for connection in ["", "Connection: keep-alive\r\n", "Connection: close\r\n"] {
        let (answer, end) = http_1_0(&gateway, &format!("GET / HTTP/1.0\r\n{connection}")).await;
        let expected = "HTTP/1.1 200 OK\r\ndate: Sun, 21 Jun 2026 00:00:00 GMT\r\nconnection: close\r\n\r\nabcde";
        assert_eq!((&*without_id(&answer), end), (expected, Cut::Closed), "{connection:?}");
    }
    let seen = backend.last();
    assert_eq!(seen.line, "GET / HTTP/1.1");
    assert_eq!(seen.field("host"), Some(&*backend.address.to_string()));
    assert_eq!(seen.field("via"), Some("1.0 portcullis"));
    assert_eq!(seen.field("x-forwarded-host"), None);
    assert_eq!(backend.connections(), 1, "the backend's side is HTTP/1.1 and is kept");
}

#[tokio::test]
async fn http_1_0_keeps_its_connection_where_it_asks_and_the_length_is_known() {
    let backend = Backend::start(|mut conversation| async move {
        while let Some(request) = conversation.request().await {
            let method = request.line.split(' ').next().unwrap_or_default();
            let answer = match method {
                "HEAD" => "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n".to_owned(),
                "DELETE" => "HTTP/1.1 204 X\r\n\r\n".to_owned(),
                "OPTIONS" => "HTTP/1.1 304 X\r\nETag: \"a\"\r\n\r\n".to_owned(),
                method => response(200, method),
            };
            conversation.send(answer).await;
        }
    })
    .await;
    let gateway = to(&backend).start();
    let mut client = H1Client::connect(gateway.address("plain")).await;
    for (method, status, body) in [
        ("GET", 200, "GET"),
        ("HEAD", 200, ""),
        ("OPTIONS", 304, ""),
        ("DELETE", 204, ""),
        ("POST", 200, "POST"),
    ] {
        // One without a length must not be followed by anything: RFC 1945 ends it by closing.
        let length = if matches!(method, "GET" | "HEAD") { "" } else { "Content-Length: 0\r\n" };
        client.send(format!("{method} / HTTP/1.0\r\nConnection: Keep-Alive\r\n{length}\r\n")).await;
        let answer = client.response(method).await.unwrap();
        assert_eq!((answer.status, &*answer.text()), (status, body), "{method}");
        assert_eq!(answer.field("connection"), Some("keep-alive"), "{method}");
        assert_eq!(answer.field("transfer-encoding"), None, "{method}");
    }
    client.send("GET / HTTP/1.0\r\n\r\n").await;
    assert_eq!(client.response("GET").await.unwrap().field("connection"), Some("close"));
    assert_eq!(client.rest().await, (Vec::new(), Cut::Closed));
}

#[tokio::test]
async fn http_1_0_gets_no_interim_answers() {
    let backend = Backend::always(
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n\
         HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    )
    .await;
    let gateway = to(&backend).start();
    let expected = "HTTP/1.1 200 OK\r\ndate: Sun, 21 Jun 2026 00:00:00 GMT\r\n\
                    content-length: 2\r\nconnection: close\r\n\r\nok";
    for head in [
        "GET / HTTP/1.0\r\n",
        // The expectation is one of HTTP/1.1 (RFC 9110 §10.1.1): its body is read without a 100.
        "POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi",
    ] {
        let (answer, end) = http_1_0(&gateway, head).await;
        assert_eq!((&*without_id(&answer), end), (expected, Cut::Closed), "{head:?}");
    }
    assert_eq!(backend.last().body, b"hi");
}

#[tokio::test]
async fn http_1_0_knows_no_chunks() {
    let backend = Backend::echo().await;
    let gateway = to(&backend).start();
    let mut client = H1Client::connect(gateway.address("plain")).await;
    client.send("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n").await;
    let answer = client.response("POST").await.unwrap();
    assert_eq!((answer.status, &*answer.problem()), (400, "malformed-request"));
    assert_eq!(client.rest().await, (Vec::new(), Cut::Closed));
    assert_eq!(backend.connections(), 0);
}

/// Answers each connection once and closes it.
async fn closing(answer: &'static str) -> Backend {
    Backend::start(move |mut conversation| async move {
        if conversation.request().await.is_some() {
            conversation.send(answer).await;
        }
    })
    .await
}

#[tokio::test]
async fn a_backend_of_http_1_0_ends_its_answer_with_the_connection() {
    let backend = closing("HTTP/1.0 200 OK\r\nX-A: 1\r\n\r\nall there is").await;
    let gateway = to(&backend).start();
    for protocol in Protocol::ALL {
        let mut client = Client::connect(&gateway, protocol).await;
        for _ in 0..2 {
            let answer = client.send(Request::get("/")).await.unwrap();
            assert_eq!((answer.status, &*answer.text()), (200, "all there is"), "{protocol:?}");
            assert_eq!(answer.field("x-a"), Some("1"), "{protocol:?}");
            assert_eq!(answer.field("content-length"), None, "{protocol:?}");
            let framing = (!protocol.is_h2()).then_some("chunked");
            assert_eq!(answer.field("transfer-encoding"), framing, "{protocol:?}");
        }
    }
    let (answer, end) = http_1_0(&gateway, "GET / HTTP/1.0\r\n").await;
    let expected = "HTTP/1.1 200 OK\r\nX-A: 1\r\ndate: Sun, 21 Jun 2026 00:00:00 GMT\r\n\
                    connection: close\r\n\r\nall there is";
    assert_eq!((&*without_id(&answer), end), (expected, Cut::Closed));
    assert_eq!(backend.connections(), 9);
}

#[tokio::test]
async fn a_backend_of_http_1_0_is_asked_again_only_where_it_says_keep_alive() {
    for (field, connections) in [("X-A: 1", 3), ("Connection: keep-alive", 1)] {
        let answer = format!("HTTP/1.0 200 OK\r\nContent-Length: 3\r\n{field}\r\n\r\nabc");
        let backend = Backend::always(answer).await;
        let gateway = to(&backend).start();
        let mut client = Client::connect(&gateway, Protocol::H1).await;
        for _ in 0..3 {
            let answer = client.send(Request::get("/")).await.unwrap();
            assert_eq!((&*answer.text(), answer.field("connection")), ("abc", None), "{field}");
        }
        assert_eq!(backend.connections(), connections, "{field}");
    }
}

#[tokio::test]
async fn a_backend_of_http_1_0_cannot_send_chunks() {
    let backend =
        closing("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n").await;
    let gateway = to(&backend).start();
    for protocol in Protocol::ALL {
        let mut client = Client::connect(&gateway, protocol).await;
        let answer = client.send(Request::get("/")).await.unwrap();
        assert_eq!((answer.status, &*answer.problem()), (502, "backend-malformed"), "{protocol:?}");
    }
}

const PARTS: &str = "--B\r\nContent-Type: text/plain\r\nContent-Range: bytes 0-1/9\r\n\r\n01\r\n\
                     --B\r\nContent-Type: text/plain\r\nContent-Range: bytes 7-8/9\r\n\r\n78\r\n\
                     --B--\r\n";

/// Serves `012345678` by ranges.
async fn ranged() -> Backend {
    Backend::start(|mut conversation| async move {
        while let Some(request) = conversation.request().await {
            let stale = request.field("if-range").is_some_and(|tag| tag != "\"v2\"");
            let (status, fields, body) = match request.field("range") {
                Some("bytes=2-4") if !stale => (206, "Content-Range: bytes 2-4/9", "234"),
                Some("bytes=0-1,7-8") => {
                    (206, "Content-Type: multipart/byteranges; boundary=B", PARTS)
                }
                Some("bytes=99-") => (416, "Content-Range: bytes */9", ""),
                _ => (200, "Content-Type: text/plain", "012345678"),
            };
            let length = body.len();
            let head = format!(
                "HTTP/1.1 {status} X\r\n{fields}\r\nAccept-Ranges: bytes\r\nETag: \"v2\"\r\n\
                 Content-Length: {length}\r\n\r\n"
            );
            conversation.send([&head, body].concat()).await;
        }
    })
    .await
}

#[tokio::test]
async fn ranges_pass_untouched() {
    let backend = ranged().await;
    let gateway = to(&backend).start();
    for protocol in Protocol::ALL {
        let mut client = Client::connect(&gateway, protocol).await;
        for (range, if_range, status, named, body) in [
            ("bytes=2-4", None, 206, Some("bytes 2-4/9"), "234"),
            ("bytes=2-4", Some("\"v2\""), 206, Some("bytes 2-4/9"), "234"),
            ("bytes=2-4", Some("\"v1\""), 200, None, "012345678"),
            ("bytes=0-1,7-8", None, 206, None, PARTS),
            ("bytes=99-", None, 416, Some("bytes */9"), ""),
            ("lines=1-2", None, 200, None, "012345678"),
        ] {
            let mut request = Request::get("/").field("range", range);
            if let Some(tag) = if_range {
                request = request.field("if-range", tag);
            }
            let answer = client.send(request).await.unwrap();
            assert_eq!((answer.status, &*answer.text()), (status, body), "{protocol:?} {range}");
            assert_eq!(answer.field("content-range"), named, "{protocol:?} {range}");
            assert_eq!(answer.field("accept-ranges"), Some("bytes"), "{protocol:?} {range}");
            assert_eq!(answer.field("etag"), Some("\"v2\""), "{protocol:?} {range}");
            let length = body.len().to_string();
            assert_eq!(answer.field("content-length"), Some(&*length), "{protocol:?} {range}");
            assert_eq!(backend.last().field("if-range"), if_range, "{protocol:?}");
        }
        let answer = client.send(Request::get("/").field("range", "bytes=0-1,7-8")).await.unwrap();
        let kind = answer.field("content-type");
        assert_eq!(kind, Some("multipart/byteranges; boundary=B"), "{protocol:?}");
    }
}

#[tokio::test]
async fn early_hints_pass_one_by_one_without_what_concerns_a_connection() {
    let hint = |path: &str| {
        format!(
            "HTTP/1.1 103 Early Hints\r\nLink: <{path}>; rel=preload\r\nKeep-Alive: timeout=5\r\n\
             Connection: x-hop\r\nX-Hop: 1\r\n\r\n"
        )
    };
    let backend = Backend::always(
        [
            &*hint("/a.css"),
            "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 199 Whatever\r\n\r\n",
            &hint("/b.js"),
            &hint("/c.js"),
            &response(200, "done"),
        ]
        .concat(),
    )
    .await;
    let gateway = to(&backend).start();
    for protocol in Protocol::ALL {
        let mut client = Client::connect(&gateway, protocol).await;
        // On a connection that is kept, so that nothing of one answer is left for the next.
        for _ in 0..2 {
            let answer = client.send(Request::get("/")).await.unwrap();
            assert_eq!((answer.status, &*answer.text()), (200, "done"), "{protocol:?}");
            assert_eq!(answer.field("link"), None, "{protocol:?}");
            let hints = ["/a.css", "/b.js", "/c.js"]
                .map(|path| (103, vec![("link".to_owned(), format!("<{path}>; rel=preload"))]));
            assert_eq!(answer.interim, hints, "{protocol:?}");
        }
    }
    assert_eq!(backend.connections(), 1);
}

#[tokio::test]
async fn a_hint_arrives_before_the_answer_is_there() {
    use std::sync::Arc;
    use tokio::sync::Notify;
    let go = Arc::new(Notify::new());
    let inside = Arc::clone(&go);
    let backend = Backend::start(move |mut conversation| {
        let go = Arc::clone(&inside);
        async move {
            while conversation.request().await.is_some() {
                conversation.send("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n").await;
                go.notified().await;
                conversation.send(response(200, "done")).await;
            }
        }
    })
    .await;
    let gateway = to(&backend).start();
    for tls in [false, true] {
        let mut client = match tls {
            false => H1Client::connect(gateway.address("plain")).await,
            true => H1Client::connect_tls(gateway.address("tls"), &gateway.pki).await,
        };
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let (line, _) = client.head().await.unwrap();
        assert_eq!(line, "HTTP/1.1 103 Early Hints");
        go.notify_one();
        assert_eq!(client.response("GET").await.unwrap().text(), "done");
    }
}

#[tokio::test]
async fn a_backend_that_sends_nothing_but_interim_answers_is_a_502() {
    for interim in ["102 Processing\r\n", "103 Early Hints\r\nLink: </a>\r\n", "100 Continue\r\n"] {
        let flood = format!("HTTP/1.1 {interim}\r\n").repeat(1_000);
        let backend = Backend::always(flood + &response(200, "late")).await;
        let gateway = to(&backend).start();
        for (i, protocol) in Protocol::ALL.into_iter().enumerate() {
            let mut client = Client::connect(&gateway, protocol).await;
            let answer = client.send(Request::get("/")).await.unwrap();
            let expected = (502, "backend-malformed");
            assert_eq!((answer.status, &*answer.problem()), expected, "{protocol:?} {interim}");
            assert_eq!(backend.connections(), i + 1, "{protocol:?} {interim}");
        }
    }
}
