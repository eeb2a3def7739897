//! A linear layer on a GPU.

use crate::arena::Arena;
use crate::device::{Gpu, Held};
use crate::error::GpuError;
use kernels::{Activations, TernaryMatrix};
use workspace::{Kernel, Layer};

/// The kernel of this crate, by which `workspace` knows its memory.
pub const KERNEL: Kernel = Kernel::Gpu;

/// Rows and tokens of a tile: a batch takes the time of whole tiles.
pub const TILE: u32 = 32;

/// Columns up to which a software driver is right: Mesa's ends all loops of a shader after 65,535 rounds together, without a word (llvmpipe,
/// `src/gallium/drivers/llvmpipe/lp_limits.h`, `LP_MAX_TGSI_LOOP_ITERATIONS`).
const SOFTWARE_COLUMNS: usize = 65_536;

/// Rows that a workgroup computes of one token.
const ROWS: u32 = 4;

/// Weights in a device's memory, and how they are multiplied with tokens: `y = s · a⁻¹ · Σ w·q`, as `kernels::QuantizedLinear` defines it.
/// Integers are the CPU's; given the same integers, so are the floats.
#[derive(Debug)]
pub struct QuantizedLinear {
    chunks: Vec<Chunk>,
    rows: usize,
    columns: usize,
    stride: usize,
    scale: f32,
}

/// Rows that lie in one buffer.
#[derive(Debug)]
struct Chunk {
    codes: Held,
    shape: Held,
    first: usize,
    rows: usize,
}

/// The uniform of the matrix kernels, as the shaders declare it.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Shape {
    rows: u32,
    first: u32,
    words: u32,
    width: u32,
    tokens: u32,
    scale: f32,
    unused: [u32; 2],
}

const _: () = assert!(size_of::<Shape>() == 32);

impl QuantizedLinear {
    /// Copies weights to the device, in buffers of whole rows that its limits allow.
    ///
    /// # Errors
    /// A row beyond the device's limits, no memory, a device that is lost.
    pub fn new(gpu: &Gpu, weights: &TernaryMatrix) -> Result<Self, GpuError> {
        let (rows, columns, stride) = (weights.rows(), weights.columns(), weights.stride());
        let row_bytes = stride / 4;
        let allowed = gpu.largest_piece();
        let most = (allowed.get() / row_bytes as u64) as usize;
        if most == 0 {
            let needed = spec::Bytes::new(row_bytes as u64);
            return Err(GpuError::Limit { what: "a row of weights", needed, allowed, name: gpu.name().to_owned() });
        }
        if gpu.is_software() && columns > SOFTWARE_COLUMNS {
            let name = gpu.name();
            return Err(GpuError::Size(format!("rows of {columns} weights: {name} computes at most {SOFTWARE_COLUMNS} rightly")));
        }
        let word = |value: usize| u32::try_from(value).map_err(|_| GpuError::Size(format!("a layer of {rows} rows and {columns} columns")));
        word(rows)?;
        word(stride)?;
        let mut chunks = Vec::new();
        for first in (0..rows).step_by(most) {
            let count = most.min(rows - first);
            let bytes = weights.packed(first, count);
            let codes = gpu.buffer("weights", bytes.len() as u64, wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST)?;
            gpu.queue.write_buffer(&codes, 0, bytes);
            // The copy is staged: without this, all of the weights would be in the host's memory once more.
            gpu.send(gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default()));
            gpu.wait()?;
            let shape = gpu.buffer("a shape", size_of::<Shape>() as u64, wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST)?;
            chunks.push(Chunk { codes, shape, first, rows: count });
        }
        Ok(Self { chunks, rows, columns, stride, scale: weights.scale() })
    }

    /// Its shape, for a workspace.
    pub fn layer(&self) -> Option<Layer> {
        Layer::new(self.rows as u64, self.columns as u64).ok()
    }

    /// Bytes that weights of so many rows and columns take on the device, shapes of chunks included; rows are filled up to 128 weights.
    /// `chunk` is the largest piece that the device allows, [`Gpu::largest_piece`].
    pub fn bytes(rows: u64, columns: u64, chunk: spec::Bytes) -> Option<spec::Bytes> {
        let row = columns.checked_next_multiple_of(128)? / 4;
        let chunks = rows.div_ceil((chunk.get() / row.max(1)).max(1));
        rows.checked_mul(row)?.checked_add(chunks.checked_mul(size_of::<Shape>() as u64)?).map(spec::Bytes::new)
    }

    /// Outputs.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Inputs.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Buffers that hold the weights.
    pub fn pieces(&self) -> usize {
        self.chunks.len()
    }

    /// Tokens of floats: quantised on the device, multiplied, and read back. `x` holds `tokens × columns`, the result `tokens × rows`.
    ///
    /// # Errors
    /// Sizes that do not belong together or beyond the arena's, a device that is lost.
    pub fn forward(&self, gpu: &Gpu, arena: &Arena, x: &[f32]) -> Result<Vec<f32>, GpuError> {
        let tokens = self.tokens(arena, x.len())?;
        gpu.queue.write_buffer(&arena.buffer, arena.input.offset, bytemuck::cast_slice(x));
        let mut commands = gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let shape = gpu.buffer("a shape", 16, wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST)?;
        gpu.queue.write_buffer(&shape, 0, bytemuck::cast_slice(&[self.columns as u32, self.stride as u32, tokens as u32, 0]));
        self.quantize(gpu, arena, tokens, &shape, &mut commands);
        self.multiply(gpu, arena, tokens, &mut commands);
        self.read(gpu, arena, tokens, commands)
    }

    /// Tokens that are quantised already: the same floats as the CPU's kernels give, to the bit.
    ///
    /// # Errors
    /// Sizes that do not belong together or beyond the arena's, a device that is lost.
    pub fn forward_quantized(&self, gpu: &Gpu, arena: &Arena, activations: &Activations) -> Result<Vec<f32>, GpuError> {
        if activations.columns() != self.columns {
            return Err(GpuError::Size(format!("tokens of {} values for a layer of {} columns", activations.columns(), self.columns)));
        }
        let tokens = self.tokens(arena, activations.tokens() * self.columns)?;
        let values = activations.values(0, tokens);
        gpu.queue.write_buffer(&arena.buffer, arena.activations.offset, bytemuck::cast_slice(values));
        let scales: Vec<u32> =
            (0..tokens).flat_map(|token| [activations.scale(token).to_bits(), activations.sum(token).cast_unsigned()]).collect();
        gpu.queue.write_buffer(&arena.buffer, arena.scales.offset, bytemuck::cast_slice(&scales));
        let mut commands = gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        self.multiply(gpu, arena, tokens, &mut commands);
        self.read(gpu, arena, tokens, commands)
    }

    /// Multiplies the tokens that lie in the arena once more and waits, without a copy: for measuring.
    ///
    /// # Errors
    /// More tokens than the arena has room for, a device that is lost.
    pub fn again(&self, gpu: &Gpu, arena: &Arena, tokens: usize) -> Result<(), GpuError> {
        let tokens = self.tokens(arena, tokens.saturating_mul(self.columns))?;
        let mut commands = gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        self.multiply(gpu, arena, tokens, &mut commands);
        gpu.send(commands);
        gpu.wait()
    }

    /// How many tokens so many values are, if the arena has room for them.
    fn tokens(&self, arena: &Arena, values: usize) -> Result<usize, GpuError> {
        let tokens = values / self.columns;
        if tokens == 0 || tokens * self.columns != values {
            return Err(GpuError::Size(format!("{values} values are no tokens of {}", self.columns)));
        }
        let room = |bytes: u64, each: usize| bytes / each as u64 >= tokens as u64;
        let has_room = tokens <= arena.tokens()
            && room(arena.input.bytes, 4 * self.columns)
            && room(arena.activations.bytes, self.stride)
            && room(arena.output.bytes, 4 * self.rows);
        if has_room { Ok(tokens) } else { Err(GpuError::Size(format!("the arena has no room for {tokens} tokens of this layer"))) }
    }

    fn quantize(&self, gpu: &Gpu, arena: &Arena, tokens: usize, shape: &wgpu::Buffer, commands: &mut wgpu::CommandEncoder) {
        let pipeline = &gpu.pipelines.quantize;
        let tokens_bytes = tokens as u64;
        let resources = [
            shape.as_entire_binding(),
            arena.part(arena.input, 4 * tokens_bytes * self.columns as u64),
            arena.part(arena.activations, tokens_bytes * self.stride as u64),
            arena.part(arena.scales, 8 * tokens_bytes),
        ];
        let group = bind(gpu, pipeline, &resources);
        let mut pass = commands.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        pass.set_pipeline(pipeline);
        pass.set_bind_group(0, &group, &[]);
        let (x, y) = spread(tokens as u32, gpu.most_groups());
        pass.dispatch_workgroups(x, y, 1);
    }

    fn multiply(&self, gpu: &Gpu, arena: &Arena, tokens: usize, commands: &mut wgpu::CommandEncoder) {
        let pipeline = if tokens == 1 { &gpu.pipelines.one } else { &gpu.pipelines.many };
        for chunk in &self.chunks {
            let shape = Shape {
                rows: chunk.rows as u32,
                first: chunk.first as u32,
                words: (self.stride / 16) as u32,
                width: self.rows as u32,
                tokens: tokens as u32,
                scale: self.scale,
                unused: [0; 2],
            };
            gpu.queue.write_buffer(&chunk.shape, 0, bytemuck::bytes_of(&shape));
            let resources = [
                chunk.shape.as_entire_binding(),
                chunk.codes.as_entire_binding(),
                arena.part(arena.activations, (tokens * self.stride) as u64),
                arena.part(arena.scales, 8 * tokens as u64),
                arena.part(arena.output, 4 * (tokens * self.rows) as u64),
            ];
            let group = bind(gpu, pipeline, &resources);
            let mut pass = commands.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            pass.set_pipeline(pipeline);
            pass.set_bind_group(0, &group, &[]);
            let (x, y) = match tokens {
                1 => spread((chunk.rows as u32).div_ceil(ROWS), gpu.most_groups()),
                _ => ((chunk.rows as u32).div_ceil(TILE), (tokens as u32).div_ceil(TILE)),
            };
            pass.dispatch_workgroups(x, y, 1);
        }
    }

    fn read(&self, gpu: &Gpu, arena: &Arena, tokens: usize, mut commands: wgpu::CommandEncoder) -> Result<Vec<f32>, GpuError> {
        let bytes = 4 * (tokens * self.rows) as u64;
        let staging = gpu.buffer("results", bytes, wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST)?;
        commands.copy_buffer_to_buffer(&arena.buffer, arena.output.offset, &staging, 0, bytes);
        gpu.send(commands);
        staging.map_async(wgpu::MapMode::Read, .., |_| {});
        gpu.wait()?;
        let lost = |error: &dyn std::fmt::Display| GpuError::Lost { name: gpu.name().to_owned(), reason: error.to_string() };
        let view = staging.get_mapped_range(..).map_err(|error| lost(&error))?;
        Ok(bytemuck::pod_collect_to_vec(&view))
    }
}

/// So many workgroups over two directions, of which each has a limit: the product may be larger.
fn spread(groups: u32, most: u32) -> (u32, u32) {
    let y = groups.div_ceil(most.max(1)).max(1);
    (groups.div_ceil(y), y)
}

fn bind(gpu: &Gpu, pipeline: &wgpu::ComputePipeline, resources: &[wgpu::BindingResource<'_>]) -> wgpu::BindGroup {
    let entries: Vec<wgpu::BindGroupEntry<'_>> =
        resources.iter().zip(0..).map(|(resource, binding)| wgpu::BindGroupEntry { binding, resource: resource.clone() }).collect();
    gpu.device.create_bind_group(&wgpu::BindGroupDescriptor { label: None, layout: &pipeline.get_bind_group_layout(0), entries: &entries })
}
