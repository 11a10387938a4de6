//! The project's chores: `cargo xtask VERB`. One file a verb; this one only chooses.
//!
//! Not part of the product: it may print, wait and read the clock.
#![expect(clippy::print_stdout, reason = "a chore talks to the person at the terminal")]
#![expect(clippy::disallowed_types, reason = "banners say how long a step took; benches measure")]
#![expect(clippy::disallowed_methods, reason = "a bench waits for the servers that it starts")]

mod bench;
mod docs;
mod fuzz;
mod generate;
mod new_policy;
mod picture;
mod reference;
mod setup;
mod steps;
mod test;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::bail;

const USAGE: &str = "\
Usage: cargo xtask VERB

  test                 everything that must hold before a change lands: format, lints,
                       licences, documentation, generated files, and every test
  test-real            only the tests against real servers (nginx, oidc-provider), and those with a
                       browser (chromium), which only this runs
  setup                installs the system packages that those need (Debian, as root)
  generate [--check]   writes the generated files, or says which are out of date
  docs [--check]       draws the pictures of the documentation, or says which are out of date
  new-policy NAME      writes the files of a policy that compiles, to be filled in
  picture              draws docs/demo.svg from what the demo prints
  fuzz [TARGET...] [--minutes N]
                       libFuzzer on each target, or on these, for N minutes (1)
  bench [--quick] [--only a,c,i] [--peers nginx,haproxy] [--picture]
        [--rounds N] [--seconds N] [--connections N]
                       CPU time a request, throughput, latency and memory of Portcullis and of its
                       peers, in turn; --picture draws docs/bench.svg
  bench micro [--bless \"WHY\"]
                       instructions of the hot parts against bench/micro.json
  bench overload [--quick] [--slower N] [--debug]
                       three times what a backend can do, and one backend that hangs: what clients
                       of Portcullis, Envoy and nginx see
  bench allocations [--requests N] [--warm-up N] [--trace]
                       what a request takes from the heap, and where
  bench audit          how long `portcullis audit --quick` takes with 5,000 routes
";

fn main() -> ExitCode {
    match run(&std::env::args().skip(1).collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> anyhow::Result<()> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["test", rest @ ..] => test::everything(rest),
        ["test-real"] => test::real(),
        ["setup"] => setup::install_with_browser(),
        ["generate"] => generate::write(),
        ["generate", "--check"] => generate::check(),
        ["docs"] => docs::write(),
        ["docs", "--check"] => docs::check(),
        ["new-policy", name] => new_policy::write(name),
        ["picture"] => picture::draw(),
        ["fuzz", rest @ ..] => fuzz::run_targets(rest),
        ["bench", "allocations", rest @ ..] => bench::allocations(rest),
        ["bench", "audit"] => bench::audit(),
        ["bench", "overload", rest @ ..] => bench::overload(rest),
        ["bench", "micro", rest @ ..] => bench::micro(rest),
        ["bench", rest @ ..] => bench::bench(rest),
        [] | ["help" | "--help" | "-h"] => {
            println!("{USAGE}");
            Ok(())
        }
        other => bail!("I do not know `{}`\n\n{USAGE}", other.join(" ")),
    }
}

/// The root of the workspace.
fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}
