//! What becomes of each response head: the head sent on to the client, or the refusal.

use expect_test::{Expect, expect};

use super::*;
use crate::{Connection, ResponseWire, encode_response, response_framing};

fn parse(
    input: &[u8],
    method: &Method,
) -> Result<Option<(ResponseHead, ResponseFacts)>, ResponseError> {
    let mut head = ResponseHead::default();
    match parse_response(input, &HeadLimits::default(), method, &mut head)? {
        ParsedResponse::Partial => Ok(None),
        ParsedResponse::Complete(facts) => Ok(Some((head, facts))),
    }
}

fn verdict(input: &[u8], method: &Method, client: Version) -> String {
    let (head, facts) = match parse(input, method) {
        Err(error) => return error.to_string(),
        Ok(None) => return "partial".to_owned(),
        Ok(Some(parsed)) => parsed,
    };
    let mut out = Vec::new();
    let framing = response_framing(&head, method, client, facts.declared_length);
    let wire = ResponseWire { framing, connection: Connection::Unsaid };
    encode_response(&head, &wire, &mut out);
    let mut text = String::from_utf8_lossy(&out).replace("\r\n", " | ");
    text.truncate(text.len() - " |  | ".len());
    let left = input.len() - facts.consumed;
    for (said, word) in [
        (facts.kind == ResponseKind::Interim, "interim".to_owned()),
        (facts.kind == ResponseKind::Switching, "switching".to_owned()),
        (facts.chunked, "chunked".to_owned()),
        (facts.until_close, "until-close".to_owned()),
        (!facts.keep_alive, "close".to_owned()),
        (left > 0, format!("{left} bytes left")),
        (facts.upgrade.is_some(), "upgrade".to_owned()),
    ] {
        if said {
            text += &format!(" [{word}]");
        }
    }
    text
}

fn check(method: &Method, client: Version, inputs: &[&str], expected: &Expect) {
    let line = |input: &&str| {
        let verdict = verdict(input.as_bytes(), method, client);
        format!("{} => {verdict}\n", input.escape_debug())
    };
    expected.assert_eq(&inputs.iter().map(line).collect::<String>());
}

/// Each input is a status line and fields, with bars for line ends.
fn check_heads(method: &Method, client: Version, inputs: &[&str], expected: &Expect) {
    let whole: Vec<String> =
        inputs.iter().map(|input| format!("{}\r\n\r\n", input.replace(" | ", "\r\n"))).collect();
    let line = |(input, whole): (&&str, &String)| {
        format!("{input} => {}\n", verdict(whole.as_bytes(), method, client))
    };
    let seen: String = inputs.iter().zip(&whole).map(line).collect();
    expected.assert_eq(&seen);
}

#[test]
fn framing_is_read_strictly_and_written_anew() {
    check_heads(
        &Method::GET,
        Version::Http11,
        &[
            "HTTP/1.1 200 OK | Content-Length: 3 | X-A: b",
            "HTTP/1.1 200 OK | Content-Length: 0",
            "HTTP/1.1 200 All is well | Transfer-Encoding: chunked",
            "HTTP/1.1 200 OK",
            "HTTP/1.1 200",
            "HTTP/1.1 200  | Content-Length: 3",
            "HTTP/1.0 200 OK | Content-Length: 3",
            "HTTP/1.0 200 OK | Content-Length: 3 | Connection: keep-alive",
            "HTTP/1.0 200 OK | Transfer-Encoding: chunked",
            "HTTP/1.1 200 OK | Content-Length: 3 | Connection: close",
            "HTTP/1.1 200 OK | Content-Length: 4 | Transfer-Encoding: chunked",
            "HTTP/1.1 200 OK | Content-Length: 3 | Content-Length: 5",
            "HTTP/1.1 200 OK | Content-Length: 3 | Content-Length: 3",
            "HTTP/1.1 200 OK | Content-Length: +3",
            "HTTP/1.1 200 OK | Transfer-Encoding: chunked, gzip",
            "HTTP/1.1 200 OK | Content-Length : 3",
            "HTTP/1.1 200 OK | Content_Length: 3 | Content-Length: 4",
            "HTTP/1.1 204 No Content | Content-Length: 5",
            "HTTP/1.1 204 No Content | Transfer-Encoding: chunked",
            "HTTP/1.1 204 No Content | Content-Length: 0",
            "HTTP/1.1 304 Not Modified | Content-Length: 5 | ETag: \"x\"",
            "HTTP/1.1 304 Not Modified",
            "HTTP/1.1 103 Early Hints | Link: </a>",
            "HTTP/1.1 100 Continue",
            "HTTP/1.1 101 Switching Protocols | Connection: upgrade | Upgrade: websocket",
            "HTTP/1.1 101 Switching Protocols | Connection: upgrade | Upgrade: h2c | Upgrade: websocket",
            "HTTP/1.1 101 Switching Protocols | Upgrade: websocket",
            "HTTP/1.1 599 Odd | Content-Length: 3",
            "HTTP/1.1 600 Odd | Content-Length: 3",
            "HTTP/1.1 099 Odd | Content-Length: 3",
            "HTTP/1.1 99999 Weird | Content-Length: 0",
            "HTTP/1.1 20 OK",
            "HTTP/1.1  200 OK",
            "HTTP/2.0 200 OK",
            "HTTP/1.2 200 OK",
            "http/1.1 200 OK",
            "ICY 200 OK",
        ],
        &expect![[r#"
            HTTP/1.1 200 OK | Content-Length: 3 | X-A: b => HTTP/1.1 200 OK | X-A: b | content-length: 3
            HTTP/1.1 200 OK | Content-Length: 0 => HTTP/1.1 200 OK | content-length: 0
            HTTP/1.1 200 All is well | Transfer-Encoding: chunked => HTTP/1.1 200 OK | transfer-encoding: chunked [chunked]
            HTTP/1.1 200 OK => HTTP/1.1 200 OK | transfer-encoding: chunked [until-close] [close]
            HTTP/1.1 200 => HTTP/1.1 200 OK | transfer-encoding: chunked [until-close] [close]
            HTTP/1.1 200  | Content-Length: 3 => HTTP/1.1 200 OK | content-length: 3
            HTTP/1.0 200 OK | Content-Length: 3 => HTTP/1.1 200 OK | content-length: 3 [close]
            HTTP/1.0 200 OK | Content-Length: 3 | Connection: keep-alive => HTTP/1.1 200 OK | content-length: 3
            HTTP/1.0 200 OK | Transfer-Encoding: chunked => encoding-in-http10
            HTTP/1.1 200 OK | Content-Length: 3 | Connection: close => HTTP/1.1 200 OK | content-length: 3 [close]
            HTTP/1.1 200 OK | Content-Length: 4 | Transfer-Encoding: chunked => length-and-encoding
            HTTP/1.1 200 OK | Content-Length: 3 | Content-Length: 5 => duplicate-content-length
            HTTP/1.1 200 OK | Content-Length: 3 | Content-Length: 3 => duplicate-content-length
            HTTP/1.1 200 OK | Content-Length: +3 => bad-content-length
            HTTP/1.1 200 OK | Transfer-Encoding: chunked, gzip => bad-transfer-encoding
            HTTP/1.1 200 OK | Content-Length : 3 => bad-field-name
            HTTP/1.1 200 OK | Content_Length: 3 | Content-Length: 4 => HTTP/1.1 200 OK | content-length: 4
            HTTP/1.1 204 No Content | Content-Length: 5 => HTTP/1.1 204 No Content [close]
            HTTP/1.1 204 No Content | Transfer-Encoding: chunked => HTTP/1.1 204 No Content [close]
            HTTP/1.1 204 No Content | Content-Length: 0 => HTTP/1.1 204 No Content
            HTTP/1.1 304 Not Modified | Content-Length: 5 | ETag: "x" => HTTP/1.1 304 Not Modified | ETag: "x" | content-length: 5
            HTTP/1.1 304 Not Modified => HTTP/1.1 304 Not Modified
            HTTP/1.1 103 Early Hints | Link: </a> => HTTP/1.1 103 Early Hints | Link: </a> [interim]
            HTTP/1.1 100 Continue => HTTP/1.1 100 Continue [interim]
            HTTP/1.1 101 Switching Protocols | Connection: upgrade | Upgrade: websocket => HTTP/1.1 101 Switching Protocols [switching] [upgrade]
            HTTP/1.1 101 Switching Protocols | Connection: upgrade | Upgrade: h2c | Upgrade: websocket => HTTP/1.1 101 Switching Protocols [switching]
            HTTP/1.1 101 Switching Protocols | Upgrade: websocket => HTTP/1.1 101 Switching Protocols [switching]
            HTTP/1.1 599 Odd | Content-Length: 3 => HTTP/1.1 599  | content-length: 3
            HTTP/1.1 600 Odd | Content-Length: 3 => bad-status
            HTTP/1.1 099 Odd | Content-Length: 3 => bad-status
            HTTP/1.1 99999 Weird | Content-Length: 0 => bad-status
            HTTP/1.1 20 OK => bad-status
            HTTP/1.1  200 OK => bad-status
            HTTP/2.0 200 OK => unsupported-version
            HTTP/1.2 200 OK => unsupported-version
            http/1.1 200 OK => bad-status-line
            ICY 200 OK => bad-status-line
        "#]],
    );
}

#[test]
fn fields_of_the_connection_stay_between_gateway_and_backend() {
    check_heads(
        &Method::GET,
        Version::Http11,
        &[
            "HTTP/1.1 200 OK | Connection: X-Secret, close | X-Secret: s3cret | Keep-Alive: timeout=9 | Content-Length: 3",
            "HTTP/1.1 200 OK | Connection: Content-Length, Content-Type | Content-Length: 3 | Content-Type: text/plain",
            "HTTP/1.1 200 OK | Upgrade: h2c | Proxy-Authenticate: x | Trailer: y | TE: z | Content-Length: 3",
        ],
        &expect![[r#"
            HTTP/1.1 200 OK | Connection: X-Secret, close | X-Secret: s3cret | Keep-Alive: timeout=9 | Content-Length: 3 => HTTP/1.1 200 OK | content-length: 3 [close]
            HTTP/1.1 200 OK | Connection: Content-Length, Content-Type | Content-Length: 3 | Content-Type: text/plain => HTTP/1.1 200 OK | content-length: 3
            HTTP/1.1 200 OK | Upgrade: h2c | Proxy-Authenticate: x | Trailer: y | TE: z | Content-Length: 3 => HTTP/1.1 200 OK | content-length: 3
        "#]],
    );
}

#[test]
fn lines_are_read_as_strictly_as_in_requests() {
    check(
        &Method::GET,
        Version::Http11,
        &[
            "HTTP/1.1 200 OK\r\nX-A: a\0b\r\nContent-Length: 3\r\n\r\nabc",
            "HTTP/1.1 200 OK\r\nX-A: a\rX-Evil: b\r\nContent-Length: 3\r\n\r\nabc",
            "HTTP/1.1 200 OK\nContent-Length: 3\n\nabc",
            "HTTP/1.1 200 OK\r\nX-A: a\r\n b\r\n\r\n",
            "HTTP/1.1 200 O\0K\r\n\r\n",
            "HTTP/1.1 200\tOK\r\n\r\n",
            "\0\u{1}\u{2}garbage not http\r\n\r\n",
            "\r\nHTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcHTTP/1.1",
        ],
        &expect![[r#"
            HTTP/1.1 200 OK\r\nX-A: a\0b\r\nContent-Length: 3\r\n\r\nabc => control-byte
            HTTP/1.1 200 OK\r\nX-A: a\rX-Evil: b\r\nContent-Length: 3\r\n\r\nabc => bare-carriage-return
            HTTP/1.1 200 OK\nContent-Length: 3\n\nabc => bad-status-line
            HTTP/1.1 200 OK\r\nX-A: a\r\n b\r\n\r\n => folded-line
            HTTP/1.1 200 O\0K\r\n\r\n => bad-status-line
            HTTP/1.1 200\tOK\r\n\r\n => bad-status
            \0\u{1}\u{2}garbage not http\r\n\r\n => bad-status-line
            \r\nHTTP/1.1 200 OK\r\n\r\n => bad-status-line
            HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcHTTP/1.1 => HTTP/1.1 200 OK | content-length: 3 [11 bytes left]
        "#]],
    );
}

#[test]
fn the_method_and_the_clients_version_decide_the_framing() {
    let heads =
        ["HTTP/1.1 200 OK | Content-Length: 3", "HTTP/1.1 200 OK | Transfer-Encoding: chunked"];
    check_heads(
        &Method::HEAD,
        Version::Http11,
        &heads,
        &expect![[r#"
        HTTP/1.1 200 OK | Content-Length: 3 => HTTP/1.1 200 OK | content-length: 3
        HTTP/1.1 200 OK | Transfer-Encoding: chunked => HTTP/1.1 200 OK
    "#]],
    );
    check_heads(
        &Method::GET,
        Version::Http10,
        &heads,
        &expect![[r#"
        HTTP/1.1 200 OK | Content-Length: 3 => HTTP/1.1 200 OK | content-length: 3
        HTTP/1.1 200 OK | Transfer-Encoding: chunked => HTTP/1.1 200 OK [chunked]
    "#]],
    );
}

#[test]
fn heads_are_bounded_and_partial_until_their_last_byte() {
    let status = |text: &str| parse(text.as_bytes(), &Method::GET).map(|parsed| parsed.is_some());
    let big = "a".repeat(70_000);
    let too_large = Err(ResponseError::Head(crate::HeadError::TooLarge));
    assert_eq!(status(&format!("HTTP/1.1 200 OK\r\nX-A: {big}")), too_large);
    assert_eq!(status(&format!("HTTP/1.1 200 {big}")), Err(ResponseError::BadStatusLine));
    let many = "X-A: y\r\n".repeat(101);
    assert_eq!(
        status(&format!("HTTP/1.1 200 OK\r\n{many}")),
        Err(ResponseError::Head(crate::HeadError::TooManyFields))
    );
    let whole = "HTTP/1.1 200 OK\r\nX-A: b \r\nContent-Length: 3\r\n\r\n";
    for end in 0..whole.len() {
        assert_eq!(status(&whole[..end]), Ok(false), "{end}");
    }
    assert_eq!(status(whole), Ok(true));
}
