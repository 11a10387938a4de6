//! What cannot be brought up by itself.

use expect_test::{Expect, expect};

use crate::testing::{Files, compiled};

#[track_caller]
fn check(to: &str, analysis: &str, expected: &Expect) {
    let text = format!(
        r#"
listeners: {{ http: {{ bind: "127.0.0.1:8080" }} }}
backends: {{ one: "http://10.0.0.1", two: "http://10.0.0.2", three: "http://10.0.0.3" }}
routes:
  orders:
    match: /**
    public: a test
    to: {to}
    analysis: {analysis}
"#
    );
    let findings = compiled(&text, &Files::default()).findings;
    let errors = findings.lines().filter(|line| line.starts_with("error"));
    expected.assert_eq(&errors.collect::<Vec<_>>().join("\n"));
}

#[test]
fn a_canary_is_one_of_two_and_grows() {
    let two = "{ one: 100, two: 0 }";
    check(two, "{ canary: two }", &expect![""]);
    check(two, "{ canary: two, steps: [1, 100] }", &expect![""]);
    check(two, "{ canary: three }", &expect!["error[analysis]: the route has no variant `three`"]);
    check(
        "one",
        "{ canary: one }",
        &expect!["error[analysis]: there are 1 variants, and two are compared"],
    );
    check(
        "{ one: 1, two: 1, three: 1 }",
        "{ canary: two }",
        &expect!["error[analysis]: there are 3 variants, and two are compared"],
    );
    check(
        two,
        "{ canary: two, steps: [5, 5] }",
        &expect!["error[analysis]: a step is not more than the one before"],
    );
    check(
        two,
        "{ canary: two, steps: [100] }",
        &expect!["error[analysis]: the first step leaves nothing to compare with"],
    );
    check(
        two,
        "{ canary: two, steps: [] }",
        &expect!["error[out-of-range]: needs at least 1 item"],
    );
    check(
        two,
        "{ canary: two, steps: [0, 101] }",
        &expect![[r#"
        error[out-of-range]: must be from 1 to 100
        error[out-of-range]: must be from 1 to 100"#]],
    );
    check(
        two,
        "{ canary: two, every: 0s, requests: 0 }",
        &expect![[r#"
        error[invalid-value]: must be longer than zero
        error[out-of-range]: must be at least 1"#]],
    );
}

#[test]
fn there_is_an_end_to_how_many_are_watched() {
    let route = |number| {
        format!(
            "  r{number}: {{ match: /{number}, public: a test, to: {{ one: 1, two: 0 }}, \
             analysis: {{ canary: two }} }}\n"
        )
    };
    let errors = |count| {
        let routes: String = (0..count).map(route).collect();
        let text = format!(
            "listeners: {{ http: {{ bind: \"127.0.0.1:8080\" }} }}\n\
             backends: {{ one: \"http://10.0.0.1\", two: \"http://10.0.0.2\" }}\nroutes:\n{routes}"
        );
        let findings = compiled(&text, &Files::default()).findings;
        findings.lines().filter(|line| line.starts_with("error")).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(errors(500), "");
    assert_eq!(errors(502), "error[analysis]: more than 500 routes have an analysis");
}
