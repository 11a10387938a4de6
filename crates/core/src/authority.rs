//! One reading of `host[:port]`, from a Host field, an absolute target or `:authority`.
//!
//! Stricter than the grammar of RFC 3986 §3.2: no user information, no percent-encoding, no
//! sub-delimiters, because backends and caches differ in what they make of them. Names are not
//! resolved here and international names have to come as `xn--` labels.

use std::fmt;
use std::net::Ipv6Addr;

use crate::head::Scheme;
use crate::planted::{Fault, is_planted};

/// Longest name of the DNS in text form (RFC 1035 §2.3.4).
const HOST_BYTES_MAX: usize = 253;

/// Where the canonical authority is. `host` is the length of the host without its port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Canonical {
    /// It is the first `authority` bytes of the input; nothing was written.
    Prefix { authority: usize, host: usize },
    /// It was appended to `out`.
    Rewritten { host: usize },
}

/// Why an authority is refused. Always a 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthorityError {
    Empty,
    UserInfo,
    BadByte,
    BadLabel,
    BadPort,
    BadIpv6,
    TooLong,
}

impl AuthorityError {
    /// Stable, for logs and metrics.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Empty => "host-empty",
            Self::UserInfo => "host-userinfo",
            Self::BadByte => "host-bad-byte",
            Self::BadLabel => "host-bad-label",
            Self::BadPort => "host-bad-port",
            Self::BadIpv6 => "host-bad-ipv6",
            Self::TooLong => "host-too-long",
        }
    }
}

impl fmt::Display for AuthorityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

impl std::error::Error for AuthorityError {}

/// Lower-cases the host, drops one trailing dot and the scheme's default port.
///
/// On an error `out` is as before.
///
/// # Errors
/// Anything but exactly one well-formed `host[:port]`.
pub fn canonicalise(
    text: &[u8],
    scheme: Scheme,
    out: &mut Vec<u8>,
) -> Result<Canonical, AuthorityError> {
    if text.first() == Some(&b'[') {
        return literal(text, scheme, out);
    }
    let mut upper = false;
    let mut previous = b'.';
    let mut end = text.len();
    for (at, &byte) in text.iter().enumerate() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => {}
            b'A'..=b'Z' => upper = true,
            b'.' if previous == b'.' => return Err(AuthorityError::BadLabel),
            b'.' => {}
            b':' => {
                end = at;
                break;
            }
            _ => return Err(bad_byte(text)),
        }
        previous = byte;
    }
    if end == 0 {
        return Err(if text.contains(&b'@') {
            AuthorityError::UserInfo
        } else {
            AuthorityError::Empty
        });
    }
    let has_dot = previous == b'.' && !is_planted(Fault::HostDot);
    let host = &text[..end - usize::from(has_dot)];
    if host.len() > HOST_BYTES_MAX {
        return Err(AuthorityError::TooLong);
    }
    let port = port(text, end, scheme)?;
    if !upper && (port.is_none() || host.len() == end) {
        let authority = if port.is_some() { text.len() } else { host.len() };
        return Ok(Canonical::Prefix { authority, host: host.len() });
    }
    out.extend(host.iter().map(u8::to_ascii_lowercase));
    if let Some(port) = port {
        out.push(b':');
        out.extend_from_slice(port);
    }
    Ok(Canonical::Rewritten { host: host.len() })
}

fn bad_byte(text: &[u8]) -> AuthorityError {
    if text.contains(&b'@') { AuthorityError::UserInfo } else { AuthorityError::BadByte }
}

/// The port's digits after the host that ends at `end`; none if absent or the default.
fn port(text: &[u8], end: usize, scheme: Scheme) -> Result<Option<&[u8]>, AuthorityError> {
    let digits = match &text[end..] {
        [] => return Ok(None),
        [b':', digits @ ..] => digits,
        _ => return Err(bad_byte(text)),
    };
    if digits.is_empty()
        || digits.len() > 5
        || digits[0] == b'0'
        || !digits.iter().all(u8::is_ascii_digit)
    {
        return Err(if text.contains(&b'@') {
            AuthorityError::UserInfo
        } else {
            AuthorityError::BadPort
        });
    }
    let number = digits.iter().fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0'));
    if number > u32::from(u16::MAX) {
        return Err(AuthorityError::BadPort);
    }
    Ok((number != u32::from(scheme.default_port())).then_some(digits))
}

/// `[IPv6]`, rewritten in the form of RFC 5952. Zones and `IPvFuture` are refused.
fn literal(text: &[u8], scheme: Scheme, out: &mut Vec<u8>) -> Result<Canonical, AuthorityError> {
    let close = memchr::memchr(b']', text).ok_or(AuthorityError::BadIpv6)?;
    let address = std::str::from_utf8(&text[1..close]).map_err(|_| AuthorityError::BadIpv6)?;
    let address: Ipv6Addr = address.parse().map_err(|_| AuthorityError::BadIpv6)?;
    let port = port(text, close + 1, scheme)?;

    let start = out.len();
    write_ipv6(address, out);
    let host = out.len() - start;
    if out[start..] == text[..=close] {
        out.truncate(start);
        let authority = if port.is_some() { text.len() } else { host };
        return Ok(Canonical::Prefix { authority, host });
    }
    if let Some(port) = port {
        out.push(b':');
        out.extend_from_slice(port);
    }
    Ok(Canonical::Rewritten { host })
}

fn write_ipv6(address: Ipv6Addr, out: &mut Vec<u8>) {
    use std::io::Write;
    // Writing to a Vec cannot fail.
    let written = write!(out, "[{address}]");
    debug_assert!(written.is_ok());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each line is `input → verdict`, read as https where the input begins with `s `.
    fn verdict(input: &str) -> String {
        let (scheme, text) = match input.strip_prefix("s ") {
            Some(text) => (Scheme::Https, text),
            None => (Scheme::Http, input),
        };
        let mut out = b"before".to_vec();
        let (how, authority, host) = match canonicalise(text.as_bytes(), scheme, &mut out) {
            Ok(Canonical::Prefix { authority, host }) => {
                assert_eq!(out, b"before");
                ("kept", text[..authority].to_owned(), host)
            }
            Ok(Canonical::Rewritten { host }) => {
                ("rewritten", String::from_utf8(out[6..].to_vec()).unwrap(), host)
            }
            Err(error) => {
                assert_eq!(out, b"before");
                return format!("{input:24} {error}\n");
            }
        };
        let again = canonicalise(authority.as_bytes(), scheme, &mut Vec::new()).unwrap();
        assert_eq!(again, Canonical::Prefix { authority: authority.len(), host });
        format!("{input:24} {how} {authority} host {}\n", &authority[..host])
    }

    #[test]
    fn every_authority_has_one_reading_or_none() {
        let inputs = [
            "a.test",
            "A.Test",
            "a.test:80",
            "s a.test:80",
            "s a.test:443",
            "a.test:8080",
            "a.test.",
            "a.test.:80",
            "a.test.:81",
            "A.TEST:80",
            "a_b.test",
            "127.0.0.1:22",
            "[::1]",
            "[::1]:80",
            "[::1]:81",
            "[0:0::1]:81",
            "[FE80::1]",
            "",
            ":80",
            ".",
            "..",
            "a..test",
            ".a",
            "a.test..",
            "user@a.test",
            "u:p@a.test",
            "u:80@a.test",
            "@",
            "a.test b",
            "a.test,b.test",
            "a.test/evil",
            "a.test:",
            "a.test:65536",
            "a.test:+80",
            "a.test:080",
            "a.test:0",
            "a.test:80abc",
            "a.test:80:80",
            "a%2etest",
            "a.test\\b",
            "a.test?x",
            "a.test#x",
            "[::1",
            "[::1]x",
            "[fe80::1%25eth0]",
            "[v1.x]",
            "[1.2.3.4]",
            "::1",
            "é.test",
            "a.test;x",
            "[]",
        ];
        let seen: String = inputs.iter().map(|input| verdict(input)).collect();
        expect_test::expect![[r#"
            a.test                   kept a.test host a.test
            A.Test                   rewritten a.test host a.test
            a.test:80                kept a.test host a.test
            s a.test:80              kept a.test:80 host a.test
            s a.test:443             kept a.test host a.test
            a.test:8080              kept a.test:8080 host a.test
            a.test.                  kept a.test host a.test
            a.test.:80               kept a.test host a.test
            a.test.:81               rewritten a.test:81 host a.test
            A.TEST:80                rewritten a.test host a.test
            a_b.test                 kept a_b.test host a_b.test
            127.0.0.1:22             kept 127.0.0.1:22 host 127.0.0.1
            [::1]                    kept [::1] host [::1]
            [::1]:80                 kept [::1] host [::1]
            [::1]:81                 kept [::1]:81 host [::1]
            [0:0::1]:81              rewritten [::1]:81 host [::1]
            [FE80::1]                rewritten [fe80::1] host [fe80::1]
                                     host-empty
            :80                      host-empty
            .                        host-bad-label
            ..                       host-bad-label
            a..test                  host-bad-label
            .a                       host-bad-label
            a.test..                 host-bad-label
            user@a.test              host-userinfo
            u:p@a.test               host-userinfo
            u:80@a.test              host-userinfo
            @                        host-userinfo
            a.test b                 host-bad-byte
            a.test,b.test            host-bad-byte
            a.test/evil              host-bad-byte
            a.test:                  host-bad-port
            a.test:65536             host-bad-port
            a.test:+80               host-bad-port
            a.test:080               host-bad-port
            a.test:0                 host-bad-port
            a.test:80abc             host-bad-port
            a.test:80:80             host-bad-port
            a%2etest                 host-bad-byte
            a.test\b                 host-bad-byte
            a.test?x                 host-bad-byte
            a.test#x                 host-bad-byte
            [::1                     host-bad-ipv6
            [::1]x                   host-bad-byte
            [fe80::1%25eth0]         host-bad-ipv6
            [v1.x]                   host-bad-ipv6
            [1.2.3.4]                host-bad-ipv6
            ::1                      host-empty
            é.test                   host-bad-byte
            a.test;x                 host-bad-byte
            []                       host-bad-ipv6
        "#]]
        .assert_eq(&seen);
    }

    #[test]
    fn a_name_is_at_most_253_bytes_long() {
        let label = "a.".repeat(126);
        assert!(canonicalise(format!("{label}b").as_bytes(), Scheme::Http, &mut vec![]).is_ok());
        assert_eq!(
            canonicalise(format!("{label}bb").as_bytes(), Scheme::Http, &mut vec![]),
            Err(AuthorityError::TooLong)
        );
    }
}
