//! What a bench found, as Markdown, JSON and a picture, with everything that is needed to judge or
//! repeat it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::json;

use super::process::said;
use super::{Plan, chart};

/// Of whom the ratios are.
pub(super) const OURS: &str = "Portcullis";

/// What one round showed of one proxy. The first value is what proxies are compared by; less is
/// better.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub letter: char,
    pub scenario: String,
    pub peer: String,
    pub round: usize,
    pub values: Vec<(&'static str, f64)>,
}

impl Row {
    pub(super) fn new(
        letter: char,
        scenario: impl Into<String>,
        peer: impl Into<String>,
        round: usize,
        values: Vec<(&'static str, f64)>,
    ) -> Self {
        Self { letter, scenario: scenario.into(), peer: peer.into(), round, values }
    }

    fn value(&self, name: &str) -> Option<f64> {
        self.values.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }
}

pub(super) fn write(plan: &Plan, folder: &Path, rows: &[Row]) -> anyhow::Result<()> {
    let conditions = conditions(plan, folder);
    let text = markdown(rows, &conditions);
    println!("\n{text}");
    fs::write(folder.join("results.md"), text)?;
    let rows_written: Vec<_> = rows
        .iter()
        .map(|row| {
            let values: BTreeMap<_, _> = row.values.iter().copied().collect();
            json!({ "letter": row.letter, "scenario": row.scenario, "peer": row.peer,
                    "round": row.round, "values": values })
        })
        .collect();
    let conditions: BTreeMap<_, _> = conditions.into_iter().collect();
    let whole = json!({ "conditions": conditions, "samples": rows_written });
    fs::write(folder.join("results.json"), format!("{whole:#}\n"))?;
    let picture = chart::svg(rows);
    fs::write(folder.join("results.svg"), &picture)?;
    println!("   wrote results.md, results.json and results.svg in target/bench");
    if plan.picture {
        fs::write(crate::root().join("docs/bench.svg"), picture)?;
        println!("   wrote docs/bench.svg");
    }
    Ok(())
}

/// Scenarios in the order in which they were measured.
pub(super) fn scenarios(rows: &[Row]) -> Vec<(char, &str)> {
    in_order(rows.iter().map(|row| (row.letter, row.scenario.as_str())))
}

fn in_order<T: PartialEq>(items: impl Iterator<Item = T>) -> Vec<T> {
    let mut seen = Vec::new();
    for item in items {
        if !seen.contains(&item) {
            seen.push(item);
        }
    }
    seen
}

/// The median of one of a peer's values.
pub(super) fn median_of(rows: &[Row], scenario: &str, peer: &str, value: &str) -> Option<f64> {
    let of = rows.iter().filter(|row| row.scenario == scenario && row.peer == peer);
    median(of.filter_map(|row| row.value(value)))
}

fn markdown(rows: &[Row], conditions: &[(String, String)]) -> String {
    let mut text = summary(rows);
    for (letter, scenario) in scenarios(rows) {
        text += &format!("\n({letter}) {scenario}\n\n");
        text += &table(
            rows.iter().filter(|row| row.scenario == scenario).collect::<Vec<_>>().as_slice(),
        );
    }
    text.push('\n');
    for (name, value) in conditions {
        text += &format!("- {name}: {value}\n");
    }
    text
}

/// One line a scenario: what Portcullis needs of what each peer needs.
fn summary(rows: &[Row]) -> String {
    let scenarios: Vec<_> = scenarios(rows)
        .into_iter()
        .map(|(letter, name)| {
            (letter, name, rows.iter().filter(|row| row.scenario == name).collect::<Vec<_>>())
        })
        .collect();
    let mut peers = in_order(rows.iter().map(|row| row.peer.as_str()).filter(|peer| *peer != OURS));
    peers.retain(|peer| scenarios.iter().any(|(_, _, of)| !ratios(of, peer).is_empty()));
    let mut text = format!("| {OURS} ÷ | {} |\n", peers.join(" | "));
    text += &format!("|---|{}\n", "---|".repeat(peers.len()));
    for (letter, scenario, of) in scenarios {
        let cells = peers.iter().map(|peer| match ratios(&of, peer) {
            ratios if ratios.is_empty() => " |".to_owned(),
            ratios => format!(" {:.2} |", median(ratios.into_iter()).unwrap_or(f64::NAN)),
        });
        text += &format!("| ({letter}) {scenario} |{}\n", cells.collect::<String>());
    }
    text
}

fn table(rows: &[&Row]) -> String {
    let columns = in_order(rows.iter().flat_map(|row| row.values.iter().map(|(name, _)| *name)));
    let mut text = format!("| | {} | {OURS} ÷ it | by round |\n", columns.join(" | "));
    text += &format!("|---|{}---|---|\n", "---|".repeat(columns.len()));
    for peer in in_order(rows.iter().map(|row| row.peer.as_str())) {
        let mut line = format!("| {peer} |");
        for column in &columns {
            let of = rows.iter().filter(|row| row.peer == peer);
            match median(of.filter_map(|row| row.value(column))) {
                Some(value) => line += &format!(" {} |", number(value)),
                None => line += " |",
            }
        }
        let ratios = if peer == OURS { Vec::new() } else { ratios(rows, peer) };
        let rounds: Vec<String> = ratios.iter().map(|ratio| format!("{ratio:.2}")).collect();
        match median(ratios.into_iter()) {
            Some(ratio) => line += &format!(" {ratio:.2} | {} |", rounds.join(" ")),
            None => line += " | |",
        }
        text += &line;
        text.push('\n');
    }
    text
}

/// Of each round in which both were measured by the same.
fn ratios(rows: &[&Row], peer: &str) -> Vec<f64> {
    let ours = rows.iter().filter(|row| row.peer == OURS);
    ours.filter_map(|our| {
        let their = rows.iter().find(|row| row.peer == peer && row.round == our.round)?;
        let ((name, ours), (same, theirs)) = (our.values.first()?, their.values.first()?);
        (name == same).then_some(ours / theirs)
    })
    .collect()
}

/// Three digits are what a measurement is good for.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn conditions(plan: &Plan, folder: &Path) -> Vec<(String, String)> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let root = crate::root();
    let tell = |program: &str, asked: &str| said(&root, program, &[asked]);
    let processor = read("/proc/cpuinfo");
    let processor = processor.lines().find_map(|line| line.strip_prefix("model name"));
    let options = match (plan.quick, plan.letters.as_str()) {
        (true, letters) => format!("--quick --only {letters}"),
        (false, letters) => format!("--only {letters}"),
    };
    let mut all = vec![
        ("command", format!("cargo xtask bench {options}")),
        (
            "measured",
            format!(
                "{} rounds of {} s, {} connections",
                plan.rounds, plan.seconds, plan.connections
            ),
        ),
        ("date", said(&root, "date", &["+%Y-%m-%d %H:%M"])),
        (
            "processor",
            processor.unwrap_or("unknown").trim_start_matches([':', ' ', '\t']).to_owned(),
        ),
        ("load average at the end", read("/proc/loadavg")),
        ("kernel", read("/proc/sys/kernel/osrelease")),
        ("commit", said(&root, "git", &["describe", "--always", "--dirty"])),
        ("rustc", tell("rustc", "--version")),
        ("wrk", tell("wrk", "-v")),
        ("h2load", tell("h2load", "--version")),
    ];
    all.extend(
        plan.peers.iter().map(|peer| {
            (peer.name, format!("{}; `{}`", peer.version(folder), peer.command_line()))
        }),
    );
    all.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

pub(super) fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        length if length % 2 == 1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

#[cfg(test)]
pub(super) fn example() -> Vec<Row> {
    let row = |peer, round, cpu| Row::new('a', "small", peer, round, vec![("CPU µs", cpu)]);
    vec![row(OURS, 0, 10.0), row("nginx", 0, 20.0), row(OURS, 1, 12.0), row("nginx", 1, 16.0)]
}

#[test]
fn a_median_is_the_middle() {
    assert_eq!(median([3.0, 1.0, 2.0].into_iter()), Some(2.0));
    assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), Some(2.5));
    assert_eq!(median([].into_iter()), None);
}

#[test]
fn ratios_are_taken_within_a_round() {
    let text = markdown(&example(), &[("kernel".to_owned(), "6".to_owned())]);
    assert!(text.contains("| (a) small | 0.62 |"), "{text}");
    assert!(text.contains("| nginx | 18.0 | 0.62 | 0.50 0.75 |"), "{text}");
    assert!(text.contains("| Portcullis | 11.0 | | |"), "{text}");
    assert!(text.ends_with("- kernel: 6\n"), "{text}");
}
