//! The fuzzers' corpora, replayed: what once was found stays found, on any toolchain.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use portcullis_testkit::end_to_end::EndToEnd;
use portcullis_wire::oracles;

type Target = (&'static str, fn(&[u8]));

/// Those that are plain functions. `end_to_end` needs a gateway.
const PURE: [Target; 7] = [
    ("authority", oracles::authority),
    ("chunked", oracles::chunked),
    ("fields", oracles::fields),
    ("http1_request", oracles::http1_request),
    ("http1_response", oracles::http1_response),
    ("path", oracles::path),
    ("proxy_protocol", oracles::proxy_protocol),
];

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz")
}

/// Runs `oracle` on each file of a target's corpus, in order.
fn replay(target: &str, mut oracle: impl FnMut(&[u8])) {
    let mut paths = listed(&fuzz().join("corpus").join(target));
    paths.sort();
    assert!(paths.len() >= 20, "{target} has {} inputs", paths.len());
    for path in paths {
        let input = std::fs::read(&path).expect("the input can be read");
        let outcome = catch_unwind(AssertUnwindSafe(|| oracle(&input)));
        assert!(outcome.is_ok(), "{}", path.display());
    }
}

fn listed(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("it is in the repository");
    entries.map(|entry| entry.expect("the folder can be listed").path()).collect()
}

#[test]
fn every_input_of_the_pure_targets_holds() {
    for (target, oracle) in PURE {
        replay(target, oracle);
    }
}

#[test]
fn every_input_of_the_end_to_end_target_holds() {
    let mut world = EndToEnd::start();
    replay("end_to_end", |input| world.run(input));
    assert_eq!(world.panics(), Some(0.0));
    assert!(world.forwarded() > 30, "only {} requests were passed on", world.forwarded());
}

/// A target that is not in the table above would never be replayed.
#[test]
fn every_target_is_replayed() {
    let names = |folder: &str| -> BTreeSet<String> {
        let stem = |path: PathBuf| path.file_stem()?.to_str().map(str::to_owned);
        listed(&fuzz().join(folder)).into_iter().filter_map(stem).collect()
    };
    let mut here: BTreeSet<String> = PURE.iter().map(|(name, _)| (*name).to_owned()).collect();
    here.insert("end_to_end".to_owned());
    assert_eq!(names("fuzz_targets"), here);
    assert_eq!(names("corpus"), here);
}
