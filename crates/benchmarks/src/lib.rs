//! Measurements that others published: rows of a table as hardware, work and conditions, the fit of [`roofline`] to them, and
//! how far its predictions are off on devices and models that the fit had not seen.
//!
//! * [`read`]: the rows; [`samples`]: what they say, with what they leave out looked up
//! * [`annotate`]: a table with a prediction beside every row
//! * [`mod@evaluate`], [`report`]: predictions for what a fit had left out, and their errors
//!
//! Pure: tables arrive as text.
#![forbid(unsafe_code)]

mod bytes;
mod device;
mod intervals;
mod model;
mod row;
mod sample;
mod table;

pub mod evaluate;
pub mod formulas;
pub mod report;

pub use device::device;
pub use intervals::{Knowledge, spread, spread_keys};
pub use model::{Known, shape};
pub use row::{Measurement, TableError, read};
pub use sample::{Problem, Sample, Source, sample, samples};
pub use table::{Annotated, Interval, annotate, basis, interval};
