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

mod anomaly;
mod arrow;
mod calibration;
mod conditions;
mod deviations;
mod device;
mod fit;
mod parameters;
mod phase;
mod placement;
mod spread;
mod terms;
mod ternary;
mod work;

pub use anomaly::{Cause, anomaly};
pub use calibration::Calibration;
pub use conditions::{Conditions, Switch};
pub use deviations::Deviations;
pub use device::{Class, Device};
pub use fit::{Case, Noise, Observation, fit, fit_from};
pub use parameters::{ParameterError, Parameters};
pub use phase::{Phase, decode, one_machine_alone, prefill};
pub use placement::{Host, Placement, placed};
pub use spread::{Range, Spread, quantile};
pub use terms::{Bound, Effect, Sum, Term, overlap, share};
pub use ternary::{OWN_KERNELS, off_of_own};
pub use work::{Quant, Shape, Work};
