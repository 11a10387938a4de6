//! Who gets copies of a route's requests.

use expect_test::expect;

use super::findings::check;
use crate::testing::{Files, compiled};

#[test]
fn a_mirror_is_a_use_of_its_backend_and_has_to_be_another() {
    check(
        r#"
listeners: { http: { bind: "127.0.0.1:8080" } }
routes:
  a: { match: /a, public: a test, to: one, mirror: two }
  b: { match: /b, public: a test, to: { one: 1, three: 1 }, mirror: { to: three, percent: 1 } }
  c: { match: /c, public: a test, respond: { status: 200 }, mirror: two }
  d: { match: /d, public: a test, to: one, mirror: tow }
backends: { one: "http://10.0.0.1", two: "http://10.0.0.2", three: "http://10.0.0.3" }
"#,
        &expect![[r#"
            warning[mirrored-twice]: `three` gets requests of this route and copies of them
             --> gw.yaml:5:75
              |
            5 |   b: { match: /b, public: a test, to: { one: 1, three: 1 }, mirror: { to: three, percent: 1 } }
              |                                                                           ^^^^^ in routes.b.mirror
              |
              = help: copies are meant for a backend that has none of its requests

            warning[no-effect]: `mirror` has no effect: the route has no backend
             --> gw.yaml:6:69
              |
            6 |   c: { match: /c, public: a test, respond: { status: 200 }, mirror: two }
              |                                                                     ^^^ in routes.c.mirror

            error[unknown-name]: there is no backend `tow`
             --> gw.yaml:7:52
              |
            7 |   d: { match: /d, public: a test, to: one, mirror: tow }
              |                                                    ^^^ in routes.d.mirror
              |
              = help: did you mean `two`?

        "#]],
    );
}

#[test]
fn a_mirror_is_compiled_and_shown() {
    let text = r#"
listeners: { http: { bind: "127.0.0.1:8080" } }
routes:
  a: { match: /a, public: a test, to: one, mirror: two }
  b: { match: /b, public: a test, to: one, mirror: { to: two, percent: 0.5, unsafe_methods: true } }
backends: { one: "http://10.0.0.1", two: "http://10.0.0.2" }
"#;
    let compiled = compiled(text, &Files::default());
    assert_eq!(compiled.findings, "");
    let snapshot = compiled.ok();
    let rows = crate::describe(&snapshot);
    let shown: Vec<_> = rows.iter().filter_map(|row| row.mirror.as_ref()).collect();
    let lines: Vec<_> = shown.iter().map(|mirror| mirror.to_string()).collect();
    assert_eq!(lines, ["100% to two of safe methods", "0.5% to two"]);
    let json = serde_json::to_string(shown[1]).unwrap();
    assert_eq!(json, r#"{"backend":"two","percent":0.5,"unsafe_methods":true}"#);
}

/// What a backend knows the gateway by goes to the mirror as well.
#[test]
fn a_credential_does_not_cross_a_network_on_its_way_to_a_mirror() {
    check(
        r#"
listeners: { http: { bind: "127.0.0.1:8080" } }
routes:
  a: { match: /a, public: a test, attach: { clear_text: false, exchanged: false }, to: one, mirror: two }
backends: { one: "http://127.0.0.1:1", two: "http://10.0.0.2" }
"#,
        &expect![[r#"
            error[clear-text]: the `attach` of `a` would cross the network to `http://10.0.0.2:80` in clear text
             --> gw.yaml:4:3
              |
            4 |   a: { match: /a, public: a test, attach: { clear_text: false, exchanged: false }, to: one, mirror: two }
              |   ^ in routes.a.attach
            5 | backends: { one: "http://127.0.0.1:1", two: "http://10.0.0.2" }
              |                                             ----------------- this endpoint
              |
              = help: use `https://`, or say why this is safe: `clear_text: "<reason>"`

        "#]],
    );
}
