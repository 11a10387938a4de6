//! Answers that the issuer has signed (RFC 9701).

use serde_json::{Value, json};

use super::*;
use crate::testing::issuer::{Kind, Signer, jwks};

const ISSUER: &str = "https://idp.example";
const DISCOVERY: &str = "https://idp.example/.well-known/openid-configuration";
const JWKS: &str = "https://idp.example/jwks";
const SIGNED: &str = r#"{
    issuer: "https://idp.example", signed: true, client: { id: gw, secret: "file:secret" }
}"#;

struct Signing {
    asked: Asked,
    signer: Signer,
}

impl Signing {
    fn new() -> Self {
        let (asked, signer) = (Asked::new(SIGNED), Signer::new("k1", Kind::Es256));
        let document = json!({ "issuer": ISSUER, "introspection_endpoint": URL, "jwks_uri": JWKS });
        asked.world.services.answer(DISCOVERY, Answer::Body(document.to_string()));
        asked.world.services.answer(JWKS, Answer::Body(jwks(&[&signer])));
        Self { asked, signer }
    }

    fn claims(&self) -> Value {
        json!({
            "iss": ISSUER, "aud": "gw", "iat": START.wall.as_secs(),
            "token_introspection": { "active": true, "client_id": "shop", "exp": 9_999_999_999_u64 },
        })
    }

    fn header(&self) -> Value {
        json!({ "alg": "ES256", "kid": "k1", "typ": "token-introspection+jwt" })
    }

    fn answers(&self, kind: &'static str, body: String) {
        self.asked.world.services.answer(URL, Answer::Full(200, kind, body));
    }

    fn of(&self, header: &Value, claims: &Value, by: &Signer) -> String {
        self.answers(MEDIA_TYPE, by.sign(header, claims));
        self.asked.verify(&format!("t{}", self.asked.world.services.len()))
    }
}

#[test]
fn a_signed_answer_is_asked_for_and_taken() {
    let signing = Signing::new();
    let (header, claims) = (signing.header(), signing.claims());
    assert_eq!(signing.of(&header, &claims, &signing.signer), "idp/shop");
    let sent = signing.asked.world.services.sent();
    let accepts: Vec<_> =
        sent.iter().filter(|fetch| fetch.url == URL).flat_map(|fetch| &fetch.fields).collect();
    let accepts: Vec<_> = accepts.iter().filter(|(name, _)| name == "accept").collect();
    assert_eq!(accepts.len(), 1);
    assert_eq!(accepts[0].1, MEDIA_TYPE);
    let kind = "Application/Token-Introspection+JWT; charset=utf-8";
    signing.answers(kind, signing.signer.sign(&header, &claims) + "\n");
    assert_eq!(signing.asked.verify("other"), "idp/shop");
    // What it says may be no.
    let mut no = claims;
    no["token_introspection"] = json!({ "active": false });
    assert!(signing.of(&header, &no, &signing.signer).starts_with("401"));
}

#[test]
fn whatever_is_not_the_issuers_word_says_nothing() {
    let signing = Signing::new();
    let now = START.wall.as_secs();
    let check = |header: Value, claims: Value, by: &Signer, expected: &str| {
        let seen = signing.of(&header, &claims, by);
        assert!(seen.starts_with("503 authorizer-unavailable"), "{seen}");
        assert!(seen.contains(expected), "{seen}");
        // Back to a good one, so that the issuer is not left alone.
        let good = signing.of(&signing.header(), &signing.claims(), &signing.signer);
        assert_eq!(good, "idp/shop");
    };
    let with = |mut to: Value, change: Value| {
        to.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        to
    };
    for (change, expected) in [
        (json!({ "typ": "JWT" }), "the answer's `typ` is that of another kind of token"),
        (json!({ "typ": null }), "the answer's `typ` is that of another kind of token"),
        (json!({ "crit": ["b64"] }), "the answer's header has `crit`"),
        (json!({ "alg": "none" }), "the answer's algorithm is not known"),
        (json!({ "alg": "HS256" }), "the answer's signature is not good"),
        (json!({ "alg": "RS256" }), "the answer's signature is not good"),
        (json!({ "alg": 7 }), "the answer's header is no JOSE header"),
    ] {
        check(with(signing.header(), change), signing.claims(), &signing.signer, expected);
    }
    for (change, expected) in [
        (json!({ "iss": "https://other.example" }), "the answer is of another issuer"),
        (json!({ "iss": null }), "the answer is of another issuer"),
        (json!({ "aud": "other" }), "the answer is for another client"),
        (json!({ "aud": null }), "the answer is for another client"),
        (json!({ "iat": now - 61 }), "the answer is of another time"),
        (json!({ "iat": now + 61 }), "the answer is of another time"),
        (json!({ "iat": null }), "the answer does not say when it was made"),
        (json!({ "token_introspection": null }), "the answer has no `token_introspection`"),
        (json!({ "token_introspection": {} }), "does not say whether the token is `active`"),
    ] {
        check(signing.header(), with(signing.claims(), change), &signing.signer, expected);
    }
    let stranger = Signer::new("k1", Kind::Es256);
    check(signing.header(), signing.claims(), &stranger, "the answer's signature is not good");
}

#[test]
fn an_unsigned_answer_is_none() {
    let signing = Signing::new();
    let plain = json!({ "active": true, "client_id": "shop" }).to_string();
    for (kind, body) in [
        ("application/json", plain.clone()),
        ("application/jwt", signing.signer.sign(&signing.header(), &signing.claims())),
        (MEDIA_TYPE, plain),
        (MEDIA_TYPE, String::new()),
    ] {
        signing.answers(kind, body);
        let seen = signing.asked.verify("t");
        assert!(seen.starts_with("503 authorizer-unavailable"), "{seen}");
    }
}

#[test]
fn its_keys_rotate_and_may_be_away() {
    let signing = Signing::new();
    let services = &signing.asked.world.services;
    services.answer(JWKS, Answer::Down);
    let seen = signing.of(&signing.header(), &signing.claims(), &signing.signer);
    assert!(seen.starts_with("503") && seen.contains("does not answer"), "{seen}");
    let other = Signer::new("k2", Kind::Es256);
    services.answer(JWKS, Answer::Body(jwks(&[&signing.signer])));
    signing.asked.pass(60_000);
    let of = |kid: &str, by: &Signer| {
        let now = services.now().wall.as_secs();
        let mut claims = signing.claims();
        claims["iat"] = now.into();
        let header = json!({ "alg": "ES256", "kid": kid, "typ": "token-introspection+jwt" });
        signing.of(&header, &claims, by)
    };
    assert_eq!(of("k1", &signing.signer), "idp/shop");
    services.answer(JWKS, Answer::Body(jwks(&[&other])));
    signing.asked.pass(60_000);
    assert_eq!(of("k2", &other), "idp/shop");
    signing.asked.pass(60_000);
    assert!(of("k1", &signing.signer).contains("signature is not good"));
}
