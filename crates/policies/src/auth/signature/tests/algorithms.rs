//! Each algorithm with its own kind of key, and with no other.

use super::*;

/// How one algorithm's keys sign, and the public half of one.
struct Signer {
    algorithm: &'static str,
    pem: String,
    sign: Sign,
}

type Sign = Box<dyn Fn(&[u8]) -> Vec<u8>>;

fn pem<K: AsDer<PublicKeyX509Der<'static>>>(key: &K) -> String {
    let der = STANDARD.encode(AsDer::as_der(key).unwrap().as_ref());
    format!("-----BEGIN PUBLIC KEY-----\n{der}\n-----END PUBLIC KEY-----\n")
}

fn all() -> Vec<Signer> {
    let ed = Ed25519KeyPair::generate().unwrap();
    let p256 = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let p384 = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
    let rsa = Arc::new(RsaKeyPair::generate(KeySize::Rsa2048).unwrap());
    let rsa_pem = pem(rsa.public_key());
    let by_rsa = |rsa: Arc<RsaKeyPair>, encoding| {
        move |message: &[u8]| {
            let mut signature = vec![0; rsa.public_modulus_len()];
            rsa.sign(encoding, &SystemRandom::new(), message, &mut signature).unwrap();
            signature
        }
    };
    let pss = by_rsa(Arc::clone(&rsa), &RSA_PSS_SHA512);
    let v15 = by_rsa(rsa, &RSA_PKCS1_SHA256);
    let by_ec = |pair: EcdsaKeyPair| {
        move |message: &[u8]| pair.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec()
    };
    vec![
        Signer {
            algorithm: "ed25519",
            pem: pem(ed.public_key()),
            sign: Box::new(move |message| ed.sign(message).as_ref().to_vec()),
        },
        Signer {
            algorithm: "ecdsa-p256-sha256",
            pem: pem(p256.public_key()),
            sign: Box::new(by_ec(p256)),
        },
        Signer {
            algorithm: "ecdsa-p384-sha384",
            pem: pem(p384.public_key()),
            sign: Box::new(by_ec(p384)),
        },
        Signer { algorithm: "rsa-pss-sha512", pem: rsa_pem.clone(), sign: Box::new(pss) },
        Signer { algorithm: "rsa-v1_5-sha256", pem: rsa_pem, sign: Box::new(v15) },
    ]
}

fn entry(algorithm: &str, pem: &str) -> String {
    let key = serde_json::Value::from(pem);
    format!("[{{ id: k1, algorithm: {algorithm}, key: {key}, client: acme }}]")
}

/// The request that the tests of HMAC make, signed in another way.
fn line(signer: &Signer, parameters: &str) -> String {
    let with_tag = format!("{GET}{}", signed(TARGET, parameters));
    let (before, _) = with_tag.split_once(" | Signature: ").unwrap();
    let covered: Vec<&str> = TARGET.iter().map(|(identifier, _)| *identifier).collect();
    let mut base: String =
        TARGET.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
    base += &format!("\"@signature-params\": ({}){parameters}", covered.join(" "));
    let signature = STANDARD.encode((signer.sign)(base.as_bytes()));
    format!("{before} | Signature: sig1=:{signature}:")
}

#[test]
fn each_verifies_with_its_own_keys_and_nobody_elses() {
    let signers = all();
    for own in &signers {
        let world = World::default().file("signers.yaml", entry(own.algorithm, &own.pem));
        let auth = world.auth("signature", SETTINGS);
        let named = format!("{};alg=\"{}\"", parameters("a"), own.algorithm);
        assert_eq!(verify(&world, &*auth, &line(own, &named), ""), "idp/acme", "{}", own.algorithm);
        for (n, other) in signers.iter().enumerate() {
            // Also what the same RSA key has signed by the other algorithm.
            if other.algorithm != own.algorithm {
                let seen = verify(&world, &*auth, &line(other, &parameters(&format!("b{n}"))), "");
                let expected = "401 credentials-invalid | the signature is not the key's";
                assert_eq!(seen, expected, "{} for {}", other.algorithm, own.algorithm);
            }
        }
        // A public key is no secret.
        let seen =
            verify(&world, &*auth, &format!("{GET}{}", signed(TARGET, &parameters("c"))), "");
        assert!(seen.starts_with("401"), "{seen}");
        assert!(!format!("{auth:?}").contains(&own.pem[60..80]));
    }
}

const RSA_1024: &str = "-----BEGIN PUBLIC KEY-----
MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQC1WROoMTFubLOP0YC53SFC1Z27
oEuXEr7icnPqE9OGWGqoCU04JjDR1DtTmDDPiPVv2BCC6uzYUW87CCWOmq8yMISZ
rMNkkKmWVKVp2Nw2R7O6zfocNxcut2govVyTQS6JUfYQ9qm7/RL9/XfjHmxyGEoZ
Cs/X4jrqZBXauxvavQIDAQAB
-----END PUBLIC KEY-----
";

#[test]
fn a_key_is_for_its_algorithm_and_long_enough() {
    let wrong = |file: &str| {
        let world = World::default().file("signers.yaml", file);
        let seen = world.try_auth("signature", SETTINGS).map(|_| ()).unwrap_err();
        let prefix = "error unusable-keys at signature.keys: file:signers.yaml: ";
        seen.strip_prefix(prefix).unwrap_or(&seen).to_owned()
    };
    let signers = all();
    let kind = |algorithm: &str| algorithm.split('-').take(2).collect::<String>();
    for own in &signers {
        for other in &signers {
            let is_rsa = own.algorithm.starts_with("rsa") && other.algorithm.starts_with("rsa");
            if kind(own.algorithm) != kind(other.algorithm) && !is_rsa {
                assert_eq!(
                    wrong(&entry(own.algorithm, &other.pem)),
                    "key 1: the `key` is not for the algorithm: that of `k1`",
                    "{} for {}",
                    other.algorithm,
                    own.algorithm
                );
            }
        }
    }
    let short = "key 1: the `key` has less than 2048 bits: that of `k1`";
    assert_eq!(wrong(&entry("rsa-pss-sha512", RSA_1024)), short);
    assert_eq!(wrong(&entry("rsa-v1_5-sha256", RSA_1024)), short);
    let secret = |bytes: usize| STANDARD.encode(vec![7; bytes]);
    let entry = |more: &str| format!("[{{ id: k1, algorithm: hmac-sha256, client: a, {more} }}]");
    for (file, expected) in [
        (
            entry(&format!("secret: \"{}\"", secret(31))),
            "key 1: the `secret` has less than 32 bytes: that of `k1`",
        ),
        (entry("secret: \"%\""), "key 1: the `secret` is not base64: that of `k1`"),
        (
            entry("key: a"),
            "key 1: the algorithm `hmac-sha256` needs a `secret` and no `key`: that of `k1`",
        ),
        (
            "[{ id: k1, algorithm: ed25519, client: a, secret: a }]".to_owned(),
            "key 1: the algorithm needs a `key` and no `secret`: that of `k1`",
        ),
        (
            "[{ id: k1, algorithm: ed25519, client: a, key: a }]".to_owned(),
            "key 1: the `key` is no public key (PUBLIC KEY) in PEM: that of `k1`",
        ),
        (
            "[{ id: \"kä\", algorithm: ed25519, client: a, key: a }]".to_owned(),
            "key 1: an `id` is a name in ASCII",
        ),
        (format!("{0}{0}", signers_of("k1")), "the id `k1` twice"),
    ] {
        assert_eq!(wrong(&file), expected, "{file}");
    }
    let unknown = wrong("[{ id: k1, algorithm: none, client: a, key: a }]");
    assert!(unknown.contains("unknown variant `none`"), "{unknown}");
}

fn signers_of(id: &str) -> String {
    signers().replace("k1", id)
}

#[test]
fn a_key_has_its_time() {
    let file = signers().replace("client:", "expires: \"2026-11-24T06:00:10Z\", client:");
    let world = World::default().file("signers.yaml", file);
    let auth = world.auth("signature", SETTINGS);
    let line = format!("{GET}{}", signed(TARGET, &parameters("a")));
    let good = "idp/acme of shop for orders:write";
    assert_eq!(verify(&world, &*auth, &format!("9000ms {line}"), ""), good);
    let expired = "401 credentials-expired | the key has expired";
    assert_eq!(verify(&world, &*auth, &format!("10000ms {line}"), ""), expired);
    let file = signers().replace("client:", "not_before: \"2026-11-24T06:00:01Z\", client:");
    let world = World::default().file("signers.yaml", file);
    let auth = world.auth("signature", SETTINGS);
    let early = "401 credentials-invalid | the key is not valid yet";
    assert_eq!(verify(&world, &*auth, &line, ""), early);
}
