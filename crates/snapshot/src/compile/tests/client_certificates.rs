//! Authorities and revocation lists of clients, good and bad, and who has to ask for certificates.

use expect_test::{Expect, expect};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, IsCa,
    KeyIdMethod, KeyPair, KeyUsagePurpose, SerialNumber, date_time_ymd,
};

use crate::testing::{Compiled, Files, compiled, compiled_after};

fn files() -> Files {
    let mut files = Files::default();
    let mut put = |name: &str, text: String| {
        files.0.insert(format!("file:{name}"), text.into_bytes());
    };
    let mut params = CertificateParams::new(vec!["a.test".to_owned()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate().unwrap();
    put("key.pem", key.serialize_pem());
    params.not_after = date_time_ymd(2025, 1, 1);
    put("old.pem", params.self_signed(&key).unwrap().pem());
    params.not_after = date_time_ymd(2090, 1, 1);
    let issuer = CertifiedIssuer::self_signed(params, key).unwrap();
    put("ca.pem", issuer.pem());
    for (name, until) in [("good.crl", 2090), ("better.crl", 2091), ("expired.crl", 2026)] {
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2001, 1, 1),
            next_update: date_time_ymd(until, 1, 1),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: Vec::new(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        put(name, list.signed_by(&issuer).unwrap().pem().unwrap());
    }
    files
}

/// With these settings of `tls` and of the listener beside its certificate.
fn config(tls: &str, listener: &str) -> String {
    format!(
        r#"
listeners:
  a:
    bind: "127.0.0.1:0"
    tls:
      certificates: [{{ cert: "file:ca.pem", key: "file:key.pem" }}]
      {tls}
    {listener}
auth: {{ certs: {{ certificate: {{}} }} }}
routes: {{ a: {{ match: /a, auth: certs, respond: {{ status: 200 }} }} }}
"#
    )
}

fn compile(tls: &str, listener: &str) -> Compiled {
    compiled(&config(tls, listener), &files())
}

#[track_caller]
fn check(tls: &str, listener: &str, expected: &Expect) {
    let compiled = compile(tls, listener);
    let told = |line: &&str| line.starts_with(|first: char| first.is_alphabetic());
    let help = |line: &&str| line.contains("help:");
    let lines = compiled.findings.lines().filter(|line| told(line) || help(line));
    let mut lines: Vec<_> = lines.map(str::trim).collect();
    lines.extend(compiled.snapshot.is_some().then_some("compiles"));
    expected.assert_eq(&lines.join("\n"));
}

#[test]
fn a_route_that_goes_by_certificates_needs_a_listener_that_asks() {
    check(
        "",
        "",
        &expect![[r#"
        error[no-client-certificate]: `a` takes certificates by `certs`, and `a` asks for none
        = help: add `client: { ca: "file:PATH" }` to the listener's `tls`"#]],
    );
    check(r#"client: { ca: "file:ca.pem" }"#, "", &expect!["compiles"]);
    check(
        r#"client: { ca: "file:ca.pem", mode: request, crl: "file:good.crl" }"#,
        "",
        &expect!["compiles"],
    );
    let header = r#"certificate_header: { ca: "file:ca.pem" }"#;
    check(
        "",
        header,
        &expect![
            "error[nobody-trusted]: `certificate_header` needs `trusted_proxies`: nobody is believed"
        ],
    );
    let trusted = format!("trusted_proxies: [\"10.0.0.0/8\"]\n    {header}");
    check("", &trusted, &expect!["compiles"]);
}

#[test]
fn what_cannot_be_used_is_told() {
    check(
        r#"client: { ca: "file:key.pem" }"#,
        "",
        &expect!["error[certificate]: `file:key.pem` has no certificates in PEM"],
    );
    check(
        r#"client: { ca: "file:old.pem" }"#,
        "",
        &expect![[r#"
        warning[certificate-date]: the certificate expired 536 days ago
        compiles"#]],
    );
    check(
        r#"client: { ca: "file:ca.pem", crl: "file:none" }"#,
        "",
        &expect!["error[unreadable]: cannot read `file:none`: there is no such file"],
    );
    check(
        r#"client: { ca: "file:ca.pem", crl: "file:ca.pem" }"#,
        "",
        &expect!["error[revocation-list]: `file:ca.pem` has no revocation lists in PEM"],
    );
    check(
        r#"client: { ca: "file:ca.pem", crl: "file:expired.crl" }"#,
        "",
        &expect![[r#"
        warning[revocation-list-date]: the revocation list of `CN=rcgen self signed cert` has expired
        = help: no certificate of this authority is taken until it is renewed
        compiles"#]],
    );
    check(
        r#"client: { ca: "file:ca.pem", mode: optional }"#,
        "",
        &expect![
            "error[unknown-value]: unknown value `optional`, expected one of `request`, `require`"
        ],
    );
}

/// Sessions are resumed, and certificates known, as long as the same is asked.
#[test]
fn what_is_unchanged_is_kept_over_a_reload() {
    let client = |more: &str| format!(r#"client: {{ ca: "file:ca.pem"{more} }}"#);
    let first = config(&client(r#", crl: "file:good.crl""#), "");
    let files = files();
    let before = compiled(&first, &files);
    let carry = before.carry.clone().next_generation();
    let before = before.ok();
    let tls = |snapshot: &crate::Snapshot| snapshot.listeners[0].tls.clone().unwrap();
    let ticket = tls(&before).config.ticketer.encrypt(b"a session").unwrap();
    for (text, same) in [
        (first.clone(), true),
        (config(&client(r#", crl: "file:better.crl""#), ""), false),
        (config(&client(r#", crl: "file:good.crl", mode: request"#), ""), false),
        (config(&client(r#", crl: "file:good.crl", crl_depth: leaf"#), ""), false),
        (config(&client(""), ""), false),
    ] {
        let after = tls(&compiled_after(&text, &files, carry.clone()).ok());
        let asked = |tls: &crate::ListenerTls| tls.client.as_ref().map(|client| client.id);
        assert_eq!(asked(&after) == asked(&tls(&before)), same, "{text}");
        assert_eq!(after.config.ticketer.decrypt(&ticket).is_some(), same, "{text}");
    }
    // Nor does a listener that asks for none take the tickets of one that did.
    let open = first
        .replace(&client(r#", crl: "file:good.crl""#), "")
        .replace("auth: certs", "public: \"a test\"");
    let after = tls(&compiled_after(&open, &files, carry).ok());
    assert!(after.config.ticketer.decrypt(&ticket).is_none());
}
