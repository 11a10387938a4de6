//! `cargo xtask bench overload`: a backend that gets three times what it can do, and one that
//! hangs.
//!
//! The backend works on 50 requests at once for 20 ms each, 2,500 a second, and queues all others
//! (`bench/src/slow.rs`). Clients come in an open loop and wait for a second (`bench/src/surge`).
//! The proxy has core 0, all others core 1. Times are no test: this is outside CI. Nothing here is
//! about what a request costs, so that a slower machine, or programs that are not optimised, may
//! take the same at a fraction of the rate.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, bail};
use serde_json::Value;

use super::material;
use super::process::{LOAD_CORE, PROXY_CORE, Server, pinned};
use crate::steps::{cargo, output, run, step};

/// What the backend can do in a second, where a request takes it [`TAKES_MS`].
const PEAK: u64 = 2_500;
const TAKES_MS: u64 = 20;
const LISTENS: u16 = 7710;
const BACKEND: u16 = 7703;
const HANGING: u16 = 7704;

/// What was asked for on the command line.
struct Plan {
    quick: bool,
    /// All rates are divided by this.
    slower: u64,
    /// `release`, or `debug` for what has been built already.
    built: &'static str,
}

impl Plan {
    fn from(arguments: &[&str]) -> anyhow::Result<Self> {
        let mut plan = Self { quick: false, slower: 1, built: "release" };
        let mut words = arguments.iter();
        while let Some(word) = words.next() {
            match *word {
                "--quick" => plan.quick = true,
                "--debug" => plan.built = "debug",
                "--slower" => {
                    plan.slower = words.next().context("--slower wants a number")?.parse()?;
                }
                other => bail!("bench overload does not know `{other}`"),
            }
        }
        if !(1..=10).contains(&plan.slower) {
            bail!("`--slower` is between 1 and 10");
        }
        Ok(plan)
    }

    fn peak(&self) -> u64 {
        PEAK / self.slower
    }

    /// A program of this workspace, as seen from `target/bench`.
    fn own(&self, program: &str) -> String {
        format!("../{}/{program}", self.built)
    }
}

/// A proxy in one of its configurations.
struct Subject {
    name: &'static str,
    program: &'static str,
    arguments: &'static [&'static str],
    port: u16,
    path: &'static str,
}

const PORTCULLIS: (&str, &[&str]) = ("portcullis", &["run", "-c", "overload.yaml"]);
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
    let plan = Plan::from(arguments)?;
    step("build", || {
        let mut words = vec!["build", "--locked", "--package", "portcullis"];
        words.extend(["--bin", "portcullis", "--package", "portcullis-bench"]);
        words.extend(["--bin", "slow", "--bin", "surge"]);
        words.extend((plan.built == "release").then_some("--release"));
        run(cargo(&words))
    })?;
    let folder = material::folder()?;
    step("peers that Debian does not have", || material::environment(&folder))?;
    for file in ["overload.yaml", "overload.conf", "overload-envoy.yaml"] {
        fs::copy(crate::root().join("bench/peers").join(file), folder.join(file)).context(file)?;
    }
    let mut report = String::new();
    step("three times what the backend can do", || three_times(&folder, &plan, &mut report))?;
    step("a backend that hangs", || hanging(&folder, &plan, &mut report))?;
    fs::write(folder.join("overload.md"), &report)?;
    println!("\n{report}\n   wrote target/bench/overload.md");
    Ok(())
}

/// A warm-up at 0.8 of the peak, three times the peak, and 0.8 again.
fn three_times(folder: &Path, plan: &Plan, report: &mut String) -> anyhow::Result<()> {
    let seconds = if plan.quick { 5 } else { 20 };
    let (easy, much) = (plan.peak() * 8 / 10, plan.peak() * 3);
    let phases = format!("{easy}x5,{much}x{seconds},{easy}x10");
    let head = "goodput, of the peak | p50 / p99 of the good, ms | 503 a second | p99 of a 503, ms \
                | gave up after 1 s, a second | other failures | recovered after, s";
    write!(report, "| | {head} |\n|{}\n", "---|".repeat(8))?;
    for subject in &SUBJECTS {
        let _backend = backend(BACKEND, plan, folder)?;
        let server = start(subject, plan, folder)?;
        let seen = surge(subject, plan, subject.path, &phases, 1_000).output_json(folder)?;
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
            a_second("good") * 100 / plan.peak(),
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
fn hanging(folder: &Path, plan: &Plan, report: &mut String) -> anyhow::Result<()> {
    let seconds = if plan.quick { 5 } else { 15 };
    let (rate, crowd_rate) = (1_000 / plan.slower, 400 / plan.slower);
    let head = "p50 / p99 alone, ms | p50 / p99 beside the one that hangs, ms | failed beside it";
    write!(report, "\n| | {head} |\n|{}\n", "---|".repeat(4))?;
    for subject in SUBJECTS.iter().filter(|subject| subject.path == "/plain") {
        let _backend = backend(BACKEND, plan, folder)?;
        let _hanging = backend(HANGING, plan, folder)?;
        let server = start(subject, plan, folder)?;
        let phases = format!("{rate}x{seconds}");
        let alone = surge(subject, plan, "/plain", &phases, 1_000).output_json(folder)?;
        let mut crowd =
            surge(subject, plan, "/hang", &format!("{crowd_rate}x{}", seconds + 3), 30_000);
        crowd.stdout(Stdio::null()).current_dir(folder);
        let crowd = Crowd(crowd.spawn()?);
        std::thread::sleep(std::time::Duration::from_secs(3));
        let beside = surge(subject, plan, "/plain", &phases, 1_000).output_json(folder)?;
        drop(crowd);
        drop(server);
        let ms = |seen: &Value, name: &str| {
            format!("{:.1}", seen["phases"][0][name].as_f64().unwrap_or_default() / 1e3)
        };
        let both = |seen| format!("{} / {}", ms(seen, "good_p50_us"), ms(seen, "good_p99_us"));
        let failed = rate * seconds - beside["phases"][0]["good"].as_u64().unwrap_or_default();
        writeln!(
            report,
            "| {} | {} | {} | {failed} of {} |",
            subject.name,
            both(&alone),
            both(&beside),
            rate * seconds,
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

fn backend(port: u16, plan: &Plan, folder: &Path) -> anyhow::Result<Server> {
    let (listen, takes) = (format!("127.0.0.1:{port}"), (TAKES_MS * plan.slower).to_string());
    let arguments = ["--listen", &listen, "--at-once", "50", "--takes-ms", &takes];
    Server::start(LOAD_CORE, &plan.own("slow"), &arguments, port, folder)
}

fn start(subject: &Subject, plan: &Plan, folder: &Path) -> anyhow::Result<Server> {
    fs::remove_file(folder.join("access.log")).ok();
    let program = match subject.program {
        "portcullis" => &plan.own("portcullis"),
        others => others,
    };
    Server::start(PROXY_CORE, program, subject.arguments, subject.port, folder)
}

fn surge(subject: &Subject, plan: &Plan, path: &str, phases: &str, patience_ms: u64) -> Command {
    let mut surge = pinned(LOAD_CORE, &plan.own("surge"));
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
