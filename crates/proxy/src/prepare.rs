//! What a backend is told beside the client's own request: who is calling, from where, by which
//! trace. All of it in fields that the gateway owns and no client can set.

use std::io::Write as _;
use std::net::IpAddr;

use portcullis_core::known::{Known, is_alias};
use portcullis_core::{Exchange, Fields, RequestHead};
use portcullis_telemetry::trace;

/// Fields only the gateway writes. A client's field of such a name, or one that a backend could
/// take for it (`_` or `.` for `-`), is removed.
const OWNED: &[&[u8]] = &[CLIENT, TENANT, AUTH, SCOPES, b"x-real-ip"];

const CLIENT: &[u8] = b"portcullis-client";
const TENANT: &[u8] = b"portcullis-tenant";
const AUTH: &[u8] = b"portcullis-auth";
const SCOPES: &[u8] = b"portcullis-scopes";

/// Edits the head that goes to the backend. `trusted` says whether the peer may speak for others.
pub(crate) fn prepare(exchange: &mut Exchange, peer: IpAddr, trusted: bool) {
    let mut text = [0; 45];
    let peer = write_address(peer, &mut text);
    let forwarded_for = forwarded_for(&exchange.request, peer, trusted);
    let request = &mut exchange.request;
    remove_owned(&mut request.fields);
    join_cookies(&mut request.fields);

    match forwarded_for {
        None => request.fields.append(b"x-forwarded-for", peer.as_bytes()),
        Some(list) => request.fields.append(b"x-forwarded-for", list.as_bytes()),
    }
    request.fields.append(b"x-forwarded-proto", request.scheme.as_str().as_bytes());
    let authority = request.authority;
    request.fields.append_span(b"x-forwarded-host", authority);
    request.fields.append(b"x-request-id", exchange.request_id.as_str().as_bytes());
    trace::send(&mut request.fields, &exchange.trace);

    if let Some(identity) = &exchange.identity {
        request.fields.append(CLIENT, identity.client.as_bytes());
        request.fields.append(AUTH, identity.auth.as_bytes());
        if let Some(tenant) = &identity.tenant {
            request.fields.append(TENANT, tenant.as_bytes());
        }
        if !identity.scopes.is_empty() {
            request.fields.append_joined(SCOPES, &identity.scopes, b" ");
        }
    }
}

/// The address as text, without allocating.
fn write_address(address: IpAddr, into: &mut [u8; 45]) -> &str {
    let mut cursor = &mut into[..];
    // The longest address fits.
    let written = write!(cursor, "{address}").map_or(0, |()| 45 - cursor.len());
    std::str::from_utf8(&into[..written]).unwrap_or_default()
}

/// Removes what only the gateway may say.
pub(crate) fn remove_owned(fields: &mut Fields) {
    fields.remove_if(|known, name, _| match known {
        Known::Forwarded
        | Known::XForwardedFor
        | Known::XForwardedHost
        | Known::XForwardedProto
        | Known::XRequestId
        | Known::Traceparent => true,
        Known::Other => looks_owned(name),
        _ => false,
    });
}

/// Names of ours, and names that only differ from them by `_` or `.`.
fn looks_owned(name: &[u8]) -> bool {
    const FORWARDED: &[&[u8]] = &[
        b"x-forwarded-for",
        b"x-forwarded-proto",
        b"x-forwarded-host",
        b"x-forwarded-port",
        b"x-request-id",
    ];
    match name.first() {
        Some(b'p' | b'P') => {
            name.len() >= 10 && is_alias(&name[..10], b"portcullis")
                || OWNED.iter().any(|owned| is_alias(name, owned))
        }
        Some(b'x' | b'X') => OWNED.iter().chain(FORWARDED).any(|owned| is_alias(name, owned)),
        _ => false,
    }
}

/// The list that a trusted peer sent, with the peer at its end. Strangers' lists are dropped.
fn forwarded_for(request: &RequestHead, peer: &str, trusted: bool) -> Option<String> {
    if !trusted {
        return None;
    }
    let mut list = String::new();
    for value in request.fields.known_all(Known::XForwardedFor) {
        list.push_str(&String::from_utf8_lossy(value));
        list.push_str(", ");
    }
    list.push_str(peer);
    Some(list)
}

/// The client's address: the right-most of the forwarded list that is not a trusted hop, if the
/// peer is one; else the peer.
pub(crate) fn client_ip(
    request: &RequestHead,
    peer: IpAddr,
    trusted: impl Fn(IpAddr) -> bool,
) -> IpAddr {
    if !trusted(peer) {
        return peer;
    }
    let lists: Vec<&[u8]> = request.fields.known_all(Known::XForwardedFor).collect();
    let mut last = peer;
    for element in lists.iter().rev().flat_map(|list| list.rsplit(|b| *b == b',')) {
        let text = std::str::from_utf8(element.trim_ascii()).unwrap_or_default();
        let Ok(address) = text.trim_matches(['[', ']']).parse::<IpAddr>() else { return last };
        last = address.to_canonical();
        if !trusted(last) {
            return last;
        }
    }
    last
}

/// HTTP/2 clients may send a cookie in crumbs; HTTP/1.1 knows one field (RFC 9113 §8.2.3).
fn join_cookies(fields: &mut Fields) {
    if fields.known_all(Known::Cookie).nth(1).is_none() {
        return;
    }
    let crumbs: Vec<Vec<u8>> = fields.known_all(Known::Cookie).map(<[u8]>::to_vec).collect();
    fields.remove_known(Known::Cookie);
    fields.append(b"cookie", &crumbs.join(&b"; "[..]));
}
