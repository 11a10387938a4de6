//! Against npm's `oidc-provider`.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use portcullis_testkit::oidc_provider::{Issuer, OidcProvider};
use portcullis_testkit::{Backend, Client, Protocol, Request};
use rcgen::KeyPair;
use serde_json::{Value, json};

use super::{about, setup};

/// `key` is the public half of what one of the clients signs with.
fn issuer(key: &KeyPair) -> Issuer {
    let secret = "a-secret-of-the-test";
    let plain = |id: &str, method: &str| {
        json!({
            "client_id": id, "client_secret": secret, "redirect_uris": [], "response_types": [],
            "grant_types": ["client_credentials"], "token_endpoint_auth_method": method,
        })
    };
    let mut signed = plain("signed", "client_secret_basic");
    signed["introspection_signed_response_alg"] = "RS256".into();
    let mut signing = plain("key", "private_key_jwt");
    signing.as_object_mut().unwrap().remove("client_secret");
    signing["token_endpoint_auth_signing_alg"] = "ES256".into();
    signing["jwks"] = json!({ "keys": [public(key)] });
    Issuer {
        clients: json!([
            plain("basic", "client_secret_basic"),
            plain("post", "client_secret_post"),
            signed,
            signing,
        ]),
        // Opaque tokens.
        resource: None,
        config: json!({
            "scopes": ["orders:read"],
            "features": {
                "introspection": { "enabled": true },
                "jwtIntrospection": { "enabled": true },
                "revocation": { "enabled": true },
            },
        }),
        ..Issuer::default()
    }
}

fn public(key: &KeyPair) -> Value {
    let (x, y) = key.public_key_raw()[1..].split_at(32);
    let [x, y] = [x, y].map(|number| URL_SAFE_NO_PAD.encode(number));
    json!({ "kty": "EC", "crv": "P-256", "kid": "gw", "use": "sig", "x": x, "y": y })
}

fn text(issuer: &str, backend: &str) -> String {
    let client = |id: &str| match id {
        "key" => r#"{ id: key, key: "file:client.pem", key_id: gw }"#.to_owned(),
        "post" => r#"{ id: post, secret: "file:secret", method: client_secret_post }"#.to_owned(),
        id => format!(r#"{{ id: {id}, secret: "file:secret" }}"#),
    };
    let mut text = "auth:\n".to_owned();
    for id in ["basic", "post", "key", "signed"] {
        let (client, signed) = (client(id), id == "signed");
        text += &format!(
            "  {id}: {{ introspection: {{ issuer: \"{issuer}\", client: {client}, signed: {signed}, \
             cache: \"off\" }} }}\n"
        );
    }
    text += "routes:\n";
    for id in ["basic", "post", "key", "signed"] {
        let client = client(id);
        text += &format!(
            "  {id}:\n    match: /{id}\n    auth: {id}\n    to: backend\n    credential:\n      \
             client_credentials: {{ issuer: \"{issuer}\", client: {client}, \
             scopes: [\"orders:read\"] }}\n"
        );
    }
    text + &format!("backends:\n  backend: \"{backend}\"\n")
}

/// Each way to prove who the gateway is, at both endpoints; a revoked token stops working.
#[tokio::test]
async fn tokens_are_introspected_and_granted() {
    let backend = Backend::echo().await;
    let key = KeyPair::generate().unwrap();
    let provider = OidcProvider::start(&issuer(&key));
    let gateway = setup(&text(&provider.url(), &backend.url()))
        .file("client.pem", &key.serialize_pem())
        .real_clock()
        .start();
    let token = provider.token("post", "a-secret-of-the-test", "orders:read");
    for path in ["/basic", "/post", "/key", "/signed"] {
        let mut client = Client::connect(&gateway, Protocol::H1).await;
        let mut send = async |token: &str| {
            let request = Request::get(path).field("authorization", &format!("Bearer {token}"));
            let answer = client.send(request).await.unwrap();
            (answer.status, answer.problem())
        };
        assert_eq!(send(&token).await, (200, String::new()), "{path}");
        let seen = backend.last();
        assert_eq!(about(&seen.fields, "portcullis-client"), ["post"]);
        assert_eq!(about(&seen.fields, "portcullis-scopes"), ["orders:read"]);
        let sent = about(&seen.fields, "authorization").join(" ");
        let own = sent.strip_prefix("Bearer ").unwrap();
        assert_ne!(own, token);
        // What the backend got is a token of the issuer's, for the gateway.
        assert_eq!(send(own).await.0, 200, "{path}");
        assert_eq!(about(&backend.last().fields, "portcullis-client"), [&path[1..]]);
        let seen = backend.requests().len();
        assert_eq!(send("no-such-token").await, (401, "credentials-invalid".to_owned()));
        assert_eq!(backend.requests().len(), seen);
    }
    let form = format!("token={token}&client_id=post&client_secret=a-secret-of-the-test");
    revoke(&provider, &form);
    for path in ["/basic", "/signed"] {
        let mut client = Client::connect(&gateway, Protocol::H2).await;
        let request = Request::get(path).field("authorization", &format!("Bearer {token}"));
        let answer = client.send(request).await.unwrap();
        assert_eq!((answer.status, answer.problem()), (401, "credentials-invalid".to_owned()));
    }
    // Gone, it lets nobody in, and the tokens that there are go on.
    drop(provider);
    let mut client = Client::connect(&gateway, Protocol::H1).await;
    let request = Request::get("/basic").field("authorization", "Bearer another");
    let answer = client.send(request).await.unwrap();
    assert_eq!((answer.status, answer.problem()), (503, "authorizer-unavailable".to_owned()));
}

/// The caller's token goes no further than to the gateway: the backend gets one for itself, that can
/// do less, and says whom it is for and who has asked for it.
#[tokio::test]
async fn a_callers_token_is_exchanged_for_one_for_the_backend() {
    const SECRET: &str = "a-secret-of-the-test";
    let exchange = "urn:ietf:params:oauth:grant-type:token-exchange";
    let client = |id: &str, grants: &[&str]| {
        json!({
            "client_id": id, "client_secret": SECRET, "redirect_uris": [], "response_types": [],
            "grant_types": grants, "token_endpoint_auth_method": "client_secret_post",
        })
    };
    let provider = OidcProvider::start(&Issuer {
        clients: json!([client("shop", &["client_credentials"]), client("gw", &[exchange])]),
        resource: None,
        exchange: true,
        config: json!({
            "scopes": ["orders:read", "orders:write"],
            "features": { "introspection": { "enabled": true } },
        }),
        ..Issuer::default()
    });
    let backend = Backend::echo().await;
    let who = r#"client: { id: gw, secret: "file:secret", method: client_secret_post }"#;
    let issuer = provider.url();
    let text = format!(
        r#"
auth: {{ opaque: {{ introspection: {{ issuer: "{issuer}", {who} }} }} }}
routes:
  all:
    match: /**
    auth: opaque
    credential:
      exchange: {{ issuer: "{issuer}", {who}, audience: [stock], scopes: ["orders:read"] }}
    to: backend
backends: {{ backend: "{}" }}
"#,
        backend.url()
    );
    let gateway = setup(&text).real_clock().start();
    let token = provider.token("shop", SECRET, "orders:read orders:write");
    let mut given = Vec::new();
    for protocol in Protocol::ALL {
        let mut client = Client::connect(&gateway, protocol).await;
        let request = Request::get("/").field("authorization", &format!("Bearer {token}"));
        let answer = client.send(request).await.unwrap();
        assert_eq!((answer.status, answer.problem()), (200, String::new()), "{protocol:?}");
        let seen = backend.last();
        assert_eq!(about(&seen.fields, "portcullis-client"), ["shop"]);
        let sent = about(&seen.fields, "authorization").join(" ");
        given.push(sent.strip_prefix("Bearer ").unwrap().to_owned());
    }
    assert!(!given.contains(&token));
    given.dedup();
    assert_eq!(given.len(), 1, "one exchange for all of a caller's requests");
    let kind = [("content-type", "application/x-www-form-urlencoded")];
    let form = format!("token={}&client_id=gw&client_secret={SECRET}", given[0]);
    let known = provider.ask("POST", "/token/introspection", &kind, &form);
    let told = ["active", "client_id", "scope", "subject", "act", "for"].map(|name| &known[name]);
    let expected = json!([true, "gw", "orders:read", "shop", { "sub": "gw" }, "stock"]);
    assert_eq!(json!(told), expected, "{known}");
    // What the server does not exchange goes nowhere.
    let less = provider.token("shop", SECRET, "orders:write");
    let before = backend.requests().len();
    let mut client = Client::connect(&gateway, Protocol::H2).await;
    let request = Request::get("/").field("authorization", &format!("Bearer {less}"));
    let answer = client.send(request).await.unwrap();
    let away = (503, "backend-credential-unavailable".to_owned());
    assert_eq!((answer.status, answer.problem()), away);
    assert_eq!(backend.requests().len(), before);
    for line in gateway.stop() {
        assert!(![&token, &less, &given[0]].iter().any(|secret| line.contains(*secret)), "{line}");
    }
}

/// Its answer has no body, which is no JSON.
fn revoke(provider: &OidcProvider, form: &str) {
    use std::io::{Read as _, Write as _};
    let mut tcp = std::net::TcpStream::connect(("127.0.0.1", provider.port())).unwrap();
    let length = form.len();
    let head = format!(
        "POST /token/revocation HTTP/1.0\r\nhost: 127.0.0.1:{}\r\ncontent-length: {length}\r\n\
         content-type: application/x-www-form-urlencoded\r\n\r\n{form}",
        provider.port()
    );
    tcp.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    tcp.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}
