//! What the command says about itself.

use expect_test::expect;

use crate::binary::Place;

#[test]
fn help() {
    Place::with("").check(&["--help"], &expect![[r#"
        An API gateway: one binary and one file, between the clients of an API and the services behind it

        Usage: portcullis <VERB>

        Verbs:
          demo         Start a gateway with all it needs on loopback, and print lines to try it with
          run          Run the gateway
          check        Compile a configuration and run its tests, and show everything that is wrong with it
          audit        Try every route with all that must let nobody in, and show that nobody gets in
          drill        Make backends fail in every way, and show what clients see of it
          routes       Print the route table: what is matched, who may pass, and where it goes
          explain      Say what would become of a request, phase by phase, without sending it
          override     Shift a running gateway's traffic: weights, blue-green, endpoints out of service
          analysis     Show a running gateway's canaries: how far they are, and what speaks against them
          schema       Print the JSON Schema of the configuration, for editors
          keys         Make, list, rotate and revoke API keys; hash passwords
          token        Make a signed token for tests, or print the key set that it is verified with
          completions  Print a completion script for a shell

        Options:
          -h, --help     Print help
          -V, --version  Print version

        Exit status: 0 yes, 1 no (what was asked does not hold), 2 usage, 3 could not run.

        Start with `portcullis demo`.
        --- status 0
    "#]]);
}

#[test]
fn nothing_typed_is_shown_the_help() {
    let place = Place::with("");
    let ran = place.run(&[]);
    assert_eq!(ran.status, 2);
    assert_eq!(ran.stderr, place.run(&["--help"]).stdout);
}

#[test]
fn every_verb_has_help_with_an_example() {
    let place = Place::with("");
    let help = place.run(&["--help"]).yes();
    let verbs = help.lines().skip_while(|line| *line != "Verbs:").skip(1);
    let verbs: Vec<&str> = verbs
        .take_while(|line| !line.is_empty())
        .map(|line| line.split_whitespace().next().unwrap())
        .collect();
    assert_eq!(verbs.len(), 13, "{help}");
    for verb in verbs {
        let arguments: &[&str] = match verb {
            "drill" => &["drill", "backends", "--help"],
            "keys" => &["keys", "create", "--help"],
            verb => &[verb, "--help"],
        };
        let help = place.run(arguments).yes();
        assert!(help.contains("Example:\n  "), "{help}");
    }
}

#[test]
fn what_is_mistyped_is_corrected() {
    let place = Place::with("");
    place.check(
        &["chek"],
        &expect![[r#"
        --- stderr
        error: unrecognized subcommand 'chek'

          tip: some similar subcommands exist: 'schema', 'check'

        Usage: portcullis <VERB>

        For more information, try '--help'.
        --- status 2
    "#]],
    );
    place.check(
        &["check", "--jsno"],
        &expect![[r#"
        --- stderr
        error: unexpected argument '--jsno' found

          tip: a similar argument exists: '--json'

        Usage: portcullis check --json

        For more information, try '--help'.
        --- status 2
    "#]],
    );
}

#[test]
fn the_version_is_that_of_the_package() {
    let version = Place::with("").run(&["--version"]).yes();
    assert_eq!(version, format!("portcullis {}\n", env!("CARGO_PKG_VERSION")));
}

/// Whoever reads may stop early: `portcullis schema | head -1`.
#[test]
fn a_reader_that_goes_away_is_no_error() {
    let shell = "\"$0\" schema | head -n 1 >/dev/null";
    let mut command = std::process::Command::new("sh");
    let output = command.args(["-c", shell, env!("CARGO_BIN_EXE_portcullis")]).output().unwrap();
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
}
