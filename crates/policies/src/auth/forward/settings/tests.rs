use expect_test::expect;

use crate::testing::World;

#[test]
fn settings_that_mean_nothing_are_refused() {
    let world = World::default();
    for (yaml, expected) in [
        ("{}", "error invalid-value at forward.url: where to ask: `url` or `grpc`"),
        (
            r#"{ url: "http://[::1]/", grpc: "http://[::1]" }"#,
            "error invalid-value at forward.url: either `url` or `grpc`, not both",
        ),
        (
            r#"{ url: "ftp://a/" }"#,
            "error invalid-value at forward.url: not an `http://` or `https://` URL",
        ),
        (
            r#"{ url: "https://me:secret@a/" }"#,
            "error invalid-value at forward.url: not an `http://` or `https://` URL",
        ),
        (
            r#"{ grpc: "https://a/b" }"#,
            "error invalid-value at forward.grpc: a gRPC service has no path: only scheme, host, \
             port",
        ),
        (
            r#"{ url: "https://a/b", path_prefix: /c }"#,
            "error invalid-value at forward.url: with a `path_prefix` the URL has no path of its \
             own",
        ),
        (
            r#"{ url: "https://a/b", body: { max: 1KiB } }"#,
            "error invalid-value at forward.method: a body goes with `POST` or `same`",
        ),
        (
            r#"{ url: "https://a/b", client: "metadata:a" }"#,
            "error invalid-value at forward.client: there is no metadata or context over HTTP",
        ),
        (
            r#"{ url: "https://a/b", request_headers: ["*"] }"#,
            "error invalid-value at forward.request_headers: all fields can be shown by gRPC only: \
             over HTTP what a client says could be taken for what the gateway says",
        ),
        (
            r#"{ url: "https://a/b", request_headers: [X-Forwarded-Uri] }"#,
            "error invalid-value at forward.request_headers: what the gateway itself says, or what \
             concerns one connection only",
        ),
        (
            r#"{ url: "https://a/b", copy_headers: [authorization] }"#,
            "error invalid-value at forward.copy_headers: `authorization` has a meaning of its own\n\
             error invalid-value at forward.request_headers: `authorization` is removed from \
             requests, since `copy_headers` has it",
        ),
        (
            r#"{ url: "https://a/b", copy_headers: [Portcullis-Client] }"#,
            "error invalid-value at forward.copy_headers: `Portcullis-Client` has a meaning of its \
             own",
        ),
        (
            r#"{ url: "https://a/b", cache: { ttl: 1s, key: [x-a] } }"#,
            "error invalid-value at forward.cache.key: not among `request_headers`",
        ),
        (
            r#"{ url: "https://a/b", timeout: 31s, body: { max: 1MiB }, method: same }"#,
            "error invalid-value at forward.timeout: at most `30s`\n\
             error invalid-value at forward.body.max: at least `1`, at most `256KiB`",
        ),
        (
            r#"{ url: "https://a/b", on_failure: { allow: " " } }"#,
            "error invalid-value at forward.on_failure.allow: say why, for whoever reviews it",
        ),
    ] {
        assert_eq!(world.try_auth("forward", yaml).map(drop), Err(expected.to_owned()), "{yaml}");
    }
}

#[test]
fn settings_that_are_worth_a_second_look_warn() {
    let warnings = |yaml: &str| World::default().auth_findings("forward", yaml);
    assert_eq!(warnings(r#"{ grpc: "http://127.0.0.1:9191" }"#), "");
    assert_eq!(warnings(r#"{ url: "http://localhost/" }"#), "");
    expect![[r#"
        warning clear-text at forward.grpc: what clients show travels in clear text, and who is on the way can answer (use `https://`, or an authorizer on this host)
        warning fails-open at forward.on_failure: whoever can make the authorizer fail passes unchecked (leave `on_failure` out, so that nobody passes without an answer)"#]]
    .assert_eq(&warnings(r#"{ grpc: "http://opa:9191", on_failure: { allow: "x" } }"#));
}
