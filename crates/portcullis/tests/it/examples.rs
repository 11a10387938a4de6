//! The examples, which are read as documentation: each compiles, and says by its tests what it does.

use std::path::PathBuf;

use crate::binary::{root, run};

/// Files and directories that are a configuration each.
pub(crate) fn configurations() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root().join("examples")).unwrap();
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.unwrap().path())
        // What the others refer to.
        .filter(|path| !path.ends_with("keys"))
        .collect();
    paths.sort();
    paths
}

#[test]
fn every_example_passes_its_own_tests() {
    let paths = configurations();
    assert!(paths.len() > 4, "{paths:?}");
    for path in paths {
        let name = path.strip_prefix(root()).unwrap().to_str().unwrap();
        let said = run(&root(), &["check", "-c", name]).yes();
        assert!(said.contains("hold") && said.lines().count() == 1, "{said}");
    }
}

#[test]
fn every_example_says_what_it_is() {
    for path in configurations() {
        let path = if path.is_dir() { path.join("gateway.yaml") } else { path };
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("# "), "{}: begin with a comment", path.display());
    }
}
