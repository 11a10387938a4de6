//! Prints what a bench found, with everything that is needed to judge or repeat it.

use std::fs;
use std::process::Command;

use super::Plan;
use super::measure::Sample;
use super::peers::Peer;

pub(super) fn print(plan: &Plan, results: &[(&str, Vec<[Sample; 2]>)]) -> anyhow::Result<()> {
    let ours = Peer::PORTCULLIS.name;
    let theirs = Peer::NGINX.name;
    println!();
    println!("| CPU µs a request | {ours} | {theirs} | ratio | ratios of the rounds |");
    println!("|---|---|---|---|---|");
    for (scenario, rounds) in results {
        let cpu = |peer: usize| median(rounds.iter().map(|round| round[peer].cpu_us_a_request));
        let ratios = || rounds.iter().map(|[a, b]| a.cpu_us_a_request / b.cpu_us_a_request);
        let spread: Vec<String> = ratios().map(|ratio| format!("{ratio:.2}")).collect();
        println!(
            "| {scenario} | {:.1} | {:.1} | {:.2} | {} |",
            cpu(0),
            cpu(1),
            median(ratios()),
            spread.join(" ")
        );
    }
    println!();
    println!("| requests a second | {ours} | {theirs} |");
    println!("|---|---|---|");
    for (scenario, rounds) in results {
        let rate = |peer: usize| median(rounds.iter().map(|round| round[peer].requests_per_second));
        println!("| {scenario} | {:.0} | {:.0} |", rate(0), rate(1));
    }
    println!();
    println!("{} rounds of {} s, {} connections", plan.rounds, plan.seconds, plan.connections);
    println!("load average: {}", fs::read_to_string("/proc/loadavg")?.trim());
    println!("processor: {}", processor()?);
    println!("kernel: {}", fs::read_to_string("/proc/sys/kernel/osrelease")?.trim());
    println!("nginx: {}", said("nginx", &["-v"]));
    println!("wrk: {}", said("wrk", &["-v"]));
    println!("rustc: {}", said("rustc", &["--version"]));
    println!("commit: {}", said("git", &["describe", "--always", "--dirty"]));
    for peer in [Peer::PORTCULLIS, Peer::NGINX] {
        println!("{}: {}", peer.name, peer.command_line());
    }
    println!("files: bench/portcullis.yaml bench/nginx.conf bench/backend.conf");
    Ok(())
}

fn processor() -> anyhow::Result<String> {
    let info = fs::read_to_string("/proc/cpuinfo")?;
    let model = info.lines().find_map(|line| line.strip_prefix("model name"));
    Ok(model.unwrap_or("unknown").trim_start_matches([':', ' ', '\t']).to_owned())
}

/// The first line a program says of itself, on whichever stream.
fn said(program: &str, arguments: &[&str]) -> String {
    let Ok(output) = Command::new(program).args(arguments).output() else {
        return "not there".to_owned();
    };
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&text).lines().next().unwrap_or_default().to_owned()
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

#[test]
fn a_median_is_the_middle() {
    assert_eq!(median([3.0, 1.0, 2.0].into_iter()), 2.0);
    assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), 2.5);
}
