//! `portcullis token`.

use expect_test::expect;
use rcgen::{KeyPair, SignatureAlgorithm};

use crate::binary::Place;

const CONFIG: &str = r#"
listeners: { http: { bind: "127.0.0.1:8080" } }
auth:
  idp:
    jwt: { issuer: "https://idp.test/", audience: [orders], jwks: "file:keys.json", tenant: "claim:org" }
routes:
  orders: { match: /orders, auth: idp, require: { scopes: ["orders:read"] }, to: orders }
backends: { orders: "http://127.0.0.1:9000" }
"#;

fn place(kind: &'static SignatureAlgorithm) -> Place {
    let place = Place::with(CONFIG);
    place.write("issuer.pem", &KeyPair::generate_for(kind).unwrap().serialize_pem());
    let keys = place.run(&["token", "--key", "issuer.pem", "--key-set"]).yes();
    place.write("keys.json", &keys);
    place
}

const TOKEN: [&str; 5] = ["token", "--key", "issuer.pem", "--issuer", "https://idp.test/"];

fn said(place: &Place, rest: &[&str]) -> String {
    let token = place.run(&[&TOKEN[..], rest].concat()).yes();
    let header = format!("Authorization: Bearer {}", token.trim());
    place.run(&["explain", "GET http://localhost/orders", "-H", &header]).stdout
}

const GOOD: [&str; 4] = ["--audience", "orders", "--scopes", "orders:read"];

#[test]
fn tokens_of_every_kind_of_key_are_verified_with_the_key_set() {
    for kind in [
        &rcgen::PKCS_ECDSA_P256_SHA256,
        &rcgen::PKCS_ECDSA_P384_SHA384,
        &rcgen::PKCS_ED25519,
        &rcgen::PKCS_RSA_SHA256,
    ] {
        let text = said(&place(kind), &GOOD);
        assert!(text.contains("forwarded to orders"), "{kind:?}: {text}");
    }
}

#[test]
fn a_token_that_is_not_for_this_is_refused() {
    let place = place(&rcgen::PKCS_ED25519);
    let scopes = ["--audience", "orders", "--scopes", "orders:write"];
    assert!(said(&place, &scopes).contains("refused: 403 insufficient-scope"));
    let audience = ["--audience", "other", "--scopes", "orders:read"];
    assert!(said(&place, &audience).contains("refused: 401 credentials-invalid"));
    let expired = [&GOOD[..], &["--claim", "exp=1"]].concat();
    assert!(said(&place, &expired).contains("refused: 401 credentials-expired"));
    let early = [&GOOD[..], &["--claim", "nbf=99999999999"]].concat();
    assert!(said(&place, &early).contains("refused: 401"));
    let unknown = [&GOOD[..], &["--kid", "other"]].concat();
    assert!(said(&place, &unknown).contains("refused: 401"));
}

#[test]
fn what_is_missing_or_unreadable() {
    let place = Place::with("");
    place.write("text.pem", "no key");
    place.check(
        &["token", "--key", "text.pem"],
        &expect![[r#"
        --- stderr
        error: the following required arguments were not provided:
          --issuer <ISSUER>
          --audience <AUDIENCE>

        Usage: portcullis token --key <FILE> --issuer <ISSUER> --audience <AUDIENCE>

        For more information, try '--help'.
        --- status 2
    "#]],
    );
    let rest = ["--issuer", "i", "--audience", "a"];
    place.check(
        &[&["token", "--key", "text.pem"], &rest[..]].concat(),
        &expect![[r#"
            --- stderr
            error: text.pem: not an unencrypted private key in PEM
            --- status 3
        "#]],
    );
    place.check(
        &[&["token", "--key", "none.pem"], &rest[..]].concat(),
        &expect![[r#"
        --- stderr
        error: cannot read none.pem: No such file or directory (os error 2)
        --- status 3
    "#]],
    );
}
