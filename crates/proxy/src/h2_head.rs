//! An HTTP/2 head in the form that everybody else reads, or the reason why not (RFC 9113 §8.3).

use h2::ext::Protocol;
use http::{HeaderMap, HeaderName, HeaderValue, Method, request};
use portcullis_core::exchange::Connection;
use portcullis_core::known::Known;
use portcullis_core::path::{self, RulesByHost};
use portcullis_core::{
    BodyLength, Fields, Problem, RequestHead, Scheme, Span, Version, authority, codes,
};
use portcullis_http1::{is_forbidden_trailer, is_framing_alias};
use portcullis_snapshot::Listener;

fn malformed(reason: &str) -> Problem {
    Problem::new(codes::MALFORMED_REQUEST).detail(reason)
}

/// Fills the head, and says whether it opens a WebSocket (RFC 8441): such a request is a GET for
/// everybody else. The `h2` crate has refused pseudo-fields out of place and upper-case names.
pub(crate) fn fill(
    head: &mut RequestHead,
    parts: &request::Parts,
    ended: bool,
    listener: &Listener,
    facts: &Connection,
) -> Result<bool, Problem> {
    head.clear();
    head.version = Version::Http2;
    head.method = parts.method.clone();
    head.scheme = if facts.tls.is_some() { Scheme::Https } else { Scheme::Http };
    let limits = &listener.limits;
    if parts.headers.len() > limits.fields_max as usize {
        return Err(Problem::new(codes::HEAD_TOO_LARGE).detail("too-many-fields"));
    }
    if size(parts) > limits.head_bytes_max as usize {
        return Err(Problem::new(codes::HEAD_TOO_LARGE).detail("head-too-large"));
    }
    let hosts = fields(head, &parts.headers)?;
    set_authority(head, parts, &hosts)?;
    set_target(head, parts, listener)?;
    if let Some(protocol) = parts.extensions.get::<Protocol>() {
        let version = head.fields.get(b"sec-websocket-version");
        if protocol.as_str() != "websocket" || version != Some(b"13") || ended {
            let detail = format!("CONNECT for {}", protocol.as_str().escape_debug());
            return Err(Problem::new(codes::METHOD_NOT_ALLOWED).detail(detail));
        }
        head.method = Method::GET;
        return Ok(true);
    }
    if matches!(head.method, Method::CONNECT | Method::TRACE) {
        return Err(Problem::new(codes::METHOD_NOT_ALLOWED));
    }
    head.body = match (ended, length(&parts.headers)?) {
        (true, None | Some(0)) => BodyLength::Empty,
        (true, Some(_)) => return Err(malformed("content-length without a body")),
        (false, Some(length)) => BodyLength::of(length),
        (false, None) => BodyLength::Unknown,
    };
    Ok(false)
}

/// As SETTINGS_MAX_HEADER_LIST_SIZE counts (RFC 9113 §6.5.2).
fn size(parts: &request::Parts) -> usize {
    let field = |name: usize, value: usize| name + value + 32;
    let uri = &parts.uri;
    let scheme = uri.scheme_str().map_or(0, |scheme| field(7, scheme.len()));
    let authority = uri.authority().map_or(0, |authority| field(10, authority.as_str().len()));
    let path = uri.path_and_query().map_or(0, |path| field(5, path.as_str().len()));
    let pseudo = field(7, parts.method.as_str().len()) + scheme + authority + path;
    let fields = parts.headers.iter();
    pseudo + fields.map(|(name, value)| field(name.as_str().len(), value.len())).sum::<usize>()
}

/// Takes the fields over, without Host; gives the Host fields back.
fn fields(head: &mut RequestHead, map: &HeaderMap) -> Result<Vec<Vec<u8>>, Problem> {
    let mut hosts = Vec::new();
    for (name, value) in map {
        let name = name.as_str().as_bytes();
        let known = Known::of(name);
        match known {
            Known::Host => hosts.push(value.as_bytes().to_vec()),
            Known::Te if value.as_bytes() == b"trailers" => {}
            known if known.is_hop_by_hop() && known != Known::Trailer => {
                return Err(malformed("a field of HTTP/1.1 connections"));
            }
            Known::Expect if !value.as_bytes().eq_ignore_ascii_case(b"100-continue") => {
                return Err(Problem::new(codes::EXPECTATION_FAILED));
            }
            _ => {
                let value = value.as_bytes();
                if value.iter().any(|byte| !portcullis_core::head::is_field_byte(*byte)) {
                    return Err(malformed("a control byte in a field"));
                }
                head.fields.append(name, value);
            }
        }
    }
    Ok(hosts)
}

fn set_authority(
    head: &mut RequestHead,
    parts: &request::Parts,
    hosts: &[Vec<u8>],
) -> Result<(), Problem> {
    let refused = |reason: &str| Problem::new(codes::HOST_REFUSED).detail(reason);
    let from_uri = parts.uri.authority().map(|authority| authority.as_str().as_bytes());
    let written = match (from_uri, hosts) {
        (Some(authority), []) => authority,
        (Some(authority), [host]) if authority.eq_ignore_ascii_case(host) => authority,
        (None, [host]) => host,
        (None, []) => return Err(refused("host-missing")),
        _ => return Err(refused("host-duplicate")),
    };
    let mut out = Vec::new();
    let canonical = authority::canonicalise(written, head.scheme, &mut out);
    let (text, host) = match canonical.map_err(|error| refused(error.reason()))? {
        authority::Canonical::Prefix { authority, host } => (&written[..authority], host),
        authority::Canonical::Rewritten { host } => (&out[..], host),
    };
    head.authority = head.fields.intern(text);
    let start = head.authority.start as usize;
    head.host = Span::new(start, start + host);
    Ok(())
}

fn set_target(
    head: &mut RequestHead,
    parts: &request::Parts,
    listener: &Listener,
) -> Result<(), Problem> {
    let refused = |reason: &str| Problem::new(codes::PATH_REFUSED).detail(reason);
    let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
    if target.len() > listener.limits.target_bytes_max as usize {
        return Err(Problem::new(codes::TARGET_TOO_LONG));
    }
    head.target = head.fields.intern(target.as_bytes());
    if target == "*" {
        if head.method != Method::OPTIONS {
            return Err(refused("asterisk without OPTIONS"));
        }
        head.path = head.target;
        return Ok(());
    }
    let (written, query) = path::split_query(target.as_bytes());
    let rules = listener.paths.path_rules(head.host());
    let mut out = Vec::new();
    let canonical = path::canonicalise(written, &rules, &mut out);
    head.path = match canonical.map_err(|error| refused(error.reason()))? {
        path::Canonical::Unchanged => {
            let start = head.target.start as usize;
            Span::new(start, start + written.len())
        }
        path::Canonical::Rewritten => head.fields.intern(&out),
    };
    if let Some(query) = query {
        path::check_query(query).map_err(|error| refused(error.reason()))?;
        head.query = Some(head.fields.intern(query));
    }
    Ok(())
}

/// The length that the fields declare.
pub(crate) fn length(map: &HeaderMap) -> Result<Option<u64>, Problem> {
    let mut values = map.get_all(http::header::CONTENT_LENGTH).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let text = value.to_str().unwrap_or_default();
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse::<u64>() {
        Ok(length) if digits && values.next().is_none() => Ok(Some(length)),
        _ => Err(malformed("content-length")),
    }
}

/// Trailers that may be passed on; what only a head may say is dropped (RFC 9110 §6.5.1).
pub(crate) fn trailers(map: &HeaderMap) -> Fields {
    let mut fields = Fields::default();
    for (name, value) in map {
        let name = name.as_str().as_bytes();
        if !is_forbidden_trailer(Known::of(name), name) {
            fields.append(name, value.as_bytes());
        }
    }
    fields
}

/// Fields as HTTP/2 writes them: lower case, none that concern a connection.
pub(crate) fn headers(fields: &Fields) -> HeaderMap {
    let mut map = HeaderMap::with_capacity(fields.len());
    for field in fields.live() {
        let bytes = fields.bytes();
        if field.known.is_hop_by_hop()
            || matches!(field.known, Known::ContentLength | Known::Expect | Known::Host)
            || (field.known == Known::Other && is_framing_alias(field.name.of(bytes)))
        {
            continue;
        }
        let name = HeaderName::from_bytes(field.name.of(bytes));
        let value = HeaderValue::from_bytes(field.value.of(bytes));
        if let (Ok(name), Ok(mut value)) = (name, value) {
            // Other in each message: an index of it would only drive out what comes again.
            value.set_sensitive(matches!(field.known, Known::XRequestId | Known::Traceparent));
            map.append(name, value);
        }
    }
    map
}
