//! How often a good canary is rolled back, and how soon a bad one: what the guide promises.

use super::*;
use crate::mix::Mix;

const RUNS: u64 = 1_000;
const STEPS: [u8; 4] = [5, 25, 50, 100];
const EVERY: u64 = 60;
/// By then it has long ended, one way or the other.
const SECONDS_MAX: u64 = 3_600;

/// Shares of errors and of slow answers.
#[derive(Clone, Copy)]
struct Does {
    errors: f64,
    slow: f64,
}

const GOOD: Does = Does { errors: 0.002, slow: 0.005 };

/// What is tried.
#[derive(Clone, Copy)]
struct Trial {
    /// Requests a second, of both variants together.
    rate: u64,
    canary: Does,
    baseline: Does,
    /// The second until which the canary is as the baseline.
    from: u64,
}

const TRIAL: Trial = Trial { rate: 500, canary: GOOD, baseline: GOOD, from: 0 };

/// How many of so many, each with this probability: by the gaps between them.
fn hits(mix: &mut Mix, trials: u64, probability: f64) -> u64 {
    if probability >= 1.0 {
        return trials;
    }
    let (mut at, mut hits) = (0, 0);
    loop {
        let uniform = ((mix.next() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
        at += 1 + (uniform.ln() / (1.0 - probability).ln()) as u64;
        if at > trials {
            return hits;
        }
        hits += 1;
    }
}

/// How long it took from where it is worse until it was rolled back.
fn run(seed: u64, trial: Trial) -> Option<u64> {
    let mut mix = Mix::new(seed);
    let settings = AnalysisSettings {
        steps: STEPS.to_vec(),
        every: Duration::from_secs(EVERY),
        requests_min: 200,
    };
    let mut analysis = Analysis::new(settings, Duration::ZERO);
    let (mut a, mut b) = (Seen::default(), Seen::default());
    for second in 0..=SECONDS_MAX {
        analysis.look(Duration::from_secs(second), &a, &b);
        match analysis.stage() {
            Stage::RolledBack(_) => return Some(second.saturating_sub(trial.from)),
            Stage::Promoted => return None,
            Stage::Step(_) => {}
        }
        let canary = if second < trial.from { trial.baseline } else { trial.canary };
        // What is less than one a second adds up.
        let share = u64::from(analysis.percent());
        let upto = |second: u64| trial.rate * second * share / 100;
        let requests = upto(second + 1) - upto(second);
        for (seen, requests, does) in
            [(&mut a, requests, canary), (&mut b, trial.rate - requests, trial.baseline)]
        {
            let errors = hits(&mut mix, requests, does.errors);
            let slow = hits(&mut mix, requests, does.slow);
            seen.add(&Seen { requests, errors, durations: vec![requests - slow, slow] });
        }
    }
    None
}

fn row(what: &str, trial: Trial) -> String {
    let mut ended: Vec<u64> = (0..RUNS).filter_map(|seed| run(seed, trial)).collect();
    ended.sort_unstable();
    let at = |part: usize| match ended.get(ended.len() * part / 100) {
        Some(second) if ended.len() > 20 => format!("{second} s"),
        _ => "–".to_owned(),
    };
    format!("| {what} | {} | {} | {} |\n", ended.len(), at(50), at(95))
}

/// Each run has a seed from 0 on, so that the table is the same wherever it is made.
#[test]
fn the_table_of_the_guide_is_true() {
    let does = |errors, slow| Does { errors, slow };
    let both = |one| Trial { canary: one, baseline: one, ..TRIAL };
    let worse = |canary| Trial { canary, ..TRIAL };
    let mut table = String::new();
    for (what, trial) in [
        ("nothing: 0.2 % errors, 0.5 % slow", TRIAL),
        ("nothing: 5 % errors, 0.5 % slow", both(does(0.05, 0.005))),
        ("nothing: half of all answers are errors", both(does(0.5, 0.005))),
        (
            "nothing, it is better: errors 2 % → 0.2 %",
            Trial { baseline: does(0.02, 0.005), ..TRIAL },
        ),
        ("errors 0.2 % → 1 %", worse(does(0.01, 0.005))),
        ("errors 0.2 % → 2 %", worse(does(0.02, 0.005))),
        ("errors 0.2 % → 5 %", worse(does(0.05, 0.005))),
        (
            "errors 0.2 % → 5 %, 50 requests a second",
            Trial { rate: 50, ..worse(does(0.05, 0.005)) },
        ),
        ("errors 0.2 % → 2 %, after 150 s", Trial { from: 150, ..worse(does(0.02, 0.005)) }),
        ("errors 5 % → 15 %", Trial { baseline: does(0.05, 0.005), ..worse(does(0.15, 0.005)) }),
        ("nothing but errors", worse(does(1.0, 0.005))),
        ("slow answers 0.5 % → 3 %", worse(does(0.002, 0.03))),
        ("slow answers 0.5 % → 20 %", worse(does(0.002, 0.2))),
    ] {
        table += &row(what, trial);
    }
    let guide = include_str!("../../../../docs/guides/shifting-traffic.md");
    assert!(guide.contains(&table), "seeds 0 to {}; the guide needs this:\n{table}", RUNS - 1);
}
