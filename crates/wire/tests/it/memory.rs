//! What floods may cost in memory: the process that has been through one has never held much more
//! than before. The gateway and whoever floods it share the process, so the bound is for both.

use portcullis_wire::case::{Case, cases};
use portcullis_wire::verdict::Verdict;

use crate::ring::{self, Kind};

/// Three times what the dearest flood has been seen to cost, which is the one that has a hundred
/// requests under way.
const GROWTH_MAX: usize = 16 << 20;

/// Set in the process that is measured, which runs nothing else.
const MARK: &str = "PORTCULLIS_TEST_MEMORY";

/// The most that the process has ever held, in bytes.
fn peak() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

fn floods() -> Vec<Case> {
    let mut all = cases("12_costs.cases", include_str!("../../cases/12_costs.cases"));
    all.extend(cases("13_resets.cases", include_str!("../../cases/13_resets.cases")));
    all.retain(|case| case.id.starts_with("H2D-"));
    all
}

#[tokio::test]
async fn requirement_12_floods_over_http2_cost_little_memory() {
    if std::env::var_os(MARK).is_none() {
        let name = "memory::requirement_12_floods_over_http2_cost_little_memory";
        let mut measured = std::process::Command::new(std::env::current_exe().unwrap());
        let output = measured.args(["--exact", name, "--nocapture"]).env(MARK, "1").output();
        let output = output.unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success() && said.contains("1 passed"), "{said}");
        return;
    }
    let floods = floods();
    assert!(floods.len() > 10, "{}", floods.len());
    let right = cases("00_positive.cases", include_str!("../../cases/00_positive.cases"));
    ring::run(&right[0], Kind::Portcullis).await;
    for case in &floods {
        let before = peak();
        let (verdict, note) = ring::run(case, Kind::Portcullis).await;
        assert_eq!(verdict, Verdict::Pass, "{}: {note}", case.id);
        // The kernel counts in batches, so that a peak may seem to sink.
        let grown = peak().saturating_sub(before);
        eprintln!("{}: {} KiB", case.id, grown >> 10);
        assert!(grown < GROWTH_MAX, "{}: {} MiB", case.id, grown >> 20);
    }
}
