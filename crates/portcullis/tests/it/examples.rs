//! The examples, which are read as documentation: each compiles, and says by its tests what it does.

use std::path::{Path, PathBuf};

use crate::binary::{Place, root, run};

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

#[test]
fn the_full_example_has_every_kind_of_authentication() {
    let text = std::fs::read_to_string(root().join("examples/full.yaml")).unwrap();
    for entry in portcullis_policies::registry().auth {
        assert!(text.contains(&format!("{}:", entry.name)), "show {} there", entry.name);
    }
}

/// The places of each `auth: …` of a route, a group or the defaults, up to where its value ends.
fn demands(text: &str) -> Vec<std::ops::Range<usize>> {
    let end = text.find("\ntests:").unwrap();
    let starts = text[..end].match_indices("auth: ").map(|(at, _)| at);
    let demands = starts.filter(|at| text[..*at].ends_with([' ', '{'])).map(|at| {
        let mut depth = 0_usize;
        let length = text[at..].find(|char| {
            match char {
                '[' | '{' => depth += 1,
                ']' | '}' if depth > 0 => depth -= 1,
                ',' | '}' | '\n' => return depth == 0,
                _ => {}
            }
            false
        });
        let stop = at + length.unwrap();
        // In a flow map the comma goes with it.
        at..if text[stop..].starts_with(',') { stop + 1 } else { stop }
    });
    demands.collect()
}

#[test]
fn without_any_one_of_its_demands_no_example_compiles() {
    let mut tried = 0;
    for path in configurations().into_iter().filter(|path| path.is_file()) {
        let text = std::fs::read_to_string(&path).unwrap();
        for demand in demands(&text) {
            let without = format!("{}{}", &text[..demand.start], &text[demand.end..]);
            let place = Place::with(&without);
            copy(&root().join("examples/keys"), &place);
            let said = place.run(&["check"]).shown();
            let (name, demand) = (path.display(), &text[demand]);
            assert!(said.contains("error[no-auth]"), "{name} without `{demand}`:\n{said}");
            assert!(said.ends_with("--- status 1\n"), "{name} without `{demand}`:\n{said}");
            tried += 1;
        }
    }
    assert!(tried >= 8, "{tried}");
}

fn copy(keys: &Path, to: &Place) {
    for entry in std::fs::read_dir(keys).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        to.write(&format!("keys/{name}"), &std::fs::read_to_string(&path).unwrap());
    }
}
