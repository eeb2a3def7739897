//! A linear layer on a GPU.

use crate::arena::Arena;
use crate::device::Gpu;
use crate::error::GpuError;
use crate::kernel::{Kernel, ONE_ROWS, Product, Quantize, TILE_ROWS, TILE_TOKENS};
use crate::memory::Part;
use kernels::{Activations, TernaryMatrix};
use spec::Bytes;
use workspace::Layer;

/// The kernel of this crate, by which `workspace` knows its memory.
pub const KERNEL: workspace::Kernel = workspace::Kernel::Gpu;

/// Tokens of a tile: a batch takes the time of whole tiles.
pub const TILE: u32 = TILE_TOKENS;

/// Blocks that a grid has at most in its second direction, where tokens are counted (CUDA C++ Programming Guide, "Compute Capabilities").
pub(crate) const MOST_TOKENS: usize = 65_535;

/// Weights in a device's memory, and how they are multiplied with tokens: `y = s · a⁻¹ · Σ w·q`, as `kernels::QuantizedLinear` defines it.
/// Floats are the CPU's to the bit: integers are exact, and what is rounded is rounded in the same steps.
#[derive(Debug)]
pub struct QuantizedLinear {
    codes: Part,
    rows: usize,
    columns: usize,
    stride: usize,
    scale: f32,
    /// Sums are added to what is there.
    adds: bool,
}

/// Tokens that are computed together.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pass<'a> {
    pub(crate) gpu: &'a Gpu,
    pub(crate) arena: &'a Arena,
    pub(crate) tokens: u32,
}

/// A norm before tokens are brought into 8 bits: address of its weights, and what is added to the mean square.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Norm {
    pub(crate) weights: u64,
    pub(crate) eps: f32,
}

impl QuantizedLinear {
    /// Copies weights to the device.
    ///
    /// # Errors
    /// A shape beyond what kernels count, no memory, a device that is lost.
    pub fn new(gpu: &Gpu, weights: &TernaryMatrix) -> Result<Self, GpuError> {
        let codes = gpu.buffer("weights", weights.code_bytes() as u64)?;
        Self::at(codes, weights, false)
    }

    /// Copies weights to where there is room for them; `adds` where sums are added to what is there.
    pub(crate) fn at(codes: Part, weights: &TernaryMatrix, adds: bool) -> Result<Self, GpuError> {
        let (rows, columns, stride) = (weights.rows(), weights.columns(), weights.stride());
        if u32::try_from(rows).is_err() || u32::try_from(stride).is_err() {
            return Err(GpuError::Size(format!("a layer of {rows} rows and {columns} columns")));
        }
        codes.write(weights.packed(0, rows))?;
        Ok(Self { codes, rows, columns, stride, scale: weights.scale(), adds })
    }

    /// Its shape, for a workspace.
    pub fn layer(&self) -> Option<Layer> {
        Layer::new(self.rows as u64, self.columns as u64).ok()
    }

    /// Bytes that weights of so many rows and columns take on the device: rows are filled up to 128 weights.
    pub fn bytes(rows: u64, columns: u64) -> Option<Bytes> {
        Layer::new(rows, columns).ok()?.on_device(Bytes::MAX).map(|(bytes, _)| bytes)
    }

    /// Outputs.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Inputs.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Tokens of floats: quantised on the device, multiplied, and read back. `x` holds `tokens × columns`, the result `tokens × rows`.
    ///
    /// # Errors
    /// Sizes that do not belong together or beyond the arena's, a device that is lost.
    pub fn forward(&self, gpu: &Gpu, arena: &Arena, x: &[f32]) -> Result<Vec<f32>, GpuError> {
        let pass = self.pass(gpu, arena, x.len())?;
        arena.write("input", bytemuck::cast_slice(x))?;
        self.prepare(&pass, "input", None)?;
        self.multiply(&pass, "output")?;
        self.read(&pass)
    }

    /// Tokens that are quantised already.
    ///
    /// # Errors
    /// Sizes that do not belong together or beyond the arena's, a device that is lost.
    pub fn forward_quantized(&self, gpu: &Gpu, arena: &Arena, activations: &Activations) -> Result<Vec<f32>, GpuError> {
        if activations.columns() != self.columns {
            return Err(GpuError::Size(format!("tokens of {} values for a layer of {} columns", activations.columns(), self.columns)));
        }
        let pass = self.pass(gpu, arena, activations.tokens() * self.columns)?;
        arena.write("activations", bytemuck::cast_slice(activations.values(0, activations.tokens())))?;
        let mark = |token| [activations.scale(token).to_bits(), activations.sum(token).cast_unsigned()];
        let marks: Vec<u32> = (0..activations.tokens()).flat_map(mark).collect();
        arena.write("scales", bytemuck::cast_slice(&marks))?;
        self.multiply(&pass, "output")?;
        self.read(&pass)
    }

    /// Brings tokens of floats into 8 bits on the device, and reads them: as words of four, and per token the bits of its scale and its sum.
    ///
    /// # Errors
    /// Sizes that do not belong together or beyond the arena's, a device that is lost.
    pub fn quantized(&self, gpu: &Gpu, arena: &Arena, x: &[f32]) -> Result<(Vec<u32>, Vec<[u32; 2]>), GpuError> {
        let pass = self.pass(gpu, arena, x.len())?;
        arena.write("input", bytemuck::cast_slice(x))?;
        self.prepare(&pass, "input", None)?;
        let tokens = pass.tokens as usize;
        let (mut words, mut marks) = (vec![0_u32; tokens * self.stride / 4], vec![[0_u32; 2]; tokens]);
        arena.part("activations")?.read(bytemuck::cast_slice_mut(&mut words))?;
        arena.part("scales")?.read(bytemuck::cast_slice_mut(&mut marks))?;
        Ok((words, marks))
    }

    /// Multiplies the tokens that lie in the arena once more and waits, without a copy of results: for measuring.
    ///
    /// # Errors
    /// More tokens than the arena has room for, a device that is lost.
    pub fn again(&self, gpu: &Gpu, arena: &Arena, tokens: usize) -> Result<(), GpuError> {
        let pass = self.pass(gpu, arena, tokens.saturating_mul(self.columns))?;
        self.multiply(&pass, "output")?;
        gpu.wait()
    }

    /// A pass over as many tokens as so many values are, if the arena has room for them: the kernels are told of it.
    fn pass<'a>(&self, gpu: &'a Gpu, arena: &'a Arena, values: usize) -> Result<Pass<'a>, GpuError> {
        let tokens = values / self.columns;
        if tokens == 0 || tokens * self.columns != values {
            return Err(GpuError::Size(format!("{values} values are no tokens of {}", self.columns)));
        }
        let room = |name: &str, each: usize| arena.region(name).is_ok_and(|region| region.bytes / each as u64 >= tokens as u64);
        let has_room = tokens <= arena.tokens().min(MOST_TOKENS)
            && room("input", 4 * self.columns)
            && room("activations", self.stride)
            && room("output", 4 * self.rows);
        if !has_room {
            return Err(GpuError::Size(format!("the arena has no room for {tokens} tokens of this layer")));
        }
        arena.tell(tokens, 0)?;
        Ok(Pass { gpu, arena, tokens: tokens as u32 })
    }

    /// Brings the tokens of a region into 8 bits for this layer.
    pub(crate) fn prepare(&self, pass: &Pass<'_>, from: &str, norm: Option<Norm>) -> Result<(), GpuError> {
        let arena = pass.arena;
        let parameters = Quantize {
            batch: arena.at("batch")?,
            x: arena.at(from)?,
            weights: norm.map_or(0, |norm| norm.weights),
            values: arena.at("activations")?,
            marks: arena.at("scales")?,
            columns: self.columns as u32,
            words: self.stride as u32 / 4,
            eps: norm.map_or(0.0, |norm| norm.eps),
            unused: 0,
        };
        let kernel = if norm.is_some() { Kernel::QuantizeNorm } else { Kernel::Quantize };
        pass.gpu.launch(kernel, (pass.tokens, 1), &parameters)
    }

    /// Multiplies the tokens in 8 bits into a region.
    pub(crate) fn multiply(&self, pass: &Pass<'_>, to: &str) -> Result<(), GpuError> {
        let (arena, rows) = (pass.arena, self.rows as u32);
        let parameters = Product {
            batch: arena.at("batch")?,
            values: arena.at("activations")?,
            marks: arena.at("scales")?,
            codes: self.codes.at(),
            out: arena.at(to)?,
            rows,
            words: self.stride as u32 / 16,
            scale: self.scale,
            adds: u32::from(self.adds),
        };
        if pass.tokens == 1 {
            return pass.gpu.launch(Kernel::One, (rows.div_ceil(ONE_ROWS), 1), &parameters);
        }
        pass.gpu.launch(Kernel::Many, (rows.div_ceil(TILE_ROWS), pass.tokens.div_ceil(TILE_TOKENS)), &parameters)
    }

    fn read(&self, pass: &Pass<'_>) -> Result<Vec<f32>, GpuError> {
        let mut out = vec![0.0; pass.tokens as usize * self.rows];
        pass.arena.part("output")?.read(bytemuck::cast_slice_mut(&mut out))?;
        Ok(out)
    }
}
