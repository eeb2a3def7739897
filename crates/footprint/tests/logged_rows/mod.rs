//! Allocations of real runs on real devices, as their owners published them, and the same recomputed.
//!
//! The rows are `shared/data/memory/logged_buffers.csv` beside the workspace; none of it is kept here. [`row`] reads them,
//! [`model`] builds the model of each or says why it cannot, [`score`] predicts its buffers and compares.

// Each test and the example use a part of this.
#![allow(dead_code, unused_imports)]

pub mod model;
pub mod row;
pub mod score;
pub mod setup;
pub mod summary;

pub use row::{Row, rows};
pub use score::{Component, Outcome, Scored, outcome};
pub use summary::{Line, Summary, median};
