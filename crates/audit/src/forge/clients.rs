//! Certificates of clients, by the authorities that the listeners name, and how they are shown: in
//! the handshake, or by a trusted hop in `Client-Cert` (RFC 9440).

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portcullis_config::{ClientMode, Config, Listener, Named, Network};
use rcgen::{
    CertificateParams, CertificateRevocationListParams, DnType, KeyIdMethod, RevokedCertParams,
    SanType, date_time_ymd,
};

use super::{Bad, ByListener, OnListener, Workshop, broken};
use crate::certificates::{Authority, ClientIdentity, Failure};

/// The serial number that every revocation list of the audit has.
const REVOKED: u64 = 666;
/// Years before and after any audit.
const PAST: [i32; 2] = [2001, 2002];
const FUTURE: [i32; 2] = [2190, 2199];

/// A name that a certificate must have: its kind as in `allow`, and the name, perhaps with `*`.
pub(crate) type Name = (&'static str, String);

/// What is special about a certificate.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Make {
    Good,
    Expired,
    NotYetValid,
    Revoked,
    /// By an authority that nobody has named.
    Stranger,
}

/// Where a listener has clients' certificates from.
struct Way<'a> {
    index: u16,
    ca: String,
    crl: Option<String>,
    /// The networks of trusted hops, where these hand certificates on.
    hops: Option<&'a [Network]>,
    required: bool,
}

fn ways(config: &Config) -> Vec<Way<'_>> {
    let listeners = config.listeners.iter().enumerate();
    listeners.filter_map(|(index, named)| way(index as u16, named)).collect()
}

fn way(index: u16, named: &Named<Listener>) -> Option<Way<'_>> {
    let listener = &named.value;
    let client = listener.tls.as_ref().and_then(|tls| tls.value.client.as_ref());
    if let Some(client) = client {
        let client = &client.value;
        let crl = client.crl.as_ref().map(|crl| crl.value.to_string());
        let required = client.mode == ClientMode::Require;
        return Some(Way { index, ca: client.ca.value.to_string(), crl, hops: None, required });
    }
    let header = &listener.certificate_header.as_ref()?.value;
    let crl = header.crl.as_ref().map(|crl| crl.value.to_string());
    let hops = Some(listener.trusted_proxies.as_slice());
    Some(Way { index, ca: header.ca.value.to_string(), crl, hops, required: false })
}

/// Whether any listener has a list of revoked certificates.
pub(super) fn can_revoke(config: &Config) -> bool {
    ways(config).iter().any(|way| way.crl.is_some())
}

/// Whether trusted hops hand certificates on somewhere.
pub(super) fn are_handed_on(config: &Config) -> bool {
    ways(config).iter().any(|way| way.hops.is_some())
}

/// A certificate with these names for each listener that takes any.
pub(super) fn issue(
    config: &Config,
    names: &[Name],
    make: Make,
    workshop: &mut Workshop<'_>,
) -> Result<ByListener, String> {
    let mut all = HashMap::new();
    for way in ways(config) {
        let authority = match make {
            Make::Stranger => {
                workshop.keep("stranger", |_| Authority::new("audit stranger").map_err(broken))?
            }
            _ => workshop.authority(&way.ca)?,
        };
        // A revocation list has to be there before anything of the authority is.
        provide(&way, workshop)?;
        let identity = client(&authority, names, make, workshop)?;
        let on = match way.hops {
            None => OnListener { certificate: Some(identity), ..OnListener::default() },
            Some(hops) => OnListener {
                peer: hops.iter().find_map(within),
                fields: vec![("Client-Cert".to_owned(), shown(&workshop.identities[identity]))],
                handed_on: Some(identity),
                ..OnListener::default()
            },
        };
        all.insert(way.index, on);
    }
    Ok(all)
}

/// As [`issue`], a good one.
pub(crate) fn good(
    config: &Config,
    names: &[Name],
    workshop: &mut Workshop<'_>,
) -> Result<ByListener, String> {
    issue(config, names, Make::Good, workshop)
}

/// Certificates that hold and are not what a route requires.
pub(crate) fn lacking(
    config: &Config,
    names: &[Name],
    workshop: &mut Workshop<'_>,
) -> Result<Vec<(Bad, ByListener)>, String> {
    let kind = "certificate not as required";
    let mut all = vec![(Bad::of(kind, "none"), none(config))];
    for at in 0..names.len() {
        let mut others = names.to_vec();
        let (kind_of_name, _) = others.remove(at);
        let issued = issue(config, &others, Make::Good, workshop)?;
        all.push((Bad::of(kind, format!("without its `{kind_of_name}`")), issued));
    }
    Ok(all)
}

/// The same, said by a client itself, whom no hop has asked.
pub(super) fn by_strangers(good: &ByListener) -> ByListener {
    let stranger = |on: &OnListener| OnListener { peer: None, handed_on: None, ..on.clone() };
    good.iter().map(|(listener, on)| (*listener, stranger(on))).collect()
}

/// No certificate, also where a listener demands one.
pub(super) fn none(config: &Config) -> ByListener {
    ways(config).iter().map(|way| (way.index, OnListener::default())).collect()
}

/// A certificate for each listener that lets nobody connect without, and names nobody of interest.
pub(crate) fn demanded(
    config: &Config,
    workshop: &mut Workshop<'_>,
) -> Result<HashMap<u16, usize>, String> {
    let names = [("common_name", "audit nobody".to_owned())];
    let issued = issue(config, &names, Make::Good, workshop)?;
    let required = ways(config).into_iter().filter(|way| way.required);
    let certificate = |way: Way<'_>| Some((way.index, issued.get(&way.index)?.certificate?));
    Ok(required.filter_map(certificate).collect())
}

/// The authority and the revocation list of a listener, where it refers to them.
fn provide(way: &Way<'_>, workshop: &mut Workshop<'_>) -> Result<(), String> {
    let authority = workshop.authority(&way.ca)?;
    let Some(crl) = &way.crl else { return Ok(()) };
    if !workshop.files.contains_key(crl) {
        let list = revoking(&authority).map_err(broken)?;
        workshop.files.insert(crl.clone(), list.into_bytes().into());
    }
    Ok(())
}

fn revoking(authority: &Authority) -> Result<String, Failure> {
    let revoked = RevokedCertParams {
        serial_number: REVOKED.into(),
        revocation_time: date_time_ymd(PAST[0], 1, 1),
        reason_code: None,
        invalidity_date: None,
    };
    let list = CertificateRevocationListParams {
        this_update: date_time_ymd(PAST[0], 1, 1),
        next_update: date_time_ymd(FUTURE[1], 1, 1),
        crl_number: 1_u64.into(),
        issuing_distribution_point: None,
        revoked_certs: vec![revoked],
        key_identifier_method: KeyIdMethod::Sha256,
    };
    Ok(list.signed_by(&authority.issuer)?.pem()?)
}

fn client(
    authority: &Authority,
    names: &[Name],
    make: Make,
    workshop: &mut Workshop<'_>,
) -> Result<usize, String> {
    if names.iter().any(|(kind, _)| *kind == "sha256") {
        return Err("no certificate can be made for a fingerprint".to_owned());
    }
    let serial = if make == Make::Revoked { REVOKED } else { 1000 + workshop.number() };
    let identity = authority.client(serial, |params| {
        match make {
            Make::Expired => validity(params, PAST),
            Make::NotYetValid => validity(params, FUTURE),
            _ => {}
        }
        write(params, names)
    });
    workshop.identities.push(identity.map_err(broken)?);
    Ok(workshop.identities.len() - 1)
}

fn validity(params: &mut CertificateParams, [from, to]: [i32; 2]) {
    params.not_before = date_time_ymd(from, 1, 1);
    params.not_after = date_time_ymd(to, 1, 1);
}

/// The names, and one of each kind that nobody has asked for: somebody may go by it.
fn write(params: &mut CertificateParams, names: &[Name]) -> Result<(), Failure> {
    let has = |wanted: &[&str]| names.iter().any(|(kind, _)| wanted.contains(kind));
    let mut all: Vec<(&str, String)> = Vec::new();
    for (kind, name) in names {
        all.push((kind, name.clone()));
    }
    for (kind, name) in [
        ("dns", "client.audit.invalid"),
        ("email", "client@audit.invalid"),
        ("spiffe", "spiffe://audit.invalid/client"),
    ] {
        // A certificate with a SPIFFE ID has no other URI.
        let taken = has(&[kind]) || (kind == "spiffe" && has(&["uri"]));
        if !taken {
            all.push((kind, name.to_owned()));
        }
    }
    let subject = names.iter().find(|(kind, _)| *kind == "subject");
    match subject {
        Some((_, written)) => write_subject(params, written),
        None => {
            let common_name = names.iter().find(|(kind, _)| *kind == "common_name");
            let common_name = common_name.map_or("audit-client", |(_, name)| name);
            let dn = &mut params.distinguished_name;
            dn.push(DnType::OrganizationName, "audit-organization");
            dn.push(DnType::OrganizationalUnitName, "audit-unit");
            dn.push(DnType::CommonName, common_name);
        }
    }
    for (kind, name) in all {
        let san = match kind {
            "dns" => SanType::DnsName(name.replace('*', "audit").try_into()?),
            "uri" | "spiffe" => SanType::URI(filled(&name).try_into()?),
            "email" => SanType::Rfc822Name(name.replace('*', "audit").try_into()?),
            _ => continue,
        };
        params.subject_alt_names.push(san);
    }
    Ok(())
}

/// `*` is one segment, and so many as `**` needs.
fn filled(uri: &str) -> String {
    uri.replace("**", "audit").replace('*', "audit")
}

/// `CN=shop,O=Example`: in a certificate the last one comes first.
fn write_subject(params: &mut CertificateParams, written: &str) {
    for part in written.rsplit(',') {
        let (kind, value) = part.split_once('=').unwrap_or((part, ""));
        let kind = match kind.trim() {
            "CN" => DnType::CommonName,
            "O" => DnType::OrganizationName,
            "OU" => DnType::OrganizationalUnitName,
            "C" => DnType::CountryName,
            "L" => DnType::LocalityName,
            "ST" => DnType::StateOrProvinceName,
            _ => continue,
        };
        params.distinguished_name.push(kind, value);
    }
}

/// As a hop says it (RFC 9440 §2.2).
fn shown(identity: &ClientIdentity) -> String {
    let leaf = identity.chain.first().map(|leaf| leaf.as_ref()).unwrap_or_default();
    format!(":{}:", STANDARD.encode(leaf))
}

/// An address of a network that is not the audit's own.
fn within(network: &Network) -> Option<IpAddr> {
    match network.address {
        IpAddr::V4(address) => {
            let bits = address.to_bits() | u32::from(network.prefix < 31);
            Some(Ipv4Addr::from_bits(bits).into())
        }
        address @ IpAddr::V6(_) => Some(address),
    }
}

/// What the gateway reads in each of the certificates, for whoever asks the oracle.
pub(crate) fn facts(
    identities: &[ClientIdentity],
    wall: std::time::Duration,
) -> Vec<Option<Arc<portcullis_core::exchange::ClientCertificate>>> {
    let read = |identity: &ClientIdentity| {
        portcullis_snapshot::client_certificates::facts::read(&identity.chain, wall).ok()
    };
    identities.iter().map(|identity| read(identity).map(Arc::new)).collect()
}
