//! Endpoints that the running gateway finds in a file or by DNS, and what it tells of them and of
//! its routes.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use portcullis_testkit::NameServer;
use serde_json::Value;

use crate::binary::Place;
use crate::run::{address, admin, get};

const CONFIG: &str = r#"
listeners: { http: { bind: "127.0.0.1:0" } }
routes:
  all: { match: /all, public: "for the test", to: found }
  never: { match: /never, public: "for the test", to: found }
backends: { found: { discover: { file: endpoints.yaml } } }
access_log: off
probes: off
shutdown: { drain_delay: 0s }
"#;

/// Answers with its name until the test's process ends; its URL.
fn backend(name: &'static str) -> String {
    format!("http://127.0.0.1:{}", well_or_not(name).0)
}

/// The same, its port, and whether it answers with 200.
fn well_or_not(name: &'static str) -> (u16, Arc<AtomicBool>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let well = Arc::new(AtomicBool::new(true));
    let inside = Arc::clone(&well);
    std::thread::spawn(move || {
        while let Ok((mut tcp, _)) = listener.accept() {
            let length = name.len();
            let status = if inside.load(SeqCst) { 200 } else { 503 };
            let answer = format!(
                "HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{name}"
            );
            let asked = tcp.read(&mut [0; 4096]).unwrap_or(0);
            if asked > 0 {
                // A connection may be made and never used.
                drop(tcp.write_all(answer.as_bytes()));
            }
        }
    });
    (port, well)
}

fn body(answer: &str) -> Value {
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}

#[test]
fn endpoints_come_and_go_with_a_file() {
    let place = Place::with("");
    let socket = place.write("empty", "").with_file_name("admin.sock");
    place.write("portcullis.yaml", &format!("{CONFIG}admin: \"unix:{}\"\n", socket.display()));
    let (one, two) = (backend("one"), backend("two"));
    place.write("endpoints.yaml", &format!("endpoints: [{one:?}]"));
    let running = place.start(&["run"]);
    running.logged("other endpoints");
    let address = address(&running.logged("listening"));
    assert!(get(&address, "/all").ends_with("one"));
    // A broken file changes nothing, and a good one everything.
    place.write("endpoints.yaml", "endpoints:");
    running.logged("endpoints stay as they are");
    assert!(get(&address, "/all").ends_with("one"));
    let next =
        format!("endpoints:\n- {{ url: {two:?}, zone: b }}\n- {{ url: {one:?}, draining: true }}");
    place.write("endpoints.yaml", &next);
    running.logged("other endpoints");
    assert!(get(&address, "/all").ends_with("two"));

    let backends = body(&admin(&socket, "/backends"));
    let found = &backends[0];
    assert_eq!(found["source"]["place"], "file endpoints.yaml");
    assert!(found["source"]["age_seconds"].is_u64(), "{found}");
    let states: Vec<_> = found["endpoints"].as_array().unwrap().iter().collect();
    assert_eq!((&states[0]["url"], &states[0]["zone"]), (&two.into(), &"b".into()));
    assert_eq!(states[1]["state"], "draining");
    let routes = body(&admin(&socket, "/routes"));
    assert!(routes[0]["to"][0]["age_seconds"].is_u64(), "{routes}");
    let metrics = admin(&socket, "/metrics");
    for line in [
        "portcullis_discovery_listings_total{backend=\"found\",result=\"ok\"} 2\n",
        "portcullis_discovery_endpoints{backend=\"found\"} 2\n",
        "portcullis_discovery_age_seconds{backend=\"found\"} ",
    ] {
        assert!(metrics.contains(line), "{metrics}");
    }

    let told = place.run(&["routes", "--unused", "30d"]).yes();
    assert!(told.contains("never  none\n"), "{told}");
    assert!(told.contains("1 of 2 routes") && told.contains("is not known"), "{told}");
    running.signal("TERM");
    running.ended();
    assert_eq!(place.run(&["routes", "--unused", "30d"]).status, 3);
}

/// RFC 2782: the lowest number first, the next one while that is down, and back.
#[test]
fn services_of_another_priority_take_over_and_give_back() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let names = runtime.block_on(NameServer::start());
    let ((first, first_is_well), (second, second_is_well)) =
        (well_or_not("first"), well_or_not("second"));
    for host in ["a.internal", "b.internal"] {
        names.addresses(host, 60, &["127.0.0.1"]);
    }
    let services = [(20, 5, second, "b.internal"), (10, 5, first, "a.internal")];
    names.services("_http._tcp.orders.internal", 60, &services);
    let place = Place::with("");
    let socket = place.write("empty", "").with_file_name("admin.sock");
    let srv = r#"srv: "http://_http._tcp.orders.internal""#;
    let discover = format!("discover: {{ {srv}, resolvers: [\"{}\"] }}", names.address);
    let more = "health: { path: /, interval: 100ms }, slow_start: off";
    let config =
        CONFIG.replace("discover: { file: endpoints.yaml }", &format!("{discover}, {more}"));
    place.write("portcullis.yaml", &format!("{config}admin: \"unix:{}\"\n", socket.display()));
    let running = place.start(&["run"]);
    let address = address(&running.logged("listening"));
    let used = |expected: (&str, u32)| {
        for _ in 0..5 {
            assert!(get(&address, "/all").ends_with(expected.0), "{expected:?}");
        }
        let line = format!("portcullis_backend_priority{{backend=\"found\"}} {}\n", expected.1);
        let metrics = admin(&socket, "/metrics");
        assert!(metrics.contains(&line), "{metrics}");
    };
    used(("first", 10));
    first_is_well.store(false, SeqCst);
    running.logged("WentDown");
    used(("second", 20));
    first_is_well.store(true, SeqCst);
    running.logged("WentUp");
    used(("first", 10));
    // One that nobody needs may be down.
    second_is_well.store(false, SeqCst);
    running.logged("WentDown");
    used(("first", 10));
    let backends = body(&admin(&socket, "/backends"));
    let endpoints = backends[0]["endpoints"].as_array().unwrap();
    let mut numbers: Vec<_> =
        endpoints.iter().map(|one| (one["priority"].as_u64(), one["name"].as_str())).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [(Some(10), Some("a.internal")), (Some(20), Some("b.internal"))]);
    running.signal("TERM");
    running.ended();
}

#[test]
fn requests_stay_in_the_zone_that_the_gateway_is_told() {
    let place = Place::with("");
    let socket = place.write("zone", "b\n").with_file_name("admin.sock");
    let config = CONFIG.replace("{ found: { ", "{ found: { prefer_zone: true, ");
    let config = format!("{config}admin: \"unix:{}\"\n", socket.display());
    place.write("portcullis.yaml", &format!("{config}gateway: {{ zone: \"file:zone\" }}\n"));
    let (one, two) = (backend("one"), backend("two"));
    let listed = |zone| {
        format!("endpoints: [{{ url: {one:?}, zone: a }}, {{ url: {two:?}, zone: {zone} }}]")
    };
    place.write("endpoints.yaml", &listed("b"));
    let told = place.run(&["explain", "GET http://localhost/all"]).yes();
    assert!(told.contains("forwarded to found, in the zone b first"), "{told}");
    let running = place.start(&["run"]);
    running.logged("other endpoints");
    let address = address(&running.logged("listening"));
    for _ in 0..8 {
        assert!(get(&address, "/all").ends_with("two"));
    }
    let backends = body(&admin(&socket, "/backends"));
    assert_eq!(backends[0]["zone"], serde_json::json!({ "own": "b", "share": 1.0 }));
    // Nobody is left there, by the next listing.
    place.write("endpoints.yaml", &listed("a"));
    running.logged("other endpoints");
    assert!(get(&address, "/all").contains("200"));
    let backends = body(&admin(&socket, "/backends"));
    assert_eq!(backends[0]["zone"]["share"], 0.0);
    let metrics = admin(&socket, "/metrics");
    for line in [
        "portcullis_backend_zone_requests_total{backend=\"found\",zone=\"local\"} 8\n",
        "portcullis_backend_zone_requests_total{backend=\"found\",zone=\"other\"} 1\n",
        "portcullis_backend_zone_share{backend=\"found\"} 0\n",
    ] {
        assert!(metrics.contains(line), "{metrics}");
    }
    running.signal("TERM");
    running.ended();
}
