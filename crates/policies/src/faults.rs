//! Makes requests late, or answers them with an error, on purpose.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use portcullis_core::decode::{Entries, Spanned};
use portcullis_core::exchange::Held;
use portcullis_core::finding::Finding;
use portcullis_core::head::is_token;
use portcullis_core::registry::{Compile, PolicyConfig, Site};
use portcullis_core::units::PositiveDuration;
use portcullis_core::{Exchange, Phase, Policy, Problem, Services, Step, codes};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::networks::Networks;

/// A request that waits longer looks like one that hangs.
const DELAY_MAX: Duration = Duration::from_secs(60);
/// As many draws as there are, and the share that is all of them.
const ALL: u64 = 1 << 32;

/// Makes requests late, or answers them with an error in the backend's place, to see what clients
/// make of it. The listeners of its routes have to say `allow_faults: true`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Faults {
    /// Lets requests wait before the backend is asked.
    #[serde(default)]
    delay: Option<Delay>,
    /// Answers requests with an error, after the delay if there is one.
    #[serde(default)]
    abort: Option<Abort>,
    /// Only requests that have all of these fields with exactly these values. Default: all. Who may
    /// ask for a fault that way has to be said by `from` or `clients`.
    #[serde(default)]
    headers: Entries<Spanned<String>>,
    /// Only requests from these addresses and networks (`192.0.2.0/24`): the peer's address, or
    /// the one that trusted hops report. Default: from everywhere.
    #[serde(default)]
    #[schemars(length(min = 1))]
    from: Option<Vec<Spanned<String>>>,
    /// Only requests of these callers, as the access log has them in `identity`: `idp/tester`.
    /// Default: of all.
    #[serde(default)]
    #[schemars(length(min = 1))]
    clients: Option<Vec<Spanned<String>>>,
}

/// How requests are made late.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Delay {
    /// How long they wait; at most 60s.
    by: Spanned<PositiveDuration>,
    /// Of 100 requests. Default: all.
    #[serde(default)]
    percent: Percent,
}

/// How requests are answered with an error.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Abort {
    /// Status of the answer, 400 to 599.
    #[schemars(range(min = 400, max = 599))]
    status: u16,
    /// What gRPC callers are told in its place, 1 to 16. Default: what says the same as `status`,
    /// which is 14 (UNAVAILABLE) for 503.
    #[serde(default)]
    #[schemars(range(min = 1, max = 16))]
    grpc_status: Option<u8>,
    /// Of 100 requests. Default: all.
    #[serde(default)]
    percent: Percent,
}

/// A share of the requests: 0 to 100, also in fractions.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(transparent)]
struct Percent(#[schemars(range(min = 0, max = 100))] f64);

impl Default for Percent {
    fn default() -> Self {
        Self(100.0)
    }
}

impl Percent {
    /// How many of all draws.
    fn share(self) -> u64 {
        (self.0 / 100.0 * ALL as f64) as u64
    }

    fn words(self) -> String {
        if self.0 < 100.0 { format!(" of {}%", self.0) } else { String::new() }
    }
}

impl PolicyConfig for Faults {
    const NAME: &'static str = "faults";
    const EXAMPLE: &'static str = "{ delay: { by: 2s, percent: 10 } }";

    fn compile(self, site: &Site<'_>, with: &mut Compile<'_>) -> Option<Arc<dyn Policy>> {
        Some(Arc::new(self.compiled(site, with)?))
    }
}

impl Faults {
    fn compiled(&self, site: &Site<'_>, with: &mut Compile<'_>) -> Option<Compiled> {
        let before = with.findings.errors();
        self.check(site, with);
        let mut networks = |list: &Vec<_>| Networks::compile("from", list, site, with);
        let from = self.from.as_ref().map(&mut networks);
        if with.findings.errors() > before {
            return None;
        }
        let headers = self.headers.iter().map(|(key, value)| {
            (key.name.to_ascii_lowercase().into_boxed_str(), value.value.as_str().into())
        });
        let clients = self.clients.iter().flatten();
        Some(Compiled {
            delay: self.delay.as_ref().map(|delay| (delay.by.0, delay.percent.share())),
            abort: self.abort.as_ref().and_then(|abort| {
                let status = StatusCode::from_u16(abort.status).ok()?;
                Some((status, abort.grpc_status, abort.percent.share()))
            }),
            headers: headers.collect(),
            from: from.flatten(),
            clients: clients.map(|client| client.value.as_str().into()).collect(),
            place: site.resource.into(),
            words: self.words(),
        })
    }

    fn check(&self, site: &Site<'_>, with: &mut Compile<'_>) {
        let mut error = |key: &str, span, message: String, help: &str| {
            let resource = format!("{}{key}", site.resource);
            let finding = Finding::error("invalid-value", span, resource, message);
            with.findings.push(finding.help(help));
        };
        if self.delay.is_none() && self.abort.is_none() {
            let help = "`delay: { by: 2s }` makes requests late, `abort: { status: 503 }` fail";
            error("", site.span, "neither `delay` nor `abort` is here".to_owned(), help);
        }
        if let Some(delay) = self.delay.as_ref().filter(|delay| delay.by.0 > DELAY_MAX) {
            error(".delay.by", delay.by.span, "more than 60s".to_owned(), "write 60s or less");
        }
        for (key, _) in self.headers.iter().filter(|(key, _)| !is_token(key.name.as_bytes())) {
            let help = "names are letters, digits and `-`";
            error(".headers", key.span, format!("`{key}` is not a field name"), help);
        }
        for client in self.clients.iter().flatten().filter(|client| !client.value.contains('/')) {
            let help = "write the entry of `auth` and the client, as in `idp/tester`";
            error(".clients", client.span, format!("`{}` is no caller", client.value), help);
        }
        if let Some((key, _)) = self.headers.iter().next()
            && self.from.is_none()
            && self.clients.is_none()
        {
            let message = format!("whoever sends `{key}` could make requests fail");
            let help = "say who may: `from: [\"10.0.0.0/8\"]` by address, `clients: [idp/tester]` \
                        by identity, or `from: [\"0.0.0.0/0\", \"::/0\"]` if everybody may";
            error(".headers", key.span, message, help);
        }
    }

    /// All of it in short; values of headers are left out, since they may be what keeps others
    /// from asking.
    fn words(&self) -> String {
        let mut words = Vec::new();
        words.extend(
            self.delay
                .as_ref()
                .map(|delay| format!("delay {}{}", delay.by.value, delay.percent.words())),
        );
        words.extend(self.abort.as_ref().map(|abort| {
            let mut words = format!("abort {}", abort.status);
            if let Some(status) = abort.grpc_status {
                // Writing to a string cannot fail.
                write!(words, " (gRPC {status})").unwrap_or_default();
            }
            words + &abort.percent.words()
        }));
        let list = |list: &[Spanned<String>]| {
            list.iter().map(|one| one.value.as_str()).collect::<Vec<_>>().join(", ")
        };
        let names: Vec<&str> = self.headers.iter().map(|(key, _)| key.name.as_str()).collect();
        words.extend((!names.is_empty()).then(|| format!("only with {}", names.join(", "))));
        words.extend(self.from.as_ref().map(|from| format!("only from {}", list(from))));
        words.extend(self.clients.as_ref().map(|clients| format!("only for {}", list(clients))));
        words.join("; ")
    }
}

#[derive(Debug)]
struct Compiled {
    /// How long, and for how many of all draws.
    delay: Option<(Duration, u64)>,
    /// With which status, which one in gRPC, and how many of all draws.
    abort: Option<(StatusCode, Option<u8>, u64)>,
    /// Names in lower case.
    headers: Box<[(Box<str>, Box<str>)]>,
    from: Option<Networks>,
    /// None: everybody.
    clients: Box<[Box<str>]>,
    place: Box<str>,
    words: String,
}

impl Compiled {
    fn is_meant(&self, exchange: &Exchange) -> bool {
        let fields = &exchange.request.fields;
        let has = |(name, value): &(Box<str>, Box<str>)| {
            fields.get(name.as_bytes()).is_some_and(|sent| sent == value.as_bytes())
        };
        let is_client = || {
            let key = exchange.identity.as_ref().map(|identity| &*identity.key);
            key.is_some_and(|key| self.clients.iter().any(|client| **client == *key))
        };
        self.headers.iter().all(has)
            && self.from.as_ref().is_none_or(|from| from.contains(exchange.client_ip))
            && (self.clients.is_empty() || is_client())
    }

    /// What falls on one request, by a number spread over all of `u64`. Offline nobody is made to
    /// wait, and only what befalls every request can be told.
    fn fall(&self, drawn: u64, offline: bool) -> (Option<Duration>, Option<Problem>) {
        let falls = |draw: u64, share: u64| share >= ALL || (!offline && draw < share);
        let delay = self.delay.filter(|(_, share)| !offline && falls(drawn >> 32, *share));
        let abort = self.abort.filter(|(.., share)| falls(drawn % ALL, *share));
        let problem = abort.map(|(status, grpc_status, _)| self.problem(status, grpc_status));
        (delay.map(|(wait, _)| wait), problem)
    }

    fn problem(&self, status: StatusCode, grpc_status: Option<u8>) -> Problem {
        let detail = format_args!("on purpose, by {}", self.place);
        Problem::new(codes::FAULT_INJECTED).detail(detail).answered(status, grpc_status)
    }
}

impl Policy for Compiled {
    fn phase(&self) -> Phase {
        Phase::Forward
    }

    fn faults(&self) -> Option<&str> {
        Some(&self.words)
    }

    fn on_request<'a>(
        &'a self,
        exchange: &'a mut Exchange,
        services: &'a dyn Services,
    ) -> Step<'a> {
        if !self.is_meant(exchange) {
            return Step::Continue;
        }
        // Not what variants are drawn by: a fault has to fall on all of them alike.
        let mut drawn = [0; 8];
        services.random(&mut drawn);
        match self.fall(u64::from_le_bytes(drawn), services.is_offline()) {
            (Some(wait), then) => {
                exchange.held = Some(Box::new(Held { wait, then }));
                Step::Continue
            }
            (None, Some(problem)) => Step::Refuse(problem),
            (None, None) => Step::Continue,
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::testing::{World, check, check_many};

    #[test]
    fn an_error_in_the_backends_place() {
        let want = expect!["503 fault-injected | on purpose, by faults"];
        check("faults", "{ abort: { status: 503 } }", "192.0.2.7 GET /", &want);
    }

    #[test]
    fn a_header_alone_moves_nobody() {
        check_many(
            "faults",
            "{ abort: { status: 500 }, headers: { X-Fault: \"yes\", x-test: a }, \
             from: [192.0.2.0/24] }",
            &[
                "192.0.2.7 GET /",
                "192.0.2.7 GET / | x-fault: yes",
                "192.0.2.7 GET / | x-fault: yes | x-test: b",
                "192.0.2.7 GET / | x-fault: yes | x-test: a",
                "::ffff:192.0.2.7 GET / | x-fault: yes | x-test: a",
                "192.0.3.7 GET / | x-fault: yes | x-test: a",
            ],
            &expect![[r#"
                continue
                continue
                continue
                503 fault-injected | on purpose, by faults
                503 fault-injected | on purpose, by faults
                continue"#]],
        );
    }

    #[test]
    fn callers_are_meant_by_what_they_have_proved() {
        check_many(
            "faults",
            "{ abort: { status: 500 }, clients: [idp/tester] }",
            &[
                "192.0.2.7 GET /",
                "192.0.2.7 GET / | portcullis-client: tester",
                "192.0.2.7 GET / | :client shop",
                "192.0.2.7 GET / | :client tester",
            ],
            &expect![[r#"
                continue
                continue
                continue
                503 fault-injected | on purpose, by faults"#]],
        );
    }

    /// How many of 4000 requests are late, fail, and both.
    fn drawn(delay: &str, abort: &str, offline: bool) -> [usize; 3] {
        let yaml = format!(
            "{{ delay: {{ by: 2s, percent: {delay} }}, \
             abort: {{ status: 500, percent: {abort} }} }}"
        );
        let compile =
            |faults: Faults, site: &Site<'_>, with: &mut Compile<'_>| faults.compiled(site, with);
        let policy = World::default().try_compile(&yaml, compile).unwrap();
        let mut seen = [0; 3];
        for number in 0..4000_u64 {
            // Both halves are spread evenly.
            let drawn = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let (delay, problem) = policy.fall(drawn, offline);
            seen[0] += usize::from(delay.is_some());
            seen[1] += usize::from(problem.is_some());
            seen[2] += usize::from(delay.is_some() && problem.is_some());
        }
        seen
    }

    #[test]
    fn shares_are_drawn_one_by_one() {
        assert_eq!(drawn("0", "0", false), [0, 0, 0]);
        assert_eq!(drawn("100", "0", false), [4000, 0, 0]);
        assert_eq!(drawn("0", "100", false), [0, 4000, 0]);
        assert_eq!(drawn("100", "100", false), [4000, 4000, 4000]);
        let seen = drawn("50", "12.5", false);
        let near = seen.iter().zip([2000, 500, 250]).all(|(seen, want)| seen.abs_diff(want) < 50);
        assert!(near, "{seen:?}");
        // What is left to chance is not known offline, and nobody waits there.
        assert_eq!(drawn("100", "99.9", true), [0, 0, 0]);
        assert_eq!(drawn("100", "100", true), [0, 4000, 0]);
    }

    #[test]
    fn the_error_of_a_late_request_is_left_to_whoever_lets_it_wait() {
        let world = World::default();
        let policy = world.policy("faults", "{ delay: { by: 2s }, abort: { status: 500 } }");
        let mut exchange = world.exchange("192.0.2.7 GET /");
        let step = policy.on_request(&mut exchange, &world.services);
        assert!(matches!(step, Step::Continue));
        drop(step);
        let held = exchange.held.take().unwrap();
        let status = held.then.map(|problem| problem.status().as_u16());
        assert_eq!((held.wait, status), (Duration::from_secs(2), Some(500)));
    }

    #[test]
    fn it_is_told_without_the_values_of_headers() {
        let policy = World::default().policy(
            "faults",
            "{ delay: { by: 1500ms, percent: 0.5 }, abort: { status: 503, grpc_status: 4 }, \
             headers: { x-fault: secret }, from: [\"10.0.0.0/8\"], clients: [idp/tester] }",
        );
        let want = "delay 1s500ms of 0.5%; abort 503 (gRPC 4); only with x-fault; \
                    only from 10.0.0.0/8; only for idp/tester";
        assert_eq!(policy.faults(), Some(want));
    }

    #[test]
    fn what_is_no_fault_does_not_compile() {
        let world = World::default();
        let said = [
            "{}",
            "{ delay: { by: 61s } }",
            "{ delay: { by: 0s } }",
            "{ delay: { by: 1s, percent: 101 } }",
            "{ delay: { by: 1s, percent: -1 } }",
            "{ abort: { status: 200 } }",
            "{ abort: { status: 503, grpc_status: 0 } }",
            "{ abort: { status: 500 }, from: [] }",
            "{ abort: { status: 500 }, from: [10.0.0.1/8], clients: [tester] }",
            "{ abort: { status: 500 }, from: [10.0.0.0/8], headers: { \"a b\": c } }",
            "{ abort: { status: 500 }, headers: { x-fault: \"1\" } }",
        ]
        .map(|yaml| format!("{yaml}\n  {}\n", world.try_policy("faults", yaml).unwrap_err()));
        expect![[r#"
            {}
              error invalid-value at faults: neither `delay` nor `abort` is here (`delay: { by: 2s }` makes requests late, `abort: { status: 503 }` fail)
            { delay: { by: 61s } }
              error invalid-value at faults.delay.by: more than 60s (write 60s or less)
            { delay: { by: 0s } }
              error invalid-value at faults.delay.by: must be longer than zero
            { delay: { by: 1s, percent: 101 } }
              error out-of-range at faults.delay.percent: must be from 0 to 100
            { delay: { by: 1s, percent: -1 } }
              error out-of-range at faults.delay.percent: must be from 0 to 100
            { abort: { status: 200 } }
              error out-of-range at faults.abort.status: must be from 400 to 599
            { abort: { status: 503, grpc_status: 0 } }
              error out-of-range at faults.abort.grpc_status: must be from 1 to 16
            { abort: { status: 500 }, from: [] }
              error out-of-range at faults.from: needs at least 1 item
            { abort: { status: 500 }, from: [10.0.0.1/8], clients: [tester] }
              error invalid-value at faults.clients: `tester` is no caller (write the entry of `auth` and the client, as in `idp/tester`)
            error invalid-value at faults.from[0]: `10.0.0.1/8` has bits beyond its length: write `10.0.0.0/8`
            { abort: { status: 500 }, from: [10.0.0.0/8], headers: { "a b": c } }
              error invalid-value at faults.headers: `a b` is not a field name (names are letters, digits and `-`)
            { abort: { status: 500 }, headers: { x-fault: "1" } }
              error invalid-value at faults.headers: whoever sends `x-fault` could make requests fail (say who may: `from: ["10.0.0.0/8"]` by address, `clients: [idp/tester]` by identity, or `from: ["0.0.0.0/0", "::/0"]` if everybody may)
        "#]].assert_eq(&said.concat());
    }
}
