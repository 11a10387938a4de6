//! Starting, changing and stopping a gateway that is in use.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use portcullis_testkit::backend::response;
use portcullis_testkit::{
    Backend, Client, Cut, H1Client, Protocol, Request, Setup, TestGateway, event,
};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::{everything_to, to};

/// Answers each request when it gets a permit.
async fn slow() -> (Backend, Arc<Semaphore>, Arc<AtomicUsize>) {
    let (permits, waiting) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    let inside = (Arc::clone(&permits), Arc::clone(&waiting));
    let backend = Backend::start(move |mut conversation| {
        let (permits, waiting) = (Arc::clone(&inside.0), Arc::clone(&inside.1));
        async move {
            while conversation.request().await.is_some() {
                waiting.fetch_add(1, SeqCst);
                permits.acquire().await.unwrap().forget();
                conversation.send(response(200, "late")).await;
            }
        }
    })
    .await;
    (backend, permits, waiting)
}

#[tokio::test]
async fn a_drain_ends_what_is_idle_and_lets_finish_what_is_not() {
    let (backend, permits, waiting) = slow().await;
    let gateway = to(&backend).workers(2).real_clock().start();
    let mut idle = H1Client::connect(gateway.address("plain")).await;
    let mut used = H1Client::connect(gateway.address("plain")).await;
    assert_eq!(used.exchange(&Request::get("/testkit/ping")).await.unwrap().status, 204);
    let mut requests = JoinSet::new();
    for protocol in Protocol::ALL {
        let mut client = Client::connect(&gateway, protocol).await;
        requests.spawn(async move {
            let answer = client.send(Request::get("/")).await.unwrap();
            let next = client.send(Request::get("/")).await.unwrap_err();
            (answer, next)
        });
    }
    let idle_h2 = Client::connect(&gateway, Protocol::H2).await;
    gateway.connections(7).await;
    portcullis_testkit::until("four requests", || waiting.load(SeqCst) == 4).await;
    let drain = gateway.gateway.drain(Duration::from_secs(50));
    let finish = async {
        assert_eq!(idle.rest().await, (Vec::new(), Cut::Closed));
        assert_eq!(used.rest().await, (Vec::new(), Cut::Closed));
        gateway.connections(4).await;
        permits.add_permits(4);
    };
    let (drained, ()) = event("a drain", async { tokio::join!(drain, finish) }).await;
    assert!(drained);
    let refused = tokio::net::TcpStream::connect(gateway.address("plain")).await;
    assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    while let Some(finished) = requests.join_next().await {
        let (answer, next) = finished.unwrap();
        assert_eq!((answer.status, answer.text()), (200, "late".to_owned()));
        assert_eq!(next, Cut::Closed);
    }
    drop(idle_h2);
}

#[tokio::test]
async fn a_drain_that_takes_too_long_says_so() {
    let (backend, _permits, waiting) = slow().await;
    let gateway = to(&backend).start();
    let mut client = H1Client::connect(gateway.address("plain")).await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    portcullis_testkit::until("the request", || waiting.load(SeqCst) == 1).await;
    let drain = gateway.gateway.drain(Duration::from_secs(5));
    let advance = async {
        tokio::task::yield_now().await;
        gateway.clock.advance(Duration::from_secs(5));
    };
    let (drained, ()) = event("a drain", async { tokio::join!(drain, advance) }).await;
    assert!(!drained);
    assert_eq!(gateway.gateway.loads(), [1]);
}

/// What is under way when the gateway ends is cut off, and neither passes for complete nor is
/// forgotten: an answer without another end than that of its connection, and one not yet begun.
#[tokio::test]
async fn requirement_16_what_the_end_cuts_off_is_reset_and_logged() {
    let backend = Backend::start(|mut conversation| async move {
        let begins =
            conversation.request().await.is_some_and(|request| request.line.contains("/begun"));
        if begins {
            conversation.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
            conversation.send("4\r\nhalf\r\n").await;
        }
        conversation.until_closed().await;
    })
    .await;
    let gateway = to(&backend).start();
    let mut begun = H1Client::connect(gateway.address("plain")).await;
    begun.send("GET /begun HTTP/1.0\r\nHost: a\r\n\r\n").await;
    begun.head().await.unwrap();
    let mut silent = H1Client::connect(gateway.address("plain")).await;
    silent.send("GET /silent HTTP/1.1\r\nHost: a\r\n\r\n").await;
    portcullis_testkit::until("both", || backend.requests().len() == 2).await;
    let lines = gateway.stop();
    assert_eq!(begun.rest().await.1, Cut::Reset);
    assert_eq!(silent.response("GET").await.unwrap().status, 504);
    assert_eq!(lines.len(), 2, "{lines:#?}");
    assert!(lines.iter().any(|line| line.contains("shutdown")), "{lines:#?}");
}

/// Keeps asking until told to stop; counts answers, panics at the first that is not right.
async fn keep_asking(
    gateway: Arc<TestGateway>,
    protocol: Protocol,
    stop: Arc<AtomicBool>,
) -> usize {
    let mut client = Client::connect(&gateway, protocol).await;
    let mut answers = 0;
    while !stop.load(SeqCst) || answers == 0 {
        let answer = client.send(Request::post("/", "abc")).await;
        let answer = answer.unwrap_or_else(|cut| panic!("{protocol:?} {answers}: {cut:?}"));
        assert_eq!((answer.status, answer.text()), (200, "abc".to_owned()), "{protocol:?}");
        answers += 1;
    }
    answers
}

#[tokio::test]
async fn a_thousand_swaps_under_load_fail_no_request() {
    let backend = Backend::echo().await;
    let text = everything_to(&backend);
    let gateway = Arc::new(to(&backend).workers(2).real_clock().start());
    let stop = Arc::new(AtomicBool::new(false));
    let mut clients = JoinSet::new();
    for protocol in [Protocol::ALL, Protocol::ALL].concat() {
        clients.spawn(keep_asking(Arc::clone(&gateway), protocol, Arc::clone(&stop)));
    }
    let swapping = Arc::clone(&gateway);
    let swaps = tokio::task::spawn_blocking(move || {
        for i in 0..1000 {
            swapping.swap(&text.replace("a test", &format!("swap {i}")));
        }
    });
    event("a thousand swaps", swaps).await.unwrap();
    stop.store(true, SeqCst);
    let mut answers = 0;
    while let Some(answered) = clients.join_next().await {
        answers += answered.unwrap();
    }
    assert!(answers >= 8, "{answers}");
    assert_eq!(gateway.gateway.loads().len(), 2);
}

#[tokio::test]
async fn a_request_under_way_keeps_its_snapshot() {
    let (backend, permits, waiting) = slow().await;
    let gateway = to(&backend).start();
    let mut client = H1Client::connect(gateway.address("plain")).await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    portcullis_testkit::until("the request", || waiting.load(SeqCst) == 1).await;
    gateway.swap(r#"routes: { all: { match: /**, public: "a test", deny: "closed" } }"#);
    gateway.settle().await;
    permits.add_permits(1);
    assert_eq!(client.response("GET").await.unwrap().text(), "late");
    assert_eq!(client.exchange(&Request::get("/")).await.unwrap().status, 403);
}

#[tokio::test]
async fn a_listener_that_goes_closes_and_one_that_comes_opens() {
    let backend = Backend::echo().await;
    let gateway = to(&backend).start();
    let old = gateway.address("plain");
    let mut client = H1Client::connect(old).await;
    assert_eq!(client.exchange(&Request::get("/")).await.unwrap().status, 200);
    let only = |name: &str, ip: &str| {
        format!("listeners: {{ {name}: {{ bind: \"{ip}:0\" }} }}\n{}", everything_to(&backend))
    };
    gateway.swap(&only("other", "127.0.0.2"));
    assert_eq!(gateway.gateway.address("plain"), None);
    let mut other = H1Client::connect(gateway.address("other")).await;
    assert_eq!(other.exchange(&Request::get("/")).await.unwrap().status, 200);
    assert_eq!(other.exchange(&Request::get("/")).await.unwrap().status, 200);
    assert_eq!(client.rest().await, (Vec::new(), Cut::Closed));
}

#[tokio::test]
async fn a_hundred_swaps_in_a_burst_admit_no_more_than_one_windows_count() {
    let backend = Backend::echo().await;
    let text = format!(
        r#"
routes:
  all: {{ match: /**, public: "a test", limits: ["50/h per ip"], to: backend }}
backends: {{ backend: "{}" }}
"#,
        backend.url()
    );
    let gateway = Setup::new(&text).workers(2).start();
    let mut clients = Vec::new();
    for protocol in Protocol::ALL {
        clients.push(Client::connect(&gateway, protocol).await);
    }
    let mut statuses = Vec::new();
    for i in 0..100 {
        gateway.swap(&text.replace("a test", &format!("swap {i}")));
        for client in &mut clients {
            let answer = client.send(Request::get("/")).await.unwrap();
            if answer.status == 429 {
                assert!(answer.field("retry-after").is_some());
                assert_eq!(answer.problem(), "rate-limited");
            }
            statuses.push(answer.status);
        }
    }
    let admitted = statuses.iter().filter(|status| **status == 200).count();
    let refused = statuses.iter().filter(|status| **status == 429).count();
    assert_eq!((admitted, refused), (50, 350));
    assert_eq!(backend.requests().len(), 50);
}

#[tokio::test]
async fn long_lived_connections_are_spread_over_the_workers() {
    let backend = Backend::echo().await;
    let gateway = to(&backend).workers(2).start();
    let mut clients = Vec::new();
    for (i, protocol) in [Protocol::ALL, Protocol::ALL].concat().into_iter().enumerate() {
        clients.push(Client::connect(&gateway, protocol).await);
        gateway.connections(i + 1).await;
    }
    assert_eq!(gateway.gateway.loads(), [4, 4]);
    for client in &mut clients {
        assert_eq!(client.send(Request::get("/")).await.unwrap().status, 200);
    }
    drop(clients);
    gateway.connections(0).await;
}

#[tokio::test]
async fn a_listener_has_room_for_so_many_connections() {
    let backend = Backend::echo().await;
    let gateway = Setup::new(&format!(
        "listeners: {{ plain: {{ bind: \"127.0.0.1:0\", connections_max: 2 }} }}\n{}",
        everything_to(&backend)
    ))
    .start();
    let mut one = H1Client::connect(gateway.address("plain")).await;
    assert_eq!(one.exchange(&Request::get("/")).await.unwrap().status, 200);
    let mut two = H1Client::connect(gateway.address("plain")).await;
    assert_eq!(two.exchange(&Request::get("/")).await.unwrap().status, 200);
    let mut three = H1Client::connect(gateway.address("plain")).await;
    let (bytes, _) = three.rest().await;
    assert!(bytes.is_empty());
    let refused = r#"portcullis_connections_refused_total{listener="plain"}"#;
    assert_eq!(gateway.metric(refused), Some(1.0));
    drop(one);
    gateway.connections(1).await;
    let mut four = H1Client::connect(gateway.address("plain")).await;
    assert_eq!(four.exchange(&Request::get("/")).await.unwrap().status, 200);
}

#[tokio::test]
async fn a_client_of_a_listener_that_is_gone_is_not_served_as_anothers() {
    let text = |listeners: &str| {
        format!(
            r#"
listeners: {{ {listeners} }}
defaults: {{ on: inner }}
routes:
  inner: {{ match: /**, public: "a test", respond: {{ status: 204 }} }}
"#
        )
    };
    let (public, inner) =
        (r#"public: { bind: "127.0.0.1:0" }"#, r#"inner: { bind: "127.0.0.2:0" }"#);
    let gateway = Setup::new(&text(&format!("{public}, {inner}"))).workers(1).start();
    let mut client = H1Client::connect(gateway.address("public")).await;
    client.send("GET /secret HTTP/1.1\r\nHost: a\r\n").await;
    gateway.connections(1).await;
    // A whole exchange of somebody else's: what was sent before it has been read.
    let mut other = H1Client::connect(gateway.address("inner")).await;
    other.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(other.response("GET").await.unwrap().status, 204);
    gateway.swap(&text(inner));
    other.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(other.response("GET").await.unwrap().status, 204);
    client.send("\r\n").await;
    if let Ok(answer) = client.response("GET").await {
        assert_eq!((answer.status, &*answer.problem()), (421, "misdirected-request"));
    }
}
