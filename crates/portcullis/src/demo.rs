//! `portcullis demo`: a gateway with everything around it on loopback, and lines to try it with.

mod backends;
mod issuer;

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;

use crate::cli;
use crate::run::{Running, Signals};
use issuer::Issuer;

pub(crate) fn run(arguments: &cli::Demo) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, start(arguments))
}

async fn start(arguments: &cli::Demo) -> anyhow::Result<ExitCode> {
    let directory = tempfile::Builder::new().prefix("portcullis-demo-").tempdir()?;
    let issuer = Issuer::start().await.context("the token issuer")?;
    let stable = backends::start("orders-v1").await?;
    let canary = backends::start("orders-v2").await?;
    certificate(directory.path())?;
    let config = directory.path().join("portcullis.yaml");
    let text = configuration(arguments.port, issuer.url(), stable, canary);
    std::fs::write(&config, text)?;
    let signals = Signals::new()?;
    let running = match Running::start(&config, None)? {
        Ok(running) => running,
        Err(status) => return Ok(status),
    };
    let gateway = running.gateway();
    let address = gateway.address("https").context("the listener")?;
    let probes = running.probes();
    print(&lines(directory.path(), address, probes, &issuer)?);
    Ok(running.until_stopped(signals).await)
}

/// A certificate for `localhost` and the authority that signed it, as PEM files.
fn certificate(directory: &Path) -> anyhow::Result<()> {
    let mut authority = rcgen::CertificateParams::new(Vec::new())?;
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    authority.distinguished_name.push(rcgen::DnType::CommonName, "Portcullis demo authority");
    let authority_key = rcgen::KeyPair::generate()?;
    let authority_certificate = authority.self_signed(&authority_key)?;
    let issuer = rcgen::Issuer::new(authority, authority_key);
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let key = rcgen::KeyPair::generate()?;
    let certificate = rcgen::CertificateParams::new(names)?.signed_by(&key, &issuer)?;
    std::fs::write(directory.join("ca.pem"), authority_certificate.pem())?;
    std::fs::write(directory.join("localhost.pem"), certificate.pem())?;
    std::fs::write(directory.join("localhost.key"), key.serialize_pem())?;
    Ok(())
}

fn configuration(port: u16, issuer: &str, stable: SocketAddr, canary: SocketAddr) -> String {
    let probes = if port == 0 { "127.0.0.1:0" } else { "127.0.0.1:9901" };
    format!(
        r#"# The demo's configuration. Edit it while the demo runs: it is re-read within a second.
listeners:
  https:
    bind: "127.0.0.1:{port}"
    tls: {{ certificates: [{{ cert: "file:localhost.pem", key: "file:localhost.key" }}] }}

auth:
  idp: {{ jwt: {{ issuer: "{issuer}", audience: [orders] }} }}

defaults: {{ auth: idp }}

routes:
  orders:                                   # a canary by weight
    match: /orders/**
    require: {{ scopes: ["orders:read"] }}
    limits: ["1000/s per client"]
    to: {{ orders-v1: 90, orders-v2: 10 }}
  reports:                                  # asks for a scope that the demo's token lacks
    match: /reports/**
    require: {{ scopes: ["reports:read"] }}
    to: orders-v1
  scarce:
    match: /scarce
    limits: ["3/m per client"]
    to: orders-v1
  status:
    match: /status
    public: "load balancer probe, carries no data"
    respond: {{ status: 200, body: ok }}

backends:
  orders-v1: "http://{stable}"
  orders-v2: "http://{canary}"

probes: "{probes}"
access_log: "file:access.log"
shutdown: {{ drain_delay: 0s }}

tests:
  - GET https://localhost/orders/1 => 401
  - GET https://localhost/orders/1 as idp with scopes orders:read => orders
  - GET https://localhost/reports/1 as idp with scopes orders:read => 403
  - GET https://localhost/status => 200
"#
    )
}

/// What the demo prints: a status, and the line that gives it.
fn lines(
    directory: &Path,
    gateway: SocketAddr,
    probes: Option<SocketAddr>,
    issuer: &Issuer,
) -> anyhow::Result<String> {
    let token = issuer.token("demo", &["orders:read"])?;
    std::fs::write(directory.join("token"), &token)?;
    let dir = directory.display();
    let base = format!("https://localhost:{}", gateway.port());
    let curl = format!("curl -s --cacert {dir}/ca.pem");
    let bearer = format!("-H \"Authorization: Bearer $(cat {dir}/token)\"");
    let code = "-o /dev/null -w '%{http_code}\\n'";
    let mut text = format!(
        "\nPortcullis listens on {base}\n\n\
         200  {curl} {bearer} {base}/orders/1\n\
         401  {curl} {base}/orders/1\n\
         403  {curl} {bearer} {base}/reports/1\n\
         429  for i in 1 2 3 4; do {curl} {code} {bearer} {base}/scarce; done\n\
         90/10  for i in $(seq 100); do {curl} {bearer} {base}/orders/$i; done \
         | grep -o 'orders-v.' | sort | uniq -c\n\n"
    );
    if let Some(probes) = probes {
        text += &format!("metrics        curl -s http://{probes}/metrics\n");
    }
    text += &format!(
        "access log     tail -f {dir}/access.log\n\
         configuration  {dir}/portcullis.yaml (edit it: no connection is dropped)\n\n\
         Ctrl-C stops it.\n"
    );
    Ok(text)
}

#[expect(clippy::print_stdout, reason = "this is what the verb is for")]
fn print(text: &str) {
    use std::io::Write as _;
    print!("{text}");
    // Whoever reads through a pipe waits for it.
    drop(std::io::stdout().flush());
}
