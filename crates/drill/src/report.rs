//! What came of the drills, for people and as JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use crate::client::Outcome;
use crate::judge::{Course, judge};
use crate::scenario::{Promise, Scenario};

/// All drills.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Requests a second, for each.
    pub rate: u32,
    pub trouble_seconds: f64,
    pub drills: Vec<Drill>,
    pub seconds: f64,
}

/// One drill, as its clients saw it.
#[derive(Debug, Serialize)]
pub struct Drill {
    pub drill: &'static str,
    pub about: &'static str,
    pub requests: usize,
    /// Answers by their status.
    pub statuses: BTreeMap<u16, u64>,
    /// Those among them that the gateway made, by the code of the problem.
    pub gateway_made: BTreeMap<String, u64>,
    /// Connections that ended before the answer did.
    pub cut: u64,
    pub timed_out: u64,
    /// While there was trouble.
    pub p50_ms: f64,
    pub p99_ms: f64,
    /// From the beginning of the trouble, or from its end where nothing can be good before.
    pub good_again_ms: u64,
    /// Requests that each endpoint got.
    pub endpoints: Vec<u64>,
    pub promises: Vec<Kept>,
}

/// A promise, and whether it was kept.
#[derive(Clone, Debug, Serialize)]
pub struct Kept {
    pub promise: String,
    /// It is one about time, which a busy machine may break.
    pub timed: bool,
    pub kept: bool,
    /// What was seen in its place.
    pub seen: String,
}

impl Report {
    /// Whether all promises were kept.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.drills.iter().flat_map(|drill| &drill.promises).all(|promise| promise.kept)
    }

    /// A table, and beneath it every promise.
    #[must_use]
    pub fn human(&self) -> String {
        let mut out = String::new();
        // A string takes everything that is written to it.
        self.tell(&mut out).unwrap_or_default();
        out
    }

    fn tell(&self, out: &mut String) -> std::fmt::Result {
        let mut rows = vec![
            ["drill", "requests", "200", "other", "gateway", "cut", "p50", "p99", "good again"]
                .map(str::to_owned),
        ];
        for drill in &self.drills {
            let good = drill.statuses.get(&200).copied().unwrap_or_default();
            let all: u64 = drill.statuses.values().sum();
            let made: u64 = drill.gateway_made.values().sum();
            rows.push([
                drill.drill.to_owned(),
                drill.requests.to_string(),
                good.to_string(),
                (all - good).to_string(),
                made.to_string(),
                (drill.cut + drill.timed_out).to_string(),
                format!("{:.1} ms", drill.p50_ms),
                format!("{:.1} ms", drill.p99_ms),
                format!("{:.1} s", Duration::from_millis(drill.good_again_ms).as_secs_f64()),
            ]);
        }
        let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..9).map(width).collect();
        for row in &rows {
            write!(out, "{:1$}", row[0], widths[0])?;
            for (cell, width) in row.iter().zip(&widths).skip(1) {
                write!(out, "  {cell:>width$}")?;
            }
            writeln!(out)?;
        }
        for drill in &self.drills {
            writeln!(out, "\n{}: {}", drill.drill, drill.about)?;
            for Kept { promise, kept, seen, .. } in &drill.promises {
                let verdict = if *kept { "kept  " } else { "BROKEN" };
                writeln!(out, "  {verdict}  {promise} (seen: {seen})")?;
            }
        }
        let kept = self.drills.iter().flat_map(|drill| &drill.promises);
        let (kept, broken): (Vec<_>, Vec<_>) = kept.partition(|promise| promise.kept);
        writeln!(
            out,
            "\n{} promises kept, {} broken; {} requests a second for each drill, {:.0} s",
            kept.len(),
            broken.len(),
            self.rate,
            self.seconds
        )
    }
}

impl Drill {
    pub(crate) fn new(scenario: &Scenario, course: &Course) -> Self {
        let mut statuses = BTreeMap::new();
        let mut gateway_made = BTreeMap::new();
        let (mut cut, mut timed_out) = (0, 0);
        for seen in &course.seen {
            match &seen.outcome {
                Outcome::Endpoint(status, _) => *statuses.entry(*status).or_default() += 1,
                Outcome::Gateway(status, code) => {
                    *statuses.entry(*status).or_default() += 1;
                    *gateway_made.entry(code.clone()).or_default() += 1;
                }
                Outcome::Cut => cut += 1,
                Outcome::TimedOut => timed_out += 1,
            }
        }
        let after = |promise: &Promise| matches!(promise, Promise::GoodAfter(_));
        let since = match scenario.promises.iter().any(after) {
            true => course.ended,
            false => course.began,
        };
        let ms = |time: Duration| (time.as_secs_f64() * 10_000.0).round() / 10.0;
        Self {
            drill: scenario.name,
            about: scenario.about,
            requests: course.seen.len(),
            statuses,
            gateway_made,
            cut,
            timed_out,
            p50_ms: ms(course.percentile(50)),
            p99_ms: ms(course.percentile(99)),
            good_again_ms: course.good_again(since).as_millis() as u64,
            endpoints: course.asked.clone(),
            promises: scenario.promises.iter().map(|promise| judge(*promise, course)).collect(),
        }
    }
}
