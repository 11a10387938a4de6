//! Field lines: one strict reading of `name: value CRLF`, shared by requests, responses, trailers.
//!
//! What a field means is not looked at here, except for its [`Known`] and for the framing that
//! requests and responses have in common.

use portcullis_core::known::Known;
use portcullis_core::{Fields, Span};

use crate::error::HeadError;
use crate::scan;

/// What every field counts for beyond its bytes, as in RFC 7541 §4.1.
const FIELD_OVERHEAD: usize = 32;

/// Bounds of a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// Request line, field lines, and 32 bytes for each field. Default 64 KiB.
    pub head_bytes_max: usize,
    /// Default 100.
    pub fields_max: usize,
    /// Default 8 KiB.
    pub target_bytes_max: usize,
}

impl Default for HeadLimits {
    fn default() -> Self {
        Self { head_bytes_max: 64 * 1024, fields_max: 100, target_bytes_max: 8 * 1024 }
    }
}

/// A field line; spans count from the reader's origin.
#[derive(Clone, Copy, Default)]
pub(crate) struct Line<'a> {
    pub(crate) name: Span,
    pub(crate) value: Span,
    pub(crate) known: Known,
    pub(crate) name_text: &'a [u8],
    pub(crate) value_text: &'a [u8],
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// [`Lines::line`] was filled.
    Line,
    /// The empty line was read.
    End,
    /// The input ends within a line, and is right so far.
    Partial,
}

/// Reads lines off the front of an input.
pub(crate) struct Lines<'a> {
    pub(crate) input: &'a [u8],
    /// The next byte to read.
    pub(crate) at: usize,
    /// The line read last. Not returned, because moving it costs more than reading it.
    pub(crate) line: Line<'a>,
    origin: usize,
    count: usize,
    limits: HeadLimits,
}

impl<'a> Lines<'a> {
    pub(crate) fn new(input: &'a [u8], origin: usize, at: usize, limits: &HeadLimits) -> Self {
        Self { input, at, line: Line::default(), origin, count: 0, limits: *limits }
    }

    #[inline]
    pub(crate) fn next(&mut self) -> Result<Next, HeadError> {
        let input = self.input;
        let start = self.at;
        let name_end = scan::token_end(input, start);
        let Some(&byte) = input.get(name_end) else { return self.partial() };
        if byte != b':' || name_end == start {
            return self.end_or_error(start, name_end);
        }
        let mut value_start = name_end + 1;
        while input.get(value_start).is_some_and(|byte| matches!(byte, b' ' | b'\t')) {
            value_start += 1;
        }
        let stop = scan::value_end(input, value_start);
        match input.get(stop..) {
            Some([b'\r', b'\n', ..]) => {}
            Some([] | [b'\r']) => return self.partial(),
            Some([b'\r', ..]) => return Err(HeadError::BareCarriageReturn),
            Some([b'\n', ..]) => return Err(HeadError::BareLineFeed),
            _ => return Err(HeadError::ControlByte),
        }
        let mut value_end = stop;
        while value_end > value_start && matches!(input[value_end - 1], b' ' | b'\t') {
            value_end -= 1;
        }
        self.at = stop + 2;
        self.count += 1;
        if self.count > self.limits.fields_max {
            return Err(HeadError::TooManyFields);
        }
        self.check_size(self.at)?;
        let name_text = &input[start..name_end];
        self.line = Line {
            name: Span::new(start - self.origin, name_end - self.origin),
            value: Span::new(value_start - self.origin, value_end - self.origin),
            known: Known::of(name_text),
            name_text,
            value_text: &input[value_start..value_end],
        };
        Ok(Next::Line)
    }

    /// The line at `start` is no field: its name ends at `stop`, where there is no colon.
    #[cold]
    fn end_or_error(&mut self, start: usize, stop: usize) -> Result<Next, HeadError> {
        match &self.input[stop..] {
            [b'\r', b'\n', ..] if stop == start => {
                self.at = stop + 2;
                self.check_size(self.at)?;
                Ok(Next::End)
            }
            [b'\r'] if stop == start => self.partial(),
            [b'\r', b'\n', ..] | [b'\r'] => Err(HeadError::BadFieldName),
            [b'\r', ..] => Err(HeadError::BareCarriageReturn),
            [b'\n', ..] => Err(HeadError::BareLineFeed),
            [b' ' | b'\t', ..] if stop == start => Err(HeadError::FoldedLine),
            _ => Err(HeadError::BadFieldName),
        }
    }

    #[cold]
    fn partial(&self) -> Result<Next, HeadError> {
        self.check_size(self.input.len()).map(|()| Next::Partial)
    }

    fn check_size(&self, end: usize) -> Result<(), HeadError> {
        let size = end - self.origin + self.count * FIELD_OVERHEAD;
        if size > self.limits.head_bytes_max { Err(HeadError::TooLarge) } else { Ok(()) }
    }
}

/// The two fields that say how long a body is, each at most once.
#[derive(Default)]
pub(crate) struct LengthFields {
    pub(crate) content_length: Option<u64>,
    pub(crate) chunked: bool,
}

impl LengthFields {
    pub(crate) fn add_content_length(&mut self, value: &[u8]) -> Result<(), HeadError> {
        if self.content_length.is_some() {
            return Err(HeadError::DuplicateContentLength);
        }
        if value.is_empty() || value.len() > 19 || !value.iter().all(u8::is_ascii_digit) {
            return Err(HeadError::BadContentLength);
        }
        // Nineteen digits always fit; what is above 2^63 - 1 somebody reads as negative.
        let length = value.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'));
        if length > i64::MAX as u64 {
            return Err(HeadError::BadContentLength);
        }
        self.content_length = Some(length);
        Ok(())
    }

    pub(crate) fn add_transfer_encoding(&mut self, value: &[u8]) -> Result<(), HeadError> {
        if self.chunked {
            return Err(HeadError::DuplicateTransferEncoding);
        }
        if !value.eq_ignore_ascii_case(b"chunked") {
            return Err(HeadError::BadTransferEncoding);
        }
        self.chunked = true;
        Ok(())
    }

    /// RFC 9112 §6.3 names winners; readers that know others exist, so nobody wins.
    pub(crate) fn check(&self, http10: bool) -> Result<(), HeadError> {
        match (self.chunked, self.content_length) {
            (true, Some(_)) => Err(HeadError::LengthAndEncoding),
            (true, None) if http10 => Err(HeadError::EncodingInHttp10),
            _ => Ok(()),
        }
    }
}

/// Whether some reader takes `name` for Content-Length or Transfer-Encoding though it is neither.
#[inline]
#[must_use]
pub fn is_framing_alias(name: &[u8]) -> bool {
    matches!(name.len(), 14 | 17) && folds_to_framing(name)
}

#[cold]
fn folds_to_framing(name: &[u8]) -> bool {
    // Broader than `is_alias`: a digit stands for the hyphen too.
    let fold = |byte: &u8| {
        if byte.is_ascii_alphabetic() { byte.to_ascii_lowercase() } else { b'-' }
    };
    let folds_to = |owned: Known| name.iter().map(fold).eq(owned.name().iter().copied());
    !matches!(Known::of(name), Known::ContentLength | Known::TransferEncoding)
        && (folds_to(Known::ContentLength) || folds_to(Known::TransferEncoding))
}

/// Reads a whole trailer section, the empty line included, and keeps what may come that late.
///
/// A trailer may change neither framing, routing, authentication nor what the client asked for
/// (RFC 9110 §6.5.1), so every field the gateway has business with is dropped, and those that
/// describe the content or control the response.
pub(crate) fn read_trailers(block: &[u8], limits: &HeadLimits) -> Result<Fields, HeadError> {
    let mut fields = Fields::default();
    let mut lines = Lines::new(block, 0, 0, limits);
    while lines.next()? == Next::Line {
        let line = &lines.line;
        if !is_forbidden_trailer(line.known, line.name_text) {
            fields.append(line.name_text, line.value_text);
        }
    }
    Ok(fields)
}

/// Whether a field may not stand in a trailer section, in any version of HTTP.
#[must_use]
pub fn is_forbidden_trailer(known: Known, name: &[u8]) -> bool {
    const NAMES: [&[u8]; 12] = [
        b"accept-ranges",
        b"allow",
        b"expires",
        b"location",
        b"max-forwards",
        b"pragma",
        b"range",
        b"retry-after",
        b"set-cookie",
        b"vary",
        b"warning",
        b"www-authenticate",
    ];
    const PREFIXES: [&[u8]; 5] = [b"content-", b"if-", b"proxy-", b"sec-", b"x-forwarded-"];
    let begins = |prefix: &&[u8]| {
        name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
    };
    known != Known::Other
        || is_framing_alias(name)
        || NAMES.iter().any(|other| name.eq_ignore_ascii_case(other))
        || PREFIXES.iter().any(begins)
}
