//! The question and the verdict by Envoy's `ext_authz`, version 3, over gRPC.
//!
//! One unary call: a message with a length before it there, one back, and a status in the trailers
//! (the gRPC project's "gRPC over HTTP2"). How it travels is for whoever fetches.

#[cfg(test)]
mod tests;

use std::net::SocketAddr;

use bytes::{BufMut, Bytes, BytesMut};
use http::{Method, StatusCode};
use portcullis_core::exchange::ClientCertificate;
use portcullis_core::head::{BodyLength, is_token};
use portcullis_core::services::{Fetch, Fetched};
use portcullis_core::{Exchange, ResponseHead};
use prost::Message;
use serde_json::{Map, Number};

use super::messages::{
    Address, AttributeContext, CheckRequest, CheckResponse, DeniedHttpResponse, HeaderValueOption,
    HttpRequest, HttpResponse, Kind, OkHttpResponse, Peer, Request, SocketAddress, Struct,
    Timestamp, TlsSession, Value,
};
use super::over_http::reply;
use super::{Allowed, Failure, Plan, Verdict, is_told_by_us, target, text};

/// What is called.
pub(super) const METHOD: &str = "/envoy.service.auth.v3.Authorization/Check";
/// `UNAVAILABLE` and `RESOURCE_EXHAUSTED`.
const AWAY: [&[u8]; 2] = [b"14", b"8"];
/// The greatest whole number below which a double has all of them.
const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;

#[derive(Debug, Hash)]
pub(super) struct Way {
    pub(super) url: String,
    /// Sent with every question, for the authorizer's own use.
    pub(super) context: Vec<(String, String)>,
}

impl Way {
    pub(super) fn question(&self, plan: &Plan, exchange: &Exchange) -> Result<Fetch, String> {
        let attributes = AttributeContext {
            source: Some(source(exchange)),
            request: Some(Request {
                time: Some(Timestamp {
                    seconds: exchange.now.wall.as_secs() as i64,
                    nanos: exchange.now.wall.subsec_nanos() as i32,
                }),
                http: Some(http_request(plan, exchange)?),
            }),
            context_extensions: self.context.iter().cloned().collect(),
            tls_session: exchange.connection.tls.as_ref().map(|tls| TlsSession {
                sni: tls.server_name.as_deref().unwrap_or_default().to_owned(),
            }),
        };
        let question = CheckRequest { attributes: Some(attributes) };
        let field = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        Ok(Fetch {
            method: Method::POST,
            fields: vec![
                field("content-type", "application/grpc"),
                field("accept", "application/grpc"),
                field("te", "trailers"),
                field("grpc-timeout", &format!("{}m", plan.timeout.as_millis())),
                field("x-request-id", exchange.request_id.as_str()),
            ],
            body: framed(&question),
            http2: true,
            ..Fetch::get(&self.url)
        })
    }
}

fn source(exchange: &Exchange) -> Peer {
    let peer = exchange.connection.peer;
    let address = exchange.client_ip;
    // Behind a trusted hop the port is not known.
    let port = if peer.ip() == address { peer.port() } else { 0 };
    let address = SocketAddr::new(address, port);
    Peer {
        address: Some(Address {
            socket_address: Some(SocketAddress {
                address: address.ip().to_string(),
                port_value: Some(address.port().into()),
            }),
        }),
        principal: exchange.certificate.as_deref().map(principal).unwrap_or_default(),
    }
}

/// The first URI of the certificate, else its first DNS name, else its subject.
fn principal(certificate: &ClientCertificate) -> String {
    let names = certificate.uris.iter().chain(&certificate.dns);
    names.chain([&certificate.subject]).next().cloned().unwrap_or_default()
}

fn http_request(plan: &Plan, exchange: &Exchange) -> Result<HttpRequest, String> {
    let request = &exchange.request;
    let method = request.method.to_string();
    let host = text(request.authority())?.to_owned();
    let path = target(request)?;
    let scheme = request.scheme.as_str().to_owned();
    let mut http = HttpRequest {
        id: exchange.request_id.as_str().to_owned(),
        protocol: request.version.as_str().to_owned(),
        size: match request.body {
            BodyLength::Empty => 0,
            BodyLength::Known(bytes) => i64::try_from(bytes).unwrap_or(-1),
            BodyLength::Unknown => -1,
        },
        ..HttpRequest::default()
    };
    let told = [
        (":authority", &host),
        (":method", &method),
        (":path", &path),
        (":scheme", &scheme),
        ("x-forwarded-for", &exchange.client_ip.to_string()),
        ("x-forwarded-proto", &scheme),
        ("x-request-id", &http.id),
    ];
    let mut headers: std::collections::BTreeMap<_, _> =
        told.into_iter().map(|(name, value)| (name.to_owned(), value.clone())).collect();
    for (name, value) in plan.shown.lines(request)? {
        let between = if name == "cookie" { "; " } else { "," };
        match headers.get_mut(&name) {
            Some(values) => *values = format!("{values}{between}{value}"),
            None => drop(headers.insert(name, value)),
        }
    }
    if plan.body_bytes_max.is_some() {
        match std::str::from_utf8(&exchange.request_body) {
            Ok(body) => http.body = body.to_owned(),
            Err(_) => http.raw_body = exchange.request_body.to_vec(),
        }
    }
    Ok(HttpRequest { method, host, path, scheme, headers, ..http })
}

fn framed(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut out = BytesMut::with_capacity(5 + length);
    out.put_u8(0);
    out.put_u32(length as u32);
    out.put_slice(&message.encode_to_vec());
    out.freeze()
}

/// The one message of an answer, which must not be compressed: nobody asked for that.
fn unframed(body: &[u8]) -> Option<&[u8]> {
    let ([0, a, b, c, d], message) = body.split_first_chunk()? else { return None };
    let length = u32::from_be_bytes([*a, *b, *c, *d]);
    (usize::try_from(length) == Ok(message.len())).then_some(message)
}

pub(super) fn verdict(fetched: &Fetched) -> Result<Verdict, Failure> {
    if fetched.status != StatusCode::OK {
        let status = fetched.status.as_u16();
        let reason = format!("the authorizer answered with status {status}, which is not gRPC");
        return Err(Failure { reason, is_away: status == 503 });
    }
    let field = |name: &str| {
        let mut named = fetched.fields.iter().filter(|(has, _)| **has == *name);
        named.next_back().map(|(_, value)| &**value)
    };
    match field("grpc-status") {
        Some(b"0") => {}
        Some(status) => {
            let message = field("grpc-message").unwrap_or_default();
            let (status, message) = (status.escape_ascii(), message.escape_ascii());
            let reason = format!("the authorizer answered with gRPC status {status}: {message}");
            return Err(Failure {
                reason,
                is_away: AWAY.contains(&field("grpc-status").unwrap_or_default()),
            });
        }
        None => return Err(Failure::odd("the authorizer's answer has no gRPC status")),
    }
    let message = unframed(&fetched.body);
    let message =
        message.ok_or_else(|| Failure::odd("the authorizer's answer is not one message"))?;
    let response = CheckResponse::decode(message).map_err(|error| {
        Failure::odd(format!("the authorizer's answer cannot be read: {error}"))
    })?;
    decided(response)
}

/// Allowed is only what is said to be, in every part of the answer that says anything.
fn decided(response: CheckResponse) -> Result<Verdict, Failure> {
    let CheckResponse { status, http_response, dynamic_metadata } = response;
    let is_ok = status.map(|status| status.code == 0);
    match (is_ok, http_response) {
        (Some(true), None) => Ok(allowed(OkHttpResponse::default(), dynamic_metadata)),
        (Some(true) | None, Some(HttpResponse::Ok(ok))) => Ok(allowed(ok, dynamic_metadata)),
        (None, None) => Err(Failure::odd("the authorizer's answer is empty")),
        (_, Some(HttpResponse::Denied(denied))) => Ok(denial(denied)),
        (Some(false), _) => Ok(denial(DeniedHttpResponse::default())),
    }
}

fn allowed(ok: OkHttpResponse, metadata: Option<Struct>) -> Verdict {
    let mut fields: Vec<(Box<str>, Box<[u8]>)> = Vec::new();
    for option in ok.headers {
        let action = Action::of(&option);
        let Some((name, value)) = line(option) else { continue };
        let has = fields.iter().any(|(has, _)| *has == name);
        match action {
            Action::Append => {}
            Action::AddIfAbsent if has => continue,
            Action::OverwriteIfPresent if !has => continue,
            Action::AddIfAbsent | Action::Overwrite | Action::OverwriteIfPresent => {
                fields.retain(|(has, _)| *has != name);
            }
        }
        fields.push((name, value));
    }
    let withheld = ok.headers_to_remove.iter().map(|name| name.to_ascii_lowercase());
    let cookies = ok.response_headers_to_add.into_iter().filter_map(line);
    let cookies = cookies.filter(|(name, _)| **name == *"set-cookie");
    Verdict::Allow(Allowed {
        fields,
        withheld: withheld
            .filter(|name| is_token(name.as_bytes()) && !is_told_by_us(name.as_bytes()))
            .map(String::into_boxed_str)
            .collect(),
        cookies: cookies.filter_map(|(_, value)| String::from_utf8(value.into()).ok()).collect(),
        metadata: metadata.or(ok.dynamic_metadata).map(object).unwrap_or_default(),
        storable: true,
    })
}

fn denial(denied: DeniedHttpResponse) -> Verdict {
    let status = denied.status.and_then(|status| u16::try_from(status.code).ok());
    let status = status.filter(|status| (200..600).contains(status));
    let status = status.and_then(|status| StatusCode::from_u16(status).ok());
    let mut head = ResponseHead::new(status.unwrap_or(StatusCode::FORBIDDEN));
    for (name, value) in denied.headers.into_iter().filter_map(line) {
        if !is_told_by_us(name.as_bytes()) {
            head.fields.append(name.as_bytes(), &value);
        }
    }
    Verdict::Deny(reply(head, denied.body.into_bytes().into()))
}

/// What a field does to those of its name that came before it.
enum Action {
    Append,
    AddIfAbsent,
    Overwrite,
    OverwriteIfPresent,
}

impl Action {
    /// `append` is older and wins where it is used; by neither a field overwrites.
    fn of(option: &HeaderValueOption) -> Self {
        match (option.append.as_ref().map(|append| append.value), option.append_action) {
            (Some(true), _) => Self::Append,
            (_, 1) => Self::AddIfAbsent,
            (_, 3) => Self::OverwriteIfPresent,
            _ => Self::Overwrite,
        }
    }
}

/// A field with its name in lower case, if it can be one.
fn line(option: HeaderValueOption) -> Option<(Box<str>, Box<[u8]>)> {
    let header = option.header?;
    if !is_token(header.key.as_bytes()) {
        return None;
    }
    let name = header.key.to_ascii_lowercase().into_boxed_str();
    let value = match header.value.is_empty() {
        true => header.raw_value,
        false => header.value.into_bytes(),
    };
    Some((name, value.into_boxed_slice()))
}

fn object(value: Struct) -> Map<String, serde_json::Value> {
    value.fields.into_iter().map(|(name, value)| (name, json(value))).collect()
}

/// Reading has bounded how deep it goes.
fn json(value: Value) -> serde_json::Value {
    match value.kind {
        None | Some(Kind::Null(_)) => serde_json::Value::Null,
        Some(Kind::Number(number)) if number.fract() == 0.0 && number.abs() < WHOLE_MAX => {
            (number as i64).into()
        }
        Some(Kind::Number(number)) => Number::from_f64(number).into(),
        Some(Kind::Text(text)) => text.into(),
        Some(Kind::Bool(value)) => value.into(),
        Some(Kind::Struct(value)) => object(value).into(),
        Some(Kind::List(list)) => list.values.into_iter().map(json).collect(),
    }
}
