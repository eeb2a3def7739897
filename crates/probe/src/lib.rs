//! Detects hardware: a [`Host`] in, a [`spec::Machine`] out.
//!
//! * [`host`]: the questions that detection asks, and the trait that answers them
//! * [`live`]: the machine that runs this program
//! * [`recording`]: a machine in a file
//! * [`detect`](fn@detect): the machine behind a host; [`capture`](fn@capture): its recording
//! * [`report`]: a machine as data for other programs, what `detect --json` prints
//! * [`describe`](fn@describe): a machine from a short description such as `rtx4090x2,ram=64GiB,cpu=ryzen-9-7950x`
//! * [`overrides`]: a machine with another memory or fewer threads than it has
//!
//! Parsers are pure functions over texts and registers. Only `ffi` has unsafe code: CPUID and the libraries of GPU
//! drivers, which are loaded at run time.
#![deny(unsafe_code)]

pub mod capture;
pub mod describe;
pub mod detect;
pub mod host;
pub mod live;
pub mod overrides;
pub mod recording;
pub mod report;

mod ffi;
mod scrub;

pub use capture::{capture, capture_to};
pub use describe::{DescribeMachineError, describe, names_hardware};
pub use detect::{Depth, ProbeError, detect, detect_fully, detect_to};
pub use host::{Answer, Host, Question, Refusal};
pub use live::Live;
pub use overrides::{OverrideError, Overrides};
pub use recording::{Recording, RecordingError};
pub use report::Report;
