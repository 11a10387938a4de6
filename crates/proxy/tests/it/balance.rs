//! Which endpoint gets which request, as clients of a whole gateway see it.

use portcullis_testkit::backend::response;
use portcullis_testkit::{Answer, Backend, Client, Protocol, Request, Setup, TestGateway};

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

/// The value of the cookie that an answer sets.
fn cookie(answer: &Answer) -> Option<String> {
    let set = answer.field("set-cookie")?;
    Some(set.split(';').next().unwrap().to_owned())
}

#[tokio::test]
async fn a_client_with_a_cookie_stays_until_its_endpoint_is_gone() {
    let backends = [named("a").await, named("b").await, named("c").await];
    let urls: Vec<String> = backends.iter().map(Backend::url).collect();
    let text = format!(
        r#"
routes:
  all: {{ match: /**, public: "a test", to: backend }}
backends:
  backend: {{ endpoints: {urls:?}, balance: {{ sticky: {{ key: "file:sticky" }} }} }}
"#
    );
    let gateway = Setup::new(&text).file("sticky", &"k".repeat(32)).start();
    let ask = async |protocol, cookie: Option<&str>| {
        let mut client = Client::connect(&gateway, protocol).await;
        let request = Request::get("/");
        let request = match cookie {
            Some(cookie) => request.field("cookie", cookie),
            None => request,
        };
        client.send(request).await.unwrap()
    };
    let first = ask(Protocol::H1, None).await;
    let name = first.text();
    let at = ["a", "b", "c"].iter().position(|one| *one == name);
    let stays = cookie(&first).unwrap();
    assert!(!first.field("set-cookie").unwrap().contains("Secure"));
    for _ in 0..8 {
        let again = ask(Protocol::H2, Some(&format!("a=b; {stays}"))).await;
        assert_eq!((again.text(), again.field("set-cookie")), (name.clone(), None));
    }
    let forged = ask(Protocol::H1, Some(&stays.replace('a', "b").replace('0', "1"))).await;
    assert!(cookie(&forged).is_some());
    // Its endpoint goes: another one takes over, and says so.
    let rest: Vec<_> = urls.iter().enumerate().filter(|(index, _)| Some(*index) != at).collect();
    let listed = rest.iter().map(|(_, url)| portcullis_snapshot::Listed::new(url)).collect();
    let endpoints = &gateway.gateway.snapshot().backends[0].endpoints;
    endpoints.replace(listed, gateway.clock.mono()).unwrap();
    let moved = ask(Protocol::H1, Some(&stays)).await;
    assert_ne!(moved.text(), name);
    let now = cookie(&moved).unwrap();
    assert_eq!(ask(Protocol::H1, Some(&now)).await.text(), moved.text());
}
