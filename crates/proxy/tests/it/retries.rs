//! Requests that are sent again: when, where, how often, and with what.

use std::time::Duration;

use h2::Reason;
use portcullis_testkit::backend::response;
use portcullis_testkit::h2_backend::Manner;
use portcullis_testkit::{Backend, Client, H2Backend, Protocol, Request, Setup, TestGateway};

const GOOD: &str = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood";

/// Answers everything with these bytes; none of them closes the connection instead.
async fn saying(bytes: impl Into<String>) -> Backend {
    let bytes = bytes.into();
    Backend::start(move |mut conversation| {
        let bytes = bytes.clone();
        async move {
            while conversation.request().await.is_some() && !bytes.is_empty() {
                conversation.send(&bytes).await;
            }
        }
    })
    .await
}

/// By the real clock, since a try is followed by another one after a moment.
fn gateway(urls: &[String], retry: &str, budget: &str) -> TestGateway {
    Setup::new(&format!(
        r#"
routes:
  all: {{ match: /**, public: "a test", to: backend, retry: {retry} }}
backends:
  backend: {{ endpoints: {urls:?}, balance: round_robin, slow_start: off, retry_budget: {budget} }}
"#
    ))
    .real_clock()
    .start()
}

const AMPLE: &str = "{ percent: 100, per_second: 1000 }";

fn retries(gateway: &TestGateway) -> f64 {
    gateway.metric(r#"portcullis_backend_retries_total{backend="backend"}"#).unwrap_or_default()
}

/// How four requests end, over each protocol.
async fn four(gateway: &TestGateway, request: &Request) -> Vec<(u16, String)> {
    let mut seen = Vec::new();
    for protocol in Protocol::ALL {
        let mut client = Client::connect(gateway, protocol).await;
        for _ in 0..4 {
            let answer = client.send(request.clone()).await.unwrap();
            seen.push((answer.status, answer.text()));
        }
    }
    seen
}

#[tokio::test]
async fn what_failed_goes_to_another_endpoint_where_the_route_says_so() {
    let grpc = "HTTP/1.1 200 OK\r\ngrpc-status: 14\r\ncontent-length: 0\r\n\r\n".to_owned();
    let kinds = [
        ("reset", String::new()),
        ("502", response(502, "bad")),
        ("503", response(503, "bad")),
        ("504", response(504, "bad")),
        ("502", "\0what is this\r\n\r\n".to_owned()),
        ("unavailable", grpc),
    ];
    for (kind, bytes) in kinds {
        let (bad, good) = (saying(bytes).await, saying(GOOD).await);
        let urls = [bad.url(), good.url()];
        let with = gateway(&urls, &format!("{{ on: [{kind}] }}"), AMPLE);
        let seen = four(&with, &Request::get("/")).await;
        assert!(seen.iter().all(|seen| *seen == (200, "good".to_owned())), "{kind}: {seen:?}");
        let failed = bad.requests().len();
        assert!(failed > 0 && good.requests().len() == seen.len(), "{kind}");
        assert_eq!(retries(&with), failed as f64, "{kind}");
        let logged = with.stop();
        let retried = logged.iter().filter(|line| line.contains(r#""retries":1"#)).count();
        assert_eq!(retried, failed, "{kind}");

        let without = gateway(&urls, "{ on: [connect] }", AMPLE);
        let seen = four(&without, &Request::get("/")).await;
        assert!(seen.iter().any(|(_, text)| text != "good"), "{kind}: {seen:?}");
        assert_eq!(retries(&without), 0.0, "{kind}");
    }
}

#[tokio::test]
async fn over_http2_too() {
    for kind in ["reset", "503", "unavailable"] {
        let bad = H2Backend::start(Manner::default(), move |mut stream| async move {
            stream.whole().await;
            match kind {
                "reset" => stream.respond.send_reset(Reason::INTERNAL_ERROR),
                "503" => stream.answer(503, &[], "bad"),
                _ => stream.answer(200, &[("grpc-status", "14")], ""),
            }
        });
        let good = H2Backend::start(Manner::default(), |mut stream| async move {
            let whole = stream.whole().await.map(|(body, _)| body);
            stream.answer(200, &[], whole.unwrap_or_default());
        });
        let (bad, good) = (bad.await, good.await);
        let urls = [format!("h2c://{}", bad.address), format!("h2c://{}", good.address)];
        let gateway = gateway(&urls, &format!("{{ on: [{kind}] }}"), AMPLE);
        let put = Request { method: "PUT".into(), ..Request::post("/", "body") };
        let seen = four(&gateway, &put).await;
        assert!(seen.iter().all(|seen| *seen == (200, "body".to_owned())), "{kind}: {seen:?}");
        assert!(retries(&gateway) > 0.0, "{kind}");
    }
}

#[tokio::test]
async fn a_post_reaches_one_backend_unless_the_route_lets_it() {
    for bytes in [String::new(), response(503, "bad")] {
        let (bad, good) = (saying(bytes).await, saying(GOOD).await);
        let urls = [bad.url(), good.url()];
        let never = gateway(&urls, "{}", AMPLE);
        let seen = four(&never, &Request::post("/", "body")).await;
        assert_eq!(bad.requests().len() + good.requests().len(), seen.len());
        assert!(seen.iter().any(|(status, _)| *status >= 500), "{seen:?}");

        let (_, known) = (bad.requests().len(), good.requests().len());
        let lets = gateway(&urls, "{ non_idempotent: true, body_max: 16 }", AMPLE);
        for request in [Request::post("/", "a body"), Request::stream("/", &["a ", "body"])] {
            let seen = four(&lets, &request).await;
            assert!(seen.iter().all(|(status, _)| *status == 200), "{seen:?}");
        }
        let bodies: Vec<_> = good.requests()[known..].iter().map(|r| r.body.clone()).collect();
        assert!(bodies.iter().all(|body| body == b"a body"), "{bodies:?}");
        assert!(retries(&lets) > 0.0);

        let (before, known) = (retries(&lets), bad.requests().len() + good.requests().len());
        let long = ["a body of more", " than sixteen bytes"];
        let seen = four(&lets, &Request::stream("/", &long)).await;
        assert_eq!(bad.requests().len() + good.requests().len() - known, seen.len());
        assert_eq!(retries(&lets), before);
    }
}

#[tokio::test]
async fn a_backend_that_fails_everything_gets_no_more_than_its_budget() {
    let (one, two) = (saying(response(503, "one")).await, saying(response(503, "two")).await);
    let urls = [one.url(), two.url()];
    let gateway = gateway(&urls, "{ attempts: 8 }", "{ percent: 20, per_second: 0 }");
    let mut client = Client::connect(&gateway, Protocol::H1).await;
    for _ in 0..100 {
        // The answer of the backend, not one of the gateway.
        let answer = client.send(Request::get("/")).await.unwrap();
        assert!(answer.status == 503 && ["one", "two"].contains(&&*answer.text()));
    }
    // Two were saved, and while there are two the requests earn nothing.
    assert_eq!(retries(&gateway), 21.0);
    assert_eq!(one.requests().len() + two.requests().len(), 121);
    // What nobody gets is read to its end, so that its connection serves on.
    let connections = |backend: &Backend| backend.requests().iter().map(|r| r.connection).max();
    assert_eq!((connections(&one), connections(&two)), (Some(0), Some(0)));
}

#[tokio::test]
async fn no_endpoint_gets_a_request_twice() {
    for bytes in [String::new(), response(503, "bad")] {
        let mut backends = Vec::new();
        for _ in 0..3 {
            backends.push(saying(bytes.clone()).await);
        }
        let urls: Vec<_> = backends.iter().map(Backend::url).collect();
        let gateway = gateway(&urls, "{ attempts: 8 }", AMPLE);
        let mut client = Client::connect(&gateway, Protocol::H1).await;
        assert!(client.send(Request::get("/")).await.unwrap().status >= 500);
        let counts: Vec<_> = backends.iter().map(|backend| backend.requests().len()).collect();
        assert_eq!(counts, [1, 1, 1]);
    }
}

#[tokio::test]
async fn a_backend_that_wants_to_be_left_alone_is() {
    let bytes = "HTTP/1.1 503 X\r\nretry-after: 30\r\ncontent-length: 0\r\n\r\n";
    let (one, two) = (saying(bytes).await, saying(bytes).await);
    let gateway = gateway(&[one.url(), two.url()], "{}", AMPLE);
    let seen = four(&gateway, &Request::get("/")).await;
    assert!(seen.iter().all(|(status, _)| *status == 503));
    assert_eq!(one.requests().len() + two.requests().len(), seen.len());
}

#[tokio::test]
async fn nothing_is_sent_twice_where_retries_are_off() {
    let (one, two) = (saying("").await, saying("").await);
    let gateway = gateway(&[one.url(), two.url()], "off", AMPLE);
    let seen = four(&gateway, &Request::get("/")).await;
    assert_eq!(one.requests().len() + two.requests().len(), seen.len());
}

#[tokio::test]
async fn a_try_that_takes_too_long_is_followed_by_another() {
    let hanging = Backend::start(|mut conversation| async move {
        conversation.request().await;
        conversation.until_closed().await;
    })
    .await;
    let good = saying(GOOD).await;
    let urls = [hanging.url(), good.url()];
    let gateway = gateway(&urls, "{ on: [connect], per_try: 150ms }", AMPLE);
    let mut client = Client::connect(&gateway, Protocol::H1).await;
    for _ in 0..3 {
        assert_eq!(client.send(Request::get("/")).await.unwrap().text(), "good");
    }
    // Each on a connection of its own: the one before still owed an answer.
    let connections: Vec<_> = hanging.requests().iter().map(|r| r.connection).collect();
    assert_eq!(connections, (0..connections.len()).collect::<Vec<_>>());
    assert!(!connections.is_empty() && retries(&gateway) == connections.len() as f64);
}

#[tokio::test]
async fn all_tries_together_have_the_time_of_one() {
    let hanging = async || {
        Backend::start(|mut conversation| async move {
            conversation.request().await;
            conversation.until_closed().await;
        })
        .await
    };
    let (one, two) = (hanging().await, hanging().await);
    let urls = [one.url(), two.url()];
    let setup = Setup::new(&format!(
        r#"
routes:
  all:
    match: /**
    public: "a test"
    to: backend
    timeout: 15s
    retry: {{ attempts: 8, per_try: 10s }}
backends:
  backend: {{ endpoints: {urls:?} }}
"#
    ));
    let gateway = setup.start();
    let mut client = Client::connect(&gateway, Protocol::H1).await;
    let asked = tokio::spawn(async move { client.send(Request::get("/")).await.unwrap() });
    while one.requests().len() + two.requests().len() < 1 {
        tokio::task::yield_now().await;
    }
    gateway.advance(Duration::from_secs(10)).await;
    while one.requests().len() + two.requests().len() < 2 {
        gateway.advance(Duration::from_millis(50)).await;
    }
    gateway.advance(Duration::from_secs(5)).await;
    assert_eq!(asked.await.unwrap().status, 504);
    assert_eq!((one.requests().len(), two.requests().len()), (1, 1));
}
