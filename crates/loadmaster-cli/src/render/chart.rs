//! Stacked bars of memory: one per place, one segment per component, all on one scale.

use super::{BAD, DIM, Text, styled};
use anstyle::{AnsiColor, Color, Style};
use loadmaster::footprint::Component;
use spec::Bytes;
use unicode_width::UnicodeWidthStr;

/// One place's memory.
#[derive(Clone, Debug)]
pub struct Bar {
    /// The place.
    pub name: String,
    /// Its components that take something, in the order of drawing.
    pub parts: Vec<(Component, Bytes)>,
    /// Memory of the place in all, where it is known.
    pub capacity: Option<Bytes>,
}

impl Bar {
    /// All parts together.
    pub fn total(&self) -> Bytes {
        self.parts.iter().map(|(_, bytes)| *bytes).sum()
    }
    /// The total, and the share of the capacity that it is: `1.22 GiB, 5 % of 24.00 GiB`.
    pub fn caption(&self) -> String {
        let total = self.total();
        match self.capacity.filter(|capacity| !capacity.is_zero()) {
            Some(capacity) => format!("{total}, {:.0} % of {capacity}", 100.0 * total.as_f64() / capacity.as_f64()),
            None => total.to_string(),
        }
    }
    fn overflows(&self) -> bool {
        self.capacity.is_some_and(|capacity| self.total() > capacity)
    }
}

/// How a component is drawn: its character tells it apart where there is no colour.
struct Look {
    glyph: char,
    color: AnsiColor,
    /// The same for documents.
    rgb: &'static str,
}

fn look(component: Component) -> Look {
    let (glyph, color, rgb) = match component {
        Component::Weights => ('█', AnsiColor::Blue, "#4e79a7"),
        Component::Repacked => ('▓', AnsiColor::Cyan, "#76b7b2"),
        Component::KvCache => ('▒', AnsiColor::Green, "#59a14f"),
        Component::State => ('▚', AnsiColor::Yellow, "#edc948"),
        Component::Compute => ('░', AnsiColor::Magenta, "#b07aa1"),
        Component::Output => ('▪', AnsiColor::Red, "#e15759"),
        Component::Program => ('▖', AnsiColor::White, "#bab0ac"),
        Component::Driver => ('▞', AnsiColor::BrightBlack, "#79706e"),
        Component::Projector | Component::ProjectorCompute => ('▙', AnsiColor::BrightCyan, "#a0cbe8"),
        Component::Adapters | Component::AdapterCompute | Component::ControlVectors => ('▜', AnsiColor::BrightGreen, "#8cd17d"),
        Component::DraftMapped | Component::DraftWeights | Component::DraftCompute | Component::DraftOutput | Component::DraftProgram => {
            ('▟', AnsiColor::BrightBlue, "#9d7660")
        }
        Component::DraftCache => ('▛', AnsiColor::BrightMagenta, "#d7b5a6"),
        Component::PromptCache => ('·', AnsiColor::BrightYellow, "#f28e2b"),
        Component::Checkpoints => (':', AnsiColor::BrightRed, "#ff9da7"),
    };
    Look { glyph, color, rgb }
}

/// The colour of a component in documents.
pub fn rgb(component: Component) -> &'static str {
    look(component).rgb
}

fn drawn(component: Component, cells: usize) -> String {
    let Look { glyph, color, .. } = look(component);
    let run: String = std::iter::repeat_n(glyph, cells).collect();
    styled(Style::new().fg_color(Some(Color::Ansi(color))), run)
}

/// What the segments of all bars mean, in the order of drawing. Components that look alike are one entry.
pub fn legend(bars: &[Bar]) -> Vec<(Component, &'static str)> {
    let mut entries: Vec<(Component, &'static str)> = Vec::new();
    let drawn = |wanted: &Component| bars.iter().any(|bar| bar.parts.iter().any(|(found, _)| found == wanted));
    for component in Component::ALL.iter().copied().filter(drawn) {
        let name = group(component);
        if entries.iter().all(|(_, other)| *other != name) {
            entries.push((component, name));
        }
    }
    entries
}

fn group(component: Component) -> &'static str {
    match component {
        Component::Projector | Component::ProjectorCompute => "projector",
        Component::Adapters | Component::AdapterCompute | Component::ControlVectors => "adapters",
        Component::DraftMapped | Component::DraftWeights | Component::DraftCompute | Component::DraftOutput | Component::DraftProgram => {
            "draft"
        }
        other => other.title(),
    }
}

/// Draws the bars and what their segments mean.
pub fn chart(bars: &[Bar], text: &mut Text) {
    let most = bars.iter().map(Bar::total).max().unwrap_or_default();
    if most.is_zero() {
        return;
    }
    let names = bars.iter().map(|bar| bar.name.width()).max().unwrap_or(0);
    let captions = bars.iter().map(|bar| bar.caption().width()).max().unwrap_or(0);
    let room = text.width().saturating_sub(names + captions + 6).clamp(16, 60);
    for bar in bars {
        let pad = " ".repeat(names.saturating_sub(bar.name.width()));
        let caption = if bar.overflows() { styled(BAD, bar.caption()) } else { bar.caption() };
        text.line(format_args!("  {}{pad}  {}  {caption}", bar.name, segments(bar, most, room)));
    }
    let entries: Vec<String> = legend(bars).into_iter().map(|(part, name)| format!("{} {}", drawn(part, 1), styled(DIM, name))).collect();
    text.line(format_args!("  {:names$}  {}", "", entries.join("  ")));
}

/// The bar in `room` cells, of which `most` bytes fill all. Ends of segments are rounded, so their sum is the bar's length.
fn segments(bar: &Bar, most: Bytes, room: usize) -> String {
    let mut line = String::new();
    let (mut sum, mut filled) = (Bytes::ZERO, 0);
    for (component, bytes) in &bar.parts {
        sum += *bytes;
        let end = (sum.as_f64() / most.as_f64() * room as f64).round() as usize;
        line.push_str(&drawn(*component, end.saturating_sub(filled)));
        filled = filled.max(end);
    }
    line.push_str(&" ".repeat(room.saturating_sub(filled)));
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_share_a_scale_and_are_told_apart_without_colour() {
        let bar = |name: &str, parts: &[(Component, u64)], capacity: Option<u64>| Bar {
            name: name.into(),
            parts: parts.iter().map(|&(component, gib)| (component, Bytes::from_gib(gib))).collect(),
            capacity: capacity.map(Bytes::from_gib),
        };
        let bars = [
            bar("CUDA0", &[(Component::Weights, 20), (Component::KvCache, 8), (Component::Compute, 2)], Some(24)),
            bar("host", &[(Component::Weights, 5), (Component::Repacked, 10)], None),
        ];
        let mut text = Text::new(80, false);
        chart(&bars, &mut text);
        insta::assert_snapshot!(anstream::adapter::strip_str(&text.finish()).to_string());
    }
}
