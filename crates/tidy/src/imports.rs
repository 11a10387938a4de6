//! Who may import whom. `[dev-dependencies]` are free, so that tests may stand on anything.

use crate::workspace;

/// Which of our crates each of our crates may import. Arrows point to the words of `core` and never
/// back; crates in one column do not know each other. ARCHITECTURE.md says why for each.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("portcullis-core", &[]),
    ("portcullis-http1", &["core"]),
    ("portcullis-config", &["core"]),
    ("portcullis-upstream", &["core"]),
    ("portcullis-telemetry", &["core"]),
    ("portcullis-policies", &["core"]),
    ("portcullis-snapshot", &["config", "core", "upstream"]),
    ("portcullis-proxy", &["core", "http1", "snapshot", "telemetry", "upstream"]),
    ("portcullis-control", &["config", "core", "snapshot", "telemetry"]),
    ("portcullis-admin", &["control", "core", "snapshot", "telemetry"]),
    // Runs a gateway, and holds what comes through against what the configuration says.
    ("portcullis-audit", &["config", "control", "core", "proxy", "snapshot", "telemetry"]),
    // Sees the gateway as its clients do: as a process and a socket.
    ("portcullis-drill", &[]),
    (
        "portcullis",
        &[
            "admin",
            "audit",
            "config",
            "control",
            "core",
            "drill",
            "http1",
            "policies",
            "proxy",
            "snapshot",
            "telemetry",
            "upstream",
        ],
    ),
    // Stands in for the world around the gateway, so it may know all of it; nothing ships it.
    (
        "portcullis-testkit",
        &[
            "admin",
            "config",
            "control",
            "core",
            "http1",
            "policies",
            "proxy",
            "snapshot",
            "telemetry",
            "upstream",
            "wire",
        ],
    ),
    // Counts what the hot parts cost; nothing ships it.
    (
        "portcullis-bench",
        &["control", "core", "http1", "policies", "proxy", "snapshot", "telemetry", "upstream"],
    ),
    // Holds what is forwarded against readers of its own; nothing ships it.
    ("portcullis-wire", &["core", "http1"]),
    ("portcullis-tidy", &[]),
    // Draws what the state machines do.
    ("xtask", &["upstream"]),
];

#[test]
fn crates_import_only_what_they_may() {
    for (folder, name) in workspace::crates() {
        let row = MAY_IMPORT.iter().find(|(crate_name, _)| *crate_name == name);
        let (_, allowed) = row.unwrap_or_else(|| panic!("give {name} a row in MAY_IMPORT"));
        for import in our_imports(&folder) {
            assert!(
                allowed.contains(&import.as_str()),
                "{name} must not import portcullis-{import}: ARCHITECTURE.md, \"Code map\""
            );
        }
    }
}

#[test]
fn the_table_names_only_crates_that_exist() {
    let crates = workspace::crates();
    for (name, _) in MAY_IMPORT {
        assert!(crates.iter().any(|(_, found)| found == name), "{name} is gone: drop its row");
    }
}

/// The short names of our own crates in `[dependencies]`, of any target.
fn our_imports(folder: &str) -> Vec<String> {
    let manifest = workspace::manifest(folder);
    let mut tables = vec![manifest.get("dependencies")];
    if let Some(targets) = manifest.get("target").and_then(|value| value.as_table()) {
        tables.extend(targets.values().map(|target| target.get("dependencies")));
    }
    tables
        .into_iter()
        .flatten()
        .flat_map(|table| table.as_table().unwrap().keys())
        .filter_map(|name| name.strip_prefix("portcullis-"))
        .map(str::to_owned)
        .collect()
}
