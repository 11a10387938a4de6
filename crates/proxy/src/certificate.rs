//! Whose certificate a request comes with: that of its connection, or of a trusted hop's client
//! (RFC 9440).
//!
//! What the handshake has verified does not hold for ever: it is verified again once something that
//! it rested on has ended, and when a reload has changed what the listener asks. Whom a certificate
//! lets in is for policies to say.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use portcullis_core::exchange::{ClientCertificate, TlsFacts};
use portcullis_core::planted::{Fault, is_planted};
use portcullis_core::{Exchange, Fields, Problem, codes};
use portcullis_snapshot::client_certificates::CHAIN_MAX;
use portcullis_snapshot::{ClientCertificates, Listener};
use rustls::HandshakeKind;

const CERTIFICATE: &[u8] = b"client-cert";
const CHAIN: &[u8] = b"client-cert-chain";

/// The certificate of a handshake that has just ended.
///
/// # Errors
/// For the log: why the connection cannot stay.
pub(crate) fn established(
    session: &rustls::Connection,
    asked: &ClientCertificates,
    wall: Duration,
) -> Result<Option<Arc<ClientCertificate>>, String> {
    let chain = session.peer_certificates().unwrap_or_default();
    if chain.is_empty() {
        // Tickets are good for nothing where more is asked than where they were given; this is for
        // whatever else may lead around the question.
        return if asked.required { Err("there is no certificate".to_owned()) } else { Ok(None) };
    }
    match session.handshake_kind() {
        // rustls takes the certificate of the first connection as it is in the ticket.
        Some(HandshakeKind::Resumed) => asked.verify(chain, wall).map(Some),
        _ => asked.read(chain, wall).map(|certificate| Some(Arc::new(certificate))),
    }
}

/// Notes whose certificate the request comes with, as far as it still holds.
///
/// # Errors
/// The client has to connect anew, or a trusted hop says what is not so.
pub(crate) fn seat(listener: &Listener, exchange: &mut Exchange) -> Result<(), Problem> {
    let wall = exchange.now.wall;
    let mut certificate = match &exchange.connection.tls {
        Some(tls) => of_connection(listener, tls, wall)?,
        None => None,
    };
    if let Some(asked) = &listener.certificate_header
        && (listener.trusts(exchange.connection.peer.ip().to_canonical())
            || is_planted(Fault::CertificateOfAnybody))
    {
        // That of the connection is the hop's own, and never its client's.
        certificate = handed_on(&exchange.request.fields, asked, wall)?;
    }
    exchange.certificate = certificate;
    Ok(())
}

fn of_connection(
    listener: &Listener,
    tls: &TlsFacts,
    wall: Duration,
) -> Result<Option<Arc<ClientCertificate>>, Problem> {
    let asked = listener.tls.as_ref().and_then(|tls| tls.client.as_ref());
    let Some(asked) = asked else { return Ok(None) };
    // A new connection gets the chance to present another one.
    let misdirected = |detail: String| Problem::new(codes::MISDIRECTED_REQUEST).detail(detail);
    match &tls.certificate {
        None if asked.required => {
            Err(misdirected("since this client connected a certificate is required".to_owned()))
        }
        None => Ok(None),
        Some(certificate)
            if certificate.verified_by == asked.id && wall < certificate.verified_until =>
        {
            Ok(Some(Arc::clone(certificate)))
        }
        Some(certificate) => asked
            .verify(&certificate.chain, wall)
            .map(Some)
            .map_err(|reason| misdirected(format!("the client's certificate: {reason}"))),
    }
}

/// What a trusted hop says of its client's certificate.
fn handed_on(
    fields: &Fields,
    asked: &ClientCertificates,
    wall: Duration,
) -> Result<Option<Arc<ClientCertificate>>, Problem> {
    let mut found = fields.get_all(CERTIFICATE);
    let leaf = found.next();
    let malformed = |detail| Problem::new(codes::MALFORMED_REQUEST).detail(detail);
    if found.next().is_some() {
        return Err(malformed("there are two `Client-Cert`"));
    }
    let lists = fields.get_all(CHAIN).flat_map(|list| list.split(|byte| *byte == b','));
    let Some(leaf) = leaf else {
        return match fields.get(CHAIN) {
            Some(_) => Err(malformed("there is `Client-Cert-Chain` and no `Client-Cert`")),
            None => Ok(None),
        };
    };
    let items = [leaf].into_iter().chain(lists).take(CHAIN_MAX + 1);
    let chain: Option<Vec<Vec<u8>>> = items.map(byte_sequence).collect();
    let chain = chain.ok_or_else(|| malformed("`Client-Cert` is not a byte sequence"))?;
    let verified = asked.verify(&chain, wall).map(Some);
    verified.map_err(|reason| {
        let detail = format!("the certificate that a trusted hop hands on: {reason}");
        Problem::new(codes::CREDENTIALS_INVALID).detail(detail)
    })
}

/// `:BASE64:` (RFC 8941 §3.3.5).
fn byte_sequence(item: &[u8]) -> Option<Vec<u8>> {
    let inner = item.trim_ascii().strip_prefix(b":")?.strip_suffix(b":")?;
    BASE64_STANDARD.decode(inner).ok()
}

/// Tells the backend. What the client may have said of it has been removed.
pub(crate) fn forward(exchange: &mut Exchange) {
    let leaf = exchange.certificate.as_ref().and_then(|certificate| certificate.chain.first());
    if let Some(leaf) = leaf {
        let value = format!(":{}:", BASE64_STANDARD.encode(leaf));
        exchange.request.fields.append(CERTIFICATE, value.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_sequence_is_base64_between_colons() {
        for (item, read) in [
            (":YQ==:", Some(&b"a"[..])),
            ("  :YWJj:\t", Some(b"abc")),
            ("YQ==", None),
            (":YQ==", None),
            (":YQ:", None),
            (":Y Q==:", None),
            (":YQ==:;a=1", None),
            (":", None),
            ("", None),
        ] {
            assert_eq!(byte_sequence(item.as_bytes()).as_deref(), read, "{item}");
        }
    }
}
