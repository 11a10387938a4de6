//! Certificates of clients: who gets in with which, for how long, and that nothing leads around
//! being asked for one.

mod bypasses;
mod handed_on;
mod rotation;
mod tokens;

use std::sync::Arc;

use portcullis_testkit::pki::{Authority, Identity, SERVER_NAME};
use portcullis_testkit::{Backend, Client, Request, Setup, TestGateway, event, until};
use rcgen::{ExtendedKeyUsagePurpose, SanType, date_time_ymd};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Nothing of these tests ends by itself.
const FOREVER: &str = "keep_alive: 36500d";

/// A gateway whose listener `tls` asks for certificates as `client` says, and `open` for none.
fn config(client: &str, backend: &Backend) -> String {
    format!(
        r#"
listeners:
  plain: {{ bind: "127.0.0.1:0" }}
  open:
    bind: "127.0.0.1:0"
    tls: {{ certificates: [{{ cert: "file:cert.pem", key: "file:key.pem" }}] }}
  tls:
    bind: "127.0.0.1:0"
    {FOREVER}
    tls:
      certificates: [{{ cert: "file:cert.pem", key: "file:key.pem" }}]
      client: {{ {client} }}
defaults: {{ on: [plain] }}
auth:
  certs: {{ mtls: {{ allow: [{{ dns: "*.clients.test" }}] }} }}
  keys: {{ api_keys: {{ keys: "file:keys.yaml" }} }}
routes:
  guarded: {{ match: /guarded, on: tls, auth: certs, to: backend }}
  either: {{ match: /either, on: tls, auth: [keys, certs], to: backend }}
  public: {{ match: /public, public: "a test", on: [open, tls], to: backend }}
backends:
  backend: "{}"
"#,
        backend.url()
    )
}

fn setup(text: &str, authority: &Authority) -> Setup {
    Setup::new(text).file("clients.pem", &authority.pem()).file("keys.yaml", "[]")
}

/// How it goes with this certificate: the alert that ends the handshake, or the status of each
/// path and whom the backend was told.
async fn outcome(
    gateway: &TestGateway,
    config: &Arc<ClientConfig>,
    backend: &Backend,
    paths: &[&str],
) -> String {
    let mut tls = match handshake(gateway, "tls", SERVER_NAME, config).await {
        Ok(tls) => tls,
        Err(error) => return alert(&error),
    };
    // In TLS 1.3 the client has done its part before it learns what the gateway thinks of it.
    if config.alpn_protocols == [b"http/1.1"] {
        tls = match probe(tls).await {
            Ok(tls) => tls,
            Err(error) => return alert(&error),
        };
    }
    let mut client = Client::over_tls(tls).await;
    let mut seen = Vec::new();
    for path in paths {
        let before = backend.requests().len();
        seen.push(match client.send(Request::get(path)).await {
            Err(cut) => format!("{cut:?}"),
            Ok(answer) if answer.status != 200 => {
                assert_eq!(backend.requests().len(), before, "{path}");
                format!("{} {}", answer.status, answer.problem())
            }
            Ok(_) => match backend.last().field("portcullis-client") {
                Some(client) => format!("200 {client}"),
                None => "200".to_owned(),
            },
        });
    }
    seen.join(", ")
}

async fn handshake(
    gateway: &TestGateway,
    listener: &str,
    name: &'static str,
    config: &Arc<ClientConfig>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(gateway.address(listener)).await.unwrap();
    let name = ServerName::try_from(name).unwrap();
    event("a handshake", TlsConnector::from(Arc::clone(config)).connect(name, tcp)).await
}

/// Waits until the gateway has said something: that it has a ticket for us, or an alert.
async fn probe(mut tls: TlsStream<TcpStream>) -> std::io::Result<TlsStream<TcpStream>> {
    use tokio::io::AsyncWriteExt as _;
    tls.write_all(b"GET /none HTTP/1.1\r\nHost: localhost\r\n\r\n").await?;
    let mut answer = Vec::new();
    while !answer.windows(4).any(|end| end == b"\r\n\r\n") {
        let mut piece = [0; 4096];
        let n = event("an answer or an alert", tls.read(&mut piece)).await?;
        if n == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        answer.extend_from_slice(&piece[..n]);
    }
    // What is left of a problem's body is short and comes with its head.
    assert!(answer.ends_with(b"}"), "{}", answer.escape_ascii());
    Ok(tls)
}

fn alert(error: &std::io::Error) -> String {
    error.to_string().replace("received fatal alert: ", "")
}

#[tokio::test]
async fn who_gets_in_is_who_has_a_certificate_that_holds() {
    let backend = Backend::echo().await;
    let (ours, theirs) = (Authority::new("ours"), Authority::new("ours"));
    let between = ours.under("between");
    let lists = [ours.revoking(&[7], 2090), between.revoking(&[8], 2090)].concat();
    let client = r#"ca: "file:clients.pem", crl: "file:lists.pem""#;
    let gateway = setup(&config(client, &backend), &ours).file("lists.pem", &lists).start();
    let nul = |number| {
        ours.client(number, |leaf| {
            let names = ["admin.clients.test\0.evil.test", "a.clients.test"];
            let name = |name: &str| SanType::DnsName(name.to_owned().try_into().unwrap());
            leaf.subject_alt_names = names.map(name).to_vec();
        })
    };
    let cases: [(&str, Option<Identity>, &str); 10] = [
        ("good", Some(ours.client(1, |_| {})), "200 1.clients.test"),
        ("through an intermediate", Some(between.client(2, |_| {})), "200 2.clients.test"),
        ("none", None, "CertificateRequired"),
        ("of another authority", Some(theirs.client(3, |_| {})), "DecryptError"),
        (
            "expired",
            Some(ours.client(4, |leaf| leaf.not_after = date_time_ymd(2020, 1, 1))),
            "CertificateExpired",
        ),
        (
            "early",
            Some(ours.client(5, |leaf| leaf.not_before = date_time_ymd(2090, 1, 1))),
            "CertificateExpired",
        ),
        (
            "a server's",
            Some(ours.client(6, |leaf| {
                leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            })),
            "UnsupportedCertificate",
        ),
        ("revoked", Some(ours.client(7, |_| {})), "CertificateRevoked"),
        ("revoked by an intermediate", Some(between.client(8, |_| {})), "CertificateRevoked"),
        ("with a NUL", Some(nul(9)), "CertificateUnknown"),
    ];
    let mut failed = 0;
    for (name, identity, expected) in &cases {
        let h1 = gateway.pki.client_as(identity.as_ref(), &["http/1.1"]);
        assert_eq!(outcome(&gateway, &h1, &backend, &["/guarded"]).await, *expected, "{name}");
        let h2 = gateway.pki.client_as(identity.as_ref(), &["h2"]);
        let seen = outcome(&gateway, &h2, &backend, &["/guarded"]).await;
        assert_eq!(seen.starts_with("200"), expected.starts_with("200"), "{name}: {seen}");
        failed += if expected.starts_with("200") { 0 } else { 2 };
    }
    // The client knows before the gateway has counted it.
    let counted = || gateway.metric("portcullis_tls_handshake_failures_total{listener=\"tls\"}");
    until("all are counted", || counted() == Some(f64::from(failed))).await;
    assert_eq!(backend.requests().len(), 4);
}

#[tokio::test]
async fn where_a_certificate_is_only_requested_routes_refuse() {
    let backend = Backend::echo().await;
    let ours = Authority::new("ours");
    let gateway =
        setup(&config(r#"ca: "file:clients.pem", mode: request"#, &backend), &ours).start();
    let stranger = ours.client(2, |leaf| leaf.subject_alt_names = Vec::new());
    let paths = &["/public", "/guarded", "/either"];
    for alpn in ["http/1.1", "h2"] {
        let none = gateway.pki.client(&[alpn]);
        assert_eq!(
            outcome(&gateway, &none, &backend, paths).await,
            "200, 401 credentials-missing, 401 credentials-missing"
        );
        let stranger = gateway.pki.client_as(Some(&stranger), &[alpn]);
        assert_eq!(
            outcome(&gateway, &stranger, &backend, paths).await,
            "200, 401 credentials-invalid, 401 credentials-invalid"
        );
        let good = gateway.pki.client_as(Some(&ours.client(1, |_| {})), &[alpn]);
        assert_eq!(
            outcome(&gateway, &good, &backend, paths).await,
            "200, 200 1.clients.test, 200 1.clients.test"
        );
    }
}

/// A request that presents a credential is judged by that, whatever its connection has proven.
#[tokio::test]
async fn a_bad_credential_refuses_beside_a_good_certificate() {
    let backend = Backend::echo().await;
    let ours = Authority::new("ours");
    let gateway = setup(&config(r#"ca: "file:clients.pem""#, &backend), &ours).start();
    for alpn in ["http/1.1", "h2"] {
        let good = gateway.pki.client_as(Some(&ours.client(1, |_| {})), &[alpn]);
        let tls = handshake(&gateway, "tls", SERVER_NAME, &good).await.unwrap();
        let mut client = Client::over_tls(tls).await;
        let request = Request::get("/either").field("x-api-key", "pk_a_b");
        let answer = client.send(request).await.unwrap();
        assert_eq!((answer.status, &*answer.problem()), (401, "credentials-invalid"));
        let answer = client.send(Request::get("/either")).await.unwrap();
        assert_eq!(answer.status, 200);
    }
}

/// Where nothing says whether it was revoked, or what says so is out of date, nobody gets in.
#[tokio::test]
async fn a_list_that_does_not_tell_lets_nobody_in() {
    let backend = Backend::echo().await;
    let ours = Authority::new("ours");
    let between = ours.under("between");
    let client = |more: &str| format!(r#"ca: "file:clients.pem", crl: "file:lists.pem"{more}"#);
    let (direct, below) = (ours.client(1, |_| {}), between.client(2, |_| {}));
    for (what, list, more, expected) in [
        ("expired", ours.revoking(&[], 2020), "", ["UnknownCA", "UnknownCA"]),
        (
            "of the authority only",
            ours.revoking(&[], 2090),
            "",
            ["200 1.clients.test", "UnknownCA"],
        ),
        (
            "of the one between only",
            between.revoking(&[], 2090),
            ", crl_depth: leaf",
            ["UnknownCA", "200 2.clients.test"],
        ),
        (
            "of another of that name",
            Authority::new("ours").revoking(&[], 2090),
            "",
            ["HandshakeFailure", "HandshakeFailure"],
        ),
    ] {
        let text = config(&client(more), &backend);
        let gateway = setup(&text, &ours).file("lists.pem", &list).start();
        for (identity, expected) in [&direct, &below].into_iter().zip(expected) {
            let h1 = gateway.pki.client_as(Some(identity), &["http/1.1"]);
            let seen = outcome(&gateway, &h1, &backend, &["/guarded"]).await;
            assert_eq!(seen, expected, "{what}");
        }
    }
}

#[tokio::test]
async fn a_backend_is_told_the_certificate_if_it_wants_to() {
    let backend = Backend::echo().await;
    let ours = Authority::new("ours");
    let text = config(r#"ca: "file:clients.pem", mode: request"#, &backend);
    let url = format!("  backend: \"{}\"", backend.url());
    let told =
        format!("  backend: {{ endpoints: [\"{}\"], forward_certificate: true }}", backend.url());
    for (text, wanted) in [(text.clone(), false), (text.replace(&url, &told), true)] {
        let gateway = setup(&text, &ours).start();
        let identity = ours.client(1, |_| {});
        for (identity, alpn) in
            [(Some(&identity), "http/1.1"), (Some(&identity), "h2"), (None, "h2")]
        {
            let config = gateway.pki.client_as(identity, &[alpn]);
            let tls = handshake(&gateway, "tls", SERVER_NAME, &config).await.unwrap();
            let mut client = Client::over_tls(tls).await;
            let mut request = Request::get("/public");
            for name in [
                "client-cert",
                "Client_Cert",
                "client.cert",
                "client-cert-chain",
                "client_cert_chain",
            ] {
                request = request.field(&name.to_lowercase(), ":YQ==:");
            }
            assert_eq!(client.send(request).await.unwrap().status, 200);
            let seen: Vec<_> = backend.last().fields;
            let seen: Vec<_> = seen.into_iter().filter(|(name, _)| name.contains("cert")).collect();
            let expected = identity
                .filter(|_| wanted)
                .map(|identity| ("client-cert".to_owned(), handed_on::field(&identity.der()[0])));
            assert_eq!(seen, Vec::from_iter(expected));
        }
    }
}
