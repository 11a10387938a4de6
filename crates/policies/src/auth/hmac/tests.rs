use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use expect_test::{Expect, expect};
use portcullis_core::{BodyLength, hex};

use super::*;
use crate::testing::{World, print_verified, ready};

const NOW: u64 = 1_795_500_000;
const SECRET: &str = "a-secret-that-both-have";
const BODY: &str = "{\"paid\":true}";
const POST: &str = "192.0.2.7 POST /hooks";
const GOOD: &str = "idp/shop of acme for orders:write";

fn world(secret: &str) -> World {
    let keys = format!(
        "- {{ id: k1, {secret}, client: shop, tenant: acme, scopes: [\"orders:write\"] }}\n"
    );
    World::default().file("senders.yaml", keys)
}

fn plain() -> World {
    world(&format!("secret: {SECRET}"))
}

fn of(format: &str) -> String {
    format!("{{ keys: \"file:senders.yaml\", format: {format} }}")
}

fn code(secret: &[u8], message: &str) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message.as_bytes())
}

fn hex(message: &str) -> String {
    hex::of_bytes(code(SECRET.as_bytes(), message).as_ref())
}

fn verify(world: &World, auth: &dyn Authenticator, fields: &str, body: &str) -> String {
    let mut exchange = world.exchange(&format!("{POST} | {fields}"));
    exchange.request_body = Bytes::copy_from_slice(body.as_bytes());
    exchange.request.body = BodyLength::of(body.len() as u64);
    print_verified(match auth.verify(&exchange, &world.services) {
        Verify::Done(verified) => verified,
        Verify::Wait(future) => ready(future).expect("a verification that does not wait"),
    })
}

/// The test vector of the specification's own libraries.
#[test]
fn standard_webhooks() {
    let secret = "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let world = world(&format!("secret_base64: whsec_{secret}"));
    let auth = world.auth("hmac", &of("standard_webhooks"));
    let key = STANDARD.decode(secret).unwrap();
    let published = "{\"test\": 2432232314}";
    let signature = code(&key, &format!("msg_p5jXN8AQM9LWM0D4loKWxJek.1614265330.{published}"));
    assert_eq!(STANDARD.encode(signature), "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    let fields = |id: &str, time: u64, codes: &str| {
        format!("Webhook-Id: {id} | Webhook-Timestamp: {time} | Webhook-Signature: {codes}")
    };
    let sign = |id: &str, time: u64, body: &str| {
        format!("v1,{}", STANDARD.encode(code(&key, &format!("{id}.{time}.{body}"))))
    };
    let seen = |fields: &str, body: &str| verify(&world, &*auth, fields, body);
    let good = sign("m1", NOW, BODY);
    assert_eq!(seen(&fields("m1", NOW, &good), BODY), GOOD);
    let again = "401 credentials-invalid | it was there before";
    assert_eq!(seen(&fields("m1", NOW, &good), BODY), again);
    // Who tries again signs again, with the same id.
    assert_eq!(seen(&fields("m1", NOW + 1, &sign("m1", NOW + 1, BODY)), BODY), GOOD);
    // Others' versions and others' keys stand beside the good one.
    let many = format!("v1a,AAAA {} v1,{}", sign("m2", NOW, "x"), &sign("m2", NOW, BODY)[3..]);
    assert_eq!(seen(&fields("m2", NOW, &many), BODY), GOOD);
    let wrong = "401 credentials-invalid | the signature is of no key";
    let other = sign("m3", NOW, BODY);
    for (id, time, body) in [("m4", NOW, BODY), ("m3", NOW + 1, BODY), ("m3", NOW, "{}")] {
        assert_eq!(seen(&fields(id, time, &other), body), wrong, "{id} {time} {body}");
    }
    // One signed text is not two requests.
    let split = sign("a", NOW, &format!("{NOW}.x"));
    assert_eq!(
        seen(&fields(&format!("a.{NOW}"), NOW, &split), "x"),
        "401 credentials-invalid | its id is none"
    );
    // A reload forgets nothing.
    world.next_generation();
    let auth = world.auth("hmac", &of("standard_webhooks"));
    assert_eq!(verify(&world, &*auth, &fields("m1", NOW, &good), BODY), again);
}

#[test]
fn the_usual_senders() {
    let world = plain();
    let github = world.auth("hmac", &of("github"));
    let fields = format!("X-Hub-Signature-256: sha256={}", hex(BODY));
    assert_eq!(verify(&world, &*github, &fields, BODY), GOOD);
    // It says no time, so that one who was tried again cannot be told from one sent again.
    assert_eq!(
        verify(&world, &*github, &fields.to_uppercase().replace("SHA256", "sha256"), BODY),
        GOOD
    );
    let stripe = world.auth("hmac", &of("stripe"));
    let signed = hex(&format!("{NOW}.{BODY}"));
    let fields = format!("Stripe-Signature: t={NOW}, v1={signed},v0=00");
    assert_eq!(verify(&world, &*stripe, &fields, BODY), GOOD);
    let slack = world.auth("hmac", &of("slack"));
    let signed = hex(&format!("v0:{NOW}:{BODY}"));
    let fields = format!("X-Slack-Request-Timestamp: {NOW} | X-Slack-Signature: v0={signed}");
    assert_eq!(verify(&world, &*slack, &fields, BODY), GOOD);
    assert_eq!(slack.challenge(), "");
    assert_eq!(slack.request_body(), BodyUse::Buffered { bytes_max: 1 << 20 });
}

#[test]
fn another_sender() {
    let world = plain();
    let auth = world.auth(
        "hmac",
        &of(r#"{ header: X-Code, signature: "c=${base64}", separator: ";", timestamp: X-Time,
             id: X-Id, message: "(${id})\n${body}|${timestamp}", algorithm: sha512 }"#),
    );
    let key = hmac::Key::new(hmac::HMAC_SHA512, SECRET.as_bytes());
    let code = hmac::sign(&key, format!("(7)\n{BODY}|{NOW}").as_bytes());
    let fields =
        |id: &str| format!("X-Code: c={} | X-Time: {NOW} | X-Id: {id}", STANDARD.encode(code));
    assert_eq!(
        verify(&world, &*auth, &fields("8"), BODY),
        "401 credentials-invalid | the signature is of no key"
    );
    assert_eq!(verify(&world, &*auth, &fields("7"), BODY), GOOD);
}

/// What differs from a good request, and what is said of it.
#[test]
fn requests_that_do_not_hold() {
    let world = plain();
    let stripe = world.auth("hmac", &of("stripe"));
    let at = |time: u64| format!("t={time},v1={}", hex(&format!("{time}.{BODY}")));
    let good = at(NOW);
    let (time, signed) = good.split_once(',').unwrap();
    let check = |value: &str, want: &str| {
        let fields = format!("Stripe-Signature: {value}");
        assert_eq!(verify(&world, &*stripe, &fields, BODY), want, "{value}");
    };
    let invalid = |detail: &str| format!("401 credentials-invalid | {detail}");
    let unread = invalid("a signature that cannot be read");
    check(time, &invalid("no signature of the kind that is taken"));
    check("", &invalid("no signature of the kind that is taken"));
    check(
        &format!("{time},v0={}", &signed[3..]),
        &invalid("no signature of the kind that is taken"),
    );
    check(&good[..good.len() - 1], &unread);
    check(&good[..good.len() - 2], &unread);
    check(&format!("{good}00"), &unread);
    check(&format!("{time},v1="), &unread);
    check(&format!("{time},v1={}", "zz".repeat(32)), &unread);
    check(&format!("{time},v1={}", "00".repeat(32)), &invalid("the signature is of no key"));
    check(signed, &invalid("it does not say when it was made"));
    check(&format!("{time},{good}"), &invalid("it says twice when it was made"));
    for odd in ["", "-1", "+1", "1.5", "0x10", "1795500000000000000000", "١٧٩٥"] {
        let wanted = invalid("the time is not in seconds since 1970");
        check(&format!("t={odd},{signed}"), &wanted);
    }
    check(&format!("{time},{}", vec![signed; 16].join(",")), &invalid("too many signatures"));
    check(&at(NOW + 301), &invalid("it was made in the future"));
    check(&at(999_999_999_999), &invalid("it was made in the future"));
    check(&at(NOW - 301), "401 credentials-expired | it was made too long ago");
    check(&at(0), "401 credentials-expired | it was made too long ago");
    check(&at(NOW + 300), GOOD);
    check(&at(NOW - 300), GOOD);
    let twice = format!("Stripe-Signature: {good} | stripe-signature: {good}");
    let ambiguous = "400 credentials-ambiguous | the signature is there twice";
    assert_eq!(verify(&world, &*stripe, &twice, BODY), ambiguous);
    // What was refused has used nothing up.
    check(&good, GOOD);
    check(&good, &invalid("it was there before"));
}

#[test]
fn not_one_bit_may_change() {
    let world = plain();
    let github = world.auth("hmac", &of("github"));
    let good = hex(BODY);
    for at in 0..good.len() {
        let mut other = good.clone().into_bytes();
        other[at] = if other[at] == b'0' { b'1' } else { b'0' };
        let other = String::from_utf8(other).unwrap();
        let seen = verify(&world, &*github, &format!("X-Hub-Signature-256: sha256={other}"), BODY);
        assert_eq!(seen, "401 credentials-invalid | the signature is of no key", "{at}");
    }
}

#[test]
fn keys_take_over_from_each_other_and_end() {
    let keys = "
- { id: old, secret: the-secret-of-last-year, client: shop, expires: 2026-11-24 }
- { id: new, secret: the-secret-of-this-year, client: shop }
- { id: next, secret: the-secret-of-next-year, client: shop, not_before: 2027-01-01 }
";
    let world = World::default().file("senders.yaml", keys);
    let auth = world.auth("hmac", &of("github"));
    let by = |secret: &str| {
        let code = hex::of_bytes(code(secret.as_bytes(), BODY).as_ref());
        verify(&world, &*auth, &format!("X-Hub-Signature-256: sha256={code}"), BODY)
    };
    assert_eq!(by("the-secret-of-last-year"), "401 credentials-expired | the key has expired");
    assert_eq!(by("the-secret-of-this-year"), "idp/shop");
    assert_eq!(by("the-secret-of-next-year"), "401 credentials-invalid | the key is not valid yet");
}

#[test]
fn a_large_body_is_hashed_away_from_the_worker() {
    let world = plain();
    let auth = world.auth("hmac", &of("github"));
    let body = "x".repeat(HASHED_HERE_BYTES_MAX + 1);
    let fields = |body: &str| format!("X-Hub-Signature-256: sha256={}", hex(body));
    assert_eq!(verify(&world, &*auth, &fields(&body[1..]), &body[1..]), GOOD);
    assert_eq!(world.services.offloaded(), 0);
    assert_eq!(verify(&world, &*auth, &fields(&body), &body), GOOD);
    assert_eq!(world.services.offloaded(), 1);
    let other = "401 credentials-invalid | the signature is of no key";
    assert_eq!(verify(&world, &*auth, &fields(&body), &body.replace('x', "y")), other);
}

#[test]
fn the_code_is_concealed_and_time_and_id_are_not() {
    let world = plain();
    let auth = world.auth("hmac", &of("slack"));
    let line = format!(
        "{POST} | X-Slack-Signature: v0=00 | X_Slack_Signature: v0=00 | X-Slack-Request-Timestamp: 7"
    );
    let mut exchange = world.exchange(&line);
    assert!(matches!(auth.presented(&exchange), Presented::Mine(_)));
    auth.conceal(&mut exchange.request);
    assert_eq!(auth.presented(&exchange), Presented::Nothing);
    let left: Vec<_> = exchange.request.fields.iter().map(|(name, _)| name.to_vec()).collect();
    assert_eq!(left, [b"X-Slack-Request-Timestamp".to_vec()]);
    assert!(!format!("{auth:?}").contains(SECRET));
}

fn findings(format: &str, more: &str, want: &Expect) {
    let settings = format!("{{ keys: \"file:senders.yaml\", format: {format}{more} }}");
    want.assert_eq(&plain().auth_findings("hmac", &settings));
}

#[test]
fn settings_that_do_not_hold() {
    findings(
        "github",
        "",
        &expect![
            "warning partial-signature at hmac.format: the sender does not sign the time: whoever sees a request can send it again (let the backend know by their ids those that it has had)"
        ],
    );
    findings(
        "github",
        ", replay: refuse",
        &expect![
            "error invalid-value at hmac.replay: without a time a request is good for ever, and none can be remembered for so long"
        ],
    );
    findings(
        "slack",
        ", window: 11m",
        &expect!["error out-of-range at hmac.window: at most `10m`"],
    );
    findings(
        "gitlab",
        "",
        &expect![
            "error unknown-value at hmac.format: unknown value `gitlab`, expected one of `standard_webhooks`, `github`, `stripe`, `slack` (did you mean `github`?)"
        ],
    );
    findings(
        r#"{ header: host }"#,
        "",
        &expect!["error invalid-value at hmac.format: the field `host` has a meaning of its own"],
    );
    findings(
        r#"{ header: x, signature: "a=${octal}" }"#,
        "",
        &expect![
            "error invalid-value at hmac.format: a `signature` ends with `${hex}` or `${base64}`"
        ],
    );
    findings(
        r#"{ header: x, message: "${timestamp}.${body}" }"#,
        "",
        &expect![
            "error invalid-value at hmac.format: `timestamp` says where it is, and `${timestamp}` in `message` that it is signed: both or neither"
        ],
    );
    findings(
        r#"{ header: x, timestamp: X-Time }"#,
        "",
        &expect![
            "error invalid-value at hmac.format: `timestamp` says where it is, and `${timestamp}` in `message` that it is signed: both or neither"
        ],
    );
    findings(
        r#"{ header: x, timestamp: "t=${timestamp}", message: "${timestamp}.${body}" }"#,
        "",
        &expect![
            "error invalid-value at hmac.format: a `timestamp` among the signatures needs a `separator` and a text before it, as in `t=${timestamp}`"
        ],
    );
    findings(
        r#"{ header: x, timestamp: X-Time, message: "${timestamp}${body}" }"#,
        "",
        &expect![
            "error invalid-value at hmac.format: between the parts of a `message` stands what is in neither: a `.` or a `:`"
        ],
    );
    findings(
        r#"{ header: x, timestamp: X-Time, message: "${timestamp}0${body}" }"#,
        "",
        &expect![
            "error invalid-value at hmac.format: between the parts of a `message` stands what is in neither: a `.` or a `:`"
        ],
    );
    findings(
        r#"{ header: x, message: "hello" }"#,
        "",
        &expect!["error invalid-value at hmac.format: a `message` has the `${body}` in it"],
    );
    findings(
        r#"{ header: x, message: "${body}.${body}" }"#,
        "",
        &expect!["error invalid-value at hmac.format: each part of a `message` is there once"],
    );
    findings(
        r#"{ header: x, message: "${body}.${path}" }"#,
        "",
        &expect![
            "error invalid-value at hmac.format: a `message` is of texts, `${timestamp}`, `${id}` and `${body}`"
        ],
    );
    findings(
        r#"{ header: x, separator: ", " }"#,
        "",
        &expect![
            "error invalid-value at hmac.format: a `separator` is one character: `,`, `;` or a space"
        ],
    );
    findings(
        r#"{ header: x, separator: "=", signature: "a=${hex}" }"#,
        "",
        &expect!["error invalid-value at hmac.format: the separator is a part of `signature`"],
    );
}

#[test]
fn files_that_do_not_hold() {
    let check = |format: &str, keys: &str, want: &Expect| {
        let world = World::default().file("senders.yaml", keys);
        want.assert_eq(&world.auth_findings("hmac", &of(format)));
    };
    check(
        "slack",
        "- { id: a, client: b }",
        &expect![
            "error unusable-keys at hmac.keys: file:senders.yaml: key 1: `a` has a `secret` or a `secret_base64`"
        ],
    );
    check(
        "slack",
        "- { id: a, client: b, secret: short }",
        &expect![
            "error unusable-keys at hmac.keys: file:senders.yaml: key 1: the secret of `a` has 16 to 1024 bytes"
        ],
    );
    check(
        "standard_webhooks",
        "- { id: a, client: b, secret: whsec_MfKQ9r8GKYqrTwjUPD8ILPZI }",
        &expect![
            "error unusable-keys at hmac.keys: file:senders.yaml: key 1: the secret of `a` is in base64 here: write it as `secret_base64`"
        ],
    );
    check(
        "slack",
        "- { id: a, client: b, secret_base64: \"%\" }",
        &expect![
            "error unusable-keys at hmac.keys: file:senders.yaml: key 1: `secret_base64` of `a` is not base64"
        ],
    );
    check(
        "slack",
        "- { id: a, client: b, secret: the-secret-of-this-year }\n\
         - { id: a, client: b, secret: the-secret-of-this-year }",
        &expect![[r#"
            error unusable-keys at hmac.keys: file:senders.yaml: the id `a` twice
            error unusable-keys at hmac.keys: file:senders.yaml: `a` and `a` have the same secret"#]],
    );
}
