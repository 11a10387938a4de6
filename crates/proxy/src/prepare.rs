//! What a backend is told beside the client's own request: who is calling, from where, by which
//! trace. All of it in fields that the gateway owns and no client can set.

use std::io::Write as _;
use std::net::IpAddr;

use portcullis_core::known::{Known, is_alias};
use portcullis_core::planted::{Fault, is_planted};
use portcullis_core::{Exchange, Fields, Problem, RequestHead, Version, codes};
use portcullis_telemetry::trace;

use crate::forwarded::{Hops, Told, write_asked, write_for};

/// Fields only the gateway writes, beside those that begin like [`OURS`] and [`FORWARDED`]. A
/// client's field of such a name, or one that a backend could take for it (`_` or `.` for `-`), is
/// removed; so is one that a backend could take for any other that the gateway has business with.
const OWNED: &[&[u8]] = &[b"x-request-id", b"x-real-ip"];
/// Only who has verified it says whose certificate it is (RFC 9440 §4).
const CERTIFICATE: &[&[u8]] = &[b"client-cert", b"client-cert-chain"];
const OURS: &[u8] = b"portcullis";
const FORWARDED: &[u8] = b"x-forwarded";

const CLIENT: &[u8] = b"portcullis-client";
const TENANT: &[u8] = b"portcullis-tenant";
const AUTH: &[u8] = b"portcullis-auth";
const SCOPES: &[u8] = b"portcullis-scopes";
const VARIANT: &[u8] = b"portcullis-variant";
const MIRROR: &[u8] = b"portcullis-mirror";

/// What the gateway calls itself in `Via`.
const PSEUDONYM: &[u8] = b"portcullis";
/// More of our name in `Via` than any chain of gateways is long: the request goes in circles.
const PASSES_MAX: usize = 10;

/// Edits the head that goes to the backend. `trusted` says who may speak for others, `forwarded`
/// whether the backend wants `Forwarded` too.
///
/// # Errors
/// `loop-detected`, if the request has been here too often.
pub(crate) fn prepare(
    exchange: &mut Exchange,
    peer: IpAddr,
    trusted: impl Fn(IpAddr) -> bool,
    forwarded: bool,
) -> Result<(), Problem> {
    let request = &mut exchange.request;
    let told = trusted(peer).then(|| Told::of(&request.fields, peer, trusted));
    let seen = strip(&mut request.fields, told.is_some());
    if seen.via && passes(&request.fields) > PASSES_MAX {
        return Err(Problem::new(codes::LOOP_DETECTED));
    }
    if seen.cookies > 1 {
        join_cookies(&mut request.fields);
    }
    tell_origin(request, peer, told.as_ref(), forwarded);
    let via: &[u8] = match request.version {
        Version::Http10 => b"1.0 portcullis",
        Version::Http11 => b"1.1 portcullis",
        Version::Http2 => b"2 portcullis",
    };
    request.fields.append_known(Known::Via, via);
    request.fields.append_known(Known::XRequestId, exchange.request_id.as_bytes());
    trace::send(&mut request.fields, &exchange.trace);

    let told = exchange.identity.as_ref().filter(|_| !is_planted(Fault::IdentityNotTold));
    if let Some(identity) = told {
        request.fields.append(CLIENT, identity.client.as_bytes());
        request.fields.append(AUTH, identity.auth.as_bytes());
        if let Some(tenant) = &identity.tenant
            && !is_planted(Fault::TenantIgnored)
        {
            request.fields.append(TENANT, tenant.as_bytes());
        }
        if !identity.scopes.is_empty() {
            request.fields.append_joined(SCOPES, &identity.scopes, b" ");
        }
    }
    Ok(())
}

/// Says which variant of the route the request is; what clients say of it is gone by then.
pub(crate) fn tell_variant(fields: &mut Fields, name: &str) {
    fields.append(VARIANT, name.as_bytes());
}

/// Makes the head that a backend got one for a mirror: says of which route it is a copy, and leaves
/// out what the mirror is not told of requests: `forwarded` and the client's certificate.
pub(crate) fn tell_mirror(
    fields: &mut Fields,
    route: &str,
    (forwarded, certificate): (bool, bool),
) {
    fields.append(MIRROR, route.as_bytes());
    if !forwarded {
        fields.remove_known(Known::Forwarded);
    }
    if !certificate {
        let is_one = |name: &[u8]| CERTIFICATE.iter().any(|owned| is_alias(name, owned));
        fields.remove_if(|_, name, _| is_one(name));
    }
}

/// Where the request comes from, and what it asked for there.
fn tell_origin(request: &mut RequestHead, peer: IpAddr, told: Option<&Told>, forwarded: bool) {
    let mut text = [0; 45];
    let text = write_address(peer, &mut text);
    let fields = &mut request.fields;
    let proto = told.and_then(|told| told.proto).unwrap_or(request.scheme.as_str());
    let host = told.and_then(|told| told.host.as_deref());
    let host = host.map_or(request.authority, |host| fields.intern(host));
    match told {
        None => fields.append_known(Known::XForwardedFor, text),
        Some(told) => fields.append_known(Known::XForwardedFor, &[&told.list, text].concat()),
    }
    fields.append_known(Known::XForwardedProto, proto.as_bytes());
    // HTTP/1.0 may name no host.
    if !host.is_empty() {
        fields.append_span(Known::XForwardedHost, host);
    }
    if let Some(port) = told.and_then(|told| told.port) {
        fields.append(b"x-forwarded-port", port.to_string().as_bytes());
    }
    if forwarded {
        append_forwarded(fields, peer, told, |out| write_asked(out, proto, host));
    }
}

/// One element a hop. What was asked for is said once, of the hop that the client spoke to.
fn append_forwarded(
    fields: &mut Fields,
    peer: IpAddr,
    told: Option<&Told>,
    write_asked: impl FnOnce(&mut Vec<u8>),
) {
    // Laid out as it is sent, like all lines; nothing in it needs to be checked again.
    let name = fields.intern(b"forwarded");
    fields.intern(b": ");
    let (value, ()) =
        fields.intern_with(|out| match told.filter(|told| !told.elements.is_empty()) {
            None => {
                write_for(out, Ok(peer));
                write_asked(out);
            }
            Some(told) => {
                let (before, after) = told.elements.split_at(told.client_end);
                out.extend_from_slice(before);
                write_asked(out);
                out.extend_from_slice(after);
                write_for(out, Ok(peer));
            }
        });
    fields.intern(b"\r\n");
    fields.push_parsed(name, value);
}

/// The address as text, without allocating, and for IPv4 without the formatter, which would be a
/// fifth of all that is done here.
fn write_address(address: IpAddr, into: &mut [u8; 45]) -> &[u8] {
    let IpAddr::V4(address) = address else {
        let mut cursor = &mut into[..];
        // The longest address fits.
        let written = write!(cursor, "{address}").map_or(0, |()| 45 - cursor.len());
        return &into[..written];
    };
    let mut at = 0;
    let mut push = |byte| {
        into[at] = byte;
        at += 1;
    };
    for (i, octet) in address.octets().into_iter().enumerate() {
        if i > 0 {
            push(b'.');
        }
        if octet >= 100 {
            push(b'0' + octet / 100);
        }
        if octet >= 10 {
            push(b'0' + octet / 10 % 10);
        }
        push(b'0' + octet % 10);
    }
    &into[..at]
}

/// Removes what only the gateway may say.
pub(crate) fn remove_owned(fields: &mut Fields) {
    strip(fields, false);
}

/// What [`strip`] came by.
#[derive(Default)]
struct Seen {
    via: bool,
    cookies: usize,
}

/// Removes what only the gateway may say. A `trusted` peer may say more about where the request
/// comes from than the gateway reads, if it spells the names as they are.
fn strip(fields: &mut Fields, trusted: bool) -> Seen {
    let mut seen = Seen::default();
    fields.remove_if(|known, name, _| match known {
        Known::Forwarded
        | Known::XForwardedFor
        | Known::XForwardedHost
        | Known::XForwardedProto
        | Known::XRequestId
        | Known::Traceparent => true,
        Known::Other => {
            (looks_owned(name) && !(trusted && is_more(name))) || Known::aliased_by(name).is_some()
        }
        Known::Via => {
            seen.via = true;
            false
        }
        Known::Cookie => {
            seen.cookies += 1;
            false
        }
        _ => false,
    });
    seen
}

/// Names of ours, and names that only differ from them by `_` or `.`.
fn looks_owned(name: &[u8]) -> bool {
    let begins = |prefix: &[u8]| name.get(..prefix.len()).is_some_and(|n| is_alias(n, prefix));
    match name.first() {
        Some(b'p' | b'P') => begins(OURS) && !is_planted(Fault::ClientIdentityKept),
        Some(b'c' | b'C') => CERTIFICATE.iter().any(|owned| is_alias(name, owned)),
        Some(b'x' | b'X') => begins(FORWARDED) || OWNED.iter().any(|owned| is_alias(name, owned)),
        _ => false,
    }
}

/// `X-Forwarded-Prefix` and its like, but for those that are written anew.
fn is_more(name: &[u8]) -> bool {
    name.len() > FORWARDED.len()
        && name[..FORWARDED.len()].eq_ignore_ascii_case(FORWARDED)
        && name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
        && !name.eq_ignore_ascii_case(b"x-forwarded-port")
}

/// How often this gateway, or another that goes by its name, stands in `Via` (RFC 9110 §7.6.3).
fn passes(fields: &Fields) -> usize {
    let elements = fields.known_all(Known::Via).flat_map(|list| list.split(|byte| *byte == b','));
    let ours = elements.filter(|element| {
        let mut words =
            element.split(|byte| matches!(byte, b' ' | b'\t')).filter(|w| !w.is_empty());
        words.nth(1).is_some_and(|by| by.eq_ignore_ascii_case(PSEUDONYM))
    });
    ours.count()
}

/// The client's address: the right-most of the forwarded list that is not a trusted hop, if the
/// peer is one; else the peer.
pub(crate) fn client_ip(
    request: &RequestHead,
    peer: IpAddr,
    trusted: impl Fn(IpAddr) -> bool,
) -> IpAddr {
    match trusted(peer) {
        true => Hops::of(&request.fields).client(peer, trusted).0,
        false => peer,
    }
}

/// HTTP/2 clients may send a cookie in crumbs; HTTP/1.1 knows one field (RFC 9113 §8.2.3).
fn join_cookies(fields: &mut Fields) {
    let crumbs: Vec<Vec<u8>> = fields.known_all(Known::Cookie).map(<[u8]>::to_vec).collect();
    fields.remove_known(Known::Cookie);
    fields.append(b"cookie", &crumbs.join(&b"; "[..]));
}

#[cfg(test)]
mod tests;
