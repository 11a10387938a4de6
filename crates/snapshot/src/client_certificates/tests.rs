use std::time::Duration;

use expect_test::expect;
use rcgen::{
    CertificateParams, CustomExtension, DistinguishedName, DnType, DnValue, KeyPair, SanType,
    date_time_ymd,
};
use rustls::pki_types::CertificateDer;

use super::facts;

fn signed(change: impl FnOnce(&mut CertificateParams)) -> CertificateDer<'static> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name = DistinguishedName::new();
    params.serial_number = Some(0x2a_u64.into());
    params.not_after = date_time_ymd(2030, 1, 1);
    change(&mut params);
    params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
}

fn dns(name: &str) -> SanType {
    SanType::DnsName(name.to_owned().try_into().unwrap())
}

#[test]
fn a_certificate_is_read_whole() {
    let leaf = signed(|params| {
        let name = &mut params.distinguished_name;
        name.push(DnType::OrganizationName, "Example, Inc.");
        name.push(DnType::OrganizationalUnitName, "#1+<x>;\"\\");
        name.push(DnType::CommonName, " shop ");
        name.push(DnType::CustomDnType(vec![1, 2, 3, 4]), "other");
        params.subject_alt_names = vec![
            dns("A.Example.com"),
            dns("*.example.com"),
            SanType::URI("spiffe://example.com/a".to_owned().try_into().unwrap()),
            SanType::Rfc822Name("Ann@Example.com".to_owned().try_into().unwrap()),
            SanType::IpAddress("192.0.2.7".parse().unwrap()),
            SanType::IpAddress("2001:db8::1".parse().unwrap()),
        ];
    });
    let between = signed(|params| params.not_after = date_time_ymd(2028, 1, 1));
    let ended = signed(|params| params.not_after = date_time_ymd(2020, 1, 1));
    let wall = Duration::from_secs(1_782_000_000);
    let mut read = facts::read(&[leaf.clone(), between, ended], wall).unwrap();
    assert_eq!(read.chain.len(), 3);
    assert_eq!(read.sha256, facts::digest(&leaf));
    read.sha256 = [0; 32];
    read.chain.clear();
    let read = format!("{read:#?}").replace("        0,\n", "");
    expect![[r##"
        ClientCertificate {
            sha256: [
            ],
            subject: "1.2.3.4=#0c056f74686572,CN=\\ shop\\ ,OU=\\#1\\+\\<x\\>\\;\\\"\\\\,O=Example\\, Inc.",
            common_name: Some(
                " shop ",
            ),
            organization: Some(
                "Example, Inc.",
            ),
            organizational_unit: Some(
                "#1+<x>;\"\\",
            ),
            dns: [
                "a.example.com",
                "*.example.com",
            ],
            uris: [
                "spiffe://example.com/a",
            ],
            emails: [
                "Ann@Example.com",
            ],
            ips: [
                192.0.2.7,
                2001:db8::1,
            ],
            serial: "2a",
            not_after: 1893456000s,
            verified_until: 1830297600s,
            verified_by: 0,
            chain: [],
        }"##]].assert_eq(&read);
}

#[test]
fn names_that_nobody_can_compare_refuse() {
    let names = |names: Vec<SanType>| signed(|params| params.subject_alt_names = names);
    let subject =
        |kind: DnType, value: DnValue| signed(|params| params.distinguished_name.push(kind, value));
    let utf8 = |text: &str| DnValue::Utf8String(text.to_owned());
    // A dNSName that is no ASCII, which no honest tool writes.
    let raw = |der: &[u8]| {
        let der = der.to_vec();
        signed(|params| {
            let extension = CustomExtension::from_oid_content(&[2, 5, 29, 17], der);
            params.custom_extensions.push(extension);
        })
    };
    for (what, certificate, expected) in [
        ("plain", names(vec![dns("a.test")]), Ok(())),
        ("NUL", names(vec![dns("a.test"), dns("admin.test\0.evil.test")]), Err(())),
        ("blank", names(vec![dns("a test")]), Err(())),
        ("line end", names(vec![SanType::URI("a:b\n".to_owned().try_into().unwrap())]), Err(())),
        (
            "NUL in an address",
            names(vec![SanType::Rfc822Name("a@b\0.test".to_owned().try_into().unwrap())]),
            Err(()),
        ),
        ("empty", names(vec![dns("")]), Err(())),
        ("no ASCII", raw(b"\x30\x04\x82\x02\xc3\xa9"), Err(())),
        ("no UTF-8", raw(b"\x30\x04\x82\x02\xff\xfe"), Err(())),
        ("no name at all", raw(b"\x30\x04\x82\x09ab"), Err(())),
        ("an odd address", raw(b"\x30\x05\x87\x03\x01\x02\x03"), Err(())),
        ("too many", names((0..257).map(|n| dns(&format!("{n}.test"))).collect()), Err(())),
        ("as many as may be", names((0..256).map(|n| dns(&format!("{n}.test"))).collect()), Ok(())),
        ("NUL in the subject", subject(DnType::CommonName, utf8("a\0b")), Err(())),
        ("umlauts in the subject", subject(DnType::CommonName, utf8("M\u{fc}ller")), Ok(())),
    ] {
        let read = facts::read(&[certificate], Duration::ZERO);
        assert_eq!(read.as_ref().map(drop).map_err(drop), expected, "{what}: {read:?}");
    }
}

#[test]
fn what_is_no_certificate_is_told() {
    assert!(facts::read(&[], Duration::ZERO).is_err());
    assert!(facts::read(&[CertificateDer::from(&b"a"[..])], Duration::ZERO).is_err());
}
