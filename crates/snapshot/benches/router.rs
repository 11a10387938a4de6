//! One look-up among 5,000 routes. The target is below a microsecond.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use http::Method;
use portcullis_core::RequestHead;
use portcullis_core::exchange::Params;
use portcullis_snapshot::router::{HostPattern, PathPattern, RouteIndex, RoutePattern, Router};

const ROUTES: u32 = 5_000;

fn routes() -> Vec<RoutePattern> {
    (0..ROUTES)
        .map(|number| {
            let (host, path) = match number % 5 {
                0 => ("api.example.com", format!("/v1/service-{number}/**")),
                1 => ("api.example.com", format!("/v1/service-{number}/{{id}}/items/{{item}}")),
                2 => ("*.tenants.example.com", format!("/orders-{number}/{{id}}")),
                3 => ("www.example.com", format!("/static/page-{number}")),
                _ => ("api.example.com", format!("/v2/{{tenant}}/thing-{number}/**")),
            };
            RoutePattern {
                route: RouteIndex(number),
                hosts: vec![HostPattern::parse(host).expect("a host")],
                path: PathPattern::parse(&path).expect("a path"),
                methods: if number % 2 == 0 { vec![Method::GET, Method::POST] } else { Vec::new() },
                headers: Vec::new(),
                query: Vec::new(),
                listeners: Vec::new(),
            }
        })
        .collect()
}

fn head(host: &str, path: &str) -> RequestHead {
    let mut head = RequestHead::default();
    for (name, value) in [("user-agent", "bench"), ("accept", "*/*"), ("host", host)] {
        head.fields.append(name.as_bytes(), value.as_bytes());
    }
    head.authority = head.fields.intern(host.as_bytes());
    head.host = head.authority;
    head.set_path(path.as_bytes());
    head
}

fn find(criterion: &mut Criterion) {
    let router = Router::compile(&routes(), 1).0;
    let mut params = Params::default();
    for (name, host, path, route) in [
        ("prefix", "api.example.com", "/v1/service-2500/a/b/c", Some(2500)),
        ("template", "api.example.com", "/v1/service-2501/17/items/42", Some(2501)),
        ("wildcard host", "acme.tenants.example.com", "/orders-2502/17", Some(2502)),
        ("exact", "www.example.com", "/static/page-2503", Some(2503)),
        ("capture in the middle", "api.example.com", "/v2/acme/thing-2504/x", Some(2504)),
        ("nothing", "api.example.com", "/v3/unknown/path", None),
    ] {
        let head = head(host, path);
        assert_eq!(router.find(0, &head, &mut params), route.map(RouteIndex), "{name}");
        criterion.bench_function(&format!("find/{name}"), |bencher| {
            bencher.iter(|| black_box(router.find(0, black_box(&head), &mut params)));
        });
    }
}

fn compile(criterion: &mut Criterion) {
    let routes = routes();
    criterion.bench_function("compile/5000 routes, with ties and reachability", |bencher| {
        bencher.iter(|| black_box(Router::compile(black_box(&routes), 2)));
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20);
    targets = find, compile
}
criterion_main!(benches);
