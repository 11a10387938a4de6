//! `portcullis completions`.

use crate::binary::Place;

#[test]
fn every_shell_learns_the_verbs() {
    let place = Place::with("");
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = place.run(&["completions", shell]).yes();
        for verb in ["check", "demo", "explain", "keys", "routes", "run", "schema", "token"] {
            assert!(script.contains(verb), "{shell}: {verb}");
        }
    }
}

#[test]
fn other_shells_are_usage() {
    assert_eq!(Place::with("").run(&["completions", "cmd"]).status, 2);
}
