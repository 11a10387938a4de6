//! Names to look for in a client's certificate.
//!
//! Everything compares whole names. `*` stands for one label of a DNS name, one segment of a path,
//! or the whole local part of an address; never for part of one, and never for a `*` in a
//! certificate.

use crate::exchange::ClientCertificate;

/// SPIFFE ID §2.3.
const SPIFFE_BYTES_MAX: usize = 2048;

/// One name to look for.
#[derive(Debug, PartialEq, Eq)]
pub enum CertificateName {
    /// In lower case; with `wildcard` what follows the first label and its dot.
    Dns {
        name: String,
        wildcard: bool,
    },
    Uri(Pattern),
    Spiffe(Pattern),
    /// The local part, if it matters, and the domain in lower case.
    Email {
        local: Option<String>,
        domain: String,
    },
    CommonName(String),
    Subject(String),
    Sha256([u8; 32]),
}

/// `scheme://authority` and the segments after it; `None` is any one, and with `deep` anything may
/// follow them.
#[derive(Debug, PartialEq, Eq)]
pub struct Pattern {
    origin: String,
    segments: Vec<Option<String>>,
    deep: bool,
}

impl CertificateName {
    /// The name that fits, as the certificate has it.
    #[must_use]
    pub fn find<'c>(&self, certificate: &'c ClientCertificate) -> Option<&'c str> {
        match self {
            Self::Dns { name, wildcard } => {
                certificate.dns.iter().find(|dns| is_host(dns, name, *wildcard)).map(String::as_str)
            }
            Self::Uri(pattern) => {
                certificate.uris.iter().find(|uri| pattern.fits(uri)).map(String::as_str)
            }
            Self::Spiffe(pattern) => {
                spiffe_id(certificate).map(|(id, _)| id).filter(|id| pattern.fits(id))
            }
            Self::Email { local, domain } => certificate
                .emails
                .iter()
                .find(|email| is_email(email, local.as_deref(), domain))
                .map(String::as_str),
            Self::CommonName(name) => certificate.common_name.as_deref().filter(|cn| cn == name),
            Self::Subject(name) => Some(certificate.subject.as_str()).filter(|dn| dn == name),
            Self::Sha256(digest) => {
                (certificate.sha256 == *digest).then_some(certificate.subject.as_str())
            }
        }
    }

    /// # Errors
    /// What the operator has to write.
    pub fn dns(text: &str) -> Result<Self, &'static str> {
        let (name, wildcard) = match text.strip_prefix("*.") {
            Some(rest) => (rest, true),
            None => (text, false),
        };
        let label = |label: &str| {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
            !label.is_empty() && label.bytes().all(plain)
        };
        match name.split('.').all(label) && name.len() <= 253 {
            true => Ok(Self::Dns { name: name.to_ascii_lowercase(), wildcard }),
            false => Err("write a DNS name, or `*.` and a name: `*` is one whole label"),
        }
    }

    /// # Errors
    /// What the operator has to write.
    pub fn uri(text: &str) -> Result<Self, &'static str> {
        Pattern::read(text).map(Self::Uri)
    }

    /// # Errors
    /// What the operator has to write.
    pub fn spiffe(text: &str) -> Result<Self, &'static str> {
        let expected = "write `spiffe://TRUST-DOMAIN/PATH`, where `*` is one whole segment";
        let pattern = Pattern::read(text)?;
        let domain = pattern.origin.strip_prefix("spiffe://").ok_or(expected)?;
        match is_trust_domain(domain) && (pattern.deep || !pattern.segments.is_empty()) {
            true => Ok(Self::Spiffe(pattern)),
            false => Err(expected),
        }
    }

    /// # Errors
    /// What the operator has to write.
    pub fn email(text: &str) -> Result<Self, &'static str> {
        match text.rsplit_once('@') {
            Some((local, domain)) if !local.is_empty() && !domain.is_empty() => {
                let local = Some(local.to_owned()).filter(|local| local != "*");
                Ok(Self::Email { local, domain: domain.to_ascii_lowercase() })
            }
            _ => Err("write an address, or `*@` and a domain"),
        }
    }

    /// # Errors
    /// What the operator has to write.
    pub fn sha256(text: &str) -> Result<Self, &'static str> {
        let digits: String = text.chars().filter(|char| *char != ':').collect();
        let bytes = digits.as_bytes().chunks(2).map(|pair| {
            let pair = std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2)?;
            u8::from_str_radix(pair, 16).ok().filter(|_| !pair.starts_with('+'))
        });
        let bytes = bytes.collect::<Option<Vec<u8>>>();
        let digest = bytes.and_then(|bytes| bytes.try_into().ok());
        digest
            .map(Self::Sha256)
            .ok_or("write the SHA-256 of the certificate: 64 hexadecimal digits")
    }
}

impl Pattern {
    fn read(text: &str) -> Result<Self, &'static str> {
        let expected = "write a URI with its scheme; `*` is one whole segment, `**` at the end all";
        let (origin, path) = parts(text).ok_or(expected)?;
        let mut segments: Vec<_> = path.into_iter().flat_map(|path| path.split('/')).collect();
        let deep = segments.last() == Some(&"**");
        if deep {
            segments.pop();
        }
        let wild = |segment: &&str| segment.contains('*') && *segment != "*";
        if origin.contains('*') || segments.iter().any(wild) {
            return Err(expected);
        }
        let segments = segments.into_iter().map(|one| (one != "*").then(|| one.to_owned()));
        Ok(Self { origin: origin.to_owned(), segments: segments.collect(), deep })
    }

    fn fits(&self, uri: &str) -> bool {
        let Some((origin, path)) = parts(uri) else { return false };
        let mut found = path.into_iter().flat_map(|path| path.split('/'));
        let as_written = |wanted: &Option<String>| match (wanted, found.next()) {
            (Some(wanted), Some(segment)) => wanted == segment,
            (None, Some(segment)) => is_segment(segment),
            (_, None) => false,
        };
        if origin != self.origin || !self.segments.iter().all(as_written) {
            return false;
        }
        match (self.deep, found.next()) {
            (false, more) => more.is_none(),
            (true, None) => false,
            (true, Some(first)) => is_segment(first) && found.all(is_segment),
        }
    }
}

/// `scheme://authority`, and what comes after the slash that ends it. A URI without an authority,
/// such as `urn:a:b`, is all of it.
fn parts(uri: &str) -> Option<(&str, Option<&str>)> {
    let (scheme, rest) = uri.split_once(':')?;
    if scheme.is_empty() || rest.is_empty() {
        return None;
    }
    let Some(authority) = rest.strip_prefix("//") else { return Some((uri, None)) };
    match authority.find('/') {
        Some(at) => {
            let origin = uri.len() - authority.len() + at;
            Some((&uri[..origin], Some(&uri[origin + 1..])))
        }
        None => Some((uri, None)),
    }
}

/// What `*` stands for: nothing that anybody could read as another path.
fn is_segment(segment: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~@:+=!$&'(),".contains(&byte);
    !segment.is_empty() && !matches!(segment, "." | "..") && segment.bytes().all(plain)
}

fn is_host(dns: &str, name: &str, wildcard: bool) -> bool {
    match wildcard {
        false => dns == name,
        true => dns
            .split_once('.')
            .is_some_and(|(label, rest)| !label.is_empty() && !label.contains('*') && rest == name),
    }
}

fn is_email(email: &str, local: Option<&str>, domain: &str) -> bool {
    email.rsplit_once('@').is_some_and(|(found, at)| {
        !found.is_empty() && at.eq_ignore_ascii_case(domain) && local.is_none_or(|one| one == found)
    })
}

fn is_trust_domain(domain: &str) -> bool {
    let plain = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.' | b'_')
    };
    !domain.is_empty() && domain.len() <= 255 && domain.bytes().all(plain)
}

/// The SPIFFE ID and its trust domain. An SVID has exactly one URI (X.509-SVID §2).
#[must_use]
pub fn spiffe_id(certificate: &ClientCertificate) -> Option<(&str, &str)> {
    let [id] = certificate.uris.as_slice() else { return None };
    let rest = id.strip_prefix("spiffe://").filter(|_| id.len() <= SPIFFE_BYTES_MAX)?;
    let (domain, path) = rest.split_once('/')?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    let segment = |segment: &str| is_segment(segment) && segment.bytes().all(plain);
    (is_trust_domain(domain) && path.split('/').all(segment)).then_some((id, domain))
}
