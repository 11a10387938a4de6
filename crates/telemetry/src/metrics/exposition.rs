//! The text that `/metrics` answers with: OpenMetrics 1.0.
//!
//! Samples may be added in any order; [`Exposition::finish`] puts each family together.

use std::fmt::Write as _;

use super::histogram::{Scale, Totals};
use super::names::{Kind, Metric};

/// The media type of the text.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Collects samples of all families.
#[derive(Debug, Default)]
pub struct Exposition {
    /// The lines of each family, by its place in [`Metric::ALL`].
    families: Vec<String>,
}

impl Exposition {
    #[must_use]
    pub fn new() -> Self {
        Self { families: vec![String::new(); Metric::ALL.len()] }
    }

    /// A sample of a counter. Label values stand in the order of [`Metric::labels`].
    pub fn count(&mut self, metric: Metric, labels: &[&str], value: u64) {
        debug_assert_eq!(metric.kind(), Kind::Counter, "{metric:?}");
        self.sample(metric, "_total", labels, None, |out| write!(out, "{value}"));
    }

    /// A sample of a gauge, or of an info, whose value is 1.
    pub fn gauge(&mut self, metric: Metric, labels: &[&str], value: f64) {
        let suffix = match metric.kind() {
            Kind::Info => "_info",
            kind => {
                debug_assert_eq!(kind, Kind::Gauge, "{metric:?}");
                ""
            }
        };
        self.sample(metric, suffix, labels, None, |out| write!(out, "{value}"));
    }

    /// All samples of one histogram.
    pub fn histogram(&mut self, metric: Metric, labels: &[&str], scale: &Scale, totals: &Totals) {
        debug_assert_eq!(metric.kind(), Kind::Histogram, "{metric:?}");
        let mut cumulative = 0;
        for (i, bucket) in totals.buckets.iter().enumerate() {
            cumulative += bucket;
            let bound = scale.bounds.get(i).map(|bound| f64::from(*bound) / scale.divisor);
            let bound = bound.map_or_else(|| "+Inf".to_owned(), decimal);
            self.sample(metric, "_bucket", labels, Some(&bound), |out| write!(out, "{cumulative}"));
        }
        self.sample(metric, "_count", labels, None, |out| write!(out, "{cumulative}"));
        let sum = totals.sum as f64 / scale.divisor;
        self.sample(metric, "_sum", labels, None, |out| write!(out, "{sum}"));
    }

    /// Appends the whole text. Families without a sample are left out.
    pub fn finish(self, out: &mut String) {
        for (metric, lines) in Metric::ALL.iter().zip(&self.families) {
            if lines.is_empty() {
                continue;
            }
            let name = metric.name();
            line(out, &["# TYPE ", name, " ", metric.kind().name()]);
            if !metric.unit().is_empty() {
                line(out, &["# UNIT ", name, " ", metric.unit()]);
            }
            line(out, &["# HELP ", name, " ", metric.help()]);
            out.push_str(lines);
        }
        out.push_str("# EOF\n");
    }

    fn sample(
        &mut self,
        metric: Metric,
        suffix: &str,
        values: &[&str],
        bound: Option<&str>,
        value: impl FnOnce(&mut String) -> std::fmt::Result,
    ) {
        let names = metric.labels();
        debug_assert_eq!(names.len(), values.len(), "{metric:?} has the labels {names:?}");
        let Some(out) = self.families.get_mut(metric as usize) else { return };
        out.push_str(metric.name());
        out.push_str(suffix);
        let labels = names.iter().zip(values).map(|(name, value)| (*name, *value));
        let mut opening = '{';
        for (name, value) in labels.chain(bound.map(|bound| ("le", bound))) {
            out.push(opening);
            out.push_str(name);
            out.push_str("=\"");
            push_escaped(out, value);
            out.push('"');
            opening = ',';
        }
        if opening == ',' {
            out.push('}');
        }
        out.push(' ');
        // Writing to a string cannot fail.
        value(out).unwrap_or_default();
        out.push('\n');
    }
}

fn line(out: &mut String, parts: &[&str]) {
    parts.iter().for_each(|part| out.push_str(part));
    out.push('\n');
}

/// Plain digits with a point, as OpenMetrics wants bounds; never an exponent.
fn decimal(number: f64) -> String {
    let text = format!("{number}");
    if text.contains('.') { text } else { text + ".0" }
}

/// Of OpenMetrics' ABNF `escaped-char`: the three that need it.
fn push_escaped(out: &mut String, value: &str) {
    for character in value.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            other => out.push(other),
        }
    }
}
