//! The report as people read it in a terminal.

use std::fmt::Write as _;

use super::{Report, Routes};

pub(super) fn write(report: &Report, name: &str) -> String {
    let mut out = String::new();
    // A string takes everything that is written to it.
    tell(report, name, &mut out).unwrap_or_default();
    out
}

fn tell(report: &Report, name: &str, out: &mut String) -> std::fmt::Result {
    let Routes { all, authenticated, covered, optional, public } = report.routes;
    let noun = |count: usize, one: &str| match count {
        1 => format!("1 {one}"),
        count => format!("{count} {one}s"),
    };
    writeln!(out, "{name}: {} audit of {}", report.mode, noun(all, "route"))?;
    if let Some(moment) = &report.moment {
        writeln!(out, "as of {moment}, since some routes are closed to everybody now")?;
    }
    writeln!(out)?;
    let width = report.kinds.keys().map(|kind| kind.len()).max().unwrap_or(0);
    for (kind, count) in &report.kinds {
        writeln!(out, "  {kind:width$}  {count:>7}")?;
    }
    if !report.open.is_empty() {
        writeln!(out, "\nOpen to everybody, and why:")?;
        let width = report.open.iter().map(|open| open.route.len()).max().unwrap_or(0);
        for open in &report.open {
            writeln!(out, "  {:width$}  {}", open.route, open.reason)?;
        }
    }
    if !report.shut.is_empty() {
        writeln!(out, "\nNobody gets through, though the route takes their credential:")?;
        for shut in &report.shut {
            writeln!(out, "  {}: {}", shut.route, shut.reason)?;
        }
    }
    if !report.not_covered.is_empty() {
        writeln!(out, "\nNot proved:")?;
        for gap in &report.not_covered {
            writeln!(out, "  {}", gap.route)?;
            for reason in &gap.reasons {
                writeln!(out, "    {reason}")?;
            }
        }
    }
    for finding in &report.findings {
        writeln!(out, "\nfinding[{}]: `{}`, {}", finding.code, finding.route, finding.probe)?;
        if let Some(place) = &finding.place {
            writeln!(out, "  written at {}:{}", place.file, place.line)?;
        }
        let (protocol, listener) = (finding.protocol, &finding.listener);
        writeln!(out, "  {} {} over {protocol} on `{listener}`", finding.method, finding.target)?;
        writeln!(out, "  {}", finding.message)?;
        if !finding.reproduce.is_empty() {
            writeln!(out, "  {}", finding.reproduce)?;
        }
    }
    if report.more_findings > 0 {
        writeln!(out, "\nand {} more", noun(report.more_findings, "finding"))?;
    }
    let probes = report.probes;
    let rate = if report.seconds > 0.0 { probes as f64 / report.seconds } else { 0.0 };
    writeln!(
        out,
        "\n{} authenticated, {optional} optional, {public} public; {} in {:.1} s ({rate:.0}/s)",
        noun(authenticated, "route"),
        noun(probes, "probe"),
        report.seconds,
    )?;
    if let (Some(by_record), Some(by_status), Some(inconclusive)) =
        (report.by_record, report.by_status, report.inconclusive)
    {
        writeln!(
            out,
            "of a running gateway: {by_record} verdicts by its record of decisions, {by_status} by \
             the answer's status only; {inconclusive} prove nothing"
        )?;
    }
    let findings = report.findings.len() + report.more_findings;
    writeln!(
        out,
        "coverage {} % ({covered} of {authenticated}), {}",
        report.coverage,
        noun(findings, "finding")
    )
}
