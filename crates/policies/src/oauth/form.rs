//! `application/x-www-form-urlencoded`, as the endpoints of OAuth 2.0 read it (RFC 6749 appendix
//! B).

use bytes::Bytes;

pub(crate) const CONTENT_TYPE: &str = "application/x-www-form-urlencoded";

/// Parameters in the order in which they were added. It is never printed: it holds secrets.
#[derive(Default)]
pub(crate) struct Form(Vec<u8>);

impl Form {
    pub(crate) fn with(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.push(name, value);
        self
    }

    pub(crate) fn push(&mut self, name: &str, value: impl AsRef<[u8]>) {
        if !self.0.is_empty() {
            self.0.push(b'&');
        }
        encode(name.as_bytes(), &mut self.0);
        self.0.push(b'=');
        encode(value.as_ref(), &mut self.0);
    }

    pub(crate) fn into_body(self) -> Bytes {
        self.0.into()
    }

    /// For the query of an authorization request.
    pub(crate) fn into_query(self) -> String {
        // Only ASCII was written.
        String::from_utf8(self.0).unwrap_or_default()
    }
}

/// One name or value: letters, digits, `*-._` as they are, a space as `+`, the rest by `%`.
pub(crate) fn encode(text: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text {
        match byte {
            b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'*' | b'-' | b'.' | b'_' => out.push(*byte),
            b' ' => out.push(b'+'),
            _ => {
                let (high, low) = (usize::from(byte >> 4), usize::from(byte & 15));
                out.extend_from_slice(&[b'%', DIGITS[high], DIGITS[low]]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 6749 appendix B, and what would end a parameter.
    #[test]
    fn what_could_be_misread_is_escaped() {
        let form = Form::default().with("a b", " %&+£€").with("c", "x=y~\0").with("d", "");
        let body = form.into_body();
        assert_eq!(body, "a+b=+%25%26%2B%C2%A3%E2%82%AC&c=x%3Dy%7E%00&d=");
        assert_eq!(Form::default().with("*-._", "A9").into_query(), "*-._=A9");
    }
}
