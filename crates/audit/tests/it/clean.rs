//! A gateway that is right.

use crate::place::{CONFIG, OTHERS, run};

#[test]
fn all_of_it_is_proved() {
    for (config, quick) in [(CONFIG, true), (CONFIG, false), (OTHERS, true), (OTHERS, false)] {
        let report = run(config, quick).unwrap_or_else(|error| panic!("{error:?}"));
        assert!(report.holds(), "{}", report.human("gateway.yaml"));
    }
}
