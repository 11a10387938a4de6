use std::collections::HashSet;

use portcullis_core::Exchange;
use portcullis_core::auth::{Authenticator, Verify};
use portcullis_core::services::LocalFuture;
use serde_json::json;

use super::*;
use crate::auth::Verified;
use crate::testing::issuer::{ISSUER, Kind, Signer, bearer as request, claims, jwks};
use crate::testing::{Answer, Flag, START, World, print_verified};

const DISCOVERY: &str = "https://idp.example/.well-known/openid-configuration";
const JWKS: &str = "https://idp.example/jwks";
const REMOTE: &str = r#"{ issuer: "https://idp.example/", audience: [orders, stock] }"#;

/// With keys over the network.
struct Remote {
    world: World,
    auth: Arc<dyn Authenticator>,
}

impl Remote {
    fn new(signers: &[&Signer]) -> Self {
        let world = World::default();
        let auth = world.auth("jwt", REMOTE);
        let remote = Self { world, auth };
        let discovery = json!({ "issuer": ISSUER, "jwks_uri": JWKS }).to_string();
        remote.world.services.answer(DISCOVERY, Answer::Body(discovery));
        remote.publish(signers);
        remote
    }

    fn publish(&self, signers: &[&Signer]) {
        self.world.services.answer(JWKS, Answer::Body(jwks(signers)));
    }

    fn verify(&self, token: &str) -> String {
        self.world.verify(&*self.auth, &request(token)).replace('\n', " ")
    }

    /// Runs the background once; says for how long it rests.
    fn upkeep(&self) -> Duration {
        let future = self.auth.upkeep(&self.world.services).unwrap();
        crate::testing::ready(future).expect("nothing holds the fetch")
    }

    fn pass(&self, seconds: u64) {
        self.world.services.pass(Duration::from_secs(seconds));
    }

    fn fetches(&self) -> usize {
        self.world.services.asked().iter().filter(|url| *url == JWKS).count()
    }
}

fn token(signer: &Signer, name: &str) -> String {
    let exp = START.wall.as_secs() + 100_000;
    signer.token(&claims(&json!({ "sub": name, "exp": exp })))
}

#[test]
fn keys_come_by_discovery() {
    let signer = Signer::new("k1", Kind::Es256);
    let remote = Remote::new(&[&signer]);
    assert_eq!(remote.upkeep(), Duration::from_secs(5));
    assert_eq!(remote.world.services.asked(), [DISCOVERY, JWKS]);
    assert_eq!(remote.verify(&token(&signer, "alice")), "idp/alice");
    assert_eq!(remote.fetches(), 0);
}

/// Whoever comes before the background has begun does not wait for it.
#[test]
fn the_first_request_may_fetch() {
    let signer = Signer::new("k1", Kind::Es256);
    let remote = Remote::new(&[&signer]);
    assert_eq!(remote.verify(&token(&signer, "alice")), "idp/alice");
    assert_eq!(remote.fetches(), 1);
}

#[test]
fn without_keys_nobody_is_refused_for_good() {
    let signer = Signer::new("k1", Kind::Es256);
    let remote = Remote::new(&[&signer]);
    remote.world.services.answer(DISCOVERY, Answer::Down);
    let seen = remote.verify(&token(&signer, "a"));
    assert_eq!(
        seen,
        format!("503 keys-unavailable | {DISCOVERY} does not answer < retry-after: 5")
    );
    let seen = remote.verify(&token(&signer, "a"));
    assert_eq!(
        seen,
        format!("503 keys-unavailable | {DISCOVERY} does not answer < retry-after: 60")
    );
    assert_eq!(remote.world.services.asked().len(), 1);
    // What is wrong whatever the keys are is said at once.
    assert!(remote.verify("a.b.c").starts_with("401"));
}

#[test]
fn documents_that_are_not_the_issuers() {
    let signer = Signer::new("k1", Kind::Es256);
    for (document, expected) in [
        (
            json!({ "issuer": "https://idp.example", "jwks_uri": JWKS }),
            "is of the issuer `https://idp.example`",
        ),
        (
            json!({ "issuer": ISSUER, "jwks_uri": "http://idp.example/jwks" }),
            "the `jwks_uri` of `https://idp.example/` is not https",
        ),
        (
            json!({ "issuer": ISSUER, "jwks_uri": "file:/etc/passwd" }),
            "the `jwks_uri` of `https://idp.example/` is not https",
        ),
        (json!({ "issuer": ISSUER }), "names no `jwks_uri`"),
        (json!({ "jwks_uri": JWKS }), "not a discovery document"),
    ] {
        let remote = Remote::new(&[&signer]);
        remote.world.services.answer(DISCOVERY, Answer::Body(document.to_string()));
        let seen = remote.verify(&token(&signer, "a"));
        assert!(seen.contains("503 keys-unavailable") && seen.contains(expected), "{seen}");
        assert_eq!(remote.fetches(), 0);
    }
}

#[test]
fn a_rotated_key_is_fetched_when_it_is_first_seen() {
    let (old, new) = (Signer::new("k1", Kind::Es256), Signer::new("k2", Kind::Es256));
    let remote = Remote::new(&[&old]);
    remote.upkeep();
    remote.publish(&[&old, &new]);
    assert_eq!(remote.verify(&token(&new, "a")), "idp/a");
    assert_eq!(remote.verify(&token(&old, "b")), "idp/b");
    assert_eq!(remote.fetches(), 2);
}

/// Requirement 9: whatever strangers send, the issuer is asked once a minute.
#[test]
fn a_storm_of_unknown_key_ids_costs_one_fetch_a_minute() {
    let (signer, stranger) = (Signer::new("k1", Kind::Es256), Signer::new("x", Kind::Es256));
    let remote = Remote::new(&[&signer]);
    remote.upkeep();
    remote.world.services.asked();
    let mut seen = HashSet::new();
    for n in 0..300 {
        if n > 0 {
            remote.pass(1);
        }
        let header = json!({ "alg": "ES256", "kid": format!("x{n}") });
        let forged =
            stranger.sign(&header, &claims(&json!({ "exp": START.wall.as_secs() + 9999 })));
        seen.insert(remote.verify(&forged)[..3].to_owned());
    }
    assert_eq!(remote.fetches(), 5, "at 0, 60, 120, 180 and 240 seconds");
    // Told by a fetch that there is no such key, or not told.
    assert_eq!(seen, HashSet::from(["401".to_owned(), "503".to_owned()]));
    assert_eq!(remote.verify(&token(&signer, "a")), "idp/a");
}

#[test]
fn a_withdrawn_key_takes_its_tokens_with_it() {
    let (old, new) = (Signer::new("k1", Kind::Es256), Signer::new("k2", Kind::Es256));
    let remote = Remote::new(&[&old, &new]);
    remote.upkeep();
    let (of_old, of_new) = (token(&old, "a"), token(&new, "b"));
    assert_eq!(remote.verify(&of_old), "idp/a");
    remote.publish(&[&new]);
    remote.pass(600);
    remote.upkeep();
    assert!(remote.verify(&of_old).starts_with("401"), "known, and no longer good");
    assert_eq!(remote.verify(&of_new), "idp/b");
}

#[test]
fn an_issuer_that_is_away_keeps_its_keys() {
    let signer = Signer::new("k1", Kind::Es256);
    let remote = Remote::new(&[&signer]);
    remote.upkeep();
    for answer in [
        Answer::Down,
        Answer::Status(500),
        Answer::Body("{}".to_owned()),
        Answer::Body("{\"keys\":[]}".to_owned()),
        Answer::Stale(jwks(&[&Signer::new("other", Kind::Es256)])),
    ] {
        remote.world.services.answer(JWKS, answer.clone());
        remote.pass(600);
        remote.upkeep();
        let name = format!("{answer:?}").len().to_string();
        assert_eq!(remote.verify(&token(&signer, &name)), format!("idp/{name}"), "{answer:?}");
    }
}

/// RFC 7517 §5: an issuer may publish what is not for us; what is weak is never used.
#[test]
fn what_an_issuer_publishes_beside_good_keys_is_left_out() {
    let (good, weak) = (Signer::new("k1", Kind::Es256), Signer::new("k2", Kind::Rsa));
    let remote = Remote::new(&[&good]);
    let mut key = weak.jwk();
    key["e"] = "AQ".into();
    let set = json!({ "keys": [key, good.jwk(), { "kty": "oct", "k": "AAAA" }, { "kty": "new" }] });
    remote.world.services.answer(JWKS, Answer::Body(set.to_string()));
    remote.upkeep();
    assert_eq!(remote.verify(&token(&good, "a")), "idp/a");
    assert!(remote.verify(&token(&weak, "b")).starts_with("401"));
    assert_eq!(standing(&remote).0, 1);
}

/// JW-20: where the operator says for how long.
#[test]
fn old_keys_are_used_for_a_time_that_may_be_bounded() {
    let signer = Signer::new("k1", Kind::Es256);
    let mut remote = Remote::new(&[&signer]);
    let bounded = REMOTE.replace(" }", ", keys_max_age: 2h }");
    remote.auth = remote.world.auth("jwt", &bounded);
    remote.upkeep();
    let known = token(&signer, "a");
    assert_eq!(remote.verify(&known), "idp/a");
    remote.world.services.answer(JWKS, Answer::Down);
    remote.pass(7200);
    remote.upkeep();
    assert_eq!(remote.verify(&known), "idp/a");
    remote.pass(1);
    remote.upkeep();
    assert!(remote.verify(&known).starts_with("503 keys-unavailable"), "remembered, and gone");
    assert_eq!(standing(&remote).0, 0);
    // From the disk they are 5000 seconds old, and then too old.
    remote.world.services.answer(JWKS, Answer::Stale(jwks(&[&signer])));
    remote.pass(60);
    remote.upkeep();
    assert_eq!(remote.verify(&known), "idp/a");
    let hour = REMOTE.replace(" }", ", keys_max_age: 1h }");
    remote.auth = remote.world.auth("jwt", &hour);
    remote.upkeep();
    let seen = remote.verify(&known);
    assert!(seen.contains("its last keys are too old"), "{seen}");
    remote.publish(&[&signer]);
    remote.pass(60);
    assert_eq!(remote.verify(&known), "idp/a");
    let short = REMOTE.replace(" }", ", keys_max_age: 59m }");
    let expected = "error out-of-range at jwt.keys_max_age: at least `1h`, or `off`";
    assert_eq!(remote.world.try_auth("jwt", &short).map(|_| ()).unwrap_err(), expected);
}

/// `(keys, their age in seconds, fetches, failed ones)`.
fn standing(remote: &Remote) -> (usize, Option<u64>, u64, u64) {
    let keys = remote.auth.issuer_keys().unwrap();
    let wall = remote.world.services.now.get().wall;
    (keys.count, keys.given.map(|given| (wall - given).as_secs()), keys.fetched, keys.failed)
}

#[test]
fn how_old_the_keys_are_and_how_often_they_were_asked_for() {
    let (one, two) = (Signer::new("k1", Kind::Es256), Signer::new("k2", Kind::Es256));
    let remote = Remote::new(&[&one]);
    assert_eq!(standing(&remote), (0, None, 0, 0));
    remote.upkeep();
    remote.pass(600);
    assert_eq!(standing(&remote), (1, Some(600), 1, 0));
    remote.upkeep();
    assert_eq!(standing(&remote), (1, Some(0), 2, 0), "the same keys, given again");
    // Away: they grow old, whether or not the disk has them too.
    remote.world.services.answer(JWKS, Answer::Down);
    remote.pass(600);
    remote.upkeep();
    remote.world.services.answer(JWKS, Answer::Stale(jwks(&[&one])));
    remote.pass(600);
    remote.upkeep();
    assert_eq!(standing(&remote), (1, Some(1200), 2, 2));
    remote.publish(&[&one, &two]);
    remote.pass(600);
    remote.upkeep();
    assert_eq!(standing(&remote), (2, Some(0), 3, 2));
    // After a restart they are as old as the file is.
    let remote = Remote::new(&[]);
    remote.world.services.answer(JWKS, Answer::Stale(jwks(&[&one])));
    remote.upkeep();
    assert_eq!(standing(&remote), (1, Some(5000), 0, 1));
    remote.pass(60);
    assert_eq!(standing(&remote).1, Some(5060));
    let fixed = World::default().file("k", jwks(&[&one]));
    let settings = REMOTE.replace(" }", ", jwks: \"file:k\" }");
    assert_eq!(fixed.auth("jwt", &settings).issuer_keys(), None);
}

/// After a restart with the issuer away, the keys that were kept on disk verify what they can.
#[test]
fn keys_from_the_disk_are_better_than_none() {
    let (signer, unknown) = (Signer::new("k1", Kind::Es256), Signer::new("k2", Kind::Es256));
    let remote = Remote::new(&[]);
    remote.world.services.answer(JWKS, Answer::Stale(jwks(&[&signer])));
    remote.upkeep();
    assert_eq!(remote.verify(&token(&signer, "a")), "idp/a");
    let seen = remote.verify(&token(&unknown, "b"));
    assert!(seen.starts_with("503 keys-unavailable"), "{seen}");
}

#[test]
fn the_background_refreshes_and_backs_off() {
    let signer = Signer::new("k1", Kind::Es256);
    let remote = Remote::new(&[&signer]);
    remote.world.services.answer(JWKS, Answer::Down);
    let mut tried = Vec::new();
    for second in 0..20 {
        remote.upkeep();
        if remote.fetches() > 0 {
            tried.push(second);
        }
        remote.pass(1);
    }
    assert_eq!(tried, [0, 1, 3, 7, 15]);
    remote.publish(&[&signer]);
    let mut tried = Vec::new();
    for second in 20..1300 {
        remote.upkeep();
        if remote.fetches() > 0 {
            tried.push(second);
        }
        remote.pass(1);
    }
    assert_eq!(tried, [31, 631, 1231]);
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

fn in_flight<'a>(remote: &'a Remote, exchange: &'a Exchange) -> InFlight<'a> {
    match remote.auth.verify(exchange, &remote.world.services) {
        Verify::Wait(future) => {
            let mut flight = InFlight { flag: Arc::default(), future };
            assert_eq!(flight.poll(), None);
            flight
        }
        Verify::Done(verified) => panic!("{}", print_verified(verified)),
    }
}

#[test]
fn many_wait_for_one_fetch() {
    let signer = Signer::new("k1", Kind::Es256);
    let remote = Remote::new(&[&signer]);
    remote.world.services.hold();
    let lines: Vec<_> = (0..5).map(|n| request(&token(&signer, &n.to_string()))).collect();
    let exchanges: Vec<_> = lines.iter().map(|line| remote.world.exchange(line)).collect();
    let mut flights: Vec<_> = exchanges.iter().map(|e| in_flight(&remote, e)).collect();
    // One of them goes away; nobody notices.
    drop(flights.remove(3));
    remote.world.services.release();
    assert_eq!(flights[0].poll().as_deref(), Some("idp"), "who fetches is first");
    for flight in &mut flights[1..] {
        assert_eq!(flight.flag.woken(), 1);
        assert_eq!(flight.poll().as_deref(), Some("idp"));
    }
    assert_eq!(remote.world.services.asked(), [DISCOVERY, JWKS]);
}

#[test]
fn who_fetches_may_go_away() {
    let signer = Signer::new("k1", Kind::Es256);
    let remote = Remote::new(&[&signer]);
    remote.world.services.hold();
    let line = request(&token(&signer, "a"));
    let exchange = remote.world.exchange(&line);
    let mut flights: Vec<_> = (0..3).map(|_| in_flight(&remote, &exchange)).collect();
    drop(flights.remove(0));
    // Both are told; the first to look takes over, the other waits on.
    assert!(flights.iter().all(|flight| flight.flag.woken() == 1));
    assert_eq!(flights[0].poll(), None);
    assert_eq!(flights[1].poll(), None);
    remote.world.services.release();
    assert_eq!(flights[0].poll().as_deref(), Some("idp"));
    assert_eq!(flights[1].poll().as_deref(), Some("idp"));
    let urls = remote.world.services.asked();
    assert_eq!(urls, [DISCOVERY, DISCOVERY, JWKS]);
}

/// Clients that hang up make no storm and lock nobody out.
#[test]
fn hanging_up_is_no_way_to_fetch() {
    let signer = Signer::new("k1", Kind::Es256);
    let remote = Remote::new(&[&signer]);
    remote.world.services.hold();
    let line = request(&token(&signer, "a"));
    let exchange = remote.world.exchange(&line);
    // Alone: nobody takes over.
    drop(in_flight(&remote, &exchange));
    assert!(remote.verify(&token(&signer, "b")).starts_with("503"));
    assert_eq!(remote.world.services.asked().len(), 1);
    // In company: taken over three times, then refused.
    remote.pass(60);
    let mut flights: Vec<_> = (0..8).map(|_| in_flight(&remote, &exchange)).collect();
    for _ in 0..3 {
        drop(flights.remove(0));
        assert_eq!(flights[0].poll(), None);
    }
    drop(flights.remove(0));
    for flight in &mut flights {
        assert_eq!(flight.poll().as_deref(), Some("503"));
    }
    assert_eq!(remote.world.services.asked().len(), 4);
    drop(flights);
    // The background makes up for it.
    remote.world.services.release();
    remote.upkeep();
    assert_eq!(remote.verify(&token(&signer, "c")), "idp/c");
}

/// A change of settings that matter begins anew; any other reload keeps keys and tokens.
#[test]
fn reloads_keep_keys_and_tokens() {
    let signer = Signer::new("k1", Kind::Es256);
    let mut remote = Remote::new(&[&signer]);
    remote.upkeep();
    let known = token(&signer, "a");
    assert_eq!(remote.verify(&known), "idp/a");
    remote.world.services.asked();
    remote.world.next_generation();
    remote.auth = remote.world.auth("jwt", REMOTE);
    remote.world.services.answer(JWKS, Answer::Down);
    remote.world.services.answer(DISCOVERY, Answer::Down);
    assert_eq!(remote.verify(&known), "idp/a");
    assert_eq!(remote.verify(&token(&signer, "b")), "idp/b");
    remote.world.next_generation();
    let other = REMOTE.replace("orders, stock", "other");
    remote.auth = remote.world.auth("jwt", &other);
    assert!(remote.verify(&known).starts_with("401"), "for another audience");
    assert_eq!(remote.fetches(), 0, "the keys are the same");
}
