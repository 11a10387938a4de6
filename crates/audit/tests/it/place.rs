//! Running an audit of a text.

use std::collections::HashMap;
use std::sync::Arc;

use portcullis_audit::{AuditError, Makers, Options, Report, Subject, audit};
use portcullis_config::Source;
use portcullis_core::registry::Sources;
use portcullis_policies::auth::api_keys::generate;
use portcullis_policies::auth::basic::hash_password;
use portcullis_proxy::Clock;

/// Nothing can be read but this.
#[derive(Default)]
pub(crate) struct Files(HashMap<String, Arc<[u8]>>);

impl Sources for Files {
    fn read(&self, reference: &str) -> Result<Arc<[u8]>, String> {
        self.0.get(reference).cloned().ok_or_else(|| format!("there is no {reference}"))
    }
}

pub(crate) const MAKERS: Makers = Makers {
    api_key: |random, id| {
        let key = generate(random, id, "audit").ok()?;
        Some((key.text, key.entry.hash))
    },
    password: |salt, password| hash_password(password, salt).ok(),
};

pub(crate) fn run(text: &str, quick: bool) -> Result<Report, AuditError> {
    let texts = vec![Source { name: "gateway.yaml".to_owned(), text: text.to_owned() }];
    let files = Files::default();
    let registry = portcullis_policies::registry();
    let subject = Subject { texts, files: &files, registry, makers: MAKERS };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.unwrap_or_else(|error| panic!("{error}"));
    let local = tokio::task::LocalSet::new();
    let options = Options { quick, workers: 1 };
    local.block_on(&runtime, audit(subject, options, Clock::real().now().wall))
}

/// Every kind of authentication that [`CONFIG`] does not have, and what can be required.
pub(crate) const OTHERS: &str = r#"
listeners:
  http: { bind: "127.0.0.1:8080" }
  machines:
    bind: "127.0.0.1:8081"
    trusted_proxies: ["10.0.0.0/8"]
    certificate_header: { ca: "file:ca.pem" }
auth:
  idp: { jwt: { issuer: "https://idp.example/", audience: [app], tenant: "claim:org" } }
  opaque: { introspection: { issuer: "https://tokens.example", client: { id: g, secret: "file:s" } } }
  machines: { mtls: { allow: [{ spiffe: "spiffe://example.org/ns/*/sa/*" }] } }
  people:
    oidc: { issuer: "https://login.example/", client: { id: g, secret: "file:s" }, cookie_key: ["file:k"] }
  clerks: { basic: { users: "file:users.yaml" } }
  tills: { signature: { keys: "file:signers.yaml" } }
  authorizer: { forward: { url: "http://authorizer.internal/", copy_headers: [x-user, x-role] } }
defaults: { on: http }
routes:
  reports:
    match: "/tenants/{tenant}/reports/**"
    auth: idp
    require: { tenant: { param: tenant }, roles: admin, claims: { mfa: true } }
    to: app
  tokens: { match: "/tokens/**", auth: opaque, to: app }
  sync:
    match: /sync/**
    on: machines
    auth: machines
    require: { certificate: { spiffe: "spiffe://example.org/ns/*/sa/sync" } }
    to: app
  devices: { match: /devices/**, on: machines, auth: machines, to: app }
  desk: { match: desk.example.com/**, auth: people, to: app }
  counter: { match: /counter/**, auth: clerks, to: app }
  receipts: { match: /receipts/**, auth: tills, to: app }
  tickets: { match: /tickets/**, auth: authorizer, to: app }
backends:
  app: "https://app.internal"
"#;

/// One of each: any-of, scopes, methods, hosts, a route that answers by itself, and public routes
/// beside and within those that are not.
pub(crate) const CONFIG: &str = r#"
listeners:
  http: { bind: "127.0.0.1:8080" }
  https:
    bind: "127.0.0.1:8443"
    tls: { certificates: [{ cert: "file:c.pem", key: "file:k.pem" }] }
auth:
  idp: { jwt: { issuer: "https://idp.example/", audience: [orders], tenant: "claim:org" } }
  partners: { api_keys: { keys: "file:partners.yaml" } }
defaults: { on: [http, https], auth: idp }
routes:
  orders:
    match: /orders/**
    auth: [idp, partners]
    require: { scopes: ["orders:read", "orders:write"] }
    to: app
  admin: { match: { path: "/admin/{id}", methods: [GET, POST] }, auth: partners, to: app }
  account: { match: "/account/**", to: app }
  welcome:
    match: { path: /account/new, methods: [POST] }
    public: "makes an account"
    to: app
  answered: { match: "api.example.com/answered", respond: { status: 204 } }
  private: { match: "private.example.com/shared/**", to: app }
  shared: { match: "/shared/**", public: "everybody's", to: app }
  status: { match: "/status/**", public: "nothing in it", to: app }
  rest: { match: "/**", to: app }
backends:
  app: "https://app.internal"
"#;
