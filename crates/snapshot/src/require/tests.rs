use expect_test::{Expect, expect};

use crate::testing::{Files, compiled};

/// A route behind `idp` with these settings, and its tests.
fn config(require: &str, tests: &str) -> String {
    format!(
        r#"
listeners: {{ http: {{ bind: "127.0.0.1:8080" }} }}
auth: {{ idp: {{ token: {{ header: x-token }} }} }}
routes:
  orders: {{ match: "/orders/{{tenant}}/**", auth: idp, require: {require}, to: one }}
backends: {{ one: "http://10.0.0.1" }}
tests:
{tests}
"#
    )
}

/// What becomes of `tests` that all say `=> orders`: a line for each that does not hold.
#[track_caller]
fn check(require: &str, tests: &[&str], expected: &Expect) {
    let lines: Vec<String> = tests
        .iter()
        .map(|test| match test.strip_prefix('{') {
            Some(long) => format!("  - {{ expect: orders, {long}"),
            None => format!("  - {test} => orders"),
        })
        .collect();
    let findings = compiled(&config(require, &lines.join("\n")), &Files::default()).findings;
    let said = findings.lines().filter(|line| line.starts_with("error"));
    let said: Vec<&str> =
        said.map(|line| line.trim_start_matches("error[test-failed]: ")).collect();
    expected.assert_eq(&said.join("\n"));
}

const GET: &str = "GET http://a/orders/acme/1 as idp";

#[test]
fn all_scopes_must_be_there() {
    check(
        "{ scopes: [read, write] }",
        &[
            &format!("{GET} with scopes write,x,read"),
            &format!("{GET} with scopes write,readx"),
            GET,
        ],
        &expect![[r#"
            expected route `orders`, got 403 insufficient-scope from route `orders` (idp/test lacks the scope `read` (routes.orders.require))
            expected route `orders`, got 403 insufficient-scope from route `orders` (idp/test lacks the scope `read` (routes.orders.require))"#]],
    );
}

#[test]
fn roles_are_found_where_issuers_put_them() {
    check(
        "{ roles: [admin, audit] }",
        &[
            &format!("{GET} with roles audit,admin"),
            &format!("{GET} with roles admin"),
            "{request: GET http://a/orders/a/1, as: {auth: idp, claims: {realm_access: {roles: [admin, audit]}}}}",
            "{request: GET http://a/orders/a/1, as: {auth: idp, claims: {groups: [admin, audit]}}}",
            // The first claim that is there is the one that counts.
            "{request: GET http://a/orders/a/1, as: {auth: idp, claims: {roles: [], groups: [admin, audit]}}}",
        ],
        &expect![[r#"
            expected route `orders`, got 403 not-permitted from route `orders` (idp/test lacks the role `audit` (routes.orders.require))
            expected route `orders`, got 403 not-permitted from route `orders` (idp/test lacks the role `admin` (routes.orders.require))"#]],
    );
    check(
        "{ roles: { any: [admin, audit], claim: app.rights } }",
        &[
            "{request: GET http://a/orders/a/1, as: {auth: idp, claims: {app: {rights: [audit]}}}}",
            "{request: GET http://a/orders/a/1, as: {auth: idp, claims: {app: {rights: admin}}}}",
            "{request: GET http://a/orders/a/1, as: {auth: idp, claims: {roles: [admin]}}}",
        ],
        &expect![
            "expected route `orders`, got 403 not-permitted from route `orders` (idp/test has none of the roles `admin`, `audit` (routes.orders.require))"
        ],
    );
}

#[test]
fn claims_are_what_they_have_to_be() {
    let claims = |claims: &str| {
        format!("{{request: GET http://a/orders/a/1, as: {{auth: idp, claims: {claims}}}}}")
    };
    // Each passes with the first and fails with the others.
    for (require, good, bad) in [
        ("{ d: sales }", "{d: sales}", ["{d: [sales]}", "{d: Sales}", "{}"]),
        ("{ d: { equals: 1 } }", "{d: 1.0}", ["{d: '1'}", "{d: true}", "{d: 2}"]),
        ("{ d: { contains: a } }", "{d: [b, a]}", ["{d: a}", "{d: [ab]}", "{d: []}"]),
        ("{ d: { any: [a, b] } }", "{d: b}", ["{d: c}", "{d: [c]}", "{d: {a: a}}"]),
        ("{ d: { any: [a, b] } }", "{d: [c, a]}", ["{d: ''}", "{d: [[a]]}", "{}"]),
        ("{ d: { all: [a, b] } }", "{d: [b, c, a]}", ["{d: [a]}", "{d: a}", "{d: 'a b'}"]),
        ("{ x.y: true }", "{x: {y: true}}", ["{x: {y: 'true'}}", "{x: true}", "{y: true}"]),
    ] {
        let tests: Vec<String> = [good].into_iter().chain(bad).map(claims).collect();
        let tests: Vec<&str> = tests.iter().map(String::as_str).collect();
        let text = config(
            &format!("{{ claims: {require} }}"),
            &tests
                .iter()
                .map(|test| format!("  - {{ expect: orders, {}\n", &test[1..]))
                .collect::<String>(),
        );
        let findings = compiled(&text, &Files::default()).findings;
        let failed = findings.matches("error[test-failed]").count();
        assert_eq!(failed, bad.len(), "{require}: {findings}");
        assert!(!findings.contains("sales)"), "no value of a claim is told: {findings}");
    }
}

#[test]
fn a_tenant_is_named_or_is_the_one_of_the_path() {
    check(
        "{ tenant: [acme, other] }",
        &[&format!("{GET} with tenant acme"), &format!("{GET} with tenant x"), GET],
        &expect![[r#"
            expected route `orders`, got 403 not-permitted from route `orders` (idp/test is of no tenant that is let in (routes.orders.require))
            expected route `orders`, got 403 not-permitted from route `orders` (idp/test is of no tenant that is let in (routes.orders.require))"#]],
    );
    check(
        "{ tenant: { param: tenant } }",
        &[
            &format!("{GET} with tenant acme"),
            "GET http://a/orders/a%20b/1 as idp with tenant a",
            "{request: GET http://a/orders/a%20b/1, as: {auth: idp, tenant: a b}}",
            &format!("{GET} with tenant acm"),
            "GET http://a/orders/other/1 as idp with tenant acme",
            "GET http://a/orders/acme/../other/1 as idp with tenant acme",
            GET,
        ],
        &expect![[r#"
            expected route `orders`, got 403 not-permitted from route `orders` (idp/test is not of the tenant in the path's `{tenant}` (routes.orders.require))
            expected route `orders`, got 403 not-permitted from route `orders` (idp/test is not of the tenant in the path's `{tenant}` (routes.orders.require))
            expected route `orders`, got 403 not-permitted from route `orders` (idp/test is not of the tenant in the path's `{tenant}` (routes.orders.require))
            expected route `orders`, got 403 not-permitted from route `orders` (idp/test is not of the tenant in the path's `{tenant}` (routes.orders.require))
            expected route `orders`, got 403 not-permitted from route `orders` (idp/test is not of the tenant in the path's `{tenant}` (routes.orders.require))"#]],
    );
}

#[test]
fn a_certificate_beside_the_credential() {
    let with = |certificate: &str| {
        format!(
            "{{request: GET http://a/orders/a/1, as: {{auth: idp, certificate: {certificate}}}}}"
        )
    };
    check(
        "{ certificate: { dns: ['*.svc.example.com', shop.example.com], spiffe: 'spiffe://e.org/ns/*/sa/o' } }",
        &[
            &with("{dns: [A.svc.example.com], uri: ['spiffe://e.org/ns/x/sa/o']}"),
            &with("{dns: [shop.example.com], uri: ['spiffe://e.org/ns/x/y/sa/o']}"),
            &with("{dns: [a.b.svc.example.com], uri: ['spiffe://e.org/ns/x/sa/o']}"),
            GET,
        ],
        &expect![[r#"
            expected route `orders`, got 403 not-permitted from route `orders` (idp/test has no certificate with spiffe spiffe://e.org/ns/*/sa/o (routes.orders.require))
            expected route `orders`, got 403 not-permitted from route `orders` (idp/test has no certificate with dns *.svc.example.com or shop.example.com (routes.orders.require))
            expected route `orders`, got 403 not-permitted from route `orders` (idp/test has no client certificate (routes.orders.require))"#]],
    );
}

#[test]
fn hours_days_and_times() {
    let at = |at: &str| format!("{{request: GET http://a/orders/a/1, as: idp, at: {at}}}");
    // 2026-11-24 is a Tuesday.
    check(
        "{ time: { between: '08:00-18:00', days: [mon-fri], zone: '+01:00' } }",
        &[
            &at("2026-11-24T07:00:00Z"),
            &at("2026-11-24T16:59:59Z"),
            &at("2026-11-24T06:59:59Z"),
            &at("2026-11-24T17:00:00Z"),
            &at("2026-11-22T12:00:00Z"),
        ],
        &expect![[r#"
            expected route `orders`, got 403 not-permitted from route `orders` (idp/test comes outside of time 08:00-18:00 mon,tue,wed,thu,fri +01:00 (routes.orders.require))
            expected route `orders`, got 403 not-permitted from route `orders` (idp/test comes outside of time 08:00-18:00 mon,tue,wed,thu,fri +01:00 (routes.orders.require))
            expected route `orders`, got 403 not-permitted from route `orders` (idp/test comes outside of time 08:00-18:00 mon,tue,wed,thu,fri +01:00 (routes.orders.require))"#]],
    );
    // Friday's night ends on Saturday, and Thursday's is none of them.
    check(
        "{ time: { between: '22:00-06:00', days: fri, not_after: 2026-11-28T05:00:00Z } }",
        &[
            &at("2026-11-27T22:00:00Z"),
            &at("2026-11-28T04:59:59Z"),
            &at("2026-11-28T05:00:00Z"),
            &at("2026-11-27T05:00:00Z"),
            &at("2026-11-26T23:00:00Z"),
        ],
        &expect![[r#"
            expected route `orders`, got 403 not-permitted from route `orders` (idp/test comes outside of time 22:00-06:00 fri UTC until 2026-11-28T05:00:00Z (routes.orders.require))
            expected route `orders`, got 403 not-permitted from route `orders` (idp/test comes outside of time 22:00-06:00 fri UTC until 2026-11-28T05:00:00Z (routes.orders.require))
            expected route `orders`, got 403 not-permitted from route `orders` (idp/test comes outside of time 22:00-06:00 fri UTC until 2026-11-28T05:00:00Z (routes.orders.require))"#]],
    );
}

#[test]
fn methods_require_different_things_and_one_without_a_rule_is_refused() {
    check(
        "[{ methods: GET, scopes: [read] }, { methods: [POST, PUT], scopes: [write], roles: admin }]",
        &[
            &format!("{GET} with scopes read"),
            "HEAD http://a/orders/a/1 as idp with scopes read",
            "POST http://a/orders/a/1 as idp with scopes write roles admin",
            "POST http://a/orders/a/1 as idp with scopes read roles admin",
            "PUT http://a/orders/a/1 as idp with scopes write",
            "DELETE http://a/orders/a/1 as idp with scopes read,write roles admin",
            "OPTIONS http://a/orders/a/1 as idp with scopes read,write roles admin",
        ],
        &expect![[r#"
            expected route `orders`, got 403 insufficient-scope from route `orders` (idp/test lacks the scope `write` (routes.orders.require[1]))
            expected route `orders`, got 403 not-permitted from route `orders` (idp/test lacks the role `admin` (routes.orders.require[1]))
            expected route `orders`, got 403 not-permitted from route `orders` (no rule is for DELETE (routes.orders.require))
            expected route `orders`, got 403 not-permitted from route `orders` (no rule is for OPTIONS (routes.orders.require))"#]],
    );
    // What is for every method is for those with a rule of their own as well.
    check(
        "[{ scopes: [read] }, { methods: DELETE, roles: admin }]",
        &[
            "PATCH http://a/orders/a/1 as idp with scopes read",
            "DELETE http://a/orders/a/1 as idp with roles admin",
            "DELETE http://a/orders/a/1 as idp with scopes read roles admin",
        ],
        &expect![
            "expected route `orders`, got 403 insufficient-scope from route `orders` (idp/test lacks the scope `read` (routes.orders.require[0]))"
        ],
    );
}

#[test]
fn the_client_is_told_scopes_and_nothing_else() {
    use portcullis_core::policy::ReplyBody;

    use crate::decide::{NoBody, Verdict, decide};
    use crate::testing::{World, exchange, now_or_never};

    let require = "[{ scopes: [read], claims: { secret: x } }, { methods: GET, scopes: [more] }]";
    let mut said = Vec::new();
    for scopes in [&[][..], &["read", "more"]] {
        let snapshot = compiled(&config(require, "  []"), &Files::default()).ok();
        let mut exchange = exchange(&snapshot, "GET http://a/orders/a/1");
        exchange.assumed = Some(std::sync::Arc::new(portcullis_core::Identity {
            scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
            ..portcullis_core::Identity::new("idp".into(), "shop".to_owned())
        }));
        let world = World::default();
        let decision = now_or_never(decide(&snapshot, &mut exchange, &mut NoBody, &world, &mut ()));
        let Verdict::Refuse(problem) = decision.verdict else { panic!("{decision:?}") };
        let reply = problem.into_reply("id");
        for (name, value) in reply.head.fields.iter() {
            said.push(format!("{}: {}", name.escape_ascii(), String::from_utf8_lossy(value)));
        }
        let ReplyBody::Bytes(body) = reply.body else { panic!() };
        said.push(String::from_utf8_lossy(&body).into_owned());
    }
    expect![[r#"
        content-type: application/problem+json
        cache-control: no-store
        www-authenticate: Bearer error="insufficient_scope", scope="read more"
        {"type":"urn:portcullis:problem:insufficient-scope","title":"The credentials do not permit this","status":403,"code":"insufficient-scope","request_id":"id"}
        content-type: application/problem+json
        cache-control: no-store
        {"type":"urn:portcullis:problem:not-permitted","title":"The credentials do not permit this","status":403,"code":"not-permitted","request_id":"id"}"#]]
    .assert_eq(&said.join("\n"));
}

#[test]
fn mistakes_are_found_at_their_places() {
    let text = r#"
listeners: { http: { bind: "127.0.0.1:8080" } }
auth: { idp: { token: { header: x-token } } }
defaults: { auth: idp }
routes:
  a: { match: "/a/{id}/**", require: { tenant: { param: tenant } }, to: one }
  b: { match: /b, require: { scopes: ["a b"], certificate: { dns: "*" } }, to: one }
  c: { match: /c, require: [{ methods: HEAD, roles: x }], to: one }
  d: { match: /d, public: for all, require: { roles: x }, to: one }
backends: { one: "http://10.0.0.1" }
"#;
    expect![[r#"
        error[unknown-name]: the path `/a/{id}/**` has no `{tenant}`
         --> gw.yaml:6:57
          |
        6 |   a: { match: "/a/{id}/**", require: { tenant: { param: tenant } }, to: one }
          |                ---------- a path of `a`                 ^^^^^^ in routes.a.require.tenant.param
          |
          = help: every path of the route has to capture the segment that names the tenant

        error[invalid-value]: `a b` is not a scope
         --> gw.yaml:7:39
          |
        7 |   b: { match: /b, require: { scopes: ["a b"], certificate: { dns: "*" } }, to: one }
          |                                       ^^^^^ in routes.b.require.scopes
          |
          = help: a scope has no spaces, quotes or backslashes

        error[invalid-value]: `*` does not say which certificates
         --> gw.yaml:7:67
          |
        7 |   b: { match: /b, require: { scopes: ["a b"], certificate: { dns: "*" } }, to: one }
          |                                                                   ^^^ in routes.b.require.certificate.dns
          |
          = help: write a DNS name, or `*.` and a name: `*` is one whole label

        error[head-alone]: a rule for HEAD is one for GET
         --> gw.yaml:8:40
          |
        8 |   c: { match: /c, require: [{ methods: HEAD, roles: x }], to: one }
          |                                        ^^^^ in routes.c.require.methods
          |
          = help: HEAD goes where GET goes: write GET

        error[require-without-auth]: a public route knows nobody of whom it could require something
         --> gw.yaml:9:45
          |
        9 |   d: { match: /d, public: for all, require: { roles: x }, to: one }
          |                                             ^^^^^^^^^^^^ in routes.d.require

    "#]].assert_eq(&compiled(text, &Files::default()).findings);
    let text =
        config("{ roles: {}, claims: { x: {} }, time: { between: 8-18 }, tenant: {} }", "  []");
    expect![[r#"
        error[out-of-range]: needs at least 1 entry
         --> gw.yaml:5:65
          |
        5 |   orders: { match: "/orders/{tenant}/**", auth: idp, require: { roles: {}, claims: { x: {} }, time: { between: 8-18 }, tenant: {} }, ...
          |                                                                 ^^^^^ in routes.orders.require.roles

        error[out-of-range]: needs at least 1 entry
         --> gw.yaml:5:86
          |
        5 |   orders: { match: "/orders/{tenant}/**", auth: idp, require: { roles: {}, claims: { x: {} }, time: { between: 8-18 }, tenant: {} }, ...
          |                                                                                      ^ in routes.orders.require.claims.x

        error[invalid-value]: `8-18` is not hours of a day
         --> gw.yaml:5:112
          |
        5 | ...es: {}, claims: { x: {} }, time: { between: 8-18 }, tenant: {} }, to: one }
          |                                                ^^^^ in routes.orders.require.time.between
          |
          = help: write for example `08:00-18:00`

        error[missing-key]: the key `param` is missing
         --> gw.yaml:5:120
          |
        5 | ..., claims: { x: {} }, time: { between: 8-18 }, tenant: {} }, to: one }
          |                                                  ^^^^^^ in routes.orders.require.tenant

    "#]].assert_eq(&compiled(&text, &Files::default()).findings);
}

#[cfg(not(feature = "cel"))]
#[test]
fn an_expression_in_a_build_without_them_is_an_error() {
    let findings = compiled(&config("{ when: 'true' }", "  []"), &Files::default()).findings;
    assert!(findings.contains("error[not-built-in]"), "{findings}");
}

#[test]
fn where_methods_differ_no_field_says_another() {
    use crate::decide::{NoBody, decide};
    use crate::testing::{World, exchange, now_or_never};

    let kept = |require: &str| {
        let snapshot = compiled(&config(require, "  []"), &Files::default()).ok();
        let request = "GET http://a/orders/a/1 X-HTTP-Method-Override:DELETE x_method_override:PUT";
        let mut exchange = exchange(&snapshot, request);
        exchange.assumed =
            Some(std::sync::Arc::new(portcullis_core::Identity::new("idp".into(), "shop".into())));
        now_or_never(decide(&snapshot, &mut exchange, &mut NoBody, &World::default(), &mut ()));
        exchange.request.fields.iter().count()
    };
    assert_eq!(kept("[{ methods: GET }, { methods: DELETE, roles: admin }]"), 0);
    assert_eq!(kept("{ time: { days: mon-sun } }"), 2);
}
