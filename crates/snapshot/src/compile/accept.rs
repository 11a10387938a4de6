//! Warnings that the operator has accepted, and acceptances that nothing needs any longer.

use portcullis_config::Acceptance;
use portcullis_core::finding::{Finding, Findings, Severity};

/// Marks what is accepted. An acceptance of nothing is a warning, unless errors keep the rest from
/// being found; one of an error is an error, since what does not serve cannot be lived with.
pub(super) fn accept(acceptances: &[Acceptance], findings: &mut Findings) {
    let mut own = Findings::new();
    for (index, acceptance) in acceptances.iter().enumerate() {
        let resource = format!("accept[{index}]");
        let mut used = false;
        for finding in findings.iter_mut().filter(|finding| covers(acceptance, finding)) {
            used = true;
            if finding.severity == Severity::Error {
                let message = format!("`{}` is an error, which cannot be accepted", finding.code);
                own.error("not-acceptable", acceptance.finding.span, &*resource, message);
                break;
            }
            finding.accepted.get_or_insert_with(|| acceptance.reason.0.clone());
        }
        if !used && !findings.has_errors() {
            let place = acceptance.at.as_ref().map(|at| format!(" at `{}`", at.value));
            let message = format!(
                "nothing is found that this accepts: `{}`{}",
                acceptance.finding.0,
                place.unwrap_or_default()
            );
            let span = acceptance.finding.span;
            let finding = Finding::warning("stale-acceptance", span, resource, message);
            own.push(finding.help("remove it, or correct its code and place"));
        }
    }
    findings.append(own);
}

/// Whether it names the finding, by its code and by its place or the beginning of that.
fn covers(acceptance: &Acceptance, finding: &Finding) -> bool {
    let placed = acceptance.at.as_ref().is_none_or(|at| {
        let rest = finding.resource.strip_prefix(at.value.as_str());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    });
    placed && acceptance.finding.0 == finding.code
}
