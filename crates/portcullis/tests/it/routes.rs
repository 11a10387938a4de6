//! `portcullis routes`.

use expect_test::expect;

use crate::binary::Place;

const CONFIG: &str = r#"
listeners:
  http: { bind: "127.0.0.1:8080" }
  inner: { bind: "127.0.0.1:8081" }
auth:
  idp: { jwt: { issuer: "https://idp.example.com/", audience: [orders] } }
  partners: { api_keys: { keys: "file:partners.yaml" } }
defaults: { on: http, limits: ["1000/s per ip"] }
routes:
  orders:
    match: [api.example.com/orders/**, { path: /v1/orders/**, methods: [GET] }]
    auth: [idp, partners]
    require: { scopes: ["orders:read"] }
    limits: ["100/s per client"]
    to: { orders-v1: 90, orders-v2: 10 }
  news: { match: /news, auth: { optional: idp, reason: "better with a name" }, to: orders-v1 }
  status: { on: [http, inner], match: /status, public: "a probe", respond: { status: 200 } }
backends: { orders-v1: "http://127.0.0.1:9001", orders-v2: "http://127.0.0.1:9002" }
"#;

fn place() -> Place {
    let place = Place::with(CONFIG);
    place.write("partners.yaml", "[]");
    place
}

#[test]
fn a_table_for_people() {
    place().check(&["routes"], &expect![[r#"
        ROUTE           MATCH                      ACCESS                POLICIES             TO
        orders          api.example.com/orders/**  idp or partners       admit early: limits  orders-v1 90
        on http         GET */v1/orders/**         scope orders:read     admit: limits        orders-v2 10
        news            */news                     optional idp          admit early: limits  orders-v1
        on http                                    "better with a name"
        status          */status                   public                admit early: limits  (answered here)
        on http, inner                             "a probe"             forward: respond
        --- status 0
    "#]]);
}

#[test]
fn json() {
    place().check(
        &["routes", "--json"],
        &expect![[r#"
            [
              {
                "route": "orders",
                "matches": [
                  "api.example.com/orders/**",
                  "GET */v1/orders/**"
                ],
                "listeners": [
                  "http"
                ],
                "access": "authenticated",
                "auth": [
                  "idp",
                  "partners"
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
                  }
                ]
              },
              {
                "route": "news",
                "matches": [
                  "*/news"
                ],
                "listeners": [
                  "http"
                ],
                "access": "optional",
                "auth": [
                  "idp"
                ],
                "scopes": [],
                "reason": "better with a name",
                "policies": [
                  "admit early: limits",
                  "authenticate: auth"
                ],
                "to": [
                  {
                    "backend": "orders-v1",
                    "weight": 100
                  }
                ]
              },
              {
                "route": "status",
                "matches": [
                  "*/status"
                ],
                "listeners": [
                  "http",
                  "inner"
                ],
                "access": "public",
                "auth": [],
                "scopes": [],
                "reason": "a probe",
                "policies": [
                  "admit early: limits",
                  "forward: respond"
                ],
                "to": []
              }
            ]
            --- status 0
        "#]],
    );
}

#[test]
fn what_does_not_compile_has_no_table() {
    Place::with("routes: { a: { match: /a } }").check(
        &["routes"],
        &expect![[r#"
        --- stderr
        error[no-action]: the route does not say what becomes of a request
         --> portcullis.yaml:1:11
          |
        1 | routes: { a: { match: /a } }
          |           ^ in routes.a
          |
          = help: add `to: BACKEND`, or one of `respond`, `redirect`, `deny`

        --- status 1
    "#]],
    );
}

#[test]
fn calls_and_upgrades() {
    let place = Place::with(
        r#"
listeners: { http: { bind: "127.0.0.1:8080" } }
defaults: { upgrade: websocket }
routes:
  calls: { match: { hosts: [x], grpc: "shop.v1.Orders/*" }, public: "for all", upgrade: [], to: b }
  live: { match: /live, public: "for all", to: b }
backends: { b: "h2c://127.0.0.1:9001" }
"#,
    );
    place.check(
        &["routes"],
        &expect![[r#"
        ROUTE  MATCH                     ACCESS     POLICIES            TO
        calls  POST x/shop.v1.Orders/**  public                         b
                                         "for all"
        live   */live                    public     upgrade: websocket  b
                                         "for all"
        --- status 0
    "#]],
    );
    place.check(
        &["explain", "GET http://x/live"],
        &expect![[r#"
        GET http://x/live

          listener      http
          path          /live
          route         live   */live
          upgrade       websocket

          forwarded to b
        --- status 0
    "#]],
    );
    place.check(
        &["explain", "POST http://x/shop.v1.Orders/Get"],
        &expect![[r#"
        POST http://x/shop.v1.Orders/Get

          listener      http
          path          /shop.v1.Orders/Get
          route         calls   POST x/shop.v1.Orders/**

          forwarded to b
        --- status 0
    "#]],
    );
}
