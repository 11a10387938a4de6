//! `portcullis audit`, as it is typed.

use expect_test::expect;
use serde_json::Value;

use crate::binary::{Place, root};
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

#[test]
fn the_full_example_is_proved() {
    let path = root().join("examples/full.yaml");
    let place = Place::with("");
    let ran = place.run(&["audit", "--json", "-c", path.to_str().unwrap()]);
    let report: Value =
        serde_json::from_str(&ran.stdout).unwrap_or_else(|_| panic!("{}", ran.shown()));
    assert_eq!(ran.status, 0, "{}", ran.stdout);
    assert_eq!(report["coverage"], 100.0);
    assert_eq!(report["findings"], Value::Array(Vec::new()));
    let routes = &report["routes"];
    assert_eq!(routes["covered"], routes["authenticated"]);
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

#[test]
fn a_running_gateway_is_asked_what_it_did() {
    let place = Place::with("");
    let partners = place.write("partners.yaml", "[]");
    let admin = partners.with_file_name("admin.sock");
    let config = CONFIG.replace("127.0.0.1:8080", "127.0.0.1:0")
        + &format!("admin: \"unix:{}\"\nprobes: off\naccess_log: off\n", admin.display());
    place.write("portcullis.yaml", &config);
    let running = place.start(&["run"]);
    let url = format!("http://{}", address(&running.logged("listening")));
    let arguments = ["audit", "--json", "--target", &url, "--admin", admin.to_str().unwrap()];
    let ran = place.run(&arguments);
    let report: Value =
        serde_json::from_str(&ran.stdout).unwrap_or_else(|_| panic!("{}", ran.shown()));
    assert_eq!(ran.status, 0, "{}", ran.stdout);
    assert_eq!(report["coverage"], 100.0);
    assert!(report["by_record"].as_u64() > Some(50), "{report}");
    assert!(report["kinds"].get("good credential").is_none());
    let status_only = place.run(&["audit", "--quick", "--target", &url]);
    assert!(status_only.stdout.contains("0 verdicts by its record"), "{}", status_only.stdout);
}
