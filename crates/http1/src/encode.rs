//! Writing messages. All framing is written anew from what is known of the body; the fields that
//! had it in the received message are skipped, live or not.
//!
//! Nothing here checks the parts again: heads come from the codecs, and edits go through
//! [`Fields`], which lets no control byte in.

use http::{Method, StatusCode};
use portcullis_core::known::Known;
use portcullis_core::{BodyLength, Fields, RequestHead, ResponseHead, Span, Version};

use crate::lines::is_framing_alias;

/// Which framing field is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// None: no body can follow, or (for a response) the body ends with the connection, and the
    /// head has to say so with [`Connection::Close`].
    None,
    /// Content-Length. In the response to HEAD, and in a 304, no body follows it.
    Length(u64),
    /// The body has to be written by [`encode_chunk`] and [`encode_last_chunk`].
    Chunked,
}

/// The framing of a request to a backend.
#[must_use]
pub fn request_framing(head: &RequestHead) -> Framing {
    match head.body {
        BodyLength::Known(length) => Framing::Length(length),
        BodyLength::Unknown => Framing::Chunked,
        // RFC 9110 §8.6: where a body is usual its absence is said.
        BodyLength::Empty => match head.method {
            Method::POST | Method::PUT | Method::PATCH => Framing::Length(0),
            _ => Framing::None,
        },
    }
}

/// The framing of a response to a client that speaks `client` and asked with `method`.
///
/// `declared` is the length of the body that is left out: [`crate::ResponseFacts`] has it.
#[must_use]
pub fn response_framing(
    head: &ResponseHead,
    method: &Method,
    client: Version,
    declared: Option<u64>,
) -> Framing {
    if head.status.is_informational() || head.status == StatusCode::NO_CONTENT {
        return Framing::None;
    }
    if head.status == StatusCode::NOT_MODIFIED || *method == Method::HEAD {
        return declared.map_or(Framing::None, Framing::Length);
    }
    match head.body {
        BodyLength::Empty => Framing::Length(0),
        BodyLength::Known(length) => Framing::Length(length),
        BodyLength::Unknown if client == Version::Http10 => Framing::None,
        BodyLength::Unknown => Framing::Chunked,
    }
}

/// What a request says beside its head.
#[derive(Clone, Copy, Debug)]
pub struct RequestWire<'a> {
    pub framing: Framing,
    /// The one protocol to switch to.
    pub upgrade: Option<&'a [u8]>,
    /// Says `te: trailers`.
    pub accepts_trailers: bool,
    /// Says `expect: 100-continue`; the caller then waits for the backend's word.
    pub expect_continue: bool,
}

impl RequestWire<'_> {
    #[must_use]
    pub const fn new(framing: Framing) -> Self {
        Self { framing, upgrade: None, accepts_trailers: false, expect_continue: false }
    }
}

/// What a response says of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connection<'a> {
    /// Nothing: an HTTP/1.1 connection persists.
    Unsaid,
    Close,
    /// For HTTP/1.0 clients that asked for it.
    KeepAlive,
    /// With 101, to this protocol.
    Upgrade(&'a [u8]),
}

#[derive(Clone, Copy, Debug)]
pub struct ResponseWire<'a> {
    pub framing: Framing,
    pub connection: Connection<'a>,
}

/// Appends the request's head to `out`. The request is HTTP/1.1 whatever the client spoke.
pub fn encode_request(head: &RequestHead, wire: &RequestWire<'_>, out: &mut Vec<u8>) {
    out.reserve(head.fields.bytes().len() + 128);
    out.extend_from_slice(head.method.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(head.path());
    if let Some(query) = head.query() {
        out.push(b'?');
        out.extend_from_slice(query);
    }
    out.extend_from_slice(b" HTTP/1.1\r\nhost: ");
    out.extend_from_slice(head.authority());
    out.extend_from_slice(b"\r\n");
    write_fields(&head.fields, out);
    write_framing(wire.framing, out);
    match (wire.upgrade, wire.accepts_trailers) {
        (Some(protocol), trailers) => {
            let te: &[u8] = if trailers { b", te\r\nte: trailers" } else { b"" };
            write_parts(&[b"connection: upgrade", te, b"\r\nupgrade: ", protocol, b"\r\n"], out);
        }
        (None, true) => out.extend_from_slice(b"connection: te\r\nte: trailers\r\n"),
        (None, false) => {}
    }
    if wire.expect_continue {
        out.extend_from_slice(b"expect: 100-continue\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends the response's head to `out`. The version is HTTP/1.1 whatever the client speaks
/// (RFC 9110 §6.2).
pub fn encode_response(head: &ResponseHead, wire: &ResponseWire<'_>, out: &mut Vec<u8>) {
    out.reserve(head.fields.bytes().len() + 128);
    write_status_line(head.status, out);
    write_fields(&head.fields, out);
    write_framing(wire.framing, out);
    match wire.connection {
        Connection::Unsaid => {}
        Connection::Close => out.extend_from_slice(b"connection: close\r\n"),
        Connection::KeepAlive => out.extend_from_slice(b"connection: keep-alive\r\n"),
        Connection::Upgrade(protocol) => {
            write_parts(&[b"connection: upgrade\r\nupgrade: ", protocol, b"\r\n"], out);
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends a 1xx head. Not for 101, and not to HTTP/1.0 clients (RFC 9110 §15.2).
pub fn encode_interim(head: &ResponseHead, out: &mut Vec<u8>) {
    write_status_line(head.status, out);
    write_fields(&head.fields, out);
    out.extend_from_slice(b"\r\n");
}

/// Appends `data` as one chunk; nothing if it is empty, since an empty chunk ends the body.
pub fn encode_chunk(data: &[u8], out: &mut Vec<u8>) {
    if !data.is_empty() {
        encode_chunk_head(data.len(), out);
        out.extend_from_slice(data);
        out.extend_from_slice(b"\r\n");
    }
}

/// Appends the size line of a chunk of `length > 0` bytes. Data and CRLF are the caller's.
pub fn encode_chunk_head(length: usize, out: &mut Vec<u8>) {
    debug_assert!(length > 0, "an empty chunk ends the body");
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let digits = (usize::BITS - length.leading_zeros()).div_ceil(4).max(1);
    for digit in (0..digits).rev() {
        out.push(HEX[length >> (4 * digit) & 15]);
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends the last chunk and the trailers.
pub fn encode_last_chunk(trailers: Option<&Fields>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"0\r\n");
    if let Some(trailers) = trailers {
        write_fields(trailers, out);
    }
    out.extend_from_slice(b"\r\n");
}

fn write_status_line(status: StatusCode, out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or("").as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn write_framing(framing: Framing, out: &mut Vec<u8>) {
    match framing {
        Framing::None => {}
        Framing::Length(length) => {
            out.extend_from_slice(b"content-length: ");
            write_decimal(length, out);
            out.extend_from_slice(b"\r\n");
        }
        Framing::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
    }
}

fn write_decimal(mut number: u64, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

fn write_parts(parts: &[&[u8]], out: &mut Vec<u8>) {
    for part in parts {
        out.extend_from_slice(part);
    }
}

/// Writes the live fields that are for the other side.
///
/// Fields that came in together and in plain form lie in the buffer as they are to be written, so
/// whole runs of them are copied at once.
fn write_fields(fields: &Fields, out: &mut Vec<u8>) {
    let bytes = fields.bytes();
    let mut run = 0..0;
    for field in fields.live() {
        if is_regenerated(field.known)
            || (field.known == Known::Other && is_framing_alias(field.name.of(bytes)))
        {
            continue;
        }
        let start = field.name.start as usize;
        if is_plain(bytes, field.name, field.value) {
            let end = field.value.end() + 2;
            if run.end != start {
                out.extend_from_slice(&bytes[run.clone()]);
                run.start = start;
            }
            run.end = end;
        } else {
            out.extend_from_slice(&bytes[run.clone()]);
            run = 0..0;
            write_parts(&[field.name.of(bytes), b": ", field.value.of(bytes), b"\r\n"], out);
        }
    }
    out.extend_from_slice(&bytes[run]);
}

/// Whether the buffer has `name: value CRLF` there.
fn is_plain(bytes: &[u8], name: Span, value: Span) -> bool {
    value.start as usize == name.end() + 2
        && bytes[name.end()..].starts_with(b": ")
        && bytes[value.end()..].starts_with(b"\r\n")
}

const fn is_regenerated(known: Known) -> bool {
    known.is_hop_by_hop() || matches!(known, Known::ContentLength | Known::Expect | Known::Host)
}
