//! The tables that are compiled in.

use crate::accelerator::{Accelerator, Architecture};
use crate::names::{self, Name};
use crate::processor::Processor;
use crate::row::{self, Row, RowError};
use std::sync::OnceLock;

/// Accelerators, processors and architectures. Each table is read when it is first asked for, in some milliseconds, and kept: a memo of
/// constants. One row, by PCI id or a processor's name, is found without reading the others.
#[derive(Debug, Default)]
pub struct Tables {
    accelerators: OnceLock<Table<Accelerator>>,
    processors: OnceLock<Table<Processor>>,
    accelerator_lines: Lines<Accelerator>,
    processor_lines: Lines<Processor>,
    architectures: OnceLock<Table<Architecture>>,
    /// Names and aliases of each accelerator, taken apart.
    names: OnceLock<Vec<Vec<Name>>>,
    /// Names and aliases of each processor, taken apart.
    processor_names: OnceLock<Vec<Vec<Vec<String>>>>,
}

/// The rows of one table, and those that were left out.
#[derive(Debug)]
struct Table<T> {
    rows: Vec<T>,
    problems: Vec<RowError>,
}

impl<T> Table<T> {
    fn read(name: &'static str, text: &str, read: impl Fn(&Row<'_>) -> Result<T, RowError>) -> Self {
        let mut problems = Vec::new();
        Self { rows: row::read(name, text, read, &mut problems), problems }
    }
}

/// A table whose rows are read one by one, as they are asked for.
#[derive(Debug)]
struct Lines<T>(OnceLock<Vec<Line<T>>>);

/// A line of a table, and its row once it has been read; `None` in it where it cannot be.
#[derive(Debug)]
struct Line<T> {
    text: &'static str,
    row: OnceLock<Option<T>>,
}

impl<T> Default for Lines<T> {
    fn default() -> Self {
        Self(OnceLock::new())
    }
}

impl<T> Lines<T> {
    /// The rows in whose line these ASCII letters or digits stand together, in any case.
    fn holding(&self, word: &str, text: &'static str, read: impl Fn(&Row<'_>) -> Result<T, RowError>) -> Vec<&T> {
        let mut all = text.lines();
        let header = all.next().unwrap_or_default();
        let lines = self.0.get_or_init(|| all.map(|text| Line { text, row: OnceLock::new() }).collect());
        let held: Vec<&Line<T>> = lines.iter().filter(|line| holds(line.text.as_bytes(), word.as_bytes())).collect();
        let open: Vec<&Line<T>> = held.iter().copied().filter(|line| line.row.get().is_none()).collect();
        if !open.is_empty() {
            let text: String = open.iter().map(|line| format!("{}\n", line.text)).collect();
            let rows = row::read_each("", &format!("{header}\n{text}"), read);
            for (line, read) in open.into_iter().zip(rows) {
                // Another thread may have been first, with the same row.
                let _ = line.row.set(read.ok());
            }
        }
        held.into_iter().filter_map(|line| line.row.get()?.as_ref()).collect()
    }
}

fn holds(line: &[u8], word: &[u8]) -> bool {
    word.is_empty() || line.windows(word.len()).any(|window| window.eq_ignore_ascii_case(word))
}

const ACCELERATORS: &str = include_str!("../data/accelerators.csv");
const PROCESSORS: &str = include_str!("../data/cpus.csv");

impl Tables {
    /// The tables of this build.
    pub fn built_in() -> &'static Self {
        static TABLES: OnceLock<Tables> = OnceLock::new();
        TABLES.get_or_init(Self::default)
    }

    fn accelerator_table(&self) -> &Table<Accelerator> {
        self.accelerators.get_or_init(|| Table::read("accelerators.csv", ACCELERATORS, Accelerator::read))
    }

    fn processor_table(&self) -> &Table<Processor> {
        self.processors.get_or_init(|| Table::read("cpus.csv", PROCESSORS, Processor::read))
    }

    fn architecture_table(&self) -> &Table<Architecture> {
        const TEXT: &str = include_str!("../data/architectures.csv");
        self.architectures.get_or_init(|| Table::read("architectures.csv", TEXT, Architecture::read))
    }

    /// Every accelerator.
    pub fn accelerators(&self) -> &[Accelerator] {
        &self.accelerator_table().rows
    }

    /// Every processor.
    pub fn processors(&self) -> &[Processor] {
        &self.processor_table().rows
    }

    /// Every architecture.
    pub fn architectures(&self) -> &[Architecture] {
        &self.architecture_table().rows
    }

    /// The architecture of a row.
    pub fn architecture(&self, accelerator: &Accelerator) -> Option<&Architecture> {
        self.architectures().iter().find(|row| row.name == accelerator.architecture)
    }

    /// Rows that cannot be read and are left out; none in the tables of a build, which a test holds.
    pub fn problems(&self) -> Vec<&RowError> {
        let (accelerators, processors) = (&self.accelerator_table().problems, &self.processor_table().problems);
        accelerators.iter().chain(processors).chain(&self.architecture_table().problems).collect()
    }

    /// The accelerators in whose row a word stands; all of them where they have been read.
    pub(crate) fn accelerators_with(&self, word: &str) -> Vec<&Accelerator> {
        match self.accelerators.get() {
            Some(table) => table.rows.iter().collect(),
            None => self.accelerator_lines.holding(word, ACCELERATORS, Accelerator::read),
        }
    }

    /// Processors with their names taken apart: those in whose row a word stands; all of them where they have been read.
    pub(crate) fn processors_with(&self, word: &str) -> Vec<(&Processor, Vec<Vec<String>>)> {
        let take_apart = |row: &Processor| row.names().map(names::processor).collect::<Vec<_>>();
        match self.processors.get() {
            Some(_) => self.named_processors().map(|(row, names)| (row, names.to_vec())).collect(),
            None => {
                let rows = self.processor_lines.holding(word, PROCESSORS, Processor::read);
                rows.into_iter().map(|row| (row, take_apart(row))).collect()
            }
        }
    }

    pub(crate) fn named_accelerators(&self) -> impl Iterator<Item = (&Accelerator, &[Name])> {
        let take_apart = |row: &Accelerator| row.names().map(names::accelerator).collect();
        let names = self.names.get_or_init(|| self.accelerators().iter().map(take_apart).collect());
        self.accelerators().iter().zip(names.iter().map(Vec::as_slice))
    }

    pub(crate) fn named_processors(&self) -> impl Iterator<Item = (&Processor, &[Vec<String>])> {
        let take_apart = |row: &Processor| row.names().map(names::processor).collect();
        let names = self.processor_names.get_or_init(|| self.processors().iter().map(take_apart).collect());
        self.processors().iter().zip(names.iter().map(Vec::as_slice))
    }
}
