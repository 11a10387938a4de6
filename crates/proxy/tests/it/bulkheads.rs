//! Bulkheads: what hangs in one compartment takes nothing from the others.

use std::sync::Arc;
use std::time::Duration;

use portcullis_testkit::backend::response;
use portcullis_testkit::{
    Backend, Client, Cut, H1Client, H2Backend, Protocol, Request, Setup, TestGateway, event, until,
};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Answers each request with its line, once there is a permit for it.
async fn held(permits: &Arc<Semaphore>) -> Backend {
    let permits = Arc::clone(permits);
    Backend::start(move |mut conversation| {
        let permits = Arc::clone(&permits);
        async move {
            while let Some(request) = conversation.request().await {
                permits.acquire().await.unwrap().forget();
                conversation.send(response(200, &request.line)).await;
            }
        }
    })
    .await
}

fn waiting(gateway: &TestGateway, backend: usize) -> u32 {
    gateway.gateway.snapshot().backends[backend].capacity.requests.waiting()
}

/// Sends a request in the background and keeps its client.
fn ask(gateway: &Arc<TestGateway>, path: &str) -> tokio::task::JoinHandle<(u16, String)> {
    let (gateway, request) = (Arc::clone(gateway), Request::get(path));
    tokio::spawn(async move {
        let mut client = Client::connect(&gateway, Protocol::H1).await;
        let answer = client.send(request).await.unwrap();
        (answer.status, answer.text())
    })
}

#[tokio::test]
async fn one_hanging_backend_takes_nothing_from_the_other() {
    let never = Arc::new(Semaphore::new(0));
    let slow = held(&never).await;
    let quick = Backend::always(response(200, "quick")).await;
    let gateway = Arc::new(
        Setup::new(&format!(
            r#"
routes:
  slow: {{ match: /slow, public: "a test", to: slow }}
  quick: {{ match: /quick, public: "a test", to: quick }}
backends:
  quick: {{ endpoints: ["{}"], requests_max: 1, pending_max: 1 }}
  slow: {{ endpoints: ["{}"], requests_max: 4, pending_max: 4 }}
"#,
            quick.url(),
            slow.url(),
        ))
        .start(),
    );
    let mut hanging = Vec::new();
    for i in 0..8 {
        hanging.push(ask(&gateway, "/slow"));
        let inside = || slow.requests().len() as u32 + waiting(&gateway, 1);
        until("one more that hangs or waits", || inside() == i + 1).await;
    }
    // No more than four reach it, and four wait: whoever comes now learns of it at once.
    let mut client = H1Client::connect(gateway.address("plain")).await;
    for _ in 0..20 {
        let answer = client.exchange(&Request::get("/slow")).await.unwrap();
        assert_eq!((answer.status, &*answer.problem()), (503, "backend-busy"));
        assert_eq!(answer.field("retry-after"), Some("1"));
    }
    // All of the other's are served, though it takes only one at a time: none had to wait, which
    // the line of one and a clock that stands still would have shown.
    for protocol in Protocol::ALL {
        let mut client = Client::connect(&gateway, protocol).await;
        for _ in 0..25 {
            let answer = client.send(Request::get("/quick")).await.unwrap();
            assert_eq!((answer.status, answer.text()), (200, "quick".to_owned()));
        }
    }
    assert_eq!((quick.requests().len(), quick.connections()), (100, 1));
    assert_eq!((slow.requests().len(), waiting(&gateway, 0)), (4, 0));
    let requests = Arc::clone(&gateway.gateway.snapshot().backends[1].capacity.requests);
    assert_eq!((requests.full(), requests.late()), (20, 0));
    never.add_permits(8);
    for answer in hanging {
        assert_eq!(answer.await.unwrap(), (200, "GET /slow HTTP/1.1".to_owned()));
    }
    let logged = Arc::into_inner(gateway).unwrap().stop();
    let why = "4 requests of backend slow are under way: pending_max wait already";
    assert_eq!(logged.iter().filter(|line| line.contains(why)).count(), 20);
}

#[tokio::test]
async fn a_route_that_hangs_leaves_room_for_the_others_of_its_backend() {
    let never = Arc::new(Semaphore::new(0));
    let hangs = held(&never).await;
    let gateway = Arc::new(
        Setup::new(&format!(
            r#"
routes:
  reports: {{ match: /reports, public: "a test", to: shared, bulkhead: {{ requests_max: 2, pending_max: 1 }} }}
  other: {{ match: /other, public: "a test", to: shared }}
  free: {{ match: /free, public: "a test", to: shared, bulkhead: off }}
backends:
  shared: {{ endpoints: ["{}"], requests_max: 8 }}
"#,
            hangs.url(),
        ))
        .start(),
    );
    let bounds: Vec<_> = gateway.gateway.snapshot().routes.iter().map(bound).collect();
    assert_eq!(bounds[..3], [Some((2, 1)), Some((6, 1024)), None]);
    let mut hanging: Vec<_> = (0..2).map(|_| ask(&gateway, "/reports")).collect();
    until("two reports", || hangs.requests().len() == 2).await;
    hanging.push(ask(&gateway, "/reports"));
    let line =
        || gateway.gateway.snapshot().routes[0].bulkhead.as_ref().unwrap().bulkhead.waiting();
    until("a third that waits", || line() == 1).await;
    let mut client = H1Client::connect(gateway.address("plain")).await;
    let answer = client.exchange(&Request::get("/reports")).await.unwrap();
    assert_eq!((answer.status, &*answer.problem()), (503, "backend-busy"));
    let others: Vec<_> = (0..4).map(|_| ask(&gateway, "/other")).collect();
    until("four others", || hangs.requests().len() == 6).await;
    never.add_permits(7);
    for answer in others.into_iter().chain(hanging) {
        assert_eq!(answer.await.unwrap().0, 200);
    }
    let logged = Arc::into_inner(gateway).unwrap().stop();
    let why = "2 requests of route reports are under way: pending_max wait already";
    assert_eq!(logged.iter().filter(|line| line.contains(why)).count(), 1);
}

fn bound(route: &Arc<portcullis_snapshot::Route>) -> Option<(u32, u32)> {
    let bulkhead = route.bulkhead.as_ref()?;
    Some((bulkhead.bounds.requests_max, bulkhead.bounds.pending_max))
}

#[tokio::test]
async fn the_streams_of_one_connection_are_bounded_too() {
    let backend = H2Backend::echo().await;
    let gateway = Setup::new(&format!(
        r#"
routes: {{ all: {{ match: /**, public: "a test", to: backend }} }}
backends: {{ backend: {{ endpoints: ["{}"], requests_max: 1, pending_max: 0, protocol: h2 }} }}
"#,
        backend.url(),
    ))
    .start();
    let mut client = Client::connect(&gateway, Protocol::H1).await;
    for _ in 0..3 {
        assert_eq!(client.send(Request::get("/")).await.unwrap().status, 200);
    }
    let requests = Arc::clone(&gateway.gateway.snapshot().backends[0].capacity.requests);
    until("an empty house", || requests.used() == 0).await;
    let seat = requests.try_enter(1).unwrap();
    assert_eq!(client.send(Request::get("/")).await.unwrap().status, 503);
    drop(seat);
    assert_eq!(client.send(Request::get("/")).await.unwrap().status, 200);
}

#[tokio::test]
async fn nobody_waits_beyond_the_time_and_who_is_gone_does_not_wait() {
    let permits = Arc::new(Semaphore::new(0));
    let backend = held(&permits).await;
    let gateway = Setup::new(&format!(
        r#"
routes: {{ all: {{ match: /**, public: "a test", to: backend }} }}
backends: {{ backend: {{ endpoints: ["{}"], requests_max: 1, pending_timeout: 3s }} }}
"#,
        backend.url(),
    ))
    .start();
    let mut clients = Vec::new();
    for i in 0..2 {
        let mut client = H1Client::connect(gateway.address("plain")).await;
        client.send(&format!("GET /{i} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        until("one more", || backend.requests().len() as u32 + waiting(&gateway, 0) == i + 1).await;
        clients.push(client);
    }
    let mut client = Client::connect(&gateway, Protocol::H2).await;
    let request = tokio::spawn(async move { client.send(Request::get("/")).await });
    until("two that wait", || waiting(&gateway, 0) == 2).await;
    request.abort();
    until("one that went", || waiting(&gateway, 0) == 1).await;
    gateway.advance(Duration::from_millis(2_900)).await;
    assert_eq!(waiting(&gateway, 0), 1);
    gateway.advance(Duration::from_millis(200)).await;
    let answer = clients[1].response("GET").await.unwrap();
    assert_eq!((answer.status, &*answer.problem()), (503, "backend-busy"));
    permits.add_permits(1);
    assert_eq!(clients[0].response("GET").await.unwrap().status, 200);
    assert_eq!(backend.requests().len(), 1);
    let late = gateway.gateway.snapshot().backends[0].capacity.requests.late();
    assert_eq!(late, 1);
    assert_eq!(gateway.metric(r#"portcullis_deadlines_total{kind="queue"}"#), Some(1.0));
}

/// A hundred requests from all sides for two seats, half of whose clients leave: no seat is lost.
#[tokio::test]
async fn no_seat_is_lost_over_workers_and_clients_that_leave() {
    let permits = Arc::new(Semaphore::new(0));
    let backend = held(&permits).await;
    let text = format!(
        r#"
routes: {{ all: {{ match: /**, public: "a test", to: backend }} }}
backends: {{ backend: {{ endpoints: ["{}"], requests_max: 2 }} }}
"#,
        backend.url(),
    );
    let gateway = Arc::new(Setup::new(&text).workers(2).start());
    let mut requests = JoinSet::new();
    for i in 0..100 {
        let gateway = Arc::clone(&gateway);
        requests.spawn(async move {
            let mut client = Client::connect(&gateway, Protocol::ALL[i % 4]).await;
            let request = client.send(Request::get("/"));
            match i % 2 {
                0 => Some(request.await),
                _ => tokio::time::timeout(Duration::from_millis(1), request).await.ok(),
            }
        });
    }
    until("all there are", || waiting(&gateway, 0) >= 48).await;
    permits.add_permits(100);
    let mut served = 0;
    event("every answer", async {
        while let Some(ended) = requests.join_next().await {
            let ended: Option<Result<_, Cut>> = ended.unwrap();
            served += usize::from(ended.is_some_and(|answer| answer.unwrap().status == 200));
        }
    })
    .await;
    assert!(served >= 50, "{served}");
    let requests = &gateway.gateway.snapshot().backends[0].capacity.requests;
    until("an empty house", || requests.used() + requests.waiting() == 0).await;
}
