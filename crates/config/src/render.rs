//! Findings for people, as snippets of the files, and for programs, as JSON.

use std::ops::Range;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{
    AnnotationKind, Group, Level, Renderer, Snippet, normalize_untrusted_str as clean,
};
use portcullis_core::finding::{Finding, Findings, Severity};
use portcullis_core::node::SourceSpan;
use serde::Serialize;

use crate::Source;

/// One snippet for each finding that is not accepted, in the order given, with an empty line after
/// each.
///
/// `colour` says whether the text may have terminal escapes; what is quoted from the files never
/// has any.
#[must_use]
pub fn render(findings: &Findings, sources: &[Source], colour: bool) -> String {
    snippets(findings.iter().filter(|finding| finding.accepted.is_none()), sources, colour)
}

/// The same for those that are accepted.
#[must_use]
pub fn render_accepted(findings: &Findings, sources: &[Source], colour: bool) -> String {
    snippets(findings.iter().filter(|finding| finding.accepted.is_some()), sources, colour)
}

fn snippets<'a>(
    findings: impl Iterator<Item = &'a Finding>,
    sources: &'a [Source],
    colour: bool,
) -> String {
    let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
    let renderer = renderer.decor_style(DecorStyle::Ascii);
    let mut out = String::new();
    for finding in findings {
        out += &renderer.render(&[group(finding, sources)]);
        out += "\n\n";
    }
    out
}

/// `2 errors, 1 warning, 1 accepted`; empty when there is none.
#[must_use]
pub fn summary(findings: &Findings) -> String {
    let count = |count: usize, one: &str, more: &str| match count {
        0 => None,
        1 => Some(format!("1 {one}")),
        count => Some(format!("{count} {more}")),
    };
    let counts = [
        count(findings.errors(), "error", "errors"),
        count(findings.warnings(), "warning", "warnings"),
        count(findings.accepted(), "accepted", "accepted"),
    ];
    counts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn group<'a>(finding: &'a Finding, sources: &'a [Source]) -> Group<'a> {
    let level = match finding.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
        Severity::Info => Level::INFO,
    };
    let title = level.primary_title(clean(&finding.message)).id(finding.code);
    let primary = finding.span.and_then(|span| Place::of(span, sources));
    let mut group = Group::with_title(title);
    let Some(primary) = primary else {
        if !finding.resource.is_empty() {
            group = group.element(Level::NOTE.message(format!("in {}", clean(&finding.resource))));
        }
        return with_help(group, finding);
    };
    let label = (!finding.resource.is_empty()).then(|| format!("in {}", clean(&finding.resource)));
    let mut marks = vec![(primary, AnnotationKind::Primary, label)];
    for related in &finding.related {
        if let Some(place) = Place::of(related.span, sources) {
            marks.push((place, AnnotationKind::Context, Some(clean(&related.message))));
        }
    }
    while let Some((first, ..)) = marks.first() {
        let source = first.source;
        let (here, elsewhere): (Vec<_>, Vec<_>) =
            marks.into_iter().partition(|(place, ..)| std::ptr::eq(place.source, source));
        marks = elsewhere;
        group = group.element(snippet(source, here));
    }
    with_help(group, finding)
}

fn with_help<'a>(group: Group<'a>, finding: &'a Finding) -> Group<'a> {
    if let Some(reason) = &finding.accepted {
        return group.element(Level::NOTE.message(format!("accepted: {}", clean(reason))));
    }
    match &finding.help {
        Some(help) => group.element(Level::HELP.message(clean(help))),
        None => group,
    }
}

type Mark<'a> = (Place<'a>, AnnotationKind, Option<String>);

/// The lines of one file from the first mark to the last, with the marks.
fn snippet<'a>(
    source: &'a Source,
    marks: Vec<Mark<'a>>,
) -> Snippet<'a, annotate_snippets::Annotation<'a>> {
    let first = marks.iter().map(|(place, ..)| place.line.start).min().unwrap_or(0);
    let last = marks.iter().map(|(place, ..)| place.line.end).max().unwrap_or(0);
    let number = source.text[..first].matches('\n').count() + 1;
    let annotations = marks.into_iter().map(|(place, kind, label)| {
        kind.span(place.at.start - first..place.at.end - first).label(label)
    });
    Snippet::source(&source.text[first..last])
        .path(&source.name)
        .line_start(number)
        .annotations(annotations.collect::<Vec<_>>())
}

/// A span in its file, cut to its first line.
struct Place<'a> {
    source: &'a Source,
    line: Range<usize>,
    at: Range<usize>,
}

impl<'a> Place<'a> {
    fn of(span: SourceSpan, sources: &'a [Source]) -> Option<Self> {
        let source = sources.get(span.file as usize)?;
        let text = source.text.as_str();
        let mut start = span.range().start.min(text.len());
        // The end of a file is shown as the end of its last line that has something in it.
        if text[..start].ends_with('\n') && start == text.len() {
            start = text.trim_end().len();
        }
        while !text.is_char_boundary(start) {
            start -= 1;
        }
        let line_start = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |length| start + length);
        let mut end = span.range().end.clamp(start, line_end);
        while !text.is_char_boundary(end) {
            end += 1;
        }
        Some(Self { source, line: line_start..line_end, at: start..end })
    }

    /// Line and column of a byte, counted from 1; columns are characters.
    fn position(&self, byte: usize) -> (usize, usize) {
        let line = self.source.text[..self.line.start].matches('\n').count() + 1;
        (line, self.source.text[self.line.start..byte].chars().count() + 1)
    }
}

/// Findings as `--json` prints them.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub errors: usize,
    /// Those that are not accepted.
    pub warnings: usize,
    pub accepted: usize,
    pub findings: Vec<ReportedFinding>,
}

#[derive(Clone, Debug, Serialize)]
pub struct ReportedFinding {
    pub code: &'static str,
    pub severity: Severity,
    pub resource: String,
    pub message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// Why the operator lives with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accepted: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<ReportedPlace>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub related: Vec<ReportedRelated>,
}

/// Lines and columns count from 1, columns in characters; a place within one line.
#[derive(Clone, Debug, Serialize)]
pub struct ReportedPlace {
    pub file: String,
    pub line: usize,
    pub column: usize,
    pub column_end: usize,
}

#[derive(Clone, Debug, Serialize)]
pub struct ReportedRelated {
    pub message: String,
    #[serde(flatten)]
    pub place: ReportedPlace,
}

/// The findings with files, lines and columns.
#[must_use]
pub fn report(findings: &Findings, sources: &[Source]) -> Report {
    let place = |span| {
        let place = Place::of(span, sources)?;
        let (line, column) = place.position(place.at.start);
        let (_, column_end) = place.position(place.at.end);
        Some(ReportedPlace { file: place.source.name.clone(), line, column, column_end })
    };
    let reported = findings.iter().map(|finding| ReportedFinding {
        code: finding.code,
        severity: finding.severity,
        resource: finding.resource.clone(),
        message: finding.message.clone(),
        help: finding.help.clone(),
        accepted: finding.accepted.clone(),
        place: finding.span.and_then(place),
        related: finding
            .related
            .iter()
            .filter_map(|related| {
                let place = place(related.span)?;
                Some(ReportedRelated { message: related.message.clone(), place })
            })
            .collect(),
    });
    Report {
        errors: findings.errors(),
        warnings: findings.warnings(),
        accepted: findings.accepted(),
        findings: reported.collect(),
    }
}
