//! What a connection costs that waits for its next request.
//!
//! Each connection gets one answer and is then left alone. Memory is `RssAnon`, what the process
//! has touched that no file backs; the kernel's own memory for a socket is not in it. What the
//! first tenth of the connections cost is not counted, since the process grows with them in ways
//! that it does only once.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};

use super::peers::{PLAIN, Peer, TLS};
use super::process::{local, memory_kib};
use super::report::Row;
use super::{Plan, Server};
use crate::steps::{command, output};

const REQUEST: &[u8] = b"GET /small HTTP/1.1\r\nHost: bench.example\r\n\r\n";
/// How many connections.
const CLEAR: usize = 10_000;
const ENCRYPTED: usize = 2_000;

pub(super) fn measure(plan: &Plan, folder: &Path, rows: &mut Vec<Row>) -> anyhow::Result<()> {
    check_descriptors(CLEAR)?;
    let config = Arc::new(trusting());
    for peer in plan.peers_for('k') {
        let mut row = |name: &str, values| rows.push(Row::new('k', name, peer.name, 0, values));
        let clear = one(peer, folder, CLEAR, plain_connection).context(peer.name)?;
        row("10,000 idle connections, HTTP/1.1", clear);
        let encrypted = one(peer, folder, ENCRYPTED, || tls_connection(&config));
        row("2,000 idle connections, HTTP/1.1 over TLS 1.3", encrypted.context(peer.name)?);
    }
    Ok(())
}

/// Client and server each need one descriptor for a connection.
fn check_descriptors(connections: usize) -> anyhow::Result<()> {
    let said = output(command("sh", &["-c", "ulimit -n"]))?;
    match said.trim().parse::<usize>() {
        Ok(limit) if limit < connections + 200 => {
            bail!("`ulimit -n` is {limit}; raise it above {}", connections + 200)
        }
        _ => Ok(()),
    }
}

/// Opens connections to a fresh server and tells what one of them costs it.
fn one<T>(
    peer: &Peer,
    folder: &Path,
    connections: usize,
    open: impl Fn() -> anyhow::Result<T>,
) -> anyhow::Result<Vec<(&'static str, f64)>> {
    peer.configure(folder, 0)?;
    let server: Server = peer.start(folder)?;
    let few = connections / 10;
    let mut kept = Vec::with_capacity(connections);
    let mut open_up_to = |wanted: usize| -> anyhow::Result<f64> {
        while kept.len() < wanted {
            kept.push(open().with_context(|| format!("connection {}", kept.len()))?);
        }
        Ok(memory_kib(server.process())? as f64)
    };
    let (none, with_few, with_all) = (open_up_to(0)?, open_up_to(few)?, open_up_to(connections)?);
    let each = (with_all - with_few) * 1024.0 / (connections - few) as f64;
    Ok(vec![
        ("bytes each", each),
        ("MiB without", none / 1024.0),
        ("MiB with all", with_all / 1024.0),
    ])
}

fn plain_connection() -> anyhow::Result<TcpStream> {
    let mut tcp = TcpStream::connect(local(PLAIN))?;
    ask(&mut tcp)?;
    Ok(tcp)
}

fn tls_connection(
    config: &Arc<ClientConfig>,
) -> anyhow::Result<StreamOwned<ClientConnection, TcpStream>> {
    let tcp = TcpStream::connect(local(TLS))?;
    // The request follows the handshake's last message, which nobody hastens to acknowledge.
    tcp.set_nodelay(true)?;
    let name = ServerName::try_from("bench.example")?;
    let mut tls = StreamOwned::new(ClientConnection::new(Arc::clone(config), name)?, tcp);
    ask(&mut tls)?;
    Ok(tls)
}

fn ask(io: &mut (impl Read + Write)) -> anyhow::Result<()> {
    io.write_all(REQUEST)?;
    io.flush()?;
    let mut answer = Vec::new();
    while !answer.ends_with(&[b'a'; 128]) {
        let mut piece = [0; 1024];
        let n = io.read(&mut piece)?;
        if n == 0 {
            bail!("closed after {}", answer.escape_ascii());
        }
        answer.extend_from_slice(&piece[..n]);
    }
    Ok(())
}

/// The bench's own server has a certificate that nobody has signed.
fn trusting() -> ClientConfig {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = Arc::new(Anybody(Arc::clone(&provider)));
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13]);
    let builder = builder.unwrap_or_else(|error| unreachable!("TLS 1.3 is there: {error}"));
    builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()
}

#[derive(Debug)]
struct Anybody(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
