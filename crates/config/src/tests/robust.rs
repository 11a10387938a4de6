//! Whatever is typed, nothing panics, and each finding has a place that can be shown.

use proptest::prelude::*;

use crate::testing::load_files;
use crate::{render, report};

/// Pieces of the language and of YAML, in any order.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("routes"),
        Just("groups"),
        Just("backends"),
        Just("listeners"),
        Just("auth"),
        Just("defaults"),
        Just("tests"),
        Just("limits"),
        Just("match"),
        Just("to"),
        Just("on"),
        Just("public"),
        Just("timeout"),
        Just("bind"),
        Just("tls"),
        Just("jwt"),
        Just("require"),
        Just(": "),
        Just(":"),
        Just("\n"),
        Just("\n  "),
        Just("\n    "),
        Just("- "),
        Just("{ "),
        Just(" }"),
        Just("[ "),
        Just(" ]"),
        Just(", "),
        Just("\""),
        Just("'"),
        Just("#"),
        Just("&a "),
        Just("*a"),
        Just("!!str "),
        Just("| "),
        Just("> "),
        Just("? "),
        Just("---\n"),
        Just("%"),
        Just("\t"),
        Just("\r\n"),
        Just("\u{feff}"),
        Just("é"),
        Just("\u{1f600}"),
        Just("\0"),
        Just("/users/{id}"),
        Just("*.example.com"),
        Just("https://x/ => 401"),
        Just("GET "),
        Just("100/s per ip"),
        Just("15s"),
        Just("10MiB"),
        Just("0755"),
        Just("off"),
        Just("yes"),
        Just("null"),
        Just("1e999"),
        Just("http://[::1]:80/x"),
        Just("file:x"),
        Just("=> "),
        Just("as "),
        Just("with scopes "),
        Just("regex"),
        Just("replace"),
    ];
    proptest::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

fn survives(text: &str) {
    let loaded = load_files(&[("a.yaml", text), ("b.yaml", text)]);
    assert_eq!(loaded.config.is_none(), loaded.findings.has_errors());
    for colour in [false, true] {
        let shown = render(&loaded.findings, &loaded.sources, colour);
        assert_eq!(shown.is_empty(), loaded.findings.is_empty());
    }
    let report = report(&loaded.findings, &loaded.sources);
    assert_eq!(report.errors, loaded.findings.errors());
}

proptest! {
    #[test]
    fn any_text(text in "\\PC{0,80}") {
        survives(&text);
    }

    #[test]
    fn any_mixture(text in pieces()) {
        survives(&text);
    }

    #[test]
    fn a_good_file_with_a_hole(start in 0_usize..900, length in 0_usize..40) {
        let mut text = GOOD.to_owned();
        let clamp = |at: usize| (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
        let (start, end) = (clamp(start).unwrap_or(0), clamp(start + length).unwrap_or(0));
        text.replace_range(start..end, "");
        survives(&text);
    }
}

/// Something of everything.
pub(crate) const GOOD: &str = r#"
listeners: { l: { bind: "0.0.0.0:80", http2_frames: { pings_per_minute: 9 }, tls: { certificates: [{ cert: "file:a", key: "file:b" }] } } }
auth: { idp: { jwt: { issuer: "https://é.example.com/", audience: [a] } } }
defaults: { auth: idp, limits: ["1000/s per ip"], timeout: 15s, on: l }
groups:
  g: { match: "g.example.com/{t}/**", routes: { r: { match: [/x, { path: "/{y}", methods: [GET] }], to: b } } }
routes:
  orders:
    match: api.example.com/orders/**
    auth: { optional: idp, reason: "for all" }
    limits: { replace: "more of it", use: ["5/m burst 3 per client+route"] }
    timeout: { response: 5s, total: off, upgrade_idle: off }
    upgrade: [websocket]
    to: { a: 90, b: 10 }
  calls: { match: { hosts: [a.example.com], grpc: "shop.v1.Orders/*" }, to: c }
backends:
  a: { endpoints: ["http://10.0.0.1:8080", { url: "https://x", weight: 3 }], health: /healthz }
  b: "http://b"
  c: { endpoints: ["h2c://c"], protocol: h2, streams_max: 9, forwarded: true }
  d: { endpoints: ["http://d"], proxy_protocol: v2 }
tests:
  - GET https://api.example.com/orders/1 as idp with scopes orders:read => orders
"#;

#[test]
fn the_good_file_is_good() {
    let loaded = load_files(&[("a.yaml", GOOD)]);
    assert!(loaded.config.is_some(), "{}", render(&loaded.findings, &loaded.sources, false));
}

/// As a copy leaves it that was broken off.
#[test]
fn every_beginning_of_a_good_file() {
    for (end, _) in GOOD.char_indices() {
        survives(&GOOD[..end]);
    }
}

#[test]
fn deep_nesting_is_refused_and_not_followed() {
    for open in ["[", "{a: ", "- ", "? "] {
        let loaded = load_files(&[("a.yaml", &open.repeat(100_000))]);
        assert!(loaded.findings.has_errors(), "{open}");
    }
}
