//! Several files: names add up, and nothing is said twice.

use expect_test::expect;

use crate::render;
use crate::testing::load_files;

#[test]
fn files_add_names_and_tests() {
    let loaded = load_files(&[
        (
            "a.yaml",
            "listeners: { l: { bind: 127.0.0.1:80 } }\nroutes: { a: { match: /a, to: b } }\ntests: [GET http://x/a => a]\n",
        ),
        ("b.yaml", "routes: { b: { match: /b, to: b } }\ntests: [GET http://x/b => b]\n"),
        ("c.json", "{\"backends\": {\"b\": \"http://b\"}}"),
        ("empty.yaml", "# nothing yet\n"),
    ]);
    let config = loaded.config.expect("loads");
    let routes: Vec<_> = config.routes.iter().map(|r| (r.name.as_str(), r.span.file)).collect();
    assert_eq!(routes, [("a", 0), ("b", 1)]);
    assert_eq!(config.tests.len(), 2);
    assert_eq!(config.tests[1].span.file, 1);
    assert_eq!(config.backends[0].span.file, 2);
}

#[test]
fn what_is_said_twice() {
    let loaded = load_files(&[
        (
            "a.yaml",
            "workers: 2\nlisteners: { l: { bind: 127.0.0.1:80 } }\nroutes:\n  a: { match: /a, to: b }\n",
        ),
        ("b.yaml", "workers: 2\nlisteners: { m: { bind: 127.0.0.1:81 } }\ndefaults: {}\n"),
        ("c.yaml", "defaults: {}\nroutes:\n  a: { match: /c, to: b }\n"),
    ]);
    assert!(loaded.config.is_none());
    expect![[r#"
        error[duplicate-key]: `workers` stands in two files
         --> b.yaml:1:1
          |
        1 | workers: 2
          | ^^^^^^^ in workers
          |
         ::: a.yaml:1:1
          |
        1 | workers: 2
          | ------- first here
          |
          = help: only `auth`, `groups`, `routes`, `backends`, `tests` and `accept` may be spread out

        error[duplicate-key]: `listeners` stands in two files
         --> b.yaml:2:1
          |
        2 | listeners: { m: { bind: 127.0.0.1:81 } }
          | ^^^^^^^^^ in listeners
          |
         ::: a.yaml:2:1
          |
        2 | listeners: { l: { bind: 127.0.0.1:80 } }
          | --------- first here
          |
          = help: only `auth`, `groups`, `routes`, `backends`, `tests` and `accept` may be spread out

        error[duplicate-key]: `defaults` stands in two files
         --> c.yaml:1:1
          |
        1 | defaults: {}
          | ^^^^^^^^ in defaults
          |
         ::: b.yaml:3:1
          |
        3 | defaults: {}
          | -------- first here
          |
          = help: only `auth`, `groups`, `routes`, `backends`, `tests` and `accept` may be spread out

        error[duplicate-name]: `a` is there already
         --> c.yaml:3:3
          |
        3 |   a: { match: /c, to: b }
          |   ^ in routes.a
          |
         ::: a.yaml:4:3
          |
        4 |   a: { match: /a, to: b }
          |   - first here
          |
          = help: a file adds names; it cannot change those of another file

    "#]]
    .assert_eq(&render(&loaded.findings, &loaded.sources, false));
}

#[test]
fn a_file_that_is_not_yaml_does_not_hide_the_others() {
    let loaded = load_files(&[("a.yaml", "routes: [\n"), ("b.yaml", "routs: {}\n")]);
    let codes: Vec<_> = loaded.findings.iter().map(|finding| finding.code).collect();
    assert_eq!(codes, ["yaml-syntax", "unknown-key"]);
}
