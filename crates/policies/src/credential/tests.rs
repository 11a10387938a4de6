mod exchanged;
mod granted;

use expect_test::{Expect, expect};

use crate::testing::World;

fn world() -> World {
    World::default()
        .file("key", "s3cret\n")
        .file("ä", "pässword")
        .file("lines", "a\nX-Evil: 1")
        .file("empty", "\n")
}

fn check(settings: &str, request: &str, want: &Expect) {
    let world = world();
    let seen = match world.try_policy("credential", settings) {
        Ok(policy) => {
            assert!(!format!("{policy:?}").contains("s3cret"));
            world.run(&*policy, request)
        }
        Err(errors) => errors,
    };
    want.assert_eq(&seen);
}

/// What the client says under the name, or an alias of it, is not heard, and what the backend says
/// under it is not told.
#[test]
fn a_secret_takes_the_place_of_what_the_client_sent() {
    let request = "192.0.2.7 GET /a | X-Key: mine | x_key: mine | X.Key: mine | X-Keys: 1 \
                   | Authorization: Bearer mine | :answer 200 X_Key=s3cret Server=x";
    check(
        r#"{ header: X-Key, value: "file:key" }"#,
        request,
        &expect![[r#"
            continue
            > GET /a
            > X-Keys: 1
            > Authorization: Bearer mine
            > X-Key: s3cret
            < Server: x"#]],
    );
    check(
        r#"{ bearer: "file:key" }"#,
        request,
        &expect![[r#"
            continue
            > GET /a
            > X-Key: mine
            > x_key: mine
            > X.Key: mine
            > X-Keys: 1
            > Authorization: Bearer s3cret
            < X_Key: s3cret
            < Server: x"#]],
    );
    check(
        r#"{ basic: { user: gw, password: "file:ä" } }"#,
        request,
        &expect![[r#"
        continue
        > GET /a
        > X-Key: mine
        > x_key: mine
        > X.Key: mine
        > X-Keys: 1
        > Authorization: Basic Z3c6cMOkc3N3b3Jk
        < X_Key: s3cret
        < Server: x"#]],
    );
}

#[test]
fn a_changed_secret_is_read_again() {
    let world = world();
    let settings = r#"{ bearer: "file:key" }"#;
    let policy = world.policy("credential", settings);
    assert!(world.run(&*policy, "192.0.2.7 GET /").ends_with("Bearer s3cret"));
    world.files.borrow_mut().insert("file:key".to_owned(), b"new".to_vec());
    let policy = world.policy("credential", settings);
    assert!(world.run(&*policy, "192.0.2.7 GET /").ends_with("Bearer new"));
}

#[test]
fn trailers_cannot_have_the_name() {
    let policy = world().policy("credential", r#"{ header: X-Key, value: "file:key" }"#);
    assert_eq!(policy.request_fields(), ["X-Key"]);
    assert_eq!(policy.phase(), portcullis_core::Phase::Transform);
}

#[test]
fn settings_that_do_not_compile() {
    let request = "192.0.2.7 GET /";
    for (settings, want) in [
        (
            "{}",
            expect![
                "error missing-key at credential: exactly one of `header` with `value`, `bearer`, `basic`, `client_credentials` and `exchange` is needed"
            ],
        ),
        (
            r#"{ value: "file:key" }"#,
            expect![
                "error missing-key at credential: exactly one of `header` with `value`, `bearer`, `basic`, `client_credentials` and `exchange` is needed"
            ],
        ),
        (r#"{ header: X-Key }"#, expect!["error missing-key at credential: `value` is missing"]),
        (
            r#"{ bearer: "file:key", value: "file:key" }"#,
            expect![
                "error missing-key at credential: exactly one of `header` with `value`, `bearer`, `basic`, `client_credentials` and `exchange` is needed"
            ],
        ),
        (
            r#"{ bearer: "file:key", basic: { user: a, password: "file:key" } }"#,
            expect![
                "error missing-key at credential: exactly one of `header` with `value`, `bearer`, `basic`, `client_credentials` and `exchange` is needed"
            ],
        ),
        (
            r#"{ bearer: "hunter2" }"#,
            expect![
                "error invalid-value at credential.bearer: a secret does not stand in the configuration (write `file:PATH` or `env:NAME`)"
            ],
        ),
        (
            r#"{ bearer: "file:empty" }"#,
            expect!["error invalid-value at credential.bearer: `file:empty` is empty"],
        ),
        (
            r#"{ bearer: "file:lines" }"#,
            expect![
                "error invalid-value at credential.bearer: `file:lines` has more than one line (a header has no control characters)"
            ],
        ),
        (
            r#"{ header: X-Key, value: "file:lines" }"#,
            expect![
                "error invalid-value at credential.value: `file:lines` has more than one line (a header has no control characters)"
            ],
        ),
        (
            r#"{ header: "X Key", value: "file:key" }"#,
            expect!["error invalid-value at credential.header: `X Key` is not a field name"],
        ),
        (
            r#"{ header: Host, value: "file:key" }"#,
            expect![
                "error invalid-value at credential.header: `Host` cannot be edited: see `host` of the backend"
            ],
        ),
        (
            r#"{ header: Cookie, value: "file:key" }"#,
            expect!["error invalid-value at credential.header: `Cookie` has a meaning of its own"],
        ),
        (
            r#"{ header: Connection, value: "file:key" }"#,
            expect![
                "error invalid-value at credential.header: `Connection` concerns one connection only and never travels on"
            ],
        ),
        (
            r#"{ header: Portcullis_Client, value: "file:key" }"#,
            expect![
                "error invalid-value at credential.header: `Portcullis_Client` is the gateway's: it says who was verified"
            ],
        ),
        (
            r#"{ basic: { user: "a:b", password: "file:key" } }"#,
            expect![
                "error invalid-value at credential.basic: a user has no colon and no control characters (RFC 7617 §2)"
            ],
        ),
        (
            r#"{ bearer: "file:key", clear_text: " x " }"#,
            expect![
                "error invalid-value at credential.clear_text: a reason has at least three letters"
            ],
        ),
        (
            r#"{ client_credentials: { client: { id: a, secret: "file:key" } } }"#,
            expect![
                "error missing-key at credential.client_credentials: `issuer` or `token_endpoint` is missing"
            ],
        ),
        (
            r#"{ exchange: { token_endpoint: "http://a.example/t", timeout: 31s, client: { id: a, secret: "file:key" } } }"#,
            expect![[r#"
                error invalid-value at credential.exchange.token_endpoint: `http://a.example/t` cannot be asked: anybody on the way could read along (an `https://` URL, or `http://` on loopback)
                error out-of-range at credential.exchange.timeout: at most `30s`"#]],
        ),
    ] {
        check(settings, request, &want);
    }
}
