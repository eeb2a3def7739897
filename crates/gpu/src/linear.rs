//! A linear layer on a GPU.

use crate::arena::Arena;
use crate::device::{Gpu, Held};
use crate::error::GpuError;
use crate::step::{Step, Tokens, Work, encode};
use kernels::{Activations, TernaryMatrix};
use workspace::{Kernel, Layer, SHAPE};

/// The kernel of this crate, by which `workspace` knows its memory.
pub const KERNEL: Kernel = Kernel::Gpu;

/// Rows and tokens of a tile: a batch takes the time of whole tiles.
pub const TILE: u32 = 32;

/// Columns up to which a software driver is right: Mesa's ends all loops of a shader after 65,535 rounds together, without a word (llvmpipe,
/// `src/gallium/drivers/llvmpipe/lp_limits.h`, `LP_MAX_TGSI_LOOP_ITERATIONS`).
const SOFTWARE_COLUMNS: usize = 65_536;

/// Rows that a workgroup computes of one token.
pub(crate) const ROWS: u32 = 4;

/// Weights in a device's memory, and how they are multiplied with tokens: `y = s · a⁻¹ · Σ w·q`, as `kernels::QuantizedLinear` defines it.
/// Integers are the CPU's; given the same integers, so are the floats.
#[derive(Debug)]
pub struct QuantizedLinear {
    chunks: Vec<Chunk>,
    rows: usize,
    columns: usize,
    stride: usize,
}

/// Rows that lie in one buffer.
#[derive(Debug)]
struct Chunk {
    codes: Held,
    shape: Held,
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
    columns: u32,
    scale: f32,
    adds: u32,
    unused: u32,
}

const _: () = assert!(size_of::<Shape>() as u64 == SHAPE);

/// What a layer does with its sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    Replaced,
    /// Added to what is there.
    Added,
}

impl QuantizedLinear {
    /// Copies weights to the device, in buffers of whole rows that its limits allow.
    ///
    /// # Errors
    /// A row beyond the device's limits, no memory, a device that is lost.
    pub fn new(gpu: &Gpu, weights: &TernaryMatrix) -> Result<Self, GpuError> {
        Self::with_output(gpu, weights, Output::Replaced)
    }

    pub(crate) fn with_output(gpu: &Gpu, weights: &TernaryMatrix, output: Output) -> Result<Self, GpuError> {
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
        let (width, words) = (word(rows)?, word(stride)? / 16);
        let mut chunks = Vec::new();
        for first in (0..rows).step_by(most) {
            let count = most.min(rows - first);
            let bytes = weights.packed(first, count);
            let codes = gpu.buffer("weights", bytes.len() as u64, wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST)?;
            gpu.queue.write_buffer(&codes, 0, bytes);
            let shape = gpu.buffer("a shape", SHAPE, wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST)?;
            let told = Shape {
                rows: count as u32,
                first: first as u32,
                words,
                width,
                columns: columns as u32,
                scale: weights.scale(),
                adds: u32::from(output == Output::Added),
                unused: 0,
            };
            gpu.queue.write_buffer(&shape, 0, bytemuck::bytes_of(&told));
            // Copies are staged: without this, all of the weights would be in the host's memory once more.
            gpu.flush()?;
            chunks.push(Chunk { codes, shape, rows: count });
        }
        Ok(Self { chunks, rows, columns, stride })
    }

    /// Its shape, for a workspace.
    pub fn layer(&self) -> Option<Layer> {
        Layer::new(self.rows as u64, self.columns as u64).ok()
    }

    /// Bytes that weights of so many rows and columns take on the device, shapes of chunks included; rows are filled up to 128 weights.
    /// `chunk` is the largest piece that the device allows, [`Gpu::largest_piece`].
    pub fn bytes(rows: u64, columns: u64, chunk: spec::Bytes) -> Option<spec::Bytes> {
        let (codes, pieces) = Layer::new(rows, columns).ok()?.on_device(chunk)?;
        codes.get().checked_add(pieces.checked_mul(SHAPE)?).map(spec::Bytes::new)
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
        arena.write(gpu, "input", bytemuck::cast_slice(x));
        let mut steps: Vec<Step> = self.prepared(gpu, &gpu.pipelines.quantize, arena, "input", None).into_iter().collect();
        steps.extend(self.steps(gpu, arena, "output"));
        self.read(gpu, arena, tokens, &steps)
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
        arena.write(gpu, "activations", bytemuck::cast_slice(activations.values(0, tokens)));
        let scales: Vec<u32> =
            (0..tokens).flat_map(|token| [activations.scale(token).to_bits(), activations.sum(token).cast_unsigned()]).collect();
        arena.write(gpu, "scales", bytemuck::cast_slice(&scales));
        self.read(gpu, arena, tokens, &self.steps(gpu, arena, "output"))
    }

    /// Multiplies the tokens that lie in the arena once more and waits, without a copy: for measuring.
    ///
    /// # Errors
    /// More tokens than the arena has room for, a device that is lost.
    pub fn again(&self, gpu: &Gpu, arena: &Arena, tokens: usize) -> Result<(), GpuError> {
        let tokens = self.tokens(arena, tokens.saturating_mul(self.columns))?;
        arena.tell(gpu, tokens, 0);
        let mut commands = gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        encode(gpu, &self.steps(gpu, arena, "output"), tokens, &mut commands);
        gpu.send(commands);
        gpu.wait()
    }

    /// How many tokens so many values are, if the arena has room for them.
    fn tokens(&self, arena: &Arena, values: usize) -> Result<usize, GpuError> {
        let tokens = values / self.columns;
        if tokens == 0 || tokens * self.columns != values {
            return Err(GpuError::Size(format!("{values} values are no tokens of {}", self.columns)));
        }
        let room = |name: &str, each: usize| arena.region(name).bytes / each as u64 >= tokens as u64;
        let has_room = tokens <= arena.tokens()
            && room("input", 4 * self.columns)
            && room("activations", self.stride)
            && room("output", 4 * self.rows);
        if has_room { Ok(tokens) } else { Err(GpuError::Size(format!("the arena has no room for {tokens} tokens of this layer"))) }
    }

    /// The step that brings the tokens of a region into 8 bits for this layer; `weights` are those of a norm, if the kernel has one.
    pub(crate) fn prepared(
        &self,
        gpu: &Gpu,
        pipeline: &wgpu::ComputePipeline,
        arena: &Arena,
        from: &str,
        weights: Option<wgpu::BindingResource<'_>>,
    ) -> Option<Step> {
        let shape = self.chunks.first()?.shape.as_entire_binding();
        let mut resources = vec![arena.part("batch"), shape, arena.part("activations"), arena.part("scales"), arena.part(from)];
        resources.extend(weights);
        Some(Step::new(gpu, pipeline, 0, &resources, Work::Tokens, Tokens::Any))
    }

    /// The steps that multiply the tokens in 8 bits into a region.
    pub(crate) fn steps(&self, gpu: &Gpu, arena: &Arena, to: &str) -> Vec<Step> {
        let of = |chunk: &Chunk| {
            let resources = [
                arena.part("batch"),
                chunk.shape.as_entire_binding(),
                arena.part("activations"),
                arena.part("scales"),
                arena.part(to),
                chunk.codes.as_entire_binding(),
            ];
            let rows = chunk.rows as u32;
            [
                Step::new(gpu, &gpu.pipelines.one, 1, &resources[1..], Work::Rows(rows), Tokens::One),
                Step::new(gpu, &gpu.pipelines.many, 0, &resources, Work::Tiles(rows), Tokens::More),
            ]
        };
        self.chunks.iter().flat_map(of).collect()
    }

    fn read(&self, gpu: &Gpu, arena: &Arena, tokens: usize, steps: &[Step]) -> Result<Vec<f32>, GpuError> {
        let bytes = 4 * (tokens * self.rows) as u64;
        let staging = gpu.buffer("results", bytes, wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST)?;
        arena.tell(gpu, tokens, 0);
        let mut commands = gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        encode(gpu, steps, tokens, &mut commands);
        commands.copy_buffer_to_buffer(&arena.buffer, arena.region("output").offset, &staging, 0, bytes);
        gpu.send(commands);
        let mut out = vec![0.0; tokens * self.rows];
        gpu.read(&staging, &mut out)?;
        Ok(out)
    }
}
