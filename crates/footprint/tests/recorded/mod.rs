//! Answers of the engine's own dry run, recorded by the example `record_oracle`, and what they are about.

// Each test and the recording example use a part of this.
#![allow(dead_code, unused_imports)]

pub mod case;
pub mod file;
pub mod folder;
pub mod model;
pub mod places;

pub use case::{Case, Host};
pub use file::{Answer, Figures, Recording};
pub use folder::{DRY_RUNS, LOADS, each, each_changed, recordings};
