//! A token of the gateway's own.

use std::sync::Arc;
use std::time::Duration;

use portcullis_core::services::LocalFuture;
use portcullis_core::{Exchange, Policy, Step};
use serde_json::{Value, json};

use crate::testing::{Answer, Flag, World, print_problem, ready};

const URL: &str = "https://idp.example/token";
const SETTINGS: &str = r#"{ client_credentials: {
    token_endpoint: "https://idp.example/token", client: { id: gw, secret: "file:key" },
    scopes: [a, "b:c"], audience: [orders], resource: ["https://orders.example"]
} }"#;
const GET: &str = "192.0.2.7 GET /";

struct Own {
    world: World,
    policy: Arc<dyn Policy>,
}

impl Own {
    fn new() -> Self {
        let world = super::world();
        let policy = world.policy("credential", SETTINGS);
        Self { world, policy }
    }

    fn gives(&self, token: &str, expires_in: impl Into<Value>) {
        let mut answer = json!({ "access_token": token, "token_type": "Bearer" });
        let expires_in = expires_in.into();
        if !expires_in.is_null() {
            answer["expires_in"] = expires_in;
        }
        self.world.services.answer(URL, Answer::Body(answer.to_string()));
    }

    fn fails(&self) {
        self.world.services.answer(URL, Answer::Status(500));
    }

    /// The token that a request gets to its backend, or why it gets none.
    fn run(&self) -> String {
        self.answered(200)
    }

    /// A request whose backend answers so.
    fn answered(&self, status: u16) -> String {
        let line = format!("{GET} | Authorization: Bearer mine | :answer {status}");
        let seen = self.world.run(&*self.policy, &line);
        match seen.split_once("> Authorization: Bearer ") {
            Some((_, token)) => token.to_owned(),
            None => seen.replace('\n', " "),
        }
    }

    fn upkeep(&self) -> Duration {
        ready(self.policy.upkeep(&self.world.services).unwrap()).unwrap()
    }

    fn pass(&self, seconds: u64) {
        self.world.services.pass(Duration::from_secs(seconds));
    }

    fn times(&self) -> usize {
        self.world.services.asked().len()
    }
}

#[test]
fn it_is_asked_for_once_and_sent_while_it_lives() {
    let own = Own::new();
    own.gives("t1", 100);
    for _ in 0..95 {
        assert_eq!(own.run(), "t1");
        own.pass(1);
    }
    assert_eq!(own.times(), 1);
    own.gives("t2", 100);
    assert_eq!(own.run(), "t2", "five seconds before its end it is not sent any more");
    let sent = own.world.services.sent();
    let body = std::str::from_utf8(&sent[0].body).unwrap();
    assert_eq!(
        body,
        "grant_type=client_credentials&scope=a+b%3Ac&audience=orders\
         &resource=https%3A%2F%2Forders.example"
    );
    assert!(sent[0].fields.iter().any(|(name, _)| name == "authorization"));
    assert_eq!(sent[0].timeout, Duration::from_secs(5));
}

#[test]
fn lifetimes() {
    for (expires_in, lives) in
        [(json!(null), 295), (json!(3600), 3595), (json!("60"), 55), (json!(10), 9), (json!(1), 1)]
    {
        let own = Own::new();
        own.gives("t1", expires_in.clone());
        assert_eq!(own.run(), "t1");
        own.gives("t2", 100);
        own.pass(lives - 1);
        assert_eq!(own.run(), "t1", "{expires_in}");
        own.pass(1);
        assert_eq!(own.run(), "t2", "{expires_in}");
    }
    let own = Own::new();
    own.gives("t1", 0);
    assert!(own.run().contains("a token that has ended"));
}

#[test]
fn the_background_has_it_before_anybody_needs_it() {
    let own = Own::new();
    own.gives("t1", 600);
    own.upkeep();
    assert_eq!(own.times(), 1);
    assert_eq!(own.run(), "t1");
    own.gives("t2", 600);
    for _ in 0..539 {
        own.pass(1);
        assert!(own.upkeep() <= Duration::from_secs(5));
    }
    assert_eq!((own.times(), own.run()), (0, "t1".to_owned()));
    own.pass(1);
    own.upkeep();
    assert_eq!(own.run(), "t2", "a minute before its end");
    assert_eq!(own.times(), 1);
}

#[test]
fn a_token_is_used_to_its_end_while_no_other_is_to_be_had() {
    let own = Own::new();
    own.gives("t1", 600);
    assert_eq!(own.run(), "t1");
    own.fails();
    own.times();
    own.pass(540);
    let mut tried = Vec::new();
    for second in 0..55 {
        own.upkeep();
        if own.times() > 0 {
            tried.push(second);
        }
        assert_eq!(own.run(), "t1");
        own.pass(1);
    }
    assert_eq!(tried, [0, 1, 3, 7, 15, 31]);
    let seen = own.run();
    assert_eq!(
        seen,
        format!("503 backend-credential-unavailable | {URL} answers 500 > GET / < retry-after: 6"),
        "nothing is sent, and nobody is asked"
    );
    assert_eq!(own.times(), 0);
    own.pass(6);
    own.gives("t2", 600);
    assert_eq!(own.run(), "t2");
}

#[test]
fn a_storm_without_a_token_asks_seldom() {
    for answer in [
        Answer::Down,
        Answer::Status(500),
        Answer::Full(401, "", r#"{"error":"invalid_client"}"#.to_owned()),
        Answer::Body("<html>".to_owned()),
        Answer::Body(r#"{"access_token":"a\r\nb","token_type":"Bearer"}"#.to_owned()),
        Answer::Full(200, "", " ".repeat(200 << 20)),
    ] {
        let own = Own::new();
        own.world.services.answer(URL, answer.clone());
        for _ in 0..100 {
            let seen = own.run();
            assert!(seen.starts_with("503 backend-credential-unavailable"), "{seen}");
            assert!(!seen.contains("mine"), "{seen}");
        }
        assert_eq!(own.times(), 1);
        own.pass(1);
        assert!(own.run().ends_with("retry-after: 2"));
        assert_eq!(own.times(), 1);
        own.gives("t", 60);
        own.pass(2);
        assert_eq!(own.run(), "t");
    }
}

/// Whoever refuses everything costs a token in ten seconds.
#[test]
fn a_backend_that_refuses_the_token_gets_another() {
    let own = Own::new();
    own.gives("t1", 3600);
    assert_eq!(own.run(), "t1");
    own.gives("t2", 3600);
    own.pass(9);
    assert_eq!(own.answered(401), "t1");
    assert_eq!(own.answered(403), "t1", "it came a moment ago");
    own.pass(1);
    assert_eq!(own.answered(401), "t1");
    assert_eq!(own.answered(401), "t2", "the next request has another");
    for _ in 0..20 {
        assert_eq!(own.answered(401), "t2");
        own.pass(1);
    }
    assert_eq!(own.times(), 3);
    // While there is no other, it is used on.
    own.fails();
    own.pass(10);
    for _ in 0..20 {
        assert_eq!(own.answered(401), "t2");
    }
    assert_eq!(own.times(), 1);
}

/// A request in flight, polled by hand.
struct InFlight<'a> {
    flag: Arc<Flag>,
    future: LocalFuture<'a, Step<'a>>,
}

impl InFlight<'_> {
    fn poll(&mut self) -> Option<String> {
        self.flag.poll(&mut self.future).map(|step| match step {
            Step::Continue => "continue".to_owned(),
            Step::Refuse(problem) => print_problem(&problem),
            _ => panic!(),
        })
    }
}

fn in_flight<'a>(own: &'a Own, exchange: &'a mut Exchange) -> InFlight<'a> {
    match own.policy.on_request(exchange, &own.world.services) {
        Step::Wait(future) => InFlight { flag: Arc::default(), future },
        _ => panic!("it is at hand"),
    }
}

#[test]
fn many_wait_for_one_token_and_who_asks_may_go_away() {
    let own = Own::new();
    own.gives("t1", 60);
    own.world.services.hold();
    let mut exchanges: Vec<_> = (0..100).map(|_| own.world.exchange(GET)).collect();
    let mut flights: Vec<_> = exchanges.iter_mut().map(|one| in_flight(&own, one)).collect();
    assert!(flights.iter_mut().all(|flight| flight.poll().is_none()));
    drop(flights.remove(0));
    assert!(flights.iter_mut().all(|flight| flight.poll().is_none()));
    own.world.services.release();
    assert!(flights.iter_mut().all(|flight| flight.poll().as_deref() == Some("continue")));
    drop(flights);
    let sent = exchanges[7].request.fields.get(b"authorization");
    assert_eq!(sent, Some(&b"Bearer t1"[..]));
    assert_eq!(own.times(), 2);
}

/// Another secret, another route: the same client asks for the same.
#[test]
fn reloads_and_routes_share_the_token() {
    let mut own = Own::new();
    own.gives("t1", 600);
    assert_eq!(own.run(), "t1");
    own.world.next_generation();
    own.world.files.borrow_mut().insert("file:key".to_owned(), b"another".to_vec());
    own.policy = own.world.policy("credential", SETTINGS);
    assert_eq!((own.run(), own.times()), ("t1".to_owned(), 1));
    own.gives("t2", 600);
    own.policy = own.world.policy("credential", &SETTINGS.replace("[a,", "[x,"));
    assert_eq!(own.run(), "t2", "other scopes are another token");
}

#[test]
fn offline_there_is_nothing_to_attach() {
    use portcullis_core::services::Offline;
    let own = Own::new();
    let mut exchange = own.world.exchange(&format!("{GET} | authorization: mine"));
    let offline = Offline::default();
    let step = own.policy.on_request(&mut exchange, &offline);
    assert!(matches!(step, Step::Continue));
    drop(step);
    assert!(exchange.request.fields.is_empty());
}
