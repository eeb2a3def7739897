//! The tables that are compiled in.

use crate::accelerator::{Accelerator, Architecture};
use crate::names::{self, Name};
use crate::processor::Processor;
use crate::row::{self, Row, RowError};
use std::sync::OnceLock;

/// Accelerators, processors and architectures. Each table is read when it is first asked for, in some milliseconds, and kept: a memo of
/// constants.
#[derive(Debug, Default)]
pub struct Tables {
    accelerators: OnceLock<Table<Accelerator>>,
    processors: OnceLock<Table<Processor>>,
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

impl Tables {
    /// The tables of this build.
    pub fn built_in() -> &'static Self {
        static TABLES: OnceLock<Tables> = OnceLock::new();
        TABLES.get_or_init(Self::default)
    }

    fn accelerator_table(&self) -> &Table<Accelerator> {
        const TEXT: &str = include_str!("../data/accelerators.csv");
        self.accelerators.get_or_init(|| Table::read("accelerators.csv", TEXT, Accelerator::read))
    }

    fn processor_table(&self) -> &Table<Processor> {
        const TEXT: &str = include_str!("../data/cpus.csv");
        self.processors.get_or_init(|| Table::read("cpus.csv", TEXT, Processor::read))
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
