use std::sync::Arc;
use std::time::Duration;

use expect_test::{Expect, expect};
use portcullis_core::exchange::ClientCertificate;
use portcullis_core::{Exchange, Identity, Now};
use serde_json::json;

use super::*;

fn identity() -> Identity {
    let claims = json!({
        "department": "sales", "level": 7, "groups": ["a", "b"], "realm": { "roles": ["x"] },
    });
    Identity {
        tenant: Some("acme".to_owned()),
        scopes: vec!["read".to_owned(), "write".to_owned()],
        claims: claims.as_object().cloned().unwrap_or_default(),
        ..Identity::new("idp".into(), "shop".to_owned())
    }
}

fn exchange() -> Exchange {
    let mut exchange = Exchange {
        now: Now { wall: Duration::from_secs(1000), ..Now::default() },
        certificate: Some(Arc::new(ClientCertificate {
            subject: "CN=shop".to_owned(),
            not_after: Duration::from_secs(1001),
            ..ClientCertificate::default()
        })),
        ..Exchange::default()
    };
    exchange.request.set_path(b"/orders/7");
    exchange.request.fields.append(b"X-Role", b"user");
    exchange.request.fields.append(b"x-role", b"admin");
    exchange
}

#[track_caller]
fn holds(source: &str) -> Result<(), String> {
    let expression = Expression::compile(source);
    let expression = expression.unwrap_or_else(|fault| panic!("{source}: {fault:?}"));
    expression.check(&identity(), &exchange())
}

#[test]
fn what_is_true_passes() {
    for source in [
        "true",
        "identity.auth == 'idp' && identity.client == 'shop' && identity.tenant == 'acme'",
        "'read' in identity.scopes && size(identity.scopes) == 2",
        "identity.claims.department == 'sales' && request.method == 'GET'",
        "identity.claims.level > 5 && identity.claims['level'] <= 7",
        "identity.claims.realm.roles.exists(role, role == 'x')",
        "identity.scopes.all(scope, scope.size() > 2)",
        "identity.claims.groups.filter(g, g != 'a') == ['b']",
        "has(identity.claims.department) && !has(identity.claims.other)",
        "request.path.startsWith('/orders/') && !request.path.contains('..')",
        "certificate.subject == 'CN=shop' && now >= 1000",
        // Both are seen: neither the first nor the last one alone.
        "request.headers['x-role'] == 'user, admin'",
        "size(params) == 0",
    ] {
        assert_eq!(holds(source), Ok(()), "{source}");
    }
}

#[test]
fn what_is_false_or_fails_refuses() {
    let check = |source: &str, expected: Expect| {
        expected.assert_eq(&holds(source).err().unwrap_or_default());
    };
    check("identity.tenant == 'other'", expect!["does not fulfil `identity.tenant == 'other'`"]);
    check(
        "identity.claims.other == 'x'",
        expect!["cannot be judged by `identity.claims.other == 'x'`: NoSuchKey"],
    );
    check(
        "identity.claims.department > 7",
        expect!["cannot be judged by `identity.claims.department > 7`: NoSuchOverload"],
    );
    check(
        "identity.claims.level",
        expect!["cannot be judged by `identity.claims.level`: it is not true or false"],
    );
    check(
        "request.headers['x-none'] != 'x'",
        expect!["cannot be judged by `request.headers['x-none'] != 'x'`: NoSuchKey"],
    );
}

#[test]
fn a_certificate_that_has_ended_is_none() {
    let expression = Expression::compile("certificate.subject == 'CN=shop'").unwrap();
    let mut exchange = exchange();
    exchange.now.wall = Duration::from_secs(1001);
    assert!(expression.check(&identity(), &exchange).is_err());
}

#[test]
fn a_field_that_is_no_text_refuses_whoever_looks_at_fields() {
    let expression = Expression::compile("!('x-bad' in request.headers)").unwrap();
    let mut exchange = exchange();
    assert_eq!(expression.check(&identity(), &exchange), Ok(()));
    exchange.request.fields.append(b"x-bad", b"\xff");
    assert_eq!(expression.check(&identity(), &exchange), Err("sends what is not text".to_owned()));
}

#[test]
fn mistakes_are_found_before_a_request() {
    let mut said = String::new();
    for source in [
        "",
        "identity.tenant ==",
        "identiy.tenant == 'a'",
        "identity.tennant == 'a'",
        "request.header == 'a'",
        "identity.tenant == 7",
        "identity.tenant",
        "identity.tenant && true",
        "request.method in 'GET'",
        "7 in identity.scopes",
        "identity == 'a'",
        "request.path.matches('.*')",
        "request.path.startWith('/a')",
        "size(7) == 1",
        "identity.scopes.all(a, identity.scopes.all(b, a == b))",
        "now.year == 1",
        "true ? 1 : 2",
        "timestamp('2026-01-01T00:00:00Z') < now",
    ] {
        let fault = Expression::compile(source).err();
        let fault = fault.unwrap_or_else(|| panic!("{source} is taken"));
        said += &format!("{source}\n  {:?} {}\n", &source[fault.at.clone()], fault.message);
    }
    expect![[r#"

          "" Syntax error: mismatched input '<EOF>'
        identity.tenant ==
          "" Syntax error: mismatched input '<EOF>'
        identiy.tenant == 'a'
          "identiy" there is no `identiy`, only `identity`, `request`, `params`, `certificate`, `now`; did you mean `identity`?
        identity.tennant == 'a'
          ".tennant" `identity` has no `tennant`, only `auth`, `client`, `tenant`, `scopes`, `claims`; did you mean `tenant`?
        request.header == 'a'
          ".header" `request` has no `header`, only `method`, `host`, `path`, `query`, `client_ip`, `headers`; did you mean `headers`?
        identity.tenant == 7
          "==" a text is never equal to a number
        identity.tenant
          ".tenant" it comes to a text, not to true or false
        identity.tenant && true
          ".tenant" this is a text, not true or false
        request.method in 'GET'
          "'GET'" nothing is in a text
        7 in identity.scopes
          "in" a number is never in it
        identity == 'a'
          "==" `identity`, `request`, `certificate` are used by their fields
        request.path.matches('.*')
          "(" there is no such use of `matches`
        request.path.startWith('/a')
          "(" there is no such use of `startWith`; did you mean `startsWith`?
        size(7) == 1
          "7" a number has no size
        identity.scopes.all(a, identity.scopes.all(b, a == b))
          "(" a loop over a list cannot stand in another
        now.year == 1
          ".year" a number has no `year`
        true ? 1 : 2
          "?" it comes to a number, not to true or false
        timestamp('2026-01-01T00:00:00Z') < now
          "(" there is no such use of `timestamp`
    "#]].assert_eq(&said);
    let long = format!("true{}", " || true".repeat(BYTES_MAX));
    assert!(Expression::compile(&long).is_err());
    let parts = format!("true{}", " || true".repeat(200));
    assert!(Expression::compile(&parts).is_err());
}
