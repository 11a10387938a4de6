//! Each policy of the registry, down and up, as its example has it; each kind of authentication.
//!
//! The request is put back each time, since policies change it: `policy-none` is what that costs.

use std::hint::black_box;
use std::sync::Arc;
use std::task::{Context, Waker};

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use http::StatusCode;
use portcullis_bench::issuer;
use portcullis_core::auth::{Authenticator, Presented, Verify};
use portcullis_core::carry::Carry;
use portcullis_core::exchange::ClientCertificate;
use portcullis_core::finding::Findings;
use portcullis_core::limit::{Grantor, LimitKey, LimitSpec};
use portcullis_core::node::{Key, Node, SourceSpan, Value};
use portcullis_core::registry::{Compile, Entry, Site, Sources};
use portcullis_core::services::{Fetch, Fetched, Lease, LocalFuture, Unavailable};
use portcullis_core::{Exchange, Identity, Now, Policy, RequestHead, ResponseHead, Services};
use portcullis_policies::auth::api_keys::generate;
use portcullis_policies::auth::basic::hash_password;
use portcullis_policies::grantor::Embedded;
use portcullis_policies::{ALL, AUTH, LIMIT};
use serde_json::Value as Json;

use crate::WALL;
use crate::codec::parsed;

const NOW: Now = Now { mono: std::time::Duration::from_secs(100), wall: WALL };
const NONE: &str = "policy-none";
/// The example's own limit would be reached.
const NO_LIMIT: &str = "4000000000/s per client";

/// Bytes that are all 7.
const SECRET: &str = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";
/// Of nothing, under the secret.
const HMAC: &[u8] = b"sha256=9dac6a74401b46ed9b489d0e19d68d1b13cc6b5090352fdcfa5bd74df4e69d87";
/// Of the request of all parts, made by another program.
const SIGNATURE_INPUT: &[u8] = b"sig1=(\"@method\" \"@authority\" \"@path\" \"@query\")\
    ;created=1795500000;keyid=\"k1\"";
const SIGNATURE: &[u8] = b"sig1=:r3YUhIxe5k1AxO8CCayOfgL7Kl1xtCFSeEbkUaxs6gE=:";

/// The parts that are here.
pub(crate) fn names() -> impl Iterator<Item = String> {
    let policies = ALL.iter().chain([LIMIT]).map(|entry| format!("policy-{}", entry.name));
    let auth = AUTH.iter().map(|entry| format!("auth-{}", entry.name));
    [NONE.to_owned()].into_iter().chain(policies).chain(auth)
}

/// # Errors
/// There is no such part, or its settings do not compile.
pub(crate) fn run(part: &str, times: u64) -> anyhow::Result<()> {
    let entry = ALL.iter().chain([LIMIT]).find(|entry| part == format!("policy-{}", entry.name));
    let auth = AUTH.iter().find(|entry| part == format!("auth-{}", entry.name));
    match (entry, auth) {
        (Some(entry), _) => {
            let settings = if entry.name == LIMIT.name { NO_LIMIT } else { entry.example };
            // For a policy that attaches one.
            let world = World { file: "a secret of the gateway's".to_owned(), ..World::default() };
            let policy: Arc<dyn Policy> = compile(entry, settings, &world)?;
            down_and_up(Some(&*policy), &world, times);
        }
        (_, Some(entry)) => authenticate(entry, times)?,
        _ if part == NONE => down_and_up(None, &World::default(), times),
        _ => bail!("there is no part {part}"),
    }
    Ok(())
}

fn down_and_up(policy: Option<&dyn Policy>, world: &World, times: u64) {
    let mut exchange = exchange();
    let mut answer = ResponseHead::default();
    let request = exchange.request.clone();
    for _ in 0..times {
        exchange.request.clone_from(black_box(&request));
        exchange.standing = None;
        answer.clear();
        if let Some(policy) = policy {
            drop(black_box(policy.on_request(&mut exchange, world)));
            drop(black_box(policy.on_response(&mut exchange, &mut answer, world)));
        }
    }
}

/// A known credential: looked for and verified.
fn authenticate(entry: &Entry<dyn Authenticator>, times: u64) -> anyhow::Result<()> {
    let (mut world, mut exchange) = (World::default(), exchange());
    let settings = present(entry, &mut exchange, &mut world)?;
    let auth = compile(entry, &settings, &world)?;
    for _ in 0..times {
        let presented = auth.presented(black_box(&exchange));
        if black_box(presented) != Presented::Nothing {
            verify(&*auth, &exchange, &world)?;
        }
    }
    Ok(())
}

/// Puts a good credential into the request; gives the settings that take it.
fn present(
    entry: &Entry<dyn Authenticator>,
    exchange: &mut Exchange,
    world: &mut World,
) -> anyhow::Result<String> {
    let fields = &mut exchange.request.fields;
    match entry.name {
        "jwt" => {
            issuer::KEY_SET.clone_into(&mut world.file);
            fields.set(b"authorization", format!("Bearer {}", issuer::TOKEN.trim_end()).as_bytes());
            let (name, audience) = (issuer::NAME, issuer::AUDIENCE);
            Ok(format!(r#"{{ issuer: "{name}", audience: [{audience}], jwks: "file:jwks.json" }}"#))
        }
        "api_keys" => {
            let keys: Vec<_> =
                (0..100).filter_map(|n| generate([n; 32], &format!("k{n}"), "acme").ok()).collect();
            let key = keys.get(50).context("an API key")?;
            let entries: Vec<_> = keys.iter().map(|key| &key.entry).collect();
            world.file = serde_json::to_string(&entries)?;
            fields.append(b"x-api-key", key.text.as_bytes());
            Ok(entry.example.to_owned())
        }
        "basic" => {
            let hash = hash_password("open sesame", [7; 16])?;
            world.file = serde_json::json!([{ "user": "alice", "hash": hash }]).to_string();
            // `alice:open sesame`.
            fields.set(b"authorization", b"Basic YWxpY2U6b3BlbiBzZXNhbWU=");
            Ok(entry.example.to_owned())
        }
        "mtls" => {
            exchange.certificate = Some(Arc::new(ClientCertificate {
                dns: vec!["shop.svc.example.com".to_owned()],
                not_after: NOW.wall * 2,
                ..ClientCertificate::default()
            }));
            Ok(entry.example.to_owned())
        }
        // Asked each time: the example remembers nothing.
        "forward" => Ok(entry.example.to_owned()),
        // Without a time, since a code with one is good once; of no body.
        "hmac" => {
            world.file = format!(r#"[{{ id: k1, secret_base64: "{SECRET}", client: acme }}]"#);
            fields.append(b"x-hub-signature-256", HMAC);
            Ok(entry.example.replace("standard_webhooks", "github"))
        }
        "introspection" => {
            "a secret of the gateway's".clone_into(&mut world.file);
            fields.set(b"authorization", b"Bearer opaque");
            Ok(entry.example.to_owned())
        }
        // Only the look for a session: its request has none.
        "oidc" => {
            "0123456789abcdef0123456789abcdef".clone_into(&mut world.file);
            Ok(entry.example.to_owned())
        }
        // By a shared secret: what it costs beside the signature's own arithmetic.
        "signature" => {
            world.file = format!(
                r#"[{{ id: k1, algorithm: hmac-sha256, secret: "{SECRET}", client: acme }}]"#
            );
            fields.append(b"signature-input", SIGNATURE_INPUT);
            fields.append(b"signature", SIGNATURE);
            // The same each time, so it has no nonce.
            Ok(entry.example.replace(" }", ", nonce: optional }"))
        }
        name => bail!("no credential of {name} is made here"),
    }
}

fn verify(auth: &dyn Authenticator, exchange: &Exchange, world: &World) -> anyhow::Result<()> {
    let verified = match auth.verify(exchange, world) {
        Verify::Done(verified) => verified,
        // Only the first time. Nothing here has to be waited for.
        Verify::Wait(mut future) => {
            match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                std::task::Poll::Ready(verified) => verified,
                std::task::Poll::Pending => bail!("a verification that waits"),
            }
        }
    };
    black_box(verified).map(drop).map_err(|problem| anyhow!("{problem:?}"))
}

/// A request that the examples have something to do for.
fn exchange() -> Exchange {
    let mut request: RequestHead = parsed();
    request.fields.set(b"origin", b"https://shop.example");
    request.set_path(b"/shop/orders/17");
    let mut identity = Identity::new("idp".into(), "shop".to_owned());
    identity.claims.insert("plan".to_owned(), "gold".into());
    Exchange {
        now: NOW,
        client_ip: [192, 0, 2, 7].into(),
        request,
        identity: Some(Arc::new(identity)),
        ..Exchange::default()
    }
}

fn compile<T: ?Sized>(entry: &Entry<T>, settings: &str, world: &World) -> anyhow::Result<Arc<T>> {
    let mut findings = Findings::new();
    let mut with =
        Compile { findings: &mut findings, carry: &mut Carry::default(), sources: world };
    let site = Site { owner: "bench", resource: entry.name, span: SourceSpan::default() };
    let compiled = (entry.compile)(&node(serde_saphyr::from_str(settings)?), &site, &mut with);
    compiled.with_context(|| format!("{findings:?}"))
}

fn node(json: Json) -> Node {
    let value = match json {
        Json::Null => Value::Null,
        Json::Bool(value) => Value::Bool(value),
        Json::Number(number) => Value::Int(number.as_i64().unwrap_or_default()),
        Json::String(text) => Value::Str(text),
        Json::Array(items) => Value::Seq(items.into_iter().map(node).collect()),
        Json::Object(map) => {
            let key = |name| Key::new(name, SourceSpan::default());
            Value::Map(map.into_iter().map(|(name, json)| (key(name), node(json))).collect())
        }
    };
    Node::new(SourceSpan::default(), value)
}

/// One file, whatever its name, and limits that count.
#[derive(Default)]
struct World {
    grantor: Embedded,
    file: String,
}

impl Sources for World {
    fn read(&self, _: &str) -> Result<Arc<[u8]>, String> {
        Ok(self.file.as_bytes().into())
    }
}

impl Services for World {
    fn now(&self) -> Now {
        NOW
    }

    fn random(&self, into: &mut [u8]) {
        into.fill(7);
    }

    /// An issuer that knows its tokens and an authorizer that permits everything.
    fn fetch(&self, fetch: Fetch) -> LocalFuture<'_, Result<Fetched, Unavailable>> {
        let body: &[u8] = match fetch.url.contains("/.well-known/") {
            true => {
                br#"{ "issuer": "https://idp.example.com",
                    "introspection_endpoint": "https://idp.example.com/introspect" }"#
            }
            false => br#"{ "active": true, "client_id": "shop", "exp": 4000000000 }"#,
        };
        Box::pin(async move {
            Ok(Fetched {
                status: StatusCode::OK,
                content_type: Some("application/json".to_owned()),
                fields: vec![("x-user-id".into(), (*b"alice").into())],
                body: Bytes::from_static(body),
                stale: false,
            })
        })
    }

    fn lease<'a>(&'a self, key: LimitKey, spec: &'a LimitSpec, want: u32) -> Lease<'a> {
        Lease::Ready(self.grantor.take(NOW, key, spec, want))
    }

    fn offload(&self, job: Box<dyn FnOnce() + Send>) -> LocalFuture<'_, Result<(), Unavailable>> {
        job();
        Box::pin(async { Ok(()) })
    }
}
