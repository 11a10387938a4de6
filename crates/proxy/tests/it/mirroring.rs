//! Copies for a mirror, as clients, backends and metrics see them: what is in them, what is not
//! copied, and that no client ever notices what a mirror does.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use portcullis_testkit::backend::{Received, response};
use portcullis_testkit::h2_backend::{Manner, map};
use portcullis_testkit::{
    Backend, Client, H2Backend, Protocol, Request, Setup, TestGateway, WebSocket, event, until,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

/// As many copies as one worker keeps for one backend: those under way, and those that wait.
const KEPT_MAX: usize = 32 + 256;

fn text(real: &str, mirror: &str, settings: &str) -> String {
    format!(
        r#"
routes:
  orders: {{ match: /**, public: "a test", to: real, upgrade: websocket, mirror: {{ to: mirror{settings} }} }}
backends:
  real: {real:?}
  mirror: {mirror}
"#
    )
}

fn gateway(real: &Backend, mirror: &Backend, settings: &str) -> TestGateway {
    Setup::new(&text(&real.url(), &format!("{:?}", mirror.url()), settings)).start()
}

fn count(gateway: &TestGateway, metric: &str, label: &str) -> u64 {
    let sample = format!("portcullis_mirror_{metric}{{route=\"orders\"{label}}}");
    gateway.metric(&sample).unwrap_or_default() as u64
}

fn sent(gateway: &TestGateway, result: &str) -> u64 {
    count(gateway, "requests_total", &format!(",result=\"{result}\""))
}

fn skipped(gateway: &TestGateway, reason: &str) -> u64 {
    count(gateway, "skipped_total", &format!(",reason=\"{reason}\""))
}

async fn answered(gateway: &TestGateway, copies: u64) {
    until("answers of the mirror", || sent(gateway, "answered") == copies).await;
}

async fn get(gateway: &TestGateway, times: usize) {
    let mut client = Client::connect(gateway, Protocol::H1).await;
    for _ in 0..times {
        assert_eq!(client.send(Request::get("/")).await.unwrap().status, 200);
    }
}

/// Never answers.
async fn hanging() -> Backend {
    Backend::start(
        |mut conversation| async move { while conversation.request().await.is_some() {} },
    )
    .await
}

/// Answers when it is let.
async fn held(permits: &Arc<Semaphore>) -> Backend {
    let permits = Arc::clone(permits);
    Backend::start(move |mut conversation| {
        let permits = Arc::clone(&permits);
        async move {
            while conversation.request().await.is_some() {
                permits.acquire().await.unwrap().forget();
                conversation.send(response(200, "")).await;
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_copy_is_what_the_backend_got_and_says_that_it_is_one() {
    let (real, mirror) = (Backend::echo().await, Backend::echo().await);
    let gateway = gateway(&real, &mirror, ", unsafe_methods: true");
    for protocol in Protocol::ALL {
        let mut client = Client::connect(&gateway, protocol).await;
        let streamed = Request::stream("/s?q=1", &["one ", "two"])
            .field("te", "trailers")
            .field("portcullis-mirror", "me")
            .field("cookie", "a=1")
            .trailer("x-checksum", "17");
        for request in [Request::get("/a/b?c"), Request::post("/p", "0123456789"), streamed] {
            assert_eq!(client.send(request).await.unwrap().status, 200, "{protocol:?}");
        }
    }
    answered(&gateway, 12).await;
    let mut copies = mirror.requests();
    let line = |received: &Received| received.field("x-request-id").unwrap().to_owned();
    let mut originals = real.requests();
    copies.sort_by_key(line);
    originals.sort_by_key(line);
    assert_eq!(copies.len(), 12);
    for (mut copy, original) in copies.into_iter().zip(originals) {
        let told = copy.fields.iter().position(|(name, _)| name == "portcullis-mirror").unwrap();
        assert_eq!(copy.fields.remove(told).1, "orders");
        assert_eq!(original.field("portcullis-mirror"), None);
        assert_eq!((&copy.line, &copy.fields), (&original.line, &original.fields));
        assert_eq!((&copy.body, &copy.trailers), (&original.body, &original.trailers));
    }
    // Clients are counted once, and so is what the backends got.
    let counted = |backend: &str| {
        gateway.metric(&format!("portcullis_backend_requests_total{{backend={backend:?}}}"))
    };
    assert_eq!((counted("real"), counted("mirror")), (Some(12.0), Some(12.0)));
    assert_eq!(gateway.stop().len(), 12);
}

#[tokio::test]
async fn a_mirror_may_speak_http_2_and_bodies_are_compared() {
    let (real, mirror) = (Backend::echo().await, H2Backend::echo().await);
    let backend = format!("{{ endpoints: [{:?}], protocol: h2 }}", mirror.url());
    let gateway = Setup::new(&text(&real.url(), &backend, ", unsafe_methods: true")).start();
    for protocol in Protocol::ALL {
        let mut client = Client::connect(&gateway, protocol).await;
        client.send(Request::get("/")).await.unwrap();
        client.send(Request::post("/p", vec![b'x'; 60_000])).await.unwrap();
        let streamed = Request::stream("/s", &["one ", "two"]).trailer("x-checksum", "17");
        client.send(streamed).await.unwrap();
    }
    until("all sizes", || count(&gateway, "size_difference_bytes_count", "") == 12).await;
    assert_eq!(count(&gateway, "size_difference_bytes_sum", ""), 0);
    assert_eq!((mirror.seen().len(), mirror.connections()), (12, 1));
    assert!(mirror.seen().iter().all(|seen| seen.fields["portcullis-mirror"] == "orders"));
}

#[tokio::test]
async fn so_many_of_a_hundred_are_copied() {
    let (real, mirror) = (Backend::echo().await, Backend::echo().await);
    let mut text = text(&real.url(), &format!("{:?}", mirror.url()), ", percent: 25");
    let gateway = Setup::new(&text).without_log().start();
    get(&gateway, 400).await;
    gateway.settle().await;
    let drawn = |gateway: &TestGateway| {
        sent(gateway, "answered") + skipped(gateway, "queue_full") + skipped(gateway, "busy")
    };
    until("all copies", || drawn(&gateway) == mirror.requests().len() as u64).await;
    assert!((50..150).contains(&drawn(&gateway)), "{}", drawn(&gateway));
    let before = drawn(&gateway);
    text = text.replace("percent: 25", "percent: 0");
    gateway.swap(&text);
    gateway.settle().await;
    get(&gateway, 100).await;
    gateway.settle().await;
    assert_eq!(drawn(&gateway), before);
}

#[tokio::test]
async fn what_is_not_copied_is_counted_and_reaches_its_backend_all_the_same() {
    let real = Backend::start(|mut conversation| async move {
        while let Some(head) = conversation.head().await {
            match head.line.split(' ').nth(1) {
                // Before the body is there.
                Some("/early") => conversation.send(response(200, "early")).await,
                Some("/none") => return,
                _ => {
                    let Some(request) = conversation.body(head).await else { return };
                    conversation.send(response(200, &request.body.len().to_string())).await;
                }
            }
        }
    })
    .await;
    let mirror = Backend::echo().await;
    let settings = ", unsafe_methods: true, body_max: 10";
    let gateway = gateway(&real, &mirror, settings);
    let mut client = Client::connect(&gateway, Protocol::H1).await;
    let long = [Request::post("/", "0123456789a"), Request::stream("/", &["0123456789", "a"])];
    for request in long {
        assert_eq!(client.send(request).await.unwrap().text(), "11");
    }
    assert_eq!(skipped(&gateway, "body_max"), 2);
    assert_eq!(client.send(Request::get("/none")).await.unwrap().status, 502);
    assert_eq!(skipped(&gateway, "unanswered"), 1);

    let mut early = TcpStream::connect(gateway.address("plain")).await.unwrap();
    early.write_all(b"POST /early HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\n").await.unwrap();
    let mut answer = vec![0; 1024];
    let read = event("an answer", early.read(&mut answer)).await.unwrap();
    assert!(answer[..read].starts_with(b"HTTP/1.1 200"));
    assert_eq!(skipped(&gateway, "unfinished"), 1);

    // A body that just fits, and no body.
    client.send(Request::post("/", "0123456789")).await.unwrap();
    client.send(Request::get("/")).await.unwrap();
    answered(&gateway, 2).await;
    assert_eq!(mirror.requests().len(), 2);
}

#[tokio::test]
async fn requests_that_do_something_and_upgrades_are_not_copied() {
    let (real, mirror) = (Backend::echo().await, Backend::echo().await);
    let safe = gateway(&real, &mirror, "");
    let mut client = Client::connect(&safe, Protocol::H2).await;
    for method in ["POST", "PUT", "DELETE", "GET", "HEAD", "OPTIONS"] {
        client.send(Request::new(method, "/")).await.unwrap();
    }
    answered(&safe, 3).await;
    assert_eq!((skipped(&safe, "unsafe_method"), mirror.requests().len()), (3, 3));

    let chatting = Backend::start(|conversation| conversation.echo_websocket()).await;
    let gateway = gateway(&chatting, &mirror, "");
    let socket = WebSocket::open(&gateway, Protocol::H1, "/chat").await.unwrap();
    assert_eq!(skipped(&gateway, "upgrade"), 1);
    drop(socket);
    assert_eq!(mirror.requests().len(), 3);
}

/// The rest of what a client sees does not change by a mirror that takes everything and says
/// nothing.
#[tokio::test]
async fn a_mirror_that_hangs_costs_clients_nothing_and_what_is_dropped_is_counted() {
    let (real, mirror) = (Backend::echo().await, hanging().await);
    let gateway = gateway(&real, &mirror, ", timeout: 5s");
    get(&gateway, KEPT_MAX + 50).await;
    assert_eq!(skipped(&gateway, "queue_full"), 50);
    until("copies under way", || mirror.requests().len() == 32).await;
    assert_eq!(real.requests().len(), KEPT_MAX + 50);
    // One connection served all of them: nobody waited for another.
    assert_eq!((real.connections(), mirror.connections()), (1, 32));
    gateway.advance(Duration::from_secs(5)).await;
    until("the ends of all", || skipped(&gateway, "expired") == 256).await;
    assert_eq!((sent(&gateway, "late"), sent(&gateway, "answered")), (32, 0));
    assert_eq!(gateway.metric(r#"portcullis_deadlines_total{kind="mirror"}"#), Some(32.0));
    // There is room again.
    get(&gateway, 1).await;
    assert_eq!(skipped(&gateway, "queue_full"), 50);
}

/// What is kept for copies is bounded by its bytes too.
#[tokio::test]
async fn large_bodies_fill_the_queue_before_many_requests_do() {
    let (real, mirror) = (Backend::echo().await, hanging().await);
    let settings = ", unsafe_methods: true, body_max: 1MiB";
    let gateway = gateway(&real, &mirror, settings);
    let mut client = Client::connect(&gateway, Protocol::H1).await;
    for _ in 0..10 {
        let answer = client.send(Request::post("/", vec![b'x'; 1 << 20])).await.unwrap();
        assert_eq!((answer.status, answer.body.len()), (200, 1 << 20));
    }
    // Seven and what belongs to them are less than 8 MiB, and eight are more.
    assert_eq!(skipped(&gateway, "queue_full"), 3);
}

#[tokio::test]
async fn a_mirror_that_is_down_or_full_is_left_alone() {
    let real = Backend::echo().await;
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("\"http://{}\"", closed.local_addr().unwrap());
    drop(closed);
    let gateway = Setup::new(&text(&real.url(), &url, "")).start();
    get(&gateway, 20).await;
    let tried = || sent(&gateway, "failed") + skipped(&gateway, "unavailable");
    until("failures", || tried() == 20).await;
    assert!(sent(&gateway, "failed") > 0);

    let mirror = hanging().await;
    let one = format!("{{ endpoints: [{:?}], requests_max: 1 }}", mirror.url());
    gateway.swap(&text(&real.url(), &one, ""));
    gateway.settle().await;
    get(&gateway, 3).await;
    until("refusals", || skipped(&gateway, "busy") == 2).await;
}

/// What is known of the mirror's backend holds for copies as for requests.
#[tokio::test]
async fn copies_open_the_breaker_of_their_backend_and_it_refuses_them() {
    let (real, mirror) = (Backend::echo().await, Backend::always(response(500, "")).await);
    let breaker = "outliers: off, breaker: { of: backend, requests_min: 4, open: 5s, probes: 1 }";
    let backend = format!("{{ endpoints: [{:?}], {breaker} }}", mirror.url());
    let gateway = Setup::new(&text(&real.url(), &backend, "")).start();
    for copies in 1..=4 {
        get(&gateway, 1).await;
        answered(&gateway, copies).await;
    }
    get(&gateway, 3).await;
    until("refusals", || skipped(&gateway, "breaker_open") == 3).await;
    assert_eq!(mirror.requests().len(), 4);
    gateway.advance(Duration::from_secs(6)).await;
    get(&gateway, 1).await;
    answered(&gateway, 5).await;
}

#[tokio::test]
async fn an_answer_without_end_is_cut() {
    let real = Backend::always(response(200, "four")).await;
    let mirror = Backend::start(|mut conversation| async move {
        conversation.request().await;
        conversation.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
        let piece = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
        // More than is read of an answer, and no end.
        for _ in 0..11 << 4 {
            conversation.send(&piece).await;
        }
        conversation.until_closed().await;
    })
    .await;
    let gateway = gateway(&real, &mirror, "");
    get(&gateway, 1).await;
    answered(&gateway, 1).await;
    let flying = || gateway.gateway.snapshot().backends[1].capacity.requests.used();
    until("the end of the copy", || flying() == 0).await;
    assert_eq!(count(&gateway, "size_difference_bytes_count", ""), 0);
    get(&gateway, 1).await;
    until("another connection", || mirror.connections() == 2).await;
}

#[tokio::test]
async fn a_gateway_that_sheds_load_makes_no_copies() {
    let (real, mirror) = (Backend::echo().await, Backend::echo().await);
    let text = text(&real.url(), &format!("{:?}", mirror.url()), "");
    let listeners = r#"listeners: { plain: { bind: "127.0.0.1:0", shed: 100ms } }"#;
    let text = text.replace("match: /**", "match: /**, priority: critical");
    let gateway = Setup::new(&format!("{listeners}\n{text}")).start();
    get(&gateway, 1).await;
    answered(&gateway, 1).await;
    let late = Duration::from_millis(300);
    for _ in 0..7 {
        gateway.clock.stall(Duration::from_millis(100), late, late);
        gateway.settle().await;
    }
    get(&gateway, 2).await;
    assert_eq!(skipped(&gateway, "overloaded"), 2);
    assert_eq!(mirror.requests().len(), 1);
}

#[tokio::test]
async fn answers_are_compared() {
    let permits = Arc::new(Semaphore::new(0));
    let real = Backend::always(response(200, "four")).await;
    let longer = Backend::always(response(200, "longer")).await;
    let failing = Backend::always(response(503, "")).await;
    let slow = held(&permits).await;
    let gateway = gateway(&real, &longer, "");
    let statuses = |class: &str| {
        let label = format!(",status_class=\"2xx\",mirror_class={class:?}");
        count(&gateway, "statuses_total", &label)
    };
    let differences = || count(&gateway, "status_differences_total", "");
    let sizes = || {
        let of = |what: &str| count(&gateway, &format!("size_difference_bytes_{what}"), "");
        (of("count"), of("sum"))
    };
    get(&gateway, 3).await;
    until("sizes", || sizes() == (3, 6)).await;
    assert_eq!((statuses("2xx"), differences()), (3, 0));

    gateway.swap(&text(&real.url(), &format!("{:?}", failing.url()), ""));
    gateway.settle().await;
    get(&gateway, 2).await;
    answered(&gateway, 5).await;
    assert_eq!((statuses("2xx"), statuses("5xx"), differences()), (3, 2, 2));
    // Bodies of answers that differ anyway are not compared.
    assert_eq!(sizes(), (3, 6));

    gateway.swap(&text(&real.url(), &format!("{:?}", slow.url()), ""));
    gateway.settle().await;
    get(&gateway, 1).await;
    until("a copy", || slow.requests().len() == 1).await;
    gateway.advance(Duration::from_secs(3)).await;
    permits.add_permits(1);
    answered(&gateway, 6).await;
    let slower = |what: &str| {
        let name = format!("latency_difference_seconds_{what}");
        count(&gateway, &name, ",mirror=\"slower\"")
    };
    assert_eq!((slower("count"), slower("sum")), (1, 3));
}

/// Calls that end so, in their trailers.
async fn calls(status: &'static str) -> H2Backend {
    H2Backend::start(Manner::default(), move |mut stream| async move {
        if stream.whole().await.is_none() {
            return;
        }
        let mut send = stream.head(200, &[("content-type", "application/grpc")]);
        drop(send.send_data(Bytes::from_static(b"\0\0\0\0\0"), false));
        drop(send.send_trailers(map(&[("grpc-status", status)])));
    })
    .await
}

#[tokio::test]
async fn calls_of_grpc_are_compared_by_how_they_end() {
    let (real, mirror) = (calls("0").await, calls("13").await);
    let backend =
        |backend: &H2Backend| format!("{{ endpoints: [{:?}], protocol: h2 }}", backend.url());
    let text = |of: &H2Backend| {
        let text = text("REAL", &backend(of), ", unsafe_methods: true");
        text.replace("\"REAL\"", &backend(&real))
    };
    let gateway = Setup::new(&text(&mirror)).start();
    let differences = || count(&gateway, "status_differences_total", "");
    let ended = || count(&gateway, "size_difference_bytes_count", "");
    let call = || {
        let request = Request::stream("/shop.Orders/Get", &["\0\0\0\0\0"]).field("te", "trailers");
        request.field("content-type", "application/grpc")
    };
    let mut client = Client::connect(&gateway, Protocol::H2).await;
    for _ in 0..3 {
        client.send(call()).await.unwrap();
    }
    until("all ends", || ended() == 3).await;
    assert_eq!(differences(), 3);
    let alike = calls("0").await;
    gateway.swap(&text(&alike));
    gateway.settle().await;
    client.send(call()).await.unwrap();
    until("all ends", || ended() == 4).await;
    assert_eq!((differences(), alike.seen().len()), (3, 1));
}

#[tokio::test]
async fn a_request_that_is_sent_again_is_copied_once() {
    let (failing, real) = (Backend::always(response(503, "")).await, Backend::echo().await);
    let mirror = Backend::echo().await;
    let gateway = Setup::new(&format!(
        r#"
routes:
  orders: {{ match: /**, public: "a test", to: real, retry: {{ body_max: 4 }}, mirror: {{ to: mirror, unsafe_methods: true }} }}
backends:
  real: {{ endpoints: [{:?}, {:?}], outliers: off, balance: round_robin }}
  mirror: {:?}
"#,
        failing.url(),
        real.url(),
        mirror.url()
    ))
    .real_clock()
    .start();
    let mut client = Client::connect(&gateway, Protocol::H1).await;
    let put =
        |body: &str| Request { method: "PUT".to_owned(), ..Request::post("/", body.to_owned()) };
    for _ in 0..4 {
        assert_eq!(client.send(put("body")).await.unwrap().text(), "body");
    }
    assert!(!failing.requests().is_empty());
    // What is kept for the copy alone is not sent again.
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(client.send(put("longer")).await.unwrap().status);
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 503, 503]);
    answered(&gateway, 8).await;
    let bodies: Vec<_> = mirror.requests().into_iter().map(|copy| copy.body).collect();
    assert_eq!(bodies.iter().filter(|body| *body == b"body").count(), 4);
    assert_eq!(bodies.iter().filter(|body| *body == b"longer").count(), 4);
}

#[tokio::test]
async fn a_reload_moves_the_mirror_and_what_was_copied_before_still_arrives() {
    let permits = Arc::new(Semaphore::new(0));
    let (real, old, new) = (Backend::echo().await, held(&permits).await, Backend::echo().await);
    let gateway = gateway(&real, &old, "");
    get(&gateway, 40).await;
    until("copies under way", || old.requests().len() == 32).await;
    let other = text(&real.url(), &format!("{:?}", new.url()), "");
    let other = other.replace("to: mirror", "to: other").replace("mirror: \"", "other: \"");
    gateway.swap(&other);
    gateway.settle().await;
    get(&gateway, 5).await;
    answered(&gateway, 5).await;
    assert_eq!(new.requests().len(), 5);
    permits.add_permits(40);
    answered(&gateway, 45).await;
    assert_eq!(old.requests().len(), 40);
    gateway.swap(&other.replace("mirror: { to: other }", "body_max: 1MiB"));
    gateway.settle().await;
    get(&gateway, 5).await;
    gateway.settle().await;
    assert_eq!(new.requests().len(), 5);
}
