//! What is attached for a backend.

use expect_test::{Expect, expect};

use crate::testing::{Files, compiled};

fn check(auth: &str, attach: &str, backend: &str, expected: &Expect) {
    let text = format!(
        r#"
listeners: {{ http: {{ bind: "127.0.0.1:8080" }} }}
auth:
  idp: {{ token: {{ header: x }} }}
  keys: {{ remote: {{ header: y }} }}
defaults: {{ attach: {{ {attach} }} }}
routes:
  a: {{ match: /a, {auth}, to: one }}
  b: {{ match: /b, auth: [idp, keys], respond: {{ status: 200 }} }}
backends:
  one: {{ endpoints: ["http://127.0.0.1:1", "{backend}"] }}
"#
    );
    let compiled = compiled(&text, &Files::default());
    let errors = compiled.findings.lines().filter(|line| line.starts_with("error"));
    expected.assert_eq(&errors.collect::<Vec<_>>().join("\n"));
    assert_eq!(compiled.snapshot.is_none(), compiled.findings.contains("error"));
}

#[test]
fn a_secret_does_not_cross_a_network_in_clear_text() {
    let plain = "clear_text: false, exchanged: false";
    for (backend, is_open) in [
        ("https://10.0.0.2", false),
        ("http://127.0.0.1:8080", false),
        ("http://[::1]:8080", false),
        ("h2c://localhost:8080", false),
        ("unix:/run/orders.sock", false),
        ("http://10.0.0.2", true),
        ("h2c://10.0.0.2", true),
        ("http://orders.internal", true),
        ("http://localhost.example", true),
    ] {
        let text = format!(
            r#"
listeners: {{ http: {{ bind: "127.0.0.1:8080" }} }}
routes:
  a: {{ match: /a, public: "for a test", attach: {{ {plain} }}, to: one }}
backends: {{ one: "{backend}" }}
"#
        );
        let compiled = compiled(&text, &Files::default());
        let found = compiled.findings.lines().find(|line| line.starts_with("error[clear-text]"));
        assert_eq!(found.is_some(), is_open, "{backend}: {found:?}");
    }
    check(
        "auth: idp",
        plain,
        "http://10.0.0.2",
        &expect![
            "error[clear-text]: the `attach` of `a` would cross the network to `http://10.0.0.2:80` in clear text"
        ],
    );
    check("auth: idp", "clear_text: true, exchanged: false", "http://10.0.0.2", &expect![""]);
}

#[test]
fn what_is_exchanged_has_to_be_there() {
    let exchanged = "clear_text: false, exchanged: true";
    for (auth, want) in [
        ("auth: idp", expect![""]),
        (
            "auth: [idp, keys]",
            expect![
                "error[no-access-token]: the `attach` of `a` is made from the caller's access token, and who comes by `keys` has none"
            ],
        ),
        (
            r#"auth: { optional: idp, reason: "a test" }"#,
            expect![
                "error[no-access-token]: the `attach` of `a` is made from the caller's access token, and who shows no credential has none"
            ],
        ),
        (
            r#"public: "a test""#,
            expect![
                "error[no-access-token]: the `attach` of `a` is made from the caller's access token, and who calls a public route has none"
            ],
        ),
    ] {
        check(auth, exchanged, "http://127.0.0.1:2", &want);
    }
}
