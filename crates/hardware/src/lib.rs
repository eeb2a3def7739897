//! What accelerators and processors are on paper: rows with a source and a date, compiled in, and how to find one.
//!
//! * [`Tables::built_in`]: the tables; `data/README.md` says what each column means and how a row was checked
//! * [`Accelerator`], [`Processor`], [`Architecture`]: the rows
//! * [`Tables::by_pci_id`]: by PCI id and memory, for a device whose driver says too little
//! * [`Tables::accelerator`], [`Tables::processor`]: by name, word by word: `a10` is no A1000, `RTX 4090` is not its laptop namesake
//! * [`figures`]: bandwidth and rates of rows as [`spec::Known`] values
//! * [`apple`]: what part of its memory a Mac gives its GPU
//!
//! Pure: no I/O, no clock; the same text gives the same row everywhere.
#![forbid(unsafe_code)]

pub mod apple;
pub mod figures;

mod accelerator;
mod find;
mod names;
mod processor;
mod row;
mod tables;

pub use accelerator::{Accelerator, Architecture, Build, Confidence, RateBasis};
pub use find::{Choice, FindError};
pub use processor::{Processor, Segment};
pub use row::RowError;
pub use tables::Tables;
