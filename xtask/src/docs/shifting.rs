//! How canaries grow: a picture of what becomes of a good one and of bad ones.

use std::time::Duration;

use portcullis_upstream::analysis::EVIDENCE_MAX;
use portcullis_upstream::mix::Mix;
use portcullis_upstream::{Analysis, AnalysisSettings, Seen};

use super::plot::{BLUE, GREEN, GREY, Line, ORANGE, Panel, Plot};
use super::simulation::Course;

const RATE: u64 = 500;
const SECONDS: u64 = 240;
/// Errors of what is good, and of what is not, in a thousand answers.
const GOOD: u64 = 2;
const BAD: u64 = 20;

/// The share and the evidence of a canary that is bad from this second on.
fn canary(seed: u64, bad_from: u64) -> (Course, Course) {
    let mut mix = Mix::new(seed);
    let settings = AnalysisSettings {
        steps: vec![5, 25, 50, 100],
        every: Duration::from_secs(60),
        requests_min: 200,
    };
    let mut analysis = Analysis::new(settings, Duration::ZERO);
    let (mut one, mut other) = (Seen::default(), Seen::default());
    let (mut share, mut evidence) = (Vec::new(), Vec::new());
    for second in 0..=SECONDS {
        analysis.look(Duration::from_secs(second), &one, &other);
        let state = analysis.state();
        share.push((second as f64, f64::from(state.percent)));
        evidence.push((second as f64, state.evidence.0.log10().clamp(0.0, 4.0)));
        let requests = RATE * u64::from(state.percent) / 100;
        let bad = if second < bad_from { GOOD } else { BAD };
        for (seen, requests, thousandth) in
            [(&mut one, requests, bad), (&mut other, RATE - requests, GOOD)]
        {
            seen.requests += requests;
            seen.errors += (0..requests).filter(|_| mix.below(1_000) < thousandth).count() as u64;
        }
    }
    (share, evidence)
}

pub(super) fn analysis() -> Plot {
    let mut shares = Vec::new();
    let mut evidences = Vec::new();
    for (name, colour, seed, bad_from) in [
        ("a good one", GREEN, 1, u64::MAX),
        ("bad at once", ORANGE, 1, 0),
        ("bad after 150 s", BLUE, 2, 150),
    ] {
        let (share, evidence) = canary(seed, bad_from);
        shares.push(Line::new(name, colour, share));
        evidences.push(Line::new(name, colour, evidence));
    }
    let limit = EVIDENCE_MAX.log10();
    evidences.push(
        Line::new("is rolled back", GREY, vec![(0.0, limit), (SECONDS as f64, limit)]).dashed(),
    );
    Plot {
        title: "analysis",
        about: "500 requests a second; of a good variant's answers 0.2 % are errors, of a bad one's 2 %.",
        spans: vec![(150.0, SECONDS as f64, "one turns bad")],
        seconds: SECONDS as f64,
        panels: vec![
            Panel { label: "share of the requests, in percent", lines: shares },
            Panel { label: "evidence of more errors, in powers of ten", lines: evidences },
        ],
    }
}
