//! Requests and responses of every shape, over every protocol.

use bytes::Bytes;
use portcullis_testkit::backend::response;
use portcullis_testkit::{Answer, Backend, Client, Cut, Protocol, Request, Setup, TestGateway};

use crate::{everything_to, to};

async fn ask(gateway: &TestGateway, protocol: Protocol, request: Request) -> Result<Answer, Cut> {
    Client::connect(gateway, protocol).await.send(request).await
}

#[tokio::test]
async fn bodies_and_statuses_pass_unchanged() {
    let backend = Backend::always(
        "HTTP/1.1 418 Whatever\r\nContent-Length: 5\r\nX-Mixed-Case: a\r\nX-Mixed-Case: b\r\n\r\nshort",
    )
    .await;
    let gateway = to(&backend).start();
    for protocol in Protocol::ALL {
        let answer = ask(&gateway, protocol, Request::get("/a%20b?q=1&q=2")).await.unwrap();
        assert_eq!((answer.status, answer.text()), (418, "short".to_owned()), "{protocol:?}");
        let mixed = answer.fields.iter().filter(|(name, _)| name == "x-mixed-case");
        assert_eq!(mixed.map(|(_, value)| &**value).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(answer.field("content-length"), Some("5"), "{protocol:?}");
        assert_eq!(backend.last().line, "GET /a%20b?q=1&q=2 HTTP/1.1");
        assert_eq!(backend.last().field("host"), Some("localhost"));
    }
}

#[tokio::test]
async fn a_request_body_of_known_length_keeps_its_length() {
    let backend = Backend::echo().await;
    let gateway = to(&backend).start();
    for protocol in Protocol::ALL {
        let answer = ask(&gateway, protocol, Request::post("/", "0123456789")).await.unwrap();
        assert_eq!((answer.status, answer.text()), (200, "0123456789".to_owned()), "{protocol:?}");
        assert_eq!(backend.last().field("content-length"), Some("10"));
        assert_eq!(backend.last().field("transfer-encoding"), None);
    }
}

#[tokio::test]
async fn a_request_body_of_unknown_length_is_chunked() {
    let backend = Backend::echo().await;
    let gateway = to(&backend).start();
    for protocol in Protocol::ALL {
        let request = Request::stream("/", &["one ", "two ", "three"]);
        let answer = ask(&gateway, protocol, request).await.unwrap();
        assert_eq!(answer.text(), "one two three", "{protocol:?}");
        assert_eq!(backend.last().field("transfer-encoding"), Some("chunked"));
        assert_eq!(backend.last().field("content-length"), None);
    }
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    let backend = Backend::echo().await;
    let gateway = to(&backend).start();
    for protocol in Protocol::ALL {
        let request = Request::stream("/", &["body"])
            .field("te", "trailers")
            .trailer("x-checksum", "17")
            .trailer("portcullis-client", "root")
            .trailer("x_request.id", "forged");
        let answer = ask(&gateway, protocol, request).await.unwrap();
        assert_eq!(answer.text(), "body", "{protocol:?}");
        let trailer = [("x-checksum".to_owned(), "17".to_owned())];
        assert_eq!(backend.last().trailers, trailer, "{protocol:?}");
        assert_eq!(answer.trailers, trailer, "{protocol:?}");
    }
}

#[tokio::test]
async fn an_answer_to_head_has_a_length_and_no_body() {
    let backend = Backend::always("HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n").await;
    let gateway = to(&backend).start();
    for protocol in Protocol::ALL {
        let mut client = Client::connect(&gateway, protocol).await;
        for _ in 0..2 {
            let answer = client.send(Request::new("HEAD", "/")).await.unwrap();
            assert_eq!((answer.status, answer.text()), (200, String::new()), "{protocol:?}");
            assert_eq!(answer.field("content-length"), Some("1234"), "{protocol:?}");
        }
    }
    assert!(backend.requests().iter().all(|request| request.line == "HEAD / HTTP/1.1"));
}

#[tokio::test]
async fn answers_without_a_body_end_with_their_head() {
    for (status, field) in [(204, "x-a: 1"), (304, "etag: \"x\""), (304, "content-length: 99")] {
        let backend = Backend::always(format!("HTTP/1.1 {status} X\r\n{field}\r\n\r\n")).await;
        let gateway = to(&backend).start();
        for protocol in Protocol::ALL {
            let mut client = Client::connect(&gateway, protocol).await;
            for _ in 0..2 {
                let answer = client.send(Request::get("/")).await.unwrap();
                assert_eq!((answer.status, answer.text()), (status, String::new()));
                let (name, value) = field.split_once(": ").unwrap();
                assert_eq!(answer.field(name), Some(value), "{protocol:?} {status}");
                assert_eq!(answer.field("transfer-encoding"), None, "{protocol:?} {status}");
            }
        }
        assert_eq!(backend.connections(), 1, "{status} {field}");
    }
}

#[tokio::test]
async fn a_body_up_to_the_end_of_the_connection_arrives_whole() {
    let backend = Backend::start(|mut conversation| async move {
        if conversation.request().await.is_some() {
            conversation.send("HTTP/1.1 200 OK\r\n\r\nall of it").await;
        }
    })
    .await;
    let gateway = to(&backend).start();
    for protocol in Protocol::ALL {
        let mut client = Client::connect(&gateway, protocol).await;
        for _ in 0..2 {
            let answer = client.send(Request::get("/")).await.unwrap();
            assert_eq!(answer.text(), "all of it", "{protocol:?}");
        }
    }
}

#[tokio::test]
async fn large_bodies_pass_both_ways() {
    const BYTES: usize = 8 << 20;
    let backend = Backend::echo().await;
    let text = everything_to(&backend).replace("public:", "body_max: 8MiB, public:");
    let gateway = Setup::new(&text).start();
    let body: Vec<u8> = (0..BYTES).map(|i| (i % 251) as u8).collect();
    let body = Bytes::from(body);
    for protocol in Protocol::ALL {
        let answer = ask(&gateway, protocol, Request::post("/", body.clone())).await.unwrap();
        assert!(answer.body == body, "{protocol:?}: {} bytes", answer.body.len());
        let pieces = body.chunks(100_000).map(Bytes::copy_from_slice).collect();
        let mut request = Request::stream("/", &[]);
        request.body = portcullis_testkit::Body::Unknown { pieces, trailers: Vec::new() };
        let answer = ask(&gateway, protocol, request).await.unwrap();
        assert!(answer.body == body, "{protocol:?}: {} bytes", answer.body.len());
    }
    assert!(backend.requests().iter().all(|request| request.body == body));
}

#[tokio::test]
async fn a_body_that_is_too_large_is_a_413() {
    let backend = Backend::echo().await;
    let text = everything_to(&backend).replace("public:", "body_max: 10B, public:");
    let gateway = Setup::new(&text).start();
    for protocol in Protocol::ALL {
        let most = ask(&gateway, protocol, Request::post("/", "0123456789")).await.unwrap();
        assert_eq!(most.status, 200);
        let most =
            ask(&gateway, protocol, Request::stream("/", &["01234", "56789"])).await.unwrap();
        assert_eq!(most.status, 200);
        let before = backend.requests().len();
        for request in
            [Request::post("/", "01234567890"), Request::stream("/", &["01234", "567890"])]
        {
            let answer = ask(&gateway, protocol, request).await.unwrap();
            assert_eq!(
                (answer.status, &*answer.problem()),
                (413, "body-too-large"),
                "{protocol:?}"
            );
        }
        assert_eq!(backend.requests().len(), before, "{protocol:?}");
    }
}

#[tokio::test]
async fn a_problem_says_what_and_which_request() {
    let backend = Backend::always(response(200, "never")).await;
    let text = everything_to(&backend).replace("/**", "/served/**");
    let gateway = Setup::new(&text).start();
    for protocol in Protocol::ALL {
        let answer = ask(&gateway, protocol, Request::get("/elsewhere")).await.unwrap();
        assert_eq!(answer.status, 404, "{protocol:?}");
        assert_eq!(answer.field("content-type"), Some("application/problem+json"));
        let id = answer.field("x-request-id").unwrap();
        let expected = format!(
            r#"{{"type":"urn:portcullis:problem:no-route","title":"Nothing is served here","status":404,"code":"no-route","request_id":"{id}"}}"#
        );
        assert_eq!(answer.text(), expected, "{protocol:?}");
        let head = ask(&gateway, protocol, Request::new("HEAD", "/elsewhere")).await.unwrap();
        assert_eq!((head.status, head.text()), (404, String::new()), "{protocol:?}");
        assert_eq!(head.field("content-length"), Some(&*expected.len().to_string()));
    }
    assert_eq!(backend.connections(), 0);
}

#[tokio::test]
async fn early_hints_pass_and_other_interim_answers_do_not() {
    let backend = Backend::always(
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n\
         HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n\
         HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone",
    )
    .await;
    let gateway = to(&backend).start();
    for protocol in Protocol::ALL {
        let answer = ask(&gateway, protocol, Request::get("/")).await.unwrap();
        assert_eq!((answer.status, answer.text()), (200, "done".to_owned()), "{protocol:?}");
        let link = ("link".to_owned(), "</a.css>; rel=preload".to_owned());
        let seen: Vec<_> = answer.interim.iter().map(|(status, _)| *status).collect();
        assert_eq!(seen, [103], "{protocol:?}");
        assert!(answer.interim[0].1.contains(&link), "{protocol:?}: {:?}", answer.interim);
    }
}

#[tokio::test]
async fn many_streams_of_one_connection_are_served_at_once() {
    // Answers only when eight requests are there.
    let gate = std::sync::Arc::new(tokio::sync::Barrier::new(8));
    let backend = Backend::start(move |mut conversation| {
        let gate = std::sync::Arc::clone(&gate);
        async move {
            while let Some(request) = conversation.request().await {
                gate.wait().await;
                conversation.send(response(200, &request.line)).await;
            }
        }
    })
    .await;
    let gateway = to(&backend).start();
    let mut client = Client::connect(&gateway, Protocol::H2Tls).await;
    let Client::H2(client) = &mut client else { unreachable!() };
    let mut streams = tokio::task::JoinSet::new();
    for i in 0..8 {
        let mut client = client.stream();
        streams.spawn(async move {
            let path = format!("/{i}");
            let answer = client.exchange(&Request::get(&path)).await.unwrap();
            assert_eq!(answer.text(), format!("GET {path} HTTP/1.1"));
        });
    }
    while let Some(done) = streams.join_next().await {
        done.unwrap();
    }
    assert_eq!(backend.connections(), 8);
}

#[tokio::test]
async fn bodies_that_nobody_reads_do_not_use_up_a_connection() {
    let backend = Backend::echo().await;
    let text = everything_to(&backend).replace("to: backend", "deny: closed").replace(
        "backends:",
        "  open: { match: /open, public: \"a test\", to: backend }\nbackends:",
    );
    let gateway = Setup::new(&text).start();
    let mut client = Client::connect(&gateway, Protocol::H2).await;
    // Five times the window of the connection.
    for _ in 0..100 {
        let answer = client.send(Request::post("/", vec![b'x'; 50_000])).await.unwrap();
        assert_eq!(answer.status, 403);
    }
    let answer = client.send(Request::post("/open", vec![b'x'; 50_000])).await.unwrap();
    assert_eq!((answer.status, answer.body.len()), (200, 50_000));
}

#[tokio::test]
async fn max_forwards_is_counted_down_for_options() {
    let backend = Backend::echo().await;
    let gateway = to(&backend).start();
    for protocol in Protocol::ALL {
        for (method, said, passed) in [
            ("OPTIONS", &["5"][..], Some("4")),
            ("OPTIONS", &["1"], Some("0")),
            ("OPTIONS", &["0"], None),
            ("OPTIONS", &["000"], None),
            ("OPTIONS", &["99999999999999999999"], Some("18446744073709551614")),
            ("OPTIONS", &["9", "many", "3"], Some("2")),
            ("OPTIONS", &["-1"], Some("-1")),
            ("GET", &["0"], Some("0")),
        ] {
            let mut request = Request::get("/");
            request.method = method.to_owned();
            let request =
                said.iter().fold(request, |request, said| request.field("max-forwards", said));
            let before = backend.requests().len();
            let answer = ask(&gateway, protocol, request).await.unwrap();
            match passed {
                None => {
                    assert_eq!(answer.status, 204, "{protocol:?} {said:?}");
                    assert_eq!(backend.requests().len(), before, "{protocol:?} {said:?}");
                }
                Some(passed) => {
                    assert_eq!(answer.status, 200, "{protocol:?} {said:?}");
                    assert_eq!(backend.last().field("max-forwards"), Some(passed), "{protocol:?}");
                }
            }
        }
    }
}

#[tokio::test]
async fn max_forwards_is_no_way_around_a_policy() {
    let backend = Backend::echo().await;
    let policy = "test_ask: 'http://world/answer', public:";
    let gateway = Setup::new(&everything_to(&backend).replace("public:", policy)).start();
    for protocol in Protocol::ALL {
        let mut request = Request::get("/").field("max-forwards", "0");
        request.method = "OPTIONS".to_owned();
        let answer = ask(&gateway, protocol, request).await.unwrap();
        assert_eq!((answer.status, &*answer.problem()), (503, "keys-unavailable"), "{protocol:?}");
    }
}
