//! A scripted provider, and a browser that keeps cookies and goes where it is sent.

mod logins;
mod sessions;
mod settings;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use portcullis_core::auth::{Authenticator, Denied, Presented, Verify};
use portcullis_core::policy::Reply;
use portcullis_core::{Exchange, Known};
use serde_json::{Value, json};

use super::query::Query;
use crate::testing::issuer::{Kind, Signer, claims, jwks};
use crate::testing::{Answer, START, World, print_problem, print_verified, ready};

const DISCOVERY: &str = "https://idp.example/.well-known/openid-configuration";
const REVOCATION: &str = "https://idp.example/revoke";
const TOKEN: &str = "https://idp.example/token";
const SETTINGS: &str = r#"issuer: "https://idp.example/", cookie_key: ["file:new.key"],
    client: { id: shop, secret: "file:shop.secret" }"#;
const PAGE: &str = "GET /orders?page=2 | Accept: text/html";

struct Browser {
    world: World,
    auth: Arc<dyn Authenticator>,
    signer: Signer,
    cookies: RefCell<BTreeMap<String, String>>,
}

/// What came of a request.
struct Seen {
    /// `302 LOCATION`, `400 login-failed | DETAIL`, or the identity.
    text: String,
    set: Vec<String>,
}

impl Browser {
    fn new() -> Self {
        Self::with("")
    }

    /// With more settings.
    fn with(more: &str) -> Self {
        let signer = Signer::new("k1", Kind::Es256);
        let world = World::default()
            .file("shop.secret", "a secret")
            .file("new.key", [1; 32])
            .file("old.key", [2; 32]);
        world.services.answer("https://idp.example/keys", Answer::Body(jwks(&[&signer])));
        let auth = world.auth("oidc", &format!("{{ {SETTINGS}{more} }}"));
        let browser = Self { world, auth, signer, cookies: RefCell::default() };
        browser.discover(&json!({}));
        browser
    }

    /// What the provider says of itself, with changes.
    fn discover(&self, changes: &Value) {
        let mut document = json!({
            "issuer": "https://idp.example/",
            "authorization_endpoint": "https://idp.example/auth",
            "token_endpoint": TOKEN,
            "end_session_endpoint": "https://idp.example/logout",
            "revocation_endpoint": REVOCATION,
            "jwks_uri": "https://idp.example/keys",
        });
        for (name, value) in changes.as_object().unwrap() {
            document[name] = value.clone();
        }
        document.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        self.world.services.answer(DISCOVERY, Answer::Body(document.to_string()));
    }

    fn exchange(&self, request: &str) -> Exchange {
        let cookies = self.cookies.borrow();
        let pairs: Vec<_> = cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let cookie = if pairs.is_empty() { String::new() } else { " | Cookie: ".to_owned() };
        self.world.exchange(&format!("192.0.2.7 {request}{cookie}{}", pairs.join("; ")))
    }

    /// Asks the authenticator as a route does that has only this one.
    fn send(&self, request: &str) -> Seen {
        let exchange = self.exchange(request);
        let seen = self.ask(&exchange);
        self.keep(&seen.set);
        seen
    }

    fn text(&self, request: &str) -> String {
        self.send(request).text
    }

    fn ask(&self, exchange: &Exchange) -> Seen {
        let services = &self.world.services;
        if self.auth.intercepts(exchange) {
            return own(ready(self.auth.answer(exchange, services)).unwrap());
        }
        match self.auth.presented(exchange) {
            Presented::Nothing if self.auth.invites(exchange) => {
                own(ready(self.auth.answer(exchange, services)).unwrap())
            }
            Presented::Nothing => Seen { text: "nothing".to_owned(), set: Vec::new() },
            _ => verified(match self.auth.verify(exchange, services) {
                Verify::Done(verified) => verified,
                Verify::Wait(future) => ready(future).unwrap(),
            }),
        }
    }

    fn keep(&self, set: &[String]) {
        let mut cookies = self.cookies.borrow_mut();
        for cookie in set {
            let (name, rest) = cookie.split_once('=').unwrap();
            match rest.contains("Max-Age=0;") {
                true => drop(cookies.remove(name)),
                false => {
                    let value = rest.split(';').next().unwrap();
                    cookies.insert(name.to_owned(), value.to_owned());
                }
            }
        }
    }

    fn names(&self) -> Vec<String> {
        self.cookies.borrow().keys().cloned().collect()
    }

    fn session(&self) -> Option<String> {
        self.cookies.borrow().get("__Host-portcullis-idp").cloned()
    }

    /// Opens a page and is sent to the provider; the parameters that it came with.
    fn begin(&self) -> Query {
        let text = self.text(PAGE);
        let query = text.strip_prefix("302 https://idp.example/auth?").expect(&text);
        Query::read(query.as_bytes()).unwrap()
    }

    /// What the token endpoint gives from now on: a good ID token for this nonce, with changes.
    fn give(&self, nonce: Option<&str>, id_claims: &Value, answer: &Value) {
        let mut changes = json!({ "aud": "shop", "nonce": nonce, "iat": self.now() });
        for (name, value) in id_claims.as_object().unwrap() {
            changes[name] = value.clone();
        }
        if changes.get("exp").is_none() {
            changes["exp"] = (self.now() + 300).into();
        }
        let id_token = self.signer.token(&claims(&changes));
        self.give_token(&id_token, answer);
    }

    fn give_token(&self, id_token: &str, changes: &Value) {
        let mut answer = json!({
            "access_token": "access", "token_type": "Bearer", "expires_in": 300,
            "id_token": id_token,
        });
        for (name, value) in changes.as_object().unwrap() {
            answer[name] = value.clone();
        }
        answer.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        self.world.services.answer(TOKEN, Answer::Body(answer.to_string()));
    }

    fn now(&self) -> u64 {
        self.world.services.now.get().wall.as_secs()
    }

    /// Back from the provider, with a good code.
    fn back(&self, begun: &Query) -> String {
        self.text(&format!("GET /oauth2/callback?code=c&state={}", one(begun, "state")))
    }

    fn log_in(&self) {
        self.log_in_with(&json!({}));
    }

    fn log_in_with(&self, answer: &Value) {
        let begun = self.begin();
        self.give(Some(&one(&begun, "nonce")), &json!({}), answer);
        assert_eq!(self.back(&begun), "303 /orders?page=2");
    }
}

fn one(query: &Query, name: &str) -> String {
    query.one(name).unwrap().unwrap_or_else(|| panic!("no {name}"))
}

fn own(answer: Result<Reply, portcullis_core::Problem>) -> Seen {
    match answer {
        Ok(reply) => replied(&reply),
        Err(problem) => verified(Err(problem.into())),
    }
}

fn replied(reply: &Reply) -> Seen {
    let text = |value: &[u8]| String::from_utf8(value.to_vec()).unwrap();
    let fields = &reply.head.fields;
    assert_eq!(fields.get(b"cache-control"), Some(&b"no-store"[..]));
    let location = fields.get(b"location").map(text).unwrap();
    Seen {
        text: format!("{} {location}", reply.head.status.as_u16()),
        set: fields.get_all(b"set-cookie").map(text).collect(),
    }
}

fn verified(verified: portcullis_core::auth::Verified) -> Seen {
    match verified {
        Err(Denied::Reply(reply)) => replied(&reply),
        Err(Denied::Problem(problem)) => {
            let set = problem.fields.iter().filter(|(name, _)| *name == "set-cookie");
            let set = set.map(|(_, value)| value.clone()).collect();
            Seen { text: print_problem(&problem), set }
        }
        Ok(accepted) => {
            let set = accepted.cookies.clone();
            Seen { text: print_verified(Ok(accepted)), set }
        }
    }
}

/// The route's way of it: what goes to the backend.
fn concealed(browser: &Browser) -> Option<String> {
    let mut exchange = browser.exchange(PAGE);
    browser.auth.conceal(&mut exchange.request);
    let left = exchange.request.fields.known(Known::Cookie);
    left.map(|cookie| String::from_utf8(cookie.to_vec()).unwrap())
}
