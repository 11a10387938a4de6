//! Snippets about routes and groups.

use expect_test::expect;

use super::errors::check;

#[test]
fn grpc_and_upgrades_that_cannot_be() {
    check(
        r#"
defaults: { upgrade: [websockets, h2c], timeout: { upgrade_idle: 0s } }
routes:
  a: { match: { grpc: Orders }, to: x }
  b: { match: { grpc: shop..Orders/Get }, to: x }
  c: { match: { grpc: "shop.Orders/Get*" }, to: x }
  d: { match: { grpc: shop.Orders/Get, path: /shop.Orders/Get }, to: x }
  e: { match: { grpc: shop.Orders/Get, methods: [POST, GET] }, to: x }
  f: { match: { grpc: 1.Orders/Get }, to: x }
"#,
        &expect![[r#"
            error[unknown-value]: unknown value `websockets`, expected `websocket`
             --> portcullis.yaml:2:23
              |
            2 | defaults: { upgrade: [websockets, h2c], timeout: { upgrade_idle: 0s } }
              |                       ^^^^^^^^^^ in defaults.upgrade[0]
              |
              = help: did you mean `websocket`?

            error[unknown-value]: unknown value `h2c`, expected `websocket`
             --> portcullis.yaml:2:35
              |
            2 | defaults: { upgrade: [websockets, h2c], timeout: { upgrade_idle: 0s } }
              |                                   ^^^ in defaults.upgrade[1]

            error[invalid-value]: must be longer than zero
             --> portcullis.yaml:2:66
              |
            2 | defaults: { upgrade: [websockets, h2c], timeout: { upgrade_idle: 0s } }
              |                                                                  ^^ in defaults.timeout.upgrade_idle
              |
              = help: write `off` for no limit

            error[invalid-value]: `Orders` is not a service and a method
             --> portcullis.yaml:4:23
              |
            4 |   a: { match: { grpc: Orders }, to: x }
              |                       ^^^^^^ in routes.a.match.grpc
              |
              = help: write for example `shop.v1.Orders/*`, or `shop.v1.Orders/Get` for one method

            error[invalid-value]: `shop..Orders` is not the full name of a service
             --> portcullis.yaml:5:23
              |
            5 |   b: { match: { grpc: shop..Orders/Get }, to: x }
              |                       ^^^^^^^^^^^^ in routes.b.match.grpc
              |
              = help: write for example `shop.v1.Orders/*`, or `shop.v1.Orders/Get` for one method

            error[invalid-value]: `Get*` is not a method or `*`
             --> portcullis.yaml:6:36
              |
            6 |   c: { match: { grpc: "shop.Orders/Get*" }, to: x }
              |                                    ^^^^ in routes.c.match.grpc
              |
              = help: write for example `shop.v1.Orders/*`, or `shop.v1.Orders/Get` for one method

            error[invalid-value]: `grpc` says the path: it cannot stand with `path` or `regex`
             --> portcullis.yaml:7:15
              |
            7 |   d: { match: { grpc: shop.Orders/Get, path: /shop.Orders/Get }, to: x }
              |               ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ in routes.d.match

            error[invalid-value]: `grpc` says the method: it is always POST
             --> portcullis.yaml:8:15
              |
            8 |   e: { match: { grpc: shop.Orders/Get, methods: [POST, GET] }, to: x }
              |               ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ in routes.e.match

            error[invalid-value]: `1.Orders` is not the full name of a service
             --> portcullis.yaml:9:23
              |
            9 |   f: { match: { grpc: 1.Orders/Get }, to: x }
              |                       ^^^^^^^^ in routes.f.match.grpc
              |
              = help: write for example `shop.v1.Orders/*`, or `shop.v1.Orders/Get` for one method

        "#]],
    );
}

#[test]
fn routes_that_contradict_themselves() {
    check(
        r#"
defaults: { respond: { status: 200 }, public: "all of it" }
routes:
  a: { match: /a, auth: idp, public: "why not", to: b }
  b: { match: /b, to: b, deny: "no" }
  c: { match: /c }
  d: { to: {} }
  "e f": { match: /e, to: { x: 0 } }
  f: { match: { path: /f, regex: "/f+" }, to: x }
  g: { match: { methods: [get, POSST], headers: { x: { prefx: a } } }, to: x, auth: { optional: idp } }
"#,
        &expect![[r#"
            error[unknown-key]: `respond` is said by each route for itself
             --> portcullis.yaml:2:13
              |
            2 | defaults: { respond: { status: 200 }, public: "all of it" }
              |             ^^^^^^^ in defaults

            error[unknown-key]: `public` is said by each route for itself
             --> portcullis.yaml:2:39
              |
            2 | defaults: { respond: { status: 200 }, public: "all of it" }
              |                                       ^^^^^^ in defaults

            error[public-and-auth]: a route is public or has `auth`, not both
             --> portcullis.yaml:4:38
              |
            4 |   a: { match: /a, auth: idp, public: "why not", to: b }
              |                         ---          ^^^^^^^^^ in routes.a
              |                         |
              |                         `auth` here

            error[two-actions]: a route has one action, here are `to` and `deny`
             --> portcullis.yaml:5:26
              |
            5 |   b: { match: /b, to: b, deny: "no" }
              |                   --     ^^^^ in routes.b
              |                   |
              |                   the other one

            error[no-action]: the route does not say what becomes of a request
             --> portcullis.yaml:6:3
              |
            6 |   c: { match: /c }
              |   ^ in routes.c
              |
              = help: add `to: BACKEND`, or one of `respond`, `redirect`, `deny`

            error[missing-key]: the key `match` is missing
             --> portcullis.yaml:7:3
              |
            7 |   d: { to: {} }
              |   ^ in routes.d

            error[out-of-range]: needs at least 1 entry
             --> portcullis.yaml:7:8
              |
            7 |   d: { to: {} }
              |        ^^ in routes.d.to

            error[invalid-name]: a name cannot have ' ' in it
             --> portcullis.yaml:8:5
              |
            8 |   "e f": { match: /e, to: { x: 0 } }
              |     ^ in routes.e f
              |
              = help: names have letters, digits, `-`, `_` and `.`

            error[invalid-value]: at least one weight must be more than 0
             --> portcullis.yaml:8:27
              |
            8 |   "e f": { match: /e, to: { x: 0 } }
              |                           ^^^^^^^^ in routes.e f.to

            error[invalid-value]: `path` and `regex` cannot stand together
             --> portcullis.yaml:9:15
              |
            9 |   f: { match: { path: /f, regex: "/f+" }, to: x }
              |               ^^^^^^^^^^^^^^^^^^^^^^^^^^ in routes.f.match

            error[unknown-value]: unknown value `get`, expected one of `GET`, `POST`, `PUT`, `PATCH`, `DELETE`, `OPTIONS`, `HEAD`, `QUERY`, `TRACE`
              --> portcullis.yaml:10:27
               |
            10 |   g: { match: { methods: [get, POSST], headers: { x: { prefx: a } } }, to: x, auth: { optional: idp } }
               |                           ^^^ in routes.g.match.methods[0]
               |
               = help: did you mean `GET`?

            error[unknown-value]: unknown value `POSST`, expected one of `GET`, `POST`, `PUT`, `PATCH`, `DELETE`, `OPTIONS`, `HEAD`, `QUERY`, `TRACE`
              --> portcullis.yaml:10:32
               |
            10 |   g: { match: { methods: [get, POSST], headers: { x: { prefx: a } } }, to: x, auth: { optional: idp } }
               |                                ^^^^^ in routes.g.match.methods[1]
               |
               = help: did you mean `POST`?

            error[unknown-key]: unknown key `prefx`, expected one of `prefix`, `regex`, `present`
              --> portcullis.yaml:10:56
               |
            10 |   g: { match: { methods: [get, POSST], headers: { x: { prefx: a } } }, to: x, auth: { optional: idp } }
               |                                                        ^^^^^ in routes.g.match.headers.x
               |
               = help: did you mean `prefix`?

            error[missing-key]: the key `reason` is missing
              --> portcullis.yaml:10:79
               |
            10 |   g: { match: { methods: [get, POSST], headers: { x: { prefx: a } } }, to: x, auth: { optional: idp } }
               |                                                                               ^^^^ in routes.g.auth

        "#]],
    );
}

#[test]
fn groups() {
    check(
        r#"
groups:
  exact: { match: a.example.com/a, routes: {} }
  methods: { match: { path: "/a/**", methods: GET }, routes: {} }
  hosts:
    match: a.example.com/shop/**
    routes:
      items: { match: items/**, to: b }
      regex: { match: { regex: "/[a-z]+" }, to: b }
      other: { match: { path: "items" }, to: b }
  template:
    match: "/{tenant}/**"
    routes:
      regex: { match: { regex: "/[a-z]+" }, to: b }
"#,
        &expect![[r#"
            error[group-match]: `/a` does not end in `/**`
             --> portcullis.yaml:3:32
              |
            3 |   exact: { match: a.example.com/a, routes: {} }
              |                                ^^ in groups.exact.match
              |
              = help: the paths of its routes stand below it: write `/a/**`

            error[group-match]: the match of a group has hosts and a path only
             --> portcullis.yaml:4:21
              |
            4 |   methods: { match: { path: "/a/**", methods: GET }, routes: {} }
              |                     ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ in groups.methods.match
              |
              = help: say methods, headers and query in its routes

            error[group-match]: the group says the host already
             --> portcullis.yaml:8:23
              |
            6 |     match: a.example.com/shop/**
              |            --------------------- here
            7 |     routes:
            8 |       items: { match: items/**, to: b }
              |                       ^^^^^ in groups.hosts.routes.items.match
              |
              = help: the path of a route in a group begins with `/`

            error[invalid-value]: the path `items` does not begin with `/`
              --> portcullis.yaml:10:31
               |
            10 |       other: { match: { path: "items" }, to: b }
               |                               ^^^^^^^ in groups.hosts.routes.other.match

            error[group-match]: a regular expression cannot follow a group's path with `{…}`
              --> portcullis.yaml:14:32
               |
            12 |     match: "/{tenant}/**"
               |            -------------- the group's path
            13 |     routes:
            14 |       regex: { match: { regex: "/[a-z]+" }, to: b }
               |                                ^^^^^^^^^ in groups.template.routes.regex.match

        "#]],
    );
}

#[test]
fn an_address_without_quotes() {
    check(
        "backends: { b: { endpoints: [http://[::1]:80] } }\n",
        &expect![[r#"
        error[yaml-syntax]: this does not go on as the brackets around it began
         --> portcullis.yaml:1:37
          |
        1 | backends: { b: { endpoints: [http://[::1]:80] } }
          |                                     ^
          |
          = help: within `[…]` and `{…}` a text with `[`, `]`, `{`, `}` or `,` in it needs quotes

    "#]],
    );
}

#[test]
fn mirrors_that_cannot_be() {
    check(
        r#"
routes:
  a: { match: /a, to: x, mirror: { to: y, percent: 101 } }
  b: { match: /b, to: x, mirror: { percent: 1 } }
  c: { match: /c, to: x, mirror: { to: y, body_max: 2MiB } }
  d: { match: /d, to: x, mirror: { to: y, percent: "half", timeout: 0s, methods: [POST] } }
  e: { match: /e, to: x, mirror: [y] }
  f: { match: /f, to: x, mirror: "a b" }
defaults: { mirror: y }
"#,
        &expect![[r#"
            error[out-of-range]: must be from 0 to 100
             --> portcullis.yaml:3:52
              |
            3 |   a: { match: /a, to: x, mirror: { to: y, percent: 101 } }
              |                                                    ^^^ in routes.a.mirror.percent

            error[missing-key]: the key `to` is missing
             --> portcullis.yaml:4:26
              |
            4 |   b: { match: /b, to: x, mirror: { percent: 1 } }
              |                          ^^^^^^ in routes.b.mirror

            error[invalid-value]: `body_max` of `mirror` is at most `1MiB`
             --> portcullis.yaml:5:34
              |
            5 |   c: { match: /c, to: x, mirror: { to: y, body_max: 2MiB } }
              |                                  ^^^^^^^^^^^^^^^^^^^^^^^^^ in routes.c.mirror

            error[wrong-type]: expected a number, found the string `half`
             --> portcullis.yaml:6:52
              |
            6 |   d: { match: /d, to: x, mirror: { to: y, percent: "half", timeout: 0s, methods: [POST] } }
              |                                                    ^^^^^^ in routes.d.mirror.percent

            error[invalid-value]: must be longer than zero
             --> portcullis.yaml:6:69
              |
            6 |   d: { match: /d, to: x, mirror: { to: y, percent: "half", timeout: 0s, methods: [POST] } }
              |                                                                     ^^ in routes.d.mirror.timeout

            error[unknown-key]: unknown key `methods`
             --> portcullis.yaml:6:73
              |
            6 |   d: { match: /d, to: x, mirror: { to: y, percent: "half", timeout: 0s, methods: [POST] } }
              |                                                                         ^^^^^^^ in routes.d.mirror
              |
              = help: known keys: to, percent, body_max, timeout, unsafe_methods

            error[wrong-type]: expected a name or a map, found a list
             --> portcullis.yaml:7:34
              |
            7 |   e: { match: /e, to: x, mirror: [y] }
              |                                  ^^^ in routes.e.mirror

            error[invalid-value]: a name cannot have ' ' in it
             --> portcullis.yaml:8:36
              |
            8 |   f: { match: /f, to: x, mirror: "a b" }
              |                                    ^ in routes.f.mirror
              |
              = help: names have letters, digits, `-`, `_` and `.`

            error[unknown-key]: unknown key `mirror`
             --> portcullis.yaml:9:13
              |
            9 | defaults: { mirror: y }
              |             ^^^^^^ in defaults
              |
              = help: known keys: on, auth, require, limits, timeout, deadline_header, retry, bulkhead, priority, body_max, forward_credential, upgrade, cors, respond, deny

        "#]],
    );
}
