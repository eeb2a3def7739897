//! Tables by alignment alone. The last column wraps at the width of the page.

use anstyle::Style;
use unicode_width::UnicodeWidthStr;

/// How a column is aligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// Names.
    Left,
    /// Numbers.
    Right,
}

/// One field of a table.
#[derive(Clone, Debug)]
pub struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    /// Without a style; the text may carry its own colours.
    pub fn plain(text: impl Into<String>) -> Self {
        Self { text: text.into(), style: Style::new() }
    }
    /// In one style.
    pub fn styled(style: Style, text: impl Into<String>) -> Self {
        Self { text: text.into(), style }
    }
    fn width(&self) -> usize {
        visible_width(&self.text)
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::plain(text)
    }
}

/// Columns that a text takes on a terminal, colours not counted.
fn visible_width(text: &str) -> usize {
    anstream::adapter::strip_str(text).to_string().width()
}

/// Rows of cells.
#[derive(Clone, Debug)]
pub struct Table {
    columns: Vec<Align>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// No rows yet.
    pub fn new(columns: impl IntoIterator<Item = Align>) -> Self {
        Self { columns: columns.into_iter().collect(), rows: Vec::new() }
    }
    /// Adds names of the columns.
    pub fn header<C: Into<String>>(&mut self, names: impl IntoIterator<Item = C>) {
        self.rows.push(names.into_iter().map(|name| Cell::styled(super::DIM, name)).collect());
    }
    /// Adds a row; missing cells are empty.
    pub fn row<C: Into<Cell>>(&mut self, cells: impl IntoIterator<Item = C>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    /// Appends the table to `out`, indented, at most `width` columns wide where the last column can be wrapped.
    pub(super) fn write(&self, out: &mut String, indent: usize, width: usize) {
        let widths: Vec<usize> =
            (0..self.columns.len()).map(|i| self.rows.iter().filter_map(|row| row.get(i)).map(Cell::width).max().unwrap_or(0)).collect();
        let last = self.columns.len().saturating_sub(1);
        let before_last = indent + widths.iter().take(last).map(|width| width + 2).sum::<usize>();
        let room = width.saturating_sub(before_last).max(24);
        for row in &self.rows {
            let mut line = " ".repeat(indent);
            let mut rest: Vec<String> = Vec::new();
            // Nothing is written after the last field of a row that has a text.
            let end = row.iter().rposition(|cell| cell.width() > 0).map_or(0, |i| i + 1);
            for (i, (align, cell)) in self.columns.iter().zip(row).enumerate().take(end) {
                let mut text = cell.text.clone();
                if i == last && *align == Align::Left && cell.width() > room && !text.contains('\u{1b}') {
                    let mut parts = textwrap::wrap(&cell.text, room).into_iter().map(|part| part.into_owned());
                    text = parts.next().unwrap_or_default();
                    rest = parts.collect();
                }
                let pad = " ".repeat(widths.get(i).map_or(0, |width| width.saturating_sub(visible_width(&text))));
                let style = cell.style;
                match align {
                    Align::Left if i + 1 == end => line.push_str(&format!("{style}{text}{style:#}")),
                    Align::Left => line.push_str(&format!("{style}{text}{style:#}{pad}  ")),
                    Align::Right if i + 1 == end => line.push_str(&format!("{pad}{style}{text}{style:#}")),
                    Align::Right => line.push_str(&format!("{pad}{style}{text}{style:#}  ")),
                }
            }
            out.push_str(line.trim_end());
            out.push('\n');
            for part in rest {
                out.push_str(&format!("{:before_last$}{part}\n", ""));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align_and_the_last_one_wraps() {
        let mut table = Table::new([Align::Left, Align::Right, Align::Left]);
        table.header(["name", "size", "why"]);
        table.row(["ctx-size", "8192", "what the use case asks for, and a little more than that"]);
        table.row(["é", "1", ""]);
        let mut out = String::new();
        table.write(&mut out, 2, 60);
        insta::assert_snapshot!(anstream::adapter::strip_str(&out).to_string(), @r"
          name      size  why
          ctx-size  8192  what the use case asks for, and a little
                          more than that
          é            1
        ");
    }
}
