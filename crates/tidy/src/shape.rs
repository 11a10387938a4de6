//! The size of files, and what a test may not do.

use crate::workspace::{Source, code, crates, manifest, rust_files};

const FILE_LINES_MAX: usize = 600;
const LINE_CHARS_MAX: usize = 100;

/// File names that say nothing about what is in them.
const EMPTY_NAMES: &[&str] = &["common", "helper", "helpers", "misc", "mod", "util", "utils"];

fn all() -> Vec<Source> {
    ["bench", "crates", "fuzz", "xtask"].iter().flat_map(|folder| rust_files(folder)).collect()
}

#[test]
fn files_stay_short() {
    let long: Vec<String> = all()
        .iter()
        .map(|source| (source.text.lines().count(), &source.path))
        .filter(|(lines, _)| *lines > FILE_LINES_MAX)
        .map(|(lines, path)| format!("{path}: {lines} lines"))
        .collect();
    assert!(
        long.is_empty(),
        "split by idea (at most {FILE_LINES_MAX} lines):\n{}",
        long.join("\n")
    );
}

/// Tests may be as wide as the answers they expect, and a message as long as it reads in one piece.
#[test]
fn lines_stay_short() {
    let mut wide = Vec::new();
    for source in all() {
        for (number, line) in source.product_lines() {
            let columns =
                line.split('"').step_by(2).map(|code| code.chars().count()).sum::<usize>();
            if columns > LINE_CHARS_MAX {
                wide.push(format!("{}:{number}: {columns} columns", source.path));
            }
        }
    }
    assert!(wide.is_empty(), "at most {LINE_CHARS_MAX} columns:\n{}", wide.join("\n"));
}

#[test]
fn files_are_named_for_what_is_in_them() {
    for source in all() {
        let name = source.path.rsplit('/').next().unwrap().trim_end_matches(".rs");
        assert!(!EMPTY_NAMES.contains(&name), "{}: name the idea", source.path);
    }
}

#[test]
fn each_module_says_what_it_is() {
    let silent: Vec<String> = all()
        .into_iter()
        .filter(|source| !source.text.starts_with("//!") && !is_script(source))
        .map(|source| source.path)
        .collect();
    assert!(
        silent.is_empty(),
        "begin with `//!`: what it is, what it is not:\n{}",
        silent.join("\n")
    );
}

fn is_script(source: &Source) -> bool {
    // A test module's name is its description; a fuzz target begins with `#![no_main]`.
    source.path.ends_with("tests.rs") || source.text.starts_with("#![no_main]")
}

#[test]
fn nothing_is_left_for_later() {
    let words = [concat!("todo", "!("), concat!("unimplemented", "!("), concat!("#[ign", "ore")];
    let mut findings = Vec::new();
    for source in all() {
        for (number, line) in source.numbered() {
            for word in words {
                if code(line).contains(word) {
                    findings.push(format!("{}:{number}: {word}", source.path));
                }
            }
        }
    }
    assert!(findings.is_empty(), "finish it or leave it out:\n{}", findings.join("\n"));
}

/// A test that waits for time to pass is slow when it is lucky and wrong when it is not.
#[test]
fn tests_wait_for_events() {
    let words = [concat!("sleep", "("), concat!("sleep", "_until("), concat!(".elap", "sed()")];
    let mut findings = Vec::new();
    for source in all() {
        for (number, line) in source.test_lines() {
            for word in words {
                if code(line).contains(word) {
                    findings.push(format!("{}:{number}: {word}", source.path));
                }
            }
        }
    }
    assert!(findings.is_empty(), "wait for the event, or move the clock:\n{}", findings.join("\n"));
}

/// Two test runs on one machine must not meet.
#[test]
fn tests_bind_any_free_port() {
    let call = concat!("bind", "(\"");
    let mut findings = Vec::new();
    for source in all() {
        for (number, line) in source.test_lines() {
            for (at, _) in code(line).match_indices(call) {
                let address = line[at + call.len()..].split('"').next().unwrap();
                if !address.ends_with(":0") {
                    findings.push(format!("{}:{number}: {address}", source.path));
                }
            }
        }
    }
    assert!(findings.is_empty(), "bind port 0:\n{}", findings.join("\n"));
}

/// `unsafe_code = "forbid"` and the rest hold only in a crate that asks for them.
#[test]
fn each_crate_takes_the_lints_of_the_workspace() {
    for (folder, name) in crates() {
        let manifest = manifest(&folder);
        let inherits = manifest.get("lints").and_then(|lints| lints.get("workspace"));
        assert_eq!(inherits.and_then(|value| value.as_bool()), Some(true), "{name}: [lints]");
    }
}
