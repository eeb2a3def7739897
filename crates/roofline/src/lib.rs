//! Speed of a model on a device: hardware, work and conditions in, tokens per second with an interval out.
//!
//! * [`Device`], [`Work`], [`Conditions`]: what computes, what there is to do, and how
//! * [`decode`], [`prefill`]: the time of a phase as [`Sum`] of [`Term`]s, each a bound of the hardware times an inefficiency
//! * [`Parameters`]: the logarithms of the inefficiencies, by level: all devices, class, generation, backend, ...
//! * [`fit`]: parameters from measurements, the same formula as in predictions
//! * [`Calibration`]: what runs on one machine say about it, by the same fit
//!
//! Pure: no I/O, no clock; the same input gives the same bytes everywhere.
#![forbid(unsafe_code)]

mod calibration;
mod conditions;
mod device;
mod fit;
mod linear;
mod parameters;
mod phase;
mod spread;
mod terms;
mod work;

pub use calibration::Calibration;
pub use conditions::{Conditions, Switch};
pub use device::{Class, Device};
pub use fit::{Case, Noise, Observation, fit};
pub use parameters::{ParameterError, Parameters};
pub use phase::{Phase, decode, prefill};
pub use spread::{Range, Spread, quantile};
pub use terms::{Bound, Effect, Sum, Term, overlap, share};
pub use work::{Quant, Shape, Work};
