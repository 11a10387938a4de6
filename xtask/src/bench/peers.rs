//! The proxies that are measured, as data: how each is started, and how a route is written in it.
//! Their configurations are in `bench/peers`; all listen on the same ports, since they take turns.

use std::fs;
use std::path::Path;

use anyhow::Context;

use super::process::{PROXY_CORE, Server};

/// HTTP/1.1 in clear text.
pub(super) const PLAIN: u16 = 7710;
/// TLS 1.3, HTTP/1.1 or HTTP/2 by ALPN.
pub(super) const TLS: u16 = 7711;
/// TLS 1.3, tokens, limits, traces.
pub(super) const REAL: u16 = 7712;

/// How a running proxy is given another configuration.
#[derive(Clone, Copy, Debug)]
pub(super) enum Reload {
    /// By this signal, after its files have changed.
    Signal(&'static str),
    /// By a new file in the place of the old one, which it watches.
    Replaced,
    /// By sending this file to this URL.
    Posted { file: &'static str, url: &'static str },
}

/// A proxy that is measured.
#[derive(Debug)]
pub(super) struct Peer {
    /// As `--peers` names it.
    pub key: &'static str,
    pub name: &'static str,
    /// A path in it begins in `target/bench`.
    program: &'static str,
    arguments: &'static [&'static str],
    /// What makes it say its version; nothing is the project's own.
    asked: Option<&'static str>,
    /// Of `bench/peers`. A line `@ROUTES@` in them gives way to routes.
    files: &'static [&'static str],
    /// One of the many routes, with its number as `{n}`.
    route: &'static str,
    /// The scenarios that it can do.
    pub scenarios: &'static str,
    /// Whether it verifies the tokens of the real job.
    pub verifies: bool,
    pub reload: Option<Reload>,
}

pub(super) const PEERS: &[Peer] = &[
    Peer {
        key: "portcullis",
        name: "Portcullis",
        program: "../release/portcullis",
        arguments: &["run", "-c", "portcullis.yaml"],
        asked: None,
        files: &["portcullis.yaml"],
        route: "  r{n}: { match: \"bench.example/r{n}/**\", public: \"a bench\", to: backend }",
        scenarios: "abcdefghijklm",
        verifies: true,
        reload: Some(Reload::Signal("HUP")),
    },
    Peer {
        key: "nginx",
        name: "nginx",
        program: "nginx",
        arguments: &["-p", ".", "-c", "nginx.conf"],
        asked: Some("-v"),
        files: &["nginx.conf"],
        route: "        location /r{n}/ { proxy_pass http://backend; }",
        scenarios: "abcdefghijklm",
        verifies: false,
        reload: Some(Reload::Signal("HUP")),
    },
    Peer {
        key: "haproxy",
        name: "HAProxy",
        program: "haproxy",
        arguments: &["-W", "-f", "haproxy.cfg"],
        asked: Some("-v"),
        files: &["haproxy.cfg", "haproxy.map"],
        route: "/r{n}/ backend",
        scenarios: "abcdefghijkm",
        verifies: true,
        reload: Some(Reload::Signal("USR2")),
    },
    Peer {
        key: "envoy",
        name: "Envoy",
        program: "venv/bin/envoy",
        arguments: &["-c", "envoy.yaml", "--concurrency", "1", "--disable-hot-restart"],
        asked: Some("--version"),
        files: &["envoy.yaml", "envoy-routes.yaml"],
        route: "                /r{n}/: *backend",
        scenarios: "abcdefghijkm",
        verifies: true,
        reload: Some(Reload::Replaced),
    },
    Peer {
        key: "caddy",
        name: "Caddy",
        program: "venv/bin/caddy",
        arguments: &["run", "--config", "Caddyfile", "--adapter", "caddyfile"],
        asked: Some("version"),
        files: &["Caddyfile"],
        route: "\t\tpath /r{n}/*",
        scenarios: "abcdefghjklm",
        verifies: false,
        reload: Some(Reload::Posted { file: "Caddyfile", url: "http://127.0.0.1:7718/load" }),
    },
    // What the kernel alone costs: bytes passed on, nothing read.
    Peer {
        key: "floor",
        name: "the floor",
        program: "../release/floor",
        arguments: &["--listen", "127.0.0.1:7710", "--backend", "127.0.0.1:7700"],
        asked: None,
        files: &[],
        route: "",
        scenarios: "abgj",
        verifies: false,
        reload: None,
    },
];

impl Peer {
    pub(super) fn does(&self, scenario: char) -> bool {
        self.scenarios.contains(scenario)
    }

    /// Its name in a table, which says where it does less than the others.
    pub(super) fn name_in(&self, scenario: char) -> String {
        let less = scenario == 'i' && !self.verifies;
        format!("{}{}", self.name, if less { ", no tokens" } else { "" })
    }

    /// Writes its files, with so many routes beside the few that are always there.
    pub(super) fn configure(&self, folder: &Path, routes: usize) -> anyhow::Result<()> {
        for file in self.files {
            let written = crate::root().join("bench/peers").join(file);
            let text = fs::read_to_string(&written).with_context(|| (*file).to_owned())?;
            let lines = (0..routes).map(|n| self.route.replace("{n}", &n.to_string()) + "\n");
            let text = text.replace("@ROUTES@\n", &lines.collect::<String>());
            // Moved into place, since it may be watched.
            let fresh = folder.join("fresh");
            fs::write(&fresh, text)?;
            fs::rename(fresh, folder.join(file))?;
        }
        Ok(())
    }

    /// Starts it on the proxy's core and waits until it listens.
    pub(super) fn start(&self, folder: &Path) -> anyhow::Result<Server> {
        // A line a request: gigabytes, were they kept.
        fs::remove_file(folder.join("access.log")).ok();
        Server::start(PROXY_CORE, self.program, self.arguments, PLAIN, folder)
    }

    /// The command line that starts it, for the report.
    pub(super) fn command_line(&self) -> String {
        format!("taskset -c {PROXY_CORE} {} {}", self.program, self.arguments.join(" "))
    }

    pub(super) fn version(&self, folder: &Path) -> String {
        match self.asked {
            Some(asked) => super::process::said(folder, self.program, &[asked]),
            None => "this commit".to_owned(),
        }
    }
}

#[test]
fn every_peer_has_its_files_and_writes_routes_into_one() {
    for peer in PEERS.iter().filter(|peer| !peer.files.is_empty()) {
        let folder = tempfolder(peer.key);
        peer.configure(&folder, 2).unwrap();
        let all: String =
            peer.files.iter().map(|file| fs::read_to_string(folder.join(file)).unwrap()).collect();
        assert!(all.contains("/r0/") && all.contains("/r1/"), "{}", peer.name);
        assert!(!all.contains("@ROUTES@"), "{}", peer.name);
        fs::remove_dir_all(folder).unwrap();
    }
}

#[cfg(test)]
fn tempfolder(name: &str) -> std::path::PathBuf {
    let folder =
        std::env::temp_dir().join(format!("portcullis-bench-{}-{name}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    folder
}
