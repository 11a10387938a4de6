//! Every edge of a question and of its answer; those of gRPC are in `grpc/tests.rs`.

use std::cell::RefCell;
use std::fmt::Write as _;

use bytes::Bytes;
use expect_test::{Expect, expect};
use http::StatusCode;
use portcullis_core::Now;
use portcullis_core::limit::{LimitKey, LimitSpec};
use portcullis_core::policy::ReplyBody;
use portcullis_core::services::{Lease, LocalFuture, Unavailable};

use super::*;
use crate::testing::{World, print_problem, ready};

/// Answers everything alike, and remembers what it was asked.
pub(super) struct Authorizer {
    pub(super) world: World,
    answer: RefCell<Result<Fetched, Unavailable>>,
    pub(super) asked: RefCell<Vec<Fetch>>,
}

impl Services for Authorizer {
    fn now(&self) -> Now {
        self.world.services.now()
    }

    fn random(&self, into: &mut [u8]) {
        self.world.services.random(into);
    }

    fn fetch(&self, fetch: Fetch) -> LocalFuture<'_, Result<Fetched, Unavailable>> {
        self.asked.borrow_mut().push(fetch);
        Box::pin(async { self.answer.borrow().clone() })
    }

    fn lease<'a>(&'a self, key: LimitKey, spec: &'a LimitSpec, want: u32) -> Lease<'a> {
        self.world.services.lease(key, spec, want)
    }

    fn offload(&self, job: Box<dyn FnOnce() + Send>) -> LocalFuture<'_, Result<(), Unavailable>> {
        self.world.services.offload(job)
    }
}

fn answer(status: u16, fields: &[(&str, &str)], body: impl Into<Bytes>) -> Fetched {
    let fields = fields.iter().map(|(name, value)| ((*name).into(), value.as_bytes().into()));
    Fetched {
        status: StatusCode::from_u16(status).unwrap(),
        content_type: None,
        fields: fields.collect(),
        body: body.into(),
        stale: false,
    }
}

impl Authorizer {
    pub(super) fn new() -> Self {
        let answer = RefCell::new(Ok(answer(200, &[], "")));
        Self { world: World::default(), answer, asked: RefCell::default() }
    }

    pub(super) fn says(&self, status: u16, fields: &[(&str, &str)], body: impl Into<Bytes>) {
        *self.answer.borrow_mut() = Ok(answer(status, fields, body));
    }

    fn is_down(&self) {
        *self.answer.borrow_mut() = Err(Unavailable("no answer in time".to_owned()));
    }

    pub(super) fn auth(&self, yaml: &str) -> Arc<dyn Authenticator> {
        self.world.auth("forward", yaml)
    }

    /// What came of a request, and how often the authorizer was asked about it.
    pub(super) fn verify(&self, auth: &dyn Authenticator, request: &str) -> String {
        let exchange = self.world.exchange(request);
        self.verify_exchange(auth, &exchange)
    }

    pub(super) fn verify_exchange(&self, auth: &dyn Authenticator, exchange: &Exchange) -> String {
        assert_eq!(auth.presented(exchange), Presented::Ambient);
        let before = self.asked.borrow().len();
        let verified = match auth.verify(exchange, self) {
            Verify::Done(verified) => verified,
            Verify::Wait(future) => ready(future).expect("an answer"),
        };
        let times = self.asked.borrow().len() - before;
        let asked = if times == 1 { "" } else { " (not asked)" };
        format!("{}{asked}", shown(verified))
    }

    fn question(&self) -> String {
        let asked = self.asked.borrow();
        let fetch = asked.last().unwrap();
        let mut out = format!("{} {}\n", fetch.method, fetch.url);
        for (name, value) in &fetch.fields {
            writeln!(out, "{name}: {value}").unwrap();
        }
        if !fetch.body.is_empty() {
            writeln!(out, "\n{}", fetch.body.escape_ascii()).unwrap();
        }
        out
    }
}

fn shown(verified: Verified) -> String {
    let accepted = match verified {
        Ok(accepted) => accepted,
        Err(Denied::Problem(problem)) => return print_problem(&problem),
        Err(Denied::Reply(Reply { head, body })) => {
            let ReplyBody::Bytes(body) = body else { unreachable!() };
            let mut out = format!("reply {} {}", head.status.as_u16(), body.escape_ascii());
            for (name, value) in head.fields.iter() {
                write!(out, "\n  {}: {}", name.escape_ascii(), value.escape_ascii()).unwrap();
            }
            return out;
        }
    };
    let Accepted { identity, cookies, withheld } = accepted;
    let mut out = identity.key.clone();
    if let Some(tenant) = &identity.tenant {
        write!(out, " of {tenant}").unwrap();
    }
    if !identity.scopes.is_empty() {
        write!(out, " for {:?}", identity.scopes).unwrap();
    }
    for (name, value) in &identity.fields {
        write!(out, "\n  {name}: {}", value.escape_ascii()).unwrap();
    }
    if !identity.claims.is_empty() {
        write!(out, "\n  claims {}", Value::Object(identity.claims.clone())).unwrap();
    }
    for cookie in cookies {
        write!(out, "\n  sets {cookie}").unwrap();
    }
    if !withheld.is_empty() {
        write!(out, "\n  withholds {}", withheld.join(" ")).unwrap();
    }
    out
}

const URL: &str = r#"{ url: "https://authz.example/check?from=gw" }"#;
const NAMED: &str = r#"{ url: "https://authz.example/check", copy_headers: [X-User-Id, x-roles],
    client: "header:X-User-Id", tenant: "header:x-org", scopes: "header:x-scopes" }"#;
pub(super) const OPA: &str =
    r#"{ grpc: "http://127.0.0.1:9191", copy_headers: [x-user-id, x-roles] }"#;

#[test]
fn the_authorizer_is_told_what_the_request_is_and_shown_what_is_named() {
    let authorizer = Authorizer::new();
    let check = |yaml: &str, request: &str, expected: &Expect| {
        let auth = authorizer.auth(yaml);
        authorizer.verify(&*auth, request);
        expected.assert_eq(&authorizer.question());
    };
    check(
        URL,
        "192.0.2.7 DELETE /orders/7?a=b | authorization: Bearer x | Cookie: s=1 | x-role: admin \
         | X-Forwarded-Uri: /public | X-Forwarded-Method: GET | connection: close | cookie: t=2",
        &expect![[r#"
            GET https://authz.example/check?from=gw
            authorization: Bearer x
            cookie: s=1
            cookie: t=2
            x-forwarded-method: DELETE
            x-forwarded-proto: https
            x-forwarded-host: api.example.com
            x-forwarded-for: 192.0.2.7
            x-request-id: 00000000000000000000000000c0ffee
            accept: */*
            x-forwarded-uri: /orders/7?a=b
        "#]],
    );
    // Nobody can hide one value behind another.
    check(
        r#"{ url: "http://127.0.0.1:1/", path_prefix: /auth/, method: same, body: { max: 64KiB },
             request_headers: [X-Role, accept] }"#,
        "192.0.2.7 POST /a?q={\"x\"} | x-role: user | X-ROLE: admin | x_role: root | accept: a/b",
        &expect![[r#"
            POST http://127.0.0.1:1/auth/a?q=%7B%22x%22%7D
            x-role: user
            x-role: admin
            accept: a/b
            x-forwarded-method: POST
            x-forwarded-proto: https
            x-forwarded-host: api.example.com
            x-forwarded-for: 192.0.2.7
            x-request-id: 00000000000000000000000000c0ffee
            x-forwarded-uri: /a?q={"x"}
        "#]],
    );
}

#[test]
fn a_body_is_shown_with_its_type() {
    let authorizer = Authorizer::new();
    let auth = authorizer
        .auth(r#"{ url: "http://127.0.0.1:1/check", method: POST, body: { max: 1KiB } }"#);
    assert_eq!(auth.request_body(), BodyUse::Buffered { bytes_max: 1024 });
    let mut exchange = authorizer.world.exchange("192.0.2.7 PUT /a | content-type: text/plain");
    exchange.request_body = Bytes::from_static(b"hello");
    assert_eq!(authorizer.verify_exchange(&*auth, &exchange), "idp/external");
    expect![[r#"
        POST http://127.0.0.1:1/check
        x-forwarded-method: PUT
        x-forwarded-proto: https
        x-forwarded-host: api.example.com
        x-forwarded-for: 192.0.2.7
        x-request-id: 00000000000000000000000000c0ffee
        content-type: text/plain
        accept: */*
        x-forwarded-uri: /a

        hello
    "#]]
    .assert_eq(&authorizer.question());
    assert_eq!(authorizer.auth(URL).request_body(), BodyUse::Untouched);
}

#[test]
fn what_is_no_text_is_not_shown_as_something_else() {
    let authorizer = Authorizer::new();
    for yaml in [URL, OPA] {
        let auth = authorizer.auth(yaml);
        let mut exchange = authorizer.world.exchange("192.0.2.7 GET /");
        exchange.request.fields.append(b"cookie", b"s=\xff");
        assert_eq!(
            authorizer.verify_exchange(&*auth, &exchange),
            "400 malformed-request | the authorizer cannot be shown the request: the value of \
             `cookie` is no text (not asked)"
        );
    }
}

#[test]
fn a_2xx_allows_and_names_who_calls() {
    let authorizer = Authorizer::new();
    let request = "192.0.2.7 GET /";
    for status in [200, 202, 204, 299] {
        authorizer.says(status, &[("x-user-id", "alice"), ("set-cookie", "s=2")], "ignored");
        let auth = authorizer.auth(URL);
        assert_eq!(authorizer.verify(&*auth, request), "idp/external\n  sets s=2");
    }
    let auth = authorizer.auth(NAMED);
    let fields = auth.owned_fields();
    assert_eq!(fields, [Box::from("x-user-id"), Box::from("x-roles")]);
    authorizer.says(
        200,
        &[
            ("x-user-id", "alice"),
            ("x-roles", "buyer"),
            ("x-roles", "seller"),
            ("x-org", "shop"),
            ("x-scopes", "a:r,b:w  c"),
            ("server", "x"),
        ],
        "",
    );
    expect![[r#"
        idp/alice of shop for ["a:r", "b:w", "c"]
          x-user-id: alice
          x-roles: buyer
          x-roles: seller
          claims {"x-user-id":"alice","x-roles":"buyer, seller"}"#]]
    .assert_eq(&authorizer.verify(&*auth, request));
}

/// AZ-07: who is not named is not served, and certainly not under a name of the client's choice.
#[test]
fn an_answer_without_the_name_names_nobody() {
    let authorizer = Authorizer::new();
    let auth = authorizer.auth(NAMED);
    let all = [("x-user-id", "alice"), ("x-org", "shop")];
    let twice = [("x-user-id", "alice"), ("x-user-id", "bob"), ("x-org", "shop")];
    let empty = [("x-user-id", " "), ("x-org", "shop")];
    for fields in [&[][..], &all[1..], &all[..1], &twice, &empty] {
        authorizer.says(200, fields, "");
        assert_eq!(
            authorizer.verify(&*auth, "192.0.2.7 GET / | X-User-Id: admin"),
            "503 authorizer-unavailable | the authorizer allowed the request and did not name who \
             calls"
        );
    }
    // Not even where nobody would be refused for want of an answer.
    let open = NAMED.replace(" }", r#", on_failure: { allow: "x" } }"#);
    let auth = authorizer.auth(&open);
    assert!(authorizer.verify(&*auth, "192.0.2.7 GET /").starts_with("503 "));
}

#[test]
fn a_3xx_or_4xx_is_the_clients_answer() {
    let authorizer = Authorizer::new();
    let auth = authorizer.auth(NAMED);
    authorizer.says(
        302,
        &[("location", "https://login.example/?rd=1"), ("set-cookie", "csrf=1"), ("server", "x")],
        "",
    );
    expect![[r#"
        reply 302 
          location: https://login.example/?rd=1
          set-cookie: csrf=1
          cache-control: no-store"#]]
    .assert_eq(&authorizer.verify(&*auth, "192.0.2.7 GET /"));
    authorizer.says(
        401,
        &[
            ("www-authenticate", "Basic realm=\"a\""),
            ("cache-control", "max-age=1"),
            ("content-type", "text/plain"),
            ("content-length", "2"),
            ("transfer-encoding", "chunked"),
            ("x-user-id", "alice"),
        ],
        "no",
    );
    expect![[r#"
        reply 401 no
          www-authenticate: Basic realm=\"a\"
          cache-control: max-age=1
          content-type: text/plain"#]]
    .assert_eq(&authorizer.verify(&*auth, "192.0.2.7 GET /"));
}

#[test]
fn anything_else_is_no_answer_and_without_one_nobody_passes() {
    let authorizer = Authorizer::new();
    let (closed, open) = (
        authorizer.auth(URL),
        authorizer.auth(r#"{ url: "https://a.example/", on_failure: { allow: "reads only" } }"#),
    );
    let request = "192.0.2.7 GET /";
    for status in [500, 502, 503, 504, 101, 199] {
        authorizer.says(status, &[], "");
        assert_eq!(
            authorizer.verify(&*closed, request),
            format!("503 authorizer-unavailable | the authorizer answered with status {status}")
        );
        assert_eq!(authorizer.verify(&*open, request), "idp/unchecked");
    }
    authorizer.is_down();
    assert_eq!(
        authorizer.verify(&*closed, request),
        "503 authorizer-unavailable | no answer in time"
    );
    assert_eq!(authorizer.verify(&*open, request), "idp/unchecked");
    let fetch = authorizer.asked.borrow().last().unwrap().clone();
    assert_eq!((fetch.timeout, fetch.body_bytes_max), (Duration::from_secs(2), 64 << 10));
}

/// OA-03 for authorizers: whoever is away is not asked for a while, by the next snapshot neither.
#[test]
fn an_authorizer_that_is_away_is_left_alone() {
    let authorizer = Authorizer::new();
    let auth = authorizer.auth(URL);
    let verify = |auth: &dyn Authenticator, ms: u64| {
        authorizer.verify(auth, &format!("{ms}ms 192.0.2.7 GET /"))
    };
    authorizer.is_down();
    for _ in 0..circuit::FAILURES_MAX {
        assert!(verify(&*auth, 0).ends_with("no answer in time"));
    }
    let left_alone = "503 authorizer-unavailable | the authorizer gave no answer 10 times in a row \
                      (not asked)";
    assert_eq!(verify(&*auth, 500), left_alone);
    authorizer.world.next_generation();
    let auth = authorizer.auth(URL);
    assert_eq!(verify(&*auth, 999), left_alone);
    authorizer.says(200, &[], "");
    assert_eq!(verify(&*auth, 1000), "idp/external");
    assert_eq!(verify(&*auth, 1000), "idp/external");
    // What it says about a request is an answer, however often it says so.
    authorizer.says(500, &[], "");
    for _ in 0..2 * circuit::FAILURES_MAX {
        assert!(verify(&*auth, 2000).ends_with("status 500"));
    }
}

#[test]
fn what_was_allowed_is_kept_for_requests_that_are_alike() {
    let authorizer = Authorizer::new();
    let verify = |auth: &dyn Authenticator, request: &str| {
        !authorizer.verify(auth, request).ends_with("(not asked)")
    };
    let auth = authorizer.auth(
        r#"{ url: "http://127.0.0.1:1/", cache: { ttl: 10s }, request_headers: [cookie, x-a] }"#,
    );
    let asks = |request: &str| verify(&*auth, request);
    assert!(asks("0ms 192.0.2.7 GET /a?b | cookie: s"));
    assert!(!asks("9999ms 192.0.2.7 GET /a?b | cookie: s | x-other: 1"));
    for other in [
        "192.0.2.8 GET /a?b | cookie: s",
        "192.0.2.7 PUT /a?b | cookie: s",
        "192.0.2.7 GET /a?c | cookie: s",
        "192.0.2.7 GET /a | cookie: s",
        "192.0.2.7 GET /a? | cookie: s",
        "192.0.2.7 GET /a?b",
        "192.0.2.7 GET /a?b | cookie: t",
        "192.0.2.7 GET /a?b | x-a: s",
        "192.0.2.7 GET /a?b | cookie: s | cookie: s",
        "192.0.2.7 GET /a?b | cookie: s | x-a:  ",
    ] {
        assert!(asks(other), "{other}");
        assert!(!asks(other), "{other}");
    }
    assert!(asks("10000ms 192.0.2.7 GET /a?b | cookie: s"));
    let auth = authorizer
        .auth(r#"{ url: "http://127.0.0.1:1/", cache: { ttl: 10s, key: [authorization] } }"#);
    let asks = |request: &str| verify(&*auth, request);
    assert!(asks("192.0.2.7 GET /a | authorization: x | cookie: s"));
    assert!(!asks("192.0.2.8 GET /a | authorization: x | cookie: t"));
    assert!(asks("192.0.2.7 GET /b | authorization: x"));
    assert!(asks("192.0.2.7 GET /a | authorization: y"));
    // Neither refusals nor what sets a cookie or is not to be kept.
    for (status, fields) in [
        (403, &[][..]),
        (500, &[]),
        (200, &[("set-cookie", "s=1")]),
        (200, &[("cache-control", "No-Store")]),
        (200, &[("cache-control", "max-age=0, no-cache")]),
    ] {
        authorizer.says(status, fields, "");
        for _ in 0..2 {
            assert!(asks("192.0.2.7 GET /c | authorization: x"), "{status} {fields:?}");
        }
    }
    // Under other settings nothing of it holds.
    authorizer.says(200, &[], "");
    let other = authorizer.auth(
        r#"{ url: "http://127.0.0.1:1/", copy_headers: [x-a],
             cache: { ttl: 10s, key: [authorization] } }"#,
    );
    assert!(verify(&*other, "192.0.2.7 GET /a | authorization: x"));
    assert!(!asks("192.0.2.7 GET /a | authorization: x"));
}

#[test]
fn the_backend_does_not_see_what_was_for_the_authorizer() {
    let authorizer = Authorizer::new();
    let left = |yaml: &str| {
        let mut exchange = authorizer
            .world
            .exchange("192.0.2.7 GET / | authorization: a | cookie: c | X_Session: s | x-other: o");
        authorizer.auth(yaml).conceal(&mut exchange.request);
        let names = exchange.request.fields.iter().map(|(name, _)| name.escape_ascii().to_string());
        names.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(left(URL), "cookie X_Session x-other");
    assert_eq!(
        left(r#"{ url: "https://a.example/", hide_headers: [cookie, X-Session] }"#),
        "authorization x-other"
    );
}
