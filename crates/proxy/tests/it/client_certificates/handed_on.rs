//! Certificates that a trusted hop hands on in `Client-Cert` and `Client-Cert-Chain` (RFC 9440).

use portcullis_testkit::Protocol;

use super::*;

/// The value of a field with this certificate.
pub(super) fn field(der: &[u8]) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = der.chunks(3).flat_map(|group| {
        let bits = group.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
        let bits = bits << (8 * (3 - group.len()));
        (0..4).map(move |at| match at <= group.len() {
            true => char::from(DIGITS[(bits >> (18 - 6 * at)) as usize & 63]),
            false => '=',
        })
    });
    format!(":{}:", digits.collect::<String>())
}

/// Both listeners behind a hop at `trusted`.
fn behind(trusted: &str, backend: &Backend) -> String {
    format!(
        r#"
listeners:
  plain:
    bind: "127.0.0.1:0"
    trusted_proxies: ["{trusted}"]
    certificate_header: {{ ca: "file:clients.pem", crl: "file:lists.pem" }}
  tls:
    bind: "127.0.0.1:0"
    tls:
      certificates: [{{ cert: "file:cert.pem", key: "file:key.pem" }}]
      client: {{ ca: "file:clients.pem", mode: request }}
    trusted_proxies: ["{trusted}"]
    certificate_header: {{ ca: "file:clients.pem", crl: "file:lists.pem" }}
defaults: {{ on: [plain, tls] }}
auth:
  certs: {{ mtls: {{ allow: [{{ dns: "*.clients.test" }}] }} }}
routes:
  guarded: {{ match: /guarded, auth: certs, to: backend }}
backends:
  backend: "{}"
"#,
        backend.url()
    )
}

fn start(trusted: &str, backend: &Backend, ours: &Authority, lists: &str) -> TestGateway {
    setup(&behind(trusted, backend), ours).file("lists.pem", lists).start()
}

/// What is handed on, and what comes of it.
type Case<'a> = (&'a str, Vec<(&'a str, &'a str)>, &'a str);

#[tokio::test]
async fn a_trusted_hop_hands_certificates_on() {
    let backend = Backend::echo().await;
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let between = ours.under("between");
    let lists = [ours.revoking(&[7], 2090), between.revoking(&[], 2090)].concat();
    let gateway = start("127.0.0.1/32", &backend, &ours, &lists);
    let all = |identity: &Identity| -> Vec<String> {
        identity.der().iter().map(|one| field(one)).collect()
    };
    let own = |identity: &Identity| field(&identity.der()[0]);
    let good = own(&ours.client(1, |_| {}));
    let below = all(&between.client(2, |_| {}));
    let foreign = own(&theirs.client(3, |_| {}));
    let revoked = own(&ours.client(7, |_| {}));
    let expired = own(&ours.client(4, |leaf| leaf.not_after = date_time_ymd(2020, 1, 1)));
    let (leaf, chain) = ("client-cert", "client-cert-chain");
    let cases: &[Case<'_>] = &[
        ("good", vec![(leaf, &good)], "200 1.clients.test"),
        ("with a chain", vec![(leaf, &below[0]), (chain, &below[1])], "200 2.clients.test"),
        ("in another order", vec![(chain, &below[1]), (leaf, &below[0])], "200 2.clients.test"),
        ("nothing", vec![], "401 credentials-missing"),
        ("an alias", vec![("client_cert", &good)], "401 credentials-missing"),
        ("another alias", vec![("client.cert", &good)], "401 credentials-missing"),
        ("of another authority", vec![(leaf, &foreign)], "401 credentials-invalid"),
        ("expired", vec![(leaf, &expired)], "401 credentials-invalid"),
        ("revoked", vec![(leaf, &revoked)], "401 credentials-invalid"),
        ("two", vec![(leaf, &good), (leaf, &good)], "400 malformed-request"),
        ("no base64", vec![(leaf, ":a b:")], "400 malformed-request"),
        ("no byte sequence", vec![(leaf, good.trim_matches(':'))], "400 malformed-request"),
        ("PEM", vec![(leaf, "-----BEGIN CERTIFICATE-----")], "400 malformed-request"),
        ("a chain alone", vec![(chain, &below[1])], "400 malformed-request"),
        ("no certificate", vec![(leaf, ":YQ==:")], "401 credentials-invalid"),
    ];
    for protocol in Protocol::ALL {
        for (name, fields, expected) in cases {
            let mut client = Client::connect(&gateway, protocol).await;
            let mut request = Request::get("/guarded");
            for (name, value) in fields {
                request = request.field(name, value);
            }
            let before = backend.requests().len();
            let answer = client.send(request).await.unwrap();
            let seen = match answer.status {
                200 => {
                    let last = backend.last();
                    let cert = last.fields.iter().find(|(name, _)| name.contains("cert"));
                    assert_eq!(cert, None, "{name}");
                    format!("200 {}", last.field("portcullis-client").unwrap())
                }
                status => format!("{status} {}", answer.problem()),
            };
            assert_eq!(seen, *expected, "{name} {protocol:?}");
            let forwarded = usize::from(answer.status == 200);
            assert_eq!(backend.requests().len(), before + forwarded, "{name}");
        }
    }
}

#[tokio::test]
async fn nobody_else_is_believed() {
    let backend = Backend::echo().await;
    let ours = Authority::new("ours");
    let gateway = start("10.0.0.0/8", &backend, &ours, &ours.revoking(&[], 2090));
    let good = field(&ours.client(1, |_| {}).der()[0]);
    for protocol in Protocol::ALL {
        for name in ["client-cert", "client_cert", "client.cert"] {
            let mut client = Client::connect(&gateway, protocol).await;
            let request = Request::get("/guarded").field(name, &good);
            let answer = client.send(request).await.unwrap();
            assert_eq!((answer.status, &*answer.problem()), (401, "credentials-missing"));
        }
    }
    assert_eq!(backend.requests().len(), 0);
}

/// A hop's own certificate says who the hop is, and nothing of whoever is behind it.
#[tokio::test]
async fn a_hop_is_not_its_client() {
    let backend = Backend::echo().await;
    let ours = Authority::new("ours");
    let hop = ours.client(1, |_| {});
    let lists = ours.revoking(&[], 2090);
    for (trusted, expected) in [("127.0.0.1/32", 401), ("10.0.0.0/8", 200)] {
        let gateway = start(trusted, &backend, &ours, &lists);
        for alpn in ["http/1.1", "h2"] {
            let config = gateway.pki.client_as(Some(&hop), &[alpn]);
            let tls = handshake(&gateway, "tls", SERVER_NAME, &config).await.unwrap();
            let mut client = Client::over_tls(tls).await;
            let answer = client.send(Request::get("/guarded")).await.unwrap();
            assert_eq!(answer.status, expected, "{trusted}");
        }
    }
}
