//! `portcullis keys`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use expect_test::expect;

use crate::binary::Place;

const CONFIG: &str = r#"
listeners: { http: { bind: "127.0.0.1:8080" } }
auth: { partners: { api_keys: { keys: "file:partners.yaml" } } }
routes:
  reports:
    match: /reports
    auth: partners
    require: { scopes: ["reports:read"] }
    to: reports
backends: { reports: "http://127.0.0.1:9000" }
"#;

const REQUEST: &str = "GET http://localhost/reports";

#[test]
fn a_new_key_opens_what_its_scopes_open() {
    let place = Place::with(CONFIG);
    let create = |rest: &[&str]| {
        let ran = place.run(&[&["keys", "create", "--client", "acme"], rest].concat());
        assert_eq!(ran.status, 0, "{}", ran.shown());
        let key = ran.stderr.split_whitespace().find(|word| word.starts_with("pk_")).unwrap();
        (format!("X-Api-Key: {key}"), ran.stdout.clone())
    };
    let (reader, first) = create(&["--scopes", "reports:read", "--expires", "2999-12-31"]);
    let (writer, second) = create(&["--scopes", "reports:write", "--tenant", "acme: \"eu\""]);
    let (expired, third) = create(&["--scopes", "reports:read", "--expires", "2020-01-01"]);
    let (removed, _) = create(&["--scopes", "reports:read"]);
    place.write("partners.yaml", &[first, second, third].concat());
    let status = |header: &str| place.run(&["explain", REQUEST, "-H", header]).stdout;
    assert!(status(&reader).contains("forwarded to reports"));
    assert!(status(&writer).contains("refused: 403 insufficient-scope"));
    assert!(status(&expired).contains("refused: 401 credentials-expired"));
    assert!(status(&removed).contains("refused: 401 credentials-invalid"));
}

#[test]
fn the_entry_alone_goes_to_standard_output() {
    let place = Place::with("");
    let arguments = ["keys", "create", "--client", "acme", "--scopes", "a,b"];
    let ran = place.run(&[&arguments[..], &["--id", "acme-1"]].concat());
    let hash = ran.stdout.split('"').find(|text| text.starts_with("blake3:")).unwrap();
    let key = ran.stderr.split_whitespace().find(|word| word.starts_with("pk_")).unwrap();
    expect![[r#"
        - id: "acme-1"
          hash: "HASH"
          client: "acme"
          scopes: ["a", "b"]
        --- stderr
        The key, which is not shown again:

          KEY

        Its entry for the file of keys:

        --- status 0
    "#]]
    .assert_eq(&ran.shown().replace(hash, "HASH").replace(key, "KEY"));
}

#[test]
fn json_has_both() {
    let ran = Place::with("").run(&["keys", "create", "--client", "acme", "--json"]);
    let value: serde_json::Value = serde_json::from_str(&ran.yes()).unwrap();
    assert!(value["key"].as_str().unwrap().starts_with("pk_acme-"));
    assert!(value["entry"]["hash"].as_str().unwrap().starts_with("blake3:"));
    assert_eq!(value["entry"]["client"], "acme");
}

#[test]
fn what_the_gateway_would_not_read_is_usage() {
    let place = Place::with("");
    let create = ["keys", "create", "--client", "acme", "--id"];
    place.check(
        &[&create[..], &["a_b"]].concat(),
        &expect![[r#"
        --- stderr
        error: a key's id is 1 to 64 letters, digits, `-` and `.`
        --- status 2
    "#]],
    );
    place.check(
        &[&create[..], &["a", "--expires", "2027-02-30"]].concat(),
        &expect![[r#"
        --- stderr
        error: the `expires` of `a` is not a time: write `2027-01-31` or `2027-01-31T12:00:00Z`
        --- status 2
    "#]],
    );
    place.check(
        &[&create[..], &["a", "--scopes", "a b"]].concat(),
        &expect![[r#"
        --- stderr
        error: a scope of `a` is not a scope
        --- status 2
    "#]],
    );
}

/// The life of a key: made, listed, replaced by another while both are good, taken away.
#[test]
fn a_file_of_keys_is_kept_by_the_command() {
    let place = Place::with(CONFIG);
    place.write("partners.yaml", "# Partners, by contract.\n");
    let keys = |rest: &[&str]| place.run(&[&["keys"], rest, &["--file", "partners.yaml"]].concat());
    let create = ["create", "--client", "acme", "--scopes", "reports:read", "--id", "acme-1"];
    let old = keys(&[&create[..], &["--expires", "2999-12-31"]].concat()).yes();
    let again = keys(&create);
    assert_eq!(again.status, 1, "{}", again.shown());
    let new = keys(&["rotate", "acme-1", "--overlap", "7d", "--new-id", "acme-2"]).yes();
    let passes = |key: &str| {
        let header = format!("X-Api-Key: {}", key.trim());
        place.run(&["explain", REQUEST, "-H", &header]).status == 0
    };
    assert_eq!([passes(&old), passes(&new)], [true, true]);

    let listed = keys(&["list", "--json"]).yes();
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    let states = [&listed[0], &listed[1]].map(|key| (key["id"].as_str(), key["state"].as_str()));
    assert_eq!(states, [(Some("acme-1"), Some("ending")), (Some("acme-2"), Some("good"))]);
    let shown = keys(&["list"]).yes();
    assert!(shown.contains("ending") && !shown.contains("blake3"), "{shown}");

    keys(&["revoke", "acme-1"]).yes();
    assert_eq!([passes(&old), passes(&new)], [false, true]);
    let text = place.read("partners.yaml");
    assert!(text.starts_with("# Partners, by contract.\n- id: \"acme-2\"\n"), "{text}");
    place.check(
        &["keys", "revoke", "acme-1", "-f", "partners.yaml"],
        &expect![[r#"
            --- stderr
            error: partners.yaml has no key `acme-1`
            --- status 1
        "#]],
    );
}

#[test]
fn a_file_that_cannot_be_read_is_left_alone() {
    let place = Place::with("");
    place.write("partners.yaml", "- id: a\n  hash: b\n");
    place.check(
        &["keys", "rotate", "a", "-f", "partners.yaml"],
        &expect![[r#"
            --- stderr
            error: partners.yaml: line 2 column 3: missing field `client`
            --- status 1
        "#]],
    );
    assert_eq!(place.read("partners.yaml"), "- id: a\n  hash: b\n");
    let none = place.run(&["keys", "list", "-f", "none.yaml"]);
    assert_eq!(none.status, 3, "{}", none.shown());
}

#[test]
fn a_hashed_password_opens_what_its_user_may() {
    let basic = CONFIG.replace("api_keys: { keys:", "basic: { users:");
    let place = Place::with(&basic);
    let hash = ["keys", "hash-password", "--user", "Zoë", "--scopes", "reports:read"];
    place.write("partners.yaml", &place.run_with(&hash, "öpen: sesame\n").yes());
    let status = |password: &str| {
        let credential = STANDARD.encode(format!("Zoë:{password}"));
        place.run(&["explain", REQUEST, "-H", &format!("Authorization: Basic {credential}")])
    };
    status("öpen: sesame").yes();
    assert!(status("open: sesame").stdout.contains("refused: 401 credentials-invalid"));
    let refused = |arguments: &[&str], input: &str| {
        let ran = place.run_with(arguments, input);
        assert_eq!((ran.status, &*ran.stdout), (2, ""), "{}", ran.stderr);
        ran.stderr
    };
    assert_eq!(refused(&hash, ""), "error: a password is 1 to 1024 bytes\n");
    assert_eq!(refused(&hash, "a\nb\n"), "error: a password has no control characters\n");
    let name = refused(&["keys", "hash-password", "--user", "a:b"], "c");
    assert_eq!(name, "error: a `user` is a name without a colon\n");
}
