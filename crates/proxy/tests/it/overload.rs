//! A gateway that has more to do than it can: who is refused, when, and who never is.

use std::time::Duration;

use portcullis_testkit::backend::response;
use portcullis_testkit::{Backend, Client, Protocol, Request, Setup, TestGateway};

const LOOK: Duration = Duration::from_millis(100);

async fn start(shed: &str) -> (Backend, TestGateway) {
    let backend = Backend::always(response(200, "fine")).await;
    let gateway = Setup::new(&format!(
        r#"
listeners:
  plain: {{ bind: "127.0.0.1:0", shed: {shed} }}
defaults: {{ priority: sheddable }}
routes:
  reports: {{ match: /reports, public: "a test", to: backend }}
  denied: {{ match: /denied, deny: "a test", public: "a test" }}
  default: {{ match: /default, public: "a test", priority: default, to: backend }}
  critical: {{ match: /critical, public: "a test", priority: critical, to: backend }}
  health: {{ match: /health, public: "a test", priority: critical, to: backend }}
backends: {{ backend: "{}" }}
"#,
        backend.url(),
    ))
    .start();
    (backend, gateway)
}

/// So many looks of a worker that is that late.
async fn late(gateway: &TestGateway, looks: usize, late: Duration) {
    for _ in 0..looks {
        gateway.clock.stall(LOOK, late, late);
        gateway.settle().await;
    }
}

async fn statuses(gateway: &TestGateway) -> Vec<u16> {
    let mut seen = Vec::new();
    for path in ["/reports", "/denied", "/default", "/critical", "/health"] {
        let mut client = Client::connect(gateway, Protocol::H1).await;
        let answer = client.send(Request::get(path)).await.unwrap();
        if answer.status == 503 {
            assert_eq!(
                (&*answer.problem(), answer.field("retry-after")),
                ("overloaded", Some("2"))
            );
        }
        seen.push(answer.status);
    }
    seen
}

#[tokio::test]
async fn what_is_sheddable_is_refused_first_and_what_is_critical_goes_on() {
    let (backend, gateway) = start("100ms").await;
    let served = [200, 403, 200, 200, 200];
    assert_eq!(statuses(&gateway).await, served);
    // Not yet: it might pass.
    late(&gateway, 4, Duration::from_millis(300)).await;
    assert_eq!(statuses(&gateway).await, served);
    // Of those by default about a sixth are refused, by lot.
    late(&gateway, 3, Duration::from_millis(300)).await;
    let seen = statuses(&gateway).await;
    assert_eq!((&seen[..2], &seen[3..]), (&[503, 503][..], &[200, 200][..]));
    late(&gateway, 4, Duration::from_millis(300)).await;
    let before = backend.requests().len();
    assert_eq!(statuses(&gateway).await, [503, 503, 503, 200, 200]);
    // Whoever was refused was so before anything else was done about it.
    assert_eq!(backend.requests().len(), before + 2);
    let shed = |priority: &str| {
        let sample = format!(r#"portcullis_shed_requests_total{{priority="{priority}"}}"#);
        gateway.metric(&sample).unwrap_or_default()
    };
    assert_eq!((shed("sheddable"), shed("critical")), (4.0, 0.0));
    assert_eq!(gateway.metric("portcullis_shed_pressure"), Some(2.0));
    assert_eq!(gateway.metric("portcullis_worker_delay_seconds"), Some(0.3));
    late(&gateway, 70, Duration::ZERO).await;
    assert_eq!(statuses(&gateway).await, served);
    assert_eq!(gateway.metric("portcullis_shed_pressure"), Some(0.0));
    let logged = gateway.stop();
    let why = |line: &&String| line.contains("worker 0 is behind, pressure ");
    assert!(logged.iter().filter(why).count() >= 5);
}

#[tokio::test]
async fn a_listener_that_sheds_nothing_serves_everybody() {
    let (_backend, gateway) = start("off").await;
    late(&gateway, 20, Duration::from_secs(1)).await;
    assert_eq!(statuses(&gateway).await, [200, 403, 200, 200, 200]);
    assert_eq!(gateway.metric("portcullis_shed_pressure"), Some(0.0));
}

#[tokio::test]
async fn a_worker_that_is_late_with_nothing_to_do_refuses_nothing() {
    let (_backend, gateway) = start("100ms").await;
    for _ in 0..20 {
        gateway.clock.stall(LOOK, Duration::from_secs(1), Duration::from_millis(90));
        gateway.settle().await;
    }
    assert_eq!(statuses(&gateway).await, [200, 403, 200, 200, 200]);
    assert_eq!(gateway.metric("portcullis_worker_delay_seconds"), Some(1.0));
    assert_eq!(gateway.metric("portcullis_shed_pressure"), Some(0.0));
}
