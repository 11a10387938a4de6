//! The feature and fault cases, `crates/wire/features.txt`: each is there once, and the tests that
//! are to prove it exist.

use std::collections::{BTreeMap, BTreeSet};

use crate::workspace::{Source, read, rust_files};

const TABLE: &str = "crates/wire/features.txt";

/// The cases by the letters of their area.
const CASES: &[(&str, &[u8])] = &[
    ("TL", &[1, 3, 5, 7, 8, 10, 12, 13, 14, 15, 16, 18, 19, 20, 22, 23]),
    ("JW", &[1, 2, 3, 4, 5, 6, 8, 9, 10, 13, 15, 18, 19, 20, 22, 23, 24, 26]),
    ("OA", &[1, 3]),
    ("AK", &[1, 2, 4]),
    ("AZ", &[1, 2, 3, 4, 7, 9, 12, 13]),
    ("RL", &[10, 11, 13, 14, 16, 18, 19, 20, 22]),
    ("GQ", &[1, 2, 3, 4, 6]),
    ("GR", &[1, 2, 3, 5, 6, 9]),
    ("WS", &[1, 3, 4]),
    ("CA", &[1, 2, 3, 6, 7, 8, 10]),
    ("AD", &[1, 2, 3, 5, 7]),
    ("CF", &[1, 2, 3, 6, 7, 9]),
    ("RE", &[1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 13, 14, 16, 17, 18, 19, 21, 22, 23, 25, 27]),
    ("DS", &[1, 2, 3, 5]),
    ("LG", &[1, 2, 3, 5]),
];

/// The tests of a file as the table names them: `CRATE::MODULES::TEST`, without `src`, `tests/it`
/// and the name of a test module within the file.
fn tests(source: &Source) -> Vec<String> {
    let Some(path) = source.path.strip_prefix("crates/") else { return Vec::new() };
    let module = path
        .trim_end_matches(".rs")
        .split('/')
        .filter(|part| !matches!(*part, "src" | "tests" | "it" | "lib" | "main"))
        .collect::<Vec<_>>()
        .join("::");
    let mut found = Vec::new();
    let mut is_test = false;
    for line in source.text.lines().map(str::trim) {
        let name = line.split_once("fn ").and_then(|(_, rest)| rest.split('(').next());
        match name {
            Some(name) if is_test => {
                found.push(format!("{module}::{name}"));
                is_test = false;
            }
            _ => is_test = line == "#[test]" || line.starts_with("#[tokio::test") || is_test,
        }
    }
    found
}

#[test]
fn tests_are_named_by_crate_and_file() {
    let source = |path: &str, text: &str| Source { path: path.to_owned(), text: text.to_owned() };
    let text = "fn no() {}\n#[test]\n// Why.\nfn a() {}\nfn b() {}\n    #[tokio::test(x)]\n    async fn c() {}\n";
    for (path, expected) in [
        ("crates/proxy/tests/it/websocket/ends.rs", "proxy::websocket::ends"),
        ("crates/core/src/path/tests.rs", "core::path"),
        ("crates/core/src/head.rs", "core::head"),
        ("crates/policies/src/lib.rs", "policies"),
    ] {
        let expected = ["a", "c"].map(|name| format!("{expected}::{name}"));
        assert_eq!(tests(&source(path, text)), expected);
    }
}

#[test]
fn each_case_is_there_once_and_its_tests_exist() {
    let sources = rust_files("crates");
    let tests: BTreeSet<String> = sources.iter().flat_map(tests).collect();
    assert!(tests.len() > 500, "only {} tests were found", tests.len());
    let mut verdicts: BTreeMap<String, usize> = BTreeMap::new();
    let mut wrong = Vec::new();
    let mut current = String::new();
    for (at, line) in read(TABLE).lines().enumerate() {
        let mut report = |what: &str| wrong.push(format!("{TABLE}:{}: {what}", at + 1));
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let Some(verdict) = line.strip_prefix("  ") else {
            current = line.split(' ').next().unwrap().to_owned();
            if verdicts.insert(current.clone(), 0).is_some() {
                report(&format!("{current} is there twice"));
            }
            continue;
        };
        *verdicts.entry(current.clone()).or_default() += 1;
        match verdict.split_once(' ') {
            Some(("test", name)) if tests.contains(name) => {}
            Some(("test", name)) => report(&format!("there is no test {name}")),
            Some(("later:" | "open:", _)) => {}
            _ => report("neither `test NAME` nor `later: …` nor `open: …`"),
        }
    }
    let ids = |(area, numbers): &(&str, &[u8])| -> Vec<String> {
        numbers.iter().map(|number| format!("{area}-{number:02}")).collect()
    };
    let expected: BTreeSet<String> = CASES.iter().flat_map(ids).collect();
    assert_eq!(expected.len(), 117);
    for id in verdicts.keys().filter(|id| !expected.contains(*id)) {
        wrong.push(format!("{TABLE}: there is no case {id}"));
    }
    for id in expected {
        if verdicts.get(&id).is_none_or(|lines| *lines == 0) {
            wrong.push(format!("{TABLE}: {id} is missing, or says nothing"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
