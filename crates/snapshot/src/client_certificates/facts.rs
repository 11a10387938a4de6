//! What a client's certificate says, in the words of `core`. Whether it holds is not asked here.
//!
//! Names are taken only as they can be compared: one that is not text of its kind, or has a NUL in
//! it, refuses the whole certificate (CVE-2026-47778).

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest as hash};
use portcullis_core::exchange::ClientCertificate;
use rustls::pki_types::CertificateDer;
use x509_parser::asn1_rs::ToDer as _;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate, X509Name};
use x509_parser::x509::AttributeTypeAndValue;

/// Names of one certificate.
const NAMES_MAX: usize = 256;

/// SHA-256 of a certificate.
pub(crate) fn digest(certificate: &[u8]) -> [u8; 32] {
    let mut digest = [0; 32];
    digest.copy_from_slice(hash(&SHA256, certificate).as_ref());
    digest
}

/// Reads a chain that has been verified at `wall`, the leaf first.
///
/// # Errors
/// For the log: it says what nobody may say.
pub fn read(
    chain: &[CertificateDer<'_>],
    wall: Duration,
) -> Result<ClientCertificate, &'static str> {
    let [leaf, between @ ..] = chain else { return Err("there is no certificate") };
    let (_, parsed) =
        X509Certificate::from_der(leaf).map_err(|_| "it is not an X.509 certificate")?;
    let subject = parsed.subject();
    let not_after = seconds(&parsed);
    // One that had ended already was not what the verification rested on.
    let ends =
        between.iter().filter_map(|one| Some(seconds(&X509Certificate::from_der(one).ok()?.1)));
    let verified_until = ends.filter(|end| *end > wall).fold(not_after, Duration::min);
    let mut certificate = ClientCertificate {
        sha256: digest(leaf),
        subject: distinguished_name(subject)?,
        common_name: only(subject.iter_common_name()),
        organization: only(subject.iter_organization()),
        organizational_unit: only(subject.iter_organizational_unit()),
        serial: format!("{:x}", parsed.serial),
        not_after,
        verified_until,
        chain: chain.iter().map(|one| one.as_ref().into()).collect(),
        ..ClientCertificate::default()
    };
    let alternative = parsed.subject_alternative_name();
    let alternative = alternative.map_err(|_| "its subjectAltName cannot be read")?;
    let names = alternative.map(|names| &names.value.general_names);
    for (at, name) in names.into_iter().flatten().enumerate() {
        if at >= NAMES_MAX {
            return Err("it has too many names");
        }
        add(&mut certificate, name)?;
    }
    Ok(certificate)
}

fn seconds(certificate: &X509Certificate<'_>) -> Duration {
    let end = certificate.validity().not_after.timestamp();
    Duration::from_secs(u64::try_from(end).unwrap_or_default())
}

fn add(certificate: &mut ClientCertificate, name: &GeneralName<'_>) -> Result<(), &'static str> {
    match name {
        GeneralName::DNSName(name) => certificate.dns.push(text(name)?.to_ascii_lowercase()),
        GeneralName::URI(uri) => certificate.uris.push(text(uri)?.to_owned()),
        GeneralName::RFC822Name(address) => certificate.emails.push(text(address)?.to_owned()),
        GeneralName::IPAddress(bytes) => certificate.ips.push(address(bytes)?),
        GeneralName::Invalid(..) => return Err("one of its names cannot be read"),
        // Nobody decides by them.
        _ => {}
    }
    Ok(())
}

/// An IA5String that can be compared and written to a log.
fn text(name: &str) -> Result<&str, &'static str> {
    let fits = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic());
    if fits { Ok(name) } else { Err("one of its names has bytes that no such name has") }
}

fn address(bytes: &[u8]) -> Result<IpAddr, &'static str> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
        .map_err(|_| "one of its names is no address")
}

/// The value of the only attribute of its kind.
fn only<'a>(mut all: impl Iterator<Item = &'a AttributeTypeAndValue<'a>>) -> Option<String> {
    let first = all.next().filter(|_| all.next().is_none())?;
    first.as_str().ok().map(str::to_owned)
}

/// Names of RFC 4514 §3, and those that everybody writes.
const ATTRIBUTES: &[(&str, &str)] = &[
    ("2.5.4.3", "CN"),
    ("2.5.4.4", "SN"),
    ("2.5.4.5", "serialNumber"),
    ("2.5.4.6", "C"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.9", "STREET"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.12", "title"),
    ("2.5.4.42", "GN"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("1.2.840.113549.1.9.1", "emailAddress"),
];

/// As RFC 4514 has it: the last part first.
fn distinguished_name(name: &X509Name<'_>) -> Result<String, &'static str> {
    let mut out = String::new();
    let parts: Vec<_> = name.iter_rdn().collect();
    for (at, part) in parts.iter().rev().enumerate() {
        for (nth, attribute) in part.iter().enumerate() {
            out.push_str(match (at, nth) {
                (0, 0) => "",
                (_, 0) => ",",
                _ => "+",
            });
            write_attribute(&mut out, attribute)?;
        }
    }
    Ok(out)
}

fn write_attribute(
    out: &mut String,
    attribute: &AttributeTypeAndValue<'_>,
) -> Result<(), &'static str> {
    let oid = attribute.attr_type().to_id_string();
    let name = ATTRIBUTES.iter().find(|(known, _)| *known == oid).map(|(_, name)| *name);
    out.push_str(name.unwrap_or(&oid));
    out.push('=');
    let text = attribute.as_str().ok().filter(|_| name.is_some());
    let Some(value) = text else {
        let der = attribute.attr_value().to_der_vec();
        out.push('#');
        for byte in der.map_err(|_| "its subject cannot be read")? {
            // Writing to a String cannot fail.
            write!(out, "{byte:02x}").unwrap_or_default();
        }
        return Ok(());
    };
    if value.chars().any(char::is_control) {
        return Err("its subject has bytes that no name has");
    }
    let last = value.chars().count().saturating_sub(1);
    for (at, char) in value.chars().enumerate() {
        let special = matches!(char, '"' | '+' | ',' | ';' | '<' | '>' | '\\')
            || (at == 0 && matches!(char, ' ' | '#'))
            || (at == last && char == ' ');
        if special {
            out.push('\\');
        }
        out.push(char);
    }
    Ok(())
}
