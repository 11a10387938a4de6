//! `portcullis override`: a running gateway's traffic is shifted from the command line.

use crate::binary::{Place, Running};

const CONFIG: &str = r#"
listeners: { http: { bind: "127.0.0.1:0" } }
routes:
  orders: { match: /**, public: "for the test", to: { blue: 1, green: 0 } }
backends: { blue: "http://127.0.0.1:9", green: "http://127.0.0.1:9" }
access_log: off
probes: off
shutdown: { drain_delay: 0s }
"#;

/// A gateway that runs here, with its admin API.
fn started() -> (Place, Running) {
    let place = Place::with("");
    let socket = place.write("empty", "").with_file_name("admin.sock");
    place.write("portcullis.yaml", &format!("{CONFIG}admin: \"unix:{}\"\n", socket.display()));
    let running = place.start(&["run"]);
    running.logged("listening");
    // The admin API is there a moment after the line that tells of the listener.
    while !place.run(&["override", "list"]).stdout.contains("nothing is overridden") {}
    (place, running)
}

#[test]
fn what_is_said_holds_is_shown_and_is_taken_back() {
    let (place, running) = started();
    let author = ["--author", "me", "--for", "1h"];
    let set = [&["override", "switch", "orders", "green"][..], &author].concat();
    assert_eq!(place.run(&set).yes(), "in force as override@1\n");
    running.logged("an override is in force");
    let set = ["override", "weights", "orders", "blue=3", "green=1", "--author", "me"];
    assert_eq!(place.run(&set).yes(), "in force as override@2\n");
    let drain = ["override", "drain", "blue", "http://127.0.0.1:9", "--author", "you"];
    assert_eq!(place.run(&drain).yes(), "in force as override@3\n");
    let listed = place.run(&["override", "list"]).yes();
    assert_eq!(
        listed,
        "2  weights orders blue=3 green=1  by me\n3  drain blue http://127.0.0.1:9  by you\n"
    );
    assert_eq!(place.run(&["override", "clear", "2"]).yes(), "1 cleared\n");
    running.logged("an override has ended");
    assert_eq!(place.run(&["override", "clear", "2"]).status, 1);
    assert_eq!(place.run(&["override", "clear", "--all"]).yes(), "1 cleared\n");
    let refused = place.run(&["override", "switch", "orders", "red"]);
    assert_eq!(refused.status, 1, "{}", refused.shown());
    assert!(refused.stderr.contains("it has `blue`, `green`"), "{}", refused.stderr);
    for (more, why) in [
        (["--author", "\u{1b}[31mme"], "no control characters"),
        (["--for", "366d"], "`lasts_s` is 1 to 31536000"),
        (["--for", "0s"], "`lasts_s` is 1 to 31536000"),
    ] {
        let set = [&["override", "switch", "orders", "green"][..], &more].concat();
        let refused = place.run(&set);
        assert_eq!(refused.status, 1, "{}", refused.shown());
        assert!(refused.stderr.contains(why), "{}", refused.stderr);
    }
    running.signal("TERM");
    assert_eq!(running.ended().code(), Some(0));
    assert_eq!(place.run(&["override", "list"]).status, 3);
}
