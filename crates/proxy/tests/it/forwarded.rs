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
        "x-forwarded-prefix",
        "X_Forwarded_Prefix",
        "x-forwarded.ssl",
        "x-forwarded",
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

/// Believes this machine and 10.0.0.0/8; the backend wants `Forwarded` too.
fn behind_hops(backend: &Backend) -> Setup {
    Setup::new(&format!(
        r#"
listeners:
  plain: {{ bind: "127.0.0.1:0", trusted_proxies: ["127.0.0.0/8", "10.0.0.0/8"] }}
routes:
  all: {{ match: /**, public: "a test", to: backend }}
backends:
  backend: {{ endpoints: ["{}"], forwarded: true }}
"#,
        backend.url()
    ))
}

#[tokio::test]
async fn what_a_trusted_hop_says_of_the_request_is_passed_on() {
    let backend = Backend::echo().await;
    let gateway = behind_hops(&backend).start();
    for protocol in [Protocol::H1, Protocol::H2] {
        let mut client = Client::connect(&gateway, protocol).await;
        let request = Request::get("/")
            .field("x-forwarded-for", "192.0.2.1")
            .field("x-forwarded-proto", "https")
            .field("x-forwarded-host", "Shop.example:8443")
            .field("x-forwarded-port", "8443")
            .field("x-forwarded-prefix", "/shop")
            .field("forwarded", "for=203.0.113.9;proto=http;host=other.example");
        client.send(request).await.unwrap();
        let seen = backend.last();
        for (name, expected) in [
            ("x-forwarded-for", "192.0.2.1, 127.0.0.1"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "shop.example:8443"),
            ("x-forwarded-port", "8443"),
            ("x-forwarded-prefix", "/shop"),
            ("forwarded", r#"for=192.0.2.1;proto=https;host="shop.example:8443", for=127.0.0.1"#),
        ] {
            let values: Vec<_> = seen.fields.iter().filter(|(n, _)| n == name).collect();
            assert_eq!(values, [&(name.to_owned(), expected.to_owned())], "{protocol:?}");
        }
        let odd = Request::get("/")
            .field("x-forwarded-proto", "https, http")
            .field("x-forwarded-host", "a.example, b.example")
            .field("x-forwarded-port", "http");
        client.send(odd).await.unwrap();
        let seen = backend.last();
        assert_eq!(seen.field("x-forwarded-proto"), Some("http"), "{protocol:?}");
        assert_eq!(seen.field("x-forwarded-host"), Some("localhost"), "{protocol:?}");
        assert_eq!(seen.field("x-forwarded-port"), None, "{protocol:?}");
        let element = "for=127.0.0.1;proto=http;host=localhost";
        assert_eq!(seen.field("forwarded"), Some(element), "{protocol:?}");
    }
}

#[tokio::test]
async fn a_trusted_hop_may_speak_by_forwarded() {
    let backend = Backend::echo().await;
    let gateway = behind_hops(&backend).start();
    for protocol in [Protocol::H1, Protocol::H2] {
        let mut client = Client::connect(&gateway, protocol).await;
        let request = Request::get("/")
            .field(
                "forwarded",
                "for=10.0.0.9, for=\"[2001:db8::17]:47011\";proto=https;host=a.example",
            )
            .field("forwarded", "for=10.1.1.1;by=_edge");
        client.send(request).await.unwrap();
        let seen = backend.last();
        let list = "10.0.0.9, 2001:db8::17, 10.1.1.1, 127.0.0.1";
        assert_eq!(seen.field("x-forwarded-for"), Some(list), "{protocol:?}");
        assert_eq!(seen.field("x-forwarded-proto"), Some("https"), "{protocol:?}");
        assert_eq!(seen.field("x-forwarded-host"), Some("a.example"), "{protocol:?}");
        let elements = "for=10.0.0.9, for=\"[2001:db8::17]\";proto=https;host=a.example, \
                        for=10.1.1.1, for=127.0.0.1";
        assert_eq!(seen.field("forwarded"), Some(elements), "{protocol:?}");
    }
    let lines = gateway.stop();
    let logged = lines.iter().filter(|line| line.contains(r#""client":"2001:db8::17""#));
    assert_eq!(logged.count(), 2, "{lines:#?}");
}

#[tokio::test]
async fn a_backend_that_wants_forwarded_gets_what_the_gateway_saw() {
    let backend = Backend::echo().await;
    let gateway = Setup::new(&format!(
        r#"
routes:
  all: {{ match: /**, public: "a test", to: backend }}
backends:
  backend: {{ endpoints: ["{}"], forwarded: true }}
"#,
        backend.url()
    ))
    .start();
    for protocol in Protocol::ALL {
        let scheme = if protocol.is_tls() { "https" } else { "http" };
        for (host, written) in [("localhost", "localhost"), ("localhost:81", "\"localhost:81\"")] {
            let mut client = Client::connect(&gateway, protocol).await;
            let request =
                Request::get("/").field("host", host).field("forwarded", "for=203.0.113.9");
            client.send(request).await.unwrap();
            let expected = format!("for=127.0.0.1;proto={scheme};host={written}");
            assert_eq!(backend.last().field("forwarded"), Some(&*expected), "{protocol:?}");
        }
    }
}

#[tokio::test]
async fn via_names_the_gateway_to_backends_and_not_to_clients() {
    let backend =
        Backend::always("HTTP/1.1 200 OK\r\nVia: 1.1 cache.internal\r\nContent-Length: 0\r\n\r\n")
            .await;
    let gateway = to(&backend).start();
    for protocol in Protocol::ALL {
        let mut client = Client::connect(&gateway, protocol).await;
        let answer = client.send(Request::get("/").field("via", "1.0 edge")).await.unwrap();
        let seen = backend.last();
        let via: Vec<_> = seen.fields.iter().filter(|(name, _)| name == "via").collect();
        let ours = if protocol.is_h2() { "2 portcullis" } else { "1.1 portcullis" };
        let via: Vec<_> = via.iter().map(|(_, value)| &**value).collect();
        assert_eq!(via, ["1.0 edge", ours], "{protocol:?}");
        let via: Vec<_> = answer.fields.iter().filter(|(name, _)| name == "via").collect();
        assert_eq!(via, [&("via".to_owned(), "1.1 cache.internal".to_owned())], "{protocol:?}");
    }
}

#[tokio::test]
async fn a_request_that_goes_in_circles_is_a_508() {
    let backend = Backend::echo().await;
    let gateway = to(&backend).start();
    let circle = format!("http://{}", gateway.address("plain"));
    gateway.swap(&crate::everything_to(&backend).replace(&backend.url(), &circle));
    gateway.settle().await;
    let mut client = Client::connect(&gateway, Protocol::H1).await;
    let answer = client.send(Request::get("/")).await.unwrap();
    assert_eq!((answer.status, &*answer.problem()), (508, "loop-detected"));
    assert_eq!(backend.connections(), 0);
    drop(client);
    let lines = gateway.stop();
    let passes = lines.iter().filter(|line| line.contains(r#""route":"everything""#));
    assert_eq!(passes.count(), 12, "{lines:#?}");
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

/// AK-02: whoever reads the log, the backend, or what the gateway itself answers has no key.
#[tokio::test]
async fn a_key_in_the_query_is_seen_by_nobody_else() {
    let backend = Backend::echo().await;
    let config = |more: &str| {
        let url = backend.url();
        format!(
            r#"
auth: {{ partners: {{ api_keys: {{ keys: "file:keys.yaml", query: api_key }} }} }}
routes:
  all: {{ match: /**, auth: partners, to: backend{more} }}
backends: {{ backend: "{url}" }}
"#
        )
    };
    let gateway = Setup::new(&config("")).file("keys.yaml", KEYS).start();
    let referer = format!("https://shop.example/?page=2&api_key={KEY}");
    let good = format!("/orders?page=2&api_key={KEY}");
    let bad = format!("/orders?api_key={KEY}x");
    for protocol in Protocol::ALL {
        let mut client = Client::connect(&gateway, protocol).await;
        let request = Request::get(&good).field("referer", &referer);
        assert_eq!(client.send(request).await.unwrap().status, 200, "{protocol:?}");
        let seen = format!("{:?}", backend.last());
        assert!(seen.contains("/orders?page=2 HTTP"), "{protocol:?}: {seen}");
        assert!(!seen.contains("pk_acme"), "{protocol:?}: {seen}");
        let refused = client.send(Request::get(&bad)).await.unwrap();
        assert_eq!((refused.status, &*refused.problem()), (401, "credentials-invalid"));
        assert!(!format!("{refused:?}").contains("pk_acme"), "{refused:?}");
    }
    let log = gateway.stop();
    assert_eq!(log.len(), 2 * Protocol::ALL.len());
    assert!(!log.concat().contains("pk_acme"), "{log:?}");

    let gateway = Setup::new(&config(", forward_credential: true")).file("keys.yaml", KEYS).start();
    let mut client = Client::connect(&gateway, Protocol::ALL[0]).await;
    client.send(Request::get(&good)).await.unwrap();
    assert!(backend.last().line.contains(KEY), "who asks for it gets it");
}

const KEY: &str = "pk_acme-1_4Kogz2wCj1GHTXhY3c7uchTN4lYPY06oJuh9x09hjj2";

const KEYS: &str = r#"
- id: acme-1
  hash: "blake3:12072b7fdeb28ff8e34647c33e8c24a79af7996195968f3aecda4eeee3ae9189"
  client: acme
  tenant: acme-eu
  scopes: ["reports:read", b]
"#;
