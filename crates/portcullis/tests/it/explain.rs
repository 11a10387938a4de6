//! `portcullis explain`.

use expect_test::{Expect, expect};

use crate::binary::Place;

const CONFIG: &str = r#"
listeners: { http: { bind: "127.0.0.1:8080" } }
auth:
  idp: { jwt: { issuer: "https://idp.example.com/", audience: [orders] } }
  staff: { jwt: { issuer: "https://staff.example.com/", audience: [orders] } }
defaults: { auth: idp }
routes:
  orders:
    match: { path: "/orders/{id}", methods: [GET] }
    require: { scopes: ["orders:read"] }
    limits: ["100/s per client", "1000/s per ip"]
    to: { orders-v1: 90, orders-v2: 10, orders-v0: 0 }
  old: { match: /basket, redirect: { to: "/orders", status: 308 } }
  inner: { match: /inner/**, deny: "not for the outside", public: "refuses everybody" }
  guarded: { match: /guarded, public: "by address", ip_filter: { allow: ["10.0.0.0/8"] }, to: orders-v1 }
  status: { match: /status, public: "a probe", respond: { status: 200 } }
backends:
  orders-v0: "http://127.0.0.1:9000"
  orders-v1: "http://127.0.0.1:9001"
  orders-v2: "http://127.0.0.1:9002"
"#;

/// A token with the right shape; whether it is good only the issuer's keys can tell.
const TOKEN: &str = "Authorization: Bearer eyJhbGciOiJFUzI1NiIsImtpZCI6ImEifQ.\
    eyJpc3MiOiJodHRwczovL2lkcC5leGFtcGxlLmNvbS8iLCJhdWQiOiJvcmRlcnMiLCJleHAiOjk5OTk5OTk5OTl9.\
    AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

#[track_caller]
fn check(arguments: &[&str], expected: &Expect) {
    Place::with(CONFIG).check(&[&["explain"], arguments].concat(), expected);
}

#[test]
fn forwarded() {
    let request = "GET http://localhost/orders/./7?x=1";
    let caller = ["--as", "idp", "--scopes", "orders:read,orders:write", "--client", "acme"];
    check(
        &[&[request], &caller[..]].concat(),
        &expect![[r#"
            GET http://localhost/orders/./7?x=1

              listener      http
              path          /orders/7
              route         orders   GET */orders/{id}
              requires      routes.orders.require: scopes orders:read
              admit early   limits   continue
              authenticate  auth     continue
              authorise     require  continue
              admit         limits   continue

              forwarded to orders-v1 (90 of 100) or orders-v2 (10 of 100)
            --- status 0
        "#]],
    );
}

#[test]
fn refused_without_a_credential() {
    check(
        &["GET http://localhost/orders/7"],
        &expect![[r#"
            GET http://localhost/orders/7

              listener      http
              path          /orders/7
              route         orders   GET */orders/{id}
              requires      routes.orders.require: scopes orders:read
              admit early   limits   continue
              authenticate  auth     401 credentials-missing
              authorise     require  not reached
              admit         limits   not reached

              refused: 401 credentials-missing
            --- status 1
        "#]],
    );
}

#[test]
fn refused_without_the_scope() {
    check(
        &["GET http://localhost/orders/7", "--as", "idp"],
        &expect![[r#"
            GET http://localhost/orders/7

              listener      http
              path          /orders/7
              route         orders   GET */orders/{id}
              requires      routes.orders.require: scopes orders:read
              admit early   limits   continue
              authenticate  auth     continue
              authorise     require  403 insufficient-scope: idp/test lacks the scope `orders:read` (routes.orders.require)
              admit         limits   not reached

              refused: 403 insufficient-scope (idp/test lacks the scope `orders:read` (routes.orders.require))
            --- status 1
        "#]],
    );
}

#[test]
fn refused_with_a_credential_that_the_route_does_not_take() {
    check(
        &["GET http://localhost/orders/7", "--as", "staff"],
        &expect![[r#"
            GET http://localhost/orders/7

              listener      http
              path          /orders/7
              route         orders   GET */orders/{id}
              requires      routes.orders.require: scopes orders:read
              admit early   limits   continue
              authenticate  auth     401 credentials-invalid: this route does not take credentials of `staff`
              authorise     require  not reached
              admit         limits   not reached

              refused: 401 credentials-invalid (this route does not take credentials of `staff`)
            --- status 1
        "#]],
    );
}

#[test]
fn from_an_address() {
    let request = "GET http://localhost/guarded";
    check(
        &[request, "--from", "10.1.2.3"],
        &expect![[r#"
        GET http://localhost/guarded

          listener      http
          path          /guarded
          route         guarded   */guarded
          screen        ip_filter  continue

          forwarded to orders-v1
        --- status 0
    "#]],
    );
    check(
        &[request],
        &expect![[r#"
        GET http://localhost/guarded

          listener      http
          path          /guarded
          route         guarded   */guarded
          screen        ip_filter  403 address-not-allowed: 192.0.2.1

          refused: 403 address-not-allowed (192.0.2.1)
        --- status 1
    "#]],
    );
}

#[test]
fn answered_by_the_route() {
    check(
        &["GET http://localhost/status"],
        &expect![[r#"
        GET http://localhost/status

          listener      http
          path          /status
          route         status   */status
          forward       respond  200

          answered by the gateway: 200
        --- status 0
    "#]],
    );
    check(
        &["GET http://localhost/basket", "--as", "idp"],
        &expect![[r#"
        GET http://localhost/basket

          listener      http
          path          /basket
          route         old   */basket
          authenticate  auth      continue
          forward       redirect  308

          answered by the gateway: 308, to /orders
        --- status 0
    "#]],
    );
}

#[test]
fn denied_with_its_reason() {
    check(
        &["GET http://localhost/inner/x"],
        &expect![[r#"
            GET http://localhost/inner/x

              listener      http
              path          /inner/x
              route         inner   */inner/**
              forward       deny  403 denied: not for the outside

              refused: 403 denied (not for the outside)
            --- status 1
        "#]],
    );
}

#[test]
fn without_a_route_the_nearest_are_shown() {
    check(
        &["GET http://localhost/order"],
        &expect![[r#"
        GET http://localhost/order

          listener      http
          path          /order
          route         none
                        near: orders   GET */orders/{id}

          refused: 404 no-route
        --- status 1
    "#]],
    );
}

#[test]
fn with_another_method() {
    check(
        &["DELETE http://localhost/orders/7"],
        &expect![[r#"
        DELETE http://localhost/orders/7

          listener      http
          path          /orders/7
          route         none
                        near: orders   GET */orders/{id}

          refused: 405 method-not-allowed
        --- status 1
    "#]],
    );
}

#[test]
fn a_path_that_is_refused_before_it_is_routed() {
    check(
        &["GET http://localhost/a%2Fb"],
        &expect![[r#"
        GET http://localhost/a%2Fb

          listener      http
          route         none

          refused: 400 path-refused (path-encoded-slash)
        --- status 1
    "#]],
    );
}

#[test]
fn what_depends_on_the_issuer_is_not_known_here() {
    check(
        &["GET http://localhost/orders/7", "--header", TOKEN],
        &expect![[r#"
            GET http://localhost/orders/7

              listener      http
              path          /orders/7
              route         orders   GET */orders/{id}
              requires      routes.orders.require: scopes orders:read
              admit early   limits   continue
              authenticate  auth     unknown: needs https://idp.example.com/.well-known/openid-configuration
              authorise     require  not reached
              admit         limits   not reached

              unknown: it depends on https://idp.example.com/.well-known/openid-configuration, which is not asked offline; `--as NAME` takes a credential for accepted
            --- status 3
        "#]],
    );
}

#[test]
fn no_listener_speaks_it() {
    check(
        &["GET https://localhost/orders/7"],
        &expect![[r#"
        --- stderr
        error: no listener speaks https
        --- status 1
    "#]],
    );
}

#[test]
fn json() {
    check(
        &["GET http://localhost/orders/7", "--json"],
        &expect![[r#"
            {
              "request": "GET http://localhost/orders/7",
              "listener": "http",
              "path": "/orders/7",
              "route": {
                "route": "orders",
                "matches": [
                  "GET */orders/{id}"
                ],
                "listeners": [
                  "http"
                ],
                "access": "authenticated",
                "auth": [
                  "idp"
                ],
                "scopes": [
                  "orders:read"
                ],
                "require": [
                  "routes.orders.require: scopes orders:read"
                ],
                "policies": [
                  "admit early: limits",
                  "authenticate: auth",
                  "authorise: require",
                  "admit: limits"
                ],
                "to": [
                  {
                    "backend": "orders-v1",
                    "weight": 90
                  },
                  {
                    "backend": "orders-v2",
                    "weight": 10
                  },
                  {
                    "backend": "orders-v0",
                    "weight": 0
                  }
                ]
              },
              "steps": [
                {
                  "phase": "admit early",
                  "policy": "limits",
                  "outcome": "continue",
                  "waited": false
                },
                {
                  "phase": "authenticate",
                  "policy": "auth",
                  "outcome": "401 credentials-missing",
                  "waited": false
                }
              ],
              "not_reached": [
                {
                  "phase": "authorise",
                  "policy": "require"
                },
                {
                  "phase": "admit",
                  "policy": "limits"
                }
              ],
              "verdict": {
                "outcome": "refused",
                "status": 401,
                "code": "credentials-missing"
              }
            }
            --- status 1
        "#]],
    );
    let caller = ["--as", "idp", "--scopes", "orders:read"];
    check(
        &[&["GET http://localhost/orders/7", "--json"], &caller[..]].concat(),
        &expect![[r#"
            {
              "request": "GET http://localhost/orders/7",
              "listener": "http",
              "path": "/orders/7",
              "route": {
                "route": "orders",
                "matches": [
                  "GET */orders/{id}"
                ],
                "listeners": [
                  "http"
                ],
                "access": "authenticated",
                "auth": [
                  "idp"
                ],
                "scopes": [
                  "orders:read"
                ],
                "require": [
                  "routes.orders.require: scopes orders:read"
                ],
                "policies": [
                  "admit early: limits",
                  "authenticate: auth",
                  "authorise: require",
                  "admit: limits"
                ],
                "to": [
                  {
                    "backend": "orders-v1",
                    "weight": 90
                  },
                  {
                    "backend": "orders-v2",
                    "weight": 10
                  },
                  {
                    "backend": "orders-v0",
                    "weight": 0
                  }
                ]
              },
              "steps": [
                {
                  "phase": "admit early",
                  "policy": "limits",
                  "outcome": "continue",
                  "waited": false
                },
                {
                  "phase": "authenticate",
                  "policy": "auth",
                  "outcome": "continue",
                  "waited": false
                },
                {
                  "phase": "authorise",
                  "policy": "require",
                  "outcome": "continue",
                  "waited": false
                },
                {
                  "phase": "admit",
                  "policy": "limits",
                  "outcome": "continue",
                  "waited": false
                }
              ],
              "verdict": {
                "outcome": "forwarded",
                "to": [
                  {
                    "backend": "orders-v1",
                    "weight": 90
                  },
                  {
                    "backend": "orders-v2",
                    "weight": 10
                  }
                ]
              }
            }
            --- status 0
        "#]],
    );
}

#[test]
fn what_makes_no_sense_is_usage() {
    check(
        &["http://localhost/orders/7"],
        &expect![[r#"
            --- stderr
            error: invalid value 'http://localhost/orders/7' for '[METHOD URL]': a request is a method and a URL; write for example `GET https://api.example.com/orders`

            For more information, try '--help'.
            --- status 2
        "#]],
    );
    check(
        &["GET http://localhost/orders/7", "--as", "ipd"],
        &expect![[r#"
        --- stderr
        error: there is no `auth` entry `ipd`; did you mean `idp`?
        --- status 2
    "#]],
    );
    check(
        &["GET http://localhost/orders/7", "--scopes", "a"],
        &expect![[r#"
        --- stderr
        error: the following required arguments were not provided:
          --as <NAME>

        Usage: portcullis explain --as <NAME> --scopes <SCOPES> <METHOD URL>

        For more information, try '--help'.
        --- status 2
    "#]],
    );
    check(
        &["GET http://localhost/orders/7", "-H", "nothing"],
        &expect![[r#"
        --- stderr
        error: invalid value 'nothing' for '--header <NAME: VALUE>': write `NAME: VALUE`

        For more information, try '--help'.
        --- status 2
    "#]],
    );
}

/// By chance only where it is.
#[test]
fn which_variant_is_told_as_far_as_it_is_certain() {
    let config = r#"
listeners: { http: { bind: "127.0.0.1:8080", allow_faults: true } }
routes:
  orders:
    match: /orders
    public: "a shop"
    sticky: header:x-user
    to:
      stable: { backend: v1, weight: 9 }
      canary: { backend: v2, weight: 1 }
      trial: { backend: v2, weight: 0, when: { headers: { x-trial: "1" } } }
  late:
    match: /late
    public: "a rehearsal"
    to: v1
    faults: { delay: { by: 2s, percent: 10 }, abort: { status: 503 } }
backends: { v1: "http://127.0.0.1:9001", v2: "http://127.0.0.1:9002" }
"#;
    let place = Place::with(config);
    let said = |header: &str| {
        let request = ["explain", "GET http://localhost/orders", "--header", header];
        place.run(&request).yes().lines().last().unwrap().to_owned()
    };
    expect!["  forwarded to v1 as stable (9 of 10) or v2 as canary (1 of 10)"]
        .assert_eq(&said("x-other: 1"));
    expect!["  forwarded to v2 as trial"].assert_eq(&said("x-trial: 1"));
    let users: Vec<String> = (0..30).map(|user| said(&format!("x-user: {user}"))).collect();
    for variant in ["  forwarded to v1 as stable", "  forwarded to v2 as canary"] {
        assert!(users.iter().any(|user| user == variant), "{users:?}");
    }
    place.check(
        &["explain", "GET http://localhost/late"],
        &expect![[r#"
        GET http://localhost/late

          listener      http
          path          /late
          route         late   */late
          faults        delay 2s of 10%; abort 503
          forward       faults  503 fault-injected: on purpose, by routes.late.faults

          refused: 503 fault-injected (on purpose, by routes.late.faults)
        --- status 1
    "#]],
    );
}
