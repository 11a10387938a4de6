//! Every policy and every problem has a page, every page is in the table of contents, every link
//! leads somewhere, and the commands that the README prints exist.

use std::collections::BTreeSet;

use crate::workspace::{Source, has_word, markdown_files, read, root, rust_files};

const SUMMARY: &str = "docs/SUMMARY.md";

/// The values of `const NAME: &'static str = "…"` in the policies: what operators write.
fn policy_names() -> BTreeSet<String> {
    let names: BTreeSet<String> = rust_files("crates/policies/src")
        .iter()
        .flat_map(|source| source.product_lines())
        .filter(|(_, line)| line.trim_start().contains("const NAME: &'static str"))
        .filter_map(|(_, line)| line.split('"').nth(1))
        .map(str::to_owned)
        .collect();
    assert!(!names.is_empty(), "no policy says its NAME");
    names
}

fn pages(folder: &str) -> BTreeSet<String> {
    markdown_files(folder)
        .iter()
        .map(|page| page.path.rsplit('/').next().unwrap().trim_end_matches(".md").to_owned())
        .collect()
}

#[test]
fn each_policy_has_a_page() {
    let pages = pages("docs/policies");
    for name in policy_names() {
        assert!(pages.contains(&name), "write docs/policies/{name}.md");
    }
}

/// Status, name and title of each line of the table in `core/src/codes.rs`.
fn problem_codes() -> Vec<(String, String, String)> {
    let source = read("crates/core/src/codes.rs");
    let table = source.split("\ncodes! {").nth(1).expect("codes.rs has the table `codes!`");
    let codes: Vec<_> = table
        .lines()
        .take_while(|line| *line != "}")
        .filter_map(|line| {
            let (_, value) = line.split_once(" = ")?;
            let status = value.split(' ').next()?;
            let mut quoted = value.split('"').skip(1).step_by(2);
            Some((status.to_owned(), quoted.next()?.to_owned(), quoted.next()?.to_owned()))
        })
        .collect();
    assert!(codes.len() > 20, "only {} codes were read", codes.len());
    codes
}

/// The code of every `warning("CODE", …)` in what is shipped, and those of overlaps.
fn warnings() -> BTreeSet<String> {
    let mut codes = BTreeSet::new();
    for folder in ["crates/config/src", "crates/policies/src", "crates/snapshot/src"] {
        for source in rust_files(folder) {
            let lines: Vec<&str> = source.product_lines().map(|(_, line)| line).collect();
            let text = lines.join("\n");
            for after in text.split("warning(").skip(1) {
                let code =
                    after.trim_start().strip_prefix('"').and_then(|rest| rest.split_once('"'));
                codes.extend(code.map(|(code, _)| code.to_owned()));
            }
            let kinds = text.lines().filter_map(|line| line.trim().strip_prefix("OverlapKind::"));
            let codes_of_kinds =
                kinds.filter_map(|line| line.split_once(" => \"")?.1.split_once("\","));
            let codes_of_kinds =
                codes_of_kinds.map(|(code, _)| code).filter(|code| !code.contains(' '));
            codes.extend(codes_of_kinds.map(str::to_owned));
        }
    }
    assert!(codes.len() > 15, "only {} warnings were read", codes.len());
    codes
}

#[test]
fn each_warning_is_in_the_list() {
    let list = read("docs/findings.md");
    for code in warnings() {
        assert!(list.contains(&format!("\n| `{code}` | ")), "docs/findings.md: a row for `{code}`");
    }
}

#[test]
fn each_problem_has_a_page_that_agrees() {
    let list = read("docs/problems.md");
    let codes = problem_codes();
    for (status, name, title) in &codes {
        let page = read(&format!("docs/problems/{name}.md"));
        let begins = format!("# {name}\n\n**{status}: {title}.**");
        assert!(page.starts_with(&begins), "docs/problems/{name}.md begins with\n{begins}");
        let row = format!("| {status} | [{name}](problems/{name}.md) | {title} |");
        assert!(list.contains(&row), "docs/problems.md has the row\n{row}");
    }
    for page in pages("docs/problems") {
        assert!(codes.iter().any(|(_, name, _)| *name == page), "{page} is no problem any more");
    }
}

/// What operators build dashboards and alerts on is written down.
#[test]
fn each_metric_and_log_field_is_documented() {
    let page = read("docs/observability.md");
    let names = read("crates/telemetry/src/metrics/names.rs");
    let table = names.split("\nmetrics! {").nth(1).expect("names.rs has the table `metrics!`");
    let metrics = table.lines().filter_map(|line| line.split_once(" = ")?.1.split('"').nth(1));
    let record = read("crates/telemetry/src/record.rs");
    let product = record.split("#[cfg(test)]").next().unwrap();
    let fields = product.split("\\\"").filter(|piece| is_name(piece));
    let mut count = 0;
    for name in metrics.chain(fields) {
        assert!(page.contains(&format!("`{name}")), "docs/observability.md says nothing of {name}");
        count += 1;
    }
    assert!(count > 60, "only {count} names were read");
}

/// A metric that is written down and that nobody reports is an alert that never comes.
#[test]
fn each_metric_is_reported() {
    let names = read("crates/telemetry/src/metrics/names.rs");
    let table = names.split("\nmetrics! {").nth(1).expect("names.rs has the table `metrics!`");
    let metrics: Vec<_> = table
        .lines()
        .filter_map(|line| line.split_once(" = "))
        .map(|(name, _)| format!("Metric::{}", name.trim()))
        .collect();
    assert!(metrics.len() > 35, "only {} metrics were read", metrics.len());
    let sources = rust_files("crates");
    for metric in metrics {
        let reports = |line: &str| has_word(line, &metric);
        let reported = sources.iter().any(|source| source.product_lines().any(|(_, l)| reports(l)));
        assert!(reported, "nothing reports {metric}");
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_lowercase() || c == '_')
}

#[test]
fn the_summary_lists_each_page_once() {
    let summary = read(SUMMARY);
    for page in markdown_files("docs") {
        let path = page.path.trim_start_matches("docs/");
        if path == "SUMMARY.md" {
            continue;
        }
        let times = summary.matches(&format!("({path})")).count();
        assert_eq!(times, 1, "{path} stands {times} times in {SUMMARY}");
    }
}

#[test]
fn links_lead_somewhere() {
    let mut pages = markdown_files("docs");
    for path in ["ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "README.md", "STYLE.md"] {
        pages.push(Source { path: path.to_owned(), text: read(path) });
    }
    let mut broken = Vec::new();
    for page in pages {
        let folder = page.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        for (number, line) in page.numbered() {
            for target in link_targets(line) {
                if !root().join(folder).join(&target).exists() {
                    broken.push(format!("{}:{number}: {target}", page.path));
                }
            }
        }
    }
    assert!(broken.is_empty(), "these links lead nowhere:\n{}", broken.join("\n"));
}

/// The files that a line of Markdown links to; addresses on the web and within a page are left out.
fn link_targets(line: &str) -> Vec<String> {
    let prose: String = line.split('`').step_by(2).collect();
    prose
        .match_indices("](")
        .filter_map(|(at, _)| prose[at + 2..].split(')').next())
        .filter(|target| !target.contains("://") && !target.starts_with('#'))
        .filter_map(|target| target.split('#').next())
        .filter(|target| !target.is_empty())
        .map(str::to_owned)
        .collect()
}

#[test]
fn links_are_read_as_markdown_writes_them() {
    let line = "`[x](y)` see [a](a.md), [b](../b.md#part), [c](#part) and [d](https://d.example/)";
    assert_eq!(link_targets(line), ["a.md", "../b.md"]);
}

/// The README's two commands: the first minute of a newcomer and the only test command.
#[test]
fn the_commands_of_the_readme_exist() {
    let readme = read("README.md");
    assert!(readme.contains("cargo run --release -- demo"), "README: the command for newcomers");
    assert!(readme.contains("cargo xtask test"), "README: the test command");
    assert!(read(".ci/run").contains("cargo xtask test"), ".ci/run calls the README's command");
    assert!(read(".cargo/config.toml").contains("xtask ="), "the alias is in .cargo/config.toml");
    let xtask = read("xtask/src/main.rs");
    for (page, text) in command_pages() {
        for verb in words_after(&text, "cargo xtask ") {
            assert!(xtask.contains(&format!("\"{verb}\"")), "{page}: cargo xtask {verb}");
        }
        for verb in words_after(&text, "portcullis ") {
            let file = root().join(format!("crates/portcullis/src/{verb}.rs"));
            assert!(file.exists(), "{page}: portcullis {verb}");
        }
    }
}

fn command_pages() -> Vec<(String, String)> {
    let mut pages: Vec<(String, String)> =
        markdown_files("docs").into_iter().map(|page| (page.path, page.text)).collect();
    for path in ["ARCHITECTURE.md", "CONTRIBUTING.md", "README.md", "STYLE.md"] {
        pages.push((path.to_owned(), read(path)));
    }
    pages
}

/// The word that follows each `before`, where it is a name.
fn words_after(text: &str, before: &str) -> BTreeSet<String> {
    text.match_indices(before)
        .map(|(at, _)| text[at + before.len()..].chars())
        .map(|rest| rest.take_while(|c| c.is_ascii_lowercase() || *c == '-').collect())
        .filter(|word: &String| !word.is_empty())
        .collect()
}
