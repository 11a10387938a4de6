//! Backends that fail in every way, and what the client gets to see of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use portcullis_testkit::backend::response;
use portcullis_testkit::{Backend, Client, Cut, H1Client, Protocol, Request, Setup};
use tokio::net::TcpListener;
use tokio::sync::Notify;

use crate::to;

/// An address where nobody listens.
async fn nowhere() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

fn over(endpoints: &[&str]) -> Setup {
    Setup::new(&format!(
        r#"
routes:
  all: {{ match: /**, public: "a test", to: backend }}
backends:
  backend: {{ endpoints: {endpoints:?}, balance: round_robin }}
"#
    ))
}

#[tokio::test]
async fn what_a_dead_endpoint_does_not_get_another_one_does() {
    let backend = Backend::echo().await;
    let dead = nowhere().await;
    let gateway = over(&[&dead, &backend.url()]).start();
    for protocol in Protocol::ALL {
        let mut client = Client::connect(&gateway, protocol).await;
        for i in 0..4 {
            // Nothing was sent to the dead one, so that a POST may go elsewhere, too.
            let text = format!("{protocol:?} {i}");
            let answer = client.send(Request::post("/", text.clone())).await.unwrap();
            assert_eq!((answer.status, answer.text()), (200, text));
        }
    }
    let retries = gateway.metric(r#"portcullis_backend_retries_total{backend="backend"}"#);
    let attempts = gateway.metric(r#"portcullis_backend_requests_total{backend="backend"}"#);
    // Set aside after its first failure, and the clock stands still.
    assert_eq!((retries, attempts), (Some(1.0), Some(17.0)));
    let retried = gateway.stop().iter().filter(|line| line.contains(r#""retries":1"#)).count();
    assert_eq!(retried, 1);
}

#[tokio::test]
async fn where_no_endpoint_is_in_service_the_client_is_told_when_to_come_again() {
    let text = r#"
routes: { all: { match: /**, public: "a test", to: one } }
backends: { one: { endpoints: [{ url: "http://127.0.0.1:9", weight: 0 }] } }
"#;
    let gateway = Setup::new(text).start();
    for protocol in Protocol::ALL {
        let answer = Client::connect(&gateway, protocol).await.send(Request::get("/")).await;
        let answer = answer.unwrap();
        assert_eq!((answer.status, &*answer.problem()), (503, "backend-unavailable"));
        assert_eq!(answer.field("retry-after"), Some("5"), "{protocol:?}");
    }
}

#[tokio::test]
async fn a_backend_without_a_live_endpoint_is_a_502() {
    let (one, two) = (nowhere().await, nowhere().await);
    let gateway = over(&[&one, &two]).start();
    for protocol in Protocol::ALL {
        let mut client = Client::connect(&gateway, protocol).await;
        let answer = client.send(Request::get("/")).await.unwrap();
        assert_eq!(
            (answer.status, &*answer.problem()),
            (502, "backend-unreachable"),
            "{protocol:?}"
        );
    }
}

/// Answers the first request of a connection and closes at the head of the second.
async fn forgetful() -> Backend {
    Backend::start(|mut conversation| async move {
        if conversation.request().await.is_some() {
            conversation.send(response(200, &conversation.number.to_string())).await;
        }
        conversation.request().await;
    })
    .await
}

#[tokio::test]
async fn a_get_on_a_connection_that_had_been_closed_is_sent_again() {
    for protocol in Protocol::ALL {
        let backend = forgetful().await;
        let gateway = to(&backend).start();
        let mut client = Client::connect(&gateway, protocol).await;
        for i in 0..4 {
            let answer = client.send(Request::get("/")).await.unwrap();
            assert_eq!((answer.status, answer.text()), (200, i.to_string()), "{protocol:?}");
        }
        let retries = gateway.metric(r#"portcullis_backend_retries_total{backend="backend"}"#);
        assert_eq!(retries, Some(3.0), "{protocol:?}");
    }
}

#[tokio::test]
async fn without_a_budget_the_first_failure_is_the_answer() {
    for protocol in Protocol::ALL {
        let backend = forgetful().await;
        let config = format!(
            r#"
routes:
  all: {{ match: /**, public: "a test", to: backend }}
backends:
  backend: {{ endpoints: ["{}"], retry_budget: {{ percent: 50, per_second: 0 }} }}
"#,
            backend.url()
        );
        let gateway = Setup::new(&config).start();
        let mut client = Client::connect(&gateway, protocol).await;
        let mut seen = Vec::new();
        for _ in 0..6 {
            seen.push(client.send(Request::get("/")).await.unwrap().status);
        }
        // Two were saved, and each request earns half a one.
        assert_eq!(seen, [200, 200, 200, 200, 502, 200], "{protocol:?}");
    }
}

#[tokio::test]
async fn a_post_is_never_sent_twice() {
    for protocol in Protocol::ALL {
        let backend = forgetful().await;
        let gateway = to(&backend).start();
        let mut client = Client::connect(&gateway, protocol).await;
        for request in [Request::post("/", "a"), Request::new("POST", "/")] {
            assert_eq!(client.send(Request::get("/")).await.unwrap().status, 200);
            let answer = client.send(request).await.unwrap();
            assert_eq!(
                (answer.status, &*answer.problem()),
                (502, "backend-closed"),
                "{protocol:?}"
            );
        }
        let posts = backend.requests().iter().filter(|r| r.line.starts_with("POST")).count();
        assert_eq!(posts, 2, "{protocol:?}");
    }
}

#[tokio::test]
async fn a_fresh_connection_that_ends_without_an_answer_is_a_502() {
    let backend = Backend::start(|mut conversation| async move {
        conversation.request().await;
    })
    .await;
    let gateway = to(&backend).start();
    for protocol in Protocol::ALL {
        let mut client = Client::connect(&gateway, protocol).await;
        let answer = client.send(Request::get("/")).await.unwrap();
        assert_eq!((answer.status, &*answer.problem()), (502, "backend-closed"), "{protocol:?}");
    }
    assert_eq!(backend.requests().len(), 4, "a fresh connection is no stale one");
}

#[tokio::test]
async fn an_answer_cut_off_never_looks_complete() {
    let cut_answers = [
        "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nzzz\r\n",
    ];
    for bytes in cut_answers {
        let backend = Backend::start(move |mut conversation| async move {
            conversation.request().await;
            conversation.send(bytes).await;
        })
        .await;
        let gateway = to(&backend).start();
        for protocol in Protocol::ALL {
            let mut client = Client::connect(&gateway, protocol).await;
            let cut = client.send(Request::get("/")).await.unwrap_err();
            match protocol.is_h2() {
                true => assert_eq!(cut, Cut::Stream(2), "{protocol:?} {bytes:?}"),
                false => assert!(matches!(cut, Cut::Short | Cut::Reset), "{protocol:?} {bytes:?}"),
            }
            // HTTP/1.0 knows no chunks: only the way the connection ends can tell.
        }
        let lines = gateway.stop();
        let logged = lines.iter().filter(|line| line.contains(r#""problem":"backend-closed""#));
        assert_eq!(logged.count(), 4, "{lines:#?}");
    }
}

#[tokio::test]
async fn an_answer_cut_off_is_reset_to_a_client_that_reads_to_the_end() {
    let backend = Backend::start(|mut conversation| async move {
        conversation.request().await;
        conversation
            .send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n")
            .await;
    })
    .await;
    let gateway = to(&backend).start();
    let mut client = H1Client::connect(gateway.address("plain")).await;
    client.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n").await;
    let (_, end) = client.rest().await;
    assert_eq!(end, Cut::Reset);
}

#[tokio::test]
async fn garbage_is_a_502_and_its_connection_is_not_used_again() {
    let garbage = [
        "SSH-2.0-OpenSSH_9.9\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nBad Name: 1\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    ];
    for bytes in garbage {
        let backend = Backend::always(bytes).await;
        let gateway = to(&backend).start();
        for (i, protocol) in Protocol::ALL.into_iter().enumerate() {
            let mut client = Client::connect(&gateway, protocol).await;
            let answer = client.send(Request::get("/")).await.unwrap();
            assert_eq!(answer.status, 502, "{bytes:?}");
            assert_eq!(answer.problem(), "backend-malformed", "{bytes:?}");
            assert_eq!(backend.connections(), i + 1, "{bytes:?}");
        }
    }
}

#[tokio::test]
async fn bytes_after_an_answer_are_not_the_next_one() {
    let backend =
        Backend::always(format!("{}{}", response(200, "mine"), response(200, "evil"))).await;
    let gateway = to(&backend).start();
    for protocol in Protocol::ALL {
        let mut client = Client::connect(&gateway, protocol).await;
        for _ in 0..3 {
            assert_eq!(client.send(Request::get("/")).await.unwrap().text(), "mine");
        }
    }
    assert_eq!(backend.connections(), 12);
}

#[tokio::test]
async fn an_answer_before_the_end_of_the_request_is_passed_on() {
    let backend = Backend::start(|mut conversation| async move {
        while conversation.head().await.is_some() {
            conversation
                .send("HTTP/1.1 413 X\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
                .await;
            conversation.until_closed().await;
        }
    })
    .await;
    let gateway = to(&backend).start();
    for protocol in Protocol::ALL {
        let mut client = Client::connect(&gateway, protocol).await;
        let body = vec![b'x'; 50_000];
        let answer = client.send(Request::post("/", body)).await.unwrap();
        assert_eq!((answer.status, answer.text()), (413, "no".to_owned()), "{protocol:?}");
    }
}

#[tokio::test]
async fn a_client_that_goes_takes_its_backend_connection_with_it() {
    let (begun, more) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let closed = Arc::new(AtomicUsize::new(0));
    let inside = (Arc::clone(&begun), Arc::clone(&more), Arc::clone(&closed));
    let backend = Backend::start(move |mut conversation| {
        let (begun, more) = (Arc::clone(&inside.0), Arc::clone(&inside.1));
        let closed = Arc::clone(&inside.2);
        async move {
            conversation.request().await;
            // Begins an answer that never ends.
            conversation.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
            begun.notify_one();
            let chunk = [b"10000\r\n", &vec![b'x'; 0x10000][..], b"\r\n"].concat();
            loop {
                tokio::select! {
                    _ = conversation.until_closed() => break,
                    () = more.notified() => {}
                }
                conversation.send(&chunk).await;
            }
            closed.fetch_add(1, SeqCst);
        }
    })
    .await;
    let gateway = to(&backend).start();
    for (i, protocol) in Protocol::ALL.into_iter().enumerate() {
        let mut client = Client::connect(&gateway, protocol).await;
        tokio::select! {
            answer = client.send(Request::get("/")) => panic!("{answer:?}"),
            () = begun.notified() => {}
        }
        drop(client);
        // The gateway finds out at the latest when it has something to send.
        portcullis_testkit::until(&format!("the end after {protocol:?}"), || {
            more.notify_one();
            closed.load(SeqCst) > i
        })
        .await;
    }
}

#[tokio::test]
async fn a_backend_is_spoken_to_through_tls_and_verified() {
    let pki = portcullis_testkit::Pki::new();
    let backend = Backend::start_tls(&pki, |mut conversation| async move {
        while conversation.request().await.is_some() {
            conversation.send(response(200, "secret")).await;
        }
    })
    .await;
    let text = |tls: &str, host: &str| {
        format!(
            r#"
routes:
  all: {{ match: /**, public: "a test", to: backend }}
backends:
  backend: {{ endpoints: ["https://{host}:{}"]{tls} }}
"#,
            backend.address.port()
        )
    };
    let gateway = Setup::new(&text(", tls: { ca: 'file:ca.pem' }", "127.0.0.1")).pki(&pki).start();
    for protocol in Protocol::ALL {
        let mut client = Client::connect(&gateway, protocol).await;
        for _ in 0..2 {
            assert_eq!(client.send(Request::get("/")).await.unwrap().text(), "secret");
        }
    }
    assert_eq!(backend.connections(), 1);
    // Another authority's certificate is not taken.
    let other = portcullis_testkit::Pki::new();
    let strict = Setup::new(&text(", tls: { ca: 'file:ca.pem' }", "127.0.0.1")).pki(&other).start();
    let mut client = Client::connect(&strict, Protocol::H1).await;
    let answer = client.send(Request::get("/")).await.unwrap();
    assert_eq!((answer.status, &*answer.problem()), (502, "backend-unreachable"));
}

#[tokio::test]
async fn a_stream_that_is_reset_does_not_keep_its_backend_waiting() {
    let (begun, closed) = (Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
    let inside = (Arc::clone(&begun), Arc::clone(&closed));
    let backend = Backend::start(move |mut conversation| {
        let (begun, closed) = (Arc::clone(&inside.0), Arc::clone(&inside.1));
        async move {
            let Some(request) = conversation.request().await else { return };
            if request.line.starts_with("GET /begun") {
                conversation.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf").await;
            }
            begun.notify_one();
            conversation.until_closed().await;
            closed.fetch_add(1, SeqCst);
        }
    })
    .await;
    let gateway = to(&backend).start();
    let client = Client::connect(&gateway, Protocol::H2).await;
    let Client::H2(client) = &client else { unreachable!() };
    for (i, path) in ["/silent", "/begun"].into_iter().enumerate() {
        let (mut stream, request) = (client.stream(), Request::get(path));
        tokio::select! {
            answer = stream.exchange(&request) => panic!("{answer:?}"),
            () = begun.notified() => {}
        }
        // The request's future is dropped here, and the stream with it; the connection stays.
        portcullis_testkit::until(path, || closed.load(SeqCst) > i).await;
    }
    let lines = gateway.stop();
    let gone = lines.iter().filter(|line| line.contains(r#""problem":"client-closed""#));
    assert_eq!(gone.count(), 2, "{lines:#?}");
}
