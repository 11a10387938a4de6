//! The chunked transfer coding, read strictly (RFC 9112 §7.1).
//!
//! Every byte is consumed as it comes, so it makes no difference how the input is cut. Extensions
//! are checked and dropped: they concern one hop, and readers disagree on where they end.

use portcullis_core::Fields;
use portcullis_core::head::is_token_byte;

use crate::body::Step;
use crate::error::{BodyError, HeadError};
use crate::lines::{HeadLimits, read_trailers};

const SIZE_DIGITS_MAX: u8 = 16;
/// Of all chunks of a body together, so that a body cannot be nearly all extensions.
const EXTENSION_BYTES_MAX: u32 = 16 * 1024;
const TRAILER_LIMITS: HeadLimits =
    HeadLimits { head_bytes_max: 8 * 1024, fields_max: 32, target_bytes_max: 0 };

/// Reads one chunked body.
#[derive(Debug, Default)]
pub struct Chunked {
    state: State,
    /// Size of the chunk being read, then what is left of it.
    left: u64,
    extension_bytes: u32,
    trailers: Option<Box<Trailers>>,
}

#[derive(Debug, Default)]
struct Trailers {
    block: Vec<u8>,
    fields: Fields,
}

/// What the next byte belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Size { digits: u8 },
    ExtensionName { empty: bool },
    ExtensionValue,
    ExtensionToken,
    Quoted,
    QuotedPair,
    QuotedEnd,
    SizeLineFeed,
    Data,
    DataReturn,
    DataLineFeed,
    TrailerStart,
    TrailerLines,
    LastLineFeed,
    Complete,
}

impl Default for State {
    fn default() -> Self {
        Self::Size { digits: 0 }
    }
}

impl Chunked {
    pub(crate) fn is_complete(&self) -> bool {
        self.state == State::Complete
    }

    pub(crate) fn trailers(&self) -> Option<&Fields> {
        self.trailers.as_ref().map(|trailers| &trailers.fields).filter(|fields| !fields.is_empty())
    }

    pub(crate) fn decode(&mut self, input: &[u8]) -> Result<Step, BodyError> {
        let mut at = 0;
        while self.state != State::Complete {
            if self.state == State::Data {
                let rest = input.len() - at;
                let taken = usize::try_from(self.left).map_or(rest, |left| left.min(rest));
                self.left -= taken as u64;
                if self.left == 0 {
                    self.state = State::DataReturn;
                }
                return Ok(Step { consumed: at + taken, data: at..at + taken, end: false });
            }
            if self.state == State::TrailerLines {
                at += self.trailer_lines(&input[at..])?;
                if self.state == State::TrailerLines {
                    break;
                }
                continue;
            }
            let Some(&byte) = input.get(at) else { break };
            self.state = self.after(byte)?;
            if self.state != State::TrailerLines {
                at += 1;
            }
        }
        Ok(Step { consumed: at, data: at..at, end: self.state == State::Complete })
    }

    fn after(&mut self, byte: u8) -> Result<State, BodyError> {
        match self.state {
            State::Size { digits } => self.after_size(byte, digits),
            State::SizeLineFeed if byte == b'\n' => {
                Ok(if self.left == 0 { State::TrailerStart } else { State::Data })
            }
            State::SizeLineFeed => Err(BodyError::BadChunkSize),
            State::DataReturn if byte == b'\r' => Ok(State::DataLineFeed),
            State::DataLineFeed if byte == b'\n' => Ok(State::default()),
            State::TrailerStart if byte == b'\r' => Ok(State::LastLineFeed),
            State::TrailerStart => Ok(State::TrailerLines),
            State::LastLineFeed if byte == b'\n' => Ok(State::Complete),
            State::DataReturn | State::DataLineFeed | State::LastLineFeed => {
                Err(BodyError::BadChunkEnd)
            }
            State::Data | State::TrailerLines | State::Complete => Ok(self.state),
            _ => self.after_extension(byte),
        }
    }

    fn after_size(&mut self, byte: u8, digits: u8) -> Result<State, BodyError> {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            b'A'..=b'F' => byte - b'A' + 10,
            b'\r' if digits > 0 => return Ok(State::SizeLineFeed),
            b';' if digits > 0 => return Ok(State::ExtensionName { empty: true }),
            _ => return Err(BodyError::BadChunkSize),
        };
        if digits == 0 {
            self.left = 0;
        }
        self.left = self.left << 4 | u64::from(digit);
        // Beyond 2^63 somebody counts negative.
        if digits == SIZE_DIGITS_MAX || self.left > i64::MAX as u64 {
            return Err(BodyError::BadChunkSize);
        }
        Ok(State::Size { digits: digits + 1 })
    }

    /// `*( ";" token [ "=" ( token / quoted-string ) ] )`, without any blank.
    fn after_extension(&mut self, byte: u8) -> Result<State, BodyError> {
        self.extension_bytes += 1;
        if self.extension_bytes > EXTENSION_BYTES_MAX {
            return Err(BodyError::ChunkExtensionsTooLong);
        }
        match (self.state, byte) {
            (State::ExtensionName { empty: false }, b'=') => Ok(State::ExtensionValue),
            (State::ExtensionValue, b'"') => Ok(State::Quoted),
            (State::Quoted, b'"') => Ok(State::QuotedEnd),
            (State::Quoted, b'\\') => Ok(State::QuotedPair),
            (State::Quoted | State::QuotedPair, b'\t' | 0x20..=0x7e | 0x80..) => Ok(State::Quoted),
            (
                State::ExtensionName { empty: false } | State::ExtensionToken | State::QuotedEnd,
                b'\r',
            ) => Ok(State::SizeLineFeed),
            (
                State::ExtensionName { empty: false } | State::ExtensionToken | State::QuotedEnd,
                b';',
            ) => Ok(State::ExtensionName { empty: true }),
            (State::ExtensionName { .. }, byte) if is_token_byte(byte) => {
                Ok(State::ExtensionName { empty: false })
            }
            (State::ExtensionValue | State::ExtensionToken, byte) if is_token_byte(byte) => {
                Ok(State::ExtensionToken)
            }
            _ => Err(BodyError::BadChunkExtension),
        }
    }

    /// Gathers the trailer section and reads it once its empty line has come.
    fn trailer_lines(&mut self, input: &[u8]) -> Result<usize, BodyError> {
        let trailers = self.trailers.get_or_insert_default();
        let block = &mut trailers.block;
        let mut taken = 0;
        while let Some(end) = memchr::memchr(b'\n', &input[taken..]) {
            block.extend_from_slice(&input[taken..=taken + end]);
            taken += end + 1;
            if block.len() > TRAILER_LIMITS.head_bytes_max {
                return Err(BodyError::TrailersTooLarge);
            }
            if !block.ends_with(b"\r\n") {
                return Err(BodyError::BadTrailer(HeadError::BareLineFeed));
            }
            if block.ends_with(b"\r\n\r\n") {
                trailers.fields = read_trailers(block, &TRAILER_LIMITS).map_err(trailer_error)?;
                self.state = State::Complete;
                return Ok(taken);
            }
        }
        block.extend_from_slice(&input[taken..]);
        if block.len() > TRAILER_LIMITS.head_bytes_max {
            return Err(BodyError::TrailersTooLarge);
        }
        Ok(input.len())
    }
}

fn trailer_error(error: HeadError) -> BodyError {
    match error {
        HeadError::TooLarge | HeadError::TooManyFields => BodyError::TrailersTooLarge,
        error => BodyError::BadTrailer(error),
    }
}

#[cfg(test)]
mod tests;
