//! Every kind of authentication, with settings that change how its credentials look.

use crate::place::run;

/// All of it is proved, by full and quick audits.
fn check(auth: &str, listeners: &str, route: &str) {
    let config = format!(
        "listeners: {{ {listeners} }}\nauth:\n  it: {{ {auth} }}\nroutes:\n  \
         one: {{ match: \"/tenants/{{tenant}}/**\", auth: it, {route} to: app }}\n  \
         open: {{ match: /open/**, public: \"a test\", to: app }}\n\
         backends: {{ app: \"http://app.internal\" }}\n"
    );
    for quick in [true, false] {
        let report = match run(&config, quick) {
            Ok(report) => report,
            Err(error) => panic!("{config}\n{error:?}"),
        };
        assert!(report.holds(), "{config}\n{}", report.human("gateway.yaml"));
        assert_eq!(report.routes.covered, 1);
        assert!(report.kinds["good credential"] > 0);
    }
}

const PLAIN: &str = r#"http: { bind: "127.0.0.1:0" }"#;

#[test]
fn tokens() {
    let more = r#"issuer: "https://idp.example", audience: [a, b]"#;
    let plain = format!("jwt: {{ {more} }}");
    check(&plain, PLAIN, r#"require: { scopes: [x, y] },"#);
    check(
        &plain,
        PLAIN,
        r#"require: { roles: { any: [r, s], all: [t] }, claims: { acr: gold } },"#,
    );
    let settings = r#"jwks: "file:keys.json", algorithms: [RS256], client: "claim:a.client",
        tenant: "claim:a.tenant", scopes: "claim:permissions""#;
    let all = format!("jwt: {{ {more}, {settings} }}");
    check(&all, PLAIN, r#"require: { scopes: [x], tenant: { param: tenant } },"#);
    check(
        &all,
        PLAIN,
        r#"require: [{ methods: [GET], scopes: [x] }, { methods: [POST], tenant: [t, u] }],"#,
    );
    check(&plain, PLAIN, "forward_credential: true,");
    for places in ["cookie:sid", r#"[header, "header:X-Token", "cookie:sid"]"#, "query:token"] {
        check(&format!("jwt: {{ {more}, token: {places} }}"), PLAIN, "");
    }
}

#[test]
fn keys() {
    let keys = r#"keys: "file:keys.yaml""#;
    check(&format!("api_keys: {{ {keys} }}"), PLAIN, "require: { scopes: [x, y], tenant: t },");
    for place in [r#"header: "X-Key""#, "authorization_scheme: Key", "query: key"] {
        check(&format!("api_keys: {{ {keys}, {place} }}"), PLAIN, "require: { scopes: [x] },");
    }
}

#[test]
fn webhooks() {
    let own = r#"{ header: X-Code, signature: "c=${base64}", separator: ";", timestamp: "t=${timestamp}",
        id: X-Id, message: "${timestamp}:${id}:${body}", algorithm: sha512 }"#;
    for format in ["standard_webhooks", "github", "stripe", "slack", "{ header: X-Code }", own] {
        let hmac = format!(r#"hmac: {{ keys: "file:senders.yaml", format: {format} }}"#);
        check(&hmac, PLAIN, "require: { scopes: [x, y], tenant: t },");
    }
    let short = r#"hmac: { keys: "file:senders.yaml", format: slack, window: 60s, replay: allow }"#;
    check(short, PLAIN, "forward_credential: true,");
}

#[test]
fn introspection() {
    let client = r#"client: { id: gateway, secret: "file:secret" }"#;
    let plain = format!(r#"introspection: {{ issuer: "https://idp.example/", {client} }}"#);
    check(&plain, PLAIN, "require: { scopes: [x, y] },");
    let key = r#"client: { id: gateway, key: "file:key.pem" }"#;
    let all = format!(
        r#"introspection: {{ issuer: "https://idp.example", endpoint: "https://idp.example/ask",
           signed: true, audience: me, require_claims: {{ acr: [gold, silver] }},
           claims: {{ tenant: "claim:org", scopes: "claim:permissions" }}, {key} }}"#
    );
    check(&all, PLAIN, "require: { scopes: [x], tenant: t },");
}

#[test]
fn authorizers() {
    let http = r#"url: "http://authz.internal/check", copy_headers: [x-user, x-org]"#;
    check(&format!("forward: {{ {http} }}"), PLAIN, "");
    let named = r#"client: "header:x-user", tenant: "header:x-org", scopes: "header:x-scopes""#;
    check(
        &format!("forward: {{ {http}, {named}, request_headers: [cookie] }}"),
        PLAIN,
        "require: { scopes: [x, y], tenant: t },",
    );
    let prefix = r#"url: "http://authz.internal", path_prefix: /auth"#;
    check(&format!("forward: {{ {prefix} }}"), PLAIN, "");
    let grpc = r#"grpc: "http://authz.internal:9191", request_headers: ["*"], client: "metadata:sub.id",
        scopes: "metadata:scopes", copy_headers: [x-roles]"#;
    check(&format!("forward: {{ {grpc} }}"), PLAIN, "require: { scopes: [x, y] },");
}

#[test]
fn certificates() {
    let listener = |client: &str| {
        format!(
            r#"https: {{ bind: "127.0.0.1:0", tls: {{ certificates: [{{ cert: "file:c", key: "file:k" }}],
               client: {{ ca: "file:ca.pem", {client} }} }} }}"#
        )
    };
    let allow = r#"mtls: { allow: [{ dns: "*.clients.example", scopes: [x] }, { email: "*@example.com" }] }"#;
    for mode in ["request", "require"] {
        let listener = listener(&format!(r#"mode: {mode}, crl: "file:list.pem""#));
        check("mtls: {}", &listener, "");
        check(allow, &listener, "require: { scopes: [x] },");
        check(r#"mtls: { allow: [{ spiffe: "spiffe://example.org/ns/*/sa/**" }] }"#, &listener, "");
        check(r#"mtls: { client: organization, tenant: trust_domain }"#, &listener, "");
        check(
            r#"mtls: { allow: [{ subject: "CN=shop,O=Example", client: shop, tenant: t }] }"#,
            &listener,
            "require: { tenant: t },",
        );
        check(r#"api_keys: { keys: "file:keys.yaml" }"#, &listener, "");
    }
    let request = listener("mode: request");
    check(
        r#"api_keys: { keys: "file:keys.yaml" }"#,
        &request,
        r#"require: { certificate: { dns: "*.example.com", uri: "urn:example:shop" } },"#,
    );
    let hop = r#"http: { bind: "127.0.0.1:0", trusted_proxies: ["10.0.0.0/8"],
        certificate_header: { ca: "file:ca.pem", crl: "file:list.pem" } }"#;
    check(allow, hop, "");
}

#[test]
fn users() {
    let users = r#"basic: { users: "file:users.yaml" }"#;
    check(users, PLAIN, "require: { scopes: [x], tenant: t },");
}

#[test]
fn logins() {
    let more = r#"issuer: "https://idp.example/", client: { id: shop, secret: "file:s" },
        cookie_key: ["file:k1", "file:k2"], callback: /tenants/login/back, logout: /tenants/login/out"#;
    check(&format!("oidc: {{ {more} }}"), PLAIN, "require: { scopes: [x, y] },");
    let https = r#"https: { bind: "127.0.0.1:0", tls: { certificates: [{ cert: "file:c", key: "file:k" }] } }"#;
    let named = r#"claims: { tenant: "claim:org" }, cookie: { name: who, domain: example.com }"#;
    check(&format!("oidc: {{ {more}, {named} }}"), https, "require: { roles: [r], tenant: t },");
}
