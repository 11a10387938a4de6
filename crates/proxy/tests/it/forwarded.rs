//! What a backend is told, and what a client cannot make it believe.

use portcullis_testkit::{Backend, Client, Protocol, Request, Setup};

use crate::to;

#[tokio::test]
async fn the_backend_learns_who_asked_and_how() {
    let backend = Backend::echo().await;
    let gateway = to(&backend).start();
    for protocol in Protocol::ALL {
        let mut client = Client::connect(&gateway, protocol).await;
        let request = Request::get("/").field("host", "Api.Example.com");
        let answer = client.send(request).await.unwrap();
        let seen = backend.last();
        let scheme = if protocol.is_tls() { "https" } else { "http" };
        assert_eq!(answer.status, 200, "{protocol:?}: {}", answer.text());
        assert_eq!(seen.field("host"), Some("api.example.com"), "{protocol:?}");
        assert_eq!(seen.field("x-forwarded-for"), Some("127.0.0.1"), "{protocol:?}");
        assert_eq!(seen.field("x-forwarded-proto"), Some(scheme), "{protocol:?}");
        assert_eq!(seen.field("x-forwarded-host"), Some("api.example.com"), "{protocol:?}");
        let id = seen.field("x-request-id").unwrap();
        assert_eq!(id.len(), 32, "{id}");
        assert_eq!(answer.field("x-request-id"), Some(id), "{protocol:?}");
        let parent = seen.field("traceparent").unwrap();
        assert_eq!((parent.len(), &parent[..3]), (55, "00-"), "{parent}");
    }
}

#[tokio::test]
async fn a_trace_is_continued() {
    let backend = Backend::echo().await;
    let gateway = to(&backend).start();
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    for protocol in Protocol::ALL {
        let mut client = Client::connect(&gateway, protocol).await;
        let request = Request::get("/").field("traceparent", parent).field("tracestate", "a=1");
        client.send(request).await.unwrap();
        let seen = backend.last();
        let sent: Vec<_> = seen.fields.iter().filter(|(name, _)| name == "traceparent").collect();
        assert_eq!(sent.len(), 1, "{protocol:?}");
        assert!(sent[0].1.starts_with("00-0af7651916cd43dd8448eb211c80319c-"), "{sent:?}");
        assert!(!sent[0].1.contains("b7ad6b7169203331"), "the gateway is a span of its own");
        assert_eq!(seen.field("tracestate"), Some("a=1"));
    }
}

#[tokio::test]
async fn what_the_gateway_says_cannot_be_said_by_a_client() {
    let backend = Backend::echo().await;
    let gateway = to(&backend).start();
    let forged = [
        "portcullis-client",
        "Portcullis-Tenant",
        "portcullis_auth",
        "portcullis.scopes",
        "PORTCULLIS-Anything",
        "x-forwarded-for",
        "x_forwarded_for",
        "x-forwarded.proto",
        "x-forwarded-host",
        "x-forwarded_host",
        "x-forwarded-port",
        "x-real-ip",
        "x_real_ip",
        "x-request-id",
        "x_request_id",
        "forwarded",
    ];
    for protocol in Protocol::ALL {
        let mut request = Request::get("/").field("x-innocent", "stays");
        for name in forged {
            let name = if protocol.is_h2() { name.to_ascii_lowercase() } else { name.to_owned() };
            request = request.field(&name, "forged");
        }
        let answer = Client::connect(&gateway, protocol).await.send(request).await.unwrap();
        assert_eq!(answer.status, 200, "{protocol:?}");
        let seen = backend.last();
        let forged: Vec<_> = seen.fields.iter().filter(|(_, value)| value == "forged").collect();
        assert!(forged.is_empty(), "{protocol:?}: {forged:?}");
        assert_eq!(seen.field("x-innocent"), Some("stays"));
        assert_eq!(seen.field("x-forwarded-for"), Some("127.0.0.1"));
    }
}

#[tokio::test]
async fn fields_of_one_connection_stay_on_it() {
    let backend = Backend::always(
        "HTTP/1.1 200 OK\r\nConnection: x-private\r\nX-Private: 1\r\nKeep-Alive: timeout=5\r\n\
         Proxy-Authenticate: Basic\r\nUpgrade: h2c\r\nContent-Length: 0\r\n\r\n",
    )
    .await;
    let gateway = to(&backend).start();
    let mut client = Client::connect(&gateway, Protocol::H1).await;
    let request = Request::get("/")
        .field("Connection", "keep-alive, x-hop")
        .field("X-Hop", "1")
        .field("Keep-Alive", "timeout=9")
        .field("TE", "gzip")
        .field("Upgrade", "websocket")
        .field("Proxy-Connection", "close");
    let answer = client.send(request).await.unwrap();
    for name in ["x-private", "keep-alive", "upgrade", "connection"] {
        assert_eq!(answer.field(name), None, "{name}");
    }
    let seen = backend.last();
    for name in ["x-hop", "keep-alive", "upgrade", "proxy-connection", "te"] {
        assert_eq!(seen.field(name), None, "{name}");
    }
}

#[tokio::test]
async fn a_trusted_hop_may_speak_for_others() {
    let backend = Backend::echo().await;
    let gateway = Setup::new(&format!(
        r#"
listeners:
  plain: {{ bind: "127.0.0.1:0", trusted_proxies: ["127.0.0.0/8", "10.0.0.0/8"] }}
routes:
  all: {{ match: /**, public: "a test", to: backend }}
backends: {{ backend: "{}" }}
"#,
        backend.url()
    ))
    .start();
    for protocol in [Protocol::H1, Protocol::H2] {
        let mut client = Client::connect(&gateway, protocol).await;
        let request = Request::get("/")
            .field("x-forwarded-for", "198.51.100.1, 203.0.113.7")
            .field("x-forwarded-for", "10.1.1.1")
            .field("x-request-id", "from-the-hop");
        let answer = client.send(request).await.unwrap();
        let seen = backend.last();
        let list = "198.51.100.1, 203.0.113.7, 10.1.1.1, 127.0.0.1";
        assert_eq!(seen.field("x-forwarded-for"), Some(list), "{protocol:?}");
        assert_eq!(seen.field("x-request-id"), Some("from-the-hop"), "{protocol:?}");
        assert_eq!(answer.field("x-request-id"), Some("from-the-hop"), "{protocol:?}");
    }
    let lines = gateway.stop();
    let logged = lines.iter().filter(|line| line.contains(r#""client":"203.0.113.7""#));
    assert_eq!(logged.count(), 2, "{lines:#?}");
}

#[tokio::test]
async fn the_backend_sees_the_host_it_wants() {
    for (host, expected) in
        [("preserve", "localhost"), ("backend", "ADDRESS"), ("api.internal", "api.internal")]
    {
        let backend = Backend::echo().await;
        let gateway = Setup::new(&format!(
            r#"
routes:
  all: {{ match: /**, public: "a test", to: backend }}
backends:
  backend: {{ endpoints: ["{}"], host: {host} }}
"#,
            backend.url()
        ))
        .start();
        Client::connect(&gateway, Protocol::H1).await.send(Request::get("/")).await.unwrap();
        let expected = expected.replace("ADDRESS", &backend.address.to_string());
        assert_eq!(backend.last().field("host"), Some(&*expected));
        assert_eq!(backend.last().field("x-forwarded-host"), Some("localhost"));
    }
}

#[tokio::test]
async fn crumbs_of_a_cookie_are_one_field_to_the_backend() {
    let backend = Backend::echo().await;
    let gateway = to(&backend).start();
    let mut client = Client::connect(&gateway, Protocol::H2).await;
    let request = Request::get("/").field("cookie", "a=1").field("cookie", "b=2");
    client.send(request).await.unwrap();
    assert_eq!(backend.last().field("cookie"), Some("a=1; b=2"));
}

#[tokio::test]
async fn the_verified_identity_is_told_and_the_credential_is_not() {
    let backend = Backend::echo().await;
    let gateway = Setup::new(&format!(
        r#"
auth: {{ partners: {{ api_keys: {{ keys: "file:keys.yaml" }} }} }}
routes:
  all: {{ match: /**, auth: partners, to: backend }}
backends: {{ backend: "{}" }}
"#,
        backend.url()
    ))
    .file("keys.yaml", KEYS)
    .start();
    for protocol in Protocol::ALL {
        let mut client = Client::connect(&gateway, protocol).await;
        let refused = client.send(Request::get("/")).await.unwrap();
        assert_eq!((refused.status, &*refused.problem()), (401, "credentials-missing"));
        let request = Request::get("/")
            .field("x-api-key", KEY)
            .field("portcullis-client", "root")
            .field("portcullis_tenant", "all");
        assert_eq!(client.send(request).await.unwrap().status, 200, "{protocol:?}");
        let seen = backend.last();
        let told: Vec<_> =
            seen.fields.iter().filter(|(n, _)| n.starts_with("portcullis")).collect();
        let told: Vec<_> = told.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        let expected = [
            "portcullis-client: acme",
            "portcullis-auth: partners",
            "portcullis-tenant: acme-eu",
            "portcullis-scopes: reports:read b",
        ];
        assert_eq!(told, expected, "{protocol:?}");
        assert_eq!(seen.field("x-api-key"), None, "{protocol:?}");
    }
    assert_eq!(backend.requests().len(), 4);
}

const KEY: &str = "pk_acme-1_4Kogz2wCj1GHTXhY3c7uchTN4lYPY06oJuh9x09hjj2";

const KEYS: &str = r#"
- id: acme-1
  hash: "blake3:12072b7fdeb28ff8e34647c33e8c24a79af7996195968f3aecda4eeee3ae9189"
  client: acme
  tenant: acme-eu
  scopes: ["reports:read", b]
"#;
