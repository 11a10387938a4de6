//! What must not stand in any file of the project: one machine's paths, one network's hosts.

use crate::workspace::project_files;

/// Written in two parts so that this file does not find itself.
const FORBIDDEN: &[(&str, &str, &str)] = &[
    ("/ho", "me/", "a path of one person's machine"),
    ("/ro", "ot/", "a path of one machine"),
    ("/Us", "ers/", "a path of one person's machine"),
    ("C:\\\\Us", "ers", "a path of one person's machine"),
    ("/wo", "rk/", "a path of one machine"),
    ("static.cra", "tes.io", "a registry's host: its client knows it"),
    ("index.cra", "tes.io", "a registry's host: its client knows it"),
    ("registry.np", "mjs.org", "a registry's host: its client knows it"),
    ("deb.deb", "ian.org", "a registry's host: its client knows it"),
    ("files.python", "hosted.org", "a registry's host: its client knows it"),
];

#[test]
fn no_machine_shows_through() {
    let mut findings = Vec::new();
    for source in project_files() {
        for (number, line) in source.numbered() {
            for (start, end, why) in FORBIDDEN {
                if line.contains(&format!("{start}{end}")) {
                    findings.push(format!("{}:{number}: `{start}{end}` is {why}", source.path));
                }
            }
        }
    }
    assert!(findings.is_empty(), "keep the project movable:\n{}", findings.join("\n"));
}

#[test]
fn no_file_is_half_merged() {
    let marker = "<".repeat(7);
    for source in project_files() {
        for (number, line) in source.numbered() {
            assert!(!line.starts_with(&marker), "{}:{number}: a merge is unfinished", source.path);
        }
    }
}
