//! What a worker pays telemetry for one request.

#![expect(clippy::unwrap_used, reason = "a bench may stop when its set-up fails")]

use std::hint::black_box;
use std::net::IpAddr;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use portcullis_core::Fields;
use portcullis_core::exchange::RequestId;
use portcullis_telemetry::metrics::{MethodLabel, Observation};
use portcullis_telemetry::timestamp::Stamp;
use portcullis_telemetry::{Log, Record, Registry, Target, trace};

fn record() -> Record<'static> {
    Record {
        time: Duration::from_millis(1_795_512_600_125),
        request_id: b"0af7651916cd43dd8448eb211c80319c",
        trace_id: 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736,
        client: IpAddr::from([192, 0, 2, 7]),
        identity: Some("idp/shop"),
        tenant: Some("acme"),
        listener: "https",
        route: Some("orders"),
        backend: Some("orders-v1"),
        variant: None,
        endpoint: Some("http://10.0.0.1:8080"),
        fault: None,
        method: "GET",
        host: b"api.example.com",
        path: b"/orders/1/items/2026-11-24",
        status: 200,
        problem: None,
        detail: None,
        bytes_in: 0,
        bytes_out: 512,
        duration: Duration::from_micros(1_840),
        backend_duration: Some(Duration::from_micros(1_790)),
        gateway_added: Duration::from_micros(50),
        retries: 0,
        protocol: "HTTP/1.1",
        tls: Some("TLSv1.3"),
        config: "config@7",
        user_agent: Some(b"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
    }
}

fn log(c: &mut Criterion) {
    let (record, mut stamp, mut out) = (record(), Stamp::default(), Vec::with_capacity(2_048));
    c.bench_function("log_line", |b| {
        b.iter(|| {
            out.clear();
            black_box(&record).write(&mut stamp, &mut out);
            black_box(out.len())
        });
    });
    let log = Log::start(Target::Writer(Box::new(std::io::sink()))).unwrap();
    let mut worker = log.worker();
    c.bench_function("log_line_with_hand_over", |b| {
        b.iter(|| worker.write(Duration::ZERO, black_box(&record)));
    });
}

fn metrics(c: &mut Criterion) {
    let registry = Registry::new(2);
    let worker = registry.worker().unwrap();
    let route = registry.route("orders");
    let seen = Observation {
        method: MethodLabel::Get,
        status: 200,
        duration: Duration::from_micros(1_840),
        backend: Some(Duration::from_micros(1_790)),
        gateway_added: Duration::from_micros(50),
        bytes_in: 0,
        bytes_out: 512,
    };
    c.bench_function("request_metrics", |b| {
        b.iter(|| worker.request(black_box(&route), black_box(&seen)));
    });
}

fn ids(c: &mut Criterion) {
    let mut sent = Fields::default();
    sent.append(b"traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    let random = trace::Randomness { trace_id: 7, span_id: 9 };
    c.bench_function("trace_continue", |b| {
        b.iter(|| trace::receive(black_box(&sent), random, false));
    });
    let context = trace::receive(&sent, random, false);
    c.bench_function("traceparent", |b| b.iter(|| trace::traceparent(black_box(&context))));
    c.bench_function("request_id", |b| b.iter(|| RequestId::new(black_box(7_u128 << 80))));
}

criterion_group!(hot, log, metrics, ids);
criterion_main!(hot);
