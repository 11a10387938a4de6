//! `cargo xtask bench idle`: what a connection costs that waits for its next request.
//!
//! Each connection gets one answer and is then left alone. Memory is `RssAnon`, what the process
//! has touched that no file backs; the kernel's own memory for a socket is not in it. What the
//! first tenth of the connections cost is not counted, since the process grows with them in ways
//! that it does only once.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use anyhow::{Context, bail};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};

use super::peers::{Peer, Server};
use crate::steps::{cargo, output, run, step};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: bench.example\r\n\r\n";

pub(crate) fn idle(arguments: &[&str]) -> anyhow::Result<()> {
    let (mut plain, mut tls) = (10_000, 2_000);
    for pair in arguments.chunks(2) {
        match pair {
            ["--connections", number] => plain = number.parse().context("--connections")?,
            ["--tls", number] => tls = number.parse().context("--tls")?,
            other => bail!("bench idle does not know {other:?}"),
        }
    }
    check_descriptors(plain.max(tls))?;
    step("release build", || {
        run(cargo(&["build", "--release", "--locked", "--package", "portcullis"]))
    })?;
    let folder = super::folder()?;
    let peer = Peer::IDLE;
    step("connections", || {
        let server = peer.start(&folder)?;
        report("HTTP/1.1", plain, &server, || plain_connection(peer.plain_port))?;
        drop(server);
        let server = peer.start(&folder)?;
        let config = Arc::new(trusting());
        report("HTTP/1.1 over TLS", tls, &server, || tls_connection(peer.tls_port, &config))
    })
}

/// Client and server each need one descriptor for a connection.
fn check_descriptors(connections: usize) -> anyhow::Result<()> {
    let mut sh = crate::steps::command("sh", &["-c", "ulimit -n"]);
    sh.stdin(std::process::Stdio::null());
    let said = output(sh)?;
    match said.trim().parse::<usize>() {
        Ok(limit) if limit < connections + 100 => {
            bail!("`ulimit -n` is {limit}; raise it above {}", connections + 100)
        }
        _ => Ok(()),
    }
}

/// Opens connections and prints what one of them costs the server.
fn report<T>(
    name: &str,
    connections: usize,
    server: &Server,
    open: impl Fn() -> anyhow::Result<T>,
) -> anyhow::Result<()> {
    let few = connections / 10;
    let mut kept = Vec::with_capacity(connections);
    let mut open_up_to = |wanted: usize| -> anyhow::Result<u64> {
        while kept.len() < wanted {
            kept.push(open().with_context(|| format!("connection {}", kept.len()))?);
        }
        rss_anon(server.process())
    };
    let (none, few_cost, all_cost) = (open_up_to(0)?, open_up_to(few)?, open_up_to(connections)?);
    let each = all_cost.saturating_sub(few_cost) as f64 / (connections - few).max(1) as f64;
    println!(
        "   {name}: RssAnon {} KiB without, {} KiB with {few}, {} KiB with {connections} \
         connections: {each:.0} bytes each",
        none / 1024,
        few_cost / 1024,
        all_cost / 1024,
    );
    Ok(())
}

/// Bytes.
fn rss_anon(process: u32) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")).context("RssAnon")?;
    Ok(kib.trim().parse::<u64>()? * 1024)
}

fn plain_connection(port: u16) -> anyhow::Result<TcpStream> {
    let mut tcp = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port)))?;
    ask(&mut tcp)?;
    Ok(tcp)
}

fn tls_connection(
    port: u16,
    config: &Arc<ClientConfig>,
) -> anyhow::Result<StreamOwned<ClientConnection, TcpStream>> {
    let tcp = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port)))?;
    let name = ServerName::try_from("bench.example")?;
    let mut tls = StreamOwned::new(ClientConnection::new(Arc::clone(config), name)?, tcp);
    ask(&mut tls)?;
    Ok(tls)
}

fn ask(io: &mut (impl Read + Write)) -> anyhow::Result<()> {
    io.write_all(REQUEST)?;
    io.flush()?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\nok") {
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
