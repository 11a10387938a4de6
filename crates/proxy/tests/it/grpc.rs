//! Calls that go wrong, and services that nobody has listed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use h2::Reason;
use portcullis_testkit::h2_backend::{Manner, map};
use portcullis_testkit::{Client, Cut, H2Backend, Protocol, Request, Setup, TestGateway};

const FIELDS: [(&str, &str); 1] = [("content-type", "application/grpc")];

fn gateway(backend: &H2Backend) -> TestGateway {
    Setup::new(&format!(
        r#"
routes:
  echo: {{ match: {{ grpc: "pkg.Echo/*" }}, public: "a test", to: backend }}
backends:
  backend: "h2c://{}"
"#,
        backend.address
    ))
    .start()
}

fn call(method: &str) -> Request {
    Request::stream(&format!("/{method}"), &["\0\0\0\0\u{2}hi"])
        .field("content-type", "application/grpc")
        .field("te", "trailers")
}

#[tokio::test]
async fn a_call_that_was_cut_off_is_never_ok() {
    let backend = H2Backend::start(Manner::default(), |mut stream| async move {
        let method = stream.request.uri().path().to_owned();
        if method == "/pkg.Echo/BeforeTheHead" {
            return stream.respond.send_reset(Reason::INTERNAL_ERROR);
        }
        if method == "/pkg.Echo/WithoutABody" {
            return stream.answer(200, &FIELDS, "");
        }
        let mut send = stream.head(200, &FIELDS);
        drop(send.send_data("\0\0\0\0\u{2}hi".into(), false));
        match &*method {
            "/pkg.Echo/WithoutTrailers" => drop(send.send_data("".into(), true)),
            "/pkg.Echo/WithoutAStatus" => drop(send.send_trailers(map(&[("x-other", "1")]))),
            "/pkg.Echo/OddStatus" => drop(send.send_trailers(map(&[("grpc-status", "99")]))),
            "/pkg.Echo/Reset" => send.send_reset(Reason::INTERNAL_ERROR),
            "/pkg.Echo/Dies" => {
                stream.go_away(Reason::INTERNAL_ERROR);
                std::future::pending().await
            }
            other => panic!("{other}"),
        }
    })
    .await;
    let gateway = gateway(&backend);
    let status = async |method: &str| {
        let mut client = Client::connect(&gateway, Protocol::H2).await;
        match client.send(call(&format!("pkg.Echo/{method}"))).await {
            Ok(answer) => {
                let trailer = answer.trailers.iter().find(|(name, _)| name == "grpc-status");
                let status = answer.field("grpc-status").or(trailer.map(|(_, value)| &**value));
                status.unwrap_or("none").to_owned()
            }
            Err(Cut::Stream(code)) => format!("reset {code}"),
            Err(cut) => format!("{cut:?}"),
        }
    };
    // By the gateway: unavailable.
    assert_eq!(status("BeforeTheHead").await, "14");
    // What a client takes for "unknown" comes to it as it is.
    assert_eq!(status("WithoutABody").await, "none");
    assert_eq!(status("WithoutTrailers").await, "none");
    assert_eq!(status("WithoutAStatus").await, "none");
    assert_eq!(status("OddStatus").await, "99");
    for method in ["Reset", "Dies"] {
        let seen = status(method).await;
        // Where the reset overtakes the head there is a problem to tell.
        assert!(seen.starts_with("reset ") || seen == "14", "{method}: {seen}");
    }
}

#[tokio::test]
async fn reflection_and_health_are_there_only_where_they_are_listed() {
    let asked = Arc::new(AtomicUsize::new(0));
    let inside = Arc::clone(&asked);
    let backend = H2Backend::start(Manner::default(), move |mut stream| {
        inside.fetch_add(1, SeqCst);
        async move { stream.answer(200, &FIELDS, "") }
    })
    .await;
    let gateway = gateway(&backend);
    let mut client = Client::connect(&gateway, Protocol::H2).await;
    for method in [
        "grpc.health.v1.Health/Check",
        "grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        "pkg.EchoInternal/Unary",
        "pkg/Echo",
    ] {
        let answer = client.send(call(method)).await.unwrap();
        assert_eq!((answer.status, answer.field("grpc-status")), (200, Some("12")), "{method}");
    }
    assert_eq!(asked.load(SeqCst), 0);
    client.send(call("pkg.Echo/Unary")).await.unwrap();
    assert_eq!(asked.load(SeqCst), 1);
}

/// Only for calls that the route says may be made twice, since gRPC knows no idempotent method.
#[tokio::test]
async fn an_unavailable_service_is_asked_elsewhere() {
    let answering = async |status: &'static str| {
        H2Backend::start(Manner::default(), move |mut stream| async move {
            stream.whole().await;
            // With the head and no trailers, as servers tell a failure.
            stream.answer(200, &[FIELDS[0], ("grpc-status", status)], "");
        })
        .await
    };
    let (bad, good) = (answering("14").await, answering("0").await);
    let statuses = async |retry: &str| {
        let gateway = Setup::new(&format!(
            r#"
routes:
  echo: {{ match: {{ grpc: "pkg.Echo/*" }}, public: "a test", to: backend, retry: {retry} }}
backends:
  backend:
    endpoints: ["h2c://{}", "h2c://{}"]
    balance: round_robin
    slow_start: off
"#,
            bad.address, good.address
        ))
        .real_clock()
        .start();
        let mut client = Client::connect(&gateway, Protocol::H2).await;
        let mut statuses = Vec::new();
        for _ in 0..4 {
            let answer = client.send(call("pkg.Echo/Unary")).await.unwrap();
            statuses.push(answer.field("grpc-status").unwrap().to_owned());
        }
        statuses.sort_unstable();
        statuses
    };
    assert_eq!(statuses("{ non_idempotent: true }").await, ["0"; 4]);
    assert_eq!(statuses("{ on: [unavailable], non_idempotent: true }").await, ["0"; 4]);
    assert_eq!(statuses("{ on: [reset], non_idempotent: true }").await, ["0", "0", "14", "14"]);
    assert_eq!(statuses("{ on: [unavailable] }").await, ["0", "0", "14", "14"]);
}
