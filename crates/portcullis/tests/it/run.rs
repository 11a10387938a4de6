//! `portcullis run`: it serves, reloads, refuses to load what is broken, and stops.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;

use expect_test::expect;

use crate::binary::{Place, Running};

fn config(body: &str) -> String {
    format!(
        r#"
listeners: {{ http: {{ bind: "127.0.0.1:0" }} }}
routes:
  hello: {{ match: /hello, public: "for the test", respond: {{ status: 200, body: "{body}" }} }}
  closed: {{ match: /closed, deny: "nobody", public: "refuses everybody" }}
access_log: off
probes: off
shutdown: {{ drain_delay: 0s }}
"#
    )
}

/// The loopback address in a line that the gateway logged.
pub(crate) fn address(line: &str) -> String {
    let from = &line[line.find("127.0.0.1:").unwrap()..];
    let end = from.find(|c: char| !c.is_ascii_digit() && c != '.' && c != ':');
    from[..end.unwrap_or(from.len())].to_owned()
}

pub(crate) fn get(address: &str, path: &str) -> String {
    ask(TcpStream::connect(address).unwrap(), path, "")
}

/// With more fields, each with the end of its line.
fn ask(mut stream: impl Read + Write, path: &str, fields: &str) -> String {
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{fields}\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// The answer of the admin API, as soon as it is there: a listener is told of before it.
#[track_caller]
pub(crate) fn admin(socket: &Path, path: &str) -> String {
    for _ in 0..100_000 {
        if let Ok(stream) = UnixStream::connect(socket) {
            return ask(stream, path, "");
        }
        std::thread::yield_now();
    }
    panic!("nobody at {}", socket.display());
}

/// Asks until the answer ends so: a worker takes a configuration over between two requests.
#[track_caller]
fn becomes(address: &str, path: &str, end: &str) {
    let mut answer = String::new();
    for _ in 0..1000 {
        answer = get(address, path);
        if answer.ends_with(end) {
            return;
        }
    }
    panic!("never `{end}`: {answer}");
}

fn started(place: &Place) -> (Running, String) {
    let running = place.start(&["run"]);
    let address = address(&running.logged("listening"));
    (running, address)
}

#[test]
fn it_serves_and_stops_when_told() {
    let (running, address) = started(&Place::with(&config("hello")));
    let answer = get(&address, "/hello");
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\nhello"), "{answer}");
    assert!(get(&address, "/closed").starts_with("HTTP/1.1 403 "));
    assert!(get(&address, "/other").starts_with("HTTP/1.1 404 "));
    running.signal("TERM");
    assert_eq!(running.ended().code(), Some(0));
}

#[test]
fn a_new_configuration_serves_and_a_broken_one_changes_nothing() {
    let place = Place::with(&config("first"));
    let (running, address) = started(&place);
    place.write("portcullis.yaml", &config("two"));
    running.signal("HUP");
    running.logged("the new configuration serves");
    becomes(&address, "/hello", "two");
    place.write("portcullis.yaml", "routes: { hello: { match: /hello } }");
    running.logged("ERROR");
    assert!(get(&address, "/hello").ends_with("two"));
    running.signal("INT");
    assert_eq!(running.ended().code(), Some(0));
}

#[test]
fn what_does_not_compile_does_not_start() {
    Place::with("routes: { a: { match: /a } }").check(
        &["run"],
        &expect![[r#"
        --- stderr
        error[no-action]: the route does not say what becomes of a request
         --> portcullis.yaml:1:11
          |
        1 | routes: { a: { match: /a } }
          |           ^ in routes.a
          |
          = help: add `to: BACKEND`, or one of `respond`, `redirect`, `deny`

        --- status 1
    "#]],
    );
}

#[test]
fn an_admin_address_needs_a_token() {
    let place = Place::with(&config("hello"));
    let ran = place.run(&["run", "--admin", "127.0.0.1:0"]);
    assert_eq!(ran.status, 3, "{}", ran.shown());
    assert!(ran.stderr.contains("admin: {token: …}"), "{}", ran.stderr);
}

#[test]
fn the_last_lines_of_the_access_log_are_written_before_it_ends() {
    let text = config("first").replace("access_log: off", "access_log: \"file:access.log\"");
    let place = Place::with(&text);
    let (running, address) = started(&place);
    get(&address, "/hello");
    running.signal("TERM");
    let (status, last) = running.ended_saying();
    assert!(status.success(), "{status}");
    assert!(!last.iter().any(|line| line.contains("WARN")), "{}", last.join("\n"));
    assert_eq!(place.read("access.log").lines().count(), 1);
}

#[test]
fn a_revoked_key_opens_nothing() {
    let made = Place::with("").run(&["keys", "create", "--client", "acme", "--json"]).yes();
    let made: serde_json::Value = serde_json::from_str(&made).unwrap();
    let key = made["key"].as_str().unwrap();
    let text = config("").replace("public: \"for the test\"", "auth: partners");
    let text =
        format!("{text}auth: {{ partners: {{ api_keys: {{ keys: \"file:keys.json\" }} }} }}\n");
    let place = Place::with(&text);
    place.write("keys.json", &format!("[{}]", made["entry"]));
    let (running, address) = started(&place);
    let status = |fields: &str| {
        let answer = ask(TcpStream::connect(&address).unwrap(), "/hello", fields);
        answer[9..12].to_owned()
    };
    let field = format!("X-Api-Key: {key}\r\n");
    assert_eq!([status(""), status(&field)], ["401", "200"]);
    let id = made["entry"]["id"].as_str().unwrap();
    place.run(&["keys", "revoke", id, "--file", "keys.json"]).yes();
    running.logged("the new configuration serves");
    let mut seen = String::new();
    // A worker takes a configuration over between two requests.
    for _ in 0..1000 {
        seen = status(&field);
        if seen == "401" {
            break;
        }
    }
    assert_eq!(seen, "401");
    // It is out at every worker now, and stays out.
    assert_eq!(vec![status(&field); 50], ["401"; 50]);
}

/// Certificate and key in PEM; it ends at the beginning of that year.
fn certificate(year: i32) -> (String, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut leaf = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
    leaf.not_after = rcgen::date_time_ymd(year, 1, 1);
    (leaf.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

#[test]
fn a_new_certificate_is_taken_if_it_is_one() {
    let ((first, key), (second, other_key)) = (certificate(2090), certificate(2020));
    let place = Place::with("");
    let socket = place.write("cert.pem", &first).with_file_name("admin.sock");
    place.write("key.pem", &key);
    let tls = "tls: { certificates: [{ cert: \"file:cert.pem\", key: \"file:key.pem\" }] }";
    let listeners = format!("listeners: {{ tls: {{ bind: \"127.0.0.1:0\", {tls} }}, http: {{");
    let text = config("hello").replace("listeners: { http: {", &listeners);
    let text = text.replace("match:", "on: [http, tls], match:");
    place.write("portcullis.yaml", &format!("{text}admin: \"unix:{}\"\n", socket.display()));
    let running = place.start(&["run"]);
    let address = loop {
        let line = running.logged("listening");
        if line.contains("http") {
            break address(&line);
        }
    };
    // The number comes a moment after the line that tells of it.
    let becomes_number = |sample: &str, number: f64| {
        let mut seen = String::new();
        for _ in 0..1000 {
            let text = admin(&socket, "/metrics");
            let line = text.lines().find_map(|line| line.strip_prefix(sample));
            seen = line.unwrap_or("none").trim().to_owned();
            if seen.parse() == Ok(number) {
                return;
            }
        }
        panic!("{sample} {seen}");
    };
    let refused = r#"portcullis_reloads_total{result="failed"}"#;
    let expiry =
        r#"portcullis_tls_certificate_expiry_timestamp_seconds{certificate="tls file:cert.pem"}"#;
    let (of_2090, of_2020) = (3_786_912_000.0, 1_577_836_800.0);
    becomes_number(expiry, of_2090);
    // One without the other, and what is no certificate: the old pair serves on.
    for (broken, times) in [(&*second, 1.0), ("nonsense", 2.0)] {
        place.write("cert.pem", broken);
        running.logged("ERROR");
        becomes_number(refused, times);
        assert!(admin(&socket, "/ready").starts_with("HTTP/1.1 200 "));
        assert!(get(&address, "/hello").ends_with("hello"));
    }
    // An expired one is loud and serves.
    place.write("key.pem", &other_key);
    place.write("cert.pem", &second);
    running.logged("the new configuration serves");
    becomes_number(expiry, of_2020);
    assert!(get(&address, "/hello").ends_with("hello"));
}

#[test]
fn nothing_of_the_admin_api_is_on_a_listener() {
    let place = Place::with("");
    let socket = place.write("empty", "").with_file_name("admin.sock");
    let text = format!("{}admin: \"unix:{}\"\n", config("hello"), socket.display());
    place.write("portcullis.yaml", &text);
    let (_running, address) = started(&place);
    for path in ["/healthz", "/ready", "/metrics", "/config", "/routes", "/version"] {
        let inside = admin(&socket, path);
        assert!(inside.starts_with("HTTP/1.1 200 "), "{inside}");
        let outside = get(&address, path);
        assert!(outside.starts_with("HTTP/1.1 404 "), "{outside}");
    }
}

/// The id in an answer leads to what was decided, and to nothing else.
#[test]
fn explain_tells_what_became_of_a_request() {
    let place = Place::with("");
    let socket = place.write("empty", "").with_file_name("admin.sock");
    let text = format!("{}admin: \"unix:{}\"\n", config("one"), socket.display());
    place.write("portcullis.yaml", &text);
    let (running, address) = started(&place);
    let answer = get(&address, "/closed?token=secret");
    let id = answer.lines().find_map(|line| line.strip_prefix("x-request-id: ")).unwrap();
    admin(&socket, "/version");
    let told = place.run(&["explain", "--id", id]).yes();
    assert!(told.contains("/closed\n"), "{told}");
    assert!(told.contains("forward       deny  403 denied (nobody)"), "{told}");
    assert!(!told.contains("secret"), "{told}");
    let json = place.run(&["explain", "--json", "--id", id]).yes();
    assert!(json.contains(&format!("\"request_id\": \"{id}\"")), "{json}");
    let unknown = place.run(&["explain", "--id", "nobodys"]);
    assert_eq!(unknown.status, 1);
    assert!(unknown.stderr.contains("no request `nobodys` is remembered"), "{}", unknown.stderr);
    running.signal("TERM");
    running.ended();
    assert_eq!(place.run(&["explain", "--id", id]).status, 3);
}
