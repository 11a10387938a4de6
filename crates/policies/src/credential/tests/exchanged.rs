//! The caller's token exchanged for another.

use std::sync::Arc;
use std::time::Duration;

use expect_test::expect;
use portcullis_core::{Policy, Step};
use serde_json::json;

use crate::testing::{Answer, Flag, World, ready};

const URL: &str = "https://idp.example/token";
const DISCOVERY: &str = "https://idp.example/.well-known/openid-configuration";
const SETTINGS: &str = r#"{ exchange: {
    token_endpoint: "https://idp.example/token", client: { id: gw, secret: "file:key" },
    scopes: [read], audience: [stock],
    requested_token_type: "urn:ietf:params:oauth:token-type:jwt"
} }"#;

struct Exchanging {
    world: World,
    policy: Arc<dyn Policy>,
}

impl Exchanging {
    fn new() -> Self {
        let world = super::world();
        let policy = world.policy("credential", SETTINGS);
        let exchanging = Self { world, policy };
        exchanging.gives("t1", 100);
        exchanging
    }

    fn gives(&self, token: &str, expires_in: u64) {
        let answer = json!({
            "access_token": token, "token_type": "Bearer", "expires_in": expires_in,
            "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
        });
        self.world.services.answer(URL, Answer::Body(answer.to_string()));
    }

    fn refuses(&self) {
        let body = r#"{"error":"invalid_target"}"#.to_owned();
        self.world.services.answer(URL, Answer::Full(400, "application/json", body));
    }

    /// The token that the request of this caller gets, or why it gets none.
    fn run(&self, caller: &str) -> String {
        self.answered(caller, 200)
    }

    fn answered(&self, caller: &str, status: u16) -> String {
        let line = format!("192.0.2.7 GET / | :token {caller} | :answer {status}");
        let seen = self.world.run(&*self.policy, &line);
        match seen.split_once("> Authorization: Bearer ") {
            Some((_, token)) => token.to_owned(),
            None => seen.replace('\n', " "),
        }
    }

    fn pass(&self, seconds: u64) {
        self.world.services.pass(Duration::from_secs(seconds));
    }

    fn times(&self) -> usize {
        self.world.services.asked().len()
    }
}

#[test]
fn each_callers_token_is_exchanged_once() {
    let exchanging = Exchanging::new();
    assert_eq!(exchanging.run("alice"), "t1");
    let sent = exchanging.world.services.sent();
    expect!["grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange&subject_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Aaccess_token&requested_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Ajwt&scope=read&audience=stock&subject_token=alice"]
        .assert_eq(std::str::from_utf8(&sent[0].body).unwrap());
    exchanging.gives("t2", 100);
    assert_eq!(exchanging.run("bob"), "t2");
    for _ in 0..95 {
        assert_eq!((exchanging.run("alice"), exchanging.run("bob")), ("t1".into(), "t2".into()));
        exchanging.pass(1);
    }
    assert_eq!(exchanging.times(), 2);
    exchanging.gives("t3", 100);
    assert_eq!(exchanging.run("alice"), "t3");
}

#[test]
fn a_caller_without_a_token_gets_nowhere() {
    let exchanging = Exchanging::new();
    let seen =
        exchanging.world.run(&*exchanging.policy, "192.0.2.7 GET / | Authorization: Bearer x");
    expect![[r#"
        503 backend-credential-unavailable | the caller has no access token to exchange
        > GET /
        < retry-after: 1"#]]
    .assert_eq(&seen);
    assert_eq!(exchanging.times(), 0);
}

#[test]
fn a_refusal_is_remembered_for_a_moment_and_is_of_one_caller() {
    let exchanging = Exchanging::new();
    exchanging.refuses();
    for _ in 0..50 {
        let seen = exchanging.run("mallory");
        assert!(seen.starts_with("503 backend-credential-unavailable"), "{seen}");
        assert!(seen.contains("answers 400 invalid_target") && !seen.contains("mallory"), "{seen}");
    }
    assert_eq!(exchanging.times(), 1);
    // Refusals of many say nothing against the server.
    for n in 0..20 {
        exchanging.run(&format!("m{n}"));
    }
    assert_eq!(exchanging.times(), 20);
    exchanging.gives("t1", 100);
    assert_eq!(exchanging.run("alice"), "t1");
    assert!(exchanging.run("mallory").starts_with("503"));
    exchanging.pass(5);
    assert_eq!(exchanging.run("mallory"), "t1");
}

#[test]
fn a_server_that_is_down_is_left_alone() {
    let exchanging = Exchanging::new();
    assert_eq!(exchanging.run("alice"), "t1");
    exchanging.world.services.answer(URL, Answer::Down);
    exchanging.times();
    for n in 0..200 {
        let seen = exchanging.run(&format!("c{n}"));
        assert!(seen.starts_with("503 backend-credential-unavailable"), "{seen}");
    }
    assert_eq!(exchanging.times(), 5);
    assert_eq!(exchanging.run("alice"), "t1", "what is there is good to its end");
    exchanging.gives("t2", 100);
    exchanging.pass(1);
    assert_eq!(exchanging.run("c1"), "t2");
}

#[test]
fn a_backend_that_refuses_the_token_gets_another() {
    let exchanging = Exchanging::new();
    assert_eq!(exchanging.answered("alice", 401), "t1");
    exchanging.gives("t2", 100);
    assert_eq!(exchanging.answered("alice", 401), "t1", "it came a moment ago");
    exchanging.pass(10);
    assert_eq!(exchanging.answered("alice", 401), "t1");
    assert_eq!(exchanging.answered("alice", 401), "t2");
    exchanging.world.services.answer(URL, Answer::Down);
    exchanging.pass(10);
    assert_eq!(exchanging.answered("alice", 401), "t2");
    assert_eq!(exchanging.answered("alice", 401), "t2", "there is no other");
    exchanging.pass(10);
    exchanging.answered("alice", 401);
    exchanging.refuses();
    assert!(exchanging.run("alice").starts_with("503"), "the server has decided");
}

#[test]
fn requests_of_one_caller_share_an_exchange() {
    let exchanging = Exchanging::new();
    exchanging.world.services.hold();
    let line = |n: usize| format!("192.0.2.7 GET / | :token c{}", n % 2);
    let mut exchanges: Vec<_> = (0..10).map(|n| exchanging.world.exchange(&line(n))).collect();
    let flag: Arc<Flag> = Arc::default();
    let mut flights: Vec<_> = exchanges
        .iter_mut()
        .map(|one| match exchanging.policy.on_request(one, &exchanging.world.services) {
            Step::Wait(future) => future,
            _ => panic!("it is at hand"),
        })
        .collect();
    assert!(flights.iter_mut().all(|flight| flag.poll(flight).is_none()));
    exchanging.world.services.release();
    let all = flights.iter_mut().all(|one| matches!(flag.poll(one), Some(Step::Continue)));
    assert!(all);
    assert_eq!(exchanging.times(), 2);
}

#[test]
fn the_endpoint_may_be_found_by_discovery() {
    let world = super::world();
    let settings = SETTINGS.replace(
        "token_endpoint: \"https://idp.example/token\"",
        "issuer: \"https://idp.example\"",
    );
    let policy = world.policy("credential", &settings);
    let document = json!({ "issuer": "https://idp.example", "token_endpoint": URL }).to_string();
    world.services.answer(DISCOVERY, Answer::Body(document));
    assert!(ready(policy.upkeep(&world.services).unwrap()).is_some());
    let exchanging = Exchanging { world, policy };
    exchanging.gives("t1", 100);
    assert_eq!(exchanging.run("alice"), "t1");
    assert_eq!(exchanging.world.services.asked(), [DISCOVERY, URL]);
    assert!(Exchanging::new().policy.upkeep(&exchanging.world.services).is_none());
}
