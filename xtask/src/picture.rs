//! `cargo xtask picture`: the demo's own output as `docs/demo.svg`, so that the README shows what a
//! newcomer will see and never what somebody remembers.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use anyhow::Context;

use crate::steps::{cargo, command, run, step};

const LINE_HEIGHT: usize = 18;
const COLUMN_WIDTH: f64 = 7.83;
const MARGIN: usize = 20;

pub(crate) fn draw() -> anyhow::Result<()> {
    step("release build", || {
        run(cargo(&["build", "--release", "--locked", "--package", "portcullis"]))
    })?;
    let mut lines = vec!["$ cargo run --release -- demo".to_owned()];
    lines.extend(demo_lines()?);
    let path = crate::root().join("docs/demo.svg");
    fs::write(&path, svg(&lines))?;
    println!("   wrote docs/demo.svg ({} lines)", lines.len());
    Ok(())
}

/// What the demo prints before it waits: up to the line that tells how to stop it.
fn demo_lines() -> anyhow::Result<Vec<String>> {
    let binary = crate::root().join("target/release/portcullis");
    let mut demo = command(&binary.to_string_lossy(), &["demo"]);
    let mut child = demo.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
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
    child.kill()?;
    child.wait()?;
    Ok(lines)
}

/// A terminal as a picture. A line that is too long for it is cut with `…`.
fn svg(lines: &[String]) -> String {
    const COLUMNS: usize = 110;
    let width = (COLUMNS as f64 * COLUMN_WIDTH) as usize + 2 * MARGIN;
    let height = lines.len() * LINE_HEIGHT + 2 * MARGIN;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
         font-family=\"ui-monospace, SFMono-Regular, Menlo, Consolas, monospace\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" rx=\"8\" fill=\"#16181d\"/>\n"
    );
    for (index, line) in lines.iter().enumerate() {
        let y = MARGIN + (index + 1) * LINE_HEIGHT - 5;
        let colour = match line.trim_start() {
            text if text.starts_with('$') => "#7ee787",
            text if text.starts_with("curl") => "#e6edf3",
            text if text.starts_with('#') => "#8b949e",
            _ => "#b7c0ca",
        };
        let text = escape(&cut(line, COLUMNS));
        svg.push_str(&format!(
            "<text x=\"{MARGIN}\" y=\"{y}\" fill=\"{colour}\" xml:space=\"preserve\">{text}</text>\n"
        ));
    }
    svg.push_str("</svg>\n");
    svg
}

fn cut(line: &str, columns: usize) -> String {
    match line.char_indices().nth(columns) {
        None => line.to_owned(),
        Some(_) => line.chars().take(columns - 1).chain(['…']).collect(),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[test]
fn a_line_is_cut_and_escaped() {
    assert_eq!(cut("abcdef", 6), "abcdef");
    assert_eq!(cut("abcdefg", 6), "abcde…");
    let picture = svg(&["$ a < b && c".to_owned()]);
    assert!(picture.contains("$ a &lt; b &amp;&amp; c</text>"));
}
