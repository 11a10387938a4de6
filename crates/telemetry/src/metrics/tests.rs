//! Everything is read back from the text, as a monitoring system would.

use expect_test::expect;

use super::*;

mod check;

fn observation(status: u16) -> Observation {
    Observation {
        method: MethodLabel::Get,
        status,
        duration: Duration::from_micros(1_800),
        backend: Some(Duration::from_micros(1_750)),
        gateway_added: Duration::from_micros(50),
        bytes_in: 0,
        bytes_out: 512,
    }
}

fn text(registry: &Registry) -> String {
    let mut exposition = Exposition::new();
    registry.collect(&mut exposition);
    let mut text = String::new();
    exposition.finish(&mut text);
    text
}

fn samples(registry: &Registry) -> BTreeMap<String, f64> {
    check::read(&text(registry)).unwrap()
}

#[test]
fn an_unused_registry_is_sound() {
    let samples = samples(&Registry::new(2));
    assert_eq!(samples[r#"portcullis_reloads_total{result="failed"}"#], 0.0);
    assert_eq!(samples[r#"portcullis_deadlines_total{kind="head"}"#], 0.0);
    assert!(samples["process_resident_memory_bytes"] > 1e5);
}

#[test]
fn workers_are_added_up() {
    let registry = Registry::new(2);
    let (a, b) = (registry.worker().unwrap(), registry.worker().unwrap());
    assert!(registry.worker().is_none());
    let route = registry.route("orders");
    a.request(&route, &observation(200));
    a.request(&route, &observation(204));
    b.request(&route, &observation(200));
    b.request(
        &route,
        &Observation { method: MethodLabel::Other, backend: None, ..observation(404) },
    );
    b.request(&route, &observation(0));
    a.deadline(DeadlineKind::Body);
    b.bound(Bound::BodyMax);
    let samples = samples(&registry);
    for (sample, value) in [
        (r#"requests_total{route="orders",method="GET",status_class="2xx"}"#, 3.0),
        (r#"requests_total{route="orders",method="other",status_class="4xx"}"#, 1.0),
        (r#"requests_total{route="orders",method="GET",status_class="none"}"#, 1.0),
        (r#"request_duration_seconds_count{route="orders"}"#, 5.0),
        (r#"request_duration_seconds_bucket{route="orders",le="0.001"}"#, 0.0),
        (r#"request_duration_seconds_bucket{route="orders",le="0.0025"}"#, 5.0),
        (r#"request_duration_seconds_sum{route="orders"}"#, 0.009),
        (r#"backend_duration_seconds_count{route="orders"}"#, 4.0),
        (r#"gateway_added_seconds_bucket{route="orders",le="0.00005"}"#, 5.0),
        (r#"gateway_added_seconds_bucket{route="orders",le="0.00002"}"#, 0.0),
        (r#"request_body_bytes_bucket{le="0.0"}"#, 5.0),
        (r#"response_body_bytes_bucket{le="512.0"}"#, 5.0),
        (r#"deadlines_total{kind="body"}"#, 1.0),
        (r#"bounds_total{bound="body_max"}"#, 1.0),
    ] {
        assert_eq!(samples.get(&format!("portcullis_{sample}")), Some(&value), "{sample}");
    }
}

#[test]
fn named_things_show_what_they_hold() {
    let registry = Registry::new(1);
    let worker = registry.worker().unwrap();
    let listener = registry.listener("https");
    listener.accepted(worker.id());
    listener.accepted(worker.id());
    listener.closed(worker.id());
    let route = registry.route("chat");
    route.upgrade_began(worker.id());
    route.upgrade_began(worker.id());
    route.upgrade_ended(worker.id());
    let backend = registry.backend("orders-v1");
    backend.attempt(worker.id(), false);
    backend.attempt(worker.id(), true);
    backend.connected(worker.id());
    backend.set_pool(worker.id(), 3, 1);
    let limit = registry.limit("orders/0");
    limit.decided(worker.id(), true);
    limit.decided(worker.id(), false);
    registry.policy("jwt").observe(worker.id(), Duration::from_nanos(300));
    registry.set_certificates([("a \"quoted\"\\name\n".to_owned(), 1_800_000_000)]);
    registry.reload_succeeded(Duration::from_millis(1_500), 7, "9f2c");
    registry.reload_failed();
    let text = text(&registry);
    check::read(&text).unwrap();
    let shown = ["_bucket", "body", "deadlines", "bounds", "process", "build", "panics", "# "];
    let lines: Vec<&str> =
        text.lines().filter(|line| !shown.iter().any(|part| line.contains(part))).collect();
    expect![[r#"
        portcullis_upgrades_total{route="chat"} 2
        portcullis_upgrades_active{route="chat"} 1
        portcullis_policy_duration_seconds_count{policy="jwt"} 1
        portcullis_policy_duration_seconds_sum{policy="jwt"} 0.0000003
        portcullis_connections{listener="https"} 1
        portcullis_connections_accepted_total{listener="https"} 2
        portcullis_connections_refused_total{listener="https"} 0
        portcullis_accept_pauses_total{listener="https"} 0
        portcullis_tls_handshake_failures_total{listener="https"} 0
        portcullis_backend_requests_total{backend="orders-v1"} 2
        portcullis_backend_retries_total{backend="orders-v1"} 1
        portcullis_backend_hedges_total{backend="orders-v1"} 0
        portcullis_backend_connects_total{backend="orders-v1"} 1
        portcullis_pool_connections{backend="orders-v1",state="idle"} 3
        portcullis_pool_connections{backend="orders-v1",state="active"} 1
        portcullis_limit_decisions_total{limit="orders/0",decision="allowed"} 1
        portcullis_limit_decisions_total{limit="orders/0",decision="refused"} 1
        portcullis_shed_requests_total{priority="critical"} 0
        portcullis_shed_requests_total{priority="default"} 0
        portcullis_shed_requests_total{priority="sheddable"} 0
        portcullis_shed_pressure 0
        portcullis_worker_delay_seconds 0
        portcullis_reloads_total{result="ok"} 1
        portcullis_reloads_total{result="failed"} 1
        portcullis_reload_last_success_timestamp_seconds 1.5
        portcullis_config_number 7
        portcullis_config_info{version="9f2c"} 1
        portcullis_tls_certificate_expiry_timestamp_seconds{certificate="a \"quoted\"\\name\n"} 1800000000"#]]
    .assert_eq(&lines.join("\n"));
}

#[test]
fn a_series_survives_reloads_by_its_name() {
    let registry = Registry::new(1);
    let worker = registry.worker().unwrap();
    worker.request(&registry.route("orders"), &observation(200));
    // The snapshot that held the series is gone; the next one asks by name.
    worker.request(&registry.route("orders"), &observation(200));
    let key = r#"portcullis_requests_total{route="orders",method="GET",status_class="2xx"}"#;
    assert_eq!(samples(&registry)[key], 2.0);
}

#[test]
fn names_past_the_limit_share_one_series_until_others_are_gone() {
    let registry = Registry::new(1);
    let worker = registry.worker().unwrap();
    let mut held: Vec<_> = (0..SERIES_MAX).map(|i| registry.route(&format!("r{i}"))).collect();
    let late = registry.route("late");
    assert!(Arc::ptr_eq(&late, &registry.route("later")));
    worker.request(&late, &observation(200));
    let key = r#"portcullis_requests_total{route="(other)",method="GET",status_class="2xx"}"#;
    assert_eq!(samples(&registry)[key], 1.0);
    held.truncate(10);
    registry.make_room(1);
    assert!(!Arc::ptr_eq(&late, &registry.route("late")), "there is room again");
}

#[test]
fn what_others_know_joins_its_family_in_any_order() {
    let mut exposition = Exposition::new();
    exposition.gauge(Metric::EndpointUp, &["a", "http://1"], 1.0);
    exposition.count(Metric::LogLines, &["dropped"], 0);
    exposition.gauge(Metric::EndpointUp, &["b", "http://1"], 0.0);
    exposition.count(Metric::LogLines, &["written"], 5);
    let mut text = String::new();
    exposition.finish(&mut text);
    assert_eq!(check::read(&text).unwrap().len(), 4);
}

#[test]
fn names_units_and_helps_are_in_order() {
    for metric in Metric::ALL {
        assert!(
            metric.unit().is_empty() || metric.name().ends_with(&format!("_{}", metric.unit()))
        );
        assert!(
            metric.help().ends_with('.') && !metric.help().contains(['\\', '\n']),
            "{metric:?}"
        );
        assert!(!metric.name().ends_with("_total"), "{metric:?}");
    }
}

#[test]
fn a_mirror_is_compared_by_class_size_and_time() {
    let registry = Registry::new(2);
    let (a, b) = (registry.worker().unwrap(), registry.worker().unwrap());
    let mirror = registry.mirror("orders");
    let ms = Duration::from_millis;
    mirror.answered(a.id(), (200, ms(5)), (200, ms(8)));
    mirror.answered(b.id(), (200, ms(5)), (204, ms(5)));
    mirror.answered(b.id(), (404, ms(9)), (500, ms(1)));
    mirror.sized(a.id(), 100, 40);
    mirror.sized(b.id(), 7, 7);
    mirror.sent(a.id(), CopyResult::Answered);
    mirror.skipped(b.id(), NoCopy::QueueFull);
    let samples = samples(&registry);
    for (sample, value) in [
        (r#"requests_total{route="orders",result="answered"}"#, 1.0),
        (r#"requests_total{route="orders",result="late"}"#, 0.0),
        (r#"skipped_total{route="orders",reason="queue_full"}"#, 1.0),
        (r#"statuses_total{route="orders",status_class="2xx",mirror_class="2xx"}"#, 2.0),
        (r#"statuses_total{route="orders",status_class="4xx",mirror_class="5xx"}"#, 1.0),
        (r#"status_differences_total{route="orders"}"#, 2.0),
        (r#"size_difference_bytes_bucket{route="orders",le="0.0"}"#, 1.0),
        (r#"size_difference_bytes_sum{route="orders"}"#, 60.0),
        (r#"latency_difference_seconds_count{route="orders",mirror="slower"}"#, 1.0),
        (r#"latency_difference_seconds_count{route="orders",mirror="faster"}"#, 2.0),
        (r#"latency_difference_seconds_sum{route="orders",mirror="faster"}"#, 0.008),
    ] {
        assert_eq!(samples[&format!("portcullis_mirror_{sample}")], value, "{sample}");
    }
}
