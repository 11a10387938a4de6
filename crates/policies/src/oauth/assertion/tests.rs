use std::collections::HashSet;

use jsonwebtoken::{DecodingKey, Validation, decode};
use portcullis_core::{Now, Services};
use serde_json::Value;

use super::*;
use crate::testing::issuer::{Kind, key_pair};
use crate::testing::{START, Scripted, ready};

#[test]
fn the_kind_of_key_decides_the_algorithm() {
    for (kind, expected) in [
        (Kind::Rsa, Algorithm::RS256),
        (Kind::Es256, Algorithm::ES256),
        (Kind::Es384, Algorithm::ES384),
        (Kind::Ed25519, Algorithm::EdDSA),
    ] {
        let (pem, public) = key_pair(kind);
        let key = Arc::new(SigningKey::from_pem(pem.as_bytes(), Some("k1".to_owned())).unwrap());
        assert_eq!(key.algorithm, expected);
        let services = Scripted::default();
        let signed = ready(sign(&key, "gw", "https://idp.example", &services)).unwrap().unwrap();
        let public = DecodingKey::from_jwk(&serde_json::from_value(public).unwrap()).unwrap();
        let mut validation = Validation::new(expected);
        validation.set_audience(&["https://idp.example"]);
        validation.validate_exp = false;
        let read = decode::<Value>(&signed, &public, &validation).unwrap();
        assert_eq!(read.header.kid.as_deref(), Some("k1"));
        let claims = read.claims;
        assert_eq!((&claims["iss"], &claims["sub"]), (&"gw".into(), &"gw".into()));
        let now = START.wall.as_secs();
        assert_eq!((&claims["iat"], &claims["exp"]), (&now.into(), &(now + 60).into()));
        assert_eq!(claims["jti"].as_str().map(str::len), Some(22));
        assert!(!format!("{key:?}").contains(&pem[40..60]));
    }
}

#[test]
fn what_is_no_private_key() {
    for text in ["", "secret", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"] {
        assert!(SigningKey::from_pem(text.as_bytes(), None).is_err(), "{text}");
    }
}

/// RFC 7523 §3: an id is used once.
#[test]
fn no_two_assertions_are_alike() {
    use std::cell::Cell;

    /// Only what is asked for here.
    struct Random(Scripted, Cell<u8>);

    impl Services for Random {
        fn now(&self) -> Now {
            self.0.now()
        }

        fn random(&self, into: &mut [u8]) {
            self.1.set(self.1.get() + 1);
            into.fill(self.1.get());
        }

        fn fetch(
            &self,
            fetch: portcullis_core::services::Fetch,
        ) -> portcullis_core::services::LocalFuture<
            '_,
            Result<portcullis_core::services::Fetched, portcullis_core::services::Unavailable>,
        > {
            self.0.fetch(fetch)
        }

        fn lease<'a>(
            &'a self,
            key: portcullis_core::limit::LimitKey,
            spec: &'a portcullis_core::limit::LimitSpec,
            want: u32,
        ) -> portcullis_core::services::Lease<'a> {
            self.0.lease(key, spec, want)
        }

        fn offload(
            &self,
            job: Box<dyn FnOnce() + Send>,
        ) -> portcullis_core::services::LocalFuture<
            '_,
            Result<(), portcullis_core::services::Unavailable>,
        > {
            self.0.offload(job)
        }
    }

    let (pem, _) = key_pair(Kind::Ed25519);
    let key = Arc::new(SigningKey::from_pem(pem.as_bytes(), None).unwrap());
    let services = Random(Scripted::default(), Cell::new(0));
    let all: HashSet<_> =
        (0..5).map(|_| ready(sign(&key, "gw", "a", &services)).unwrap().unwrap()).collect();
    assert_eq!(all.len(), 5);
}
