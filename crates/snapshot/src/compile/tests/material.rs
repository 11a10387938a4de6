//! Certificates and keys, good and bad.

use expect_test::{Expect, expect};
use rcgen::{CertificateParams, KeyPair, date_time_ymd};

use crate::testing::{Files, compiled};

/// Certificate and key in PEM.
fn pair(names: &[&str], years: (i32, i32)) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.not_before = date_time_ymd(years.0, 1, 1);
    params.not_after = date_time_ymd(years.1, 1, 1);
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

fn files() -> Files {
    let mut files = Files::default();
    let mut put = |name: &str, (cert, key): (String, String)| {
        files.0.insert(format!("file:{name}.pem"), cert.into_bytes());
        files.0.insert(format!("file:{name}.key"), key.into_bytes());
    };
    put("a", pair(&["a.example.com"], (2020, 2040)));
    put("wild", pair(&["*.example.com"], (2020, 2040)));
    put("old", pair(&["old.example.com"], (2020, 2025)));
    put("early", pair(&["early.example.com"], (2030, 2040)));
    files.0.insert("file:junk".to_owned(), b"-----BEGIN JUNK-----\n".to_vec());
    files
}

fn config(certificates: &str) -> String {
    format!(
        r#"
listeners: {{ https: {{ bind: "0.0.0.0:8443", tls: {{ certificates: [{certificates}] }} }} }}
auth: {{ idp: {{ token: {{ header: x-token }} }} }}
routes: {{ a: {{ match: /a, auth: idp, respond: {{ status: 200 }} }} }}
"#
    )
}

#[track_caller]
fn check(certificates: &str, expected: &Expect) {
    expected.assert_eq(&compiled(&config(certificates), &files()).findings);
}

#[test]
fn pairs_that_do_not_fit() {
    check(
        "{ cert: \"file:a.pem\", key: \"file:wild.key\" }",
        &expect![[r#"
        error[certificate]: the key is not that of `file:a.pem`
         --> gw.yaml:2:94
          |
        2 | listeners: { https: { bind: "0.0.0.0:8443", tls: { certificates: [{ cert: "file:a.pem", key: "file:wild.key" }] } } }
          |                                                                                              ^^^^^^^^^^^^^^^ in listeners.https.tls.certificates[0]

    "#]],
    );
    check(
        "{ cert: \"file:none\", key: \"file:a.key\" }",
        &expect![[r#"
        error[unreadable]: cannot read `file:none`: there is no such file
         --> gw.yaml:2:75
          |
        2 | listeners: { https: { bind: "0.0.0.0:8443", tls: { certificates: [{ cert: "file:none", key: "file:a.key" }] } } }
          |                                                                           ^^^^^^^^^^^ in listeners.https.tls.certificates[0]

    "#]],
    );
    check(
        "{ cert: \"file:junk\", key: \"file:junk\" }",
        &expect![[r#"
        error[certificate]: `file:junk` has no certificates in PEM
         --> gw.yaml:2:75
          |
        2 | listeners: { https: { bind: "0.0.0.0:8443", tls: { certificates: [{ cert: "file:junk", key: "file:junk" }] } } }
          |                                                                           ^^^^^^^^^^^ in listeners.https.tls.certificates[0]

    "#]],
    );
}

#[test]
fn dates_warn_and_do_not_refuse() {
    let text = config(
        "{ cert: \"file:old.pem\", key: \"file:old.key\" }, { cert: \"file:early.pem\", key: \"file:early.key\" }",
    );
    let compiled = compiled(&text, &files());
    assert!(compiled.snapshot.is_some());
    expect![[r#"
        warning[certificate-date]: the certificate expired 536 days ago
         --> gw.yaml:2:75
          |
        2 | listeners: { https: { bind: "0.0.0.0:8443", tls: { certificates: [{ cert: "file:old.pem", key: "file:old.key" }, { cert: "file:early....
          |                                                                           ^^^^^^^^^^^^^^ in listeners.https.tls.certificates[0]

        warning[certificate-date]: the certificate is not valid yet
         --> gw.yaml:2:122
          |
        2 | ...pem", key: "file:old.key" }, { cert: "file:early.pem", key: "file:early.key" }] } } }
          |                                         ^^^^^^^^^^^^^^^^ in listeners.https.tls.certificates[1]

    "#]].assert_eq(&compiled.findings);
}

/// The clock of these tests is at 2026-06-21.
#[test]
fn a_certificate_that_ends_within_three_weeks_warns() {
    let ends = |days: i64| {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["a.test".to_owned()]).unwrap();
        let now = i64::try_from(crate::testing::NOW.wall.as_secs()).unwrap();
        let epoch = date_time_ymd(1970, 1, 1);
        params.not_after = epoch + std::time::Duration::from_secs((now + days * 86_400) as u64);
        let mut files = Files::default();
        let certificate = params.self_signed(&key).unwrap().pem();
        files.0.insert("file:a.pem".to_owned(), certificate.into_bytes());
        files.0.insert("file:a.key".to_owned(), key.serialize_pem().into_bytes());
        let text = config("{ cert: \"file:a.pem\", key: \"file:a.key\" }");
        let compiled = compiled(&text, &files);
        assert!(compiled.snapshot.is_some());
        compiled.findings.lines().next().unwrap_or_default().to_owned()
    };
    let warning = "warning[certificate-date]: the certificate expires in 20 days";
    assert_eq!([ends(22), ends(20)], ["", warning]);
}

#[test]
fn names_choose_certificates() {
    let text = config(
        "{ cert: \"file:wild.pem\", key: \"file:wild.key\" }, { cert: \"file:a.pem\", key: \"file:a.key\" }",
    );
    let snapshot = compiled(&text, &files()).ok();
    let tls = snapshot.listeners[0].tls.as_ref().unwrap();
    let pick = |name| tls.certificates.pick(name);
    assert_eq!((pick("A.example.com"), pick("b.example.com")), (1, 0));
    assert_eq!((pick("x.a.example.com"), pick("other.org")), (0, 0));
    assert!(tls.is_misdirected(Some("b.example.com"), b"a.example.com"));
    assert!(!tls.is_misdirected(Some("b.example.com"), b"c.example.com"));
    assert!(!tls.is_misdirected(None, b"a.example.com"));
    let facts: Vec<_> =
        snapshot.certificates.iter().map(|f| (&*f.owner, f.names.join(","))).collect();
    assert_eq!(
        facts,
        [("https", "*.example.com".to_owned()), ("https", "a.example.com".to_owned())]
    );
}

#[test]
fn post_quantum_key_exchange_comes_first_on_both_sides() {
    let text = format!(
        "{}backends: {{ one: {{ endpoints: [\"https://10.0.0.1\"], tls: {{ ca: \"file:a.pem\", cert: \"file:wild.pem\", key: \"file:wild.key\", server_name: a.example.com }} }} }}\n",
        config("{ cert: \"file:a.pem\", key: \"file:a.key\" }")
            .replace("respond: { status: 200 }", "to: one"),
    );
    let snapshot = compiled(&text, &files()).ok();
    let server = &snapshot.listeners[0].tls.as_ref().unwrap().config;
    let client = &snapshot.backends[0].tls.as_ref().unwrap().config;
    for provider in [server.crypto_provider(), client.crypto_provider()] {
        assert_eq!(provider.kx_groups[0].name(), rustls::NamedGroup::X25519MLKEM768);
    }
    assert_eq!(server.alpn_protocols, [b"h2".to_vec(), b"http/1.1".to_vec()]);
    assert!(client.client_auth_cert_resolver.has_certs());
    assert!(server.ticketer.enabled());
    let set = snapshot.backends[0].endpoints.load();
    let name = set.addresses[0].server_name.as_ref().unwrap();
    assert_eq!(name.to_str(), "a.example.com");
}

#[test]
fn tickets_and_sessions_survive_a_reload() {
    let text = config("{ cert: \"file:a.pem\", key: \"file:a.key\" }");
    let first = compiled(&text, &files());
    let carry = first.carry.clone().next_generation();
    let second = crate::testing::compiled_after(&text, &files(), carry).ok();
    let ticketer = |snapshot: &crate::snapshot::Snapshot| {
        snapshot.listeners[0].tls.as_ref().unwrap().config.ticketer.clone()
    };
    let ticket = ticketer(&first.ok()).encrypt(b"a session").unwrap();
    assert_eq!(ticketer(&second).decrypt(&ticket).unwrap(), b"a session");
}
