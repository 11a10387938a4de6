//! The way back from a login has to lead somewhere.

use expect_test::expect;

use crate::testing::{Files, compiled};

fn findings(routes: &str) -> String {
    let text = format!(
        r#"
listeners: {{ http: {{ bind: "127.0.0.1:8080" }} }}
auth: {{ people: {{ login: {{ own_paths: [/login/back] }} }} }}
backends: {{ one: "http://10.0.0.1" }}
routes: {{ {routes} }}
"#
    );
    compiled(&text, &Files::default()).findings
}

#[test]
fn a_path_that_no_route_covers_would_lead_nowhere() {
    let seen = findings("shop: { match: /shop/**, auth: people, to: one }");
    expect![[r#"
        error[path-not-covered]: no route that uses `people` covers its `/login/back`
         --> gw.yaml:3:9
          |
        3 | auth: { people: { login: { own_paths: [/login/back] } } }
          |         ^^^^^^ in auth.people
          |
          = help: match more than you do, such as `/**`, or add a route: `{ match: "/login/back", auth: people, … }`

    "#]].assert_eq(&seen);
    // A route that does not take the kind is none.
    let more = r#"shop: { match: "/shop/{id}", auth: people, to: one },
                  back: { match: /login/back, public: "a test", to: one }"#;
    assert!(findings(more).contains("path-not-covered"));
}

#[test]
fn a_path_may_be_covered_in_any_way() {
    for (path, covered) in [
        ("/**", true),
        ("/login/back", true),
        ("/login/**", true),
        ("/login/back/**", true),
        (r#""/login/{any}""#, true),
        (r#""/{any}/back""#, true),
        (r#"{ regex: "/log.*" }"#, true),
        ("/login", false),
        ("/login/back/on", false),
        (r#""/login/{any}/on""#, false),
        ("/log/**", false),
        (r#"{ regex: "/login" }"#, false),
    ] {
        let seen = findings(&format!("shop: {{ match: {path}, auth: people, to: one }}"));
        assert_eq!(seen.is_empty(), covered, "{path}:\n{seen}");
    }
    let optional = r#"shop: { match: /**, auth: { optional: people, reason: "a test" }, to: one }"#;
    let seen = findings(optional);
    assert!(!seen.contains("error"), "{seen}");
}
