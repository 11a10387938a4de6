//! Canaries under analysis: what the admin API and the metrics tell of them, and
//! `portcullis analysis`, which asks a running gateway.

use std::process::ExitCode;

use anyhow::{Context as _, bail};
use portcullis_proxy::{AnalysisEvent, AnalysisReport};
use portcullis_telemetry::metrics::{Exposition, Metric, SERIES_MAX};
use portcullis_telemetry::timestamp::Stamp;
use portcullis_upstream::analysis::{EVIDENCE_MAX, Event, Stage};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::admin_api::{self, Answer};
use crate::{cli, load, output};

/// A canary as `/analysis` shows it.
#[derive(Debug, Deserialize, Serialize)]
struct Row {
    route: String,
    canary: String,
    baseline: String,
    /// `step 2 of 4`, `promoted` or `rolled back`.
    stage: String,
    /// Why it was rolled back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cause: Option<String>,
    /// Somebody else's override holds.
    paused: bool,
    percent: u8,
    evidence: Evidence,
    /// With so much of either it is rolled back.
    evidence_max: f64,
    good_answers: Answers,
    /// The latest last.
    events: Vec<Happened>,
}

/// So many to one for the canary being worse.
#[derive(Debug, Deserialize, Serialize)]
struct Evidence {
    errors: f64,
    slow: f64,
}

/// Without an error, in this step.
#[derive(Debug, Deserialize, Serialize)]
struct Answers {
    canary: u64,
    baseline: u64,
    /// Both need so many.
    wanted: u64,
}

#[derive(Debug, Deserialize, Serialize)]
struct Happened {
    at: String,
    event: String,
    stage: String,
    percent: u8,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cause: Option<String>,
    evidence: Evidence,
}

/// For `/analysis`.
pub(crate) fn table(reports: &[AnalysisReport]) -> Value {
    let rows: Vec<Row> = reports.iter().map(row).collect();
    // Plain texts and numbers: there is nothing in them that JSON cannot hold.
    serde_json::to_value(rows).unwrap_or_default()
}

fn row(report: &AnalysisReport) -> Row {
    let AnalysisReport { state, settings, .. } = report;
    let steps = settings.steps.len();
    let (canary, baseline) = report.good;
    Row {
        route: report.route.to_string(),
        canary: report.canary.to_string(),
        baseline: report.baseline.to_string(),
        stage: stage(state.stage, steps),
        cause: cause(state.stage),
        paused: report.paused,
        percent: state.percent,
        evidence: evidence(state),
        evidence_max: EVIDENCE_MAX,
        good_answers: Answers { canary, baseline, wanted: settings.requests_min },
        events: report.events.iter().map(|event| happened(event, steps)).collect(),
    }
}

fn happened(event: &AnalysisEvent, steps: usize) -> Happened {
    let AnalysisEvent { at, name, state } = event;
    Happened {
        at: String::from_utf8_lossy(Stamp::default().text(*at)).into_owned(),
        event: (*name).to_owned(),
        stage: stage(state.stage, steps),
        percent: state.percent,
        cause: cause(state.stage),
        evidence: evidence(state),
    }
}

fn stage(stage: Stage, steps: usize) -> String {
    match stage {
        Stage::Step(step) => format!("step {} of {steps}", step + 1),
        Stage::Promoted => "promoted".to_owned(),
        Stage::RolledBack(_) => "rolled back".to_owned(),
    }
}

fn cause(stage: Stage) -> Option<String> {
    match stage {
        Stage::RolledBack(cause) => Some(cause.name().to_owned()),
        Stage::Step(_) | Stage::Promoted => None,
    }
}

fn evidence(state: &Event) -> Evidence {
    let (errors, slow) = state.evidence;
    Evidence { errors: finite(errors), slow: finite(slow) }
}

/// JSON has no infinity, and nobody asks for more than this.
fn finite(evidence: f64) -> f64 {
    evidence.min(1e12)
}

pub(crate) fn collect(reports: &[AnalysisReport], exposition: &mut Exposition) {
    for report in reports.iter().take(SERIES_MAX) {
        let route = &*report.route;
        for (event, count) in report.counts {
            exposition.count(Metric::AnalysisEvents, &[route, event], count);
        }
        let share = f64::from(report.state.percent) / 100.0;
        exposition.gauge(Metric::AnalysisShare, &[route], share);
        let paused = f64::from(u8::from(report.paused));
        exposition.gauge(Metric::AnalysisPaused, &[route], paused);
        let Evidence { errors, slow } = evidence(&report.state);
        for (cause, evidence) in [("errors", errors), ("slow", slow)] {
            exposition.gauge(Metric::AnalysisEvidence, &[route, cause], evidence);
        }
    }
}

pub(crate) fn run(arguments: &cli::Analysis) -> anyhow::Result<ExitCode> {
    let (attempt, _) = load::attempt(&arguments.config.path)?;
    let config = attempt.config.as_ref().context("the configuration cannot be read: `check` it")?;
    let answer = admin_api::ask(config, &attempt.files, "GET", "/analysis", "")?;
    let Answer::Found(body) = answer else {
        bail!("the gateway that runs does not tell of canaries");
    };
    if arguments.json {
        output::print(&body)?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<Row> = serde_json::from_str(&body).context("the admin API's answer")?;
    let told: Vec<String> = rows.iter().map(told).collect();
    output::print(&match told.is_empty() {
        true => "no route has an `analysis`\n".to_owned(),
        false => told.join("\n"),
    })?;
    Ok(ExitCode::SUCCESS)
}

fn told(row: &Row) -> String {
    let Row { route, canary, baseline, stage, percent, evidence, good_answers, .. } = row;
    let because = |cause: &Option<String>| {
        cause.as_ref().map(|cause| format!(" ({cause})")).unwrap_or_default()
    };
    let share = match row.paused {
        true => format!("; paused, an override holds in place of its {percent} %"),
        false => format!(": {percent} % of the requests"),
    };
    let mut out = format!("{route}: {canary} beside {baseline}\n");
    out += &format!("  {stage}{}{share}\n", because(&row.cause));
    let Answers { canary, baseline, wanted } = good_answers;
    out += &format!("  good answers in this step: {canary} and {baseline}, {wanted} are wanted\n");
    let Evidence { errors, slow } = evidence;
    let shown = |evidence: &f64| match *evidence {
        small if small < 1_000.0 => format!("{small:.3}"),
        large if large < 1e6 => format!("{large:.0}"),
        _ => "over a million".to_owned(),
    };
    out += &format!(
        "  evidence against it: {} by errors, {} by slow answers; {} is too much\n",
        shown(errors),
        shown(slow),
        row.evidence_max
    );
    for Happened { at, event, stage, percent, cause, .. } in &row.events {
        let what = match &**event {
            "paused" | "resumed" => format!("{event} at {stage}"),
            _ => format!("{stage}{}", because(cause)),
        };
        out += &format!("  {at}  {what}: {percent} %\n");
    }
    out
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use expect_test::expect;
    use portcullis_upstream::AnalysisSettings;
    use portcullis_upstream::analysis::Cause;

    use super::*;

    fn report() -> AnalysisReport {
        let state = |stage, percent, errors| Event { stage, percent, evidence: (errors, 0.5) };
        let event = |at, name, state| AnalysisEvent { at: Duration::from_secs(at), name, state };
        let back = Stage::RolledBack(Cause::Errors);
        AnalysisReport {
            route: "orders".into(),
            canary: "v2".into(),
            baseline: "v1".into(),
            settings: AnalysisSettings {
                steps: vec![5, 100],
                every: Duration::from_secs(60),
                requests_min: 200,
            },
            state: state(back, 0, f64::INFINITY),
            paused: false,
            good: (70, 900),
            events: vec![
                event(0, "step", state(Stage::Step(0), 5, 1.0)),
                event(7, "paused", state(Stage::Step(0), 5, 1.0)),
                event(9, "rolled_back", state(back, 0, 2048.0)),
            ],
            counts: [
                ("step", 1),
                ("promoted", 0),
                ("rolled_back", 1),
                ("paused", 1),
                ("resumed", 0),
            ],
        }
    }

    #[test]
    fn a_canary_is_an_object_for_programs() {
        let shown = serde_json::to_string_pretty(&table(&[report()])).unwrap();
        expect![[r#"
            [
              {
                "route": "orders",
                "canary": "v2",
                "baseline": "v1",
                "stage": "rolled back",
                "cause": "errors",
                "paused": false,
                "percent": 0,
                "evidence": {
                  "errors": 1000000000000.0,
                  "slow": 0.5
                },
                "evidence_max": 2000.0,
                "good_answers": {
                  "canary": 70,
                  "baseline": 900,
                  "wanted": 200
                },
                "events": [
                  {
                    "at": "1970-01-01T00:00:00.000Z",
                    "event": "step",
                    "stage": "step 1 of 2",
                    "percent": 5,
                    "evidence": {
                      "errors": 1.0,
                      "slow": 0.5
                    }
                  },
                  {
                    "at": "1970-01-01T00:00:07.000Z",
                    "event": "paused",
                    "stage": "step 1 of 2",
                    "percent": 5,
                    "evidence": {
                      "errors": 1.0,
                      "slow": 0.5
                    }
                  },
                  {
                    "at": "1970-01-01T00:00:09.000Z",
                    "event": "rolled_back",
                    "stage": "rolled back",
                    "percent": 0,
                    "cause": "errors",
                    "evidence": {
                      "errors": 2048.0,
                      "slow": 0.5
                    }
                  }
                ]
              }
            ]"#]]
        .assert_eq(&shown);
    }

    #[test]
    fn a_canary_is_some_lines_for_people() {
        let paused = Row { paused: true, ..row(&report()) };
        expect![[r#"
            orders: v2 beside v1
              rolled back (errors): 0 % of the requests
              good answers in this step: 70 and 900, 200 are wanted
              evidence against it: over a million by errors, 0.500 by slow answers; 2000 is too much
              1970-01-01T00:00:00.000Z  step 1 of 2: 5 %
              1970-01-01T00:00:07.000Z  paused at step 1 of 2: 5 %
              1970-01-01T00:00:09.000Z  rolled back (errors): 0 %

            orders: v2 beside v1
              rolled back (errors); paused, an override holds in place of its 0 %
              good answers in this step: 70 and 900, 200 are wanted
              evidence against it: over a million by errors, 0.500 by slow answers; 2000 is too much
              1970-01-01T00:00:00.000Z  step 1 of 2: 5 %
              1970-01-01T00:00:07.000Z  paused at step 1 of 2: 5 %
              1970-01-01T00:00:09.000Z  rolled back (errors): 0 %
        "#]]
        .assert_eq(&[told(&row(&report())), told(&paused)].join("\n"));
    }

    #[test]
    fn a_canary_is_some_samples() {
        let mut exposition = Exposition::new();
        collect(&[report()], &mut exposition);
        let mut text = String::new();
        exposition.finish(&mut text);
        let samples = text.lines().filter(|line| line.starts_with("portcullis_analysis"));
        expect![[r#"
            portcullis_analysis_events_total{route="orders",event="step"} 1
            portcullis_analysis_events_total{route="orders",event="promoted"} 0
            portcullis_analysis_events_total{route="orders",event="rolled_back"} 1
            portcullis_analysis_events_total{route="orders",event="paused"} 1
            portcullis_analysis_events_total{route="orders",event="resumed"} 0
            portcullis_analysis_canary_ratio{route="orders"} 0
            portcullis_analysis_paused{route="orders"} 0
            portcullis_analysis_evidence{route="orders",cause="errors"} 1000000000000
            portcullis_analysis_evidence{route="orders",cause="slow"} 0.5
        "#]]
        .assert_eq(&samples.map(|line| format!("{line}\n")).collect::<String>());
    }
}
