//! The tables that are compiled in.

use crate::accelerator::{Accelerator, Architecture};
use crate::names::{self, Name};
use crate::processor::Processor;
use crate::row::{self, RowError};
use std::sync::OnceLock;

/// Accelerators, processors and architectures.
#[derive(Clone, Debug, Default)]
pub struct Tables {
    accelerators: Vec<Accelerator>,
    processors: Vec<Processor>,
    architectures: Vec<Architecture>,
    problems: Vec<RowError>,
    /// Names and aliases of each accelerator, taken apart.
    names: Vec<Vec<Name>>,
    /// Names and aliases of each processor, taken apart.
    processor_names: Vec<Vec<Vec<String>>>,
}

impl Tables {
    /// The tables of this build. Parsed at the first call, in some milliseconds, and kept: a memo of constants.
    pub fn built_in() -> &'static Self {
        static TABLES: OnceLock<Tables> = OnceLock::new();
        TABLES.get_or_init(|| {
            Self::parse(
                include_str!("../data/accelerators.csv"),
                include_str!("../data/cpus.csv"),
                include_str!("../data/architectures.csv"),
            )
        })
    }

    /// Tables from their texts. A row that cannot be read is left out and told by [`Tables::problems`].
    pub fn parse(accelerators: &str, processors: &str, architectures: &str) -> Self {
        let mut problems = Vec::new();
        let accelerators = row::read("accelerators.csv", accelerators, Accelerator::read, &mut problems);
        let processors = row::read("cpus.csv", processors, Processor::read, &mut problems);
        let architectures = row::read("architectures.csv", architectures, Architecture::read, &mut problems);
        Self {
            names: accelerators.iter().map(|row: &Accelerator| row.names().map(names::accelerator).collect()).collect(),
            processor_names: processors.iter().map(|row: &Processor| row.names().map(names::processor).collect()).collect(),
            accelerators,
            processors,
            architectures,
            problems,
        }
    }

    /// Every accelerator.
    pub fn accelerators(&self) -> &[Accelerator] {
        &self.accelerators
    }

    /// Every processor.
    pub fn processors(&self) -> &[Processor] {
        &self.processors
    }

    /// Every architecture.
    pub fn architectures(&self) -> &[Architecture] {
        &self.architectures
    }

    /// The architecture of a row.
    pub fn architecture(&self, accelerator: &Accelerator) -> Option<&Architecture> {
        self.architectures.iter().find(|row| row.name == accelerator.architecture)
    }

    pub(crate) fn named_accelerators(&self) -> impl Iterator<Item = (&Accelerator, &[Name])> {
        self.accelerators.iter().zip(self.names.iter().map(Vec::as_slice))
    }

    pub(crate) fn named_processors(&self) -> impl Iterator<Item = (&Processor, &[Vec<String>])> {
        self.processors.iter().zip(self.processor_names.iter().map(Vec::as_slice))
    }

    /// Rows that were left out; none in the tables of a build, which a test holds.
    pub fn problems(&self) -> &[RowError] {
        &self.problems
    }
}
