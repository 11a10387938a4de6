//! `cargo xtask picture`: the demo's own output as `docs/demo.svg`, so that the README shows what a
//! newcomer will see and never what somebody remembers.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use anyhow::{Context, bail};

use crate::steps::{cargo, command, run, step};

const LINE_HEIGHT: usize = 18;
const COLUMN_WIDTH: f64 = 7.83;
const MARGIN: usize = 20;

pub(crate) fn draw() -> anyhow::Result<()> {
    step("build", || run(cargo(&["build", "--locked", "--package", "portcullis"])))?;
    let mut lines = vec!["$ cargo run --release -- demo".to_owned()];
    lines.extend(demo_lines()?);
    let path = crate::root().join("docs/demo.svg");
    fs::write(&path, svg(&lines))?;
    println!("   wrote docs/demo.svg ({} lines)", lines.len());
    Ok(())
}

/// What the demo prints before it waits: up to the line that tells how to stop it.
fn demo_lines() -> anyhow::Result<Vec<String>> {
    let binary = std::env::current_exe()?.with_file_name("portcullis");
    let mut demo = command(&binary.to_string_lossy(), &["demo"]);
    demo.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = demo.spawn()?;
    let output = child.stdout.take().context("the demo's output")?;
    let mut lines = Vec::new();
    for line in BufReader::new(output).lines() {
        let line = line?;
        let last = line.contains("Ctrl-C");
        lines.push(line);
        if last {
            break;
        }
    }
    // As Ctrl-C does, so that the demo takes its folder away.
    command("kill", &["-INT", &child.id().to_string()]).output()?;
    let status = child.wait()?;
    if lines.len() < 5 {
        bail!("the demo ended with {status} and said only {lines:?}");
    }
    Ok(lines)
}

/// A terminal as a picture. A line that is too long is continued on the next one, as there.
fn svg(lines: &[String]) -> String {
    const COLUMNS: usize = 118;
    let rows: Vec<(&str, String)> = lines
        .iter()
        .flat_map(|line| wrap(line, COLUMNS).into_iter().map(|row| (colour(line), row)))
        .collect();
    let width = (COLUMNS as f64 * COLUMN_WIDTH) as usize + 2 * MARGIN;
    let height = rows.len() * LINE_HEIGHT + 2 * MARGIN;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         width=\"{width}\" font-family=\"ui-monospace, Menlo, Consolas, monospace\" \
         font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" rx=\"8\" fill=\"#16181d\"/>\n"
    );
    for (index, (colour, row)) in rows.iter().enumerate() {
        let y = MARGIN + (index + 1) * LINE_HEIGHT - 5;
        let text = escape(row);
        svg.push_str(&format!(
            "<text x=\"{MARGIN}\" y=\"{y}\" fill=\"{colour}\" xml:space=\"preserve\">\
             {text}</text>\n"
        ));
    }
    svg.push_str("</svg>\n");
    svg
}

fn colour(line: &str) -> &'static str {
    match line.chars().next() {
        Some('$') => "#7ee787",
        Some('2') => "#a5d6ff",
        Some('4') => "#ffa198",
        Some('9') => "#d2a8ff",
        _ => "#b7c0ca",
    }
}

/// Cuts a line at blanks into rows of at most so many columns; a word longer than that is one row.
fn wrap(line: &str, columns: usize) -> Vec<String> {
    let mut rows = Vec::new();
    let mut row = String::new();
    for word in line.split_inclusive(' ') {
        if row.chars().count() + word.trim_end().chars().count() > columns {
            rows.push(std::mem::replace(&mut row, "      ".to_owned()));
        }
        row.push_str(word);
    }
    rows.push(row);
    rows
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[test]
fn a_line_is_wrapped_and_escaped() {
    assert_eq!(wrap("ab cd ef", 5), ["ab cd ", "      ef"]);
    assert_eq!(wrap("", 5), [""]);
    let picture = svg(&["$ a < b && c".to_owned()]);
    assert!(picture.contains("$ a &lt; b &amp;&amp; c</text>"));
}
