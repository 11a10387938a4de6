//! Endpoints that come and go under load, without a reload.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use portcullis_snapshot::Listed;
use portcullis_testkit::backend::response;
use portcullis_testkit::{Backend, Client, Protocol, Request, Setup, TestGateway, event, until};
use portcullis_upstream::Endpoint;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// As many as a minute has at one a second.
const CHANGES: usize = 60;
/// Answers between two changes.
const BETWEEN: usize = 20;

fn gateway(first: &Backend) -> TestGateway {
    let text = format!(
        r#"
routes:
  all: {{ match: /**, public: "a test", to: backend }}
backends:
  backend: {{ endpoints: ["{}"], slow_start: off }}
"#,
        first.url()
    );
    Setup::new(&text).workers(2).real_clock().without_log().start()
}

fn serve(gateway: &TestGateway, backends: &VecDeque<Backend>) {
    let listed = backends.iter().map(|backend| Listed::new(&backend.url())).collect();
    let endpoints = &gateway.gateway.snapshot().backends[0].endpoints;
    endpoints.replace(listed, gateway.clock.mono()).unwrap();
}

/// The state of the endpoint of a backend, while it is there.
fn endpoint(gateway: &TestGateway, backend: &Backend) -> Arc<Endpoint> {
    let snapshot = gateway.gateway.snapshot();
    let set = snapshot.backends[0].endpoints.load();
    let url = backend.url();
    let found = set.iter().find(|to| to.endpoint.url() == url);
    Arc::clone(found.unwrap().endpoint)
}

/// Asks again and again until it is told to stop. Returns what was not a 200.
async fn client(
    mut client: Client,
    request: Request,
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
) -> Vec<String> {
    let mut failures = Vec::new();
    while !stop.load(SeqCst) {
        match client.send(request.clone()).await {
            Ok(answer) if answer.status == 200 => {}
            Ok(answer) => failures.push(answer.problem()),
            // The connection is gone, and the client with it.
            Err(cut) => return vec![format!("{cut:?}")],
        }
        answered.fetch_add(1, SeqCst);
    }
    failures
}

/// Each one that comes is used, and each that goes finishes what it has and ends.
#[tokio::test]
async fn nobody_notices_that_endpoints_come_and_go() {
    let ok = response(200, "ok");
    let mut backends = VecDeque::from([Backend::always(&ok).await, Backend::always(&ok).await]);
    let gateway = gateway(&backends[0]);
    serve(&gateway, &backends);
    let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut clients = JoinSet::new();
    for protocol in Protocol::ALL {
        for request in [Request::get("/"), Request::post("/", "a body")] {
            let connected = Client::connect(&gateway, protocol).await;
            let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
            clients.spawn(client(connected, request, stop, answered));
        }
    }
    let more = async || {
        let wanted = answered.load(SeqCst) + BETWEEN;
        until("answers", || answered.load(SeqCst) >= wanted).await;
    };
    for change in 0..CHANGES {
        more().await;
        if change % 2 == 0 {
            backends.push_back(Backend::always(&ok).await);
            serve(&gateway, &backends);
            let newest = endpoint(&gateway, backends.back().unwrap());
            until("a request for the new one", || newest.requests() > 0).await;
        } else {
            let oldest = backends.pop_front().unwrap();
            let state = endpoint(&gateway, &oldest);
            serve(&gateway, &backends);
            more().await;
            until("the end of its last request", || state.in_flight() == 0).await;
            let requests = state.requests();
            more().await;
            assert_eq!(state.requests(), requests, "who has gone gets nothing more");
            drop(oldest);
        }
    }
    stop.store(true, SeqCst);
    while let Some(failures) = event("a client's end", clients.join_next()).await {
        assert_eq!(failures.unwrap(), Vec::<String>::new());
    }
    assert!(answered.load(SeqCst) >= CHANGES * BETWEEN);
}

#[tokio::test]
async fn what_is_under_way_on_an_endpoint_that_goes_finishes_and_its_connections_end() {
    let permits = Arc::new(Semaphore::new(0));
    let inside = Arc::clone(&permits);
    let old = Backend::start(move |mut conversation| {
        let permits = Arc::clone(&inside);
        async move {
            while conversation.request().await.is_some() {
                permits.acquire().await.unwrap().forget();
                conversation.send(response(200, "old")).await;
            }
        }
    })
    .await;
    let gateway = gateway(&old);
    let state = endpoint(&gateway, &old);
    let mut slow = Client::connect(&gateway, Protocol::H1).await;
    let pending = tokio::spawn(async move { slow.send(Request::get("/")).await });
    until("the request", || state.in_flight() == 1).await;
    let next = VecDeque::from([Backend::always(response(200, "new")).await]);
    serve(&gateway, &next);
    let mut other = Client::connect(&gateway, Protocol::H1).await;
    assert_eq!(other.send(Request::get("/")).await.unwrap().text(), "new");
    permits.add_permits(1);
    assert_eq!(event("the answer", pending).await.unwrap().unwrap().text(), "old");
    // The client may hear of the end before it is counted.
    until("the end of the request", || state.in_flight() == 0).await;
    // Its state is held by this test and by connections to it: these end when they are idle.
    until("the end of its connections", || Arc::strong_count(&state) == 1).await;
}

#[tokio::test]
async fn who_cannot_be_connected_to_is_counted_and_another_one_is_asked_at_once() {
    let gone = Backend::always("").await;
    let url = gone.url();
    drop(gone);
    let there = Backend::always(response(200, "there")).await;
    let gateway = gateway(&there);
    let listed = vec![Listed::new(&url), Listed::new(&there.url())];
    let endpoints = &gateway.gateway.snapshot().backends[0].endpoints;
    endpoints.replace(listed, gateway.clock.mono()).unwrap();
    let set = endpoints.load();
    let dead = set.iter().find(|to| to.endpoint.url() == url).unwrap().endpoint;
    let mut client = Client::connect(&gateway, Protocol::H1).await;
    // Two are drawn for each request, and the dead one wins sooner or later.
    while dead.connect_failures() == 0 {
        assert_eq!(client.send(Request::post("/", "once")).await.unwrap().text(), "there");
    }
}
