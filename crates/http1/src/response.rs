//! Reading a backend's response head off the front of a buffer.
//!
//! As strict as for requests: a backend that frames oddly gets its connection discarded and the
//! client a 502, so that no byte of one response can be read as part of another.

use http::{Method, StatusCode};
use portcullis_core::head::Field;
use portcullis_core::known::Known;
use portcullis_core::{BodyLength, ResponseHead, Span, Version};

use crate::connection::Options;
use crate::error::ResponseError;
use crate::lines::{HeadLimits, LengthFields, Line, Lines, Next, is_framing_alias};
use crate::scan;

/// How far the input reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParsedResponse {
    /// Right so far; the head is not to be read. Call again with more of the same input.
    Partial,
    Complete(ResponseFacts),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseKind {
    /// 1xx but 101: another head follows. 100 is not for the client, 103 may be passed on.
    Interim,
    /// 101: what follows is another protocol. To be refused where no upgrade was asked for.
    Switching,
    Final,
}

/// What concerns this connection only, beside the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseFacts {
    /// Length of the head in the input; the body begins there.
    pub consumed: usize,
    pub kind: ResponseKind,
    /// The backend can take another request once the body is read. Bytes beyond the body condemn
    /// the connection all the same.
    pub keep_alive: bool,
    pub chunked: bool,
    /// The body ends where the connection does.
    pub until_close: bool,
    /// Content-Length as sent; to HEAD and with 304 it describes a body that is not there.
    pub declared_length: Option<u64>,
    /// The protocol switched to, where Connection names Upgrade, as a span of the head.
    pub upgrade: Option<Span>,
}

/// Reads the response head at the front of `input`, an answer to a request with `method`.
///
/// Fields of this connection only, and those named by Connection, are in the head but not live.
///
/// # Errors
/// The response is not to be passed on and the connection not to be used again. What is in `head`
/// then may be looked at, but is of no use.
pub fn parse_response(
    input: &[u8],
    limits: &HeadLimits,
    method: &Method,
    head: &mut ResponseHead,
) -> Result<ParsedResponse, ResponseError> {
    head.clear();
    let parsed = read(input, limits, method, head);
    head.fields.forget_dangling();
    parsed
}

fn read(
    input: &[u8],
    limits: &HeadLimits,
    method: &Method,
    head: &mut ResponseHead,
) -> Result<ParsedResponse, ResponseError> {
    let Some(line) = status_line(input, limits)? else { return Ok(ParsedResponse::Partial) };
    let mut lines = Lines::new(input, 0, line.end, limits);
    let mut lengths = LengthFields::default();
    let mut options = Options::default();
    let mut upgrade = None;
    let mut upgrades = 0;
    loop {
        match lines.next()? {
            Next::Line => {}
            Next::End => break,
            Next::Partial => return Ok(ParsedResponse::Partial),
        }
        let line = &lines.line;
        let mut live = !line.known.is_hop_by_hop();
        match line.known {
            Known::ContentLength => lengths.add_content_length(line.value_text)?,
            Known::TransferEncoding => lengths.add_transfer_encoding(line.value_text)?,
            Known::Connection => options.add(line)?,
            Known::Upgrade => {
                upgrades += 1;
                upgrade = Some(line.value);
            }
            Known::Other => live = !is_framing_alias(line.name_text),
            _ => {}
        }
        let Line { name, value, known, .. } = *line;
        head.fields.push_field(Field { name, value, known, live });
    }
    let text = &input[..lines.at];
    head.fields.intern(text);
    head.status = line.status;
    head.version = line.version;
    options.strip(text, &mut head.fields, |known| known != Known::ContentLength);
    lengths.check(line.version == Version::Http10)?;
    let facts = facts(head, &lengths, &options, method, lines.at);
    let upgrade = upgrade.filter(|_| options.upgrade && upgrades == 1);
    Ok(ParsedResponse::Complete(ResponseFacts { upgrade, ..facts }))
}

struct StatusLine {
    version: Version,
    status: StatusCode,
    end: usize,
}

/// `version SP status [SP reason] CRLF`; none while the input ends within it.
fn status_line(input: &[u8], limits: &HeadLimits) -> Result<Option<StatusLine>, ResponseError> {
    const PREFIX: &[u8] = b"HTTP/1.";
    let known = input.len().min(PREFIX.len());
    if input[..known] != PREFIX[..known] {
        return Err(if input.starts_with(b"HTTP/") {
            ResponseError::UnsupportedVersion
        } else {
            ResponseError::BadStatusLine
        });
    }
    let Some(rest) = input.get(PREFIX.len()..PREFIX.len() + 6) else { return Ok(None) };
    let version = match rest[0] {
        b'1' => Version::Http11,
        b'0' => Version::Http10,
        _ => return Err(ResponseError::UnsupportedVersion),
    };
    if rest[1] != b' ' {
        return Err(ResponseError::BadStatusLine);
    }
    if !matches!(rest[2], b'1'..=b'5') || !matches!(rest[5], b' ' | b'\r') {
        return Err(ResponseError::BadStatus);
    }
    let status = StatusCode::from_bytes(&rest[2..5]).map_err(|_| ResponseError::BadStatus)?;
    let stop = scan::value_end(input, PREFIX.len() + 5);
    match &input[stop..] {
        [b'\r', b'\n', ..] => Ok(Some(StatusLine { version, status, end: stop + 2 })),
        [] | [b'\r'] if stop <= limits.head_bytes_max => Ok(None),
        _ => Err(ResponseError::BadStatusLine),
    }
}

/// RFC 9112 §6.3, with what it leaves to the recipient decided against the backend.
fn facts(
    head: &mut ResponseHead,
    lengths: &LengthFields,
    options: &Options,
    method: &Method,
    consumed: usize,
) -> ResponseFacts {
    let kind = match head.status.as_u16() {
        101 => ResponseKind::Switching,
        100..200 => ResponseKind::Interim,
        _ => ResponseKind::Final,
    };
    let lengthless = kind != ResponseKind::Final || head.status == StatusCode::NO_CONTENT;
    let bodiless = lengthless || head.status == StatusCode::NOT_MODIFIED || *method == Method::HEAD;
    let until_close = !bodiless && !lengths.chunked && lengths.content_length.is_none();
    head.body = match lengths.content_length {
        _ if bodiless => BodyLength::Empty,
        Some(length) => BodyLength::of(length),
        None => BodyLength::Unknown,
    };
    // A backend that announces a body where there can be none may well send it.
    let dubious = lengthless && (lengths.chunked || lengths.content_length.is_some_and(|n| n > 0));
    ResponseFacts {
        consumed,
        kind,
        keep_alive: !until_close && !dubious && options.persists(head.version == Version::Http10),
        chunked: lengths.chunked && !bodiless,
        until_close,
        declared_length: lengths.content_length.filter(|_| !lengthless),
        upgrade: None,
    }
}

#[cfg(test)]
mod tests;
