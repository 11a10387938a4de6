//! From a request to an answer, without any network.

use bytes::Bytes;
use http::{HeaderMap, Method, Response, StatusCode, header};
use http_body_util::Full;
use serde_json::{Value, json};
use subtle::ConstantTimeEq;

use crate::View;
use crate::server::Access;

/// The content type of OpenMetrics 1.0.
const METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Answers one request.
pub(crate) fn answer(
    view: &dyn View,
    access: &Access,
    method: &Method,
    path: &str,
    fields: &HeaderMap,
) -> Response<Full<Bytes>> {
    if let Err((status, reason)) = permit(access, fields) {
        let mut response = problem(status, reason);
        if status == StatusCode::UNAUTHORIZED {
            let challenge = http::HeaderValue::from_static("Bearer realm=\"portcullis admin\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        return response;
    }
    if !matches!(*method, Method::GET | Method::HEAD) {
        return problem(StatusCode::METHOD_NOT_ALLOWED, "only GET is served here");
    }
    let full = !matches!(access, Access::Probes);
    match path {
        "/healthz" => json_of(StatusCode::OK, &json!({ "alive": true })),
        "/ready" => {
            let (ready, detail) = view.ready();
            let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            json_of(status, &detail)
        }
        "/metrics" => {
            let mut text = String::new();
            view.metrics(&mut text);
            respond(StatusCode::OK, METRICS, text)
        }
        "/config" if full => json_of(StatusCode::OK, &view.config()),
        "/routes" if full => json_of(StatusCode::OK, &view.routes()),
        "/version" if full => json_of(StatusCode::OK, &view.version()),
        _ => problem(StatusCode::NOT_FOUND, "there is nothing at this path"),
    }
}

/// A page in somebody's browser must not reach this, even on loopback: it could come by a name
/// that resolves here (DNS rebinding) or as a cross-origin request.
fn permit(access: &Access, fields: &HeaderMap) -> Result<(), (StatusCode, &'static str)> {
    if matches!(access, Access::Socket) {
        return Ok(());
    }
    if fields.contains_key(header::ORIGIN) {
        return Err((StatusCode::FORBIDDEN, "requests of web pages are refused"));
    }
    let host = fields.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_matches(['[', ']']);
    if name != "localhost" && name.parse::<std::net::IpAddr>().is_err() {
        return Err((StatusCode::FORBIDDEN, "Host must be an address or localhost"));
    }
    let Access::Token(token) = access else { return Ok(()) };
    let sent = fields.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let sent = sent.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
    match bool::from(sent.as_bytes().ct_eq(token.as_bytes())) {
        true => Ok(()),
        false => Err((StatusCode::UNAUTHORIZED, "the admin token is required")),
    }
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
    headers.insert(header::CONTENT_TYPE, http::HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, http::HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    struct Scripted;

    impl View for Scripted {
        fn ready(&self) -> (bool, Value) {
            (false, json!({ "ready": false }))
        }
        fn metrics(&self, out: &mut String) {
            out.push_str("# EOF\n");
        }
        fn config(&self) -> Value {
            json!({})
        }
        fn routes(&self) -> Value {
            json!([])
        }
        fn version(&self) -> Value {
            json!({})
        }
    }

    #[track_caller]
    fn check(access: &Access, fields: &[(&'static str, &'static str)], want: &Expect) {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.insert(*name, http::HeaderValue::from_static(value));
        }
        let paths = ["/healthz", "/ready", "/metrics", "/config", "/routes", "/version", "/x"];
        let seen = paths.map(|path| {
            let response = answer(&Scripted, access, &Method::GET, path, &map);
            format!("{path} {}", response.status().as_u16())
        });
        want.assert_eq(&seen.join("\n"));
    }

    #[test]
    fn probes_show_nothing_of_the_configuration() {
        check(
            &Access::Probes,
            &[("host", "127.0.0.1:9901")],
            &expect![[r#"
                /healthz 200
                /ready 503
                /metrics 200
                /config 404
                /routes 404
                /version 404
                /x 404"#]],
        );
    }

    #[test]
    fn an_address_wants_its_token() {
        let access = Access::Token("s3cret".to_owned());
        check(
            &access,
            &[("host", "localhost")],
            &expect![[r#"
                /healthz 401
                /ready 401
                /metrics 401
                /config 401
                /routes 401
                /version 401
                /x 401"#]],
        );
        check(
            &access,
            &[("host", "[::1]:80"), ("authorization", "Bearer s3cret")],
            &expect![[r#"
                /healthz 200
                /ready 503
                /metrics 200
                /config 200
                /routes 200
                /version 200
                /x 404"#]],
        );
    }

    #[test]
    fn web_pages_are_kept_out() {
        let refused = |fields: &[(&'static str, &'static str)]| {
            let mut map = HeaderMap::new();
            for (name, value) in fields {
                map.insert(*name, http::HeaderValue::from_static(value));
            }
            answer(&Scripted, &Access::Probes, &Method::GET, "/metrics", &map).status()
        };
        assert_eq!(refused(&[("host", "evil.example")]), StatusCode::FORBIDDEN);
        let origin = [("host", "127.0.0.1"), ("origin", "https://evil.example")];
        assert_eq!(refused(&origin), StatusCode::FORBIDDEN);
        assert_eq!(refused(&[("host", "127.0.0.1")]), StatusCode::OK);
    }
}
