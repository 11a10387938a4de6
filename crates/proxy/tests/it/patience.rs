//! How long a caller waits: who may say so, what holds, and what the backend is told of it.

use std::time::Duration;

use portcullis_testkit::backend::response;
use portcullis_testkit::h2_backend::Manner;
use portcullis_testkit::{Backend, Client, H2Backend, Protocol, Request, Setup, TestGateway};

const HEADER: &str = "x-request-timeout-ms";

/// Two listeners: one believes this machine, the other nobody.
fn gateway(route: &str, backend: &str) -> TestGateway {
    Setup::new(&format!(
        r#"
listeners:
  plain: {{ bind: "127.0.0.1:0", trusted_proxies: ["127.0.0.0/8"] }}
  tls:
    bind: "127.0.0.1:0"
    tls: {{ certificates: [{{ cert: "file:cert.pem", key: "file:key.pem" }}] }}
defaults: {{ on: [plain, tls], deadline_header: X-Request-Timeout-Ms }}
routes:
  all: {{ match: /**, public: "a test", to: backend, {route} }}
backends:
  backend: {backend}
"#
    ))
    .start()
}

/// What each of these callers makes the backend be told, by the listener that believes it and by
/// the one that does not.
async fn told(route: &str, fields: &[(&str, &str)]) -> [Option<String>; 2] {
    let backend = Backend::always(response(200, "")).await;
    let gateway = gateway(route, &format!("{:?}", backend.url()));
    let mut told = [None, None];
    for (told, protocol) in told.iter_mut().zip([Protocol::H1, Protocol::H1Tls]) {
        let mut client = Client::connect(&gateway, protocol).await;
        let request = Request::get("/");
        let request = fields.iter().fold(request, |all, (name, value)| all.field(name, value));
        assert_eq!(client.send(request).await.unwrap().status, 200);
        let aliases = backend.last().fields.iter().filter(|(name, _)| name.contains('_')).count();
        assert_eq!(aliases, 0);
        *told = backend.last().field(HEADER).map(str::to_owned);
    }
    told
}

#[tokio::test]
async fn only_a_trusted_hop_says_how_long_there_is() {
    let some = |millis: &str| Some(millis.to_owned());
    let asked = |millis| [(HEADER, millis)];
    assert_eq!(told("timeout: 15s", &[]).await, [None, None]);
    assert_eq!(told("timeout: 15s", &asked("1500")).await, [some("1500"), None]);
    // The shorter of the two holds.
    let total = "timeout: { total: 2s }";
    assert_eq!(told(total, &asked("1500")).await, [some("1500"), some("2000")]);
    assert_eq!(told(total, &asked("9000")).await, [some("2000"), some("2000")]);
    // What is no number of milliseconds says nothing, and goes no further.
    for odd in ["1.5", "-1", "soon", "9999999999"] {
        assert_eq!(told("timeout: 15s", &asked(odd)).await, [None, None], "{odd}");
    }
    let alias = [("X_Request_Timeout_Ms", "1500")];
    assert_eq!(told("timeout: 15s", &alias).await, [None, None]);
    assert_eq!(told("deadline_header: off", &asked("1500")).await, [some("1500"), some("1500")]);
}

#[tokio::test]
async fn a_call_is_told_what_is_left_of_both() {
    let backend = H2Backend::start(Manner::default(), |mut stream| async move {
        let fields = [("content-type", "application/grpc"), ("grpc-status", "0")];
        stream.answer(200, &fields, "");
    })
    .await;
    let cases = [
        ("timeout: 15s", None, None),
        ("timeout: 15s", Some("3S"), Some("3000m")),
        ("timeout: { total: 2s }", Some("3S"), Some("2000m")),
        ("timeout: { total: 2s }", Some("1500m"), Some("1500m")),
        ("timeout: { total: 2s }", None, Some("2000m")),
    ];
    for (route, asked, expected) in cases {
        let gateway = gateway(route, &format!("\"h2c://{}\"", backend.address));
        let mut client = Client::connect(&gateway, Protocol::H2).await;
        let mut call =
            Request::post("/pkg.Echo/Unary", "").field("content-type", "application/grpc");
        if let Some(asked) = asked {
            call = call.field("grpc-timeout", asked);
        }
        assert_eq!(client.send(call).await.unwrap().field("grpc-status"), Some("0"));
        let seen = backend.seen().pop().unwrap();
        let told = seen.fields.get("grpc-timeout").map(|value| value.to_str().unwrap());
        assert_eq!(told, expected, "{route}, {asked:?}");
    }
}

#[tokio::test]
async fn who_waits_no_longer_is_told_so_and_the_backend_nothing() {
    let backend = Backend::echo().await;
    let gateway = gateway("timeout: 15s", &format!("{:?}", backend.url()));
    let mut client = Client::connect(&gateway, Protocol::H1).await;
    let answer = client.send(Request::get("/").field(HEADER, "0")).await.unwrap();
    assert_eq!((answer.status, &*answer.problem()), (504, "backend-timeout"));
    assert_eq!(backend.connections(), 0);
    assert_eq!(gateway.metric(r#"portcullis_deadlines_total{kind="total"}"#), Some(1.0));
}

/// A try takes what it takes from the whole, and the next one is told the rest.
#[tokio::test]
async fn the_second_try_has_what_the_first_has_left() {
    let hanging = async || {
        Backend::start(|mut conversation| async move {
            conversation.request().await;
            conversation.until_closed().await;
        })
        .await
    };
    let (one, two) = (hanging().await, hanging().await);
    let gateway = gateway(
        "retry: { attempts: 8, per_try: 10s }",
        &format!("{{ endpoints: [{:?}, {:?}] }}", one.url(), two.url()),
    );
    let mut client = Client::connect(&gateway, Protocol::H1).await;
    let request = Request::get("/").field(HEADER, "14000");
    let asked = tokio::spawn(async move { client.send(request).await.unwrap() });
    let told = || {
        let all = one.requests().into_iter().chain(two.requests());
        let mut told: Vec<u64> =
            all.map(|request| request.field(HEADER).unwrap().parse().unwrap()).collect();
        told.sort_unstable();
        told
    };
    while told().is_empty() {
        tokio::task::yield_now().await;
    }
    gateway.advance(Duration::from_secs(10)).await;
    while told().len() < 2 {
        gateway.advance(Duration::from_millis(10)).await;
    }
    let told = told();
    // The random wait between two tries is 25 ms at most, by a clock that goes in steps of ten.
    assert!((3_900..=4_000).contains(&told[0]) && told[1] == 14_000, "{told:?}");
    gateway.advance(Duration::from_secs(4)).await;
    assert_eq!(asked.await.unwrap().status, 504);
    assert_eq!((one.requests().len(), two.requests().len()), (1, 1));
}

/// The endpoint had less time than it usually has, so that nothing is held against it.
#[tokio::test]
async fn a_connection_that_the_caller_does_not_wait_for_is_nobodys_failure() {
    let backend = Backend::start(|mut conversation| async move {
        conversation.until_closed().await;
    })
    .await;
    let url = format!("https://127.0.0.1:{}", backend.address.port());
    let gateway = gateway(
        "timeout: 15s",
        &format!("{{ endpoints: [{url:?}], tls: {{ ca: \"file:ca.pem\" }} }}"),
    );
    let mut client = Client::connect(&gateway, Protocol::H1).await;
    let request = Request::get("/").field(HEADER, "1000");
    let test = async {
        while backend.connections() == 0 {
            tokio::task::yield_now().await;
        }
        gateway.settle().await;
        gateway.advance(Duration::from_secs(1)).await;
    };
    let (answer, ()) = tokio::join!(client.send(request), test);
    let answer = answer.unwrap();
    assert_eq!((answer.status, &*answer.problem()), (504, "backend-timeout"));
    let snapshot = gateway.gateway.snapshot();
    assert_eq!(
        snapshot.backends[0].endpoints.load().balancer.members()[0].endpoint.connect_failures(),
        0
    );
}
