mod failures;
mod signed;

use expect_test::{Expect, expect};
use serde_json::{Value, json};

use super::*;
use crate::testing::issuer::bearer as request;
use crate::testing::{Answer, START, World};

const URL: &str = "https://idp.example/introspect";
const PLAIN: &str = r#"{
    endpoint: "https://idp.example/introspect", client: { id: gw, secret: "file:secret" }
}"#;

/// An issuer that says the same of every token.
struct Asked {
    world: World,
    auth: Arc<dyn Authenticator>,
}

impl Asked {
    fn new(settings: &str) -> Self {
        let world = World::default().file("secret", "s3cret");
        let auth = world.auth("introspection", settings);
        let asked = Self { world, auth };
        asked.says(&json!({ "active": true, "client_id": "shop" }));
        asked
    }

    /// With more settings.
    fn with(more: &str) -> Self {
        Self::new(&PLAIN.replace("\n}", &format!(", {more} }}")))
    }

    fn says(&self, answer: &Value) {
        self.world.services.answer(URL, Answer::Body(answer.to_string()));
    }

    fn verify(&self, token: &str) -> String {
        self.world.verify(&*self.auth, &request(token)).replace('\n', " ")
    }

    /// What becomes of one new token of which this is said.
    fn of(&self, changes: &Value) -> String {
        let mut answer = json!({ "active": true, "client_id": "shop" });
        let changes = changes.as_object().unwrap();
        answer.as_object_mut().unwrap().extend(changes.clone());
        self.says(&answer);
        let token = format!("token-{}", answer.to_string().len() * 31 + self.world.services.len());
        detail(&self.verify(&token)).to_owned()
    }

    fn pass(&self, millis: u64) {
        self.world.services.pass(Duration::from_millis(millis));
    }

    fn times(&self) -> usize {
        self.world.services.asked().len()
    }
}

/// The detail of a 401, the whole of anything else.
fn detail(seen: &str) -> &str {
    let refused = seen.strip_prefix("401 credentials-invalid | ");
    refused.and_then(|rest| rest.split_once(" < ")).map_or(seen, |(detail, _)| detail)
}

#[test]
fn the_issuer_is_asked_in_its_own_form() {
    let asked = Asked::new(PLAIN);
    asked.says(&json!({ "active": true, "client_id": "shop", "scope": "a b" }));
    assert_eq!(asked.verify("t0k+en/="), "idp/shop for a b");
    let sent = asked.world.services.sent();
    let [fetch] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!((fetch.method.as_str(), fetch.url.as_str()), ("POST", URL));
    assert_eq!(fetch.body, "token=t0k%2Ben%2F%3D&token_type_hint=access_token");
    assert_eq!(fetch.timeout, Duration::from_secs(2));
    let fields: Vec<_> = fetch.fields.iter().map(|(n, v)| format!("{n}: {v}")).collect();
    expect![[r#"
        accept: application/json
        content-type: application/x-www-form-urlencoded
        authorization: Basic Z3c6czNjcmV0"#]]
    .assert_eq(&fields.join("\n"));
    assert!(fetch.keep_last_good.is_none() && fetch.body_bytes_max < 1 << 20);
}

#[test]
fn claims_name_the_client() {
    let asked = Asked::new(PLAIN);
    for (said, expected) in [
        (json!({}), "idp/shop"),
        (json!({ "client_id": null, "azp": "web", "sub": "alice" }), "idp/web"),
        (json!({ "client_id": null, "sub": "alice" }), "idp/alice"),
        (json!({ "scope": "a b" }), "idp/shop for a b"),
        (json!({ "scp": ["a", "b"] }), "idp/shop for a b"),
        (json!({ "client_id": null }), "the token names no client"),
        (json!({ "client_id": "a\r\nb" }), "the token's client or tenant is not a name"),
    ] {
        assert_eq!(asked.of(&said), expected, "{said}");
    }
    let asked = Asked::with(
        r#"claims: { client: "claim:user.name", tenant: "claim:org", scopes: "claim:perms" }"#,
    );
    let said = json!({ "user": { "name": "alice" }, "org": "t1", "perms": ["r", "w"] });
    assert_eq!(asked.of(&said), "idp/alice of t1 for r w");
    assert_eq!(asked.of(&json!({ "org": "t1" })), "the token names no client");
}

#[test]
fn what_does_not_hold() {
    let asked = Asked::with(
        r#"issuer: "https://idp.example", audience: [orders, stock],
           require_claims: { tier: [gold, silver], roles: admin, n: 7, "a.b": true }"#,
    );
    let now = START.wall.as_secs();
    let good = json!({
        "aud": "orders", "tier": "gold", "roles": ["user", "admin"], "n": 7, "a": { "b": true },
    });
    let other = "the token is for another audience";
    let claim = "a claim is not as the configuration requires";
    for (change, expected) in [
        (json!({}), "idp/shop"),
        (json!({ "iss": "https://idp.example", "token_type": "bearer" }), "idp/shop"),
        (json!({ "aud": ["x", "stock"], "tier": "silver", "roles": "admin" }), "idp/shop"),
        (json!({ "exp": now + 1, "nbf": now + 30, "iat": now + 9999 }), "idp/shop"),
        (json!({ "active": false }), "the issuer says that the token is not active"),
        (json!({ "iss": "https://other.example" }), "the token is of another issuer"),
        (json!({ "iss": ["https://idp.example"] }), "the token is of another issuer"),
        (json!({ "aud": "other" }), other),
        (json!({ "aud": [] }), other),
        (json!({ "aud": null }), other),
        (json!({ "aud": { "orders": 1 } }), other),
        (json!({ "token_type": "DPoP" }), "the token is of another kind than a bearer token"),
        (
            json!({ "token_type": "refresh_token" }),
            "the token is of another kind than a bearer token",
        ),
        (json!({ "exp": "soon" }), "the token's `exp` is no time"),
        (json!({ "exp": -1 }), "the token's `exp` is no time"),
        (json!({ "nbf": "now" }), "the token's `nbf` is no time"),
        (json!({ "nbf": now + 31 }), "the token is not valid yet"),
        (
            json!({ "cnf": { "jkt": "x" } }),
            "the token is bound to a key that cannot be proven here",
        ),
        (json!({ "tier": "bronze" }), claim),
        (json!({ "tier": null }), claim),
        (json!({ "roles": ["user"] }), claim),
        (json!({ "roles": [] }), claim),
        (json!({ "n": "7" }), claim),
        (json!({ "a": { "b": "true" } }), claim),
    ] {
        let mut said = good.clone();
        said.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        assert_eq!(asked.of(&said), expected, "{change}");
    }
    expect![[r#"401 credentials-expired | the token has expired < www-authenticate: Bearer realm="idp", error="invalid_token", error_description="the token has expired""#]]
        .assert_eq(&asked.of(&json!({ "aud": "orders", "tier": "gold", "roles": "admin", "n": 7,
            "a": { "b": true }, "exp": now })));
}

#[test]
fn a_bound_token_needs_its_certificate() {
    use base64::Engine as _;
    use portcullis_core::exchange::ClientCertificate;
    let asked = Asked::new(PLAIN);
    let hash = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode([7; 32]);
    asked.says(&json!({ "active": true, "client_id": "shop", "cnf": { "x5t#S256": hash } }));
    let verify = |sha256: [u8; 32]| {
        let mut exchange = asked.world.exchange(&request("t"));
        let certificate = ClientCertificate { sha256, ..ClientCertificate::default() };
        exchange.certificate = Some(Arc::new(certificate));
        let verified = match asked.auth.verify(&exchange, &asked.world.services) {
            Verify::Done(verified) => verified,
            Verify::Wait(future) => crate::testing::ready(future).unwrap(),
        };
        detail(&crate::testing::print_verified(verified).replace('\n', " ")).to_owned()
    };
    assert_eq!(verify([7; 32]), "idp/shop");
    // Known by now, and still only for whom it is.
    let other = "the token is bound to another certificate than the client's";
    assert_eq!(verify([8; 32]), other);
    let none = "the token is bound to a certificate, and the client shows none";
    assert_eq!(detail(&asked.verify("t")), none);
    assert_eq!(verify([7; 32]), "idp/shop");
    assert_eq!(asked.times(), 1);
}

#[test]
fn nobody_is_asked_about_what_is_no_token() {
    let asked = Asked::new(PLAIN);
    for text in ["", "=", "a b", "a,b", "a\"b", "ä", "a=b", &"a".repeat(TOKEN_BYTES_MAX + 1)] {
        assert!(asked.verify(text).starts_with("401 credentials-invalid"), "{text}");
    }
    let twice = format!("{} | Authorization: bearer b", request("a"));
    let seen = asked.world.verify(&*asked.auth, &twice);
    assert_eq!(seen, "400 credentials-ambiguous | two bearer tokens");
    let seen = asked.world.verify(&*asked.auth, "192.0.2.7 GET /").replace('\n', " ");
    let challenge = "< www-authenticate: Bearer realm=\"idp\"";
    assert_eq!(seen, format!("401 credentials-missing | no bearer token {challenge}"));
    assert_eq!(asked.times(), 0);
    assert_eq!(asked.verify("a-._~+/Z9=="), "idp/shop");
}

/// JW-26.
#[test]
fn a_revoked_token_passes_no_longer_than_an_answer_is_kept() {
    let asked = Asked::new(PLAIN);
    assert_eq!(asked.verify("t"), "idp/shop");
    asked.pass(1);
    asked.says(&json!({ "active": false }));
    for _ in 0..29 {
        asked.pass(1000);
        assert_eq!(asked.verify("t"), "idp/shop");
    }
    assert_eq!(asked.times(), 1);
    asked.pass(999);
    let inactive = "the issuer says that the token is not active";
    assert_eq!(detail(&asked.verify("t")), inactive, "30 s after it was asked");
    assert_eq!(asked.times(), 1);
    // A bad answer is kept for a moment as well.
    asked.says(&json!({ "active": true, "client_id": "shop" }));
    asked.pass(4999);
    assert_eq!(detail(&asked.verify("t")), inactive);
    asked.pass(1);
    assert_eq!(asked.verify("t"), "idp/shop");
    assert_eq!(asked.times(), 1);
}

#[test]
fn without_a_cache_each_request_is_asked_about() {
    let asked = Asked::with("cache: \"off\"");
    assert_eq!(asked.verify("t"), "idp/shop");
    asked.says(&json!({ "active": false }));
    assert!(asked.verify("t").starts_with("401"));
    asked.says(&json!({ "active": true, "client_id": "shop" }));
    assert_eq!(asked.verify("t"), "idp/shop");
    assert_eq!(asked.times(), 3);
}

#[test]
fn a_token_ends_when_it_ends() {
    let asked = Asked::new(PLAIN);
    let exp = START.wall.as_secs() + 10;
    asked.says(&json!({ "active": true, "client_id": "shop", "exp": exp }));
    assert_eq!(asked.verify("t"), "idp/shop");
    asked.pass(9_999);
    assert_eq!(asked.verify("t"), "idp/shop");
    asked.pass(1);
    assert!(asked.verify("t").starts_with("401 credentials-expired"));
    assert_eq!(asked.times(), 1);
}

/// A change of what is demanded begins anew; any other reload keeps what is known.
#[test]
fn reloads_keep_what_is_known() {
    let mut asked = Asked::new(PLAIN);
    assert_eq!(asked.verify("t"), "idp/shop");
    assert_eq!(asked.times(), 1);
    asked.world.next_generation();
    asked.world.files.borrow_mut().insert("file:secret".to_owned(), b"another".to_vec());
    asked.auth = asked.world.auth("introspection", PLAIN);
    assert_eq!(asked.verify("t"), "idp/shop");
    assert_eq!(asked.times(), 0, "the secret says nothing about tokens");
    asked.world.next_generation();
    let other = PLAIN.replace("\n}", ", audience: orders }");
    asked.auth = asked.world.auth("introspection", &other);
    assert_eq!(detail(&asked.verify("t")), "the token is for another audience");
}

#[test]
fn the_token_is_concealed_and_nothing_of_the_secret_shows() {
    let asked = Asked::new(PLAIN);
    let mut exchange = asked.world.exchange(&request("t0ken"));
    asked.auth.conceal(&mut exchange.request);
    assert!(exchange.request.fields.is_empty());
    asked.verify("t0ken");
    let shown = format!("{:?}", asked.auth);
    assert!(!shown.contains("s3cret") && !shown.contains("Z3c6") && !shown.contains("t0ken"));
}

fn refused(settings: &str, want: &Expect) {
    let world = World::default().file("secret", "s3cret");
    want.assert_eq(&world.try_auth("introspection", settings).unwrap_err());
}

#[test]
fn settings_that_do_not_compile() {
    refused(
        r#"{ client: { id: gw, secret: "file:secret" } }"#,
        &expect!["error missing-key at introspection: `issuer` or `endpoint` is missing"],
    );
    let with = |more: &str| PLAIN.replace("\n}", &format!(", {more} }}"));
    refused(
        &PLAIN.replace("https:", "http:"),
        &expect![
            "error invalid-value at introspection.endpoint: `http://idp.example/introspect` cannot be asked: anybody on the way could read along (an `https://` URL, or `http://` on loopback)"
        ],
    );
    refused(
        &with("signed: true"),
        &expect![
            "error missing-key at introspection: `signed` needs `issuer`: its keys are found by discovery"
        ],
    );
    refused(
        &with("cache: 2h, timeout: 31s, on_failure: { last_known: 25h }"),
        &expect![[r#"
        error out-of-range at introspection.cache: at most `1h`
        error out-of-range at introspection.timeout: at most `30s`
        error out-of-range at introspection.on_failure.last_known: at most `24h`"#]],
    );
    refused(
        &with("on_failure: { last_known: 29s }"),
        &expect![
            "error out-of-range at introspection.on_failure.last_known: not shorter than `cache`"
        ],
    );
    refused(
        &with("require_claims: { a: [] }"),
        &expect!["error out-of-range at introspection.require_claims.a: needs at least 1 item"],
    );
    refused(
        &with("require_claims: { a: { b: 1 } }"),
        &expect![
            "error wrong-type at introspection.require_claims.a: expected a string, `true` or `false`, an integer or a list, found a map"
        ],
    );
}
