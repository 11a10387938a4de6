//! How a sender signs: where its codes and its time are, and what the codes are of.
//!
//! A form must not leave two readings of one message: else what is signed as a part of the body
//! could be passed off as an id. So the texts beside an id or a time end it, and neither may
//! have in it what ends it.

use std::str::FromStr;
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portcullis_core::RequestHead;

use crate::auth::place::Place;

/// Codes in one request: several while a secret is changed.
const ITEMS_MAX: usize = 16;
const ID_BYTES_MAX: usize = 256;
/// Seconds until the year 33658.
const DIGITS_MAX: usize = 12;

#[derive(Clone, Debug)]
pub(super) struct Form {
    /// Where the codes are.
    pub(super) place: Place,
    /// Between the items of that field, where it has several.
    separator: Option<u8>,
    /// Before the code itself.
    prefix: Box<str>,
    encoding: Encoding,
    stamp: Option<Stamp>,
    /// The field with the request's id.
    id: Option<Box<str>>,
    message: Vec<Piece>,
    pub(super) algorithm: hmac::Algorithm,
    /// Whether secrets are bytes in base64 by the sender's own rules.
    pub(super) secrets_are_base64: bool,
}

#[derive(Clone, Copy, Debug)]
enum Encoding {
    Hex,
    Base64,
}

/// Where the time is: in a field of its own, or an item of that with the codes.
#[derive(Clone, Debug)]
enum Stamp {
    Field(Box<str>),
    Item(Box<str>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(Box<str>),
    Timestamp,
    Id,
    Body,
}

/// What is written of a form.
#[derive(Clone, Copy, Debug)]
pub(super) struct Written<'a> {
    pub(super) header: &'a str,
    pub(super) signature: &'a str,
    pub(super) separator: Option<&'a str>,
    pub(super) timestamp: Option<&'a str>,
    pub(super) id: Option<&'a str>,
    pub(super) message: &'a str,
    pub(super) algorithm: hmac::Algorithm,
    pub(super) secrets_are_base64: bool,
}

/// What a request says of itself.
pub(super) struct Signed {
    /// Each as long as a code of the algorithm.
    pub(super) tags: Vec<Vec<u8>>,
    /// As it was written, and what that is since 1970.
    timestamp: Vec<u8>,
    pub(super) made: Option<Duration>,
    id: Vec<u8>,
}

impl Form {
    /// # Errors
    /// For the operator: what is wrong with it.
    pub(super) fn read_settings(written: Written<'_>) -> Result<Self, String> {
        let field =
            |name: &str| Place::from_str(&format!("header:{name}")).map_err(|fault| fault.message);
        let separator = written.separator.map(separator).transpose()?;
        let (prefix, encoding) = code(written.signature)?;
        if separator.is_some_and(|separator| prefix.as_bytes().contains(&separator)) {
            return Err("the separator is a part of `signature`".to_owned());
        }
        let stamp = match written.timestamp.map(|text| (text, text.strip_suffix("${timestamp}"))) {
            None => None,
            Some((_, Some(prefix))) if separator.is_none() || prefix.is_empty() => {
                return Err("a `timestamp` among the signatures needs a `separator` and a text \
                            before it, as in `t=${timestamp}`"
                    .to_owned());
            }
            Some((_, Some(prefix))) => Some(Stamp::Item(prefix.into())),
            Some((name, None)) => field(name).map(|_| Some(Stamp::Field(name.into())))?,
        };
        let id = written.id.map(|name| field(name).map(|_| name.into())).transpose()?;
        let message = pieces(written.message)?;
        for (piece, name, there) in
            [(Piece::Timestamp, "timestamp", stamp.is_some()), (Piece::Id, "id", id.is_some())]
        {
            if message.contains(&piece) != there {
                return Err(format!(
                    "`{name}` says where it is, and `${{{name}}}` in `message` that it is signed: \
                     both or neither"
                ));
            }
        }
        let place = field(written.header)?;
        let Written { algorithm, secrets_are_base64, .. } = written;
        let prefix = prefix.into();
        Ok(Self {
            place,
            separator,
            prefix,
            encoding,
            stamp,
            id,
            message,
            algorithm,
            secrets_are_base64,
        })
    }

    /// Whether what is signed says when it was made.
    pub(super) fn has_time(&self) -> bool {
        self.stamp.is_some()
    }

    /// # Errors
    /// For the log.
    pub(super) fn read(&self, value: &[u8], request: &RequestHead) -> Result<Signed, &'static str> {
        let (mut tags, mut stamps) = (Vec::new(), Vec::new());
        for (at, item) in self.items(value).enumerate() {
            if at == ITEMS_MAX {
                return Err("too many signatures");
            }
            if let Some(Stamp::Item(prefix)) = &self.stamp
                && let Some(text) = item.strip_prefix(prefix.as_bytes())
            {
                stamps.push(text);
            } else if let Some(text) = item.strip_prefix(self.prefix.as_bytes()) {
                tags.push(self.tag(text).ok_or("a signature that cannot be read")?);
            }
        }
        if tags.is_empty() {
            return Err("no signature of the kind that is taken");
        }
        if let Some(Stamp::Field(name)) = &self.stamp {
            stamps.extend(request.fields.get_all(name.as_bytes()));
        }
        let (timestamp, made) = match (&self.stamp, &*stamps) {
            (None, _) => (Vec::new(), None),
            (Some(_), [text]) => {
                let made = seconds(text).ok_or("the time is not in seconds since 1970")?;
                (text.to_vec(), Some(made))
            }
            (Some(_), []) => return Err("it does not say when it was made"),
            (Some(_), _) => return Err("it says twice when it was made"),
        };
        let id = self.id.as_deref().map_or(Ok(Vec::new()), |name| self.id_in(name, request))?;
        Ok(Signed { tags, timestamp, made, id })
    }

    fn items<'a>(&self, value: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        let separator = self.separator;
        let items = value.split(move |byte| Some(*byte) == separator);
        items.map(<[u8]>::trim_ascii).filter(|item| !item.is_empty())
    }

    fn tag(&self, text: &[u8]) -> Option<Vec<u8>> {
        let bytes = match self.encoding {
            Encoding::Hex => from_hex(text)?,
            Encoding::Base64 => STANDARD.decode(text).ok()?,
        };
        (bytes.len() == self.algorithm.digest_algorithm().output_len()).then_some(bytes)
    }

    fn id_in(&self, name: &str, request: &RequestHead) -> Result<Vec<u8>, &'static str> {
        let mut found = request.fields.get_all(name.as_bytes());
        let (Some(id), None) = (found.next(), found.next()) else {
            return Err("it has no id, or two");
        };
        let is_plain = id.iter().all(u8::is_ascii_graphic) && !id.iter().any(|b| self.ends_id(*b));
        match is_plain && (1..=ID_BYTES_MAX).contains(&id.len()) {
            true => Ok(id.to_vec()),
            false => Err("its id is none"),
        }
    }

    /// Whether this stands beside an id in a message.
    fn ends_id(&self, byte: u8) -> bool {
        self.message.windows(2).any(|pair| match pair {
            [Piece::Text(text), Piece::Id] => text.as_bytes().last() == Some(&byte),
            [Piece::Id, Piece::Text(text)] => text.as_bytes().first() == Some(&byte),
            _ => false,
        })
    }

    /// The code that a request has to have.
    pub(super) fn code(&self, key: &hmac::Key, signed: &Signed, body: &[u8]) -> hmac::Tag {
        let mut context = hmac::Context::with_key(key);
        for piece in &self.message {
            context.update(match piece {
                Piece::Text(text) => text.as_bytes(),
                Piece::Timestamp => &signed.timestamp,
                Piece::Id => &signed.id,
                Piece::Body => body,
            });
        }
        context.sign()
    }
}

fn separator(text: &str) -> Result<u8, String> {
    match text.as_bytes() {
        [byte] if byte.is_ascii_punctuation() || *byte == b' ' => Ok(*byte),
        _ => Err("a `separator` is one character: `,`, `;` or a space".to_owned()),
    }
}

/// What is before a code, and how it is written.
fn code(text: &str) -> Result<(&str, Encoding), String> {
    let forms = [("${hex}", Encoding::Hex), ("${base64}", Encoding::Base64)];
    let found = forms
        .iter()
        .find_map(|(ending, encoding)| text.strip_suffix(ending).map(|prefix| (prefix, *encoding)));
    match found {
        Some((prefix, _))
            if prefix.contains("${") || !prefix.bytes().all(|b| b.is_ascii_graphic()) =>
        {
            Err("a `signature` is a text and the code: `sha256=${hex}`".to_owned())
        }
        Some(found) => Ok(found),
        None => Err("a `signature` ends with `${hex}` or `${base64}`".to_owned()),
    }
}

fn pieces(text: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        let (before, variable) = rest.split_at(start);
        if !before.is_empty() {
            pieces.push(Piece::Text(before.into()));
        }
        let known =
            [("${timestamp}", Piece::Timestamp), ("${id}", Piece::Id), ("${body}", Piece::Body)];
        let found = known
            .iter()
            .find_map(|(name, piece)| variable.strip_prefix(name).map(|after| (after, piece)));
        let (after, piece) =
            found.ok_or("a `message` is of texts, `${timestamp}`, `${id}` and `${body}`")?;
        if pieces.contains(piece) {
            return Err("each part of a `message` is there once".to_owned());
        }
        pieces.push(piece.clone());
        rest = after;
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest.into()));
    }
    if !pieces.contains(&Piece::Body) {
        return Err("a `message` has the `${body}` in it".to_owned());
    }
    let apart = |byte: Option<u8>| byte.is_some_and(|byte| !byte.is_ascii_alphanumeric());
    let is_clear = pieces.windows(2).all(|pair| match pair {
        [Piece::Text(_), Piece::Body] | [Piece::Body, Piece::Text(_)] => true,
        [Piece::Text(text), _] => apart(text.bytes().next_back()),
        [_, Piece::Text(text)] => apart(text.bytes().next()),
        _ => false,
    });
    match is_clear {
        true => Ok(pieces),
        false => {
            Err("between the parts of a `message` stands what is in neither: a `.` or a `:`"
                .to_owned())
        }
    }
}

fn seconds(text: &[u8]) -> Option<Duration> {
    if !(1..=DIGITS_MAX).contains(&text.len()) || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    str::from_utf8(text).ok()?.parse().ok().map(Duration::from_secs)
}

fn from_hex(text: &[u8]) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_chunks::<2>();
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let byte = |[high, low]: &[u8; 2]| Some((digit(*high)? << 4 | digit(*low)?) as u8);
    rest.is_empty().then(|| pairs.iter().map(byte).collect()).flatten()
}
