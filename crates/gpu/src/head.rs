//! The output head on a GPU: the logits of one token.

use crate::arena::{Arena, part};
use crate::device::{Gpu, Held};
use crate::error::GpuError;
use crate::pipelines::HeadPipelines;
use crate::step::{Step, Tokens, Work};
use bitnet::Weights;
use kernels::{CHUNK, DenseMatrix};
use workspace::{Device, SHAPE, Workspace};

/// Bytes of weights that are on their way to the device at a time.
const STAGED: usize = 16 << 20;

/// The table that logits come from in a device's memory, and what one token's are computed in.
///
/// Logits are sums of floats in another order than the CPU's; with weights in `q8_0` the token stays in floats, which the CPU takes in 16 bits.
#[derive(Debug)]
pub(crate) struct Head {
    pieces: Vec<Piece>,
    norm: Held,
    /// The token after the norm, and logits.
    compute: Held,
    regions: Workspace,
    /// Where logits are read from.
    results: Held,
    pipelines: HeadPipelines,
}

/// Rows that lie in one buffer.
#[derive(Debug)]
struct Piece {
    weights: Held,
    told: Held,
    rows: usize,
}

/// The uniform of the kernel, as the shader declares it.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Told {
    rows: u32,
    first: u32,
    chunks: u32,
    used: u32,
    unused: [u32; 4],
}

const _: () = assert!(size_of::<Told>() as u64 == SHAPE && CHUNK as u64 == workspace::CHUNK);

impl Head {
    /// Copies the head of a model to the device.
    ///
    /// # Errors
    /// A row beyond the device's limits, no memory, a device that is lost.
    pub(crate) fn new(gpu: &Gpu, weights: &Weights, shape: workspace::Head) -> Result<Self, GpuError> {
        let table = weights.head();
        let size = || GpuError::Size(format!("an output head of {} rows and {} columns", table.rows(), table.columns()));
        let device = Device { alignment: gpu.alignment(), largest: gpu.largest_piece() };
        let (row, regions) = (shape.row().ok_or_else(size)?, shape.compute(device.alignment).ok_or_else(size)?);
        let needed = spec::Bytes::new(row.max(regions.largest()));
        let most = shape.rows_of(device.largest).filter(|_| needed <= device.largest);
        let most = most.ok_or_else(|| GpuError::Limit { what: "logits", needed, allowed: device.largest, name: gpu.name().to_owned() })?;
        u32::try_from(shape.n_vocab.saturating_mul(row) / CHUNK as u64).map_err(|_| size())?;
        let most = usize::try_from(most).unwrap_or(usize::MAX).min(table.rows());
        let pieces = (0..table.rows()).step_by(most).map(|first| piece(gpu, table, first, most.min(table.rows() - first)));
        let pieces = pieces.collect::<Result<Vec<_>, _>>()?;
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST;
        let norm = gpu.buffer("the output norm", size_of_val(weights.output_norm()) as u64, usage)?;
        gpu.queue.write_buffer(&norm, 0, bytemuck::cast_slice(weights.output_norm()));
        gpu.flush()?;
        let compute = gpu.buffer("logits", regions.total().get(), wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC)?;
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        let results = gpu.buffer("logits to be read", shape.n_vocab.saturating_mul(4), usage)?;
        let pipelines = HeadPipelines::new(&gpu.device, table.ty(), table.columns(), weights.config().rms_eps);
        gpu.working()?;
        Ok(Self { pieces, norm, compute, regions, results, pipelines })
    }

    /// The steps from the last token's stream in an arena to its logits.
    pub(crate) fn steps(&self, gpu: &Gpu, arena: &Arena) -> Vec<Step> {
        let of = |name| self.regions.region(name).map(|region| part(&self.compute, region));
        let (Some(token), Some(logits)) = (of("token"), of("logits")) else { return Vec::new() };
        let last = [arena.part("batch"), arena.part("stream"), self.norm.as_entire_binding(), token.clone()];
        let last = Step::new(gpu, &self.pipelines.last, 0, &last, Work::Rows(1), Tokens::Any);
        let of = |piece: &Piece| {
            let resources = [piece.told.as_entire_binding(), piece.weights.as_entire_binding(), token.clone(), logits.clone()];
            Step::new(gpu, &self.pipelines.logits, 0, &resources, Work::Rows(piece.rows as u32), Tokens::Any)
        };
        std::iter::once(last).chain(self.pieces.iter().map(of)).collect()
    }

    /// Puts the copy of logits to where they are read from behind the steps.
    pub(crate) fn told(&self, commands: &mut wgpu::CommandEncoder) {
        if let Some(logits) = self.regions.region("logits") {
            commands.copy_buffer_to_buffer(&self.compute, logits.offset, &self.results, 0, logits.bytes);
        }
    }

    /// Waits, and copies logits; there are as many as `to` has.
    pub(crate) fn read(&self, gpu: &Gpu, to: &mut [f32]) -> Result<(), GpuError> {
        gpu.read(&self.results, to)
    }

    /// Logits that it computes.
    pub(crate) fn n_vocab(&self) -> usize {
        self.pieces.iter().map(|piece| piece.rows).sum()
    }
}

/// Rows from `first` on in a buffer of their own.
fn piece(gpu: &Gpu, table: &DenseMatrix, first: usize, rows: usize) -> Result<Piece, GpuError> {
    let row = table.chunked_row();
    let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST;
    let weights = gpu.buffer("the output head", (rows * row) as u64, usage)?;
    let some = (STAGED / row).max(1);
    for done in (0..rows).step_by(some) {
        let bytes = table.chunked(first + done, some.min(rows - done));
        gpu.queue.write_buffer(&weights, (done * row) as u64, &bytes);
        gpu.flush()?;
    }
    let told = gpu.buffer("a shape", SHAPE, wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST)?;
    let (chunks, used) = table.chunks();
    let of = Told { rows: rows as u32, first: first as u32, chunks: chunks as u32, used: used as u32, unused: [0; 4] };
    gpu.queue.write_buffer(&told, 0, bytemuck::bytes_of(&of));
    gpu.flush()?;
    Ok(Piece { weights, told, rows })
}
