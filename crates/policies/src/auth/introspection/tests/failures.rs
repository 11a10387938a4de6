//! The issuer does not say (OA-03).

use portcullis_core::auth::Verified;
use serde_json::json;

use super::*;
use crate::testing::{Flag, print_verified};

const ISSUER: &str = "https://idp.example";
const DISCOVERY: &str = "https://idp.example/.well-known/openid-configuration";
const BY_ISSUER: &str = r#"{
    issuer: "https://idp.example", client: { id: gw, secret: "file:secret" }
}"#;

#[test]
fn silence_is_no_consent_and_no_refusal_either() {
    for (answer, expected) in [
        (Answer::Down, "does not answer"),
        (Answer::Status(500), "answers 500"),
        (Answer::Status(401), "answers 401"),
        (Answer::Status(302), "answers 302"),
        (Answer::Body("<html>".to_owned()), "the answer is no JSON object"),
        (Answer::Body("[]".to_owned()), "the answer is no JSON object"),
        (Answer::Body("true".to_owned()), "the answer is no JSON object"),
        (Answer::Body("{}".to_owned()), "does not say whether the token is `active`"),
        (Answer::Body(r#"{"active":"true"}"#.to_owned()), "does not say whether"),
        (Answer::Body(r#"{"active":1}"#.to_owned()), "does not say whether"),
        (Answer::Body("{\"active\":true".to_owned()), "the answer is no JSON object"),
        (Answer::Full(200, "", " ".repeat(200 << 20)), "length limit exceeded"),
    ] {
        let asked = Asked::new(PLAIN);
        asked.world.services.answer(URL, answer);
        let seen = asked.verify("t");
        assert!(seen.starts_with("503 authorizer-unavailable"), "{seen}");
        assert!(seen.contains(expected) && seen.ends_with("< retry-after: 1"), "{seen}");
        // It is asked again, and not remembered.
        asked.says(&json!({ "active": true, "client_id": "shop" }));
        assert_eq!(asked.verify("t"), "idp/shop");
    }
}

#[test]
fn an_issuer_that_is_down_is_left_alone() {
    let asked = Asked::new(PLAIN);
    assert_eq!(asked.verify("known"), "idp/shop");
    asked.world.services.answer(URL, Answer::Down);
    asked.times();
    for n in 0..1000 {
        assert!(asked.verify(&format!("t{n}")).starts_with("503 authorizer-unavailable"));
    }
    assert_eq!(asked.times(), 5);
    assert_eq!(asked.verify("known"), "idp/shop", "what is known does not depend on it");
    // One request a pause sees whether it is back.
    let mut tried = Vec::new();
    for second in 1..=70 {
        asked.pass(1000);
        for n in 0..5 {
            asked.verify(&format!("t{n}"));
        }
        if asked.times() > 0 {
            tried.push(second);
        }
    }
    assert_eq!(tried, [1, 3, 7, 15, 31, 61]);
    asked.says(&json!({ "active": true, "client_id": "shop" }));
    asked.pass(30_000);
    for n in 0..5 {
        assert_eq!(asked.verify(&format!("t{n}")), "idp/shop");
    }
}

#[test]
fn known_tokens_may_outlast_an_outage_for_a_while() {
    let asked = Asked::with("on_failure: { last_known: 5m }");
    let exp = START.wall.as_secs() + 200;
    asked.says(&json!({ "active": true, "client_id": "shop" }));
    assert_eq!(asked.verify("known"), "idp/shop");
    asked.says(&json!({ "active": true, "client_id": "shop", "exp": exp }));
    assert_eq!(asked.verify("short"), "idp/shop");
    asked.says(&json!({ "active": true, "client_id": "shop" }));
    assert_eq!(asked.verify("revoked"), "idp/shop");
    asked.pass(100_000);
    asked.says(&json!({ "active": false }));
    assert!(asked.verify("revoked").starts_with("401"));
    asked.world.services.answer(URL, Answer::Status(500));
    asked.pass(90_000);
    assert_eq!(asked.verify("known"), "idp/shop");
    assert_eq!(asked.verify("short"), "idp/shop");
    assert!(asked.verify("revoked").starts_with("503"));
    assert!(asked.verify("new").starts_with("503"));
    asked.pass(10_000);
    assert!(asked.verify("short").starts_with("401 credentials-expired"));
    asked.pass(99_999);
    assert_eq!(asked.verify("known"), "idp/shop");
    asked.pass(1);
    assert!(asked.verify("known").starts_with("503"), "five minutes after it was said");
}

#[test]
fn the_endpoint_is_found_by_discovery_within_the_time() {
    let asked = Asked::new(BY_ISSUER);
    let seen = asked.verify("t");
    assert!(seen.starts_with("503 authorizer-unavailable"), "{seen}");
    let document = json!({ "issuer": ISSUER, "introspection_endpoint": URL }).to_string();
    asked.world.services.answer(DISCOVERY, Answer::Body(document));
    asked.pass(1000);
    asked.times();
    assert_eq!(asked.verify("t"), "idp/shop");
    assert_eq!(asked.world.services.asked(), [DISCOVERY, URL]);
    assert_eq!(asked.verify("u"), "idp/shop");
    assert_eq!(asked.world.services.asked(), [URL]);
    let rest = crate::testing::ready(asked.auth.upkeep(&asked.world.services).unwrap());
    assert_eq!(rest, Some(Duration::from_secs(5)));
    assert!(Asked::new(PLAIN).auth.upkeep(&asked.world.services).is_none());
}

/// Requests in flight on several workers, polled by hand.
struct InFlight<'a> {
    flag: Arc<Flag>,
    future: LocalFuture<'a, Verified>,
}

impl InFlight<'_> {
    fn poll(&mut self) -> Option<String> {
        self.flag.poll(&mut self.future).map(|verified| print_verified(verified)[..3].to_owned())
    }
}

fn in_flight<'a>(asked: &'a Asked, exchange: &'a Exchange) -> InFlight<'a> {
    match asked.auth.verify(exchange, &asked.world.services) {
        Verify::Wait(future) => InFlight { flag: Arc::default(), future },
        Verify::Done(verified) => panic!("{}", print_verified(verified)),
    }
}

#[test]
fn many_with_one_token_ask_once() {
    let asked = Asked::new(PLAIN);
    asked.world.services.hold();
    let exchange = asked.world.exchange(&request("t"));
    let mut flights: Vec<_> = (0..1000).map(|_| in_flight(&asked, &exchange)).collect();
    assert!(flights.iter_mut().all(|flight| flight.poll().is_none()));
    // Whoever asked goes away; another does.
    drop(flights.remove(0));
    assert!(flights.iter_mut().all(|flight| flight.poll().is_none()));
    asked.world.services.release();
    assert!(flights.iter_mut().all(|flight| flight.poll().as_deref() == Some("idp")));
    assert_eq!(asked.times(), 2);
}

/// A slow issuer holds so many requests and no more: the others are told at once.
#[test]
fn requests_do_not_pile_up() {
    let asked = Asked::new(PLAIN);
    asked.world.services.hold();
    let lines: Vec<_> = (0..600).map(|n| request(&format!("t{n}"))).collect();
    let exchanges: Vec<_> = lines.iter().map(|line| asked.world.exchange(line)).collect();
    let mut flights: Vec<_> = exchanges.iter().map(|one| in_flight(&asked, one)).collect();
    let seen: Vec<_> = flights.iter_mut().map(InFlight::poll).collect();
    assert_eq!(seen.iter().filter(|one| one.is_none()).count(), 512);
    assert_eq!(seen.iter().filter(|one| one.as_deref() == Some("503")).count(), 88);
    assert_eq!(asked.times(), 512);
    flights.truncate(512);
    asked.world.services.release();
    assert!(flights.iter_mut().all(|flight| flight.poll().as_deref() == Some("idp")));
    assert_eq!(asked.verify("t599"), "idp/shop", "there is room again");
}
