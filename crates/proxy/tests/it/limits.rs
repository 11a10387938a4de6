//! Every limit and every deadline has its count, whatever the client speaks.

use std::sync::Arc;
use std::time::Duration;

use portcullis_testkit::{Backend, Client, H1Client, Protocol, Request, Setup, TestGateway};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::{everything_to, to};

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn counts(gateway: &TestGateway, metric: &str, label: &str, names: &[&str]) -> Vec<f64> {
    let sample = |name| format!(r#"portcullis_{metric}_total{{{label}="{name}"}}"#);
    names.iter().map(|name| gateway.metric(&sample(name)).unwrap()).collect()
}

#[tokio::test]
async fn what_is_refused_over_a_limit_is_counted_once_for_that_limit() {
    const BOUNDS: [&str; 4] = ["head_bytes_max", "fields_max", "target_bytes_max", "body_max"];
    let backend = Backend::echo().await;
    let text = everything_to(&backend).replace("public:", "body_max: 1KiB, public:");
    let gateway = Setup::new(&text).start();
    let long = "v".repeat(70 * 1024);
    let many = |count| {
        let name = |i| format!("x-{i}");
        (0..count).fold(Request::get("/"), |request, i| request.field(&name(i), "v"))
    };
    for protocol in Protocol::ALL {
        let cases = [
            ("head_bytes_max", 431, Request::get("/").field("x-long", &long)),
            ("fields_max", 431, many(101)),
            ("target_bytes_max", 414, Request::get(&format!("/{}", &long[..9_000]))),
            ("body_max", 413, Request::post("/", vec![b'x'; 1_025])),
            ("body_max", 413, Request::stream("/", &[&long[..800], &long[..225]])),
        ];
        for (name, status, request) in cases {
            let mut expected = counts(&gateway, "bounds", "bound", &BOUNDS);
            let mut client = Client::connect(&gateway, protocol).await;
            let answer = client.send(request).await.unwrap();
            assert_eq!(answer.status, status, "{protocol:?} {name}");
            let at = BOUNDS.iter().position(|bound| *bound == name).unwrap();
            expected[at] += 1.0;
            let after = counts(&gateway, "bounds", "bound", &BOUNDS);
            assert_eq!(after, expected, "{protocol:?} {name}");
        }
        // Just within all of them.
        let mut client = Client::connect(&gateway, protocol).await;
        let mut request = many(90).field("x-long", &long[..48 * 1024]);
        request.method = "POST".to_owned();
        request.body = portcullis_testkit::Body::Known(vec![b'x'; 1_024].into());
        let answer = client.send(request).await.unwrap();
        assert_eq!(answer.status, 200, "{protocol:?}: {}", answer.text());
    }
    assert_eq!(backend.requests().len(), Protocol::ALL.len());
}

/// Says when a request's head is there, and never answers.
async fn silent() -> (Backend, Arc<Notify>) {
    let here = Arc::new(Notify::new());
    let inside = Arc::clone(&here);
    let backend = Backend::start(move |mut conversation| {
        let here = Arc::clone(&inside);
        async move {
            conversation.head().await;
            here.notify_one();
            conversation.until_closed().await;
        }
    })
    .await;
    (backend, here)
}

const KINDS: [&str; 9] = [
    "handshake",
    "head",
    "body",
    "connect",
    "response",
    "total",
    "stream_idle",
    "keep_alive",
    "continue",
];

fn passed(gateway: &TestGateway) -> Vec<&'static str> {
    let counts = counts(gateway, "deadlines", "kind", &KINDS);
    let each = KINDS.iter().zip(counts);
    each.flat_map(|(kind, count)| std::iter::repeat_n(*kind, count as usize)).collect()
}

/// In steps shorter than a head may take: a connection that comes while the clock moves begins by
/// the old time.
async fn pass(gateway: &TestGateway, mut left: u64) {
    while left > 0 {
        let step = left.min(9);
        gateway.advance(seconds(step)).await;
        left -= step;
    }
}

#[tokio::test]
async fn a_deadline_counts_as_what_it_is() {
    let (backend, here) = silent().await;
    let gateway = |timeout: &str| {
        let timeout = format!("timeout: {{ {timeout} }}, public:");
        Setup::new(&everything_to(&backend).replace("public:", &timeout)).start()
    };
    for (timeout, after, kind) in [
        ("response: 5s", 5, "response"),
        // The end of it all counts as that, not as what was waited for when it came.
        ("response: 1h, total: 5s", 5, "total"),
        ("response: 5s, total: 1h", 5, "response"),
    ] {
        for protocol in Protocol::ALL {
            let gateway = gateway(timeout);
            let mut client = Client::connect(&gateway, protocol).await;
            let test = async {
                here.notified().await;
                gateway.settle().await;
                gateway.advance(seconds(after)).await;
            };
            let (answer, ()) = tokio::join!(client.send(Request::get("/")), test);
            assert_eq!(answer.unwrap().status, 504, "{timeout} {protocol:?}");
            assert_eq!(passed(&gateway), [kind], "{timeout} {protocol:?}");
        }
    }
}

#[tokio::test]
async fn a_handshake_that_does_not_end_is_counted() {
    let backend = Backend::echo().await;
    let gateway = to(&backend).start();
    let tcp = TcpStream::connect(gateway.address("tls")).await.unwrap();
    gateway.connections(1).await;
    gateway.settle().await;
    pass(&gateway, 9).await;
    assert_eq!(passed(&gateway), [""; 0]);
    pass(&gateway, 1).await;
    gateway.connections(0).await;
    assert_eq!(passed(&gateway), ["handshake"]);
    drop(tcp);
}

#[tokio::test]
async fn idle_connections_are_counted_as_idle() {
    let backend = Backend::echo().await;
    for protocol in Protocol::ALL {
        let gateway = to(&backend).start();
        let mut client = Client::connect(&gateway, protocol).await;
        assert_eq!(client.send(Request::get("/")).await.unwrap().status, 200);
        gateway.settle().await;
        // Long after a head would have been late.
        pass(&gateway, 74).await;
        assert_eq!(passed(&gateway), [""; 0], "{protocol:?}");
        pass(&gateway, 1).await;
        gateway.connections(0).await;
        assert_eq!(passed(&gateway), ["keep_alive"], "{protocol:?}");
    }
}

#[tokio::test]
async fn a_backend_that_says_nothing_to_an_expectation_is_counted() {
    let (backend, here) = silent().await;
    let gateway = to(&backend).start();
    let mut client = H1Client::connect(gateway.address("plain")).await;
    let head = "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n";
    client.send(head).await;
    here.notified().await;
    gateway.settle().await;
    gateway.advance(seconds(2)).await;
    assert_eq!(client.head().await.unwrap().0, "HTTP/1.1 100 Continue");
    assert_eq!(passed(&gateway), ["continue"]);
}
