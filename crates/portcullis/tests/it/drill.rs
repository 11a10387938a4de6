//! `portcullis drill`: the promises about what clients see while backends fail. Counts only, since
//! this machine may have other things to do.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::binary::Place;

#[test]
fn no_client_notices_what_another_endpoint_can_answer() {
    let ran =
        Place::with("").run(&["drill", "backends", "--rate", "10", "--seconds", "4", "--json"]);
    let report: Value =
        serde_json::from_str(&ran.stdout).unwrap_or_else(|_| panic!("{}", ran.shown()));
    let drills = report["drills"].as_array().unwrap();
    let mut timed = false;
    for drill in drills {
        let name = &drill["drill"];
        assert!(drill["requests"].as_u64().unwrap() >= 80, "{name}: {}", ran.stdout);
        for promise in drill["promises"].as_array().unwrap() {
            let kept = promise["kept"] == true;
            timed |= promise["timed"] == true && !kept;
            assert!(kept || promise["timed"] == true, "{name}: {promise}\n{}", ran.stdout);
        }
    }
    assert_eq!(ran.status, i32::from(timed));
    let names: BTreeSet<&str> =
        drills.iter().map(|drill| drill["drill"].as_str().unwrap()).collect();
    for name in ["killed", "hung", "slow", "failing", "flapping", "garbage", "resolved", "down"] {
        assert!(names.contains(name), "{names:?}");
    }
}

#[test]
fn a_drill_that_there_is_not_is_a_mistake() {
    let ran = Place::with("").run(&["drill", "backends", "--only", "asteroid"]);
    assert_eq!(ran.status, 2);
    assert!(ran.stderr.contains("`asteroid`") && ran.stderr.contains("killed"), "{}", ran.stderr);
}
