//! What can go wrong on a GPU.

use spec::Bytes;

/// Why something could not be computed on a GPU. The CPU can compute it in every case.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GpuError {
    /// No adapter of that name.
    #[error("no GPU called {asked}; there are: {found}")]
    Unknown {
        /// The name that was asked for.
        asked: String,
        /// The names that are there, or `none`.
        found: String,
    },
    /// The driver does not open the device.
    #[error("the driver does not open {name}: {reason}")]
    Open {
        /// The adapter.
        name: String,
        /// The driver's words.
        reason: String,
    },
    /// A limit of the device that nothing can be split to.
    #[error("{what} needs {needed} in one piece, and {name} allows {allowed}")]
    Limit {
        /// What it is for.
        what: &'static str,
        /// Bytes that are needed at once.
        needed: Bytes,
        /// Bytes that the device allows.
        allowed: Bytes,
        /// The adapter.
        name: String,
    },
    /// No memory.
    #[error("{name} has no memory for {what} of {needed}")]
    OutOfMemory {
        /// What it was for.
        what: &'static str,
        /// Bytes that were asked for.
        needed: Bytes,
        /// The adapter.
        name: String,
    },
    /// The device is gone: its driver was reset, or it was unplugged.
    #[error("{name} is lost: {reason}")]
    Lost {
        /// The adapter.
        name: String,
        /// The driver's words.
        reason: String,
    },
    /// Sizes that do not belong together.
    #[error("{0}")]
    Size(String),
    /// Streams or logits that a stack cannot be given.
    #[error(transparent)]
    Batch(bitnet::BatchError),
    /// A message that names a mistake of this crate, not of its caller.
    #[error("{name} refuses a command: {reason}")]
    Refused {
        /// The adapter.
        name: String,
        /// The driver's or wgpu's words.
        reason: String,
    },
}
