//! SARIF 2.1.0 (OASIS), as code scanning reads it: one result for each finding, at the line where
//! the route is written.

use serde_json::{Value, json};

use super::Report;
use crate::judge::{CODES, Place};

const SCHEMA: &str = "https://json.schemastore.org/sarif-2.1.0.json";
const NOT_PROVED: (&str, &str) = ("not-proved", "Of a route not everything could be proved");

pub(super) fn write(report: &Report) -> String {
    let rules: Vec<Value> = CODES
        .iter()
        .chain([&NOT_PROVED])
        .map(|(code, text)| json!({ "id": code, "shortDescription": { "text": text } }))
        .collect();
    let mut results: Vec<Value> = Vec::new();
    for finding in &report.findings {
        let text = format!(
            "Route `{}`, {}: {} {} over {} on `{}`: {}.\n{}",
            finding.route,
            finding.probe,
            finding.method,
            finding.target,
            finding.protocol,
            finding.listener,
            finding.message,
            finding.reproduce
        );
        results.push(result(finding.code, &text, finding.place.as_ref()));
    }
    for gap in &report.not_covered {
        let text = format!("Route `{}` is not proved: {}.", gap.route, gap.reasons.join("; "));
        results.push(result(NOT_PROVED.0, &text, gap.place.as_ref()));
    }
    let sarif = json!({
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "portcullis audit",
                "version": env!("CARGO_PKG_VERSION"),
                "rules": rules,
            } },
            "results": results,
            "properties": { "coverage": report.coverage, "probes": report.probes },
        }],
    });
    format!("{sarif:#}\n")
}

fn result(code: &str, text: &str, place: Option<&Place>) -> Value {
    let mut result = json!({ "ruleId": code, "level": "error", "message": { "text": text } });
    if let Some(Place { file, line }) = place {
        result["locations"] = json!([{ "physicalLocation": {
            "artifactLocation": { "uri": file },
            "region": { "startLine": line },
        } }]);
    }
    result
}
