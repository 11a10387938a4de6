//! Variants of a route and what operators make of them at run time, as clients and backends see it.

use std::time::Duration;

use portcullis_proxy::{Order, OverrideError};
use portcullis_testkit::backend::response;
use portcullis_testkit::policies::HELD;
use portcullis_testkit::{Backend, Client, Protocol, Request, Setup, TestGateway};
use portcullis_upstream::{Change, Service};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const ROUTES: &str = r#"
routes:
  orders:
    match: /**
    public: "a test"
    sticky: header:x-user
    to:
      stable: { backend: one, weight: 90 }
      canary: { backend: two, weight: 10, when: { headers: { x-beta: "1" } } }
"#;

/// Answers with the variant that it was told.
async fn telling() -> Backend {
    Backend::start(move |mut conversation| async move {
        while let Some(request) = conversation.request().await {
            let told = request.fields.iter().filter(|(name, _)| name.contains("variant"));
            let told: Vec<_> = told.map(|(name, value)| format!("{name}={value}")).collect();
            conversation.send(response(200, &told.join(" "))).await;
        }
    })
    .await
}

fn text(one: &Backend, two: &Backend) -> String {
    format!("{ROUTES}backends: {{ one: {:?}, two: {:?} }}\n", one.url(), two.url())
}

fn order(change: Change) -> Order {
    Order { change, author: "me".to_owned(), reason: "a test".to_owned(), lasts: None }
}

fn weights(to: &[(&str, u64)]) -> Order {
    let weights = to.iter().map(|(name, weight)| ((*name).to_owned(), *weight)).collect();
    order(Change::Weights { route: "orders".to_owned(), weights })
}

/// What each of these users is told.
async fn told(gateway: &TestGateway, users: std::ops::Range<u32>) -> Vec<String> {
    let mut all = Vec::new();
    let mut client = Client::connect(gateway, Protocol::H1).await;
    for user in users {
        let request = Request::get("/").field("x-user", &user.to_string());
        all.push(client.send(request).await.unwrap().text());
    }
    all
}

fn canaries(told: &[String]) -> usize {
    told.iter().filter(|one| *one == "portcullis-variant=canary").count()
}

#[tokio::test]
async fn the_backend_the_log_and_the_metrics_know_the_variant_and_no_client_can_say_it() {
    let (one, two) = (telling().await, telling().await);
    let gateway = Setup::new(&text(&one, &two).replace("weight: 10", "weight: 0")).start();
    for protocol in Protocol::ALL {
        let mut client = Client::connect(&gateway, protocol).await;
        for name in ["Portcullis-Variant", "portcullis_variant", "PORTCULLIS.VARIANT"] {
            let claims = Request::get("/").field(name, "canary").field("x-user", "7");
            let said = client.send(claims.clone()).await.unwrap().text();
            assert_eq!(said, "portcullis-variant=stable", "{name}");
            let said = client.send(claims.field("x-beta", "1")).await.unwrap().text();
            assert_eq!(said, "portcullis-variant=canary", "{name}");
        }
    }
    let counted = |variant: &str| {
        let labels = format!("{{route=\"orders\",variant=\"{variant}\"");
        let requests = format!("portcullis_variant_requests_total{labels},status_class=\"2xx\"}}");
        let timed = format!("portcullis_variant_duration_seconds_count{labels}}}");
        (gateway.metric(&requests), gateway.metric(&timed))
    };
    assert_eq!(counted("stable"), (Some(12.0), Some(12.0)));
    assert_eq!(counted("canary"), (Some(12.0), Some(12.0)));
    assert_eq!((one.requests().len(), two.requests().len()), (12, 12));
    let log = gateway.stop();
    let canary = log.iter().filter(|line| line.contains(r#""variant":"canary""#)).count();
    assert_eq!((canary, log.len()), (12, 24));
}

#[tokio::test]
async fn a_client_moves_one_way_while_a_canary_grows() {
    let (one, two) = (telling().await, telling().await);
    let gateway = Setup::new(&text(&one, &two)).start();
    let mut before = told(&gateway, 0..200).await;
    assert_eq!(before, told(&gateway, 0..200).await);
    for canary in [25, 50, 100] {
        let order = weights(&[("stable", 100 - canary), ("canary", canary)]);
        gateway.gateway.set_override(order).unwrap();
        gateway.settle().await;
        let after = told(&gateway, 0..200).await;
        let back = before.iter().zip(&after).any(|(old, new)| old.contains("can") && new != old);
        assert!(!back && canaries(&after) > canaries(&before), "{canary}");
        before = after;
    }
    assert_eq!(canaries(&before), 200);
}

/// Nobody is told of the switch while the worker is busy, and the next request is served all the
/// same as the switch has it.
#[tokio::test]
async fn a_request_that_begins_after_a_switch_sees_it_however_busy_its_worker_is() {
    let (one, two) = (telling().await, telling().await);
    let held =
        "  held: { match: /held, public: \"a test\", test_hold: true, respond: { status: 204 } }\n";
    let text = text(&one, &two).replace("backends:", &format!("{held}backends:"));
    let gateway = Setup::new(&text).start();
    let mut client = TcpStream::connect(gateway.address("plain")).await.unwrap();
    let both = "GET /held HTTP/1.1\r\nHost: a\r\n\r\n\
                GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    client.write_all(both.as_bytes()).await.unwrap();
    let gateway = tokio::task::spawn_blocking(move || {
        HELD.wait();
        gateway.gateway.set_override(weights(&[("canary", 1)])).unwrap();
        HELD.wait();
        gateway
    });
    let gateway = gateway.await.unwrap();
    let mut answers = String::new();
    client.read_to_string(&mut answers).await.unwrap();
    assert!(answers.ends_with("portcullis-variant=canary"), "{answers}");
    drop(gateway);
}

/// Blue-green: one step for every worker, told in the log, kept over reloads, gone when its time is
/// over.
#[tokio::test]
async fn an_override_outlives_reloads_and_ends_by_itself() {
    let (one, two) = (telling().await, telling().await);
    let text = text(&one, &two);
    let gateway = Setup::new(&text).start();
    let switch = Order { lasts: Some(Duration::from_secs(60)), ..weights(&[("canary", 1)]) };
    assert_eq!(gateway.gateway.set_override(switch), Ok(1));
    gateway.settle().await;
    assert_eq!(canaries(&told(&gateway, 0..50).await), 50);
    // Also when the route is away in between.
    gateway.swap(&text.replace("orders:", "others:"));
    gateway.settle().await;
    assert!(canaries(&told(&gateway, 0..50).await) < 25);
    gateway.swap(&text);
    gateway.settle().await;
    assert_eq!(canaries(&told(&gateway, 0..50).await), 50);
    gateway.advance(Duration::from_secs(61)).await;
    gateway.settle().await;
    assert!(canaries(&told(&gateway, 0..50).await) < 25);
    assert!(gateway.gateway.overrides().list().is_empty());
    let log = gateway.stop();
    let under =
        |line: &&String| line.contains("\"route\":\"orders\"") && line.contains("+override@1\"");
    assert_eq!(log.iter().filter(under).count(), 100);
}

/// Where a request went is remembered, what decided it, and whose weights those were.
#[tokio::test]
async fn what_a_past_request_got_and_why_can_be_asked() {
    let (one, two) = (telling().await, telling().await);
    let gateway = Setup::new(&text(&one, &two)).start();
    let mut client = Client::connect(&gateway, Protocol::H2).await;
    let mut ask = async |name: &str, value: &str| {
        let answer = client.send(Request::get("/").field(name, value)).await.unwrap();
        let found = gateway.gateway.decided(answer.field("x-request-id").unwrap());
        let [found] = &found[..] else { panic!("{found:?}") };
        let url = found.endpoint.clone().unwrap();
        let at = if url == one.url() { "one" } else { "two" };
        assert_eq!((found.backend.as_deref(), found.status), (Some(at), 200));
        let (variant, by) = (found.variant.clone().unwrap(), found.picked_by.clone().unwrap());
        assert_eq!(answer.text(), format!("portcullis-variant={variant}"));
        (variant, by, found.overridden_by)
    };
    let told = |variant: &str, by: &str, revision| (variant.to_owned(), by.to_owned(), revision);
    assert_eq!(ask("x-beta", "1").await, told("canary", "when", None));
    assert_eq!(ask("x-other", "1").await.1, "weights");
    assert_eq!(ask("x-user", "7").await.1, "sticky");
    // Another override does not decide about variants, and a condition comes before all weights.
    let (backend, endpoint) = ("two".to_owned(), two.url());
    let change = Change::Service { backend, endpoint, service: Service::Active };
    gateway.gateway.set_override(order(change)).unwrap();
    gateway.gateway.set_override(weights(&[("canary", 1)])).unwrap();
    gateway.settle().await;
    assert_eq!(ask("x-user", "7").await, told("canary", "sticky", Some(2)));
    assert_eq!(ask("x-other", "7").await, told("canary", "weights", Some(2)));
    assert_eq!(ask("x-beta", "1").await, told("canary", "when", None));
    gateway.gateway.clear_overrides(Some(2));
    gateway.settle().await;
    assert_eq!(ask("x-user", "7").await.2, None);
}

#[tokio::test]
async fn an_endpoint_is_out_of_service_until_the_override_is_cleared() {
    let (one, two) = (telling().await, telling().await);
    let text = format!(
        "routes: {{ all: {{ match: /**, public: \"a test\", to: both }} }}\n\
         backends: {{ both: {{ endpoints: [{:?}, {:?}] }} }}\n",
        one.url(),
        two.url()
    );
    let gateway = Setup::new(&text).start();
    let change = Change::Service {
        backend: "both".to_owned(),
        endpoint: one.url(),
        service: Service::Draining,
    };
    assert_eq!(gateway.gateway.set_override(order(change)), Ok(1));
    told(&gateway, 0..20).await;
    gateway.swap(&text.replace("match: /**", "match: /"));
    gateway.settle().await;
    told(&gateway, 0..20).await;
    assert_eq!((one.requests().len(), two.requests().len()), (0, 40));
    assert_eq!(gateway.gateway.clear_overrides(Some(2)), 0);
    assert_eq!(gateway.gateway.clear_overrides(Some(1)), 1);
    told(&gateway, 0..20).await;
    assert!(!one.requests().is_empty());
}

#[tokio::test]
async fn what_the_configuration_does_not_have_cannot_be_overridden() {
    let (one, two) = (telling().await, telling().await);
    let single = "routes:\n  single: { match: /one, public: \"a test\", to: one }";
    let gateway = Setup::new(&text(&one, &two).replacen("routes:", single, 1)).start();
    let refused = |order: Order| gateway.gateway.set_override(order).unwrap_err().to_string();
    let of = |route: &str| {
        let weights = vec![("stable".to_owned(), 1)];
        refused(order(Change::Weights { route: route.to_owned(), weights }))
    };
    assert_eq!(of("none"), "there is no route `none`");
    assert_eq!(of("single"), "the route `single` has no variants to weigh");
    assert_eq!(
        refused(weights(&[("blue", 1)])),
        "the route `orders` has no variant `blue`: it has `stable`, `canary`"
    );
    assert_eq!(refused(weights(&[("stable", 0)])), OverrideError::NoWeight.to_string());
    assert_eq!(refused(weights(&[("stable", 1_000_001)])), OverrideError::Heavy.to_string());
    let (backend, endpoint) = ("one".to_owned(), two.url());
    let change = Change::Service { backend, endpoint, service: Service::Disabled };
    assert!(refused(order(change)).starts_with("the backend `one` has no endpoint `http://"));
}
