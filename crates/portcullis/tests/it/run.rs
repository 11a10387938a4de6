//! `portcullis run`: it serves, reloads, refuses to load what is broken, and stops.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

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
fn address(line: &str) -> String {
    let from = &line[line.find("127.0.0.1:").unwrap()..];
    let end = from.find(|c: char| !c.is_ascii_digit() && c != '.' && c != ':');
    from[..end.unwrap_or(from.len())].to_owned()
}

fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
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
