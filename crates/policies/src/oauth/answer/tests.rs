use bytes::Bytes;
use expect_test::{Expect, expect};
use http::StatusCode;

use super::*;

fn check(status: u16, body: &str, want: &Expect) {
    let fetched = Fetched {
        status: StatusCode::from_u16(status).unwrap(),
        content_type: None,
        fields: Vec::new(),
        body: Bytes::from(body.to_owned()),
        stale: false,
    };
    let seen = match read("URL", &fetched) {
        Ok(answer) => {
            let token = String::from_utf8_lossy(answer.access_token.bytes()).into_owned();
            format!("{token} for {:?}", answer.expires_in)
        }
        Err(failure) => format!("{failure:?}"),
    };
    want.assert_eq(&seen);
}

#[test]
fn tokens() {
    let good = r#"{"access_token":"a.b","token_type":"bearer","expires_in":60,"x":[1]}"#;
    check(200, good, &expect!["a.b for Some(60s)"]);
    for (expires, want) in [
        ("null", expect!["a for None"]),
        ("\"3600\"", expect!["a for Some(3600s)"]),
        ("59.9", expect!["a for Some(59s)"]),
        ("0", expect!["a for Some(0ns)"]),
        ("1e300", expect!["a for Some(31622400s)"]),
        ("-1", expect![[r#"Unavailable("URL answers an odd `expires_in`")"#]]),
        ("[]", expect![[r#"Unavailable("URL answers an odd `expires_in`")"#]]),
        ("\"soon\"", expect![[r#"Unavailable("URL answers an odd `expires_in`")"#]]),
    ] {
        let body =
            format!(r#"{{"access_token":"a","token_type":"Bearer","expires_in":{expires}}}"#);
        check(200, &body, &want);
    }
    let debug = format!("{:?}", Hidden::from("a.b"));
    assert_eq!(debug, "(secret)");
}

#[test]
fn what_is_no_token() {
    let odd = expect![[r#"Unavailable("URL answers a token that cannot be sent")"#]];
    for token in ["", "a b", "a\\r\\nX-Evil: 1", "ä", "a,b", &"a".repeat(TOKEN_BYTES_MAX + 1)] {
        let body = format!(r#"{{"access_token":"{token}","token_type":"Bearer"}}"#);
        check(200, &body, &odd);
    }
    let kind = expect![[r#"Unavailable("URL answers a token that is not for use as a bearer")"#]];
    for of in [r#","token_type":"DPoP""#, r#","token_type":"N_A""#, ""] {
        check(200, &format!(r#"{{"access_token":"a"{of}}}"#), &kind);
    }
    let json = expect![[r#"Unavailable("URL answers something else than JSON")"#]];
    for body in ["", "<html>", "[]", r#"{"access_token":7}"#, "access_token=a&token_type=Bearer"] {
        check(200, body, &json);
    }
    check(200, "{}", &expect![[r#"Unavailable("URL answers no `access_token`")"#]]);
    check(200, &"[".repeat(100_000), &json);
}

#[test]
fn refusals() {
    let body = r#"{"error":"invalid_grant","error_description":"token T0ken is bad"}"#;
    check(400, body, &expect![[r#"Refused("URL answers 400 invalid_grant")"#]]);
    let odd = r#"{"error":"a\r\nb \"c\" ä"}"#;
    check(401, odd, &expect![[r#"Refused("URL answers 401 abc")"#]]);
    check(429, body, &expect![[r#"Unavailable("URL answers 429 invalid_grant")"#]]);
    check(500, body, &expect![[r#"Unavailable("URL answers 500 invalid_grant")"#]]);
    check(400, "<html>", &expect![[r#"Unavailable("URL answers 400")"#]]);
    check(302, "", &expect![[r#"Unavailable("URL answers 302")"#]]);
    // Whoever refuses does not give a token.
    let both = r#"{"access_token":"a","token_type":"Bearer"}"#;
    check(403, both, &expect![[r#"Unavailable("URL answers 403")"#]]);
}
