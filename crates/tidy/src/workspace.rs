//! Finds the files of the workspace and cuts them into code, comments and tests.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One file below the root of the workspace.
#[derive(Debug)]
pub(crate) struct Source {
    /// Relative to the root, with `/` between the parts.
    pub path: String,
    pub text: String,
}

impl Source {
    /// The lines before the test module, numbered from 1. None of a file that only holds tests.
    pub(crate) fn product_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        let end = if self.is_test_file() { 0 } else { self.test_module_start() };
        self.numbered().take(end)
    }

    /// The lines of tests, numbered from 1.
    pub(crate) fn test_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        let start = if self.is_test_file() { 0 } else { self.test_module_start() };
        self.numbered().skip(start)
    }

    pub(crate) fn numbered(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(index, line)| (index + 1, line))
    }

    /// Where `#[cfg(test)] mod name {` begins; a `#[cfg(test)]` on anything else is not the end.
    fn test_module_start(&self) -> usize {
        let lines: Vec<&str> = self.text.lines().collect();
        (0..lines.len())
            .find(|&index| {
                lines[index] == "#[cfg(test)]"
                    && lines
                        .get(index + 1)
                        .is_some_and(|next| next.contains("mod ") && next.ends_with('{'))
            })
            .unwrap_or(lines.len())
    }

    fn is_test_file(&self) -> bool {
        let path = self.path.as_str();
        path.contains("/tests/")
            || path.ends_with("tests.rs")
            || path.contains("/testing/")
            || path.ends_with("/testing.rs")
            || path.starts_with("crates/testkit/")
            || path.starts_with("crates/tidy/")
            || path.contains("/benches/")
    }
}

pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().and_then(Path::parent).expect("crates/tidy is two below the root").to_owned()
}

pub(crate) fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Each `.rs` file below `folder` (relative to the root), sorted by path.
pub(crate) fn rust_files(folder: &str) -> Vec<Source> {
    let mut paths = Vec::new();
    collect(&root().join(folder), "rs", &mut paths);
    load(paths)
}

/// Each `.md` file below `folder`, sorted by path; a built book is no source.
pub(crate) fn markdown_files(folder: &str) -> Vec<Source> {
    let mut paths = Vec::new();
    collect(&root().join(folder), "md", &mut paths);
    paths.retain(|path| !path.starts_with(root().join("docs/book")));
    load(paths)
}

/// Folder and package name of each of our crates, `bench` and `xtask` included.
pub(crate) fn crates() -> Vec<(String, String)> {
    let mut folders: Vec<String> = fs::read_dir(root().join("crates"))
        .unwrap()
        .map(|entry| format!("crates/{}", entry.unwrap().file_name().to_str().unwrap()))
        .filter(|folder| root().join(folder).join("Cargo.toml").exists())
        .collect();
    folders.extend(["bench".to_owned(), "xtask".to_owned()]);
    folders.sort();
    folders
        .into_iter()
        .map(|folder| {
            let manifest = manifest(&folder);
            let name = manifest["package"]["name"].as_str().unwrap().to_owned();
            (folder, name)
        })
        .collect()
}

pub(crate) fn manifest(folder: &str) -> toml::Table {
    read(&format!("{folder}/Cargo.toml")).parse().unwrap()
}

/// What a cargo command prints, run at the root.
pub(crate) fn cargo(arguments: &[&str]) -> String {
    let cargo = Command::new(env!("CARGO")).args(arguments).current_dir(root()).output().unwrap();
    let message = String::from_utf8_lossy(&cargo.stderr);
    assert!(cargo.status.success(), "cargo {}: {message}", arguments.join(" "));
    String::from_utf8(cargo.stdout).unwrap()
}

/// Every text file that belongs to the project: what git tracks, or would track if added.
pub(crate) fn project_files() -> Vec<Source> {
    let output = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .expect("git lists the project's files");
    assert!(output.status.success(), "these rules need a git checkout");
    let listing = String::from_utf8(output.stdout).unwrap();
    let found: Vec<Source> = listing
        .lines()
        .filter_map(|path| {
            let text = fs::read_to_string(root().join(path)).ok()?;
            Some(Source { path: path.to_owned(), text })
        })
        .collect();
    assert!(found.len() > 50, "only {} files: is this the whole checkout?", found.len());
    found
}

/// The line without its `//` comment. A URL's `//` is no comment.
pub(crate) fn code(line: &str) -> &str {
    let mut from = 0;
    while let Some(offset) = line[from..].find("//") {
        let at = from + offset;
        if !line[..at].ends_with(':') {
            return &line[..at];
        }
        from = at + 2;
    }
    line
}

/// Whether `word` stands in `line` with no letter, digit or `_` before or after it.
pub(crate) fn has_word(line: &str, word: &str) -> bool {
    let part_of_name = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        !before.is_some_and(part_of_name)
            && (word.ends_with(':') || word.ends_with('(') || !after.is_some_and(part_of_name))
    })
}

fn collect(folder: &Path, extension: &str, into: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("target") {
            collect(&path, extension, into);
        } else if path.extension().is_some_and(|found| found == extension) {
            into.push(path);
        }
    }
}

fn load(mut paths: Vec<PathBuf>) -> Vec<Source> {
    paths.sort();
    paths
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            let path = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
            Source { path, text }
        })
        .collect()
}

#[test]
fn a_comment_is_cut_and_an_address_is_not() {
    assert_eq!(code("let a = 1; // why"), "let a = 1; ");
    assert_eq!(code("let a = \"http://a\"; // why"), "let a = \"http://a\"; ");
    assert_eq!(code("//! text"), "");
}

#[test]
fn a_word_is_found_only_whole() {
    assert!(has_word("use std::time::Instant;", "Instant"));
    assert!(!has_word("InstantReply", "Instant"));
    assert!(!has_word("random()", "rand"));
    assert!(has_word("fs::read(path)", "fs::"));
    assert!(!has_word("offs::read(path)", "fs::"));
}
