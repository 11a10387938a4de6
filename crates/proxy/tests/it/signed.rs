//! Requests that are signed (RFC 9421), and webhooks, over each protocol.

use aws_lc_rs::{digest, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portcullis_testkit::gateway::WALL;
use portcullis_testkit::{Backend, Client, Protocol, Request, Setup};

const SECRET: [u8; 32] = [9; 32];

fn setup(backend: &Backend) -> Setup {
    let config = format!(
        r#"
auth: {{ shops: {{ signature: {{ keys: "file:signers.yaml", body_max: 64KiB }} }} }}
routes:
  all: {{ match: /**, auth: shops, to: backend }}
backends: {{ backend: "{}" }}
"#,
        backend.url()
    );
    let secret = STANDARD.encode(SECRET);
    let keys =
        format!("- {{ id: k1, algorithm: hmac-sha256, secret: \"{secret}\", client: acme }}");
    Setup::new(&config).file("signers.yaml", &keys)
}

/// As a client signs it, by the target that it writes; with this body.
fn signed(path: &str, query: &str, body: &str, nonce: &str) -> Request {
    signed_for(path, query, body, nonce, body)
}

fn signed_for(path: &str, query: &str, body: &str, nonce: &str, sent: &str) -> Request {
    let digest = STANDARD.encode(digest::digest(&digest::SHA512, body.as_bytes()));
    let digest = format!("sha-512=:{digest}:");
    let created = WALL.as_secs();
    let input = format!(
        "(\"@method\" \"@authority\" \"@path\" \"@query\" \"content-digest\")\
         ;created={created};keyid=\"k1\";nonce=\"{nonce}\""
    );
    let base = format!(
        "\"@method\": POST\n\"@authority\": api.example.com\n\"@path\": {path}\n\
         \"@query\": ?{query}\n\"content-digest\": {digest}\n\"@signature-params\": {input}"
    );
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &SECRET), base.as_bytes());
    Request::post(&format!("{path}?{query}"), sent.to_owned())
        .field("host", "api.example.com")
        .field("content-digest", &digest)
        .field("signature-input", &format!("sig={input}"))
        .field("signature", &format!("sig=:{}:", STANDARD.encode(tag)))
}

#[tokio::test]
async fn a_signed_body_reaches_the_backend_and_another_does_not() {
    let backend = Backend::echo().await;
    let gateway = setup(&backend).start();
    let body = "x".repeat(40_000);
    for (n, protocol) in Protocol::ALL.into_iter().enumerate() {
        let mut client = Client::connect(&gateway, protocol).await;
        // The backend gets the canonical path; what was signed is the one that was written.
        let request = signed("/%6Frders/./7", "a=%62", &body, &format!("good-{n}"));
        let answer = client.send(request).await.unwrap();
        assert_eq!(answer.status, 200, "{protocol:?}: {}", answer.text());
        let seen = backend.last();
        assert!(seen.line.starts_with("POST /orders/7?a=%62 "), "{}", seen.line);
        assert_eq!(seen.body, body.as_bytes());
        assert_eq!(seen.field("portcullis-client"), Some("acme"));
        assert_eq!([seen.field("signature"), seen.field("signature-input")], [None, None]);
        assert!(seen.field("content-digest").is_some());
        let before = backend.requests().len();
        let refused = async |client: &mut Client, request: Request| {
            let answer = client.send(request).await.unwrap();
            (answer.status, answer.problem())
        };
        let again = signed("/%6Frders/./7", "a=%62", &body, &format!("good-{n}"));
        let invalid = (401, "credentials-invalid".to_owned());
        assert_eq!(refused(&mut client, again).await, invalid, "{protocol:?}: replayed");
        let other = body.replacen('x', "y", 1);
        let forged = signed_for("/orders", "a=b", &body, &format!("other-{n}"), &other);
        let mut client = Client::connect(&gateway, protocol).await;
        assert_eq!(refused(&mut client, forged).await, invalid, "{protocol:?}: another body");
        let long = signed("/orders", "a=b", &"x".repeat(70_000), &format!("long-{n}"));
        let mut client = Client::connect(&gateway, protocol).await;
        assert_eq!(refused(&mut client, long).await.0, 413, "{protocol:?}: too long");
        assert_eq!(backend.requests().len(), before, "{protocol:?}");
    }
}

/// As a sender of Standard Webhooks makes it, with this for a body; `sent` is what arrives of it.
fn webhook(id: &str, body: &str, sent: &[&str]) -> Request {
    let time = WALL.as_secs();
    let message = format!("{id}.{time}.{body}");
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &SECRET), message.as_bytes());
    Request::stream("/hooks", sent)
        .field("webhook-id", id)
        .field("webhook-timestamp", &time.to_string())
        .field("webhook-signature", &format!("v1,{}", STANDARD.encode(tag)))
}

/// In pieces of no known length, since the body has to be there as a whole before it is compared.
#[tokio::test]
async fn a_webhook_reaches_the_backend_once_and_another_does_not() {
    let backend = Backend::echo().await;
    let config = format!(
        r#"
auth:
  senders:
    hmac: {{ keys: "file:senders.yaml", format: standard_webhooks, body_max: 64KiB }}
routes: {{ hooks: {{ match: /hooks, auth: senders, to: backend }} }}
backends: {{ backend: "{}" }}
"#,
        backend.url()
    );
    let secret = STANDARD.encode(SECRET);
    let keys = format!("- {{ id: k1, secret_base64: \"whsec_{secret}\", client: acme }}");
    let gateway = Setup::new(&config).file("senders.yaml", &keys).start();
    let (first, second) = ("x".repeat(30_000), "y".repeat(10_000));
    let body = format!("{first}{second}");
    for (n, protocol) in Protocol::ALL.into_iter().enumerate() {
        let ask = async |request: Request| {
            let mut client = Client::connect(&gateway, protocol).await;
            let answer = client.send(request).await.unwrap();
            (answer.status, answer.problem())
        };
        let good = || webhook(&format!("m{n}"), &body, &[&first, &second]);
        assert_eq!(ask(good()).await, (200, String::new()), "{protocol:?}");
        let seen = backend.last();
        assert_eq!(seen.body, body.as_bytes());
        assert_eq!(seen.field("portcullis-client"), Some("acme"));
        assert_eq!(seen.field("webhook-signature"), None);
        assert_eq!(seen.field("webhook-id"), Some(&*format!("m{n}")));
        let before = backend.requests().len();
        let invalid = (401, "credentials-invalid".to_owned());
        assert_eq!(ask(good()).await, invalid, "{protocol:?}: replayed");
        let forged = webhook(&format!("f{n}"), &body, &[&second, &first]);
        assert_eq!(ask(forged).await, invalid, "{protocol:?}: another body");
        let shorter = webhook(&format!("s{n}"), &body, &[&first]);
        assert_eq!(ask(shorter).await, invalid, "{protocol:?}: a part of the body");
        let long = webhook(&format!("l{n}"), "", &[&"x".repeat(70_000)]);
        assert_eq!(ask(long).await.0, 413, "{protocol:?}: too long");
        assert_eq!(backend.requests().len(), before, "{protocol:?}");
    }
}
