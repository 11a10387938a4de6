//! One configuration for each mistake, and what is said about it.

use expect_test::{Expect, expect};

use crate::testing::{Files, compiled};

const BASE: &str = r#"
listeners: { http: { bind: "127.0.0.1:8080" } }
auth: { idp: { token: { header: x-token } } }
backends: { one: "http://10.0.0.1" }
"#;

#[track_caller]
pub(super) fn check(text: &str, expected: &Expect) {
    let compiled = compiled(text, &Files::default());
    expected.assert_eq(&compiled.findings);
}

#[track_caller]
fn check_routes(routes: &str, expected: &Expect) {
    check(&format!("{BASE}{routes}"), expected);
}

#[test]
fn a_route_that_does_not_say_who_may_call_it() {
    check_routes(
        "routes: { orders: { match: /orders, to: one } }\n",
        &expect![[r#"
            error[no-auth]: `orders` does not say who may call it
             --> gw.yaml:5:11
              |
            5 | routes: { orders: { match: /orders, to: one } }
              |           ^^^^^^ in routes.orders
              |
              = help: add `auth: idp`, or `defaults: {auth: idp}` for all routes, or `public: "<reason>"`

        "#]],
    );
}

#[test]
fn names_that_nothing_has() {
    check_routes(
        r#"
routes:
  a: { match: /a, auth: ipd, on: htp, to: { oen: 1 } }
"#,
        &expect![[r#"
            error[unknown-name]: there is no `auth` entry `ipd`
             --> gw.yaml:7:25
              |
            7 |   a: { match: /a, auth: ipd, on: htp, to: { oen: 1 } }
              |                         ^^^ in routes.a.auth
              |
              = help: did you mean `idp`?

            error[unknown-name]: there is no listener `htp`
             --> gw.yaml:7:34
              |
            7 |   a: { match: /a, auth: ipd, on: htp, to: { oen: 1 } }
              |                                  ^^^ in routes.a.on
              |
              = help: did you mean `http`?

            error[unknown-name]: there is no backend `oen`
             --> gw.yaml:7:45
              |
            7 |   a: { match: /a, auth: ipd, on: htp, to: { oen: 1 } }
              |                                             ^^^ in routes.a.to
              |
              = help: did you mean `one`?

        "#]],
    );
}

#[test]
fn credentials_in_clear_text() {
    check(
        r#"
listeners: { http: { bind: "0.0.0.0:8080" } }
auth: { idp: { token: { header: x-token } } }
defaults: { auth: idp }
routes:
  open: { match: /open, public: for everybody, to: one }
  a: { match: /a, to: one }
  b: { match: /b, auth: { optional: idp, reason: why not }, to: one }
backends: { one: "http://10.0.0.1" }
"#,
        &expect![[r#"
            error[clear-text]: credentials would cross `http` in clear text: route `a` and 1 more
             --> gw.yaml:2:14
              |
            2 | listeners: { http: { bind: "0.0.0.0:8080" } }
              |              ^^^^ in listeners.http
            ...
            7 |   a: { match: /a, to: one }
              |   - this route takes credentials
              |
              = help: give the listener `tls`, bind it to a loopback address, or say why this is safe with `clear_text: "<reason>"`

        "#]],
    );
    check(
        r#"
listeners: { http: { bind: "0.0.0.0:8080", clear_text: behind a TLS balancer } }
auth: { idp: { token: { header: x-token } } }
routes: { a: { match: /a, auth: idp, to: one } }
backends: { one: "http://10.0.0.1" }
"#,
        &expect![[""]],
    );
}

#[test]
fn listeners_that_cannot_be() {
    check(
        r#"
listeners:
  a: { bind: "127.0.0.1:8080", redirect: b }
  b: { bind: "127.0.0.1:8080" }
  c: { bind: "127.0.0.1:8082", proxy_protocol: true }
  d: { bind: "127.0.0.1:8083", redirect: nobody }
routes:
  r: { match: /r, public: for a test, respond: { status: 200 } }
  s: { match: /s, on: [a, b], public: for a test, respond: { status: 200 } }
"#,
        &expect![[r#"
            error[redirect]: `b` does not serve https
             --> gw.yaml:3:42
              |
            3 |   a: { bind: "127.0.0.1:8080", redirect: b }
              |                                          ^ in listeners.a.redirect
            4 |   b: { bind: "127.0.0.1:8080" }
              |   - it needs `tls`, and no `redirect`

            error[address-taken]: `127.0.0.1:8080` is taken by the listener `a`
             --> gw.yaml:4:14
              |
            3 |   a: { bind: "127.0.0.1:8080", redirect: b }
              |              ---------------- here
            4 |   b: { bind: "127.0.0.1:8080" }
              |              ^^^^^^^^^^^^^^^^ in listeners.b.bind

            error[nobody-trusted]: `proxy_protocol` needs `trusted_proxies`: nobody could connect
             --> gw.yaml:5:3
              |
            5 |   c: { bind: "127.0.0.1:8082", proxy_protocol: true }
              |   ^ in listeners.c

            error[unknown-name]: there is no listener `nobody`
             --> gw.yaml:6:42
              |
            6 |   d: { bind: "127.0.0.1:8083", redirect: nobody }
              |                                          ^^^^^^ in listeners.d.redirect

            error[no-listener]: `r` does not say on which listener it is served
             --> gw.yaml:8:3
              |
            8 |   r: { match: /r, public: for a test, respond: { status: 200 } }
              |   ^ in routes.r
              |
              = help: add `on:` here or in `defaults`: `a`, `b`, `c`, `d`

            error[redirect]: `a` serves no routes: it redirects
             --> gw.yaml:9:24
              |
            3 |   a: { bind: "127.0.0.1:8080", redirect: b }
              |                                          - here
            ...
            9 |   s: { match: /s, on: [a, b], public: for a test, respond: { status: 200 } }
              |                        ^ in routes.s.on

        "#]],
    );
    check(
        "routes: { a: { match: /a, deny: nobody may } }\n",
        &expect![[r#"
            error[no-listener]: there is no listener, so nobody can send a request
             |
             = note: in listeners
             = help: add `listeners: { http: { bind: "127.0.0.1:8080" } }`

        "#]],
    );
}

#[test]
fn matches_that_cannot_be() {
    check_routes(
        r#"
routes:
  a:
    match:
      hosts: ["*.a.*", a..b]
      path: ["/a/**/b", "/x/{a", "/%41", "/%2f", "/a/../b"]
      headers: { x: { regex: "(" } }
    public: for a test
    to: one
"#,
        &expect![[r#"
            error[invalid-match]: the host `*.a.*` may have a `*` only as its whole first label
             --> gw.yaml:9:15
              |
            9 |       hosts: ["*.a.*", a..b]
              |               ^^^^^^^ in routes.a.match

            error[invalid-match]: the host `a..b` has a label that is empty or longer than 63 characters
             --> gw.yaml:9:24
              |
            9 |       hosts: ["*.a.*", a..b]
              |                        ^^^^ in routes.a.match

            error[invalid-match]: the path `/a/**/b` may have `**` only as its last segment
              --> gw.yaml:10:14
               |
            10 |       path: ["/a/**/b", "/x/{a", "/%41", "/%2f", "/a/../b"]
               |              ^^^^^^^^^ in routes.a.match

            error[invalid-match]: the path `/x/{a` may have `{name}` only as a whole segment
              --> gw.yaml:10:25
               |
            10 |       path: ["/a/**/b", "/x/{a", "/%41", "/%2f", "/a/../b"]
               |                         ^^^^^^^ in routes.a.match

            error[path-not-canonical]: no request has the path `/%41`
              --> gw.yaml:10:34
               |
            10 |       path: ["/a/**/b", "/x/{a", "/%41", "/%2f", "/a/../b"]
               |                                  ^^^^^^ in routes.a.match
               |
               = help: write `/A`

            error[path-not-canonical]: no request has the path `/%2f`
              --> gw.yaml:10:42
               |
            10 |       path: ["/a/**/b", "/x/{a", "/%41", "/%2f", "/a/../b"]
               |                                          ^^^^^^ in routes.a.match
               |
               = help: requests are refused: path-encoded-slash

            error[path-not-canonical]: no request has the path `/a/../b`
              --> gw.yaml:10:50
               |
            10 |       path: ["/a/**/b", "/x/{a", "/%41", "/%2f", "/a/../b"]
               |                                                  ^^^^^^^^^ in routes.a.match
               |
               = help: write `/b`

            error[invalid-match]: the regular expression: unclosed group
              --> gw.yaml:11:30
               |
            11 |       headers: { x: { regex: "(" } }
               |                              ^^^ in routes.a.match

        "#]],
    );
}

#[test]
fn ties_and_routes_that_nobody_reaches() {
    check_routes(
        r#"
defaults: { auth: idp }
routes:
  one: { match: "a.com/x/{id}", to: one }
  two: { match: { hosts: [a.com], path: "/x/{name}" }, to: one }
  all: { match: { hosts: [a.com], path: /a/** , methods: [GET] }, to: one }
  none: { match: { hosts: [a.com], regex: "/a/[0-9]+", methods: [GET] }, to: one }
  head: { match: { path: /h, methods: [HEAD] }, to: one }
"#,
        &expect![[r#"
            error[route-tie]: `two` and `one` both match `GET a.com/x/any`, and neither is more specific
             --> gw.yaml:9:41
              |
            8 |   one: { match: "a.com/x/{id}", to: one }
              |                       ------- `one` is here
            9 |   two: { match: { hosts: [a.com], path: "/x/{name}" }, to: one }
              |                                         ^^^^^^^^^^^ in routes.two.match
              |
              = help: make one of them more specific: by host, path, methods, headers or query

            error[route-unreachable]: no request reaches `none`: `GET a.com/a/0`, for one, goes to `all`
              --> gw.yaml:11:43
               |
            10 |   all: { match: { hosts: [a.com], path: /a/** , methods: [GET] }, to: one }
               |                                         ----- `all` is here
            11 |   none: { match: { hosts: [a.com], regex: "/a/[0-9]+", methods: [GET] }, to: one }
               |                                           ^^^^^^^^^^^ in routes.none.match
               |
               = help: remove it, or make its match more specific

            error[head-alone]: `head` matches HEAD without GET
              --> gw.yaml:12:26
               |
            12 |   head: { match: { path: /h, methods: [HEAD] }, to: one }
               |                          ^^ in routes.head.match
               |
               = help: HEAD goes where GET goes: add GET, or leave HEAD out

        "#]],
    );
}

#[test]
fn scopes_on_a_public_route_and_what_nobody_uses() {
    check_routes(
        r#"
routes:
  a: { match: /a, public: for a test, require: { scopes: [x] }, respond: { status: 200 } }
"#,
        &expect![[r#"
            error[require-without-auth]: a public route knows nobody of whom it could require something
             --> gw.yaml:7:48
              |
            7 |   a: { match: /a, public: for a test, require: { scopes: [x] }, respond: { status: 200 } }
              |                                                ^^^^^^^^^^^^^^^ in routes.a.require

        "#]],
    );
}

#[test]
fn backends_that_cannot_be() {
    check(
        r#"
listeners: { http: { bind: "127.0.0.1:8080" } }
routes:
  a: { match: /a, public: for a test, to: { one: 1, two: 1, three: 1, four: 1 } }
backends:
  one: { endpoints: [{ url: "http://10.0.0.1", weight: 0 }], tls: {} }
  two: { endpoints: ["http://10.0.0.1", { url: "http://10.0.0.1:80", weight: 2 }] }
  three: { endpoints: ["https://10.0.0.1"] }
  four: { endpoints: ["https://10.0.0.1"], tls: { cert: "file:x" } }
"#,
        &expect![[r#"
            warning[no-weight]: every endpoint has the weight 0 or is draining: none gets a request
             --> gw.yaml:6:3
              |
            6 |   one: { endpoints: [{ url: "http://10.0.0.1", weight: 0 }], tls: {} }
              |   ^^^ in backends.one

            warning[no-effect]: `tls` has no effect: no endpoint begins with `https://`
             --> gw.yaml:6:67
              |
            6 |   one: { endpoints: [{ url: "http://10.0.0.1", weight: 0 }], tls: {} }
              |                                                                   ^^ in backends.one.tls

            error[duplicate-endpoint]: `http://10.0.0.1:80` is listed twice
             --> gw.yaml:7:48
              |
            7 |   two: { endpoints: ["http://10.0.0.1", { url: "http://10.0.0.1:80", weight: 2 }] }
              |                      -----------------         ^^^^^^^^^^^^^^^^^^^^ in backends.two
              |                      |
              |                      first here
              |
              = help: use `weight`

            error[no-authority]: there is no authority to verify the backend with
             --> gw.yaml:8:3
              |
            8 |   three: { endpoints: ["https://10.0.0.1"] }
              |   ^^^^^ in backends.three.tls
              |
              = help: name one with `tls: {ca: "file:PATH"}`

            error[certificate]: `cert` and `key` stand together
             --> gw.yaml:9:57
              |
            9 |   four: { endpoints: ["https://10.0.0.1"], tls: { cert: "file:x" } }
              |                                                         ^^^^^^^^ in backends.four.tls

        "#]],
    );
}

#[test]
fn tests_that_do_not_hold() {
    check_routes(
        r#"
routes:
  orders:
    match: api.example.com/orders/**
    auth: idp
    require: { scopes: [orders:read] }
    ip_filter: { deny: 198.51.100.7 }
    to: one
  status: { match: api.example.com/status, public: for a test, respond: { status: 200 } }
  gone: { match: api.example.com/gone, deny: no longer served }
tests:
  - GET http://api.example.com/orders => 401
  - GET http://api.example.com/orders as idp => 403
  - GET http://api.example.com/orders as idp with scopes orders:read => orders
  - GET http://api.example.com/status => 200
  - GET http://api.example.com/status => status
  - GET http://api.example.com/gone => 403
  - GET http://api.example.com/orders/../status => status
  - GET http://api.example.com/orders/%2e%2e/%2e%2e/x => 400
  - { request: GET http://api.example.com/orders, from: 198.51.100.7, expect: { problem: address-not-allowed } }
  - { request: GET http://api.example.com/orders, headers: { x-token: bad }, expect: 401 }
  - { request: GET http://api.example.com/orders, as: { auth: idp, scopes: [orders:read] }, expect: { backend: one, route: orders } }
  - GET http://api.example.com/orders => 200
  - GET http://api.example.com/orders as idp => orders
  - GET http://api.example.com/orders as idp with scopes orders:read => 200
  - GET http://api.example.com/nothing => orders
  - GET http://api.example.com/gone => gone
  - GET http://api.example.com/gone => gon
  - GET http://api.example.com/gone as ipd => 403
  - GET https://api.example.com/gone => 403
  - POST http://api.example.com/status => 405
"#,
        &expect![[r#"
            error[test-failed]: expected status 200, got 401 credentials-missing from route `orders`
              --> gw.yaml:27:42
               |
            27 |   - GET http://api.example.com/orders => 200
               |                                          ^^^ in tests[11]

            error[test-failed]: expected route `orders`, got 403 insufficient-scope from route `orders` (idp/test lacks the scope `orders:read` (routes.orders.require))
              --> gw.yaml:28:49
               |
            28 |   - GET http://api.example.com/orders as idp => orders
               |                                                 ^^^^^^ in tests[12]

            error[test-failed]: expected status 200, got route `orders`, which sends it to `one`
              --> gw.yaml:29:73
               |
            29 |   - GET http://api.example.com/orders as idp with scopes orders:read => 200
               |                                                                         ^^^ in tests[13]

            error[test-failed]: expected route `orders`, got 404 no-route before any route
              --> gw.yaml:30:43
               |
            30 |   - GET http://api.example.com/nothing => orders
               |                                           ^^^^^^ in tests[14]

            error[test-failed]: expected route `gone`, got 403 denied from route `gone` (no longer served)
              --> gw.yaml:31:40
               |
            31 |   - GET http://api.example.com/gone => gone
               |                                        ^^^^ in tests[15]

            error[test-failed]: there is no route `gon`
              --> gw.yaml:32:40
               |
            32 |   - GET http://api.example.com/gone => gon
               |                                        ^^^ in tests[16]
               |
               = help: did you mean `gone`?

            error[test-failed]: there is no `auth` entry `ipd`
              --> gw.yaml:33:40
               |
            33 |   - GET http://api.example.com/gone as ipd => 403
               |                                        ^^^ in tests[17]
               |
               = help: did you mean `idp`?

            error[test-failed]: no listener speaks https
              --> gw.yaml:34:5
               |
            34 |   - GET https://api.example.com/gone => 403
               |     ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ in tests[18]

            error[test-failed]: expected status 405, got 200 from route `status`
              --> gw.yaml:35:43
               |
            35 |   - POST http://api.example.com/status => 405
               |                                           ^^^ in tests[19]

        "#]],
    );
}

#[test]
fn what_would_have_to_be_fetched_is_unknown() {
    check(
        r#"
listeners: { http: { bind: "127.0.0.1:8080" } }
auth: { idp: { remote: { header: x-token } } }
routes: { a: { match: /a, auth: idp, respond: { status: 200 } } }
tests:
  - { request: GET http://h/a, headers: { x-token: good-me }, expect: a }
  - GET http://h/a as idp => a
  - GET http://h/a => 401
"#,
        &expect![[r#"
            error[test-failed]: unknown: this needs https://idp.example.com/keys, which is not asked offline
             --> gw.yaml:6:5
              |
            6 |   - { request: GET http://h/a, headers: { x-token: good-me }, expect: a }
              |     ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ in tests[0]
              |
              = help: say `as NAME` to state whose credential has been accepted

        "#]],
    );
}

#[test]
fn times_that_contradict_each_other() {
    check(
        r#"
listeners: { http: { bind: "127.0.0.1:8080" } }
auth: { idp: { token: { header: x-token } } }
defaults: { auth: idp }
routes:
  a: { match: /a, to: one, retry: { per_try: 1s, hedge: 20s }, timeout: 1s }
  b: { match: /b, to: one, retry: { per_try: 1s, hedge: 500ms }, timeout: 2s }
backends:
  one: { endpoints: ["http://a"], outliers: { eject: 10m }, breaker: { open: 2s, open_max: 1s } }
"#,
        &expect![[r#"
            warning[no-effect]: `per_try` has no effect: `timeout` is over after 1s
             --> gw.yaml:6:3
              |
            6 |   a: { match: /a, to: one, retry: { per_try: 1s, hedge: 20s }, timeout: 1s }
              |   ^ in routes.a.retry

            warning[no-effect]: `hedge` has no effect: `timeout` is over after 1s
             --> gw.yaml:6:3
              |
            6 |   a: { match: /a, to: one, retry: { per_try: 1s, hedge: 20s }, timeout: 1s }
              |   ^ in routes.a.retry

            error[invalid-value]: `eject` is longer than `eject_max`
             --> gw.yaml:9:3
              |
            9 |   one: { endpoints: ["http://a"], outliers: { eject: 10m }, breaker: { open: 2s, open_max: 1s } }
              |   ^^^ in backends.one.outliers
              |
              = help: `eject_max` is 5m: change one of the two

            error[invalid-value]: `open` is longer than `open_max`
             --> gw.yaml:9:3
              |
            9 |   one: { endpoints: ["http://a"], outliers: { eject: 10m }, breaker: { open: 2s, open_max: 1s } }
              |   ^^^ in backends.one.breaker
              |
              = help: `open_max` is 1s: change one of the two

        "#]],
    );
}
