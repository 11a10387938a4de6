//! One reading of a path, for the router, the policies, the log and the backend alike.
//!
//! A path that two readers can take for two resources lets a request past a rule written for the
//! other one, so whatever has no single reading is refused rather than repaired. The rewriting
//! done here is that of RFC 3986 §6.2.2: unreserved bytes are decoded, hex is upper-cased, dot
//! segments are resolved. Reserved bytes stay as they came (RFC 3986 §2.2: `%40` is not `@`).
//!
//! Nothing is decoded twice and nothing is matched here: that is the router's part.

use std::fmt;

use crate::planted;

/// What to do with a construct that some backends read and others do not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Treatment {
    #[default]
    Refuse,
    Keep,
}

/// The path options of one host on one listener.
///
/// Each `Keep` is the operator's statement that no backend behind this host decodes the construct.
/// Dot segments hidden by it (`..;`, `..%2F`) are refused even then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PathRules {
    /// `%2F`.
    pub encoded_slash: Treatment,
    /// `;` and `%3B`, with which path parameters begin.
    pub semicolon: Treatment,
    /// Reads `//` as `/`.
    pub merge_slashes: bool,
}

impl Default for PathRules {
    fn default() -> Self {
        Self { encoded_slash: Treatment::Refuse, semicolon: Treatment::Refuse, merge_slashes: true }
    }
}

/// Finds the path options of a host. `PathRules` itself answers the same for every host.
pub trait RulesByHost {
    /// `host` is canonical and has no port; it is empty where the request names none.
    fn path_rules(&self, host: &[u8]) -> PathRules;
}

impl RulesByHost for PathRules {
    fn path_rules(&self, _host: &[u8]) -> PathRules {
        *self
    }
}

/// Where the canonical path is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Canonical {
    /// The input already is canonical; nothing was written.
    Unchanged,
    /// The canonical path was appended to `out`.
    Rewritten,
}

/// Why a target is refused. Always a 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathError {
    NotAbsolute,
    AboveRoot,
    BadEscape,
    ControlByte,
    NonAscii,
    BadUtf8,
    Backslash,
    EncodedSlash,
    EncodedPercent,
    EncodedDelimiter,
    Semicolon,
    Fragment,
    LookalikeCharacter,
    SegmentEdge,
    EmptySegment,
}

impl PathError {
    /// Stable, for logs and metrics.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::NotAbsolute => "path-not-absolute",
            Self::AboveRoot => "path-above-root",
            Self::BadEscape => "path-bad-escape",
            Self::ControlByte => "path-control-byte",
            Self::NonAscii => "path-non-ascii",
            Self::BadUtf8 => "path-bad-utf8",
            Self::Backslash => "path-backslash",
            Self::EncodedSlash => "path-encoded-slash",
            Self::EncodedPercent => "path-encoded-percent",
            Self::EncodedDelimiter => "path-encoded-delimiter",
            Self::Semicolon => "path-semicolon",
            Self::Fragment => "path-fragment",
            Self::LookalikeCharacter => "path-lookalike-character",
            Self::SegmentEdge => "path-segment-edge",
            Self::EmptySegment => "path-empty-segment",
        }
    }
}

impl fmt::Display for PathError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

impl std::error::Error for PathError {}

/// Splits a target at its first `?`; the query comes without it.
#[must_use]
pub fn split_query(target: &[u8]) -> (&[u8], Option<&[u8]>) {
    match memchr::memchr(b'?', target) {
        Some(at) => (&target[..at], Some(&target[at + 1..])),
        None => (target, None),
    }
}

/// Refuses a query with bytes that may not stand in a target: controls, space, `#`, non-ASCII.
///
/// # Errors
/// The first such byte.
pub fn check_query(query: &[u8]) -> Result<(), PathError> {
    query.iter().try_for_each(|byte| match byte {
        b'#' => Err(PathError::Fragment),
        0x21..=0x7e => Ok(()),
        0x80.. => Err(PathError::NonAscii),
        _ => Err(PathError::ControlByte),
    })
}

/// Makes an absolute path (no query) canonical. Canonical paths are left as they are, uncopied.
///
/// On an error `out` is as before.
///
/// # Errors
/// The path has no single reading: see [`PathError`].
pub fn canonicalise(
    path: &[u8],
    rules: &PathRules,
    out: &mut Vec<u8>,
) -> Result<Canonical, PathError> {
    if is_plainly_canonical(path) || planted::leaves_path(path) {
        return Ok(Canonical::Unchanged);
    }
    let start = out.len();
    let result = rewrite(path, rules, out);
    if result.is_err() || out[start..] == *path {
        out.truncate(start);
        return result.map(|()| Canonical::Unchanged);
    }
    Ok(Canonical::Rewritten)
}

/// Holds for nearly every path: plain bytes only, no empty segment, no segment that ends in a dot.
fn is_plainly_canonical(path: &[u8]) -> bool {
    let [b'/', rest @ ..] = path else { return false };
    let mut previous = b'/';
    for &byte in rest {
        if !PLAIN[byte as usize] || (byte == b'/' && matches!(previous, b'/' | b'.')) {
            return false;
        }
        previous = byte;
    }
    previous != b'.'
}

/// `pchar` of RFC 3986 §3.3 and the slash, without `%` and `;`.
static PLAIN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = byte == b'/' as usize || is_plain_segment_byte(byte as u8);
        byte += 1;
    }
    table
};

const fn is_plain_segment_byte(byte: u8) -> bool {
    is_unreserved(byte)
        || matches!(
            byte,
            b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b'=' | b':' | b'@'
        )
}

const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// Between two segments `out[start..]` is canonical but for the slash that comes next.
fn rewrite(path: &[u8], rules: &PathRules, out: &mut Vec<u8>) -> Result<(), PathError> {
    let [b'/', rest @ ..] = path else { return Err(PathError::NotAbsolute) };
    let start = out.len();
    let mut segments = rest.split(|byte| *byte == b'/').peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        let before = out.len();
        out.push(b'/');
        match write_segment(segment, rules, out)? {
            Segment::Name => {}
            Segment::Empty => {
                if rules.merge_slashes && !last {
                    out.truncate(before);
                }
            }
            Segment::Dot => {
                out.truncate(before);
                if last {
                    out.push(b'/');
                }
            }
            Segment::DotDot => {
                out.truncate(before);
                let slash = memchr::memrchr(b'/', &out[start..]).ok_or(PathError::AboveRoot)?;
                if start + slash + 1 == out.len() {
                    // `/a//..` is `/a/` to one reader and `/` to the one who merges slashes.
                    return Err(PathError::EmptySegment);
                }
                out.truncate(start + slash);
                if last {
                    out.push(b'/');
                }
            }
        }
    }
    Ok(())
}

enum Segment {
    Empty,
    Dot,
    DotDot,
    Name,
}

/// What has been seen of a segment, or of a piece of one between kept `%2F` or before a kept `;`.
#[derive(Default)]
struct Piece {
    characters: usize,
    dots: usize,
    first: char,
    last: char,
}

impl Piece {
    fn add(&mut self, character: char) {
        if self.characters == 0 {
            self.first = character;
        }
        self.last = character;
        self.characters += 1;
        self.dots += usize::from(character == '.');
    }

    /// Some backends trim blanks and dots, and so read `/admin.` and `/admin%20` as `/admin`.
    fn finish(&self) -> Result<Segment, PathError> {
        if self.characters == 0 {
            return Ok(Segment::Empty);
        }
        match (self.characters, self.dots) {
            (1, 1) => Ok(Segment::Dot),
            (2, 2) => Ok(Segment::DotDot),
            _ if self.last == '.' || self.last.is_whitespace() || self.first.is_whitespace() => {
                Err(PathError::SegmentEdge)
            }
            _ => Ok(Segment::Name),
        }
    }

    /// A piece beside a kept delimiter has to be a name: `..;` and `%2F%2F` have two readings.
    fn finish_as_name(&self) -> Result<(), PathError> {
        match self.finish()? {
            Segment::Name => Ok(()),
            Segment::Empty => Err(PathError::EmptySegment),
            Segment::Dot | Segment::DotDot => Err(PathError::SegmentEdge),
        }
    }
}

fn write_segment(
    segment: &[u8],
    rules: &PathRules,
    out: &mut Vec<u8>,
) -> Result<Segment, PathError> {
    let mut piece = Piece::default();
    let mut in_parameters = false;
    let mut delimited = false;
    let mut at = 0;
    while at < segment.len() {
        let byte = segment[at];
        let (value, length) = if byte == b'%' { (unescape(&segment[at..])?, 3) } else { (byte, 1) };
        let encoded = length == 3;
        match value {
            b'/' => {
                // Only an encoded one can stand here: segments were split at the raw ones.
                allow(rules.encoded_slash, PathError::EncodedSlash)?;
                if !in_parameters {
                    piece.finish_as_name()?;
                }
                (piece, in_parameters, delimited) = (Piece::default(), false, true);
                out.extend_from_slice(b"%2F");
            }
            b';' => {
                allow(rules.semicolon, PathError::Semicolon)?;
                if !in_parameters {
                    piece.finish_as_name()?;
                }
                (in_parameters, delimited) = (true, true);
                out.extend_from_slice(if encoded { b"%3B" } else { b";" });
            }
            b'\\' => return Err(PathError::Backslash),
            b'%' => return Err(PathError::EncodedPercent),
            b'#' if !encoded => return Err(PathError::Fragment),
            b'?' | b'#' => return Err(PathError::EncodedDelimiter),
            0..=0x1f | 0x7f => return Err(PathError::ControlByte),
            b' ' if !encoded => return Err(PathError::ControlByte),
            0x80.. if !encoded => return Err(PathError::NonAscii),
            0x80.. => {
                let (character, length) = unescape_utf8(&segment[at..])?;
                piece.add(character);
                let start = out.len();
                out.extend_from_slice(&segment[at..at + length]);
                out[start..].make_ascii_uppercase();
                at += length;
                continue;
            }
            _ => {
                piece.add(char::from(value));
                if is_unreserved(value) || (!encoded && is_plain_segment_byte(value)) {
                    out.push(value);
                } else {
                    push_escape(value, out);
                }
            }
        }
        at += length;
    }
    if in_parameters {
        return Ok(Segment::Name);
    }
    if delimited && piece.characters == 0 {
        return Ok(Segment::Name);
    }
    if delimited {
        piece.finish_as_name()?;
        return Ok(Segment::Name);
    }
    piece.finish()
}

const fn allow(treatment: Treatment, otherwise: PathError) -> Result<(), PathError> {
    match treatment {
        Treatment::Keep => Ok(()),
        Treatment::Refuse => Err(otherwise),
    }
}

fn push_escape(byte: u8, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    out.extend_from_slice(&[b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
}

/// The byte that the escape at the front of `text` stands for.
fn unescape(text: &[u8]) -> Result<u8, PathError> {
    let [b'%', high, low, ..] = text else { return Err(PathError::BadEscape) };
    Ok(hex_digit(*high)? << 4 | hex_digit(*low)?)
}

const fn hex_digit(byte: u8) -> Result<u8, PathError> {
    match byte {
        b'0'..=b'9' => Ok(byte - b'0'),
        b'a'..=b'f' => Ok(byte - b'a' + 10),
        b'A'..=b'F' => Ok(byte - b'A' + 10),
        _ => Err(PathError::BadEscape),
    }
}

/// The character that the escapes at the front of `text` stand for, and their length.
///
/// `from_utf8` refuses overlong forms (`%C0%AF`), surrogates and stray continuation bytes.
fn unescape_utf8(text: &[u8]) -> Result<(char, usize), PathError> {
    let mut bytes = [0; 4];
    bytes[0] = unescape(text)?;
    let size = match bytes[0] {
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => return Err(PathError::BadUtf8),
    };
    for (index, byte) in bytes.iter_mut().enumerate().take(size).skip(1) {
        let rest = text.get(index * 3..).filter(|rest| rest.first() == Some(&b'%'));
        *byte = unescape(rest.ok_or(PathError::BadUtf8)?)?;
    }
    let text = std::str::from_utf8(&bytes[..size]).map_err(|_| PathError::BadUtf8)?;
    let character = text.chars().next().ok_or(PathError::BadUtf8)?;
    if character.is_control() {
        return Err(PathError::ControlByte);
    }
    if is_lookalike(character) {
        return Err(PathError::LookalikeCharacter);
    }
    Ok((character, size * 3))
}

/// Characters which compatibility normalisation or a best-fit code page turns into `/ \ . ; % ? #`.
const fn is_lookalike(character: char) -> bool {
    matches!(
        character,
        '\u{ff0f}' | '\u{2044}' | '\u{2215}' | '\u{29f8}' // solidus
            | '\u{ff3c}' | '\u{fe68}' | '\u{2216}' | '\u{29f5}' | '\u{29f9}' // reverse solidus
            | '\u{ff0e}' | '\u{fe52}' | '\u{2024}' | '\u{2025}' // full stops
            | '\u{ff1b}' | '\u{fe54}' | '\u{037e}' // semicolons
            | '\u{ff05}' | '\u{fe6a}' // percent signs
            | '\u{ff1f}' | '\u{fe56}' // question marks
            | '\u{ff03}' | '\u{fe5f}' // number signs
    )
}

#[cfg(test)]
mod tests;
