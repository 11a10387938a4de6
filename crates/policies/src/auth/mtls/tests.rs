use std::time::Duration;

use expect_test::{Expect, expect};

use super::*;
use crate::testing::World;

/// A certificate by its names: `cn=…`, `o=…`, `dns=…`, `uri=…`, `email=…`.
fn certificate(text: &str) -> ClientCertificate {
    let mut sha256 = [0_u8; 32];
    for (at, byte) in text.bytes().enumerate() {
        let of = &mut sha256[at % 32];
        *of = of.wrapping_mul(31) ^ byte;
    }
    let mut certificate = ClientCertificate {
        sha256,
        serial: "2a".to_owned(),
        not_after: Duration::from_secs(1_795_500_010),
        ..ClientCertificate::default()
    };
    for (kind, name) in text.split(' ').filter_map(|word| word.split_once('=')) {
        let name = name.to_owned();
        match kind {
            "cn" => {
                certificate.subject = format!("CN={name}");
                certificate.common_name = Some(name);
            }
            "o" => certificate.organization = Some(name),
            "dns" => certificate.dns.push(name),
            "uri" => certificate.uris.push(name),
            "email" => certificate.emails.push(name),
            _ => panic!("`{kind}` is no kind of name"),
        }
    }
    certificate
}

/// What becomes of each certificate.
#[track_caller]
fn check(settings: &str, certificates: &[&str], want: &Expect) {
    let world = World::default();
    let seen = match world.try_auth("mtls", settings) {
        Ok(auth) => {
            let seen = certificates.iter().map(|text| {
                let mut exchange = world.exchange("192.0.2.7 GET /");
                exchange.certificate = Some(Arc::new(certificate(text)));
                format!("{text}: {}", world.verify_exchange(&*auth, &exchange))
            });
            seen.collect::<Vec<_>>().join("\n")
        }
        Err(findings) => findings,
    };
    want.assert_eq(&seen);
}

#[test]
fn dns_names_fit_whole_labels() {
    check(
        r#"{ allow: [{ dns: "*.svc.example.com" }, { dns: "Shop.example.com" }] }"#,
        &[
            "dns=a.svc.example.com",
            "dns=x.test dns=b.svc.example.com",
            "dns=shop.example.com",
            "dns=svc.example.com",
            "dns=a.b.svc.example.com",
            "dns=.svc.example.com",
            "dns=*.svc.example.com",
            "dns=f*.svc.example.com",
            "dns=asvc.example.com",
            "dns=a.svc.example.com.",
            "dns=a.svc.example.com.evil.test",
            "cn=a.svc.example.com",
        ],
        &expect![[r#"
            dns=a.svc.example.com: idp/a.svc.example.com
            dns=x.test dns=b.svc.example.com: idp/b.svc.example.com
            dns=shop.example.com: idp/shop.example.com
            dns=svc.example.com: 401 credentials-invalid | no entry of `allow` fits the certificate: subject ``, serial 2a
            dns=a.b.svc.example.com: 401 credentials-invalid | no entry of `allow` fits the certificate: subject ``, serial 2a
            dns=.svc.example.com: 401 credentials-invalid | no entry of `allow` fits the certificate: subject ``, serial 2a
            dns=*.svc.example.com: 401 credentials-invalid | no entry of `allow` fits the certificate: subject ``, serial 2a
            dns=f*.svc.example.com: 401 credentials-invalid | no entry of `allow` fits the certificate: subject ``, serial 2a
            dns=asvc.example.com: 401 credentials-invalid | no entry of `allow` fits the certificate: subject ``, serial 2a
            dns=a.svc.example.com.: 401 credentials-invalid | no entry of `allow` fits the certificate: subject ``, serial 2a
            dns=a.svc.example.com.evil.test: 401 credentials-invalid | no entry of `allow` fits the certificate: subject ``, serial 2a
            cn=a.svc.example.com: 401 credentials-invalid | no entry of `allow` fits the certificate: subject `CN=a.svc.example.com`, serial 2a"#]],
    );
}

#[test]
fn spiffe_ids_fit_whole_segments() {
    check(
        r#"{ allow: [{ spiffe: "spiffe://example.com/ns/*/sa/shop" }, { spiffe: "spiffe://b.test/**" }], tenant: trust_domain }"#,
        &[
            "uri=spiffe://example.com/ns/prod/sa/shop",
            "uri=spiffe://b.test/any/thing",
            "uri=spiffe://example.com/ns/a/b/sa/shop",
            "uri=spiffe://example.com/ns//sa/shop",
            "uri=spiffe://example.com/ns/../sa/shop",
            "uri=spiffe://example.com/ns/*/sa/shop",
            "uri=spiffe://example.com/ns/a%2Fb/sa/shop",
            "uri=spiffe://example.com/ns/prod/sa/shop/more",
            "uri=spiffe://example.com/ns/prod/sa/shop?a",
            "uri=spiffe://Example.com/ns/prod/sa/shop",
            "uri=spiffe://example.com:1/ns/prod/sa/shop",
            "uri=SPIFFE://example.com/ns/prod/sa/shop",
            "uri=spiffe://b.test",
            "uri=spiffe://b.test/",
            "uri=https://x.test/ uri=spiffe://example.com/ns/prod/sa/shop",
        ],
        &expect![[r#"
            uri=spiffe://example.com/ns/prod/sa/shop: idp/spiffe://example.com/ns/prod/sa/shop of example.com
            uri=spiffe://b.test/any/thing: idp/spiffe://b.test/any/thing of b.test
            uri=spiffe://example.com/ns/a/b/sa/shop: 401 credentials-invalid | no entry of `allow` fits the certificate: subject ``, serial 2a
            uri=spiffe://example.com/ns//sa/shop: 401 credentials-invalid | no entry of `allow` fits the certificate: subject ``, serial 2a
            uri=spiffe://example.com/ns/../sa/shop: 401 credentials-invalid | no entry of `allow` fits the certificate: subject ``, serial 2a
            uri=spiffe://example.com/ns/*/sa/shop: 401 credentials-invalid | no entry of `allow` fits the certificate: subject ``, serial 2a
            uri=spiffe://example.com/ns/a%2Fb/sa/shop: 401 credentials-invalid | no entry of `allow` fits the certificate: subject ``, serial 2a
            uri=spiffe://example.com/ns/prod/sa/shop/more: 401 credentials-invalid | no entry of `allow` fits the certificate: subject ``, serial 2a
            uri=spiffe://example.com/ns/prod/sa/shop?a: 401 credentials-invalid | no entry of `allow` fits the certificate: subject ``, serial 2a
            uri=spiffe://Example.com/ns/prod/sa/shop: 401 credentials-invalid | no entry of `allow` fits the certificate: subject ``, serial 2a
            uri=spiffe://example.com:1/ns/prod/sa/shop: 401 credentials-invalid | no entry of `allow` fits the certificate: subject ``, serial 2a
            uri=SPIFFE://example.com/ns/prod/sa/shop: 401 credentials-invalid | no entry of `allow` fits the certificate: subject ``, serial 2a
            uri=spiffe://b.test: 401 credentials-invalid | no entry of `allow` fits the certificate: subject ``, serial 2a
            uri=spiffe://b.test/: 401 credentials-invalid | no entry of `allow` fits the certificate: subject ``, serial 2a
            uri=https://x.test/ uri=spiffe://example.com/ns/prod/sa/shop: 401 credentials-invalid | no entry of `allow` fits the certificate: subject ``, serial 2a"#]],
    );
}

#[test]
fn uris_addresses_and_fingerprints() {
    let pinned = format!("cn=pinned{}", "x".repeat(40 - 9));
    let digest = hex::of_bytes(&certificate(&pinned).sha256);
    let settings = format!(
        "{{ allow: [{{ uri: \"https://example.com/*/a\" }}, {{ uri: \"urn:a:b\" }}, \
         {{ email: \"*@Example.com\" }}, {{ email: \"ann@b.test\" }}, {{ common_name: shop }}, \
         {{ subject: \"CN=whole\" }}, {{ sha256: \"{}\" }}] }}",
        digest.to_uppercase()
    );
    check(
        &settings,
        &[
            "uri=https://example.com/b/a",
            "uri=urn:a:b",
            "email=ann@EXAMPLE.com",
            "email=ann@b.test",
            "cn=shop",
            "cn=whole",
            &pinned,
            "uri=https://example.com/b/a/c",
            "uri=http://example.com/b/a",
            "uri=urn:a:b:c",
            "email=ann@sub.example.com",
            "email=bob@b.test",
            "email=@example.com",
            "cn=Shop",
        ],
        &expect![[r#"
            uri=https://example.com/b/a: idp/https://example.com/b/a
            uri=urn:a:b: idp/urn:a:b
            email=ann@EXAMPLE.com: idp/ann@EXAMPLE.com
            email=ann@b.test: idp/ann@b.test
            cn=shop: idp/shop
            cn=whole: idp/CN=whole
            cn=pinnedxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx: idp/CN=pinnedxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx
            uri=https://example.com/b/a/c: 401 credentials-invalid | no entry of `allow` fits the certificate: subject ``, serial 2a
            uri=http://example.com/b/a: 401 credentials-invalid | no entry of `allow` fits the certificate: subject ``, serial 2a
            uri=urn:a:b:c: 401 credentials-invalid | no entry of `allow` fits the certificate: subject ``, serial 2a
            email=ann@sub.example.com: 401 credentials-invalid | no entry of `allow` fits the certificate: subject ``, serial 2a
            email=bob@b.test: 401 credentials-invalid | no entry of `allow` fits the certificate: subject ``, serial 2a
            email=@example.com: 401 credentials-invalid | no entry of `allow` fits the certificate: subject ``, serial 2a
            cn=Shop: 401 credentials-invalid | no entry of `allow` fits the certificate: subject `CN=Shop`, serial 2a"#]],
    );
}

#[test]
fn an_entry_or_a_part_says_who_it_is() {
    check(
        r#"{ allow: [{ common_name: a, client: shop, tenant: acme, scopes: [pay] }, { common_name: b }], client: organization, scopes: [read] }"#,
        &["cn=a o=Example", "cn=b o=Example", "cn=b"],
        &expect![[r#"
            cn=a o=Example: idp/shop of acme for read pay
            cn=b o=Example: idp/Example for read
            cn=b: 401 credentials-invalid | the certificate does not have what `client` asks for: subject `CN=b`, serial 2a"#]],
    );
    check(
        "{ tenant: organization }",
        &["cn=a o=Example", "cn=a", "dns=a.test o=Example"],
        &expect![[r#"
            cn=a o=Example: idp/CN=a of Example
            cn=a: 401 credentials-invalid | the certificate does not have what `tenant` asks for: subject `CN=a`, serial 2a
            dns=a.test o=Example: 401 credentials-invalid | the certificate does not have what `client` asks for: subject ``, serial 2a"#]],
    );
}

#[test]
fn without_a_certificate_nothing_is_presented() {
    let world = World::default();
    let auth = world.auth("mtls", r#"{ allow: [{ dns: "*.svc.example.com" }] }"#);
    let mut exchange = world.exchange("192.0.2.7 GET /");
    assert_eq!(auth.presented(&exchange), Presented::Nothing);
    assert_eq!(
        world.verify_exchange(&*auth, &exchange),
        "401 credentials-missing | no client certificate"
    );
    exchange.certificate = Some(Arc::default());
    assert_eq!(auth.presented(&exchange), Presented::Ambient);
    assert!(auth.needs_certificate() && auth.challenge().is_empty());
}

/// A connection may outlive its certificate, and what is remembered of it.
#[test]
fn its_end_is_looked_at_each_time() {
    let world = World::default();
    let auth = world.auth("mtls", "{}");
    let mut seen = Vec::new();
    for time in ["0ms", "9999ms", "10000ms", "20000ms"] {
        let mut exchange = world.exchange(&format!("{time} 192.0.2.7 GET /"));
        exchange.certificate = Some(Arc::new(certificate("cn=a")));
        seen.push(world.verify_exchange(&*auth, &exchange));
    }
    expect![[r#"
        idp/CN=a
        idp/CN=a
        401 credentials-expired | the certificate has expired
        401 credentials-expired | the certificate has expired"#]]
    .assert_eq(&seen.join("\n"));
}

#[test]
fn what_means_nobody_does_not_compile() {
    for settings in [
        "{ allow: [] }",
        "{ allow: [{ client: a }] }",
        "{ allow: [{ dns: a.test, email: a@b.test }] }",
        r#"{ allow: [{ dns: "a.*.test" }] }"#,
        r#"{ allow: [{ dns: "*" }] }"#,
        r#"{ allow: [{ uri: "*://a" }] }"#,
        r#"{ allow: [{ spiffe: "spiffe://*/a" }] }"#,
        r#"{ allow: [{ spiffe: "spiffe://example.com" }] }"#,
        r#"{ allow: [{ spiffe: "spiffe://example.com/ns/a*" }] }"#,
        r#"{ allow: [{ email: example.com }] }"#,
        r#"{ allow: [{ common_name: "" }] }"#,
        r#"{ allow: [{ sha256: "12:34" }] }"#,
    ] {
        let findings = World::default().try_auth("mtls", settings).map(drop).unwrap_err();
        assert!(findings.starts_with("error "), "{settings}: {findings}");
    }
}
