//! `cargo xtask new-policy NAME`: the file, the two lines of the registry and the page of a policy.
//!
//! What it writes compiles and passes its tests; the author says what it refuses or changes.

use std::fs;
use std::path::Path;

use anyhow::{Context, bail};

use crate::steps::{cargo, run};

const REGISTRY: &str = "crates/policies/src/lib.rs";
const SUMMARY: &str = "docs/SUMMARY.md";

pub(crate) fn write(name: &str) -> anyhow::Result<()> {
    let plain = |c: char| c.is_ascii_lowercase() || c == '_';
    if name.is_empty() || !name.chars().all(plain) || name.starts_with('_') || name.ends_with('_') {
        bail!("`{name}`: a policy is named in lower case with `_`, such as `geo_filter`");
    }
    let root = crate::root();
    let code = format!("crates/policies/src/{name}.rs");
    let page = format!("docs/policies/{name}.md");
    for path in [&code, &page] {
        if root.join(path).exists() {
            bail!("{path} is there already");
        }
    }
    edit(&root.join(REGISTRY), |text| register(text, name))?;
    edit(&root.join(SUMMARY), |text| list_page(text, name))?;
    fs::write(
        root.join(&code),
        CODE.replace("POLICY_TYPE", &type_name(name)).replace("POLICY", name),
    )?;
    fs::write(root.join(&page), PAGE.replace("POLICY", name))?;
    run(cargo(&["fmt", "--package", "portcullis-policies"]))?;
    println!("   wrote {code} and {page}; edited {REGISTRY} and {SUMMARY}");
    println!("   next: say what it does, then cargo xtask generate and cargo xtask test");
    Ok(())
}

fn edit(path: &Path, change: impl FnOnce(&str) -> Option<String>) -> anyhow::Result<()> {
    let text = fs::read_to_string(path)?;
    let changed = change(&text).with_context(|| format!("{} looks unfamiliar", path.display()))?;
    Ok(fs::write(path, changed)?)
}

/// Adds the module and the entry, each in alphabetical order.
fn register(text: &str, name: &str) -> Option<String> {
    let module = format!("mod {name};");
    let next = text
        .lines()
        .filter(|line| line.starts_with("mod ") && line.ends_with(';'))
        .find(|line| **line > *module)
        .or_else(|| text.lines().find(|line| line.starts_with("use ")))?;
    let text = text.replacen(&format!("\n{next}\n"), &format!("\n{module}\n{next}\n"), 1);

    let begin = text.find("pub const ALL:")?;
    let open = begin + text[begin..].find("= &[")? + "= &[".len();
    let close = open + text[open..].find("];")?;
    let entry = format!("Entry::policy::<{name}::{}>()", type_name(name));
    let mut entries: Vec<&str> =
        text[open..close].split(',').map(str::trim).filter(|entry| !entry.is_empty()).collect();
    entries.push(&entry);
    entries.sort_unstable();
    Some(format!("{}\n    {},\n{}", &text[..open], entries.join(",\n    "), &text[close..]))
}

/// Adds the page below those of the other policies, in alphabetical order.
fn list_page(text: &str, name: &str) -> Option<String> {
    let line = format!("  - [{name}](policies/{name}.md)");
    let mut lines: Vec<&str> = text.lines().collect();
    let head = lines.iter().position(|line| line.contains("(policies.md)"))? + 1;
    let others = lines[head..].iter().take_while(|other| other.starts_with("  - ["));
    let before = others.take_while(|other| **other < line.as_str()).count();
    lines.insert(head + before, &line);
    Some(lines.join("\n") + "\n")
}

/// `geo_filter` to `GeoFilter`.
fn type_name(name: &str) -> String {
    let capital = |word: &str| word[..1].to_ascii_uppercase() + &word[1..];
    name.split('_').filter(|word| !word.is_empty()).map(capital).collect()
}

const CODE: &str = r#"//! One sentence: what POLICY does. Then what it deliberately does not do.

use std::sync::Arc;

use portcullis_core::registry::{Compile, PolicyConfig, Site};
use portcullis_core::{Exchange, Phase, Policy, Problem, Services, Step, codes};
use schemars::JsonSchema;
use serde::Deserialize;

/// One sentence for the operator: what POLICY does.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct POLICY_TYPE {
    /// Whether a request passes. Say here: unit, default, what happens at the edges.
    pass: bool,
}

impl PolicyConfig for POLICY_TYPE {
    const NAME: &'static str = "POLICY";
    const EXAMPLE: &'static str = "{ pass: true }";

    fn compile(self, _site: &Site<'_>, _with: &mut Compile<'_>) -> Option<Arc<dyn Policy>> {
        Some(Arc::new(Compiled { pass: self.pass }))
    }
}

#[derive(Debug)]
struct Compiled {
    pass: bool,
}

impl Policy for Compiled {
    fn phase(&self) -> Phase {
        Phase::Screen
    }

    fn on_request<'a>(&'a self, _: &'a mut Exchange, _: &'a dyn Services) -> Step<'a> {
        match self.pass {
            true => Step::Continue,
            false => Step::Refuse(Problem::new(codes::DENIED).detail("POLICY")),
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use crate::testing::check;

    #[test]
    fn a_request_passes() {
        check("POLICY", "{ pass: true }", "192.0.2.7 GET /orders", &expect!["continue"]);
    }

    #[test]
    fn a_request_is_refused() {
        let expected = expect!["403 denied | POLICY"];
        check("POLICY", "{ pass: false }", "192.0.2.7 GET /orders", &expected);
    }
}
"#;

const PAGE: &str = "# POLICY

One sentence for the operator: what it does.

```yaml
{ pass: true }
```
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_registered_in_alphabetical_order() {
        let text = "mod cors;\nmod rewrite;\n\nuse a::B;\n\npub const ALL: &[Entry<dyn Policy>] = &[\n    \
                    Entry::policy::<cors::Cors>(),\n    Entry::policy::<rewrite::Rewrite>(),\n];\n";
        let text = format!("//! Policies.\n\n{text}");
        let changed = register(&text, "geo_filter").unwrap();
        assert!(changed.contains("mod cors;\nmod geo_filter;\nmod rewrite;\n"), "{changed}");
        let expected = "<cors::Cors>(),\n    Entry::policy::<geo_filter::GeoFilter>(),\n    Entry";
        assert!(changed.contains(expected), "{changed}");
    }

    #[test]
    fn a_page_is_listed_in_alphabetical_order() {
        let text =
            "- [Policies](policies.md)\n  - [cors](policies/cors.md)\n- [Operations](o.md)\n";
        let changed = list_page(text, "geo_filter").unwrap();
        let expected =
            "(policies/cors.md)\n  - [geo_filter](policies/geo_filter.md)\n- [Operations]";
        assert!(changed.contains(expected), "{changed}");
    }
}
