//! OAuth 2.0 as a client: tokens about which an issuer is asked, and what backends are given.

mod real;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use portcullis_control::HttpFetcher;
use portcullis_testkit::backend::response;
use portcullis_testkit::{Backend, Client, Protocol, Request, Setup};
use rustls::RootCertStore;
use tokio::runtime::Handle;

/// Gateways that really ask.
fn setup(text: &str) -> Setup {
    let fetcher = HttpFetcher::new(Handle::current(), Arc::new(RootCertStore::empty()), None);
    Setup::new(text).file("secret", "a-secret-of-the-test\n").fetcher(Arc::new(fetcher))
}

/// An authorization server: `good-NAME` is an active token of NAME at `/introspect`; `/token` gives
/// `token-N`, and for a caller's token `token-N-for-` that token. `/never` does not answer.
async fn server() -> Backend {
    let count = Arc::new(AtomicUsize::new(0));
    Backend::start(move |mut conversation| {
        let count = Arc::clone(&count);
        async move {
            while let Some(request) = conversation.request().await {
                let form = String::from_utf8(request.body.clone()).unwrap();
                let parameter = |name: &str| {
                    let mut all = form.split('&').filter_map(|pair| pair.split_once('='));
                    all.find(|(has, _)| *has == name).map(|(_, value)| value.to_owned())
                };
                let path = request.line.split(' ').nth(1).unwrap();
                let body = match path {
                    "/introspect" => match parameter("token").unwrap().strip_prefix("good-") {
                        Some(name) => format!(r#"{{"active":true,"client_id":"{name}"}}"#),
                        None => r#"{"active":false}"#.to_owned(),
                    },
                    "/token" => {
                        let n = count.fetch_add(1, Ordering::Relaxed);
                        let subject = parameter("subject_token");
                        let subject = subject.map_or(String::new(), |of| format!("-for-{of}"));
                        format!(
                            r#"{{"access_token":"token-{n}{subject}","token_type":"Bearer","expires_in":60}}"#
                        )
                    }
                    "/large" => " ".repeat(8 << 20),
                    _ => return std::future::pending().await,
                };
                conversation.send(response(200, &body)).await;
            }
        }
    })
    .await
}

fn about<'a>(fields: &'a [(String, String)], part: &str) -> Vec<&'a str> {
    fields.iter().filter(|(name, _)| name.contains(part)).map(|(_, value)| &**value).collect()
}

/// AZ: whatever a client says under the name, in whatever spelling and place, is not heard.
#[tokio::test]
async fn the_backend_hears_the_gateways_credential_and_no_other() {
    let backend = Backend::echo().await;
    let text = format!(
        r#"
routes:
  bearer:
    match: /bearer
    public: "a test"
    credential: {{ bearer: "file:secret" }}
    to: backend
  key:
    match: /key
    public: "a test"
    credential: {{ header: X-Backend-Key, value: "file:secret" }}
    to: backend
backends:
  backend: "{}"
"#,
        backend.url()
    );
    let gateway = setup(&text).start();
    for protocol in Protocol::ALL {
        let mut client = Client::connect(&gateway, protocol).await;
        for (path, part, value) in [
            ("/bearer", "authorization", "Bearer a-secret-of-the-test"),
            ("/key", "backend", "a-secret-of-the-test"),
        ] {
            let mut request = Request::stream(path, &["hello"])
                .field("x-backend-key", "mine")
                .field("X_Backend_Key", "mine")
                .field("x-backend.key", "mine")
                .trailer("x-backend-key", "mine")
                .trailer("authorization", "Bearer mine");
            if path == "/bearer" {
                request = request.field("authorization", "Bearer mine");
            }
            if matches!(protocol, Protocol::H1 | Protocol::H1Tls) {
                request = request.field("connection", &format!("x-backend-key, {part}"));
            }
            let answer = client.send(request).await.unwrap();
            assert_eq!((answer.status, answer.text()), (200, "hello".to_owned()), "{protocol:?}");
            let seen = backend.last();
            assert_eq!(about(&seen.fields, part), [value], "{protocol:?} {path}");
            assert!(about(&seen.trailers, part).is_empty(), "{:?}", seen.trailers);
        }
    }
    assert!(gateway.stop().iter().all(|line| !line.contains("a-secret-of-the-test")));
}

/// The caller's opaque token is asked about, concealed, and exchanged for one for the backend.
#[tokio::test]
async fn a_callers_token_is_introspected_and_exchanged() {
    let (server, backend) = (server().await, Backend::echo().await);
    let text = format!(
        r#"
auth:
  opaque:
    introspection:
      endpoint: "{0}/introspect"
      client: {{ id: gw, secret: "file:secret" }}
routes:
  exchanged:
    match: /exchanged
    auth: opaque
    credential:
      exchange:
        token_endpoint: "{0}/token"
        client: {{ id: gw, secret: "file:secret", method: client_secret_post }}
        audience: [stock]
    to: backend
  own:
    match: /own
    auth: opaque
    credential:
      client_credentials:
        token_endpoint: "{0}/token"
        client: {{ id: gw, secret: "file:secret" }}
    to: backend
backends:
  backend: "{1}"
"#,
        server.url(),
        backend.url()
    );
    let gateway = setup(&text).start();
    for (at, protocol) in Protocol::ALL.into_iter().enumerate() {
        let mut client = Client::connect(&gateway, protocol).await;
        let mut send = async |path: &str, token: &str| {
            let request = Request::get(path).field("authorization", &format!("Bearer {token}"));
            let answer = client.send(request).await.unwrap();
            match answer.status {
                200 => about(&backend.last().fields, "authorization").join(" "),
                status => format!("{status} {}", answer.problem()),
            }
        };
        let own = send("/own", "good-shop").await;
        assert_eq!(own, "Bearer token-0", "one for everybody");
        let token = format!("good-alice{at}");
        let exchanged = send("/exchanged", &token).await;
        assert_eq!(exchanged, format!("Bearer token-{}-for-{token}", at + 1));
        assert_eq!(send("/exchanged", &token).await, exchanged);
        assert_eq!(about(&backend.last().fields, "client"), [format!("alice{at}")]);
        let before = backend.requests().len();
        assert_eq!(send("/exchanged", "bad").await, "401 credentials-invalid");
        assert_eq!(backend.requests().len(), before);
    }
    let asked = server.requests();
    let paths: Vec<_> = asked.iter().map(|one| one.line.split(' ').nth(1).unwrap()).collect();
    let introspected = paths.iter().filter(|path| **path == "/introspect").count();
    // The shop, alice of each protocol, and the bad one.
    assert_eq!(introspected, 1 + Protocol::ALL.len() + 1);
    for line in gateway.stop() {
        assert!(!line.contains("good-") && !line.contains("token-"), "{line}");
    }
}

/// OA-03: without an answer nobody passes, in time, and nothing reaches the backend.
#[tokio::test]
async fn an_authorization_server_that_does_not_answer_lets_nobody_in() {
    let (server, backend) = (server().await, Backend::echo().await);
    let text = format!(
        r#"
auth:
  slow:
    introspection:
      endpoint: "{0}/never"
      client: {{ id: gw, secret: "file:secret" }}
      timeout: 20ms
  large:
    introspection:
      endpoint: "{0}/large"
      client: {{ id: gw, secret: "file:secret" }}
routes:
  slow: {{ match: /slow, auth: slow, to: backend }}
  large: {{ match: /large, auth: large, to: backend }}
  credential:
    match: /credential
    public: "a test"
    credential:
      client_credentials:
        token_endpoint: "{0}/never"
        client: {{ id: gw, secret: "file:secret" }}
        timeout: 20ms
    to: backend
backends:
  backend: "{1}"
"#,
        server.url(),
        backend.url()
    );
    let gateway = setup(&text).start();
    for protocol in Protocol::ALL {
        let mut client = Client::connect(&gateway, protocol).await;
        for (path, problem) in [
            ("/slow", "authorizer-unavailable"),
            ("/large", "authorizer-unavailable"),
            ("/credential", "backend-credential-unavailable"),
        ] {
            for n in 0..10 {
                let token = format!("Bearer good-{n}");
                let request = Request::get(path).field("authorization", &token);
                let answer = client.send(request).await.unwrap();
                assert_eq!((answer.status, answer.problem()), (503, problem.to_owned()));
                assert!(answer.field("retry-after").is_some());
            }
        }
    }
    assert!(backend.requests().is_empty());
    // Five failures open a breaker; the clock stands still, so it stays open. A token of the
    // gateway's own is asked for once.
    assert_eq!(server.requests().len(), 5 + 5 + 1);
}
