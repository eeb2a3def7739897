//! The same bars as a picture for documents.

use super::chart::{Bar, legend, rgb};
use spec::Bytes;
use std::fmt::Write;

const WIDTH: f64 = 760.0;
/// Where bars begin, and how long the longest is.
const LEFT: f64 = 90.0;
const LENGTH: f64 = WIDTH - LEFT - 20.0;
const TOP: f64 = 44.0;
const ROW: f64 = 56.0;
const BAR: f64 = 24.0;

/// An SVG document: one stacked bar per place on one scale, the place's capacity as an outline where it is not much more,
/// and a legend. Self-contained; sizes of each segment appear as tooltips.
pub fn svg(title: &str, bars: &[Bar]) -> String {
    let most = bars.iter().map(Bar::total).max().unwrap_or_default().max(Bytes::new(1));
    let scale = |bytes: Bytes| bytes.as_f64() / most.as_f64() * LENGTH;
    let height = TOP + ROW * bars.len() as f64 + 40.0;
    let mut out = opening(WIDTH, height, 13, title);
    for (index, bar) in bars.iter().enumerate() {
        let y = TOP + ROW * index as f64;
        let _ = writeln!(out, "<text x=\"20\" y=\"{:.1}\">{}</text>", y + 17.0, escaped(&bar.name));
        let mut x = LEFT;
        for (component, bytes) in &bar.parts {
            let width = scale(*bytes);
            let (fill, name) = (rgb(*component), component.title());
            let _ = writeln!(
                out,
                "<rect x=\"{x:.2}\" y=\"{y:.1}\" width=\"{width:.2}\" height=\"{BAR}\" fill=\"{fill}\"><title>{name}: {bytes}</title></rect>"
            );
            x += width;
        }
        if let Some(capacity) = bar.capacity.map(scale).filter(|&width| width <= LENGTH) {
            let _ = writeln!(
                out,
                "<rect x=\"{LEFT}\" y=\"{y:.1}\" width=\"{capacity:.2}\" height=\"{BAR}\" fill=\"none\" stroke=\"#222\" stroke-dasharray=\"4 3\"/>"
            );
        }
        let _ = writeln!(
            out,
            "<text x=\"{LEFT}\" y=\"{:.1}\" fill=\"#555\" font-size=\"12\">{}</text>",
            y + BAR + 15.0,
            escaped(&bar.caption())
        );
    }
    let mut x = LEFT;
    let y = height - 26.0;
    for (component, name) in legend(bars) {
        let _ = writeln!(
            out,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"11\" height=\"11\" fill=\"{}\"/><text x=\"{:.1}\" y=\"{:.1}\" font-size=\"12\">{name}</text>",
            rgb(component),
            x + 15.0,
            y + 10.0
        );
        x += 30.0 + 6.6 * name.len() as f64;
    }
    out.push_str("</svg>\n");
    out
}

/// Text that cannot end an element or begin one. Control characters, which XML forbids, are left out.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
}

/// The beginning of a document on white, with its title.
pub(super) fn opening(width: f64, height: f64, font_size: u32, title: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"sans-serif\" font-size=\"{font_size}\" fill=\"#222\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"20\" y=\"26\" font-size=\"15\" font-weight=\"bold\">{}</text>\n",
        escaped(title)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use loadmaster::footprint::Component;

    #[test]
    fn names_cannot_break_the_document() {
        let bar = Bar {
            name: "a<b>\u{7}&\"".into(),
            parts: vec![(Component::Weights, Bytes::from_gib(3)), (Component::KvCache, Bytes::from_gib(1))],
            capacity: Some(Bytes::from_gib(2)),
        };
        insta::assert_snapshot!(svg("<script>", &[bar]));
    }
}
