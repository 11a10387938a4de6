//! A canary that the gateway itself brings up, as its clients see it.

use std::time::Duration;

use portcullis_proxy::{AnalysisReport, Order, OverrideError};
use portcullis_testkit::backend::response;
use portcullis_testkit::{Backend, Client, Protocol, Request, Setup, TestGateway};
use portcullis_upstream::Change;
use portcullis_upstream::analysis::{Cause, Stage};

fn text(stable: &Backend, canary: &Backend) -> String {
    format!(
        r#"
routes:
  orders:
    match: /**
    public: "a test"
    sticky: header:x-user
    analysis: {{ canary: canary, steps: [40, 100], every: 3s, requests: 50 }}
    to: {{ stable: 100, canary: 0 }}
backends: {{ stable: {:?}, canary: {:?} }}
"#,
        stable.url(),
        canary.url()
    )
}

/// A backend whose every answer has this status.
async fn answering(status: u16) -> Backend {
    Backend::start(move |mut conversation| async move {
        while conversation.request().await.is_some() {
            conversation.send(response(status, "")).await;
        }
    })
    .await
}

/// A second in which each of 60 users asks once.
async fn second(gateway: &TestGateway) {
    let mut client = Client::connect(gateway, Protocol::H1).await;
    for user in 0..60 {
        let request = Request::get("/").field("x-user", &user.to_string());
        client.send(request).await.unwrap();
    }
    gateway.advance(Duration::from_secs(1)).await;
    gateway.settle().await;
}

fn report(gateway: &TestGateway) -> AnalysisReport {
    let mut all = gateway.gateway.analyses();
    assert_eq!(all.len(), 1);
    all.remove(0)
}

/// What happened, as `EVENT PERCENT`.
fn events(gateway: &TestGateway) -> Vec<String> {
    let events = report(gateway).events;
    events.iter().map(|event| format!("{} {}", event.name, event.state.percent)).collect()
}

fn weights(author: &str, canary: u64) -> Order {
    let weights = vec![("stable".to_owned(), 100 - canary), ("canary".to_owned(), canary)];
    Order {
        change: Change::Weights { route: "orders".to_owned(), weights },
        author: author.to_owned(),
        reason: String::new(),
        lasts: None,
    }
}

#[tokio::test]
async fn a_good_canary_gets_all_of_the_requests_in_the_end() {
    let (stable, canary) = (answering(200).await, answering(200).await);
    let gateway = Setup::new(&text(&stable, &canary)).start();
    for _ in 0..8 {
        second(&gateway).await;
    }
    assert_eq!(events(&gateway), ["step 40", "promoted 100"]);
    assert_eq!(report(&gateway).state.stage, Stage::Promoted);
    let before = stable.requests().len();
    second(&gateway).await;
    assert_eq!(stable.requests().len(), before);
    assert!(gateway.stop().last().unwrap().contains("+override@2\""));
}

#[tokio::test]
async fn a_bad_one_gets_none_until_somebody_lets_it_begin_anew() {
    let (stable, canary) = (answering(200).await, answering(503).await);
    let gateway = Setup::new(&text(&stable, &canary)).start();
    for _ in 0..4 {
        second(&gateway).await;
    }
    assert_eq!(report(&gateway).state.stage, Stage::RolledBack(Cause::Broken));
    assert_eq!(events(&gateway), ["step 40", "rolled_back 0"]);
    let before = canary.requests().len();
    // Also after a reload that has nothing to do with it.
    gateway.swap(&text(&stable, &canary).replace("a test", "another"));
    second(&gateway).await;
    second(&gateway).await;
    assert_eq!(canary.requests().len(), before);
    assert_eq!(gateway.gateway.clear_overrides(None), 1);
    gateway.advance(Duration::from_secs(1)).await;
    gateway.settle().await;
    assert_eq!(events(&gateway), ["step 40", "rolled_back 0", "step 40"]);
    // Other settings are another canary, and none is none.
    gateway.swap(&text(&stable, &canary).replace("[40, 100]", "[20]"));
    gateway.advance(Duration::from_secs(1)).await;
    assert_eq!(report(&gateway).state.percent, 20);
    let analysis = "analysis: { canary: canary, steps: [40, 100], every: 3s, requests: 50 }";
    gateway.swap(&text(&stable, &canary).replace(analysis, ""));
    gateway.advance(Duration::from_secs(1)).await;
    assert!(gateway.gateway.analyses().is_empty());
    assert!(gateway.gateway.overrides().list().is_empty());
}

#[tokio::test]
async fn it_pauses_while_an_operator_decides() {
    let (stable, canary) = (answering(200).await, answering(503).await);
    let gateway = Setup::new(&text(&stable, &canary)).start();
    assert_eq!(gateway.gateway.set_override(weights("analysis", 50)), Err(OverrideError::Author));
    gateway.gateway.set_override(weights("alice", 50)).unwrap();
    gateway.settle().await;
    for _ in 0..4 {
        second(&gateway).await;
    }
    assert!(report(&gateway).paused);
    assert_eq!(report(&gateway).state.stage, Stage::Step(0));
    assert_eq!(gateway.gateway.overrides().list()[0].author, "alice");
    gateway.gateway.clear_overrides(None);
    gateway.advance(Duration::from_secs(1)).await;
    gateway.settle().await;
    assert!(!report(&gateway).paused);
    assert_eq!(gateway.gateway.overrides().list()[0].author, "analysis");
    // What it did before is not held against it, what it does now is.
    assert_eq!(report(&gateway).good, (0, 0));
    for _ in 0..4 {
        second(&gateway).await;
    }
    assert_eq!(report(&gateway).state.stage, Stage::RolledBack(Cause::Broken));
    // A look at it by somebody does not bring it back.
    gateway.gateway.set_override(weights("alice", 50)).unwrap();
    second(&gateway).await;
    gateway.gateway.clear_overrides(None);
    gateway.advance(Duration::from_secs(1)).await;
    gateway.settle().await;
    assert_eq!(report(&gateway).state.stage, Stage::RolledBack(Cause::Broken));
    let before = canary.requests().len();
    second(&gateway).await;
    assert_eq!(canary.requests().len(), before);
    let told = events(&gateway);
    let last = told.iter().rev().take(3).map(String::as_str).collect::<Vec<_>>();
    assert_eq!(last, ["resumed 0", "paused 0", "rolled_back 0"]);
}

/// The next release has the same names, and may not begin with all that the last one came to.
#[tokio::test]
async fn another_canary_begins_with_what_is_written() {
    let (stable, canary, next) = (answering(200).await, answering(200).await, answering(503).await);
    let written = text(&stable, &canary);
    let gateway = Setup::new(&written).start();
    for _ in 0..8 {
        second(&gateway).await;
    }
    assert_eq!(report(&gateway).state.stage, Stage::Promoted);
    let named = format!("next: {:?}, stable:", next.url());
    let to = "{ stable: { backend: canary, weight: 100 }, canary: { backend: next, weight: 0 } }";
    let reloaded = written.replace("backends: { stable:", &format!("backends: {{ {named}"));
    gateway.swap(&reloaded.replace("{ stable: 100, canary: 0 }", to));
    // Before anybody has looked.
    assert!(gateway.gateway.overrides().list().is_empty());
    let mut client = Client::connect(&gateway, Protocol::H1).await;
    for user in 0..20 {
        let request = Request::get("/").field("x-user", &user.to_string());
        client.send(request).await.unwrap();
    }
    assert_eq!(next.requests().len(), 0);
    for _ in 0..4 {
        second(&gateway).await;
    }
    assert_eq!(report(&gateway).state.stage, Stage::RolledBack(Cause::Broken));
}

/// So it is where only the labels say which release it is.
#[tokio::test]
async fn a_canary_with_other_labels_is_another_one() {
    let (stable, canary, next) = (answering(200).await, answering(200).await, answering(200).await);
    let endpoint = |backend: &Backend, version: &str| {
        format!("{{ url: {:?}, labels: {{ version: {version} }} }}", backend.url())
    };
    let text = |version: &str| {
        let canary = endpoint(&canary, "v2");
        let next = endpoint(&next, "v3");
        format!(
            r#"
routes:
  orders:
    match: /**
    public: "a test"
    sticky: header:x-user
    analysis: {{ canary: canary, steps: [40, 100], every: 3s, requests: 50 }}
    to:
      stable: {{ backend: orders, weight: 100, subset: {{ labels: {{ version: v1 }} }} }}
      canary: {{ backend: orders, weight: 0, subset: {{ labels: {{ version: {version} }} }} }}
backends: {{ orders: {{ endpoints: [{}, {canary}, {next}] }} }}
"#,
            endpoint(&stable, "v1")
        )
    };
    let gateway = Setup::new(&text("v2")).start();
    for _ in 0..8 {
        second(&gateway).await;
    }
    assert_eq!(report(&gateway).state.stage, Stage::Promoted);
    assert_eq!(next.requests().len(), 0);
    gateway.swap(&text("v3"));
    assert!(gateway.gateway.overrides().list().is_empty());
    gateway.advance(Duration::from_secs(1)).await;
    gateway.settle().await;
    assert_eq!(report(&gateway).state.stage, Stage::Step(0));
}

/// It is not to blame for what everybody suffers from, and does not get more for it either.
#[tokio::test]
async fn where_everything_fails_it_stays_where_it_is() {
    let (stable, canary) = (answering(503).await, answering(503).await);
    let gateway = Setup::new(&text(&stable, &canary)).start();
    for _ in 0..8 {
        second(&gateway).await;
    }
    assert_eq!(events(&gateway), ["step 40"]);
}

/// Each worker counts for itself, and the canary is judged by what all of them have seen.
#[tokio::test]
async fn all_workers_count() {
    let (stable, canary) = (answering(200).await, answering(503).await);
    let gateway = Setup::new(&text(&stable, &canary)).workers(4).start();
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(Client::connect(&gateway, Protocol::H1).await);
    }
    gateway.settle().await;
    // Five answers of the canary for each worker, where 20 are needed.
    for (worker, client) in clients.iter_mut().enumerate() {
        let mut user = 1_000 * worker;
        let before = canary.requests().len();
        while canary.requests().len() < before + 5 {
            client.send(Request::get("/").field("x-user", &user.to_string())).await.unwrap();
            user += 1;
        }
    }
    gateway.settle().await;
    gateway.advance(Duration::from_secs(1)).await;
    gateway.settle().await;
    assert_eq!(report(&gateway).state.stage, Stage::RolledBack(Cause::Broken));
}
