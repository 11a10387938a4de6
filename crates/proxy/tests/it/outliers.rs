//! Endpoints that misbehave are left out for a while, as clients of a whole gateway see it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering::SeqCst};
use std::time::Duration;

use portcullis_testkit::backend::response;
use portcullis_testkit::{Backend, Client, Protocol, Request, Setup, TestGateway, until};

/// Answers with the status it is told, and with none closes the connection.
async fn told() -> (Backend, Arc<AtomicU16>) {
    let status = Arc::new(AtomicU16::new(200));
    let inside = Arc::clone(&status);
    let backend = Backend::start(move |mut conversation| {
        let status = Arc::clone(&inside);
        async move {
            while conversation.request().await.is_some() {
                match status.load(SeqCst) {
                    0 => break,
                    status => conversation.send(response(status, "")).await,
                }
            }
        }
    })
    .await;
    (backend, status)
}

fn text(backends: &[&Backend], more: &str) -> String {
    let urls: Vec<String> = backends.iter().map(|backend| backend.url()).collect();
    format!(
        r#"
routes:
  all: {{ match: /**, public: "a test", to: backend }}
backends:
  backend: {{ endpoints: {urls:?}, balance: round_robin, slow_start: off, {more} }}
"#
    )
}

async fn statuses(gateway: &TestGateway, count: usize) -> Vec<u16> {
    let mut client = Client::connect(gateway, Protocol::H1).await;
    let mut seen = Vec::new();
    for _ in 0..count {
        seen.push(client.send(Request::get("/")).await.unwrap().status);
    }
    seen
}

fn ejected(gateway: &TestGateway) -> Vec<bool> {
    let snapshot = gateway.gateway.snapshot();
    let set = snapshot.backends[0].endpoints.load();
    set.balancer.members().iter().map(|member| member.endpoint.is_ejected()).collect()
}

/// Lets the judge look until the endpoints are out or in as they should be.
async fn judged(gateway: &TestGateway, wanted: &[bool]) {
    until("a judgement", || {
        gateway.clock.advance(Duration::from_millis(50));
        ejected(gateway) == wanted
    })
    .await;
}

#[tokio::test]
async fn one_that_answers_with_500_is_left_out_and_comes_back() {
    let ((one, status), (two, _), (three, _)) = (told().await, told().await, told().await);
    status.store(500, SeqCst);
    let text = text(&[&one, &two, &three], "panic_threshold: 50");
    let gateway = Setup::new(&text).start();
    let seen = statuses(&gateway, 66).await;
    assert_eq!(seen.iter().filter(|status| **status == 500).count(), 22);
    judged(&gateway, &[true, false, false]).await;
    assert_eq!(statuses(&gateway, 30).await, [200; 30]);
    // A reload changes nothing about it, and one that asks for nothing of it brings it back.
    gateway.swap(&text.replace("a test", "another test"));
    assert_eq!(ejected(&gateway), [true, false, false]);
    gateway.swap(&text.replace("panic_threshold: 50", "outliers: off"));
    assert_eq!(ejected(&gateway), [false; 3]);
    gateway.swap(&text);
    gateway.settle().await;
    statuses(&gateway, 66).await;
    judged(&gateway, &[true, false, false]).await;
    status.store(200, SeqCst);
    judged(&gateway, &[false; 3]).await;
    let before = one.requests().len();
    assert_eq!(statuses(&gateway, 30).await, [200; 30]);
    assert_eq!(one.requests().len() - before, 10);
}

#[tokio::test]
async fn one_that_resets_is_left_out_and_never_the_last() {
    let ((one, first), (two, second)) = (told().await, told().await);
    first.store(0, SeqCst);
    let gateway = Setup::new(&text(&[&one, &two], "panic_threshold: 50")).start();
    let seen = statuses(&gateway, 10).await;
    assert_eq!(seen.iter().filter(|status| **status == 502).count(), 5);
    judged(&gateway, &[true, false]).await;
    assert_eq!(statuses(&gateway, 10).await, [200; 10]);
    second.store(0, SeqCst);
    assert_eq!(statuses(&gateway, 10).await, [502; 10]);
    gateway.advance(Duration::from_secs(2)).await;
    assert_eq!(ejected(&gateway), [true, false]);
}

/// What is seen from here counts whatever it is: no connection, and no answer in time.
#[tokio::test]
async fn one_that_hangs_or_is_gone_is_left_out() {
    let hanging = Backend::start(|mut conversation| async move {
        conversation.request().await;
        conversation.until_closed().await;
    })
    .await;
    let (well, _) = told().await;
    let config = text(&[&hanging, &well], "health: connect");
    let gateway = Setup::new(&config.replace("to: backend", "to: backend, timeout: 1s")).start();
    let mut late = 0;
    while late < 5 {
        let asked = hanging.requests().len();
        let mut client = Client::connect(&gateway, Protocol::H1).await;
        let answer = tokio::spawn(async move { client.send(Request::get("/")).await.unwrap() });
        until("an answer, or a request that hangs", || {
            answer.is_finished() || hanging.requests().len() > asked
        })
        .await;
        if hanging.requests().len() > asked {
            gateway.advance(Duration::from_millis(1_100)).await;
            late += 1;
        }
        let expected = if hanging.requests().len() > asked { 504 } else { 200 };
        assert_eq!(answer.await.unwrap().status, expected);
    }
    judged(&gateway, &[true, false]).await;
    drop(gateway);

    let gone = Backend::always("").await;
    let config = text(&[&gone, &well], "panic_threshold: 50");
    drop(gone);
    let gateway = Setup::new(&config).start();
    // Set aside for longer and longer, it is tried by one request each time.
    for _ in 0..100 {
        gateway.advance(Duration::from_secs(1)).await;
        assert_eq!(statuses(&gateway, 2).await, [200; 2]);
        if ejected(&gateway) == [true, false] {
            return;
        }
    }
    panic!("failures to connect count for nothing");
}

#[tokio::test]
async fn what_all_of_them_answer_is_held_against_none() {
    let ((one, first), (two, second)) = (told().await, told().await);
    first.store(503, SeqCst);
    second.store(503, SeqCst);
    let gateway = Setup::new(&text(&[&one, &two], "panic_threshold: 50")).start();
    assert_eq!(statuses(&gateway, 80).await, [503; 80]);
    gateway.advance(Duration::from_secs(2)).await;
    assert_eq!(ejected(&gateway), [false; 2]);
}

const BREAKER: &str =
    "outliers: off, breaker: { of: OF, requests_min: 4, window: 10s, open: 5s, probes: 1 }";

#[tokio::test]
async fn the_breaker_of_a_backend_opens_probes_and_closes() {
    let (one, status) = told().await;
    status.store(503, SeqCst);
    let text = text(&[&one], &BREAKER.replace("OF", "backend"));
    let gateway = Setup::new(&text).start();
    assert_eq!(statuses(&gateway, 4).await, [503; 4]);
    for protocol in Protocol::ALL {
        let mut client = Client::connect(&gateway, protocol).await;
        let answer = client.send(Request::get("/")).await.unwrap();
        assert_eq!((answer.status, &*answer.problem()), (503, "backend-circuit-open"));
        assert_eq!(answer.field("retry-after"), Some("5"), "{protocol:?}");
    }
    assert_eq!(one.requests().len(), 4, "it is left alone");
    // A reload leaves it open.
    gateway.swap(&text.replace("a test", "another test"));
    gateway.settle().await;
    statuses(&gateway, 1).await;
    assert_eq!(one.requests().len(), 4);
    // The probe fails, and the time is twice as long.
    gateway.advance(Duration::from_secs(5)).await;
    statuses(&gateway, 3).await;
    assert_eq!(one.requests().len(), 5);
    status.store(200, SeqCst);
    gateway.advance(Duration::from_secs(9)).await;
    assert_eq!(statuses(&gateway, 1).await, [503]);
    gateway.advance(Duration::from_secs(1)).await;
    assert_eq!(statuses(&gateway, 20).await, [200; 20]);
    let log = gateway.stop();
    let refused = log.iter().filter(|line| line.contains("backend-circuit-open"));
    let refused: Vec<_> = refused.collect();
    assert_eq!(refused.len(), 3 + 1 + 2 + 1 + 1, "{log:#?}");
    let detail = r#""detail":"the backend's circuit breaker is open""#;
    assert!(refused.iter().all(|line| line.contains(detail)), "{}", refused[0]);
}

#[tokio::test]
async fn the_breaker_of_an_endpoint_sends_its_requests_to_the_others() {
    let ((one, first), (two, second)) = (told().await, told().await);
    first.store(0, SeqCst);
    let gateway = Setup::new(&text(&[&one, &two], &BREAKER.replace("OF", "endpoint"))).start();
    let seen = statuses(&gateway, 8).await;
    assert_eq!(seen.iter().filter(|status| **status == 502).count(), 4);
    assert_eq!(statuses(&gateway, 20).await, [200; 20]);
    second.store(500, SeqCst);
    // Half of them is needed, and there were twenty-four good ones.
    assert_eq!(statuses(&gateway, 24).await, [500; 24]);
    let mut client = Client::connect(&gateway, Protocol::H1).await;
    let answer = client.send(Request::get("/")).await.unwrap();
    assert_eq!((answer.status, &*answer.problem()), (503, "backend-circuit-open"));
    first.store(200, SeqCst);
    gateway.advance(Duration::from_secs(5)).await;
    second.store(200, SeqCst);
    assert_eq!(statuses(&gateway, 8).await, [200; 8]);
    assert!(
        gateway.stop().iter().any(|line| {
            line.contains(r#""detail":"every endpoint's circuit breaker is open""#)
        })
    );
}
