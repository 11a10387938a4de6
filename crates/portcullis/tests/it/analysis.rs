//! A running gateway brings a good canary up and takes everything away from a bad one, and says so.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use serde_json::Value;

use crate::binary::Place;
use crate::run::{address, admin, get};

/// Answers with this status until the test's process ends; its URL.
fn backend(status: u16) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        while let Ok((mut tcp, _)) = listener.accept() {
            let answer =
                format!("HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
            if tcp.read(&mut [0; 4096]).unwrap_or(0) > 0 {
                // A connection may be made and never used.
                drop(tcp.write_all(answer.as_bytes()));
            }
        }
    });
    url
}

#[test]
fn a_good_canary_goes_up_and_a_bad_one_back_to_nothing() {
    let place = Place::with("");
    let socket = place.write("empty", "").with_file_name("admin.sock");
    let config = format!(
        r#"
listeners: {{ http: {{ bind: "127.0.0.1:0" }} }}
routes:
  good:
    match: /good
    public: "for the test"
    to: {{ old: 100, new: 0 }}
    analysis: {{ canary: new, steps: [50, 100], every: 1s, requests: 10 }}
  bad:
    match: /bad
    public: "for the test"
    to: {{ old: 100, broken: 0 }}
    analysis: {{ canary: broken, steps: [50, 100], every: 1h, requests: 10 }}
backends: {{ old: {:?}, new: {:?}, broken: {:?} }}
access_log: off
probes: off
shutdown: {{ drain_delay: 0s }}
admin: "unix:{}"
"#,
        backend(200),
        backend(204),
        backend(500),
        socket.display()
    );
    place.write("portcullis.yaml", &config);
    let running = place.start(&["run"]);
    let address = address(&running.logged("listening"));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Relaxed) {
                get(&address, "/good");
                get(&address, "/bad");
            }
        });
        // Whichever comes first, the other is shown too.
        let told = loop {
            let told: Value = body(&admin(&socket, "/analysis"));
            let stages = told.as_array().unwrap().iter().map(|one| one["stage"].as_str().unwrap());
            if stages.eq(["rolled back", "promoted"]) {
                break told;
            }
        };
        done.store(true, Relaxed);
        assert_eq!((&told[0]["cause"], &told[0]["percent"]), (&"broken".into(), &0.into()));
        assert_eq!((&told[1]["canary"], &told[1]["percent"]), (&"new".into(), &100.into()));
    });
    assert!(get(&address, "/good").starts_with("HTTP/1.1 204"));
    assert!(get(&address, "/bad").starts_with("HTTP/1.1 200"));
    let told = place.run(&["analysis"]).yes();
    for line in ["bad: broken beside old\n  rolled back (broken): 0 %", "  promoted: 100 %"] {
        assert!(told.contains(line), "{told}");
    }
    let listed = place.run(&["override", "list"]).yes();
    assert!(listed.contains("weights bad broken=0 old=100  by analysis"), "{listed}");
    let metrics = admin(&socket, "/metrics");
    for line in [
        "portcullis_analysis_events_total{route=\"bad\",event=\"rolled_back\"} 1\n",
        "portcullis_analysis_canary_ratio{route=\"good\"} 1\n",
    ] {
        assert!(metrics.contains(line), "{metrics}");
    }
    running.signal("TERM");
    running.ended();
    assert_eq!(place.run(&["analysis"]).status, 3);
}

fn body(answer: &str) -> Value {
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}
