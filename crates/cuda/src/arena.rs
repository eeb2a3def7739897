//! The memory of a batch.

use crate::device::Gpu;
use crate::error::GpuError;
use crate::kernel::Batch;
use crate::linear::KERNEL;
use crate::memory::{ALIGNMENT, Part};
use spec::Bytes;
use workspace::{Layer, Region, Workspace};

/// What a batch of up to so many tokens is computed in: regions of one buffer that serves all layers in turn.
#[derive(Debug)]
pub struct Arena {
    buffer: Part,
    workspace: Workspace,
    tokens: usize,
}

impl Arena {
    /// For batches of up to `tokens` through `layers`: input, tokens in 8 bits with their scales, and output.
    ///
    /// # Errors
    /// No layers or tokens, no memory.
    pub fn new(gpu: &Gpu, layers: &[Layer], tokens: usize) -> Result<Self, GpuError> {
        let workspace = Workspace::new(KERNEL, layers, tokens as u64, ALIGNMENT).ok_or_else(|| beyond(tokens))?;
        check(&workspace, tokens)?;
        let buffer = gpu.buffer("a workspace", workspace.total().get())?;
        Ok(Self { buffer, workspace, tokens })
    }

    /// At the beginning of a buffer that has room for it.
    pub(crate) fn of(buffer: Part, workspace: Workspace, tokens: usize) -> Result<Self, GpuError> {
        check(&workspace, tokens)?;
        Ok(Self { buffer, workspace, tokens })
    }

    /// Tokens that it has room for.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Its bytes.
    pub fn total(&self) -> Bytes {
        self.workspace.total()
    }

    /// Tells kernels of the tokens of the next batch: how many, and the position of the first.
    pub(crate) fn tell(&self, tokens: usize, start: usize) -> Result<(), GpuError> {
        let batch = Batch { tokens: tokens as u32, start: start as u32, unused: [0; 2] };
        self.write("batch", bytemuck::bytes_of(&batch))
    }

    /// Writes to the beginning of a region, after what was launched before.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> Result<(), GpuError> {
        self.part(name)?.write(bytes)
    }

    /// A region by its name.
    pub(crate) fn region(&self, name: &str) -> Result<Region, GpuError> {
        self.workspace.region(name).ok_or_else(|| GpuError::Size(format!("the arena has no {name}")))
    }

    /// A region as it is read and written.
    pub(crate) fn part(&self, name: &str) -> Result<Part, GpuError> {
        Ok(self.buffer.region(self.region(name)?))
    }

    /// Address of a region on the device.
    pub(crate) fn at(&self, name: &str) -> Result<u64, GpuError> {
        Ok(self.part(name)?.at())
    }
}

/// Whether a workspace is one of tokens that kernels can count.
fn check(workspace: &Workspace, tokens: usize) -> Result<(), GpuError> {
    if tokens == 0 || workspace.region("activations").is_none() {
        return Err(GpuError::Size("an arena for no layers or no tokens".into()));
    }
    u32::try_from(tokens).map(|_| ()).map_err(|_| beyond(tokens))
}

pub(crate) fn beyond(tokens: usize) -> GpuError {
    GpuError::Size(format!("a batch of {tokens} tokens is beyond any memory"))
}
