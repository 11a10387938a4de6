//! XML as `JUnit` has made it common: a test for each route, that passes where everything was
//! proved and nothing was found.

use std::fmt::Write as _;

use super::Report;

pub(super) fn write(report: &Report, name: &str) -> String {
    let mut out = String::new();
    // A string takes everything that is written to it.
    tell(report, name, &mut out).unwrap_or_default();
    out
}

fn tell(report: &Report, name: &str, out: &mut String) -> std::fmt::Result {
    let mut cases = String::new();
    let mut failures = 0;
    for (route, covered) in &report.proved {
        let wrong = wrong(report, route);
        write!(cases, "    <testcase classname=\"audit\" name=\"{}\"", escaped(route))?;
        if *covered && wrong.is_empty() {
            writeln!(cases, "/>")?;
            continue;
        }
        failures += 1;
        let first = wrong.first().map_or("not proved", |first| first);
        writeln!(
            cases,
            ">\n      <failure message=\"{}\">{}</failure>\n    </testcase>",
            escaped(first.lines().next().unwrap_or_default()),
            escaped(&wrong.join("\n"))
        )?;
    }
    // What belongs to no authenticated route still has to fail.
    let others = report
        .findings
        .iter()
        .filter(|finding| report.proved.iter().all(|(route, _)| *route != finding.route));
    for finding in others {
        failures += 1;
        let (code, message) = (finding.code, escaped(&finding.message));
        let name = escaped(&finding.route);
        writeln!(
            cases,
            "    <testcase classname=\"audit\" name=\"{name} {code}\">\n      \
             <failure message=\"{message}\"/>\n    </testcase>"
        )?;
    }
    let tests = cases.matches("<testcase").count();
    let (name, time) = (escaped(name), report.seconds);
    writeln!(out, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>")?;
    writeln!(out, "<testsuites>")?;
    writeln!(
        out,
        "  <testsuite name=\"{name}\" tests=\"{tests}\" failures=\"{failures}\" time=\"{time}\">"
    )?;
    out.push_str(&cases);
    writeln!(out, "  </testsuite>\n</testsuites>")
}

/// What is wrong with a route, each as one text.
fn wrong(report: &Report, route: &str) -> Vec<String> {
    let findings = report.findings.iter().filter(|finding| finding.route == *route);
    let findings = findings
        .map(|one| format!("{}: {}: {}\n{}", one.code, one.probe, one.message, one.reproduce));
    let gaps = report.not_covered.iter().filter(|gap| gap.route == *route);
    let gaps =
        gaps.flat_map(|gap| gap.reasons.iter().map(|reason| format!("not proved: {reason}")));
    findings.chain(gaps).collect()
}

/// For text and attributes of XML 1.0, which cannot hold most control characters at all.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' | '\t' => out.push(c),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}
