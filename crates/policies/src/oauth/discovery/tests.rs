use std::sync::Arc;

use expect_test::expect;
use serde_json::json;

use super::*;
use crate::testing::{Answer, Flag, Scripted, ready};

const OIDC: &str = "https://idp.example/t1/.well-known/openid-configuration";
const OAUTH: &str = "https://idp.example/.well-known/oauth-authorization-server/t1";
const ISSUER: &str = "https://idp.example/t1";
const TOKEN: &str = "https://idp.example/t1/token";

fn document() -> Answer {
    Answer::Body(json!({ "issuer": ISSUER, "token_endpoint": TOKEN }).to_string())
}

fn discovery() -> Discovery {
    Discovery::new(ISSUER.to_owned(), None)
}

fn token(discovery: &Discovery, services: &Scripted) -> Result<String, String> {
    let metadata = ready(discovery.metadata(services)).expect("nothing holds the fetch")?;
    metadata.endpoint(Which::Token).map(str::to_owned)
}

#[test]
fn both_places_are_looked_at_and_only_where_the_first_is_not_there() {
    for (first, second, expected) in [
        (document(), Answer::Down, Ok(TOKEN)),
        (Answer::Status(404), document(), Ok(TOKEN)),
        (Answer::Status(404), Answer::Status(404), Err("neither")),
        (Answer::Status(404), Answer::Down, Err("oauth-authorization-server/t1 does not answer")),
        (Answer::Status(500), document(), Err("openid-configuration answers 500")),
        (Answer::Down, document(), Err("openid-configuration does not answer")),
        (Answer::Body("<html>".to_owned()), document(), Err("not a discovery document")),
        (Answer::Full(302, "", String::new()), document(), Err("openid-configuration answers 302")),
        (Answer::Full(200, "", "{".repeat(2 << 20)), document(), Err("length limit exceeded")),
    ] {
        let services = Scripted::default();
        services.answer(OIDC, first.clone());
        services.answer(OAUTH, second);
        match (token(&discovery(), &services), expected) {
            (Ok(url), Ok(expected)) => assert_eq!(url, expected, "{first:?}"),
            (Err(reason), Err(expected)) => assert!(reason.contains(expected), "{reason}"),
            (seen, _) => panic!("{first:?}: {seen:?}"),
        }
    }
    assert_eq!(locations("https://a.example/"), locations("https://a.example"));
}

#[test]
fn what_an_endpoint_is_not() {
    let of = |document: serde_json::Value| {
        let services = Scripted::default();
        services.answer(OIDC, Answer::Body(document.to_string()));
        token(&discovery(), &services).unwrap_err()
    };
    expect!["`https://idp.example/t1` names no `token_endpoint`"]
        .assert_eq(&of(json!({ "issuer": ISSUER })));
    expect!["the `token_endpoint` of `https://idp.example/t1` is not https"]
        .assert_eq(&of(json!({ "issuer": ISSUER, "token_endpoint": "http://169.254.169.254/" })));
    let other = of(json!({ "issuer": "https://evil.example", "token_endpoint": TOKEN }));
    assert!(other.ends_with("is of the issuer `https://evil.example`"), "{other}");
    let text = of(json!({ "issuer": ISSUER, "token_endpoint": 7 }));
    assert!(text.contains("not a discovery document"), "{text}");
}

#[test]
fn it_is_asked_for_once_and_after_a_failure_not_at_once() {
    let (services, discovery) = (Scripted::default(), discovery());
    services.answer(OIDC, Answer::Status(500));
    for _ in 0..3 {
        assert!(token(&discovery, &services).is_err());
    }
    assert_eq!(services.asked().len(), 1);
    services.answer(OIDC, document());
    services.pass(RETRY_FIRST);
    for _ in 0..3 {
        assert_eq!(token(&discovery, &services).as_deref(), Ok(TOKEN));
    }
    assert_eq!(services.asked().len(), 1);
    // What is known stays in use, and is asked for again now and then.
    services.answer(OIDC, Answer::Down);
    let mut asked = Vec::new();
    for second in 0..4000 {
        assert_eq!(ready(discovery.upkeep(&services)), Some(LOOK_EVERY));
        if !services.asked().is_empty() {
            asked.push(second);
        }
        services.pass(Duration::from_secs(1));
        assert_eq!(token(&discovery, &services).as_deref(), Ok(TOKEN));
    }
    assert_eq!(asked[..8], [3600, 3601, 3603, 3607, 3615, 3631, 3663, 3723]);
}

/// After a restart with the issuer away, what was kept on disk is better than nothing.
#[test]
fn what_the_disk_gives_is_used_and_asked_for_again() {
    let (services, discovery) = (Scripted::default(), discovery());
    let text = json!({ "issuer": ISSUER, "token_endpoint": TOKEN }).to_string();
    services.answer(OIDC, Answer::Stale(text));
    assert_eq!(token(&discovery, &services).as_deref(), Ok(TOKEN));
    services.pass(RETRY_FIRST);
    let moved = json!({ "issuer": ISSUER, "token_endpoint": "https://idp.example/new" });
    services.answer(OIDC, Answer::Body(moved.to_string()));
    ready(discovery.upkeep(&services)).unwrap();
    assert_eq!(token(&discovery, &services).as_deref(), Ok("https://idp.example/new"));
}

#[test]
fn many_wait_for_one_document() {
    let (services, discovery) = (Scripted::default(), discovery());
    services.answer(OIDC, document());
    services.hold();
    let flag: Arc<Flag> = Arc::default();
    let mut waiting: Vec<_> = (0..5).map(|_| Box::pin(discovery.metadata(&services))).collect();
    assert!(waiting.iter_mut().all(|one| flag.poll(one).is_none()));
    services.release();
    assert!(waiting.iter_mut().all(|one| flag.poll(one).unwrap().is_ok()));
    assert_eq!(services.asked(), [OIDC]);
    let accept = ("accept".to_owned(), "application/json".to_owned());
    assert_eq!(services.sent()[0].fields, [accept]);
}

#[test]
fn keys_come_from_nobody_on_the_way() {
    for (url, expected) in [
        ("https://idp.example/jwks", true),
        ("http://localhost:80/jwks", true),
        ("http://127.0.0.1/jwks", true),
        ("http://127.9.9.9:1", true),
        ("http://[::1]:80/jwks", true),
        ("http://idp.example/jwks", false),
        ("http://localhost.evil.example/", false),
        ("http://127.0.0.1.evil.example/", false),
        ("http://localhost:1@evil.example/", false),
        ("http://[::2]/", false),
        ("ftp://localhost/", false),
        ("file:/etc/passwd", false),
        ("", false),
    ] {
        assert_eq!(is_trustworthy(url), expected, "{url}");
    }
}
