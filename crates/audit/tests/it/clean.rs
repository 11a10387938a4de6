//! A gateway that is right.

use crate::place::{CONFIG, run};

#[test]
fn all_of_it_is_proved() {
    for quick in [true, false] {
        let report = run(CONFIG, quick).unwrap_or_else(|error| panic!("{error:?}"));
        assert!(report.holds(), "{}", report.human("gateway.yaml"));
    }
}
