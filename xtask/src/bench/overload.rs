//! `cargo xtask bench overload`: a backend that gets three times what it can do, and one that
//! hangs.
//!
//! The backend works on 50 requests at once for 20 ms each, 2,500 a second, and queues all others
//! (`bench/src/slow.rs`). Clients come in an open loop and wait for a second (`bench/src/surge`).
//! The proxy has core 0, all others core 1. Times are no test: this is outside CI.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, bail};
use serde_json::Value;

use super::material;
use super::process::{LOAD_CORE, PROXY_CORE, Server, pinned};
use crate::steps::{cargo, output, run, step};

/// What the backend can do in a second.
const PEAK: u64 = 2_500;
const LISTENS: u16 = 7710;
const BACKEND: u16 = 7703;
const HANGING: u16 = 7704;

/// A proxy in one of its configurations.
struct Subject {
    name: &'static str,
    program: &'static str,
    arguments: &'static [&'static str],
    port: u16,
    path: &'static str,
}

const PORTCULLIS: (&str, &[&str]) = ("../release/portcullis", &["run", "-c", "overload.yaml"]);
const ENVOY: (&str, &[&str]) = (
    "venv/bin/envoy",
    &["-c", "overload-envoy.yaml", "--concurrency", "1", "--disable-hot-restart"],
);
const NGINX: (&str, &[&str]) = ("nginx", &["-p", ".", "-c", "overload.conf"]);

const fn subject(
    name: &'static str,
    (program, arguments): (&'static str, &'static [&'static str]),
    port: u16,
    path: &'static str,
) -> Subject {
    Subject { name, program, arguments, port, path }
}

const SUBJECTS: [Subject; 6] = [
    subject("Portcullis, `concurrency: adaptive`", PORTCULLIS, LISTENS, "/guarded"),
    subject("Portcullis, by default", PORTCULLIS, LISTENS, "/plain"),
    subject("Envoy, adaptive concurrency", ENVOY, LISTENS, "/guarded"),
    subject("Envoy, by default", ENVOY, 7711, "/plain"),
    subject("nginx, `limit_conn 75`", NGINX, LISTENS, "/guarded"),
    subject("nginx, by default", NGINX, LISTENS, "/plain"),
];

pub(crate) fn overload(arguments: &[&str]) -> anyhow::Result<()> {
    let quick = match arguments {
        [] => false,
        ["--quick"] => true,
        _ => bail!("bench overload knows `--quick` only"),
    };
    step("release build", || {
        let packages = ["--package", "portcullis", "--package", "portcullis-bench"];
        run(cargo(&[&["build", "--release", "--locked"][..], &packages].concat()))
    })?;
    let folder = material::folder()?;
    step("peers that Debian does not have", || material::environment(&folder))?;
    for file in ["overload.yaml", "overload.conf", "overload-envoy.yaml"] {
        fs::copy(crate::root().join("bench/peers").join(file), folder.join(file)).context(file)?;
    }
    let mut report = String::new();
    step("three times what the backend can do", || three_times(&folder, quick, &mut report))?;
    step("a backend that hangs", || hanging(&folder, quick, &mut report))?;
    fs::write(folder.join("overload.md"), &report)?;
    println!("\n{report}\n   wrote target/bench/overload.md");
    Ok(())
}

/// A warm-up at 0.8 of the peak, three times the peak, and 0.8 again.
fn three_times(folder: &Path, quick: bool, report: &mut String) -> anyhow::Result<()> {
    let seconds = if quick { 5 } else { 20 };
    let (easy, much) = (PEAK * 8 / 10, PEAK * 3);
    let phases = format!("{easy}x5,{much}x{seconds},{easy}x10");
    let head = "goodput, of the peak | p50 / p99 of the good, ms | 503 a second | p99 of a 503, ms \
                | gave up after 1 s, a second | other failures | recovered after, s";
    write!(report, "| | {head} |\n|{}\n", "---|".repeat(8))?;
    for subject in &SUBJECTS {
        let _backend = backend(BACKEND, folder)?;
        let server = start(subject, folder)?;
        let seen = surge(subject, subject.path, &phases, 1_000).output_json(folder)?;
        drop(server);
        let phase = &seen["phases"][1];
        let a_second = |name: &str| phase[name].as_u64().unwrap_or_default() / seconds;
        let ms = |name: &str| {
            phase[name].as_f64().map_or("–".to_owned(), |us| format!("{:.1}", us / 1e3))
        };
        writeln!(
            report,
            "| {} | {} % | {} / {} | {} | {} | {} | {} | {:.1} |",
            subject.name,
            a_second("good") * 100 / PEAK,
            ms("good_p50_us"),
            ms("good_p99_us"),
            a_second("refused"),
            ms("refused_p99_us"),
            a_second("late"),
            a_second("other"),
            seen["recovered_seconds"].as_f64().context("recovered_seconds")?,
        )?;
        println!("   {}: {seen}", subject.name);
    }
    Ok(())
}

/// 1,000 requests a second to a backend that is well, without and with 400 a second in addition to
/// one that never answers, whose clients wait for half a minute.
fn hanging(folder: &Path, quick: bool, report: &mut String) -> anyhow::Result<()> {
    let seconds = if quick { 5 } else { 15 };
    let head = "p50 / p99 alone, ms | p50 / p99 beside the one that hangs, ms | failed beside it";
    write!(report, "\n| | {head} |\n|{}\n", "---|".repeat(4))?;
    for subject in SUBJECTS.iter().filter(|subject| subject.path == "/plain") {
        let _backend = backend(BACKEND, folder)?;
        let _hanging = backend(HANGING, folder)?;
        let server = start(subject, folder)?;
        let phases = format!("1000x{seconds}");
        let alone = surge(subject, "/plain", &phases, 1_000).output_json(folder)?;
        let mut crowd = surge(subject, "/hang", &format!("400x{}", seconds + 3), 30_000);
        crowd.stdout(Stdio::null()).current_dir(folder);
        let crowd = Crowd(crowd.spawn()?);
        std::thread::sleep(std::time::Duration::from_secs(3));
        let beside = surge(subject, "/plain", &phases, 1_000).output_json(folder)?;
        drop(crowd);
        drop(server);
        let ms = |seen: &Value, name: &str| {
            format!("{:.1}", seen["phases"][0][name].as_f64().unwrap_or_default() / 1e3)
        };
        let both = |seen| format!("{} / {}", ms(seen, "good_p50_us"), ms(seen, "good_p99_us"));
        let failed = 1_000 * seconds - beside["phases"][0]["good"].as_u64().unwrap_or_default();
        writeln!(
            report,
            "| {} | {} | {} | {failed} of {} |",
            subject.name,
            both(&alone),
            both(&beside),
            1_000 * seconds,
        )?;
        println!("   {}: {alone} {beside}", subject.name);
    }
    Ok(())
}

/// Clients that would wait for half a minute more.
struct Crowd(Child);

impl Drop for Crowd {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn backend(port: u16, folder: &Path) -> anyhow::Result<Server> {
    let listen = format!("127.0.0.1:{port}");
    let arguments = ["--listen", &listen, "--at-once", "50", "--takes-ms", "20"];
    Server::start(LOAD_CORE, "../release/slow", &arguments, port, folder)
}

fn start(subject: &Subject, folder: &Path) -> anyhow::Result<Server> {
    fs::remove_file(folder.join("access.log")).ok();
    Server::start(PROXY_CORE, subject.program, subject.arguments, subject.port, folder)
}

fn surge(subject: &Subject, path: &str, phases: &str, patience_ms: u64) -> Command {
    let mut surge = pinned(LOAD_CORE, "../release/surge");
    surge.args(["--phases", phases, "--patience-ms", &patience_ms.to_string()]);
    surge.args(["--header", "Host: bench.example"]);
    surge.arg(format!("http://127.0.0.1:{}{path}", subject.port));
    surge
}

trait OutputJson {
    fn output_json(self, folder: &Path) -> anyhow::Result<Value>;
}

impl OutputJson for Command {
    fn output_json(mut self, folder: &Path) -> anyhow::Result<Value> {
        self.current_dir(folder);
        let said = output(self)?;
        let line = said.lines().rfind(|line| line.starts_with('{')).unwrap_or_default();
        serde_json::from_str(line).with_context(|| format!("surge said:\n{said}"))
    }
}
