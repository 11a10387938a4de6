//! `portcullis check`.

use expect_test::expect;

use crate::binary::Place;

const GOOD: &str = r#"
listeners: { http: { bind: "127.0.0.1:8080" } }
routes:
  app: { match: /app/**, public: "for the test", to: app }
backends: { app: "http://127.0.0.1:9000" }
"#;

#[test]
fn a_good_configuration_is_summed_up() {
    Place::with(GOOD).check(
        &["check"],
        &expect![[r#"
        portcullis.yaml: 1 route: 1 public; no tests
        --- status 0
    "#]],
    );
}

#[test]
fn everything_that_is_wrong_is_shown_at_once() {
    let place = Place::with(
        r#"
listeners: { http: { bind: "127.0.0.1:8080" } }
routes:
  app: { match: /app/**, to: ap }
  open: { match: /open, public: "a probe", responds: { status: 200 } }
backends: { app: "http://127.0.0.1:9000" }
"#,
    );
    place.check(
        &["check"],
        &expect![[r#"
        error[unknown-key]: unknown key `responds`
         --> portcullis.yaml:5:44
          |
        5 |   open: { match: /open, public: "a probe", responds: { status: 200 } }
          |                                            ^^^^^^^^ in routes.open
          |
          = help: did you mean `respond`?

        portcullis.yaml: 1 error
        --- status 1
    "#]],
    );
}

#[test]
fn what_names_nothing_is_shown_with_what_was_meant() {
    let place = Place::with(
        r#"
listeners: { http: { bind: "127.0.0.1:8080" } }
routes:
  app: { match: /app/**, to: ap }
backends: { app: "http://127.0.0.1:9000" }
"#,
    );
    place.check(&["check"], &expect![[r#"
        error[no-auth]: `app` does not say who may call it
         --> portcullis.yaml:4:3
          |
        4 |   app: { match: /app/**, to: ap }
          |   ^^^ in routes.app
          |
          = help: add `public: "<reason>"`, or an entry to `auth:` and `auth: NAME` here or in `defaults`

        error[unknown-name]: there is no backend `ap`
         --> portcullis.yaml:4:30
          |
        4 |   app: { match: /app/**, to: ap }
          |                              ^^ in routes.app.to
          |
          = help: did you mean `app`?

        portcullis.yaml: 2 errors
        --- status 1
    "#]]);
}

#[test]
fn a_test_that_does_not_hold_is_an_error() {
    let tests = "
tests:
  - GET http://localhost/app/1 => app
  - GET http://localhost/other => app
  - GET http://localhost/app/2 => 403
";
    Place::with(&format!("{GOOD}{tests}")).check(
        &["check"],
        &expect![[r#"
        error[test-failed]: expected route `app`, got 404 no-route before any route
         --> portcullis.yaml:9:35
          |
        9 |   - GET http://localhost/other => app
          |                                   ^^^ in tests[1]

        error[test-failed]: expected status 403, got route `app`, which sends it to `app`
          --> portcullis.yaml:10:35
           |
        10 |   - GET http://localhost/app/2 => 403
           |                                   ^^^ in tests[2]

        portcullis.yaml: 2 errors; 1 route: 1 public; 2 of 3 tests do not hold
        --- status 1
    "#]],
    );
}

#[test]
fn json() {
    let tests = "tests: [GET http://localhost/other => app]";
    Place::with(&format!("{GOOD}{tests}")).check(
        &["check", "--json"],
        &expect![[r#"
            {
              "errors": 1,
              "warnings": 0,
              "accepted": 0,
              "findings": [
                {
                  "code": "test-failed",
                  "severity": "error",
                  "resource": "tests[0]",
                  "message": "expected route `app`, got 404 no-route before any route",
                  "place": {
                    "file": "portcullis.yaml",
                    "line": 6,
                    "column": 39,
                    "column_end": 42
                  }
                }
              ],
              "tests": {
                "passed": 0,
                "failed": 1
              },
              "routes": {
                "authenticated": 0,
                "optional": 0,
                "public": 1,
                "open": [
                  {
                    "route": "app",
                    "reason": "for the test"
                  }
                ]
              }
            }
            --- status 1
        "#]],
    );
}

#[test]
fn what_cannot_be_read_is_no_answer() {
    let place = Place::with("");
    place.check(&["check", "-c", "nowhere.yaml"], &expect![[r#"
        --- stderr
        error: cannot read nowhere.yaml: No such file or directory (os error 2); give the configuration's path with `-c`
        --- status 3
    "#]]);
    place.write("empty/note.txt", "");
    place.check(&["check", "-c", "empty"], &expect![[r#"
        --- stderr
        error: cannot read empty: no .yaml, .yml or .json file in it; give the configuration's path with `-c`
        --- status 3
    "#]]);
}

#[test]
fn files_of_a_directory_belong_together() {
    let place = Place::with("");
    place.write("parts/a.yaml", GOOD);
    place.write("parts/b.yaml", "routes: { app: { match: /b, public: again, to: app } }");
    place.check(
        &["check", "-c", "parts"],
        &expect![[r#"
        error[duplicate-name]: `app` is there already
         --> parts/b.yaml:1:11
          |
        1 | routes: { app: { match: /b, public: again, to: app } }
          |           ^^^ in routes.app
          |
         ::: parts/a.yaml:4:3
          |
        4 |   app: { match: /app/**, public: "for the test", to: app }
          |   --- first here
          |
          = help: a file adds names; it cannot change those of another file

        parts: 1 error
        --- status 1
    "#]],
    );
}

const OPEN: &str = r#"
listeners: { http: { bind: "127.0.0.1:0" } }
auth: { idp: { jwt: { issuer: "https://idp.example.com/", audience: [a] } } }
backends: { app: "http://127.0.0.1:1" }
routes:
  read: { match: { path: /orders, methods: [GET] }, public: for the test, to: app }
  write: { match: { path: /orders, methods: [POST] }, auth: idp, to: app }
"#;

#[test]
fn warnings_that_nobody_has_accepted_are_denied_where_that_is_asked_for() {
    let accept =
        "accept: [{ finding: method-override, reason: the backend knows no such field }]\n";
    Place::with(OPEN).check(&["check", "--deny", "warnings"], &expect![[r#"
        warning[method-override]: `read` lets anybody in by one method where `write` asks for a credential by another: `GET any/orders`
         --> portcullis.yaml:6:26
          |
        6 |   read: { match: { path: /orders, methods: [GET] }, public: for the test, to: app }
          |                          ^^^^^^^ in routes.read.match
        7 |   write: { match: { path: /orders, methods: [POST] }, auth: idp, to: app }
          |                           ------- `write` asks for a credential
          |
          = help: a backend may take the method from a field: `headers: {request: {remove: [x-http-method-override, x-method-override, x-http-method]}}`

        portcullis.yaml: 1 warning; 2 routes: 1 authenticated, 1 public; no tests
        --- status 1
    "#]]);
    Place::with(&format!("{OPEN}{accept}")).check(
        &["check", "--deny", "warnings"],
        &expect![[r#"
        portcullis.yaml: 1 accepted; 2 routes: 1 authenticated, 1 public; no tests
        --- status 0
    "#]],
    );
    Place::with(&format!("{OPEN}{accept}")).check(&["check", "--all"], &expect![[r#"
        warning[method-override]: `read` lets anybody in by one method where `write` asks for a credential by another: `GET any/orders`
         --> portcullis.yaml:6:26
          |
        6 |   read: { match: { path: /orders, methods: [GET] }, public: for the test, to: app }
          |                          ^^^^^^^ in routes.read.match
        7 |   write: { match: { path: /orders, methods: [POST] }, auth: idp, to: app }
          |                           ------- `write` asks for a credential
          |
          = note: accepted: the backend knows no such field

        portcullis.yaml: 1 accepted; 2 routes: 1 authenticated, 1 public; no tests
        --- status 0
    "#]]);
    let removed = OPEN.replace(
        "for the test, to: app",
        "for the test, headers: { request: { remove: \
         [X-Http-Method-Override, x-method-override, x-http-method] } }, to: app",
    );
    Place::with(&removed).check(
        &["check", "--deny", "warnings"],
        &expect![[r#"
        portcullis.yaml: 2 routes: 1 authenticated, 1 public; no tests
        --- status 0
    "#]],
    );
}

#[test]
fn what_authentication_makes_of_lax_settings() {
    let key = "- { id: a, client: a, hash: \"blake3:28a9caf53b50a2a26321f4a5b8a09646a74d397ffa2c94680ab7d548a58e0eee\" }\n";
    let config = r#"
listeners: { http: { bind: "127.0.0.1:0" } }
auth:
  idp: { jwt: { issuer: "https://idp.example.com/", audience: [a], clock_skew: 31s } }
  keys: { api_keys: { keys: "file:keys.yaml", query: key } }
  out: { forward: { url: "https://a.example.com/", copy_headers: [x-role] } }
backends: { app: "http://127.0.0.1:1" }
routes:
  a: { match: /a, auth: [idp, keys], to: app }
  b: { match: /b, auth: out, headers: { request: { set: { X_Role: admin } } }, to: app }
"#;
    let place = Place::with(config);
    place.write("keys.yaml", key);
    let said = place.run(&["check"]).shown();
    let warnings: Vec<&str> = said.lines().filter(|line| line.starts_with("warning")).collect();
    expect![[r#"
        warning[long-clock-skew]: tokens count for longer than their issuer says, by more than 30s
        warning[keys-without-expiry]: file:keys.yaml: keys that never expire: a
        warning[credential-in-query]: keys in addresses are kept in histories, bookmarks and other people's logs
        warning[identity-field]: `headers` edits `X_Role`, by which the backend is told who calls"#]].assert_eq(&warnings.join("\n"));
}

#[test]
fn faults_are_compiled_only_where_they_are_allowed() {
    let config = r#"
listeners:
  inside: { bind: "127.0.0.1:8080", allow_faults: true }
  outside: { bind: "127.0.0.1:8081" }
routes:
  app:
    match: /app/**
    public: "for the test"
    on: [inside, outside]
    to: app
    faults: { abort: { status: 503 } }
backends: { app: "http://127.0.0.1:9000" }
"#;
    Place::with(config).check(&["check"], &expect![[r#"
        error[faults]: `app` makes requests fail on purpose, which listener `outside` does not allow
          --> portcullis.yaml:11:5
           |
         4 |   outside: { bind: "127.0.0.1:8081" }
           |   ------- this listener
        ...
        11 |     faults: { abort: { status: 503 } }
           |     ^^^^^^ in routes.app.faults
           |
           = help: take `faults` away, serve the route on another listener by `on`, or give `outside` `allow_faults: true` if whoever comes there may meet them

        portcullis.yaml: 1 error
        --- status 1
    "#]]);
    let allowed = config.replace("[inside, outside]", "inside");
    assert_eq!(Place::with(&allowed).run(&["check"]).status, 0);
    // Also where they are inherited, and only where something could fail.
    let inherited = r#"
listeners: { http: { bind: "127.0.0.1:8080" } }
defaults: { faults: { delay: { by: 1s } } }
routes:
  stub: { match: /stub, public: "for the test", respond: { status: 200 } }
"#;
    Place::with(inherited).check(&["check"], &expect![[r#"
        error[faults]: `stub` has no backend whose failure this could be
         --> portcullis.yaml:3:13
          |
        3 | defaults: { faults: { delay: { by: 1s } } }
          |             ^^^^^^ in routes.stub.faults
        4 | routes:
        5 |   stub: { match: /stub, public: "for the test", respond: { status: 200 } }
          |   ---- this route
          |
          = help: give it a backend with `to`, or write `faults` only where there is one: in a route, or a group of such routes

        error[faults]: `stub` makes requests fail on purpose, which listener `http` does not allow
         --> portcullis.yaml:3:13
          |
        2 | listeners: { http: { bind: "127.0.0.1:8080" } }
          |              ---- this listener
        3 | defaults: { faults: { delay: { by: 1s } } }
          |             ^^^^^^ in routes.stub.faults
          |
          = help: take `faults` away, serve the route on another listener by `on`, or give `http` `allow_faults: true` if whoever comes there may meet them

        portcullis.yaml: 2 errors
        --- status 1
    "#]]);
}
