//! The memory of a batch.

use crate::device::{Gpu, Held};
use crate::error::GpuError;
use crate::linear::KERNEL;
use spec::Bytes;
use workspace::{Layer, Region, Workspace};

/// Input, tokens in 8 bits with their scales, and output of up to so many tokens, in one buffer that serves all layers in turn.
#[derive(Debug)]
pub struct Arena {
    pub(crate) buffer: Held,
    pub(crate) input: Region,
    pub(crate) activations: Region,
    pub(crate) scales: Region,
    pub(crate) output: Region,
    tokens: usize,
    total: Bytes,
}

impl Arena {
    /// For batches of up to `tokens` through `layers`.
    ///
    /// # Errors
    /// No layers or tokens, a region beyond the device's limits, no memory.
    pub fn new(gpu: &Gpu, layers: &[Layer], tokens: usize) -> Result<Self, GpuError> {
        let workspace = Workspace::new(KERNEL, layers, tokens as u64, gpu.alignment());
        let workspace = workspace.ok_or_else(|| GpuError::Size(format!("a batch of {tokens} tokens is beyond any memory")))?;
        let region = |name: &'static str| {
            let region = workspace.region(name).ok_or_else(|| GpuError::Size("an arena for no layers or no tokens".into()))?;
            let (needed, allowed) = (Bytes::new(region.bytes), gpu.largest_piece());
            if needed > allowed {
                return Err(GpuError::Limit { what: name, needed, allowed, name: gpu.name().to_owned() });
            }
            Ok(region)
        };
        let (input, activations, scales, output) = (region("input")?, region("activations")?, region("scales")?, region("output")?);
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC;
        let buffer = gpu.buffer("a workspace", workspace.total().get(), usage)?;
        Ok(Self { buffer, input, activations, scales, output, tokens, total: workspace.total() })
    }

    /// Tokens that it has room for.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Its bytes.
    pub fn total(&self) -> Bytes {
        self.total
    }

    /// So many bytes of a region from its beginning.
    pub(crate) fn part(&self, region: Region, bytes: u64) -> wgpu::BindingResource<'_> {
        wgpu::BindingResource::Buffer(wgpu::BufferBinding {
            buffer: &self.buffer,
            offset: region.offset,
            size: std::num::NonZeroU64::new(bytes.min(region.bytes)),
        })
    }
}
