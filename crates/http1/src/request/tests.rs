//! What becomes of each hostile, odd or plain request head: the head forwarded, or the refusal.

use expect_test::{Expect, expect};
use portcullis_core::path::PathRules;

use super::*;
use crate::{RequestWire, encode_request, request_framing};

const RULES: PathRules = PathRules {
    encoded_slash: path::Treatment::Refuse,
    semicolon: path::Treatment::Refuse,
    merge_slashes: true,
};

fn parse(input: &[u8], head: &mut RequestHead) -> Result<ParsedRequest, RequestError> {
    let context = RequestContext { scheme: Scheme::Http, paths: &RULES };
    parse_request(input, &HeadLimits::default(), head, &context)
}

fn request(line: &str, fields: &[&str]) -> Vec<u8> {
    let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
    format!("{line}\r\n{fields}\r\n").into_bytes()
}

/// The status and reason, or the head that goes to the backend and what concerns the connection.
fn verdict(input: &[u8]) -> String {
    let mut head = RequestHead::default();
    let facts = match parse(input, &mut head) {
        Err(error) => return format!("{} {error}", error.status().as_u16()),
        Ok(ParsedRequest::Partial) => return "partial".to_owned(),
        Ok(ParsedRequest::Complete(facts)) => facts,
    };
    let mut out = Vec::new();
    encode_request(&head, &RequestWire::new(request_framing(&head)), &mut out);
    let mut text = String::from_utf8_lossy(&out).replace("\r\n", " | ");
    text.truncate(text.len() - " |  | ".len());
    for (said, word) in [
        (!facts.keep_alive, "close"),
        (facts.expect_continue, "expects-continue"),
        (facts.accepts_trailers, "accepts-trailers"),
    ] {
        if said {
            text += &format!(" [{word}]");
        }
    }
    if let Some(upgrade) = facts.upgrade {
        let protocols = String::from_utf8_lossy(upgrade.of(head.fields.bytes()));
        text += &format!(" [upgrade {protocols}]");
    }
    if facts.consumed != input.len() {
        text += &format!(" [{} bytes left]", input.len() - facts.consumed);
    }
    text
}

fn check(inputs: impl IntoIterator<Item = (String, Vec<u8>)>, expected: &Expect) {
    let seen: String = inputs
        .into_iter()
        .map(|(name, input)| format!("{} => {}\n", name.escape_debug(), verdict(&input)))
        .collect();
    expected.assert_eq(&seen);
}

/// `line` and `fields` under a good Host.
fn with(line: &str, fields: &[&str]) -> (String, Vec<u8>) {
    let (name, input) = hosts(line, fields);
    let host = input.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    (name, [&input[..host], b"Host: a.test\r\n", &input[host..]].concat())
}

/// `line` and `fields`, without a Host of our own.
fn hosts(line: &str, fields: &[&str]) -> (String, Vec<u8>) {
    let name = [&[line], fields].concat().join(" | ");
    (name, request(line, fields))
}

fn raw(text: &str) -> (String, Vec<u8>) {
    (text.to_owned(), text.as_bytes().to_vec())
}

const GET: &str = "GET /c HTTP/1.1";
const POST: &str = "POST /c HTTP/1.1";

#[test]
fn plain_requests_pass() {
    check(
        [
            with(GET, &[]),
            with("HEAD /c HTTP/1.1", &[]),
            with("OPTIONS * HTTP/1.1", &[]),
            with("PROPFIND /c HTTP/1.1", &[]),
            with("GET /c?a=1&b=%zz HTTP/1.1", &[]),
            with("GET /c? HTTP/1.1", &[]),
            with("GET /%7Euser/%E2%82%AC HTTP/1.1", &[]),
            with(POST, &["Content-Length: 5"]),
            with(POST, &["Transfer-Encoding: Chunked"]),
            with(POST, &["X-Empty:", "X-Blank: \t ", "X-Blanks: \t a\tb \t", "X-Tight:a"]),
            with(POST, &["X-Obs-Text: caf\u{e9}"]),
            raw("\r\n\r\nGET /c HTTP/1.1\r\nHost: a.test\r\n\r\n"),
            raw("GET /p1 HTTP/1.1\r\nHost: a.test\r\n\r\nGET /p2"),
        ],
        &expect![[r#"
            GET /c HTTP/1.1 => GET /c HTTP/1.1 | host: a.test
            HEAD /c HTTP/1.1 => HEAD /c HTTP/1.1 | host: a.test
            OPTIONS * HTTP/1.1 => OPTIONS * HTTP/1.1 | host: a.test
            PROPFIND /c HTTP/1.1 => PROPFIND /c HTTP/1.1 | host: a.test
            GET /c?a=1&b=%zz HTTP/1.1 => GET /c?a=1&b=%zz HTTP/1.1 | host: a.test
            GET /c? HTTP/1.1 => GET /c? HTTP/1.1 | host: a.test
            GET /%7Euser/%E2%82%AC HTTP/1.1 => GET /~user/%E2%82%AC HTTP/1.1 | host: a.test
            POST /c HTTP/1.1 | Content-Length: 5 => POST /c HTTP/1.1 | host: a.test | content-length: 5
            POST /c HTTP/1.1 | Transfer-Encoding: Chunked => POST /c HTTP/1.1 | host: a.test | transfer-encoding: chunked
            POST /c HTTP/1.1 | X-Empty: | X-Blank: \t  | X-Blanks: \t a\tb \t | X-Tight:a => POST /c HTTP/1.1 | host: a.test | X-Empty:  | X-Blank:  | X-Blanks: a	b | X-Tight: a | content-length: 0
            POST /c HTTP/1.1 | X-Obs-Text: café => POST /c HTTP/1.1 | host: a.test | X-Obs-Text: café | content-length: 0
            \r\n\r\nGET /c HTTP/1.1\r\nHost: a.test\r\n\r\n => GET /c HTTP/1.1 | host: a.test
            GET /p1 HTTP/1.1\r\nHost: a.test\r\n\r\nGET /p2 => GET /p1 HTTP/1.1 | host: a.test [7 bytes left]
        "#]],
    );
}

#[test]
fn a_body_has_one_length_or_the_request_is_refused() {
    check(
        [
            with(POST, &["Content-Length: 6", "Transfer-Encoding: chunked"]),
            with(POST, &["Transfer-Encoding: chunked", "Content-Length: 6"]),
            with(POST, &["Content-Length: 0", "Content-Length: 40"]),
            with(POST, &["Content-Length: 5", "content-length: 5"]),
            with(POST, &["Content-Length: 5, 6"]),
            with(POST, &["Content-Length: 5, 5"]),
            with(POST, &["Content-Length: 5 5"]),
            with(POST, &["Content-Length: +5"]),
            with(POST, &["Content-Length: -1"]),
            with(POST, &["Content-Length: 0x5"]),
            with(POST, &["Content-Length: "]),
            with(POST, &["Content-Length: 18446744073709551621"]),
            with(POST, &["Content-Length: 9223372036854775808"]),
            with(POST, &["Content-Length: 9223372036854775807"]),
            with(POST, &["Content-Length: 0005"]),
            with(POST, &["Content-Length: 0"]),
            with(POST, &["Content_Length: 0", "Content-Length: 3"]),
            with(POST, &["Content.Length: 0"]),
            with(POST, &["transfer_encoding: chunked"]),
            with(POST, &["Transfer1Encoding: chunked"]),
            with(POST, &["Transfer-Encoding: xchunked"]),
            with(POST, &["Transfer-Encoding : chunked"]),
            with(POST, &["Transfer-Encoding:\u{b}chunked"]),
            with(POST, &["Transfer-Encoding: chunked", "Transfer-Encoding: identity"]),
            with(POST, &["Transfer-Encoding: chunked, chunked"]),
            with(POST, &["Transfer-Encoding: chunked, gzip"]),
            with(POST, &["Transfer-Encoding: identity, chunked"]),
            with(POST, &["Transfer-Encoding: gzip"]),
            with(POST, &["Transfer-Encoding: \"chunked\""]),
            with(POST, &["Transfer-Encoding:", " chunked", "Content-Length: 5"]),
            with(POST, &["Transfer-Encoding:"]),
            with("POST /c HTTP/1.0", &["Transfer-Encoding: chunked", "Content-Length: 5"]),
            with("POST /c HTTP/1.0", &["Transfer-Encoding: chunked"]),
            with("POST /c HTTP/1.0", &["Connection: keep-alive"]),
            with("POST /c HTTP/1.0", &["Content-Length: 5", "Connection: keep-alive"]),
            with("GET /c HTTP/1.0", &["Connection: keep-alive"]),
            with("GET /c HTTP/1.0", &[]),
            with(GET, &["Content-Length: 3"]),
            with(GET, &["Transfer-Encoding: chunked"]),
            with("OPTIONS /c HTTP/1.1", &["Transfer-Encoding: chunked"]),
        ],
        &expect![[r#"
            POST /c HTTP/1.1 | Content-Length: 6 | Transfer-Encoding: chunked => 400 length-and-encoding
            POST /c HTTP/1.1 | Transfer-Encoding: chunked | Content-Length: 6 => 400 length-and-encoding
            POST /c HTTP/1.1 | Content-Length: 0 | Content-Length: 40 => 400 duplicate-content-length
            POST /c HTTP/1.1 | Content-Length: 5 | content-length: 5 => 400 duplicate-content-length
            POST /c HTTP/1.1 | Content-Length: 5, 6 => 400 bad-content-length
            POST /c HTTP/1.1 | Content-Length: 5, 5 => 400 bad-content-length
            POST /c HTTP/1.1 | Content-Length: 5 5 => 400 bad-content-length
            POST /c HTTP/1.1 | Content-Length: +5 => 400 bad-content-length
            POST /c HTTP/1.1 | Content-Length: -1 => 400 bad-content-length
            POST /c HTTP/1.1 | Content-Length: 0x5 => 400 bad-content-length
            POST /c HTTP/1.1 | Content-Length:  => 400 bad-content-length
            POST /c HTTP/1.1 | Content-Length: 18446744073709551621 => 400 bad-content-length
            POST /c HTTP/1.1 | Content-Length: 9223372036854775808 => 400 bad-content-length
            POST /c HTTP/1.1 | Content-Length: 9223372036854775807 => POST /c HTTP/1.1 | host: a.test | content-length: 9223372036854775807
            POST /c HTTP/1.1 | Content-Length: 0005 => POST /c HTTP/1.1 | host: a.test | content-length: 5
            POST /c HTTP/1.1 | Content-Length: 0 => POST /c HTTP/1.1 | host: a.test | content-length: 0
            POST /c HTTP/1.1 | Content_Length: 0 | Content-Length: 3 => 400 framing-alias
            POST /c HTTP/1.1 | Content.Length: 0 => 400 framing-alias
            POST /c HTTP/1.1 | transfer_encoding: chunked => 400 framing-alias
            POST /c HTTP/1.1 | Transfer1Encoding: chunked => 400 framing-alias
            POST /c HTTP/1.1 | Transfer-Encoding: xchunked => 400 bad-transfer-encoding
            POST /c HTTP/1.1 | Transfer-Encoding : chunked => 400 bad-field-name
            POST /c HTTP/1.1 | Transfer-Encoding:\u{b}chunked => 400 control-byte
            POST /c HTTP/1.1 | Transfer-Encoding: chunked | Transfer-Encoding: identity => 400 duplicate-transfer-encoding
            POST /c HTTP/1.1 | Transfer-Encoding: chunked, chunked => 400 bad-transfer-encoding
            POST /c HTTP/1.1 | Transfer-Encoding: chunked, gzip => 400 bad-transfer-encoding
            POST /c HTTP/1.1 | Transfer-Encoding: identity, chunked => 400 bad-transfer-encoding
            POST /c HTTP/1.1 | Transfer-Encoding: gzip => 400 bad-transfer-encoding
            POST /c HTTP/1.1 | Transfer-Encoding: \"chunked\" => 400 bad-transfer-encoding
            POST /c HTTP/1.1 | Transfer-Encoding: |  chunked | Content-Length: 5 => 400 bad-transfer-encoding
            POST /c HTTP/1.1 | Transfer-Encoding: => 400 bad-transfer-encoding
            POST /c HTTP/1.0 | Transfer-Encoding: chunked | Content-Length: 5 => 400 length-and-encoding
            POST /c HTTP/1.0 | Transfer-Encoding: chunked => 400 encoding-in-http10
            POST /c HTTP/1.0 | Connection: keep-alive => POST /c HTTP/1.1 | host: a.test | content-length: 0 [close]
            POST /c HTTP/1.0 | Content-Length: 5 | Connection: keep-alive => POST /c HTTP/1.1 | host: a.test | content-length: 5
            GET /c HTTP/1.0 | Connection: keep-alive => GET /c HTTP/1.1 | host: a.test
            GET /c HTTP/1.0 => GET /c HTTP/1.1 | host: a.test [close]
            GET /c HTTP/1.1 | Content-Length: 3 => GET /c HTTP/1.1 | host: a.test | content-length: 3
            GET /c HTTP/1.1 | Transfer-Encoding: chunked => GET /c HTTP/1.1 | host: a.test | transfer-encoding: chunked
            OPTIONS /c HTTP/1.1 | Transfer-Encoding: chunked => OPTIONS /c HTTP/1.1 | host: a.test | transfer-encoding: chunked
        "#]],
    );
}

#[test]
fn lines_are_read_strictly() {
    check(
        [
            raw("GET /c HTTP/1.1\nHost: a.test\n\n"),
            raw("GET /c HTTP/1.1\r\nHost: a.test\n\r\n"),
            raw("\nGET /c HTTP/1.1\r\nHost: a.test\r\n\r\n"),
            raw("\r\n\r\n\r\n\r\n\r\nGET /c HTTP/1.1\r\n"),
            with(GET, &["X-A: a\nX-B: b"]),
            with(GET, &["X-A: a\rX-B: b"]),
            with(GET, &["X-A: a\0b"]),
            with(GET, &["X-A: a\u{1}b"]),
            with(GET, &["X-A: a\u{7f}b"]),
            with(GET, &[": x"]),
            with(GET, &["X-A x"]),
            with(GET, &["X-A"]),
            with(GET, &["X A: x"]),
            with(GET, &["X-A\t: x"]),
            with(GET, &["X\u{85}A: x"]),
            with(GET, &["X\"{A}: x"]),
            with(GET, &["X-A: a", " b"]),
            raw("GET /c HTTP/1.1\r\n Host: a.test\r\nHost: a.test\r\n\r\n"),
            raw("POST /c HTTP/1.1\r\n\tContent-Length: 5\r\nHost: a.test\r\n\r\nhello"),
            raw("GET /c HTTP/1.1\r\nHost: a.test\r\n\rZ: x\r\n\r\n"),
            with("GET /c HTTP/1.2", &[]),
            with("GET /c HTTP/2.0", &[]),
            with("GET /c HTTP/0.9", &[]),
            with("GET /c HTTP/11.1", &[]),
            with("GET /c HTTP/1.1 ", &[]),
            with("GET /c http/1.1", &[]),
            with("GET /c FTP/1.1", &[]),
            raw("GET /c\r\n\r\n"),
            raw("GET\r\n\r\n"),
            with("G(T /c HTTP/1.1", &[]),
            with(" GET /c HTTP/1.1", &[]),
            with("GET  /c  HTTP/1.1", &[]),
            with("GET /c  HTTP/1.1", &[]),
            with("GET /c d HTTP/1.1", &[]),
            with("GET\t/c\tHTTP/1.1", &[]),
            with("PRI * HTTP/2.0", &[]),
        ],
        &expect![[r#"
            GET /c HTTP/1.1\nHost: a.test\n\n => 400 bad-request-line
            GET /c HTTP/1.1\r\nHost: a.test\n\r\n => 400 bare-line-feed
            \nGET /c HTTP/1.1\r\nHost: a.test\r\n\r\n => 400 bare-line-feed
            \r\n\r\n\r\n\r\n\r\nGET /c HTTP/1.1\r\n => 400 bad-request-line
            GET /c HTTP/1.1 | X-A: a\nX-B: b => 400 bare-line-feed
            GET /c HTTP/1.1 | X-A: a\rX-B: b => 400 bare-carriage-return
            GET /c HTTP/1.1 | X-A: a\0b => 400 control-byte
            GET /c HTTP/1.1 | X-A: a\u{1}b => 400 control-byte
            GET /c HTTP/1.1 | X-A: a\u{7f}b => 400 control-byte
            GET /c HTTP/1.1 | : x => 400 bad-field-name
            GET /c HTTP/1.1 | X-A x => 400 bad-field-name
            GET /c HTTP/1.1 | X-A => 400 bad-field-name
            GET /c HTTP/1.1 | X A: x => 400 bad-field-name
            GET /c HTTP/1.1 | X-A\t: x => 400 bad-field-name
            GET /c HTTP/1.1 | X\u{85}A: x => 400 bad-field-name
            GET /c HTTP/1.1 | X\"{A}: x => 400 bad-field-name
            GET /c HTTP/1.1 | X-A: a |  b => 400 folded-line
            GET /c HTTP/1.1\r\n Host: a.test\r\nHost: a.test\r\n\r\n => 400 folded-line
            POST /c HTTP/1.1\r\n\tContent-Length: 5\r\nHost: a.test\r\n\r\nhello => 400 folded-line
            GET /c HTTP/1.1\r\nHost: a.test\r\n\rZ: x\r\n\r\n => 400 bare-carriage-return
            GET /c HTTP/1.2 => 505 unsupported-version
            GET /c HTTP/2.0 => 505 unsupported-version
            GET /c HTTP/0.9 => 505 unsupported-version
            GET /c HTTP/11.1 => 505 unsupported-version
            GET /c HTTP/1.1  => 400 bad-request-line
            GET /c http/1.1 => 400 bad-request-line
            GET /c FTP/1.1 => 400 bad-request-line
            GET /c\r\n\r\n => 400 bad-request-line
            GET\r\n\r\n => 400 bad-method
            G(T /c HTTP/1.1 => 400 bad-method
             GET /c HTTP/1.1 => 400 bad-method
            GET  /c  HTTP/1.1 => 400 bad-request-line
            GET /c  HTTP/1.1 => 400 bad-request-line
            GET /c d HTTP/1.1 => 400 bad-request-line
            GET\t/c\tHTTP/1.1 => 400 bad-method
            PRI * HTTP/2.0 => 505 unsupported-version
        "#]],
    );
}

#[test]
fn a_target_has_one_form_and_one_authority() {
    check(
        [
            hosts(GET, &[]),
            hosts("GET /c HTTP/1.0", &[]),
            hosts("GET /c HTTP/1.0", &["Host:"]),
            hosts(GET, &["Host: a.test", "Host: b.test"]),
            hosts(GET, &["Host: a.test", "host: a.test"]),
            hosts(GET, &["Host: A.Test:80"]),
            hosts(GET, &["Host: a.test:8080"]),
            hosts(GET, &["Host: "]),
            hosts(GET, &["Host: user@a.test"]),
            hosts(GET, &["Host: a.test b"]),
            hosts(GET, &["Host: a.test,b.test"]),
            hosts(GET, &["Host: a.test/evil"]),
            hosts(GET, &["Host: a.test:65537"]),
            hosts(GET, &["Host: a.test:80abc"]),
            hosts(GET, &["Host: a.test\0.evil"]),
            with("GET http://a.test/c HTTP/1.1", &[]),
            with("GET http://b.test/c HTTP/1.1", &[]),
            with("GET HTTP://B.test:80/a/../c?d HTTP/1.1", &[]),
            with("GET http://b.test HTTP/1.1", &[]),
            with("GET http://b.test?q HTTP/1.1", &[]),
            with("OPTIONS http://b.test HTTP/1.1", &[]),
            with("OPTIONS http://b.test/ HTTP/1.1", &[]),
            hosts("GET http://b.test/c HTTP/1.1", &[]),
            hosts("GET http://b.test/c HTTP/1.1", &["Host: u@a.test"]),
            hosts("GET http://b.test/c HTTP/1.0", &[]),
            with("GET http:///c HTTP/1.1", &[]),
            with("GET http://x:y@a.test/c HTTP/1.1", &[]),
            with("GET https://a.test/c HTTP/1.1", &[]),
            with("GET ftp://a.test/c HTTP/1.1", &[]),
            with("GET http://a.test\\c HTTP/1.1", &[]),
            with("GET c HTTP/1.1", &[]),
            with("GET * HTTP/1.1", &[]),
            with("OPTIONS */test HTTP/1.1", &[]),
            with("CONNECT 127.0.0.1:22 HTTP/1.1", &[]),
            with("TRACE /c HTTP/1.1", &[]),
            with("GET /c#/admin HTTP/1.1", &[]),
            with("GET /c?a#b HTTP/1.1", &[]),
            with("GET /c\u{1} HTTP/1.1", &[]),
            with("GET /caf\u{e9} HTTP/1.1", &[]),
            with("GET /c?caf\u{e9} HTTP/1.1", &[]),
            with("GET /c%zz HTTP/1.1", &[]),
            with("GET http://a.test/admin HTTP/1.1", &[]),
            with("GET //admin HTTP/1.1", &[]),
            with("GET /public/..;/admin HTTP/1.1", &[]),
            with("GET /../admin HTTP/1.1", &[]),
        ],
        &expect![[r#"
            GET /c HTTP/1.1 => 400 host-missing
            GET /c HTTP/1.0 => GET /c HTTP/1.1 | host:  [close]
            GET /c HTTP/1.0 | Host: => 400 host-empty
            GET /c HTTP/1.1 | Host: a.test | Host: b.test => 400 host-duplicate
            GET /c HTTP/1.1 | Host: a.test | host: a.test => 400 host-duplicate
            GET /c HTTP/1.1 | Host: A.Test:80 => GET /c HTTP/1.1 | host: a.test
            GET /c HTTP/1.1 | Host: a.test:8080 => GET /c HTTP/1.1 | host: a.test:8080
            GET /c HTTP/1.1 | Host:  => 400 host-empty
            GET /c HTTP/1.1 | Host: user@a.test => 400 host-userinfo
            GET /c HTTP/1.1 | Host: a.test b => 400 host-bad-byte
            GET /c HTTP/1.1 | Host: a.test,b.test => 400 host-bad-byte
            GET /c HTTP/1.1 | Host: a.test/evil => 400 host-bad-byte
            GET /c HTTP/1.1 | Host: a.test:65537 => 400 host-bad-port
            GET /c HTTP/1.1 | Host: a.test:80abc => 400 host-bad-port
            GET /c HTTP/1.1 | Host: a.test\0.evil => 400 control-byte
            GET http://a.test/c HTTP/1.1 => GET /c HTTP/1.1 | host: a.test
            GET http://b.test/c HTTP/1.1 => GET /c HTTP/1.1 | host: b.test
            GET HTTP://B.test:80/a/../c?d HTTP/1.1 => GET /c?d HTTP/1.1 | host: b.test
            GET http://b.test HTTP/1.1 => GET / HTTP/1.1 | host: b.test
            GET http://b.test?q HTTP/1.1 => GET /?q HTTP/1.1 | host: b.test
            OPTIONS http://b.test HTTP/1.1 => OPTIONS * HTTP/1.1 | host: b.test
            OPTIONS http://b.test/ HTTP/1.1 => OPTIONS / HTTP/1.1 | host: b.test
            GET http://b.test/c HTTP/1.1 => 400 host-missing
            GET http://b.test/c HTTP/1.1 | Host: u@a.test => 400 host-userinfo
            GET http://b.test/c HTTP/1.0 => GET /c HTTP/1.1 | host: b.test [close]
            GET http:///c HTTP/1.1 => 400 host-empty
            GET http://x:y@a.test/c HTTP/1.1 => 400 host-userinfo
            GET https://a.test/c HTTP/1.1 => 421 scheme-mismatch
            GET ftp://a.test/c HTTP/1.1 => 400 bad-target
            GET http://a.test\\c HTTP/1.1 => 400 path-not-absolute
            GET c HTTP/1.1 => 400 bad-target
            GET * HTTP/1.1 => 400 bad-target
            OPTIONS */test HTTP/1.1 => 400 bad-target
            CONNECT 127.0.0.1:22 HTTP/1.1 => 405 method-refused
            TRACE /c HTTP/1.1 => 405 method-refused
            GET /c#/admin HTTP/1.1 => 400 path-fragment
            GET /c?a#b HTTP/1.1 => 400 path-fragment
            GET /c\u{1} HTTP/1.1 => 400 bad-target
            GET /café HTTP/1.1 => 400 bad-target
            GET /c?café HTTP/1.1 => 400 bad-target
            GET /c%zz HTTP/1.1 => 400 path-bad-escape
            GET http://a.test/admin HTTP/1.1 => GET /admin HTTP/1.1 | host: a.test
            GET //admin HTTP/1.1 => GET /admin HTTP/1.1 | host: a.test
            GET /public/..;/admin HTTP/1.1 => 400 path-semicolon
            GET /../admin HTTP/1.1 => 400 path-above-root
        "#]],
    );
}

#[test]
fn fields_of_the_connection_end_here_and_others_cannot_be_stripped() {
    check(
        [
            with(GET, &["Connection: close"]),
            with(GET, &["Connection: keep-alive, Close"]),
            with(GET, &["Connection: X-Hop, ,x-other", "X-Hop: 1", "X-OTHER: 2", "X-Kept: 3"]),
            with(GET, &["Connection: X-Hop", "Connection: X-Other", "X-Hop: 1", "X-Other: 2"]),
            with(GET, &["Connection: keep-alive, X-Gw-Identity", "X-Gw-Identity: admin"]),
            with(GET, &["Connection: X-Forwarded-For", "X-Forwarded-For: 10.0.0.1"]),
            with(
                GET,
                &[
                    "Connection: Host, Authorization, Cookie",
                    "Authorization: Bearer x",
                    "Cookie: a",
                ],
            ),
            with(POST, &["Connection: Transfer-Encoding", "Transfer-Encoding: chunked"]),
            with(POST, &["Connection: Content-Length", "Content-Length: 3"]),
            with(
                GET,
                &[
                    "Proxy-Connection: keep-alive",
                    "Keep-Alive: timeout=5",
                    "Proxy-Authorization: x",
                ],
            ),
            with(GET, &["TE: gzip, trailers"]),
            with(GET, &["TE: gzip"]),
            with(GET, &["Trailer: X-T", "Transfer-Encoding: chunked"]),
            with(GET, &["Upgrade: h2c"]),
            with(
                GET,
                &["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMA"],
            ),
            with(GET, &["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"]),
            with("GET /c HTTP/1.0", &["Connection: Upgrade", "Upgrade: websocket"]),
            with(GET, &["Connection: a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q"]),
            with(POST, &["Expect: 100-Continue", "Content-Length: 3"]),
            with(POST, &["Expect: 100-continue"]),
            with("POST /c HTTP/1.0", &["Expect: 100-continue", "Content-Length: 3"]),
            with(POST, &["Expect: y 100-continue", "Content-Length: 3"]),
            with(POST, &["Expect: 100-continue", "Expect: 100-continue"]),
        ],
        &expect![[r#"
            GET /c HTTP/1.1 | Connection: close => GET /c HTTP/1.1 | host: a.test [close]
            GET /c HTTP/1.1 | Connection: keep-alive, Close => GET /c HTTP/1.1 | host: a.test [close]
            GET /c HTTP/1.1 | Connection: X-Hop, ,x-other | X-Hop: 1 | X-OTHER: 2 | X-Kept: 3 => GET /c HTTP/1.1 | host: a.test | X-Kept: 3
            GET /c HTTP/1.1 | Connection: X-Hop | Connection: X-Other | X-Hop: 1 | X-Other: 2 => GET /c HTTP/1.1 | host: a.test
            GET /c HTTP/1.1 | Connection: keep-alive, X-Gw-Identity | X-Gw-Identity: admin => GET /c HTTP/1.1 | host: a.test
            GET /c HTTP/1.1 | Connection: X-Forwarded-For | X-Forwarded-For: 10.0.0.1 => GET /c HTTP/1.1 | host: a.test | X-Forwarded-For: 10.0.0.1
            GET /c HTTP/1.1 | Connection: Host, Authorization, Cookie | Authorization: Bearer x | Cookie: a => GET /c HTTP/1.1 | host: a.test | Authorization: Bearer x | Cookie: a
            POST /c HTTP/1.1 | Connection: Transfer-Encoding | Transfer-Encoding: chunked => POST /c HTTP/1.1 | host: a.test | transfer-encoding: chunked
            POST /c HTTP/1.1 | Connection: Content-Length | Content-Length: 3 => POST /c HTTP/1.1 | host: a.test | content-length: 3
            GET /c HTTP/1.1 | Proxy-Connection: keep-alive | Keep-Alive: timeout=5 | Proxy-Authorization: x => GET /c HTTP/1.1 | host: a.test
            GET /c HTTP/1.1 | TE: gzip, trailers => GET /c HTTP/1.1 | host: a.test [accepts-trailers]
            GET /c HTTP/1.1 | TE: gzip => GET /c HTTP/1.1 | host: a.test
            GET /c HTTP/1.1 | Trailer: X-T | Transfer-Encoding: chunked => GET /c HTTP/1.1 | host: a.test | transfer-encoding: chunked
            GET /c HTTP/1.1 | Upgrade: h2c => GET /c HTTP/1.1 | host: a.test
            GET /c HTTP/1.1 | Connection: Upgrade, HTTP2-Settings | Upgrade: h2c | HTTP2-Settings: AAMA => GET /c HTTP/1.1 | host: a.test [upgrade h2c]
            GET /c HTTP/1.1 | Connection: Upgrade | Upgrade: websocket | Sec-WebSocket-Version: 13 => GET /c HTTP/1.1 | host: a.test | Sec-WebSocket-Version: 13 [upgrade websocket]
            GET /c HTTP/1.0 | Connection: Upgrade | Upgrade: websocket => GET /c HTTP/1.1 | host: a.test [close]
            GET /c HTTP/1.1 | Connection: a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q => 400 too-many-connection-options
            POST /c HTTP/1.1 | Expect: 100-Continue | Content-Length: 3 => POST /c HTTP/1.1 | host: a.test | content-length: 3 [expects-continue]
            POST /c HTTP/1.1 | Expect: 100-continue => POST /c HTTP/1.1 | host: a.test | content-length: 0
            POST /c HTTP/1.0 | Expect: 100-continue | Content-Length: 3 => POST /c HTTP/1.1 | host: a.test | content-length: 3 [close]
            POST /c HTTP/1.1 | Expect: y 100-continue | Content-Length: 3 => 417 bad-expectation
            POST /c HTTP/1.1 | Expect: 100-continue | Expect: 100-continue => 417 bad-expectation
        "#]],
    );
}

#[test]
fn heads_are_bounded_before_they_are_complete() {
    let long = |length| "a".repeat(length);
    let status = |input: String| {
        parse(input.as_bytes(), &mut RequestHead::default())
            .map_err(|error| error.status().as_u16())
    };
    assert!(status(format!("GET /c?{} HTTP/1.1\r\nHost: a\r\n\r\n", long(4096))).is_ok());
    assert_eq!(status(format!("GET /{}", long(8192))), Err(414));
    assert_eq!(status(long(70_000)), Err(400));
    assert_eq!(status(format!("{GET}\r\nX-A: {}", long(65_536))), Err(431));
    assert_eq!(status(format!("{GET}\r\n{}", long(65_536))), Err(431));
    assert!(status(format!("{GET}\r\nHost: a\r\n{}\r\n", "x: y\r\n".repeat(99))).is_ok());
    assert_eq!(status(format!("{GET}\r\n{}", "x: y\r\n".repeat(101))), Err(431));
    // A hundred fields of 700 bytes: their overhead is what goes beyond 64 KiB.
    let line = format!("x: {}\r\n", long(620));
    assert!(status(format!("{GET}\r\nHost: a\r\n{}\r\n", line.repeat(99))).is_ok());
    let line = format!("x: {}\r\n", long(640));
    assert_eq!(status(format!("{GET}\r\nHost: a\r\n{}\r\n", line.repeat(99))), Err(431));
}

#[test]
fn a_head_is_partial_until_its_last_byte_and_wrong_as_soon_as_it_is() {
    let whole =
        b"\r\nPOST /a/../b HTTP/1.1\r\nHost: A.test\r\nX-A: b \r\nContent-Length: 3\r\n\r\n";
    let mut head = RequestHead::default();
    for end in 0..whole.len() {
        assert_eq!(parse(&whole[..end], &mut head), Ok(ParsedRequest::Partial), "{end}");
    }
    assert!(matches!(parse(whole, &mut head), Ok(ParsedRequest::Complete(_))));
    for early in [
        "G(",
        "GET  ",
        "GET /c\r",
        "GET c HTTP/1.1\r\n",
        "GET /c HTTQ",
        "GET /c HTTP/2",
        "GET /\u{1}",
    ] {
        assert!(parse(early.as_bytes(), &mut head).is_err(), "{early}");
    }
}

#[test]
fn a_reused_head_keeps_nothing_of_the_request_before() {
    let mut head = RequestHead::default();
    let first =
        b"POST /first?q HTTP/1.0\r\nHost: first.test\r\nContent-Length: 3\r\nX-A: 1\r\n\r\n";
    assert!(matches!(parse(first, &mut head), Ok(ParsedRequest::Complete(_))));
    assert_eq!((head.authority(), head.query()), (&b"first.test"[..], Some(&b"q"[..])));
    assert_eq!(head.body, BodyLength::Known(3));
    assert!(matches!(parse(b"GET /b HTTP/1.0\r\n\r\n", &mut head), Ok(ParsedRequest::Complete(_))));
    assert_eq!(
        (head.authority(), head.host(), head.path(), head.query()),
        (&b""[..], &b""[..], &b"/b"[..], None)
    );
    assert_eq!((head.body, head.fields.len()), (BodyLength::Empty, 0));
}

/// The log and the client's address are asked for even where there is no request.
#[test]
fn what_was_read_of_a_wrong_or_unfinished_request_can_be_looked_at() {
    let mut head = RequestHead::default();
    let begins = "GET /c HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1\r\n";
    for ends in ["", "X-A", "X-A\r\n\r\n", "Content-Length: x\r\n\r\n", "X-A: \0"] {
        let parsed = parse(format!("{begins}{ends}").as_bytes(), &mut head);
        assert!(!matches!(parsed, Ok(ParsedRequest::Complete(_))), "{ends:?}");
        assert_eq!(head.fields.iter().count(), 0, "{ends:?}");
    }
}
