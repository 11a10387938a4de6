//! Deadlines, by a clock that moves only here.

use std::sync::Arc;
use std::time::Duration;

use portcullis_testkit::backend::response;
use portcullis_testkit::{Backend, Client, Cut, H1Client, Protocol, Request};
use tokio::sync::Notify;

use crate::to;

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Says when a request is there, and never answers.
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

#[tokio::test]
async fn a_head_that_does_not_end_is_a_408() {
    let backend = Backend::echo().await;
    let gateway = to(&backend).start();
    for tls in [false, true] {
        let mut client = match tls {
            false => H1Client::connect(gateway.address("plain")).await,
            true => H1Client::connect_tls(gateway.address("tls"), &gateway.pki).await,
        };
        client.send("GET / HTTP/1.1\r\nHost: a\r\nX-Half").await;
        gateway.connections(1).await;
        gateway.settle().await;
        gateway.advance(seconds(9)).await;
        client.send(": 1\r\nX-More").await;
        gateway.settle().await;
        assert_eq!(
            gateway.metric(r#"portcullis_deadlines_total{kind="head"}"#),
            Some(f64::from(tls))
        );
        gateway.advance(seconds(1)).await;
        let answer = client.response("GET").await.unwrap();
        assert_eq!((answer.status, &*answer.problem()), (408, "request-timeout"));
        assert_eq!(answer.field("connection"), Some("close"));
        assert_eq!(client.rest().await, (Vec::new(), Cut::Closed));
        drop(client);
        gateway.connections(0).await;
    }
    assert_eq!(gateway.metric(r#"portcullis_deadlines_total{kind="head"}"#), Some(2.0));
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_closed_without_a_word() {
    let backend = Backend::echo().await;
    let gateway = to(&backend).start();
    let mut client = H1Client::connect(gateway.address("plain")).await;
    gateway.connections(1).await;
    gateway.settle().await;
    gateway.advance(seconds(10)).await;
    assert_eq!(client.rest().await, (Vec::new(), Cut::Closed));
}

#[tokio::test]
async fn an_idle_connection_is_closed_after_its_keep_alive() {
    let backend = Backend::echo().await;
    let gateway = to(&backend).start();
    for protocol in Protocol::ALL {
        let mut client = Client::connect(&gateway, protocol).await;
        for _ in 0..3 {
            // Each request begins the time anew.
            assert_eq!(client.send(Request::get("/")).await.unwrap().status, 200, "{protocol:?}");
            gateway.settle().await;
            gateway.advance(seconds(74)).await;
        }
        gateway.advance(seconds(1)).await;
        gateway.connections(0).await;
        assert_eq!(client.send(Request::get("/")).await.unwrap_err(), Cut::Closed, "{protocol:?}");
    }
}

#[tokio::test]
async fn a_backend_that_does_not_answer_is_a_504() {
    let (backend, here) = silent().await;
    let gateway = to(&backend).start();
    for protocol in Protocol::ALL {
        let mut client = Client::connect(&gateway, protocol).await;
        let test = async {
            here.notified().await;
            gateway.settle().await;
            gateway.advance(seconds(14)).await;
            let expired = gateway.metric(r#"portcullis_deadlines_total{kind="response"}"#);
            gateway.advance(seconds(1)).await;
            expired
        };
        let (answer, before) = tokio::join!(client.send(Request::get("/")), test);
        let answer = answer.unwrap();
        assert_eq!((answer.status, &*answer.problem()), (504, "backend-timeout"), "{protocol:?}");
        let after = gateway.metric(r#"portcullis_deadlines_total{kind="response"}"#);
        assert_eq!(after, before.map(|before| before + 1.0), "{protocol:?}");
    }
    assert_eq!(backend.connections(), 4, "a connection that owes an answer is not used again");
}

#[tokio::test]
async fn a_body_that_stops_coming_is_a_408() {
    let (backend, here) = silent().await;
    let gateway = to(&backend).start();
    for first in ["", "half", "never more"] {
        let mut client = H1Client::connect(gateway.address("plain")).await;
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n").await;
        let more = first != "never more";
        client.send(if more { first } else { "" }).await;
        here.notified().await;
        gateway.settle().await;
        gateway.advance(seconds(29)).await;
        if more {
            client.send("x").await;
            gateway.settle().await;
            gateway.advance(seconds(29)).await;
        }
        let kind = r#"portcullis_deadlines_total{kind="body"}"#;
        let before = gateway.metric(kind).unwrap();
        gateway.advance(seconds(1)).await;
        assert_eq!(gateway.metric(kind), Some(before + 1.0), "{first:?}");
        let answer = client.response("POST").await.unwrap();
        assert_eq!((answer.status, &*answer.problem()), (408, "request-timeout"), "{first:?}");
        assert_eq!(answer.field("connection"), Some("close"), "{first:?}");
        assert_eq!(client.rest().await, (Vec::new(), Cut::Closed), "{first:?}");
    }
}

#[tokio::test]
async fn an_answer_that_stops_coming_is_cut_off() {
    let here = Arc::new(Notify::new());
    let inside = Arc::clone(&here);
    let backend = Backend::start(move |mut conversation| {
        let here = Arc::clone(&inside);
        async move {
            conversation.request().await;
            conversation.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await;
            here.notify_one();
            conversation.until_closed().await;
        }
    })
    .await;
    let gateway = to(&backend).start();
    for protocol in Protocol::ALL {
        let mut client = Client::connect(&gateway, protocol).await;
        let test = async {
            here.notified().await;
            gateway.settle().await;
            gateway.advance(seconds(60)).await;
        };
        let (answer, ()) = tokio::join!(client.send(Request::get("/")), test);
        match answer.unwrap_err() {
            Cut::Stream(2) => assert!(protocol.is_h2()),
            Cut::Short | Cut::Reset => assert!(!protocol.is_h2()),
            cut => panic!("{protocol:?}: {cut:?}"),
        }
    }
}

#[tokio::test]
async fn connections_to_backends_are_not_kept_longer_than_configured() {
    let backend = Backend::always(response(200, "x")).await;
    let gateway = to(&backend).start();
    let mut client = Client::connect(&gateway, Protocol::H1).await;
    client.send(Request::get("/")).await.unwrap();
    gateway.settle().await;
    gateway.advance(seconds(59)).await;
    client.send(Request::get("/")).await.unwrap();
    assert_eq!(backend.connections(), 1);
    gateway.settle().await;
    gateway.advance(seconds(61)).await;
    client.send(Request::get("/")).await.unwrap();
    assert_eq!(backend.connections(), 2);
}

#[tokio::test]
async fn an_exchange_ends_after_its_total_however_lively_it_is() {
    let (here, more) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let inside = (Arc::clone(&here), Arc::clone(&more));
    let backend = Backend::start(move |mut conversation| {
        let (here, more) = (Arc::clone(&inside.0), Arc::clone(&inside.1));
        async move {
            conversation.request().await;
            conversation.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
            loop {
                conversation.send("1\r\nx\r\n").await;
                here.notify_one();
                tokio::select! {
                    _ = conversation.until_closed() => return,
                    () = more.notified() => {}
                }
            }
        }
    })
    .await;
    let text =
        crate::everything_to(&backend).replace("public:", "timeout: { total: 100s }, public:");
    let gateway = portcullis_testkit::Setup::new(&text).start();
    for protocol in Protocol::ALL {
        let mut client = Client::connect(&gateway, protocol).await;
        let test = async {
            here.notified().await;
            gateway.settle().await;
            for _ in 0..3 {
                gateway.advance(seconds(33)).await;
                more.notify_one();
                here.notified().await;
                gateway.settle().await;
            }
            // Nothing has been idle, and nothing is cut a second too early.
            gateway.connections(1).await;
            gateway.advance(seconds(1)).await;
            gateway.connections(usize::from(protocol.is_h2())).await;
        };
        let (answer, ()) = tokio::join!(client.send(Request::get("/")), test);
        match answer.unwrap_err() {
            Cut::Stream(2) => assert!(protocol.is_h2()),
            Cut::Short | Cut::Reset => assert!(!protocol.is_h2()),
            cut => panic!("{protocol:?}: {cut:?}"),
        }
        drop(client);
        gateway.connections(0).await;
    }
}

#[tokio::test]
async fn a_backend_that_never_finishes_its_handshake_is_unreachable() {
    let here = Arc::new(Notify::new());
    let inside = Arc::clone(&here);
    let backend = Backend::start(move |mut conversation| {
        inside.notify_one();
        // Takes the client's hello and says nothing.
        async move {
            conversation.until_closed().await;
        }
    })
    .await;
    let url = format!("https://127.0.0.1:{}", backend.address.port());
    let gateway = portcullis_testkit::Setup::new(&format!(
        r#"
routes:
  all: {{ match: /**, public: "a test", to: backend }}
backends:
  backend: {{ endpoints: ["{url}"], tls: {{ ca: "file:ca.pem" }} }}
"#
    ))
    .start();
    let mut client = Client::connect(&gateway, Protocol::H1).await;
    let test = async {
        here.notified().await;
        gateway.settle().await;
        gateway.advance(seconds(2)).await;
    };
    let (answer, ()) = tokio::join!(client.send(Request::get("/")), test);
    let answer = answer.unwrap();
    assert_eq!((answer.status, &*answer.problem()), (502, "backend-unreachable"));
    let connect = gateway.metric(r#"portcullis_deadlines_total{kind="connect"}"#);
    assert_eq!(connect, Some(1.0));
}
