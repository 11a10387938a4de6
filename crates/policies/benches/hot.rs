//! What policies and authenticators cost one request.

#![expect(clippy::unwrap_used, reason = "a bench may stop when its set-up fails")]

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use jsonwebtoken::{Algorithm as Signature, EncodingKey};
use portcullis_core::auth::{Authenticator, Verify};
use portcullis_core::carry::Carry;
use portcullis_core::finding::Findings;
use portcullis_core::limit::{Algorithm, Grantor, LimitKey, LimitSpec};
use portcullis_core::node::{Key, Node, SourceSpan, Value};
use portcullis_core::registry::{Compile, Entry, Site, Sources};
use portcullis_core::services::{Fetch, Fetched, Lease, LocalFuture, Unavailable};
use portcullis_core::{Exchange, Now, Policy, ResponseHead, Services};
use portcullis_policies::auth::api_keys::generate;
use portcullis_policies::grantor::Embedded;
use serde_json::json;

const NOW: Now = Now { mono: Duration::from_secs(100), wall: Duration::from_secs(1_795_500_000) };

#[derive(Default)]
struct World {
    grantor: Embedded,
    files: Vec<(String, String)>,
}

impl Sources for World {
    fn read(&self, reference: &str) -> Result<Arc<[u8]>, String> {
        let found = self.files.iter().find(|(name, _)| name == reference);
        found.map(|(_, text)| text.as_bytes().into()).ok_or_else(|| reference.to_owned())
    }
}

impl Services for World {
    fn now(&self) -> Now {
        NOW
    }

    fn random(&self, into: &mut [u8]) {
        into.fill(7);
    }

    fn fetch(&self, fetch: Fetch) -> LocalFuture<'_, Result<Fetched, Unavailable>> {
        Box::pin(async { Err(Unavailable(fetch.url)) })
    }

    fn lease<'a>(&'a self, key: LimitKey, spec: &'a LimitSpec, want: u32) -> Lease<'a> {
        Lease::Ready(self.grantor.take(NOW, key, spec, want))
    }

    fn offload(&self, job: Box<dyn FnOnce() + Send>) -> LocalFuture<'_, Result<(), Unavailable>> {
        job();
        Box::pin(async { Ok(()) })
    }
}

fn node(settings: serde_json::Value) -> Node {
    use serde_json::Value as Json;
    let value = match settings {
        Json::String(text) => Value::Str(text),
        Json::Number(number) => Value::Int(number.as_i64().unwrap()),
        Json::Object(map) => {
            let key = |name| Key::new(name, SourceSpan::default());
            Value::Map(map.into_iter().map(|(name, json)| (key(name), node(json))).collect())
        }
        _ => Value::Null,
    };
    Node::new(SourceSpan::default(), value)
}

fn compile<T: ?Sized>(world: &World, entry: &Entry<T>, settings: serde_json::Value) -> Arc<T> {
    let mut with =
        Compile { findings: &mut Findings::new(), carry: &mut Carry::default(), sources: world };
    let site = Site { owner: "orders", resource: entry.name, span: SourceSpan::default() };
    (entry.compile)(&node(settings), &site, &mut with).unwrap()
}

fn exchange(fields: &[(&str, &str)]) -> Exchange {
    let mut exchange = Exchange { now: NOW, ..Exchange::default() };
    let head = &mut exchange.request;
    head.path = head.fields.intern(b"/orders/1");
    head.host = head.fields.intern(b"api.example.com");
    for (name, value) in [
        ("host", "api.example.com"),
        ("user-agent", "curl/8.1"),
        ("accept", "*/*"),
        ("accept-encoding", "gzip"),
    ]
    .iter()
    .chain(fields)
    {
        head.fields.append(name.as_bytes(), value.as_bytes());
    }
    exchange
}

/// One key asked again and again, and a hundred thousand in turn.
fn takes(criterion: &mut Criterion) {
    let per = Duration::from_secs(1);
    let window = LimitSpec { count: u32::MAX, per, algorithm: Algorithm::Window };
    let bucket = LimitSpec { count: 1000, per, algorithm: Algorithm::Bucket { burst: 100 } };
    for (name, spec, keys) in [
        ("take window, one key", window, 1_u64),
        ("take window, 100k keys", window, 100_000),
        ("take bucket, one key", bucket, 1),
        ("take bucket, 100k keys", bucket, 100_000),
    ] {
        let grantor = Embedded::default();
        let mut n = 0_u64;
        criterion.bench_function(name, |bench| {
            bench.iter(|| {
                n += 1;
                let key =
                    u128::from(n % keys).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
                let now = NOW.after(Duration::from_micros(n));
                black_box(grantor.take(now, LimitKey(key), &spec, 1))
            });
        });
    }
}

fn limits(criterion: &mut Criterion) {
    let world = World::default();
    let entry = portcullis_policies::LIMIT;
    let policy: Arc<dyn Policy> = compile(&world, entry, json!("4000000000/s per ip"));
    let mut exchange = exchange(&[]);
    let mut head = ResponseHead::default();
    let mut n = 0_u32;
    criterion.bench_function("limits, down and up", |bench| {
        bench.iter(|| {
            n = n.wrapping_add(1);
            exchange.client_ip = IpAddr::V4(Ipv4Addr::from_bits(n & 0xffff));
            exchange.standing = None;
            head.clear();
            drop(black_box(policy.on_request(&mut exchange, &world)));
            drop(black_box(policy.on_response(&mut exchange, &mut head, &world)));
        });
    });
}

fn headers(criterion: &mut Criterion) {
    let world = World::default();
    let entry = portcullis_policies::registry().policy("headers").unwrap();
    let settings = json!({ "request": { "set": { "x-env": "prod", "x-host": "${host}" } } });
    let policy: Arc<dyn Policy> = compile(&world, entry, settings);
    criterion.bench_function("headers, two set", |bench| {
        bench.iter_batched_ref(
            || exchange(&[]),
            |exchange| drop(black_box(policy.on_request(exchange, &world))),
            BatchSize::SmallInput,
        );
    });
}

fn verify(auth: &dyn Authenticator, exchange: &Exchange, world: &World) {
    match auth.verify(exchange, world) {
        Verify::Done(verified) => drop(black_box(verified.unwrap())),
        Verify::Wait(mut verified) => {
            let polled = verified.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            assert!(black_box(polled).is_ready());
        }
    }
}

/// About 900 bytes, as an issuer with a few scopes and roles makes them.
fn token(key: &EncodingKey, n: u64) -> String {
    let claims = json!({
        "iss": "https://idp.example.com/", "aud": ["orders"], "sub": format!("user-{n}"),
        "exp": 2_000_000_000_u64, "iat": 1_795_500_000_u64, "scope": "orders:read orders:write",
        "padding": "x".repeat(400),
    });
    let header = json!({ "alg": "ES256", "typ": "JWT", "kid": "k1" });
    let [header, claims] = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
    let message = format!("{header}.{claims}");
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), key, Signature::ES256).unwrap();
    format!("{message}.{signature}")
}

fn jwt(criterion: &mut Criterion) {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let key = EncodingKey::from_ec_der(pair.to_pkcs8v1().unwrap().as_ref());
    let [x, y] = [1..33, 33..65].map(|at| URL_SAFE_NO_PAD.encode(&pair.public_key().as_ref()[at]));
    let jwk = json!({ "kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": "k1", "use": "sig" });
    let jwks = json!({ "keys": [jwk] }).to_string();
    let world = World { files: vec![("file:jwks.json".to_owned(), jwks)], ..World::default() };
    let entry = portcullis_policies::registry().auth("jwt").unwrap();
    let settings = json!({
        "issuer": "https://idp.example.com/", "audience": "orders", "jwks": "file:jwks.json",
    });
    let auth: Arc<dyn Authenticator> = compile(&world, entry, settings);
    let mut n = 0;
    let mut new = || {
        n += 1;
        exchange(&[("authorization", &format!("Bearer {}", token(&key, n)))])
    };
    let known = new();
    verify(&*auth, &known, &world);
    criterion.bench_function("jwt, presented", |bench| {
        bench.iter(|| black_box(auth.presented(&known)));
    });
    criterion.bench_function("jwt, remembered", |bench| {
        bench.iter(|| verify(&*auth, &known, &world));
    });
    criterion.bench_function("jwt, new ES256", |bench| {
        bench.iter_batched_ref(
            &mut new,
            |exchange| verify(&*auth, exchange, &world),
            BatchSize::SmallInput,
        );
    });
}

fn api_keys(criterion: &mut Criterion) {
    let keys: Vec<_> =
        (0..1000).map(|n| generate([7; 32], &format!("k{n}"), "acme").unwrap()).collect();
    let entries: Vec<_> = keys.iter().map(|key| &key.entry).collect();
    let file = serde_json::to_string(&entries).unwrap();
    let world = World { files: vec![("file:keys.yaml".to_owned(), file)], ..World::default() };
    let entry = portcullis_policies::registry().auth("api_keys").unwrap();
    let auth: Arc<dyn Authenticator> = compile(&world, entry, json!({ "keys": "file:keys.yaml" }));
    let known = exchange(&[("x-api-key", &keys[500].text)]);
    criterion.bench_function("api_keys", |bench| bench.iter(|| verify(&*auth, &known, &world)));
}

criterion_group!(benches, takes, limits, headers, jwt, api_keys);
criterion_main!(benches);
