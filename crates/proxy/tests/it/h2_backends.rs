//! HTTP/2 to backends: streams that share a connection, refusals that are safe to repeat, trailers,
//! gRPC.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use portcullis_testkit::h2_backend::{Manner, map};
use portcullis_testkit::{
    Backend, Client, End, H1Client, H2Backend, Pki, Protocol, Request, Setup, until,
};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// Everything goes to one endpoint, with more settings of its backend.
fn to(url: &str, more: &str) -> Setup {
    Setup::new(&format!(
        r#"
routes:
  everything: {{ match: /**, public: "a test", to: backend }}
backends:
  backend: {{ endpoints: ["{url}"]{more} }}
"#
    ))
}

const H2: &str = ", protocol: h2";

#[tokio::test]
async fn bodies_and_trailers_pass_both_ways_over_every_pair_of_protocols() {
    let backend = H2Backend::echo().await;
    let gateway = to(&backend.url(), H2).start();
    for protocol in Protocol::ALL {
        let mut client = Client::connect(&gateway, protocol).await;
        let answer = client.send(Request::post("/a?b=c", "0123456789")).await.unwrap();
        assert_eq!((answer.status, answer.text()), (200, "0123456789".to_owned()), "{protocol:?}");
        let streamed = Request::stream("/s", &["one ", "two"])
            .field("te", "trailers")
            .field("cookie", "a=1")
            .trailer("x-checksum", "17");
        let answer = client.send(streamed).await.unwrap();
        assert_eq!(answer.text(), "one two", "{protocol:?}");
        assert_eq!(answer.trailers, [("x-checksum".to_owned(), "17".to_owned())], "{protocol:?}");
    }
    assert_eq!(backend.connections(), 1);
    let seen = backend.seen();
    assert_eq!((&*seen[0].method, &*seen[0].uri), ("POST", "http://localhost/a?b=c"));
    assert_eq!(seen[0].fields["content-length"], "10");
    assert_eq!(seen[0].fields.get("host"), None);
    assert_eq!(seen[0].fields.get("te"), None);
    assert_eq!(seen[1].fields["te"], "trailers");
    assert_eq!(seen[1].fields.get("content-length"), None);
    assert_eq!(seen[1].fields["x-forwarded-for"], "127.0.0.1");
}

#[tokio::test]
async fn alpn_decides_and_the_setting_overrides_it() {
    let pki = Pki::new();
    let tls = ", tls: { ca: 'file:ca.pem' }";
    let both = H2Backend::start_tls(&pki, Manner::default(), |mut stream| async move {
        let host = stream.request.uri().scheme_str().unwrap_or_default().to_owned();
        stream.answer(200, &[], host);
    })
    .await;
    for (more, connections) in [("", 1), (", protocol: h2", 1)] {
        let gateway = to(&both.url(), &format!("{tls}{more}")).pki(&pki).start();
        let before = both.connections();
        for _ in 0..3 {
            let mut client = Client::connect(&gateway, Protocol::H1).await;
            let answer = client.send(Request::get("/")).await.unwrap();
            assert_eq!((answer.status, answer.text()), (200, "https".to_owned()), "{more}");
        }
        assert_eq!(both.connections() - before, connections, "{more}");
    }
    // It agrees on HTTP/1.1 with whoever offers nothing else, and then does not understand it.
    let gateway = to(&both.url(), &format!("{tls}, protocol: h1")).pki(&pki).start();
    let mut client = Client::connect(&gateway, Protocol::H1).await;
    assert_eq!(client.send(Request::get("/")).await.unwrap().status, 502);

    let old = Backend::start_tls(&pki, |mut conversation| async move {
        while conversation.request().await.is_some() {
            conversation.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nh1").await;
        }
    })
    .await;
    let url = old.url().replace("http:", "https:");
    for (more, status) in [("", 200), (", protocol: h1", 200), (", protocol: h2", 502)] {
        let gateway = to(&url, &format!("{tls}{more}")).pki(&pki).start();
        let mut client = Client::connect(&gateway, Protocol::H1).await;
        assert_eq!(client.send(Request::get("/")).await.unwrap().status, status, "{more}");
    }
}

/// A backend that answers when it is told to, and says how many streams wait.
async fn patient(manner: Manner) -> (H2Backend, Arc<Semaphore>, Arc<AtomicUsize>) {
    let (gate, waiting) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    let inside = (Arc::clone(&gate), Arc::clone(&waiting));
    let backend = H2Backend::start(manner, move |mut stream| {
        let (gate, waiting) = inside.clone();
        async move {
            waiting.fetch_add(1, SeqCst);
            gate.acquire().await.unwrap().forget();
            stream.answer(200, &[], "late");
        }
    })
    .await;
    (backend, gate, waiting)
}

#[tokio::test]
async fn streams_share_a_connection_and_another_is_made_when_they_run_out() {
    let (backend, gate, waiting) =
        patient(Manner { streams_max: Some(8), ..Manner::default() }).await;
    let gateway = to(&backend.url(), ", protocol: h2, streams_max: 4").workers(1).start();
    let mut asking = Vec::new();
    for asked in 1..=10 {
        let mut client = Client::connect(&gateway, Protocol::H1).await;
        asking.push(tokio::spawn(async move { client.send(Request::get("/")).await.unwrap() }));
        until("the request", || waiting.load(SeqCst) == asked).await;
    }
    assert_eq!(backend.connections(), 3);
    gate.add_permits(10);
    for asked in asking {
        assert_eq!(asked.await.unwrap().text(), "late");
    }
}

#[tokio::test]
async fn no_stream_is_begun_before_the_backend_has_said_how_many_it_takes() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("h2c://{}", listener.local_addr().unwrap());
    let gateway = to(&url, "").workers(1).start();
    let mut asking = Vec::new();
    for _ in 0..2 {
        let mut client = Client::connect(&gateway, Protocol::H1).await;
        asking.push(tokio::spawn(async move { client.send(Request::get("/")).await.unwrap() }));
    }
    let mut open = Vec::new();
    for _ in 0..2 {
        let (tcp, _) = listener.accept().await.unwrap();
        if open.is_empty() {
            // Who came second counts on the connection that is being made.
            until("the second request", || {
                gateway.gateway.snapshot().backends[0].capacity.pending.used() == 1
            })
            .await;
        }
        let mut builder = h2::server::Builder::new();
        builder.max_concurrent_streams(1);
        let mut connection = builder.handshake::<_, Bytes>(tcp).await.unwrap();
        let (_, respond) = connection.accept().await.unwrap().unwrap();
        open.push((connection, respond));
    }
    for (mut connection, mut respond) in open {
        drop(respond.send_response(http::Response::new(()), true));
        tokio::spawn(async move { drop(connection.accept().await) });
    }
    for asked in asking {
        assert_eq!(asked.await.unwrap().status, 200);
    }
    let repeated = r#"portcullis_backend_retries_total{backend="backend"}"#;
    assert_eq!(gateway.metric(repeated), Some(0.0));
}

#[tokio::test]
async fn what_the_backend_refused_is_sent_again_whatever_it_is() {
    let count = Arc::new(AtomicUsize::new(0));
    let inside = Arc::clone(&count);
    let backend = H2Backend::start(Manner::default(), move |mut stream| {
        let number = inside.fetch_add(1, SeqCst);
        async move {
            match number {
                0 => stream.respond.send_reset(Reason::REFUSED_STREAM),
                _ => stream.answer(200, &[], "second"),
            }
        }
    })
    .await;
    let gateway = to(&backend.url(), H2).start();
    let mut client = Client::connect(&gateway, Protocol::H1).await;
    let answer = client.send(Request::new("POST", "/")).await.unwrap();
    assert_eq!((answer.status, answer.text()), (200, "second".to_owned()));
    assert_eq!(count.load(SeqCst), 2);
}

#[tokio::test]
async fn a_reset_of_another_kind_is_not_repeated() {
    let backend = H2Backend::start(Manner::default(), |mut stream| async move {
        stream.respond.send_reset(Reason::INTERNAL_ERROR);
    })
    .await;
    let gateway = to(&backend.url(), H2).start();
    let mut client = Client::connect(&gateway, Protocol::H1).await;
    let answer = client.send(Request::get("/")).await.unwrap();
    assert_eq!((answer.status, answer.problem()), (502, "backend-closed".to_owned()));
    assert_eq!(backend.seen().len(), 1);
}

#[tokio::test]
async fn after_a_goaway_streams_under_way_end_and_new_ones_go_elsewhere() {
    let gate = Arc::new(Semaphore::new(0));
    let inside = Arc::clone(&gate);
    let backend = H2Backend::start(Manner::default(), move |mut stream| {
        let gate = Arc::clone(&inside);
        async move {
            if stream.request.uri().path() == "/slow" {
                stream.go_away(Reason::NO_ERROR);
                gate.acquire().await.unwrap().forget();
            }
            let text = format!("connection {}", stream.connection);
            stream.answer(200, &[], text);
        }
    })
    .await;
    let gateway = to(&backend.url(), H2).workers(1).start();
    let mut slow = Client::connect(&gateway, Protocol::H1).await;
    let slow = tokio::spawn(async move { slow.send(Request::get("/slow")).await.unwrap() });
    until("the slow request", || backend.seen().len() == 1).await;
    let mut client = Client::connect(&gateway, Protocol::H2).await;
    // The good-bye is on its way; whoever still meets the old connection is sent to a new one.
    until("the second connection", || backend.connections() == 2 || backend.seen().len() < 9).await;
    let mut last = String::new();
    for _ in 0..8 {
        last = client.send(Request::get("/")).await.unwrap().text();
    }
    assert_eq!(last, "connection 1");
    gate.add_permits(1);
    assert_eq!(slow.await.unwrap().text(), "connection 0");
}

#[tokio::test]
async fn requirement_16_a_reset_answer_never_looks_complete() {
    let gate = Arc::new(Semaphore::new(0));
    let inside = Arc::clone(&gate);
    let backend = H2Backend::start(Manner::default(), move |mut stream| {
        let gate = Arc::clone(&inside);
        async move {
            let mut send = stream.head(200, &[]);
            drop(send.send_data("half".into(), false));
            gate.acquire().await.unwrap().forget();
            send.send_reset(Reason::INTERNAL_ERROR);
        }
    })
    .await;
    let gateway = to(&backend.url(), H2).start();
    let mut client = H1Client::connect(gateway.address("plain")).await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(client.head().await.unwrap().0, "HTTP/1.1 200 OK");
    gate.add_permits(1);
    let (rest, end) = client.rest().await;
    assert_eq!((&*rest, end), (&b"4\r\nhalf\r\n"[..], End::Reset));
}

#[tokio::test]
async fn a_client_that_resets_frees_the_backends_stream() {
    let (ended, inside) = {
        let e = Arc::new(AtomicUsize::new(0));
        (Arc::clone(&e), e)
    };
    let backend = H2Backend::start(Manner::default(), move |mut stream| {
        let ended = Arc::clone(&inside);
        async move {
            let reset = std::future::poll_fn(|cx| stream.respond.poll_reset(cx)).await;
            assert_eq!(reset.unwrap(), Reason::CANCEL);
            ended.fetch_add(1, SeqCst);
        }
    })
    .await;
    let gateway = to(&backend.url(), H2).start();
    let client = portcullis_testkit::h2::H2Client::connect(gateway.address("plain")).await;
    let mut stream = client.stream();
    let asking = tokio::spawn(async move { stream.exchange(&Request::get("/")).await });
    until("the request", || backend.seen().len() == 1).await;
    asking.abort();
    until("the reset", || ended.load(SeqCst) == 1).await;
}

#[tokio::test]
async fn early_hints_and_continue_come_through() {
    let backend = H2Backend::start(Manner::default(), |mut stream| async move {
        stream.interim(103, &[("link", "</a.css>")]);
        assert_eq!(stream.request.headers()["expect"], "100-continue");
        stream.interim(100, &[]);
        let Some((body, _)) = stream.whole().await else { return };
        stream.answer(200, &[], body);
    })
    .await;
    let gateway = to(&backend.url(), H2).start();
    let address = gateway.address("plain");
    let mut client = H1Client::connect(address).await;
    let head = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\nexpect: 100-continue\r\n\r\n";
    client.send(head).await;
    let (line, fields) = client.head().await.unwrap();
    assert_eq!(line, "HTTP/1.1 103 Early Hints");
    assert_eq!(fields, [("link".to_owned(), "</a.css>".to_owned())]);
    assert_eq!(client.head().await.unwrap().0, "HTTP/1.1 100 Continue");
    client.send("body").await;
    assert_eq!(client.response("POST").await.unwrap().text(), "body");
}

#[tokio::test]
async fn grpc_passes_with_its_trailers_and_problems_become_its_statuses() {
    let backend = H2Backend::start(Manner::default(), |mut stream| async move {
        let method = stream.request.uri().path().to_owned();
        assert_eq!(stream.request.headers()["te"], "trailers");
        let Some((body, _)) = stream.whole().await else { return };
        match &*method {
            "/pkg.Echo/Unary" => {
                let mut send = stream.head(200, &[("content-type", "application/grpc")]);
                drop(send.send_data(body.into(), false));
                drop(send.send_trailers(map(&[("grpc-status", "0")])));
            }
            "/pkg.Echo/Fails" => {
                let fields = [("content-type", "application/grpc"), ("grpc-status", "5")];
                let mut response = http::Response::new(());
                *response.headers_mut() = map(&fields);
                drop(stream.respond.send_response(response, true));
            }
            _ => std::future::pending().await,
        }
    })
    .await;
    let text = format!(
        r#"
routes:
  echo: {{ match: {{ grpc: "pkg.Echo/*" }}, public: "a test", to: backend }}
backends:
  backend: "h2c://{}"
"#,
        backend.address
    );
    let gateway = Setup::new(&text).start();
    let mut client = Client::connect(&gateway, Protocol::H2).await;
    let call = |method: &str| {
        Request::stream(&format!("/{method}"), &["\0\0\0\0\u{2}hi"])
            .field("content-type", "application/grpc+proto")
            .field("te", "trailers")
    };
    let answer = client.send(call("pkg.Echo/Unary")).await.unwrap();
    assert_eq!(answer.text(), "\0\0\0\0\u{2}hi");
    assert_eq!(answer.trailers, [("grpc-status".to_owned(), "0".to_owned())]);
    let answer = client.send(call("pkg.Echo/Fails")).await.unwrap();
    assert_eq!((answer.status, answer.field("grpc-status")), (200, Some("5")));
    assert_eq!(answer.field("content-length"), None);
    let answer = client.send(call("pkg.Other/Unary")).await.unwrap();
    assert_eq!((answer.status, answer.field("grpc-status")), (200, Some("12")), "{answer:?}");
    assert_eq!(answer.field("content-length"), None);
    assert_eq!(answer.field("content-type"), Some("application/grpc"));

    // The caller's own deadline: 3 s, though the route would wait for 15.
    let slow = call("pkg.Echo/Slow").field("grpc-timeout", "3000m");
    let asking = tokio::spawn(async move { client.send(slow).await.unwrap() });
    until("the slow call", || backend.seen().len() == 3).await;
    gateway.settle().await;
    gateway.advance(Duration::from_millis(3200)).await;
    let answer = asking.await.unwrap();
    assert_eq!((answer.status, answer.field("grpc-status")), (200, Some("4")), "{answer:?}");
}
