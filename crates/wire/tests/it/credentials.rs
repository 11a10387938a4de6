//! Hostile and missing credentials, end to end. The name of a test begins with the case that it is
//! of.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use portcullis_testkit::gateway::WALL;
use portcullis_testkit::{Backend, Client, Protocol, Request, Setup, TestGateway};
use serde_json::{Value, json};

/// An issuer whose keys are in a file.
pub(crate) struct Issuer {
    pem: String,
    pub(crate) jwks: String,
}

impl Issuer {
    pub(crate) fn new() -> Self {
        let pair = rcgen::KeyPair::generate().unwrap();
        let (x, y) = pair.public_key_raw()[1..].split_at(32);
        let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
        let jwk = json!({ "kty": "EC", "crv": "P-256", "kid": "k1", "x": x, "y": y });
        Self { pem: pair.serialize_pem(), jwks: json!({ "keys": [jwk] }).to_string() }
    }

    /// A good token, but for these changes.
    pub(crate) fn token(&self, changes: &Value) -> String {
        let mut claims = json!({ "iss": "https://idp.test/", "aud": "api", "sub": "alice" });
        claims["exp"] = (WALL.as_secs() + 1_000_000).into();
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        let header = Header { kid: Some("k1".to_owned()), ..Header::new(Algorithm::ES256) };
        let key = EncodingKey::from_ec_pem(self.pem.as_bytes()).unwrap();
        jsonwebtoken::encode(&header, &claims, &key).unwrap()
    }
}

/// Name, what it matches, a path that it takes, and more settings: one of each kind of route.
const ROUTES: [(&str, &str, &str, &str); 7] = [
    ("exact", "/exact", "/exact", ""),
    ("below", "/below/**", "/below/a/b", ""),
    ("parameter", "\"/of/{id}\"", "/of/7", ""),
    ("host", "api.test/**", "/exact/not", ""),
    ("limited", "/limited", "/limited", "limits: [100000/s per client],"),
    ("sockets", "/sockets", "/sockets", "upgrade: [websocket],"),
    ("pages", "/pages", "/pages", "cors: { origins: [\"https://page.test\"] },"),
];

fn start(issuer: &Issuer, backend: &Backend) -> TestGateway {
    let routes: String = ROUTES
        .iter()
        .map(|(name, matched, _, more)| {
            format!("  {name}: {{ match: {matched}, auth: idp, {more} to: backend }}\n")
        })
        .collect();
    let text = format!(
        r#"
auth: {{ idp: {{ jwt: {{ issuer: "https://idp.test/", audience: api, jwks: "file:jwks.json" }} }} }}
routes:
{routes}backends: {{ backend: "{}" }}
"#,
        backend.url()
    );
    Setup::new(&text).file("jwks.json", &issuer.jwks).start()
}

fn request(method: &str, path: &str, credential: Option<&str>) -> Request {
    let host = if path == "/exact/not" { "api.test" } else { "localhost" };
    let request = Request::new(method, path).field("host", host);
    match credential {
        Some(value) => request.field("authorization", value),
        None => request,
    }
}

/// On a connection of its own, a minute after whatever was before: nobody is slowed.
async fn ask(gateway: &TestGateway, protocol: Protocol, request: Request) -> (u16, String) {
    gateway.advance(Duration::from_secs(61)).await;
    let mut client = Client::connect(gateway, protocol).await;
    let answer = client.send(request).await.unwrap();
    (answer.status, answer.text())
}

#[tokio::test]
async fn az_01_without_a_good_credential_no_route_lets_anybody_in() {
    let (issuer, backend) = (Issuer::new(), Backend::echo().await);
    let gateway = start(&issuer, &backend);
    let good = issuer.token(&json!({}));
    let bad = [
        None,
        Some("Bearer nonsense".to_owned()),
        Some("Basic YTpi".to_owned()),
        Some(format!("Bearer {}", issuer.token(&json!({ "exp": 1 })))),
        Some(format!("Bearer {}", issuer.token(&json!({ "aud": "other" })))),
        Some(format!("Bearer {}", issuer.token(&json!({ "iss": "https://other.test/" })))),
        Some(format!("Bearer {}", Issuer::new().token(&json!({})))),
        Some(format!("Bearer {good}, Bearer {good}")),
    ];
    for (name, _, path, _) in ROUTES {
        for protocol in [Protocol::H1, Protocol::H2] {
            for method in ["GET", "POST", "HEAD", "OPTIONS", "BREW"] {
                for credential in &bad {
                    let request = request(method, path, credential.as_deref());
                    let (status, _) = ask(&gateway, protocol, request).await;
                    assert_eq!(status, 401, "{name} {protocol:?} {method} {credential:?}");
                }
            }
        }
    }
    assert_eq!(backend.requests().len(), 0);
    let good = format!("Bearer {good}");
    for (name, _, path, _) in ROUTES {
        let (status, _) = ask(&gateway, Protocol::H1, request("GET", path, Some(&good))).await;
        assert_eq!(status, 200, "{name}");
    }
    assert_eq!(backend.requests().len(), ROUTES.len());
}

#[tokio::test]
async fn az_04_a_preflight_is_answered_by_its_policy_and_never_passed_on() {
    let (issuer, backend) = (Issuer::new(), Backend::echo().await);
    let gateway = start(&issuer, &backend);
    for protocol in [Protocol::H1, Protocol::H2] {
        for (origin, method, status) in [
            (Some("https://page.test"), Some("GET"), 204),
            (Some("https://evil.test"), Some("GET"), 403),
            (Some("https://page.test"), None, 401),
            (None, Some("GET"), 401),
        ] {
            let mut preflight = request("OPTIONS", "/pages", None);
            if let Some(origin) = origin {
                preflight = preflight.field("origin", origin);
            }
            if let Some(method) = method {
                preflight = preflight.field("access-control-request-method", method);
            }
            let (seen, _) = ask(&gateway, protocol, preflight).await;
            assert_eq!(seen, status, "{origin:?} {method:?}");
        }
        // A route without the policy has nothing to say to a page.
        let preflight = request("OPTIONS", "/exact", None)
            .field("origin", "https://page.test")
            .field("access-control-request-method", "GET");
        assert_eq!(ask(&gateway, protocol, preflight).await.0, 401);
    }
    assert_eq!(backend.requests().len(), 0);
}

#[tokio::test]
async fn jw_22_there_is_one_credential_and_one_place_for_it() {
    let (issuer, backend) = (Issuer::new(), Backend::echo().await);
    let gateway = start(&issuer, &backend);
    let good = issuer.token(&json!({}));
    for (query, fields, status) in [
        ("", vec![format!("Bearer {good}")], 200),
        ("", vec![format!("bEARER {good}")], 200),
        ("", vec![format!("Bearer  {good}")], 200),
        ("", vec![format!("Bearer {good},Bearer {good}")], 401),
        ("", vec![format!("Bearer {good} {good}")], 401),
        ("", vec![format!("Bearer {good}"), "Bearer x".to_owned()], 400),
        ("", vec!["Bearer x".to_owned(), format!("Bearer {good}")], 400),
        ("", vec![format!("Bearer {good}"), "Basic YTpi".to_owned()], 400),
        ("", vec!["bearer".to_owned()], 401),
        // Nothing is read of a query.
        (&format!("?access_token={good}"), vec![], 401),
    ] {
        for protocol in [Protocol::H1, Protocol::H2] {
            let mut request = request("GET", &format!("/exact{query}"), None);
            for field in &fields {
                request = request.field("authorization", field);
            }
            assert_eq!(ask(&gateway, protocol, request).await.0, status, "{query} {fields:?}");
        }
    }
}

#[tokio::test]
async fn jw_24_nothing_of_a_bad_token_is_told_to_anybody() {
    let (issuer, backend) = (Issuer::new(), Backend::echo().await);
    let gateway = start(&issuer, &backend);
    let good = issuer.token(&json!({ "sub": "a-very-secret-subject" }));
    let mut bad: Vec<String> = vec![
        issuer.token(&json!({ "exp": 1, "sub": "a-very-secret-subject" })),
        issuer.token(&json!({ "aud": "an-odd-audience" })),
        issuer.token(&json!({ "iss": "https://an-odd-issuer.test/" })),
        issuer.token(&json!({ "nbf": "an-odd-time" })),
        issuer.token(&json!({ "sub": { "an-odd": "subject" } })),
        Issuer::new().token(&json!({})),
        good.replace('.', "!"),
        format!("{good}x"),
        format!("x{good}"),
        "an-opaque-credential-of-somebody".to_owned(),
    ];
    // And one that is damaged somewhere.
    bad.extend((0..20).map(|at| {
        let mut token = good.clone();
        let at = at * token.len() / 20;
        token.replace_range(at..=at, "~");
        token
    }));
    let mut told = Vec::new();
    for token in &bad {
        let request = request("GET", "/exact", Some(&format!("Bearer {token}")));
        let (status, body) = ask(&gateway, Protocol::H1, request).await;
        assert_eq!(status, 401, "{token}");
        told.push(body);
    }
    told.extend(gateway.stop().into_iter().filter(|line| line.contains("/exact")));
    assert_eq!(told.len(), 2 * bad.len());
    let mut secrets = vec!["an-odd".to_owned(), "secret-subject".to_owned()];
    for token in &bad {
        let parts = token.split(['.', '~', '!']).filter(|part| part.len() >= 12);
        secrets.extend(parts.map(|part| part[..12].to_owned()));
    }
    let words = ["InvalidSignature", "Base64", "base64 ", "Utf8", "line 1", "column", "EcKey"];
    for text in &told {
        for secret in secrets.iter().map(String::as_str).chain(words) {
            assert!(!text.contains(secret), "`{secret}` in {text}");
        }
    }
}
