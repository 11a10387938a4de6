//! What compiles and is worth a second look, and what of it is accepted.

use expect_test::{Expect, expect};

use crate::testing::{Files, compiled};

const BASE: &str = r#"
listeners: { http: { bind: "127.0.0.1:8080" } }
auth: { idp: { token: { header: x-token } } }
backends: { one: "http://10.0.0.1" }
"#;

/// Code, place and message of each finding.
#[track_caller]
fn check(rest: &str, expected: &Expect) {
    let findings = compiled(&format!("{BASE}{rest}"), &Files::default()).findings;
    let mut said = String::new();
    for line in findings.lines() {
        if line.starts_with(['w', 'e']) {
            said += &format!("{line}\n");
        } else if let Some((_, place)) = line.split_once("^ in ") {
            said += &format!("  in {place}\n");
        }
    }
    expected.assert_eq(&said);
}

#[test]
fn an_open_route_within_a_guarded_one() {
    // AZ-03: whichever stands first in the file.
    check(
        r#"
routes:
  admin: { match: "/api/admin/**", auth: idp, to: one }
  all: { match: "/api/**", public: for a test, to: one }
"#,
        &expect![[r#"
            warning[protected-within-public]: `admin` asks for a credential within what `all` opens: `GET any/api/admin`
              in routes.all.match
        "#]],
    );
    check(
        r#"
routes:
  all: { match: "/api/**", auth: idp, to: one }
  open: { match: "/api/{x}/open", public: for a test, to: one }
  static: { match: "/api/status", public: its answer is in the file, respond: { status: 200 } }
"#,
        &expect![[r#"
            warning[public-within-protected]: `open` lets anybody in where `all` asks for a credential: `GET any/api/any/open`
              in routes.open.match
        "#]],
    );
    // A host is more specific than any path, so it takes the guarded path with it.
    check(
        r#"
routes:
  admin: { match: "/admin/**", auth: idp, to: one }
  shop: { match: shop.example.com, public: for a test, to: one }
  other: { match: "/other/**", public: for a test, to: one }
"#,
        &expect![[r#"
            warning[public-within-protected]: `shop` lets anybody in where `admin` asks for a credential: `GET shop.example.com/admin`
              in routes.shop.match
        "#]],
    );
    check(
        r#"
routes:
  orders: { match: { path: "/orders/{id}", headers: { x-v: { prefix: "2" } } }, auth: idp, to: one }
  images: { match: { regex: "/orders/.*[.]png" }, public: for a test, to: one }
"#,
        &expect![[r#"
            warning[protected-within-public]: `orders` asks for a credential within what `images` opens: `GET any/orders/.png with x-v: 2any`
              in routes.images.match
        "#]],
    );
}

#[test]
fn an_open_method_beside_guarded_ones() {
    let routes = |method: &str| {
        format!(
            r#"
routes:
  orders: {{ match: {{ path: "/orders/**", methods: [GET, POST] }}, auth: idp, to: one }}
  other: {{ match: {{ path: "/orders/**", methods: [{method}] }}, public: for a test, to: one }}
"#
        )
    };
    // AZ-04.
    check(
        &routes("OPTIONS"),
        &expect![[r#"
        warning[options-open]: `other` sends OPTIONS of anybody to a backend where `orders` asks for a credential: `OPTIONS any/orders`
          in routes.other.match
    "#]],
    );
    check(
        &routes("PUT"),
        &expect![[r#"
        warning[method-override]: `other` lets anybody in by one method where `orders` asks for a credential by another: `PUT any/orders`
          in routes.other.match
    "#]],
    );
}

#[test]
fn settings_that_let_in_more_than_they_seem_to() {
    check(
        r#"
defaults: { auth: { optional: idp, reason: for a test } }
routes:
  a: { match: "*.example.com/a", auth: idp, forward_credential: true, to: one }
  b: { match: { regex: "/.*[.]png" }, to: one }
  c: { match: { regex: "/v[0-9]+/.*[.]gif" }, to: one }
"#,
        &expect![[r#"
            warning[optional-auth]: callers without a credential are let through
              in defaults.auth
            warning[wildcard-host]: `*.example.com` is every host below that name
              in routes.a.match
            warning[forward-credential]: the backend gets the credential that the caller has presented
              in routes.a.forward_credential
            warning[broad-regex]: `/.*[.]png` matches paths of any beginning: `/qzx/.png`
              in routes.b.match
        "#]],
    );
}

#[test]
fn what_is_accepted_says_why_and_what_is_no_longer_needed_is_told() {
    const ROUTES: &str = r#"
routes:
  a: { match: "*.example.com/a", auth: idp, to: one }
  b: { match: ["*.example.com/b", "*.example.org/b"], auth: idp, to: one }
accept:
"#;
    let accept = |entries: &str, expected: &Expect| check(&format!("{ROUTES}{entries}"), expected);
    accept("  - { finding: wildcard-host, reason: each shop has a host }\n", &expect![[""]]);
    accept(
        "  - { finding: wildcard-host, at: routes.b, reason: each shop has a host }\n",
        &expect![[r#"
            warning[wildcard-host]: `*.example.com` is every host below that name
              in routes.a.match
        "#]],
    );
    accept(
        r#"  - { finding: wildcard-host, at: routes, reason: each shop has a host }
  - { finding: wildcard-host, at: route, reason: not a whole step }
  - { finding: optional-auth, reason: was there once }
"#,
        &expect![[r#"
            warning[stale-acceptance]: nothing is found that this accepts: `wildcard-host` at `route`
              in accept[1]
            warning[stale-acceptance]: nothing is found that this accepts: `optional-auth`
              in accept[2]
        "#]],
    );
    check(
        r#"
routes: { a: { match: /a, to: one } }
accept: [{ finding: no-auth, reason: please }, { finding: broad-regex, reason: not looked for }]
"#,
        &expect![[r#"
            error[no-auth]: `a` does not say who may call it
              in routes.a
            error[not-acceptable]: `no-auth` is an error, which cannot be accepted
              in accept[0]
        "#]],
    );
    check(
        "routes: {}\naccept: [{ finding: broad-regex }, { finding: x, reason: y, who: me }]\n",
        &expect![[r#"
            error[missing-key]: the key `reason` is missing
              in accept[0]
            error[invalid-value]: a reason has at least three letters
              in accept[1].reason
            error[unknown-key]: unknown key `who`
              in accept[1]
        "#]],
    );
}

#[test]
fn keys_that_no_request_has() {
    let text = r#"
listeners: { http: { bind: "127.0.0.1:8080" } }
auth: { idp: { token: { header: x-token } } }
routes:
  a: { match: "/a/{id}", public: a test, to: { one: 1, two: 1 }, sticky: ["param:name", client] }
  b: { match: "/b/{id}/**", auth: idp, to: { one: 1, two: 1 }, sticky: ["param:name", client] }
  c: { match: "/c/**", public: a test, to: { three: 1, four: 1 }, sticky: ip }
backends:
  one: { endpoints: ["http://a"], balance: { hash: "param:id" } }
  two: { endpoints: ["http://a"], balance: { hash: client } }
  three: { endpoints: ["http://a"], balance: { hash: "param:id" } }
  four: { endpoints: ["http://a"], balance: { hash: tenant } }
"#;
    expect![[r#"
        warning[no-effect]: `sticky` has no effect: no request of this route has such a key
         --> gw.yaml:5:74
          |
        5 |   a: { match: "/a/{id}", public: a test, to: { one: 1, two: 1 }, sticky: ["param:name", client] }
          |                                                                          ^^^^^^^^^^^^^^^^^^^^^^ in routes.a.sticky

        warning[no-effect]: no request to this backend has `param:id` to hash by
          --> gw.yaml:11:46
           |
        11 |   three: { endpoints: ["http://a"], balance: { hash: "param:id" } }
           |                                              ^^^^^^^^^^^^^^^^^^^^ in backends.three.balance

        warning[no-effect]: no request to this backend has `tenant` to hash by
          --> gw.yaml:12:45
           |
        12 |   four: { endpoints: ["http://a"], balance: { hash: tenant } }
           |                                             ^^^^^^^^^^^^^^^^ in backends.four.balance

    "#]].assert_eq(&compiled(text, &Files::default()).findings);
}
