//! `portcullis keys list`: which keys there are, and until when; never their hashes.

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use portcullis_core::Now;
use portcullis_core::calendar;
use portcullis_core::units::format_duration;
use portcullis_policies::auth::api_keys::{KeyEntry, read_entries};
use serde::Serialize;

use super::{expiry, unusable};
use crate::{cli, output};

const TITLES: [&str; 6] = ["ID", "CLIENT", "TENANT", "SCOPES", "STATE", "EXPIRES"];
const DAY: u64 = 86_400;
/// A key that ends sooner is said to be ending.
const ENDING: Duration = Duration::from_secs(30 * DAY);

/// What is shown of a key.
#[derive(Debug, Serialize)]
struct Row<'a> {
    id: &'a str,
    client: &'a str,
    tenant: Option<&'a str>,
    scopes: &'a [String],
    state: &'static str,
    not_before: Option<&'a str>,
    expires: Option<&'a str>,
    /// Negative for a key that has expired.
    expires_in_s: Option<i64>,
}

pub(super) fn run(arguments: &cli::KeysList, now: Now) -> anyhow::Result<ExitCode> {
    let path = &arguments.file;
    let text = std::fs::read(path)
        .map_err(|error| anyhow::anyhow!("cannot read {}: {error}", path.display()))?;
    let entries = match read_entries(&text) {
        Ok(entries) => entries,
        Err(reasons) => return unusable(path, &reasons),
    };
    let rows: Vec<Row<'_>> = entries.iter().map(|entry| row(entry, now)).collect();
    if arguments.json {
        output::print_json(&rows)?;
    } else {
        output::print(&table(&rows, output::colour(&io::stdout())))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn row(entry: &KeyEntry, now: Now) -> Row<'_> {
    let begins = entry.not_before.as_deref().and_then(calendar::parse);
    let ends = expiry(entry);
    let state = match (begins, ends) {
        (_, Some(ends)) if ends <= now.wall => "expired",
        (Some(begins), _) if now.wall < begins => "early",
        (_, Some(ends)) if ends <= now.wall + ENDING => "ending",
        _ => "good",
    };
    Row {
        id: &entry.id,
        client: &entry.client,
        tenant: entry.tenant.as_deref(),
        scopes: &entry.scopes,
        state,
        not_before: entry.not_before.as_deref(),
        expires: entry.expires.as_deref(),
        expires_in_s: ends.map(|ends| ends.as_secs() as i64 - now.wall.as_secs() as i64),
    }
}

/// `2027-12-31 in 402d`.
fn forecast(row: &Row<'_>) -> String {
    let (Some(expires), Some(seconds)) = (row.expires, row.expires_in_s) else {
        return "never".to_owned();
    };
    let whole = match seconds.unsigned_abs() {
        seconds if seconds >= DAY => seconds / DAY * DAY,
        seconds => seconds / 60 * 60,
    };
    let span = format_duration(Duration::from_secs(whole));
    match seconds > 0 {
        true => format!("{expires} in {span}"),
        false => format!("{expires} {span} ago"),
    }
}

fn table(rows: &[Row<'_>], colour: bool) -> String {
    let cells: Vec<[String; 6]> = rows
        .iter()
        .map(|row| {
            let tenant = row.tenant.unwrap_or("-").to_owned();
            let scopes = if row.scopes.is_empty() { "-".to_owned() } else { row.scopes.join(" ") };
            let (id, client) = (row.id.to_owned(), row.client.to_owned());
            [id, client, tenant, scopes, row.state.to_owned(), forecast(row)]
        })
        .collect();
    let titles = TITLES.map(str::to_owned);
    let widths = [0, 1, 2, 3, 4, 5].map(|column| {
        let lines = cells.iter().chain([&titles]);
        lines.map(|line| line[column].chars().count()).max().unwrap_or(0)
    });
    let line = |cells: &[String; 6]| {
        let padded = cells.iter().zip(widths).map(|(text, width)| format!("{text:width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let title = line(&titles);
    let title = if colour { format!("\x1b[1m{title}\x1b[0m") } else { title };
    let lines = [title].into_iter().chain(cells.iter().map(line));
    lines.map(|line| line + "\n").collect()
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use portcullis_policies::auth::api_keys::generate;

    use super::*;

    #[test]
    fn states_and_forecasts() {
        let wall = calendar::parse("2026-11-24T06:00:00Z").unwrap();
        let now = Now { wall, ..Now::default() };
        let entry = |id: &str, expires: Option<&str>, not_before: Option<&str>| KeyEntry {
            expires: expires.map(str::to_owned),
            not_before: not_before.map(str::to_owned),
            ..generate([1; 32], id, "acme").unwrap().entry
        };
        let mut entries = [
            entry("a", None, None),
            entry("b", Some("2027-12-31"), None),
            entry("c", Some("2026-12-01"), None),
            entry("d", Some("2026-11-24T06:30:59Z"), None),
            entry("e", Some("2026-11-24T06:00:00Z"), None),
            entry("f", Some("2026-01-01"), None),
            entry("g", Some("2027-12-31"), Some("2027-01-01")),
        ];
        entries[1].tenant = Some("shop".to_owned());
        entries[1].scopes = vec!["orders:read".to_owned(), "orders:write".to_owned()];
        let rows: Vec<_> = entries.iter().map(|entry| row(entry, now)).collect();
        expect![[r#"
            ID  CLIENT  TENANT  SCOPES                    STATE    EXPIRES
            a   acme    -       -                         good     never
            b   acme    shop    orders:read orders:write  good     2027-12-31 in 401d
            c   acme    -       -                         ending   2026-12-01 in 6d
            d   acme    -       -                         ending   2026-11-24T06:30:59Z in 30m
            e   acme    -       -                         expired  2026-11-24T06:00:00Z 0s ago
            f   acme    -       -                         expired  2026-01-01 327d ago
            g   acme    -       -                         early    2027-12-31 in 401d
        "#]]
        .assert_eq(&table(&rows, false));
        let json = serde_json::to_string(&rows).unwrap();
        assert!(!json.contains("hash") && !json.contains("blake3"), "{json}");
    }
}
