//! What only HTTP/1.1 connections can do, byte by byte.

use std::time::Duration;

use portcullis_testkit::backend::response;
use portcullis_testkit::{Backend, Cut, H1Client, Request, Setup, until};

use crate::to;

#[tokio::test]
async fn connections_are_kept_on_both_sides() {
    let backend = Backend::echo().await;
    let gateway = to(&backend).start();
    let mut client = H1Client::connect(gateway.address("plain")).await;
    for i in 0..5 {
        let text = format!("number {i}");
        let answer = client.exchange(&Request::post("/", text.clone())).await.unwrap();
        assert_eq!(answer.text(), text);
        assert_eq!(answer.field("connection"), None);
    }
    assert_eq!((backend.connections(), backend.requests().len()), (1, 5));
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let backend = Backend::start(|mut conversation| async move {
        while let Some(request) = conversation.request().await {
            let body = String::from_utf8(request.body).unwrap();
            conversation.send(response(200, &format!("{} {body}", request.line))).await;
        }
    })
    .await;
    let gateway = to(&backend).start();
    let mut client = H1Client::connect(gateway.address("plain")).await;
    let mut bytes = Vec::new();
    for i in 0..20 {
        let head = format!("POST /{i} HTTP/1.1\r\nHost: a\r\n");
        bytes.extend_from_slice(head.as_bytes());
        bytes.extend_from_slice(match i % 2 {
            0 => b"Content-Length: 4\r\n\r\nbody",
            _ => b"Transfer-Encoding: chunked\r\n\r\n2\r\nbo\r\n2\r\ndy\r\n0\r\n\r\n",
        });
    }
    client.send(bytes).await;
    for i in 0..20 {
        let answer = client.response("POST").await.unwrap();
        assert_eq!(answer.text(), format!("POST /{i} HTTP/1.1 body"));
    }
    assert_eq!(backend.connections(), 1);
}

#[tokio::test]
async fn any_split_of_a_request_is_the_same_request() {
    let backend = Backend::echo().await;
    let gateway = to(&backend).start();
    let bytes = b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
        5;ext=1\r\nhello\r\n0\r\nX-T: 1\r\n\r\n";
    for at in 1..bytes.len() {
        let mut client = H1Client::connect(gateway.address("plain")).await;
        client.send(&bytes[..at]).await;
        gateway.settle().await;
        client.send(&bytes[at..]).await;
        assert_eq!(client.response("POST").await.unwrap().text(), "hello", "split at {at}");
    }
}

/// A backend that says 100 where it is asked to, and echoes.
async fn continuing() -> Backend {
    Backend::start(|mut conversation| async move {
        while let Some(head) = conversation.head().await {
            if head.field("expect").is_some() {
                conversation.send("HTTP/1.1 100 Continue\r\n\r\n").await;
            }
            let Some(request) = conversation.body(head).await else { return };
            let body = String::from_utf8(request.body).unwrap();
            conversation.send(response(200, &body)).await;
        }
    })
    .await
}

#[tokio::test]
async fn a_client_that_expects_100_gets_it_only_when_its_body_is_wanted() {
    let backend = continuing().await;
    let gateway = Setup::new(&format!(
        r#"
routes:
  all: {{ match: /**, public: "a test", body_max: 10B, to: backend }}
  no: {{ match: /no, public: "a test", deny: "a test" }}
backends: {{ backend: "{}" }}
"#,
        backend.url()
    ))
    .start();
    let mut client = H1Client::connect(gateway.address("plain")).await;
    let head = "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n";
    client.send(head).await;
    let (line, fields) = client.head().await.unwrap();
    assert_eq!((&*line, fields.len()), ("HTTP/1.1 100 Continue", 0));
    client.send("body").await;
    assert_eq!(client.response("POST").await.unwrap().text(), "body");
    assert_eq!(backend.last().field("expect"), Some("100-continue"));

    // A body that comes all the same, without waiting: nobody is asked.
    client.send([head, "body"].concat()).await;
    assert_eq!(client.response("POST").await.unwrap().text(), "body");
    assert_eq!(backend.last().field("expect"), None);

    for (path, length, status) in [("/no", 4, 403), ("/", 11, 413)] {
        let mut client = H1Client::connect(gateway.address("plain")).await;
        client
            .send(format!(
                "POST {path} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\
                 Content-Length: {length}\r\n\r\n"
            ))
            .await;
        let answer = client.response("POST").await.unwrap();
        assert_eq!((answer.status, answer.interim.len()), (status, 0));
        assert_eq!(answer.field("connection"), Some("close"), "{status}");
        assert_eq!(client.rest().await, (Vec::new(), Cut::Closed));
    }
}

#[tokio::test]
async fn a_backend_that_refuses_before_the_body_is_not_sent_it() {
    let backend = Backend::start(|mut conversation| async move {
        while conversation.head().await.is_some() {
            conversation.send(response(401, "no")).await;
        }
    })
    .await;
    let gateway = to(&backend).start();
    let mut client = H1Client::connect(gateway.address("plain")).await;
    let head = "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n";
    client.send(head).await;
    let answer = client.response("POST").await.unwrap();
    assert_eq!((answer.status, answer.interim.len()), (401, 0));
    // Whether a body still comes is not known, so nothing can follow.
    assert_eq!(answer.field("connection"), Some("close"));
}

#[tokio::test]
async fn a_backend_that_does_not_know_expect_gets_the_body_after_a_second() {
    let backend = Backend::echo().await;
    let gateway = to(&backend).start();
    let mut client = H1Client::connect(gateway.address("plain")).await;
    let head = "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n";
    client.send(head).await;
    until("the connection to the backend", || backend.connections() == 1).await;
    gateway.settle().await;
    gateway.advance(Duration::from_millis(1200)).await;
    assert_eq!(client.head().await.unwrap().0, "HTTP/1.1 100 Continue");
    client.send("body").await;
    assert_eq!(client.response("POST").await.unwrap().text(), "body");
}

#[tokio::test]
async fn http_1_0_is_answered_without_chunks_and_closed() {
    let backend = Backend::always(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
    )
    .await;
    let gateway = to(&backend).start();
    let mut client = H1Client::connect(gateway.address("plain")).await;
    client.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n").await;
    let answer = client.response("GET").await.unwrap();
    assert_eq!(answer.text(), "abcde");
    assert_eq!(answer.field("transfer-encoding"), None);
    assert_eq!(answer.field("connection"), Some("close"));
    assert_eq!(backend.last().line, "GET / HTTP/1.1");
}

#[tokio::test]
async fn http_1_0_may_keep_its_connection() {
    let backend = Backend::always(response(200, "abc")).await;
    let gateway = to(&backend).start();
    let mut client = H1Client::connect(gateway.address("plain")).await;
    for _ in 0..2 {
        client.send("GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n").await;
        let answer = client.response("GET").await.unwrap();
        assert_eq!(
            (answer.text(), answer.field("connection")),
            ("abc".to_owned(), Some("keep-alive"))
        );
    }
    client.send("GET / HTTP/1.0\r\n\r\n").await;
    let answer = client.response("GET").await.unwrap();
    assert_eq!(answer.field("connection"), Some("close"));
    assert_eq!(backend.last().field("host"), Some(&*backend.address.to_string()));
}

#[tokio::test]
async fn a_client_that_says_close_is_closed() {
    let backend = Backend::always(response(200, "abc")).await;
    let gateway = to(&backend).start();
    let mut client = H1Client::connect(gateway.address("plain")).await;
    let answer = client.exchange(&Request::get("/").field("Connection", "close")).await.unwrap();
    assert_eq!(answer.field("connection"), Some("close"));
    assert_eq!(client.rest().await, (Vec::new(), Cut::Closed));
    assert_eq!(backend.last().field("connection"), None);
}

#[tokio::test]
async fn what_is_refused_is_answered_and_nothing_after_it_is_read() {
    let backend = Backend::always(response(200, "abc")).await;
    let gateway = to(&backend).start();
    let refused = [
        ("GET / HTTP/1.1\r\n\r\n", 400, "host-refused"),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400, "host-refused"),
        ("GET / HTTP/1.1\r\nHost: a\r\nA : b\r\n\r\n", 400, "malformed-request"),
        ("GET / HTTP/1.1\nHost: a\n\n", 400, "malformed-request"),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
            400,
            "malformed-request",
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n",
            400,
            "malformed-request",
        ),
        ("GET /a/%2e%2e/%2e%2e/b HTTP/1.1\r\nHost: a\r\n\r\n", 400, "path-refused"),
        ("GET / HTTP/3.0\r\nHost: a\r\n\r\n", 505, "version-not-supported"),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            400,
            "malformed-request",
        ),
        ("GET / HTTP/1.1\r\nHost: a\r\nExpect: magic\r\n\r\n", 417, "expectation-failed"),
    ];
    for (bytes, status, code) in refused {
        let mut client = H1Client::connect(gateway.address("plain")).await;
        client.send([bytes, "GET /second HTTP/1.1\r\nHost: a\r\n\r\n"].concat()).await;
        let answer = client.response("GET").await.unwrap();
        assert_eq!((answer.status, &*answer.problem()), (status, code), "{bytes:?}");
        assert_eq!(answer.field("connection"), Some("close"), "{bytes:?}");
        assert_eq!(client.rest().await, (Vec::new(), Cut::Closed), "{bytes:?}");
    }
    assert_eq!(backend.connections(), 0);
}

#[tokio::test]
async fn heads_have_limits() {
    let backend = Backend::always(response(200, "abc")).await;
    let gateway = to(&backend).start();
    let long = "x".repeat(70_000);
    let many = "a: 1\r\n".repeat(101);
    let almost = "x".repeat(60_000);
    for (head, status) in [
        (format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", &long[..9000]), 414),
        (format!("GET / HTTP/1.1\r\nHost: a\r\nA: {long}\r\n\r\n"), 431),
        (format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n"), 431),
        (format!("GET / HTTP/1.1\r\nHost: a\r\nA: {almost}\r\n\r\n"), 200),
    ] {
        let mut client = H1Client::connect(gateway.address("plain")).await;
        client.send(&head).await;
        let answer = client.response("GET").await.unwrap();
        assert_eq!(answer.status, status, "{}", &head[..30]);
    }
    assert_eq!(backend.requests().len(), 1);
}

#[tokio::test]
async fn an_answer_before_the_body_does_not_lose_the_connection_over_a_small_rest() {
    let backend = Backend::always(response(200, "abc")).await;
    let gateway = Setup::new(&format!(
        r#"
routes:
  all: {{ match: /**, public: "a test", to: backend }}
  no: {{ match: /no, public: "a test", deny: "a test" }}
backends: {{ backend: "{}" }}
"#,
        backend.url()
    ))
    .start();
    let mut client = H1Client::connect(gateway.address("plain")).await;
    for _ in 0..3 {
        let answer = client.exchange(&Request::post("/no", "unread")).await.unwrap();
        assert_eq!(answer.status, 403);
        assert_eq!(client.exchange(&Request::get("/")).await.unwrap().status, 200);
    }
}

#[tokio::test]
async fn a_client_that_cuts_its_body_off_cuts_the_backends_too() {
    let backend = Backend::start(|mut conversation| async move {
        let Some(head) = conversation.head().await else { return };
        // Never a whole request.
        assert!(conversation.body(head).await.is_none());
    })
    .await;
    let gateway = to(&backend).start();
    for half in [
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    ] {
        let mut client = H1Client::connect(gateway.address("plain")).await;
        client.send(half).await;
        client.shutdown().await;
        let (bytes, _) = client.rest().await;
        assert!(bytes.is_empty(), "{}", bytes.escape_ascii());
    }
    gateway.connections(0).await;
    assert_eq!(backend.requests().len(), 0);
}

#[tokio::test]
async fn a_client_that_has_said_its_last_still_gets_its_answer() {
    let backend = Backend::echo().await;
    let gateway = to(&backend).start();
    let mut client = H1Client::connect(gateway.address("plain")).await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nlast").await;
    client.shutdown().await;
    assert_eq!(client.response("POST").await.unwrap().text(), "last");
    assert_eq!(client.rest().await, (Vec::new(), Cut::Closed));
}
