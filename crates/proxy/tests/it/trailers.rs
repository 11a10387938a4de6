//! Trailers both ways and across versions (RFC 9110 §6.5).

use portcullis_testkit::backend::Received;
use portcullis_testkit::{Backend, Client, H1Client, Protocol, Request};

use crate::to;

/// Names that only a head may have: framing, routing, credentials, conditions, the content's form,
/// and what the gateway itself tells (RFC 9110 §6.5.1).
const FORBIDDEN: &[&str] = &[
    "authorization",
    "cache-control",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "if-match",
    "location",
    "max-forwards",
    "portcullis-client",
    "portcullis_tenant",
    "range",
    "set-cookie",
    "te_",
    "trailer",
    "transfer_encoding",
    "vary",
    "via",
    "www-authenticate",
    "x-forwarded-for",
    "x_forwarded_host",
    "x-forwarded-prefix",
    "x-real-ip",
    "x-request-id",
];

fn trailers(seen: &Received) -> Vec<&str> {
    seen.trailers.iter().map(|(name, _)| &**name).collect()
}

#[tokio::test]
async fn request_trailers_reach_the_backend_whoever_sends_them() {
    let backend = Backend::echo().await;
    let gateway = to(&backend).start();
    for protocol in Protocol::ALL {
        let mut client = Client::connect(&gateway, protocol).await;
        for te in [None, Some("trailers")] {
            let mut request = Request::stream("/", &["one ", "two"])
                .trailer("x-checksum", "17")
                .trailer("x-checksum", "18")
                .trailer("x-signature", "a, b");
            if let Some(te) = te {
                request = request.field("te", te);
            }
            let answer = client.send(request).await.unwrap();
            assert_eq!(answer.text(), "one two", "{protocol:?}");
            let seen = backend.last();
            let expected = [("x-checksum", "17"), ("x-checksum", "18"), ("x-signature", "a, b")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()));
            assert_eq!(seen.trailers, expected, "{protocol:?}");
            // Only the client can promise to take the answer's.
            assert_eq!(seen.field("te"), te, "{protocol:?}");
            assert_eq!(seen.field("connection"), te.map(|_| "te"), "{protocol:?}");
            // They never become fields of the head.
            assert_eq!(seen.field("x-checksum"), None, "{protocol:?}");
        }
    }
    assert_eq!(backend.connections(), 1);
}

#[tokio::test]
async fn response_trailers_reach_the_client() {
    let backend = Backend::always(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Checksum\r\n\r\n\
         4\r\nbody\r\n0\r\nX-Checksum: 17\r\nX-Checksum: 18\r\n\r\n",
    )
    .await;
    let gateway = to(&backend).start();
    for protocol in Protocol::ALL {
        let mut client = Client::connect(&gateway, protocol).await;
        // Who did not say `TE: trailers` gets them as well: it has to be able to skip what it does
        // not know (RFC 9110 §6.5.1, RFC 9112 §7.1.2), and a cache may be in between.
        for request in [Request::get("/"), Request::get("/").field("te", "trailers")] {
            let answer = client.send(request).await.unwrap();
            assert_eq!(answer.text(), "body", "{protocol:?}");
            let expected = ["17", "18"].map(|value| ("x-checksum".to_owned(), value.to_owned()));
            assert_eq!(answer.trailers, expected, "{protocol:?}");
            assert_eq!(answer.field("x-checksum"), None, "{protocol:?}");
            assert_eq!(answer.field("trailer"), None, "{protocol:?}");
        }
    }
    // HTTP/1.0 has nowhere to put them.
    let mut client = H1Client::connect(gateway.address("plain")).await;
    client.send("GET / HTTP/1.0\r\nConnection: te\r\nTE: trailers\r\n\r\n").await;
    let (bytes, _) = client.rest().await;
    assert!(bytes.ends_with(b"\r\n\r\nbody"), "{}", bytes.escape_ascii());
    assert_eq!(backend.last().field("te"), None);
}

#[tokio::test]
async fn an_answer_to_head_and_one_without_a_body_have_no_trailers() {
    let backend = Backend::start(|mut conversation| async move {
        while let Some(request) = conversation.request().await {
            let answer = match request.line.starts_with("HEAD") {
                true => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                false => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nx-t: 1\r\n\r\n",
            };
            conversation.send(answer).await;
        }
    })
    .await;
    let gateway = to(&backend).start();
    for protocol in Protocol::ALL {
        let mut client = Client::connect(&gateway, protocol).await;
        for _ in 0..2 {
            let answer = client.send(Request::new("HEAD", "/")).await.unwrap();
            assert_eq!((answer.text(), answer.trailers), (String::new(), vec![]), "{protocol:?}");
            // An empty body that is framed has an end, and trailers may follow it.
            let answer = client.send(Request::get("/")).await.unwrap();
            let expected = [("x-t".to_owned(), "1".to_owned())];
            assert_eq!(answer.text(), "", "{protocol:?}");
            assert_eq!(answer.trailers, expected, "{protocol:?}");
        }
    }
}

#[tokio::test]
async fn what_only_a_head_may_say_is_dropped_from_request_trailers() {
    let backend = Backend::echo().await;
    let gateway = to(&backend).start();
    for protocol in Protocol::ALL {
        let mut client = Client::connect(&gateway, protocol).await;
        let mut request = Request::stream("/", &["body"]).trailer("x-first", "1");
        for name in FORBIDDEN {
            request = request.trailer(name, "1");
        }
        let answer = client.send(request.trailer("x-last", "1")).await.unwrap();
        assert_eq!(answer.text(), "body", "{protocol:?}");
        assert_eq!(trailers(&backend.last()), ["x-first", "te_", "x-last"], "{protocol:?}");
    }
}

#[tokio::test]
async fn what_only_a_head_may_say_is_dropped_from_response_trailers() {
    let lines: String = FORBIDDEN.iter().map(|name| format!("{name}: 1\r\n")).collect();
    let backend = Backend::always(format!(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\
         x-first: 1\r\n{lines}Connection: x-first\r\nx-last: 1\r\n\r\n"
    ))
    .await;
    let gateway = to(&backend).start();
    for protocol in Protocol::ALL {
        let mut client = Client::connect(&gateway, protocol).await;
        for _ in 0..2 {
            let answer = client.send(Request::get("/")).await.unwrap();
            let names: Vec<_> = answer.trailers.iter().map(|(name, _)| &**name).collect();
            assert_eq!(names, ["x-first", "te_", "x-last"], "{protocol:?}");
        }
    }
}

#[tokio::test]
async fn a_body_with_a_length_has_no_trailers_in_http_1() {
    let backend = Backend::echo().await;
    let gateway = to(&backend).start();
    for protocol in [Protocol::H2, Protocol::H2Tls] {
        let mut client = Client::connect(&gateway, protocol).await;
        for _ in 0..2 {
            let request =
                Request::stream("/", &["body"]).field("content-length", "4").trailer("x-t", "1");
            let answer = client.send(request).await.unwrap();
            assert_eq!((answer.status, &*answer.text()), (200, "body"), "{protocol:?}");
            let seen = backend.last();
            assert_eq!(seen.field("content-length"), Some("4"), "{protocol:?}");
            assert_eq!(trailers(&seen), [""; 0], "{protocol:?}");
        }
    }
    assert_eq!(backend.connections(), 1);
}

#[tokio::test]
async fn of_what_a_client_takes_only_trailers_are_promised_to_the_backend() {
    let backend = Backend::echo().await;
    let gateway = to(&backend).start();
    for (te, told) in [
        ("trailers", Some("trailers")),
        ("gzip;q=0.5, Trailers", Some("trailers")),
        ("gzip", None),
        ("trailersx", None),
        ("", None),
    ] {
        let mut client = Client::connect(&gateway, Protocol::H1).await;
        client.send(Request::get("/").field("TE", te).field("Connection", "TE")).await.unwrap();
        assert_eq!(backend.last().field("te"), told, "{te}");
    }
}

#[tokio::test]
async fn trailers_are_bounded_and_have_to_be_well_formed() {
    let backend = Backend::echo().await;
    let gateway = to(&backend).start();
    let long = format!("x-a: {}\r\n", "x".repeat(9_000));
    let many = "x-a: 1\r\n".repeat(40);
    for (trailers, status) in [
        ("x-a: 1\r\n", 200),
        ("x a: 1\r\n", 400),
        ("x-a : 1\r\n", 400),
        (" x-a: 1\r\n", 400),
        ("x-a: 1\n", 400),
        ("x-a: \0\r\n", 400),
        (&long, 431),
        (&many, 431),
    ] {
        let mut client = H1Client::connect(gateway.address("plain")).await;
        let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        client.send(format!("{head}1\r\nx\r\n0\r\n{trailers}\r\n")).await;
        let answer = client.response("POST").await.unwrap();
        assert_eq!(answer.status, status, "{:?}", &trailers[..trailers.len().min(20)]);
    }
    assert_eq!(backend.requests().len(), 1, "what is refused never reaches a backend whole");
}
