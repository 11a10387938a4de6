//! `handshakes`: full TLS 1.3 handshakes as fast as a few connections can make them, each followed
//! by one request. Nothing is resumed, where wrk offers the last ticket back. Prints one line of
//! JSON: {requests, errors, seconds, p50_us, p99_us, p999_us}.
#![expect(clippy::print_stdout, reason = "its report")]
#![expect(clippy::print_stderr, reason = "and what went wrong")]
#![expect(clippy::disallowed_types, reason = "it measures time")]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail};
use clap::Parser;
use portcullis_bench::tls;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use serde_json::json;

#[derive(Clone, Debug, Parser)]
struct Arguments {
    #[arg(long)]
    address: SocketAddr,
    #[arg(long)]
    host: String,
    #[arg(long)]
    path: String,
    #[arg(long, default_value_t = 8)]
    connections: usize,
    #[arg(long, default_value_t = 5)]
    seconds: u64,
}

fn main() -> anyhow::Result<()> {
    let plan = Arguments::parse();
    let config = Arc::new(config()?);
    let started = Instant::now();
    let end = started + Duration::from_secs(plan.seconds);
    let threads: Vec<_> = (0..plan.connections)
        .map(|_| {
            let (plan, config) = (plan.clone(), Arc::clone(&config));
            thread::spawn(move || until(end, &plan, &config))
        })
        .collect();
    let (mut times_us, mut errors) = (Vec::new(), 0);
    for thread in threads {
        let (times, failed) = thread.join().map_err(|_| anyhow!("a thread panicked"))?;
        times_us.extend(times);
        errors += failed;
    }
    let seconds = started.elapsed().as_secs_f64();
    times_us.sort_unstable();
    let at = |share: f64| {
        let index = (times_us.len() as f64 * share) as usize;
        times_us.get(index).or(times_us.last()).copied().unwrap_or(0)
    };
    println!(
        "{}",
        json!({
            "requests": times_us.len(), "errors": errors, "seconds": seconds,
            "p50_us": at(0.5), "p99_us": at(0.99), "p999_us": at(0.999),
        })
    );
    Ok(())
}

/// Microseconds that each took, from connecting to the end of the answer, and how many failed.
fn until(end: Instant, plan: &Arguments, config: &Arc<ClientConfig>) -> (Vec<u64>, u64) {
    let (mut times_us, mut failed) = (Vec::new(), 0);
    while Instant::now() < end {
        let started = Instant::now();
        match once(plan, config) {
            Ok(()) => times_us.push(started.elapsed().as_micros() as u64),
            Err(error) => {
                failed += 1;
                eprintln!("{error:#}");
            }
        }
    }
    (times_us, failed)
}

fn once(plan: &Arguments, config: &Arc<ClientConfig>) -> anyhow::Result<()> {
    let tcp = TcpStream::connect(plan.address)?;
    tcp.set_nodelay(true)?;
    tcp.set_read_timeout(Some(Duration::from_secs(10)))?;
    let name = ServerName::try_from(plan.host.clone())?;
    let mut tls = StreamOwned::new(ClientConnection::new(Arc::clone(config), name)?, tcp);
    let (path, host) = (&plan.path, &plan.host);
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    tls.write_all(request.as_bytes())?;
    let mut answer = Vec::with_capacity(1024);
    // Some servers close without TLS's own good-bye, and then what has come is the whole.
    let ended = tls.read_to_end(&mut answer);
    if !answer.starts_with(b"HTTP/1.1 200 ") {
        ended?;
        bail!("not a good answer");
    }
    Ok(())
}

/// One cipher suite and one group, so that all servers do the same.
fn config() -> Result<ClientConfig, rustls::Error> {
    tls::client_with(CryptoProvider {
        cipher_suites: vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256],
        kx_groups: vec![aws_lc_rs::kx_group::X25519],
        ..aws_lc_rs::default_provider()
    })
}
