//! The request target's form, and its parts (RFC 9112 §3.2).

use http::Method;
use portcullis_core::Scheme;

use crate::error::RequestError;

/// A target, split; ranges count from its first byte.
pub(crate) enum Target<'a> {
    /// `/path?query`.
    Origin,
    /// `http://authority/path?query`.
    Absolute { authority: &'a [u8], start: usize },
    /// `*`, for OPTIONS only.
    Asterisk,
}

impl<'a> Target<'a> {
    /// `target` is visible ASCII and not empty.
    pub(crate) fn of(
        target: &'a [u8],
        method: &Method,
        scheme: Scheme,
    ) -> Result<Self, RequestError> {
        match target {
            [b'/', ..] => Ok(Self::Origin),
            b"*" if *method == Method::OPTIONS => Ok(Self::Asterisk),
            _ => Self::absolute(target, scheme),
        }
    }

    fn absolute(target: &'a [u8], scheme: Scheme) -> Result<Self, RequestError> {
        let begins = |prefix: &[u8]| {
            target.get(..prefix.len()).is_some_and(|text| text.eq_ignore_ascii_case(prefix))
        };
        let (named, start) = if begins(b"http://") {
            (Scheme::Http, 7)
        } else if begins(b"https://") {
            (Scheme::Https, 8)
        } else {
            return Err(RequestError::BadTarget);
        };
        if named != scheme {
            return Err(RequestError::SchemeMismatch);
        }
        let rest = &target[start..];
        let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?' | b'#' | b'\\'));
        Ok(Self::Absolute { authority: &rest[..end.unwrap_or(rest.len())], start })
    }
}
