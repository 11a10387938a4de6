//! Reading a request head off the front of a buffer.
//!
//! The head is parsed where it lies, in one pass, and copied into the `RequestHead` once it is
//! complete and right. A head that comes in pieces is parsed again from its beginning, which the
//! size limit bounds.

use std::fmt;

use http::Method;
use portcullis_core::head::Field;
use portcullis_core::known::Known;
use portcullis_core::path::{self, RulesByHost};
use portcullis_core::{BodyLength, RequestHead, Scheme, Span, Version, authority};

use crate::connection::Options;
use crate::error::{HeadError, RequestError};
use crate::lines::{HeadLimits, LengthFields, Line, Lines, Next, is_framing_alias};
use crate::scan;
use crate::target::Target;

/// Longer than any registered method.
const METHOD_BYTES_MAX: usize = 32;
/// Empty lines tolerated before a request line (RFC 9112 §2.2).
const BLANK_LINES_MAX: usize = 4;

/// What a request cannot say of itself.
#[derive(Clone, Copy)]
pub struct RequestContext<'a> {
    /// Https behind TLS.
    pub scheme: Scheme,
    /// A `&PathRules` where all hosts have the same.
    pub paths: &'a dyn RulesByHost,
}

impl fmt::Debug for RequestContext<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestContext").field("scheme", &self.scheme).finish_non_exhaustive()
    }
}

/// How far the input reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParsedRequest {
    /// Right so far; the head is not to be read. Call again with more of the same input.
    Partial,
    Complete(RequestFacts),
}

/// What concerns this connection only, beside the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestFacts {
    /// Length of the head in the input; the body begins there.
    pub consumed: usize,
    /// The client can take another response on this connection.
    pub keep_alive: bool,
    /// The body comes in chunks; `head.body` is `Unknown` then, and only then.
    pub chunked: bool,
    /// The client waits for a 100 before it sends its body.
    pub expect_continue: bool,
    /// `TE: trailers`.
    pub accepts_trailers: bool,
    /// The protocols asked for by Upgrade, where Connection names it, as a span of the head.
    pub upgrade: Option<Span>,
}

/// Reads the request head at the front of `input`.
///
/// Fields of this connection only, and those named by Connection, are in the head but not live.
///
/// # Errors
/// The request is to be answered with the error's status and the connection closed. What is in
/// `head` then may be looked at, but is of no use.
pub fn parse_request(
    input: &[u8],
    limits: &HeadLimits,
    head: &mut RequestHead,
    context: &RequestContext<'_>,
) -> Result<ParsedRequest, RequestError> {
    head.clear();
    let parsed = read(input, limits, head, context);
    head.fields.forget_dangling();
    parsed
}

fn read(
    input: &[u8],
    limits: &HeadLimits,
    head: &mut RequestHead,
    context: &RequestContext<'_>,
) -> Result<ParsedRequest, RequestError> {
    let Some(start) = skip_blank_lines(input)? else { return Ok(ParsedRequest::Partial) };
    let Some(line) = request_line(input, start, limits)? else {
        return Ok(ParsedRequest::Partial);
    };
    let target_text = &input[line.target.0..line.target.1];
    let target = Target::of(target_text, &line.method, context.scheme)?;

    let mut lines = Lines::new(input, start, line.end, limits);
    let mut seen = Seen::default();
    loop {
        match lines.next()? {
            Next::Line => {
                let live = seen.add(&lines.line)?;
                let Line { name, value, known, .. } = lines.line;
                head.fields.push_field(Field { name, value, known, live });
            }
            Next::End => break,
            Next::Partial => return Ok(ParsedRequest::Partial),
        }
    }

    let text = &input[start..lines.at];
    head.fields.intern(text);
    head.method = line.method;
    head.version = line.version;
    head.scheme = context.scheme;
    head.target = Span::new(line.target.0 - start, line.target.1 - start);
    seen.options.strip(text, &mut head.fields, |known| known == Known::Other);
    set_authority(head, &target, &seen, text)?;
    set_path(head, &target, target_text, context)?;
    let facts = seen.facts(head, lines.at)?;
    Ok(ParsedRequest::Complete(facts))
}

/// Where the request line begins; none while that is not known.
fn skip_blank_lines(input: &[u8]) -> Result<Option<usize>, RequestError> {
    let mut at = 0;
    loop {
        match input.get(at..) {
            Some([b'\r', b'\n', ..]) if at < 2 * BLANK_LINES_MAX => at += 2,
            Some([] | [b'\r']) => return Ok(None),
            Some([b'\r', ..]) => return Err(RequestError::BadRequestLine),
            Some([b'\n', ..]) => return Err(HeadError::BareLineFeed.into()),
            _ => return Ok(Some(at)),
        }
    }
}

struct RequestLine {
    method: Method,
    target: (usize, usize),
    version: Version,
    end: usize,
}

/// `method SP target SP version CRLF`, with single spaces; none while the input ends within it.
fn request_line(
    input: &[u8],
    start: usize,
    limits: &HeadLimits,
) -> Result<Option<RequestLine>, RequestError> {
    let method_end = scan::token_end(input, start);
    if method_end - start > METHOD_BYTES_MAX {
        return Err(RequestError::BadMethod);
    }
    match input.get(method_end) {
        Some(b' ') if method_end > start => {}
        Some(_) => return Err(RequestError::BadMethod),
        None => return Ok(None),
    }
    let method = match &input[start..method_end] {
        b"GET" => Method::GET,
        b"POST" => Method::POST,
        b"CONNECT" | b"TRACE" => return Err(RequestError::MethodRefused),
        name => Method::from_bytes(name).map_err(|_| RequestError::BadMethod)?,
    };

    let target_start = method_end + 1;
    let target_end = scan::visible_end(input, target_start);
    if target_end - target_start > limits.target_bytes_max {
        return Err(RequestError::TargetTooLong);
    }
    match input.get(target_end) {
        Some(b' ') if target_end > target_start => {}
        // Either HTTP/0.9, which nobody needs, or bytes that may not stand in a target.
        Some(b' ' | b'\r' | b'\n' | b'\t') => return Err(RequestError::BadRequestLine),
        Some(_) => return Err(RequestError::BadTarget),
        None => return Ok(None),
    }
    let Some(version) = version(&input[target_end + 1..])? else { return Ok(None) };
    let end = target_end + 1 + VERSION_LINE_11.len();
    Ok(Some(RequestLine { method, target: (target_start, target_end), version, end }))
}

const VERSION_LINE_11: &[u8] = b"HTTP/1.1\r\n";
const VERSION_LINE_10: &[u8] = b"HTTP/1.0\r\n";

fn version(rest: &[u8]) -> Result<Option<Version>, RequestError> {
    if rest.starts_with(VERSION_LINE_11) {
        return Ok(Some(Version::Http11));
    }
    if rest.starts_with(VERSION_LINE_10) {
        return Ok(Some(Version::Http10));
    }
    if VERSION_LINE_11.starts_with(rest) || VERSION_LINE_10.starts_with(rest) {
        return Ok(None);
    }
    match rest {
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'0' | b'1', ..] => {
            Err(RequestError::BadRequestLine)
        }
        [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', ..] => Err(RequestError::UnsupportedVersion),
        _ => Err(RequestError::BadRequestLine),
    }
}

/// What the fields said, gathered line by line.
#[derive(Default)]
struct Seen<'a> {
    host: Option<(Span, &'a [u8])>,
    lengths: LengthFields,
    options: Options,
    expect: Option<&'a [u8]>,
    upgrade: Option<Span>,
    upgrades: usize,
    accepts_trailers: bool,
}

impl<'a> Seen<'a> {
    /// Says whether the field is for the backend too.
    #[inline]
    fn add(&mut self, line: &Line<'a>) -> Result<bool, RequestError> {
        match line.known {
            Known::Other if is_framing_alias(line.name_text) => {
                return Err(HeadError::FramingAlias.into());
            }
            Known::Other => return Ok(true),
            Known::Host => {
                if self.host.is_some() {
                    return Err(RequestError::DuplicateHost);
                }
                self.host = Some((line.value, line.value_text));
            }
            Known::ContentLength => self.lengths.add_content_length(line.value_text)?,
            Known::TransferEncoding => self.lengths.add_transfer_encoding(line.value_text)?,
            Known::Connection => self.options.add(line)?,
            Known::Expect => {
                if self.expect.is_some() || !line.value_text.eq_ignore_ascii_case(b"100-continue") {
                    return Err(RequestError::BadExpectation);
                }
                self.expect = Some(line.value_text);
                return Ok(false);
            }
            Known::Te => self.accepts_trailers |= accepts_trailers(line.value_text),
            Known::Upgrade => {
                self.upgrades += 1;
                self.upgrade = Some(line.value);
            }
            _ => {}
        }
        Ok(!line.known.is_hop_by_hop())
    }

    fn facts(&self, head: &mut RequestHead, consumed: usize) -> Result<RequestFacts, RequestError> {
        let http10 = head.version == Version::Http10;
        self.lengths.check(http10)?;
        head.body = match self.lengths.content_length {
            _ if self.lengths.chunked => BodyLength::Unknown,
            Some(length) => BodyLength::of(length),
            None => BodyLength::Empty,
        };
        // An HTTP/1.0 sender of a body without a length ends it by closing: nothing may follow.
        let bodiless = self.lengths.content_length.is_none()
            && head.method != Method::GET
            && head.method != Method::HEAD;
        Ok(RequestFacts {
            consumed,
            keep_alive: self.options.persists(http10) && !(http10 && bodiless),
            chunked: self.lengths.chunked,
            expect_continue: self.expect.is_some() && !http10 && head.body != BodyLength::Empty,
            accepts_trailers: self.accepts_trailers && !http10,
            upgrade: self.upgrade.filter(|_| self.options.upgrade && self.upgrades == 1 && !http10),
        })
    }
}

fn accepts_trailers(te: &[u8]) -> bool {
    te.split(|byte| *byte == b',')
        .any(|coding| scan::trim(coding).eq_ignore_ascii_case(b"trailers"))
}

/// RFC 9112 §3.2.2: the authority of an absolute target replaces Host, which has to be right even
/// so. `text` is the head, in which spans count.
fn set_authority(
    head: &mut RequestHead,
    target: &Target<'_>,
    seen: &Seen<'_>,
    text: &[u8],
) -> Result<(), RequestError> {
    let (span, value) = match (seen.host, target) {
        (None, _) if head.version != Version::Http10 => return Err(RequestError::MissingHost),
        (host, Target::Absolute { authority, start }) => {
            if let Some((_, value)) = host {
                authority::canonicalise(value, head.scheme, &mut Vec::new())?;
            }
            let start = head.target.start as usize + start;
            (Span::new(start, start + authority.len()), *authority)
        }
        (Some((span, value)), _) => (span, value),
        (None, _) => return Ok(()),
    };
    debug_assert_eq!(span.of(text), value);
    let scheme = head.scheme;
    let (written, canonical) =
        head.fields.intern_with(|out| authority::canonicalise(value, scheme, out));
    let sub = |of: Span, len: usize| Span { start: of.start, len: len as u32 };
    (head.authority, head.host) = match canonical? {
        authority::Canonical::Prefix { authority, host } => (sub(span, authority), sub(span, host)),
        authority::Canonical::Rewritten { host } => (written, sub(written, host)),
    };
    Ok(())
}

fn set_path(
    head: &mut RequestHead,
    target: &Target<'_>,
    text: &[u8],
    context: &RequestContext<'_>,
) -> Result<(), RequestError> {
    let from = match target {
        Target::Origin => 0,
        Target::Absolute { authority, start } => start + authority.len(),
        Target::Asterisk => {
            head.path = head.target;
            return Ok(());
        }
    };
    let (path, query) = path::split_query(&text[from..]);
    let path_start = head.target.start as usize + from;
    let path_end = path_start + path.len();
    if let Some(query) = query {
        path::check_query(query)?;
        head.query = Some(Span::new(path_end + 1, path_end + 1 + query.len()));
    }
    if path.is_empty() {
        // RFC 9112 §3.2.4: the last proxy turns this form of OPTIONS into the asterisk.
        let whole = head.method == Method::OPTIONS && query.is_none();
        head.path = head.fields.intern(if whole { b"*" } else { b"/" });
        return Ok(());
    }
    let rules = context.paths.path_rules(head.host());
    let (written, canonical) = head.fields.intern_with(|out| path::canonicalise(path, &rules, out));
    head.path = match canonical? {
        path::Canonical::Unchanged => Span::new(path_start, path_end),
        path::Canonical::Rewritten => written,
    };
    Ok(())
}

#[cfg(test)]
mod tests;
