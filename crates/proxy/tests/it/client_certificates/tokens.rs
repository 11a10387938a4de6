//! Tokens that are bound to a client's certificate (RFC 8705 §3).

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use portcullis_testkit::gateway::WALL;
use rcgen::{KeyPair, PKCS_ED25519, SigningKey as _};
use serde_json::{Value, json};

use super::*;

fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn sign(key: &KeyPair, confirmation: &Value) -> String {
    let claims = json!({
        "iss": "https://idp.test/", "aud": "api", "sub": "alice", "cnf": confirmation,
        "exp": WALL.as_secs() + 1000,
    });
    let header = json!({ "alg": "EdDSA", "kid": "k1" }).to_string();
    let message = format!("{}.{}", encode(header), encode(claims.to_string()));
    let signature = key.sign(message.as_bytes()).unwrap();
    format!("{message}.{}", encode(signature))
}

/// Verified once and remembered, it is of no more use to who has stolen it than before.
#[tokio::test]
async fn a_bound_token_is_of_no_use_on_another_connection() {
    let backend = Backend::echo().await;
    let ours = Authority::new("ours");
    let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let jwk =
        json!({ "kty": "OKP", "crv": "Ed25519", "kid": "k1", "x": encode(key.public_key_raw()) });
    let text = config(r#"ca: "file:clients.pem", mode: request"#, &backend).replace(
        "auth:\n",
        "auth:\n  idp: { jwt: { issuer: \"https://idp.test/\", audience: api, \
         jwks: \"file:jwks.json\", bound: required } }\n",
    );
    let text = text.replace(
        "routes:\n",
        "routes:\n  bound: { match: /bound, on: [tls, open], auth: idp, to: backend }\n",
    );
    let jwks = json!({ "keys": [jwk] }).to_string();
    let gateway = setup(&text, &ours).file("jwks.json", &jwks).start();
    let (own, other) = (ours.client(1, |_| {}), ours.client(2, |_| {}));
    let thumbprint = digest(&SHA256, &own.der()[0]);
    let token = sign(&key, &json!({ "x5t#S256": encode(thumbprint.as_ref()) }));
    let ask = async |listener, identity: Option<&Identity>, alpn: &str, token: &str| {
        // A minute later nobody is slowed.
        gateway.advance(std::time::Duration::from_secs(61)).await;
        let config = gateway.pki.client_as(identity, &[alpn]);
        let tls = handshake(&gateway, listener, SERVER_NAME, &config).await.unwrap();
        let mut client = Client::over_tls(tls).await;
        let request = Request::get("/bound").field("authorization", &format!("Bearer {token}"));
        client.send(request).await.unwrap().status
    };
    for alpn in ["http/1.1", "h2"] {
        assert_eq!(ask("tls", Some(&other), alpn, &token).await, 401, "{alpn}");
        assert_eq!(ask("tls", Some(&own), alpn, &token).await, 200, "{alpn}");
        assert_eq!(ask("tls", Some(&other), alpn, &token).await, 401, "{alpn}");
        assert_eq!(ask("tls", None, alpn, &token).await, 401, "{alpn}");
        assert_eq!(ask("open", None, alpn, &token).await, 401, "{alpn}");
    }
    let unbound = sign(&key, &json!({ "jkt": "x" }));
    assert_eq!(ask("tls", Some(&own), "h2", &unbound).await, 401);
    assert_eq!(backend.requests().len(), 2);
}
