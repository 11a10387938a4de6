//! `micro PART TIMES`: one hot part of a request, again and again, for an instruction counter.
//!
//! `cargo xtask bench micro` runs it under valgrind twice and takes the difference, so that
//! start-up does not count.

use std::hint::black_box;
use std::process::ExitCode;
use std::time::Duration;

use http::Method;
use portcullis_core::exchange::Params;
use portcullis_core::limit::{Algorithm, Grantor, LimitKey, LimitSpec};
use portcullis_core::path::{PathRules, canonicalise};
use portcullis_core::{Now, RequestHead, ResponseHead, Scheme};
use portcullis_http1::{
    HeadLimits, RequestContext, RequestWire, encode_request, parse_request, parse_response,
    request_framing,
};
use portcullis_policies::grantor::Embedded;
use portcullis_snapshot::router::{HostPattern, PathPattern, RouteIndex, RoutePattern, Router};
use portcullis_telemetry::record::Record;
use portcullis_telemetry::timestamp::Stamp;

const REQUEST: &[u8] = b"GET /v1/service-2500/orders/17?page=2 HTTP/1.1\r\n\
    Host: api.example.com\r\nUser-Agent: micro/1.0 (bench)\r\nAccept: application/json\r\n\
    Accept-Language: en-GB,en;q=0.8\r\nAccept-Encoding: gzip, br\r\n\
    Authorization: Bearer eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJiZW5jaCJ9.c2lnbmF0dXJl\r\n\
    Content-Type: application/json\r\nX-Correlation-Id: 4f1c2b7a\r\n\
    Cookie: session=0123456789abcdef\r\nOrigin: https://shop.example.com\r\n\r\n";

const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nServer: backend\r\n\
    Date: Tue, 24 Nov 2026 08:00:00 GMT\r\nContent-Type: application/json\r\n\
    Cache-Control: no-cache\r\nContent-Length: 128\r\nETag: \"17-2\"\r\n\r\n";

const PATH: &[u8] = b"/a/./b/../%7Euser//orders/17";

/// A name, and what does it so many times.
type Part = (&'static str, fn(u64));

const PARTS: &[Part] = &[
    ("parse-request", parse),
    ("canonicalise-path", rewrite_path),
    ("route-5000", route),
    ("limit-window", limit),
    ("encode-request", encode),
    ("parse-response", response),
    ("log-line", log_line),
];

#[expect(clippy::print_stdout, reason = "the list of parts is for xtask")]
fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, part, times] = &arguments[..] else {
        for (name, _) in PARTS {
            println!("{name}");
        }
        return ExitCode::SUCCESS;
    };
    match (PARTS.iter().find(|(name, _)| name == part), times.parse()) {
        (Some((_, run)), Ok(times)) => {
            run(times);
            ExitCode::SUCCESS
        }
        _ => ExitCode::from(2),
    }
}

fn parsed() -> RequestHead {
    let mut head = RequestHead::default();
    let paths = PathRules::default();
    let context = RequestContext { scheme: Scheme::Https, paths: &paths };
    let parsed = parse_request(REQUEST, &HeadLimits::default(), &mut head, &context);
    assert!(parsed.is_ok(), "the request of the bench is refused");
    head
}

fn parse(times: u64) {
    let mut head = RequestHead::default();
    let paths = PathRules::default();
    let context = RequestContext { scheme: Scheme::Https, paths: &paths };
    let limits = HeadLimits::default();
    for _ in 0..times {
        black_box(parse_request(black_box(REQUEST), &limits, &mut head, &context).is_ok());
    }
}

fn rewrite_path(times: u64) {
    let rules = PathRules::default();
    let mut out = Vec::with_capacity(128);
    for _ in 0..times {
        out.clear();
        black_box(canonicalise(black_box(PATH), &rules, &mut out).is_ok());
    }
}

fn encode(times: u64) {
    let head = parsed();
    let wire = RequestWire::new(request_framing(&head));
    let mut out = Vec::with_capacity(1024);
    for _ in 0..times {
        out.clear();
        encode_request(black_box(&head), &wire, &mut out);
    }
    black_box(out);
}

fn response(times: u64) {
    let mut head = ResponseHead::default();
    let limits = HeadLimits::default();
    for _ in 0..times {
        let parsed = parse_response(black_box(RESPONSE), &limits, &Method::GET, &mut head);
        black_box(parsed.is_ok());
    }
}

fn route(times: u64) {
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

fn limit(times: u64) {
    let grantor = Embedded::seeded(1_000, [1, 2]);
    let spec =
        LimitSpec { count: u32::MAX, per: Duration::from_secs(1), algorithm: Algorithm::Window };
    for i in 0..times {
        let mono = Duration::from_micros(10 * i);
        black_box(grantor.take(Now { mono, wall: mono }, LimitKey(7), &spec, 1));
    }
}

fn log_line(times: u64) {
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
        endpoint: Some("http://10.0.0.1:8080"),
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
