//! What quantised linear layers need beside their weights, and how many tokens they are best given at once.
//!
//! * [`Layer`], [`Kernel`], [`Workspace`]: regions of one arena that serves all layers, to the byte
//! * [`Stack`]: whole layers on a device, with their keys and values; [`Head`]: the output head
//! * [`Calibration`]: the time of a pass over the layers as a function of its tokens, fitted to measured times
//! * [`optimal_batch`]: the smallest batch that is nearly as fast as any that memory has room for
//! * [`Adaptive`]: that batch over time, by observed peaks, refused allocations and changed free memory
//!
//! No size is a constant: every limit comes from the device, its free memory and what was measured on it. Pure: no I/O, no clock.
#![forbid(unsafe_code)]

mod adaptive;
mod arena;
mod batch;
mod calibration;
mod head;
mod kernel;
mod stack;

pub use adaptive::{Adaptive, Change, Event, Reason};
pub use arena::{Region, Workspace};
pub use batch::{Choice, Limit, NoRoom, Room, most_tokens, optimal_batch, optimal_batch_of};
pub use calibration::{Calibration, CalibrationError, Measured};
pub use head::{CHUNK, Head};
pub use kernel::{Kernel, Layer, LayerError};
pub use stack::{Behind, Context, Device, SHAPE, Stack, StackBytes};
