//! Message heads: one buffer, spans into it, and edits that never rebuild it.
//!
//! A head is filled once by a codec (`http1`, or the HTTP/2 side of `proxy`) and then edited by
//! policies. Reading and writing the wire format is not done here.

use http::{Method, StatusCode};

use crate::known::Known;

/// A range of bytes within the head's own buffer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    pub start: u32,
    pub len: u32,
}

impl Span {
    #[must_use]
    pub const fn new(start: usize, end: usize) -> Self {
        Self { start: start as u32, len: (end - start) as u32 }
    }

    #[must_use]
    pub const fn end(self) -> usize {
        self.start as usize + self.len as usize
    }

    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.len == 0
    }

    #[must_use]
    pub fn of(self, bytes: &[u8]) -> &[u8] {
        &bytes[self.start as usize..self.end()]
    }
}

/// One field line. A removed field stays in the list with `live == false`.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    pub name: Span,
    pub value: Span,
    pub known: Known,
    pub live: bool,
}

/// Field lines in the order received, as spans into one buffer; edits append to that buffer.
///
/// Names keep the case they arrived in and are compared without it (RFC 9110 §5.1). Cleared and
/// reused, a `Fields` allocates nothing once it has grown to its working size.
#[derive(Clone, Debug, Default)]
pub struct Fields {
    bytes: Vec<u8>,
    list: Vec<Field>,
}

impl Fields {
    /// Forgets everything and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.list.clear();
    }

    /// The buffer that all spans of this head point into.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Copies `text` to the end of the buffer.
    pub fn intern(&mut self, text: &[u8]) -> Span {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(text);
        Span::new(start, self.bytes.len())
    }

    /// Adds a field whose bytes already lie in the buffer. For codecs, which have validated them.
    pub fn push_parsed(&mut self, name: Span, value: Span) {
        let known = Known::of(name.of(&self.bytes));
        self.list.push(Field { name, value, known, live: true });
    }

    /// Appends what `write` writes to the buffer. For codecs.
    pub fn intern_with<R>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> R) -> (Span, R) {
        let start = self.bytes.len();
        let result = write(&mut self.bytes);
        (Span::new(start, self.bytes.len()), result)
    }

    /// Adds a field whose bytes the caller interns later, at the place the spans say. For codecs,
    /// which have validated them and looked up `known`.
    pub fn push_field(&mut self, field: Field) {
        self.list.push(field);
    }

    /// Forgets fields whose bytes have not been interned after all. For codecs, which otherwise
    /// would leave spans of nothing behind.
    pub fn forget_dangling(&mut self) {
        if self.bytes.is_empty() {
            self.list.clear();
        }
    }

    /// Adds a field after those of the same name.
    ///
    /// A byte that may not stand in a field value (CR, LF, NUL and the other controls, RFC 9110
    /// §5.5) is written as `?`, so that no edit can end a line and begin another.
    pub fn append(&mut self, name: &[u8], value: &[u8]) {
        self.append_line(Known::of(name), name, |bytes| bytes.extend_from_slice(value));
    }

    /// [`Self::append`] to a name that is known.
    ///
    /// # Panics
    /// In tests, for [`Known::Other`], which has no name.
    pub fn append_known(&mut self, known: Known, value: &[u8]) {
        self.append_line(known, known.name(), |bytes| bytes.extend_from_slice(value));
    }

    /// [`Self::append_known`] with a value that lies in this head already.
    pub fn append_span(&mut self, known: Known, value: Span) {
        self.append_line(known, known.name(), |bytes| {
            bytes.extend_from_within(value.start as usize..value.end());
        });
    }

    /// [`Self::append`] with a value made of parts.
    pub fn append_joined(&mut self, name: &[u8], parts: &[String], between: &[u8]) {
        self.append_line(Known::of(name), name, |bytes| {
            for (i, part) in parts.iter().enumerate() {
                if i > 0 {
                    bytes.extend_from_slice(between);
                }
                bytes.extend_from_slice(part.as_bytes());
            }
        });
    }

    /// The line is laid out as it is sent, so that an encoder can copy whole runs of lines.
    fn append_line(&mut self, known: Known, name: &[u8], write: impl FnOnce(&mut Vec<u8>)) {
        debug_assert!(is_token(name), "field name {:?}", String::from_utf8_lossy(name));
        let name = self.intern(name);
        self.bytes.extend_from_slice(b": ");
        let start = self.bytes.len();
        write(&mut self.bytes);
        if !is_field_text(&self.bytes[start..]) {
            self.blot(start);
        }
        let value = Span::new(start, self.bytes.len());
        self.bytes.extend_from_slice(b"\r\n");
        self.list.push(Field { name, value, known, live: true });
    }

    #[cold]
    fn blot(&mut self, start: usize) {
        for byte in self.bytes[start..].iter_mut().filter(|byte| !is_field_byte(**byte)) {
            *byte = b'?';
        }
    }

    /// Removes all fields of that name and adds this one.
    pub fn set(&mut self, name: &[u8], value: &[u8]) {
        self.remove(name);
        self.append(name, value);
    }

    /// Removes all fields of that name; says whether there was one.
    pub fn remove(&mut self, name: &[u8]) -> bool {
        let known = Known::of(name);
        let Self { bytes, list } = self;
        let mut found = false;
        for field in list.iter_mut().filter(|field| field.live && field.known == known) {
            if known != Known::Other || field.name.of(bytes).eq_ignore_ascii_case(name) {
                field.live = false;
                found = true;
            }
        }
        found
    }

    pub fn remove_known(&mut self, known: Known) {
        for field in &mut self.list {
            field.live &= field.known != known;
        }
    }

    /// Removes the fields for which `condemned(known, name, value)` holds.
    pub fn remove_if(&mut self, mut condemned: impl FnMut(Known, &[u8], &[u8]) -> bool) {
        let Self { bytes, list } = self;
        for field in list.iter_mut().filter(|field| field.live) {
            field.live = !condemned(field.known, field.name.of(bytes), field.value.of(bytes));
        }
    }

    /// The value of the first field of that name.
    #[must_use]
    pub fn get(&self, name: &[u8]) -> Option<&[u8]> {
        let known = Known::of(name);
        let field = self.live().find(|field| self.is_named(field, known, name))?;
        Some(field.value.of(&self.bytes))
    }

    /// The values of all fields of that name, in order.
    pub fn get_all<'a>(&'a self, name: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        let known = Known::of(name);
        let named = self.live().filter(move |field| self.is_named(field, known, name));
        named.map(|field| field.value.of(&self.bytes))
    }

    /// `known` is that of `name`.
    fn is_named(&self, field: &Field, known: Known, name: &[u8]) -> bool {
        field.known == known
            && (known != Known::Other || field.name.of(&self.bytes).eq_ignore_ascii_case(name))
    }

    /// The value of the first field of that kind.
    #[must_use]
    pub fn known(&self, known: Known) -> Option<&[u8]> {
        self.known_all(known).next()
    }

    pub fn known_all(&self, known: Known) -> impl Iterator<Item = &[u8]> {
        self.live().filter(move |field| field.known == known).map(|f| f.value.of(&self.bytes))
    }

    /// `(name, value)` of every field that is not removed.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.live().map(|field| (field.name.of(&self.bytes), field.value.of(&self.bytes)))
    }

    /// Every field that is not removed.
    pub fn live(&self) -> impl Iterator<Item = &Field> {
        self.list.iter().filter(|field| field.live)
    }

    /// How many fields are not removed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.live().count()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.live().next().is_none()
    }
}

/// What the sender spoke.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    Http10,
    #[default]
    Http11,
    Http2,
}

impl Version {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http10 => "HTTP/1.0",
            Self::Http11 => "HTTP/1.1",
            Self::Http2 => "HTTP/2",
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scheme {
    #[default]
    Http,
    Https,
}

impl Scheme {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    #[must_use]
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// How much body follows a head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BodyLength {
    /// No body.
    #[default]
    Empty,
    /// Exactly so many bytes; never zero.
    Known(u64),
    /// Framed by the protocol (chunked, or HTTP/2 DATA), or up to the end of the connection.
    Unknown,
}

impl BodyLength {
    #[must_use]
    pub const fn of(bytes: u64) -> Self {
        if bytes == 0 { Self::Empty } else { Self::Known(bytes) }
    }
}

/// A request head: the request line's parts as spans, and the fields.
///
/// `authority` and `path` are canonical (see [`crate::authority`] and [`crate::path`]): every
/// reader, and the backend, gets these and nothing else. `target` is what the client wrote.
#[derive(Clone, Debug, Default)]
pub struct RequestHead {
    pub fields: Fields,
    pub method: Method,
    pub version: Version,
    pub scheme: Scheme,
    pub body: BodyLength,
    /// As received; for the log and for signatures only.
    pub target: Span,
    /// Canonical `host[:port]`: lower case, no default port. Empty only for HTTP/1.0 without Host.
    pub authority: Span,
    /// The canonical host without its port; IPv6 keeps its brackets.
    pub host: Span,
    /// Canonical absolute path, or `*` for `OPTIONS *`.
    pub path: Span,
    /// Without the `?`; absent and empty are different.
    pub query: Option<Span>,
}

impl RequestHead {
    /// Forgets everything and keeps the memory.
    pub fn clear(&mut self) {
        let mut fields = std::mem::take(&mut self.fields);
        fields.clear();
        *self = Self { fields, ..Self::default() };
    }

    #[must_use]
    pub fn target(&self) -> &[u8] {
        self.target.of(self.fields.bytes())
    }

    #[must_use]
    pub fn authority(&self) -> &[u8] {
        self.authority.of(self.fields.bytes())
    }

    #[must_use]
    pub fn host(&self) -> &[u8] {
        self.host.of(self.fields.bytes())
    }

    #[must_use]
    pub fn path(&self) -> &[u8] {
        self.path.of(self.fields.bytes())
    }

    #[must_use]
    pub fn query(&self) -> Option<&[u8]> {
        self.query.map(|query| query.of(self.fields.bytes()))
    }

    /// Replaces the path. `path` must be canonical: see [`crate::path::canonicalise`].
    pub fn set_path(&mut self, path: &[u8]) {
        self.path = self.fields.intern(path);
    }

    pub fn set_query(&mut self, query: Option<&[u8]>) {
        self.query = query.map(|query| self.fields.intern(query));
    }
}

/// A response head. The reason phrase of a backend is not kept: it has no meaning (RFC 9112 §4).
#[derive(Clone, Debug, Default)]
pub struct ResponseHead {
    pub fields: Fields,
    pub status: StatusCode,
    pub version: Version,
    pub body: BodyLength,
}

impl ResponseHead {
    #[must_use]
    pub fn new(status: StatusCode) -> Self {
        Self { status, ..Self::default() }
    }

    /// Forgets everything and keeps the memory.
    pub fn clear(&mut self) {
        let mut fields = std::mem::take(&mut self.fields);
        fields.clear();
        *self = Self { fields, ..Self::default() };
    }
}

/// `token` of RFC 9110 §5.6.2: field names, methods.
#[must_use]
pub fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|byte| is_token_byte(*byte))
}

#[must_use]
pub const fn is_token_byte(byte: u8) -> bool {
    matches!(byte,
        b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*'
        | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~')
}

/// What may stand in a field value: `HTAB / SP / VCHAR / obs-text` (RFC 9110 §5.5).
#[must_use]
pub const fn is_field_byte(byte: u8) -> bool {
    byte == b'\t' || (byte >= 0x20 && byte != 0x7f)
}

/// Whether all of a text may stand in a field value; eight bytes are looked at at once.
fn is_field_text(text: &[u8]) -> bool {
    /// The high bit of each byte that is a control; of those above the lowest one, perhaps others.
    const fn controls(word: u64) -> u64 {
        const ONES: u64 = 0x0101_0101_0101_0101;
        let delete = word ^ (ONES * 0x7f);
        let below = word.wrapping_sub(ONES * 0x20) & !word;
        (below | (delete.wrapping_sub(ONES) & !delete)) & (ONES * 0x80)
    }
    let (words, rest) = text.as_chunks::<8>();
    let fits = |word: &[u8; 8]| {
        controls(u64::from_ne_bytes(*word)) == 0 || word.iter().all(|byte| is_field_byte(*byte))
    };
    words.iter().all(fits) && rest.iter().all(|byte| is_field_byte(*byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn eight_bytes_at_once_fit_as_one_by_one(
            text in prop::collection::vec(prop_oneof![20 => 0x20..=0x7eu8, 1 => any::<u8>()], 0..24),
        ) {
            let fits = text.iter().all(|byte| is_field_byte(*byte));
            prop_assert_eq!(is_field_text(&text), fits);
        }
    }

    #[test]
    fn an_edit_cannot_split_a_message() {
        let mut fields = Fields::default();
        fields.append(b"x-a", b"1\r\nx-evil: 2\0\x7f");
        assert_eq!(fields.get(b"X-A"), Some(&b"1??x-evil: 2??"[..]));
    }

    #[test]
    fn set_replaces_every_field_of_the_name_and_keeps_the_rest() {
        let mut fields = Fields::default();
        fields.append(b"A", b"1");
        fields.append(b"b", b"2");
        fields.append(b"a", b"3");
        fields.set(b"a", b"4");
        let seen: Vec<_> = fields.iter().collect();
        assert_eq!(seen, [(&b"b"[..], &b"2"[..]), (b"a", b"4")]);
    }
}
