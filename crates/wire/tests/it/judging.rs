//! The judge, judged: nothing is lost, and a gateway that is none is found out.

use std::collections::{BTreeMap, BTreeSet};

use portcullis_wire::case::Step;
use portcullis_wire::verdict::Verdict;

use crate::every_case;
use crate::ring::{Kind, run};

/// The fewest cases of each area.
const AREAS: &[(&str, usize)] = &[
    ("FW", 17),
    ("H2", 38),
    ("H2D", 12),
    ("HD", 25),
    ("HH", 14),
    ("LM", 5),
    ("NP", 17),
    ("RL", 4),
    ("RT", 23),
    ("SM", 45),
    ("UP", 4),
    ("UR", 16),
];

#[test]
fn no_case_is_lost() {
    let mut areas: BTreeMap<String, usize> = BTreeMap::new();
    let mut ids = BTreeSet::new();
    for case in every_case() {
        *areas.entry(case.area().to_owned()).or_default() += 1;
        assert!(!case.origin.is_empty(), "{}: where is it from?", case.id);
        assert!(ids.insert(case.id.clone()), "{} is there twice", case.id);
    }
    for (area, least) in AREAS {
        assert!(areas.get(*area).is_some_and(|count| count >= least), "{area}: {areas:?}");
    }
}

/// What a relay of bytes does right: most of what is right passes, and so does what is hostile in
/// a way that only a gateway with more to do falls for.
const RELAY_PASSES: &str = "
    FW-01 FW-02 FW-03 FW-04 FW-05 FW-06 FW-07 FW-08 FW-09 FW-10 FW-11 FW-13 FW-14 FW-15 FW-16 FW-17
    HH-02 HH-09 HH-10 HH-103 LM-05 NP-01 NP-02 NP-10 NP-14 NP-15 RL-01 RT-105 RT-18
    SM-133 SM-19 SM-28 SM-29 SM-30 SM-31 SM-32 SM-33 SM-34 SM-35 SM-36 UR-01 UR-02 UR-06 UR-111
";

#[tokio::test]
async fn a_relay_of_bytes_is_found_out() {
    let mut passes = Vec::new();
    let mut found: BTreeMap<String, usize> = BTreeMap::new();
    for case in every_case().iter().filter(|case| !case.steps.contains(&Step::ConnectH2)) {
        let (verdict, _) = run(case, Kind::Relay).await;
        *found.entry(verdict.to_string()).or_default() += 1;
        if verdict == Verdict::Pass {
            passes.push(case.id.clone());
        }
    }
    let wanted: Vec<_> = RELAY_PASSES.split_whitespace().collect();
    passes.sort();
    assert_eq!(passes, wanted, "{found:?}");
}
