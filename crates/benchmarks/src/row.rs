//! One row of a table of measurements, as text and numbers.

use std::collections::BTreeMap;

/// A table that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// A column without which a row means nothing.
    #[error("no column {0:?}; a table of measurements has device, model, test and tokens_per_s at least")]
    NoColumn(&'static str),
    /// Not a table.
    #[error("line {line}: {problem}")]
    Broken {
        /// The line, the header being 1.
        line: u64,
        /// What is wrong.
        problem: String,
    },
}

/// One measurement with the columns of `measured.csv`; empty cells are `None`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Measurement {
    cells: BTreeMap<String, String>,
    /// All cells as they stand in the table.
    pub record: Vec<String>,
}

impl Measurement {
    /// A cell.
    pub fn text(&self, column: &str) -> Option<&str> {
        self.cells.get(column).map(String::as_str)
    }

    /// A cell as a finite number.
    pub fn number(&self, column: &str) -> Option<f64> {
        self.text(column)?.parse().ok().filter(|number: &f64| number.is_finite())
    }

    /// A cell as a number above zero.
    pub fn positive(&self, column: &str) -> Option<f64> {
        self.number(column).filter(|&number| number > 0.0)
    }

    /// All cells but those of `columns`, as text that is equal where they are.
    pub(crate) fn but(&self, columns: &[&str]) -> String {
        let kept = self.cells.iter().filter(|(name, _)| !columns.contains(&name.as_str()));
        kept.map(|(name, cell)| format!("{name}={cell};")).collect()
    }

    /// `value` in notes of the form `key=value; key=value`.
    pub fn note(&self, key: &str) -> Option<&str> {
        let notes = self.text("notes")?;
        notes.split([';', ' ']).map(str::trim).find_map(|note| note.strip_prefix(key)?.strip_prefix('='))
    }
}

/// Header and rows of a table.
///
/// # Errors
/// Not CSV, or without the columns `device`, `model`, `test` and `tokens_per_s`.
pub fn read(text: &str) -> Result<(Vec<String>, Vec<Measurement>), TableError> {
    let broken =
        |error: &csv::Error| TableError::Broken { line: error.position().map_or(1, csv::Position::line), problem: error.to_string() };
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(text.as_bytes());
    let header: Vec<String> = reader.headers().map_err(|error| broken(&error))?.iter().map(str::to_owned).collect();
    for column in ["device", "model", "test", "tokens_per_s"] {
        if !header.iter().any(|name| name == column) {
            return Err(TableError::NoColumn(column));
        }
    }
    let mut rows = Vec::new();
    for record in reader.records() {
        let record: Vec<String> = record.map_err(|error| broken(&error))?.iter().map(str::to_owned).collect();
        let cells = header.iter().zip(&record).filter(|(_, cell)| !cell.trim().is_empty());
        let cells = cells.map(|(name, cell)| (name.clone(), cell.trim().to_owned())).collect();
        rows.push(Measurement { cells, record });
    }
    Ok((header, rows))
}
