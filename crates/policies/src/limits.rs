//! One entry of `limits:`: how many requests may pass in which time, counted by what.
//!
//! Counting itself is the business of whoever implements [`Services::lease`].

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use portcullis_core::finding::Finding;
use portcullis_core::limit::{Algorithm, Grant, LimitKey, LimitSpec, Standing};
use portcullis_core::limit_config::{KeyPart, LimitAlgorithm, LimitConfig};
use portcullis_core::registry::{Compile, PolicyConfig, Site};
use portcullis_core::services::{Lease, Unavailable};
use portcullis_core::{Exchange, Phase, Policy, Problem, ResponseHead, Services, Step, codes};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::key::Secret;

const PER_MIN: Duration = Duration::from_secs(1);
/// Longer than any period somebody is billed by, and far from the end of the counters' range.
const PER_MAX: Duration = Duration::from_secs(366 * 86_400);

/// Lets so many requests pass in a time, counted together or for each value of a key; over that,
/// `429 rate-limited`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(transparent)]
pub(crate) struct Limit(LimitConfig);

impl PolicyConfig for Limit {
    const NAME: &'static str = "limits";
    const EXAMPLE: &'static str = "100/s per client";

    fn compile(self, site: &Site<'_>, with: &mut Compile<'_>) -> Option<Arc<dyn Policy>> {
        let Self(limit) = self;
        if let Err(message) = sound(&limit) {
            with.findings.push(Finding::error("limit-unsound", site.span, site.resource, message));
            return None;
        }
        let algorithm = match limit.algorithm {
            LimitAlgorithm::Window => Algorithm::Window,
            LimitAlgorithm::Bucket => Algorithm::Bucket { burst: limit.burst() },
        };
        let (count, per) = (limit.rate.count, limit.rate.per.0);
        let name = limit.name.clone().unwrap_or_else(|| limit.to_string());
        // `w` is in whole seconds.
        let window = per.as_millis().div_ceil(1000);
        Some(Arc::new(Compiled {
            spec: LimitSpec { count, per, algorithm },
            counter: counter(&limit, site),
            early: !limit.key.iter().any(KeyPart::needs_identity),
            key: limit.key,
            shadow: limit.shadow,
            policy: format!("\"{name}\";q={count};w={window}").into(),
            name: format!("\"{name}\"").into(),
            secret: Secret::of(with.carry),
        }))
    }
}

/// What cannot be seen from the shape of the settings.
fn sound(limit: &LimitConfig) -> Result<(), String> {
    let per = limit.rate.per.0;
    if !(PER_MIN..=PER_MAX).contains(&per) {
        return Err("the time of a limit is from one second to 366 days".to_owned());
    }
    if limit.algorithm == LimitAlgorithm::Window && limit.rate.burst.is_some() {
        return Err("a `window` has no `burst`: remove one of them".to_owned());
    }
    let fills = per.as_secs_f64() * f64::from(limit.burst()) / f64::from(limit.rate.count);
    if fills > PER_MAX.as_secs_f64() {
        return Err("the `burst` would take over 366 days to come back".to_owned());
    }
    // A structured field's string (RFC 9651 §3.3.3), without what would need escaping.
    let plain = |b: u8| (0x20..0x7f).contains(&b) && b != b'"' && b != b'\\';
    let name = limit.name.as_deref().unwrap_or_default();
    if !name.bytes().all(plain) {
        return Err("a `name` is printable ASCII without quotes and backslashes".to_owned());
    }
    Ok(())
}

/// Which counters are this limit's. Nothing of it is a number that may be changed without losing
/// the count: neither `count` nor `burst`. Two limits of one owner that differ in nothing else need
/// names, or they are one.
fn counter(limit: &LimitConfig, site: &Site<'_>) -> u64 {
    // Routes and groups may have the same names.
    let kind = site.resource.split('.').next();
    let bucket = limit.algorithm == LimitAlgorithm::Bucket;
    let mut hasher = DefaultHasher::new();
    (kind, site.owner, &limit.name, limit.rate.per, bucket, limit.shadow).hash(&mut hasher);
    limit.key.hash(&mut hasher);
    hasher.finish()
}

#[derive(Debug)]
struct Compiled {
    spec: LimitSpec,
    counter: u64,
    key: Vec<KeyPart>,
    early: bool,
    shadow: bool,
    policy: Arc<str>,
    name: Arc<str>,
    secret: Secret,
}

impl Policy for Compiled {
    fn phase(&self) -> Phase {
        if self.early { Phase::AdmitEarly } else { Phase::Admit }
    }

    fn on_request<'a>(
        &'a self,
        exchange: &'a mut Exchange,
        services: &'a dyn Services,
    ) -> Step<'a> {
        let key = self.key_of(exchange, services);
        match services.lease(key, &self.spec, 1) {
            Lease::Ready(grant) => self.settle(exchange, Ok(grant)),
            Lease::Wait(grant) => {
                Step::Wait(Box::pin(async move { self.settle(exchange, grant.await) }))
            }
        }
    }

    fn on_response<'a>(
        &'a self,
        exchange: &'a mut Exchange,
        response: &'a mut ResponseHead,
        _: &'a dyn Services,
    ) -> Step<'a> {
        // One limit speaks for all: the tightest.
        let tightest = exchange.standing.as_ref();
        if let Some(standing) = tightest.filter(|s| Arc::ptr_eq(&s.policy, &self.policy)) {
            tell(standing, response);
        }
        Step::Continue
    }
}

impl Compiled {
    fn key_of(&self, exchange: &Exchange, services: &dyn Services) -> LimitKey {
        let mut key = self.secret.hasher(services, self.counter);
        let identity = exchange.identity.as_deref();
        for part in &self.key {
            match part {
                KeyPart::Ip => key.address(exchange.client_ip),
                KeyPart::Client => match identity {
                    Some(identity) => key.text(identity.key.as_bytes()),
                    // On a public route nobody has a name, but everybody has an address.
                    None => key.address(exchange.client_ip),
                },
                KeyPart::Tenant => {
                    let tenant = identity.and_then(|identity| identity.tenant.as_deref());
                    key.text(tenant.unwrap_or_default().as_bytes());
                }
                // The route is the owner, which is in `counter`.
                KeyPart::Route => {}
                KeyPart::Header(name) => {
                    let values = exchange.request.fields.get_all(name.as_bytes());
                    let many = values.map(|value| key.text(value)).count();
                    key.number(many as u64);
                }
                KeyPart::Claim(path) => match identity.and_then(|identity| identity.claim(path)) {
                    Some(claim) => key.json(claim),
                    None => key.number(u64::MAX),
                },
            }
        }
        LimitKey(key.finish())
    }

    fn settle<'a>(&self, exchange: &mut Exchange, grant: Result<Grant, Unavailable>) -> Step<'a> {
        if self.shadow {
            return Step::Continue;
        }
        let grant = match grant {
            Ok(grant) => grant,
            Err(reason) => {
                let problem = Problem::new(codes::LIMITS_UNAVAILABLE).detail(reason);
                return Step::Refuse(problem.retry_after(PER_MIN));
            }
        };
        let refused = grant.granted == 0;
        let tighter = |standing: &Standing| grant.remaining < standing.remaining;
        if refused || exchange.standing.as_ref().is_none_or(tighter) {
            exchange.standing = Some(Standing {
                policy: Arc::clone(&self.policy),
                name: Arc::clone(&self.name),
                remaining: grant.remaining,
                reset: if refused { grant.retry_after } else { grant.reset },
            });
        }
        match refused {
            true => Step::Refuse(
                Problem::new(codes::RATE_LIMITED)
                    .detail(format_args!("limit {}", self.name))
                    .retry_after(grant.retry_after),
            ),
            false => Step::Continue,
        }
    }
}

/// Writes `RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers), in the place
/// of any that a backend has written: the client talks to the gateway.
fn tell(standing: &Standing, response: &mut ResponseHead) {
    let fields = &mut response.fields;
    fields.set(b"ratelimit-policy", standing.policy.as_bytes());
    fields.remove(b"ratelimit");
    let name = fields.intern(b"ratelimit");
    let (value, ()) = fields.intern_with(|out| {
        out.extend_from_slice(standing.name.as_bytes());
        out.extend_from_slice(b";r=");
        decimal(u64::from(standing.remaining), out);
        out.extend_from_slice(b";t=");
        decimal(standing.reset.as_millis().div_ceil(1000) as u64, out);
    });
    fields.push_parsed(name, value);
}

/// Appends a number; `write!` would cost several times as much.
fn decimal(mut number: u64, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::testing::{World, check, check_many};

    #[test]
    fn a_window_runs_out_and_comes_back() {
        check_many(
            "limits",
            "2/s per ip",
            &[
                "192.0.2.7 GET /a",
                "100ms 192.0.2.7 GET /b",
                "100ms 192.0.2.7 GET /c",
                "100ms 192.0.2.8 GET /c",
                "1100ms 192.0.2.7 GET /d",
            ],
            &expect![[r#"
                continue
                < ratelimit-policy: "2/s per ip";q=2;w=1
                < ratelimit: "2/s per ip";r=1;t=2
                continue
                < ratelimit-policy: "2/s per ip";q=2;w=1
                < ratelimit: "2/s per ip";r=0;t=2
                429 rate-limited | limit "2/s per ip"
                < retry-after: 1
                < ratelimit-policy: "2/s per ip";q=2;w=1
                < ratelimit: "2/s per ip";r=0;t=1
                continue
                < ratelimit-policy: "2/s per ip";q=2;w=1
                < ratelimit: "2/s per ip";r=1;t=2
                continue
                < ratelimit-policy: "2/s per ip";q=2;w=1
                < ratelimit: "2/s per ip";r=0;t=2"#]],
        );
    }

    #[test]
    fn a_bucket_takes_a_burst() {
        check_many(
            "limits",
            "{ rate: { count: 1, per: 10s, burst: 2 }, name: slow }",
            &["192.0.2.7 GET /", "192.0.2.8 GET /", "192.0.2.9 GET /", "11000ms 192.0.2.9 GET /"],
            &expect![[r#"
                continue
                < ratelimit-policy: "slow";q=1;w=10
                < ratelimit: "slow";r=1;t=10
                continue
                < ratelimit-policy: "slow";q=1;w=10
                < ratelimit: "slow";r=0;t=20
                429 rate-limited | limit "slow"
                < retry-after: 10
                < ratelimit-policy: "slow";q=1;w=10
                < ratelimit: "slow";r=0;t=10
                continue
                < ratelimit-policy: "slow";q=1;w=10
                < ratelimit: "slow";r=0;t=19"#]],
        );
    }

    #[test]
    fn a_shadow_refuses_nobody_and_says_nothing() {
        check_many(
            "limits",
            "{ rate: { count: 1, per: 1s }, shadow: true }",
            &["192.0.2.7 GET /", "192.0.2.7 GET /"],
            &expect![[r#"
                continue
                continue"#]],
        );
    }

    /// The remaining budget after one request of each line; 8 is a counter of its own.
    fn remaining(limit: &str, requests: &[&str]) -> Vec<u32> {
        let world = World::default();
        let policy = world.policy("limits", limit);
        let left = |line: &&str| {
            let mut exchange = world.exchange(line);
            let step = policy.on_request(&mut exchange, &world.services);
            assert!(matches!(step, Step::Continue));
            drop(step);
            exchange.standing.map_or(0, |standing| standing.remaining)
        };
        requests.iter().map(left).collect()
    }

    #[test]
    fn keys_tell_requests_apart() {
        let of_address = ["2001:db8::1 GET /", "2001:db8::2 GET /", "2001:db8:0:1::1 GET /"];
        assert_eq!(remaining("9/s per ip", &of_address), [8, 7, 8]);
        let mapped = ["192.0.2.7 GET /", "::ffff:192.0.2.7 GET /"];
        assert_eq!(remaining("9/s per ip", &mapped), [8, 7]);
        let of_client = [
            "192.0.2.7 GET / | :client a",
            "192.0.2.8 GET / | :client a",
            "192.0.2.7 GET / | :client b",
            "192.0.2.7 GET /",
            "192.0.2.8 GET /",
        ];
        assert_eq!(remaining("9/s per client", &of_client), [8, 7, 8, 8, 8]);
        let of_tenant = [
            "192.0.2.7 GET / | :client a | :tenant t",
            "192.0.2.7 GET / | :client b | :tenant t",
            "192.0.2.7 GET / | :client a | :tenant u",
        ];
        assert_eq!(remaining("9/s per tenant", &of_tenant), [8, 7, 8]);
        assert_eq!(remaining("9/s per client+tenant", &of_tenant), [8, 8, 8]);
        let of_header = [
            "192.0.2.7 GET / | X-Plan: gold",
            "192.0.2.7 GET / | x-plan: gold",
            "192.0.2.7 GET / | x-plan: g | x-plan: old",
            "192.0.2.7 GET /",
        ];
        assert_eq!(remaining("9/s per header:X-Plan", &of_header), [8, 7, 8, 8]);
        let of_claim = [
            "192.0.2.7 GET / | :client a | :claim plan=1",
            "192.0.2.7 GET / | :client b | :claim plan=1",
            "192.0.2.7 GET / | :client b | :claim plan=\"1\"",
            "192.0.2.7 GET / | :client b",
        ];
        assert_eq!(remaining("9/s per claim:plan", &of_claim), [8, 7, 8, 8]);
        assert_eq!(remaining("9/s", &of_address), [8, 7, 6]);
    }

    #[test]
    fn the_key_decides_the_phase() {
        let world = World::default();
        for (limit, phase) in [
            ("1/s", Phase::AdmitEarly),
            ("1/s per ip+route", Phase::AdmitEarly),
            ("1/s per header:x-a", Phase::AdmitEarly),
            ("1/s per client", Phase::Admit),
            ("1/s per ip+tenant", Phase::Admit),
            ("1/s per claim:plan", Phase::Admit),
        ] {
            assert_eq!(world.policy("limits", limit).phase(), phase, "{limit}");
        }
    }

    /// Of several limits the one with the least left is told.
    #[test]
    fn the_tightest_limit_speaks() {
        let world = World::default();
        let limits = ["5/s per ip", "3/m per ip", "9/h per ip"];
        let policies = limits.map(|limit| world.policy("limits", limit));
        let mut exchange = world.exchange("192.0.2.7 GET /");
        for policy in &policies {
            assert!(matches!(policy.on_request(&mut exchange, &world.services), Step::Continue));
        }
        let mut head = ResponseHead::default();
        head.fields.append(b"RateLimit", b"the backend's own");
        for policy in policies.iter().rev() {
            drop(policy.on_response(&mut exchange, &mut head, &world.services));
        }
        let values: Vec<_> = head.fields.iter().map(|(_, value)| value).collect();
        assert_eq!(values, [&br#""3/m per ip";q=3;w=60"#[..], br#""3/m per ip";r=2;t=61"#]);
    }

    /// A counter outlives a reload and a changed number; what makes it another limit does not.
    #[test]
    fn counters_survive_reloads() {
        let world = World::default();
        let left = |limit: &str| {
            let policy = world.policy("limits", limit);
            world.next_generation();
            let mut exchange = world.exchange("192.0.2.7 GET /");
            drop(policy.on_request(&mut exchange, &world.services));
            exchange.standing.map_or(0, |standing| standing.remaining)
        };
        assert_eq!([left("9/s per ip"), left("9/s per ip"), left("20/s per ip")], [8, 7, 17]);
        assert_eq!([left("9/m per ip"), left("9/s burst 9 per ip"), left("9/s")], [8, 8, 8]);
    }

    #[test]
    fn a_hundred_reloads_in_a_burst_admit_one_window() {
        let world = World::default();
        let mut admitted = 0;
        for reload in 0..100 {
            let policy = world.policy("limits", "10/m per ip");
            world.next_generation();
            for _ in 0..3 {
                let mut exchange = world.exchange(&format!("{reload}ms 192.0.2.7 GET /"));
                let step = policy.on_request(&mut exchange, &world.services);
                admitted += u32::from(matches!(step, Step::Continue));
            }
        }
        assert_eq!(admitted, 10);
    }

    #[test]
    fn a_store_that_does_not_answer_is_a_503() {
        let world = World::default();
        world.services.store_down.set(true);
        let seen = world.run(&*world.policy("limits", "1/s per ip"), "192.0.2.7 GET /");
        expect![[r#"
            503 limits-unavailable | no store
            < retry-after: 1"#]]
        .assert_eq(&seen);
    }

    #[test]
    fn what_cannot_be_counted_does_not_compile() {
        let request = "192.0.2.7 GET /";
        for (limit, expected) in [
            (
                "{ rate: { count: 1, per: 10ms } }",
                expect![
                    "error limit-unsound at limits: the time of a limit is from one second to 366 days"
                ],
            ),
            (
                "{ rate: { count: 1, per: 1s, burst: 5 }, algorithm: window }",
                expect![
                    "error limit-unsound at limits: a `window` has no `burst`: remove one of them"
                ],
            ),
            (
                "1/1d burst 1000",
                expect![
                    "error limit-unsound at limits: the `burst` would take over 366 days to come back"
                ],
            ),
            (
                r#"{ rate: { count: 1, per: 1s }, name: "a\"b" }"#,
                expect![
                    "error limit-unsound at limits: a `name` is printable ASCII without quotes and backslashes"
                ],
            ),
            (
                "100/s per clint",
                expect![
                    "error invalid-value at limits: unknown key `clint` (keys: `ip`, `client`, `tenant`, `route`, `header:NAME`, `claim:NAME`, joined by `+`)"
                ],
            ),
        ] {
            check("limits", limit, request, &expected);
        }
    }

    #[test]
    fn numbers() {
        for number in [0, 9, 10, 4_294_967_295, u64::MAX] {
            let mut out = Vec::new();
            decimal(number, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), number.to_string());
        }
    }
}
