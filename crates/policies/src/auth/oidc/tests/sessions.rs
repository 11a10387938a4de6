//! From a login to its end: refreshing, idling, keys that change, logging out.

use std::time::Duration;

use super::*;
use crate::testing::Flag;

const API: &str = "GET /data";
/// Long enough not to turn up by chance in what is as good as random.
const REFRESH_TOKEN: &str = "refresh-token-1";
const REFRESHABLE: &str = r#"{ "refresh_token": "refresh-token-1" }"#;

fn refreshable(more: &str) -> Browser {
    let browser = Browser::with(more);
    browser.log_in_with(&serde_json::from_str(REFRESHABLE).unwrap());
    browser
}

impl Browser {
    fn pass(&self, seconds: u64) {
        self.world.services.pass(Duration::from_secs(seconds));
    }

    /// Requests to the token endpoint since the last call.
    fn redeemed(&self) -> Vec<String> {
        let sent = self.world.services.sent().into_iter();
        let sent = sent.filter(|fetch| fetch.url == TOKEN);
        sent.map(|fetch| String::from_utf8(fetch.body.to_vec()).unwrap()).collect()
    }
}

#[test]
fn a_session_ends_after_its_time() {
    let browser = Browser::with(", session: 1h");
    browser.log_in();
    browser.pass(3599);
    assert_eq!(browser.text(API), "idp/alice for openid");
    browser.pass(1);
    assert_eq!(browser.text(API), "401 credentials-expired | the session is over");
    assert_eq!(browser.names(), Vec::<String>::new(), "the cookie is taken back");
}

#[test]
fn who_looks_at_a_page_when_the_session_is_over_logs_in_again() {
    let browser = Browser::with(", session: 1h");
    browser.log_in();
    browser.pass(3600);
    let begun = browser.begin();
    browser.give(Some(&one(&begun, "nonce")), &json!({}), &json!({}));
    assert_eq!(browser.back(&begun), "303 /orders?page=2");
    assert_eq!(browser.text(API), "idp/alice for openid");
}

#[test]
fn an_idle_session_ends_and_a_used_one_goes_on() {
    let browser = Browser::with(", session: 1h, idle: 10m");
    browser.log_in();
    let first = browser.session();
    for _ in 0..5 {
        browser.pass(599);
        assert_eq!(browser.text(API), "idp/alice for openid");
    }
    assert_ne!(browser.session(), first);
    // Not every request is worth another cookie.
    browser.pass(10);
    assert_eq!(browser.send(API).set, Vec::<String>::new());
    browser.pass(600);
    assert_eq!(browser.text(API), "401 credentials-expired | the session is over");
}

#[test]
fn a_session_is_refreshed_before_its_tokens_end() {
    let browser = refreshable("");
    browser.redeemed();
    browser.pass(239);
    assert_eq!(browser.text(API), "idp/alice for openid");
    assert_eq!(browser.redeemed(), Vec::<String>::new());
    browser.pass(1);
    let new = json!({ "refresh_token": "r2", "scope": "openid orders" });
    browser.give(None, &json!({ "nonce": null }), &new);
    let before = browser.session();
    assert_eq!(browser.text(API), "idp/alice for openid orders");
    assert_eq!(browser.redeemed(), ["grant_type=refresh_token&refresh_token=refresh-token-1"]);
    assert_ne!(browser.session(), before, "the browser has the new one");
    assert_eq!(browser.text(API), "idp/alice for openid orders");
    browser.pass(240);
    browser.give(None, &json!({ "nonce": null }), &json!({}));
    browser.text(API);
    assert_eq!(browser.redeemed(), ["grant_type=refresh_token&refresh_token=r2"]);
}

#[test]
fn without_a_new_id_token_the_person_stays_the_same() {
    let browser = refreshable("");
    browser.pass(240);
    browser.give_token("", &json!({ "id_token": null, "refresh_token": "r2" }));
    assert_eq!(browser.text(API), "idp/alice for openid");
}

#[test]
fn a_refresh_is_no_way_to_become_somebody_else() {
    for (changes, detail) in [
        (json!({ "sub": "bob", "nonce": null }), "the refreshed ID token is of somebody else"),
        (json!({ "nonce": "another" }), "the nonce is not that of the login"),
        (json!({ "iss": "https://evil.example/" }), "the token is of another issuer"),
        (json!({ "aud": "other" }), "the token is for another audience"),
    ] {
        let browser = refreshable("");
        browser.pass(240);
        browser.give(None, &changes, &json!({}));
        let seen = browser.text(API);
        let expected =
            format!("401 credentials-expired | the session could not be refreshed: {detail}");
        assert_eq!(seen, expected, "{changes}");
        assert_eq!(browser.session(), None);
    }
}

#[test]
fn one_refresh_serves_all_requests_of_a_session() {
    let browser = refreshable("");
    browser.redeemed();
    browser.pass(240);
    browser.give(None, &json!({ "nonce": null }), &json!({ "refresh_token": "r2" }));
    let old = browser.cookies.borrow().clone();
    let exchanges = [API, "GET /other", "GET /third"].map(|request| browser.exchange(request));
    let services = &browser.world.services;
    services.hold();
    let mut waiting: Vec<_> = exchanges
        .iter()
        .map(|exchange| {
            let Verify::Wait(future) = browser.auth.verify(exchange, services) else {
                panic!("the session is to be refreshed")
            };
            (future, Arc::new(Flag::default()))
        })
        .collect();
    for (future, flag) in &mut waiting {
        assert!(flag.poll(future).is_none());
    }
    services.release();
    for (future, flag) in &mut waiting {
        let seen = verified(flag.poll(future).expect("it has ended"));
        assert_eq!(seen.text, "idp/alice for openid");
        assert_eq!(seen.set.len(), 1, "each answer brings the new session");
    }
    drop(waiting);
    assert_eq!(browser.redeemed().len(), 1);
    // Who was on the way with the old cookie does not use the refresh token up again.
    browser.pass(59);
    browser.cookies.replace(old);
    assert_eq!(browser.text(API), "idp/alice for openid");
    assert_eq!(browser.redeemed().len(), 0);
}

#[test]
fn a_refresh_that_is_refused_ends_the_session() {
    let refused = || Answer::Full(400, "application/json", r#"{"error":"invalid_grant"}"#.into());
    let browser = refreshable("");
    browser.pass(240);
    browser.world.services.answer(TOKEN, refused());
    let seen = browser.text(API);
    assert!(seen.starts_with("401 credentials-expired"), "{seen}");
    assert_eq!(browser.session(), None);
    let browser = refreshable("");
    browser.pass(240);
    browser.world.services.answer(TOKEN, refused());
    browser.begin();
}

#[test]
fn while_the_provider_is_away_a_session_is_good_until_its_tokens_end() {
    let browser = refreshable("");
    for away in [Answer::Down, Answer::Status(500), Answer::Body("no JSON".to_owned())] {
        browser.pass(if matches!(away, Answer::Down) { 240 } else { 10 });
        browser.world.services.answer(TOKEN, away);
        assert_eq!(browser.text(API), "idp/alice for openid");
    }
    browser.pass(40);
    let seen = browser.text(API);
    assert!(seen.starts_with("503 keys-unavailable"), "{seen}");
    assert!(browser.session().is_some(), "nobody has said that it is over");
    browser.give(None, &json!({ "nonce": null }), &json!({}));
    browser.pass(30);
    assert_eq!(browser.text(API), "idp/alice for openid");
}

#[test]
fn a_provider_that_is_away_is_not_stormed() {
    let browser = refreshable("");
    browser.redeemed();
    browser.pass(240);
    browser.world.services.answer(TOKEN, Answer::Down);
    for _ in 0..100 {
        assert_eq!(browser.text(API), "idp/alice for openid");
    }
    let asked = browser.redeemed().len();
    assert!((1..=5).contains(&asked), "{asked}");
}

#[test]
fn cookies_that_are_not_the_gateways_own_are_no_session() {
    let browser = Browser::new();
    browser.log_in();
    let good = browser.session().unwrap();
    let half = &good[..good.len() / 2];
    let flipped = if good.ends_with('A') { "B" } else { "A" };
    let name = "__Host-portcullis-idp";
    for changed in [
        format!("{}{flipped}", &good[..good.len() - 1]),
        half.to_owned(),
        format!("1{}", "A".repeat(200)),
        "1".to_owned(),
        "x".to_owned(),
        String::new(),
        format!("2{}", &good[1..]),
    ] {
        browser.cookies.borrow_mut().insert(name.to_owned(), changed.clone());
        let seen = browser.text(API);
        assert!(seen.starts_with("401 credentials-invalid"), "{changed}: {seen}");
        assert!(!seen.contains("alice"), "{seen}");
    }
    browser.cookies.borrow_mut().insert(name.to_owned(), half.to_owned());
    browser.begin();
    browser.cookies.borrow_mut().insert(name.to_owned(), good);
    assert_eq!(browser.text(API), "idp/alice for openid");
}

#[test]
fn a_session_of_another_entry_issuer_or_client_is_none() {
    let browser = Browser::new();
    browser.log_in();
    let cookies = browser.cookies.borrow().clone();
    for (from, to) in [
        (r#"issuer: "https://idp.example/""#, r#"issuer: "https://other.example/""#),
        ("id: shop", "id: stock"),
        ("new.key", "old.key"),
    ] {
        let settings = SETTINGS.replace(from, to);
        let auth = browser.world.auth("oidc", &format!("{{ {settings} }}"));
        let other = Browser {
            world: World::default(),
            auth,
            signer: Signer::new("k", Kind::Es256),
            cookies: RefCell::new(cookies.clone()),
        };
        let seen = other.text(API);
        assert_eq!(seen, "401 credentials-invalid | the session is none of ours", "{to}");
    }
}

#[test]
fn keys_rotate_without_ending_a_session() {
    let browser = Browser::new();
    browser.log_in();
    let first = browser.session();
    let with = |keys: &str| {
        let settings = SETTINGS.replace(r#""file:new.key""#, keys);
        browser.world.auth("oidc", &format!("{{ {settings} }}"))
    };
    let after = Browser { auth: with(r#""file:old.key", "file:new.key""#), ..browser };
    assert_eq!(after.text(API), "idp/alice for openid");
    assert_ne!(after.session(), first, "sealed with the first key now");
    assert_eq!(after.send(API).set, Vec::<String>::new());
    let settings = SETTINGS.replace("new.key", "old.key");
    let auth = after.world.auth("oidc", &format!("{{ {settings} }}"));
    let last = Browser { auth, ..after };
    assert_eq!(last.text(API), "idp/alice for openid");
}

#[test]
fn pages_of_other_sites_do_nothing_with_a_session() {
    let browser = Browser::with(r#", cross_site: { origins: ["https://shop.example"] }"#);
    browser.log_in();
    for (request, good) in [
        ("POST /data | Origin: https://api.example.com", true),
        ("POST /data | Origin: https://shop.example", true),
        ("POST /data | Sec-Fetch-Site: same-origin", true),
        ("POST /data | Origin: https://evil.example", false),
        ("DELETE /data | Origin: null", false),
        ("PATCH /data", false),
        ("GET /data | Origin: https://evil.example", true),
        ("GET /ws | Sec-WebSocket-Version: 13 | Origin: https://api.example.com", true),
        ("GET /ws | Sec-WebSocket-Version: 13 | Origin: https://evil.example", false),
        ("GET /ws | Sec-WebSocket-Version: 13 | Origin: null", false),
        ("GET /ws | Sec-WebSocket-Version: 13", false),
    ] {
        let seen = browser.text(request);
        let expected = if good { "idp/alice" } else { "403 origin-not-allowed" };
        assert!(seen.starts_with(expected), "{request}: {seen}");
    }
}

#[test]
fn a_logout_ends_the_session_here_and_at_the_provider() {
    let browser = Browser::new();
    browser.log_in();
    let stolen = browser.cookies.borrow().clone();
    assert_eq!(browser.text(API), "idp/alice for openid");
    let seen = browser.text("POST /oauth2/logout | Origin: https://api.example.com");
    let query = seen.strip_prefix("303 https://idp.example/logout?").expect(&seen);
    let query = Query::read(query.as_bytes()).unwrap();
    assert_eq!(one(&query, "client_id"), "shop");
    assert_eq!(one(&query, "post_logout_redirect_uri"), "https://api.example.com/");
    assert_eq!(one(&query, "id_token_hint").split('.').count(), 3);
    assert!(browser.names().is_empty());
    assert_eq!(browser.text(API), "nothing");
    // Also for who has kept the cookie.
    browser.cookies.replace(stolen);
    assert_eq!(browser.text(API), "401 credentials-expired | the session was ended");
}

/// A refresh token that was copied is worth nothing; a provider that does not listen keeps nobody
/// logged in.
#[test]
fn a_logout_revokes_the_refresh_token() {
    for (answer, endpoint) in [
        (Answer::Body(String::new()), Some(REVOCATION)),
        (Answer::Status(503), Some(REVOCATION)),
        (Answer::Down, Some(REVOCATION)),
        (Answer::Down, None),
    ] {
        let browser = Browser::new();
        browser.discover(&json!({ "revocation_endpoint": endpoint }));
        browser.log_in_with(&serde_json::from_str(REFRESHABLE).unwrap());
        browser.world.services.answer(REVOCATION, answer);
        let seen = browser.text("POST /oauth2/logout | Sec-Fetch-Site: same-origin");
        assert!(seen.starts_with("303 https://idp.example/logout?"), "{seen}");
        assert!(browser.names().is_empty());
        let sent = browser.world.services.sent();
        let told: Vec<_> = sent.iter().filter(|fetch| fetch.url == REVOCATION).collect();
        assert_eq!(told.len(), usize::from(endpoint.is_some()));
        for fetch in told {
            assert_eq!(fetch.body, "token=refresh-token-1&token_type_hint=refresh_token");
            assert!(fetch.fields.iter().any(|(name, _)| name == "authorization"));
        }
    }
    // Without one there is nothing to revoke.
    let browser = Browser::new();
    browser.log_in();
    browser.text("POST /oauth2/logout | Sec-Fetch-Site: same-origin");
    assert!(!browser.world.services.asked().iter().any(|url| url == REVOCATION));
}

#[test]
fn a_session_that_ends_while_it_is_refreshed_does_not_come_back() {
    let browser = Browser::new();
    // A logout that has nothing to wait for.
    browser.discover(&json!({ "revocation_endpoint": null }));
    browser.log_in_with(&serde_json::from_str(REFRESHABLE).unwrap());
    browser.pass(240);
    browser.give(None, &json!({ "nonce": null }), &json!({}));
    let exchange = browser.exchange(API);
    let services = &browser.world.services;
    services.hold();
    let Verify::Wait(mut refresh) = browser.auth.verify(&exchange, services) else { panic!() };
    let flag = Arc::new(Flag::default());
    assert!(flag.poll(&mut refresh).is_none());
    browser.text("POST /oauth2/logout | Origin: https://api.example.com");
    services.release();
    let seen = verified(flag.poll(&mut refresh).unwrap());
    assert!(seen.text.contains("it has ended"), "{}", seen.text);
}

#[test]
fn a_logout_is_asked_for_by_a_page_of_this_site() {
    for (request, good) in [
        ("GET /oauth2/logout | Sec-Fetch-Site: same-origin", true),
        ("GET /oauth2/logout | Sec-Fetch-Site: none", true),
        ("GET /oauth2/logout | Sec-Fetch-Site: cross-site", false),
        ("GET /oauth2/logout", false),
        ("POST /oauth2/logout | Origin: https://evil.example", false),
        ("POST /oauth2/logout | Sec-Fetch-Site: cross-site", false),
        ("POST /oauth2/logout", false),
    ] {
        let browser = Browser::new();
        browser.log_in();
        let seen = browser.text(request);
        let expected = if good { "303 https://idp.example/logout?" } else { "403 " };
        assert!(seen.starts_with(expected), "{request}: {seen}");
        assert_eq!(browser.session().is_none(), good, "{request}");
    }
    assert_eq!(Browser::new().text("PUT /oauth2/logout"), "405 method-not-allowed");
}

#[test]
fn a_provider_without_a_logout_is_left_alone() {
    let browser = Browser::with(", after_logout: /bye");
    browser.discover(&json!({ "end_session_endpoint": null }));
    browser.log_in();
    let seen = browser.text("POST /oauth2/logout | Sec-Fetch-Site: same-origin");
    assert_eq!(seen, "303 /bye");
    assert!(browser.names().is_empty());
}

#[test]
fn claims_name_whom_they_are_told_to() {
    let browser = Browser::with(
        r#", scopes: [openid, orders], claims: { client: "claim:email", tenant: "claim:org.id" }"#,
    );
    let begun = browser.begin();
    let person = json!({ "email": "a@b.example", "org": { "id": "t1" } });
    browser.give(Some(&one(&begun, "nonce")), &person, &json!({}));
    assert_eq!(browser.back(&begun), "303 /orders?page=2");
    assert_eq!(browser.text(API), "idp/a@b.example of t1 for openid orders");
    let begun = browser.begin_anew();
    browser.give(Some(&one(&begun, "nonce")), &json!({}), &json!({}));
    assert_eq!(browser.back(&begun), "400 login-failed | the token names no client");
}

impl Browser {
    fn begin_anew(&self) -> Query {
        self.cookies.take();
        self.begin()
    }
}

#[test]
fn a_long_session_is_in_pieces_and_one_that_is_too_long_is_none() {
    let browser = Browser::new();
    for (length, pieces) in [(100, 1), (2500, 2), (4000, 3)] {
        let begun = browser.begin_anew();
        let long = json!({ "groups": "g".repeat(length) });
        browser.give(Some(&one(&begun, "nonce")), &long, &json!({}));
        assert_eq!(browser.back(&begun), "303 /orders?page=2");
        assert_eq!(browser.names().len(), pieces, "{length}");
        assert_eq!(browser.text(API), "idp/alice for openid");
    }
    // A shorter one takes the place of a longer one whole.
    browser.text("POST /oauth2/logout | Sec-Fetch-Site: same-origin");
    assert!(browser.names().is_empty());
    let begun = browser.begin();
    browser.give(Some(&one(&begun, "nonce")), &json!({ "g": "g".repeat(9000) }), &json!({}));
    let seen = browser.back(&begun);
    assert!(seen.contains("does not fit into cookies"), "{seen}");
    assert!(browser.names().is_empty());
}

#[test]
fn nothing_that_is_secret_is_printed() {
    let browser = refreshable("");
    let seen = format!("{:?}", browser.auth);
    assert!(!seen.contains("a secret") && !seen.contains(REFRESH_TOKEN), "{seen}");
    for cookie in browser.cookies.borrow().values() {
        assert!(!cookie.contains("alice") && !cookie.contains(REFRESH_TOKEN), "{cookie}");
    }
}
