//! Another process decides, over HTTP and over gRPC, and what a client makes of that.

use std::sync::Arc;

use portcullis_control::HttpFetcher;
use portcullis_testkit::backend::response;
use portcullis_testkit::h2_backend::{Manner, map};
use portcullis_testkit::{Backend, Client, H2Backend, Protocol, Request, Setup, TestGateway};
use rustls::RootCertStore;
use tokio::runtime::Handle;

/// A gateway that really asks.
fn gateway(forward: &str, backend: &Backend) -> TestGateway {
    let text = format!(
        r#"
auth:
  keys: {{ api_keys: {{ keys: "file:keys.yaml" }} }}
  authz: {{ forward: {{ {forward} }} }}
routes:
  everything: {{ match: /**, auth: authz, to: backend }}
  either: {{ match: /either, auth: [keys, authz], to: backend }}
backends:
  backend: "{}"
"#,
        backend.url()
    );
    let fetcher = HttpFetcher::new(Handle::current(), Arc::new(RootCertStore::empty()), None);
    Setup::new(&text).file("keys.yaml", KEYS).fetcher(Arc::new(fetcher)).start()
}

/// One that nobody has.
const KEYS: &str = r#"
- id: acme
  client: acme
  hash: "blake3:0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0"
"#;

/// Answers by the path that it is told: `/allow/NAME`, `/anonymous`, `/login`, `/denied`, `/fails`,
/// `/never`.
async fn authorizer() -> Backend {
    Backend::start(|mut conversation| async move {
        while let Some(request) = conversation.request().await {
            let uri = request.field("x-forwarded-uri").unwrap().to_owned();
            let answer = match uri.split('/').nth(1).unwrap() {
                "allow" => {
                    let name = uri.rsplit('/').next().unwrap();
                    format!(
                        "HTTP/1.1 200 OK\r\nX-User-Id: {name}\r\nX-Other: dropped\r\n\
                         Set-Cookie: session=2\r\nContent-Length: 2\r\n\r\nok"
                    )
                }
                "anonymous" | "either" => response(200, ""),
                "login" => "HTTP/1.1 302 Found\r\nLocation: https://login.example/\r\n\
                            Set-Cookie: csrf=1\r\nServer: x\r\nContent-Length: 0\r\n\r\n"
                    .to_owned(),
                "denied" => "HTTP/1.1 401 No\r\nWWW-Authenticate: Basic realm=\"a\"\r\n\
                             Content-Type: text/plain\r\nContent-Length: 4\r\n\r\nno!\n"
                    .to_owned(),
                "endless" => response(403, &"x".repeat((64 << 10) + 1)),
                "fails" => response(500, ""),
                _ => return std::future::pending().await,
            };
            conversation.send(answer).await;
        }
    })
    .await
}

#[tokio::test]
async fn an_authorizer_over_http_lets_in_and_names_the_caller() {
    let (authorizer, backend) = (authorizer().await, Backend::echo().await);
    let forward = format!("url: \"{}/check\", copy_headers: [x-user-id]", authorizer.url());
    let gateway = gateway(&forward, &backend);
    for protocol in Protocol::ALL {
        let mut client = Client::connect(&gateway, protocol).await;
        let request = Request::stream("/allow/alice", &["hello"])
            .field("authorization", "Bearer x")
            .field("x-user-id", "admin")
            .field("x_user_id", "root")
            .trailer("x-user-id", "trailing");
        let answer = client.send(request).await.unwrap();
        assert_eq!((answer.status, answer.text()), (200, "hello".to_owned()), "{protocol:?}");
        assert_eq!(answer.field("set-cookie"), Some("session=2"));
        assert_eq!(answer.field("x-other"), None);
        let forwarded = backend.last();
        let about = |name: &str| {
            let named = forwarded.fields.iter().filter(|(has, _)| has.contains(name));
            named.map(|(name, value)| format!("{name}: {value}")).collect::<Vec<_>>()
        };
        assert_eq!(about("user"), ["x-user-id: alice"]);
        assert_eq!(about("authorization"), [""; 0]);
        assert!(forwarded.trailers.is_empty(), "{:?}", forwarded.trailers);
        let asked = authorizer.last();
        assert_eq!(asked.line, "GET /check HTTP/1.1");
        for (name, value) in [
            ("x-forwarded-method", "POST"),
            ("x-forwarded-uri", "/allow/alice"),
            ("x-forwarded-proto", if protocol.is_tls() { "https" } else { "http" }),
            ("x-forwarded-for", "127.0.0.1"),
            ("authorization", "Bearer x"),
        ] {
            assert_eq!(asked.field(name), Some(value), "{name}");
        }
        assert_eq!(asked.field("x-request-id"), forwarded.field("x-request-id"));
        assert!(asked.body.is_empty());
    }
    // One after the other, they share one connection.
    assert_eq!(authorizer.connections(), 1);
}

/// AZ-07.
#[tokio::test]
async fn a_name_that_the_authorizer_does_not_give_is_not_the_clients_to_give() {
    let (authorizer, backend) = (authorizer().await, Backend::echo().await);
    let forward = format!("url: \"{}\", copy_headers: [x-user-id]", authorizer.url());
    let gateway = gateway(&forward, &backend);
    for protocol in Protocol::ALL {
        let mut client = Client::connect(&gateway, protocol).await;
        let request =
            Request::get("/anonymous").field("x-user-id", "admin").field("X.User_Id", "root");
        assert_eq!(client.send(request).await.unwrap().status, 200);
        let forwarded = backend.last();
        assert_eq!(forwarded.field("x-user-id"), None);
        assert!(!forwarded.fields.iter().any(|(name, _)| name.contains("user")));
    }
}

#[tokio::test]
async fn a_refusal_is_the_authorizers_and_the_backend_is_not_asked() {
    let (authorizer, backend) = (authorizer().await, Backend::echo().await);
    let hurried = gateway(&format!("url: \"{}\", timeout: 10ms", authorizer.url()), &backend);
    let gateway = gateway(&format!("url: \"{}\"", authorizer.url()), &backend);
    for protocol in Protocol::ALL {
        let mut client = Client::connect(&gateway, protocol).await;
        let answer = client.send(Request::get("/login")).await.unwrap();
        assert_eq!((answer.status, answer.text()), (302, String::new()));
        assert_eq!(answer.field("location"), Some("https://login.example/"));
        assert_eq!(answer.field("set-cookie"), Some("csrf=1"));
        assert_eq!(answer.field("server"), None);
        let answer = client.send(Request::post("/denied", "hello")).await.unwrap();
        assert_eq!((answer.status, answer.text()), (401, "no!\n".to_owned()));
        assert_eq!(answer.field("www-authenticate"), Some("Basic realm=\"a\""));
        assert_eq!(answer.field("cache-control"), Some("no-store"));
        let mut hurried = Client::connect(&hurried, protocol).await;
        for path in ["/fails", "/endless", "/never"] {
            let client = if path == "/never" { &mut hurried } else { &mut client };
            let answer = client.send(Request::get(path)).await.unwrap();
            let seen = (answer.status, answer.problem());
            assert_eq!(seen, (503, "authorizer-unavailable".to_owned()), "{path}");
        }
    }
    drop(authorizer);
    let mut client = Client::connect(&gateway, Protocol::H1).await;
    let answer = client.send(Request::get("/allow/alice")).await.unwrap();
    assert_eq!(answer.problem(), "authorizer-unavailable");
    assert!(backend.requests().is_empty());
}

#[tokio::test]
async fn it_is_asked_where_no_other_credential_is_shown() {
    let (authorizer, backend) = (authorizer().await, Backend::echo().await);
    let gateway = gateway(&format!("url: \"{}\"", authorizer.url()), &backend);
    let mut client = Client::connect(&gateway, Protocol::H1).await;
    let either = |key: &str| Request::get("/either").field("x-api-key", key);
    let answer = client.send(either("pk_acme_wrong")).await.unwrap();
    assert_eq!(answer.problem(), "credentials-invalid");
    assert!(authorizer.requests().is_empty());
    let answer = client.send(Request::get("/either")).await.unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(backend.last().field("portcullis-auth"), Some("authz"));
    assert_eq!(backend.last().field("portcullis-client"), Some("external"));
    assert_eq!(authorizer.requests().len(), 1);
}

/// `CheckResponse` with status OK and `x-user-id: alice` in the `OkHttpResponse`.
const ALLOWED: &[u8] = b"\x0a\x00\x1a\x18\x12\x16\x0a\x12\x0a\x09x-user-id\x12\x05alice\x12\x00";
/// Status `PERMISSION_DENIED`, and a `DeniedHttpResponse` with 429, `x-why: because` and a body.
const DENIED: &[u8] = b"\x0a\x02\x08\x07\x12\x20\x0a\x03\x08\xad\x03\x12\x12\x0a\x10\
    \x0a\x05x-why\x12\x07because\x1a\x05sorry";

#[tokio::test]
async fn an_authorizer_over_grpc_decides() {
    let opa = H2Backend::start(Manner::default(), |mut stream| async move {
        let Some((question, _)) = stream.whole().await else { return };
        let says = |text: &str| question.windows(text.len()).any(|part| part == text.as_bytes());
        let message = match () {
            () if says("\"\x06/allow") => ALLOWED,
            () if says("\"\x07/denied") => DENIED,
            () => b"\x0a\x02\x08\x0d",
        };
        let mut send = stream.head(200, &[("content-type", "application/grpc")]);
        let length = (message.len() as u32).to_be_bytes();
        drop(send.send_data([&[0][..], &length, message].concat().into(), false));
        let status = if says("/fails") { "14" } else { "0" };
        drop(send.send_trailers(map(&[("grpc-status", status)])));
    })
    .await;
    let backend = Backend::echo().await;
    let gateway = gateway(
        &format!(
            "grpc: \"{}\", copy_headers: [x-user-id], client: \"header:x-user-id\"",
            opa.url()
        ),
        &backend,
    );
    for protocol in Protocol::ALL {
        let mut client = Client::connect(&gateway, protocol).await;
        let request = Request::get("/allow").field("x-user-id", "admin");
        assert_eq!(client.send(request).await.unwrap().status, 200, "{protocol:?}");
        let forwarded = backend.last();
        assert_eq!(forwarded.field("x-user-id"), Some("alice"));
        assert_eq!(forwarded.field("portcullis-client"), Some("alice"));
        let answer = client.send(Request::get("/denied")).await.unwrap();
        assert_eq!((answer.status, answer.text()), (429, "sorry".to_owned()));
        assert_eq!(answer.field("x-why"), Some("because"));
        let answer = client.send(Request::get("/other")).await.unwrap();
        assert_eq!((answer.status, answer.text()), (403, String::new()));
        let answer = client.send(Request::get("/fails")).await.unwrap();
        assert_eq!(answer.problem(), "authorizer-unavailable");
    }
    assert_eq!(backend.requests().len(), Protocol::ALL.len());
    let seen = opa.seen();
    assert_eq!(opa.connections(), 1);
    let call = "/envoy.service.auth.v3.Authorization/Check";
    for asked in seen {
        assert!(asked.uri.ends_with(call), "{}", asked.uri);
        assert_eq!((&*asked.method, &asked.fields["te"]), ("POST", &"trailers".parse().unwrap()));
    }
}

#[tokio::test]
async fn a_body_is_shown_and_forwarded() {
    let (authorizer, backend) = (authorizer().await, Backend::echo().await);
    let forward = format!("url: \"{}\", method: same, body: {{ max: 5B }}", authorizer.url());
    let gateway = gateway(&forward, &backend);
    for protocol in Protocol::ALL {
        let mut client = Client::connect(&gateway, protocol).await;
        let answer = client.send(Request::stream("/anonymous", &["he", "llo"])).await.unwrap();
        assert_eq!(answer.text(), "hello");
        let asked = authorizer.last();
        assert_eq!((&*asked.line, &asked.body[..]), ("POST / HTTP/1.1", &b"hello"[..]));
        let answer = client.send(Request::post("/anonymous", "hello!")).await.unwrap();
        assert_eq!((answer.status, answer.problem()), (413, "body-too-large".to_owned()));
    }
    assert_eq!(authorizer.requests().len(), Protocol::ALL.len());
}
