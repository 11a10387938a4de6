//! Which endpoint gets which request, as clients of a whole gateway see it.

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

async fn gateway(backends: &[Backend], balance: &str) -> TestGateway {
    let urls: Vec<String> = backends.iter().map(|backend| format!("{:?}", backend.url())).collect();
    let urls = urls.join(", ");
    Setup::new(&format!(
        r#"
routes:
  all: {{ match: "/{{shard}}/**", public: "a test", to: backend }}
backends:
  backend: {{ endpoints: [{urls}], balance: {balance} }}
"#
    ))
    .start()
}

/// Who answered each of these, each asked over several connections and versions.
async fn answered(gateway: &TestGateway, requests: &[Request]) -> Vec<Vec<String>> {
    let mut seen = vec![Vec::new(); requests.len()];
    for protocol in [Protocol::H1, Protocol::H2, Protocol::H1] {
        let mut client = Client::connect(gateway, protocol).await;
        for (request, seen) in requests.iter().zip(&mut seen) {
            seen.push(client.send(request.clone()).await.unwrap().text());
        }
    }
    seen
}

#[tokio::test]
async fn a_key_has_one_endpoint_and_all_endpoints_have_keys() {
    let backends = [named("a").await, named("b").await, named("c").await];
    let with = |name: &str, value: String| Request::get("/x/y").field(name, &value);
    let keys = 0..24;
    let cases: [(&str, Vec<Request>); 3] = [
        ("header:X-User", keys.clone().map(|key| with("x-user", key.to_string())).collect()),
        (
            "cookie:shop",
            keys.clone().map(|key| with("cookie", format!("a=b; shop={key}; z=1"))).collect(),
        ),
        ("param:shard", keys.map(|key| Request::get(&format!("/{key}/y"))).collect()),
    ];
    for (key, requests) in &cases {
        let gateway = gateway(&backends, &format!("{{ hash: {key:?} }}")).await;
        let mut used = Vec::new();
        for seen in answered(&gateway, requests).await {
            assert!(seen.iter().all(|name| *name == seen[0]), "{key}: {seen:?}");
            used.push(seen[0].clone());
        }
        used.sort_unstable();
        used.dedup();
        assert_eq!(used, ["a", "b", "c"], "{key}");
    }
}

/// What has no key is spread.
#[tokio::test]
async fn requests_without_the_key_go_anywhere() {
    let backends = [named("a").await, named("b").await];
    let gateway = gateway(&backends, r#"{ hash: "header:x-user" }"#).await;
    let requests = vec![Request::get("/x/y"); 20];
    let mut used: Vec<String> = answered(&gateway, &requests).await.concat();
    used.sort_unstable();
    used.dedup();
    assert_eq!(used, ["a", "b"]);
}

#[tokio::test]
async fn by_latency_everybody_is_asked_first() {
    let backends = [named("a").await, named("b").await];
    let gateway = gateway(&backends, "ewma").await;
    let mut used: Vec<String> = answered(&gateway, &vec![Request::get("/x/y"); 20]).await.concat();
    used.sort_unstable();
    used.dedup();
    assert_eq!(used, ["a", "b"]);
}
