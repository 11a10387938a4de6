//! What a group's `match` does to the matches of its routes: hosts are handed down, paths joined.

use portcullis_core::decode::Spanned;
use portcullis_core::finding::{Finding, Findings};
use portcullis_core::node::SourceSpan;

use crate::{Match, PathText, Route};

/// What the routes of a group begin with.
pub(crate) struct Base {
    span: SourceSpan,
    hosts: Vec<Spanned<String>>,
    /// Without the `/**`: empty for every path.
    path: String,
}

impl Base {
    /// Reads a group's `match`; `None` after an error.
    pub(crate) fn of(matches: Match, resource: &str, findings: &mut Findings) -> Option<Self> {
        let resource = format!("{resource}.match");
        if !(matches.methods.is_empty() && matches.headers.is_empty() && matches.query.is_empty()) {
            let message = "the match of a group has hosts and a path only";
            let finding = Finding::error("group-match", matches.span, resource, message);
            findings.push(finding.help("say methods, headers and query in its routes"));
            return None;
        }
        let [PathText::Pattern(path)] = matches.paths.as_slice() else {
            let message = "the match of a group has one path, without a regular expression";
            findings.error("group-match", matches.span, resource, message);
            return None;
        };
        let Some(base) = path.strip_suffix("/**").filter(|base| !base.contains("**")) else {
            let message = format!("`{}` does not end in `/**`", path.value);
            let example = format!("{}/**", path.trim_end_matches(['/', '*']));
            findings.push(
                Finding::error("group-match", path.span, resource, message)
                    .help(format!("the paths of its routes stand below it: write `{example}`")),
            );
            return None;
        };
        Some(Self { span: matches.span, hosts: matches.hosts, path: base.to_owned() })
    }

    /// Makes a route's matches absolute.
    pub(crate) fn apply(&self, route: &mut Route, findings: &mut Findings) {
        for one in &mut route.matches {
            let resource = format!("{}.match", route.resource);
            if self.hosts.is_empty() {
                // The route's own hosts stay.
            } else if let [first, ..] = one.hosts.as_slice() {
                let message = "the group says the host already";
                let finding = Finding::error("group-match", first.span, resource.clone(), message)
                    .related(self.span, "here");
                findings.push(finding.help("the path of a route in a group begins with `/`"));
            } else {
                one.hosts.clone_from(&self.hosts);
            }
            for path in &mut one.paths {
                match path {
                    PathText::Pattern(path) if path.starts_with('/') => {
                        path.value.insert_str(0, &self.path);
                    }
                    PathText::Pattern(path) => {
                        let message = format!("the path `{}` does not begin with `/`", path.value);
                        findings.error("invalid-value", path.span, resource.clone(), message);
                    }
                    PathText::Regex(regex) if self.path.contains('{') => {
                        let message =
                            "a regular expression cannot follow a group's path with `{…}`";
                        let finding =
                            Finding::error("group-match", regex.span, resource.clone(), message);
                        findings.push(finding.related(self.span, "the group's path"));
                    }
                    PathText::Regex(regex) => {
                        regex.value = format!("{}(?:{})", escaped(&self.path), regex.value);
                    }
                }
            }
        }
    }
}

/// A text as a regular expression for itself.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if !(c.is_alphanumeric() || matches!(c, '/' | '_' | '-')) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}
