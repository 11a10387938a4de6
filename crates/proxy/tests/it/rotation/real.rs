//! The clock stands where the issuer's does and moves by hand, so that minutes pass in between.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use portcullis_control::HttpFetcher;
use portcullis_testkit::oidc_provider::{Issuer, OidcProvider};
use portcullis_testkit::{Backend, Client, Protocol, Request, Setup, TestGateway, until};
use rustls::RootCertStore;
use serde_json::{Value, json};
use tokio::runtime::Handle;

const MINUTE: Duration = Duration::from_secs(61);

fn with_keys(kids: &[String]) -> Issuer {
    let keys = kids.iter().map(|kid| json!({ "kid": kid, "alg": "RS256" }));
    // Longer than all the minutes of a test.
    let config = json!({ "ttl": { "ClientCredentials": 86400 } });
    Issuer { keys: keys.collect(), config, ..Issuer::default() }
}

fn token(provider: &OidcProvider) -> String {
    provider.token("shop", "a-secret-of-the-test", "orders:read")
}

fn claims(token: &str) -> Value {
    let payload = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

/// A gateway whose clock begins when this token was made.
fn gateway(provider: &str, backend: &Backend, token: &str, state: Option<&Path>) -> TestGateway {
    let text = format!(
        r#"
auth: {{ idp: {{ jwt: {{ issuer: "{provider}", audience: "urn:example:orders", typ: at+jwt }} }} }}
routes: {{ all: {{ match: /**, auth: idp, to: backend }} }}
backends: {{ backend: "{}" }}
"#,
        backend.url()
    );
    let state = state.map(Path::to_path_buf);
    let fetcher = HttpFetcher::new(Handle::current(), Arc::new(RootCertStore::empty()), state);
    let made = Duration::from_secs(claims(token)["iat"].as_u64().unwrap());
    Setup::new(&text).fetcher(Arc::new(fetcher)).at(made).start()
}

async fn ask(gateway: &TestGateway, token: &str) -> u16 {
    let mut client = Client::connect(gateway, Protocol::H1).await;
    client.send(bearing(token)).await.unwrap().status
}

fn bearing(token: &str) -> Request {
    Request::get("/").field("authorization", &format!("Bearer {token}"))
}

/// While the issuer is at work the clients go on.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

/// Clients that ask without end, each time with the next of the tokens that are good.
#[derive(Default)]
struct Load {
    tokens: Mutex<Vec<String>>,
    statuses: Mutex<BTreeMap<u16, usize>>,
    /// Requests of each client that have ended.
    ended: [AtomicUsize; 4],
    over: AtomicBool,
}

impl Load {
    async fn run(&self, number: usize, mut client: Client) {
        while !self.over.load(Relaxed) {
            let asked = self.ended[number].load(Relaxed);
            let token = {
                let tokens = self.tokens.lock().unwrap();
                tokens[asked % tokens.len()].clone()
            };
            let status = client.send(bearing(&token)).await.unwrap().status;
            *self.statuses.lock().unwrap().entry(status).or_default() += 1;
            self.ended[number].store(asked + 1, Relaxed);
        }
    }

    /// From now on these; returns when each client has used them all and has none of others.
    async fn use_tokens(&self, tokens: &[&String]) {
        *self.tokens.lock().unwrap() = tokens.iter().map(|token| (*token).clone()).collect();
        self.go_on(tokens.len() + 2).await;
    }

    /// Returns when so many more requests of each client have ended.
    async fn go_on(&self, requests: usize) {
        let before: Vec<usize> = self.ended.iter().map(|ended| ended.load(Relaxed)).collect();
        let enough = |now: &AtomicUsize, then: &usize| now.load(Relaxed) >= then + requests;
        let all = || self.ended.iter().zip(&before).all(|(now, then)| enough(now, then));
        until("every client goes on", all).await;
    }

    /// A minute in steps of which each request sees two at most, so that none is out of time.
    async fn minute(&self, gateway: &TestGateway) {
        for _ in 0..13 {
            gateway.advance(Duration::from_secs(5)).await;
            self.go_on(2).await;
        }
    }
}

#[tokio::test]
async fn keys_rotate_under_load_and_no_good_token_is_refused() {
    const ROTATIONS: usize = 6;
    let backend = Backend::echo().await;
    let kid = |number: usize| format!("k{number}");
    let mut provider = OidcProvider::start(&with_keys(&[kid(0)]));
    let mut last = token(&provider);
    let gateway = gateway(&provider.url(), &backend, &last, None);
    let load = Arc::new(Load::default());
    load.tokens.lock().unwrap().push(last.clone());
    let mut clients = Vec::new();
    for number in 0..load.ended.len() {
        let protocol = if number % 2 == 0 { Protocol::H1 } else { Protocol::H2 };
        let (load, client) = (Arc::clone(&load), Client::connect(&gateway, protocol).await);
        clients.push(tokio::spawn(async move { load.run(number, client).await }));
    }
    load.use_tokens(&[&last]).await;
    for number in 1..=ROTATIONS {
        // The new key signs at once; the one before is still published, older ones are not.
        let keys = with_keys(&[kid(number), kid(number - 1)]);
        let new;
        (provider, new) = aside(move || {
            provider.change(&keys);
            let new = token(&provider);
            (provider, new)
        })
        .await;
        load.minute(&gateway).await;
        load.use_tokens(&[&new, &last]).await;
        load.use_tokens(&[&new]).await;
        last = new;
    }
    load.over.store(true, Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    let statuses = load.statuses.lock().unwrap().clone();
    assert_eq!(statuses.keys().collect::<Vec<_>>(), [&200], "{statuses:?}");
    assert!(statuses[&200] >= ROTATIONS * 20, "{statuses:?}");
    assert_eq!(provider.asked("/jwks"), 1 + ROTATIONS as u64, "one fetch a rotation");
}

#[tokio::test]
async fn a_storm_of_unknown_keys_and_an_issuer_that_is_away() {
    let backend = Backend::echo().await;
    let state = tempfile::tempdir().unwrap();
    let provider = OidcProvider::start(&with_keys(&["k0".to_owned()]));
    let tokens: Vec<String> = (0..3).map(|_| token(&provider)).collect();
    let gateway = gateway(&provider.url(), &backend, &tokens[0], Some(state.path()));
    assert_eq!(ask(&gateway, &tokens[0]).await, 200);
    assert_eq!(provider.asked("/jwks"), 1);
    let payload = URL_SAFE_NO_PAD.encode(claims(&tokens[0]).to_string());
    for minute in 1..=3 {
        gateway.advance(MINUTE).await;
        for n in 0..100 {
            let header =
                json!({ "alg": "RS256", "kid": format!("x{minute}-{n}"), "typ": "at+jwt" });
            let header = URL_SAFE_NO_PAD.encode(header.to_string());
            let status = ask(&gateway, &format!("{header}.{payload}.AAAA")).await;
            // Not good, not known, or an address that has failed too often.
            assert!([401, 503, 429].contains(&status), "{status}");
        }
        assert_eq!(provider.asked("/jwks"), 1 + minute, "one fetch a minute");
        assert_eq!(ask(&gateway, &tokens[0]).await, 200, "who is known is not slowed");
    }
    // Away for an hour: whatever its last keys have signed is good, also if never seen before.
    let url = provider.url();
    drop(provider);
    for _ in 0..60 {
        gateway.advance(MINUTE).await;
    }
    assert_eq!(ask(&gateway, &tokens[1]).await, 200);
    let unknown = json!({ "alg": "RS256", "kid": "new", "typ": "at+jwt" }).to_string();
    let unknown = URL_SAFE_NO_PAD.encode(unknown);
    assert_eq!(ask(&gateway, &format!("{unknown}.{payload}.AAAA")).await, 503, "nobody can tell");
    // And for a gateway that starts while it is away.
    let second = self::gateway(&url, &backend, &tokens[0], Some(state.path()));
    assert_eq!(ask(&second, &tokens[2]).await, 200);
    let snapshot = second.gateway.snapshot();
    let keys = snapshot.authenticators[0].authenticator.issuer_keys().unwrap();
    assert_eq!((keys.count, keys.fetched), (1, 0), "from the disk");
    assert!(keys.given.is_some(), "and its age is known");
}
