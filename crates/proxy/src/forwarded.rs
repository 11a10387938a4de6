//! What trusted hops say of a request, in `X-Forwarded-*` or in `Forwarded` (RFC 7239): who the
//! client is, and what it asked for before somebody in front of the gateway rewrote it.
//!
//! Both lists are read from the right, where the nearest hop wrote, so that nothing a client put in
//! front of it changes how that is read. Writing fields is `prepare`'s business.

use std::net::{IpAddr, Ipv4Addr};

use portcullis_core::head::is_token;
use portcullis_core::known::Known;
use portcullis_core::{Fields, Scheme, Span, authority};

/// Hops that are looked at and passed on, counted from the nearest.
const HOPS_MAX: usize = 64;

/// What one hop says of the one before it.
#[derive(Clone, Copy, Debug)]
struct Hop<'a> {
    /// An address, perhaps with a port, or anything else where the hop did not know or say it.
    node: &'a [u8],
    /// The whole element of `Forwarded`; empty for `X-Forwarded-For`.
    element: &'a [u8],
}

/// The hops in front of the peer, the nearest first.
#[derive(Debug)]
pub(crate) struct Hops<'a>(Vec<Hop<'a>>);

impl<'a> Hops<'a> {
    /// From `X-Forwarded-For`, or from `Forwarded` where there is none.
    pub(crate) fn of(fields: &'a Fields) -> Self {
        let lists: Vec<&[u8]> = fields.known_all(Known::XForwardedFor).collect();
        if !lists.is_empty() {
            let elements = lists.iter().rev().flat_map(|list| list.rsplit(|byte| *byte == b','));
            let hops = elements.map(|node| Hop { node: node.trim_ascii(), element: b"" });
            return Self(hops.take(HOPS_MAX).collect());
        }
        let lists: Vec<&[u8]> = fields.known_all(Known::Forwarded).collect();
        let elements = lists.iter().rev().flat_map(|list| from_right(list, b','));
        let hops = elements.map(|element| {
            let node = parameter(element, b"for").unwrap_or_default();
            Hop { node, element }
        });
        Self(hops.take(HOPS_MAX).collect())
    }

    /// The client's address, and which hop names it, counted from the nearest: the right-most that
    /// is not `trusted`. A hop that names no address ends the search at whoever said so.
    pub(crate) fn client(&self, peer: IpAddr, trusted: impl Fn(IpAddr) -> bool) -> (IpAddr, usize) {
        let mut client = peer;
        for (at, hop) in self.0.iter().enumerate() {
            let Some(address) = address(hop.node) else { return (client, at) };
            client = address;
            if !trusted(address) {
                return (client, at);
            }
        }
        (client, self.0.len().saturating_sub(1))
    }
}

/// What goes on to the backend of what a trusted peer said.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// `X-Forwarded-For`, and after each hop a comma.
    pub(crate) list: Vec<u8>,
    /// The same as elements of `Forwarded`.
    pub(crate) elements: Vec<u8>,
    /// Where in `elements` the client's element ends: what it asked for is said there.
    pub(crate) client_end: usize,
    pub(crate) proto: Option<&'static str>,
    /// Canonical `host[:port]`.
    pub(crate) host: Option<Vec<u8>>,
    pub(crate) port: Option<u16>,
}

impl Told {
    pub(crate) fn of(fields: &Fields, peer: IpAddr, trusted: impl Fn(IpAddr) -> bool) -> Self {
        let hops = Hops::of(fields);
        let (_, client) = hops.client(peer, trusted);
        let element = hops.0.get(client).map(|hop| hop.element).unwrap_or_default();
        let mut told = Self::default();
        let proto = parameter(element, b"proto").and_then(proto);
        told.proto = proto.or_else(|| single(fields, b"x-forwarded-proto").and_then(self::proto));
        let scheme = match told.proto {
            Some("https" | "wss") => Scheme::Https,
            _ => Scheme::Http,
        };
        told.host = parameter(element, b"host").and_then(|text| host(text, scheme));
        if told.host.is_none() {
            told.host = single(fields, b"x-forwarded-host").and_then(|text| host(text, scheme));
            told.port = single(fields, b"x-forwarded-port").and_then(port);
        }
        for (at, hop) in hops.0.iter().enumerate().rev() {
            let node = address(hop.node);
            match node {
                // As it came, for those who make something of a port.
                _ if hop.element.is_empty() => told.list.extend_from_slice(hop.node),
                Some(address) => write(&mut told.list, address),
                None => told.list.extend_from_slice(label(hop.node)),
            }
            told.list.extend_from_slice(b", ");
            write_for(&mut told.elements, node.ok_or(hop.node));
            if at == client {
                told.client_end = told.elements.len();
            }
            told.elements.extend_from_slice(b", ");
        }
        told
    }
}

/// `for=` and an address, or the label of a hop that is named by none (RFC 7239 §6).
pub(crate) fn write_for(out: &mut Vec<u8>, node: Result<IpAddr, &[u8]>) {
    out.extend_from_slice(b"for=");
    match node {
        Ok(IpAddr::V4(address)) => write(out, address),
        Ok(IpAddr::V6(address)) => {
            out.extend_from_slice(b"\"[");
            write(out, address);
            out.extend_from_slice(b"]\"");
        }
        Err(text) => out.extend_from_slice(label(text)),
    }
}

/// `;proto=`, and `;host=` where there is one; `host` lies in `out`. With a port, or an address of
/// IPv6, it is no token and has to be quoted (RFC 7239 §4).
pub(crate) fn write_asked(out: &mut Vec<u8>, proto: &str, host: Span) {
    out.extend_from_slice(b";proto=");
    out.extend_from_slice(proto.as_bytes());
    if host.is_empty() {
        return;
    }
    // Canonical, so there is nothing in it to escape.
    let quote: &[u8] = if is_token(host.of(out)) { b"" } else { b"\"" };
    out.extend_from_slice(b";host=");
    out.extend_from_slice(quote);
    out.extend_from_within(host.start as usize..host.end());
    out.extend_from_slice(quote);
}

fn write(out: &mut Vec<u8>, address: impl std::fmt::Display) {
    use std::io::Write as _;
    // Writing to a Vec cannot fail.
    let written = write!(out, "{address}");
    debug_assert!(written.is_ok());
}

/// An obfuscated identifier as it is, `unknown` for anything else (RFC 7239 §6.2, §6.3).
fn label(node: &[u8]) -> &[u8] {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    match node {
        [b'_', rest @ ..] if !rest.is_empty() && rest.iter().all(plain) => node,
        _ => b"unknown",
    }
}

/// The address of a node: `192.0.2.1`, `2001:db8::1`, `[2001:db8::1]`, with or without a port where
/// that leaves one reading (RFC 7239 §6, and what proxies write into `X-Forwarded-For`).
fn address(node: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(node).ok()?;
    let address = if let Some(rest) = text.strip_prefix('[') {
        let (address, after) = rest.split_once(']')?;
        let named = after.strip_prefix(':').is_some_and(is_node_port);
        let address = address.parse().ok()?;
        (after.is_empty() || named).then_some(IpAddr::V6(address))?
    } else if let Ok(address) = text.parse::<IpAddr>() {
        address
    } else {
        let (address, after) = text.split_once(':')?;
        let address: Ipv4Addr = address.parse().ok()?;
        is_node_port(after).then_some(IpAddr::V4(address))?
    };
    Some(address.to_canonical())
}

/// Up to five digits, or an obfuscated port.
fn is_node_port(text: &str) -> bool {
    let digits = (1..=5).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    digits || label(text.as_bytes()) == text.as_bytes() && text.starts_with('_')
}

/// The value of a field that is there once and lists nothing.
fn single<'a>(fields: &'a Fields, name: &'a [u8]) -> Option<&'a [u8]> {
    let mut values = fields.get_all(name);
    match (values.next(), values.next()) {
        (Some(value), None) => Some(value),
        _ => None,
    }
}

/// The schemes of HTTP and of what HTTP is upgraded to.
fn proto(text: &[u8]) -> Option<&'static str> {
    let known = ["http", "https", "ws", "wss"];
    known.into_iter().find(|scheme| text.eq_ignore_ascii_case(scheme.as_bytes()))
}

fn host(text: &[u8], scheme: Scheme) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    match authority::canonicalise(text, scheme, &mut out).ok()? {
        authority::Canonical::Prefix { authority, .. } => Some(text[..authority].to_vec()),
        authority::Canonical::Rewritten { .. } => Some(out),
    }
}

fn port(text: &[u8]) -> Option<u16> {
    let digits = text.iter().all(u8::is_ascii_digit) && text.first() != Some(&b'0');
    std::str::from_utf8(text).ok().filter(|_| digits)?.parse().ok()
}

/// The value of one parameter of an element, without its quotes. None if it is there twice or holds
/// an escape, which no node, scheme or host needs.
fn parameter<'a>(element: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let mut found = None;
    for pair in from_right(element, b';') {
        let Some(at) = pair.iter().position(|byte| *byte == b'=') else { continue };
        let (key, value) = (&pair[..at], &pair[at + 1..]);
        if !key.eq_ignore_ascii_case(name) {
            continue;
        }
        let value = match value {
            [b'"', inner @ .., b'"'] => inner,
            value => value,
        };
        if found.is_some() || value.iter().any(|byte| matches!(byte, b'"' | b'\\')) {
            return None;
        }
        found = Some(value);
    }
    found
}

/// The parts between separators outside quotes, from the right, without the blanks around them.
fn from_right(text: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let mut left = Some(text);
    std::iter::from_fn(move || {
        let text = left?;
        let mut quoted = false;
        let mut at = text.len();
        while at > 0 {
            at -= 1;
            match text[at] {
                b'"' if quoted && is_escaped(text, at) => {}
                b'"' => quoted = !quoted,
                byte if byte == separator && !quoted => {
                    left = Some(&text[..at]);
                    return Some(text[at + 1..].trim_ascii());
                }
                _ => {}
            }
        }
        left = None;
        Some(text.trim_ascii())
    })
}

fn is_escaped(text: &[u8], at: usize) -> bool {
    text[..at].iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1
}

#[cfg(test)]
mod tests;
