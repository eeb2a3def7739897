//! One row of a table as typed cells.

use spec::units::{BytesPerSec, OpsPerSec};
use std::collections::BTreeMap;
use std::str::FromStr;

/// A cell that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{table} line {line}, {column}: {problem}: {text:?}")]
pub struct RowError {
    /// The table, e.g. `accelerators.csv`.
    pub table: &'static str,
    /// The line, the header being 1.
    pub line: u64,
    /// The column.
    pub column: &'static str,
    /// What is wrong.
    pub problem: &'static str,
    /// The cell.
    pub text: String,
}

/// A row with the places of its columns.
pub(crate) struct Row<'a> {
    pub(crate) table: &'static str,
    pub(crate) columns: &'a BTreeMap<String, usize>,
    pub(crate) record: &'a csv::StringRecord,
}

impl<'a> Row<'a> {
    fn error(&self, column: &'static str, problem: &'static str) -> RowError {
        let line = self.record.position().map_or(0, csv::Position::line);
        RowError { table: self.table, line, column, problem, text: self.text(column).unwrap_or("").to_owned() }
    }

    /// The cell; `None` where it is empty.
    pub(crate) fn text(&self, column: &str) -> Option<&'a str> {
        self.record.get(*self.columns.get(column)?).map(str::trim).filter(|text| !text.is_empty())
    }

    pub(crate) fn required(&self, column: &'static str) -> Result<&'a str, RowError> {
        self.text(column).ok_or_else(|| self.error(column, "empty"))
    }

    pub(crate) fn words(&self, column: &str) -> Vec<String> {
        self.text(column).unwrap_or("").split_whitespace().map(str::to_owned).collect()
    }

    pub(crate) fn list(&self, column: &str) -> Vec<String> {
        self.text(column).unwrap_or("").split(';').map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
    }

    pub(crate) fn number<T: FromStr>(&self, column: &'static str) -> Result<Option<T>, RowError> {
        self.text(column).map(|text| text.parse().map_err(|_| self.error(column, "not a number"))).transpose()
    }

    /// A cell of units of 10^9 bytes per second.
    pub(crate) fn bandwidth(&self, column: &'static str) -> Result<Option<BytesPerSec>, RowError> {
        let Some(number) = self.number::<f64>(column)? else { return Ok(None) };
        BytesPerSec::from_gb(number).map(Some).ok_or_else(|| self.error(column, "not above zero"))
    }

    /// A cell of units of 10^12 operations per second.
    pub(crate) fn rate(&self, column: &'static str) -> Result<Option<OpsPerSec>, RowError> {
        let Some(number) = self.number::<f64>(column)? else { return Ok(None) };
        OpsPerSec::new(number * 1e12).map(Some).ok_or_else(|| self.error(column, "not above zero"))
    }

    pub(crate) fn one_of<T: Copy>(&self, column: &'static str, choices: &[(&str, T)]) -> Result<T, RowError> {
        let text = self.required(column)?;
        choices.iter().find(|(name, _)| *name == text).map(|&(_, value)| value).ok_or_else(|| self.error(column, "unknown word"))
    }

    /// Year and month, `2022-09`, or a year.
    pub(crate) fn date(&self, column: &'static str) -> Result<&'a str, RowError> {
        let text = self.required(column)?;
        let parts: Vec<&str> = text.split('-').collect();
        let digits = |part: &&str, n: usize| part.len() == n && part.bytes().all(|byte| byte.is_ascii_digit());
        let good = parts.len() <= 3 && digits(&parts[0], 4) && parts[1..].iter().all(|part| digits(part, 2));
        if good { Ok(text) } else { Err(self.error(column, "not a date")) }
    }
}

/// Reads every row of a table; what cannot be read is left out and told.
pub(crate) fn read<T>(
    table: &'static str,
    text: &str,
    row: impl Fn(&Row<'_>) -> Result<T, RowError>,
    problems: &mut Vec<RowError>,
) -> Vec<T> {
    let mut rows = Vec::new();
    for read in read_each(table, text, row) {
        match read {
            Ok(value) => rows.push(value),
            Err(problem) => problems.push(problem),
        }
    }
    rows
}

/// Each row of a table, in its order.
pub(crate) fn read_each<T>(table: &'static str, text: &str, row: impl Fn(&Row<'_>) -> Result<T, RowError>) -> Vec<Result<T, RowError>> {
    let broken = |error: &csv::Error| RowError {
        table,
        line: error.position().map_or(0, csv::Position::line),
        column: "",
        problem: "not a table",
        text: error.to_string(),
    };
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let columns: BTreeMap<String, usize> = match reader.headers() {
        Ok(header) => header.iter().enumerate().map(|(place, name)| (name.to_owned(), place)).collect(),
        Err(error) => return vec![Err(broken(&error))],
    };
    let (mut rows, mut record) = (Vec::new(), csv::StringRecord::new());
    loop {
        rows.push(match reader.read_record(&mut record) {
            Ok(false) => return rows,
            Ok(true) => row(&Row { table, columns: &columns, record: &record }),
            Err(error) => Err(broken(&error)),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_cell_is_told_by_table_line_and_column() {
        let mut problems = Vec::new();
        let text = "name,n,date\na,1,2022-09\nb,x,2022-09\nc,2,soon\n";
        let rows = read(
            "t.csv",
            text,
            |row| {
                row.date("date")?;
                Ok((row.required("name")?.to_owned(), row.number::<u32>("n")?))
            },
            &mut problems,
        );
        assert_eq!(rows, [("a".to_owned(), Some(1))]);
        let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(told, ["t.csv line 3, n: not a number: \"x\"", "t.csv line 4, date: not a date: \"soon\""]);
    }
}
