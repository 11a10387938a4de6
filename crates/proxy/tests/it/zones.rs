//! Requests stay in the gateway's zone, and leave it as its endpoints die.

use std::collections::BTreeMap;
use std::time::Duration;

use portcullis_testkit::backend::response;
use portcullis_testkit::{Backend, Client, Protocol, Request, Setup, TestGateway};

/// Answers with its name.
async fn named(name: &'static str) -> Backend {
    Backend::start(move |mut conversation| async move {
        while conversation.request().await.is_some() {
            conversation.send(response(200, name)).await;
        }
    })
    .await
}

fn config(local: &[Backend], other: &[Backend], more: &str) -> String {
    let listed = |backends: &[Backend], zone| {
        let all = backends.iter().map(|backend| backend.url());
        all.map(|url| format!("{{ url: {url:?}, zone: {zone} }}")).collect::<Vec<_>>()
    };
    let endpoints = [listed(local, "here"), listed(other, "there")].concat().join(", ");
    format!(
        r#"
gateway: {{ zone: here }}
routes:
  all: {{ match: /**, public: "a test", to: orders }}
backends:
  orders: {{ endpoints: [{endpoints}], prefer_zone: true, slow_start: off, {more} }}
"#
    )
}

/// Who answered how many of so many requests. None of them fails.
async fn answered(gateway: &TestGateway, requests: usize) -> BTreeMap<String, usize> {
    // What is known of a zone is believed for a moment.
    gateway.advance(Duration::from_millis(150)).await;
    let mut seen = BTreeMap::new();
    let mut client = Client::connect(gateway, Protocol::H1).await;
    for _ in 0..requests {
        let answer = client.send(Request::get("/")).await.unwrap();
        assert_eq!(answer.status, 200);
        *seen.entry(answer.text()).or_default() += 1;
    }
    seen
}

fn by_zone(gateway: &TestGateway) -> (f64, f64) {
    let count = |zone| {
        let labels = format!("{{backend=\"orders\",zone=\"{zone}\"}}");
        gateway.metric(&format!("portcullis_backend_zone_requests_total{labels}")).unwrap()
    };
    (count("local"), count("other"))
}

#[tokio::test]
async fn a_zone_whose_endpoints_die_one_by_one_spills_over_and_nobody_sees_an_error() {
    for balance in ["round_robin", "least_requests", "ewma", "{ hash: ip }"] {
        let mut local = vec![named("a").await, named("b").await, named("c").await];
        let other = [named("x").await, named("y").await, named("z").await];
        let text = config(&local, &other, &format!("balance: {balance}"));
        let gateway = Setup::new(&text).start();
        let is_local = |name: &String| ["a", "b", "c"].contains(&name.as_str());
        assert!(answered(&gateway, 100).await.keys().all(is_local), "{balance}");
        assert_eq!(by_zone(&gateway), (100.0, 0.0), "{balance}");
        for left in (0..3).rev() {
            drop(local.pop());
            // These find out.
            answered(&gateway, 40).await;
            let seen = answered(&gateway, 300).await;
            let stayed: usize =
                seen.iter().filter(|(name, _)| is_local(name)).map(|one| one.1).sum();
            // One key has one zone.
            let expected = match (left, balance) {
                (0, _) => 0..=0,
                (_, "{ hash: ip }") => 0..=300,
                (1, _) => 120..=180,
                _ => 262..=298,
            };
            assert!(expected.contains(&stayed), "{balance} {left}: {seen:?}");
        }
        // Another configuration knows what this one knew.
        gateway.swap(&text.replace("match: /**", "match: [/**]"));
        gateway.settle().await;
        assert!(!answered(&gateway, 30).await.keys().any(is_local), "{balance}");
    }
}

/// A client stays by his cookie, wherever that is.
#[tokio::test]
async fn a_cookie_counts_for_more_than_a_zone() {
    let (local, other) = ([named("a").await], [named("x").await]);
    let balance = "balance: { sticky: { key: \"file:sticky\" } }";
    let text = config(&local, &other, balance);
    let key = "k".repeat(32);
    let gateway = Setup::new(&text.replace("zone: here }", "zone: there }")).file("sticky", &key);
    // In this order the gateway is elsewhere.
    let gateway = gateway.start();
    let mut client = Client::connect(&gateway, Protocol::H1).await;
    let first = client.send(Request::get("/")).await.unwrap();
    let cookie = first.field("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    gateway.swap(&text);
    gateway.settle().await;
    let back = client.send(Request::get("/").field("cookie", &cookie)).await.unwrap();
    assert_eq!(back.text(), first.text());
}

fn versions(backends: &[(&Backend, &str)]) -> String {
    let listed = backends.iter().map(|(backend, version)| {
        format!("{{ url: {:?}, labels: {{ version: {version} }} }}", backend.url())
    });
    format!(
        r#"
routes:
  all:
    match: /**
    public: "a test"
    to:
      stable: {{ backend: orders, weight: 1, subset: {{ labels: {{ version: v1 }} }} }}
      canary: {{ backend: orders, when: {{ headers: {{ x-beta: "1" }} }}, subset: {{ labels: {{ version: v2 }} }} }}
      trial: {{ backend: orders, when: {{ headers: {{ x-beta: "2" }} }}, subset: {{ labels: {{ version: v2 }}, empty: any }} }}
backends:
  orders: {{ slow_start: off, endpoints: [{}] }}
"#,
        listed.collect::<Vec<_>>().join(", ")
    )
}

/// Who answers a request of this variant: names, and how many were refused.
async fn of_variant(gateway: &TestGateway, beta: &str) -> (Vec<String>, usize) {
    let (mut names, mut refused) = (Vec::new(), 0);
    for protocol in Protocol::ALL {
        let mut client = Client::connect(gateway, protocol).await;
        for _ in 0..12 {
            let answer = client.send(Request::get("/").field("x-beta", beta)).await.unwrap();
            match answer.status {
                200 => names.push(answer.text()),
                status => {
                    assert_eq!(status, 503);
                    refused += 1;
                }
            }
        }
    }
    names.sort_unstable();
    names.dedup();
    (names, refused)
}

#[tokio::test]
async fn each_variant_keeps_to_its_subset_and_goes_elsewhere_only_where_it_may() {
    let (a, b, x, y) = (named("a").await, named("b").await, named("x").await, named("y").await);
    let all = [(&a, "v1"), (&x, "v2"), (&b, "v1"), (&y, "v2")];
    let gateway = Setup::new(&versions(&all)).start();
    let (first, second) =
        (vec!["a".to_owned(), "b".to_owned()], vec!["x".to_owned(), "y".to_owned()]);
    assert_eq!(of_variant(&gateway, "0").await, (first.clone(), 0));
    assert_eq!(of_variant(&gateway, "1").await, (second.clone(), 0));
    assert_eq!(of_variant(&gateway, "2").await, (second, 0));
    // One of two dies: the other has all of it, and nobody sees it.
    drop(y);
    assert_eq!(of_variant(&gateway, "1").await, (vec!["x".to_owned()], 0));
    assert_eq!(of_variant(&gateway, "2").await, (vec!["x".to_owned()], 0));
    // Nobody is left by another configuration.
    gateway.swap(&versions(&[(&a, "v1"), (&b, "v1")]));
    gateway.settle().await;
    let (nobody, refused) = of_variant(&gateway, "1").await;
    assert!(nobody.is_empty() && refused > 0, "{nobody:?} {refused}");
    assert_eq!(of_variant(&gateway, "2").await, (first.clone(), 0));
    assert_eq!(of_variant(&gateway, "0").await, (first, 0));
    let log = gateway.stop();
    let told = log.iter().any(|line| line.contains("no endpoint with version=v2 is in service"));
    assert!(told, "{log:?}");
}
