//! From a request to an answer, without any network.

use std::net::{Ipv4Addr, Ipv6Addr};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use http_body_util::Full;
use portcullis_telemetry::metrics::exposition::CONTENT_TYPE;
use serde_json::{Value, json};
use subtle::ConstantTimeEq;

use crate::View;
use crate::server::Access;

/// Where a request came in.
#[derive(Clone, Debug)]
pub(crate) struct Entrance {
    pub(crate) access: Access,
    /// Only programs on this machine can connect.
    pub(crate) local_only: bool,
    /// This peer is on this machine.
    pub(crate) near: bool,
}

/// Answers one request.
pub(crate) fn answer(
    view: &dyn View,
    entrance: &Entrance,
    method: &Method,
    path: &str,
    fields: &HeaderMap,
    body: &[u8],
) -> Response<Full<Bytes>> {
    if let Err((status, reason)) = permit(entrance, fields) {
        let mut response = problem(status, reason);
        if status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Bearer realm=\"portcullis admin\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        return response;
    }
    let full = !matches!(entrance.access, Access::Probes);
    if full && let Some(response) = change(view, method, path, body) {
        return response;
    }
    if !matches!(*method, Method::GET | Method::HEAD) {
        let mut response = problem(StatusCode::METHOD_NOT_ALLOWED, "only GET is served here");
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match path {
        "/healthz" => json_of(StatusCode::OK, &json!({ "alive": true })),
        "/ready" => {
            let (ready, detail) = view.ready();
            let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            // The detail quotes the configuration. A load balancer elsewhere needs the status only.
            let detail = if full || entrance.near { detail } else { json!({ "ready": ready }) };
            json_of(status, &detail)
        }
        "/metrics" => {
            let mut text = String::new();
            view.metrics(&mut text);
            respond(StatusCode::OK, CONTENT_TYPE, text)
        }
        "/config" if full => json_of(StatusCode::OK, &view.config()),
        "/routes" if full => json_of(StatusCode::OK, &view.routes()),
        "/backends" if full => json_of(StatusCode::OK, &view.backends()),
        "/usage" if full => json_of(StatusCode::OK, &view.usage()),
        "/analysis" if full => json_of(StatusCode::OK, &view.analysis()),
        OVERRIDES if full => json_of(StatusCode::OK, &view.overrides()),
        "/version" if full => json_of(StatusCode::OK, &view.version()),
        path if full && path.starts_with("/requests/") => {
            let found = view.request(&path["/requests/".len()..]);
            match found.as_array().is_some_and(|found| !found.is_empty()) {
                true => json_of(StatusCode::OK, &found),
                false => problem(StatusCode::NOT_FOUND, "no request of this id is remembered"),
            }
        }
        _ => problem(StatusCode::NOT_FOUND, "there is nothing at this path"),
    }
}

const OVERRIDES: &str = "/overrides";

/// What changes something; `None` for what only looks.
fn change(
    view: &dyn View,
    method: &Method,
    path: &str,
    body: &[u8],
) -> Option<Response<Full<Bytes>>> {
    let rest = path.strip_prefix(OVERRIDES)?;
    Some(match (method, rest.strip_prefix('/')) {
        (&Method::POST, None) if rest.is_empty() => match view.set_override(body) {
            Ok(said) => json_of(StatusCode::OK, &said),
            Err(reason) => problem(StatusCode::UNPROCESSABLE_ENTITY, &reason),
        },
        (&Method::DELETE, None) if rest.is_empty() => {
            json_of(StatusCode::OK, &json!({ "cleared": view.clear_overrides(None) }))
        }
        (&Method::DELETE, Some(number)) => {
            let number = number.parse().ok();
            match number.map_or(0, |number| view.clear_overrides(Some(number))) {
                0 => problem(StatusCode::NOT_FOUND, "there is no override of this revision"),
                cleared => json_of(StatusCode::OK, &json!({ "cleared": cleared })),
            }
        }
        (&Method::GET | &Method::HEAD, _) => return None,
        _ => {
            let mut response = problem(StatusCode::METHOD_NOT_ALLOWED, "not served here");
            let allow = HeaderValue::from_static("GET, HEAD, POST, DELETE");
            response.headers_mut().insert(header::ALLOW, allow);
            response
        }
    })
}

/// A page in somebody's browser must not reach this, even on loopback: it could come by a name
/// that resolves here (DNS rebinding) or as a cross-origin request.
fn permit(entrance: &Entrance, fields: &HeaderMap) -> Result<(), (StatusCode, &'static str)> {
    if matches!(entrance.access, Access::Socket) {
        return Ok(());
    }
    // `none`: somebody has typed the address.
    let site = fields.get("sec-fetch-site").is_some_and(|site| site != "none");
    if site || fields.contains_key(header::ORIGIN) {
        return Err((StatusCode::FORBIDDEN, "requests of web pages are refused"));
    }
    // Probes that the operator has opened to a network are scraped by whatever name they have
    // there, and show a page nothing that its own machine could not ask for.
    let any_host = matches!(entrance.access, Access::Probes) && !entrance.local_only;
    if !any_host && !is_plain_host(fields) {
        return Err((StatusCode::FORBIDDEN, "Host must be an address or localhost"));
    }
    let Access::Token(token) = &entrance.access else { return Ok(()) };
    let sent = fields.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let sent = sent.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
    match bool::from(sent.as_bytes().ct_eq(token.as_bytes())) {
        true => Ok(()),
        false => Err((StatusCode::UNAUTHORIZED, "the admin token is required")),
    }
}

/// An IP address or `localhost`, with or without a port: nothing that a name server decides.
fn is_plain_host(fields: &HeaderMap) -> bool {
    let mut hosts = fields.get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
    let host = host.to_str().unwrap_or_default();
    let (name, port) = match host.rsplit_once(':') {
        // The last colon of an IPv6 address is inside its brackets.
        Some((name, port)) if !port.ends_with(']') => (name, port),
        _ => (host, ""),
    };
    let address = match name.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
        Some(name) => name.parse::<Ipv6Addr>().is_ok(),
        None => name.parse::<Ipv4Addr>().is_ok(),
    };
    port.bytes().all(|byte| byte.is_ascii_digit())
        && (address || name.eq_ignore_ascii_case("localhost"))
}

fn json_of(status: StatusCode, value: &Value) -> Response<Full<Bytes>> {
    respond(status, "application/json", format!("{value:#}\n"))
}

fn problem(status: StatusCode, title: &str) -> Response<Full<Bytes>> {
    let body = json!({ "status": status.as_u16(), "title": title });
    respond(status, "application/problem+json", format!("{body}\n"))
}

fn respond(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests;
