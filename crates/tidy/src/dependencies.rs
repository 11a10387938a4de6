//! `deny.toml`, held without cargo-deny and without a network: licences, bans, duplicates, sources.
//!
//! Known holes (advisories) need a database that is fetched; only `cargo deny` checks those.

use std::collections::{BTreeMap, BTreeSet};

use crate::{licence, workspace};

fn rules() -> toml::Table {
    workspace::read("deny.toml").parse().unwrap()
}

const SHIPPED: &str = "--edges=normal,build";
const ALL: &str = "--edges=normal,build,dev";

/// Name, version and licence of each third-party package that a build for Linux compiles.
fn packages(edges: &str) -> BTreeSet<(String, String, String)> {
    let tree = workspace::cargo(&[
        "tree",
        "--locked",
        "--workspace",
        edges,
        "--target=x86_64-unknown-linux-gnu",
        "--prefix=none",
        "--format={p}|{l}",
    ]);
    // `name v1.2.3|licence`, with ` (proc-macro)` or a path after the version and ` (*)` at the
    // end of what was printed before.
    tree.lines()
        .filter(|line| !line.contains("(/"))
        .filter_map(|line| line.trim_end_matches(" (*)").split_once('|'))
        .filter_map(|(package, licence)| {
            let mut words = package.split(' ');
            let (name, version) = (words.next()?, words.next()?);
            let version = version.trim_start_matches('v');
            Some((name.to_owned(), version.to_owned(), licence.to_owned()))
        })
        .collect()
}

/// Name, version and source of each third-party package in the lock file, for any platform.
fn locked() -> Vec<(String, String, String)> {
    let lock: toml::Table = workspace::read("Cargo.lock").parse().unwrap();
    let text = |package: &toml::Value, key: &str| {
        package.get(key).and_then(|value| value.as_str()).map(str::to_owned)
    };
    lock["package"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|package| {
            let source = text(package, "source")?;
            Some((text(package, "name")?, text(package, "version")?, source))
        })
        .collect()
}

#[test]
fn every_licence_is_allowed() {
    let rules = rules();
    let allowed: Vec<String> = rules["licenses"]["allow"]
        .as_array()
        .unwrap()
        .iter()
        .map(|name| name.as_str().unwrap().to_owned())
        .collect();
    let packages = packages(ALL);
    assert!(packages.len() > 20, "only {} packages", packages.len());
    for (name, version, licence) in packages {
        assert!(licence::allows(&licence, &allowed), "{name} {version}: licence `{licence}`");
    }
}

/// Tests may lean on a library that leans on one of these; nothing that is shipped may.
#[test]
fn no_banned_crate_is_shipped() {
    let rules = rules();
    let packages = packages(SHIPPED);
    for ban in rules["bans"]["deny"].as_array().unwrap() {
        let spec = ban["crate"].as_str().unwrap();
        let reason = ban["reason"].as_str().unwrap();
        let (name, below) = spec.split_once(":<").unwrap_or((spec, ""));
        for (found, version, _) in &packages {
            let banned = found == name && (below.is_empty() || number(version) < number(below));
            let excused = banned && is_only_under(found, ban.get("wrappers"));
            assert!(!banned || excused, "{found} {version} is banned: {reason}");
        }
    }
}

/// Whether everybody who imports the crate is one of its `wrappers`.
fn is_only_under(name: &str, wrappers: Option<&toml::Value>) -> bool {
    let Some(wrappers) = wrappers.and_then(|value| value.as_array()) else { return false };
    let invert = format!("--invert={name}");
    let options = ["--edges=normal,build", "--depth=1", "--prefix=none", "--format={p}"];
    let tree =
        workspace::cargo(&[&["tree", "--locked", "--workspace", &invert], &options[..]].concat());
    let mut parents = tree.lines().skip(1).filter_map(|line| line.split(' ').next());
    parents.all(|parent| wrappers.iter().any(|wrapper| wrapper.as_str() == Some(parent)))
}

/// Two versions of one crate are two crates to audit; an exception stands in `bans.skip`.
#[test]
fn no_crate_is_there_twice() {
    let rules = rules();
    let excepted: Vec<(&str, &str)> = rules["bans"]["skip"]
        .as_array()
        .unwrap()
        .iter()
        .map(|skip| {
            assert!(skip.get("reason").is_some(), "{skip:?}: say why");
            skip["crate"].as_str().unwrap().split_once('@').expect("skip NAME@VERSION")
        })
        .collect();
    let mut versions: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, version, _) in packages(ALL) {
        let may = excepted.iter().any(|(skipped, prefix)| {
            *skipped == name && (version == *prefix || version.starts_with(&format!("{prefix}.")))
        });
        if !may {
            versions.entry(name).or_default().push(version);
        }
    }
    for (name, versions) in versions {
        assert!(versions.len() == 1, "{name} is there as {}", versions.join(" and "));
    }
}

#[test]
fn everything_comes_from_the_registry() {
    for (name, version, source) in locked() {
        assert!(source.starts_with("registry+"), "{name} {version} comes from {source}");
    }
}

/// One place says which version of a library the workspace uses.
#[test]
fn crates_take_versions_from_the_workspace() {
    for (folder, name) in workspace::crates() {
        let manifest = workspace::manifest(&folder);
        for table in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let Some(table) = manifest.get(table).and_then(|value| value.as_table()) else {
                continue;
            };
            for (import, spec) in table {
                let inherits = spec.get("workspace").and_then(|value| value.as_bool());
                assert_eq!(inherits, Some(true), "{name}: {import}.workspace = true");
            }
        }
    }
}

/// The numbers of a version, for `<`. What follows a `-` or `+` is left out.
fn number(version: &str) -> Vec<u64> {
    let release = version.split(['-', '+']).next().unwrap();
    release.split('.').map(|part| part.parse().unwrap()).collect()
}

#[test]
fn versions_compare_by_number() {
    assert!(number("0.9.1") < number("0.18.2"));
    assert!(number("0.18.2") >= number("0.18.2"));
    assert!(number("1.2.1+spec-1.1.0") < number("1.10.0"));
}

/// The faults that the audit's tests plant in the gateway stand in the builds of those tests alone.
#[test]
fn nothing_that_ships_has_planted_faults() {
    const FEATURE: &str = "planted-faults";
    for (folder, name) in workspace::crates() {
        let manifest = workspace::manifest(&folder);
        let asks = |table: &str| {
            let table = manifest.get(table).and_then(|value| value.as_table());
            let mut entries = table.into_iter().flat_map(|table| table.values());
            entries.any(|entry| {
                let features = entry.get("features").and_then(|value| value.as_array());
                features.is_some_and(|all| all.iter().any(|one| one.as_str() == Some(FEATURE)))
            })
        };
        assert!(!asks("dependencies"), "{name} must not ask for `{FEATURE}`");
        assert!(!asks("dev-dependencies") || name == "portcullis-audit", "{name}: only the audit");
        let features = manifest.get("features").and_then(|value| value.as_table());
        let default = features.and_then(|all| all.get("default")?.as_array());
        let has = default.is_some_and(|all| all.iter().any(|one| one.as_str() == Some(FEATURE)));
        assert!(!has, "{name} must not have `{FEATURE}` by default");
    }
}
