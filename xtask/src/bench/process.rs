//! Processes of a bench: each pinned to its core, told to stop when it is dropped, and what the
//! kernel counts of them.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::steps::command;

/// Of the proxy that is measured.
pub(super) const PROXY_CORE: &str = "0";
/// Of the backend and of the load.
pub(super) const LOAD_CORE: &str = "1";
const BACKEND: u16 = 7700;
const PATIENCE: Duration = Duration::from_secs(20);

/// A running server.
#[derive(Debug)]
pub(super) struct Server {
    child: Child,
}

impl Server {
    /// Its output goes to files, since HAProxy writes its access log there.
    pub(super) fn start(
        core: &str,
        program: &str,
        arguments: &[&str],
        port: u16,
        folder: &Path,
    ) -> anyhow::Result<Self> {
        let address = local(port);
        if TcpStream::connect(address).is_ok() {
            bail!("port {port} is taken; the bench needs it");
        }
        let name = Path::new(program).file_name().unwrap_or_default().to_string_lossy();
        let mut taskset = pinned(core, program);
        taskset.args(arguments).current_dir(folder).stdin(Stdio::null());
        taskset.stdout(File::create(folder.join(format!("{name}.out")))?);
        taskset.stderr(File::create(folder.join(format!("{name}.err")))?);
        // One processor is what Go would find too late, and its state belongs to the bench.
        taskset.env("GOMAXPROCS", "1").env("XDG_DATA_HOME", folder).env("XDG_CONFIG_HOME", folder);
        let mut server = Self { child: taskset.spawn().context("taskset")? };
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            if TcpStream::connect(address).is_ok() {
                return Ok(server);
            }
            if let Some(status) = server.child.try_wait()? {
                bail!("{program} ended: {status}; target/bench/{name}.err may say why");
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        bail!("{program} does not listen on port {port}");
    }

    pub(super) fn backend(folder: &Path) -> anyhow::Result<Self> {
        fs::copy(crate::root().join("bench/peers/backend.conf"), folder.join("backend.conf"))?;
        Self::start(LOAD_CORE, "nginx", &["-p", ".", "-c", "backend.conf"], BACKEND, folder)
    }

    pub(super) fn process(&self) -> u32 {
        self.child.id()
    }

    pub(super) fn signal(&self, signal: &str) -> anyhow::Result<()> {
        crate::steps::run(command("kill", &["-s", signal, &self.child.id().to_string()]))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // SIGTERM, since nginx leaves its workers behind when it is killed.
        if self.signal("TERM").is_ok() {
            let told = Instant::now();
            while told.elapsed() < PATIENCE {
                if !matches!(self.child.try_wait(), Ok(None)) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

pub(super) fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// A command on one core.
pub(super) fn pinned(core: &str, program: &str) -> Command {
    let mut taskset = Command::new("taskset");
    taskset.args(["-c", core, program]);
    taskset
}

/// The first line a program says of itself, on whichever stream.
pub(super) fn said(folder: &Path, program: &str, arguments: &[&str]) -> String {
    // Not the path of `current_dir`, which a child would look for a program in only by chance.
    let here = folder.join(program);
    let program = if here.exists() { here.as_os_str() } else { program.as_ref() };
    let Ok(output) = Command::new(program).args(arguments).output() else {
        return "not there".to_owned();
    };
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default().trim().to_owned()
}

/// A process and its descendants.
fn family(process: u32) -> Vec<u32> {
    let mut all = vec![process];
    let tasks = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    for task in tasks {
        let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        all.extend(children.split_whitespace().filter_map(|id| id.parse().ok()).flat_map(family));
    }
    all
}

/// Nanoseconds that all threads of a process and of its descendants have run, by the scheduler's
/// own count.
pub(super) fn run_time_ns(process: u32) -> anyhow::Result<u64> {
    let mut total = 0;
    for process in family(process) {
        for thread in fs::read_dir(format!("/proc/{process}/task"))? {
            let statistics = fs::read_to_string(thread?.path().join("schedstat"))?;
            let first = statistics.split_whitespace().next().context("schedstat is empty")?;
            total += first.parse::<u64>()?;
        }
    }
    Ok(total)
}

/// KiB that a process and its descendants have in memory and that no file backs (`RssAnon`). What
/// several of them share is counted for each.
pub(super) fn memory_kib(process: u32) -> anyhow::Result<u64> {
    family(process).into_iter().map(|process| memory_of_one_kib(process, "RssAnon:")).sum()
}

/// The same with what files back (`VmRSS`).
pub(super) fn resident_kib(process: u32) -> anyhow::Result<u64> {
    family(process).into_iter().map(|process| memory_of_one_kib(process, "VmRSS:")).sum()
}

fn memory_of_one_kib(process: u32, field: &str) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")).context("no memory")?;
    Ok(kib.trim().parse()?)
}

#[test]
fn a_process_has_run_and_has_memory() {
    let process = std::process::id();
    assert!(run_time_ns(process).unwrap() > 0);
    let (anonymous, resident) = (memory_kib(process).unwrap(), resident_kib(process).unwrap());
    assert!(0 < anonymous && anonymous <= resident, "{anonymous} of {resident}");
}
