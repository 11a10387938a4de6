//! A canonical authority stays as it is, and another reader sees the same host and port in it.

use std::net::Ipv6Addr;

use portcullis_core::Scheme;
use portcullis_core::authority::{Canonical, canonicalise};

/// One byte of choices, then what stands in a Host field.
///
/// # Panics
/// Where the canonical form can be read in two ways.
pub fn authority(input: &[u8]) {
    let Some((&choice, text)) = input.split_first() else { return };
    let scheme = if choice & 1 == 0 { Scheme::Http } else { Scheme::Https };
    let mut out = b"before".to_vec();
    let (first, host) = match canonicalise(text, scheme, &mut out) {
        Ok(Canonical::Prefix { authority, host }) => {
            assert_eq!(out, b"before");
            (text[..authority].to_vec(), host)
        }
        Ok(Canonical::Rewritten { host }) => (out[6..].to_vec(), host),
        Err(_) => return assert_eq!(out, b"before"),
    };
    assert_eq!(&out[..6], b"before");
    let shown = format!("{} from {}", first.escape_ascii(), text.escape_ascii());

    let again = canonicalise(&first, scheme, &mut out);
    assert_eq!(again, Ok(Canonical::Prefix { authority: first.len(), host }), "{shown}");
    // Neither user information, nor a second host, nor anything that ends a line or a word.
    let plain =
        |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._:[]".contains(byte);
    assert!(first.iter().all(plain), "{shown}");

    let (name, rest) = first.split_at(host);
    one_host(name, text, &shown);
    let port = match rest {
        [] => None,
        [b':', digits @ ..] => {
            let digits = std::str::from_utf8(digits).expect("plain bytes are text");
            let port: u16 = digits.parse().expect("a port is a number");
            assert_eq!(port.to_string(), digits, "{shown}");
            assert!(port != 0 && port != scheme.default_port(), "{shown}");
            Some(port)
        }
        _ => panic!("{shown}"),
    };
    let other: http::uri::Authority = std::str::from_utf8(&first)
        .expect("plain bytes are text")
        .parse()
        .unwrap_or_else(|error| panic!("{shown}: {error}"));
    assert_eq!((other.host().as_bytes(), other.port_u16()), (name, port), "{shown}");
}

/// A name of labels, or an IPv6 address in its one form, and the one that was written.
fn one_host(name: &[u8], text: &[u8], shown: &str) {
    if let [b'[', address @ .., b']'] = name {
        let address: Ipv6Addr = std::str::from_utf8(address)
            .expect("plain bytes are text")
            .parse()
            .unwrap_or_else(|error| panic!("{shown}: {error}"));
        assert_eq!(format!("[{address}]").as_bytes(), name, "{shown}");
        return;
    }
    assert!((1..=253).contains(&name.len()), "{shown}");
    for label in name.split(|byte| *byte == b'.') {
        let fits = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        assert!(!label.is_empty() && label.iter().all(fits), "{shown}");
    }
    assert!(text[..name.len()].eq_ignore_ascii_case(name), "{shown}");
}
