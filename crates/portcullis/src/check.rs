//! `portcullis check`: everything that is wrong with a configuration, and whether its tests hold.

use std::io;
use std::process::ExitCode;

use portcullis_config::{Report, render, render_accepted, report, summary};
use portcullis_snapshot::{Coverage, Snapshot, TestReport, coverage, run_tests};
use serde::Serialize;

use crate::{NO, cli, load, output};

/// What `--json` prints.
#[derive(Serialize)]
struct Checked {
    #[serde(flatten)]
    report: Report,
    tests: Tests,
    /// Missing if it does not compile.
    #[serde(skip_serializing_if = "Option::is_none")]
    routes: Option<Coverage>,
}

#[derive(Serialize)]
struct Tests {
    passed: usize,
    failed: usize,
}

pub(crate) fn run(arguments: &cli::Check) -> anyhow::Result<ExitCode> {
    let (attempt, now) = load::attempt(&arguments.config.path)?;
    let mut findings = attempt.findings;
    let tests = match (&attempt.config, &attempt.snapshot) {
        (Some(config), Some(snapshot)) => run_tests(config, snapshot, now, &mut findings),
        _ => TestReport::default(),
    };
    let findings = findings.sorted();
    let denied = arguments.deny == Some(cli::Deny::Warnings) && findings.warnings() > 0;
    let holds = findings.errors() == 0 && attempt.snapshot.is_some() && !denied;
    if arguments.json {
        output::print_json(&Checked {
            report: report(&findings, &attempt.sources),
            tests: Tests { passed: tests.passed, failed: tests.failed },
            routes: attempt.snapshot.as_ref().map(coverage),
        })?;
    } else {
        let colour = output::colour(&io::stdout());
        let mut text = render(&findings, &attempt.sources, colour);
        if arguments.all {
            text += &render_accepted(&findings, &attempt.sources, colour);
        }
        let name = arguments.config.path.display();
        let mut parts = vec![summary(&findings)];
        if let Some(snapshot) = &attempt.snapshot {
            parts.push(routes(snapshot));
            parts.push(said(tests));
        }
        parts.retain(|part| !part.is_empty());
        text += &format!("{name}: {}\n", parts.join("; "));
        output::print(&text)?;
    }
    Ok(if holds { ExitCode::SUCCESS } else { ExitCode::from(NO) })
}

/// `3 routes: 2 authenticated, 1 public`.
fn routes(snapshot: &Snapshot) -> String {
    let Coverage { authenticated, optional, public, .. } = coverage(snapshot);
    let kinds = [(authenticated, "authenticated"), (optional, "optional"), (public, "public")];
    let kinds = kinds.iter().filter(|(count, _)| *count > 0);
    let kinds: Vec<String> = kinds.map(|(count, kind)| format!("{count} {kind}")).collect();
    match snapshot.routes.len() {
        0 => "no routes".to_owned(),
        1 => format!("1 route: {}", kinds.join(", ")),
        count => format!("{count} routes: {}", kinds.join(", ")),
    }
}

fn said(tests: TestReport) -> String {
    match tests {
        TestReport { passed: 0, failed: 0 } => "no tests".to_owned(),
        TestReport { passed: 1, failed: 0 } => "1 test holds".to_owned(),
        TestReport { passed, failed: 0 } => format!("{passed} tests hold"),
        TestReport { passed, failed } => {
            let all = passed + failed;
            let noun = if all == 1 { "test" } else { "tests" };
            let verb = if failed == 1 { "does" } else { "do" };
            format!("{failed} of {all} {noun} {verb} not hold")
        }
    }
}
