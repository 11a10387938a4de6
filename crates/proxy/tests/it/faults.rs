//! Requests that fail on purpose, as clients, backends, the log and the metrics see them.

use std::time::Duration;

use portcullis_testkit::backend::response;
use portcullis_testkit::{Answer, Backend, Client, Protocol, Request, Setup, TestGateway, until};

const LISTENERS: &str = r#"
listeners:
  plain: { bind: "127.0.0.1:0", allow_faults: true }
  tls:
    bind: "127.0.0.1:0"
    tls: { certificates: [{ cert: "file:cert.pem", key: "file:key.pem" }] }
    allow_faults: true
defaults: { on: [plain, tls] }
"#;
/// Who asks for a fault.
const ASKED: &str = r#"headers: { x-fault: "1" }, from: ["127.0.0.0/8"]"#;
/// What the log has of a request that was late.
const LATE: &str = r#""fault":"delay","method""#;

/// A gateway before a backend of which `settings` say more, by a route with these faults.
fn gateway(backend: &Backend, faults: &str, route: &str, settings: &str) -> TestGateway {
    Setup::new(&format!(
        "{LISTENERS}routes:\n  all: {{ match: /**, public: \"a test\", to: one, \
         faults: {{ {faults} }}{route} }}\n\
         backends:\n  one: {{ endpoints: [{:?}]{settings} }}\n",
        backend.url()
    ))
    .start()
}

fn asking(path: &str) -> Request {
    Request::get(path).field("x-fault", "1")
}

fn call() -> Request {
    Request::stream("/pkg.Echo/Unary", &["\0\0\0\0\u{2}hi"])
        .field("content-type", "application/grpc")
        .field("te", "trailers")
}

fn count(gateway: &TestGateway, fault: &str) -> Option<f64> {
    gateway.metric(&format!("portcullis_faults_total{{route=\"all\",fault=\"{fault}\"}}"))
}

fn under_way(gateway: &TestGateway) -> u32 {
    gateway.gateway.snapshot().backends[0].capacity.requests.used()
}

/// Sends a request that is held, does something meanwhile, and gives its answer.
async fn meanwhile(
    gateway: &TestGateway,
    client: &mut Client,
    request: Request,
    test: impl AsyncFnOnce(),
) -> Answer {
    let test = async {
        until("a held request", || under_way(gateway) == 1).await;
        gateway.settle().await;
        test().await;
    };
    let (answer, ()) = tokio::join!(client.send(request), test);
    answer.unwrap()
}

#[tokio::test]
async fn an_error_on_purpose_is_told_apart_from_others() {
    let backend = Backend::always(response(200, "")).await;
    let faults = format!("abort: {{ status: 429 }}, {ASKED}");
    let gateway = gateway(&backend, &faults, "", "");
    for protocol in Protocol::ALL {
        let mut client = Client::connect(&gateway, protocol).await;
        assert_eq!(client.send(Request::get("/")).await.unwrap().status, 200);
        let answer = client.send(asking("/")).await.unwrap();
        assert_eq!((answer.status, &*answer.problem()), (429, "fault-injected"));
        // The connection goes on.
        assert_eq!(client.send(Request::get("/")).await.unwrap().status, 200);
    }
    let times = Protocol::ALL.len();
    assert_eq!(backend.requests().len(), 2 * times);
    assert_eq!((count(&gateway, "abort"), count(&gateway, "delay")), (Some(times as f64), None));
    let log = gateway.stop();
    let told = r#""fault":"abort","method":"GET","host":"localhost","path":"/","status":429,"problem":"fault-injected","detail":"on purpose, by routes.all.faults""#;
    let is_told = |line: &&String| line.contains(told) && !line.contains("\"backend\"");
    assert_eq!(log.iter().filter(is_told).count(), times, "{log:#?}");
}

#[tokio::test]
async fn a_grpc_caller_gets_a_grpc_status() {
    let backend = Backend::always(response(200, "")).await;
    for (written, want) in [("", "14"), (", grpc_status: 4", "4")] {
        let faults = format!("abort: {{ status: 503{written} }}");
        let gateway = gateway(&backend, &faults, "", "");
        let mut client = Client::connect(&gateway, Protocol::H2).await;
        let answer = client.send(call()).await.unwrap();
        assert_eq!((answer.status, answer.field("grpc-status")), (200, Some(want)));
        assert!(answer.field("grpc-message").unwrap().contains("fault-injected"));
    }
    assert!(backend.requests().is_empty());
}

#[tokio::test]
async fn a_delay_holds_the_request_and_nobody_else() {
    for protocol in Protocol::ALL {
        let backend = Backend::always(response(200, "")).await;
        let faults = format!("delay: {{ by: 5s }}, {ASKED}");
        let gateway = gateway(&backend, &faults, "", "");
        let mut client = Client::connect(&gateway, protocol).await;
        let mut other = Client::connect(&gateway, protocol).await;
        let answer = meanwhile(&gateway, &mut client, asking("/late"), async || {
            assert_eq!(other.send(Request::get("/")).await.unwrap().status, 200);
            gateway.advance(Duration::from_secs(4)).await;
            assert_eq!(backend.requests().len(), 1);
            gateway.advance(Duration::from_secs(2)).await;
        });
        assert_eq!(answer.await.status, 200);
        assert_eq!((backend.requests().len(), count(&gateway, "delay")), (2, Some(1.0)));
        // It is not the gateway that was slow.
        let log = gateway.stop();
        let late = log.iter().find(|line| line.contains(LATE)).unwrap();
        let number = |name: &str| -> u64 {
            let (_, rest) = late.split_once(&format!("\"{name}\":")).unwrap();
            rest.split([',', '}']).next().unwrap().parse().unwrap()
        };
        assert_eq!((number("backend_us"), number("gateway_us")), (6_000_000, 0), "{late}");
    }
}

#[tokio::test]
async fn who_is_late_takes_up_room() {
    let backend = Backend::always(response(200, "")).await;
    let faults = format!("delay: {{ by: 5s }}, {ASKED}");
    let room = ", requests_max: 1, pending_max: 0";
    let gateway = gateway(&backend, &faults, "", room);
    let mut client = Client::connect(&gateway, Protocol::H2).await;
    let mut other = Client::connect(&gateway, Protocol::H1).await;
    let answer = meanwhile(&gateway, &mut client, asking("/"), async || {
        let busy = other.send(Request::get("/")).await.unwrap();
        assert_eq!((busy.status, &*busy.problem()), (503, "backend-busy"));
        gateway.advance(Duration::from_secs(6)).await;
    });
    assert_eq!(answer.await.status, 200);
    assert_eq!(other.send(Request::get("/")).await.unwrap().status, 200);
}

/// By what the route says about the head of the answer and about the whole of it.
#[tokio::test]
async fn nobody_is_late_for_longer_than_there_is_time() {
    let faults = format!("delay: {{ by: 50s }}, {ASKED}");
    let breaker = ", breaker: { percent: 1, requests_min: 1 }";
    for timeout in ["{ response: 3s }", "{ total: 3s }"] {
        for protocol in [Protocol::H1, Protocol::H2] {
            let backend = Backend::always(response(200, "")).await;
            let gateway = gateway(&backend, &faults, &format!(", timeout: {timeout}"), breaker);
            let mut client = Client::connect(&gateway, protocol).await;
            let answer = meanwhile(&gateway, &mut client, asking("/"), async || {
                gateway.advance(Duration::from_secs(4)).await;
            });
            let answer = answer.await;
            assert_eq!((answer.status, &*answer.problem()), (504, "fault-injected"), "{timeout}");
            assert!(backend.requests().is_empty());
            // The backend is not to blame: its breaker stays closed, and its time begins anew.
            assert_eq!(client.send(Request::get("/")).await.unwrap().status, 200);
            until("an empty bulkhead", || under_way(&gateway) == 0).await;
            let log = gateway.stop();
            let is_told = |line: &&String| line.contains(LATE) && !line.contains("\"backend\"");
            assert_eq!(log.iter().filter(is_told).count(), 1, "{log:#?}");
        }
    }
}

#[tokio::test]
async fn a_call_is_late_for_no_longer_than_its_caller_waits() {
    let backend = Backend::always(response(200, "")).await;
    let gateway = gateway(&backend, "delay: { by: 50s }", "", "");
    let mut client = Client::connect(&gateway, Protocol::H2).await;
    let call = call().field("grpc-timeout", "3S");
    let answer = meanwhile(&gateway, &mut client, call, async || {
        gateway.advance(Duration::from_secs(4)).await;
    });
    let answer = answer.await;
    // DEADLINE_EXCEEDED.
    assert_eq!((answer.status, answer.field("grpc-status")), (200, Some("4")));
    assert!(backend.requests().is_empty());
}

#[tokio::test]
async fn the_error_of_a_late_request_comes_late() {
    let backend = Backend::always(response(200, "")).await;
    let faults = format!("delay: {{ by: 5s }}, abort: {{ status: 500 }}, {ASKED}");
    let breaker = ", breaker: { percent: 1, requests_min: 1 }";
    let gateway = gateway(&backend, &faults, "", breaker);
    let mut client = Client::connect(&gateway, Protocol::H2).await;
    let answer = meanwhile(&gateway, &mut client, asking("/"), async || {
        gateway.advance(Duration::from_secs(6)).await;
    });
    let answer = answer.await;
    assert_eq!((answer.status, &*answer.problem()), (500, "fault-injected"));
    assert_eq!((count(&gateway, "delay"), count(&gateway, "abort")), (Some(1.0), Some(1.0)));
    assert_eq!(client.send(Request::get("/")).await.unwrap().status, 200);
    assert_eq!(backend.requests().len(), 1);
    let log = gateway.stop();
    assert!(log.iter().any(|line| line.contains(r#""fault":"delay, abort","method""#)), "{log:#?}");
}

#[tokio::test]
async fn a_client_that_has_gone_is_not_waited_for() {
    let backend = Backend::always(response(200, "")).await;
    let faults = format!("delay: {{ by: 60s }}, {ASKED}");
    let gateway = gateway(&backend, &faults, "", "");
    let client = Client::connect(&gateway, Protocol::H2).await;
    let Client::H2(client) = &client else { unreachable!() };
    let (mut stream, request) = (client.stream(), asking("/"));
    tokio::select! {
        answer = stream.exchange(&request) => panic!("{answer:?}"),
        () = until("a held request", || under_way(&gateway) == 1) => {}
    }
    // The request's future is dropped here, and the stream with it; the clock stands still.
    until("nobody", || under_way(&gateway) == 0).await;
    assert!(backend.requests().is_empty());
    let log = gateway.stop();
    let gone = |line: &&String| line.contains(LATE) && line.contains("client-closed");
    assert_eq!(log.iter().filter(gone).count(), 1, "{log:#?}");
}
