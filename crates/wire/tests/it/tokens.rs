//! What of a good token reaches a backend, and what of it nobody gets to see.

use portcullis_testkit::{Backend, Client, Protocol, Request, Setup, TestGateway, until};
use serde_json::json;

use crate::credentials::Issuer;

fn start(issuer: &Issuer, backend: &Backend, settings: &str, route: &str) -> TestGateway {
    let text = format!(
        r#"
auth:
  idp:
    jwt: {{ issuer: "https://idp.test/", audience: api, jwks: "file:jwks.json", {settings} }}
routes:
  all: {{ match: /all/**, auth: idp, {route} to: backend }}
  moved: {{ match: /moved/**, auth: idp, redirect: {{ to: "https://other.test/" }} }}
backends: {{ backend: "{}" }}
"#,
        backend.url()
    );
    Setup::new(&text).file("jwks.json", &issuer.jwks).start()
}

/// Whatever a claim is, it is the value of one field.
#[tokio::test]
async fn jw_23_a_claim_is_never_a_second_field() {
    let (issuer, backend) = (Issuer::new(), Backend::echo().await);
    let told = r#"headers: { request: { set: { X-Name: "${claim.name}" } } },"#;
    let settings = r#"tenant: "claim:tenant", token_max: 64KiB"#;
    let gateway = start(&issuer, &backend, settings, told);
    let hostile = "alice\r\nX-Admin: 1\r\n\r\nGET /admin HTTP/1.1\r\n\r\n";
    let long = "a".repeat(20 << 10);
    for (claim, value, status) in [
        ("sub", hostile, 401),
        ("sub", "alice\0", 401),
        ("sub", "\u{85}alice", 401),
        ("sub", &long, 401),
        ("tenant", hostile, 401),
        ("sub", "Алиса", 200),
        ("scope", hostile, 200),
        ("scope", "a\nX-Admin:1", 200),
        ("name", hostile, 200),
        ("name", "alice\nX-Admin: 1", 200),
        ("name", "Алиса \u{1f511}", 200),
        ("name", "\u{2028}alice", 200),
        ("name", &long, 200),
    ] {
        for protocol in [Protocol::H1, Protocol::H2] {
            let before = backend.requests().len();
            let token = issuer.token(&json!({ claim: value }));
            let mut client = Client::connect(&gateway, protocol).await;
            let request = Request::get("/all/1").field("authorization", &format!("Bearer {token}"));
            let answer = client.send(request).await.unwrap();
            assert_eq!(answer.status, status, "{claim}: {value:?}");
            assert_eq!(backend.requests().len() - before, usize::from(status == 200));
            if status == 200 {
                let seen = backend.last();
                assert_eq!(seen.line, "GET /all/1 HTTP/1.1");
                let names: Vec<_> =
                    seen.fields.iter().map(|(name, _)| name.to_lowercase()).collect();
                assert!(!names.iter().any(|name| name.contains("admin")), "{names:?}");
                let control = |(_, value): &(String, String)| value.contains(['\r', '\n', '\0']);
                assert!(!seen.fields.iter().any(control), "{:?}", seen.fields);
            }
        }
    }
    // Unless the operator has asked for more, a token has no room for that.
    let gateway = start(&issuer, &backend, r#"tenant: "claim:tenant""#, told);
    let token = issuer.token(&json!({ "name": long }));
    let mut client = Client::connect(&gateway, Protocol::H1).await;
    let request = Request::get("/all/1").field("authorization", &format!("Bearer {token}"));
    assert_eq!(client.send(request).await.unwrap().status, 401);
}

/// A token in the query is for the gateway alone: not for the log, its record, the backend, or who
/// is sent elsewhere.
#[tokio::test]
async fn a_token_in_the_query_is_seen_by_nobody_else() {
    let (issuer, backend) = (Issuer::new(), Backend::echo().await);
    let gateway = start(&issuer, &backend, r#"token: [header, "query:access_token"]"#, "");
    let good = issuer.token(&json!({}));
    let bad = issuer.token(&json!({ "aud": "other" }));
    let mut told = Vec::new();
    for protocol in [Protocol::H1, Protocol::H2] {
        for (query, referer, status) in [
            (format!("a=1&access_token={good}&b"), None, 200),
            (format!("a=1&access%5Ftoken={good}&b"), None, 200),
            (format!("a=1&access_token={bad}&b"), None, 401),
            (format!("a=1&access_token={good}&b&access_token={good}"), None, 400),
            (format!("a=1&access_token={good}&b"), Some(&good), 200),
        ] {
            let mut client = Client::connect(&gateway, protocol).await;
            let mut request = Request::get(&format!("/all/1?{query}"));
            if let Some(token) = referer {
                let page = format!("https://shop.test/?x=1&access_token={token}");
                request = request.field("referer", &page);
            }
            let answer = client.send(request).await.unwrap();
            assert_eq!(answer.status, status, "{query}");
            if status == 200 {
                let seen = backend.last();
                assert_eq!(seen.line, "GET /all/1?a=1&b HTTP/1.1");
                let page = referer.map(|_| "https://shop.test/?x=1");
                assert_eq!(seen.field("referer"), page);
                told.push(format!("{seen:?}"));
            }
            told.push(format!("{answer:?}"));
            // What `explain --id` shows.
            let id = answer.field("x-request-id").unwrap();
            let decided = || gateway.gateway.decided(id);
            until("the record has the request", || decided().len() == 1).await;
            told.push(format!("{:?}", decided()));
        }
        // With the query of the request, where that is kept, and still without the token.
        let mut client = Client::connect(&gateway, protocol).await;
        let request = Request::get(&format!("/moved/1?a=1&access_token={good}"));
        let answer = client.send(request).await.unwrap();
        assert!((300..400).contains(&answer.status), "{}", answer.status);
        told.push(format!("{answer:?}"));
    }
    // As a header of its own it is a second credential.
    let mut client = Client::connect(&gateway, Protocol::H1).await;
    let request = Request::get(&format!("/all/1?access_token={good}"));
    let request = request.field("authorization", &format!("Bearer {good}"));
    assert_eq!(client.send(request).await.unwrap().status, 400);
    let log = gateway.stop();
    assert!(log.iter().filter(|line| line.contains("/all/1")).count() >= 11);
    told.extend(log);
    let secrets = [&good, &bad].map(|token| &token[token.len() - 40..]);
    for text in &told {
        for secret in secrets {
            assert!(!text.contains(secret), "{text}");
        }
        assert!(!text.contains("access_token"), "{text}");
    }
}
