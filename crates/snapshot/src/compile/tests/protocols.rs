//! What is spoken to backends and what connections may become.

use std::sync::Arc;
use std::time::Duration;

use expect_test::{Expect, expect};
use portcullis_config::RetryOn;
use portcullis_core::carry::Carry;
use portcullis_upstream::{HealthSettings, outlier};
use rcgen::{CertificateParams, KeyPair};

use crate::backend::ProxyVersion;
use crate::snapshot::Snapshot;
use crate::testing::{Files, compiled, compiled_after};

fn files() -> Files {
    let key = KeyPair::generate().unwrap();
    let authority = CertificateParams::new(vec![]).unwrap().self_signed(&key).unwrap();
    let mut files = Files::default();
    files.0.insert("file:ca".to_owned(), authority.pem().into_bytes());
    files
}

fn config(backend: &str) -> String {
    format!(
        r#"
listeners: {{ http: {{ bind: "127.0.0.1:8080" }} }}
routes: {{ a: {{ match: /a, public: for a test, to: b }} }}
backends:
  b: {backend}
"#
    )
}

/// What the endpoints are spoken to in, and what TLS offers, with and without HTTP/2.
fn spoken(snapshot: &Snapshot) -> String {
    let backend = &snapshot.backends[0];
    let protocols: Vec<_> =
        backend.endpoints.load().addresses.iter().map(|to| to.protocol).collect();
    let offers = |config: &Arc<rustls::ClientConfig>| {
        let names = config.alpn_protocols.iter().map(|name| name.escape_ascii().to_string());
        names.collect::<Vec<_>>().join(",")
    };
    let tls = backend.tls.as_ref();
    let tls = tls.map(|tls| format!(" {} | {}", offers(&tls.config), offers(&tls.config_h1)));
    format!("{protocols:?}{}", tls.unwrap_or_default())
}

#[test]
fn the_protocol_of_each_endpoint() {
    let tls = "tls: { ca: \"file:ca\" }";
    let cases = [
        ("http://a".to_owned(), "[Auto]"),
        ("h2c://a".to_owned(), "[H2]"),
        ("{ endpoints: [\"http://a\"], protocol: h2 }".to_owned(), "[H2]"),
        ("{ endpoints: [\"h2c://a\", \"http://b\"] }".to_owned(), "[H2, Auto]"),
        ("{ endpoints: [\"http://a\"], proxy_protocol: v1 }".to_owned(), "[H1]"),
        (format!("{{ endpoints: [\"https://a\"], {tls} }}"), "[Auto] h2,http/1.1 | http/1.1"),
        (
            format!("{{ endpoints: [\"https://a\"], {tls}, protocol: h1 }}"),
            "[H1] http/1.1 | http/1.1",
        ),
        (format!("{{ endpoints: [\"https://a\"], {tls}, protocol: h2 }}"), "[H2] h2 | http/1.1"),
        (
            format!("{{ endpoints: [\"https://a\"], {tls}, proxy_protocol: v2 }}"),
            "[H1] http/1.1 | http/1.1",
        ),
    ];
    for (backend, expected) in cases {
        let snapshot = compiled(&config(&backend), &files()).ok();
        assert_eq!(spoken(&snapshot), expected, "{backend}");
    }
}

#[test]
fn a_changed_protocol_takes_effect() {
    let files = files();
    let with = |more: &str| {
        let text = format!("{{ endpoints: [\"https://a\"], tls: {{ ca: \"file:ca\" }}{more} }}");
        config(&text)
    };
    let mut carry = Carry::default();
    let settings =
        ["", ", forwarded: true", ", protocol: h1", ", protocol: h1, proxy_protocol: v1"];
    let mut snapshots = Vec::new();
    for more in settings {
        let built = compiled_after(&with(more), &files, carry);
        carry = built.carry.clone().next_generation();
        snapshots.push(built.ok());
    }
    let [auto, same, h1, proxied] = &snapshots[..] else { unreachable!() };
    assert_eq!(spoken(auto), "[Auto] h2,http/1.1 | http/1.1");
    assert_eq!(spoken(h1), "[H1] http/1.1 | http/1.1");
    let state = |snapshot: &Snapshot| {
        Arc::as_ptr(&snapshot.backends[0].endpoints.load().balancer.members()[0].endpoint)
    };
    assert_eq!(state(auto), state(same));
    // Connections belong to an endpoint's state: another one has none of the old kind.
    assert_ne!(state(same), state(h1));
    assert_ne!(state(h1), state(proxied));
}

#[track_caller]
fn check(backend: &str, expected: &Expect) {
    expected.assert_eq(&compiled(&config(backend), &files()).findings);
}

#[test]
fn protocols_that_exclude_each_other() {
    check(
        "{ endpoints: [\"h2c://a\"], protocol: h1 }",
        &expect![[r#"
        error[protocol]: `h2c://a:80` is HTTP/2, and `protocol` says h1
         --> gw.yaml:5:20
          |
        5 |   b: { endpoints: ["h2c://a"], protocol: h1 }
          |                    ^^^^^^^^^             -- here
          |                    |
          |                    in backends.b

    "#]],
    );
    check(
        "{ endpoints: [\"http://a\"], protocol: h2, proxy_protocol: v1 }",
        &expect![[r#"
        error[protocol]: `proxy_protocol` needs HTTP/1.1
         --> gw.yaml:5:63
          |
        5 |   b: { endpoints: ["http://a"], protocol: h2, proxy_protocol: v1 }
          |                                           --                  ^^ in backends.b
          |                                           |
          |                                           here it is HTTP/2
          |
          = help: a connection that begins with one client's address cannot be shared

    "#]],
    );
    check(
        "{ endpoints: [\"h2c://a\"], proxy_protocol: v2 }",
        &expect![[r#"
        error[protocol]: `proxy_protocol` needs HTTP/1.1
         --> gw.yaml:5:48
          |
        5 |   b: { endpoints: ["h2c://a"], proxy_protocol: v2 }
          |                    --------- here it is HTTP/2 ^^ in backends.b
          |
          = help: a connection that begins with one client's address cannot be shared

    "#]],
    );
}

#[test]
fn other_settings_of_backends_and_listeners() {
    let text = r#"
listeners:
  http:
    bind: "127.0.0.1:8080"
    connections_per_address_max: 7
    http2_frames:
      { resets_per_minute: 1, pings_per_minute: 2, settings_per_minute: 3, continuations_max: 4 }
routes: { a: { match: /a, public: for a test, to: b } }
backends:
  b: { endpoints: ["http://a"], forwarded: true, proxy_protocol: v2, streams_max: 8 }
"#;
    let snapshot = compiled(text, &Files::default()).ok();
    let (backend, limits) = (&snapshot.backends[0], &snapshot.listeners[0].limits);
    let frames = limits.frames;
    assert!(backend.forwarded);
    assert_eq!((backend.proxy_protocol, backend.streams_max), (Some(ProxyVersion::V2), 8));
    assert_eq!(limits.connections_per_address_max, 7);
    assert_eq!((frames.resets_per_minute, frames.pings_per_minute), (1, 2));
    assert_eq!((frames.settings_per_minute, frames.continuations_max), (3, 4));
}

#[test]
fn upgrades_are_inherited_and_replaced() {
    let text = r#"
listeners: { http: { bind: "127.0.0.1:8080" } }
defaults: { upgrade: websocket, timeout: { upgrade_idle: 1m } }
groups:
  g:
    upgrade: []
    timeout: { upgrade_lifetime: off }
    routes:
      no: { match: /no, public: for a test, to: b }
      yes: { match: /yes, public: for a test, to: b, upgrade: [websocket], timeout: { upgrade_idle: off } }
routes:
  plain: { match: /plain, public: for a test, to: b }
  here: { match: /here, public: for a test, respond: { status: 200 } }
backends: { b: "http://a" }
"#;
    let snapshot = compiled(text, &Files::default()).ok();
    let mut out = String::new();
    for route in &snapshot.routes {
        let timeouts = &route.timeouts;
        let (idle, lifetime) = (timeouts.upgrade_idle, timeouts.upgrade_lifetime);
        out += &format!("{} {} {idle:?} {lifetime:?}\n", route.name, route.websocket);
    }
    expect![[r#"
        plain true Some(60s) Some(43200s)
        here false Some(60s) Some(43200s)
        g/no false Some(60s) None
        g/yes true None None
    "#]]
    .assert_eq(&out);
    let rows = crate::describe::describe(&snapshot);
    let said: Vec<_> = rows.iter().map(|row| row.upgrade.concat()).collect();
    assert_eq!(said, ["websocket", "", "", "websocket"]);
}

#[test]
fn an_upgrade_where_nothing_is_forwarded() {
    let text = r#"
listeners: { http: { bind: "127.0.0.1:8080" } }
routes:
  a: { match: /a, public: for a test, upgrade: websocket, respond: { status: 200 } }
  b: { match: /b, public: for a test, upgrade: [], respond: { status: 200 } }
"#;
    expect![[r#"
        warning[no-effect]: `upgrade` has no effect: the route has no backend
         --> gw.yaml:4:48
          |
        4 |   a: { match: /a, public: for a test, upgrade: websocket, respond: { status: 200 } }
          |                                                ^^^^^^^^^ in routes.a.upgrade

    "#]]
    .assert_eq(&compiled(text, &Files::default()).findings);
}

#[test]
fn grpc_is_a_post_below_the_service() {
    let text = r#"
listeners: { http: { bind: "127.0.0.1:8080" } }
defaults: { on: http }
routes:
  all: { match: { hosts: [x], grpc: shop.v1.Orders/* }, public: for a test, to: b }
  one: { match: { grpc: shop.v1.Orders/Get, headers: { x-tenant: a } }, public: for a test, to: b }
backends: { b: "h2c://a" }
tests:
  - POST http://x/shop.v1.Orders/List => all
  - GET http://x/shop.v1.Orders/List => 405
  - { request: POST http://y/shop.v1.Orders/Get, headers: { x-tenant: a }, expect: one }
  - POST http://y/shop.v1.Orders/Get => 404
  - POST http://x/shop.v1.OrdersAdmin/List => 404
"#;
    let compiled = compiled(text, &Files::default());
    assert_eq!(compiled.findings, "");
    let rows = crate::describe::describe(&compiled.ok());
    let matches: Vec<_> = rows.into_iter().flat_map(|row| row.matches).collect();
    expect![[r#"
        POST x/shop.v1.Orders/**
        POST */shop.v1.Orders/Get [header x-tenant: a]"#]]
    .assert_eq(&matches.join("\n"));
}

/// What is wrong with who a backend's endpoints are to be.
#[test]
fn an_identity_that_nobody_could_have_is_an_error() {
    let check = |backend: &str, expected: &Expect| {
        check(&format!("{{ endpoints: [\"https://a\"], {backend} }}"), expected);
    };
    check(
        r#"tls: { ca: "file:ca", identity: ["spiffe://a.org/x", "spiffe://A.org/x", "a b", "::1"] }"#,
        &expect![[r#"
            error[identity]: no certificate could have this name
             --> gw.yaml:5:87
              |
            5 |   b: { endpoints: ["https://a"], tls: { ca: "file:ca", identity: ["spiffe://a.org/x", "spiffe://A.org/x", "a b", "::1"] } }
              |                                                                                       ^^^^^^^^^^^^^^^^^^ in backends.b.tls.identity
              |
              = help: write `spiffe://TRUST-DOMAIN/PATH`, where `*` is one whole segment

            error[identity]: no certificate could have this name
             --> gw.yaml:5:107
              |
            5 |   b: { endpoints: ["https://a"], tls: { ca: "file:ca", identity: ["spiffe://a.org/x", "spiffe://A.org/x", "a b", "::1"] } }
              |                                                                                                           ^^^^^ in backends.b.tls.identity
              |
              = help: write a DNS name, or `*.` and a name: `*` is one whole label

            error[identity]: no certificate could have this name
             --> gw.yaml:5:114
              |
            5 |   b: { endpoints: ["https://a"], tls: { ca: "file:ca", identity: ["spiffe://a.org/x", "spiffe://A.org/x", "a b", "::1"] } }
              |                                                                                                                  ^^^^^ in backends.b.tls.identity
              |
              = help: an address is nobody's name

        "#]],
    );
    check(
        r#"tls: { unverified: "a test", identity: orders.internal }"#,
        &expect![[r#"
        warning[unverified]: `b` is not verified: a test
         --> gw.yaml:5:53
          |
        5 |   b: { endpoints: ["https://a"], tls: { unverified: "a test", identity: orders.internal } }
          |                                                     ^^^^^^^^ in backends.b.tls

        error[identity]: nobody's identity is verified
         --> gw.yaml:5:73
          |
        5 |   b: { endpoints: ["https://a"], tls: { unverified: "a test", identity: orders.internal } }
          |                                                                         ^^^^^^^^^^^^^^^ in backends.b.tls.identity
          |
          = help: remove `unverified`

    "#]],
    );
    check(
        r#"tls: { ca: "file:ca" }, health: { connect: true, expect_header: { name: a b, value: c } }"#,
        &expect![[r#"
            error[health]: no answer could have this `expect_header`
             --> gw.yaml:5:3
              |
            5 |   b: { endpoints: ["https://a"], tls: { ca: "file:ca" }, health: { connect: true, expect_header: { name: a b, value: c } } }
              |   ^ in backends.b.health
              |
              = help: `name` is that of a header field, `value` printable ASCII

            error[health]: a connection alone has no header
             --> gw.yaml:5:3
              |
            5 |   b: { endpoints: ["https://a"], tls: { ca: "file:ca" }, health: { connect: true, expect_header: { name: a b, value: c } } }
              |   ^ in backends.b.health
              |
              = help: write `path` or `grpc`, or remove `expect_header`

        "#]],
    );
}

#[test]
fn another_identity_is_another_connection() {
    let files = files();
    let trust = |identity: &str| {
        let tls = format!("tls: {{ ca: \"file:ca\"{identity} }}");
        let text = config(&format!("{{ endpoints: [\"https://a\"], {tls} }}"));
        compiled(&text, &files).ok().backends[0].tls.as_ref().map(|tls| tls.trust)
    };
    let with = ", identity: spiffe://a.org/x";
    assert_eq!(trust(with), trust(with));
    assert_ne!(trust(with), trust(""));
    assert_ne!(trust(with), trust(", identity: spiffe://a.org/y"));
}

/// What the documentation promises of a backend that says nothing of it.
#[test]
fn endpoints_are_watched_by_these_numbers_where_nothing_is_said() {
    let text = config("{ endpoints: [\"http://a\"], health: /x }");
    let snapshot = compiled(&text, &files()).ok();
    let backend = &snapshot.backends[0];
    let set = backend.endpoints.load();
    let health = backend.health.as_ref().map(|health| {
        let HealthSettings { interval, interval_edge, down_after, up_after, .. } = health.settings;
        (interval, interval_edge, down_after, up_after)
    });
    let millis = Duration::from_millis;
    assert_eq!(health, Some((millis(5_000), millis(500), 2, 2)));
    let settings = set.balancer.settings();
    assert_eq!((settings.slow_start, settings.panic_threshold), (millis(30_000), 50));
    assert_eq!(settings.outliers, Some(outlier::Terms::default()));
    let terms = outlier::Terms::default();
    assert_eq!((terms.in_a_row, terms.ejected_max, outlier::INTERVAL), (5, 50, millis(1_000)));
    assert_eq!(crate::RECONCILE, millis(300_000));
    assert_eq!(snapshot.routes[0].retry.on, [RetryOn::Connect]);
}
