//! What an operator may demand of tokens beside a good signature.

use portcullis_core::exchange::ClientCertificate;

use super::*;

fn with(setting: &str) -> Fixed {
    Fixed::with(&FILE.replace(" }", &format!(", {setting} }}")))
}

fn errors(setting: &str) -> String {
    let signer = Signer::new("k1", Kind::Es256);
    let world = World::default().file("jwks.json", jwks(&[&signer])).file("bad", "jti: 7");
    world.try_auth("jwt", &FILE.replace(" }", &format!(", {setting} }}"))).unwrap_err()
}

#[test]
fn the_kind_of_token_that_is_asked_for_and_no_other() {
    let other = "the token's `typ` is that of another kind of token";
    let (any, access) = (Fixed::new(), with("typ: at+jwt"));
    for (typ, of_any, of_access) in [
        (json!("at+jwt"), "idp/alice", "idp/alice"),
        (json!("application/AT+JWT"), "idp/alice", "idp/alice"),
        (json!("JWT"), "idp/alice", other),
        (json!(null), "idp/alice", other),
        (json!(""), other, other),
        (json!("application/"), other, other),
        (json!("dpop+jwt"), other, other),
        (json!("at+jwt "), other, other),
        (json!(["at+jwt"]), "the header is not a JOSE header", "the header is not a JOSE header"),
    ] {
        let header = json!({ "alg": "ES256", "kid": "k1", "typ": typ });
        for (fixed, expected) in [(&any, of_any), (&access, of_access)] {
            let token = fixed.signer.sign(&header, &claims(&json!({})));
            assert_eq!(detail(&fixed.verify(&token)), expected, "{typ}");
        }
    }
    let none = access.signer.sign(&json!({ "alg": "ES256" }), &claims(&json!({})));
    assert_eq!(detail(&access.verify(&none)), other);
}

/// RFC 7515 §4.1.11: whatever it names and however it is written.
#[test]
fn nothing_critical_is_understood() {
    let fixed = Fixed::new();
    for crit in [json!([]), json!(["exp"]), json!(["b64"]), json!(null), json!("x"), json!({})] {
        let header = json!({ "alg": "ES256", "kid": "k1", "crit": crit, "b64": true });
        let token = fixed.signer.sign(&header, &claims(&json!({})));
        assert_eq!(detail(&fixed.verify(&token)), "the header has `crit`", "{crit}");
    }
}

#[test]
fn names_of_keys_and_tokens_end_somewhere() {
    let fixed = with("token_max: 1KiB");
    for (len, expected) in
        [(256, "no key with the token's key id"), (257, "the token's key id is too long")]
    {
        let header = json!({ "alg": "ES256", "kid": "k".repeat(len) });
        let token = fixed.signer.sign(&header, &claims(&json!({})));
        assert_eq!(detail(&fixed.verify(&token)), expected);
    }
    let of = |bytes: usize| {
        let token = fixed.signer.token(&claims(&json!({ "a": "" })));
        // Three bytes of a claim are four of the token; what is missing is spelt in the head.
        let token =
            fixed.signer.token(&claims(&json!({ "a": "x".repeat((bytes - token.len()) / 4 * 3) })));
        (token.len(), fixed.verify(&token))
    };
    let (len, seen) = of(1024);
    assert!(len <= 1024, "{len}");
    assert_eq!(seen, "idp/alice");
    let (len, seen) = of(1030);
    assert!(len > 1024, "{len}");
    assert_eq!(detail(&seen), "the token is too long");
    for size in ["1023B", "65KiB"] {
        let expected = "error out-of-range at jwt.token_max: from `1KiB` to `64KiB`";
        assert_eq!(errors(&format!("token_max: {size}")), expected);
    }
}

#[test]
fn claims_that_are_required() {
    let lacks = "the token lacks a required claim, or its value is another";
    for (setting, changes, expected) in [
        ("[jti]", json!({ "jti": "1" }), "idp/alice"),
        ("[jti]", json!({ "jti": 0 }), "idp/alice"),
        ("[jti]", json!({}), lacks),
        ("[{ acr: gold }]", json!({ "acr": "gold" }), "idp/alice"),
        ("[{ acr: gold }]", json!({ "acr": "silver" }), lacks),
        ("[{ acr: gold }]", json!({ "acr": ["silver", "gold"] }), "idp/alice"),
        ("[{ acr: gold }]", json!({ "acr": [] }), lacks),
        ("[{ acr: gold }]", json!({ "acr": { "gold": 1 } }), lacks),
        ("[{ acr: gold }]", json!({}), lacks),
        ("[{ acr: [gold, silver] }]", json!({ "acr": "silver" }), "idp/alice"),
        ("[{ email_verified: true }]", json!({ "email_verified": true }), "idp/alice"),
        ("[{ email_verified: true }]", json!({ "email_verified": "true" }), lacks),
        ("[{ level: 3 }]", json!({ "level": 3.0 }), "idp/alice"),
        ("[{ level: 3 }]", json!({ "level": "3" }), lacks),
        ("[{ a.b: x }]", json!({ "a": { "b": "x" } }), "idp/alice"),
        ("[jti, { acr: gold, amr: mfa }]", json!({ "jti": "1", "acr": "gold" }), lacks),
        (
            "[jti, { acr: gold, amr: mfa }]",
            json!({ "jti": "1", "acr": "gold", "amr": ["pwd", "mfa"] }),
            "idp/alice",
        ),
    ] {
        let fixed = with(&format!("require_claims: {setting}"));
        assert_eq!(detail(&fixed.claims(&changes)), expected, "{setting} {changes}");
    }
    for setting in ["[]", "[7]", "[{}]", "[{ acr: [] }]", "[{ acr: { a: b } }]", "['']"] {
        assert!(
            errors(&format!("require_claims: {setting}")).contains("require_claims"),
            "{setting}"
        );
    }
}

/// The certificate with this SHA-256 as its first byte.
fn verify_with(fixed: &Fixed, token: &str, certificate: Option<u8>) -> String {
    let mut exchange = fixed.world.exchange(&request(token));
    exchange.certificate = certificate.map(|byte| {
        Arc::new(ClientCertificate { sha256: [byte; 32], ..ClientCertificate::default() })
    });
    let seen = fixed.world.verify_exchange(&*fixed.auth, &exchange).replace('\n', " ");
    detail(&seen).to_owned()
}

fn thumbprint(byte: u8) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode([byte; 32])
}

#[test]
fn a_bound_token_is_good_with_its_certificate_only() {
    let none = "the token is bound to a certificate, and the client shows none";
    let other = "the token is bound to another certificate than the client's";
    for fixed in [Fixed::new(), with("bound: required")] {
        let changes = json!({ "cnf": { "x5t#S256": thumbprint(7) } });
        let token = fixed.signer.token(&claims(&changes));
        assert_eq!(verify_with(&fixed, &token, Some(8)), other, "before it is known");
        assert_eq!(verify_with(&fixed, &token, None), none);
        assert_eq!(verify_with(&fixed, &token, Some(7)), "idp/alice");
        // It is remembered now, and comes over other connections.
        assert_eq!(verify_with(&fixed, &token, Some(8)), other);
        assert_eq!(verify_with(&fixed, &token, None), none);
        assert_eq!(verify_with(&fixed, &token, Some(7)), "idp/alice");
        let exchange = fixed.world.exchange(&request(&token));
        let at_once = fixed.auth.verify(&exchange, &fixed.world.services);
        assert!(matches!(at_once, Verify::Done(Err(_))), "remembered, and refused");
    }
}

#[test]
fn bindings_that_are_not_known_refuse() {
    let unknown = "the token is bound to a key that cannot be proven here";
    let none = "the token's `cnf` is no confirmation";
    let no_hash = "the token's `cnf` is no hash of a certificate";
    let free = Fixed::new();
    let bound = with("bound: required");
    for (cnf, expected) in [
        (json!({ "jkt": "x" }), unknown),
        (json!({ "jwk": {} }), unknown),
        (json!({ "kid": "k1" }), unknown),
        (json!({ "x5t#S256": thumbprint(7), "jkt": "x" }), unknown),
        (json!({ "x5t#S256": 7 }), no_hash),
        (json!({}), none),
        (json!("x5t#S256"), none),
        (json!([]), none),
        (json!({ "x5t#S256": "AAAA" }), no_hash),
        (json!({ "x5t#S256": "" }), no_hash),
        (json!({ "x5t#S256": format!("{}=", thumbprint(7)) }), no_hash),
    ] {
        for fixed in [&free, &bound] {
            let token = fixed.signer.token(&claims(&json!({ "cnf": cnf })));
            assert_eq!(verify_with(fixed, &token, Some(7)), expected, "{cnf}");
        }
    }
    let token = bound.signer.token(&claims(&json!({})));
    let expected = "the token is not bound to a certificate";
    assert_eq!(verify_with(&bound, &token, Some(7)), expected);
    assert!(errors("bound: maybe").contains("bound"));
}

#[test]
fn a_revoked_token_is_refused_from_the_next_reload_on() {
    let signer = Signer::new("k1", Kind::Es256);
    let settings = FILE.replace(" }", ", revoked: \"file:revoked.yaml\" }");
    let world = World::default().file("jwks.json", jwks(&[&signer])).file("revoked.yaml", "");
    let tokens: Vec<String> = ["a", "b", "c", "d"]
        .map(|name| signer.token(&claims(&json!({ "sub": name, "jti": format!("j{name}") }))))
        .into();
    let sha256 = |token: &str| {
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token.as_bytes());
        portcullis_core::hex::of_bytes(hash.as_ref())
    };
    let seen = |world: &World| {
        let auth = world.auth("jwt", &settings);
        let seen = tokens.iter().map(|token| {
            let seen = world.verify(&*auth, &request(token)).replace('\n', " ");
            detail(&seen).to_owned()
        });
        // What is remembered says the same.
        let first: Vec<_> = seen.collect();
        let again = tokens.iter().map(|token| world.verify(&*auth, &request(token)));
        assert!(again.zip(&first).all(|(again, first)| again.contains(&**first)));
        world.next_generation();
        first
    };
    assert_eq!(seen(&world), ["idp/a", "idp/b", "idp/c", "idp/d"]);
    let gone = "the token has been revoked";
    let list = format!("jti: [ja]\nsub: [b]\ntoken_sha256: [{}]\n", sha256(&tokens[2]));
    let world = world.file("revoked.yaml", list);
    assert_eq!(seen(&world), [gone, gone, gone, "idp/d"]);
    let world = world.file("revoked.yaml", r#"{ "jti": ["jd"] }"#);
    assert_eq!(seen(&world), ["idp/a", "idp/b", "idp/c", gone]);
}

#[test]
fn lists_of_revoked_tokens_that_cannot_be_meant() {
    for (setting, expected) in [
        ("revoked: \"file:none\"", "cannot read file:none: no such file"),
        ("revoked: \"env:X\"", "`env:X` is not `file:PATH`"),
        ("revoked: \"file:bad\"", "error unusable-list at jwt.revoked: file:bad: "),
    ] {
        let seen = errors(setting);
        assert!(seen.contains(expected), "{seen}");
    }
    for (text, expected) in [
        ("jti: ['']", "an entry of `jti` has 1 to 1024 bytes"),
        ("token_sha256: [abc]", "an entry of `token_sha256` has 64 hexadecimal digits"),
        ("token_sha256: [+1]", "an entry of `token_sha256` has 64 hexadecimal digits"),
        ("jit: [a]", "jit"),
        ("- a", "a"),
    ] {
        let reason = revoked::Revoked::read(text.as_bytes()).unwrap_err();
        assert!(reason.contains(expected), "{text}: {reason}");
    }
}
