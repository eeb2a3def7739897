//! Several things compared in several aspects, as a picture for documents: a line each over parallel axes.

use super::plot::tick;
use super::svg::{escaped, opening};
use std::fmt::Write;

/// Which end of an axis is on top.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// The largest value.
    MoreIsBetter,
    /// The smallest value.
    LessIsBetter,
}

/// One of the things compared.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// What it is.
    pub name: String,
    /// Lower end, value and upper end of what is drawn beside the name; `None` where that is not known.
    pub interval: Option<(f64, f64, f64)>,
    /// Its value on each axis.
    pub values: Vec<f64>,
}

const WIDTH: f64 = 760.0;
const LEFT: f64 = 40.0;
const LENGTH: f64 = WIDTH - 2.0 * LEFT;
const TOP: f64 = 62.0;
/// Room of one interval with its name above it.
const ROW: f64 = 40.0;
const HEIGHT: f64 = 220.0;

/// Colours of the lines; the first one is the plan's.
const COLORS: [&str; 8] = ["#4e79a7", "#f28e2b", "#59a14f", "#e15759", "#b07aa1", "#9d7660", "#76b7b2", "#79706e"];

/// An SVG document: intervals under each other, each below its name, and then a line for each over one axis per aspect, the better end on
/// top. Self-contained; the first is drawn on top of the others, and values appear as tooltips.
pub fn svg(title: &str, intervals: &str, axes: &[(&str, Scale)], lines: &[Line]) -> String {
    let below = TOP + ROW * lines.len() as f64 + 40.0;
    let mut out = opening(WIDTH, below + HEIGHT + 50.0, 12, title);
    let _ = writeln!(out, "<text x=\"{LEFT}\" y=\"{:.1}\" font-weight=\"bold\">{}</text>", TOP - 10.0, escaped(intervals));
    let most = lines.iter().filter_map(|line| line.interval).map(|(_, _, high)| high).filter(|high| high.is_finite()).fold(0.0, f64::max);
    for (index, line) in lines.iter().enumerate() {
        interval(&mut out, line, color(index), TOP + ROW * index as f64, most);
    }
    for (index, (name, scale)) in axes.iter().enumerate() {
        axis(&mut out, name, &Span::of(lines, index, *scale), x(index, axes.len()), below);
    }
    for (index, line) in lines.iter().enumerate().rev() {
        polyline(&mut out, line, axes, lines, (color(index), if index == 0 { 3.0 } else { 1.5 }), below);
    }
    out.push_str("</svg>\n");
    out
}

fn color(index: usize) -> &'static str {
    COLORS[index % COLORS.len()]
}

fn x(index: usize, axes: usize) -> f64 {
    LEFT + LENGTH * (index as f64 + 0.5) / axes.max(1) as f64
}

fn interval(out: &mut String, line: &Line, color: &str, at: f64, most: f64) {
    let _ = writeln!(
        out,
        "<rect x=\"{LEFT}\" y=\"{:.1}\" width=\"10\" height=\"10\" fill=\"{color}\"/><text x=\"{:.1}\" y=\"{:.1}\">{}</text>",
        at + 3.0,
        LEFT + 15.0,
        at + 12.0,
        escaped(&line.name)
    );
    let Some((low, value, high)) = line.interval.filter(|_| most > 0.0) else { return };
    let to = |value: f64| LEFT + 15.0 + (LENGTH - 75.0) * (value / most).clamp(0.0, 1.0);
    let y = at + 24.0;
    let words = format!("{} ({} to {})", tick(value), tick(low), tick(high));
    let _ = writeln!(
        out,
        "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"6\" fill=\"{color}\" fill-opacity=\"0.3\"/>\
         <circle cx=\"{:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"{color}\"><title>{words}</title></circle>\
         <text x=\"{:.1}\" y=\"{:.1}\" fill=\"#555\">{}</text>",
        to(low),
        y - 3.0,
        (to(high) - to(low)).max(0.0),
        to(value),
        to(high) + 8.0,
        y + 4.0,
        tick(value)
    );
}

/// The values of an axis, from its bottom to its top.
struct Span {
    worst: f64,
    best: f64,
    logarithmic: bool,
}

impl Span {
    fn of(lines: &[Line], axis: usize, scale: Scale) -> Self {
        let values = || lines.iter().filter_map(|line| line.values.get(axis).copied()).filter(|value| value.is_finite());
        let (least, most) = (values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max));
        let (worst, best) = if scale == Scale::MoreIsBetter { (least, most) } else { (most, least) };
        // Factors count where there are factors.
        Self { worst, best, logarithmic: least > 0.0 && most > 3.0 * least }
    }

    /// Where a value stands: 0 at the bottom, 1 at the top, the middle where all are equal.
    fn place(&self, value: f64) -> f64 {
        let to = |value: f64| if self.logarithmic { value.ln() } else { value };
        let place = (to(value) - to(self.worst)) / (to(self.best) - to(self.worst));
        if place.is_finite() { place.clamp(0.0, 1.0) } else { 0.5 }
    }
}

fn axis(out: &mut String, name: &str, span: &Span, x: f64, at: f64) {
    let _ = writeln!(
        out,
        "<line x1=\"{x:.1}\" y1=\"{at:.1}\" x2=\"{x:.1}\" y2=\"{:.1}\" stroke=\"#bbb\"/>\
         <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\" font-weight=\"bold\">{}</text>",
        at + HEIGHT,
        at + HEIGHT + 36.0,
        escaped(name)
    );
    let ends = if span.best == span.worst { vec![(span.best, 0.5)] } else { vec![(span.best, 1.0), (span.worst, 0.0)] };
    for (value, place) in ends.into_iter().filter(|(value, _)| value.is_finite()) {
        let y = match place {
            1.0 => at - 8.0,
            0.0 => at + HEIGHT + 18.0,
            _ => at + HEIGHT / 2.0 - 8.0,
        };
        let _ = writeln!(out, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"middle\" fill=\"#555\">{}</text>", tick(value));
    }
}

fn polyline(out: &mut String, line: &Line, axes: &[(&str, Scale)], lines: &[Line], (color, width): (&str, f64), at: f64) {
    let spans = axes.iter().enumerate().map(|(index, (_, scale))| Span::of(lines, index, *scale));
    let points: Vec<(f64, f64, f64)> = spans
        .zip(&line.values)
        .enumerate()
        .map(|(index, (span, &value))| (x(index, axes.len()), at + HEIGHT * (1.0 - span.place(value)), value))
        .collect();
    let path: Vec<String> = points.iter().map(|(x, y, _)| format!("{x:.1},{y:.1}")).collect();
    let _ = writeln!(out, "<polyline points=\"{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"{width}\"/>", path.join(" "));
    for ((x, y, value), (name, _)) in points.iter().zip(axes) {
        let _ = writeln!(
            out,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\" fill=\"{color}\"><title>{}: {} {}</title></circle>",
            escaped(&line.name),
            escaped(name),
            tick(*value)
        );
    }
}
