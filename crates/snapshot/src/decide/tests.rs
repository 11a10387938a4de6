use expect_test::{Expect, expect};

use super::*;
use crate::testing::{Files, World, compiled, exchange, now_or_never};

const CONFIG: &str = r#"
listeners:
  http: { bind: "127.0.0.1:8080" }
auth:
  idp: { token: { header: x-token } }
routes:
  orders:
    match: "/orders/{id}"
    auth: idp
    cors: { origin: "https://a" }
    ip_filter: { deny: 192.0.2.66 }
    limits: ["2/s"]
    stamp: s
    to: { v1: 90, v2: 10 }
  upload: { match: /upload, public: for a test, whole: 10, body_max: 20, to: v1 }
  plain: { match: { path: /plain, methods: [PUT] }, public: for a test, body_max: 20, to: v1 }
  slow: { match: /slow, auth: far, to: v1 }
  status: { match: /status, public: for a test, respond: { status: 204 } }
backends: { v1: "http://10.0.0.1", v2: "http://10.0.0.2" }
"#;

/// Sees every call.
#[derive(Default)]
struct Watch(String);

impl Observer for Watch {
    fn routed(&mut self, route: Option<&Route>) {
        self.0 += &format!("route {}", route.map_or("none", |route| &route.name));
    }

    fn before(&mut self, placed: &Placed) {
        self.0 += &format!(" | {}", placed.name);
    }

    fn after(&mut self, _: &Placed, outcome: Outcome<'_>, waited: bool) {
        match outcome {
            Outcome::Continue => {}
            Outcome::Reply(_) => self.0 += " replies",
            Outcome::Refuse(_) => self.0 += " refuses",
            Outcome::Unknown(_) => self.0 += " cannot tell",
        }
        if waited {
            self.0 += " after a wait";
        }
    }
}

struct Body(&'static [u8]);

impl RequestBody for Body {
    fn collect(&mut self, bytes_max: usize) -> LocalFuture<'_, Result<Bytes, Problem>> {
        Box::pin(async move {
            match self.0.len() <= bytes_max {
                true => Ok(Bytes::from_static(self.0)),
                false => Err(Problem::new(codes::BODY_TOO_LARGE)),
            }
        })
    }
}

fn snapshot() -> Snapshot {
    let text = CONFIG.replace("auth:\n  idp", "auth:\n  far: { remote: { header: x-far } }\n  idp");
    compiled(&text, &Files::default()).ok()
}

fn run(
    snapshot: &Snapshot,
    exchange: &mut Exchange,
    body: &'static [u8],
    world: &World,
) -> (Decision, String) {
    let mut watch = Watch::default();
    let mut body = Body(body);
    let decision = now_or_never(decide(snapshot, exchange, &mut body, world, &mut watch));
    let verdict = match &decision.verdict {
        Verdict::Forward { backend, .. } => {
            format!("to {}", snapshot.backends[usize::from(*backend)].name)
        }
        Verdict::Reply(reply) => format!(
            "{} {:?}",
            reply.head.status.as_u16(),
            reply.head.fields.get(b"location").map(|l| String::from_utf8_lossy(l).into_owned())
        ),
        Verdict::Refuse(problem) => format!("{} {:?}", problem.code.name, problem.fields),
        Verdict::Unknown { needs } => format!("unknown {needs}"),
    };
    let seen = format!("{}\n{verdict}, seen by {}", watch.0, decision.seen);
    (decision, seen)
}

#[track_caller]
fn check(requests: &[&str], expected: &Expect) {
    let (snapshot, world) = (snapshot(), World::default());
    let all: Vec<String> = requests
        .iter()
        .map(|request| {
            let mut exchange = exchange(&snapshot, request);
            format!("{request}\n{}\n", run(&snapshot, &mut exchange, b"", &world).1)
        })
        .collect();
    expected.assert_eq(&all.join("\n"));
}

#[test]
fn policies_run_in_order_until_one_ends_it() {
    check(
        &[
            "GET http://h/orders/7 x-token:good-me",
            "GET http://h/orders/7",
            "GET http://h/orders/7 x-token:good-me",
            "OPTIONS http://h/orders/7 origin:https://a access-control-request-method:PATCH",
            "GET http://h/status",
        ],
        &expect![[r#"
            GET http://h/orders/7 x-token:good-me
            route orders | cors | ip_filter | limits | auth | stamp
            to v1, seen by 5

            GET http://h/orders/7
            route orders | cors | ip_filter | limits | auth refuses
            credentials-missing [("www-authenticate", "Token realm=\"idp\"")], seen by 4

            GET http://h/orders/7 x-token:good-me
            route orders | cors | ip_filter | limits refuses
            rate-limited [], seen by 3

            OPTIONS http://h/orders/7 origin:https://a access-control-request-method:PATCH
            route orders | cors replies
            204 None, seen by 1

            GET http://h/status
            route status | respond replies
            204 None, seen by 1
        "#]],
    );
}

#[test]
fn where_nothing_is_served() {
    check(
        &["GET http://h/nothing", "GET http://h/plain", "GET http://h/orders/"],
        &expect![[r#"
        GET http://h/nothing
        route none
        no-route [], seen by 0

        GET http://h/plain
        route none
        method-not-allowed [("allow", "PUT")], seen by 0

        GET http://h/orders/
        route none
        no-route [], seen by 0
    "#]],
    );
}

#[test]
fn the_clock_is_read_again_after_a_wait_only() {
    let (snapshot, world) = (snapshot(), World::default());
    let mut quick = exchange(&snapshot, "GET http://h/orders/7 x-token:good-me");
    let before = quick.now;
    run(&snapshot, &mut quick, b"", &world);
    assert_eq!(quick.now, before);
    let mut slow = exchange(&snapshot, "GET http://h/slow x-far:good-me");
    let (_, seen) = run(&snapshot, &mut slow, b"", &world);
    assert_eq!(slow.now, world.now());
    expect![[r#"
        route slow | auth after a wait
        to v1, seen by 1"#]]
    .assert_eq(&seen);
}

#[test]
fn what_the_backend_will_see() {
    let (snapshot, world) = (snapshot(), World::default());
    let mut exchange = exchange(&snapshot, "GET http://h/orders/7 x-token:good-me");
    run(&snapshot, &mut exchange, b"", &world);
    assert_eq!(exchange.request.fields.get(b"x-token"), None);
    assert_eq!(exchange.request.fields.get(b"x-stamp"), Some(&b"orders:s"[..]));
    assert_eq!(exchange.param("id"), Some(&b"7"[..]));
    assert_eq!(exchange.identity.unwrap().key, "idp/me");
}

#[test]
fn weights_share_by_the_random_number() {
    let (snapshot, world) = (snapshot(), World::default());
    let backend_at = |random: u64| {
        let mut exchange = exchange(&snapshot, "GET http://h/orders/7 x-token:good-me");
        exchange.random = random;
        let Verdict::Forward { backend, .. } = run(&snapshot, &mut exchange, b"", &world).0.verdict
        else {
            return None;
        };
        Some(backend)
    };
    assert_eq!(backend_at(0), Some(0));
    assert_eq!(backend_at(u64::MAX), Some(1));
}

#[test]
fn a_body_that_is_too_large_is_refused_where_its_length_says_so() {
    let (snapshot, world) = (snapshot(), World::default());
    let ask = |request: &str, body: &'static [u8]| {
        let mut exchange = exchange(&snapshot, request);
        if exchange.request.body == BodyLength::Empty && !body.is_empty() {
            exchange.request.body = BodyLength::Unknown;
        }
        let seen = run(&snapshot, &mut exchange, body, &world).1;
        let whole = exchange.request.fields.get(b"x-whole").map(<[u8]>::to_vec);
        format!("{seen} {:?}\n", whole.map(|whole| String::from_utf8(whole).unwrap()))
    };
    let all = [
        ask("POST http://h/upload", b"0123456789"),
        ask("POST http://h/upload", b"0123456789x"),
        ask("POST http://h/upload content-length:11", b"0123456789x"),
        ask("POST http://h/upload", b""),
        ask("PUT http://h/plain content-length:20", b""),
        ask("PUT http://h/plain content-length:21", b""),
    ];
    expect![[r#"
        route upload | whole
        to v1, seen by 1 Some("10")
        route upload
        body-too-large [], seen by 0 None
        route upload
        body-too-large [], seen by 0 None
        route upload | whole
        to v1, seen by 1 Some("0")
        route plain
        to v1, seen by 0 None
        route plain
        body-too-large [], seen by 0 None
    "#]]
    .assert_eq(&all.concat());
}

#[test]
fn a_redirecting_listener_keeps_method_host_path_and_query() {
    let mut snapshot = snapshot();
    let redirect = |port| crate::Redirect { listener: "https".into(), port };
    let mut all = String::new();
    for port in [443, 8443] {
        let listener = std::sync::Arc::get_mut(&mut snapshot.listeners[0]).unwrap();
        listener.redirect = Some(redirect(port));
        let mut exchange = exchange(&snapshot, "POST http://h:8080/orders/7?a=b");
        all += &run(&snapshot, &mut exchange, b"", &World::default()).1;
        all.push('\n');
    }
    expect![[r#"
        route none
        308 Some("https://h/orders/7?a=b"), seen by 0
        route none
        308 Some("https://h:8443/orders/7?a=b"), seen by 0
    "#]]
    .assert_eq(&all);
}
