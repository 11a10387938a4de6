//! `portcullis audit`, as it is typed.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::PathBuf;

use expect_test::expect;
use serde_json::Value;

use crate::binary::{Place, Ran, root, run};
use crate::examples::configurations;
use crate::run::address;

const CONFIG: &str = r#"
listeners: { http: { bind: "127.0.0.1:8080" } }
auth:
  partners: { api_keys: { keys: "file:partners.yaml" } }
routes:
  orders: { match: /orders, auth: partners, to: app }
  status: { match: /status, public: "carries no data", respond: { status: 200 } }
backends: { app: "http://127.0.0.1:9000" }
"#;

/// What `audit --json` says, and its status.
fn report(ran: &Ran) -> (Value, i32) {
    let report = serde_json::from_str(&ran.stdout).unwrap_or_else(|_| panic!("{}", ran.shown()));
    (report, ran.status)
}

#[test]
fn every_example_is_proved() {
    for path in configurations() {
        let name = path.display();
        let (report, status) =
            report(&run(&root(), &["audit", "--json", "-c", path.to_str().unwrap()]));
        assert_eq!(status, 0, "{name}: {report:#}");
        assert_eq!(report["coverage"], 100.0, "{name}");
        assert_eq!(report["findings"], Value::Array(Vec::new()), "{name}");
        let routes = &report["routes"];
        assert_eq!(routes["covered"], routes["authenticated"], "{name}");
        if path.ends_with("full.yaml") {
            assert!(routes["authenticated"].as_u64() > Some(8), "{routes}");
        }
    }
}

#[test]
fn files_for_machines_are_written_beside_the_report() {
    let place = Place::with(CONFIG);
    let ran = place.run(&["audit", "--quick", "--sarif", "a.sarif", "--junit", "a.xml"]);
    assert_eq!(ran.status, 0, "{}", ran.shown());
    assert!(ran.stdout.contains("coverage 100 % (1 of 1), 0 findings"), "{}", ran.stdout);
    assert!(ran.stdout.contains("  status  carries no data\n"), "{}", ran.stdout);
    let sarif: Value = serde_json::from_str(&place.read("a.sarif")).unwrap();
    assert_eq!(sarif["runs"][0]["results"], Value::Array(Vec::new()));
    let junit = place.read("a.xml");
    assert!(junit.contains("tests=\"1\" failures=\"0\""), "{junit}");
    assert!(junit.contains("<testcase classname=\"audit\" name=\"orders\"/>"), "{junit}");
}

/// It would look like a gateway that lets nobody in.
#[test]
fn what_fails_on_purpose_does_not_do_so_in_an_audit() {
    let faults = "to: app, faults: { delay: { by: 60s }, abort: { status: 503 } } }";
    let config =
        CONFIG.replace("8080\"", "8080\", allow_faults: true").replace("to: app }", faults);
    let ran = Place::with(&config).run(&["audit", "--quick"]);
    assert!(ran.stdout.contains("coverage 100 % (1 of 1), 0 findings"), "{}", ran.shown());
}

#[test]
fn what_does_not_compile_is_not_proved() {
    let place = Place::with(&CONFIG.replace(", auth: partners", ""));
    let ran = place.run(&["audit"]);
    assert_eq!(ran.status, 1);
    assert!(ran.stderr.contains("error[no-auth]"), "{}", ran.stderr);
    let nothing = place.run(&["audit", "-c", "nothing.yaml"]);
    assert_eq!(nothing.status, 3);
    expect![[r#"
        error: give the configuration's path with `-c`: cannot read nothing.yaml: No such file or directory (os error 2)
    "#]]
    .assert_eq(&nothing.stderr);
}

/// The configuration for a gateway that runs, with the socket of its admin API.
fn running(place: &Place, config: &str) -> PathBuf {
    let admin = place.write("partners.yaml", "[]").with_file_name("admin.sock");
    let config = config.replace("127.0.0.1:8080", "127.0.0.1:0")
        + &format!("admin: \"unix:{}\"\nprobes: off\naccess_log: off\n", admin.display());
    place.write("portcullis.yaml", &config);
    admin
}

#[test]
fn a_running_gateway_is_asked_what_it_did() {
    let place = Place::with("");
    let admin = running(&place, CONFIG);
    let gateway = place.start(&["run"]);
    let url = format!("http://{}", address(&gateway.logged("listening")));
    let arguments = ["audit", "--json", "--target", &url, "--admin", admin.to_str().unwrap()];
    let (report, status) = report(&place.run(&arguments));
    assert_eq!(status, 0, "{report:#}");
    assert_eq!(report["coverage"], 100.0);
    assert!(report["by_record"].as_u64() > Some(50), "{report}");
    assert!(report["kinds"].get("good credential").is_none());
    let status_only = place.run(&["audit", "--quick", "--target", &url]);
    assert!(status_only.stdout.contains("0 verdicts by its record"), "{}", status_only.stdout);
}

#[test]
fn a_running_gateway_that_lets_somebody_in_is_found_out() {
    let place = Place::with("");
    let backend = backend();
    let opened = CONFIG.replace("auth: partners", "public: \"for a test\"");
    let admin = running(&place, &opened.replace("http://127.0.0.1:9000", &backend));
    let gateway = place.start(&["run"]);
    let url = format!("http://{}", address(&gateway.logged("listening")));
    // What should be running is not what does.
    place.write("intended.yaml", CONFIG);
    let target = ["audit", "--quick", "--json", "-c", "intended.yaml", "--target", &url];
    for (record, code) in [(Some(&admin), "reached-backend"), (None, "answered")] {
        let record = record.iter().flat_map(|admin| ["--admin", admin.to_str().unwrap()]);
        let arguments: Vec<&str> = target.into_iter().chain(record).collect();
        let (report, status) = report(&place.run(&arguments));
        assert_eq!(status, 1, "{report:#}");
        let finding = &report["findings"][0];
        assert_eq!((&finding["code"], &finding["route"]), (&code.into(), &"orders".into()));
        assert_eq!(finding["place"]["file"], "intended.yaml");
        assert!(finding["reproduce"].as_str().unwrap().starts_with("curl "), "{finding}");
    }
}

#[test]
fn where_nobody_answers_nothing_is_proved() {
    let place = Place::with(CONFIG);
    // Nobody listens at an address whose listener is gone.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let ran = place.run(&["audit", "--target", &format!("http://{address}")]);
    assert_eq!(ran.status, 3, "{}", ran.shown());
    assert!(ran.stderr.contains("error: no connection to http://127.0.0.1"), "{}", ran.stderr);
    // Here somebody takes connections, and closes them.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || listener.incoming().map_while(Result::ok).for_each(drop));
    let (report, status) = report(&place.run(&["audit", "--quick", "--json", "--target", &url]));
    assert_eq!(status, 1, "{report:#}");
    assert_eq!(report["coverage"], 0.0);
    let reasons = &report["not_covered"][0]["reasons"];
    assert!(reasons.to_string().contains("HTTP/1.1 on `http` gets an answer"), "{reasons}");
}

/// Answers everything with 200, as long as the test runs.
pub(crate) fn backend() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let mut reader = BufReader::new(stream);
                loop {
                    let mut head = String::new();
                    while !head.ends_with("\r\n\r\n") {
                        if reader.read_line(&mut head).unwrap_or(0) == 0 {
                            return;
                        }
                    }
                    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
                    reader.get_mut().write_all(answer.as_bytes()).unwrap();
                }
            });
        }
    });
    url
}
