//! The picture of a bench: for each scenario one bar a proxy, as long as what a request costs.

use super::report::{self, OURS, Row};

/// The value that is drawn.
const DRAWN: &str = "CPU µs";
const WIDTH: f64 = 760.0;
const NAMES: f64 = 110.0;
const VALUES: f64 = 70.0;
const BAR: f64 = 14.0;
const GAP: f64 = 4.0;
const TITLE: f64 = 22.0;

/// Bars of one scenario are to its own scale, since 64 MiB would leave nothing of 128 B. Only what
/// is measured in CPU time is drawn.
pub(super) fn svg(rows: &[Row]) -> String {
    let drawn: Vec<Row> = rows
        .iter()
        .filter(|row| row.values.first().is_some_and(|(name, _)| *name == DRAWN))
        .cloned()
        .collect();
    let mut body = String::new();
    let mut y = 44.0;
    for (_, scenario) in report::scenarios(&drawn) {
        y += TITLE;
        body += &text(10.0, y - 7.0, "#16181d", "font-weight=\"600\"", scenario);
        let mut bars: Vec<(&str, f64)> = Vec::new();
        for row in drawn.iter().filter(|row| row.scenario == scenario) {
            let value = report::median_of(&drawn, scenario, &row.peer, DRAWN).unwrap_or(f64::NAN);
            if !bars.contains(&(row.peer.as_str(), value)) {
                bars.push((row.peer.as_str(), value));
            }
        }
        let longest = bars.iter().map(|(_, value)| *value).fold(f64::MIN_POSITIVE, f64::max);
        for (peer, value) in bars {
            let colour = if peer == OURS { "#1f6feb" } else { "#b7c0ca" };
            let width = (WIDTH - NAMES - VALUES) * value / longest;
            body += &text(10.0, y + BAR - 3.0, "#57606a", "", peer);
            body += &format!(
                "<rect x=\"{NAMES}\" y=\"{y}\" width=\"{width:.1}\" height=\"{BAR}\" rx=\"2\" \
                 fill=\"{colour}\"/>\n"
            );
            let value = if value < 100.0 { format!("{value:.1}") } else { format!("{value:.0}") };
            body += &text(NAMES + width + 6.0, y + BAR - 3.0, "#16181d", "", &value);
            y += BAR + GAP;
        }
        y += 8.0;
    }
    let height = y + 10.0;
    let title = text(10.0, 26.0, "#16181d", "font-size=\"15\" font-weight=\"600\"", TITLE_TEXT);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         width=\"{WIDTH}\" font-family=\"system-ui, sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" rx=\"8\" fill=\"#ffffff\"/>\n{title}{body}</svg>\n"
    )
}

const TITLE_TEXT: &str = "CPU microseconds a request, one worker; shorter is better";

fn text(x: f64, y: f64, colour: &str, more: &str, words: &str) -> String {
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    format!("<text x=\"{x:.1}\" y=\"{y:.1}\" fill=\"{colour}\" {more}>{words}</text>\n")
}

#[test]
fn a_bar_a_proxy() {
    let picture = svg(&report::example());
    assert_eq!(picture.matches("rx=\"2\"").count(), 2, "{picture}");
    assert!(picture.contains(">11.0</text>") && picture.contains(">18.0</text>"), "{picture}");
}
