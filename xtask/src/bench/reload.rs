//! Starting and reloading: how long until a new route is served, and what a thousand times of it
//! leave behind. Each reload adds or takes away a route, so that a request can tell when it has
//! happened; each request has a connection of its own, since nginx and HAProxy keep the old ones
//! under the old configuration.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::Plan;
use super::peers::{PLAIN, Peer, Reload};
use super::process::{Server, local, memory_kib};
use super::report::Row;
use super::scenarios::MANY_ROUTES;
use crate::steps::{command, output};

const PATIENCE: Duration = Duration::from_secs(60);
/// After a start or a reload, until everything about it is over.
const REST: Duration = Duration::from_secs(2);
const FEW: usize = 10;
const MANY: usize = 1_000;

/// Memory after ten reloads and after a thousand.
pub(super) fn many(plan: &Plan, folder: &Path, rows: &mut Vec<Row>) -> anyhow::Result<()> {
    for peer in plan.peers_for('l') {
        let started = Instant::now();
        let values = reload_often(peer, folder).context(peer.name)?;
        println!("   {}: {:.0} s", peer.name, started.elapsed().as_secs_f64());
        rows.push(Row::new('l', "1,000 reloads", peer.name, 0, values));
    }
    Ok(())
}

fn reload_often(peer: &Peer, folder: &Path) -> anyhow::Result<Vec<(&'static str, f64)>> {
    peer.configure(folder, 1)?;
    let server = peer.start(folder)?;
    wait_for(0, true)?;
    let mut after_few = 0;
    for done in 1..=MANY {
        let routes = 1 + done % 2;
        reload(peer, &server, folder, routes)?;
        wait_for(1, routes == 2).with_context(|| format!("reload {done}"))?;
        if done == FEW {
            after_few = settled(&server)?;
        }
    }
    let after_many = settled(&server)?;
    let (few, many) = (after_few as f64 / 1024.0, after_many as f64 / 1024.0);
    Ok(vec![
        ("RssAnon MiB after 1,000", many),
        ("after 10", few),
        ("growth %", 100.0 * (many / few - 1.0)),
    ])
}

/// KiB once the old generation is gone.
fn settled(server: &Server) -> anyhow::Result<u64> {
    std::thread::sleep(REST);
    memory_kib(server.process())
}

/// Milliseconds from the start of the process, and from the word to reload, to the first answer of
/// a route that was not served before.
pub(super) fn times(plan: &Plan, folder: &Path, rows: &mut Vec<Row>) -> anyhow::Result<()> {
    for round in 0..plan.rounds {
        for peer in plan.peers_for('m') {
            let (start, reload) = start_and_reload(peer, folder).context(peer.name)?;
            let mut row = |name: &str, time: Duration| {
                let values = vec![("ms", time.as_secs_f64() * 1e3)];
                rows.push(Row::new('m', name, peer.name, round, values));
            };
            row("Start to the first answer, 5,000 routes", start);
            row("Reload to the first answer of a new route, 5,000 routes", reload);
        }
    }
    Ok(())
}

fn start_and_reload(peer: &Peer, folder: &Path) -> anyhow::Result<(Duration, Duration)> {
    peer.configure(folder, MANY_ROUTES)?;
    let started = Instant::now();
    let server = peer.start(folder)?;
    wait_for(MANY_ROUTES - 1, true)?;
    let start = started.elapsed();
    std::thread::sleep(REST);
    let told = Instant::now();
    reload(peer, &server, folder, MANY_ROUTES + 1)?;
    wait_for(MANY_ROUTES, true)?;
    Ok((start, told.elapsed()))
}

fn reload(peer: &Peer, server: &Server, folder: &Path, routes: usize) -> anyhow::Result<()> {
    peer.configure(folder, routes)?;
    match peer.reload.context("it cannot be reloaded")? {
        Reload::Signal(name) => server.signal(name),
        Reload::Replaced => Ok(()),
        Reload::Posted { file, url } => {
            let mut curl =
                command("curl", &["-sf", "-m", "60", "-H", "Content-Type: text/caddyfile"]);
            curl.args(["--data-binary", &format!("@{file}"), url]).current_dir(folder);
            output(curl).map(drop)
        }
    }
}

/// Asks for a route until it is served, or until it is not.
fn wait_for(route: usize, served: bool) -> anyhow::Result<()> {
    let since = Instant::now();
    while since.elapsed() < PATIENCE {
        // A connection may meet a listener that is about to go.
        if let Ok(status) = status(&format!("/r{route}/orders/7"))
            && status == if served { 200 } else { 404 }
        {
            return Ok(());
        }
        std::thread::sleep(Duration::from_micros(500));
    }
    bail!("route {route} is not {}", if served { "served" } else { "gone" });
}

fn status(path: &str) -> anyhow::Result<u16> {
    let mut tcp = TcpStream::connect(local(PLAIN))?;
    tcp.set_read_timeout(Some(PATIENCE))?;
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: bench.example\r\nConnection: close\r\n\r\n");
    tcp.write_all(request.as_bytes())?;
    let mut answer = String::new();
    tcp.read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1).context("no status")?;
    Ok(status.parse()?)
}
