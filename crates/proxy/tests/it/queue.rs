//! Backends that may have only so many connections.

use std::sync::Arc;
use std::time::Duration;

use portcullis_testkit::backend::response;
use portcullis_testkit::{Backend, Client, H1Client, Protocol, Request, Setup, event, until};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// A backend with one connection, and answers only when it gets a permit.
async fn narrow(pending_max: u32) -> (Backend, Setup, Arc<Semaphore>) {
    let permits = Arc::new(Semaphore::new(0));
    let inside = Arc::clone(&permits);
    let backend = Backend::start(move |mut conversation| {
        let permits = Arc::clone(&inside);
        async move {
            while let Some(request) = conversation.request().await {
                permits.acquire().await.unwrap().forget();
                conversation.send(response(200, &request.line)).await;
            }
        }
    })
    .await;
    let setup = Setup::new(&format!(
        r#"
routes:
  all: {{ match: /**, public: "a test", to: backend }}
backends:
  backend: {{ endpoints: ["{}"], connections_max: 1, pending_max: {pending_max} }}
"#,
        backend.url()
    ));
    (backend, setup, permits)
}

#[tokio::test]
async fn requests_wait_for_a_connection_where_there_may_be_no_more() {
    let (backend, setup, permits) = narrow(100).await;
    let gateway = Arc::new(setup.start());
    let mut requests = JoinSet::new();
    for i in 0..12 {
        let gateway = Arc::clone(&gateway);
        requests.spawn(async move {
            let mut client = Client::connect(&gateway, Protocol::ALL[i % 4]).await;
            let answer = client.send(Request::post(&format!("/{i}"), "x")).await.unwrap();
            assert_eq!(answer.text(), format!("POST /{i} HTTP/1.1"));
            client
        });
    }
    until("eleven that wait", || {
        let snapshot = gateway.gateway.snapshot();
        snapshot.backends[0].capacity.requests.waiting() == 11
    })
    .await;
    permits.add_permits(12);
    // Each of them is let go by the one before it: the clock does not move.
    event("twelve answers", async {
        while let Some(client) = requests.join_next().await {
            client.unwrap();
        }
    })
    .await;
    assert_eq!(backend.connections(), 1);
}

#[tokio::test]
async fn a_request_too_many_does_not_wait_and_one_that_waits_does_not_wait_for_ever() {
    let (backend, setup, permits) = narrow(1).await;
    let gateway = setup.start();
    let mut clients = Vec::new();
    for i in 0..3 {
        let mut client = H1Client::connect(gateway.address("plain")).await;
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        if i == 0 {
            until("the first", || backend.requests().len() == 1).await;
        }
        gateway.settle().await;
        clients.push(client);
    }
    let answer = clients[2].response("GET").await.unwrap();
    assert_eq!((answer.status, &*answer.problem()), (503, "backend-busy"));
    gateway.advance(Duration::from_secs(2)).await;
    let answer = clients[1].response("GET").await.unwrap();
    assert_eq!((answer.status, &*answer.problem()), (503, "backend-busy"));
    permits.add_permits(1);
    assert_eq!(clients[0].response("GET").await.unwrap().status, 200);
    assert_eq!(backend.requests().len(), 1);
}

#[tokio::test]
async fn an_idle_connection_of_another_endpoint_makes_room() {
    let one = Backend::always(response(200, "one")).await;
    let two = Backend::always(response(200, "two")).await;
    let gateway = Setup::new(&format!(
        r#"
routes:
  all: {{ match: /**, public: "a test", to: backend }}
backends:
  backend:
    endpoints: ["{}", "{}"]
    balance: round_robin
    connections_max: 1
"#,
        one.url(),
        two.url()
    ))
    .start();
    let mut client = Client::connect(&gateway, Protocol::H1).await;
    let first = client.send(Request::get("/")).await.unwrap().text();
    let test = async {
        until("a request that waits", || {
            let snapshot = gateway.gateway.snapshot();
            snapshot.backends[0].capacity.pending.used() == 1
        })
        .await;
        gateway.advance(Duration::from_secs(1)).await;
    };
    let (answer, ()) = tokio::join!(client.send(Request::get("/")), test);
    assert_ne!(answer.unwrap().text(), first);
}
