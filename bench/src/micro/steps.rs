//! Where a request goes, whether it may, and the line that is left of it.

use std::hint::black_box;
use std::time::Duration;

use portcullis_core::Now;
use portcullis_core::exchange::Params;
use portcullis_core::limit::{Algorithm, Grantor, LimitKey, LimitSpec};
use portcullis_policies::grantor::Embedded;
use portcullis_snapshot::router::{HostPattern, PathPattern, RouteIndex, RoutePattern, Router};
use portcullis_telemetry::record::Record;
use portcullis_telemetry::timestamp::Stamp;

use crate::codec::parsed;

pub(crate) fn route(times: u64) {
    let patterns: Vec<RoutePattern> = (0..5_000)
        .filter_map(|number| {
            Some(RoutePattern {
                route: RouteIndex(number),
                hosts: vec![HostPattern::parse("api.example.com").ok()?],
                path: PathPattern::parse(&format!("/v1/service-{number}/**")).ok()?,
                methods: Vec::new(),
                headers: Vec::new(),
                query: Vec::new(),
                listeners: Vec::new(),
            })
        })
        .collect();
    let router = Router::compile(&patterns, 1).0;
    let head = parsed();
    let mut params = Params::default();
    assert_eq!(router.find(0, &head, &mut params), Some(RouteIndex(2500)));
    for _ in 0..times {
        black_box(router.find(0, black_box(&head), &mut params));
    }
}

pub(crate) fn limit(times: u64) {
    let grantor = Embedded::seeded(1_000, [1, 2]);
    let spec =
        LimitSpec { count: u32::MAX, per: Duration::from_secs(1), algorithm: Algorithm::Window };
    for i in 0..times {
        let mono = Duration::from_micros(10 * i);
        black_box(grantor.take(Now { mono, wall: mono }, LimitKey(7), &spec, 1));
    }
}

pub(crate) fn log_line(times: u64) {
    let mut stamp = Stamp::default();
    let mut out = Vec::with_capacity(1024);
    let record = Record {
        time: Duration::from_millis(1_795_500_000_123),
        request_id: b"33c67f4555b4f624bfebe5307cb5c480",
        trace_id: 0x9bee_23db_14ee_d48e_919e_9a60_c1ff_23b8,
        client: [192, 0, 2, 7].into(),
        identity: Some("idp/shop"),
        tenant: None,
        listener: "https",
        route: Some("orders"),
        backend: Some("orders-v1"),
        variant: None,
        endpoint: Some("http://10.0.0.1:8080"),
        fault: None,
        method: "GET",
        host: b"api.example.com",
        path: b"/v1/service-2500/orders/17",
        status: 200,
        problem: None,
        detail: None,
        bytes_in: 0,
        bytes_out: 128,
        duration: Duration::from_micros(812),
        backend_duration: Some(Duration::from_micros(790)),
        gateway_added: Duration::from_micros(22),
        retries: 0,
        protocol: "HTTP/1.1",
        tls: Some("TLSv1.3"),
        config: "config@1-1f0c9a2b",
        user_agent: None,
    };
    for _ in 0..times {
        out.clear();
        black_box(&record).write(&mut stamp, &mut out);
    }
    black_box(out);
}
