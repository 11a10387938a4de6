//! What is found wrong, or worth saying, in a configuration: collected, never thrown at the first.
//!
//! A finding is data. Turning it into a snippet of the file is the business of `config::render`.

use serde::Serialize;

use crate::node::SourceSpan;

/// How bad a finding is. Only an error keeps a configuration from being used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    Error,
    Warning,
    Info,
}

/// A second place that a finding is about, such as the first of two equal names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Related {
    pub span: SourceSpan,
    pub message: String,
}

/// One thing found in a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Stable name of the kind of finding, kebab-case.
    pub code: &'static str,
    pub severity: Severity,
    /// Where it is written; none for what is missing as a whole.
    pub span: Option<SourceSpan>,
    /// What it is about, as a path through the configuration: `routes.orders.limits[0]`.
    pub resource: String,
    /// One sentence without a full stop: what is wrong.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
    pub related: Vec<Related>,
    /// Why the operator lives with it; only of warnings.
    pub accepted: Option<String>,
}

impl Finding {
    #[must_use]
    pub fn new(
        severity: Severity,
        code: &'static str,
        span: impl Into<Option<SourceSpan>>,
        resource: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            code,
            severity,
            span: span.into(),
            resource: resource.into(),
            message: message.into(),
            help: None,
            related: Vec::new(),
            accepted: None,
        }
    }

    #[must_use]
    pub fn error(
        code: &'static str,
        span: impl Into<Option<SourceSpan>>,
        resource: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self::new(Severity::Error, code, span, resource, message)
    }

    #[must_use]
    pub fn warning(
        code: &'static str,
        span: impl Into<Option<SourceSpan>>,
        resource: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self::new(Severity::Warning, code, span, resource, message)
    }

    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Adds "did you mean" when a candidate is close to the word.
    #[must_use]
    pub fn suggest<'a>(self, word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Self {
        match did_you_mean(word, candidates) {
            Some(candidate) => self.help(format!("did you mean `{candidate}`?")),
            None => self,
        }
    }

    #[must_use]
    pub fn related(mut self, span: SourceSpan, message: impl Into<String>) -> Self {
        self.related.push(Related { span, message: message.into() });
        self
    }
}

/// All findings of one run over a configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    list: Vec<Finding>,
}

impl Findings {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    pub fn push(&mut self, finding: Finding) {
        self.list.push(finding);
    }

    /// Adds an error; one with a help or a second place is built with [`Finding::error`].
    pub fn error(
        &mut self,
        code: &'static str,
        span: impl Into<Option<SourceSpan>>,
        resource: impl Into<String>,
        message: impl Into<String>,
    ) {
        self.push(Finding::error(code, span, resource, message));
    }

    pub fn warning(
        &mut self,
        code: &'static str,
        span: impl Into<Option<SourceSpan>>,
        resource: impl Into<String>,
        message: impl Into<String>,
    ) {
        self.push(Finding::warning(code, span, resource, message));
    }

    pub fn append(&mut self, mut other: Self) {
        self.list.append(&mut other.list);
    }

    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.errors() > 0
    }

    /// How many of the findings are errors.
    #[must_use]
    pub fn errors(&self) -> usize {
        self.list.iter().filter(|f| f.severity == Severity::Error).count()
    }

    /// How many are warnings that nobody has accepted.
    #[must_use]
    pub fn warnings(&self) -> usize {
        let open = |f: &&Finding| f.severity == Severity::Warning && f.accepted.is_none();
        self.list.iter().filter(open).count()
    }

    /// How many are accepted.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.list.iter().filter(|f| f.accepted.is_some()).count()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.list.len()
    }

    pub fn iter(&self) -> std::slice::Iter<'_, Finding> {
        self.list.iter()
    }

    pub fn iter_mut(&mut self) -> std::slice::IterMut<'_, Finding> {
        self.list.iter_mut()
    }

    /// The findings in reading order: by file, then by place; those without a place first.
    #[must_use]
    pub fn sorted(mut self) -> Self {
        self.list.sort_by(|a, b| (a.span, a.severity, a.code).cmp(&(b.span, b.severity, b.code)));
        self
    }
}

impl IntoIterator for Findings {
    type Item = Finding;
    type IntoIter = std::vec::IntoIter<Finding>;

    fn into_iter(self) -> Self::IntoIter {
        self.list.into_iter()
    }
}

impl<'a> IntoIterator for &'a Findings {
    type Item = &'a Finding;
    type IntoIter = std::slice::Iter<'a, Finding>;

    fn into_iter(self) -> Self::IntoIter {
        self.list.iter()
    }
}

/// The candidate that `word` was probably meant to be, if one is near enough.
///
/// Near enough is an edit distance of at most a third of the word's length (at least one): a
/// suggestion that is wrong costs more than none. `-` and `_` and letter case count as equal.
#[must_use]
pub fn did_you_mean<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    if word.len() > 64 {
        return None;
    }
    let normal = |s: &str| s.to_ascii_lowercase().replace('-', "_").chars().collect::<Vec<_>>();
    let word = normal(word);
    let limit = (word.len() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (distance(&word, &normal(candidate)), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Optimal string alignment: insertions, deletions, substitutions and swaps of neighbours.
fn distance(a: &[char], b: &[char]) -> usize {
    let width = b.len() + 1;
    let mut rows: Vec<usize> = vec![0; (a.len() + 1) * width];
    for i in 0..=a.len() {
        rows[i * width] = i;
    }
    for (j, cell) in rows.iter_mut().take(width).enumerate() {
        *cell = j;
    }
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let at = |i: usize, j: usize| rows[i * width + j];
            let change = at(i - 1, j - 1) + usize::from(a[i - 1] != b[j - 1]);
            let mut best = change.min(at(i - 1, j) + 1).min(at(i, j - 1) + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(at(i - 2, j - 2) + 1);
            }
            rows[i * width + j] = best;
        }
    }
    rows[a.len() * width + b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_suggested_and_far_ones_are_not() {
        let known = ["limits", "listeners", "timeout", "body_max", "auth"];
        let meant = |word| did_you_mean(word, known);
        assert_eq!(meant("limit"), Some("limits"));
        assert_eq!(meant("tiemout"), Some("timeout"));
        assert_eq!(meant("body-max"), Some("body_max"));
        assert_eq!(meant("Auth"), Some("auth"));
        assert_eq!(meant("path"), None);
        assert_eq!(meant(""), None);
    }

    #[test]
    fn reading_order() {
        let mut findings = Findings::new();
        findings.error("b", SourceSpan::new(1, 0..1), "", "second file");
        findings.warning("a", SourceSpan::new(0, 9..10), "", "later");
        findings.error("c", SourceSpan::new(0, 5..6), "", "earlier");
        findings.error("d", None, "", "no place");
        let order: Vec<_> = findings.sorted().into_iter().map(|f| f.message).collect();
        assert_eq!(order, ["no place", "earlier", "later", "second file"]);
    }
}
