use expect_test::{Expect, expect};
use portcullis_core::exchange::ClientCertificate;
use portcullis_core::services::Services as _;

use super::*;
use crate::decide::{NoBody, Verdict, decide};
use crate::snapshot::Snapshot;
use crate::testing::{Files, World, compiled, exchange, now_or_never};

fn snapshot() -> Snapshot {
    compiled(
        r#"
listeners: { http: { bind: "127.0.0.1:8080" } }
auth:
  idp: { token: { header: x-token } }
  also: { token: { header: x-token } }
  keys: { token: { header: x-key } }
  far: { remote: { header: x-far } }
defaults: { auth: [idp, keys, far] }
routes:
  any: { match: /any, to: one }
  both: { match: /both, auth: [idp, also], to: one }
  maybe: { match: /maybe, auth: { optional: idp, reason: better with }, to: one }
  kept: { match: /kept, auth: idp, forward_credential: true, to: one }
backends: { one: "http://10.0.0.1" }
"#,
        &Files::default(),
    )
    .ok()
}

fn ask(snapshot: &Snapshot, world: &World, request: &str) -> String {
    ask_with(snapshot, world, request, None)
}

/// On a connection with a certificate for this name.
fn ask_with(snapshot: &Snapshot, world: &World, request: &str, name: Option<&str>) -> String {
    let mut exchange = exchange(snapshot, request);
    exchange.certificate = name.map(|name| {
        let common_name = Some(name.to_owned());
        Arc::new(ClientCertificate { common_name, ..ClientCertificate::default() })
    });
    let decision = now_or_never(decide(snapshot, &mut exchange, &mut NoBody, world, &mut ()));
    let fields = |exchange: &Exchange| {
        let names = exchange.request.fields.iter().map(|(name, _)| name.to_vec());
        names.map(|name| String::from_utf8(name).unwrap()).collect::<Vec<_>>().join(" ")
    };
    match decision.verdict {
        Verdict::Forward { .. } => {
            let caller = exchange.identity.as_ref().map_or("nobody", |identity| &identity.key);
            format!("{caller}, sending on [{}]", fields(&exchange))
        }
        Verdict::Refuse(problem) => {
            format!("{} {:?} {}", problem.code.name, problem.fields, problem.detail)
        }
        other => format!("{other:?}"),
    }
}

#[track_caller]
fn check(requests: &[&str], expected: &Expect) {
    let (snapshot, world) = (snapshot(), World::default());
    let all: Vec<String> = requests
        .iter()
        .map(|request| format!("{request}\n  {}\n", ask(&snapshot, &world, request)))
        .collect();
    expected.assert_eq(&all.concat());
}

#[test]
fn exactly_one_credential_and_a_good_one() {
    check(
        &[
            "GET http://h/any",
            "GET http://h/any x-token:good-me",
            "GET http://h/any x-key:good-me",
            "GET http://h/any x-far:good-me",
            "GET http://h/any x-token:bad",
            "GET http://h/any x-far:bad",
            "GET http://h/any x-token:foreign",
            "GET http://h/any x-token:good-me x-key:good-me",
            "GET http://h/any x-token:good-me x-key:bad",
            "GET http://h/any x-token:good-me x-key:foreign",
            "GET http://h/any x-token:good-me authorization:a authorization:b",
            "GET http://h/any x-token:several",
        ],
        &expect![[r#"
            GET http://h/any
              credentials-missing [("www-authenticate", "Token realm=\"idp\", Token realm=\"keys\", Remote")] 
            GET http://h/any x-token:good-me
              idp/me, sending on []
            GET http://h/any x-key:good-me
              keys/me, sending on []
            GET http://h/any x-far:good-me
              far/me, sending on []
            GET http://h/any x-token:bad
              credentials-invalid [("www-authenticate", "Token realm=\"idp\", Token realm=\"keys\", Remote")] idp does not know `bad`
            GET http://h/any x-far:bad
              credentials-invalid [("www-authenticate", "Token realm=\"idp\", Token realm=\"keys\", Remote")] far does not know `bad`
            GET http://h/any x-token:foreign
              credentials-invalid [("www-authenticate", "Token realm=\"idp\", Token realm=\"keys\", Remote")] no authenticator of this route knows the credential
            GET http://h/any x-token:good-me x-key:good-me
              credentials-ambiguous [] 
            GET http://h/any x-token:good-me x-key:bad
              credentials-ambiguous [] 
            GET http://h/any x-token:good-me x-key:foreign
              credentials-ambiguous [] 
            GET http://h/any x-token:good-me authorization:a authorization:b
              credentials-ambiguous [] 
            GET http://h/any x-token:several
              credentials-ambiguous [] 
        "#]],
    );
}

/// Whether a request presents a credential or not, the page that it was made by may have had one.
#[test]
fn no_backend_reads_a_credential_in_the_referer() {
    let (snapshot, world) = (snapshot(), World::default());
    for (request, expected) in [
        ("GET http://h/any x-token:good-me referer:http://h/p?token=1&b=2", Some("http://h/p?b=2")),
        ("GET http://h/kept x-token:good-me referer:http://h/p?t%6Fken=1", Some("http://h/p")),
        ("GET http://h/maybe referer:http://h/p?a&token=1", Some("http://h/p?a")),
        ("GET http://h/maybe referer:http://h/p?a", Some("http://h/p?a")),
        ("GET http://h/maybe", None),
    ] {
        let mut exchange = exchange(&snapshot, request);
        let decision = now_or_never(decide(&snapshot, &mut exchange, &mut NoBody, &world, &mut ()));
        assert!(matches!(decision.verdict, Verdict::Forward { .. }), "{request}");
        assert_eq!(exchange.request.fields.get(b"referer"), expected.map(str::as_bytes));
    }
}

#[test]
fn one_credential_may_be_for_either_of_two() {
    check(
        &["GET http://h/both x-token:good-me", "GET http://h/both x-token:bad"],
        &expect![[r#"
        GET http://h/both x-token:good-me
          idp/me, sending on []
        GET http://h/both x-token:bad
          credentials-invalid [("www-authenticate", "Token realm=\"idp\", Token realm=\"also\"")] also does not know `bad`
    "#]],
    );
}

#[test]
fn optional_means_left_out_not_bad() {
    check(
        &[
            "GET http://h/maybe",
            "GET http://h/maybe x-token:good-me",
            "GET http://h/maybe x-token:bad",
            "GET http://h/kept x-token:good-me",
        ],
        &expect![[r#"
            GET http://h/maybe
              nobody, sending on []
            GET http://h/maybe x-token:good-me
              idp/me, sending on []
            GET http://h/maybe x-token:bad
              credentials-invalid [("www-authenticate", "Token realm=\"idp\"")] idp does not know `bad`
            GET http://h/kept x-token:good-me
              idp/me, sending on [x-token]
        "#]],
    );
}

#[test]
fn many_failures_slow_an_address_and_never_a_known_credential() {
    let (snapshot, world) = (snapshot(), World::default());
    let code =
        |request: &str| ask(&snapshot, &world, request).split(' ').next().unwrap().to_owned();
    for _ in 0..20 {
        assert_eq!(code("GET http://h/any x-far:bad"), "credentials-invalid");
    }
    assert_eq!(code("GET http://h/any x-far:bad"), "authentication-slowed");
    // Nobody is asked any more, not even about a credential that would have turned out good.
    let asked = world.asked.borrow().len();
    assert_eq!(code("GET http://h/any x-far:good-me"), "authentication-slowed");
    assert_eq!(world.asked.borrow().len(), asked);
    assert_eq!(code("GET http://h/any x-token:good-me"), "idp/me,");
    let mut elsewhere = exchange(&snapshot, "GET http://h/any x-far:good-me");
    elsewhere.client_ip = "198.51.100.9".parse().unwrap();
    let decision = now_or_never(decide(&snapshot, &mut elsewhere, &mut NoBody, &world, &mut ()));
    assert!(matches!(decision.verdict, Verdict::Forward { .. }));
    assert_eq!(elsewhere.now, world.now());
}

/// Who answers for somebody else's no answers no oftener than others.
#[test]
fn a_refusal_in_the_authorizers_own_words_is_a_failure_too() {
    let (snapshot, world) = (snapshot(), World::default());
    let ask = |request: &str| ask(&snapshot, &world, request);
    for _ in 0..20 {
        let answer = ask("GET http://h/any x-far:refused-in-own-words");
        assert!(answer.starts_with("Reply("), "{answer}");
    }
    let answer = ask("GET http://h/any x-far:refused-in-own-words");
    assert!(answer.starts_with("authentication-slowed"), "{answer}");
}

#[test]
fn addresses_of_one_ipv6_network_count_as_one() {
    let key = |text: &str| address_key(text.parse().unwrap());
    assert_eq!(key("2001:db8::1"), key("2001:db8::ffff:1"));
    assert_ne!(key("2001:db8::1"), key("2001:db8:0:1::1"));
    assert_ne!(key("10.0.0.1"), key("10.0.0.2"));
    assert_eq!(key("10.0.0.1"), key("::ffff:10.0.0.1"));
}

/// What the request itself presents decides; of several that go by the certificate the first that
/// takes it.
#[test]
fn a_certificate_counts_where_nothing_is_presented() {
    let text = r#"
listeners:
  http:
    bind: "127.0.0.1:8080"
    trusted_proxies: ["10.0.0.0/8"]
    certificate_header: { ca: "file:ca.pem" }
auth:
  idp: { token: { header: x-token } }
  shops: { certificate: { common_name: shop } }
  banks: { certificate: { common_name: bank } }
routes:
  any: { match: /any, auth: [idp, shops, banks], to: one }
  only: { match: /only, auth: [shops, banks], to: one }
backends: { one: "http://10.0.0.1" }
"#;
    let key = rcgen::KeyPair::generate().unwrap();
    let authority = rcgen::CertificateParams::new(Vec::new()).unwrap().self_signed(&key).unwrap();
    let mut files = Files::default();
    files.0.insert("file:ca.pem".to_owned(), authority.pem().into_bytes());
    let (snapshot, world) = (compiled(text, &files).ok(), World::default());
    let mut seen = String::new();
    for request in
        ["/any", "/any x-token:good-me", "/any x-token:bad", "/any x-token:foreign", "/only"]
    {
        for name in [None, Some("shop"), Some("bank"), Some("nobody")] {
            let request = format!("GET http://h{request}");
            let answer = ask_with(&snapshot, &world, &request, name);
            seen += &format!("{request} {name:?}\n  {}\n", answer.trim_end());
        }
    }
    expect![[r#"
        GET http://h/any None
          credentials-missing [("www-authenticate", "Token realm=\"idp\"")]
        GET http://h/any Some("shop")
          shops/shop, sending on []
        GET http://h/any Some("bank")
          banks/bank, sending on []
        GET http://h/any Some("nobody")
          credentials-invalid [("www-authenticate", "Token realm=\"idp\"")] banks
        GET http://h/any x-token:good-me None
          idp/me, sending on []
        GET http://h/any x-token:good-me Some("shop")
          idp/me, sending on []
        GET http://h/any x-token:good-me Some("bank")
          idp/me, sending on []
        GET http://h/any x-token:good-me Some("nobody")
          idp/me, sending on []
        GET http://h/any x-token:bad None
          credentials-invalid [("www-authenticate", "Token realm=\"idp\"")] idp does not know `bad`
        GET http://h/any x-token:bad Some("shop")
          credentials-invalid [("www-authenticate", "Token realm=\"idp\"")] idp does not know `bad`
        GET http://h/any x-token:bad Some("bank")
          credentials-invalid [("www-authenticate", "Token realm=\"idp\"")] idp does not know `bad`
        GET http://h/any x-token:bad Some("nobody")
          credentials-invalid [("www-authenticate", "Token realm=\"idp\"")] idp does not know `bad`
        GET http://h/any x-token:foreign None
          credentials-invalid [("www-authenticate", "Token realm=\"idp\"")] no authenticator of this route knows the credential
        GET http://h/any x-token:foreign Some("shop")
          credentials-invalid [("www-authenticate", "Token realm=\"idp\"")] no authenticator of this route knows the credential
        GET http://h/any x-token:foreign Some("bank")
          credentials-invalid [("www-authenticate", "Token realm=\"idp\"")] no authenticator of this route knows the credential
        GET http://h/any x-token:foreign Some("nobody")
          credentials-invalid [("www-authenticate", "Token realm=\"idp\"")] no authenticator of this route knows the credential
        GET http://h/only None
          credentials-missing []
        GET http://h/only Some("shop")
          shops/shop, sending on []
        GET http://h/only Some("bank")
          banks/bank, sending on []
        GET http://h/only Some("nobody")
          credentials-invalid [] banks
    "#]].assert_eq(&seen);
}

/// A credential that is concealed is still there for whoever exchanges it, if it is a token.
#[test]
fn the_access_token_is_kept_for_an_exchange() {
    let (snapshot, world) = (snapshot(), World::default());
    for (request, expected) in [
        ("GET http://h/any x-token:good-me", Some("good-me")),
        ("GET http://h/both x-token:good-me", Some("good-me")),
        ("GET http://h/kept x-token:good-me", Some("good-me")),
        ("GET http://h/any x-far:good-me", None),
        ("GET http://h/maybe", None),
    ] {
        let mut exchange = exchange(&snapshot, request);
        let decision = now_or_never(decide(&snapshot, &mut exchange, &mut NoBody, &world, &mut ()));
        assert!(matches!(decision.verdict, Verdict::Forward { .. }), "{request}");
        let token = exchange.access_token.map(|span| span.of(exchange.request.fields.bytes()));
        assert_eq!(token, expected.map(str::as_bytes), "{request}");
    }
}
