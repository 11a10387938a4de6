//! The fuzzers' corpora, replayed: what once was found stays found, on any toolchain.

use std::path::Path;

use portcullis_wire::oracles;

/// Runs `oracle` on each file of a target's corpus; says how many there were.
fn replay(target: &str, oracle: fn(&[u8])) -> usize {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let entries = std::fs::read_dir(&folder).expect("the corpus is in the repository");
    entries
        .map(|entry| {
            let path = entry.expect("the folder can be listed").path();
            let input = std::fs::read(&path).expect("the input can be read");
            let outcome = std::panic::catch_unwind(|| oracle(&input));
            assert!(outcome.is_ok(), "{}", path.display());
        })
        .count()
}

#[test]
fn every_input_of_the_corpora_holds() {
    assert!(replay("http1_request", oracles::http1_request) >= 40);
    assert!(replay("http1_response", oracles::http1_response) >= 20);
    assert!(replay("chunked", oracles::chunked) >= 20);
    assert!(replay("path", oracles::path) >= 30);
}
