//! Five ways in which servers are known to read a stream of requests, one strict and four lenient.
//!
//! A stream on which they disagree smuggles a request past somebody. These readers share no code
//! with the crate under test, on purpose.

/// How a stream is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// RFC 9112 to the letter.
    Strict,
    /// Whatever looks like `chunked` wins over any length.
    AnyEncoding,
    /// A Content-Length wins over any encoding.
    LengthFirst,
    /// A line ends at LF, with or without CR.
    BareLineFeed,
    /// A chunk-size line ends at CR, whatever byte follows.
    BareReturn,
}

pub const LENIENT: [Reader; 4] =
    [Reader::AnyEncoding, Reader::LengthFirst, Reader::BareLineFeed, Reader::BareReturn];

/// A request as one of the readers sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    pub method: Vec<u8>,
    pub target: Vec<u8>,
    pub body: Vec<u8>,
    /// The stream ends within it.
    pub partial: bool,
}

/// Why reading stopped.
enum Stop {
    More,
    Bad(&'static str),
}

/// The requests that every reader sees, or how they differ.
pub fn one_reading(stream: &[u8]) -> Result<Vec<Request>, String> {
    let (strict, fault) = read(stream, Reader::Strict);
    if let Some(fault) = fault {
        return Err(format!("malformed: {fault}"));
    }
    for reader in LENIENT {
        let (seen, _) = read(stream, reader);
        if seen != strict {
            return Err(format!("{reader:?} sees {seen:?}, the strict reader {strict:?}"));
        }
    }
    Ok(strict)
}

/// Names and values of one request's fields, in order, as they were sent.
pub type FieldLines = Vec<(Vec<u8>, Vec<u8>)>;

/// The fields of each request of [`one_reading`], as the strict reader sees them.
pub fn fields(stream: &[u8]) -> Vec<FieldLines> {
    read_all(stream, Reader::Strict).1
}

/// What one reader sees, and what it stopped at.
pub fn read(stream: &[u8], reader: Reader) -> (Vec<Request>, Option<&'static str>) {
    let (requests, _, fault) = read_all(stream, reader);
    (requests, fault)
}

type Reading = (Vec<Request>, Vec<FieldLines>, Option<&'static str>);

fn read_all(stream: &[u8], reader: Reader) -> Reading {
    let (mut requests, mut fields) = (Vec::new(), Vec::new());
    let mut cursor = Cursor { stream, at: 0, reader, fields: Vec::new() };
    while cursor.at < stream.len() {
        if cursor.rest().starts_with(b"\r\n") {
            cursor.at += 2;
            continue;
        }
        let mut request = Request { partial: true, ..Request::default() };
        let outcome = cursor.request(&mut request);
        if !request.method.is_empty() || outcome.is_ok() {
            requests.push(request);
            fields.push(std::mem::take(&mut cursor.fields));
        }
        match outcome {
            Ok(()) => {}
            Err(Stop::More) => break,
            Err(Stop::Bad(fault)) => return (requests, fields, Some(fault)),
        }
    }
    (requests, fields, None)
}

struct Cursor<'a> {
    stream: &'a [u8],
    at: usize,
    reader: Reader,
    /// Of the request that is being read.
    fields: FieldLines,
}

enum Length {
    Known(usize),
    Chunked,
}

impl<'a> Cursor<'a> {
    fn rest(&self) -> &'a [u8] {
        &self.stream[self.at..]
    }

    fn strict(&self) -> bool {
        self.reader == Reader::Strict
    }

    fn request(&mut self, request: &mut Request) -> Result<(), Stop> {
        let line = self.line()?;
        let parts: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
        if self.strict() {
            let visible = |text: &[u8]| {
                !text.is_empty() && text.iter().all(|byte| !matches!(byte, 0..=0x20 | 0x7f))
            };
            let versions: [&[u8]; 2] = [b"HTTP/1.0", b"HTTP/1.1"];
            if parts.len() != 3
                || !is_token(parts[0])
                || !visible(parts[1])
                || !versions.contains(&parts[2])
            {
                return Err(Stop::Bad("request line"));
            }
        }
        request.method = parts[0].to_vec();
        request.target = parts.get(1).map_or(b"?".to_vec(), |part| part.to_vec());
        let old = parts.last() == Some(&&b"HTTP/1.0"[..]);
        match self.fields(old)? {
            Length::Chunked => self.chunks(&mut request.body)?,
            Length::Known(length) => {
                let taken = length.min(self.rest().len());
                request.body = self.rest()[..taken].to_vec();
                self.at += taken;
                if taken < length {
                    return Err(Stop::More);
                }
            }
        }
        request.partial = false;
        Ok(())
    }

    /// Field lines up to the empty one, for what they say of the body.
    fn fields(&mut self, old: bool) -> Result<Length, Stop> {
        let mut encodings: Vec<&[u8]> = Vec::new();
        let mut lengths: Vec<&[u8]> = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                break;
            }
            if matches!(line[0], b' ' | b'\t') {
                if self.strict() {
                    return Err(Stop::Bad("folded line"));
                }
                continue;
            }
            let colon = line.iter().position(|byte| *byte == b':');
            let (name, value) = match colon {
                Some(at) => (&line[..at], &line[at + 1..]),
                None => (line, &b""[..]),
            };
            if self.strict() && (colon.is_none() || !is_token(name)) {
                return Err(Stop::Bad("field name"));
            }
            self.fields.push((name.to_vec(), value.trim_ascii().to_vec()));
            let name = if self.strict() {
                name.to_ascii_lowercase()
            } else {
                let letter = |byte: &u8| if byte.is_ascii_lowercase() { *byte } else { b'-' };
                name.trim_ascii().to_ascii_lowercase().iter().map(letter).collect()
            };
            match &name[..] {
                b"transfer-encoding" => encodings.push(value.trim_ascii()),
                b"content-length" => lengths.push(value.trim_ascii()),
                _ => {}
            }
        }
        if self.strict() {
            strict_length(&encodings, &lengths, old)
        } else {
            Ok(self.lenient_length(&encodings, &lengths))
        }
    }

    fn lenient_length(&self, encodings: &[&[u8]], lengths: &[&[u8]]) -> Length {
        let first = lengths.first().and_then(|value| leading_number(value));
        let chunked = encodings.iter().any(|value| contains(value, b"chunked"));
        match first {
            Some(length) if self.reader == Reader::LengthFirst => Length::Known(length),
            _ if chunked => Length::Chunked,
            first => Length::Known(first.unwrap_or(0)),
        }
    }

    fn chunks(&mut self, body: &mut Vec<u8>) -> Result<(), Stop> {
        loop {
            let line = if self.reader == Reader::BareReturn {
                let end = self.rest().iter().position(|byte| *byte == b'\r').ok_or(Stop::More)?;
                let line = &self.rest()[..end];
                self.at += end + 2;
                line
            } else {
                self.line()?
            };
            let line = if self.strict() { line } else { line.trim_ascii_start() };
            let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
            let (size, extension) = line.split_at(digits);
            if self.strict() && (size.is_empty() || !matches!(extension.first(), None | Some(b';')))
            {
                return Err(Stop::Bad("chunk size"));
            }
            let size = std::str::from_utf8(size).expect("hex digits are text");
            let size = usize::from_str_radix(size, 16).unwrap_or(0);
            if size == 0 {
                while !self.line()?.is_empty() {}
                return Ok(());
            }
            let rest = self.rest();
            if size.saturating_add(2) > rest.len() {
                body.extend_from_slice(&rest[..size.min(rest.len())]);
                self.at = self.stream.len();
                return Err(Stop::More);
            }
            body.extend_from_slice(&rest[..size]);
            if self.strict() && !rest[size..].starts_with(b"\r\n") {
                return Err(Stop::Bad("chunk end"));
            }
            self.at += size + if rest[size] == b'\r' { 2 } else { 1 };
        }
    }

    fn line(&mut self) -> Result<&'a [u8], Stop> {
        let rest = self.rest();
        if self.reader == Reader::BareLineFeed {
            let end = rest.iter().position(|byte| *byte == b'\n').ok_or(Stop::More)?;
            self.at += end + 1;
            return Ok(rest[..end].strip_suffix(b"\r").unwrap_or(&rest[..end]));
        }
        let end = rest.windows(2).position(|pair| pair == b"\r\n");
        let line = &rest[..end.unwrap_or(rest.len())];
        let bad = |byte: &u8| matches!(byte, b'\n' | b'\0') || (*byte == b'\r' && end.is_some());
        if self.strict() && line.iter().any(bad) {
            return Err(Stop::Bad("bare CR, LF or NUL"));
        }
        self.at += end.ok_or(Stop::More)? + 2;
        Ok(line)
    }
}

fn strict_length(encodings: &[&[u8]], lengths: &[&[u8]], old: bool) -> Result<Length, Stop> {
    match (encodings, lengths) {
        ([], []) => Ok(Length::Known(0)),
        ([encoding], []) if encoding.eq_ignore_ascii_case(b"chunked") && !old => {
            Ok(Length::Chunked)
        }
        ([], [length]) => {
            let text = std::str::from_utf8(length).unwrap_or("");
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            match text.parse::<i64>() {
                Ok(length) if digits => Ok(Length::Known(length as usize)),
                _ => Err(Stop::Bad("content length")),
            }
        }
        _ => Err(Stop::Bad("framing fields")),
    }
}

fn leading_number(value: &[u8]) -> Option<usize> {
    let value = value.strip_prefix(b"+").unwrap_or(value);
    let digits = value.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let number = std::str::from_utf8(&value[..digits]).expect("digits are text");
    if digits == 0 { None } else { Some(number.parse().unwrap_or(usize::MAX)) }
}

fn contains(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|part| part.eq_ignore_ascii_case(word))
}

fn is_token(text: &[u8]) -> bool {
    let fits = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !text.is_empty() && text.iter().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The oracle is worth something only if it finds what it is for.
    #[test]
    fn each_lenient_reader_is_fooled_by_something() {
        let fooled = |stream: &str| {
            let (strict, _) = read(stream.as_bytes(), Reader::Strict);
            LENIENT.map(|reader| read(stream.as_bytes(), reader).0 != strict)
        };
        let head = "POST / HTTP/1.1\r\n";
        let next = "GET /smuggled HTTP/1.1\r\n\r\n";
        let alias =
            format!("{head}Content-Length: 3\r\nTransfer_Encoding: chunked\r\n\r\n0\r\n\r\n{next}");
        assert_eq!(fooled(&alias), [true, false, true, true]);
        let alias =
            format!("{head}Transfer-Encoding: chunked\r\nContent_Length: 0\r\n\r\n0\r\n\r\n");
        assert_eq!(fooled(&alias), [false, true, false, false]);
        let feed = format!("{head}X: y\n\nGET /smuggled HTTP/1.1\r\n\r\n");
        assert!(fooled(&feed)[2]);
        let chunked = format!("{head}Transfer-Encoding: chunked\r\n\r\n");
        let extension = format!("{chunked}2;a\r\rXX\r\n0\r\n\r\n{next}");
        assert!(fooled(&extension)[3]);
        assert!(one_reading(extension.as_bytes()).is_err());
        assert_eq!(
            one_reading(format!("{chunked}2\r\nab\r\n0\r\n\r\n").as_bytes()).map(|all| all.len()),
            Ok(1)
        );
        assert!(one_reading(b"GET /a b HTTP/1.1\r\n\r\n").is_err());
    }
}
