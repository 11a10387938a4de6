//! Policies, authenticators and files for the tests of this crate: small, and with every trait
//! that the compiler and the decision have to cope with.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{Method, StatusCode};
use portcullis_config::{Source, load, render};
use portcullis_core::auth::{Authenticator, Denied, Presented, Verified, Verify};
use portcullis_core::carry::Carry;
use portcullis_core::finding::Findings;
use portcullis_core::limit::{Algorithm, Grant, LimitKey, LimitSpec};
use portcullis_core::limit_config::{KeyPart, LimitConfig};
use portcullis_core::policy::{Attached, BodyUse, ReplyBody};
use portcullis_core::registry::{
    AuthConfig, Compile, Entry, PolicyConfig, Registry, Site, Sources,
};
use portcullis_core::services::{Fetch, Fetched, Lease, LocalFuture, Unavailable};
use portcullis_core::{
    Exchange, Identity, Now, Phase, Policy, Problem, Reply, RequestHead, ResponseHead, Services,
    Step, codes,
};
use rustls::RootCertStore;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::compile::{CompileContext, compile};
use crate::inline_tests::run_tests;
use crate::question::Question;
use crate::snapshot::Snapshot;

/// The middle of 2026.
pub(crate) const NOW: Now = Now {
    mono: std::time::Duration::from_secs(1),
    wall: std::time::Duration::from_secs(1_782_000_000),
};

pub(crate) static REGISTRY: Registry = Registry {
    policies: &[
        Entry::policy::<Attach>(),
        Entry::policy::<Cors>(),
        Entry::policy::<Deny>(),
        Entry::policy::<IpFilter>(),
        Entry::policy::<Respond>(),
        Entry::policy::<Stamp>(),
        Entry::policy::<Whole>(),
    ],
    auth: &[
        Entry::auth::<Certificate>(),
        Entry::auth::<Login>(),
        Entry::auth::<Remote>(),
        Entry::auth::<Token>(),
    ],
    limit: &Entry::policy::<Limit>(),
};

macro_rules! policy_config {
    ($type:ident, $name:literal, $example:literal, |$config:ident, $site:ident| $policy:expr) => {
        impl PolicyConfig for $type {
            const NAME: &'static str = $name;
            const EXAMPLE: &'static str = $example;

            fn compile(self, $site: &Site<'_>, _: &mut Compile<'_>) -> Option<Arc<dyn Policy>> {
                let $config = self;
                Some(Arc::new($policy))
            }
        }
    };
}

/// Attaches something for the backend, of which only the compiler wants to know.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Attach {
    clear_text: bool,
    exchanged: bool,
}
policy_config!(Attach, "attach", "{clear_text: true, exchanged: false}", |config, _site| config);

impl Policy for Attach {
    fn phase(&self) -> Phase {
        Phase::Transform
    }

    fn attaches(&self) -> Option<Attached> {
        let Self { clear_text, exchanged: from_access_token } = *self;
        Some(Attached { clear_text, from_access_token })
    }

    fn on_request<'a>(&'a self, _: &'a mut Exchange, _: &'a dyn Services) -> Step<'a> {
        Step::Continue
    }
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Cors {
    origin: String,
}
policy_config!(Cors, "cors", "{origin: \"https://a\"}", |config, _site| config);

impl Policy for Cors {
    fn phase(&self) -> Phase {
        Phase::Answer
    }

    fn on_request<'a>(&'a self, exchange: &'a mut Exchange, _: &'a dyn Services) -> Step<'a> {
        match exchange.request.method == Method::OPTIONS {
            true => reply(204, "", &[("access-control-allow-origin", &self.origin)]),
            false => Step::Continue,
        }
    }
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(transparent)]
struct Deny(String);
policy_config!(Deny, "deny", "no more", |config, _site| config);

impl Policy for Deny {
    fn phase(&self) -> Phase {
        Phase::Forward
    }

    fn on_request<'a>(&'a self, _: &'a mut Exchange, _: &'a dyn Services) -> Step<'a> {
        Step::Refuse(Problem::new(codes::DENIED).detail(&self.0))
    }
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct IpFilter {
    deny: String,
}
policy_config!(IpFilter, "ip_filter", "{deny: 1.2.3.4}", |config, _site| config);

impl Policy for IpFilter {
    fn phase(&self) -> Phase {
        Phase::Screen
    }

    fn on_request<'a>(&'a self, exchange: &'a mut Exchange, _: &'a dyn Services) -> Step<'a> {
        match exchange.client_ip.to_string() == self.deny {
            true => Step::Refuse(Problem::new(codes::ADDRESS_NOT_ALLOWED)),
            false => Step::Continue,
        }
    }
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Respond {
    status: u16,
    #[serde(default)]
    body: String,
}
policy_config!(Respond, "respond", "{status: 200}", |config, _site| config);

impl Policy for Respond {
    fn phase(&self) -> Phase {
        Phase::Forward
    }

    fn on_request<'a>(&'a self, _: &'a mut Exchange, _: &'a dyn Services) -> Step<'a> {
        reply(self.status, &self.body, &[])
    }
}

/// Writes who compiled it into the request.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(transparent)]
struct Stamp(String);

#[derive(Debug)]
struct Stamped(String);
policy_config!(Stamp, "stamp", "x", |config, site| Stamped(format!("{}:{}", site.owner, config.0)));

impl Policy for Stamped {
    fn phase(&self) -> Phase {
        Phase::Transform
    }

    fn on_request<'a>(&'a self, exchange: &'a mut Exchange, _: &'a dyn Services) -> Step<'a> {
        exchange.request.fields.append(b"x-stamp", self.0.as_bytes());
        Step::Continue
    }
}

/// Wants the whole body.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(transparent)]
struct Whole(usize);
policy_config!(Whole, "whole", "10", |config, _site| config);

impl Policy for Whole {
    fn phase(&self) -> Phase {
        Phase::Validate
    }

    fn request_body(&self) -> BodyUse {
        BodyUse::Buffered { bytes_max: self.0 }
    }

    fn on_request<'a>(&'a self, exchange: &'a mut Exchange, _: &'a dyn Services) -> Step<'a> {
        let length = exchange.request_body.len().to_string();
        exchange.request.fields.append(b"x-whole", length.as_bytes());
        Step::Continue
    }
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(transparent)]
struct Limit(LimitConfig);

#[derive(Debug)]
struct Limited {
    spec: LimitSpec,
    early: bool,
    what: String,
}
policy_config!(Limit, "limits", "1/s", |config, site| Limited {
    spec: LimitSpec {
        count: config.0.rate.count,
        per: config.0.rate.per.0,
        algorithm: Algorithm::Window,
    },
    early: !config.0.key.iter().any(KeyPart::needs_identity),
    what: format!("{} of {}", config.0, site.owner),
});

impl Policy for Limited {
    fn phase(&self) -> Phase {
        if self.early { Phase::AdmitEarly } else { Phase::Admit }
    }

    fn on_request<'a>(&'a self, _: &'a mut Exchange, services: &'a dyn Services) -> Step<'a> {
        match services.lease(LimitKey(7), &self.spec, 1) {
            Lease::Ready(grant) if grant.granted == 0 => {
                Step::Refuse(Problem::new(codes::RATE_LIMITED).detail(&self.what))
            }
            _ => Step::Continue,
        }
    }
}

/// Takes `HEADER: good-CLIENT`, at once.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Token {
    header: String,
}

#[derive(Debug)]
struct Tokens {
    auth: Arc<str>,
    header: String,
    /// A query parameter that is secret, and not looked for.
    parameter: Box<str>,
    challenge: String,
    /// Asks somebody else, and waits for the answer.
    remote: bool,
}

impl AuthConfig for Token {
    const NAME: &'static str = "token";
    const EXAMPLE: &'static str = "{header: x}";

    fn compile(self, site: &Site<'_>, _: &mut Compile<'_>) -> Option<Arc<dyn Authenticator>> {
        let challenge = format!("Token realm=\"{}\"", site.owner);
        let auth = site.owner.into();
        Some(Arc::new(Tokens {
            auth,
            header: self.header,
            parameter: "token".into(),
            challenge,
            remote: false,
        }))
    }
}

/// The same, after a fetch.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Remote {
    header: String,
}

impl AuthConfig for Remote {
    const NAME: &'static str = "remote";
    const EXAMPLE: &'static str = "{header: x}";

    fn compile(self, site: &Site<'_>, _: &mut Compile<'_>) -> Option<Arc<dyn Authenticator>> {
        let (challenge, auth) = ("Remote".to_owned(), site.owner.into());
        Some(Arc::new(Tokens {
            auth,
            header: self.header,
            parameter: "token".into(),
            challenge,
            remote: true,
        }))
    }
}

/// Goes by the client's certificate, and takes those of one name.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Certificate {
    #[serde(default)]
    common_name: Option<String>,
}

#[derive(Debug)]
struct Certified {
    auth: Arc<str>,
    common_name: Option<String>,
}

impl AuthConfig for Certificate {
    const NAME: &'static str = "certificate";
    const EXAMPLE: &'static str = "{}";

    fn compile(self, site: &Site<'_>, _: &mut Compile<'_>) -> Option<Arc<dyn Authenticator>> {
        Some(Arc::new(Certified { auth: site.owner.into(), common_name: self.common_name }))
    }
}

impl Authenticator for Certified {
    fn presented(&self, exchange: &Exchange) -> Presented {
        exchange.certificate.as_ref().map_or(Presented::Nothing, |_| Presented::Ambient)
    }

    fn challenge(&self) -> &str {
        ""
    }

    fn verify<'a>(&'a self, exchange: &'a Exchange, _: &'a dyn Services) -> Verify<'a> {
        let found = exchange.certificate.as_ref().and_then(|found| found.common_name.clone());
        Verify::Done(match found.filter(|name| self.common_name.as_ref() == Some(name)) {
            Some(name) => Ok(Arc::new(Identity::new(Arc::clone(&self.auth), name)).into()),
            None => Err(Problem::new(codes::CREDENTIALS_INVALID).detail(&self.auth).into()),
        })
    }

    fn conceal(&self, _: &mut RequestHead) {}

    fn needs_certificate(&self) -> bool {
        true
    }
}

/// Has paths of its own, and lets nobody in.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Login {
    own_paths: Vec<Box<str>>,
}

impl AuthConfig for Login {
    const NAME: &'static str = "login";
    const EXAMPLE: &'static str = "{own_paths: [/callback]}";

    fn compile(self, _: &Site<'_>, _: &mut Compile<'_>) -> Option<Arc<dyn Authenticator>> {
        Some(Arc::new(self))
    }
}

impl Authenticator for Login {
    fn presented(&self, _: &Exchange) -> Presented {
        Presented::Nothing
    }

    fn challenge(&self) -> &str {
        ""
    }

    fn verify<'a>(&'a self, _: &'a Exchange, _: &'a dyn Services) -> Verify<'a> {
        Verify::Done(Err(Problem::new(codes::CREDENTIALS_INVALID).into()))
    }

    fn conceal(&self, _: &mut RequestHead) {}

    fn own_paths(&self) -> &[Box<str>] {
        &self.own_paths
    }
}

impl Tokens {
    fn judge(&self, exchange: &Exchange) -> Verified {
        let value = exchange.request.fields.get(self.header.as_bytes()).unwrap_or_default();
        let value = String::from_utf8_lossy(value);
        if value == "refused-in-own-words" {
            let head = ResponseHead::new(StatusCode::UNAUTHORIZED);
            return Err(Denied::Reply(Reply { head, body: ReplyBody::Bytes(Bytes::new()) }));
        }
        match value.strip_prefix("good-") {
            Some(client) => {
                Ok(Arc::new(Identity::new(Arc::clone(&self.auth), client.to_owned())).into())
            }
            None => Err(Problem::new(codes::CREDENTIALS_INVALID)
                .detail(format_args!("{} does not know `{value}`", self.auth))
                .into()),
        }
    }
}

impl Authenticator for Tokens {
    fn is_access_token(&self) -> bool {
        !self.remote
    }

    fn presented(&self, exchange: &Exchange) -> Presented {
        let fields = &exchange.request.fields;
        let field = fields.live().find(|field| {
            field.name.of(fields.bytes()).eq_ignore_ascii_case(self.header.as_bytes())
        });
        match field {
            None => Presented::Nothing,
            Some(field) if field.value.of(fields.bytes()).starts_with(b"foreign") => {
                Presented::Foreign(field.value)
            }
            Some(field) if field.value.of(fields.bytes()) == b"several" => Presented::Several,
            Some(field) => Presented::Mine(field.value),
        }
    }

    fn challenge(&self) -> &str {
        &self.challenge
    }

    fn verify<'a>(&'a self, exchange: &'a Exchange, services: &'a dyn Services) -> Verify<'a> {
        if !self.remote {
            return Verify::Done(self.judge(exchange));
        }
        Verify::Wait(Box::pin(async move {
            match services.fetch(Fetch::get("https://idp.example.com/keys")).await {
                Ok(_) => self.judge(exchange),
                Err(reason) => Err(Problem::new(codes::KEYS_UNAVAILABLE).detail(reason).into()),
            }
        }))
    }

    fn conceal(&self, request: &mut RequestHead) {
        request.fields.remove(self.header.as_bytes());
    }

    fn secret_parameters(&self) -> &[Box<str>] {
        std::slice::from_ref(&self.parameter)
    }
}

fn reply<'a>(status: u16, body: &str, fields: &[(&str, &str)]) -> Step<'a> {
    let mut head = ResponseHead::new(StatusCode::from_u16(status).unwrap_or_default());
    for (name, value) in fields {
        head.fields.append(name.as_bytes(), value.as_bytes());
    }
    Step::Reply(Reply { head, body: ReplyBody::Bytes(Bytes::copy_from_slice(body.as_bytes())) })
}

/// Files by reference.
#[derive(Clone, Debug, Default)]
pub(crate) struct Files(pub(crate) HashMap<String, Vec<u8>>);

impl Sources for Files {
    fn read(&self, reference: &str) -> Result<Arc<[u8]>, String> {
        let found = self.0.get(reference).map(|bytes| bytes.as_slice().into());
        found.ok_or_else(|| format!("cannot read `{reference}`: there is no such file"))
    }
}

/// A configuration compiled, with what was found, rendered.
pub(crate) struct Compiled {
    pub(crate) snapshot: Option<Snapshot>,
    pub(crate) findings: String,
    pub(crate) carry: Carry,
}

impl Compiled {
    /// The snapshot; what was found is in the panic if there is none.
    #[track_caller]
    pub(crate) fn ok(self) -> Snapshot {
        self.snapshot.unwrap_or_else(|| panic!("{}", self.findings))
    }
}

pub(crate) fn compiled(text: &str, files: &Files) -> Compiled {
    compiled_after(text, files, Carry::default())
}

/// Compiles after a snapshot whose state is in `carry`, and runs the inline tests.
pub(crate) fn compiled_after(text: &str, files: &Files, mut carry: Carry) -> Compiled {
    let source = Source { name: "gw.yaml".to_owned(), text: text.to_owned() };
    let loaded = load(vec![source], &REGISTRY);
    let mut findings = Findings::new();
    let snapshot = loaded.config.as_ref().and_then(|config| {
        let mut with = CompileContext {
            findings: &mut findings,
            carry: &mut carry,
            sources: files,
            now: NOW,
            roots: Arc::new(RootCertStore::empty()),
            seed: 1,
        };
        let snapshot = compile(config, &REGISTRY, &mut with)?;
        run_tests(config, &snapshot, NOW, &mut findings);
        Some(snapshot)
    });
    findings.append(loaded.findings);
    let findings = render(&findings.sorted(), &loaded.sources, false);
    Compiled { snapshot, findings, carry }
}

/// A world of one request after another: fetches succeed, limits count up to their count.
#[derive(Debug, Default)]
pub(crate) struct World {
    pub(crate) asked: RefCell<Vec<String>>,
    taken: RefCell<HashMap<LimitKey, u32>>,
}

impl Services for World {
    fn now(&self) -> Now {
        NOW.after(std::time::Duration::from_secs(5))
    }

    fn random(&self, into: &mut [u8]) {
        into.fill(7);
    }

    fn fetch(&self, fetch: Fetch) -> LocalFuture<'_, Result<Fetched, Unavailable>> {
        self.asked.borrow_mut().push(fetch.url);
        Box::pin(async {
            Ok(Fetched {
                status: StatusCode::OK,
                content_type: None,
                fields: Vec::new(),
                body: Bytes::new(),
                stale: false,
            })
        })
    }

    fn lease<'a>(&'a self, key: LimitKey, spec: &'a LimitSpec, want: u32) -> Lease<'a> {
        let mut taken = self.taken.borrow_mut();
        let taken = taken.entry(key).or_default();
        let left = spec.count - *taken;
        let granted = if want <= left { want } else { 0 };
        *taken += granted;
        Lease::Ready(Grant { granted, remaining: spec.count - *taken, ..Grant::default() })
    }

    fn offload(&self, job: Box<dyn FnOnce() + Send>) -> LocalFuture<'_, Result<(), Unavailable>> {
        job();
        Box::pin(async { Ok(()) })
    }
}

/// Runs what never really waits.
#[track_caller]
pub(crate) fn now_or_never<T>(future: impl Future<Output = T>) -> T {
    match std::pin::pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("it waits"),
    }
}

/// `GET http://host/path NAME:VALUE …` on the snapshot's listener of that scheme.
#[track_caller]
pub(crate) fn exchange(snapshot: &Snapshot, text: &str) -> Exchange {
    let mut words = text.split(' ');
    let request = [words.next().unwrap(), words.next().unwrap()].join(" ");
    let mut question = Question::new(request.parse().unwrap());
    question.headers = words
        .map(|word| word.split_once(':').unwrap())
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let https = question.request.https;
    let listener = snapshot.listeners.iter().find(|l| l.tls.is_some() == https).unwrap();
    question.exchange(listener, NOW).unwrap()
}
