//! Short and long forms that mean the same, and the defaults.

use expect_test::expect;

use crate::testing::load_files;
use crate::{Config, render};

fn config(text: &str) -> Config {
    let loaded = load_files(&[("portcullis.yaml", text)]);
    let shown = render(&loaded.findings, &loaded.sources, false);
    loaded.config.unwrap_or_else(|| panic!("{shown}"))
}

/// Everything but the places, which differ by nature.
fn shown(config: &Config) -> String {
    let mut out = String::new();
    let mut text = format!("{config:#?}").replace("portcullis_core::", "");
    while let Some(at) = text.find("SourceSpan {") {
        let end = at + text[at..].find('}').expect("closed") + 1;
        out += &text[..at];
        out += "_";
        text = text.split_off(end);
    }
    out + &text
}

fn same(short: &str, long: &str) {
    pretty(&shown(&config(short)), &shown(&config(long)));
}

fn pretty(left: &str, right: &str) {
    let difference = left.lines().zip(right.lines()).find(|(left, right)| left != right);
    assert_eq!(difference, None, "{left}\n{right}");
    assert_eq!(left, right);
}

#[test]
fn the_example_of_the_manual_loads() {
    let config = config(
        r#"
listeners:
  https: { bind: "0.0.0.0:8443", tls: { certificates: [{ cert: "file:tls/api.pem", key: "file:tls/api.key" }] } }
  http:  { bind: "0.0.0.0:8080", redirect: https }
auth:
  idp:      { jwt: { issuer: "https://idp.example.com/", audience: [orders] } }
  partners: { api_keys: { keys: "file:partners.yaml" } }
defaults: { auth: idp, limits: ["1000/s per ip"], timeout: 15s }
routes:
  orders:
    match: api.example.com/orders/**
    auth: [idp, partners]
    require: { scopes: ["orders:read"] }
    limits: ["100/s per client"]
    to: { orders-v1: 90, orders-v2: 10 }
  status:
    match: api.example.com/status
    public: "load balancer probe, carries no data"
    respond: { status: 200, body: ok }
backends:
  orders-v1: { endpoints: ["http://10.0.0.1:8080", "http://10.0.0.2:8080"], health: { path: /healthz } }
  orders-v2: "http://orders-v2.internal:8080"
tests:
  - GET https://api.example.com/orders/1 => 401
  - GET https://api.example.com/orders/1 as idp with scopes orders:read => orders
"#,
    );
    let names: Vec<_> = config.routes.iter().map(|route| route.name.as_str()).collect();
    assert_eq!(names, ["orders", "status"]);
    assert_eq!(config.routes[0].to[1].weight, 10);
    assert_eq!(config.routes[1].layer.policies[0].0.name, "respond");
    assert_eq!(config.defaults.settings.limits.as_ref().map(|limits| limits.list.len()), Some(1));
    assert_eq!(config.tests[1].caller.as_ref().map(|caller| caller.scopes.len()), Some(1));
    assert_eq!(config.tests[1].expect.route.as_ref().map(|r| r.value.as_str()), Some("orders"));
}

#[test]
fn matches() {
    let route =
        |text: &str| format!("routes: {{ r: {{ match: {text}, public: all of it, to: b }} }}");
    let pairs = [
        ("a.example.com/x/**", "{ hosts: [a.example.com], path: /x/** }"),
        ("a.example.com", "{ hosts: [a.example.com] }"),
        ("/x", "{ path: /x }"),
        ("\"*.example.com/{id}\"", "{ hosts: [\"*.example.com\"], path: \"/{id}\" }"),
        ("/x", "[/x]"),
        ("{ methods: GET }", "{ methods: [GET] }"),
        ("{ path: [/a, /b] }", "{ path: [\"/a\", '/b'] }"),
        ("{ grpc: a.v1.B/Get }", "{ path: /a.v1.B/Get, methods: POST }"),
        ("{ grpc: \"B/*\", hosts: [x] }", "{ hosts: [x], path: /B/**, methods: POST }"),
        ("{ grpc: B/*, methods: [POST] }", "{ path: /B/**, methods: POST }"),
        ("{ headers: { X-Version: \"2\" } }", "{ headers: { x-version: \"2\" } }"),
    ];
    for (short, long) in pairs {
        same(&route(short), &route(long));
    }
}

#[test]
fn routes() {
    let pairs = [
        ("to: b", "to: { b: 100 }"),
        ("to: b, auth: idp", "to: b, auth: [idp]"),
        ("to: b, on: web", "to: b, on: [web]"),
        ("to: b, timeout: 5s", "to: b, timeout: { response: 5s }"),
        ("to: b, timeout: off", "to: b, timeout: { response: off }"),
        ("to: b, body_max: 1MiB", "to: b, body_max: 1048576"),
        (
            "to: b, retry: {}",
            "to: b, retry: { on: [connect, reset, 502, 503, 504, unavailable], attempts: 2, \
             per_try: off, non_idempotent: false, body_max: 64KiB, hedge: off }",
        ),
        (
            "to: b, mirror: c",
            "to: b, mirror: { to: c, percent: 100.0, body_max: 64KiB, timeout: 15s, \
             unsafe_methods: false }",
        ),
        ("to: b, bulkhead: 9", "to: b, bulkhead: { requests_max: 9, pending_timeout: 1s }"),
        ("to: b, upgrade: websocket", "to: b, upgrade: [websocket]"),
    ];
    let route = |text: &str| format!("routes: {{ r: {{ match: /, {text} }} }}");
    for (short, long) in pairs {
        same(&route(short), &route(long));
    }
}

#[test]
fn backends_and_listeners() {
    let backend = |text: &str| format!("backends: {{ b: {text} }}");
    let pairs = [
        ("http://a:80", "{ endpoints: [http://a:80] }"),
        ("http://a", "{ endpoints: [{ url: http://a:80 }] }"),
        ("https://A.example", "{ endpoints: [{ url: https://a.example:443/, weight: 1 }] }"),
        ("\"http://[::1]:8080\"", "{ endpoints: [\"http://[0::1]:8080\"] }"),
        (
            "{ endpoints: [http://a], health: /h }",
            "{ endpoints: [http://a], health: { path: /h, interval: 5s, timeout: 2s, \
             status: [\"200-299\"], down_after: 2, up_after: 2 } }",
        ),
        (
            "{ endpoints: [http://a] }",
            "{ endpoints: [http://a], balance: least_requests, host: preserve, \
             connect_timeout: 2s, idle_timeout: 1m, connections_max: 1024, idle_max: 64, \
             requests_max: 1024, concurrency: fixed, pending_max: 1024, pending_timeout: 1s, protocol: auto, streams_max: 100, forwarded: false }",
        ),
        ("h2c://A", "{ endpoints: [\"h2c://a:80/\"] }"),
    ];
    for (short, long) in pairs {
        same(&backend(short), &backend(long));
    }
    same(
        "listeners: { l: { bind: \"0.0.0.0:80\", redirect: m } }",
        "listeners: { l: { bind: \"0.0.0.0:80\", redirect: { to: m }, http2: true, paths: {}, \
         handshake_timeout: 10s, head_timeout: 10s, body_timeout: 30s, keep_alive: 75s, \
         connections_max: 65536, head_max: 64KiB, fields_max: 100, target_max: 8KiB, \
         streams_max: 100, connections_per_address_max: 16384, shed: off, http2_frames: { \
         resets_per_minute: 200, pings_per_minute: 120, settings_per_minute: 60, \
         continuations_max: 8 } } }",
    );
}

#[test]
fn the_process() {
    same("", "access_log: stdout\nprobes: 127.0.0.1:9901\nadmin: off\nshutdown: {}\n");
    same(
        "access_log: file:x.log\nadmin: unix:x.sock\nshutdown: { drain_delay: 5s }",
        "access_log: { to: file:x.log, queue_max: 8192 }\nadmin: { bind: unix:x.sock }",
    );
}

#[test]
fn inline_tests() {
    let pairs = [
        ("GET https://a/x => 401", "{ request: GET https://a/x, expect: 401 }"),
        ("GET https://a/x => r", "{ request: GET https://a/x, expect: { route: r } }"),
        ("GET https://a => 200", "{ request: GET https://a/, expect: { status: 200 } }"),
        ("GET https://a/ as idp => r", "{ request: GET https://a/, as: idp, expect: r }"),
        (
            "POST http://a:81/?q=1 as idp with scopes a,b => r",
            "{ request: POST http://a:81/?q=1, as: { auth: idp, scopes: [a, b] }, expect: r }",
        ),
    ];
    for (short, long) in pairs {
        let test = |text: &str| {
            let mut config = config(&format!("tests: [ {text} ]"));
            config.tests[0].title.clear();
            shown(&config)
        };
        // In flow style a `,` ends a text.
        let short = if short.contains(',') { format!("\"{short}\"") } else { short.to_owned() };
        pretty(&test(&short), &test(long));
    }
}

#[test]
fn groups_hand_down_what_their_routes_begin_with() {
    let config = config(
        r#"
groups:
  shop:
    match: shop.example.com/v1/**
    auth: idp
    routes:
      all: { match: /**, to: b }
      item: { match: "/items/{id}", to: b }
      odd: { match: { regex: "/[0-9]+", methods: POST }, to: b }
      root: { match: /, to: b }
  any:
    match: { hosts: [a.example.com, b.example.com] }
    routes:
      x: { match: [/x, /y], public: "for all", to: b }
"#,
    );
    let shown: Vec<_> = config
        .routes
        .iter()
        .map(|route| {
            let one = |m: &crate::Match| {
                let hosts: Vec<_> = m.hosts.iter().map(|host| host.value.as_str()).collect();
                let paths: Vec<_> = m.paths.iter().map(|p| p.text().value.as_str()).collect();
                format!("{}{}", hosts.join("|"), paths.join("|"))
            };
            let matches: Vec<_> = route.matches.iter().map(one).collect();
            format!("{} {} {:?}", route.name, matches.join(" "), route.group)
        })
        .collect();
    expect![[r#"
        shop/all shop.example.com/v1/** Some(0)
        shop/item shop.example.com/v1/items/{id} Some(0)
        shop/odd shop.example.com/v1(?:/[0-9]+) Some(0)
        shop/root shop.example.com/v1/ Some(0)
        any/x a.example.com|b.example.com/x a.example.com|b.example.com/y Some(1)"#]]
    .assert_eq(&shown.join("\n"));
}

#[test]
fn json_is_read_as_it_is() {
    same(
        "routes: { r: { match: /é, public: for all, to: b } }\nworkers: 2\n",
        "{\n\t\"routes\": {\"r\": {\"match\": \"\\/\\u00e9\", \"public\": \"for all\", \"to\": \"b\"}},\n\t\"workers\": 2\n}",
    );
}

#[track_caller]
fn refused(texts: impl IntoIterator<Item = String>) {
    for text in texts {
        let loaded = load_files(&[("portcullis.yaml", &text)]);
        assert!(loaded.findings.has_errors(), "{text}");
    }
}

#[test]
fn where_an_endpoint_cannot_be() {
    let urls = [
        "file:///etc/passwd",
        "gopher://10.0.0.1",
        "ftp://10.0.0.1",
        "unix:relative",
        "//10.0.0.1",
        "10.0.0.1:80",
        "http://user@10.0.0.1",
        "http://10.0.0.1@169.254.169.254",
        "http://10.0.0.1/path",
        "http://10.0.0.1?query",
        "http://10.0.0.1#part",
        "http://10.0.0.1:0x50",
        "http://a b",
        "http://",
    ];
    refused(urls.map(|url| format!("backends: {{ a: \"{url}\" }}")));
    let [good, listed] = ["\"http://10.0.0.1\"", "{ endpoints: [\"unix:/run/a.sock\"] }"];
    config(&format!("backends: {{ a: {good}, b: {listed} }}"));
}

#[test]
fn weights_that_cannot_be() {
    let route = |to: &str| {
        format!(
            "routes: {{ r: {{ match: /, public: \"a test\", to: {{ {to} }} }} }}\nbackends: {{ a: \"http://a\", b: \"http://b\" }}"
        )
    };
    let weights = ["-1", "1.5", ".nan", ".inf", "1e400", "4294967296", "\"1\"", "null"];
    refused(weights.map(|weight| route(&format!("a: {weight}, b: 1"))));
    refused([route("a: 0, b: 0"), route("")]);
    let endpoint = |weight: &str| {
        format!("backends: {{ a: {{ endpoints: [{{ url: \"http://a\", weight: {weight} }}] }} }}")
    };
    refused(weights.map(endpoint));
    config(&route("a: 0, b: 100"));
}
