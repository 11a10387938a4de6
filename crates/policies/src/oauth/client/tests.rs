use expect_test::{Expect, expect};

use super::*;
use crate::testing::issuer::{Kind, key_pair};
use crate::testing::{Scripted, World, ready};

fn compile(world: &World, yaml: &str) -> Result<Client, String> {
    world.try_compile::<ClientConfig, _>(yaml, |config, site, with| {
        config.compile("client", site, with)
    })
}

fn check(yaml: &str, want: &Expect) {
    let (pem, _) = key_pair(Kind::Es256);
    let world = World::default().file("secret", "p:ä s\n").file("empty", "\n").file("key", pem);
    let seen = match compile(&world, yaml) {
        Err(errors) => errors,
        Ok(client) => {
            assert!(!format!("{client:?}").contains("p:"));
            let form = Form::default().with("token", "t");
            let url = "https://idp.example/token";
            let post = client.post(url, Some("https://idp.example"), form, &world.services);
            let fetch = ready(post).unwrap().unwrap();
            let body = String::from_utf8(fetch.body.to_vec()).unwrap();
            let body = body.split("client_assertion=").next().unwrap().to_owned();
            let fields = fetch.fields.iter().skip(2);
            let fields: String = fields.map(|(n, v)| format!("\n{n}: {v}")).collect();
            format!("{} {}{fields}\n{body}", fetch.method, fetch.url)
        }
    };
    want.assert_eq(&seen);
}

#[test]
fn secrets_and_keys() {
    check(
        r#"{ id: "g w", secret: "file:secret" }"#,
        &expect![[r#"
        POST https://idp.example/token
        authorization: Basic Zyt3OnAlM0ElQzMlQTQrcw==
        token=t"#]],
    );
    check(
        r#"{ id: gw, secret: "file:secret", method: client_secret_post }"#,
        &expect![[r#"
            POST https://idp.example/token
            token=t&client_id=gw&client_secret=p%3A%C3%A4+s"#]],
    );
    check(
        r#"{ id: gw, key: "file:key", key_id: k1 }"#,
        &expect![[r#"
        POST https://idp.example/token
        token=t&client_id=gw&client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer&"#]],
    );
}

#[test]
fn what_proves_nothing() {
    for (yaml, want) in [
        (
            "{ id: gw }",
            expect![
                "error missing-key at idp.client: `secret` or `key` is missing: nothing proves who the client is"
            ],
        ),
        (
            r#"{ id: "", secret: "file:secret" }"#,
            expect!["error invalid-value at idp.client.id: must not be empty"],
        ),
        (
            r#"{ id: gw, secret: "hunter2" }"#,
            expect![
                "error invalid-value at idp.client.secret: a secret does not stand in the configuration (write `file:PATH` or `env:NAME`)"
            ],
        ),
        (
            r#"{ id: gw, secret: "file:none" }"#,
            expect!["error unreadable at idp.client: cannot read file:none: no such file"],
        ),
        (
            r#"{ id: gw, secret: "file:empty" }"#,
            expect!["error invalid-value at idp.client.secret: `file:empty` is empty"],
        ),
        (
            r#"{ id: gw, key: "file:secret" }"#,
            expect![
                "error unusable-keys at idp.client.key: `file:secret` cannot sign: it is no private key (PKCS #8) in PEM"
            ],
        ),
        (
            r#"{ id: gw, secret: "file:secret", key: "file:key" }"#,
            expect!["error invalid-value at idp.client: a client has a `secret` or a `key`"],
        ),
        (
            r#"{ id: gw, secret: "file:secret", key_id: k1 }"#,
            expect![
                "error invalid-value at idp.client: `key_id` and `assertion_audience` are for a `key`"
            ],
        ),
        (
            r#"{ id: gw, key: "file:key", method: client_secret_post }"#,
            expect!["error invalid-value at idp.client: `method` is for a `secret`"],
        ),
        (
            r#"{ id: gw, secret: "file:secret", method: none }"#,
            expect![
                "error unknown-value at idp.method: unknown value `none`, expected one of `client_secret_basic`, `client_secret_post`"
            ],
        ),
    ] {
        check(yaml, &want);
    }
}

/// Who an assertion is for: what is written, else the issuer, else the endpoint.
#[test]
fn audiences_of_assertions() {
    use base64::Engine as _;
    let (pem, _) = key_pair(Kind::Ed25519);
    let world = World::default().file("key", pem);
    let services = Scripted::default();
    let audience = |yaml: &str, issuer: Option<&str>| {
        let client = compile(&world, yaml).unwrap();
        let post = client.post("https://idp.example/token", issuer, Form::default(), &services);
        let body = ready(post).unwrap().unwrap().body;
        let body = String::from_utf8(body.to_vec()).unwrap();
        let payload = body.rsplit('=').next().unwrap().split('.').nth(1).unwrap();
        let json = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).unwrap();
        let claims: serde_json::Value = serde_json::from_slice(&json).unwrap();
        claims["aud"].as_str().unwrap().to_owned()
    };
    let plain = r#"{ id: gw, key: "file:key" }"#;
    assert_eq!(audience(plain, None), "https://idp.example/token");
    assert_eq!(audience(plain, Some("https://idp.example")), "https://idp.example");
    let written = r#"{ id: gw, key: "file:key", assertion_audience: "urn:idp" }"#;
    assert_eq!(audience(written, Some("https://idp.example")), "urn:idp");
}
