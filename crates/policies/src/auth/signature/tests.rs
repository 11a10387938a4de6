use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
    KeyPair as _, RSA_PKCS1_SHA256, RSA_PSS_SHA512,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use expect_test::{Expect, expect};
use portcullis_core::BodyLength;

use super::*;
use crate::testing::{World, print_verified, ready};

mod algorithms;
mod rfc;

const SECRET: [u8; 32] = [7; 32];
const NOW: u64 = 1_795_500_000;

fn signers() -> String {
    format!(
        "- {{ id: k1, algorithm: hmac-sha256, secret: \"{}\", client: acme, tenant: shop, \
         scopes: [\"orders:write\"] }}\n",
        STANDARD.encode(SECRET)
    )
}

fn world() -> World {
    World::default().file("signers.yaml", signers())
}

const SETTINGS: &str = r#"{ keys: "file:signers.yaml" }"#;
const BODY: &str = "{\"amount\": 7}";

/// What is covered, with the values that the client has for it.
type Covered<'a> = &'a [(&'a str, &'a str)];

/// The two fields, as a client makes them that knows nothing of how they are read here.
fn signed_as(label: &str, covered: Covered<'_>, parameters: &str) -> String {
    let identifiers: Vec<&str> = covered.iter().map(|(identifier, _)| *identifier).collect();
    let input = format!("({}){parameters}", identifiers.join(" "));
    let mut base = String::new();
    for (identifier, value) in covered {
        base += &format!("{identifier}: {value}\n");
    }
    base += &format!("\"@signature-params\": {input}");
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &SECRET), base.as_bytes());
    format!(" | Signature-Input: {label}={input} | Signature: {label}=:{}:", STANDARD.encode(tag))
}

fn signed(covered: Covered<'_>, parameters: &str) -> String {
    signed_as("sig1", covered, parameters)
}

fn content_digest(body: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, body.as_bytes());
    format!("sha-256=:{}:", STANDARD.encode(digest))
}

const TARGET: Covered<'static> = &[
    ("\"@method\"", "GET"),
    ("\"@authority\"", "api.example.com"),
    ("\"@path\"", "/orders"),
    ("\"@query\"", "?page=2"),
];

const GET: &str = "192.0.2.7 GET /orders?page=2";

fn parameters(nonce: &str) -> String {
    format!(";created={NOW};keyid=\"k1\";nonce=\"{nonce}\"")
}

fn verify(world: &World, auth: &dyn Authenticator, line: &str, body: &str) -> String {
    let mut exchange = world.exchange(line);
    exchange.request_body = Bytes::copy_from_slice(body.as_bytes());
    exchange.request.body = BodyLength::of(body.len() as u64);
    print_verified(match auth.verify(&exchange, &world.services) {
        Verify::Done(verified) => verified,
        Verify::Wait(future) => ready(future).expect("a verification that does not wait"),
    })
}

#[test]
fn a_signed_request_names_its_signer_once() {
    let world = world();
    let auth = world.auth("signature", SETTINGS);
    let line = format!("{GET}{}", signed(TARGET, &parameters("a")));
    assert_eq!(verify(&world, &*auth, &line, ""), "idp/acme of shop for orders:write");
    let again = "401 credentials-invalid | its nonce was used before";
    assert_eq!(verify(&world, &*auth, &line, ""), again);
    let other = format!("{GET}{}", signed(TARGET, &parameters("b")));
    assert_eq!(verify(&world, &*auth, &other, ""), "idp/acme of shop for orders:write");
    // A reload forgets no nonce.
    world.next_generation();
    let auth = world.auth("signature", &SETTINGS.replace(" }", ", window: 50s }"));
    assert_eq!(verify(&world, &*auth, &line, ""), again);
    assert_eq!(auth.challenge(), "");
}

#[test]
fn a_body_is_covered_by_its_digest() {
    let world = world();
    let auth = world.auth("signature", SETTINGS);
    let digest = content_digest(BODY);
    let mut covered = TARGET.to_vec();
    covered[0].1 = "POST";
    let post = "192.0.2.7 POST /orders?page=2";
    let without = format!("{post}{}", signed(&covered, &parameters("a")));
    assert_eq!(
        verify(&world, &*auth, &without, BODY),
        "401 credentials-invalid | the signature does not cover all that it has to"
    );
    covered.push(("\"content-digest\"", &digest));
    let line = |nonce: &str, digest: &str| {
        format!("{post} | Content-Digest: {digest}{}", signed(&covered, &parameters(nonce)))
    };
    let good = "idp/acme of shop for orders:write";
    assert_eq!(verify(&world, &*auth, &line("a", &digest), BODY), good);
    let other = "401 credentials-invalid | the body has another digest";
    assert_eq!(verify(&world, &*auth, &line("b", &digest), "{\"amount\": 8}"), other);
    assert_eq!(verify(&world, &*auth, &line("b", &digest), ""), other);
    assert_eq!(
        verify(&world, &*auth, &line("b", &content_digest("{\"amount\": 8}")), "{\"amount\": 8}"),
        "401 credentials-invalid | the signature is not the key's"
    );
    // What was refused has not used its nonce up.
    assert_eq!(verify(&world, &*auth, &line("b", &digest), BODY), good);
    assert_eq!(auth.request_body(), BodyUse::Buffered { bytes_max: 1 << 20 });
}

#[test]
fn a_large_body_is_hashed_away_from_the_worker() {
    let world = world();
    let auth = world.auth("signature", SETTINGS);
    let body = "x".repeat(HASHED_HERE_BYTES_MAX + 1);
    let digest = content_digest(&body);
    let covered = [TARGET, &[("\"content-digest\"", &*digest)]].concat();
    let line = format!("{GET} | Content-Digest: {digest}{}", signed(&covered, &parameters("a")));
    let forged = line.replace("Signature: sig1=:", "Signature: sig1=:AAAA");
    let seen = verify(&world, &*auth, &forged, &body);
    assert!(seen.starts_with("401 credentials-invalid"), "{seen}");
    assert_eq!(world.services.offloaded(), 0, "nothing is hashed for who has no key");
    let good = "idp/acme of shop for orders:write";
    assert_eq!(verify(&world, &*auth, &line, &body), good);
    assert_eq!(world.services.offloaded(), 1);
    let changed = body.replacen('x', "y", 1);
    let line = line.replace("nonce=\"a\"", "nonce=\"b\"");
    assert!(verify(&world, &*auth, &line, &changed).starts_with("401"));
}

/// Each line is a request that differs in one thing from the one that was signed.
#[test]
fn what_was_not_signed_so_is_refused() {
    let world = world();
    let auth = world.auth("signature", SETTINGS);
    let good = format!("{GET}{}", signed(TARGET, &parameters("a")));
    let not_the_key = "the signature is not the key's";
    for (from, to, detail) in [
        ("GET", "DELETE", not_the_key),
        ("/orders", "/orders/7", not_the_key),
        ("page=2", "page=3", not_the_key),
        ("?page=2", "", not_the_key),
        ("?page=2", "?page=2&admin=1", not_the_key),
        // Canonical, it is the same path; but it is not what was signed.
        ("/orders", "/%6Frders", not_the_key),
        ("created=1795500000", "created=1795500001", not_the_key),
        ("nonce=\"a\"", "nonce=\"b\"", not_the_key),
        ("keyid=\"k1\"", "keyid=\"k2\"", "no such key"),
        (";keyid=\"k1\"", "", "no key id"),
        (";keyid=\"k1\"", ";keyid=k1", "a parameter that is no text"),
        (";nonce=\"a\"", "", "no nonce"),
        (";nonce=\"a\"", ";nonce=\"\"", "a nonce of no length that is taken"),
        (";created=1795500000", "", "it does not say when it was made"),
        (";created=1795500000", ";created=1795500000.0", "a time that is none"),
        (";created=1795500000", ";created=-1", "a time that is none"),
        ("nonce=\"a\"", "nonce=\"a\";alg=\"hmac-sha256\"", not_the_key),
        (
            "nonce=\"a\"",
            "nonce=\"a\";alg=\"ed25519\"",
            "the signature names another algorithm than its key's",
        ),
        ("\"@query\")", ")", "the signature does not cover all that it has to"),
        ("\"@query\")", "\"@query\" \"@query\")", "it covers a component twice"),
        ("\"@query\")", "\"@query\" \"x-none\")", "a field that the request has not"),
        ("\"@query\")", "\"@query\" \"@status\")", "a component that no request has"),
        ("\"@query\")", "\"@query\" \"@nothing\")", "a component that no request has"),
        (
            "\"@query\")",
            "\"@query\" \"X-None\")",
            "a component that is no field name in lower case",
        ),
        ("\"@query\")", "\"@query\" x)", "a component that is no text"),
        ("\"@query\")", "\"@query\" \"x\";sf)", "a parameter of a component that is not supported"),
        ("\"@query\")", "\"@query\";req)", "a parameter that the component does not have"),
        ("Signature: sig1=", "Signature: sig2=", "there is no signature with the label"),
        (
            "Signature: sig1=:",
            "Signature: sig1=\"",
            "the signature fields are not dictionaries, or have a label twice",
        ),
        (" | Signature: ", " | Other: ", "there is no signature with the label"),
        (
            "sig1=(",
            "sig1=\"a\", sig1=(",
            "the signature fields are not dictionaries, or have a label twice",
        ),
        (
            "Signature-Input: sig1=(",
            "Signature-Input: sig1=((",
            "the signature fields are not dictionaries, or have a label twice",
        ),
    ] {
        assert!(good.contains(from), "{from}");
        let seen = verify(&world, &*auth, &good.replacen(from, to, 1), "");
        assert_eq!(seen, format!("401 credentials-invalid | {detail}"), "{from} -> {to}");
    }
    assert_eq!(verify(&world, &*auth, &good, ""), "idp/acme of shop for orders:write");
}

#[test]
fn times_hold_to_the_second() {
    let world = world();
    let auth = world.auth("signature", SETTINGS);
    let at = |seconds: i64, more: &str, nonce: &str| {
        let created = NOW as i64 + seconds;
        let parameters = format!(";created={created};keyid=\"k1\";nonce=\"{nonce}\"{more}");
        verify(&world, &*auth, &format!("{GET}{}", signed(TARGET, &parameters)), "")
    };
    let good = "idp/acme of shop for orders:write";
    assert_eq!(at(-60, "", "a"), good);
    assert_eq!(at(-61, "", "b"), "401 credentials-expired | it was made too long ago");
    assert_eq!(at(60, "", "c"), good);
    assert_eq!(at(61, "", "d"), "401 credentials-invalid | it was made in the future");
    assert_eq!(at(0, &format!(";expires={}", NOW + 1), "e"), good);
    let expired = "401 credentials-expired | the signature has expired";
    assert_eq!(at(0, &format!(";expires={NOW}"), "f"), expired);
}

#[test]
fn one_signature_counts() {
    let world = world();
    let only = world.auth("signature", SETTINGS);
    let labelled = world.auth("signature", &SETTINGS.replace(" }", ", label: sig1 }"));
    let tagged = world.auth("signature", &SETTINGS.replace(" }", ", tag: portcullis }"));
    let good = "idp/acme of shop for orders:write";
    let two = |first: &str, second: &str| {
        let first = signed_as("sig1", TARGET, &parameters(first));
        let second = signed_as("proxy", TARGET, &(parameters(second) + ";tag=\"portcullis\""));
        format!("{GET}{first}{second}")
    };
    let ambiguous = "400 credentials-ambiguous | several signatures";
    assert_eq!(verify(&world, &*only, &two("a", "b"), ""), ambiguous);
    assert_eq!(verify(&world, &*labelled, &two("a", "b"), ""), good);
    assert_eq!(verify(&world, &*tagged, &two("a", "b"), ""), good);
    let used = "401 credentials-invalid | its nonce was used before";
    assert_eq!(verify(&world, &*tagged, &two("c", "a"), ""), used, "it was the other that counted");

    let others = format!("{GET}{}", signed_as("proxy", TARGET, &parameters("d")));
    let presented = |auth: &dyn Authenticator, line: &str| auth.presented(&world.exchange(line));
    assert_eq!(presented(&*labelled, &others), Presented::Nothing);
    assert_eq!(presented(&*tagged, &others), Presented::Nothing);
    assert!(matches!(presented(&*only, &others), Presented::Mine(_)));
    assert_eq!(presented(&*only, GET), Presented::Nothing);
    let garbled = format!("{GET} | Signature-Input: (");
    assert!(matches!(presented(&*labelled, &garbled), Presented::Mine(_)));

    let mut exchange = world.exchange(&two("a", "b"));
    labelled.conceal(&mut exchange.request);
    let left: Vec<_> = exchange.request.fields.iter().map(|(_, value)| value).collect();
    assert!(left.len() == 2 && left.iter().all(|value| value.starts_with(b"proxy=")), "{left:?}");
    labelled.conceal(&mut exchange.request);
    assert_eq!(exchange.request.fields.len(), 2);
    let mut exchange = world.exchange(&format!("{GET}{}", signed(TARGET, &parameters("a"))));
    only.conceal(&mut exchange.request);
    assert_eq!(exchange.request.fields.len(), 0);
}

#[test]
fn nonces_may_be_optional() {
    let world = world();
    let auth = world.auth("signature", &SETTINGS.replace(" }", ", nonce: optional }"));
    let plain = format!(";created={NOW};keyid=\"k1\"");
    let line = format!("{GET}{}", signed(TARGET, &plain));
    assert_eq!(verify(&world, &*auth, &line, ""), "idp/acme of shop for orders:write");
    assert_eq!(verify(&world, &*auth, &line, ""), "idp/acme of shop for orders:write");
    let with = format!("{GET}{}", signed(TARGET, &parameters("a")));
    verify(&world, &*auth, &with, "");
    assert!(verify(&world, &*auth, &with, "").contains("used before"));
}

/// Components in all their forms, with the values that RFC 9421 §2 says.
#[test]
fn components_have_the_values_that_a_client_gives_them() {
    let world = world();
    let settings = SETTINGS.replace(" }", ", components: [\"@target-uri\", \"@method\"] }");
    let auth = world.auth("signature", &settings);
    let line = "192.0.2.7 GET /path?param=value&foo=bar&baz=bat%2Dman&v=a+b%0A&f%C3%A7=x \
         | X-Twice: one | X-Twice: two | X-Empty:  | Example-Dict: a=1, b=2;x=1;y=2, c=(a b c);q, d";
    let covered: Covered<'_> = &[
        ("\"@method\"", "GET"),
        (
            "\"@target-uri\"",
            "https://api.example.com/path?param=value&foo=bar&baz=bat%2Dman&v=a+b%0A&f%C3%A7=x",
        ),
        ("\"@scheme\"", "https"),
        ("\"@request-target\"", "/path?param=value&foo=bar&baz=bat%2Dman&v=a+b%0A&f%C3%A7=x"),
        ("\"@query-param\";name=\"baz\"", "bat-man"),
        ("\"@query-param\";name=\"v\"", "a%20b%0A"),
        ("\"@query-param\";name=\"f%C3%A7\"", "x"),
        ("\"x-twice\"", "one, two"),
        ("\"x-twice\";bs", ":b25l:, :dHdv:"),
        ("\"x-empty\"", ""),
        ("\"example-dict\";key=\"a\"", "1"),
        ("\"example-dict\";key=\"d\"", "?1"),
        ("\"example-dict\";key=\"b\"", "2;x=1;y=2"),
        ("\"example-dict\";key=\"c\"", "(a b c);q"),
    ];
    let line = format!("{line}{}", signed(covered, &parameters("a")));
    assert_eq!(verify(&world, &*auth, &line, ""), "idp/acme of shop for orders:write");
    let twice = line.replace("/path?", "/path?v=1&");
    assert_eq!(
        verify(&world, &*auth, &twice, ""),
        "401 credentials-invalid | a parameter of the query that is there twice"
    );
    assert_eq!(auth.request_body(), BodyUse::Untouched);
}

#[test]
fn the_target_is_the_one_that_was_sent() {
    let values = |target: &str| {
        let world = World::default();
        let mut exchange = world.exchange("192.0.2.7 GET /canonical");
        exchange.request.target = exchange.request.fields.intern(target.as_bytes());
        let original = Original::of(&exchange.request);
        let names = ["@path", "@query", "@target-uri", "@request-target"];
        let value = |name: &str| {
            let item = sfv::Parser::new(&format!("\"{name}\"")).parse().unwrap();
            let base =
                components::base(&[components::Component::read(&item).unwrap()], "", &original);
            let text = base.map(|base| String::from_utf8(base).unwrap());
            let line = text.as_deref().map(|text| text.lines().next().unwrap());
            line.map_or_else(
                |error| (*error).to_owned(),
                |line| line.split_once(": ").unwrap().1.to_owned(),
            )
        };
        names.map(value).join(" | ")
    };
    expect!["/a%2e/b | ?c?d | https://api.example.com/a%2e/b?c?d | /a%2e/b?c?d"]
        .assert_eq(&values("/a%2e/b?c?d"));
    expect!["/a | ? | https://api.example.com/a? | /a?"].assert_eq(&values("/a?"));
    expect!["/a | ? | https://api.example.com/a | http://api.example.com:80/a"]
        .assert_eq(&values("http://api.example.com:80/a"));
    expect!["/ | ?b | https://api.example.com/?b | http://api.example.com?b"]
        .assert_eq(&values("http://api.example.com?b"));
    expect!["/a://b | ? | https://api.example.com/a://b | /a://b"].assert_eq(&values("/a://b"));
    expect!["a target without a path | ? | a target without a path | *"].assert_eq(&values("*"));
}

fn check(file: &str, settings: &str, want: &Expect) {
    let world = World::default().file("signers.yaml", file);
    want.assert_eq(&world.try_auth("signature", settings).map(|_| ()).unwrap_err());
}

#[test]
fn settings_that_cannot_be_meant() {
    for (more, want) in [
        ("window: 11m", expect!["error out-of-range at signature.window: at most `10m`"]),
        (
            "label: \"A b\"",
            expect![
                "error invalid-value at signature.label: a label is lower-case letters, digits, `-` and `_`"
            ],
        ),
        (
            "label: a, tag: b",
            expect![
                "error invalid-value at signature.tag: a signature is chosen by its `label` or by its `tag`"
            ],
        ),
        (
            "components: [\"@status\", X-Upper, \"\\\"a\\\";sf\", \"a b\"]",
            expect![[r#"
            error invalid-value at signature.components: `@status`: a component that no request has
            error invalid-value at signature.components: `X-Upper`: a component that is no field name in lower case
            error invalid-value at signature.components: `"a";sf`: a parameter of a component that is not supported
            error invalid-value at signature.components: `a b`: a component that is no field name in lower case"#]],
        ),
        (
            "components: []",
            expect!["error out-of-range at signature.components: needs at least 1 item"],
        ),
        (
            "nonce: never",
            expect![
                "error unknown-value at signature.nonce: unknown value `never`, expected one of `required`, `optional`"
            ],
        ),
    ] {
        check("[]", &SETTINGS.replace(" }", &format!(", {more} }}")), &want);
    }
}
