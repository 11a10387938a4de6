//! Each kind of thing a policy may do, proven by a policy that does only that.

use portcullis_testkit::h2::H2Client;
use portcullis_testkit::{Backend, Client, Cut, Protocol, Request, Setup, until};

fn with(policy: &str, backend: &Backend) -> Setup {
    Setup::new(&format!(
        r#"
routes:
  all: {{ match: /**, public: "a test", {policy}, to: backend }}
  plain: {{ match: /plain, public: "a test", to: backend }}
backends: {{ backend: "{}" }}
"#,
        backend.url()
    ))
}

#[tokio::test]
async fn a_policy_may_change_whole_bodies() {
    let backend = Backend::echo().await;
    let gateway = with("test_shout: 20", &backend).start();
    for protocol in Protocol::ALL {
        let mut client = Client::connect(&gateway, protocol).await;
        for request in [Request::post("/", "quiet"), Request::stream("/", &["qui", "et"])] {
            let answer = client.send(request).await.unwrap();
            assert_eq!(answer.text(), "QUIET!?", "{protocol:?}");
            assert_eq!(answer.field("content-length"), Some("7"), "{protocol:?}");
            let seen = backend.last();
            assert_eq!(seen.body, b"QUIET!", "{protocol:?}");
            assert_eq!(seen.field("content-length"), Some("6"), "{protocol:?}");
            assert_eq!(seen.field("transfer-encoding"), None, "{protocol:?}");
        }
    }
    assert_eq!(backend.connections(), 1);
}

#[tokio::test]
async fn a_body_too_long_to_be_held_is_refused() {
    let backend = Backend::echo().await;
    let gateway = with("test_shout: 10", &backend).start();
    for protocol in Protocol::ALL {
        for request in
            [Request::post("/", "01234567890"), Request::stream("/", &["012345", "67890"])]
        {
            let mut client = Client::connect(&gateway, protocol).await;
            let answer = client.send(request).await.unwrap();
            assert_eq!(
                (answer.status, &*answer.problem()),
                (413, "body-too-large"),
                "{protocol:?}"
            );
        }
        assert_eq!(backend.requests().len(), 0);
    }
    for (i, protocol) in Protocol::ALL.into_iter().enumerate() {
        let mut client = Client::connect(&gateway, protocol).await;
        // One byte more comes back than the policy may hold.
        let answer = client.send(Request::post("/", "0123456789")).await.unwrap();
        // What it makes of the problem is its business: it may change that body, too.
        assert_eq!(answer.status, 502, "{protocol:?}: {}", answer.text());
        let held = gateway.metric(r#"portcullis_bounds_total{bound="buffered_max"}"#);
        assert_eq!(held, Some(i as f64 + 1.0), "{protocol:?}");
    }
}

#[tokio::test]
async fn a_policy_may_change_bodies_as_they_pass() {
    let backend = Backend::echo().await;
    let gateway = with("test_filter: <end>", &backend).start();
    for protocol in Protocol::ALL {
        let mut client = Client::connect(&gateway, protocol).await;
        let request =
            Request::stream("/", &["a", "b"]).field("te", "trailers").trailer("x-checksum", "17");
        let answer = client.send(request).await.unwrap();
        assert_eq!(backend.last().body, b"aabb<end>", "{protocol:?}");
        assert_eq!(answer.text(), "aaaabbbb<<eenndd>><end>", "{protocol:?}");
        let trailer = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let once = [trailer("x-checksum", "17"), trailer("x-filtered", "yes")];
        assert_eq!(backend.last().trailers, once, "{protocol:?}");
        assert_eq!(answer.trailers.last(), Some(&trailer("x-filtered", "yes")), "{protocol:?}");
        let answer = client.send(Request::post("/", "a")).await.unwrap();
        assert_eq!(backend.last().body, b"aa<end>", "{protocol:?}");
        assert_eq!(answer.text(), "aaaa<<eenndd>><end>", "{protocol:?}");
    }
}

#[tokio::test]
async fn a_filter_may_refuse_what_passes() {
    let backend = Backend::echo().await;
    let gateway = with("test_filter: <end>", &backend).start();
    for protocol in Protocol::ALL {
        let mut client = Client::connect(&gateway, protocol).await;
        let answer = client.send(Request::stream("/", &["fine", "\0"])).await.unwrap();
        assert_eq!((answer.status, &*answer.problem()), (400, "malformed-request"), "{protocol:?}");
    }
    assert_eq!(backend.requests().len(), 0);
}

#[tokio::test]
async fn a_policy_may_wait_for_the_world() {
    let backend = Backend::echo().await;
    let gateway = with("test_ask: 'http://world/answer'", &backend).start();
    for protocol in Protocol::ALL {
        let mut client = Client::connect(&gateway, protocol).await;
        let answer = client.send(Request::get("/")).await.unwrap();
        assert_eq!((answer.status, &*answer.problem()), (503, "keys-unavailable"), "{protocol:?}");
    }
    assert_eq!(backend.connections(), 0);
    gateway.fetcher.answer("http://world/answer", "forty-two");
    for protocol in Protocol::ALL {
        let mut client = Client::connect(&gateway, protocol).await;
        let answer = client.send(Request::get("/")).await.unwrap();
        assert_eq!(answer.field("x-asked"), Some("forty-two"), "{protocol:?}");
        assert_eq!(backend.last().field("x-asked"), Some("forty-two"), "{protocol:?}");
    }
}

#[tokio::test]
async fn a_policy_may_answer_with_a_stream() {
    let backend = Backend::echo().await;
    let gateway = with("test_stream: { pieces: 3 }", &backend).start();
    for protocol in Protocol::ALL {
        let mut client = Client::connect(&gateway, protocol).await;
        for _ in 0..2 {
            let answer = client.send(Request::post("/", "unread")).await.unwrap();
            assert_eq!(answer.text(), "piece 1;piece 2;piece 3;", "{protocol:?}");
            assert_eq!(answer.field("content-length"), None, "{protocol:?}");
        }
        let answer = client.send(Request::new("HEAD", "/")).await.unwrap();
        assert_eq!((answer.status, answer.text()), (200, String::new()), "{protocol:?}");
    }
    assert_eq!(backend.connections(), 0);
}

#[tokio::test]
async fn a_stream_that_fails_does_not_look_complete() {
    let backend = Backend::echo().await;
    let gateway = with("test_stream: { pieces: 3, fails: true }", &backend).start();
    for protocol in Protocol::ALL {
        let mut client = Client::connect(&gateway, protocol).await;
        let cut = client.send(Request::get("/")).await.unwrap_err();
        match protocol.is_h2() {
            true => assert_eq!(cut, Cut::Stream(2), "{protocol:?}"),
            false => assert!(matches!(cut, Cut::Short | Cut::Reset), "{protocol:?}: {cut:?}"),
        }
    }
}

#[tokio::test]
async fn a_policy_may_replace_an_answer() {
    let backend =
        Backend::always("HTTP/1.1 200 OK\r\nX-From: backend\r\nContent-Length: 8\r\n\r\noriginal")
            .await;
    let gateway = with("test_replace: { status: 299, body: instead }", &backend).start();
    for protocol in Protocol::ALL {
        let mut client = Client::connect(&gateway, protocol).await;
        for _ in 0..2 {
            let answer = client.send(Request::get("/")).await.unwrap();
            assert_eq!((answer.status, answer.text()), (299, "instead".to_owned()), "{protocol:?}");
            assert_eq!(answer.field("x-replaced"), Some("200"), "{protocol:?}");
            assert_eq!(answer.field("x-from"), None, "{protocol:?}");
        }
    }
}

#[tokio::test]
async fn a_policy_may_replace_a_problem() {
    let backend = Backend::echo().await;
    let policies = "test_replace: { status: 299, body: instead }, test_ask: 'http://down/'";
    let gateway = with(policies, &backend).start();
    for protocol in Protocol::ALL {
        let mut client = Client::connect(&gateway, protocol).await;
        let answer = client.send(Request::get("/")).await.unwrap();
        assert_eq!((answer.status, answer.field("x-replaced")), (299, Some("503")), "{protocol:?}");
    }
}

#[tokio::test]
async fn a_replaced_answer_is_what_a_buffering_policy_sees() {
    let backend = Backend::echo().await;
    // On the way up the one that transforms comes before the one that shapes every answer.
    let policies = "test_replace: { status: 299, body: instead }, test_shout: 100";
    let gateway = with(policies, &backend).start();
    for protocol in Protocol::ALL {
        let mut client = Client::connect(&gateway, protocol).await;
        let answer = client.send(Request::post("/", "a")).await.unwrap();
        assert_eq!((answer.status, answer.text()), (299, "instead".to_owned()), "{protocol:?}");
    }
}

#[tokio::test]
async fn a_panic_costs_one_request() {
    let backend = Backend::echo().await;
    for place in ["on_request", "after_wait", "on_response"] {
        let gateway = with(&format!("test_panic: {place}"), &backend).start();
        for protocol in Protocol::ALL {
            let mut client = Client::connect(&gateway, protocol).await;
            let answer = client.send(Request::post("/", "a")).await.unwrap();
            let context = format!("{place} over {protocol:?}");
            assert_eq!((answer.status, &*answer.problem()), (500, "internal"), "{context}");
            let answer = client.send(Request::get("/plain")).await;
            assert_eq!(answer.unwrap().status, 200, "{context}");
        }
        assert_eq!(gateway.metric("portcullis_panics_total"), Some(4.0), "{place}");
        let lines = gateway.stop();
        let failed = lines.iter().filter(|line| line.contains(r#""problem":"internal""#));
        assert_eq!(failed.count(), 4, "{place}: {lines:#?}");
    }
}

#[tokio::test]
async fn a_panic_over_a_request_body_costs_one_request() {
    let backend = Backend::echo().await;
    let gateway = with("test_panic: in_request_filter", &backend).start();
    for protocol in Protocol::ALL {
        for request in [Request::post("/", "a"), Request::stream("/", &["a", "b"])] {
            let mut client = Client::connect(&gateway, protocol).await;
            let answer = client.send(request).await.unwrap();
            assert_eq!((answer.status, &*answer.problem()), (500, "internal"), "{protocol:?}");
        }
        let mut client = Client::connect(&gateway, protocol).await;
        assert_eq!(client.send(Request::get("/plain")).await.unwrap().status, 200);
    }
    assert_eq!(gateway.metric("portcullis_panics_total"), Some(8.0));
    // What it saw of the body went nowhere.
    let lines = |path: &str| backend.requests().iter().filter(|it| it.line.contains(path)).count();
    assert_eq!((lines(" / "), lines(" /plain ")), (0, 4));
}

#[tokio::test]
async fn a_panic_leaves_the_other_streams_of_its_connection_alone() {
    let (permit, wait) = tokio::sync::oneshot::channel::<()>();
    let wait = std::sync::Mutex::new(Some(wait));
    let backend = Backend::start(move |mut conversation| {
        let wait = wait.lock().unwrap().take();
        async move {
            conversation.request().await;
            if let Some(wait) = wait {
                wait.await.unwrap();
            }
            conversation.send(portcullis_testkit::backend::response(200, "late")).await;
        }
    })
    .await;
    let routes: String = ["on_request", "after_wait", "in_request_filter"]
        .iter()
        .map(|it| {
            format!("  {it}: {{ match: /{it}, public: test, test_panic: {it}, to: backend }}\n")
        })
        .collect();
    let gateway = Setup::new(&format!(
        "routes:\n{routes}  all: {{ match: /late, public: test, to: backend }}\n\
         backends: {{ backend: \"{}\" }}\n",
        backend.url()
    ))
    .start();
    let client = H2Client::connect(gateway.address("plain")).await;
    let mut late = client.stream();
    let late = tokio::spawn(async move { late.exchange(&Request::get("/late")).await });
    until("the request", || backend.requests().len() == 1).await;
    for place in ["on_request", "after_wait", "in_request_filter"] {
        let request = Request::post(&format!("/{place}"), "a");
        assert_eq!(client.stream().exchange(&request).await.unwrap().status, 500, "{place}");
    }
    permit.send(()).unwrap();
    assert_eq!(late.await.unwrap().unwrap().text(), "late");
    assert_eq!(gateway.metric("portcullis_panics_total"), Some(3.0));
}

#[tokio::test]
async fn a_panic_in_the_middle_of_an_answer_does_not_look_complete() {
    let backend = Backend::echo().await;
    let gateway = with("test_panic: in_filter", &backend).start();
    for protocol in Protocol::ALL {
        let mut client = Client::connect(&gateway, protocol).await;
        match client.send(Request::post("/", "a")).await {
            Ok(answer) => assert_eq!(answer.status, 500, "{protocol:?}"),
            Err(cut) => assert!(
                matches!(cut, Cut::Short | Cut::Reset | Cut::Stream(2)),
                "{protocol:?}: {cut:?}"
            ),
        }
        let mut client = Client::connect(&gateway, protocol).await;
        assert_eq!(client.send(Request::get("/plain")).await.unwrap().status, 200);
    }
    assert_eq!(gateway.metric("portcullis_panics_total"), Some(4.0));
    // Nothing is left behind by any of them.
    gateway.connections(0).await;
}
