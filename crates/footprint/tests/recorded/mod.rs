//! Answers of the engine's own dry run, recorded by the example `record_oracle`, and what they are about.

pub mod case;
pub mod file;
pub mod model;

pub use case::{Case, Host};
pub use file::{Answer, Figures, Recording};
