//! What RFC 9113 and RFC 7541 require of a server over frames that are wrong, section by section:
//! the cases of conformance testers, and some of our own.

use portcullis_testkit::raw_h2::{block, flag, frame, get, kind, post, request_block};
use portcullis_testkit::{Backend, Cut, RawH2, TestGateway};

use crate::to;

const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const FRAME_SIZE_ERROR: u32 = 6;

const BOTH: u8 = flag::END_HEADERS | flag::END_STREAM;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// A connection error of this type.
    Connection(u32),
    /// A stream error of this type on stream 1, and the connection goes on.
    Stream(u32),
    /// Stream 1 is answered so.
    Answer(u16),
    /// Stream 1 is answered with 200, and the connection goes on.
    Fine,
}

use Outcome::{Answer, Connection, Fine, Stream};

/// Where it is written, what is sent, what comes of it.
type Case = (&'static str, Vec<u8>, Outcome);

async fn gateway() -> (Backend, TestGateway) {
    let backend = Backend::echo().await;
    let gateway = to(&backend).start();
    (backend, gateway)
}

async fn outcome(client: &mut RawH2) -> Outcome {
    client
        .until(|client| {
            let said = client.said();
            said.resets.contains_key(&1) || said.ended.contains(&1) || said.goaway.is_some()
        })
        .await;
    let said = client.said();
    match (said.goaway, said.resets.get(&1), said.statuses.get(&1)) {
        (Some(reason), _, _) => {
            let (_, end) = client.to_end().await;
            assert_eq!(end, Some(Cut::Closed));
            Connection(reason)
        }
        (None, reset, status) => {
            // It goes on: another request is answered.
            client.send(get(101)).await;
            client.until(|client| client.said().ended.contains(&101)).await;
            assert_eq!(client.said().statuses.get(&101), Some(&200), "{:?}", client.said());
            match (reset, status) {
                (Some(reason), _) => Stream(*reason),
                (None, Some(200)) => Fine,
                (None, status) => Answer(*status.unwrap()),
            }
        }
    }
}

async fn hold(cases: Vec<Case>) {
    let (_backend, gateway) = gateway().await;
    let mut wrong = Vec::new();
    for (name, bytes, expected) in cases {
        let mut client = RawH2::connect(gateway.address("plain")).await;
        client.send(bytes).await;
        let got = outcome(&mut client).await;
        if got != expected {
            wrong.push(format!("{name}: {got:?} instead of {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn head(flags: u8, stream: u32, block: &[u8]) -> Vec<u8> {
    frame(kind::HEADERS, flags, stream, block)
}

fn data(flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    frame(kind::DATA, flags, stream, payload)
}

fn continuation(flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    frame(kind::CONTINUATION, flags, stream, payload)
}

fn settings(payload: &[u8]) -> Vec<u8> {
    frame(kind::SETTINGS, 0, 0, payload)
}

fn window(stream: u32, more: u32) -> Vec<u8> {
    frame(kind::WINDOW_UPDATE, 0, stream, &more.to_be_bytes())
}

fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(kind::RST_STREAM, 0, stream, &code.to_be_bytes())
}

/// A GET of stream 1 with these fields, as they are.
fn fields(fields: &[(&str, &str)]) -> Vec<u8> {
    head(BOTH, 1, &block(fields))
}

/// A GET of stream 1 with these fields as well.
fn more(fields: &[(&str, &str)]) -> Vec<u8> {
    head(BOTH, 1, &request_block("GET", fields))
}

/// A GET of stream 1 whose block ends so.
fn ending(bytes: &[u8]) -> Vec<u8> {
    head(BOTH, 1, &[&request_block("GET", &[]), bytes].concat())
}

#[tokio::test]
async fn section_4_frames() {
    let long = "x".repeat(16_384);
    let field = request_block("GET", &[("x-long", &long)]);
    let half = request_block("GET", &[]);
    hold(vec![
        ("4.1 a type nobody knows", [frame(0xff, 0, 0, b"?"), get(1)].concat(), Fine),
        ("4.1 flags nobody knows", [frame(kind::PING, 0xfe, 0, &[0; 8]), get(1)].concat(), Fine),
        ("4.1 the reserved bit", [frame(kind::PING, 0, 1 << 31, &[0; 8]), get(1)].concat(), Fine),
        ("4.2 DATA as large as may be", [post(1), data(1, 1, long.as_bytes())].concat(), Fine),
        (
            "4.2 DATA larger than may be",
            [post(1), data(1, 1, &[b'x'; 16_385])].concat(),
            Connection(FRAME_SIZE_ERROR),
        ),
        ("4.2 HEADERS larger than may be", head(BOTH, 1, &field), Connection(FRAME_SIZE_ERROR)),
        (
            "4.2 a larger frame of an unknown type",
            frame(0xff, 0, 0, &[0; 16_385]),
            Connection(FRAME_SIZE_ERROR),
        ),
        (
            "4.3 PRIORITY within a block",
            [head(1, 1, &half), frame(kind::PRIORITY, 0, 1, &[0, 0, 0, 0, 1])].concat(),
            Connection(PROTOCOL_ERROR),
        ),
        (
            "4.3 HEADERS of another stream within a block",
            [head(1, 1, &half), get(3)].concat(),
            Connection(PROTOCOL_ERROR),
        ),
        (
            "5.5 an unknown type within a block",
            [head(1, 1, &half), frame(0xff, 0, 1, b"?")].concat(),
            Connection(PROTOCOL_ERROR),
        ),
    ])
    .await;
}

#[tokio::test]
async fn section_5_streams() {
    let idle = Connection(PROTOCOL_ERROR);
    hold(vec![
        ("5.1 idle: DATA", data(1, 1, b"x"), idle),
        ("5.1 idle: RST_STREAM", reset(1, 8), idle),
        ("5.1 idle: WINDOW_UPDATE", window(1, 100), idle),
        ("5.1 idle: CONTINUATION", continuation(4, 1, &request_block("GET", &[])), idle),
        (
            "5.1 idle: PRIORITY",
            [frame(kind::PRIORITY, 0, 1, &[0, 0, 0, 0, 1]), get(1)].concat(),
            Fine,
        ),
        // Of the stream would be enough.
        ("5.1 half closed: DATA", [get(1), data(1, 1, b"x")].concat(), Connection(PROTOCOL_ERROR)),
        ("5.1 half closed: HEADERS", [get(1), get(1)].concat(), Connection(PROTOCOL_ERROR)),
        (
            "5.1 half closed: CONTINUATION",
            [get(1), continuation(4, 1, &request_block("GET", &[]))].concat(),
            Connection(PROTOCOL_ERROR),
        ),
        ("5.1 half closed: WINDOW_UPDATE", [get(1), window(1, 1)].concat(), Fine),
        ("5.1.1 an even number", [get(1), get(2)].concat(), Connection(PROTOCOL_ERROR)),
        ("5.1.1 a lower number", [get(5), get(3)].concat(), Connection(PROTOCOL_ERROR)),
        ("5.1.1 number 0", get(0), Connection(PROTOCOL_ERROR)),
        (
            "5.3.1 HEADERS that depend on themselves",
            head(
                BOTH | flag::PRIORITY,
                1,
                &[&[0, 0, 0, 1, 9][..], &request_block("GET", &[])].concat(),
            ),
            Stream(PROTOCOL_ERROR),
        ),
    ])
    .await;
}

#[tokio::test]
async fn section_6_data_headers_priority_and_resets() {
    let padded = |padding: u8, block: &[u8]| [&[padding], block].concat();
    let whole = request_block("GET", &[]);
    hold(vec![
        ("6.1 DATA on stream 0", data(1, 0, b"x"), Connection(PROTOCOL_ERROR)),
        (
            "6.1 DATA with padding",
            [post(1), data(1 | flag::PADDED, 1, &padded(3, b"abc\0\0\0"))].concat(),
            Fine,
        ),
        (
            "6.1 DATA of nothing but padding that is too long",
            [post(1), data(1 | flag::PADDED, 1, &padded(9, b"abc"))].concat(),
            Connection(PROTOCOL_ERROR),
        ),
        (
            "6.1 DATA with as much padding as payload",
            [post(1), data(1 | flag::PADDED, 1, &padded(4, b"abc"))].concat(),
            Connection(PROTOCOL_ERROR),
        ),
        (
            "6.2 HEADERS with padding",
            head(BOTH | flag::PADDED, 1, &[&padded(2, &whole)[..], b"\0\0"].concat()),
            Fine,
        ),
        (
            "6.2 HEADERS with too much padding",
            head(BOTH | flag::PADDED, 1, &padded(255, &whole)),
            Connection(PROTOCOL_ERROR),
        ),
        (
            "6.3 PRIORITY on stream 0",
            frame(kind::PRIORITY, 0, 0, &[0, 0, 0, 1, 1]),
            Connection(PROTOCOL_ERROR),
        ),
        (
            "6.3 PRIORITY of four bytes",
            [post(1), frame(kind::PRIORITY, 0, 1, &[0; 4])].concat(),
            Connection(FRAME_SIZE_ERROR),
        ),
        ("6.4 RST_STREAM on stream 0", reset(0, 8), Connection(PROTOCOL_ERROR)),
        (
            "6.4 RST_STREAM of three bytes",
            [post(1), frame(kind::RST_STREAM, 0, 1, &[0; 3])].concat(),
            Connection(FRAME_SIZE_ERROR),
        ),
    ])
    .await;
}

#[tokio::test]
async fn section_6_settings() {
    let setting =
        |id: u16, value: u32| settings(&[&id.to_be_bytes()[..], &value.to_be_bytes()].concat());
    hold(vec![
        (
            "6.5 an acknowledgement with a payload",
            frame(kind::SETTINGS, flag::ACK, 0, &[0; 6]),
            Connection(FRAME_SIZE_ERROR),
        ),
        ("6.5 on a stream", frame(kind::SETTINGS, 0, 1, &[]), Connection(PROTOCOL_ERROR)),
        ("6.5 of five bytes", settings(&[0; 5]), Connection(FRAME_SIZE_ERROR)),
        ("6.5.2 ENABLE_PUSH of 2", setting(2, 2), Connection(PROTOCOL_ERROR)),
        // FLOW_CONTROL_ERROR by the letter; the end is the same.
        ("6.5.2 INITIAL_WINDOW_SIZE of 2^31", setting(4, 1 << 31), Connection(PROTOCOL_ERROR)),
        ("6.5.2 MAX_FRAME_SIZE below the least", setting(5, 16_383), Connection(PROTOCOL_ERROR)),
        ("6.5.2 MAX_FRAME_SIZE above the most", setting(5, 1 << 24), Connection(PROTOCOL_ERROR)),
        ("6.5.2 a setting nobody knows", [setting(0xff, 1), get(1)].concat(), Fine),
        ("RFC 8441 3 ENABLE_CONNECT_PROTOCOL of 2", setting(8, 2), Connection(PROTOCOL_ERROR)),
    ])
    .await;
}

#[tokio::test]
async fn section_6_ping_goaway_and_windows() {
    hold(vec![
        ("6.7 PING on a stream", frame(kind::PING, 0, 1, &[0; 8]), Connection(PROTOCOL_ERROR)),
        ("6.7 PING of six bytes", frame(kind::PING, 0, 0, &[0; 6]), Connection(FRAME_SIZE_ERROR)),
        ("6.8 GOAWAY on a stream", frame(kind::GOAWAY, 0, 1, &[0; 8]), Connection(PROTOCOL_ERROR)),
        (
            "6.9 a window of the connection that grows by 0",
            window(0, 0),
            Connection(PROTOCOL_ERROR),
        ),
        (
            "6.9 a window of a stream that grows by 0",
            [post(1), window(1, 0)].concat(),
            Connection(PROTOCOL_ERROR),
        ),
        (
            "6.9 WINDOW_UPDATE of three bytes",
            frame(kind::WINDOW_UPDATE, 0, 0, &[0; 3]),
            Connection(FRAME_SIZE_ERROR),
        ),
        (
            "6.9.1 the connection's window overflows",
            window(0, 0x7fff_ffff),
            Connection(FLOW_CONTROL_ERROR),
        ),
        (
            "6.9.1 a stream's window overflows",
            [post(1), window(1, 0x7fff_ffff)].concat(),
            Stream(FLOW_CONTROL_ERROR),
        ),
    ])
    .await;
}

#[tokio::test]
async fn section_6_10_continuation() {
    let whole = request_block("GET", &[]);
    let (first, rest) = whole.split_at(20);
    hold(vec![
        (
            "in pieces",
            [head(1, 1, first), continuation(0, 1, &rest[..5]), continuation(4, 1, &rest[5..])]
                .concat(),
            Fine,
        ),
        (
            "after the end of a head",
            [post(1), continuation(4, 1, rest)].concat(),
            Connection(PROTOCOL_ERROR),
        ),
        (
            "on stream 0",
            [head(1, 1, first), continuation(4, 0, rest)].concat(),
            Connection(PROTOCOL_ERROR),
        ),
        (
            "of another stream",
            [head(1, 1, first), continuation(4, 3, rest)].concat(),
            Connection(PROTOCOL_ERROR),
        ),
        (
            "after DATA",
            [post(1), data(0, 1, b"x"), continuation(4, 1, rest)].concat(),
            Connection(PROTOCOL_ERROR),
        ),
    ])
    .await;
}

#[tokio::test]
async fn section_8_messages() {
    let malformed = Stream(PROTOCOL_ERROR);
    // What no name and no value can be fails as the block is decoded.
    let undecodable = Connection(PROTOCOL_ERROR);
    const METHOD: (&str, &str) = (":method", "GET");
    const SCHEME: (&str, &str) = (":scheme", "http");
    const AUTHORITY: (&str, &str) = (":authority", "localhost");
    const PATH: (&str, &str) = (":path", "/");
    let trailers = |block: &[u8], flags: u8| [post(1), head(flags, 1, block)].concat();
    let length = |value: &str| {
        head(flag::END_HEADERS, 1, &request_block("POST", &[("content-length", value)]))
    };
    hold(vec![
        ("8.1 trailers", trailers(&block(&[("x-t", "1")]), BOTH), Fine),
        (
            "8.1 a second head that does not end the stream",
            trailers(&block(&[("x-t", "1")]), flag::END_HEADERS),
            malformed,
        ),
        // They are dropped: no backend sees them.
        ("8.1 pseudo-fields in trailers", trailers(&block(&[METHOD]), BOTH), Fine),
        ("8.2.1 an upper-case name", more(&[("X-Test", "1")]), undecodable),
        ("8.2.1 an empty name", more(&[("", "1")]), undecodable),
        ("8.2.1 a space in a name", more(&[("x y", "1")]), undecodable),
        ("8.2.1 a colon in a name", more(&[("x:y", "1")]), undecodable),
        ("8.2.1 a line feed in a value", more(&[("x", "a\nb")]), undecodable),
        ("8.2.1 a NUL in a value", more(&[("x", "a\0b")]), undecodable),
        ("8.2.2 connection", more(&[("connection", "keep-alive")]), malformed),
        ("8.2.2 keep-alive", more(&[("keep-alive", "1")]), malformed),
        ("8.2.2 proxy-connection", more(&[("proxy-connection", "x")]), malformed),
        ("8.2.2 transfer-encoding", more(&[("transfer-encoding", "chunked")]), malformed),
        ("8.2.2 upgrade", more(&[("upgrade", "x")]), malformed),
        ("8.2.2 te: trailers, deflate", more(&[("te", "trailers, deflate")]), malformed),
        ("8.2.2 te: trailers", more(&[("te", "trailers")]), Fine),
        ("8.3 an unknown pseudo-field", more(&[(":test", "1")]), undecodable),
        ("8.3 a pseudo-field of answers", more(&[(":status", "200")]), malformed),
        (
            "8.3 a pseudo-field after a field",
            fields(&[METHOD, SCHEME, AUTHORITY, ("x", "1"), PATH]),
            malformed,
        ),
        ("8.3.1 an empty path", fields(&[METHOD, SCHEME, AUTHORITY, (":path", "")]), malformed),
        ("8.3.1 no method", fields(&[SCHEME, AUTHORITY, PATH]), malformed),
        ("8.3.1 no scheme", fields(&[METHOD, AUTHORITY, PATH]), malformed),
        ("8.3.1 no path", fields(&[METHOD, SCHEME, AUTHORITY]), malformed),
        ("8.3 the method twice", fields(&[METHOD, METHOD, SCHEME, AUTHORITY, PATH]), malformed),
        ("8.3 the scheme twice", fields(&[METHOD, SCHEME, SCHEME, AUTHORITY, PATH]), malformed),
        ("8.3 the path twice", fields(&[METHOD, SCHEME, AUTHORITY, PATH, PATH]), malformed),
        (
            "8.3 the authority twice",
            fields(&[METHOD, SCHEME, AUTHORITY, AUTHORITY, PATH]),
            malformed,
        ),
        ("8.3.1 another host", more(&[("host", "other")]), Answer(400)),
        ("8.3.1 no authority", fields(&[METHOD, SCHEME, PATH]), Answer(400)),
        ("8.3.1 host for authority", fields(&[METHOD, SCHEME, PATH, ("host", "localhost")]), Fine),
        ("8.1.1 more than content-length", [length("1"), data(1, 1, b"xx")].concat(), malformed),
        ("8.1.1 less than content-length", [length("9"), data(1, 1, b"xx")].concat(), malformed),
        (
            "8.1.1 more than content-length in two pieces",
            [length("3"), data(0, 1, b"xx"), data(1, 1, b"xx")].concat(),
            malformed,
        ),
        ("8.1.1 as much as content-length", [length("2"), data(1, 1, b"xx")].concat(), Fine),
        (
            "8.4 PUSH_PROMISE",
            [
                post(1),
                frame(
                    kind::PUSH_PROMISE,
                    4,
                    1,
                    &[&[0, 0, 0, 2], &*request_block("GET", &[])].concat(),
                ),
            ]
            .concat(),
            Connection(PROTOCOL_ERROR),
        ),
    ])
    .await;
}

#[tokio::test]
async fn rfc_7541_compression() {
    // The `h2` crate calls everything that cannot be decoded so; COMPRESSION_ERROR has the same end.
    let wrong = Connection(PROTOCOL_ERROR);
    // A literal with a value in Huffman codes.
    let huffman = |codes: &[u8]| [&[0, 1, b'x', 0x80 | codes.len() as u8], codes].concat();
    hold(vec![
        ("2.3.3 an index beyond the tables", ending(&[0xc6]), wrong),
        ("2.3.3 a name's index beyond the tables", ending(&[0x7f, 0x07, 1, b'x']), wrong),
        ("4.2 a size update after a field", ending(&[0x20]), wrong),
        ("5.1 a number without an end", ending(&[0xff; 12]), wrong),
        ("5.2 a string longer than the block", ending(&[0, 1, b'x', 9, b'y']), wrong),
        ("5.2 padding longer than seven bits", ending(&huffman(b"\x1f\xff")), wrong),
        ("5.2 padding of zeroes", ending(&huffman(b"\x18")), wrong),
        ("5.2 the end of strings within one", ending(&huffman(b"\xff\xff\xff\xff")), wrong),
        ("6.1 index 0", ending(&[0x80]), wrong),
        (
            "6.3 a table larger than was allowed",
            head(BOTH, 1, &[&[0x3f, 0xe2, 0x1f], &*request_block("GET", &[])].concat()),
            wrong,
        ),
        (
            "6.3 a table as large as was allowed",
            head(BOTH, 1, &[&[0x3f, 0xe1, 0x1f], &*request_block("GET", &[])].concat()),
            Fine,
        ),
    ])
    .await;
}

#[tokio::test]
async fn section_3_4_a_preface_is_needed() {
    let (_backend, gateway) = gateway().await;
    // After the preface the first frame has to be SETTINGS.
    let mut client = RawH2::bare(gateway.address("plain")).await;
    let ping = frame(kind::PING, 0, 0, &[0; 8]);
    client.send([&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &ping, &get(1)].concat()).await;
    client.to_end().await;
    assert_eq!(client.said().goaway, Some(PROTOCOL_ERROR));
}

#[tokio::test]
async fn section_6_7_a_ping_is_answered_with_what_was_in_it() {
    let (_backend, gateway) = gateway().await;
    let mut client = RawH2::connect(gateway.address("plain")).await;
    client.send(frame(kind::PING, flag::ACK, 0, b"not you!")).await;
    client.send(frame(kind::PING, 0, 0, b"is it i?")).await;
    let pings = |client: &RawH2| -> Vec<_> {
        client.frames().into_iter().filter(|frame| frame.kind == kind::PING).collect()
    };
    client.until(|client| !pings(client).is_empty()).await;
    client.send(get(1)).await;
    client.until(|client| client.said().ended.contains(&1)).await;
    let pings = pings(&client);
    assert_eq!(pings.len(), 1);
    assert_eq!((pings[0].flags, &*pings[0].payload), (flag::ACK, &b"is it i?"[..]));
}

#[tokio::test]
async fn section_6_9_a_body_keeps_within_its_windows() {
    let backend = Backend::always(portcullis_testkit::backend::response(200, "0123456789")).await;
    let gateway = to(&backend).start();
    let mut client = RawH2::connect(gateway.address("plain")).await;
    let body = |client: &RawH2| -> Vec<u8> {
        let data = client.frames().into_iter().filter(|frame| frame.kind == kind::DATA);
        data.flat_map(|frame| frame.payload).collect()
    };
    // Two values in one frame: the last one counts (6.5.3).
    client.send(settings(b"\0\x04\0\0\0\x63\0\x04\0\0\0\x01")).await;
    client.send(get(1)).await;
    assert!(client.until(|client| body(client) == b"0").await);
    client.send(window(1, 2)).await;
    assert!(client.until(|client| body(client) == b"012").await);
    // A smaller window for all streams makes this one's negative (6.9.2).
    client.send(settings(b"\0\x04\0\0\0\0")).await;
    client.send(window(1, 1)).await;
    client.send(frame(kind::PING, 0, 0, &[0; 8])).await;
    client.until(|client| client.frames().iter().any(|frame| frame.kind == kind::PING)).await;
    assert_eq!(body(&client), b"012");
    client.send(settings(b"\0\x04\0\0\0\x64")).await;
    assert!(client.until(|client| client.said().ended.contains(&1)).await);
    assert_eq!(body(&client), b"0123456789");
}

#[tokio::test]
async fn section_6_8_a_client_that_leaves_gets_its_answers() {
    let (_backend, gateway) = gateway().await;
    let mut client = RawH2::connect(gateway.address("plain")).await;
    client.send([get(1), frame(kind::GOAWAY, 0, 0, b"\0\0\0\0\0\0\0\xff")].concat()).await;
    client.to_end().await;
    assert_eq!(client.said().statuses.get(&1), Some(&200));
    assert!(client.said().ended.contains(&1));
}

#[tokio::test]
async fn section_7_codes_that_nobody_knows_are_like_others() {
    let (_backend, gateway) = gateway().await;
    let mut client = RawH2::connect(gateway.address("plain")).await;
    client.send([post(1), reset(1, 0xff), get(3)].concat()).await;
    client.until(|client| client.said().ended.contains(&3)).await;
    assert_eq!(client.said().statuses.get(&3), Some(&200));
}
