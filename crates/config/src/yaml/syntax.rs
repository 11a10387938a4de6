//! What to say about text that is not YAML, in the words of somebody who edits a configuration.

use std::ops::Range;

use portcullis_core::finding::Finding;
use portcullis_core::node::SourceSpan;
use serde_saphyr::granit_parser::{ErrorKind, ScanError};

/// The finding for an error of the parser.
pub(super) fn finding(file: u16, text: &str, error: &ScanError) -> Finding {
    let at = error.marker().byte_offset().unwrap_or(text.len()).min(text.len());
    let at = (0..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    if let Some(finding) = unquoted_braces(file, text, at) {
        return finding;
    }
    if matches!(error.kind(), ErrorKind::MissingAnchorOrAliasName) && is_star(text, at) {
        return star(file, text, at);
    }
    let end = text[at..].chars().next().map_or(at, |c| at + c.len_utf8());
    let (message, help) = explain(error);
    let finding = Finding::error("yaml-syntax", SourceSpan::new(file, at..end), "", message);
    match help {
        Some(help) => finding.help(help),
        None => finding,
    }
}

/// The finding for `*name`: an alias, or a host with a wildcard that is not in quotes.
pub(super) fn alias(file: u16, text: &str, at: Range<usize>) -> Finding {
    let written = text.get(at.clone()).unwrap_or_default();
    if written.contains('.') || written.contains('/') {
        return star(file, text, at.start);
    }
    let message = "anchors and aliases are not part of the language";
    Finding::error("yaml-alias", SourceSpan::new(file, at), "", message)
        .help("settings are shared with `defaults` and `groups`")
}

fn is_star(text: &str, at: usize) -> bool {
    text[..at].ends_with('*') || text[at..].starts_with('*')
}

/// A text that begins with `*`.
fn star(file: u16, text: &str, at: usize) -> Finding {
    let start = text[..at].rfind('*').filter(|star| star + 1 == at).unwrap_or(at);
    let stop = |c: char| c.is_whitespace() || matches!(c, ',' | ']' | '}');
    let end = text[start..].find(stop).map_or(text.len(), |length| start + length);
    quote_it(file, text, start..end)
}

fn quote_it(file: u16, text: &str, at: Range<usize>) -> Finding {
    let written = &text[at.clone()];
    Finding::error(
        "yaml-quotes",
        SourceSpan::new(file, at),
        "",
        format!("`{written}` needs quotes"),
    )
    .help(format!("quote it: `\"{written}\"`"))
}

/// `{id}` within a text inside `{…}` or `[…]`, where YAML takes it for a map of its own.
fn unquoted_braces(file: u16, text: &str, at: usize) -> Option<Finding> {
    let line_start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
    let line_end = text[at..].find('\n').map_or(text.len(), |length| at + length);
    let line = &text[line_start..line_end];
    let mut from = 0;
    while let Some(open) = line[from..].find("/{").map(|found| from + found) {
        let close = open + line[open..].find('}')?;
        let name = &line[open + 2..close];
        let is_name = name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
        let edge = |c: char| c.is_whitespace() || matches!(c, ',' | '[' | '{' | '"' | '\'');
        let start = line[..open].rfind(edge).map_or(0, |edge| edge + 1);
        let quoted = line[..start].ends_with(['"', '\'']);
        if is_name && !name.is_empty() && !quoted {
            let stop = |c: char| c.is_whitespace() || matches!(c, ',' | ']');
            let mut end = line[close..].find(stop).map_or(line.len(), |length| close + length);
            // Braces beyond the pairs of the text close what is around it.
            let surplus =
                |part: &str| part.matches('}').count().saturating_sub(part.matches('{').count());
            end -= surplus(&line[start..end]).min(end - close - 1);
            return Some(quote_it(file, text, line_start + start..line_start + end));
        }
        from = close;
    }
    None
}

fn explain(error: &ScanError) -> (String, Option<&'static str>) {
    let known = match error.kind() {
        ErrorKind::TabNotAllowed
        | ErrorKind::TabInBlockIndentation
        | ErrorKind::TabInIndentation
        | ErrorKind::TabInPlainScalar
        | ErrorKind::TabAtBlockScalarStart => ("a tab", "indent with spaces"),
        ErrorKind::MappingValueNotAllowed | ErrorKind::InvalidColonPlacement => (
            "a `:` that does not belong here",
            "a text with `: ` in it needs quotes; keys of one map stand below each other",
        ),
        ErrorKind::InvalidIndentation | ErrorKind::InvalidSimpleKey => (
            "this line does not fit the ones before it",
            "keys of one map begin in the same column and are followed by `: `",
        ),
        ErrorKind::SimpleKeyExpected => ("a key without a `:`", "write `key: value`"),
        ErrorKind::UnclosedQuotedScalar => {
            ("quotes that are never closed", "close them, or escape quotes within as `\\\"`")
        }
        ErrorKind::UnclosedFlowCollection { .. } => {
            ("a bracket that is never closed", "each `[` needs a `]` and each `{` a `}`")
        }
        ErrorKind::MisplacedFlowCollectionEnd | ErrorKind::MismatchedFlowCollectionEnd { .. } => (
            "a bracket that does not close the last one opened",
            "each `[` needs a `]` and each `{` a `}`",
        ),
        ErrorKind::UnexpectedEofFlowSequence
        | ErrorKind::UnexpectedEofFlowMapping
        | ErrorKind::UnexpectedEofImplicitFlowMapping => {
            ("the file ends within brackets", "each `[` needs a `]` and each `{` a `}`")
        }
        ErrorKind::ExpectedFlowMappingSeparator
        | ErrorKind::ExpectedFlowSequenceSeparator
        | ErrorKind::FlowMappingValueAdjacentCollection => (
            "this does not go on as the brackets around it began",
            "within `[…]` and `{…}` a text with `[`, `]`, `{`, `}` or `,` in it needs quotes",
        ),
        ErrorKind::RecursionLimitExceeded => {
            ("too many maps and lists within each other", "at most 64 are read")
        }
        ErrorKind::DirectiveDisallowed => {
            ("directives are not part of the language", "leave out lines that begin with `%`")
        }
        ErrorKind::UnknownQuotedScalarEscape => (
            "an unknown escape",
            "write a backslash in double quotes as `\\\\`, or use single quotes",
        ),
        ErrorKind::InvalidTrailingDoubleQuotedScalar
        | ErrorKind::InvalidTrailingSingleQuotedScalar => {
            ("text after closing quotes", "put the whole text in quotes")
        }
        ErrorKind::UnexpectedCharacter { .. } => {
            ("a text cannot begin with this character", "put the text in quotes")
        }
        _ => return (error.info(), None),
    };
    (known.0.to_owned(), Some(known.1))
}
