//! Snippets, as an operator sees them.

use expect_test::{Expect, expect};

use crate::render;
use crate::testing::load_files;

pub(super) fn check(text: &str, expected: &Expect) {
    let loaded = load_files(&[("portcullis.yaml", text)]);
    assert!(loaded.config.is_none(), "this loads");
    expected.assert_eq(&render(&loaded.findings, &loaded.sources, false));
}

#[test]
fn everything_at_once() {
    check(
        r#"
listeners:
  https: { bind: ":8443", tls: { certificates: [{ cert: "tls/api.pem", key: "file:k" }] } }
auth:
  idp: { jvt: { issuer: "https://idp.example.com/" } }
  partners: { api_keys: { key: "file:partners.yaml" } }
default: { timeout: 15 }
routes:
  orders:
    match: https://api.example.com/orders/**
    limit: ["100/s per clent"]
    limits: ["100/s per clent", "10/w"]
    auth: []
    timeout: 15
    to: { orders-v1: "90" }
  status:
    match: api.example.com/status
    public: ok
    repond: { status: 200 }
backends:
  orders-v1: { endpoints: ["10.0.0.1:8080", "http://10.0.0.2:8080/api"], health: { path: healthz, interval: 5 } }
workers: 0
tests:
  - GET api.example.com/orders => 401
"#,
        &expect![[r#"
            error[invalid-value]: `:8443` is not an address with a port
             --> portcullis.yaml:3:19
              |
            3 |   https: { bind: ":8443", tls: { certificates: [{ cert: "tls/api.pem", key: "file:k" }] } }
              |                   ^^^^^ in listeners.https.bind
              |
              = help: for all addresses write `0.0.0.0:8443` or `[::]:8443`

            error[invalid-value]: this is not a reference
             --> portcullis.yaml:3:58
              |
            3 |   https: { bind: ":8443", tls: { certificates: [{ cert: "tls/api.pem", key: "file:k" }] } }
              |                                                          ^^^^^^^^^^^ in listeners.https.tls.certificates[0].cert
              |
              = help: secrets and keys stand outside: write `file:PATH` or `env:NAME`

            error[unknown-key]: unknown kind of authentication `jvt`, expected one of `jwt`, `api_keys`
             --> portcullis.yaml:5:10
              |
            5 |   idp: { jvt: { issuer: "https://idp.example.com/" } }
              |          ^^^ in auth.idp
              |
              = help: did you mean `jwt`?

            error[unknown-key]: unknown key `key`
             --> portcullis.yaml:6:27
              |
            6 |   partners: { api_keys: { key: "file:partners.yaml" } }
              |                           ^^^ in auth.partners.api_keys
              |
              = help: did you mean `keys`?

            error[unknown-key]: unknown key `default`
             --> portcullis.yaml:7:1
              |
            7 | default: { timeout: 15 }
              | ^^^^^^^
              |
              = help: did you mean `defaults`?

            error[invalid-value]: a match has no scheme
              --> portcullis.yaml:10:12
               |
            10 |     match: https://api.example.com/orders/**
               |            ^^^^^^^^ in routes.orders.match
               |
               = help: write the host and the path only; `on:` names the listener

            error[unknown-key]: unknown key `limit`
              --> portcullis.yaml:11:5
               |
            11 |     limit: ["100/s per clent"]
               |     ^^^^^ in routes.orders
               |
               = help: did you mean `limits`?

            error[out-of-range]: needs at least 1 item
              --> portcullis.yaml:13:5
               |
            13 |     auth: []
               |     ^^^^ in routes.orders.auth

            error[wrong-type]: expected a duration such as `15s`, or `off` or a map, found the integer `15`
              --> portcullis.yaml:14:14
               |
            14 |     timeout: 15
               |              ^^ in routes.orders.timeout
               |
               = help: a duration has a unit: `15s`

            error[wrong-type]: expected an integer or a map, found the string `90`
              --> portcullis.yaml:15:22
               |
            15 |     to: { orders-v1: "90" }
               |                      ^^^^ in routes.orders.to.orders-v1
               |
               = help: remove the quotes: `90`

            error[invalid-value]: a reason has at least three letters
              --> portcullis.yaml:18:13
               |
            18 |     public: ok
               |             ^^ in routes.status.public
               |
               = help: say in a few words why, for whoever reads the audit

            error[unknown-key]: unknown key `repond`
              --> portcullis.yaml:19:5
               |
            19 |     repond: { status: 200 }
               |     ^^^^^^ in routes.status
               |
               = help: did you mean `respond`?

            error[invalid-value]: `10.0.0.1:8080` is not an `http://`, `https://` or `h2c://` URL
              --> portcullis.yaml:21:29
               |
            21 |   orders-v1: { endpoints: ["10.0.0.1:8080", "http://10.0.0.2:8080/api"], health: { path: healthz, interval: 5 } }
               |                             ^^^^^^^^^^^^^ in backends.orders-v1.endpoints[0]
               |
               = help: write for example `http://10.0.0.1:8080` or `https://orders.internal`

            error[invalid-value]: the URL of an endpoint has no path
              --> portcullis.yaml:21:66
               |
            21 |   orders-v1: { endpoints: ["10.0.0.1:8080", "http://10.0.0.2:8080/api"], health: { path: healthz, interval: 5 } }
               |                                                                  ^^^^ in backends.orders-v1.endpoints[1]
               |
               = help: use `rewrite` on the route to change the path

            error[invalid-value]: `healthz` is not a path
              --> portcullis.yaml:21:90
               |
            21 |   orders-v1: { endpoints: ["10.0.0.1:8080", "http://10.0.0.2:8080/api"], health: { path: healthz, interval: 5 } }
               |                                                                                          ^^^^^^^ in backends.orders-v1.health.path
               |
               = help: a path begins with `/` and has no spaces and no `#`

            error[wrong-type]: expected a duration such as `15s`, found the integer `5`
              --> portcullis.yaml:21:109
               |
            21 |   orders-v1: { endpoints: ["10.0.0.1:8080", "http://10.0.0.2:8080/api"], health: { path: healthz, interval: 5 } }
               |                                                                                                             ^ in backends.orders-v1.health.interval
               |
               = help: a duration has a unit: `5s`

            error[out-of-range]: must be from 1 to 1024
              --> portcullis.yaml:22:10
               |
            22 | workers: 0
               |          ^ in workers

            error[invalid-value]: `api.example.com/orders` is not a URL with a scheme
              --> portcullis.yaml:24:9
               |
            24 |   - GET api.example.com/orders => 401
               |         ^^^^^^^^^^^^^^^^^^^^^^ in tests[0]
               |
               = help: write for example `https://api.example.com/orders`

        "#]],
    );
}

#[test]
fn how_backends_and_listeners_are_spoken_to() {
    check(
        r#"
listeners:
  a: { bind: "127.0.0.1:80", connections_per_address_max: 0, http2_frames: { pings: 1, resets_per_minute: 0 } }
backends:
  b: { endpoints: ["h2://10.0.0.1"], protocol: http2, streams_max: 0, proxy_protocol: true }
  c: "h2c://10.0.0.1/x"
"#,
        &expect![[r#"
            error[out-of-range]: must be at least 1
             --> portcullis.yaml:3:59
              |
            3 |   a: { bind: "127.0.0.1:80", connections_per_address_max: 0, http2_frames: { pings: 1, resets_per_minute: 0 } }
              |                                                           ^ in listeners.a.connections_per_address_max

            error[unknown-key]: unknown key `pings`
             --> portcullis.yaml:3:78
              |
            3 |   a: { bind: "127.0.0.1:80", connections_per_address_max: 0, http2_frames: { pings: 1, resets_per_minute: 0 } }
              |                                                                              ^^^^^ in listeners.a.http2_frames
              |
              = help: known keys: resets_per_minute, pings_per_minute, settings_per_minute, continuations_max

            error[out-of-range]: must be at least 1
             --> portcullis.yaml:3:107
              |
            3 |   a: { bind: "127.0.0.1:80", connections_per_address_max: 0, http2_frames: { pings: 1, resets_per_minute: 0 } }
              |                                                                                                           ^ in listeners.a.http2_frames.resets_per_minute

            error[invalid-value]: `h2://10.0.0.1` is not an `http://`, `https://` or `h2c://` URL
             --> portcullis.yaml:5:21
              |
            5 |   b: { endpoints: ["h2://10.0.0.1"], protocol: http2, streams_max: 0, proxy_protocol: true }
              |                     ^^^^^^^^^^^^^ in backends.b.endpoints[0]
              |
              = help: write for example `http://10.0.0.1:8080` or `https://orders.internal`

            error[unknown-value]: unknown value `http2`, expected one of `auto`, `h1`, `h2`
             --> portcullis.yaml:5:48
              |
            5 |   b: { endpoints: ["h2://10.0.0.1"], protocol: http2, streams_max: 0, proxy_protocol: true }
              |                                                ^^^^^ in backends.b.protocol

            error[out-of-range]: must be from 1 to 10000
             --> portcullis.yaml:5:68
              |
            5 |   b: { endpoints: ["h2://10.0.0.1"], protocol: http2, streams_max: 0, proxy_protocol: true }
              |                                                                    ^ in backends.b.streams_max

            error[wrong-type]: expected `v1` or `v2`, found the boolean `true`
             --> portcullis.yaml:5:87
              |
            5 |   b: { endpoints: ["h2://10.0.0.1"], protocol: http2, streams_max: 0, proxy_protocol: true }
              |                                                                                       ^^^^ in backends.b.proxy_protocol
              |
              = help: put it in quotes: `"true"`

            error[invalid-value]: the URL of an endpoint has no path
             --> portcullis.yaml:6:21
              |
            6 |   c: "h2c://10.0.0.1/x"
              |                     ^^ in backends.c
              |
              = help: use `rewrite` on the route to change the path

        "#]],
    );
}

#[test]
fn yaml_traps() {
    check(
        r#"
listeners:
  http: { bind: 0.0.0.0:8080, http2: yes }
routes:
  a: { match: { hosts: ["*.example.com"], path: /a }, public: no, deny: "nobody" }
  a: { match: /b, public: "for all", respond: { status: 0755 } }
  c: { match: [/c, &x /d], public: "for all", respond: { status: 200, body: on } }
"#,
        &expect![[r#"
            error[ambiguous-boolean]: `yes` is a boolean to some readers and a text to others
             --> portcullis.yaml:3:38
              |
            3 |   http: { bind: 0.0.0.0:8080, http2: yes }
              |                                      ^^^
              |
              = help: write `true`, or `"yes"` for the text

            error[ambiguous-boolean]: `no` is a boolean to some readers and a text to others
             --> portcullis.yaml:5:63
              |
            5 |   a: { match: { hosts: ["*.example.com"], path: /a }, public: no, deny: "nobody" }
              |                                                               ^^
              |
              = help: write `false`, or `"no"` for the text

            error[duplicate-key]: the key `a` twice
             --> portcullis.yaml:6:3
              |
            5 |   a: { match: { hosts: ["*.example.com"], path: /a }, public: no, deny: "nobody" }
              |   - first here
            6 |   a: { match: /b, public: "for all", respond: { status: 0755 } }
              |   ^

            error[ambiguous-number]: `0755` is octal to some readers and decimal to others
             --> portcullis.yaml:6:57
              |
            6 |   a: { match: /b, public: "for all", respond: { status: 0755 } }
              |                                                         ^^^^
              |
              = help: write `755`, or `"0755"` for the text

            error[yaml-alias]: anchors and aliases are not part of the language
             --> portcullis.yaml:7:20
              |
            7 |   c: { match: [/c, &x /d], public: "for all", respond: { status: 200, body: on } }
              |                    ^^
              |
              = help: settings are shared with `defaults` and `groups`

            error[ambiguous-boolean]: `on` is a boolean to some readers and a text to others
             --> portcullis.yaml:7:77
              |
            7 |   c: { match: [/c, &x /d], public: "for all", respond: { status: 200, body: on } }
              |                                                                             ^^
              |
              = help: write `true`, or `"on"` for the text

        "#]],
    );
}

#[test]
fn a_wildcard_host_without_quotes() {
    check(
        "routes:\n  a: { match: *.example.com/a, public: \"for all\", deny: no one }\n",
        &expect![[r#"
        error[yaml-quotes]: `*.example.com/a` needs quotes
         --> portcullis.yaml:2:15
          |
        2 |   a: { match: *.example.com/a, public: "for all", deny: no one }
          |               ^^^^^^^^^^^^^^^
          |
          = help: quote it: `"*.example.com/a"`

    "#]],
    );
}

#[test]
fn a_template_without_quotes() {
    check(
        "routes:\n  a: { match: /users/{id}, public: \"for all\", to: b }\n",
        &expect![[r#"
        error[yaml-quotes]: `/users/{id}` needs quotes
         --> portcullis.yaml:2:15
          |
        2 |   a: { match: /users/{id}, public: "for all", to: b }
          |               ^^^^^^^^^^^
          |
          = help: quote it: `"/users/{id}"`

    "#]],
    );
}

#[test]
fn a_bracket_that_is_never_closed() {
    check(
        "routes:\n  a: { match: /a,\n  b: 1\n\n",
        &expect![[r#"
        error[yaml-syntax]: a bracket that is never closed
         --> portcullis.yaml:2:6
          |
        2 |   a: { match: /a,
          |      ^
          |
          = help: each `[` needs a `]` and each `{` a `}`

    "#]],
    );
}

#[test]
fn booleans_and_texts_that_look_like_each_other() {
    check(
        r#"
listeners:
  a: { bind: 0.0.0.0:1, http2: off }
  b: { bind: 0.0.0.0:2, http2: "true" }
  c: { bind: 8080 }
routes:
  d: { match: /d, public: true, to: 5 }
  e: { match: { path: {id} }, public: "for all", to: 1.10 }
"#,
        &expect![[r#"
            error[wrong-type]: expected `true` or `false`, found the string `off`
             --> portcullis.yaml:3:32
              |
            3 |   a: { bind: 0.0.0.0:1, http2: off }
              |                                ^^^ in listeners.a.http2
              |
              = help: write `false`

            error[wrong-type]: expected `true` or `false`, found the string `true`
             --> portcullis.yaml:4:32
              |
            4 |   b: { bind: 0.0.0.0:2, http2: "true" }
              |                                ^^^^^^ in listeners.b.http2
              |
              = help: remove the quotes: `true`

            error[wrong-type]: expected an address such as `0.0.0.0:8080` or `unix:PATH`, found the integer `8080`
             --> portcullis.yaml:5:14
              |
            5 |   c: { bind: 8080 }
              |              ^^^^ in listeners.c.bind

            error[wrong-type]: expected a reason in words, found the boolean `true`
             --> portcullis.yaml:7:27
              |
            7 |   d: { match: /d, public: true, to: 5 }
              |                           ^^^^ in routes.d.public

            error[wrong-type]: expected a name or a map, found the integer `5`
             --> portcullis.yaml:7:37
              |
            7 |   d: { match: /d, public: true, to: 5 }
              |                                     ^ in routes.d.to
              |
              = help: put it in quotes: `"5"`

            error[wrong-type]: expected a string or a list, found a map
             --> portcullis.yaml:8:23
              |
            8 |   e: { match: { path: {id} }, public: "for all", to: 1.10 }
              |                       ^^^^ in routes.e.match.path
              |
              = help: a text with braces needs quotes: `"{id}"`

            error[wrong-type]: expected a name or a map, found the number `1.1`
             --> portcullis.yaml:8:54
              |
            8 |   e: { match: { path: {id} }, public: "for all", to: 1.10 }
              |                                                      ^^^^ in routes.e.to
              |
              = help: put it in quotes

        "#]],
    );
}

#[test]
fn not_even_a_map() {
    check(
        "- routes\n",
        &expect![[r#"
        error[wrong-type]: a configuration is a map of `routes`, `backends`, …, not a list
         --> portcullis.yaml:1:1
          |
        1 | - routes
          | ^^^^^^^^

    "#]],
    );
    check(
        "routes:\nbackends: []\ntests: {}\n",
        &expect![[r#"
            error[wrong-type]: `routes` has no value
             --> portcullis.yaml:1:1
              |
            1 | routes:
              | ^^^^^^ in routes
              |
              = help: write `routes: {}`, or remove the key

            error[wrong-type]: `backends` is a map of names, not a list
             --> portcullis.yaml:2:11
              |
            2 | backends: []
              |           ^^ in backends

            error[wrong-type]: expected a list, found a map
             --> portcullis.yaml:3:8
              |
            3 | tests: {}
              |        ^^ in tests

        "#]],
    );
}

#[test]
fn for_programs() {
    let loaded = load_files(&[("ä.yaml", "routes:\n  ä: { match: /é, pubic: x, to: b }\n")]);
    let report = crate::report(&loaded.findings, &loaded.sources);
    expect![[r#"
        {
          "errors": 2,
          "warnings": 0,
          "accepted": 0,
          "findings": [
            {
              "code": "invalid-name",
              "severity": "error",
              "resource": "routes.ä",
              "message": "a name cannot have 'ä' in it",
              "help": "names have letters, digits, `-`, `_` and `.`",
              "place": {
                "file": "ä.yaml",
                "line": 2,
                "column": 3,
                "column_end": 4
              }
            },
            {
              "code": "unknown-key",
              "severity": "error",
              "resource": "routes.ä",
              "message": "unknown key `pubic`",
              "help": "did you mean `public`?",
              "place": {
                "file": "ä.yaml",
                "line": 2,
                "column": 19,
                "column_end": 24
              }
            }
          ]
        }"#]]
    .assert_eq(&serde_json::to_string_pretty(&report).expect("JSON"));
    assert_eq!(crate::summary(&loaded.findings), "2 errors");
}

#[test]
fn colour_only_when_asked_for() {
    let loaded = load_files(&[("x.yaml", "rotes: \"\u{1b}[31m\"\n")]);
    let plain = render(&loaded.findings, &loaded.sources, false);
    let colour = render(&loaded.findings, &loaded.sources, true);
    assert!(!plain.contains('\u{1b}'));
    assert!(colour.contains('\u{1b}'));
}
