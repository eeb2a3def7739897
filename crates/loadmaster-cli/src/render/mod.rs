//! Views as text for people: titles, fields, tables and notes, aligned, coloured, and cut to the width of the terminal.
//!
//! Text is built with colours in it; the stream that it is written to takes them out where they do not belong.

pub mod axes;
pub mod chart;
pub mod plot;
pub mod svg;
mod table;
pub mod topology;

pub use table::{Align, Cell, Table};

use crate::view::Quantity;
use anstyle::{AnsiColor, Color, Style};
use std::fmt::Display;

/// Names of things.
pub const HEADING: Style = Style::new().bold();
/// What went well.
pub const GOOD: Style = Style::new().bold().fg_color(Some(Color::Ansi(AnsiColor::Green)));
/// What to be careful about.
pub const CAUTION: Style = Style::new().bold().fg_color(Some(Color::Ansi(AnsiColor::Yellow)));
/// What went wrong.
pub const BAD: Style = Style::new().bold().fg_color(Some(Color::Ansi(AnsiColor::Red)));
/// What can be skipped when reading.
pub const DIM: Style = Style::new().dimmed();
/// What to type.
pub const COMMAND: Style = Style::new().fg_color(Some(Color::Ansi(AnsiColor::Cyan)));

/// `text` in a style.
pub fn styled(style: Style, text: impl Display) -> String {
    format!("{style}{text}{style:#}")
}

/// A text under construction.
pub struct Text {
    out: String,
    width: usize,
    verbose: bool,
}

impl Text {
    /// An empty text for a page of `width` columns; `verbose` adds the source of each quantity.
    pub fn new(width: usize, verbose: bool) -> Self {
        Self { out: String::new(), width: width.clamp(40, 140), verbose }
    }
    /// Whether sources are shown.
    pub fn verbose(&self) -> bool {
        self.verbose
    }
    /// Columns of the page.
    pub fn width(&self) -> usize {
        self.width
    }
    /// The finished text.
    pub fn finish(self) -> String {
        self.out
    }
    /// A line as it is.
    pub fn line(&mut self, text: impl Display) {
        self.out.push_str(&text.to_string());
        self.out.push('\n');
    }
    /// An empty line, unless the text has just begun.
    pub fn gap(&mut self) {
        if !self.out.is_empty() && !self.out.ends_with("\n\n") {
            self.out.push('\n');
        }
    }
    /// A heading, after an empty line.
    pub fn section(&mut self, name: impl Display) {
        self.gap();
        self.line(styled(HEADING, name));
    }
    /// Names and values, the values aligned.
    pub fn fields<N: Into<String>>(&mut self, fields: impl IntoIterator<Item = (N, String)>) {
        let mut table = Table::new([Align::Left, Align::Left]);
        for (name, value) in fields {
            table.row([Cell::styled(DIM, name), Cell::plain(value)]);
        }
        self.table(&table);
    }
    /// A table, indented.
    pub fn table(&mut self, table: &Table) {
        table.write(&mut self.out, 2, self.width);
    }
    /// A remark that may take several lines, marked with `mark`.
    pub fn note(&mut self, style: Style, mark: &str, text: impl Display) {
        let text = text.to_string();
        let indent = mark.chars().count() + 3;
        for (i, part) in textwrap::wrap(&text, self.width.saturating_sub(indent).max(20)).iter().enumerate() {
            if i == 0 {
                self.line(format!("  {} {part}", styled(style, mark)));
            } else {
                self.line(format!("{:indent$}{part}", ""));
            }
        }
    }
    /// Remarks with a dash before each.
    pub fn notes<T: Display>(&mut self, texts: impl IntoIterator<Item = T>) {
        for text in texts {
            self.note(DIM, "-", text);
        }
    }
    /// A quantity for a crowded line: why it is not known is told only where the reader wants it.
    pub fn brief<T: Display>(&self, quantity: &Quantity<T>) -> String {
        match quantity {
            Quantity::Unknown { .. } if !self.verbose => styled(DIM, "unknown"),
            _ => self.quantity(quantity),
        }
    }
    /// A quantity, with its source where the reader wants it.
    pub fn quantity<T: Display>(&self, quantity: &Quantity<T>) -> String {
        match quantity {
            Quantity::Unknown { .. } => styled(DIM, quantity),
            Quantity::Exact { source, .. } | Quantity::Estimated { source, .. } if self.verbose => {
                format!("{quantity}  {}", styled(DIM, format_args!("[{source}]")))
            }
            _ => quantity.to_string(),
        }
    }
}

/// A count with commas between groups of three digits, as numbers of tokens and parameters are read.
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A count in the short form that models are named by: `1.24 B`, `596 M`.
pub fn short_count(n: u64) -> String {
    let n = n as f64;
    match n {
        n if n >= 1e12 => format!("{:.2} T", n / 1e12),
        n if n >= 1e9 => format!("{:.2} B", n / 1e9),
        n if n >= 1e6 => format!("{:.1} M", n / 1e6),
        n if n >= 1e3 => format!("{:.1} k", n / 1e3),
        n => format!("{n}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_grouped_from_the_right() {
        assert_eq!([grouped(0), grouped(999), grouped(1000), grouped(131_072)], ["0", "999", "1,000", "131,072"]);
        assert_eq!([short_count(596_049_920), short_count(70_553_706_496), short_count(12)], ["596.0 M", "70.55 B", "12"]);
    }

    #[test]
    fn notes_wrap_under_their_first_word() {
        let mut text = Text::new(40, false);
        text.note(Style::new(), "!", "one two three four five six seven eight nine ten");
        assert_eq!(anstream::adapter::strip_str(&text.finish()).to_string(), "  ! one two three four five six seven\n    eight nine ten\n");
    }
}
