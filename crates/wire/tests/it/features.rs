//! Hostile uses of features, end to end. The name of a test begins with the case that it is of.
//!
//! What a crate can tell by itself is tested there.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use portcullis_testkit::backend::Conversation;
use portcullis_testkit::{Backend, Client, H1Client, Protocol, Request, Setup, TestGateway, until};

/// One route that has these settings, to this backend.
fn with(settings: &str, backend: &Backend) -> TestGateway {
    Setup::new(&format!(
        r#"
routes:
  all: {{ match: /**, public: "a test", {settings} to: backend }}
backends:
  backend: "{}"
"#,
        backend.url()
    ))
    .start()
}

/// The status of the answer to exactly these bytes.
async fn status(gateway: &TestGateway, request: impl AsRef<[u8]>) -> u16 {
    let mut client = H1Client::connect(gateway.address("plain")).await;
    client.send(request).await;
    client.response("GET").await.unwrap().status
}

#[tokio::test]
async fn rl_10_rotating_forwarding_fields_are_one_client() {
    let backend = Backend::echo().await;
    let gateway = with("limits: [3/m per ip],", &backend);
    let mut passed = 0;
    for i in 0..100 {
        let request = format!(
            "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 10.0.0.{i}\r\nX-Real-IP: 10.0.0.{i}\r\n\
             Forwarded: for=10.0.0.{i}\r\n\r\n"
        );
        match status(&gateway, request).await {
            200 => passed += 1,
            other => assert_eq!(other, 429),
        }
    }
    assert_eq!(passed, 3);
}

#[tokio::test]
async fn rl_11_the_right_most_address_that_is_not_trusted_is_the_client() {
    let backend = Backend::echo().await;
    let gateway = Setup::new(&format!(
        r#"
listeners: {{ plain: {{ bind: "127.0.0.1:0", trusted_proxies: ["127.0.0.0/8", "10.0.0.0/8"] }} }}
routes:
  all: {{ match: /**, public: "a test", limits: [3/m per ip], to: backend }}
backends: {{ backend: "{}" }}
"#,
        backend.url()
    ))
    .start();
    for real in ["203.0.113.7", "203.0.113.8"] {
        let mut passed = 0;
        for evil in 0..20 {
            let request = format!(
                "GET / HTTP/1.1\r\nHost: a\r\n\
                 X-Forwarded-For: 198.51.100.{evil}, {real}, 10.1.1.{evil}\r\n\r\n"
            );
            passed += usize::from(status(&gateway, request).await == 200);
        }
        assert_eq!(passed, 3, "{real}");
    }
}

#[tokio::test]
async fn rl_13_spellings_of_a_path_are_one_route() {
    let backend = Backend::echo().await;
    let gateway = Setup::new(&format!(
        r#"
routes:
  a: {{ match: a.test/a, public: "a test", limits: [3/m per route], to: backend }}
backends: {{ backend: "{}" }}
"#,
        backend.url()
    ))
    .start();
    let spellings =
        ["/a", "/%61", "//a", "/./a", "/x/../a", "/a?x=1", "/a?", "/x/%2e%2e/a", "/%2E/a"];
    let hosts = ["a.test", "A.TEST", "a.test.", "a.test:80"];
    let mut passed = 0;
    for host in hosts {
        for path in spellings {
            let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
            let status = status(&gateway, request).await;
            assert!(matches!(status, 200 | 429 | 400), "{status} for {host}{path}");
            passed += usize::from(status == 200);
        }
    }
    assert_eq!(passed, 3);
}

#[tokio::test]
async fn rl_19_a_429_says_when_and_keeps_its_word() {
    let backend = Backend::echo().await;
    let gateway = with("limits: [2/m per ip],", &backend);
    let ask = async || {
        let mut client = H1Client::connect(gateway.address("plain")).await;
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        client.response("GET").await.unwrap()
    };
    for seconds in [0, 7] {
        gateway.advance(Duration::from_secs(seconds)).await;
        assert_eq!(ask().await.status, 200);
    }
    let refused = ask().await;
    assert_eq!(refused.status, 429);
    assert!(refused.body.len() < 1024, "{}", refused.text());
    assert!(refused.field("ratelimit").is_some() && refused.field("ratelimit-policy").is_some());
    assert_eq!(refused.field("cache-control").unwrap_or("no-store"), "no-store");
    let wait: u64 = refused.field("retry-after").unwrap().parse().unwrap();
    assert!((53..=57).contains(&wait), "{wait}");
    gateway.advance(Duration::from_secs(wait - 2)).await;
    assert_eq!(ask().await.status, 429);
    gateway.advance(Duration::from_secs(2)).await;
    assert_eq!(ask().await.status, 200);
}

#[tokio::test]
async fn az_12_what_a_rewrite_makes_is_canonical() {
    let backend = Backend::echo().await;
    let gateway = with("rewrite: { strip_prefix: /api },", &backend);
    for (path, target) in [
        ("/api/c", "/c"),
        ("/api//c", "/c"),
        ("/api/./c", "/c"),
        ("/api/%2e/c", "/c"),
        ("/api/x/../c", "/c"),
        ("/api//c/..", "/"),
        ("/api", "/"),
        ("/apis/c", "/apis/c"),
        // These leave the prefix before it is looked at.
        ("/api/../c", "/c"),
        ("/api/%2e%2e/c", "/c"),
        ("/api/../apis/c", "/apis/c"),
        // These have more than one reading.
        ("/api%2fc", "400"),
        ("/api/%2fc", "400"),
        ("/api/..%2fc", "400"),
        ("/api/%5cc", "400"),
        ("/api/..;/c", "400"),
    ] {
        let before = backend.requests().len();
        let status = status(&gateway, format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        let seen = backend.requests().split_off(before);
        let found = match &seen[..] {
            [request] => request.line.split(' ').nth(1).unwrap().to_owned(),
            _ => status.to_string(),
        };
        assert_eq!(found, target, "{path}");
    }
}

#[tokio::test]
async fn az_13_what_a_client_says_is_not_expanded() {
    let backend = Backend::echo().await;
    let gateway = Setup::new(&format!(
        r#"
routes:
  all:
    match: "/of/{{id}}"
    public: "a test"
    headers: {{ request: {{ set: {{ X-Id: "${{param.id}}" }} }} }}
    rewrite: {{ path: "/was/{{id}}" }}
    to: backend
backends: {{ backend: "{}" }}
"#,
        backend.url()
    ))
    .start();
    for (path, id) in [
        ("7", "7"),
        ("$%7Bclient_ip%7D", "$%7Bclient_ip%7D"),
        ("%7Bid%7D", "%7Bid%7D"),
        ("$1$$id$0", "$1$$id$0"),
    ] {
        let request = format!(
            "GET /of/{path} HTTP/1.1\r\nHost: a\r\n\
             X-Own: ${{client_ip}} {{env.SECRET}} file:/etc/passwd env:HOME\r\n\r\n"
        );
        assert_eq!(status(&gateway, request).await, 200, "{path}");
        let seen = backend.last();
        assert_eq!(seen.line, format!("GET /was/{id} HTTP/1.1"));
        assert_eq!(seen.field("x-id"), Some(id));
        let own = "${client_ip} {env.SECRET} file:/etc/passwd env:HOME";
        assert_eq!(seen.field("x-own"), Some(own));
    }
}

#[tokio::test]
async fn lg_01_a_line_of_the_log_is_one_object_whatever_was_sent() {
    let backend = Backend::echo().await;
    let gateway = with("", &backend);
    let requests: &[&[u8]] = &[
        b"GET /\"quoted\"\\ HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /%1b%5b31m%0d%0a HTTP/1.1\r\nHost: a\r\nUser-Agent: \"\\\x9b\xff\t{}\r\n\r\n",
        b"GET /?\xff\xfe HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /\x1b[31m HTTP/1.1\r\nHost: a\r\n\r\n",
        b"G\"ET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: \"a\"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id: \"},{\"\r\nReferer: \xe2\x80\xae\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\0\r\n\r\n",
    ];
    for request in requests {
        let _any = status(&gateway, request).await;
    }
    let lines = gateway.stop();
    assert_eq!(lines.len(), requests.len(), "{lines:#?}");
    for line in &lines {
        let object: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(object["status"].is_u64(), "{line}");
        assert!(!line.chars().any(char::is_control), "{}", line.escape_debug());
    }
}

#[tokio::test]
async fn lg_02_a_trace_that_is_none_begins_anew() {
    let backend = Backend::echo().await;
    let gateway = with("", &backend);
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let parent = format!("00-{trace}-b7ad6b7169203331-01");
    let zero = format!("00-{}-b7ad6b7169203331-01", "0".repeat(32));
    let state = (0..33).map(|i| format!("k{i}=v")).collect::<Vec<_>>().join(",");
    for (fields, continued) in [
        (format!("traceparent: {parent}\r\n"), true),
        (format!("traceparent: {}\r\n", parent.to_uppercase()), false),
        (format!("traceparent: {zero}\r\n"), false),
        (format!("traceparent: ff{}\r\n", &parent[2..]), false),
        (format!("traceparent: {parent}-more\r\n"), false),
        (format!("traceparent: {parent}\r\ntraceparent: {parent}\r\n"), false),
        (format!("traceparent: {parent}\r\ntrace_parent: {parent}\r\n"), true),
    ] {
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}tracestate: {state}\r\n\r\n");
        assert_eq!(status(&gateway, request).await, 200);
        let seen = backend.last();
        let all: Vec<_> = seen.fields.iter().filter(|(name, _)| name == "traceparent").collect();
        assert_eq!(all.len(), 1, "{fields}");
        assert_eq!(all[0].1.contains(trace), continued, "{fields}");
        assert_eq!(seen.field("tracestate"), None, "33 members are too many");
    }
}

/// Answers `/now`, half of `/half`, and keeps all others waiting.
async fn answer_some(mut conversation: Conversation) {
    while let Some(head) = conversation.head().await {
        if head.line.starts_with("GET /now") {
            conversation.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
            continue;
        }
        if head.line.contains("/half") {
            conversation.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf").await;
        }
        conversation.until_closed().await;
        return;
    }
}

#[tokio::test]
async fn re_22_a_client_that_goes_leaves_nothing_behind() {
    let open = Arc::new(AtomicUsize::new(0));
    let inside = Arc::clone(&open);
    let backend = Backend::start(move |conversation| {
        let open = Arc::clone(&inside);
        async move {
            open.fetch_add(1, SeqCst);
            answer_some(conversation).await;
            open.fetch_sub(1, SeqCst);
        }
    })
    .await;
    let gateway = with("", &backend);
    let chunked = "Host: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (phase, bytes) in [
        ("nothing", String::new()),
        ("within the head", "GET /now HTTP/1.1\r\nHo".to_owned()),
        ("awaiting the head", "GET /wait HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
        ("within the body", format!("POST /wait HTTP/1.1\r\n{chunked}5\r\nhe")),
        ("before the trailers", format!("POST /wait HTTP/1.1\r\n{chunked}2\r\nhe\r\n0\r\nX-T")),
        ("within the answer", "GET /half HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
        ("between requests", "GET /now HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
        ("HTTP/2, within the preface", "PRI * HTTP/2.0\r\n\r\nS".to_owned()),
    ] {
        let mut client = H1Client::connect(gateway.address("plain")).await;
        client.send(&bytes).await;
        gateway.settle().await;
        drop(client);
        // An end of input alone is no end: at the latest a deadline ends it.
        gateway.advance(Duration::from_secs(3600)).await;
        gateway.connections(0).await;
        until(phase, || open.load(SeqCst) == 0).await;
        let answer = status(&gateway, "GET /now HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(answer, 200, "{phase}");
        gateway.connections(0).await;
    }
}

/// Answers GET, and resets whatever else comes in the middle of its body.
async fn reset_bodies(mut conversation: Conversation, begun: Arc<AtomicUsize>) {
    while let Some(head) = conversation.head().await {
        if head.line.starts_with("GET ") {
            conversation.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
            continue;
        }
        begun.fetch_add(1, SeqCst);
        let mut taken = 0;
        while taken < 100_000 {
            taken += conversation.arrived().await.len();
        }
        return;
    }
}

#[tokio::test]
async fn re_06_a_body_that_has_begun_is_not_sent_again() {
    let begun = Arc::new(AtomicUsize::new(0));
    let inside = Arc::clone(&begun);
    let backend =
        Backend::start(move |conversation| reset_bodies(conversation, Arc::clone(&inside))).await;
    let gateway = with("body_max: 20MiB,", &backend);
    for (i, protocol) in Protocol::ALL.into_iter().enumerate() {
        let mut client = Client::connect(&gateway, protocol).await;
        assert_eq!(client.send(Request::get("/")).await.unwrap().status, 200);
        let body = vec![b'x'; 10 << 20];
        let request = Request { method: "PUT".to_owned(), ..Request::post("/", body) };
        let answer = client.send(request).await.unwrap();
        assert_eq!((answer.status, &*answer.problem()), (502, "backend-closed"), "{protocol:?}");
        assert_eq!(begun.load(SeqCst), i + 1, "{protocol:?}");
    }
}

#[tokio::test]
async fn re_18_a_backend_that_hangs_takes_nobody_with_it() {
    let hanging = Backend::start(|mut conversation| async move {
        conversation.until_closed().await;
    })
    .await;
    let well = Backend::echo().await;
    let gateway = Setup::new(&format!(
        r#"
routes:
  hangs: {{ match: /hangs, public: "a test", to: hanging }}
  well: {{ match: /well, public: "a test", to: well }}
backends:
  hanging: {{ endpoints: ["{}"], connections_max: 5, pending_max: 5 }}
  well: "{}"
"#,
        hanging.url(),
        well.url()
    ))
    .start();
    let mut waiting = Vec::new();
    let mut busy = 0;
    for _ in 0..60 {
        let mut client = H1Client::connect(gateway.address("plain")).await;
        client.send("GET /hangs HTTP/1.1\r\nHost: a\r\n\r\n").await;
        gateway.settle().await;
        if waiting.len() < 10 {
            waiting.push(client);
        } else {
            busy += usize::from(client.response("GET").await.unwrap().status == 503);
        }
        let request = "GET /well HTTP/1.1\r\nHost: a\r\n\r\n";
        assert_eq!(status(&gateway, request).await, 200);
    }
    assert_eq!((busy, well.requests().len(), hanging.connections()), (50, 60, 5));
}

#[tokio::test]
async fn lg_03_strangers_make_no_series() {
    let backend = Backend::echo().await;
    let gateway = with("", &backend);
    for i in 0..300 {
        let request =
            format!("M{i} /p{i}?q={i} HTTP/1.1\r\nHost: h{i}.test\r\nUser-Agent: u{i}\r\n\r\n");
        assert_eq!(status(&gateway, request).await, 200);
    }
    let sample = r#"portcullis_requests_total{route="all",method="other",status_class="2xx"}"#;
    // A request is counted once its answer has been sent.
    until("all to be counted", || gateway.metric(sample) == Some(300.0)).await;
}
