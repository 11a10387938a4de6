//! Finding a body's data in the bytes of a connection.

use std::ops::Range;

use portcullis_core::{BodyLength, Fields};

use crate::chunked::Chunked;
use crate::error::BodyError;

/// One step through a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// So many bytes of the input are done with. Zero with `end` unset: more input is needed.
    pub consumed: usize,
    /// The body data among them; may be empty.
    pub data: Range<usize>,
    /// The body is complete. What follows `consumed` belongs to the next message.
    pub end: bool,
}

/// Reads one body. Data is never copied: it is reported as a range of the input.
#[derive(Debug)]
pub enum BodyDecoder {
    None,
    /// So many bytes are still to come.
    Length(u64),
    Chunked(Chunked),
    UntilClose,
}

impl BodyDecoder {
    /// For the body of a head: `length` is its `body`, `chunked` comes with its facts.
    #[must_use]
    pub fn new(length: BodyLength, chunked: bool) -> Self {
        match length {
            BodyLength::Empty => Self::None,
            BodyLength::Known(length) => Self::Length(length),
            BodyLength::Unknown if chunked => Self::Chunked(Chunked::default()),
            BodyLength::Unknown => Self::UntilClose,
        }
    }

    /// Takes the next step. Call until the input is used up or the body ends.
    ///
    /// # Errors
    /// The chunked coding is broken. The connection cannot be used any more.
    pub fn decode(&mut self, input: &[u8]) -> Result<Step, BodyError> {
        match self {
            Self::None | Self::Length(0) => Ok(Step { consumed: 0, data: 0..0, end: true }),
            Self::Length(left) => {
                let taken = usize::try_from(*left).map_or(input.len(), |n| n.min(input.len()));
                *left -= taken as u64;
                Ok(Step { consumed: taken, data: 0..taken, end: *left == 0 })
            }
            Self::Chunked(chunked) => chunked.decode(input),
            Self::UntilClose => {
                Ok(Step { consumed: input.len(), data: 0..input.len(), end: false })
            }
        }
    }

    /// The connection ended: says whether the body may end there.
    ///
    /// # Errors
    /// [`BodyError::Truncated`]: whoever receives the body must not take it for complete.
    pub fn finish(&self) -> Result<(), BodyError> {
        if self.is_complete() || matches!(self, Self::UntilClose) {
            Ok(())
        } else {
            Err(BodyError::Truncated)
        }
    }

    /// All of the body was read.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        match self {
            Self::None | Self::Length(0) => true,
            Self::Length(_) | Self::UntilClose => false,
            Self::Chunked(chunked) => chunked.is_complete(),
        }
    }

    /// The trailer fields that may be passed on, once the body is complete.
    #[must_use]
    pub fn trailers(&self) -> Option<&Fields> {
        match self {
            Self::Chunked(chunked) => chunked.trailers(),
            _ => None,
        }
    }
}
