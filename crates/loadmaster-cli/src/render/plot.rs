//! Curves with their intervals: in the terminal, and as a picture for documents.

use super::svg::{escaped, opening};
use super::{DIM, Text, styled};
use anstyle::{AnsiColor, Color, Style};
use std::fmt::Write;
use unicode_width::UnicodeWidthStr;

/// One value with its interval, at a place that has a name.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// What stands under it: `4096`.
    pub at: String,
    /// Lower end.
    pub low: f64,
    /// The value.
    pub value: f64,
    /// Upper end.
    pub high: f64,
}

/// One curve; its points stand at equal distances.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    /// What it shows: `decode, tok/s`.
    pub name: String,
    /// Its points, from left to right.
    pub points: Vec<Point>,
}

/// Lines of a curve in the terminal.
const ROWS: usize = 9;

/// A number in as few signs as an axis has room for.
pub(super) fn tick(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        0.0 => "0".to_owned(),
        value => format!("{value:.2}"),
    }
}

impl Curve {
    /// The top of the axis: a round number that no upper end passes.
    fn top(&self) -> f64 {
        let most = self.points.iter().map(|point| point.high).filter(|high| high.is_finite()).fold(0.0, f64::max);
        if most <= 0.0 {
            return 1.0;
        }
        let unit = 10_f64.powf(most.log10().floor());
        let round = [1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0];
        round.into_iter().map(|factor| factor * unit).find(|&top| top >= most).unwrap_or(10.0 * unit)
    }

    /// Draws it: a mark at each value, a line over its interval.
    pub fn text(&self, text: &mut Text) {
        if self.points.is_empty() {
            return;
        }
        let top = self.top();
        let row = |value: f64| ((value / top).clamp(0.0, 1.0) * (ROWS - 1) as f64).round() as usize;
        let ticks: Vec<String> = (0..ROWS).map(|i| tick(top * i as f64 / (ROWS - 1) as f64)).collect();
        let margin = ticks.iter().map(|tick| tick.width()).max().unwrap_or(0);
        let widest = self.points.iter().map(|point| point.at.width()).max().unwrap_or(1) + 2;
        let room = text.width().saturating_sub(margin + 5) / self.points.len();
        let cell = room.clamp(3, widest.max(3));
        let value = Style::new().bold().fg_color(Some(Color::Ansi(AnsiColor::Blue)));
        let interval = Style::new().fg_color(Some(Color::Ansi(AnsiColor::Blue)));
        text.line(format_args!("  {}", styled(DIM, &self.name)));
        for i in (0..ROWS).rev() {
            let label = if i % 2 == 0 { ticks[i].as_str() } else { "" };
            let mut line = format!("  {label:>margin$} {}", styled(DIM, "│"));
            for point in &self.points {
                let mark = match i {
                    i if i == row(point.value) => styled(value, "●"),
                    i if (row(point.low)..=row(point.high)).contains(&i) => styled(interval, "│"),
                    _ => " ".to_owned(),
                };
                let before = (cell - 1) / 2;
                let _ = write!(line, "{}{mark}{}", " ".repeat(before), " ".repeat(cell - 1 - before));
            }
            text.line(line.trim_end());
        }
        let axis = "─".repeat(cell * self.points.len());
        text.line(format_args!("  {:margin$} {}", "", styled(DIM, format_args!("└{axis}"))));
        let mut names = format!("  {:margin$}  ", "");
        for (i, point) in self.points.iter().enumerate() {
            // Names that are wider than their place are left out every other time.
            let every = point.at.width().max(1).div_ceil(cell.saturating_sub(1).max(1));
            let shown = if (self.points.len() - 1 - i).is_multiple_of(every.max(1)) { point.at.as_str() } else { "" };
            let _ = write!(names, "{shown:^cell$}");
        }
        text.line(styled(DIM, names.trim_end()));
    }
}

const WIDTH: f64 = 760.0;
const LEFT: f64 = 70.0;
const LENGTH: f64 = WIDTH - LEFT - 30.0;
const TOP: f64 = 44.0;
const HEIGHT: f64 = 190.0;
const GAP: f64 = 66.0;
const BLUE: &str = "#4e79a7";

/// An SVG document: the curves under each other, each over the band of its interval. Self-contained; values appear as tooltips.
pub fn svg(title: &str, below: &str, curves: &[Curve]) -> String {
    let height = TOP + (HEIGHT + GAP) * curves.len() as f64;
    let mut out = opening(WIDTH, height, 12, title);
    for (i, curve) in curves.iter().enumerate() {
        let at = TOP + (HEIGHT + GAP) * i as f64 + 20.0;
        let _ = writeln!(out, "<text x=\"{LEFT}\" y=\"{:.1}\" font-weight=\"bold\">{}</text>", at - 7.0, escaped(&curve.name));
        draw(&mut out, curve, at, below);
    }
    out.push_str("</svg>\n");
    out
}

fn draw(out: &mut String, curve: &Curve, at: f64, below: &str) {
    let top = curve.top();
    let y = |value: f64| at + HEIGHT * (1.0 - (value / top).clamp(0.0, 1.0));
    let x = |i: usize| LEFT + LENGTH * (i as f64 + 0.5) / curve.points.len().max(1) as f64;
    for step in 0..=4 {
        let value = top * f64::from(step) / 4.0;
        let _ = writeln!(
            out,
            "<line x1=\"{LEFT}\" y1=\"{0:.1}\" x2=\"{1:.1}\" y2=\"{0:.1}\" stroke=\"#ddd\"/><text x=\"{2:.1}\" y=\"{3:.1}\" text-anchor=\"end\" fill=\"#555\">{4}</text>",
            y(value),
            LEFT + LENGTH,
            LEFT - 6.0,
            y(value) + 4.0,
            tick(value)
        );
    }
    let upper = curve.points.iter().enumerate().map(|(i, point)| format!("{:.1},{:.1}", x(i), y(point.high)));
    let lower = curve.points.iter().enumerate().rev().map(|(i, point)| format!("{:.1},{:.1}", x(i), y(point.low)));
    let band: Vec<String> = upper.chain(lower).collect();
    let line: Vec<String> = curve.points.iter().enumerate().map(|(i, point)| format!("{:.1},{:.1}", x(i), y(point.value))).collect();
    let _ = writeln!(out, "<polygon points=\"{}\" fill=\"{BLUE}\" fill-opacity=\"0.2\"/>", band.join(" "));
    let _ = writeln!(out, "<polyline points=\"{}\" fill=\"none\" stroke=\"{BLUE}\" stroke-width=\"2\"/>", line.join(" "));
    for (i, point) in curve.points.iter().enumerate() {
        let _ = writeln!(
            out,
            "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3.5\" fill=\"{BLUE}\"><title>{}: {} ({} to {})</title></circle>",
            x(i),
            y(point.value),
            escaped(&point.at),
            tick(point.value),
            tick(point.low),
            tick(point.high)
        );
        let _ = writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"#555\">{}</text>",
            x(i),
            at + HEIGHT + 16.0,
            escaped(&point.at)
        );
    }
    let _ = writeln!(
        out,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"#555\">{}</text>",
        LEFT + LENGTH / 2.0,
        at + HEIGHT + 32.0,
        escaped(below)
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve() -> Curve {
        let point = |at: &str, value: f64| Point { at: at.to_owned(), low: value * 0.8, value, high: value * 1.1 };
        Curve { name: "decode, tok/s".into(), points: vec![point("0", 121.0), point("1024", 118.0), point("<2048>", 60.0)] }
    }

    #[test]
    fn a_curve_has_an_axis_values_and_intervals() {
        let mut text = Text::new(60, false);
        curve().text(&mut text);
        insta::assert_snapshot!(anstream::adapter::strip_str(&text.finish()).to_string());
    }

    #[test]
    fn a_picture_has_them_too_and_names_cannot_break_it() {
        insta::assert_snapshot!(svg("a & b", "tokens in the context", &[curve()]));
    }

    #[test]
    fn nothing_to_draw_is_nothing() {
        let mut text = Text::new(60, false);
        Curve { name: String::new(), points: Vec::new() }.text(&mut text);
        assert_eq!(text.finish(), "");
        assert_eq!(Curve { name: String::new(), points: Vec::new() }.top(), 1.0);
    }
}
