//! HTTP/2 clients that cost more than they pay for.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use portcullis_testkit::backend::response;
use portcullis_testkit::raw_h2::{block, flag, frame, get, kind, post, request_block};
use portcullis_testkit::{Backend, Cut, RawH2, Setup, TestGateway, until};

use crate::{everything_to, to};

const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const REFUSED_STREAM: u32 = 7;
const ENHANCE_YOUR_CALM: u32 = 11;

const HEADERS_END: u8 = flag::END_HEADERS | flag::END_STREAM;

fn reset(stream: u32) -> Vec<u8> {
    frame(kind::RST_STREAM, 0, stream, &8_u32.to_be_bytes())
}

fn window(stream: u32, more: u32) -> Vec<u8> {
    frame(kind::WINDOW_UPDATE, 0, stream, &more.to_be_bytes())
}

/// The numbers of the first so many streams of a client.
fn streams(count: u32) -> impl Iterator<Item = u32> {
    (0..count).map(|i| 2 * i + 1)
}

fn bound(gateway: &TestGateway, name: &str) -> f64 {
    gateway.metric(&format!(r#"portcullis_bounds_total{{bound="{name}"}}"#)).unwrap()
}

fn deadline(gateway: &TestGateway, name: &str) -> f64 {
    gateway.metric(&format!(r#"portcullis_deadlines_total{{kind="{name}"}}"#)).unwrap()
}

/// With other budgets than the default.
fn with_frames(backend: &Backend, frames: &str) -> TestGateway {
    Setup::new(&format!(
        r#"
listeners:
  plain: {{ bind: "127.0.0.1:0", keep_alive: 1h, http2_frames: {{ {frames} }} }}
defaults: {{ on: [plain] }}
{}"#,
        everything_to(backend)
    ))
    .start()
}

/// Reads to the end, which has to be a good-bye for this reason.
async fn sent_away(client: &mut RawH2, reason: u32, case: &str) {
    let (said, end) = client.to_end().await;
    assert_eq!(said.goaway, Some(reason), "{case}: {end:?} after {said:?}");
    assert_eq!(end, Some(Cut::Closed), "{case}: a reset can swallow the good-bye");
}

/// Never answers; counts the requests that came and those whose connection was closed on it.
struct Silent {
    backend: Backend,
    begun: Arc<AtomicUsize>,
    closed: Arc<AtomicUsize>,
}

impl Silent {
    async fn start() -> Self {
        let (begun, closed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let inside = (Arc::clone(&begun), Arc::clone(&closed));
        let backend = Backend::start(move |mut conversation| {
            let (begun, closed) = (Arc::clone(&inside.0), Arc::clone(&inside.1));
            async move {
                if conversation.head().await.is_some() {
                    begun.fetch_add(1, SeqCst);
                    conversation.until_closed().await;
                    closed.fetch_add(1, SeqCst);
                }
            }
        })
        .await;
        Self { backend, begun, closed }
    }

    async fn begun(&self, wanted: usize) {
        until("requests at the backend", || self.begun.load(SeqCst) >= wanted).await;
    }

    async fn closed(&self, wanted: usize) {
        until("requests given up", || self.closed.load(SeqCst) >= wanted).await;
    }
}

#[tokio::test]
async fn requirement_13_rapid_reset_ends_in_goaway_and_reaches_no_backend() {
    const STREAMS: u32 = 3_000;
    let backend = Backend::echo().await;
    let gateway = to(&backend).start();
    let flood: Vec<u8> =
        streams(STREAMS).flat_map(|stream| [get(stream), reset(stream)].concat()).collect();
    for tls in [false, true] {
        let mut client = match tls {
            false => RawH2::connect(gateway.address("plain")).await,
            true => RawH2::connect_tls(gateway.address("tls"), &gateway.pki).await,
        };
        client.send(&flood).await;
        sent_away(&mut client, ENHANCE_YOUR_CALM, "a burst of resets").await;
    }
    assert_eq!(bound(&gateway, "resets_per_minute"), 2.0);
    let reached = backend.requests().len();
    assert!(reached < STREAMS as usize / 20, "{reached} of {STREAMS} streams reached the backend");
}

#[tokio::test]
async fn requirement_13_resets_one_by_one_end_in_goaway() {
    let silent = Silent::start().await;
    let gateway = with_frames(&silent.backend, "resets_per_minute: 5");
    let mut client = RawH2::connect(gateway.address("plain")).await;
    for (i, stream) in streams(6).enumerate() {
        client.send(get(stream)).await;
        silent.begun(i + 1).await;
        client.send(reset(stream)).await;
        // Each is cancelled at its backend, too.
        silent.closed(i + 1).await;
    }
    sent_away(&mut client, ENHANCE_YOUR_CALM, "the sixth of five resets").await;
    assert_eq!(bound(&gateway, "resets_per_minute"), 1.0);
}

#[tokio::test]
async fn requirement_13_made_you_reset_ends_in_goaway_and_reaches_no_backend() {
    const STREAMS: u32 = 3_000;
    let backend = Backend::echo().await;
    let gateway = to(&backend).start();
    // Each of these makes the gateway reset the stream (CVE-2025-8671).
    type Provocation = (&'static str, u32, fn(u32) -> Vec<u8>);
    let provocations: [Provocation; 4] = [
        ("a window that grows by nothing", PROTOCOL_ERROR, |stream| {
            [get(stream), window(stream, 0)].concat()
        }),
        ("a window that overflows", ENHANCE_YOUR_CALM, |stream| {
            [get(stream), window(stream, 0x7fff_ffff)].concat()
        }),
        ("a stream that depends on itself", ENHANCE_YOUR_CALM, |stream| {
            let dependency = [&stream.to_be_bytes()[..], &[16]].concat();
            [get(stream), frame(kind::PRIORITY, 0, stream, &dependency)].concat()
        }),
        ("a body after its end", PROTOCOL_ERROR, |stream| {
            [get(stream), frame(kind::DATA, flag::END_STREAM, stream, b"more")].concat()
        }),
    ];
    for (case, reason, provoke) in provocations {
        let mut client = RawH2::connect(gateway.address("plain")).await;
        let flood: Vec<u8> = streams(STREAMS).flat_map(provoke).collect();
        let before = backend.requests().len();
        client.send(&flood).await;
        sent_away(&mut client, reason, case).await;
        let reached = backend.requests().len() - before;
        assert!(reached < STREAMS as usize / 20, "{case}: {reached} of {STREAMS} streams");
    }
}

#[tokio::test]
async fn requirement_13_resets_provoked_one_by_one_end_in_goaway() {
    let silent = Silent::start().await;
    let gateway = with_frames(&silent.backend, "resets_per_minute: 5");
    let mut client = RawH2::connect(gateway.address("plain")).await;
    for (i, stream) in streams(6).enumerate() {
        client.send(get(stream)).await;
        silent.begun(i + 1).await;
        client.send(window(stream, 0x7fff_ffff)).await;
        silent.closed(i + 1).await;
    }
    sent_away(&mut client, ENHANCE_YOUR_CALM, "the sixth of five").await;
    assert_eq!(bound(&gateway, "resets_per_minute"), 1.0);
}

#[tokio::test]
async fn requirement_12_floods_of_frames_end_in_goaway() {
    let backend = Backend::echo().await;
    let gateway = to(&backend).start();
    let head = |flags| frame(kind::HEADERS, flags, 1, &request_block("POST", &[]));
    let many = |frame: Vec<u8>, count: usize| frame.repeat(count);
    let ping = |flags| frame(kind::PING, flags, 0, &[7; 8]);
    let floods = [
        ("pings_per_minute", "PING", many(ping(0), 20_000)),
        ("settings_per_minute", "SETTINGS", many(frame(kind::SETTINGS, 0, 0, &[]), 10_000)),
        (
            "continuations_max",
            "CONTINUATION without an end",
            [head(0), many(frame(kind::CONTINUATION, 0, 1, &block(&[("x", "y")])), 4_000)].concat(),
        ),
        (
            "continuations_max",
            "empty CONTINUATION",
            [head(0), many(frame(kind::CONTINUATION, 0, 1, &[]), 20_000)].concat(),
        ),
        (
            "frames_max",
            "empty DATA",
            [head(flag::END_HEADERS), many(frame(kind::DATA, 0, 1, &[]), 30_000)].concat(),
        ),
        ("frames_max", "PRIORITY", many(frame(kind::PRIORITY, 0, 3, &[0, 0, 0, 0, 9]), 30_000)),
        ("frames_max", "WINDOW_UPDATE", many(window(0, 1), 20_000)),
        ("frames_max", "an unknown type", many(frame(0x77, 0, 0, b"what?"), 20_000)),
        ("frames_max", "PING's answer", many(ping(flag::ACK), 20_000)),
        ("frames_max", "ORIGIN, which only servers send", many(frame(12, 0, 0, &[]), 20_000)),
    ];
    for (name, case, flood) in floods {
        let before = bound(&gateway, name);
        let mut client = RawH2::connect(gateway.address("plain")).await;
        client.send(&flood).await;
        sent_away(&mut client, ENHANCE_YOUR_CALM, case).await;
        assert_eq!(bound(&gateway, name), before + 1.0, "{case}");
    }
    assert_eq!(backend.requests().len(), 0);
}

#[tokio::test]
async fn requirement_12_a_head_comes_in_so_many_pieces() {
    let backend = Backend::echo().await;
    let gateway = to(&backend).start();
    let head = |continuations: u8| {
        let mut frames = frame(kind::HEADERS, flag::END_STREAM, 1, &request_block("GET", &[]));
        for i in 1..=continuations {
            let flags = if i == continuations { flag::END_HEADERS } else { 0 };
            let field = block(&[("x", "y")]);
            frames.extend(frame(kind::CONTINUATION, flags, 1, &field));
        }
        frames
    };
    let mut client = RawH2::connect(gateway.address("plain")).await;
    client.send(head(8)).await;
    client.until(|client| !client.said().statuses.is_empty()).await;
    assert_eq!(client.said().statuses.get(&1), Some(&200));
    let mut client = RawH2::connect(gateway.address("plain")).await;
    client.send(head(9)).await;
    sent_away(&mut client, ENHANCE_YOUR_CALM, "the ninth of eight").await;
    assert_eq!(bound(&gateway, "continuations_max"), 1.0);
    assert_eq!(backend.requests().len(), 1);
}

#[tokio::test]
async fn requirement_12_budgets_are_a_minutes() {
    let backend = Backend::echo().await;
    let gateway = with_frames(&backend, "pings_per_minute: 4, settings_per_minute: 4");
    let mut client = RawH2::connect(gateway.address("plain")).await;
    let acks = |client: &RawH2, of: u8| {
        client.frames().iter().filter(|frame| frame.kind == of && frame.flags == flag::ACK).count()
    };
    // The one of the greeting counts.
    let mut settings = 1;
    for round in 0..3 {
        for _ in 0..4 {
            client.send(frame(kind::PING, 0, 0, &[1; 8])).await;
        }
        while settings < 4 * (round + 1) {
            settings += 1;
            client.send(frame(kind::SETTINGS, 0, 0, &[])).await;
        }
        let pings = 4 * (round + 1);
        let answered = |client: &RawH2| {
            acks(client, kind::PING) == pings && acks(client, kind::SETTINGS) == settings
        };
        assert!(client.until(answered).await, "round {round}: {:?}", client.said());
        gateway.advance(Duration::from_secs(60)).await;
    }
    for _ in 0..5 {
        client.send(frame(kind::PING, 0, 0, &[1; 8])).await;
    }
    sent_away(&mut client, ENHANCE_YOUR_CALM, "the fifth of four").await;
}

#[tokio::test]
async fn a_ping_for_every_answer_is_no_flood() {
    let backend = Backend::echo().await;
    let gateway = to(&backend).start();
    let mut client = RawH2::connect(gateway.address("plain")).await;
    for stream in streams(300) {
        client.send([get(stream), frame(kind::PING, 0, 0, &[0; 8])].concat()).await;
        let answered = |client: &RawH2| client.said().ended.contains(&stream);
        assert!(client.until(answered).await, "{stream}: {:?}", client.said().goaway);
    }
}

#[tokio::test]
async fn requirement_12_a_client_that_is_sent_away_takes_its_requests_with_it() {
    let silent = Silent::start().await;
    let gateway = to(&silent.backend).start();
    let mut client = RawH2::connect(gateway.address("plain")).await;
    let requests: Vec<u8> = streams(10).flat_map(get).collect();
    client.send(requests).await;
    silent.begun(10).await;
    client.send(frame(kind::PING, 0, 0, &[0; 8]).repeat(500)).await;
    sent_away(&mut client, ENHANCE_YOUR_CALM, "pings").await;
    silent.closed(10).await;
    // What it says after that is read by nobody.
    client.send(get(21)).await;
    drop(client);
    gateway.connections(0).await;
    assert_eq!(silent.begun.load(SeqCst), 10);
}

#[tokio::test]
async fn requirement_12_a_client_that_does_not_listen_to_the_end_is_not_waited_for() {
    let backend = Backend::echo().await;
    let gateway = to(&backend).start();
    let mut client = RawH2::connect(gateway.address("plain")).await;
    client.send(frame(kind::PING, 0, 0, &[0; 8]).repeat(500)).await;
    assert!(client.until(|client| client.said().goaway.is_some()).await);
    // The gateway waits for the client to close, which it does not.
    gateway.settle().await;
    gateway.advance(Duration::from_secs(6)).await;
    gateway.connections(0).await;
    assert_eq!(deadline(&gateway, "linger"), 1.0);
}

/// A literal that is indexed (RFC 7541 §6.2.1), and then so many references to it.
fn bomb(name: &str, value: &str, references: usize) -> Vec<u8> {
    let mut bytes = request_block("GET", &[]);
    let entry = block(&[(name, value)]);
    bytes.push(0x40);
    bytes.extend_from_slice(&entry[1..]);
    bytes.extend(std::iter::repeat_n(0x80 | 62, references));
    bytes
}

#[tokio::test]
async fn requirement_12_headers_are_counted_as_they_are_decoded() {
    let backend = Backend::echo().await;
    let gateway = to(&backend).start();
    let long = "v".repeat(3_900);
    let head = |block: &[u8]| frame(kind::HEADERS, HEADERS_END, 1, block);
    // What is absurd ends the connection.
    let mut client = RawH2::connect(gateway.address("plain")).await;
    client.send(head(&bomb("x-bomb", &long, 4_000))).await;
    sent_away(&mut client, ENHANCE_YOUR_CALM, "15 MiB in 8 KiB").await;
    assert_eq!(bound(&gateway, "head_bytes_max"), 1.0);
    // What is only too much is answered.
    for (case, block, name) in [
        ("70 KiB in 4 KiB", bomb("x-bomb", &long, 17), "head_bytes_max"),
        ("a thousandfold cookie", bomb("cookie", "", 1_000), "fields_max"),
        ("the HTTP/2 bomb", bomb("cookie", "c", 8_000), "head_bytes_max"),
        ("one field too many", bomb("x-a", "", 100), "fields_max"),
        ("one crumb too many", bomb("cookie", "a=b", 100), "fields_max"),
    ] {
        let before = bound(&gateway, name);
        let mut client = RawH2::connect(gateway.address("plain")).await;
        client.send(head(&block)).await;
        client.until(|client| !client.said().statuses.is_empty()).await;
        assert_eq!(client.said().statuses.get(&1), Some(&431), "{case}");
        gateway.settle().await;
        assert_eq!(bound(&gateway, name), before + 1.0, "{case}");
    }
    assert_eq!(backend.requests().len(), 0);
    // And what is just within the limits is not.
    let mut client = RawH2::connect(gateway.address("plain")).await;
    client.send(head(&bomb("cookie", "a=b", 99))).await;
    client.until(|client| !client.said().statuses.is_empty()).await;
    assert_eq!(client.said().statuses.get(&1), Some(&200));
    let cookie = backend.last().field("cookie").unwrap().to_owned();
    assert_eq!(cookie.split("; ").count(), 100);
}

#[tokio::test]
async fn requirement_12_heads_that_are_answered_without_being_read_are_counted() {
    let backend = Backend::echo().await;
    let gateway = to(&backend).start();
    let mut client = RawH2::connect(gateway.address("plain")).await;
    let absurd = bomb("cookie", "c", 8_000);
    let head = |stream| frame(kind::HEADERS, HEADERS_END, stream, &absurd);
    for first in [1, 9] {
        client.send([get(first), head(first + 2), head(first + 4), get(first + 6)].concat()).await;
        let last = first + 6;
        assert!(client.until(|client| client.said().ended.contains(&last)).await);
    }
    let said = client.said();
    assert!(streams(8).all(|stream| said.ended.contains(&stream)), "{said:?}");
    assert_eq!(backend.requests().len(), 4);
    assert_eq!(bound(&gateway, "head_bytes_max"), 4.0);
}

#[tokio::test]
async fn requirement_12_windows_do_not_overflow() {
    let silent = Silent::start().await;
    let gateway = to(&silent.backend).start();
    let mut client = RawH2::connect(gateway.address("plain")).await;
    client.send(window(0, 0x7fff_ffff)).await;
    sent_away(&mut client, FLOW_CONTROL_ERROR, "the connection's").await;
    let mut client = RawH2::connect(gateway.address("plain")).await;
    client.send([get(1), window(1, 0x7fff_ffff)].concat()).await;
    client.until(|client| !client.said().resets.is_empty()).await;
    assert_eq!(client.said().resets.get(&1), Some(&FLOW_CONTROL_ERROR));
    // SETTINGS_INITIAL_WINDOW_SIZE moves the windows of streams (RFC 9113 §6.9.2).
    let mut client = RawH2::connect(gateway.address("plain")).await;
    client.send([get(1), window(1, 0x7fff_0000)].concat()).await;
    client.send(frame(kind::SETTINGS, 0, 0, b"\0\x04\x7f\xff\xff\xff")).await;
    sent_away(&mut client, FLOW_CONTROL_ERROR, "by a setting").await;
}

#[tokio::test]
async fn requirement_12_streams_beyond_the_limit_are_refused() {
    let silent = Silent::start().await;
    let gateway = to(&silent.backend).start();
    let mut client = RawH2::connect(gateway.address("plain")).await;
    let requests: Vec<u8> = streams(103).flat_map(get).collect();
    client.send(requests).await;
    client.until(|client| client.said().resets.len() == 3).await;
    let resets: Vec<_> = client.said().resets.into_iter().collect();
    assert_eq!(resets, [201, 203, 205].map(|stream| (stream, REFUSED_STREAM)));
    gateway.settle().await;
    assert_eq!(bound(&gateway, "streams_max"), 3.0);
    silent.begun(100).await;
    assert_eq!(silent.begun.load(SeqCst), 100);
}

#[tokio::test]
async fn requirement_12_streams_that_are_not_read_end() {
    let backend = Backend::always(response(200, &"x".repeat(1 << 20))).await;
    let gateway = to(&backend).start();
    let mut client = RawH2::connect(gateway.address("plain")).await;
    // A window of nothing for every stream.
    client.send(frame(kind::SETTINGS, 0, 0, b"\0\x04\0\0\0\0")).await;
    let requests: Vec<u8> = streams(100).flat_map(get).collect();
    client.send(requests).await;
    assert!(client.until(|client| client.said().statuses.len() == 100).await);
    gateway.settle().await;
    gateway.advance(Duration::from_secs(61)).await;
    assert!(client.until(|client| client.said().resets.len() == 100).await);
    assert_eq!(deadline(&gateway, "stream_idle"), 100.0);
}

#[tokio::test]
async fn requirement_14_a_head_that_stops_ends_in_goaway() {
    let silent = Silent::start().await;
    let gateway = to(&silent.backend).start();
    let whole = post(3);
    let halves = [
        ("within a frame", whole[..20].to_vec()),
        ("before CONTINUATION", frame(kind::HEADERS, 0, 3, &whole[9..30])),
        (
            "within CONTINUATION",
            [
                frame(kind::HEADERS, 0, 3, &whole[9..30]),
                frame(kind::CONTINUATION, 0, 3, &whole[30..])[..12].to_vec(),
            ]
            .concat(),
        ),
    ];
    for (i, (case, half)) in halves.into_iter().enumerate() {
        let mut client = RawH2::connect(gateway.address("plain")).await;
        client.send(get(1)).await;
        silent.begun(i + 1).await;
        client.send(half).await;
        gateway.settle().await;
        gateway.advance(Duration::from_secs(9)).await;
        assert_eq!(client.said().goaway, None, "{case}");
        gateway.advance(Duration::from_secs(2)).await;
        sent_away(&mut client, ENHANCE_YOUR_CALM, case).await;
        silent.closed(i + 1).await;
        assert_eq!(deadline(&gateway, "head"), i as f64 + 1.0, "{case}");
    }
}

#[tokio::test]
async fn heads_one_after_another_are_not_one_slow_head() {
    let backend = Backend::echo().await;
    let gateway = to(&backend).start();
    let mut client = RawH2::connect(gateway.address("plain")).await;
    // Every piece ends within a head, for longer than a head may take.
    client.send(&get(1)[..20]).await;
    for stream in streams(10) {
        gateway.settle().await;
        gateway.advance(Duration::from_secs(5)).await;
        client.send([&get(stream)[20..], &get(stream + 2)[..20]].concat()).await;
        let answered = |client: &RawH2| client.said().ended.contains(&stream);
        assert!(client.until(answered).await, "{stream}: {:?}", client.said());
    }
}
