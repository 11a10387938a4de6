use expect_test::{Expect, expect};
use http_body_util::BodyExt;

use super::*;

struct Scripted;

impl View for Scripted {
    fn ready(&self) -> (bool, Value) {
        (false, json!({ "ready": false, "refused_config": "3 | routes: {" }))
    }

    fn metrics(&self, out: &mut String) {
        out.push_str("# EOF\n");
    }

    fn config(&self) -> Value {
        json!({})
    }

    fn usage(&self) -> Value {
        json!({})
    }

    fn backends(&self) -> Value {
        json!([])
    }

    fn routes(&self) -> Value {
        json!([])
    }

    fn request(&self, id: &str) -> Value {
        if id == "known" { json!([{ "request_id": id }]) } else { json!([]) }
    }

    fn analysis(&self) -> Value {
        json!([])
    }

    fn overrides(&self) -> Value {
        json!([])
    }

    fn set_override(&self, written: &[u8]) -> Result<Value, String> {
        match written {
            b"good" => Ok(json!({ "revision": 1 })),
            _ => Err("bad \"one\"".to_owned()),
        }
    }

    fn clear_overrides(&self, revision: Option<u64>) -> usize {
        revision.map_or(2, |revision| usize::from(revision == 1))
    }

    fn version(&self) -> Value {
        json!({})
    }
}

fn on_loopback(access: Access) -> Entrance {
    Entrance { access, local_only: true, near: true }
}

/// Probes that listen to a network.
fn on_network() -> Entrance {
    Entrance { access: Access::Probes, local_only: false, near: false }
}

fn ask(
    entrance: &Entrance,
    path: &str,
    fields: &[(&'static str, &'static str)],
) -> Response<Full<Bytes>> {
    let mut map = HeaderMap::new();
    for (name, value) in fields {
        map.append(*name, HeaderValue::from_static(value));
    }
    answer(&Scripted, entrance, &Method::GET, path, &map, b"")
}

fn text(response: Response<Full<Bytes>>) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let body = runtime.block_on(response.into_body().collect()).unwrap();
    String::from_utf8(body.to_bytes().to_vec()).unwrap()
}

#[track_caller]
fn check(entrance: &Entrance, fields: &[(&'static str, &'static str)], want: &Expect) {
    let paths = ["/healthz", "/ready", "/metrics", "/config", "/routes", "/version", "/x"];
    let seen =
        paths.map(|path| format!("{path} {}", ask(entrance, path, fields).status().as_u16()));
    want.assert_eq(&seen.join("\n"));
}

#[test]
fn probes_show_nothing_of_the_configuration() {
    check(
        &on_loopback(Access::Probes),
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
fn why_it_is_not_ready_is_told_on_this_machine_only() {
    let near = text(ask(&on_loopback(Access::Probes), "/ready", &[("host", "localhost")]));
    assert!(near.contains("routes: {"), "{near}");
    let far = text(ask(&on_network(), "/ready", &[("host", "gateway.internal:9901")]));
    expect![[r#"
        {
          "ready": false
        }
    "#]]
    .assert_eq(&far);
}

#[test]
fn an_address_wants_its_token() {
    let entrance = on_loopback(Access::Token("s3cret".to_owned()));
    let refused = expect![[r#"
        /healthz 401
        /ready 401
        /metrics 401
        /config 401
        /routes 401
        /version 401
        /x 401"#]];
    check(&entrance, &[("host", "localhost")], &refused);
    check(&entrance, &[("host", "localhost"), ("authorization", "Bearer s3cret2")], &refused);
    check(&entrance, &[("host", "localhost"), ("authorization", "Basic s3cret")], &refused);
    check(
        &entrance,
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
    let challenge = ask(&entrance, "/config", &[("host", "localhost")]);
    assert!(challenge.headers().contains_key(header::WWW_AUTHENTICATE));
}

#[test]
fn whoever_can_open_the_socket_sees_everything() {
    check(
        &on_loopback(Access::Socket),
        &[],
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
    let status = |entrance: &Entrance, fields: &[(&'static str, &'static str)]| {
        ask(entrance, "/metrics", fields).status().as_u16()
    };
    let probes = on_loopback(Access::Probes);
    for (host, expected) in [
        ("127.0.0.1", 200),
        ("127.0.0.1:9901", 200),
        ("LocalHost:9901", 200),
        ("[::1]", 200),
        ("[::1]:9901", 200),
        ("evil.example", 403),
        ("localhost.evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("127.0.0.1:9901x", 403),
        ("[127.0.0.1]", 403),
        ("", 403),
    ] {
        assert_eq!(status(&probes, &[("host", host)]), expected, "{host}");
    }
    assert_eq!(status(&probes, &[]), 403);
    assert_eq!(status(&probes, &[("host", "localhost"), ("host", "evil.example")]), 403);
    let page = [("host", "127.0.0.1"), ("origin", "https://evil.example")];
    assert_eq!(status(&probes, &page), 403);
    assert_eq!(status(&on_network(), &page), 403);
    for (site, expected) in [("cross-site", 403), ("same-site", 403), ("none", 200)] {
        let fields = [("host", "127.0.0.1"), ("sec-fetch-site", site)];
        assert_eq!(status(&probes, &fields), expected, "{site}");
    }
    assert_eq!(status(&on_network(), &[("host", "gateway.internal:9901")]), 200);
    let token = Entrance { access: Access::Token("s3cret".to_owned()), ..on_network() };
    let named = [("host", "gateway.internal"), ("authorization", "Bearer s3cret")];
    assert_eq!(status(&token, &named), 403, "the admin API never goes by a name");
}

#[test]
fn nothing_can_be_changed() {
    for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS] {
        let entrance = on_loopback(Access::Socket);
        let response = answer(&Scripted, &entrance, &method, "/config", &HeaderMap::new(), b"");
        assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(response.headers()[header::ALLOW], "GET, HEAD");
    }
}

#[test]
fn overrides_are_set_and_cleared_by_who_may_and_by_nobody_else() {
    let said = |access: Access, method: Method, path: &str, body: &[u8]| {
        let entrance = on_loopback(access);
        let mut fields = HeaderMap::new();
        fields.insert(header::HOST, HeaderValue::from_static("127.0.0.1"));
        let response = answer(&Scripted, &entrance, &method, path, &fields, body);
        response.status().as_u16()
    };
    let socket = |method, path, body| said(Access::Socket, method, path, body);
    assert_eq!(socket(Method::POST, "/overrides", b"good"), 200);
    assert_eq!(socket(Method::POST, "/overrides", b"bad"), 422);
    assert_eq!(socket(Method::POST, "/overrides/1", b"good"), 405);
    assert_eq!(socket(Method::POST, "/overridesx", b"good"), 405);
    assert_eq!(socket(Method::GET, "/overrides", b""), 200);
    assert_eq!(socket(Method::GET, "/analysis", b""), 200);
    assert_eq!(socket(Method::DELETE, "/overrides", b""), 200);
    assert_eq!(socket(Method::DELETE, "/overrides/1", b""), 200);
    assert_eq!(socket(Method::DELETE, "/overrides/2", b""), 404);
    assert_eq!(socket(Method::DELETE, "/overrides/x", b""), 404);
    for method in [Method::POST, Method::DELETE] {
        let token = Access::Token("s3cret".to_owned());
        assert_eq!(said(token, method.clone(), "/overrides", b"good"), 401);
        assert_eq!(said(Access::Probes, method, "/overrides", b"good"), 405);
    }
    assert_eq!(said(Access::Probes, Method::GET, "/overrides", b""), 404);
    assert_eq!(said(Access::Probes, Method::GET, "/analysis", b""), 404);
}
