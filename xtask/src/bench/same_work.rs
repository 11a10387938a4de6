//! Before anything is measured: that every peer answers, and does the same work. What reaches the
//! backend is what its `/seen` tells.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};

use super::peers::{PLAIN, Peer, REAL, TLS};
use super::scenarios::MANY_ROUTES;
use crate::steps::output;

pub(super) fn check(peer: &Peer, folder: &Path) -> anyhow::Result<()> {
    check_all(peer, folder).with_context(|| format!("{} does not do the same work", peer.name))
}

fn check_all(peer: &Peer, folder: &Path) -> anyhow::Result<()> {
    peer.configure(folder, MANY_ROUTES)?;
    let server = peer.start(folder)?;
    let get = |port: u16, path: &str, more: &[&str]| curl(folder, port, path, more);
    expect(&get(PLAIN, "/small", &[])?, "200 1.1 128")?;
    expect(&get(PLAIN, "/16k", &[])?, "200 1.1 16384")?;
    expect(&get(PLAIN, "/1m", &[])?, "200 1.1 1048576")?;
    expect(&get(PLAIN, "/upload", &["--data-binary", "@1m.bin"])?, "200 1.1 5")?;
    if !peer.does('c') {
        return Ok(());
    }
    seen(&get(PLAIN, "/seen", &[])?, &["for=1", "proto=http\n", "request-id="])?;
    expect(&get(PLAIN, "/nothing", &[])?, "404 1.1")?;
    for n in [0, MANY_ROUTES - 1] {
        expect(&get(PLAIN, &format!("/r{n}/orders/7"), &[])?, "200 1.1 128")?;
    }
    seen(&get(TLS, "/seen", &["--http1.1"])?, &["for=1", "proto=https\n", "request-id="])?;
    expect(&get(TLS, "/small", &["--http2"])?, "200 2 128")?;
    let call = ["--http2", "-i", "--data-binary", "@call.bin", "-H", "te: trailers"];
    let call = [&call[..], &["-H", "content-type: application/grpc"]].concat();
    let answer = get(TLS, "/bench.Echo/Unary", &call)?;
    expect(&answer, "200 2 128")?;
    if peer.does('i') {
        for issuer in ["es256", "rs256"] {
            real_job(peer, folder, issuer).context(issuer)?;
        }
    }
    drop(server);
    // Some write it when they end.
    let log = ["access.log", "haproxy.out"].map(|name| fs::read_to_string(folder.join(name)));
    if !log
        .into_iter()
        .flatten()
        .any(|log| log.contains("\"path\":\"/small\"") || log.contains("\"uri\":\"/small\""))
    {
        bail!("there is no line in the access log");
    }
    Ok(())
}

fn real_job(peer: &Peer, folder: &Path, issuer: &str) -> anyhow::Result<()> {
    let token = fs::read_to_string(folder.join(format!("{issuer}.token")))?;
    let with = |token: &str| format!("Authorization: Bearer {token}");
    let get = |more: &[&str]| curl(folder, REAL, "/seen", more);
    let good = get(&["--http1.1", "-H", &with(token.trim())])?;
    seen(&good, &["for=1", "proto=https\n", "request-id=", "traceparent=00-"])?;
    if peer.verifies {
        let (signed, signature) = token.trim().rsplit_once('.').context("no token")?;
        let other = if signature.starts_with('A') { 'B' } else { 'A' };
        let forged = format!("{signed}.{other}{}", &signature[1..]);
        expect(&get(&["-H", &with(&forged)])?, "401")?;
        expect(&get(&[])?, "401")?;
    }
    Ok(())
}

/// The body (and with `-i` the head), and then status, version and the body's size.
fn curl(folder: &Path, port: u16, path: &str, more: &[&str]) -> anyhow::Result<String> {
    let scheme = if port == PLAIN { "http" } else { "https" };
    let mut curl = Command::new("curl");
    curl.args(["-s", "-k", "-m", "10", "-w", "\n%{http_code} %{http_version} %{size_download}"]);
    curl.args(["--resolve", &format!("bench.example:{port}:127.0.0.1")]).args(more);
    curl.arg(format!("{scheme}://bench.example:{port}{path}")).current_dir(folder);
    output(curl).with_context(|| format!("{scheme} {port} {path} {more:?}"))
}

fn expect(answer: &str, wanted: &str) -> anyhow::Result<()> {
    let last = answer.lines().last().unwrap_or_default();
    if !last.starts_with(wanted) {
        bail!("`{last}` where `{wanted}` was expected");
    }
    Ok(())
}

/// That the backend has seen all of these, each with a value.
fn seen(answer: &str, wanted: &[&str]) -> anyhow::Result<()> {
    expect(answer, "200")?;
    for wanted in wanted {
        if !answer.contains(wanted) || answer.contains(&format!("{wanted}\n")) {
            bail!("the backend has not seen `{}` but\n{answer}", wanted.trim());
        }
    }
    Ok(())
}

#[test]
fn what_the_backend_has_not_seen_is_missed() {
    let answer = "for=127.0.0.1\nproto=http\nrequest-id=\n\n200 1.1 40";
    assert!(seen(answer, &["for=1", "proto=http\n"]).is_ok());
    assert!(seen(answer, &["request-id="]).is_err());
    assert!(seen(answer, &["traceparent=00-"]).is_err());
    assert!(expect(answer, "404").is_err());
}
