//! Logins by a browser, end to end. The name of a test begins with the case that it is of.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use portcullis_testkit::gateway::WALL;
use portcullis_testkit::websocket::{WebSocket, opening};
use portcullis_testkit::{
    Answer, Backend, Client, Protocol, Request, Scripted, Setup, TestGateway,
};
use serde_json::{Value, json};

const ISSUER: &str = "https://idp.test";

/// A provider whose answers are in a table, and a gateway that sends browsers to it.
struct World {
    gateway: TestGateway,
    provider: Arc<Scripted>,
    backend: Backend,
    pem: String,
}

impl World {
    fn start(backend: Backend) -> Self {
        let pair = rcgen::KeyPair::generate().unwrap();
        let (x, y) = pair.public_key_raw()[1..].split_at(32);
        let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
        let jwk = json!({ "kty": "EC", "crv": "P-256", "kid": "k1", "x": x, "y": y });
        let provider = Arc::new(Scripted::default());
        let document = json!({
            "issuer": ISSUER,
            "jwks_uri": format!("{ISSUER}/keys"),
            "authorization_endpoint": format!("{ISSUER}/auth"),
            "token_endpoint": format!("{ISSUER}/token"),
        });
        let discovery = format!("{ISSUER}/.well-known/openid-configuration");
        provider.answer(&discovery, document.to_string());
        provider.answer(&format!("{ISSUER}/keys"), json!({ "keys": [jwk] }).to_string());
        let text = format!(
            r#"
auth:
  people:
    oidc:
      issuer: "{ISSUER}"
      client: {{ id: shop, secret: "file:shop.secret" }}
      cookie_key: ["file:cookie.key"]
      idle: 1h
routes:
  sockets: {{ match: /socket, auth: people, upgrade: [websocket], to: backend }}
  pages: {{ match: /**, auth: people, to: backend }}
backends: {{ backend: "{}" }}
"#,
            backend.url()
        );
        let gateway = Setup::new(&text)
            .fetcher(Arc::clone(&provider) as _)
            .file("shop.secret", "a secret")
            .file("cookie.key", "a key of at least thirty-two bytes")
            .start();
        Self { gateway, provider, backend, pem: pair.serialize_pem() }
    }

    async fn ask(&self, protocol: Protocol, request: Request) -> Answer {
        Client::connect(&self.gateway, protocol).await.send(request).await.unwrap()
    }

    /// Opens a page; the browser's cookie, and the state and nonce that the provider is sent.
    async fn begin(&self, protocol: Protocol) -> (String, String, String) {
        let page = Request::get("/orders?page=2").field("accept", "text/html");
        let answer = self.ask(protocol, page).await;
        assert_eq!(answer.status, 302, "{}", answer.text());
        let location = answer.field("location").unwrap();
        assert!(location.starts_with("https://idp.test/auth?"), "{location}");
        let of = |name: &str| {
            let found = location.split(['?', '&']).find_map(|pair| pair.strip_prefix(name));
            found.unwrap().to_owned()
        };
        (cookies(&answer), of("state="), of("nonce="))
    }

    /// The provider takes any code, for this person.
    fn give(&self, nonce: &str) {
        let now = WALL.as_secs();
        let claims: Value = json!({
            "iss": ISSUER, "aud": "shop", "sub": "alice", "nonce": nonce,
            "iat": now, "exp": now + 1_000_000,
        });
        let header = Header { kid: Some("k1".to_owned()), ..Header::new(Algorithm::ES256) };
        let key = EncodingKey::from_ec_pem(self.pem.as_bytes()).unwrap();
        let id_token = jsonwebtoken::encode(&header, &claims, &key).unwrap();
        let tokens = json!({ "access_token": "a", "token_type": "Bearer", "id_token": id_token });
        self.provider.answer(&format!("{ISSUER}/token"), tokens.to_string());
    }

    async fn log_in(&self, protocol: Protocol) -> String {
        let (cookie, state, nonce) = self.begin(protocol).await;
        self.give(&nonce);
        let back = Request::get(&format!("/oauth2/callback?code=c&state={state}"));
        let answer = self.ask(protocol, back.field("cookie", &cookie)).await;
        assert_eq!(answer.status, 303, "{}", answer.text());
        assert_eq!(answer.field("location"), Some("/orders?page=2"));
        cookies(&answer)
    }
}

/// What a browser would send after this answer.
fn cookies(answer: &Answer) -> String {
    let set = answer.fields.iter().filter(|(name, _)| name == "set-cookie");
    let kept = set.filter(|(_, value)| !value.contains("Max-Age=0"));
    let pairs: Vec<&str> = kept.map(|(_, value)| value.split(';').next().unwrap()).collect();
    pairs.join("; ")
}

#[tokio::test]
async fn oa_01_a_login_makes_a_session_and_a_changed_one_makes_none() {
    let world = World::start(Backend::echo().await);
    for protocol in Protocol::ALL {
        let (cookie, state, nonce) = world.begin(protocol).await;
        world.give(&nonce);
        let changed: String = state.chars().rev().collect();
        for (state, cookie) in [(&changed, Some(&cookie)), (&state, None)] {
            let back = Request::get(&format!("/oauth2/callback?code=c&state={state}"));
            let back = match cookie {
                Some(cookie) => back.field("cookie", cookie),
                None => back,
            };
            let answer = world.ask(protocol, back).await;
            assert_eq!((answer.status, &*answer.problem()), (400, "login-failed"), "{protocol:?}");
            assert_eq!(cookies(&answer), "");
        }
        assert_eq!(world.backend.requests().len(), 0, "{protocol:?}");
    }
    for (at, protocol) in Protocol::ALL.into_iter().enumerate() {
        let session = world.log_in(protocol).await;
        assert_eq!(session.starts_with("__Host-portcullis-people="), protocol.is_tls());
        let request = Request::get("/data").field("cookie", &format!("a=1; {session}; b=2"));
        let answer = world.ask(protocol, request).await;
        assert_eq!(answer.status, 200);
        let seen = world.backend.last();
        assert_eq!(seen.field("portcullis-client"), Some("alice"));
        assert_eq!(seen.field("cookie"), Some("a=1; b=2"));
        assert_eq!(world.backend.requests().len(), at + 1);
    }
}

#[tokio::test]
async fn a_session_that_was_long_idle_is_renewed_with_the_backends_answer() {
    let world = World::start(Backend::echo().await);
    let session = world.log_in(Protocol::H1).await;
    let ask = async |session: &str| {
        world.ask(Protocol::H1, Request::get("/data").field("cookie", session)).await
    };
    assert_eq!(cookies(&ask(&session).await), "");
    world.gateway.advance(std::time::Duration::from_secs(1800)).await;
    let answer = ask(&session).await;
    assert_eq!(answer.status, 200);
    let renewed = cookies(&answer);
    assert_ne!((&*renewed, renewed.is_empty()), (&*session, true));
    world.gateway.advance(std::time::Duration::from_secs(1801)).await;
    assert_eq!(ask(&session).await.status, 401);
    assert_eq!(ask(&renewed).await.status, 200);
}

#[tokio::test]
async fn ws_01_a_page_of_another_origin_opens_nothing() {
    let backend = Backend::start(|conversation| conversation.echo_websocket()).await;
    let world = World::start(backend);
    for protocol in Protocol::ALL {
        let session = world.log_in(protocol).await;
        let before = world.backend.requests().len();
        let scheme = if protocol.is_tls() { "https" } else { "http" };
        let own = format!("{scheme}://localhost");
        for (origin, status) in
            [(Some("https://evil.test"), 403), (Some("null"), 403), (None, 403), (Some(&*own), 101)]
        {
            let mut fields = vec![("cookie", &*session)];
            fields.extend(origin.map(|origin| ("origin", origin)));
            let with = |request| {
                fields
                    .iter()
                    .fold(request, |request: Request, (name, value)| request.field(name, value))
            };
            let opened = match Client::connect(&world.gateway, protocol).await {
                Client::H1(client) => WebSocket::open_h1(client, &with(opening("/socket"))).await,
                Client::H2(client) => {
                    WebSocket::open_h2(&client, &with(Request::get("/socket"))).await
                }
            };
            match (opened, status) {
                (Ok(_), 101) => {}
                (Err(answer), status) => {
                    assert_eq!(answer.status, status, "{protocol:?} {origin:?}");
                    assert_eq!(answer.problem(), "origin-not-allowed");
                    assert_eq!(world.backend.requests().len(), before, "{origin:?}");
                }
                (Ok(_), _) => panic!("{protocol:?} {origin:?} opened"),
            }
        }
        assert_eq!(world.backend.requests().len(), before + 1);
    }
}
