//! The memory of a batch.

use crate::device::{Gpu, Held};
use crate::error::GpuError;
use crate::linear::KERNEL;
use spec::Bytes;
use workspace::{Layer, Region, Workspace};

/// What a batch of up to so many tokens is computed in: regions of one buffer that serves all layers in turn.
#[derive(Debug)]
pub struct Arena {
    pub(crate) buffer: Held,
    workspace: Workspace,
    tokens: usize,
}

/// What kernels are told of a batch, as the shaders declare it.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Batch {
    tokens: u32,
    start: u32,
    unused: [u32; 2],
}

impl Arena {
    /// For batches of up to `tokens` through `layers`: input, tokens in 8 bits with their scales, and output.
    ///
    /// # Errors
    /// No layers or tokens, a region beyond the device's limits, no memory.
    pub fn new(gpu: &Gpu, layers: &[Layer], tokens: usize) -> Result<Self, GpuError> {
        let workspace = Workspace::new(KERNEL, layers, tokens as u64, gpu.alignment());
        Self::of(gpu, workspace.ok_or_else(|| beyond(tokens))?, tokens)
    }

    /// With these regions.
    pub(crate) fn of(gpu: &Gpu, workspace: Workspace, tokens: usize) -> Result<Self, GpuError> {
        if tokens == 0 || workspace.region("activations").is_none() {
            return Err(GpuError::Size("an arena for no layers or no tokens".into()));
        }
        u32::try_from(tokens).map_err(|_| beyond(tokens))?;
        let allowed = gpu.largest_piece();
        if let Some(region) = workspace.regions().iter().find(|region| region.bytes > allowed.get()) {
            return Err(GpuError::Limit { what: region.name, needed: Bytes::new(region.bytes), allowed, name: gpu.name().to_owned() });
        }
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::COPY_SRC;
        let buffer = gpu.buffer("a workspace", workspace.total().get(), usage)?;
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
    pub(crate) fn tell(&self, gpu: &Gpu, tokens: usize, start: usize) {
        let batch = Batch { tokens: tokens as u32, start: start as u32, unused: [0; 2] };
        self.write(gpu, "batch", bytemuck::bytes_of(&batch));
    }

    /// Writes to the beginning of a region before the next commands.
    pub(crate) fn write(&self, gpu: &Gpu, name: &str, bytes: &[u8]) {
        gpu.queue.write_buffer(&self.buffer, self.region(name).offset, bytes);
    }

    /// A region by its name; one of nothing where there is none, which no kernel can be given.
    pub(crate) fn region(&self, name: &str) -> Region {
        self.workspace.region(name).unwrap_or(Region { name: "", offset: 0, bytes: 0 })
    }

    /// A region as a kernel is given it.
    pub(crate) fn part(&self, name: &str) -> wgpu::BindingResource<'_> {
        part(&self.buffer, self.region(name))
    }
}

/// A part of a buffer as a kernel is given it.
pub(crate) fn part(buffer: &wgpu::Buffer, region: Region) -> wgpu::BindingResource<'_> {
    wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer, offset: region.offset, size: std::num::NonZeroU64::new(region.bytes) })
}

fn beyond(tokens: usize) -> GpuError {
    GpuError::Size(format!("a batch of {tokens} tokens is beyond any memory"))
}
