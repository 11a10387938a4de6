//! The search against a scripted place, on a clock that jumps: what is asked when, and what the
//! backend has then.

use std::collections::VecDeque;

use expect_test::{Expect, expect};
use portcullis_core::Now;
use portcullis_core::carry::Carry;
use portcullis_testkit::policies::registry;
use rustls::RootCertStore;
use tokio::sync::Notify;

use super::*;
use crate::Loader;

const CONFIG: &str = r#"
listeners: { http: { bind: "127.0.0.1:0" } }
routes: { all: { match: /**, public: a test, to: orders } }
backends: { orders: { discover: { file: none.yaml }, slow_start: off } }
"#;

/// Snapshots of a configuration, each as a reload after the one before.
struct Reloads {
    dir: tempfile::TempDir,
    carry: Carry,
}

impl Reloads {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), carry: Carry::default() }
    }

    fn next(&mut self, config: &str) -> Snapshot {
        let path = self.dir.path().join("portcullis.yaml");
        std::fs::write(&path, config).unwrap();
        let loader = Loader::new(&path, *registry(), Arc::new(RootCertStore::empty()), 1);
        let attempt = loader.load(&self.carry, Now::default());
        self.carry = attempt.carry.next_generation();
        attempt.snapshot.unwrap_or_else(|| panic!("{:?}", attempt.findings))
    }
}

/// Answers by its script, the last one again and again, and notes when it was asked.
#[derive(Default)]
struct Script {
    answers: Mutex<VecDeque<Result<Vec<Listed>, String>>>,
    asked: Mutex<Vec<Duration>>,
    news: Notify,
    valid: Option<Duration>,
}

struct Scripted(Arc<Script>, Instant);

impl Source for Scripted {
    fn list(&mut self) -> SourceFuture<'_, Result<Listing, String>> {
        self.0.asked.lock().unwrap().push(Instant::now() - self.1);
        let mut answers = self.0.answers.lock().unwrap();
        let next = match answers.len() {
            0 | 1 => answers.front().cloned(),
            _ => answers.pop_front(),
        };
        let valid = self.0.valid;
        Box::pin(async move {
            // Without an answer it hangs.
            let Some(answer) = next else { return std::future::pending().await };
            answer.map(|endpoints| Listing { endpoints, version: "v".to_owned(), valid })
        })
    }

    fn changed(&mut self) -> SourceFuture<'_, ()> {
        Box::pin(self.0.news.notified())
    }
}

/// A search under way.
struct World {
    reloads: Reloads,
    script: Arc<Script>,
    backend: Arc<Backend>,
    serving: watch::Sender<Arc<Backend>>,
    _search: JoinHandle<()>,
}

impl World {
    fn new(valid: Option<Duration>, answers: &[&str]) -> Self {
        let mut reloads = Reloads::new();
        let backend = Arc::clone(&reloads.next(CONFIG).backends[0]);
        let script = Arc::new(Script { valid, ..Script::default() });
        let (serving, receiver) = watch::channel(Arc::clone(&backend));
        let begun = Instant::now();
        let search = Search {
            backend: receiver,
            discovery: Arc::clone(backend.discovery.as_ref().unwrap()),
            source: Box::new(Scripted(Arc::clone(&script), begun)),
            now: Arc::new(move || Duration::from_secs(100) + (Instant::now() - begun)),
            failed: None,
        };
        let world =
            Self { reloads, script, backend, serving, _search: tokio::spawn(search.run(None)) };
        world.say(answers);
        world
    }

    /// What the place answers from now on: names, `-` for none of them, `!` for an error.
    fn say(&self, answers: &[&str]) {
        let one = |answer: &&str| match *answer {
            "!" => Err("down".to_owned()),
            "-" => Ok(Vec::new()),
            names => Ok(names.split(' ').map(|name| Listed::new(&url(name))).collect()),
        };
        *self.script.answers.lock().unwrap() = answers.iter().map(one).collect();
    }

    fn endpoints(&self) -> String {
        let set = self.backend.endpoints.load();
        let name = |url| str::trim_end_matches(str::trim_start_matches(url, "http://"), ":80");
        let names = set.listed.iter().map(|one| name(&one.url));
        names.collect::<Vec<_>>().join(" ")
    }

    /// When it was asked since the last look, in milliseconds.
    fn asked(&self) -> Vec<u128> {
        self.script.asked.lock().unwrap().drain(..).map(|at| at.as_millis()).collect()
    }

    fn facts(&self) -> portcullis_snapshot::Facts {
        self.backend.discovery.as_ref().unwrap().facts()
    }
}

fn url(name: &str) -> String {
    format!("http://{name}:80")
}

async fn seconds(seconds: u64) {
    moment().await;
    for _ in 0..seconds * 20 {
        tokio::time::advance(Duration::from_millis(50)).await;
        moment().await;
    }
}

/// Lets the search act on what has just happened.
async fn moment() {
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_found_stays_while_the_place_is_down() {
    let valid = Some(Duration::from_secs(20));
    let world = World::new(valid, &["a b", "!", "!", "!", "!", "!", "!", "!", "!", "c"]);
    moment().await;
    assert_eq!(world.endpoints(), "a b");
    seconds(100).await;
    assert_eq!(world.endpoints(), "a b");
    assert_eq!(world.facts().error.as_deref(), Some("down"));
    // At the end of its time, then after 1, 2, 4, 8, 16, 30, 30 s.
    assert_eq!(world.asked(), [0, 20_000, 21_000, 23_000, 27_000, 35_000, 51_000, 81_000]);
    seconds(50).await;
    assert_eq!((world.facts().failures, world.facts().error), (8, None));
    assert_eq!(world.endpoints(), "c");
}

#[tokio::test(start_paused = true)]
async fn a_place_that_hangs_is_given_up() {
    let world = World::new(None, &[]);
    seconds(10).await;
    assert_eq!(world.facts().error.as_deref(), Some("no answer in time"));
    world.say(&["a"]);
    seconds(1).await;
    assert_eq!(world.endpoints(), "a");
}

#[tokio::test(start_paused = true)]
async fn a_silent_place_is_asked_all_the_same() {
    let world = World::new(None, &["a"]);
    seconds(130).await;
    assert_eq!(world.asked(), [0, 60_000, 120_000]);
    world.say(&["a b"]);
    world.script.news.notify_one();
    moment().await;
    assert_eq!((world.asked().len(), world.endpoints()), (1, "a b".to_owned()));
}

/// However long an answer says that it holds, and whatever has become of the backend meanwhile.
#[tokio::test(start_paused = true)]
async fn everything_is_looked_at_again_every_five_minutes() {
    let world = World::new(Some(Duration::from_secs(3_600)), &["a b"]);
    seconds(1).await;
    world.backend.endpoints.replace(vec![Listed::new(&url("stray"))], Duration::ZERO).unwrap();
    seconds(298).await;
    assert_eq!((world.asked(), world.endpoints()), (vec![0], "stray".to_owned()));
    seconds(2).await;
    assert_eq!((world.asked(), world.endpoints()), (vec![300_000], "a b".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn an_empty_answer_is_confirmed_twice() {
    let world = World::new(Some(Duration::from_secs(60)), &["a", "-", "-", "-"]);
    seconds(61).await;
    assert_eq!((world.endpoints(), world.facts().held), ("a".to_owned(), 1));
    seconds(5).await;
    assert_eq!((world.endpoints(), world.facts().held), ("a".to_owned(), 2));
    seconds(5).await;
    assert_eq!((world.endpoints(), world.facts().held), (String::new(), 2));
    assert_eq!(world.asked(), [0, 60_000, 65_000, 70_000]);
}

#[tokio::test(start_paused = true)]
async fn what_goes_stays_until_what_comes_has_been_connected_to() {
    let world = World::new(None, &["a b"]);
    seconds(10).await;
    for (answer, proves, expected) in [("b c", true, "b c"), ("d", false, "d b c")] {
        world.say(&[answer]);
        world.script.news.notify_one();
        moment().await;
        let all = world.endpoints();
        assert_eq!(all.split(' ').count(), 3, "{all}");
        if proves {
            world.backend.endpoints.load().iter().for_each(|to| to.endpoint.connected());
        }
        seconds(1).await;
        assert_eq!(world.endpoints(), expected);
    }
    seconds(5).await;
    assert_eq!(world.endpoints(), "d");
}

#[tokio::test(start_paused = true)]
async fn an_answer_of_no_use_changes_nothing() {
    let world = World::new(None, &["a b"]);
    seconds(1).await;
    for (answer, reason) in [
        ("a a", "http://a:80: it is listed twice"),
        ("a/x", "http://a/x:80: the URL of an endpoint has no path"),
    ] {
        world.say(&[answer]);
        world.script.news.notify_one();
        moment().await;
        assert_eq!(world.facts().error.as_deref(), Some(reason));
        assert_eq!(world.endpoints(), "a b");
    }
    let tls = vec![Listed::new("https://a")];
    let refused = world.backend.endpoints.shape().check(&tls).unwrap_err();
    assert_eq!(refused.to_string(), "https://a:443: the backend has no `tls`");
}

#[tokio::test(start_paused = true)]
async fn a_reload_keeps_what_was_found_and_goes_on_with_the_new_backend() {
    let mut world = World::new(None, &["a b"]);
    moment().await;
    let next = world.reloads.next(&CONFIG.replace("slow_start: off", "balance: round_robin"));
    let before = std::mem::replace(&mut world.backend, Arc::clone(&next.backends[0]));
    assert_eq!(world.endpoints(), "a b");
    let state = |backend: &Backend| {
        Arc::clone(
            backend.endpoints.load().balancer.endpoint(portcullis_snapshot::EndpointIndex(0)),
        )
    };
    assert!(Arc::ptr_eq(&state(&before), &state(&world.backend)));
    // An answer between the compilation and the swap is not lost.
    world.say(&["a b c"]);
    world.script.news.notify_one();
    moment().await;
    assert_eq!(world.endpoints(), "a b");
    world.serving.send_replace(Arc::clone(&world.backend));
    moment().await;
    assert_eq!(world.endpoints(), "a b c");
    let elsewhere = world.reloads.next(&CONFIG.replace("none.yaml", "other.yaml"));
    assert!(elsewhere.backends[0].endpoints.load().listed.is_empty());
}

/// What the configuration may not say, by its findings.
#[track_caller]
fn check(backend: &str, expected: &Expect) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("portcullis.yaml");
    let backend = format!("backends: {{ orders: {backend} }}");
    let at = CONFIG.rfind("backends").unwrap();
    std::fs::write(&path, format!("{}{backend}", &CONFIG[..at])).unwrap();
    let loader = Loader::new(&path, *registry(), Arc::new(RootCertStore::empty()), 1);
    let attempt = loader.load(&Carry::default(), Now::default());
    let line = |finding: &portcullis_core::finding::Finding| {
        format!("{:?} {}: {}\n", finding.severity, finding.resource, finding.message)
    };
    expected.assert_eq(&attempt.findings.iter().map(line).collect::<String>());
}

#[test]
fn what_cannot_be_found_is_said() {
    check(
        "{ slow_start: off }",
        &expect![[r#"
        Error backends.orders: `orders` has no endpoints
    "#]],
    );
    check(
        r#"{ discover: {} }"#,
        &expect![[r#"
        Error backends.orders.discover: endpoints are found in one place
    "#]],
    );
    check(
        r#"{ discover: { dns: "http://a", file: b } }"#,
        &expect![[r#"
        Error backends.orders.discover: endpoints are found in one place
    "#]],
    );
    check(
        r#"{ endpoints: ["http://a"], discover: { file: b } }"#,
        &expect![[r#"
        Error backends.orders.discover: endpoints are written or found, not both
    "#]],
    );
    check(
        r#"{ discover: { dns: "http://10.0.0.1" } }"#,
        &expect![[r#"
        Error backends.orders.discover: this is not a name to look up
    "#]],
    );
    check(
        r#"{ discover: { srv: "https://_a._tcp.b" } }"#,
        &expect![[r#"
        Error backends.orders.tls: there is no authority to verify the backend with
        Error backends.orders.discover: who answers for a name server would say which certificate is right
    "#]],
    );
    check(
        r#"{ discover: { dns: "http://a", ttl_min: 2m } }"#,
        &expect![[r#"
        Error backends.orders.discover: no answer could hold for so long
    "#]],
    );
    check(
        r#"{ discover: { file: b, resolvers: ["10.0.0.1"] } }"#,
        &expect![[r#"
        Warning backends.orders.discover: `resolvers` has no effect on a file
    "#]],
    );
    check(
        r#"{ discover: { dns: "h2c://a" }, protocol: h1 }"#,
        &expect![[r#"
        Error backends.orders: `h2c://a:80` is HTTP/2, and `protocol` says h1
    "#]],
    );
    check(
        r#"{ discover: { dns: "http://a" }, health: grpc }"#,
        &expect![[r#"
        Error backends.orders.health: gRPC needs HTTP/2
    "#]],
    );
    check(r#"{ discover: { dns: "http://a", ttl_max: 5m, resolvers: ["::1"] } }"#, &expect![[""]]);
}
