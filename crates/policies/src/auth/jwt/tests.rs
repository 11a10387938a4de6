use expect_test::{Expect, expect};
use portcullis_core::auth::Authenticator;
use serde_json::{Value, json};

mod demanded;
mod forged;
mod places;

use super::*;
use crate::testing::issuer::{ISSUER, Kind, Signer, bearer as request, claims, jwks};
use crate::testing::{START, World, print_verified, ready};

const FILE: &str =
    r#"{ issuer: "https://idp.example/", audience: [orders, stock], jwks: "file:jwks.json" }"#;

const DOTS: &str = "not a signed token: three parts are needed";

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
    // RFC 8725 §3.1: one algorithm a key, which the key, the operator or the custom says.
    let pss = signers[2].sign(&json!({ "alg": "PS256", "kid": "Rsa" }), &claims(&json!({})));
    let seen = world.verify(&*auth, &request(&pss)).replace('\n', " ");
    assert_eq!(detail(&seen), "the key is not for the token's algorithm");
    let either = FILE.replace(" }", ", algorithms: [RS256, PS256] }");
    let either = world.auth("jwt", &either);
    assert_eq!(world.verify(&*either, &request(&pss)), "idp/alice");
    // A good signature under a header that lies about it.
    for (alg, expected) in [
        ("RS384", "the key is not for the token's algorithm"),
        ("ES256", "the key is not for the token's algorithm"),
        ("EdDSA", "the key is not for the token's algorithm"),
        ("HS256", "the token's algorithm is not allowed"),
        ("none", "the token's algorithm is not known"),
        ("None", "the token's algorithm is not known"),
        ("NONE", "the token's algorithm is not known"),
        ("nOnE", "the token's algorithm is not known"),
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
        (json!({ "aud": [] }), "the token is for another audience"),
        (json!({ "aud": {} }), "the token lacks `exp`, `iss` or `aud`"),
        (json!({ "aud": "orders " }), "the token is for another audience"),
        (json!({ "aud": ["orders"] }), "idp/alice"),
        (json!({ "aud": ["other", "orders"] }), "idp/alice"),
        (json!({ "aud": null }), "the token lacks `exp`, `iss` or `aud`"),
        (json!({ "iss": "https://idp.example" }), "the token is of another issuer"),
        (json!({ "iss": null }), "the token lacks `exp`, `iss` or `aud`"),
        (json!({ "iss": [ISSUER, "x"] }), "the token's `iss` is not the issuer"),
        (json!({ "exp": null }), "the token lacks `exp`, `iss` or `aud`"),
        (json!({ "exp": "soon" }), "the token lacks `exp`, `iss` or `aud`"),
        (json!({ "exp": "1999999999" }), "the token lacks `exp`, `iss` or `aud`"),
        (json!({ "exp": -1 }), "the token lacks `exp`, `iss` or `aud`"),
        (json!({ "exp": 1_u64 << 63 }), "idp/alice"),
        (json!({ "exp": u64::MAX }), "idp/alice"),
        (json!({ "nbf": now + 31 }), "the token is not valid yet"),
        (json!({ "nbf": now + 30 }), "idp/alice"),
        (json!({ "nbf": "now" }), "the token's `nbf` is no time"),
        (json!({ "iat": now + 31 }), "the token was issued in the future"),
        (json!({ "iat": now + 30 }), "idp/alice"),
        (json!({ "iat": "now" }), "the token's `iat` is no time"),
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
        (
            json!({ "alg": "ES256", "kid": "../../../../dev/null" }),
            "no key with the token's key id",
        ),
        (json!({ "alg": "ES256", "kid": "' OR 1=1 --" }), "no key with the token's key id"),
        (json!({ "alg": "ES256", "kid": "http://127.0.0.1/k" }), "no key with the token's key id"),
        (json!({ "alg": "ES256", "kid": "k".repeat(10 << 10) }), "the token's header is too long"),
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
        (format!("{}.{}", parts[0], parts[1]), DOTS),
        (format!("{token}.x"), DOTS),
        (format!("{}.{}.", parts[0], parts[1]), "the signature is not good"),
        (format!("{token}="), "the token cannot be read"),
        (format!("!{token}"), "the header is not base64url"),
        ("opaque".to_owned(), DOTS),
        ("a".repeat(16 << 10) + "b", "the token is too long"),
        (format!("{}.{}.x", "a".repeat(5000), parts[1]), "the token's header is too long"),
    ] {
        assert_eq!(detail(&fixed.verify(&text)), expected);
    }
    let challenge = "< www-authenticate: Bearer realm=\"idp\"";
    let seen = fixed.world.verify(&*fixed.auth, "192.0.2.7 GET /").replace('\n', " ");
    assert_eq!(seen, format!("401 credentials-missing | no token {challenge}"));
    let twice = format!("{} | Authorization: bearer {token}", request(&token));
    let seen = fixed.world.verify(&*fixed.auth, &twice);
    assert_eq!(seen, "400 credentials-ambiguous | more than one token");
}

#[test]
fn keys_that_cannot_verify_are_left_out() {
    let signer = Signer::new("k1", Kind::Es256);
    let with = |name: &str, value: Value| {
        let mut jwk = signer.jwk();
        jwk[name] = value;
        let text = json!({ "keys": [jwk, Signer::new("k2", Kind::Es256).jwk()] }).to_string();
        let world = World::default().file("jwks.json", text);
        let auth = match world.try_auth("jwt", FILE) {
            Ok(auth) => auth,
            Err(errors) => return errors,
        };
        let token = signer.token(&claims(&json!({})));
        let seen = world.verify(&*auth, &request(&token)).replace('\n', " ");
        detail(&seen).to_owned()
    };
    let gone = "no key with the token's key id";
    let contradicts =
        "error unusable-keys at jwt.jwks: key 1 (`k1`): its `alg` is not for a key of this kind";
    for (name, value, expected) in [
        ("use", json!("sig"), "idp/alice"),
        ("use", json!("enc"), gone),
        ("key_ops", json!(["verify"]), "idp/alice"),
        ("key_ops", json!(["encrypt"]), gone),
        ("alg", json!("ES256"), "idp/alice"),
        ("alg", json!("ECDH-ES"), gone),
        ("alg", json!("ES384"), contradicts),
        ("alg", json!("HS256"), contradicts),
        (
            "kty",
            json!("oct"),
            "error unusable-keys at jwt.jwks: key 1 (`k1`): a shared secret, and those are not accepted",
        ),
        ("kid", json!(7), "error unusable-keys at jwt.jwks: key 1: not a JSON Web Key"),
        ("crv", json!("secp256k1"), gone),
        ("crv", json!("P-384"), "the key is not for the token's algorithm"),
        ("x", json!("AAAA"), "the signature is not good"),
        ("x5c", json!("something"), "idp/alice"),
    ] {
        assert_eq!(with(name, value.clone()), expected, "{name}: {value}");
    }
}

#[test]
fn a_token_brings_no_key_of_its_own() {
    let fixed = Fixed::new();
    let stranger = Signer::new("k1", Kind::Es256);
    for (name, value) in [
        ("jwk", stranger.jwk()),
        ("jku", json!("http://127.0.0.1/jwks")),
        ("x5u", json!("http://127.0.0.1/chain")),
        ("x5c", json!(["AAAA"])),
    ] {
        let mut header = json!({ "alg": "ES256", "kid": "k1" });
        header[name] = value;
        let token = stranger.sign(&header, &claims(&json!({})));
        assert_eq!(detail(&fixed.verify(&token)), "the signature is not good", "{name}");
        let token = fixed.signer.sign(&header, &claims(&json!({})));
        assert_eq!(fixed.verify(&token), "idp/alice", "{name} is not looked at");
    }
    assert_eq!(fixed.world.services.asked(), [""; 0], "nobody is asked");
}

/// The public key is no secret, so it must never serve as one.
#[test]
fn a_public_key_is_no_shared_secret() {
    use base64::Engine as _;
    use jsonwebtoken::{Algorithm, EncodingKey, crypto::sign};
    let engine = base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let signer = Signer::new("k1", Kind::Rsa);
    let world = World::default().file("jwks.json", jwks(&[&signer]));
    let auth = world.auth("jwt", FILE);
    let header = json!({ "alg": "HS256", "kid": "k1" }).to_string();
    let message =
        format!("{}.{}", engine.encode(header), engine.encode(claims(&json!({})).to_string()));
    let jwk = signer.jwk();
    let modulus = engine.decode(jwk["n"].as_str().unwrap()).unwrap();
    for secret in [modulus, jwk["n"].to_string().into_bytes(), jwk.to_string().into_bytes()] {
        let secret = EncodingKey::from_secret(&secret);
        let signature = sign(message.as_bytes(), &secret, Algorithm::HS256).unwrap();
        let seen = world.verify(&*auth, &request(&format!("{message}.{signature}")));
        assert_eq!(detail(&seen.replace('\n', " ")), "the token's algorithm is not allowed");
    }
}

/// CVE-2022-21449, and forms of a signature other than that of RFC 7518 §3.4.
#[test]
fn signatures_of_nothing_are_not_good() {
    use base64::Engine as _;
    let engine = base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let fixed = Fixed::new();
    let token = fixed.signer.token(&claims(&json!({})));
    let (message, signature) = token.rsplit_once('.').unwrap();
    let good = engine.decode(signature).unwrap();
    let (r, s) = good.split_at(32);
    let zero = [0; 32];
    // SEC 2 §2.4.2: the order of P-256.
    let order = [
        0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        0xff, 0xbc, 0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63,
        0x25, 0x51,
    ];
    let integer = |bytes: &[u8]| [&[2, 33, 0], bytes].concat();
    let der = [&[0x30, 70][..], &integer(r), &integer(s)].concat();
    for bytes in [
        [zero, zero].concat(),
        [&zero, s].concat(),
        [r, &zero].concat(),
        [&order, s].concat(),
        [r, &order].concat(),
        vec![0xff; 64],
        der,
        [&good[..], &[0]].concat(),
        good[..63].to_vec(),
        Vec::new(),
    ] {
        let seen = fixed.verify(&format!("{message}.{}", engine.encode(&bytes)));
        assert_eq!(detail(&seen), "the signature is not good", "{bytes:02x?}");
    }
    assert_eq!(fixed.verify(&token), "idp/alice");
}

#[test]
fn claims_of_any_size_and_depth_are_read_or_refused() {
    let fixed = Fixed::new();
    let many = (0..1000).map(|n| (format!("c{n}"), json!(n))).collect();
    assert_eq!(fixed.claims(&Value::Object(many)), "idp/alice");
    assert_eq!(detail(&fixed.verify(&"a.".repeat(5_000))), DOTS);
    assert_eq!(detail(&fixed.verify(&"a".repeat(2 << 20))), "the token is too long");
    let encode = |json: String| {
        use base64::Engine as _;
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(json)
    };
    let deep = |open: &str| open.repeat(2_500);
    let header = encode(r#"{"alg":"ES256"}"#.to_owned());
    for (token, expected) in [
        (
            format!("{}.e30.AAAA", encode(deep("[")[..2_500].to_owned())),
            "the header is not a JOSE header",
        ),
        (
            format!("{}.e30.AAAA", encode(format!(r#"{{"alg":{}"#, deep("[")))),
            "the header is not a JOSE header",
        ),
        (
            format!("{header}.{}.AAAA", encode(format!(r#"{{"iss":{}"#, deep("[")))),
            "the signature is not good",
        ),
    ] {
        assert_eq!(detail(&fixed.verify(&token)), expected);
    }
    // Signed by the issuer, and still no number.
    for exp in ["1e400", "[[[[1]]]]", "{}", "true"] {
        let text = claims(&json!({})).to_string();
        let (before, after) = text.split_once("\"exp\":").unwrap();
        let rest = after.trim_start_matches(|c: char| c.is_ascii_digit());
        let token = fixed.signer.sign_text(&format!("{before}\"exp\":{exp}{rest}"));
        assert!(fixed.verify(&token).starts_with("401 credentials-invalid"), "{exp}");
    }
}

/// At the moment that `exp` names a token is over (RFC 7519 §4.1.4), but for the clock skew.
#[test]
fn a_token_ends_with_its_exp_and_the_clock_skew() {
    let now = START.wall.as_secs();
    for skew in [0, 30, 60] {
        let fixed = Fixed::with(&FILE.replace("jwks:", &format!("clock_skew: {skew}s, jwks:")));
        for (exp, good) in [(now - skew + 1, true), (now - skew, false), (now - skew - 1, false)] {
            let seen = fixed.claims(&json!({ "exp": exp }));
            assert_eq!(seen == "idp/alice", good, "{skew}s: {seen}");
            assert!(good || seen.starts_with("401 credentials-expired"), "{seen}");
        }
    }
}

#[test]
fn weak_rsa_keys_are_left_out() {
    let signer = Signer::new("k1", Kind::Rsa);
    let verdict = |name: &str, value: &str| {
        let mut jwk = signer.jwk();
        jwk[name] = value.into();
        let world = World::default().file("jwks.json", json!({ "keys": [jwk] }).to_string());
        world.try_auth("jwt", FILE).map(|_| ()).unwrap_err()
    };
    let unusable =
        "error unusable-keys at jwt.jwks: none of 1 keys can verify a signature".to_owned();
    let n = signer.jwk()["n"].as_str().unwrap().to_owned();
    // 1024 bits; a public exponent of 1, of 2, of nothing.
    assert_eq!(verdict("n", &n[..171]), unusable);
    for e in ["AQ", "Ag", "AA", ""] {
        assert_eq!(verdict("e", e), unusable, "e = {e}");
    }
    // Nor beside a good one, in a file that the operator has written.
    let beside = |name: &str, value: &str| {
        let mut jwk = signer.jwk();
        jwk[name] = value.into();
        let keys = json!({ "keys": [Signer::new("k2", Kind::Es256).jwk(), jwk] }).to_string();
        World::default().file("jwks.json", keys).try_auth("jwt", FILE).map(|_| ()).unwrap_err()
    };
    let begin = "error unusable-keys at jwt.jwks: key 2 (`k1`): an RSA key";
    assert_eq!(beside("n", &n[..172]), format!("{begin} of fewer than 2048 bits"));
    assert_eq!(beside("e", "AQ"), format!("{begin} whose exponent is even or less than 3"));
    let mut curve = Signer::new("k1", Kind::Es256).jwk();
    curve["crv"] = "secp256k1".into();
    curve["alg"] = "ES256".into();
    let keys = json!({ "keys": [signer.jwk(), curve] }).to_string();
    let world = World::default().file("jwks.json", keys);
    let expected =
        "error unusable-keys at jwt.jwks: key 2 (`k1`): its `alg` is not for a key of this kind";
    assert_eq!(world.try_auth("jwt", FILE).map(|_| ()).unwrap_err(), expected);
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
        let seen = match fixed.auth.presented(&exchange) {
            Presented::Nothing | Presented::Ambient => "nothing",
            Presented::Several => "several",
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
        assert!(!hint.is_foreign(format!("e30.{payload}.x").as_bytes(), 1 << 10), "{before}");
        // Cut short it is no JSON, so only the look of it can tell.
        let cut = &payload[..payload.len() - 4];
        assert!(!hint.is_foreign(format!("e30.{cut}.x").as_bytes(), 1 << 10), "{before}");
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
    let first = at(0).unwrap().identity;
    assert!(Arc::ptr_eq(&first, &at(1).unwrap().identity));
    assert!(Arc::ptr_eq(&first, &at(329).unwrap().identity), "the skew is in its favour");
    assert_eq!(
        print_verified(at(330)).lines().next(),
        Some("401 credentials-expired | the token has expired")
    );
    assert!(Arc::ptr_eq(&first, &at(10).unwrap().identity), "the clock was wrong for a moment");
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
