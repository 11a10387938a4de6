//! What compiles, and what is said of what does not.

use expect_test::{Expect, expect};

use crate::testing::World;

fn check(more: &str, want: &Expect) {
    check_whole(
        &format!(
            r#"{{ issuer: "https://idp.example/", cookie_key: ["file:good.key"],
                  client: {{ id: shop, secret: "file:shop.secret" }}{more} }}"#
        ),
        want,
    );
}

fn check_whole(settings: &str, want: &Expect) {
    let world = World::default()
        .file("shop.secret", "a secret")
        .file("good.key", [1; 32])
        .file("short.key", [1; 31]);
    let seen = world.try_auth("oidc", settings).map_or_else(|errors| errors, |_| "good".to_owned());
    want.assert_eq(&seen);
}

#[test]
fn everything_that_can_be_said() {
    check(
        r#", scopes: [openid, profile, offline_access], callback: /cb, logout: /bye,
             after_logout: /out, origin: "https://shop.example", session: 1h, idle: 15m,
             claims: { client: "claim:email", tenant: "claim:org.id", scopes: "claim:groups" },
             cookie: { name: shop, domain: example.com }, audience: orders,
             cross_site: { origins: ["https://other.example"] }, prompt: select_account,
             resource: ["https://api.example"]"#,
        &expect!["good"],
    );
}

#[test]
fn settings_that_cannot_be_meant() {
    check(
        ", scopes: [profile]",
        &expect![
            "error invalid-value at oidc.scopes: without `openid` nobody says who has logged in"
        ],
    );
    check(
        r#", scopes: [openid, "a b"]"#,
        &expect!["error invalid-value at oidc.scopes[1]: not the name of a scope"],
    );
    check(
        r#", callback: "https://evil.example/cb""#,
        &expect![
            "error invalid-value at oidc.callback: not a path: it begins with one `/` and has no query"
        ],
    );
    check(
        r#", callback: "//evil.example""#,
        &expect![
            "error invalid-value at oidc.callback: not a path: it begins with one `/` and has no query"
        ],
    );
    check(
        ", callback: /a, logout: /a",
        &expect![
            "error invalid-value at oidc.logout: the callback and the logout have the same path"
        ],
    );
    check(
        r#", after_logout: "//evil.example""#,
        &expect![
            "error invalid-value at oidc.after_logout: not a path: it begins with one `/` and has no query"
        ],
    );
    check(
        r#", origin: "http://shop.example""#,
        &expect![
            "error invalid-value at oidc.origin: cookies would go over the network in clear text: write `https://…`"
        ],
    );
    check(
        r#", origin: "https://shop.example/""#,
        &expect![
            "error invalid-value at oidc.origin: an origin has no path: write `https://shop.example`"
        ],
    );
    check(
        ", cookie: { name: __Host-x }",
        &expect![
            "error invalid-value at oidc.cookie.name: not the name of a cookie, without a prefix"
        ],
    );
    check(
        ", cookie: { domain: .example.com }",
        &expect!["error invalid-value at oidc.cookie.domain: not a domain: write `example.com`"],
    );
    check(
        r#", cross_site: { allow: "" }"#,
        &expect!["error invalid-value at oidc.cross_site.allow: write the reason"],
    );
    check(
        r#", cross_site: { origins: ["*"] }"#,
        &expect![
            "error invalid-value at oidc.cross_site.origins[0]: `*` is not an origin: write `https://shop.example`"
        ],
    );
    check(
        ", prompt: none",
        &expect![
            "error unknown-value at oidc.prompt: unknown value `none`, expected one of `login`, `consent`, `select_account`"
        ],
    );
    check(
        ", session: 0s",
        &expect!["error invalid-value at oidc.session: must be longer than zero"],
    );
}

#[test]
fn keys_that_cannot_be_meant() {
    let with = |keys: &str| {
        format!(
            r#"{{ issuer: "https://idp.example/", cookie_key: [{keys}],
                  client: {{ id: shop, secret: "file:shop.secret" }} }}"#
        )
    };
    check_whole(
        &with(""),
        &expect!["error out-of-range at oidc.cookie_key: needs at least 1 item"],
    );
    check_whole(
        &with(r#""file:short.key""#),
        &expect![
            "error invalid-value at oidc.cookie_key[0]: 31 bytes, at least 32 are needed (`head -c 32 /dev/urandom > cookie.key` makes one)"
        ],
    );
    check_whole(
        &with(r#""01234567890123456789012345678901""#),
        &expect![
            "error invalid-value at oidc.cookie_key[0]: a key does not stand in the configuration (write `file:PATH` or `env:NAME`)"
        ],
    );
    check_whole(
        &with(&[r#""file:good.key""#; 5].join(",")),
        &expect![
            "error out-of-range at oidc.cookie_key: at most 4 keys: each is tried with every cookie"
        ],
    );
}
