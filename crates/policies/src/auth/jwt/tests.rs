use expect_test::{Expect, expect};
use portcullis_core::auth::Authenticator;
use serde_json::{Value, json};

use super::*;
use crate::testing::issuer::{ISSUER, Kind, Signer, bearer as request, claims, jwks};
use crate::testing::{START, World, print_verified, ready};

const FILE: &str =
    r#"{ issuer: "https://idp.example/", audience: [orders, stock], jwks: "file:jwks.json" }"#;

/// With keys in a file.
struct Fixed {
    world: World,
    auth: Arc<dyn Authenticator>,
    signer: Signer,
}

impl Fixed {
    fn new() -> Self {
        Self::with(FILE)
    }

    fn with(settings: &str) -> Self {
        let signer = Signer::new("k1", Kind::Es256);
        let world = World::default().file("jwks.json", jwks(&[&signer]));
        let auth = world.auth("jwt", settings);
        Self { world, auth, signer }
    }

    fn verify(&self, token: &str) -> String {
        self.world.verify(&*self.auth, &request(token)).replace('\n', " ")
    }

    fn claims(&self, changes: &Value) -> String {
        self.verify(&self.signer.token(&claims(changes)))
    }
}

/// The detail of a 401, the whole of anything else.
fn detail(seen: &str) -> &str {
    let refused = seen.strip_prefix("401 credentials-invalid | ");
    refused.and_then(|rest| rest.split_once(" < ")).map_or(seen, |(detail, _)| detail)
}

#[test]
fn a_good_token_names_its_client() {
    let fixed = Fixed::new();
    for (changes, expected) in [
        (json!({}), "idp/alice"),
        (json!({ "client_id": "app", "azp": "web" }), "idp/app"),
        (json!({ "azp": "web" }), "idp/web"),
        (json!({ "client_id": "" }), "idp/alice"),
        (json!({ "scope": "a b  c" }), "idp/alice for a b c"),
        (json!({ "scp": ["a", "b"] }), "idp/alice for a b"),
        (json!({ "scope": "a", "scp": "b" }), "idp/alice for a"),
        (json!({ "aud": ["x", "stock"] }), "idp/alice"),
        (json!({ "tenant": "t" }), "idp/alice"),
    ] {
        assert_eq!(fixed.claims(&changes), expected, "{changes}");
    }
}

#[test]
fn claims_may_be_elsewhere() {
    let fixed = Fixed::with(
        r#"{ issuer: "https://idp.example/", audience: orders, jwks: "file:jwks.json",
             client: "claim:app.name", tenant: "claim:tid", scopes: "claim:permissions" }"#,
    );
    let changes =
        json!({ "app": { "name": "web" }, "tid": "t1", "permissions": ["a:r"], "scope": "x" });
    assert_eq!(fixed.claims(&changes), "idp/web of t1 for a:r");
    assert_eq!(detail(&fixed.claims(&json!({ "tid": "t" }))), "the token names no client");
}

#[test]
fn every_algorithm_verifies_with_its_own_kind_of_key() {
    let signers = [Kind::Es256, Kind::Es384, Kind::Rsa, Kind::Ed25519]
        .map(|kind| Signer::new(&format!("{kind:?}"), kind));
    let world = World::default().file("jwks.json", jwks(&signers.iter().collect::<Vec<_>>()));
    let auth = world.auth("jwt", FILE);
    for signer in &signers {
        let token = signer.token(&claims(&json!({})));
        assert_eq!(world.verify(&*auth, &request(&token)), "idp/alice");
    }
    let pss = signers[2].sign(&json!({ "alg": "PS256", "kid": "Rsa" }), &claims(&json!({})));
    assert_eq!(world.verify(&*auth, &request(&pss)), "idp/alice");
    // A good signature under a header that lies about it.
    for (alg, expected) in [
        ("RS384", "the signature is not good"),
        ("ES256", "the key is not for the token's algorithm"),
        ("EdDSA", "the key is not for the token's algorithm"),
        ("HS256", "the token's algorithm is not allowed"),
        ("none", "the token's algorithm is not known"),
        ("NONE", "the token's algorithm is not known"),
        ("ES512", "the token's algorithm is not known"),
    ] {
        let token = signers[2].sign(&json!({ "alg": alg, "kid": "Rsa" }), &claims(&json!({})));
        let seen = world.verify(&*auth, &request(&token)).replace('\n', " ");
        assert_eq!(detail(&seen), expected, "{alg}");
    }
}

#[test]
fn claims_that_do_not_hold() {
    let fixed = Fixed::new();
    let now = START.wall.as_secs();
    for (changes, expected) in [
        (json!({ "aud": "other" }), "the token is for another audience"),
        (json!({ "aud": ["other"] }), "the token is for another audience"),
        (json!({ "aud": null }), "the token lacks `exp`, `iss` or `aud`"),
        (json!({ "iss": "https://idp.example" }), "the token is of another issuer"),
        (json!({ "iss": null }), "the token lacks `exp`, `iss` or `aud`"),
        (json!({ "iss": [ISSUER, "x"] }), "the token's `iss` is not the issuer"),
        (json!({ "exp": null }), "the token lacks `exp`, `iss` or `aud`"),
        (json!({ "exp": "soon" }), "the token lacks `exp`, `iss` or `aud`"),
        (json!({ "exp": -1 }), "the token lacks `exp`, `iss` or `aud`"),
        (json!({ "nbf": now + 31 }), "the token is not valid yet"),
        (json!({ "nbf": now + 30 }), "idp/alice"),
        (json!({ "nbf": "now" }), "the token's `nbf` is no time"),
        (json!({ "exp": now - 29 }), "idp/alice"),
        (json!({ "exp": now as f64 + 0.5 }), "idp/alice"),
        (json!({ "sub": null }), "the token names no client"),
        (json!({ "sub": "a\r\nb" }), "the token's client or tenant is not a name"),
        (json!({ "sub": "a".repeat(257) }), "the token's client or tenant is not a name"),
    ] {
        assert_eq!(detail(&fixed.claims(&changes)), expected, "{changes}");
    }
    expect![[r#"401 credentials-expired | the token has expired < www-authenticate: Bearer realm="idp", error="invalid_token", error_description="the token has expired""#]]
        .assert_eq(&fixed.claims(&json!({ "exp": now - 30 })));
    expect![[r#"401 credentials-invalid | the signature is not good < www-authenticate: Bearer realm="idp", error="invalid_token""#]]
        .assert_eq(&fixed.verify(&Signer::new("k1", Kind::Es256).token(&claims(&json!({})))));
}

#[test]
fn headers_that_do_not_hold() {
    let fixed = Fixed::new();
    let good = claims(&json!({}));
    for (header, expected) in [
        (json!({ "alg": "ES256", "kid": "k1" }), "idp/alice"),
        (json!({ "alg": "ES256", "kid": "k1", "typ": "AT+jwt" }), "idp/alice"),
        (json!({ "alg": "ES256", "kid": "k1", "typ": "application/at+jwt" }), "idp/alice"),
        (
            json!({ "alg": "ES256", "kid": "k1", "typ": "dpop+jwt" }),
            "the token's `typ` is that of another kind of token",
        ),
        (
            json!({ "alg": "ES256", "kid": "k1", "typ": "logout+jwt" }),
            "the token's `typ` is that of another kind of token",
        ),
        (
            json!({ "alg": "ES256", "kid": "k1", "crit": ["b64"], "b64": false }),
            "the header has `crit`",
        ),
        (json!({ "alg": "ES256", "kid": "k2" }), "no key with the token's key id"),
        (json!({ "alg": "ES256" }), "idp/alice"),
        (json!({ "alg": "RS256" }), "no key fits the token's algorithm"),
        (json!({ "kid": "k1" }), "the header is not a JOSE header"),
        (json!({ "alg": "ES256", "kid": 7 }), "the header is not a JOSE header"),
        (json!(["ES256"]), "the header is not a JOSE header"),
    ] {
        let token = fixed.signer.sign(&header, &good);
        assert_eq!(detail(&fixed.verify(&token)), expected, "{header}");
    }
}

#[test]
fn texts_that_are_no_tokens() {
    let fixed = Fixed::new();
    let token = fixed.signer.token(&claims(&json!({})));
    let parts: Vec<_> = token.split('.').collect();
    for (text, expected) in [
        (format!("{}.{}", parts[0], parts[1]), "not a signed token: three parts are needed"),
        (format!("{token}.x"), "not a signed token: three parts are needed"),
        (format!("{}.{}.", parts[0], parts[1]), "the signature is not good"),
        (format!("{token}="), "the token cannot be read"),
        (format!("!{token}"), "the header is not base64url"),
        ("opaque".to_owned(), "not a signed token: three parts are needed"),
        ("a".repeat(16 << 10) + "b", "the token is too long"),
        (format!("{}.{}.x", "a".repeat(5000), parts[1]), "the token's header is too long"),
    ] {
        assert_eq!(detail(&fixed.verify(&text)), expected);
    }
    let challenge = "< www-authenticate: Bearer realm=\"idp\"";
    let seen = fixed.world.verify(&*fixed.auth, "192.0.2.7 GET /").replace('\n', " ");
    assert_eq!(seen, format!("401 credentials-missing | no bearer token {challenge}"));
    let twice = format!("{} | Authorization: bearer {token}", request(&token));
    let seen = fixed.world.verify(&*fixed.auth, &twice);
    assert_eq!(seen, "400 credentials-ambiguous | two bearer tokens");
}

#[test]
fn keys_that_cannot_verify_are_left_out() {
    let signer = Signer::new("k1", Kind::Es256);
    let with = |name: &str, value: Value| {
        let mut jwk = signer.jwk();
        jwk[name] = value;
        let text = json!({ "keys": [jwk, Signer::new("k2", Kind::Es256).jwk()] }).to_string();
        let world = World::default().file("jwks.json", text);
        let auth = world.auth("jwt", FILE);
        let token = signer.token(&claims(&json!({})));
        let seen = world.verify(&*auth, &request(&token)).replace('\n', " ");
        detail(&seen).to_owned()
    };
    let gone = "no key with the token's key id";
    for (name, value, expected) in [
        ("use", json!("sig"), "idp/alice"),
        ("use", json!("enc"), gone),
        ("key_ops", json!(["verify"]), "idp/alice"),
        ("key_ops", json!(["encrypt"]), gone),
        ("alg", json!("ES256"), "idp/alice"),
        ("alg", json!("ES384"), gone),
        ("alg", json!("HS256"), gone),
        ("kty", json!("oct"), gone),
        ("crv", json!("secp256k1"), gone),
        ("crv", json!("P-384"), "the key is not for the token's algorithm"),
        ("x5c", json!("something"), "idp/alice"),
    ] {
        assert_eq!(with(name, value.clone()), expected, "{name}: {value}");
    }
}

#[test]
fn only_allowed_algorithms() {
    let fixed = Fixed::with(
        r#"{ issuer: "https://idp.example/", audience: orders, jwks: "file:jwks.json", algorithms: [RS256, EdDSA] }"#,
    );
    assert_eq!(detail(&fixed.claims(&json!({}))), "the token's algorithm is not allowed");
}

#[test]
fn what_is_presented_and_concealed() {
    let fixed = Fixed::new();
    let other = fixed.signer.token(&claims(&json!({ "iss": "https://other.example/" })));
    let ours = fixed.signer.token(&claims(&json!({})));
    // Escapes and other orders do not make it another issuer.
    let escaped = format!("e30.{}.x", {
        use base64::Engine as _;
        base64::engine::general_purpose::URL_SAFE_NO_PAD
            .encode(r#"{ "iss" : "https:\/\/idp.example\/" }"#)
    });
    for (line, expected) in [
        (request(&ours), "mine"),
        (request(&escaped), "mine"),
        (request(&other), "foreign"),
        (request("opaque"), "mine"),
        (request("a.b.c"), "mine"),
        ("192.0.2.7 GET / | Authorization: Basic YTpi".to_owned(), "nothing"),
        ("192.0.2.7 GET /".to_owned(), "nothing"),
    ] {
        let mut exchange = fixed.world.exchange(&line);
        let seen = match fixed.auth.presented(&exchange.request) {
            Presented::Nothing => "nothing",
            Presented::Foreign(_) => "foreign",
            Presented::Mine(_) => "mine",
        };
        assert_eq!(seen, expected, "{line}");
        fixed.auth.conceal(&mut exchange.request);
        let left = exchange.request.fields.iter().count();
        assert_eq!(left, usize::from(line.contains("Basic")), "{line}");
    }
    assert_eq!(fixed.auth.challenge(), "Bearer realm=\"idp\"");
}

/// Wherever the claim begins, it is recognised without decoding.
#[test]
fn the_issuer_is_seen_at_every_alignment() {
    use base64::Engine as _;
    let hint = IssuerHint::new(ISSUER);
    for before in 0..9 {
        let json = json!({ "a": "x".repeat(before), "iss": ISSUER, "z": 1 }).to_string();
        let payload = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(&json);
        assert!(!hint.is_foreign(format!("e30.{payload}.x").as_bytes()), "{before}");
        // Cut short it is no JSON, so only the look of it can tell.
        let cut = &payload[..payload.len() - 4];
        assert!(!hint.is_foreign(format!("e30.{cut}.x").as_bytes()), "{before}");
    }
}

#[test]
fn a_token_is_verified_once_and_until_it_expires() {
    let fixed = Fixed::new();
    let token = fixed.signer.token(&claims(&json!({})));
    let at = |seconds: u64| {
        let line = format!("{}ms {}", seconds * 1000, request(&token));
        let exchange = fixed.world.exchange(&line);
        match fixed.auth.verify(&exchange, &fixed.world.services) {
            Verify::Done(verified) => verified,
            Verify::Wait(verified) => ready(verified).unwrap(),
        }
    };
    let first = at(0).unwrap();
    assert!(Arc::ptr_eq(&first, &at(1).unwrap()));
    assert!(Arc::ptr_eq(&first, &at(329).unwrap()), "the skew is in its favour");
    assert_eq!(
        print_verified(at(330)).lines().next(),
        Some("401 credentials-expired | the token has expired")
    );
    assert!(Arc::ptr_eq(&first, &at(10).unwrap()), "the clock was wrong for a moment");
}

/// A slowed address must not cost a verification, so nothing begins before it is polled; what is
/// remembered needs none.
#[test]
fn only_what_is_new_waits() {
    let fixed = Fixed::new();
    let good = request(&fixed.signer.token(&claims(&json!({}))));
    let expired = request(&fixed.signer.token(&claims(&json!({ "exp": 1 }))));
    for (line, known) in [(&good, "idp/alice"), (&expired, "401 credentials-expired")] {
        let exchange = fixed.world.exchange(line);
        let verify = || fixed.auth.verify(&exchange, &fixed.world.services);
        for _ in 0..2 {
            let Verify::Wait(unpolled) = verify() else { panic!("not remembered yet") };
            drop(unpolled);
        }
        assert!(fixed.world.verify(&*fixed.auth, line).starts_with(known));
        let Verify::Done(verified) = verify() else { panic!("remembered now") };
        assert!(print_verified(verified).starts_with(known));
    }
}

fn check(settings: &str, want: &Expect) {
    let world =
        World::default().file("empty.json", "{\"keys\":[{\"kty\":\"oct\",\"k\":\"AAAA\"}]}");
    want.assert_eq(&world.try_auth("jwt", settings).map(|_| ()).unwrap_err());
}

#[test]
fn settings_that_cannot_be_meant() {
    check(
        r#"{ issuer: "https://a.example" }"#,
        &expect!["error missing-key at jwt: the key `audience` is missing"],
    );
    check(
        r#"{ issuer: "https://a.example", audience: [] }"#,
        &expect!["error out-of-range at jwt.audience: needs at least 1 item"],
    );
    check(
        r#"{ issuer: "http://idp.example", audience: a }"#,
        &expect![[
            r#"error invalid-value at jwt.issuer: keys cannot be fetched from `http://idp.example` (an `https://` URL, `http://` on loopback, or `jwks: "file:PATH"`)"#
        ]],
    );
    check(
        r#"{ issuer: a, audience: a, jwks: "http://idp.example/jwks" }"#,
        &expect![[
            r#"error invalid-value at jwt.jwks: keys cannot be fetched from `http://idp.example/jwks` (an `https://` URL, `http://` on loopback, or `jwks: "file:PATH"`)"#
        ]],
    );
    check(
        r#"{ issuer: a, audience: a, jwks: "file:empty.json" }"#,
        &expect!["error unusable-keys at jwt.jwks: none of 1 keys can verify a signature"],
    );
    check(
        r#"{ issuer: a, audience: a, jwks: "file:none.json" }"#,
        &expect!["error unreadable at jwt: cannot read file:none.json: no such file"],
    );
    check(
        r#"{ issuer: "http://127.0.0.1:1", audience: a, algorithms: [HS256] }"#,
        &expect![
            "error unknown-value at jwt.algorithms[0]: unknown value `HS256`, expected one of `RS256`, `RS384`, `RS512`, `PS256`, `PS384`, `PS512`, `ES256`, `ES384`, `EdDSA` (did you mean `ES256`?)"
        ],
    );
    check(
        r#"{ issuer: "http://localhost:9", audience: a, clock_skew: 2m, refresh: 1s, client: sub }"#,
        &expect!["error invalid-value at jwt.client: `sub` is not `claim:NAME`"],
    );
    check(
        r#"{ issuer: "http://localhost:9", audience: a, clock_skew: 2m, refresh: 1s }"#,
        &expect![[r#"
        error out-of-range at jwt.clock_skew: at most `60s`: repair the clocks instead
        error out-of-range at jwt.refresh: at least `1m`"#]],
    );
}
