//! The crates that decide are given the time, the bytes and the random numbers; they ask nobody.
//! That is what makes a decision repeatable in a test, in `explain` and in `check`.

use crate::workspace::{code, crates, has_word, manifest, rust_files};

const PURE: &[&str] =
    &["crates/core", "crates/http1", "crates/policies", "crates/snapshot", "crates/upstream"];

/// What the pure crates do without, and what stands in its place.
const FORBIDDEN: &[(&str, &str)] = &[
    ("tokio", "ask `Services`; the proxy has the runtime"),
    ("hyper", "ask `Services::fetch`"),
    ("TcpStream", "ask `Services::fetch`"),
    ("TcpListener", "the proxy listens"),
    ("UdpSocket", "the proxy has the sockets"),
    ("UnixStream", "the proxy has the sockets"),
    ("Instant", "take `Now` as an argument"),
    ("SystemTime", "take `Now` as an argument"),
    ("UNIX_EPOCH", "take `Now` as an argument"),
    ("fs::", "take the contents as an argument; control reads files"),
    ("File::", "take the contents as an argument; control reads files"),
    ("env::", "take the value as an argument; the binary reads the environment"),
    ("process::", "only the binary starts or ends a process"),
    ("thread::", "only the proxy and the binary start threads"),
    ("rand", "take a seed, or ask `Services::random`"),
    ("rand::", "take a seed, or ask `Services::random`"),
    ("getrandom", "take a seed, or ask `Services::random`"),
    ("SystemRandom", "take a seed, or ask `Services::random`"),
    ("OsRng", "take a seed, or ask `Services::random`"),
    ("RandomState", "a seed that differs in each run makes decisions differ; use a fixed hasher"),
];

/// Third-party crates that exist to do one of those things.
const FORBIDDEN_CRATES: &[&str] =
    &["getrandom", "hyper", "notify", "rand", "socket2", "tempfile", "tokio", "tokio-rustls"];

#[test]
fn pure_crates_ask_nobody() {
    let mut findings = Vec::new();
    for source in PURE.iter().flat_map(|folder| rust_files(&format!("{folder}/src"))) {
        for (number, line) in source.product_lines() {
            for (word, instead) in FORBIDDEN {
                if has_word(code(line), word) {
                    findings.push(format!("{}:{number}: `{word}`: {instead}", source.path));
                }
            }
        }
    }
    assert!(findings.is_empty(), "these crates stay pure:\n{}", findings.join("\n"));
}

#[test]
fn pure_crates_import_nothing_that_does_it_for_them() {
    for folder in PURE {
        let manifest = manifest(folder);
        let Some(imports) = manifest.get("dependencies").and_then(|value| value.as_table()) else {
            continue;
        };
        for name in FORBIDDEN_CRATES {
            assert!(!imports.contains_key(*name), "{folder} must not import {name}");
        }
    }
}

#[test]
fn only_programs_use_anyhow() {
    for (folder, name) in crates() {
        let manifest = manifest(&folder);
        let imports = manifest.get("dependencies").and_then(|value| value.as_table());
        let uses = imports.is_some_and(|imports| imports.contains_key("anyhow"));
        let may = matches!(name.as_str(), "portcullis" | "portcullis-bench" | "xtask");
        assert!(!uses || may, "{name}: name the error; `anyhow` says nothing to a caller");
    }
}

/// Whoever may read the environment beside the binary, and why.
const READS_THE_ENVIRONMENT: &[(&str, &str)] =
    &[("crates/control/src/files.rs", "resolves the references `env:NAME` of the configuration")];

#[test]
fn only_the_binary_reads_arguments_and_environment() {
    let mut findings = Vec::new();
    for source in rust_files("crates") {
        let excepted = READS_THE_ENVIRONMENT.iter().any(|(path, _)| *path == source.path);
        if source.path.starts_with("crates/portcullis/") || excepted {
            continue;
        }
        for (number, line) in source.product_lines() {
            for word in ["env::var", "env::args", "env::var_os", "env::vars"] {
                if has_word(code(line), word) {
                    findings.push(format!("{}:{number}: `{word}`", source.path));
                }
            }
        }
    }
    assert!(findings.is_empty(), "pass the value in from the binary:\n{}", findings.join("\n"));
}
