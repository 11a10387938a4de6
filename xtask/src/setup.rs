//! Installs the system packages that tests against real servers need.

use anyhow::bail;

use crate::steps::{answers, command, run};

struct Need {
    /// The program that must answer, and how to ask it.
    program: &'static str,
    asked: &'static str,
    /// Debian's package.
    package: &'static str,
}

/// What the test command needs beside Rust.
const TESTS: &[Need] = &[
    Need { program: "curl", asked: "--version", package: "curl" },
    Need { program: "nginx", asked: "-v", package: "nginx" },
    Need { program: "node", asked: "--version", package: "nodejs" },
    Need { program: "npm", asked: "--version", package: "npm" },
    Need { program: "valgrind", asked: "--version", package: "valgrind" },
];

/// What the tests with a browser need beside those.
const BROWSER: &[Need] = &[
    Need { program: "chromium", asked: "--version", package: "chromium" },
    Need { program: "chromedriver", asked: "--version", package: "chromium-driver" },
];

const BENCH: &[Need] = &[
    Need { program: "curl", asked: "--version", package: "curl" },
    Need { program: "h2load", asked: "--version", package: "nghttp2-client" },
    Need { program: "haproxy", asked: "-v", package: "haproxy" },
    Need { program: "nginx", asked: "-v", package: "nginx" },
    Need { program: "openssl", asked: "version", package: "openssl" },
    Need {
        program: "python3",
        asked: "-cimport ensurepip; print(ensurepip.version())",
        package: "python3-venv",
    },
    Need { program: "taskset", asked: "--version", package: "util-linux" },
    Need { program: "wrk", asked: "-v", package: "wrk" },
];

pub(crate) fn install() -> anyhow::Result<()> {
    ensure(TESTS)
}

pub(crate) fn install_with_browser() -> anyhow::Result<()> {
    ensure(TESTS)?;
    ensure(BROWSER)
}

pub(crate) fn install_for_bench() -> anyhow::Result<()> {
    ensure(BENCH)
}

fn ensure(needs: &[Need]) -> anyhow::Result<()> {
    let missing: Vec<&str> =
        needs.iter().filter(|need| !is_there(need)).map(|need| need.package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    if !answers("apt-get", &["--version"]) || !is_superuser() {
        bail!("these system packages are missing: {list}\n  sudo apt-get install -y {list}");
    }
    println!("   installing {list}");
    run(apt(&["update", "-qq"]))?;
    let mut arguments = vec!["install", "-y", "-qq", "--no-install-recommends"];
    arguments.extend(missing);
    run(apt(&arguments))?;
    match needs.iter().find(|need| !is_there(need)) {
        Some(need) => bail!("{} was installed and yet {} is missing", need.package, need.program),
        None => Ok(()),
    }
}

/// `wrk -v` ends with status 1 and says its version, so that is enough.
fn is_there(need: &Need) -> bool {
    let said = command(need.program, &[need.asked]).output();
    said.is_ok_and(|output| output.status.success() || !output.stdout.is_empty())
}

fn is_superuser() -> bool {
    let id = command("id", &["-u"]).output();
    id.is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

fn apt(arguments: &[&str]) -> std::process::Command {
    let mut apt = command("apt-get", arguments);
    // A package that is installed here must not start a service of its own.
    apt.env("DEBIAN_FRONTEND", "noninteractive").env("RUNLEVEL", "1");
    apt
}
