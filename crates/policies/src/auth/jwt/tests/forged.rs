//! The classes of forgeries of Wycheproof's vectors for JSON Web Signatures, made anew with keys of
//! this moment: what a verifier was found to take somewhere. Its vectors for symmetric algorithms and
//! for ES512 have no counterpart, since no configuration can name those (see `algorithms`).

mod blocks;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384,
    RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512, RsaEncoding,
};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD};
use num_bigint::BigUint;

use super::*;

const NOT_GOOD: &str = "the signature is not good";

fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn decode(text: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(text).unwrap()
}

fn message(header: &Value) -> String {
    format!("{}.{}", encode(header.to_string()), encode(claims(&json!({})).to_string()))
}

/// A gateway that knows these keys, whatever they say of themselves.
struct Verifier {
    world: World,
    auth: Arc<dyn Authenticator>,
}

impl Verifier {
    fn new(keys: &[Value]) -> Self {
        let jwks = json!({ "keys": keys }).to_string();
        let world = World::default().file("jwks.json", jwks);
        let all = "[RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA]";
        let settings = FILE.replace(" }", &format!(", algorithms: {all} }}"));
        let auth = world.auth("jwt", &settings);
        Self { world, auth }
    }

    fn verify(&self, token: &str) -> String {
        let seen = self.world.verify(&*self.auth, &request(token)).replace('\n', " ");
        detail(&seen).to_owned()
    }

    #[track_caller]
    fn refuses(&self, token: &str) {
        let seen = self.world.verify(&*self.auth, &request(token));
        assert!(seen.starts_with("401 credentials-invalid"), "{seen}");
    }
}

/// An RSA key that signs in every way.
struct Rsa {
    pair: RsaKeyPair,
}

impl Rsa {
    fn new() -> Self {
        Self { pair: RsaKeyPair::generate(KeySize::Rsa2048).unwrap() }
    }

    fn jwk(&self, more: &Value) -> Value {
        let public = self.pair.public_key();
        let n = encode(public.modulus().big_endian_without_leading_zero());
        let e = encode(public.exponent().big_endian_without_leading_zero());
        let mut jwk = json!({ "kty": "RSA", "n": n, "e": e, "kid": "k" });
        jwk.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        jwk
    }

    fn sign(&self, message: &str, padding: &'static dyn RsaEncoding) -> Vec<u8> {
        let mut signature = vec![0; self.pair.public_modulus_len()];
        let random = SystemRandom::new();
        self.pair.sign(padding, &random, message.as_bytes(), &mut signature).unwrap();
        signature
    }

    fn token(&self, algorithm: &str, padding: &'static dyn RsaEncoding) -> String {
        let message = message(&json!({ "alg": algorithm, "kid": "k" }));
        format!("{message}.{}", encode(self.sign(&message, padding)))
    }
}

fn rsa_paddings() -> [(&'static str, &'static dyn RsaEncoding); 6] {
    [
        ("RS256", &RSA_PKCS1_SHA256),
        ("RS384", &RSA_PKCS1_SHA384),
        ("RS512", &RSA_PKCS1_SHA512),
        ("PS256", &RSA_PSS_SHA256),
        ("PS384", &RSA_PSS_SHA384),
        ("PS512", &RSA_PSS_SHA512),
    ]
}

/// Every pair of what a key is for, what a token claims and how it was really signed.
#[test]
fn a_signature_is_of_the_tokens_algorithm_and_that_of_the_keys() {
    let rsa = Rsa::new();
    for (of_key, _) in rsa_paddings() {
        let verifier = Verifier::new(&[rsa.jwk(&json!({ "alg": of_key }))]);
        for (claimed, _) in rsa_paddings() {
            for (real, padding) in rsa_paddings() {
                let seen = verifier.verify(&rsa.token(claimed, padding));
                let expected = match (claimed == of_key, real == claimed) {
                    (false, _) => "the key is not for the token's algorithm",
                    (true, false) => NOT_GOOD,
                    (true, true) => "idp/alice",
                };
                assert_eq!(seen, expected, "{of_key} {claimed} {real}");
            }
        }
    }
}

#[test]
fn not_one_bit_of_a_token_may_change() {
    for kind in [Kind::Es256, Kind::Es384, Kind::Rsa, Kind::Ed25519] {
        let signer = Signer::new("k1", kind);
        let verifier = Verifier::new(&[signer.jwk()]);
        let token = signer.token(&claims(&json!({})));
        assert_eq!(verifier.verify(&token), "idp/alice");
        let parts: Vec<Vec<u8>> = token.split('.').map(decode).collect();
        for (part, bytes) in parts.iter().enumerate() {
            // Each bit of a short part; of a long one, in steps that come to each bit of a byte.
            let bits = bytes.len() * 8;
            for bit in (0..bits).step_by(if bits > 600 { 7 } else { 1 }) {
                let mut parts = parts.clone();
                parts[part][bit / 8] ^= 1 << (bit % 8);
                let forged: Vec<_> = parts.iter().map(encode).collect();
                verifier.refuses(&forged.join("."));
            }
        }
    }
}

#[test]
fn rsa_signatures_have_the_length_and_the_range_of_the_modulus() {
    let rsa = Rsa::new();
    let verifier = Verifier::new(&[rsa.jwk(&json!({ "alg": "RS256" }))]);
    let good = rsa.token("RS256", &RSA_PKCS1_SHA256);
    assert_eq!(verifier.verify(&good), "idp/alice");
    let (message, signature) = good.rsplit_once('.').unwrap();
    let signature = decode(signature);
    let public = rsa.pair.public_key();
    let modulus = public.modulus().big_endian_without_leading_zero();
    // The same number modulo n.
    let mut beyond = vec![0; 257];
    let mut carry = 0;
    for at in (0..256).rev() {
        let sum = u16::from(signature[at]) + u16::from(modulus[at]) + carry;
        beyond[at + 1] = sum as u8;
        carry = sum >> 8;
    }
    beyond[0] = carry as u8;
    let same = if carry == 0 { beyond[1..].to_vec() } else { beyond };
    let one = [vec![0; 255], vec![1]].concat();
    for bytes in [
        [&[0], &signature[..]].concat(),
        [&signature[..], &[0]].concat(),
        signature[1..].to_vec(),
        signature[..255].to_vec(),
        same,
        modulus.to_vec(),
        vec![0; 256],
        one,
        vec![0xff; 256],
        vec![1],
        Vec::new(),
    ] {
        let seen = verifier.verify(&format!("{message}.{}", encode(&bytes)));
        assert_eq!(seen, NOT_GOOD, "{bytes:02x?}");
    }
}

/// SEC 2: the orders of P-256 and P-384.
const ORDERS: [(Kind, &str); 2] = [
    (Kind::Es256, "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551"),
    (
        Kind::Es384,
        "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973",
    ),
];

/// Numbers at the edges of the curve's order, as either and as both of a signature's; and good ones
/// that are written otherwise.
#[test]
fn ecdsa_numbers_are_within_the_order_and_have_one_form() {
    for (kind, order) in ORDERS {
        let length = order.len() / 2;
        let order = BigUint::parse_bytes(order.as_bytes(), 16).unwrap();
        let wide = |number: &BigUint, length: usize| {
            let bytes = number.to_bytes_be();
            [vec![0; length - bytes.len()], bytes].concat()
        };
        let signer = Signer::new("k1", kind);
        let verifier = Verifier::new(&[signer.jwk()]);
        let token = signer.token(&claims(&json!({})));
        assert_eq!(verifier.verify(&token), "idp/alice");
        let (message, signature) = token.rsplit_once('.').unwrap();
        let good = decode(signature);
        let (r, s) = good.split_at(length);
        let [r, s] = [r, s].map(BigUint::from_bytes_be);
        let one = BigUint::from(1_u8);
        let edges = [
            BigUint::ZERO,
            one.clone(),
            &order - &one,
            order.clone(),
            &order + &one,
            BigUint::from_bytes_be(&vec![0xff; length]),
        ];
        let mut forged = Vec::new();
        for first in edges.iter().chain([&r]) {
            for second in edges.iter().chain([&s]) {
                forged.push([wide(first, length), wide(second, length)].concat());
            }
        }
        // The last pair is the good one.
        assert_eq!(forged.pop(), Some(good.clone()));
        let (long, longer) = (length + 1, length + 8);
        forged.extend([
            [wide(&s, length), wide(&r, length)].concat(),
            [wide(&(&r + &order), long), wide(&s, long)].concat(),
            [wide(&(&r + &order), long), wide(&s, length)].concat(),
            [wide(&r, length), wide(&(&s + &order), long)].concat(),
            [wide(&r, long), wide(&s, long)].concat(),
            [wide(&r, longer), wide(&s, longer)].concat(),
            [&good[..], &[0]].concat(),
            [&good[..], &[0; 8]].concat(),
            [&[0], &good[..]].concat(),
            [&good[..], &good].concat(),
            good[..length].to_vec(),
            good[1..].to_vec(),
            good[..2 * length - 1].to_vec(),
        ]);
        for bytes in forged {
            let seen = verifier.verify(&format!("{message}.{}", encode(&bytes)));
            assert_eq!(seen, NOT_GOOD, "{kind:?} {bytes:02x?}");
        }
    }
}

/// RFC 7518 §3.4: two numbers of the curve's length, one after the other.
#[test]
fn ecdsa_signatures_are_of_the_keys_curve_and_not_der() {
    let random = SystemRandom::new();
    let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).unwrap();
    let pair =
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, document.as_ref()).unwrap();
    let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
    let jwk = json!({ "kty": "EC", "crv": "P-256", "x": encode(x), "y": encode(y), "kid": "k" });
    let text = message(&json!({ "alg": "ES256", "kid": "k" }));
    let der = pair.sign(&random, text.as_bytes()).unwrap();
    let verifier = Verifier::new(&[jwk]);
    assert_eq!(verifier.verify(&format!("{text}.{}", encode(der.as_ref()))), NOT_GOOD);
    // A good signature of another curve's key, and with a key that is on no curve at all.
    let other = Signer::new("k", Kind::Es384);
    verifier.refuses(&other.sign(&json!({ "alg": "ES256", "kid": "k" }), &claims(&json!({}))));
    let signer = Signer::new("k1", Kind::Es256);
    let token = signer.token(&claims(&json!({})));
    let mut off = signer.jwk();
    let mut y = decode(off["y"].as_str().unwrap());
    y[31] ^= 1;
    off["y"] = encode(y).into();
    Verifier::new(&[off]).refuses(&token);
}

/// A token has one spelling (RFC 7515 §2: base64url without padding, and nothing else).
#[test]
fn base64_has_one_spelling() {
    for kind in [Kind::Es256, Kind::Rsa] {
        let signer = Signer::new("k1", kind);
        let verifier = Verifier::new(&[signer.jwk()]);
        // A head and claims whose last digits have bits to spare.
        let header = json!({ "alg": format!("{:?}", signer.algorithm()), "kid": "k1", "a": "" });
        let token = signer.sign(&header, &claims(&json!({ "a": "??>>" })));
        assert_eq!(verifier.verify(&token), "idp/alice");
        let parts: Vec<&str> = token.split('.').collect();
        for part in 0..3 {
            let with = |text: String| {
                let mut parts: Vec<String> = parts.iter().map(|part| (*part).to_owned()).collect();
                parts[part] = text;
                parts.join(".")
            };
            let text = parts[part];
            let half = text.len() / 2;
            // Before the first part a space is the scheme's.
            let mut spellings = vec![
                format!("{text}="),
                format!("{text}=="),
                format!("{text}A"),
                format!("{text} "),
                format!("{}\t{}", &text[..half], &text[half..]),
                format!("{}*{}", &text[..half], &text[half..]),
                format!("{}%41{}", &text[..half], &text[half..]),
                format!("{}={}", &text[..half], &text[half..]),
                text[1..].to_owned(),
                text[..text.len() - 1].to_owned(),
                String::new(),
            ];
            for engine in [&STANDARD, &URL_SAFE] {
                let other = engine.encode(decode(text));
                spellings.extend((other != text).then_some(other));
            }
            // The same bytes with other bits in what is left over of the last digit.
            if !text.len().is_multiple_of(4) {
                let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
                let last = *text.as_bytes().last().unwrap();
                let at = digits.iter().position(|digit| *digit == last).unwrap();
                let other = char::from(digits[at ^ 1]);
                spellings.push(format!("{}{other}", &text[..text.len() - 1]));
            }
            for spelling in spellings {
                verifier.refuses(&with(spelling));
            }
        }
    }
}

#[test]
fn a_token_has_three_parts_in_this_order() {
    let signer = Signer::new("k1", Kind::Es256);
    let verifier = Verifier::new(&[signer.jwk()]);
    let token = signer.token(&claims(&json!({})));
    let [header, payload, signature] = token.split('.').collect::<Vec<_>>()[..] else { panic!() };
    for text in [
        format!("{header}.{payload}"),
        format!("{header}.{payload}."),
        format!("{header}..{signature}"),
        format!(".{payload}.{signature}"),
        format!("..{signature}"),
        format!("{payload}.{header}.{signature}"),
        format!("{header}.{payload}.{signature}."),
        format!(".{token}"),
        format!("{token}.{signature}"),
        format!("{header}.{payload}.{payload}.{signature}"),
        format!("{header}.{header}.{payload}.{signature}"),
        format!("{token}{token}"),
        format!("{header}..{payload}.{signature}"),
        "..".to_owned(),
        "...".to_owned(),
        ".".to_owned(),
        json!({ "protected": header, "payload": payload, "signature": signature }).to_string(),
        json!({ "payload": payload, "signatures": [{ "protected": header, "signature": signature }] })
            .to_string(),
    ] {
        verifier.refuses(&text);
    }
}

/// RFC 7515 §4: a member of a header is there once.
#[test]
fn a_header_says_one_thing() {
    let signer = Signer::new("k1", Kind::Es256);
    let verifier = Verifier::new(&[signer.jwk(), Signer::new("k2", Kind::Es256).jwk()]);
    for header in [
        r#"{"alg":"none","alg":"ES256","kid":"k1"}"#,
        r#"{"alg":"ES256","alg":"none","kid":"k1"}"#,
        r#"{"alg":"ES256","kid":"k1","kid":"k2"}"#,
        r#"{"alg":"ES256","kid":"k1","typ":"JWT","typ":"dpop+jwt"}"#,
        r#"{"alg":"ES256","kid":"k1","crit":["b64"],"crit":[]}"#,
        r#"{"alg":["ES256"],"kid":"k1"}"#,
        r#"{"alg":"ES256 ","kid":"k1"}"#,
        r#"{"alg":"es256","kid":"k1"}"#,
        r#"{"ALG":"ES256","kid":"k1"}"#,
        r#"{"alg":"","kid":"k1"}"#,
        r#"{"kid":"k1"}"#,
        r#"{"alg":"ES256","kid":"k1"} x"#,
        r#"{"alg":"ES256","kid":"k1""#,
        "[]",
        "null",
        "",
    ] {
        verifier.refuses(&signer.sign_under(header, &claims(&json!({})).to_string()));
    }
    let good = r#" { "alg" : "ES256", "\u006bid":"k\u0031", "x":1 } "#;
    let token = signer.sign_under(good, &claims(&json!({})).to_string());
    assert_eq!(verifier.verify(&token), "idp/alice");
}

#[test]
fn keys_are_used_for_what_they_are_for() {
    let signers = [Signer::new("k1", Kind::Es256), Signer::new("k1", Kind::Rsa)];
    for signer in &signers {
        let token = signer.token(&claims(&json!({})));
        for (name, value, good) in [
            ("use", json!("sig"), true),
            ("use", json!("enc"), false),
            ("use", json!("SIG"), false),
            ("key_ops", json!(["verify"]), true),
            ("key_ops", json!(["sign", "verify"]), true),
            ("key_ops", json!(["sign"]), false),
            ("key_ops", json!(["encrypt", "wrapKey"]), false),
            ("key_ops", json!([]), false),
        ] {
            let mut jwk = signer.jwk();
            jwk[name] = value.clone();
            // Beside another, so that the set is of use in any case.
            let verifier = Verifier::new(&[jwk, Signer::new("k2", Kind::Ed25519).jwk()]);
            let expected = if good { "idp/alice" } else { "no key with the token's key id" };
            assert_eq!(verifier.verify(&token), expected, "{name}: {value}");
        }
    }
}
