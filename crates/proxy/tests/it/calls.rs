//! What becomes of calls of gRPC counts for endpoints and breakers, though all answers are 200.

use std::time::Duration;

use portcullis_testkit::h2_backend::{Manner, Stream, map};
use portcullis_testkit::{Answer, Client, H2Backend, Protocol, Request, Setup, TestGateway, until};
use portcullis_upstream::breaker::State;

const FIELDS: [(&str, &str); 1] = [("content-type", "application/grpc")];
const MESSAGE: &str = "\0\0\0\0\u{2}hi";

/// Does what the method says: `HOW-STATUS`, where HOW is `head`, `trailers` or `message`, or
/// `silent`, which sends nothing after the head, or `stream`, which goes on after a message.
async fn script(mut stream: Stream) {
    let method = stream.request.uri().path().rsplit('/').next().unwrap().to_owned();
    stream.whole().await;
    let (how, status) = method.split_once('-').unwrap();
    if how == "head" {
        return stream.answer(200, &[FIELDS[0], ("grpc-status", status)], "");
    }
    let mut send = stream.head(200, &FIELDS);
    if ["message", "stream"].contains(&how) {
        drop(send.send_data(MESSAGE.into(), false));
    }
    if ["silent", "stream"].contains(&how) {
        return std::future::pending().await;
    }
    drop(send.send_trailers(map(&[("grpc-status", status)])));
}

async fn as_asked() -> H2Backend {
    H2Backend::start(Manner::default(), script).await
}

/// Ends well, whatever it is asked.
async fn well() -> H2Backend {
    H2Backend::start(Manner::default(), |mut stream| async move {
        stream.whole().await;
        let mut send = stream.head(200, &FIELDS);
        drop(send.send_data(MESSAGE.into(), false));
        drop(send.send_trailers(map(&[("grpc-status", "0")])));
    })
    .await
}

fn setup(backends: &[&H2Backend], route: &str, backend: &str) -> Setup {
    let urls: Vec<_> = backends.iter().map(|one| format!("h2c://{}", one.address)).collect();
    Setup::new(&format!(
        r#"
routes:
  all: {{ match: {{ grpc: "pkg.Echo/*" }}, public: "a test", to: backend, {route} }}
backends:
  backend: {{ endpoints: {urls:?}, balance: round_robin, slow_start: off, {backend} }}
"#
    ))
}

fn call(method: &str) -> Request {
    Request::stream(&format!("/pkg.Echo/{method}"), &[MESSAGE])
        .field("content-type", "application/grpc")
        .field("te", "trailers")
}

fn status(answer: &Answer) -> String {
    let trailer = answer.trailers.iter().find(|(name, _)| name == "grpc-status");
    answer.field("grpc-status").or(trailer.map(|(_, value)| &**value)).unwrap().to_owned()
}

/// How so many calls end.
async fn statuses(gateway: &TestGateway, request: Request, count: usize) -> Vec<String> {
    let mut client = Client::connect(gateway, Protocol::H2).await;
    let mut seen = Vec::new();
    for _ in 0..count {
        seen.push(status(&client.send(request.clone()).await.unwrap()));
    }
    seen
}

fn ejected(gateway: &TestGateway) -> Vec<bool> {
    let snapshot = gateway.gateway.snapshot();
    let set = snapshot.backends[0].endpoints.load();
    set.balancer.members().iter().map(|member| member.endpoint.is_ejected()).collect()
}

#[tokio::test]
async fn who_fails_calls_is_left_out_however_it_says_so() {
    for (how, fails) in [
        ("head-14", true),
        ("trailers-13", true),
        ("message-14", true),
        ("message-2", true),
        ("head-5", false),
        ("trailers-12", false),
        ("message-8", false),
    ] {
        let (one, two, three) = (as_asked().await, well().await, well().await);
        let gateway = setup(&[&one, &two, &three], "retry: off", "panic_threshold: 50").start();
        let seen = statuses(&gateway, call(how), 66).await;
        assert_eq!(seen.iter().filter(|status| **status != "0").count(), 22, "{how}");
        if fails {
            until("a judgement", || {
                gateway.clock.advance(Duration::from_millis(50));
                ejected(&gateway) == [true, false, false]
            })
            .await;
            assert_eq!(statuses(&gateway, call(how), 20).await, ["0"; 20], "{how}");
        } else {
            gateway.advance(Duration::from_secs(3)).await;
            assert_eq!(ejected(&gateway), [false; 3], "{how}");
        }
    }
}

fn breaker(of: &str) -> String {
    format!("outliers: off, breaker: {{ of: {of}, requests_min: 4, open: 5s, probes: 1 }}")
}

fn state(gateway: &TestGateway) -> State {
    let snapshot = gateway.gateway.snapshot();
    match &snapshot.backends[0].breaker {
        Some(breaker) => breaker.state.state(),
        None => {
            snapshot.backends[0].endpoints.load().balancer.members()[0].endpoint.breaker().state()
        }
    }
}

#[tokio::test]
async fn breakers_open_over_failed_calls_and_a_message_is_enough_to_close_them() {
    for of in ["backend", "endpoint"] {
        for how in ["head-14", "trailers-14", "message-14"] {
            let one = as_asked().await;
            let gateway = setup(&[&one], "retry: off", &breaker(of)).start();
            statuses(&gateway, call(how), 4).await;
            assert_eq!(state(&gateway), State::Open, "{of} {how}");
            assert_eq!(statuses(&gateway, call("head-0"), 2).await, ["14", "14"]);
            assert_eq!(one.seen().len(), 4, "{of} {how}: it is left alone");
            // A probe that fails by its trailers, without a message.
            gateway.advance(Duration::from_secs(5)).await;
            assert_eq!(statuses(&gateway, call("trailers-14"), 1).await, ["14"]);
            assert_eq!((state(&gateway), one.seen().len()), (State::Open, 5), "{of} {how}");
            // A stream that lives on: the others need not wait for its end.
            gateway.advance(Duration::from_secs(10)).await;
            let mut client = Client::connect(&gateway, Protocol::H2).await;
            let long = tokio::spawn(async move { client.send(call("stream-0")).await });
            until("a closed breaker", || state(&gateway) == State::Closed).await;
            assert_eq!(statuses(&gateway, call("message-0"), 8).await, ["0"; 8], "{of} {how}");
            long.abort();
        }
    }
}

#[tokio::test]
async fn a_probe_whose_caller_leaves_decides_nothing() {
    for of in ["backend", "endpoint"] {
        let one = as_asked().await;
        let gateway = setup(&[&one], "retry: off", &breaker(of)).start();
        statuses(&gateway, call("trailers-14"), 4).await;
        gateway.advance(Duration::from_secs(5)).await;
        let mut client = Client::connect(&gateway, Protocol::H2).await;
        let silent = tokio::spawn(async move { client.send(call("silent-0")).await });
        until("the probe", || one.seen().len() == 5).await;
        assert_eq!(statuses(&gateway, call("head-0"), 1).await, ["14"], "{of}: it is the only one");
        assert_eq!(state(&gateway), State::HalfOpen, "{of}");
        silent.abort();
        // Another one may be sent as soon as the gateway has noticed.
        while statuses(&gateway, call("message-0"), 1).await != ["0"] {
            assert_eq!(state(&gateway), State::HalfOpen, "{of}");
        }
        assert_eq!(state(&gateway), State::Closed, "{of}");
    }
}

#[tokio::test]
async fn a_caller_without_time_opens_no_breaker() {
    let one = as_asked().await;
    let gateway = setup(&[&one], "retry: off", &breaker("backend")).start();
    let hurried = call("head-4").field("grpc-timeout", "10S");
    assert_eq!(statuses(&gateway, hurried, 12).await, ["4"; 12]);
    assert_eq!(state(&gateway), State::Closed);
    assert_eq!(statuses(&gateway, call("head-4"), 12).await, ["4"; 12]);
    assert_eq!(state(&gateway), State::Open);
}

#[tokio::test]
async fn what_only_trailers_say_is_not_tried_again_and_counts() {
    let retry = "retry: { non_idempotent: true }";
    let ample =
        format!("retry_budget: {{ percent: 100, per_second: 1000 }}, {}", breaker("backend"));
    for (how, tries) in [("head-14", 2), ("trailers-14", 1), ("message-14", 1), ("head-13", 1)] {
        let (one, two) = (as_asked().await, as_asked().await);
        let gateway = setup(&[&one, &two], retry, &ample).real_clock().start();
        let expected = how.split_once('-').unwrap().1;
        assert_eq!(statuses(&gateway, call(how), 4).await, [expected; 4], "{how}");
        assert_eq!(one.seen().len() + two.seen().len(), 4 * tries, "{how}");
        assert_eq!(state(&gateway), State::Open, "{how}");
    }
}

#[tokio::test]
async fn what_is_tried_again_is_configured_and_a_service_may_forbid_it() {
    let retries = async |on: &str, fields: &'static [(&'static str, &'static str)]| {
        let bad = H2Backend::start(Manner::default(), move |mut stream| async move {
            stream.whole().await;
            let fields = [&FIELDS, fields].concat();
            stream.answer(200, &fields, "");
        })
        .await;
        let good = well().await;
        let retry = format!("retry: {{ on: [{on}], non_idempotent: true }}");
        let ample = "outliers: off, retry_budget: { percent: 100, per_second: 1000 }";
        let gateway = setup(&[&bad, &good], &retry, ample).real_clock().start();
        statuses(&gateway, call("any-0"), 4).await.iter().filter(|status| **status == "0").count()
    };
    for (on, status) in [
        ("cancelled", [("grpc-status", "1")]),
        ("deadline_exceeded", [("grpc-status", "4")]),
        ("resource_exhausted", [("grpc-status", "8")]),
        ("internal", [("grpc-status", "13")]),
        ("unavailable", [("grpc-status", "14")]),
    ] {
        let status: &'static [_] = Box::leak(Box::new(status));
        assert_eq!(retries(on, status).await, 4, "{on}");
        assert_eq!(retries("connect, reset, 503", status).await, 2, "{on}");
    }
    let soon = &[("grpc-status", "14"), ("grpc-retry-pushback-ms", "1")];
    assert_eq!(retries("unavailable", soon).await, 4);
    let never = &[("grpc-status", "14"), ("grpc-retry-pushback-ms", "-1")];
    assert_eq!(retries("unavailable", never).await, 2);
}
