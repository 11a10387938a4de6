//! `portcullis routes`: the compiled route table.

use std::io;
use std::process::ExitCode;

use portcullis_snapshot::{RouteRow, Snapshot, TargetRow, describe};
use serde_json::Value;

use crate::{NO, cli, load, output, usage};

const TITLES: [&str; 5] = ["ROUTE", "MATCH", "ACCESS", "POLICIES", "TO"];

pub(crate) fn run(arguments: &cli::Routes) -> anyhow::Result<ExitCode> {
    if let Some(within) = arguments.unused {
        return usage::run(within, arguments);
    }
    let Some(compiled) = load::compiled(&arguments.config.path)? else {
        return Ok(ExitCode::from(NO));
    };
    if arguments.json {
        output::print_json(&table(&compiled.snapshot))?;
    } else {
        let several = compiled.snapshot.listeners.len() > 1;
        let rows: Vec<_> =
            describe(&compiled.snapshot).iter().map(|row| cells(row, several)).collect();
        output::print(&aligned(&rows, output::colour(&io::stdout())))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The table as the admin API and `--json` give it.
pub(crate) fn table(snapshot: &Snapshot) -> Value {
    // Plain rows of texts and numbers: there is nothing in them that JSON cannot hold.
    serde_json::to_value(describe(snapshot)).unwrap_or_default()
}

/// The lines of each cell of a row.
type Cells = [Vec<String>; 5];

fn cells(row: &RouteRow, several_listeners: bool) -> Cells {
    let mut name = vec![row.route.clone()];
    if several_listeners {
        name.push(format!("on {}", row.listeners.join(", ")));
    }
    let mut access = match row.access {
        "public" => vec!["public".to_owned()],
        "optional" => vec![format!("optional {}", row.auth.join(" or "))],
        _ => vec![row.auth.join(" or ")],
    };
    access.extend(row.reason.iter().map(|reason| format!("\"{reason}\"")));
    access.extend(row.scopes.iter().map(|scope| format!("scope {scope}")));
    let mut to = match row.to.as_slice() {
        [] => vec!["(answered here)".to_owned()],
        [only] => vec![only.backend.clone()],
        several => several.iter().map(target).collect(),
    };
    to.extend(row.mirror.iter().map(|mirror| format!("mirror: {mirror}")));
    [name, row.matches.clone(), access, policies(row), to]
}

/// `canary (orders-v2) 10 or when, not 5`
fn target(to: &TargetRow) -> String {
    let name = match &to.variant {
        Some(variant) => format!("{variant} ({})", to.backend),
        None => to.backend.clone(),
    };
    let when = if to.when { " or when" } else { "" };
    let configured = to.configured.map(|weight| format!(", not {weight}")).unwrap_or_default();
    format!("{name} {}{when}{configured}", to.weight)
}

/// Those that `access` does not say already, and what the route lets a connection become.
fn policies(row: &RouteRow) -> Vec<String> {
    let said = ["authenticate: auth", "authorise: require"];
    let policies =
        row.policies.iter().filter(|policy| !said.contains(&policy.as_str())).map(|policy| {
            match &row.faults {
                Some(faults) if policy == "forward: faults" => format!("{policy}, {faults}"),
                _ => policy.clone(),
            }
        });
    policies.chain(row.upgrade.iter().map(|name| format!("upgrade: {name}"))).collect()
}

fn aligned(rows: &[Cells], colour: bool) -> String {
    let width = |text: &str| text.chars().count();
    let widths: Vec<usize> = (0..TITLES.len())
        .map(|column| {
            let cells = rows.iter().flat_map(|row| &row[column]);
            cells.map(|text| width(text)).chain([width(TITLES[column])]).max().unwrap_or(0)
        })
        .collect();
    let line = |cells: [&str; 5]| {
        let padded = cells.iter().zip(&widths).map(|(text, width)| format!("{text:width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let title = line(TITLES);
    let mut out = if colour { format!("\x1b[1m{title}\x1b[0m\n") } else { title + "\n" };
    for row in rows {
        let height = row.iter().map(Vec::len).max().unwrap_or(0);
        for number in 0..height {
            let part = |column: usize| row[column].get(number).map_or("", String::as_str);
            out += &line([part(0), part(1), part(2), part(3), part(4)]);
            out.push('\n');
        }
    }
    out
}
