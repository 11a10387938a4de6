//! Starts and stops the servers of a bench, each pinned to its core.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};

use crate::steps::command;

const PROXY_CORE: &str = "0";
pub(super) const LOAD_CORE: &str = "1";
const BACKEND_PORT: u16 = 7700;

/// A proxy that is measured. Its configuration is in `bench/`.
pub(super) struct Peer {
    pub name: &'static str,
    pub plain_port: u16,
    pub tls_port: u16,
    program: &'static str,
    arguments: &'static [&'static str],
}

impl Peer {
    pub(super) const PORTCULLIS: Self = Self {
        name: "Portcullis",
        plain_port: 7710,
        tls_port: 7711,
        program: "../release/portcullis",
        arguments: &["run", "-c", "portcullis.yaml"],
    };
    pub(super) const IDLE: Self =
        Self { arguments: &["run", "-c", "idle.yaml"], ..Self::PORTCULLIS };
    pub(super) const NGINX: Self = Self {
        name: "nginx",
        plain_port: 7720,
        tls_port: 7721,
        program: "nginx",
        arguments: &["-p", ".", "-c", "nginx.conf"],
    };

    pub(super) fn start(&self, folder: &Path) -> anyhow::Result<Server> {
        start(PROXY_CORE, self.program, self.arguments, self.plain_port, folder)
    }

    /// The command line that starts it, for the report.
    pub(super) fn command_line(&self) -> String {
        format!("taskset -c {PROXY_CORE} {} {}", self.program, self.arguments.join(" "))
    }
}

pub(super) fn start_backend(folder: &Path) -> anyhow::Result<Server> {
    start(LOAD_CORE, "nginx", &["-p", ".", "-c", "backend.conf"], BACKEND_PORT, folder)
}

/// A running server, told to stop and waited for when this is dropped.
pub(super) struct Server {
    child: Child,
}

impl Server {
    pub(super) fn process(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // SIGTERM, since nginx leaves its workers behind when it is killed.
        let process = self.child.id().to_string();
        if command("kill", &["-TERM", &process]).status().is_ok() {
            self.child.wait().ok();
        }
    }
}

fn start(
    core: &str,
    program: &str,
    arguments: &[&str],
    port: u16,
    folder: &Path,
) -> anyhow::Result<Server> {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    if TcpStream::connect(address).is_ok() {
        bail!("port {port} is taken; the bench needs it");
    }
    let mut taskset = Command::new("taskset");
    taskset.args(["-c", core, program]).args(arguments).current_dir(folder);
    taskset.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut server = Server { child: taskset.spawn().context("taskset")? };
    for _ in 0..100 {
        if TcpStream::connect(address).is_ok() {
            return Ok(server);
        }
        if let Some(status) = server.child.try_wait()? {
            bail!("{program} ended: {status}; start it in target/bench to see why");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    bail!("{program} does not listen on port {port}");
}
