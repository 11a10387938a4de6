//! Lines over time as SVG: panels beneath each other that share the time axis, each line named at
//! its end, and the times of trouble shaded. It knows nothing of what it draws.

use std::fmt::Write as _;

const WIDTH: f64 = 760.0;
const LEFT: f64 = 52.0;
/// Room for the names of the lines.
const RIGHT: f64 = 168.0;
const TOP: f64 = 84.0;
/// Above the first panel, for what is wrong.
const STRIP: f64 = 18.0;
const PANEL: f64 = 132.0;
const GAP: f64 = 44.0;
const BOTTOM: f64 = 40.0;
const LABEL_HEIGHT: f64 = 15.0;

const INK: &str = "#16181d";
const SOFT: &str = "#57606a";
const GRID: &str = "#e6eaee";

pub(crate) const BLUE: &str = "#1f6feb";
pub(crate) const ORANGE: &str = "#d9730d";
pub(crate) const GREEN: &str = "#2a9d5c";
pub(crate) const PURPLE: &str = "#8250df";
pub(crate) const GREY: &str = "#9aa4af";
/// For lines of the same kind, in order.
pub(crate) const COLOURS: [&str; 5] = [BLUE, GREEN, PURPLE, ORANGE, "#b3416f"];

/// One picture.
#[derive(Debug)]
pub(crate) struct Plot {
    pub(crate) title: &'static str,
    /// What is simulated, in one sentence.
    pub(crate) about: &'static str,
    /// When what is wrong, in seconds.
    pub(crate) spans: Vec<(f64, f64, &'static str)>,
    pub(crate) seconds: f64,
    pub(crate) panels: Vec<Panel>,
}

#[derive(Debug)]
pub(crate) struct Panel {
    /// What is measured, with its unit.
    pub(crate) label: &'static str,
    pub(crate) lines: Vec<Line>,
}

#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) colour: &'static str,
    /// What would be without what the picture is about.
    pub(crate) dashed: bool,
    /// Seconds, and the measure.
    pub(crate) points: Vec<(f64, f64)>,
}

impl Line {
    pub(crate) fn new(name: &str, colour: &'static str, points: Vec<(f64, f64)>) -> Self {
        Self { name: name.to_owned(), colour, dashed: false, points }
    }

    pub(crate) fn dashed(self) -> Self {
        Self { dashed: true, ..self }
    }
}

impl Plot {
    pub(crate) fn svg(&self) -> String {
        let mut out = String::new();
        // A string takes everything that is written to it.
        self.write(&mut out).unwrap_or_default();
        out
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let panels = self.panels.len() as f64;
        let height = TOP + panels * PANEL + (panels - 1.0) * GAP + BOTTOM;
        writeln!(
            out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
             width=\"{WIDTH}\" font-family=\"system-ui, sans-serif\" font-size=\"12\" role=\"img\">\n\
             <title>{}: {}</title>\n\
             <rect width=\"100%\" height=\"100%\" rx=\"8\" fill=\"#ffffff\"/>",
            escape(self.title),
            escape(self.about)
        )?;
        text(out, (16.0, 26.0), INK, " font-size=\"15\" font-weight=\"600\"", self.title)?;
        text(out, (16.0, 45.0), SOFT, "", self.about)?;
        for (index, panel) in self.panels.iter().enumerate() {
            let top = TOP + index as f64 * (PANEL + GAP) + 12.0;
            self.spans(out, top, index == 0)?;
            self.panel(out, panel, top, if index == 0 { STRIP } else { 0.0 })?;
        }
        self.time(out, height - BOTTOM + 12.0)?;
        writeln!(out, "</svg>")
    }

    fn x(&self, seconds: f64) -> f64 {
        LEFT + seconds / self.seconds * (WIDTH - LEFT - RIGHT)
    }

    fn spans(&self, out: &mut String, top: f64, named: bool) -> std::fmt::Result {
        for (from, to, name) in &self.spans {
            let (from, to) = (self.x(*from), self.x(*to));
            let strip = if named { STRIP } else { 0.0 };
            let (width, height) = (to - from, PANEL - 12.0 + strip);
            let top = top - strip;
            writeln!(
                out,
                "<rect x=\"{from:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" \
                 fill=\"#fdf3e7\"/>"
            )?;
            if named {
                text(out, (from + 5.0, top + 13.0), "#a8611a", " font-size=\"11\"", name)?;
            }
        }
        Ok(())
    }

    fn panel(&self, out: &mut String, panel: &Panel, top: f64, strip: f64) -> std::fmt::Result {
        let values = panel.lines.iter().flat_map(|line| &line.points).map(|(_, value)| *value);
        let (step, most) = scale(values.fold(0.0, f64::max));
        let height = PANEL - 12.0;
        let y = |value: f64| top + height - value / most * height;
        text(out, (LEFT, top - strip - 7.0), INK, " font-weight=\"600\"", panel.label)?;
        let mut tick = 0.0;
        while tick <= most + step / 2.0 {
            let (at, right) = (y(tick), WIDTH - RIGHT);
            writeln!(
                out,
                "<line x1=\"{LEFT}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\" \
                 stroke=\"{GRID}\"/>"
            )?;
            let end = " text-anchor=\"end\"";
            text(out, (LEFT - 8.0, at + 4.0), SOFT, end, &number(tick))?;
            tick += step;
        }
        for line in &panel.lines {
            let path: Vec<String> = line
                .points
                .iter()
                .map(|(seconds, value)| format!("{:.1},{:.1}", self.x(*seconds), y(*value)))
                .collect();
            let (width, dash) = match line.dashed {
                true => ("1.5", " stroke-dasharray=\"5 4\""),
                false => ("2", ""),
            };
            writeln!(
                out,
                "<polyline fill=\"none\" stroke=\"{}\" stroke-width=\"{width}\"{dash} \
                 stroke-linejoin=\"round\" points=\"{}\"/>",
                line.colour,
                path.join(" ")
            )?;
        }
        let wanted = panel.lines.iter().map(|line| {
            let last = line.points.last().map_or(0.0, |(_, value)| *value);
            y(last) + 4.0
        });
        let places = apart(&wanted.collect::<Vec<_>>(), top + 10.0, top + height + 4.0);
        for (line, at) in panel.lines.iter().zip(places) {
            text(out, (WIDTH - RIGHT + 10.0, at), line.colour, " font-weight=\"600\"", &line.name)?;
        }
        Ok(())
    }

    fn time(&self, out: &mut String, at: f64) -> std::fmt::Result {
        let (step, _) = scale(self.seconds);
        let mut tick = 0.0;
        while tick <= self.seconds {
            let unit = if tick == 0.0 { " s" } else { "" };
            let name = format!("{}{unit}", number(tick));
            text(out, (self.x(tick), at + 4.0), SOFT, " text-anchor=\"middle\"", &name)?;
            tick += step;
        }
        Ok(())
    }
}

fn text(
    out: &mut String,
    (x, y): (f64, f64),
    colour: &str,
    more: &str,
    text: &str,
) -> std::fmt::Result {
    let text = escape(text);
    writeln!(out, "<text x=\"{x:.1}\" y=\"{y:.1}\" fill=\"{colour}\"{more}>{text}</text>")
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn number(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A round step and a round end, for an axis with three to six steps.
fn scale(most: f64) -> (f64, f64) {
    let most = most.max(1e-3);
    let power = 10_f64.powf((most / 4.0).log10().floor());
    let rounds = [1.0, 2.0, 2.5, 5.0, 10.0];
    let step = rounds.iter().map(|round| round * power).find(|step| most / step <= 4.5);
    let step = step.unwrap_or(power * 10.0);
    (step, (most / step * 0.999).ceil() * step)
}

/// Moves labels apart that would lie on each other, each as little as needed from the top down.
fn apart(wanted: &[f64], top: f64, bottom: f64) -> Vec<f64> {
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    order.sort_by(|a, b| wanted[*a].total_cmp(&wanted[*b]));
    let mut places = wanted.to_vec();
    let mut least = top;
    for index in &order {
        places[*index] = wanted[*index].max(least);
        least = places[*index] + LABEL_HEIGHT;
    }
    // Whoever was pushed out at the bottom pushes the others up.
    let mut most = bottom;
    for index in order.iter().rev() {
        places[*index] = places[*index].min(most);
        most = places[*index] - LABEL_HEIGHT;
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_are_round() {
        let cases =
            [(30.0, (10.0, 30.0)), (100.0, (25.0, 100.0)), (0.7, (0.2, 0.8)), (7.0, (2.0, 8.0))];
        for (most, expected) in cases {
            let (step, end) = scale(most);
            assert!(
                (step - expected.0).abs() < 1e-9 && (end - expected.1).abs() < 1e-9,
                "{most}: {step} {end}"
            );
        }
    }

    #[test]
    fn labels_do_not_lie_on_each_other() {
        for wanted in [vec![50.0, 51.0, 52.0], vec![99.0, 98.0, 97.0], vec![0.0, 0.0]] {
            let mut places = apart(&wanted, 10.0, 100.0);
            places.sort_by(f64::total_cmp);
            assert!(places.windows(2).all(|pair| pair[1] - pair[0] >= LABEL_HEIGHT - 1e-9));
            assert!(places.iter().all(|place| (10.0..=100.0).contains(place)), "{places:?}");
        }
    }
}
