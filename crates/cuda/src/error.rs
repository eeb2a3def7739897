//! What can go wrong on a GPU.

use spec::Bytes;

/// Why something could not be computed on a GPU. The CPU can compute it in every case.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GpuError {
    /// No NVRTC, or one that does not know the device.
    #[error("the kernels cannot be compiled for {name}: {reason}")]
    Compiler {
        /// The device.
        name: String,
        /// What is missing, or what the compiler said.
        reason: String,
    },
    /// A device that lacks instructions.
    #[error("{name} has compute capability {major}.{minor}; the kernels need 6.1 or newer (products of four bytes)")]
    Old {
        /// The device.
        name: String,
        /// Its compute capability.
        major: u32,
        /// Behind the dot.
        minor: u32,
    },
    /// The driver does not open the device.
    #[error("the driver does not open {name}: {reason}")]
    Open {
        /// The device.
        name: String,
        /// The driver's words.
        reason: String,
    },
    /// No memory.
    #[error("{name} has no memory for {what} of {needed}")]
    OutOfMemory {
        /// What it was for.
        what: &'static str,
        /// Bytes that were asked for.
        needed: Bytes,
        /// The device.
        name: String,
    },
    /// The device is gone: its driver was reset, a kernel failed, or it was unplugged. It stays so for this process.
    #[error("{name} is lost: {reason}")]
    Lost {
        /// The device.
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
}
