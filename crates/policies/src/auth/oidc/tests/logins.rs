//! OA-01 of `crates/wire/features.txt`, and what else can go wrong between two redirects.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::*;
use crate::auth::oidc::attempt::LASTS;
use crate::auth::oidc::jar::LOGINS_MAX;

/// No login without a session is worth a line of its own in what follows.
#[track_caller]
fn refused(browser: &Browser, request: &str, detail: &str) {
    assert_eq!(browser.text(request), format!("400 login-failed | {detail}"), "{request}");
    assert_eq!(browser.session(), None, "{request}");
}

#[test]
fn a_login_is_the_code_flow_with_pkce_and_ends_where_it_began() {
    let browser = Browser::new();
    let begun = browser.begin();
    for (name, expected) in [
        ("response_type", "code"),
        ("client_id", "shop"),
        ("scope", "openid"),
        ("redirect_uri", "https://api.example.com/oauth2/callback"),
        ("code_challenge_method", "S256"),
    ] {
        assert_eq!(one(&begun, name), expected);
    }
    browser.give(Some(&one(&begun, "nonce")), &json!({}), &json!({}));
    browser.world.services.sent();
    assert_eq!(browser.back(&begun), "303 /orders?page=2");
    let sent = browser.world.services.sent();
    let asked = sent.iter().find(|fetch| fetch.url == TOKEN).unwrap();
    let form = Query::read(&asked.body).unwrap();
    assert_eq!(one(&form, "grant_type"), "authorization_code");
    assert_eq!(one(&form, "code"), "c");
    assert_eq!(one(&form, "redirect_uri"), "https://api.example.com/oauth2/callback");
    let hash = URL_SAFE_NO_PAD.encode(digest(&SHA256, one(&form, "code_verifier").as_bytes()));
    assert_eq!(hash, one(&begun, "code_challenge"));
    // The login's cookie is gone, the session's is there, and it is a credential.
    assert_eq!(browser.names(), ["__Host-portcullis-idp"]);
    assert_eq!(browser.text(PAGE), "idp/alice for openid");
    assert_eq!(browser.text("GET /data"), "idp/alice for openid");
    assert_eq!(concealed(&browser), None);
}

#[test]
fn only_pages_lead_to_a_login() {
    let browser = Browser::new();
    for request in [
        "GET /data",
        "GET /data | Accept: application/json",
        "GET /data | Accept: text/html | Sec-Fetch-Mode: cors",
        "POST /data | Accept: text/html",
        "GET /socket | Accept: text/html | Upgrade: websocket",
    ] {
        assert_eq!(browser.text(request), "nothing", "{request}");
    }
    assert!(browser.names().is_empty());
}

#[test]
fn a_state_that_is_missing_changed_or_of_another_browser_makes_no_session() {
    let browser = Browser::new();
    let begun = browser.begin();
    browser.give(Some(&one(&begun, "nonce")), &json!({}), &json!({}));
    let state = one(&begun, "state");
    let none = "this browser has begun no login with this state, or it is over";
    refused(&browser, "GET /oauth2/callback", "there is no state");
    refused(&browser, "GET /oauth2/callback?code=c", "there is no state");
    refused(&browser, "GET /oauth2/callback?code=c&state=", "the state is none of ours");
    refused(
        &browser,
        "GET /oauth2/callback?code=c&state=..%2F..%2Fetc",
        "the state is none of ours",
    );
    let other: String = state.chars().rev().collect();
    refused(&browser, &format!("GET /oauth2/callback?code=c&state={other}"), none);
    let url = format!("GET /oauth2/callback?code=c&state={state}");
    let cookies = browser.cookies.take();
    refused(&browser, &url, none);
    // The right cookie, and a state that only begins like it.
    browser.cookies.replace(cookies);
    let longer = format!("{url}A");
    refused(&browser, &longer, "the state is not that of the login");
    // That was one answer to it, and there is no second.
    refused(&browser, &url, none);
    assert!(browser.world.services.asked().iter().all(|url| url != TOKEN));
}

#[test]
fn an_answer_is_taken_once() {
    let browser = Browser::new();
    let begun = browser.begin();
    let cookies = browser.cookies.borrow().clone();
    browser.give(Some(&one(&begun, "nonce")), &json!({}), &json!({}));
    assert_eq!(browser.back(&begun), "303 /orders?page=2");
    browser.world.services.asked();
    // Somebody has kept the cookie and the address.
    browser.cookies.replace(cookies);
    let url = format!("GET /oauth2/callback?code=c&state={}", one(&begun, "state"));
    refused(&browser, &url, "this login is over: its answer came a second time");
    assert!(browser.world.services.asked().is_empty());
}

#[test]
fn a_login_ends_after_its_time() {
    let browser = Browser::new();
    let begun = browser.begin();
    browser.world.services.pass(LASTS);
    let url = format!("GET /oauth2/callback?code=c&state={}", one(&begun, "state"));
    refused(&browser, &url, "the login took too long");
    assert!(browser.names().is_empty());
}

#[test]
fn a_state_that_was_tampered_with_makes_no_session() {
    let whole = Browser::new();
    let begun = whole.begin();
    let name = whole.names().remove(0);
    let sealed = whole.cookies.borrow()[&name].clone();
    let url = format!("GET /oauth2/callback?code=c&state={}", one(&begun, "state"));
    let flipped = match sealed.ends_with('A') {
        true => "B",
        false => "A",
    };
    let end = sealed.len() - 1;
    for changed in
        [format!("{}{flipped}", &sealed[..end]), sealed[..end - 8].to_owned(), "x".to_owned()]
    {
        whole.cookies.borrow_mut().insert(name.clone(), changed);
        refused(&whole, &url, "the login's cookie is none of ours");
    }
    // A session is no login, though the same key sealed it.
    let other = Browser::new();
    other.log_in();
    let session = other.session().unwrap()[1..].to_owned();
    whole.cookies.borrow_mut().insert(name, session);
    refused(&whole, &url, "the login's cookie is none of ours");
}

#[test]
fn an_answer_of_another_issuer_is_refused() {
    let says_so = json!({ "authorization_response_iss_parameter_supported": true });
    for (document, iss, expected) in [
        (json!({}), "", "303 /orders?page=2"),
        (json!({}), "&iss=https%3A%2F%2Fidp.example%2F", "303 /orders?page=2"),
        (says_so.clone(), "&iss=https%3A%2F%2Fidp.example%2F", "303 /orders?page=2"),
        (
            json!({}),
            "&iss=https%3A%2F%2Fevil.example",
            "400 login-failed | the answer is of another issuer",
        ),
        (says_so, "", "400 login-failed | the answer does not say which issuer it is of"),
    ] {
        let browser = Browser::new();
        browser.discover(&document);
        let begun = browser.begin();
        browser.give(Some(&one(&begun, "nonce")), &json!({}), &json!({}));
        browser.world.services.asked();
        let state = one(&begun, "state");
        let seen = browser.text(&format!("GET /oauth2/callback?code=c&state={state}{iss}"));
        assert_eq!(seen, expected, "{iss}");
        let redeemed = browser.world.services.asked().iter().any(|url| url == TOKEN);
        assert_eq!(redeemed, expected.starts_with("303"), "{iss}");
    }
}

#[test]
fn what_the_provider_refuses_makes_no_session() {
    let browser = Browser::new();
    let url = |begun: &Query, rest: &str| {
        format!("GET /oauth2/callback?state={}&{rest}", one(begun, "state"))
    };
    let begun = browser.begin();
    let said = url(&begun, "error=access_denied%0a%22&error_description=secret");
    refused(&browser, &said, "the provider says access_denied");
    // Another verifier than the challenge, a code of somebody else's, one that was used.
    let answer = Answer::Full(400, "application/json", r#"{"error":"invalid_grant"}"#.to_owned());
    browser.world.services.answer(TOKEN, answer);
    let said = url(&browser.begin(), "code=c");
    refused(&browser, &said, "https://idp.example/token answers 400 invalid_grant");
    browser.world.services.answer(TOKEN, Answer::Down);
    let seen = browser.text(&url(&browser.begin(), "code=c"));
    assert_eq!(seen, "503 keys-unavailable | https://idp.example/token does not answer");
    assert_eq!(browser.names(), Vec::<String>::new());
}

#[test]
fn id_tokens_that_do_not_hold() {
    let hash =
        |text: &str| URL_SAFE_NO_PAD.encode(&digest(&SHA256, text.as_bytes()).as_ref()[..16]);
    let ended = START.wall.as_secs() - 31;
    for (changes, expected) in [
        (json!({}), ""),
        (json!({ "aud": ["shop"], "azp": "shop" }), ""),
        (json!({ "aud": ["shop", "other"], "azp": "shop" }), ""),
        (json!({ "at_hash": hash("access") }), ""),
        (json!({ "nonce": "another" }), "the nonce is not that of the login"),
        (json!({ "nonce": null }), "the nonce is not that of the login"),
        (json!({ "nonce": 1 }), "the nonce is not that of the login"),
        (json!({ "iss": "https://evil.example/" }), "the token is of another issuer"),
        (json!({ "aud": "other" }), "the token is for another audience"),
        (json!({ "aud": ["shop", "other"] }), "the ID token has several audiences and no `azp`"),
        (json!({ "azp": "other" }), "the ID token is for another client to use"),
        (json!({ "azp": 1 }), "the ID token is for another client to use"),
        (json!({ "exp": ended }), "the ID token has expired"),
        (json!({ "iat": null }), "the ID token lacks `iat`"),
        (json!({ "iat": START.wall.as_secs() + 31 }), "the token was issued in the future"),
        (json!({ "sub": null }), "the ID token names nobody"),
        (
            json!({ "at_hash": hash("another") }),
            "the access token is not the one that the ID token came with",
        ),
        (json!({ "at_hash": 1 }), "the access token is not the one that the ID token came with"),
    ] {
        let browser = Browser::new();
        let begun = browser.begin();
        browser.give(Some(&one(&begun, "nonce")), &changes, &json!({}));
        let seen = browser.back(&begun);
        match expected {
            "" => assert_eq!(seen, "303 /orders?page=2", "{changes}"),
            detail => assert_eq!(seen, format!("400 login-failed | {detail}"), "{changes}"),
        }
        assert_eq!(browser.session().is_some(), expected.is_empty(), "{changes}");
    }
}

#[test]
fn id_tokens_of_nobody() {
    let strange = Signer::new("k1", Kind::Es256);
    let browser = Browser::new();
    let token = |begun: &Query, header: &Value, signer: &Signer| {
        let changes = json!({ "aud": "shop", "nonce": one(begun, "nonce") });
        signer.sign(header, &claims(&changes))
    };
    let es256 = json!({ "alg": "ES256", "kid": "k1" });
    for (header, signer, expected) in [
        (es256.clone(), &strange, "the signature is not good"),
        (json!({ "alg": "none" }), &browser.signer, "the token's algorithm is not known"),
        (
            json!({ "alg": "HS256", "kid": "k1" }),
            &browser.signer,
            "the token's algorithm is not allowed",
        ),
        (
            json!({ "alg": "ES256", "kid": "k1", "typ": "at+jwt" }),
            &browser.signer,
            "an access token is no ID token",
        ),
        (
            json!({ "alg": "ES256", "kid": "k2" }),
            &browser.signer,
            "no key with the ID token's key id",
        ),
        (es256, &browser.signer, ""),
    ] {
        let begun = browser.begin();
        if header["kid"] == "k2" {
            // Keys are fetched for a request once a minute.
            browser.world.services.pass(std::time::Duration::from_secs(60));
        }
        browser.give_token(&token(&begun, &header, signer), &json!({}));
        let seen = browser.back(&begun);
        match expected {
            "" => assert_eq!(seen, "303 /orders?page=2"),
            detail => assert_eq!(seen, format!("400 login-failed | {detail}"), "{header}"),
        }
    }
    let begun = Browser::new();
    let query = begun.begin();
    begun.give_token("", &json!({ "id_token": null }));
    let seen = begun.back(&query);
    assert!(seen.starts_with("400 login-failed | the provider gave no ID token"), "{seen}");
}

#[test]
fn a_login_leads_to_no_other_origin() {
    for target in ["//evil.example/", "//evil.example/a?b", "/\\evil.example"] {
        let browser = Browser::new();
        let text = browser.text(&format!("GET {target} | Accept: text/html"));
        let query = text.strip_prefix("302 https://idp.example/auth?").unwrap();
        let begun = Query::read(query.as_bytes()).unwrap();
        browser.give(Some(&one(&begun, "nonce")), &json!({}), &json!({}));
        assert_eq!(browser.back(&begun), "303 /", "{target}");
    }
    // What the callback is told to lead to is not heard.
    let browser = Browser::new();
    let begun = browser.begin();
    browser.give(Some(&one(&begun, "nonce")), &json!({}), &json!({}));
    let state = one(&begun, "state");
    let more = "redirect_uri=https://evil.example&return_to=//evil.example";
    let seen = browser.text(&format!("GET /oauth2/callback?code=c&state={state}&{more}"));
    assert_eq!(seen, "303 /orders?page=2");
}

#[test]
fn a_login_ends_at_the_host_where_it_began() {
    let browser = Browser::new();
    let begun = browser.begin();
    let request = format!("GET /oauth2/callback?code=c&state={}", one(&begun, "state"));
    let mut exchange = browser.exchange(&request);
    exchange.request.authority = exchange.request.fields.intern(b"other.example.com");
    let seen = browser.ask(&exchange).text;
    let detail = "the answer came to another address than the login began at";
    assert_eq!(seen, format!("400 login-failed | {detail}"));
}

#[test]
fn only_get_comes_back_from_the_provider() {
    let browser = Browser::new();
    let begun = browser.begin();
    for method in ["POST", "HEAD", "PUT"] {
        let url = format!("{method} /oauth2/callback?code=c&state={}", one(&begun, "state"));
        assert_eq!(browser.text(&url), "405 method-not-allowed", "{method}");
    }
    assert_eq!(browser.names().len(), 1, "the login goes on");
}

#[test]
fn tabs_log_in_side_by_side() {
    let browser = Browser::new();
    let first = browser.begin();
    let second = browser.begin();
    assert_ne!(one(&first, "state"), one(&second, "state"));
    assert_eq!(browser.names().len(), 2);
    for begun in [&first, &second] {
        browser.give(Some(&one(begun, "nonce")), &json!({}), &json!({}));
        assert_eq!(browser.back(begun), "303 /orders?page=2");
    }
    // There are never more than a few; the oldest goes.
    browser.cookies.take();
    let oldest = browser.begin();
    for _ in 0..2 * LOGINS_MAX {
        browser.world.services.pass(std::time::Duration::from_secs(1));
        browser.begin();
    }
    assert_eq!(browser.names().len(), LOGINS_MAX);
    let url = format!("GET /oauth2/callback?code=c&state={}", one(&oldest, "state"));
    assert!(browser.text(&url).contains("has begun no login with this state"));
    browser.world.services.pass(LASTS);
    browser.begin();
    assert_eq!(browser.names().len(), 1, "those that have ended are cleaned away");
}

#[test]
fn a_provider_that_cannot_be_found_is_not_guessed() {
    let browser = Browser::new();
    browser.world.services.answer(DISCOVERY, Answer::Down);
    let seen = browser.text(PAGE);
    assert!(seen.starts_with("503 keys-unavailable"), "{seen}");
    browser.world.services.pass(std::time::Duration::from_secs(5));
    browser.discover(&json!({ "authorization_endpoint": "http://idp.example/auth" }));
    let seen = browser.text(PAGE);
    assert!(seen.ends_with("the `authorization_endpoint` of `https://idp.example/` is not https"));
}

#[test]
fn without_tls_there_is_no_login() {
    let browser = Browser::new();
    let mut exchange = browser.exchange(PAGE);
    exchange.request.scheme = portcullis_core::Scheme::Http;
    let seen = browser.ask(&exchange).text;
    assert!(seen.starts_with("400 login-failed | no login without TLS"), "{seen}");
}
